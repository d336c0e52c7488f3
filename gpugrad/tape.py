"""The tape: a chain of numbered nodes.

Every recorded operation makes a `Node` with a serial number, edges to its parents only, and what
its rules keep. Creation order is a topological order, so the sweeps (`sweeps.py`) sort the nodes
they reach by serial and never recurse. Nodes never point at Tensors: a dropped result frees its
whole tape by reference count.
"""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Callable, Iterable
from contextvars import ContextVar
from operator import attrgetter
from typing import Any

from . import backends
from .modes import Mode
from .tensor import Tensor

_next_serial = itertools.count(1).__next__
_by_serial = attrgetter("serial")
recording_flag: ContextVar[bool] = ContextVar("gpugrad_recording", default=True)
recording = recording_flag.get


class Node:
    """One operation on the tape.

    Attributes:
        serial: position on the tape; a node is younger than all its parents.
        op: the `Op` with the derivative rules; None for a leaf.
        edges: one per argument that requires a gradient, a tuple (its node, its `Argument` with
            the rules, what the rules are given besides the tangent); None once released.
        shape, dtype: of the output.
        hooks: functions applied to the cotangent of the output, or None.
        note: a `watching.Seen`; set only while something is watched.
    """

    __slots__ = ("dtype", "edges", "hooks", "note", "op", "serial", "shape")

    note: Any

    def __init__(self, op: Any, edges: Any, shape: tuple, dtype: Any) -> None:
        self.serial = _next_serial()
        self.op = op
        self.edges: Any = edges
        self.shape = shape
        self.dtype = dtype
        self.hooks: list[Callable[[Tensor], Tensor | None]] | None = None


class Leaf(Node):
    """The node of a tensor that the user asked a gradient of; it holds the gradient."""

    __slots__ = ("grad",)

    def __init__(self, shape: tuple, dtype: Any) -> None:
        super().__init__(None, (), shape, dtype)
        self.grad: Tensor | None = None


class no_grad(Mode):
    """Nothing is recorded inside: `with no_grad(): ...`, or `@no_grad()` on a function."""

    _variable = recording_flag
    _value = False


class enable_grad(Mode):
    """Operations are recorded inside, also within a `no_grad` block."""

    _variable = recording_flag


def now() -> int:
    """A serial number: everything recorded later has a larger one."""
    return _next_serial()


# ---- in-place safety: which buffers were changed through a Tensor, and when

# id(owner) -> (weak reference to it, serial of its last change, file and line of that if known)
_changed: dict[int, tuple[Any, int, tuple[str, int] | None]] = {}
_last_change = 0

# Gives file and line of the user's own call, where a watcher of the context asks for those of
# changes; `watching.py` puts it in while anybody watches.
locate: Callable[[], tuple[str, int] | None] | None = None


def owner_of(array: Any) -> Any:
    """The object that owns the memory of `array`: one for all views of a buffer."""
    while (base := getattr(array, "base", None)) is not None:
        array = base
    return array


def mark_changed(array: Any) -> None:
    """Note that the buffer of `array` was written: a sweep over older nodes that kept it raises."""
    mark_owners_changed((owner_of(array),))


def mark_owners_changed(owners: Iterable[Any]) -> None:
    """As `mark_changed`, for several buffers by their owners."""
    global _last_change
    _last_change = serial = _next_serial()
    find = locate  # once: another thread may take it away
    place = None if find is None else find()
    for owner in owners:
        key = id(owner)
        known = _changed.get(key)
        _changed[key] = (known[0] if known else _watch(owner, key), serial, place)


def _watch(owner: Any, key: int) -> Any:
    try:
        return weakref.ref(owner, lambda _: _changed.pop(key, None))
    except TypeError:  # such as a bytearray: kept alive, so that its id stays its own
        return owner


def changed_at(owner: Any) -> int:
    """The serial number of the last change of a buffer; 0 if there was none."""
    known = _changed.get(id(owner))
    return known[1] if known else 0


def last_change() -> int:
    """The serial number of the last change of any buffer."""
    return _last_change


def check_unchanged(nodes: Iterable[Node]) -> None:
    """Look whether what `nodes`, the oldest first, kept for their derivatives is as it was.

    Raises:
        RuntimeError: if an array was changed in place since.
    """
    for node in nodes:
        if node.serial > _last_change:
            return
        if not node.edges:
            continue
        for array in arrays_in(kept for _, _, kept in node.edges):
            owner = owner_of(array)
            if changed_at(owner) > node.serial:
                what = described(array.dtype, array.shape, backends.device_of(array))
                seen = f" ({node.note})" if hasattr(node, "note") else ""
                raise RuntimeError(
                    f"{node.op.name}{seen}: {what}, kept for the derivative, has been "
                    f"changed in place since{change_of(owner)}; change a copy instead, or take the "
                    "derivative first"
                )


def described(dtype: Any, shape: tuple, device: Any) -> str:
    """An array for messages."""
    return f"an array of {dtype} {shape} on {device}"


def change_of(owner: Any) -> str:
    """Where a buffer was changed last, for messages; nothing if that was not noted."""
    known = _changed.get(id(owner))
    return f", at {known[2][0]}:{known[2][1]}" if known and known[2] else ""


def arrays_in(kept: Any, seen: set[int] | None = None) -> Iterable[Any]:
    """The raw arrays in what nodes keep.

    A list that several edges keep, thousands where an operation takes a list of arrays, is looked
    through once; `seen` has the ids of those that were.
    """
    seen = set() if seen is None else seen
    for item in kept:
        if type(item) in (tuple, list):
            if id(item) not in seen:
                seen.add(id(item))
                yield from arrays_in(item, seen)
        elif type(item) is Tensor:  # an index, say
            yield item.data
        elif backends.find_backend(type(item)) is not None:
            yield item


def reach(roots: Iterable[Node], start: int = 0) -> tuple[list[Node], bool]:
    """The nodes that `roots` depend on, oldest first, and whether they lean on older ones.

    Nodes with a serial up to `start` are not entered: they belong to somebody else's tape.

    Raises:
        RuntimeError: if a part of the tape has been released, or an array it kept was changed.
    """
    found = set(roots)
    order = [node for node in found if node.serial > start]
    leans = len(order) < len(found)
    for node in order:  # grows while it is walked
        if node.edges is None:
            raise RuntimeError(
                f"{node.op.name}: this part of the tape was released by an earlier backward(); "
                "pass retain_graph=True to the earlier call to sweep it twice"
            )
        for parent, _, _ in node.edges:
            if parent not in found:
                found.add(parent)
                if parent.serial > start:
                    order.append(parent)
                else:
                    leans = True
    order.sort(key=_by_serial)
    if order and order[0].serial < _last_change:
        check_unchanged(order)
    return order, leans
