"""One run of a function as a recording: its program, and what is in- and outside of it."""

from __future__ import annotations

import sys
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .. import backends
from ..nn import Module
from ..tape import Leaf, owner_of
from ..tensor import Tensor
from ..trees import flatten
from . import recorder
from .guards import is_plain, unwrapped
from .program import Input, Program, Value
from .recorder import CompileError, RecordedArray, Trace


class DerivedOutside(Exception):
    """A result is on the tape of an argument: a derivative is being taken from outside."""


@dataclass(frozen=True)
class Sink:
    """A leaf that has a gradient: one that is closed over, or an argument's, by its number."""

    leaf: Leaf | None
    argument: int | None


@dataclass(frozen=True, eq=False)
class Recording:
    """A program, and what its inputs and outputs are outside.

    Attributes:
        program: its outputs are first the results that are arrays, then the gradients. The source
            of an input of kind "gradient" is a `Sink`.
        result: the tree of the result; its leaves are `Made`, or objects as they are.
        gradients: (where it goes, number of the output or None for no gradient).
        first_gradients: (leaf, the strides of its gradient or None), of those that were asked.
        tensors: (a weak reference to a tensor, its array, its node), of those it closes over.
        optimizers: those whose learning rate was set.
    """

    program: Program
    result: Any
    gradients: tuple[tuple[Sink, int | None], ...]
    first_gradients: tuple[tuple[Sink, tuple[int, ...] | None], ...]
    tensors: tuple[tuple[weakref.ref[Tensor], Any, Any], ...]
    optimizers: tuple[Any, ...]


@dataclass(frozen=True)
class Made:
    """A leaf of a result: an output as a "tensor" or an "array", or an "argument"; its number."""

    kind: str
    number: int


def record(
    f: Callable[..., Any],
    leaves: list[Any],
    rebuild: Callable[[list[Any]], Any],
    prepare: Callable[[Recording, list[Any]], object] = lambda recording, inputs: None,
) -> tuple[Recording, list[Any], list[Any]]:
    """Run `f` once, and write its program down.

    Args:
        leaves: of the arguments, arrays and Tensors among them.
        rebuild: from leaves to (args, kwargs).
        prepare: called with the recording and the arrays of the inputs before anything is stored:
            if it raises, nothing has been changed.

    Returns:
        The recording, and the arrays of the program's outputs and inputs in this run. What the
        program updates has been stored; the gradients have not.

    Raises:
        CompileError: if a recording would be wrong in later calls; nothing has been changed then.
    """
    with recorder.recording() as trace:
        try:
            inside = [trace.argument(x, i) if is_array(x) else x for i, x in enumerate(leaves)]
            args, kwargs = rebuild(inside)
            out = f(*args, **kwargs)
            if trace.refused is not None:  # and the function has caught it
                raise trace.refused
            made = _Result(f, trace, leaves, inside, out)
        except (CompileError, DerivedOutside):
            trace.take_back_draws()
            raise
        finally:
            inside = args = kwargs = out = None  # type: ignore[assignment]
            trace.close()
    try:
        _check_captured(f, made.recording.program.inputs, made.targets)
        prepare(made.recording, made.inputs)
        store(made.targets, made.updates)
    except BaseException:
        trace.take_back_draws()
        raise
    return made.recording, made.outputs, made.inputs


def is_array(x: Any) -> bool:
    if isinstance(x, Tensor):
        return True
    return not isinstance(x, np.generic) and backends.find_backend(type(x)) is not None


def place_of(f: Any) -> str:
    """Where a function is defined, for messages."""
    code = getattr(unwrapped(f), "__code__", None)
    name = getattr(f, "__name__", type(f).__name__)
    return f"{name}: " if code is None else f"{code.co_filename}:{code.co_firstlineno}: {name}: "


