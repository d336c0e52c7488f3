"""`compile`: what a function computes is written down in its first call, and then replayed."""

from __future__ import annotations

import functools
import sys
import weakref
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from .. import backends, modes, tape
from ..tape import Leaf, mark_changed, owner_of
from ..tensor import Tensor
from ..trees import flatten
from . import recorder
from .program import Input, Program, Value, map_values, perform
from .recorder import CompileError, RecordedArray, Trace


@dataclass(frozen=True)
class Sink:
    """Where a gradient goes: a leaf, or the leaf of an argument by its number."""

    leaf: Leaf | None
    argument: int | None

    def find(self, arguments: list[Any]) -> Any:
        return self.leaf if self.argument is None else arguments[self.argument].node


@dataclass(frozen=True, eq=False)
class Recording:
    """A program, and what its inputs and outputs are outside.

    Attributes:
        program: its outputs are first the results that are arrays, then the gradients.
        results: per leaf of the result, in order: ("tensor" or "array", number of the output),
            ("argument", its number), or ("object", itself).
        rebuild: from leaves to the result.
        gradients: (where it goes, number of the output or None for no gradient).
        first_gradients: (leaf, whether it had a gradient), of those that were asked.
        tensors: (a weak reference to a tensor, its array), of those that it closes over.
    """

    program: Program
    results: tuple[tuple[str, Any], ...]
    rebuild: Callable[[list[Any]], Any]
    gradients: tuple[tuple[Sink, int | None], ...]
    first_gradients: tuple[tuple[Sink, bool], ...]
    tensors: tuple[tuple[weakref.ref[Tensor], Any], ...]


def record(
    f: Callable[..., Any], leaves: list[Any], rebuild: Callable[[list[Any]], Any]
) -> tuple[Recording, Any]:
    """Run `f` once, and write its program down.

    Args:
        leaves: of the arguments, arrays and Tensors among them.
        rebuild: from leaves to (args, kwargs).

    Returns:
        The recording, and the result of this run.

    Raises:
        CompileError: if a recording would be wrong in later calls; nothing has been changed then.
    """
    with recorder.recording() as trace:
        inside = list(leaves)
        for i, leaf in enumerate(leaves):
            if isinstance(leaf, Tensor):
                array = recorder.outside_data(leaf)
                if not isinstance(array, RecordedArray):
                    trace.know(leaf, trace.enter("argument", array, i))
            elif backends.find_backend(type(leaf)) is not None and not isinstance(leaf, np.generic):
                inside[i] = trace.enter("argument", leaf, i)
        args, kwargs = rebuild(inside)
        try:
            made = _Result(trace, leaves, f(*args, **kwargs))
        finally:
            trace.close()
    _check_captured(made.recording.program.inputs)
    return made.recording, made.store()


