"""Programs on the CPU: NumPy, and loops in C++ where there is a compiler."""

from __future__ import annotations

import ctypes
import functools
import warnings
from collections.abc import Callable, Mapping, Sequence
from sys import getrefcount
from types import SimpleNamespace
from typing import Any

import numpy as np

from .. import backends
from ..backends import Device
from ..tape import Leaf
from . import host
from .blocks import Blocked
from .emit import Emitter, Names
from .passes import HOST, optimise
from .program import Instruction, Note, Program, Value

# Outputs up to so many bytes are copied for the caller.
_SMALL = 4096


class Runner:
    """A program on the CPU.

    Called with the arrays of all inputs of the program it was made of, in order, it stores the
    updates in them and gives the arrays of the outputs, which are the caller's: their memory is
    used again only when nobody holds them.

    Args:
        arrays: of the inputs; those of later calls have the same shapes, dtypes and strides.
        leaves: number of an output -> the leaf whose `.grad` it will be.
        loops: what runs loops, "c++" or "numpy"; None for C++ where there is a compiler.

    Attributes:
        loops: what runs them.
        program: as it was optimised.
        source: the text of what is run.
        memory: bytes of the buffers.
    """

    def __init__(
        self,
        program: Program,
        arrays: Sequence[Any],
        leaves: Mapping[int, Leaf] | None = None,
        loops: str | None = None,
    ) -> None:
        self.loops = loops or ("c++" if host.compiler() else "numpy")
        self.program = optimise(program, HOST)
        examples = {given.value: x for given, x in zip(program.inputs, arrays, strict=True)}
        if self.loops == "c++":
            self.program = _aligned(self.program, examples)
        emitter = Emitter(
            self.program, examples, Names(self.program), backends.backend_of_kind("cpu").xp
        )
        outputs = emitter.written()
        scope = emitter.scope
        used = {x.value for x in self.program.inputs}
        self._given = [
            i
            for i, x in enumerate(program.inputs)
            if x.kind in ("argument", "gradient") and x.value in used
        ]
        names = [emitter.names[program.inputs[i].value] for i in self._given]
        lines = [*emitter.header(), *emitter.lines, f"return [{', '.join(outputs)}]"]
        self.source = f"def step({', '.join(names)}):\n" + "".join(f"    {x}\n" for x in lines)
        self.memory = emitter.allocated
        replacing = self._bind(emitter)
        exec(compile(self.source, "<gpugrad.step>", "exec"), scope)
        self._function = scope.pop("step")  # which its globals must not hold: no cycle
        held = {value for value, _ in self.program.updates}
        self._written = [i for i, x in enumerate(program.inputs) if x.value in held]
        self._small = [i for i, x in emitter.lent.items() if x.nbytes <= _SMALL]
        lent = {
            i: emitter.names[self.program.outputs[i]]
            for i, x in emitter.lent.items()
            if x.nbytes > _SMALL
        }
        sinks = {i: leaf for i, leaf in (leaves or {}).items() if i in emitter.sure}
        del emitter, outputs  # so that who holds a buffer can be told by counting
        self._lent = [_Lent(name, scope, replacing, sinks.get(i)) for i, name in lent.items()]

    def _bind(self, emitter: Emitter) -> Replacing:
        if self.loops == "c++":
            try:
                return _bind_machine_code(emitter)
            except host.CompilerError as error:
                message = (
                    f"gpugrad.compile: loops are run by NumPy instead, which is slower: {error}"
                )
                warnings.warn(message, RuntimeWarning, stacklevel=2)
                self.loops = "numpy"
        return _bind_blocks(emitter)

    def __call__(self, arrays: Sequence[Any]) -> list[Any]:
        for i in self._written:
            if not arrays[i].flags.writeable:
                raise ValueError(
                    "a compiled function writes an array of shape "
                    f"{arrays[i].shape}, which is read-only"
                )
        for lent in self._lent:
            lent.reclaim()
        outputs = self._function(*[arrays[i] for i in self._given])
        for i in self._small:
            outputs[i] = outputs[i].copy()
        return outputs


def _aligned(program: Program, examples: Mapping[Value, Any]) -> Program:
    """With copies of the inputs whose elements lie where machine code cannot read them."""
    device = Device("cpu")
    copies, same = [], {}
    for value in (x.value for x in program.inputs):
        array = examples.get(value)
        if array is None or not array.size:
            continue
        if not array.flags.aligned or any(s % array.itemsize for s in array.strides):
            same[value] = Value(value.shape, value.dtype, device)
            note = Note("forward", "", "", 0)
            copies.append(Instruction("copy", (value,), {}, (same[value],), False, note))
    renamed = program.renamed(program.instructions, same)
    return renamed.with_instructions([*copies, *renamed.instructions])


