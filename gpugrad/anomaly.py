"""The first bad number, named: `detect_anomaly`."""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from . import backends, places
from .backends import Device
from .batches import BatchedArray
from .modes import transfers
from .rules import NUMBERS, Argument, Part, raw
from .tape import Node, arrays_in, changed_at, now, owner_of
from .trees import flatten
from .watching import Call, Seen, Watcher

Named = tuple[str, Any]  # what an array is, and the array

_FINITE, _INFINITE, _NAN = range(3)
_FLOATS = (float, complex, np.inexact)
_SUM = "sum so far"
_ROWS = 4096  # arrays of which a device notes the range before that is read


class AnomalyError(FloatingPointError):
    """An operation made a NaN or an infinity out of finite input; the message says which, where."""


class _Range(NamedTuple):
    """The smallest and the largest finite number of an array, and the worst that is in it."""

    low: float
    high: float
    worst: int

    def __str__(self) -> str:
        if math.isnan(self.low):
            return ("empty", "all infinite", "no finite number")[self.worst]
        span = f"{self.low:.6g}" if self.low == self.high else f"{self.low:.6g} to {self.high:.6g}"
        return span + ("", ", and infinities", ", and NaNs")[self.worst]


class _Item(NamedTuple):
    """An array as the message tells of it.

    Its range is a pair (device, row of its table) until that is read.
    """

    text: str
    range: Any


class _Event(NamedTuple):
    """What may have made a bad number: a call, or one step of a sweep."""

    what: str
    inputs: list[_Item]
    outputs: list[_Item]

    def check(self) -> None:
        """Raise an `AnomalyError` if an output is worse than every input."""
        before, worst = (
            max((item.range.worst for item in items), default=_FINITE)
            for items in (self.inputs, self.outputs)
        )
        if worst > before:
            made = "an infinity" if worst == _INFINITE else "a NaN"
            source = "finite input" if before == _FINITE else "input without one"
            items = "".join(f"\n  {x.text}: {x.range}" for x in (*self.inputs, *self.outputs))
            raise AnomalyError(f"{self.what} made {made} out of {source}{items}")


class detect_anomaly(Watcher):
    """The first operation that makes a NaN or an infinity raises: `with detect_anomaly(): ...`.

    Looked at is every operation of gpugrad, forwards, and every step of a sweep, backwards. The
    error names the operation, the line of the *forward* call (so the forward pass belongs into the
    block as well), and of each array dtype, shape, device and range; no `.grad` has been changed.
    An infinity counts where all input is finite, a NaN where no input has one, also if it is not
    used later on (`where(x > 0, log(x), 0)` takes the logarithm of all of `x`). An update of an
    optimiser is looked at like an operation; other writes off the tape are not.

    On the CPU it raises at once. On a GPU each array costs a small kernel, which notes its range in
    a table on the device; that is read, and waited for, once at the end of each backward pass and
    of the block (and every 4,096 arrays), so what comes after a bad number still runs. Compiled
    functions run as they are written. A backward pass that finds a kept array changed in place
    names the line that changed it.

    Raises:
        AnomalyError: a `FloatingPointError`.
    """

    eager = True
    marks = True

    def __init__(self) -> None:
        super().__init__()
        self._forget()

    def _forget(self) -> None:
        self._tables: dict[Device, Any] = {}
        self._rows: dict[int, tuple[Any, int, int]] = {}  # id -> (weak reference, row, serial)
        self._events: list[_Event] = []  # whose ranges are in tables

    def __exit__(self, *exc: Any) -> None:
        super().__exit__(*exc)
        try:
            if exc[0] is None:
                self._read()
        finally:
            self._forget()

    def called(self, call: Call, run: Callable[[], Any]) -> Any:
        out = run()
        if call.swept is None:  # of a rule the results are looked at, in `swept`
            operands = enumerate(flatten(call.operands)[0])
            self._look(
                f"{call.name}, {Seen(call.where, call.scope)},",
                [(f"argument {i}", x) for i, x in operands]
                + [("option", x) for x in flatten(call.options)[0] if isinstance(x, _FLOATS)],
                [("result", x) for x in flatten(out)[0]],
            )
        return out

    def updated(self, call: Call, run: Callable[[], Any]) -> Any:
        written, read = call.operands
        given = _flat([("to be updated", written), ("gradient", read)])
        changed = _flat([("updated", written)])
        self._noted([*given, *changed])
        before = self._items(given)
        out = run()
        what = f"{call.name}, {Seen(call.where, call.scope)},"
        self._judge(_Event(what, before, self._items(changed, new=True)))
        return out

    def swept(self, kind: str, nodes: Iterator[Node], found: dict[Node, Any]) -> Iterator[Node]:
        for node in nodes:
            given = [(role, _kept(role, x)) for role, x in _flat(_given(node, kind, found))]
            yield node
            if given and node.op is not None:
                seen = getattr(node, "note", "called before detect_anomaly was on")
                what = f"the derivative of {node.op.name}, {seen},"
                self._look(what, given, _made(node, kind, found))
        if not _is_inner():
            self._read()

    def _look(self, what: str, inputs: list[Named], outputs: list[Named]) -> None:
        """Raise if it made a bad number; where a device would have to be waited for, later."""
        inputs, outputs = _flat(inputs), _flat(outputs)
        if self._noted([*inputs, *outputs]) or any(_worst(x) != _FINITE for _, x in outputs):
            self._judge(_Event(what, self._items(inputs), self._items(outputs, new=True)))

    def _judge(self, event: _Event) -> None:
        if any(type(item.range) is tuple for item in (*event.inputs, *event.outputs)):
            self._events.append(event)
        else:
            event.check()

    def _noted(self, arrays: list[Named]) -> bool:
        """Whether ranges of some are noted in tables, which then have rows for all."""
        for _ in range(2):  # what is read, where one is full, is all of them
            found = [self._has_table(x, len(arrays)) for _, x in arrays]
        return any(found)

    def _items(self, arrays: list[Named], new: bool = False) -> list[_Item]:
        return [_Item(_described(role, x), self._range(x, new)) for role, x in arrays]

    def _has_table(self, x: Any, rows: int) -> bool:
        """Whether ranges of arrays like `x` are noted in a table, which then has rows left."""
        if _is_number(x):
            return False
        device = backends.device_of(x)
        if (table := self._tables.get(device)) is not None and table.free < rows:
            self._read()
        if device not in self._tables:
            backend = backends.backend_of(x)
            with backend.scope(device):
                self._tables[device] = backend.ranges(max(rows, _ROWS))
        return self._tables[device] is not None

    def _range(self, x: Any, new: bool) -> Any:
        """The range of `x`, or where it will stand; looked for again where `x` is `new`."""
        if _is_number(x) or (table := self._tables[device := backends.device_of(x)]) is None:
            return _range(x)
        reference, row, serial = self._rows.get(id(x), (None, 0, 0))
        if new or reference is None or reference() is not x or changed_at(owner_of(x)) > serial:
            with backends.backend_of(x).scope(device):
                row = table.note(x)
            self._rows[id(x)] = (weakref.ref(x), row, now())
        return device, row

    def _read(self) -> None:
        """Look at what devices have noted."""
        events, tables = self._events, self._tables
        self._forget()
        found = {}
        with transfers():
            for device, table in tables.items():
                if table is not None:
                    backend = backends.backend_of_kind(device.kind)
                    with backend.scope(device), backend.guard(waits=True):
                        backend.synchronize(device)  # all of its streams
                        found[device] = table.read()

        def read(items: list[_Item]) -> list[_Item]:
            return [
                item._replace(range=_Range(*found[item.range[0]][item.range[1]]))
                if type(item.range) is tuple
                else item
                for item in items
            ]

        for what, inputs, outputs in events:
            _Event(what, read(inputs), read(outputs)).check()


