"""The profile: which rows, which bytes, which memory, and times that add up."""

import asyncio
import gc
import os
import sys
import threading
import time
import tracemalloc
import weakref

import numpy as np
import pytest
from helpers import leaf

import gpugrad as gg
from gpugrad import backends, rules


def line():
    """The line of the caller."""
    return sys._getframe(1).f_lineno


@pytest.fixture(autouse=True)
def collected():
    """What other tests have left is not freed inside of a block, where it would count."""
    gc.collect()


@pytest.fixture
def cupy(cuda):
    """CuPy, with its device as the default one."""
    with gg.device(cuda):
        yield backends.backend_of_kind("cuda")._cupy


def calls(p):
    """(operation, phase) -> how many calls."""
    found = {}
    for row in p.rows:
        key = row.op, row.phase
        found[key] = found.get(key, 0) + row.calls
    return found


def row(p, op, phase="forward"):
    (found,) = [x for x in p.rows if (x.op, x.phase) == (op, phase)]
    return found


# ---- rows


def test_forward_and_backward_are_rows(device):
    x = leaf([1.0, 2.0, 3.0])
    with gg.profile() as p:
        for _ in range(3):
            y, here = gg.exp(x), line()
            gg.sum(y * y).backward()
    assert calls(p) == {
        ("exp", "forward"): 3,
        ("multiply", "forward"): 3,
        ("sum", "forward"): 3,
        ("sum", "backward"): 3,
        ("multiply", "backward"): 3,
        ("exp", "backward"): 3,
        ("add", "forward"): 2,  # to .grad, from the second time on
    }
    assert row(p, "exp").where == row(p, "exp", "backward").where == (__file__, here)


def test_a_line_of_its_own_is_a_row_of_its_own(device):
    x = leaf([1.0, 2.0])
    with gg.profile() as p:
        gg.exp(x)
        gg.exp(x)
    assert [x.calls for x in p.rows] == [1, 1]
    lines = p.table().splitlines()
    assert len(lines) == 3
    assert lines[1].split()[:3] == ["exp", "forward", "2"]


def test_scopes_of_forward_calls_are_those_of_backward_steps(device):
    x = leaf([1.0, 2.0])
    net = gg.nn.Sequential(gg.nn.Sigmoid())
    with gg.profile() as p:
        with gg.name_scope("net"):
            y = net(x)
        with gg.name_scope("loss"):
            z = gg.sum(y)
        z.backward()
    for phase in ("forward", "backward"):
        assert row(p, "sigmoid", phase).scope == ("net", "0 Sigmoid")
        assert row(p, "sum", phase).scope == ("loss",)
    assert "net > 0 Sigmoid" in p.table("scope")


def test_what_was_called_before_the_block_has_no_line(device):
    y = gg.sum(gg.exp(leaf([1.0])))
    with gg.profile() as p:
        y.backward()
    assert [(x.op, x.phase, x.where) for x in p.slices if x.op] == [
        ("sum", "backward", None),
        ("exp", "backward", None),
    ]


def test_a_forward_sweep_is_a_phase(device):
    x = leaf([1.0, 2.0])
    with gg.profile() as p:
        gg.jvp(lambda x: gg.sum(gg.sin(x)), (x.detach(),), (x.detach(),))
    assert calls(p) == {
        ("sin", "forward"): 1,
        ("sum", "forward"): 1,
        ("sin", "tangent"): 1,
        ("sum", "tangent"): 1,
    }


@pytest.mark.parametrize(("make", "arrays"), [(gg.optim.SGD, 1), (gg.optim.Adam, 3)])
def test_an_update_is_a_row(device, make, arrays):
    x = leaf(np.ones(100))
    optimizer = make([x], lr=0.1)
    gg.sum(x).backward()
    with gg.profile() as p:
        optimizer.step()
        here = line() - 1
    (found,) = p.rows
    assert found[:3] == (f"{make.__name__}.step", "update", 1)
    assert found.where == (__file__, here)
    assert found.bytes == 800 * (2 * arrays + 1)  # all are read, and all but the gradient written