class _Result:
    """What a recorded run came to, not yet stored outside."""

    def __init__(
        self, f: Any, trace: Trace, leaves: list[Any], inside: list[Any], out: Any
    ) -> None:
        self._f = f
        self._outputs: list[RecordedArray] = []
        self._inside = inside
        self._nodes = [getattr(x, "node", None) for x in leaves]
        found, rebuild = flatten(out)
        result = rebuild([self._result(x) for x in found])
        gradients: list[tuple[Sink, int | None]] = []
        for leaf, gradient in trace.gradients.items():
            if trace.first_gradients.get(leaf, trace) is not gradient:
                number = None if gradient is None else self._output(gradient.data)
                gradients.append((self._sink(leaf), number))
        self._check_leaves(trace)
        first = [
            (self._sink(leaf), None if x is None else recorder.outside_data(x).strides)
            for leaf, x in trace.first_gradients.items()
        ]
        written = [(i, x) for i, x in trace.roots if x.version and i.kind != "constant"]
        _check_memory(f, trace.arrays, [given.value for given, _ in written])
        # views are taken again where they are asked for, by instructions of their own
        outputs = tuple(x.value for x in self._outputs)
        updates = tuple((given.value, x.value) for given, x in written)
        program = Program(
            tuple(
                i._replace(source=self._sink(i.source)) if i.kind == "gradient" else i
                for i in trace.inputs
            ),
            tuple(trace.instructions),
            outputs,
            updates,
        )
        tensors = [(weakref.ref(t), array, t.node) for t, array in trace.tensors]
        self.recording = Recording(
            program,
            result,
            tuple(gradients),
            tuple(first),
            tuple(tensors),
            tuple(trace.rated.values()),
        )
        self.targets = [trace.arrays[given.value] for given, _ in written]
        self.updates = [x.array for _, x in written]
        self.outputs = [x.array for x in self._outputs]
        self._given = {
            given.value: array
            for given, array in ((i, trace.arrays[i.value]) for i in trace.inputs)
            if given.kind in ("argument", "gradient")
        }

    @property
    def inputs(self) -> list[Any]:
        """The arrays of the inputs."""
        return [self._given.get(i.value, i.source) for i in self.recording.program.inputs]

    def _sink(self, leaf: Leaf) -> Sink:
        for i, x in enumerate(self._inside):
            if isinstance(x, Tensor) and x.node is leaf:
                return Sink(None, i)
        return Sink(leaf, None)

    def _check_leaves(self, trace: Trace) -> None:
        """Refuse a leaf that comes in on two ways, as its gradients would then be two."""
        asked = [self._sink(leaf) for leaf in {**trace.gradients, **trace.first_gradients}]
        leaves = [x.leaf if x.argument is None else self._nodes[x.argument] for x in asked]
        if len(set(map(id, leaves))) < len(leaves):
            raise CompileError(
                f"{place_of(self._f)}an argument that requires a gradient is given twice, or is "
                "closed over too, and its gradient is taken inside: give it once"
            )

    def _result(self, x: Any) -> Any:
        if isinstance(x, RecordedArray):
            return Made("array", self._output(x))
        if isinstance(x, Tensor):
            for i, given in enumerate(self._inside):
                if given is x:
                    return Made("argument", i)
            if not isinstance(recorder.outside_data(x), RecordedArray):
                return x
            if x.node is not None and x.node.edges is not None:  # and was not released
                self._check_tape(x.node)
            return Made("tensor", self._output(x.data))
        if is_plain(x) or isinstance(x, (Module, np.dtype, backends.Device, type)):
            return x
        raise CompileError(
            f"{place_of(self._f)}a result is a {type(x).__name__}, which would be the same object "
            "in every call: return tensors, arrays and constants, in lists, tuples and dicts"
        )

    def _check_tape(self, node: Any) -> None:
        """Refuse a result with a tape, which a replay does not make."""
        mine = {x.node for x in self._inside if isinstance(x, Tensor) and x.node is not None}
        seen, todo = {node}, [node]
        while todo:
            for parent, *_ in todo.pop().edges or ():
                if parent not in seen:
                    seen.add(parent)
                    todo.append(parent)
        if seen & mine:
            raise DerivedOutside
        raise CompileError(
            f"{place_of(self._f)}a result requires a gradient, and its tape would be lost: return "
            "it detached (x.detach()), or take the gradient inside of the compiled function"
        )

    def _output(self, x: RecordedArray) -> int:
        self._outputs.append(x)
        return len(self._outputs) - 1


def _check_memory(f: Any, arrays: Mapping[Value, Any], written: Iterable[Value]) -> None:
    """Refuse inputs that share the memory of one that is written."""
    for value in written:
        for other, array in arrays.items():
            if other is not value and shares(array, arrays[value]):
                raise CompileError(
                    f"{place_of(f)}an array of shape {value.shape} is written that shares its "
                    f"memory with another one, of shape {other.shape}, that is used too: use a "
                    "copy of one of them, or a view that is taken inside"
                )


def shares(a: Any, b: Any) -> bool:
    """Whether two arrays may share memory, by the bounds of their memory."""
    if owner_of(a) is not owner_of(b):
        return False
    xp = recorder.real_of(type(a)).xp
    return bool(xp.may_share_memory(a, b))


def _check_captured(f: Any, inputs: Iterable[Input], written: list[Any]) -> None:
    """Refuse arrays that nobody else holds: what made them is not gpugrad, and may differ later."""
    for given in inputs:
        if given.kind == "captured":
            array = given.source
            owner = owner_of(array)
            ours = 2 + (owner is array)  # the input, `array`, `owner`; of a view it, and `owner`
            ours += any(x is owner for x in written)
            if sys.getrefcount(owner) - 1 <= ours and (
                owner is array or sys.getrefcount(array) - 1 <= 2 + any(x is array for x in written)
            ):
                raise CompileError(
                    f"{place_of(f)}an array of shape {array.shape} and dtype {array.dtype} was "
                    "made inside by something else than gpugrad (numpy.random?), and would be the "
                    "same in every call: make it outside, or with gpugrad's functions"
                )


def store(targets: Sequence[Any], arrays: Sequence[Any]) -> None:
    """Write arrays into others; nothing is written if one of these is read-only."""
    for target in targets:
        if not getattr(target.flags, "writeable", True):  # only NumPy has such arrays
            raise ValueError(
                f"a compiled function writes an array of shape {target.shape}, which is read-only"
            )
    for target, array in zip(targets, arrays, strict=True):
        target[...] = array