def _described(role: str, x: Any) -> str:
    if type(x) in NUMBERS:
        return f"{role}: {type(x).__name__}"
    device = "cpu" if isinstance(x, np.generic) else backends.device_of(x)
    return f"{role}: {x.dtype} {x.shape} on {device}"


def _flat(items: list[Named]) -> list[Named]:
    return [(role, part) for role, x in items for part in _parts(x)]


def _is_number(x: Any) -> bool:
    return type(x) in NUMBERS or isinstance(x, np.generic)


def _parts(x: Any) -> Iterator[Any]:
    """The arrays and numbers that `x` is made of, but for booleans."""
    x = raw(x)
    while isinstance(x, BatchedArray):
        x = x.values
    if isinstance(x, (tuple, list)):  # of several results
        for item in x:
            yield from _parts(item)
    elif _is_number(x) or (backends.find_backend(type(x)) is not None and x.dtype.kind != "b"):
        yield x


def _given(node: Node, kind: str, found: dict[Node, Any]) -> list[Named]:
    """What goes into a step of a sweep; nothing if there is no such step."""
    parents = [edge[0] for edge in node.edges]
    if kind == "vjp":
        given = [(_SUM, found.get(parent)) for parent in parents]
        given.insert(0, ("cotangent of the result", found.get(node)))
        is_step = node in found
    else:
        given = [("tangent of an argument", found.get(parent)) for parent in parents]
        is_step = node not in found
    if not is_step:
        return []
    seen = set()  # several edges may keep the same; thousands, of a list of arrays
    for _, argument, kept in node.edges:
        if names := getattr(argument, "names", None):
            for name, value in zip(names, (kept,) if len(names) == 1 else kept):
                if id(value) not in seen:
                    seen.add(id(value))
                    given += ((f"kept {name}", x) for x in arrays_in((value,)))
        elif not isinstance(argument, Part):
            given += (("kept", x) for x in arrays_in((kept,)))
    return [(role, x) for role, x in given if x is not None]


def _kept(role: str, x: Any) -> Any:
    """`x` as it is now, also where a step adds to it in place; a device has noted its range."""
    return x.copy() if role == _SUM and isinstance(x, np.ndarray) else x


def _made(node: Node, kind: str, found: dict[Node, Any]) -> list[Named]:
    """What a step of a sweep has made."""
    if kind == "jvp":
        return [("tangent of the result", found.get(node))]
    return [
        (f"cotangent of argument {argument.index}", found.get(parent))
        if type(argument) is Argument
        else ("cotangents of the arguments", found.get(parent))
        for parent, argument, _ in node.edges
        if not isinstance(argument, Part)
    ]


def _is_inner() -> bool:
    """Whether the sweep that the caller serves is a part of another one's step."""
    return sum(frame.f_code in places.sweeps for frame in places.frames()) > 1


def _real(x: Any) -> np.ndarray:
    """The numbers of `x` in host memory, complex ones as their two parts."""
    x = np.asarray(float(x) if type(x) is int else x)  # of which an integer dtype has not all
    if x.dtype.kind == "V":  # of two bytes
        x = x.astype(np.float32)
    return np.stack([x.real, x.imag]) if x.dtype.kind == "c" else x


def _worst(x: Any) -> int:
    x = _real(x)
    if np.isfinite(x).all():
        return _FINITE
    return _NAN if np.isnan(x).any() else _INFINITE


def _range(x: Any) -> _Range:
    x = _real(x)
    finite = x[np.isfinite(x)]
    if not finite.size:
        return _Range(math.nan, math.nan, _worst(x))
    return _Range(float(finite.min()), float(finite.max()), _worst(x))