def test_a_velocity_is_read_and_written(device):
    x, unused = leaf(np.ones(100)), leaf(np.ones(7))
    optimizer = gg.optim.SGD([x, unused], lr=0.1, momentum=0.9)
    gg.sum(x).backward()
    with gg.profile() as p:
        optimizer.step()
    assert row(p, "SGD.step", "update").bytes == 800 * 5
    assert not np.array_equal(x.get(), np.ones(100))


def test_a_compiled_function_is_one_call(device):
    @gg.compile
    def f(x):
        return gg.sum(gg.exp(x) * 2.0)

    x = gg.asarray(np.ones(100), device=device)
    for _ in range(2):
        f(x)
    with gg.profile() as p:
        for _ in range(3):  # on a GPU one of them captures
            value = f(x)
    assert calls(p) == {("compiled f", "forward"): 3}
    (found,) = p.rows
    assert found.bytes == 3 * 808
    assert (found.device is None) == (device.kind == "cpu")
    np.testing.assert_allclose(float(value), 200 * np.e)


def test_a_compiled_step_with_its_update_is_one_call(device):
    x = leaf([1.0, 2.0])
    optimizer = gg.optim.SGD([x], lr=0.1)

    @gg.compile
    def step():
        loss = gg.sum(x * x)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss

    with gg.profile() as p:
        for _ in range(4):
            step()
    assert calls(p) == {("compiled step", "forward"): 4}
    assert (row(p, "compiled step").device is None) == (device.kind == "cpu")
    np.testing.assert_allclose(x.get(), 0.8**4 * np.asarray([1.0, 2.0]))


def test_a_checkpoint_runs_again_inside_its_backward_step(device):
    x = leaf([1.0, 2.0])

    @gg.checkpoint
    def f(x):
        return gg.sin(gg.exp(x))

    with gg.profile() as p:
        gg.sum(f(x)).backward()
    assert calls(p) == {
        ("exp", "forward"): 1,
        ("sin", "forward"): 1,
        ("sum", "forward"): 1,
        ("sum", "backward"): 1,
        ("checkpoint(f)", "backward"): 1,
        ("exp", "in backward"): 1,
        ("sin", "in backward"): 1,
        ("exp", "backward"): 1,
        ("sin", "backward"): 1,
    }
    whole = next(x for x in p.slices if x.op == "checkpoint(f)")
    again = next(x for x in p.slices if x.phase == "in backward")
    assert again.outer is whole
    assert whole.start <= again.start <= again.stop <= whole.stop


def test_a_recorded_sweep_shows_its_calls(device):
    x, here = leaf([1.0, 2.0]), line() + 2
    with gg.profile() as p:
        y = gg.exp(x)
        gg.sum(y).backward(create_graph=True)
    found = row(p, "multiply", "in backward")  # t * out
    assert found.where == (__file__, here)
    inner = next(x for x in p.slices if x.op == "multiply")
    assert (inner.outer.op, inner.outer.phase) == ("exp", "backward")


def test_a_hook_calls_in_the_backward_step(device):
    x = leaf([1.0, 2.0])
    with gg.profile() as p:
        y = gg.exp(x)
        y.register_hook(lambda g: g * 2.0)
        gg.sum(y).backward()
    found = row(p, "multiply", "in backward")
    assert found.calls == 1
    np.testing.assert_allclose(x.grad.get(), 2 * np.exp([1.0, 2.0]))


def test_other_watchers_are_on_as_well(device):
    x = leaf([-1.0])
    with gg.profile() as p:
        quiet = np.errstate(invalid="ignore")
        with pytest.raises(gg.AnomalyError, match="log"), gg.detect_anomaly(), quiet:
            gg.sum(gg.log(x)).backward()
        gg.exp(x)
    assert row(p, "log").calls == row(p, "exp").calls == 1