# id of an array that loops use -> functions that put another one in its place
Replacing = dict[int, list[Callable[[Any], None]]]


def _bind_machine_code(emitter: Emitter) -> Replacing:
    """Compile the loops, and put calls of them into the scope."""
    replacing: Replacing = {}
    if not emitter.loops:
        return replacing
    library = host.build(emitter.loops)
    for k, run in enumerate(emitter.runs):
        known = [
            (i, [emitter.places[x] if x in emitter.places else emitter.examples[x] for x in values])
            for i, values in run
        ]
        bound = library.bind_run(known)
        tables = bound.pointers
        slots: dict[Value, list[tuple[Any, int]]] = {}
        for table, (_, values) in zip(tables, run):
            for n, x in enumerate(values):
                if x in emitter.places:
                    point = functools.partial(_point, table, n)
                    replacing.setdefault(id(emitter.places[x]), []).append(point)
                else:
                    slots.setdefault(x, []).append((table, n))
        emitter.scope[f"loops_{k}"] = _Pointed(bound, list(slots.values())) if slots else bound
    return replacing


def _point(table: Any, n: int, array: np.ndarray) -> None:
    table[n] = _address(array)


def _address(array: Any) -> int:
    """Of the first element; `array.ctypes.data` takes eight times as long."""
    try:
        return ctypes.addressof(ctypes.c_char.from_buffer(array))
    except (TypeError, ValueError, BufferError):  # read-only, not contiguous, without elements
        return array.ctypes.data


def _bind_blocks(emitter: Emitter) -> Replacing:
    """Put calls of the loops by NumPy's functions into the scope."""
    replacing: Replacing = {}
    xp = backends.backend_of_kind("cpu").xp
    for k, run in enumerate(emitter.runs):
        given = dict.fromkeys(x for _, values in run for x in values if x not in emitter.places)
        calls = []
        for i, _ in run:
            step = emitter.steps[i]
            known = {x: emitter.places[x] for x in (*step.args, *step.results) if x not in given}
            blocked = Blocked(step, xp, known, list(given))
            calls.append(blocked)
            for value, array in known.items():
                replace = functools.partial(blocked.replace, value)
                replacing.setdefault(id(array), []).append(replace)
        emitter.scope[f"loops_{k}"] = calls[0] if len(calls) == 1 else _InTurn(calls)
    return replacing


class _InTurn:
    def __init__(self, calls: list[Blocked]) -> None:
        self._calls = calls

    def __call__(self, *arrays: np.ndarray) -> None:
        for call in self._calls:
            call(*arrays)


class _Pointed:
    """Loops some of whose arrays come with the call."""

    def __init__(self, bound: Any, slots: list[list[tuple[Any, int]]]) -> None:
        self._bound = bound
        self._slots = slots

    def __call__(self, *arrays: np.ndarray) -> None:
        for places, x in zip(self._slots, arrays):
            address = _address(x)
            for table, n in places:
                table[n] = address
        self._bound()


class _Lent:
    """An output whose buffer is the caller's: the next call takes another one while it is held."""

    _MOST = 2  # buffers that wait beside the one in use; of more, the oldest is left to its holder

    def __init__(
        self, name: str, scope: dict[str, Any], replacing: Replacing, leaf: Leaf | None
    ) -> None:
        self._name = name
        self._scope = scope
        self._leaf = leaf
        self._replacing = replacing.get(id(scope[name]), [])
        self._buffer = scope[name]
        self._idle = getrefcount(self._buffer)  # references to it when the caller has none
        self._others: list[list[Any]] = []  # [buffer, its idle references]

    def reclaim(self) -> None:
        """See to it that the buffer is nobody's."""
        held = getrefcount(self._buffer) - self._idle
        if held == 0 or (held == 1 and self._is_gradient()):
            return
        for i, other in enumerate(self._others):
            if getrefcount(other[0]) == other[1]:
                new = self._others.pop(i)
                break
        else:
            new = [np.empty_like(self._buffer)]
        old = [self._buffer]
        self._install(new.pop(0))
        self._idle = getrefcount(self._buffer)
        old.append(getrefcount(old[0]) - held)
        self._others.append(old)
        del self._others[: -self._MOST]

    def _install(self, buffer: np.ndarray) -> None:
        self._buffer = self._scope[self._name] = buffer
        for replace in self._replacing:
            replace(buffer)

    def _is_gradient(self) -> bool:
        """Whether only the leaf's `.grad` holds the buffer, and only the leaf that Tensor."""
        leaf = self._leaf
        if leaf is None or leaf.grad is None or leaf.grad.data is not self._buffer:
            return False
        return _holders(leaf) == _ALONE


def _holders(leaf: Any) -> int:
    gradient = leaf.grad
    return getrefcount(gradient)


_ALONE = _holders(SimpleNamespace(grad=object()))  # of a gradient that only its leaf holds
