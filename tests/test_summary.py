"""Numbers about programs, counted by hand."""

import numpy as np

import gpugrad as gg
from gpugrad.compiler import passes
from gpugrad.compiler.recording import record
from gpugrad.compiler.summary import bytes_moved, peak_memory, summary

X = np.ones((10, 100))
ROW, ALL = 800, 8000


def programs(f, *args):
    recording, *_ = record(f, [gg.asarray(x) for x in args], lambda leaves: (leaves, {}))
    return recording.program, passes.optimise(recording.program, passes.HOST)


def test_a_chain():
    before, after = programs(lambda x: gg.exp(gg.sin(x) * 2), X)
    assert [bytes_moved(x) for x in (before, after)] == [6 * ALL, 2 * ALL]
    assert [peak_memory(x) for x in (before, after)] == [2 * ALL, ALL]


def test_views_move_nothing_and_keep_what_they_show():
    before, _ = programs(lambda x: (gg.exp(x).T[0], gg.sum(x, axis=0)), X)
    assert bytes_moved(before) == 2 * ALL + ALL + ROW
    assert peak_memory(before) == ALL + ROW


def test_an_operand_that_is_given_twice_is_read_once():
    before, _ = programs(lambda x: x * x, X)
    assert bytes_moved(before) == 2 * ALL


def test_values_that_nothing_needs_later_make_room():
    before, _ = programs(
        lambda x: gg.cumulative_sum(gg.cumulative_sum(gg.sin(x), axis=0), axis=0), X
    )
    assert peak_memory(before) == 2 * ALL


def test_the_table():
    before, after = programs(lambda x: gg.sum(gg.exp(gg.sin(x) * 2)), X)
    lines = [line.split() for line in summary(before, after).splitlines()]
    assert lines[0] == ["recorded", "run"]
    assert lines[1] == ["operations", "4", "1"]
    assert lines[2] == ["fused", "loops", "0", "1"]
    assert lines[3] == ["bytes", "moved", "56,008", "8,008"]
    assert lines[4] == ["peak", "memory,", "bytes", "16,000", "8"]


def test_of_a_compiled_function():
    compiled = gg.compile(lambda x: gg.exp(gg.sin(x) * 2))
    assert compiled.summary() == ""
    compiled(gg.asarray(X))
    assert "48,000" in compiled.summary()
    assert compiled.summary() == compiled.steps[0].summary()
