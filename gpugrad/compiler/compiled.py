"""`compile`: what a function computes is written down in its first call, and then replayed."""

from __future__ import annotations

import functools
import inspect
import sys
import threading
import types
import warnings
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, ParamSpec, TypeVar, overload

import numpy as np

from .. import backends, batching, modes, tape
from ..nn import Module
from ..rules import as_array, hindered
from ..tape import Leaf, mark_owners_changed, owner_of
from ..tensor import Tensor
from ..trees import flatten
from . import cpu, cuda, recorder
from .checking import checked
from .guards import ABSENT, Writer, is_plain, same, unwrapped, watch, write_watched
from .program import Input, Program, Value, map_values, perform
from .recorder import CompileError, RecordedArray, Trace

P = ParamSpec("P")
R = TypeVar("R")


class CompileWarning(UserWarning):
    """A compiled function is called with ever new signatures; says what changes."""


class _DerivedOutside(Exception):
    """A result is on the tape of an argument: a derivative is being taken from outside."""


# ---- recording


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
    f: Callable[..., Any], leaves: list[Any], rebuild: Callable[[list[Any]], Any]
) -> tuple[Recording, list[Any], list[Any]]:
    """Run `f` once, and write its program down.

    Args:
        leaves: of the arguments, arrays and Tensors among them.
        rebuild: from leaves to (args, kwargs).

    Returns:
        The recording, and the arrays of the program's outputs and inputs in this run. What the
        program updates has been stored; the gradients have not.

    Raises:
        CompileError: if a recording would be wrong in later calls; nothing has been changed then.
    """
    with recorder.recording() as trace:
        try:
            inside = [trace.argument(x, i) if _is_array(x) else x for i, x in enumerate(leaves)]
            args, kwargs = rebuild(inside)
            made = _Result(f, trace, leaves, inside, f(*args, **kwargs))
        except (CompileError, _DerivedOutside):
            trace.take_back_draws()
            raise
        finally:
            inside = args = kwargs = None  # type: ignore[assignment]
            trace.close()
    try:
        _check_captured(f, made.recording.program.inputs, made.targets)
        store(made.targets, made.updates)
    except BaseException:
        trace.take_back_draws()
        raise
    return made.recording, made.outputs, made.inputs


def _is_array(x: Any) -> bool:
    if isinstance(x, Tensor):
        return True
    return not isinstance(x, np.generic) and backends.find_backend(type(x)) is not None


def _at(f: Any) -> str:
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
                f"{_at(self._f)}an argument that requires a gradient is given twice, or is closed "
                "over too, and its gradient is taken inside: give it once"
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
            f"{_at(self._f)}a result is a {type(x).__name__}, which would be the same object in "
            "every call: return tensors, arrays and constants, in lists, tuples and dicts"
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
            raise _DerivedOutside
        raise CompileError(
            f"{_at(self._f)}a result requires a gradient, and its tape would be lost: return "
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
                    f"{_at(f)}an array of shape {value.shape} is written that shares its "
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
                    f"{_at(f)}an array of shape {array.shape} and dtype {array.dtype} was "
                    "made inside by something else than gpugrad (numpy.random?), and would be the "
                    "same in every call: make it outside, or with gpugrad's functions"
                )


# ---- execution


def store(targets: Sequence[Any], arrays: Sequence[Any]) -> None:
    """Write arrays into others; nothing is written if one of these is read-only."""
    for target in targets:
        if not getattr(target.flags, "writeable", True):  # only NumPy has such arrays
            raise ValueError(
                f"a compiled function writes an array of shape {target.shape}, which is read-only"
            )
    for target, array in zip(targets, arrays, strict=True):
        target[...] = array


class Interpreter:
    """A program as a function: one call of the array library after the other.

    The specification of what emitters make of a program: given the arrays of `program.inputs`, in
    order, it returns those of `program.outputs`, which are the caller's, and stores the updates in
    the arrays of the inputs when all that may fail is done.
    """

    def __init__(self, program: Program) -> None:
        self.program = program
        self._numbers = {given.value: i for i, given in enumerate(program.inputs)}

    def __call__(self, arrays: Sequence[Any]) -> list[Any]:
        program = self.program
        known = dict(zip(self._numbers, arrays, strict=True))
        for step in program.instructions:
            args, options = map_values(known.__getitem__, (step.args, step.options))
            device = step.results[0].device
            backend = backends.backend_of_kind(device.kind)
            with backend.scope(device):
                out = perform(backend.xp, step.function, args, options)
            made = map(as_array, out if step.several else (out,))  # no numbers of NumPy's
            known.update(zip(step.results, made, strict=True))
        targets = [arrays[self._numbers[held]] for held, _ in program.updates]
        owners = set(map(id, map(owner_of, targets)))
        found = [known[value] for value in program.wanted()]
        # what shows the memory that is going to be written is what was there before
        found = [x.copy() if id(owner_of(x)) in owners else x for x in found]
        count = len(program.outputs)
        store(targets, found[count:])
        return found[:count]


