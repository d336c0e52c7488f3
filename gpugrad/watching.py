"""Watchers: what sees every operation and every step of a sweep while a block is on.

While nobody watches, a call costs one look at a global variable more. While somebody does, every
node that is made gets a `Seen`, and each watcher of the context is asked in turn.
"""

from __future__ import annotations

import _thread
import functools
from collections.abc import Callable, Iterable, Iterator
from contextvars import ContextVar
from typing import Any, NamedTuple, Self

from . import places, rules, tape
from .modes import Mode
from .rules import Part, raw
from .tape import Node, now
from .tensor import Tensor
from .trees import flatten


class Seen(NamedTuple):
    """What is known of the call that made a node, in its slot `note`.

    Attributes:
        where: file and line of the user's forward call, also for a node that a derivative made.
        scope: names of the scopes around the call, outermost first.
        operands, out: the raw arrays (and numbers) of the call and its result, a tuple where there
            are several; None but inside `keep_values`.
    """

    where: tuple[str, int]
    scope: tuple[str, ...]
    operands: tuple[Any, ...] | None = None
    out: Any = None

    def __str__(self) -> str:
        file, line = self.where
        inside = f" in {' / '.join(self.scope)}" if self.scope else ""
        return f"called at {file}:{line}{inside}"


class Call(NamedTuple):
    """A call that is watched.

    Attributes:
        name: of the operation.
        operands: Tensors, arrays and numbers.
        where, scope: as in `Seen`.
        swept: the node whose rule made the call; None for a forward call.
        options: the other arguments, those by keyword in a dict.
    """

    name: str
    operands: tuple[Any, ...]
    where: tuple[str, int]
    scope: tuple[str, ...]
    swept: Node | None
    options: tuple[Any, ...] = ()


class Watcher(Mode):
    """What watches inside its `with` block, in one thread or task."""

    # whether it must see the operations of compiled functions, which then run as they are written
    eager = False
    keeps = False  # the arrays of every call
    marks = False  # the user's lines that change arrays in place
    scope: tuple[str, ...] = ()

    def called(self, call: Call, run: Callable[[], Any]) -> Any:
        """The result of `run()`, which makes the call."""
        return run()

    def updated(self, call: Call, run: Callable[[], Any]) -> Any:
        """The result of `run()`, an update: operands are what it writes, and what it reads."""
        return run()

    def swept(self, kind: str, nodes: Iterator[Node], found: dict[Node, Any]) -> Iterator[Node]:
        """The nodes of a sweep; between two of them one is being worked on.

        Args:
            kind: "vjp" or "jvp".
            found: the cotangents or tangents, as far as the sweep has come.
        """
        return nodes

    def __enter__(self) -> Any:
        global _watched
        watchers = Watchers((*(_active.get() or ()), self))
        with _lock:
            _watched += 1
            rules.watch, tape.locate = _active.get, _marked
        self._tokens.append(_active.set(watchers))

    def __exit__(self, *exc: Any) -> None:
        global _watched
        self._tokens.pop()
        # not back to what was before: the blocks of generators need not end in turn, nor in the
        # context in which they began
        watchers = active()
        last = max((i for i, watcher in enumerate(watchers) if watcher is self), default=None)
        if last is not None:
            _active.set(Watchers(watchers[:last] + watchers[last + 1 :]) or None)
        with _lock:
            _watched -= 1
            if not _watched:
                rules.watch = tape.locate = None


