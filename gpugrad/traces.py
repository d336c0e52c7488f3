"""A profile as a file in Chrome's trace event format, which Perfetto and chrome://tracing read.

Slices are pairs of events B and E, whose nesting is their order in the file. Events with a duration
(X) nest by their numbers: rounded, they would overlap, and Perfetto draws no such slices.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from . import backends

if TYPE_CHECKING:
    from .profiling import Slice

_HOST = 1  # number of the host as a process; those of devices follow


def trace(slices: list[Slice]) -> str:
    """The text of the file; its clock begins with the first slice."""
    start = min((x.start for x in slices), default=0)
    arrows = _arrows(slices)
    events = [_named("process_name", _HOST, 0, "host")]
    for tid, thread in enumerate(dict.fromkeys(x.thread for x in slices), 1):
        events.append(_named("thread_name", _HOST, tid, f"thread {tid}"))
        times = {x: (x.start, x.stop) for x in slices if x.thread == thread}
        events += _Lane(_HOST, tid, start, times, arrows).events()
    devices = dict.fromkeys(x.device for x in slices if x.device is not None)
    for pid, device in enumerate(devices, _HOST + 1):
        name = backends.backend_of_kind(device.kind).name(device)
        events.append(_named("process_name", pid, 0, f"{device} ({name})"))
        there = [x for x in slices if x.device == device]
        for x in sorted(there, key=lambda x: x.stop):
            if x.used is not None:
                ts, args = (x.stop - start) / 1e3, {"bytes": x.used}
                events.append(_event("C", pid, 0, ts, "memory in use", cat="memory", args=args))
        works = {x: x.work for x in there if x.work is not None}
        for tid, stream in enumerate(dict.fromkeys(x.stream for x in works), 1):
            events.append(_named("thread_name", pid, tid, f"stream {stream:#x}"))
            times = {x: work for x, work in works.items() if x.stream == stream}
            events += _Lane(pid, tid, start, times, {}).events()
    return json.dumps({"traceEvents": events, "displayTimeUnit": "ms"})


def _event(ph: str, pid: int, tid: int, ts: float, name: str, **more: Any) -> dict[str, Any]:
    return {"ph": ph, "pid": pid, "tid": tid, "ts": ts, "name": name, **more}


def _named(what: str, pid: int, tid: int, name: str) -> dict[str, Any]:
    return _event("M", pid, tid, 0, what, args={"name": name})


def _arrows(slices: list[Slice]) -> dict[Slice, str]:
    """Where an arrow starts (s), goes on (t) or finishes (f).

    It leads from the call that made a node to the steps of sweeps that worked on it.
    """
    calls: dict[int, Slice] = {}
    steps: dict[int, list[Slice]] = {}
    for x in slices:
        if x.node and x.phase in ("backward", "tangent"):
            steps.setdefault(x.node, []).append(x)
        elif x.node:  # a later call with the same node has only handed it on
            calls.setdefault(x.node, x)
    kinds = {}
    for node in calls.keys() & steps.keys():
        kinds[calls[node]] = "s"
        kinds |= dict.fromkeys(steps[node], "t") | {steps[node][-1]: "f"}
    return kinds


class _Lane:
    """The slices of one thread or stream, with others around them for their scopes.

    Args:
        times: of each slice on the lane, in the order in which they begin: start and stop.
    """

    def __init__(
        self,
        pid: int,
        tid: int,
        start: int,
        times: dict[Slice, tuple[int, int]],
        arrows: dict[Slice, str],
    ) -> None:
        self._pid, self._tid, self._start = pid, tid, start
        self._times, self._arrows = times, arrows
        self._now = start
        self._inside: dict[Slice | None, list[Slice]] = {}
        for x in times:
            self._inside.setdefault(x.outer if x.outer in times else None, []).append(x)

    def events(self) -> Iterator[dict[str, Any]]:
        """All events of the lane, in order."""
        return self._events(self._inside.get(None, ()), ())

    def _events(self, items: Iterable[Slice], outer: tuple[str, ...]) -> Iterator[dict[str, Any]]:
        """Those of slices side by side, inside of one in the scope `outer`."""
        within = outer
        for x in items:
            start, stop = self._times[x]
            scope = x.scope if x.scope[: len(outer)] == outer else outer
            while within != scope[: len(within)]:
                yield self._event("E", self._now, within[-1])
                within = within[:-1]
            for name in scope[len(within) :]:
                yield self._event("B", start, name, cat="scope")
            within = scope
            yield self._event("B", start, x.name, cat=x.phase, args=_about(x))
            if kind := self._arrows.get(x):
                yield self._event(kind, start, "tape", cat="tape", id=x.node, bp="e")
            yield from self._events(self._inside.get(x, ()), within)
            yield self._event("E", stop, x.name)
        for name in reversed(within[len(outer) :]):
            yield self._event("E", self._now, name)

    def _event(self, ph: str, time: int, name: str, **more: Any) -> dict[str, Any]:
        self._now = max(self._now, time)  # clocks of devices are coarse
        return _event(ph, self._pid, self._tid, (self._now - self._start) / 1e3, name, **more)


def _about(x: Slice) -> dict[str, Any]:
    if not x.op:
        return {}
    about: dict[str, Any] = {} if x.where is None else {"line": f"{x.where[0]}:{x.where[1]}"}
    about["read"] = [f"{dtype} {shape}" for dtype, shape in x.given]
    about["written"] = [f"{dtype} {shape}" for dtype, shape in x.made]
    about["bytes"] = x.bytes
    if x.peak is not None:
        about["peak bytes"] = x.peak
    return about