def build(
    program: Program, arrays: Sequence[Any], leaves: Mapping[int, Leaf]
) -> Callable[[Sequence[Any]], Sequence[Any]]:
    """What runs a program: as `Interpreter`, but for where results lie in memory.

    Args:
        arrays: of the inputs, as those of later calls are.
        leaves: number of an output -> the leaf whose `.grad` it will be.
    """
    devices = {given.value.device for given in program.inputs}
    devices |= {x.device for step in program.instructions for x in step.results}
    if {x.kind for x in devices} == {"cpu"}:
        return cpu.Runner(program, arrays, leaves)
    if len(devices) == 1:
        return cuda.Runner(program, arrays, leaves)
    return Interpreter(program)


class Step:
    """A program that was recorded, and what leads to it and from it.

    Attributes:
        program: what is computed.
        runner: what runs it (see `Interpreter`); None where `f` itself must run.
        bind: from (args, kwargs) to the arrays of the program's inputs; None if it was recorded for
            something else.
        finish: from outputs, inputs, args and kwargs to the result; sets gradients.
        described: what it was recorded for, in words, by name.
        checks: how many calls are still to be compared with `f` itself.
    """

    def __init__(
        self,
        recording: Recording | None,
        inputs: Sequence[Any],
        signature: _Signature,
        checks: int,
    ) -> None:
        signature.watch()
        self.recording = recording
        self.checks = checks
        self.lock = threading.Lock()
        self.described = signature.described
        self.program: Program | None = None
        self.runner: Callable[[Sequence[Any]], Sequence[Any]] | None = None
        names = {}
        if recording is not None:
            names = _names(recording, signature)
            self.program = replace(recording.program, names=names)
            leaves = {n: x.leaf for x, n in recording.gradients if n is not None and x.leaf}
            self.runner = build(self.program, inputs, leaves)
            self.finish = _write_finish(recording, signature)
            for sink, strides in recording.first_gradients:
                name = signature.leaf_name(sink)
                self.described[f"{name}.grad"] = "None" if strides is None else "not None"
        self.names = names
        self.bind = _write_bind(recording, signature)


def _settings() -> list[tuple[str, Any, Callable[[], Any]]]:
    """The modes that a program depends on: name, value, and what asks for it."""
    asked: list[tuple[str, Callable[[], Any]]] = [
        ("no_grad", tape.recording),
        ("deterministic", modes.is_deterministic),
        ("check_bounds", modes.checks_bounds),
        ("the device of a with block", backends._overrides.get),
    ]
    return [(name, ask(), ask) for name, ask in asked]