class _Result:
    """What a recorded run came to, not yet stored outside."""

    def __init__(self, trace: Trace, leaves: list[Any], out: Any) -> None:
        self._leaves = leaves
        self._outputs: list[RecordedArray] = []
        found, rebuild = flatten(out)
        results = [self._result(x) for x in found]
        gradients = []
        for leaf, gradient in trace.gradients.items():
            if trace.first_gradients.get(leaf, trace) is not gradient:
                number = None if gradient is None else self._output(gradient.data)
                gradients.append((self._sink(leaf), number))
        first = [(self._sink(leaf), x is not None) for leaf, x in trace.first_gradients.items()]
        written = [(i, x) for i, x in trace.roots if x.version and i.kind != "constant"]
        _check_memory(trace.arrays, [given.value for given, _ in written])
        program = Program(
            tuple(trace.inputs),
            tuple(trace.instructions),
            tuple(x.value for x in self._outputs),
            tuple((given.value, x.value) for given, x in written),
        )
        tensors = tuple((weakref.ref(tensor), array) for tensor, array in trace.tensors)
        self.recording = Recording(
            program, tuple(results), rebuild, tuple(gradients), tuple(first), tensors
        )
        self._updates = [(trace.arrays[given.value], x.array) for given, x in written]
        self._arrays = [x.array for x in self._outputs]

    def _sink(self, leaf: Leaf) -> Sink:
        for i, x in enumerate(self._leaves):
            if isinstance(x, Tensor) and x.node is leaf:
                return Sink(None, i)
        return Sink(leaf, None)

    def _result(self, x: Any) -> tuple[str, Any]:
        if isinstance(x, RecordedArray):
            return "array", self._output(x)
        if not isinstance(x, Tensor):
            return "object", x
        for i, leaf in enumerate(self._leaves):
            if leaf is x:
                return "argument", i
        if not isinstance(recorder.outside_data(x), RecordedArray):
            return "object", x
        if x.node is not None and x.node.edges is not None:
            raise CompileError(
                "gpugrad.compile: a result requires a gradient, and its tape would be lost: return "
                "it detached (x.detach()), or take the gradient inside of the compiled function"
            )
        return "tensor", self._output(x.data)

    def _output(self, x: RecordedArray) -> int:
        self._outputs.append(x)
        return len(self._outputs) - 1

    def store(self) -> Any:
        """Store outside what was changed; the result of the call."""
        for target, array in self._updates:
            target[...] = array
            mark_changed(target)
        store_gradients(self.recording, self._arrays, self._leaves)
        return result_of(self.recording, self._arrays, self._leaves)


def _check_memory(arrays: Mapping[Value, Any], written: Iterable[Value]) -> None:
    """Refuse inputs that share the memory of one that is written."""
    owners: dict[int, Value] = {}
    for value, array in arrays.items():
        owners.setdefault(id(owner_of(array)), value)
    for value in written:
        owner = owner_of(arrays[value])
        for other, array in arrays.items():
            if other is not value and owner_of(array) is owner:
                raise CompileError(
                    f"gpugrad.compile: an array of shape {value.shape} is written that shares its "
                    f"memory with another one, of shape {other.shape}, that is used too: use a "
                    "copy of one of them, or a view that is taken inside"
                )


def _check_captured(inputs: Iterable[Input]) -> None:
    """Refuse arrays that nobody else holds: what made them is not gpugrad, and may differ later."""
    for given in inputs:
        if given.kind == "captured":
            array = given.source
            owner = owner_of(array)
            ours = 3 if owner is array else 2  # the input, `array`, `owner`; or a view, and `owner`
            if sys.getrefcount(owner) - 1 <= ours:
                raise CompileError(
                    f"gpugrad.compile: an array of shape {array.shape} and dtype {array.dtype} was "
                    "made inside by something else than gpugrad (numpy.random?), and would be the "
                    "same in every call: make it outside, or with gpugrad's functions"
                )


def store_gradients(recording: Recording, outputs: list[Any], leaves: list[Any]) -> None:
    """Set `.grad` where the recorded step set it."""
    for sink, number in recording.gradients:
        sink.find(leaves).grad = None if number is None else Tensor(outputs[number], None)


def result_of(recording: Recording, outputs: list[Any], leaves: list[Any]) -> Any:
    """The result of a call from the output arrays of the program."""
    found = []
    for kind, x in recording.results:
        if kind == "tensor":
            found.append(Tensor(outputs[x], None))
        elif kind == "array":
            found.append(outputs[x])
        else:
            found.append(leaves[x] if kind == "argument" else x)
    return recording.rebuild(found)


def interpret(program: Program, arrays: Mapping[Value, Any]) -> list[Any]:
    """The outputs and updates of a program for the arrays of its inputs, one call after the other.

    The specification of what emitters make of a program.
    """
    known = dict(arrays)
    for step in program.instructions:
        args, options = map_values(known.__getitem__, (step.args, step.options))
        xp = backends.backend_of_kind(step.results[0].device.kind).xp
        out = perform(xp, step.function, args, options)
        known.update(zip(step.results, out if step.several else (out,), strict=True))
    return [known[value] for value in program.wanted()]


