"""What a call depends on, and what is done before and after its program: as generated code."""

from __future__ import annotations

import functools
import itertools
import types
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from .. import backends, modes, tape
from ..optim import _Optimizer
from ..tape import Leaf, mark_owners_changed, owner_of
from ..tensor import Tensor
from ..trees import flatten
from . import recorder
from .guards import ABSENT, ITEMS, Watched, Writer, is_plain, same, unwrapped, watch, write_watched
from .program import Value
from .recorder import CompileError
from .recording import Made, Recording, Sink, is_array, place_of, shares


def _settings() -> list[tuple[str, Any, Callable[[], Any]]]:
    """The modes that a program depends on: name, value, and what asks for it."""
    asked: list[tuple[str, Callable[[], Any]]] = [
        ("no_grad", tape.recording),
        ("deterministic", modes.is_deterministic),
        ("check_bounds", modes.checks_bounds),
        ("the device of a with block", backends._overrides.get),
    ]
    return [(name, ask(), ask) for name, ask in asked]


_FLAGS = (True, False, None, ABSENT)


class Signature:
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
            if not (is_array(x) or is_plain(x))
        }
        self.f = f
        self.watched, self.streams = watch(f, objects)
        for x in self.watched:
            if is_plain(x.value):
                self.described[x.name] = repr(x.value)
            elif not isinstance(x.holder, ITEMS) and x.value is not ABSENT:
                self.described[x.name] = f"a {type(x.value).__name__} at {id(x.value):#x}"
        self.names = {id(x.value): x.name for x in reversed(self.watched)}

    def watch(self, recording: Recording | None) -> None:
        """Look for what is closed over, but for what the call itself has changed since.

        A flag that it has changed, or what was not there, led to what was recorded: it counts.

        Raises:
            CompileError: if it has put something else where it had found a tensor, or has drawn
                numbers that are not gpugrad's; both are put back.
        """
        for stream in self.streams:
            if not stream.is_unchanged():
                stream.put_back()
                raise CompileError(
                    f"{place_of(self.f)}numbers are drawn from {stream.name}, which would be the "
                    "same in every call: use gpugrad.random, or draw before, and give them as "
                    "arguments"
                )
        kept = []
        for x in self.watched:
            if x.is_unchanged() or any(x.value is flag for flag in _FLAGS):
                kept.append(x)
            elif recording is not None:
                _check_replaced(self.f, x, recording)
        self.watched = kept
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
        if is_array(x):
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


def _check_replaced(f: Any, x: Watched, recording: Recording) -> None:
    """Refuse that a tensor or array which was read is no longer where it was found."""
    read = {id(reference()) for reference, _, _ in recording.tensors} - {id(None)}
    read |= {id(x.source) for x in recording.program.inputs if x.kind == "captured"}
    now = x.now()
    if isinstance(x.holder, ITEMS):
        pairs = list(itertools.zip_longest(x.value, now))
    else:
        pairs = [(x.value, now)]
    if any(a is not b and id(a) in read for a, b in pairs):
        x.put_back()
        raise CompileError(
            f"{place_of(f)}{x.name} was an array that is used, and something else takes its place, "
            "which later calls would not do: write into it inside gpugrad.no_grad(), "
            "x[...] = value, or return what is new"
        )


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


def names_of(recording: Recording, signature: Signature) -> dict[Value, str]:
    """Names of the inputs, as the user has them."""
    names = {}
    of_array = {id(array): signature.names.get(id(t())) for t, array, _ in recording.tensors}
    of_state = dict(_states(signature.watched))
    for value, kind, source in recording.program.inputs:
        if kind == "argument":
            name: str | None = signature.labels[source]
        elif kind == "gradient":
            name = f"{signature.leaf_name(source)}.grad"
        else:
            known = of_array.get(id(source)) or signature.names.get(id(source))
            name = known or of_state.get(id(source))
        if name is not None:
            names[value] = name
    for sink, number in recording.gradients:
        if number is not None:
            names[recording.program.outputs[number]] = f"{signature.leaf_name(sink)}.grad"
    return names


def _states(watched: Iterable[Watched]) -> Iterator[tuple[int, str]]:
    """The arrays that optimisers hold: id and name."""

    def arrays(name: str, x: Any) -> Iterator[tuple[int, str]]:
        if isinstance(x, (list, tuple)):
            for i, item in reversed(list(enumerate(x))):  # of one array the first name stays
                yield from arrays(f"{name}[{i}]", item)
        else:
            yield id(x), name

    for x in watched:
        if isinstance(x.value, _Optimizer):
            for attribute in ("_rates", "_velocities", "_moments", "_tables"):
                state = getattr(x.value, attribute, ())
                yield from arrays(f"{x.name}.{attribute[1:]}", state)


def write_bind(recording: Recording | None, signature: Signature) -> Callable[..., Any]:
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


def _write_gradients(recording: Recording, signature: Signature) -> dict[Sink, str]:
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


def _write_memory(recording: Recording, signature: Signature) -> None:
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


def write_finish(recording: Recording, signature: Signature) -> Callable[..., Any]:
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


def _expression(tree: Any, writer: Writer, signature: Signature) -> str:
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