class _Signature:
    """What a call depends on: the code that looks for it, and how it reads."""

    def __init__(self, f: Any, args: tuple, kwargs: dict) -> None:
        self.leaves: list[Any] = []
        self.paths: list[str] = []  # of the leaves, from the arguments
        self.arrays: list[str] = []  # of their arrays
        self.labels: list[str] = []
        self.described: dict[str, str] = {}
        self.writer = writer = Writer("def bind(args, kwargs):")
        writer.refuse_if(f"{writer.name(recorder.current)}() is not None")
        for name, value, ask in _settings():
            self.described[name] = str(value)
            found = f"(x := {writer.name(ask)}())"
            writer.refuse_if(f"{found} is not {writer.name(value)} and x != {writer.name(value)}")
        writer.line("try:")
        code = getattr(unwrapped(f), "__code__", None)
        self._parameters = [] if code is None else list(code.co_varnames[: code.co_argcount])
        if not isinstance(f, types.FunctionType):
            self._parameters = self._parameters[1:]
        self._branch(args, "args", "args", None)
        self._branch(kwargs, "kwargs", "kwargs", None)
        objects = {
            label: x
            for label, x in zip(self.labels, self.leaves, strict=True)
            if not (_is_array(x) or is_plain(x))
        }
        self.watched = watch(f, objects)
        for x in self.watched:
            if is_plain(x.value):
                self.described[x.name] = repr(x.value)
            elif not isinstance(x.holder, list) and x.value is not ABSENT:
                self.described[x.name] = f"a {type(x.value).__name__} at {id(x.value):#x}"
        self.names = {id(x.value): x.name for x in reversed(self.watched)}

    def watch(self) -> None:
        """Look for what is closed over, but for what the call itself has changed since."""
        self.watched = [x for x in self.watched if x.is_unchanged()]
        writer = self.writer
        write_watched(writer, self.watched)
        # the default device may have been found in the call
        default, found = writer.name(backends._default), f"{writer.name(backends)}._default"
        self.described["the default device"] = str(backends._default)
        writer.refuse_if(f"{found} is not {default} and {found} != {default}", 2)

    def leaf_name(self, sink: Sink) -> str:
        """The name of a leaf, for messages."""
        if sink.argument is not None:
            return self.labels[sink.argument]
        for x in self.watched:
            if isinstance(x.value, Tensor) and x.value.node is sink.leaf:
                return x.name
        return "a tensor"

    def _label(self, label: str | None, key: Any) -> str:
        if label is not None:
            return f"{label}[{key!r}]"
        if isinstance(key, str):
            return key
        return self._parameters[key] if key < len(self._parameters) else f"args[{key}]"

    def _branch(self, tree: Any, name: str, path: str, label: str | None) -> None:
        """A list, tuple or dict: `name` is a variable, `path` leads there from the arguments."""
        writer = self.writer
        if isinstance(tree, dict):
            keys = tuple(tree)
            wrong = f"tuple({name}) != {writer.name(keys)}"
            items: Iterable[tuple[Any, Any]] = tree.items()
        else:
            wrong = f"len({name}) != {len(tree)}"
            items = enumerate(tree)
        if label is not None:
            wrong = f"type({name}) is not {writer.name(type(tree))} or {wrong}"
            self.described[label] = f"a {type(tree).__name__} of {len(tree)}"
        writer.refuse_if(wrong, 2)
        for key, x in items:
            index = key if isinstance(key, int) and not isinstance(tree, dict) else writer.name(key)
            below = self._label(label, key)
            if isinstance(x, (dict, list, tuple)):
                inner = f"t{len(writer.lines)}"
                writer.line(f"{inner} = {name}[{index}]", 2)
                self._branch(x, inner, f"{path}[{index}]", below)
            else:
                self._leaf(x, f"{name}[{index}]", f"{path}[{index}]", below)

    def _leaf(self, x: Any, expression: str, path: str, label: str) -> None:
        writer, number = self.writer, len(self.leaves)
        name, array = f"a{number}", ""
        self.leaves.append(x)
        self.labels.append(label)
        writer.line(f"{name} = {expression}", 2)
        if _is_array(x):
            writer.refuse_if(f"type({name}) is not {writer.name(type(x))}", 2)
            data, array = x, name
            if isinstance(x, Tensor):
                data, array = recorder.outside_data(x), f"d{number}"
                writer.line(f"{array} = {name}.data", 2)
                if x.node is None:
                    writer.refuse_if(f"{name}.node is not None", 2)
                else:
                    writer.line(f"n{number} = {name}.node", 2)
                    writer.refuse_if(f"type(n{number}) is not {writer.name(Leaf)}", 2)
                    _write_hooks(writer, f"n{number}", x.node)
            array = self._array(data, array)
            grad = ", requires a gradient" if getattr(x, "node", None) is not None else ""
            order = f", strides {data.strides}"
            self.described[label] = (
                f"{data.dtype} {data.shape} on {backends.device_of(data)}{order}{grad}"
            )
        else:
            value = writer.name(x)
            self.described[label] = repr(x) if is_plain(x) else f"a {type(x).__name__} {id(x):#x}"
            if x is None or isinstance(x, bool):
                writer.refuse_if(f"{name} is not {value}", 2)
            else:
                compare = writer.name(same if is_plain(x) else _equal)
                writer.refuse_if(f"{name} is not {value} and not {compare}({name}, {value})", 2)
            if not is_plain(x):
                _check_hash(x)
        self.paths.append(path)
        self.arrays.append(array)

    def _array(self, data: Any, name: str) -> str:
        """Write what is asked of an array; the expression of the plain array."""
        writer = self.writer
        kind = type(data)
        wrong = [f"type({name}) is not {writer.name(kind)}"] if name[0] == "d" else []
        wrong.append(f"{name}.shape != {writer.name(data.shape)}")
        wrong.append(f"{name}.dtype != {writer.name(data.dtype)}")
        wrong.append(f"{name}.strides != {writer.name(data.strides)}")
        where = backends.device_of(data)
        if where.kind != "cpu":
            wrong.append(f"{writer.name(backends.device_of)}({name}) != {writer.name(where)}")
        writer.refuse_if(" or ".join(wrong), 2)
        if kind is recorder.real_of(kind).array_type:
            return name
        return f"{writer.name(_plain_array)}({name})"


