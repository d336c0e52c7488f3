"""Spans where work is done later than it is queued, which no emulated device does."""

import contextlib
from types import SimpleNamespace

import pytest

from gpugrad.cuda.spans import Span, read_spans


class Event:
    """What CUDA refuses to tell before it is over."""

    def __init__(self):
        self.time = None
        self.over = False
        self.before = ()

    def record(self, stream):
        stream.record(self)

    def synchronize(self):
        self.over = True
        for event in self.before:
            event.over = True


class Stream:
    """One millisecond between two events."""

    clock = 0
    ptr = 1

    def __init__(self, non_blocking=False):
        self.events = []

    def is_capturing(self):
        return False

    def record(self, event=None):
        event = Event() if event is None else event
        Stream.clock += 1
        event.time, event.before = Stream.clock, tuple(self.events)
        self.events.append(event)
        return event


def elapsed(begin, end):
    if not (begin.over and end.over):
        pytest.fail("an event was asked that is not over")
    return end.time - begin.time


@pytest.fixture
def cp():
    stream = Stream()
    cuda = SimpleNamespace(
        Event=Event,
        Stream=Stream,
        get_current_stream=lambda: stream,
        get_elapsed_time=elapsed,
        nvtx=SimpleNamespace(available=False),
    )
    return SimpleNamespace(cuda=cuda)


def test_a_span_that_began_early_and_ends_last_is_waited_for(cp):
    place = contextlib.nullcontext()
    outer = Span(cp, place, "outer")
    inner = Span(cp, place, "inner")
    inner.close()
    outer.close()
    (start, stop), within = read_spans(cp, [outer, inner])
    assert stop - start == 3_000_000
    assert within == (start + 1_000_000, stop - 1_000_000)
