"""Pieces of work on a CUDA device: their times by events, their names for NVIDIA's tools."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any


class Span:
    """What is queued on the current stream of a device until `close`; nothing waits for it.

    Inside, an NVTX range is on, which Nsight Systems shows; where CuPy lacks NVTX, none is.

    Args:
        place: in it the device is the current one.

    Attributes:
        stream: the stream.
        events: that of the beginning and that of the end; None while the stream is being captured,
            for then they would be a part of the graph.
    """

    __slots__ = ("_cp", "_place", "events", "stream")

    def __init__(self, cp: Any, place: AbstractContextManager[Any], name: str) -> None:
        self._cp, self._place = cp, place
        if cp.cuda.nvtx.available:
            cp.cuda.nvtx.RangePush(name)
        with place:
            self.stream = stream = cp.cuda.get_current_stream()
            self.events = None if stream.is_capturing() else (stream.record(), cp.cuda.Event())

    def close(self) -> None:
        """End here."""
        if self.events is not None:
            with self._place:
                self.events[1].record(self.stream)
        if self._cp.cuda.nvtx.available:
            self._cp.cuda.nvtx.RangePop()


def read_spans(cp: Any, spans: Sequence[Span]) -> list[tuple[int, int] | None]:
    """Beginning and end of `spans`, all of the current device, as `time.perf_counter_ns` tells it.

    Waits for all of them: the one that has begun last need not be the last to end. What the
    device's clock shows when the host sees it idle puts both clocks together, to within the time
    of that look.
    """
    if cp.cuda.get_current_stream().is_capturing():  # which a wait would end
        return [None] * len(spans)
    for span in spans:
        if span.events is not None:
            span.events[1].synchronize()
    idle = cp.cuda.Stream(non_blocking=True).record()
    idle.synchronize()
    now = time.perf_counter_ns()
    elapsed = cp.cuda.get_elapsed_time  # milliseconds, a float32

    def times(begin: Any, end: Any) -> tuple[int, int]:
        start = now - round(1e6 * elapsed(begin, idle))
        return start, start + round(1e6 * elapsed(begin, end))

    return [None if span.events is None else times(*span.events) for span in spans]