def _plain_array(x: Any) -> Any:
    backend = backends.backend_of(x)
    return backend.asarray(x, None, backend.device_of(x), None)


def _check_hash(x: Any) -> None:
    try:
        hash(x)
    except TypeError:
        raise TypeError(
            f"gpugrad.compile: an argument is a {type(x).__name__}, which is neither an array nor "
            "a constant (it has no hash): close over it, or make an array of it"
        ) from None


def _equal(a: Any, b: Any) -> bool:
    """Whether two objects are the same to a program: by their own `==`, as keys of a dict are."""
    if type(a) is not type(b):
        return False
    try:
        return hash(a) == hash(b) and bool(a == b)
    except TypeError:
        return False


def _names(recording: Recording, signature: _Signature) -> dict[Value, str]:
    """Names of the inputs, as the user has them."""
    names = {}
    of_array = {id(array): signature.names.get(id(t())) for t, array, _ in recording.tensors}
    for value, kind, source in recording.program.inputs:
        if kind == "argument":
            name: str | None = signature.labels[source]
        elif kind == "gradient":
            name = f"{signature.leaf_name(source)}.grad"
        else:
            name = of_array.get(id(source)) or signature.names.get(id(source))
        if name is not None:
            names[value] = name
    for sink, number in recording.gradients:
        if number is not None:
            names[recording.program.outputs[number]] = f"{signature.leaf_name(sink)}.grad"
    return names


def _write_bind(recording: Recording | None, signature: _Signature) -> Callable[..., Any]:
    """The function from a call's arguments to the arrays of the program's inputs, or None."""
    writer = signature.writer
    found: list[str] = []
    if recording is not None:
        for reference, array, node in recording.tensors:
            tensor = f"(x := {writer.name(reference)}())"
            kept = f"x.data is not {writer.name(array)} or x.node is not {writer.name(node)}"
            writer.refuse_if(f"{tensor} is None or {kept}", 2)
            if node is not None:
                _write_hooks(writer, writer.name(node), node)
        grads = _write_gradients(recording, signature)
        _write_memory(recording, signature)
        for _, kind, source in recording.program.inputs:
            if kind == "argument":
                found.append(signature.arrays[source])
            elif kind == "gradient":
                found.append(f"{grads[source]}.data")
            else:
                found.append(writer.name(source))
    writer.line(f"out = [{', '.join(found)}]", 2)
    writer.line("except (AttributeError, IndexError, KeyError, ValueError):")
    writer.line("return None", 2)  # something of that name is not there any more
    if recording is not None and any(
        given.kind != "captured"
        for given in recording.program.inputs
        for held, _ in recording.program.updates
        if held is given.value
    ):
        overlap = functools.partial(_overlaps, _written_numbers(recording))
        writer.refuse_if(f"{writer.name(overlap)}(out)")
    writer.line("return out")
    return writer.made()


def _write_hooks(writer: Writer, name: str, node: Any) -> None:
    """Look whether a leaf has the hooks it had."""
    hooks = list(node.hooks or ())
    wrong = f"{name}.hooks != {writer.name(hooks)}" if hooks else f"{name}.hooks"
    writer.refuse_if(wrong, 2)