def test_an_update_tells_its_line_to_who_looks_for_changes_in_place(device):
    x = leaf([1.0, 2.0])
    optimizer = gg.optim.SGD([x], lr=0.1)
    with gg.detect_anomaly(), gg.profile():
        y = gg.sum(gg.exp(x) * x)
        y.backward(retain_graph=True)
        optimizer.step()
        here = line() - 1
        with pytest.raises(RuntimeError, match=f"changed in place since, at .*:{here};"):
            y.backward()


def test_a_function_of_several_results_is_one_step_backwards():
    with gg.device("cpu"), gg.profile() as p:
        values, _ = gg.linalg.eigh(leaf([[2.0, 1.0], [1.0, 3.0]]))
        gg.sum(values).backward()
    assert calls(p)["eigh", "backward"] == 1


def test_a_batch_counts_all_its_examples(device):
    x = leaf(np.ones((5, 3)))
    with gg.profile() as p:
        gg.vmap(gg.exp)(x)
    assert row(p, "exp").bytes == 2 * 5 * 3 * 8


# ---- bytes


def test_bytes_are_those_of_operands_results_and_cotangents(device):
    a, b = leaf(np.ones((30, 20))), leaf(np.ones((20, 10)))
    with gg.profile() as p:
        y = gg.matmul(a, b)
        z = y * y
        gg.sum(z).backward()
    sizes = {"a": 4800, "b": 1600, "y": 2400}
    assert row(p, "matmul").bytes == sum(sizes.values())
    assert row(p, "multiply").bytes == 2 * sizes["y"]
    assert row(p, "sum").bytes == sizes["y"] + 8
    assert row(p, "sum", "backward").bytes == 0  # a view of the cotangent
    assert row(p, "multiply", "backward").bytes == 3 * sizes["y"]  # g and y, and that of y
    assert row(p, "matmul", "backward").bytes == sizes["y"] + 2 * (sizes["a"] + sizes["b"])


def test_views_move_nothing(device):
    x = leaf(np.ones((30, 20)))
    with gg.profile() as p:
        y = gg.reshape(x[:10], (20, 10)).T
        gg.concat([y, y])
    moved = {x.op: x.bytes for x in p.rows}
    assert moved.pop("concat") == 3 * 1600  # what is given twice is read once
    assert set(moved.values()) == {0}


def test_shapes_and_dtypes_are_kept_but_no_arrays(device):
    x = leaf(np.ones((30, 20)), dtype="float32")
    with gg.profile() as p:
        gg.sum(x, axis=0)
    (item,) = p.slices
    assert item.given == [(np.dtype("float32"), (30, 20))]
    assert item.made == [(np.dtype("float32"), (20,))]


# ---- memory

SLACK = 20_000  # Python's objects