class Watchers(tuple[Watcher, ...]):
    """The watchers of a context, outermost first; sees a call in the name of all."""

    __slots__ = ()

    @property
    def eager(self) -> bool:
        """Whether one of them must see the operations of compiled functions."""
        return any(watcher.eager for watcher in self)

    def __call__(self, name: str, operands: tuple, run: Callable[[], Any], *options: Any) -> Any:
        """The result of `run()`, in which nothing is watched; `options` as in `Call`."""
        call = self._call(name, operands)._replace(options=options)
        start = now()
        token = _active.set(None)
        try:
            for watcher in reversed(self):
                run = functools.partial(watcher.called, call, run)
            out = run()
        finally:
            _active.reset(token)
        self._note(out, call, start)
        return out

    def update(self, name: str, written: list, read: list, run: Callable[[], Any]) -> Any:
        """The result of `run()`, which changes arrays in place, and calls no operation."""
        call = self._call(name, (written, read))
        for watcher in reversed(self):
            run = functools.partial(watcher.updated, call, run)
        return run()

    def note(self, name: str, operands: tuple, out: Any, start: int) -> None:
        """Note on the nodes of `out` younger than `start` a call that nobody was asked about."""
        self._note(out, self._call(name, operands), start)

    def _call(self, name: str, operands: tuple) -> Call:
        swept = None
        for frame in places.frames():
            if swept is None and frame.f_code in places.sweeps:
                swept = frame.f_locals.get("node")
                if (seen := getattr(swept, "note", None)) is not None:
                    return Call(name, operands, seen.where, seen.scope, swept)
        scope = tuple(name for watcher in self for name in watcher.scope)
        return Call(name, operands, (frame.f_code.co_filename, frame.f_lineno), scope, swept)

    def _note(self, out: Any, call: Call, start: int) -> None:
        tensors = [x for x in flatten(out)[0] if isinstance(x, Tensor)]
        if not tensors:  # a function of `custom_vjp`, called with arrays
            return
        seen = Seen(call.where, call.scope)
        if any(watcher.keeps for watcher in self):
            arrays = tuple(x.data for x in tensors)
            kept = arrays if isinstance(out, tuple) else arrays[0]
            seen = seen._replace(operands=tuple(map(raw, call.operands)), out=kept)
        for x in tensors:
            node = x.node
            while node is not None and node.serial > start:
                node.note = seen
                node = node.edges[0][0] if isinstance(node.op, Part) else None


_active: ContextVar[Watchers | None] = ContextVar("gpugrad_watchers", default=None)
_lock = _thread.allocate_lock()
_watched = 0  # blocks that are on, in all threads


def _marked() -> tuple[str, int] | None:
    """The user's line, if a watcher wants to know it of a change in place."""
    return places.user() if any(watcher.marks for watcher in active()) else None


def active() -> tuple[Watcher, ...]:
    """Who watches in this context, outermost first."""
    return _active.get() or ()


def swept(kind: str, nodes: Iterable[Node], found: dict[Node, Any]) -> Iterator[Node]:
    """The nodes of a sweep, watched."""
    nodes = iter(nodes)
    for watcher in active():
        nodes = watcher.swept(kind, nodes, found)
    return nodes


class as_when_made(Mode):
    """Inside, in the context of another time, those watch who watched when it was made."""

    _variable = _active

    def __init__(self) -> None:
        super().__init__()
        self._value = _active.get()


class name_scope(Watcher):
    """Operations recorded inside belong together: `with name_scope("encoder"): ...`.

    Scopes nest. `gpugrad.draw` frames them, or folds each to one box; errors of `detect_anomaly`
    and the table of `profile` name them. The layers of `gpugrad.nn.Sequential` are scopes by
    themselves inside any other scope, `keep_values`, `detect_anomaly` or `profile`.

    Args:
        name: of the part, such as "layer 1".

    Raises:
        TypeError: if `name` is no string; ValueError: if it is empty.
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        if not isinstance(name, str):
            raise TypeError(f"name_scope: the name is a string, not {type(name).__name__}")
        if not name:
            raise ValueError("name_scope: the name is empty")
        self.scope = (name,)

    def _recreate_cm(self) -> Self:
        return type(self)(*self.scope)


class keep_values(Watcher):
    """What is computed inside stays with the tape: `with keep_values(): loss = ...`.

    So that `gpugrad.draw(loss)` can write every value on its edge: without it only those are known
    that the derivatives need, and what follows from them. It costs the memory of all intermediate
    results until `loss` is dropped. Compiled functions run as they are written.
    """

    eager = True
    keeps = True