def _write_gradients(recording: Recording, signature: _Signature) -> dict[Sink, str]:
    """Look whether leaves have a gradient where they had one; the names of these gradients."""
    writer = signature.writer
    names: dict[Sink, str] = {}
    nodes = {
        sink: writer.name(sink.leaf) if sink.argument is None else f"n{sink.argument}"
        for sink, _ in (*recording.first_gradients, *recording.gradients)
    }
    for sink, strides in recording.first_gradients:
        if strides is None:
            writer.refuse_if(f"{nodes[sink]}.grad is not None", 2)
            continue
        name = names[sink] = f"g{len(names)}"
        writer.line(f"{name} = {nodes[sink]}.grad", 2)
        wrong = f"{name} is None or {name}.data.strides != {writer.name(strides)}"
        writer.refuse_if(wrong, 2)
    mine = [node for sink, node in nodes.items() if sink.argument is not None]
    for node in mine:
        others = ", ".join(x for x in nodes.values() if x is not node)
        if others:
            writer.refuse_if(f"any({node} is x for x in ({others},))", 2)
    return names


def _write_memory(recording: Recording, signature: _Signature) -> None:
    """Look whether an argument is in memory that is written."""
    held = {value for value, _ in recording.program.updates}
    owners = {
        id(owner_of(given.source))
        for given in recording.program.inputs
        if given.kind == "captured" and given.value in held
    }
    if not owners:
        return
    writer = signature.writer
    known, owner = writer.name(frozenset(owners)), writer.name(owner_of)
    for array in filter(None, signature.arrays):
        base = f"{array} if {array}.base is None else {owner}({array})"
        writer.refuse_if(f"id({base}) in {known}", 2)


def _written_numbers(recording: Recording) -> list[int]:
    held = {value for value, _ in recording.program.updates}
    return [i for i, given in enumerate(recording.program.inputs) if given.value in held]


def _overlaps(written: Sequence[int], arrays: Sequence[Any]) -> bool:
    """Whether an array that is written shares its memory with another one."""
    return any(
        i != j and shares(array, arrays[i]) for i in written for j, array in enumerate(arrays)
    )


def _write_finish(recording: Recording, signature: _Signature) -> Callable[..., Any]:
    """The function that makes the result of a call from the outputs of the program."""
    writer = Writer("def finish(o, arrays, args, kwargs):", like=signature.writer)
    make = writer.name(Tensor)
    sources = recording.program.inputs
    owners, others = [], []
    for i in _written_numbers(recording):
        if sources[i].kind == "captured":
            owners.append(owner_of(sources[i].source))
        else:
            others.append(f"{writer.name(owner_of)}(arrays[{i}])")
    if owners or others:
        known = writer.name(tuple(owners))
        changed = f"({', '.join([f'*{known}', *others])},)" if others else known
        writer.line(f"{writer.name(mark_owners_changed)}({changed})")
    for sink, number in recording.gradients:
        if sink.argument is None:
            node = writer.name(sink.leaf)
        else:
            node = f"{signature.paths[sink.argument]}.node"
        new = "None" if number is None else f"{make}(o[{number}], None)"
        writer.line(f"{node}.grad = {new}")
    for optimizer in recording.optimizers:
        writer.line(f"{writer.name(optimizer)}._lr = None")  # the array holds it
    writer.line(f"return {_expression(recording.result, writer, signature)}")
    return writer.made()


def _expression(tree: Any, writer: Writer, signature: _Signature) -> str:
    """The expression of a result."""
    if isinstance(tree, Made):
        if tree.kind == "argument":
            return signature.paths[tree.number]
        array = f"o[{tree.number}]"
        return array if tree.kind == "array" else f"{writer.name(Tensor)}({array}, None)"
    if type(tree) is tuple:
        return "".join(["(", *(f"{_expression(x, writer, signature)}, " for x in tree), ")"])
    if type(tree) is list:
        return f"[{', '.join(_expression(x, writer, signature) for x in tree)}]"
    if type(tree) is dict:
        items = (f"{writer.name(k)}: {_expression(x, writer, signature)}" for k, x in tree.items())
        return f"{{{', '.join(items)}}}"
    if isinstance(tree, (tuple, list, dict)):
        leaves, rebuild = flatten(tree)
        return f"{writer.name(rebuild)}({_expression(leaves, writer, signature)})"
    return writer.name(tree)


# ---- calls


class _Recordings:
    """The steps that were recorded of a function, or of a method of one instance."""

    def __init__(self, owner: int | None = None) -> None:
        self.owner = owner  # the id of the instance
        self.steps: list[Step] = []
        self.last: Step | None = None
        self.has_warned = False

    def __reduce__(self) -> Any:
        return _Recordings, ()  # a copy of an instance has recordings of its own