# ---- calls


class _Changed(Exception):
    """What a program was recorded with is not there any more."""


def _describe(tree: Any, leaves: list[Any]) -> Hashable:
    """What a program depends on of an argument; its leaves are added to `leaves`."""
    kind = type(tree)
    if kind is Tensor:
        x = tree.data
        leaves.append(tree)
        if type(x) is np.ndarray:
            return (kind, x.shape, x.dtype, x.strides, tree.node is None)
        return (kind, type(x), x.shape, x.dtype, tree.device, tree.node is None)
    if isinstance(tree, (list, tuple)):
        return (kind, *[_describe(x, leaves) for x in tree])
    if isinstance(tree, dict):
        return (kind, *[(name, _describe(x, leaves)) for name, x in tree.items()])
    leaves.append(tree)
    if not issubclass(kind, np.generic) and backends.find_backend(kind) is not None:
        return (kind, tree.shape, tree.dtype, tree.strides, backends.device_of(tree))
    try:
        hash(tree)
    except TypeError:
        raise TypeError(
            f"gpugrad.compile: an argument is a {kind.__name__}, which is neither an array nor a "
            "constant (it has no hash): close over it, or make an array of it"
        ) from None
    return (kind, tree)


def _settings() -> Hashable:
    """The modes that a program depends on."""
    return (
        tape.recording(),
        modes.is_deterministic(),
        modes.checks_bounds(),
        backends._overrides.get(),
        backends._default,
    )


def _derives(leaves: list[Any]) -> bool:
    """Whether a derivative is being taken of the call from outside, or a batch goes through it."""
    for x in leaves:
        if isinstance(x, Tensor):
            if not x.is_leaf or hasattr(x.data, "level"):
                return True
        elif hasattr(x, "level"):
            return True
    return False


class Step:
    """A program that was recorded, with what it is called with and what it calls for."""

    def __init__(self, recording: Recording) -> None:
        self.recording = recording
        self.program = recording.program

    def fits(self, leaves: list[Any]) -> bool:
        """Whether what it closes over is as it was."""
        for sink, had in self.recording.first_gradients:
            if (sink.find(leaves).grad is not None) != had:
                return False
        for reference, array in self.recording.tensors:
            tensor = reference()
            if tensor is not None and tensor.data is not array:
                return False
        return True

    def __call__(self, leaves: list[Any]) -> Any:
        recording = self.recording
        arrays = {given.value: self._find(given, leaves) for given in self.program.inputs}
        found = interpret(self.program, arrays)
        count = len(self.program.outputs)
        for (held, _), new in zip(self.program.updates, found[count:], strict=True):
            arrays[held][...] = new
            mark_changed(arrays[held])
        store_gradients(recording, found, leaves)
        return result_of(recording, found, leaves)

    def _find(self, given: Input, leaves: list[Any]) -> Any:
        if given.kind == "argument":
            x = leaves[given.source]
            return x.data if isinstance(x, Tensor) else x
        if given.kind == "gradient":
            return given.source.grad.data
        return given.source


class Compiled:
    """What `gpugrad.compile` gives: called as the function that it was made of."""

    def __init__(self, f: Callable[..., Any]) -> None:
        functools.update_wrapper(self, f)
        self._f = f
        self._steps: dict[Hashable, list[Step]] = {}
        self._count = 0

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        leaves: list[Any] = []
        key = (_describe((args, kwargs), leaves), _settings())
        for step in self._steps.get(key, ()):
            if step.fits(leaves):
                return step(leaves)
        if recorder.current() is not None or _derives(leaves):
            return self._f(*args, **kwargs)
        _, rebuild = flatten((args, kwargs))
        recording, out = record(self._f, leaves, rebuild)
        self._steps.setdefault(key, []).append(Step(recording))
        return out


def compile(f: Callable[..., Any]) -> Compiled:
    """`f`, whose array operations are written down in its first call and replayed in later ones."""
    return Compiled(f)