def test_the_peak_is_what_results_and_passing_arrays_need(device):
    n = 1 << 20
    x = leaf(np.ones(n // 8))
    with gg.profile(memory=True) as p:
        y = gg.exp(x)
        z = gg.exp(y)
        del y, z
        w = gg.exp(x)
        gg.sum(w).backward()
        del w
    forward = [x for x in p.slices if x.op == "exp" and x.phase == "forward"]
    for item, count in zip(forward, (1, 2, 1), strict=True):
        assert abs(item.peak - count * n) < SLACK
        assert abs(item.used - count * n) < SLACK
    # the result, and on the CPU the cotangent as an array of its own
    (peak,) = {x.peak for x in p.slices if (x.op, x.phase) == ("exp", "backward")}
    assert abs(peak - 3 * n) < SLACK or abs(peak - 2 * n) < SLACK
    assert max(x.peak for x in p.rows) == max(x.peak for x in p.slices if x.peak is not None)
    assert "peak" in p.table().splitlines()[0]


def test_the_peak_sees_arrays_made_on_the_way(device):
    n = 1 << 20
    x = gg.asarray(np.ones(n // 8), device=device)

    def made(x):
        y = rules.xp(x).exp(x)
        y = y + y  # two arrays for a moment
        return y[:1].copy()

    f = gg.custom_vjp(made, lambda g, out, x: None)
    with gg.profile(memory=True) as p:
        kept = f(x)
        y = gg.exp(x)
    (item,) = [x for x in p.slices if x.op == "made"]
    assert abs(item.peak - 2 * n) < SLACK
    assert abs(item.used) < SLACK
    assert kept.shape == (1,)
    assert y.shape == x.shape


def test_a_peak_inside_is_one_of_what_is_around_it(device):
    n = 1 << 20
    x = leaf(np.ones(n // 8))
    with gg.profile(memory=True) as outer, gg.profile(memory=True) as inner:
        gg.sum(gg.checkpoint(lambda x: gg.sin(gg.exp(x)))(x)).backward()
    for p in (outer, inner):
        (whole,) = [x for x in p.slices if x.op.startswith("checkpoint")]
        insides = [x for x in p.slices if x.outer is whole or getattr(x.outer, "outer", 0) is whole]
        assert whole.peak >= max(x.peak for x in insides if x.peak is not None) >= 2 * n


def test_the_profile_itself_is_not_in_the_memory():
    """A call is remembered in 1,000 bytes, of which no more than its times are counted."""
    with gg.device("cpu"), gg.profile(memory=True) as p:
        for _ in range(500):
            gg.sum(gg.exp(leaf([1.0]))).backward()
    used = [x.used for x in p.slices if x.used is not None]
    assert abs(used[-1] - used[100]) < 200 * len(used)


def test_without_it_memory_is_not_watched(device):
    with gg.profile() as p:
        gg.exp(leaf([1.0]))
    assert row(p, "exp").peak is None
    assert "peak" not in str(p)


def test_tracing_of_the_users_own_stays_on():
    with gg.device("cpu"):
        with gg.profile(memory=True):
            assert tracemalloc.is_tracing()
            with gg.profile(memory=True):
                pass
            assert tracemalloc.is_tracing()
        assert not tracemalloc.is_tracing()
        tracemalloc.start()
        try:
            with gg.profile(memory=True):
                pass
            assert tracemalloc.is_tracing()
        finally:
            tracemalloc.stop()


def test_tasks_may_watch_memory_at_the_same_time(device):
    x = leaf([1.0])

    async def work(p, first, second):
        with p:
            first.set()
            await second.wait()
            gg.exp(x)

    async def main():
        events = asyncio.Event(), asyncio.Event()
        profiles = gg.profile(memory=True), gg.profile(memory=True)
        tasks = zip(profiles, events, events[::-1], strict=True)
        await asyncio.gather(*(work(*given) for given in tasks))
        return profiles

    for p in asyncio.run(main()):
        assert calls(p) == {("exp", "forward"): 1}
        assert row(p, "exp").peak >= 0
    assert not tracemalloc.is_tracing()


def test_the_users_own_peak_stays(cupy):
    gg.memory(reset_peak=True)
    big = cupy.empty(1 << 20)
    del big
    before = gg.memory()
    with gg.profile(memory=True):
        gg.exp(leaf([1.0]))
    assert gg.memory().peak >= before.peak >= 1 << 20


# ---- times


def test_times_add_up(device):
    x = leaf(np.ones((50, 50)))

    @gg.checkpoint
    def f(x):
        return gg.sin(x @ x)

    start = time.perf_counter()
    with gg.profile() as p:
        for _ in range(5):
            gg.sum(f(x)).backward(create_graph=True)
    around = time.perf_counter() - start
    rows = p.rows
    assert all(row.host >= 0 for row in rows)
    assert 0 < sum(row.host for row in rows) <= p.seconds <= around
    whole = [x for x in p.slices if x.outer is None]
    own = sum(x.stop - x.start - x.inner for x in p.slices)
    assert own == sum(x.stop - x.start for x in whole)
    # a sweep has no time of the device; what is outermost on the device is a call, or a step in it
    outermost = [x for x in p.slices if x.op and (x.outer is None or x.outer.outer is None)]
    works = [x.work[1] - x.work[0] for x in outermost if x.work is not None]
    assert sum(x.own for x in p.slices) == sum(works)


def test_a_slow_operation_comes_first(device):
    def slow(x):
        time.sleep(0.02)
        return x + 0

    x = leaf([1.0])
    with gg.profile() as p:
        gg.exp(x)
        gg.custom_vjp(slow, lambda g, out, x: g)(x)
    first = p.rows[0]
    assert first.op == "slow"
    assert first.host >= 0.02
    assert p.table().splitlines()[1].startswith("slow")


def test_the_device_has_times_of_its_own_on_a_gpu(device):
    x = leaf(np.ones(1000))
    with gg.profile() as p:
        gg.sum(gg.exp(x)).backward()
    if device.kind == "cpu":
        assert {x.device for x in p.rows} == {None}
        assert "device" not in str(p)
    else:
        assert all(x.device >= 0 for x in p.rows)
        assert "device ms" in str(p)


def test_the_wait_is_at_the_end(cupy, monkeypatch):
    waits = []

    class Event(cupy.cuda.Event):
        def synchronize(self):
            waits.append(self)
            super().synchronize()

    monkeypatch.setattr(cupy.cuda, "Event", Event)
    x = leaf(np.ones(1000))
    with gg.no_transfers(), gg.profile() as p:
        gg.sum(gg.exp(x)).backward()
        assert waits == []
    assert len(waits) == 4  # of calls and steps; that on the idle stream is not one of these
    assert [x.op for x in p.slices] == ["exp", "sum", "", "sum", "exp"]


def test_work_on_two_streams_is_told_apart(cupy):
    x = leaf(np.ones(1000))
    stream = cupy.cuda.Stream()
    with gg.profile() as p:
        gg.exp(x)
        with stream:
            gg.exp(x)
    assert [x.stream for x in p.slices] == [cupy.cuda.Stream.null.ptr, stream.ptr]
    for item in p.slices:
        start, stop = item.work
        assert item.start - 1e7 < start <= stop < item.stop + 1e7


def test_while_it_is_captured_there_are_no_events(cupy):
    x = leaf(np.ones(1000))
    gg.exp(x)
    backend = backends.backend_of_kind("cuda")
    with gg.profile() as p:
        graph = backend.capture(x.device, lambda: gg.exp(x).data)
        graph.launch()
        gg.exp(x)
    first, second = p.slices
    assert first.work is None
    assert second.work is not None
    np.testing.assert_allclose(graph.results.get(), np.full(1000, np.e))


def test_a_block_that_ends_while_it_is_captured_reads_nothing(cupy):
    x = leaf(np.ones(1000))
    gg.exp(x)
    p = gg.profile()

    def work():
        with p:
            return gg.exp(x).data

    backend = backends.backend_of_kind("cuda")
    backend.capture(x.device, work).launch()
    assert p.rows[0].device is None


@pytest.mark.devices
def test_each_device_has_its_own_times(cuda):
    a, b = (gg.asarray(np.ones(9), device=f"cuda:{i}", requires_grad=True) for i in (0, 1))
    with gg.profile(memory=True) as p:
        gg.sum(gg.exp(a)).backward()
        gg.sum(gg.exp(b)).backward()
    assert {str(x.device) for x in p.slices if x.op} == {"cuda:0", "cuda:1"}
    assert all(x.work is not None for x in p.slices if x.op)


@pytest.mark.devices
def test_the_time_of_another_device_is_not_taken_off():
    """The default streams of all devices have one address."""
    x = gg.asarray(np.ones(9), device="cuda:0", requires_grad=True)
    with gg.profile() as p:
        y = gg.checkpoint(lambda x: gg.exp(x.to("cuda:1")))(x)
        gg.sum(y).backward()
    calls = [x for x in p.slices if x.op]
    assert any(y.op and y.device != x.device for x in calls for y in around(x))
    for device in {x.device for x in calls}:
        there = [x for x in calls if x.device == device]
        outermost = [x for x in there if not any(y.device == device for y in around(x))]
        assert sum(x.own for x in there) == sum(x.work[1] - x.work[0] for x in outermost)


def around(x):
    """The slices around one, the innermost first."""
    while (x := x.outer) is not None:
        yield x


# ---- NVTX


def test_operations_are_ranges_of_nvtx(cupy, monkeypatch):
    ranges = []
    monkeypatch.setattr(cupy.cuda.nvtx, "RangePush", ranges.append)
    monkeypatch.setattr(cupy.cuda.nvtx, "RangePop", lambda: ranges.append("pop"))
    x = leaf([1.0, 2.0])
    with gg.profile():
        gg.sum(gg.exp(x)).backward()
        gg.exp(gg.asarray([1.0], device="cpu"))
    assert ranges == ["exp", "pop", "sum", "pop", "sum backward", "pop", "exp backward", "pop"]
    gg.exp(x)
    assert len(ranges) == 8


def test_ranges_are_closed_when_an_operation_raises(cupy, monkeypatch):
    ranges = []
    monkeypatch.setattr(cupy.cuda.nvtx, "RangePush", ranges.append)
    monkeypatch.setattr(cupy.cuda.nvtx, "RangePop", lambda: ranges.append("pop"))
    with pytest.raises(ValueError, match="matmul"), gg.profile():
        gg.matmul(leaf([1.0]), leaf([1.0, 2.0]))
    assert ranges == ["matmul", "pop"]


def test_without_nvtx_there_are_no_ranges(cupy, monkeypatch):
    class Unavailable:
        available = False

    monkeypatch.setattr(cupy.cuda, "nvtx", Unavailable)
    with gg.profile() as p:
        gg.exp(leaf([1.0]))
    assert row(p, "exp").device is not None


# ---- blocks


def test_an_exception_closes_the_block_and_keeps_what_it_has(device):
    x = leaf([1.0, 2.0])
    with pytest.raises(ValueError, match="matmul"), gg.profile(memory=True) as p:
        gg.matmul(gg.exp(x), leaf([1.0, 2.0, 3.0]))
    assert calls(p) == {("exp", "forward"): 1, ("matmul", "forward"): 1}
    assert rules.watch is None
    assert all(x.stop for x in p.slices)


def test_an_exception_in_a_sweep_closes_its_steps(device):
    def vjp(g, out, x):
        raise ZeroDivisionError("no derivative")

    f = gg.custom_vjp(lambda x: x + 0, vjp)
    x = leaf([1.0, 2.0])
    with gg.profile() as p:
        y = gg.sum(f(x))
        kept = None
        try:
            y.backward()
        except ZeroDivisionError as error:
            kept = error  # and with it the sweep
    assert kept is not None
    assert calls(p)["<lambda>", "backward"] == 1
    assert all(x.stop for x in p.slices)
    rows = p.rows
    del kept  # the sweep is closed once more
    assert p.rows == rows


def test_the_trouble_of_the_device_does_not_hide_the_users(cupy, monkeypatch):
    def broken(*args):
        raise RuntimeError("the device is lost")

    monkeypatch.setattr(type(backends.backend_of_kind("cuda")), "read_spans", broken)
    with pytest.raises(ZeroDivisionError), gg.profile() as p:
        _ = float(gg.exp(leaf([1.0])).size) / 0
    assert calls(p) == {("exp", "forward"): 1}
    with pytest.raises(RuntimeError, match="lost"), gg.profile():
        gg.exp(leaf([1.0]))


def test_a_dropped_profile_is_freed_without_the_collector(device):
    gc.collect()
    gc.disable()
    try:
        with gg.profile(memory=True) as p:
            gg.sum(gg.sin(gg.asarray([1.0], device=device, requires_grad=True))).backward()
        assert p.rows
        gone = weakref.ref(p)
        del p
        assert gone() is None
    finally:
        gc.enable()


def test_blocks_nest(device):
    x = leaf([1.0])
    with gg.profile() as outer:
        gg.exp(x)
        with gg.profile() as inner:
            gg.sin(x)
    assert calls(outer) == {("exp", "forward"): 1, ("sin", "forward"): 1}
    assert calls(inner) == {("sin", "forward"): 1}


def test_a_profile_goes_on_when_it_is_entered_again(device):
    x = leaf([1.0])
    p = gg.profile(memory=True)
    for _ in range(2):
        with p:
            gg.exp(x)
        gg.exp(x)
    assert calls(p) == {("exp", "forward"): 2}
    if device.kind == "cuda":
        assert all(x.work is not None for x in p.slices)


def test_a_profile_decorates_a_function(device):
    p = gg.profile()

    @p
    def f(x):
        return gg.exp(x)

    x = leaf([1.0])
    f(f(x))
    assert calls(p) == {("exp", "forward"): 2}


def test_it_is_not_entered_twice_at_a_time():
    p = gg.profile()
    with p:
        with pytest.raises(RuntimeError, match="nest another"), p:
            pass
        with pytest.raises(RuntimeError, match="afterwards"):
            _ = p.rows
    assert p.rows == []
    assert str(p).splitlines()[-1].startswith("total")


def test_the_table_names_what_it_is_by():
    with gg.profile() as p:
        pass
    with pytest.raises(ValueError, match="'op', 'line' or 'scope', not 'time'"):
        p.table("time")


def test_other_threads_are_not_seen(device):
    x = leaf([1.0])
    with gg.profile() as p:
        thread = threading.Thread(target=lambda: gg.exp(x))
        thread.start()
        thread.join()
    assert p.rows == []


def test_a_task_of_the_block_is_seen_as_long_as_the_block_is_on():
    x = gg.asarray([1.0], device="cpu", requires_grad=True)

    async def main():
        with gg.profile() as p:
            late = asyncio.create_task(wait_and_work())
            await asyncio.to_thread(gg.exp, x)
        await late
        return p

    async def wait_and_work():
        await asyncio.sleep(0.01)
        gg.sum(gg.sin(x)).backward()

    p = asyncio.run(main())
    assert calls(p) == {("exp", "forward"): 1}


def test_results_are_those_without(device):
    def gradients():
        x = leaf([1.0, 2.0])
        (gg.sum(gg.checkpoint(gg.sin)(gg.stack([x, x * x]))) + gg.max(x)).backward()
        return x.grad.get()

    plain = gradients()
    with gg.profile(memory=True):
        profiled = gradients()
    np.testing.assert_array_equal(plain, profiled)


# ---- the table


def test_the_table_by_line_and_by_scope(device):
    x = leaf(np.ones(1000))
    with gg.profile() as p, gg.name_scope("here"):
        y, first = gg.exp(x) * 2.0, line()
        gg.sum(y).backward()
    name = os.path.basename(__file__)
    by_line = p.table("line")
    (found,) = [x for x in by_line.splitlines() if x.startswith(f"{name}:{first} ") and "forw" in x]
    assert " 2 " in found
    assert "exp +1" in found or "multiply +1" in found
    by_scope = p.table("scope").splitlines()
    assert {x.split()[0] for x in by_scope[1:-1]} == {"here"}
    assert by_scope[-1].split()[:2] == ["total", "6"]
    assert by_scope[-1].endswith(f"of {1e3 * p.seconds:.3f} ms in the block")