class Compiled(Generic[P, R]):
    """What `gpugrad.compile` gives: called as the function that it was made of.

    Attributes:
        steps: what was recorded so far.
    """

    _f: Any
    _checks: int
    _limit: int
    _recordings: _Recordings

    def __init__(self, f: Callable[P, R], checks: int, limit: int) -> None:
        functools.update_wrapper(self, f, updated=())
        self._f = f
        self._checks = checks
        self._limit = limit
        self._recordings = _Recordings()

    @property
    def steps(self) -> list[Step]:
        """What was recorded so far, one per signature."""
        return list(self._recordings.steps)

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        """As a method: each instance has recordings of its own, which go with it."""
        if instance is None:
            return self
        own = getattr(instance, "__dict__", None)
        if type(own) is not dict:
            raise TypeError(
                f"gpugrad.compile: a {type(instance).__name__} has no __dict__ to keep the "
                "recordings of its methods in: leave out __slots__"
            )
        name = f"_compiled_{self._f.__name__}"
        found = own.get(name)
        if found is None or found.owner != id(instance):
            found = own[name] = _Recordings(id(instance))
        bound = object.__new__(Compiled)
        bound._f = bound.__wrapped__ = types.MethodType(self._f, instance)  # type: ignore
        bound._checks, bound._limit, bound._recordings = self._checks, self._limit, found
        return bound

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        step = self._recordings.last
        if step is None or (arrays := step.bind(args, kwargs)) is None:
            return self._look(args, kwargs)
        return self._run(step, arrays, args, kwargs)

    def _run(self, step: Step, arrays: list[Any], args: tuple, kwargs: dict) -> Any:
        if step.checks:
            step.checks -= 1
            return checked(step, self._f, arrays, args, kwargs)
        if step.runner is None:
            return self._f(*args, **kwargs)
        try:
            with step.lock:  # a runner has buffers of its own
                outputs = step.runner(arrays)
        except backends.hindrances as error:
            raise hindered("compile", f"in {_at(self._f)}nothing was changed", error) from None
        return step.finish(outputs, arrays, args, kwargs)

    def _look(self, args: tuple, kwargs: dict) -> Any:
        """A call that the last step was not recorded for."""
        recordings = self._recordings
        for step in recordings.steps:
            if (arrays := step.bind(args, kwargs)) is not None:
                recordings.last = step
                return self._run(step, arrays, args, kwargs)
        leaves, rebuild = flatten((args, kwargs))
        if recorder.current() is not None or batching.depth() or any(map(_is_derived, leaves)):
            return self._f(*args, **kwargs)
        for x in leaves:
            if isinstance(recorder.outside_data(x) if isinstance(x, Tensor) else x, RecordedArray):
                recorder.refuse_escaped()
        if len(recordings.steps) >= self._limit:
            self._warn(args, kwargs)
            return self._f(*args, **kwargs)
        signature = _Signature(self._f, args, kwargs)
        try:
            recording, outputs, inputs = record(self._f, leaves, rebuild)
        except _DerivedOutside:
            recordings.last = Step(None, (), signature, 0)
            recordings.steps.append(recordings.last)
            return self._f(*args, **kwargs)
        step = recordings.last = Step(recording, inputs, signature, self._checks)
        recordings.steps.append(step)
        return step.finish(outputs, inputs, args, kwargs)

    def _warn(self, args: tuple, kwargs: dict) -> None:
        if self._recordings.has_warned:
            return
        self._recordings.has_warned = True
        before = self._recordings.steps[-1].described
        now = _Signature(self._f, args, kwargs).described
        changes = [
            f"{name}: {before.get(name, 'not there')}, then {now.get(name, 'not there')}"
            for name in {**before, **now}
            if before.get(name) != now.get(name) and not name.endswith(".grad")
        ]
        warnings.warn(
            f"gpugrad.compile: {_at(self._f)}it has been recorded {self._limit} times (limit="
            f"{self._limit}), and runs itself for other signatures from now on. What changed last: "
            f"{'; '.join(changes) or 'a gradient, or the array of a tensor that it closes over'}. "
            "Give numbers that change as tensors of shape ().",
            CompileWarning,
            stacklevel=4,
        )


def _is_derived(x: Any) -> bool:
    """Whether a derivative is taken of a call with `x` from outside, or `x` is a batch."""
    if isinstance(x, Tensor):
        return not x.is_leaf or hasattr(x.data, "level")
    return hasattr(x, "level") and _is_array(x)


@overload
def compile(f: Callable[P, R], *, check: bool | int = False, limit: int = 8) -> Compiled[P, R]: ...


@overload
def compile(
    *, check: bool | int = False, limit: int = 8
) -> Callable[[Callable[P, R]], Compiled[P, R]]: ...


def compile(
    f: Callable[..., Any] | None = None, *, check: bool | int = False, limit: int = 8
) -> Any:
    """`f`, whose array operations are written down in its first call and replayed in later ones.

        @gg.compile
        def step(x, labels):
            loss = gg.nn.cross_entropy(net(x), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            return loss

    The first call runs `f` once, as it is, and records every array operation on the way: those of
    derivatives, of optimisers, what is added to `.grad`, and draws of random numbers. Later calls
    run this program without the Python in between. Tensors that `f` closes over (parameters, the
    state of optimisers) are read where they are, and written when all else is computed. Random
    numbers are drawn anew in every call, from the same streams as without.

    A recording is for a signature; another one is recorded afresh. It is made of

    - the arguments, also in lists, tuples and dicts: of tensors and arrays the shape, dtype,
      device, strides, and whether they require a gradient; of other things the value, and its
      type. A number that changes from call to call is best given as a tensor of shape ();
    - what `f` closes over, as far as it can be seen: that its tensors have the memory they had;
      Python constants, functions and objects in its closure, defaults, the globals it names, the
      attributes of `gg.nn.Module`s, and those attributes of other objects that its code names;
    - which leaves have a `.grad` when that is asked, the default device, and `no_grad`,
      `deterministic` and `check_bounds`.

    What `f` does to Python objects (a counter, a list, a file) happens while it is recorded and not
    again; lists and dicts among the arguments are copies inside. What a library other than gpugrad
    computes inside from something else than tensors stays what it was.

    Where a derivative is taken from outside (the result is on the tape of an argument, as in
    `gg.grad(compiled)`), inside of `vmap`, and inside of another compiled function `f` itself runs.
    Exceptions of `f` pass through. When a call that is replayed raises (no memory), parameters,
    gradients and the state of optimisers are as before.

    Args:
        f: a function, a method, or anything that can be called. As a decorator in a class it makes
            methods with recordings of their own for each instance. It returns tensors, arrays and
            constants, also in lists, tuples and dicts.
        check: True, or a number: in the first 3, or so many, calls that are replayed with each
            signature `f` itself runs too, from the same state; the outcome is that of `f`. Results,
            gradients and everything written are compared: to a relative error, against the largest
            entry, of the square root of the epsilon of the dtype; integers exactly.
        limit: how many signatures are recorded; others run `f` itself, with one `CompileWarning`.

    Raises:
        TypeError: for a generator function or coroutine, and in a call for an argument that is
            neither an array nor hashable.
        CompileError: in a first call, for what a recording would get wrong: a branch on a value of
            a tensor, or anything else that looks at one (`float(x)`, `.item()`, `print(x)`, NumPy
            and DLPack); a copy between devices; a shape that depends on values (`nonzero`, a
            boolean mask); numbers from `numpy.random` or `random`; a result whose tape would be
            lost; a tensor from outside that is written on the tape or is computed on one; memory
            that is written and has two names. It says where and the mend; parameters, gradients,
            arguments and random streams (on the CPU) are as before. Also for a tensor made inside
            that is used after the call without being returned, and for a difference that `check`
            finds.
    """
    if f is None:
        return functools.partial(compile, check=check, limit=limit)
    inner = unwrapped(f)
    if not callable(f):
        raise TypeError(f"compile: a {type(f).__name__} is not callable")
    if any(ask(inner) for ask in _RUN_LATER):
        name = getattr(f, "__name__", type(f).__name__)
        raise TypeError(
            f"{_at(f)}{name} runs after it is called, bit by bit, so it cannot be recorded: "
            "compile the function of one step instead"
        )
    return Compiled(f, 3 if check is True else int(check), limit)


_RUN_LATER = (
    inspect.isgeneratorfunction,
    inspect.iscoroutinefunction,
    inspect.isasyncgenfunction,
)
