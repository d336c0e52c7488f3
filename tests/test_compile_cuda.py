"""Compiled functions on a CUDA device: generated kernels, and CUDA graphs of them."""

import threading

import numpy as np
import pytest
from helpers import host, launches, leaf
from test_compile import (
    OPTIMIZERS,
    assert_equal_networks,
    batches,
    on_device,
    training,
    training_step,
    values,
)
from test_compile_ops import NAMES, assert_close, drawn, with_cotangents
from test_compile_ops import on_device as all_on_device

import gpugrad as gg
from gpugrad import backends
from gpugrad.compiler import cuda as cuda_runner
from gpugrad.testing.table import ROWS


@pytest.fixture
def cupy(cuda):
    return backends.backend_of_kind("cuda")._cupy


def runner_of(compiled):
    first, *others = compiled.steps
    assert not others, set(first.described.items()) ^ set(others[0].described.items())
    return first.runner


def replayed(f, *calls):
    """Compiled, the results of some calls; the last ones are launches of a graph."""
    compiled = gg.compile(f)
    results = [compiled(*args) for args in calls]
    runner = runner_of(compiled)
    assert runner.captured, runner.reason
    return results, runner


# Sorts, on the emulated device; products inside of CuPy's functions; constants that it copies.
UNCAPTURED = ("sort", "cuBLAS", "transfers are disallowed")


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("name", NAMES)
def test_every_row_as_a_graph(name, cuda):
    for row in ROWS:
        if row.name != name or row.needs:
            continue
        dtype = np.dtype("f" if "f" in row.dtypes else row.dtypes[0])
        f = with_cotangents(row, dtype)
        compiled = gg.compile(f)
        try:
            for seed in (0, 1, 2, 1):
                args = drawn(row, dtype, seed)
                assert_close(compiled(*all_on_device(args)), f(*all_on_device(args)), row)
        except gg.CompileError:  # which test_compile_ops looks at
            continue
        runner = runner_of(compiled)
        assert runner.captured != bool(runner.reason), row
        if runner.reason:
            assert any(x in runner.reason for x in UNCAPTURED), (row, runner.reason)


# ---- training


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_training(optimizer, cuda):
    """50 steps, whose arguments come in new memory each time, as they are without."""
    with gg.device(cuda):
        (a, _, eager), (b, _, step) = training(optimizer), training(optimizer)
        step = gg.compile(step)
        for x, labels in batches(50):
            np.testing.assert_allclose(host(step(x, labels)), host(eager(x, labels)), rtol=1e-12)
        assert_equal_networks(a, b)
    assert runner_of(step).captured


def mnist(cuda, optimizer="momentum"):
    with gg.device(cuda):
        layers = [gg.nn.Linear(784, 100), gg.nn.Sigmoid(), gg.nn.Linear(100, 10)]
        net = gg.nn.Sequential(*layers)
        opt = OPTIMIZERS[optimizer](net.parameters())

    step = training_step(net, opt)
    rng = np.random.default_rng(0)
    x = gg.asarray(rng.random((128, 784), dtype="float32"), device=cuda)
    return net, step, x, gg.asarray(np.arange(128) % 10, device=cuda)


@pytest.mark.parametrize(("optimizer", "most"), [("SGD", 10), ("momentum", 10), ("Adam", 11)])
def test_launches_of_a_training_step(optimizer, most, cuda, emulated):
    """Kernels of the graph, beside cuBLAS; one more copies the loss for the caller."""
    _, step, x, labels = mnist(cuda, optimizer)
    step = gg.compile(step)
    counts = []
    for _ in range(4):
        before = launches()
        step(x, labels)
        counts.append(launches() - before)
    assert runner_of(step).captured
    assert counts[2] == most + 1  # the capture counts what is captured
    assert counts[3] == 1


def test_updates_of_all_parameters_are_one_kernel(cuda):
    _, step, x, labels = mnist(cuda)
    step = gg.compile(step)
    for _ in range(2):
        step(x, labels)
    source = runner_of(step).source
    last = [line for line in source.splitlines() if "#" not in line][-2]
    for name in ("weight_new", "bias_new"):
        assert last.count(name) == 2
    assert "matmul(x, " in source


def test_gradients_are_lent(cuda):
    """A gradient is the graph's memory, until somebody holds it beside the leaf."""
    net, step, x, labels = mnist(cuda)
    reference, eager, *_ = mnist(cuda)
    for p, q in zip(net.parameters(), reference.parameters(), strict=True):
        q.data[...] = p.data
    step = gg.compile(step)
    weight = net.parameters()[0]
    for _ in range(4):
        step(x, labels)
        eager(x, labels)
        where = weight.grad.data.data.ptr
    step(x, labels)
    eager(x, labels)
    assert weight.grad.data.data.ptr == where
    kept = weight.grad
    before = kept.get().copy()
    for _ in range(3):
        step(x, labels)
        eager(x, labels)
    np.testing.assert_array_equal(kept.get(), before)
    for p, q in zip(net.parameters(), reference.parameters(), strict=True):
        np.testing.assert_allclose(host(p.grad), host(q.grad), rtol=1e-4, atol=1e-7)
        np.testing.assert_allclose(host(p), host(q), rtol=1e-4, atol=1e-6)
    assert runner_of(step).captured


def test_gradients_that_are_added_up(cuda):
    with gg.device(cuda):
        w, v = leaf(values(3)), leaf(values(3))

        def step(w, x):
            gg.sum(gg.sin(w * x)).backward()

        compiled = gg.compile(lambda x: step(w, x))
        for k in range(6):
            x = on_device(values(3, seed=k))
            compiled(x)
            step(v, x)
            np.testing.assert_allclose(host(w.grad), host(v.grad), rtol=1e-12)


# ---- what comes with a call


def test_arguments_that_stay_are_read_where_they_are(cuda):
    with gg.device(cuda):
        x = on_device(values(4))
        other = on_device(values(4, seed=1))
        (*_, last), runner = replayed(lambda x: gg.exp(x) * 2, (x,), (x,), (x,))
        np.testing.assert_allclose(host(last), np.exp(values(4)) * 2)
        assert runner._held[0] is x.data
        held = runner._held[0]
        x.data[...] = other.data
        compiled = gg.compile(lambda x: gg.exp(x) * 2)
        for _ in range(3):
            compiled(x)
        graph = runner_of(compiled)._graph
        for k in range(3):
            new = on_device(values(4, seed=k))
            np.testing.assert_allclose(host(compiled(new)), np.exp(values(4, seed=k)) * 2)
            if k:
                assert runner_of(compiled)._graph is graph  # captured once more, then copied
            graph = runner_of(compiled)._graph
        np.testing.assert_array_equal(host(held), values(4, seed=1))


def test_arguments_that_move_keep_their_layout(cuda):
    """Kernels are compiled for it, which CUDA need not allow during a capture."""
    with gg.device(cuda):

        def f(x):
            return gg.exp(x) @ x.T

        compiled = gg.compile(f)
        for k in range(4):
            x = values(3, 4, seed=k)
            got = compiled(gg.matrix_transpose(on_device(x)))
            np.testing.assert_allclose(host(got), np.exp(x.T) @ x, rtol=1e-12)
    runner = runner_of(compiled)
    assert runner.captured
    assert runner._held[0].strides == (8, 32)


def test_arguments_that_are_written(cuda):
    with gg.device(cuda):

        def f(x, y):
            x += y
            y *= 2
            return x * y

        compiled = gg.compile(f)
        for k in range(5):
            pairs = [[on_device(values(3, seed=s)) for s in (k, 9)] for _ in range(2)]
            assert_close(compiled(*pairs[0]), f(*pairs[1]), k)
            assert_close(pairs[0], pairs[1], k)
        assert runner_of(compiled).captured


def test_what_is_written_last_is_not_read_before(cuda):
    """Two arrays change places, and one is returned as it was."""
    with gg.device(cuda):
        a, b = on_device(values(3)), on_device(values(3, seed=1))

        def swap(x):
            old = a.copy()
            a[...] = b
            b[...] = old
            return old, a + x

        compiled = gg.compile(swap)
        first, second = values(3), values(3, seed=1)
        for _ in range(5):
            old, total = compiled(on_device(np.ones(3)))
            np.testing.assert_array_equal(host(old), first)
            first, second = second, first
            np.testing.assert_array_equal(host(total), first + 1)
            np.testing.assert_array_equal(host(a), first)
            np.testing.assert_array_equal(host(b), second)


def test_a_whole_array_that_is_written_is_no_copy(cuda):
    """Of a scalar, of another dtype, or by a loop that has no text: a number is infinite."""
    with gg.device(cuda):
        states = [[on_device(np.ones((2, 3))) for _ in range(3)] for _ in range(2)]

        def f(x, a, b, c):
            a[...] = a * 2 + x
            b[...] = gg.astype(gg.sum(x) + 1, "float32")
            c *= gg.where(x > 2, np.inf, x * 2)

        compiled = gg.compile(lambda x: f(x, *states[0]))
        for k in range(4):
            x = on_device(values(2, 3, seed=k) + k)
            compiled(x)
            f(x, *states[1])
            assert_close(states[0], states[1], k)
    assert "setitem" not in runner_of(compiled).source


def test_results_stay(cuda):
    with gg.device(cuda):
        xs = [on_device(values(3, seed=k)) for k in range(5)]
        compiled = gg.compile(lambda x: (gg.sin(x), x, gg.sum(x)))
        results = [compiled(x) for x in xs]
        for x, (s, same, total) in zip(xs, results, strict=True):
            assert same is x
            np.testing.assert_allclose(host(s), np.sin(host(x)))
            np.testing.assert_allclose(host(total), host(x).sum())


# ---- kernels


def test_loops_of_several_shapes_are_one_kernel(cuda, emulated):
    with gg.device(cuda):
        shapes = [(3, 4), (4,), (3, 1), (), (2, 3, 4), (0, 4)]
        xs = [on_device(values(*shape, seed=k)) for k, shape in enumerate(shapes)]

        def f(*xs):
            out = [gg.exp(x) * 2 + 1 for x in xs]
            row, column = xs[1], xs[2]
            return [*out, xs[0] * row + column, xs[4] * column - row, xs[4] * xs[0] * xs[3] + 1]

        results, runner = replayed(f, xs, xs, xs)
        for result in results:
            assert_close(result, f(*xs), "")
        assert runner.kernels == 1


def test_sums_of_arrays_by_columns(cuda, cupy):
    """A result, of which there are views, keeps its strides, whatever makes it."""
    with gg.device(cuda):
        x = on_device(values(2, 3, 200))

        def f(x):
            total = gg.sum(gg.exp(gg.permute_dims(x, (2, 1, 0))) * 2, axis=0)
            return gg.sin(gg.reshape(total, (6,))) + 1, total * 2

        results, _ = replayed(f, *[(x,)] * 4)
        for result in results:
            assert_close(result, f(x), "")

        given = []

        def kernel(*arrays, **options):
            given.append(len(arrays))
            return cupy.sum(arrays[0], **options)

        out = cupy.zeros((3, 2))
        cuda_runner._sum_into(kernel, x.data.T, out, axis=0)
        assert given == [1]
        assert out.flags.c_contiguous
        np.testing.assert_allclose(host(out), values(2, 3, 200).T.sum(0))


def test_kernels_of_many_arrays(cuda):
    """Their parameters fit into 4 KiB, of which an array with more axes takes more."""
    with gg.device(cuda):
        for shape, kernels in (((3,), 1), ((1, 3, 1, 1, 1), 2)):
            xs = [on_device(values(*shape, seed=k)) for k in range(30)]

            def f(*xs):
                return [gg.exp(x) + k for k, x in enumerate(xs)]

            results, runner = replayed(f, *[xs] * 4)
            for result in results:
                assert_close(result, f(*xs), "")
            assert runner.kernels == kernels


def test_an_index_into_the_middle(cuda):
    """Operands that are broadcast along inner axes, and views that lie otherwise."""
    with gg.device(cuda):
        x, y, z = (on_device(values(*s)) for s in ((2, 3, 4), (3, 1), (2, 1, 4)))

        def f(x, y, z):
            return x * y + 1, x * z + 1, gg.matrix_transpose(x) * gg.matrix_transpose(y) + 1

        results, _ = replayed(f, *[(x, y, z)] * 3)
        for result in results:
            assert_close(result, f(x, y, z), "")


def test_a_loop_that_needs_another_runs_after_it(cuda):
    with gg.device(cuda):
        x = on_device(values(3, 4))

        def f(x):
            a = gg.exp(x) + 1
            b = gg.sum(a, axis=0)
            c = gg.sin(b) * 2
            return gg.flip(a * c, axis=0) * a, c

        results, _ = replayed(f, (x,), (x,), (x,))
        for result in results:
            assert_close(result, f(x), "")


@pytest.mark.parametrize("dtype", ["float16", "complex64", "complex128"])
def test_other_dtypes(dtype, cuda):
    with gg.device(cuda):
        x = on_device(np.linspace(0.1, 2, 12).reshape(3, 4).astype(dtype))

        def f(x):
            out, pull = gg.vjp(lambda x: gg.sum(gg.exp(x) * x - x / 3, axis=0), x)
            return out, pull(gg.ones_like(out))

        results, _ = replayed(f, (x,), (x,), (x,))
        for result in results:
            assert_close(result, f(x), dtype)


# ---- random numbers


def test_random_numbers_are_drawn_before_the_launch(cuda):
    with gg.device(cuda):

        def f(x):
            kept = gg.random.bernoulli(0.5, x.shape, dtype=x.dtype)
            return x * kept * 2 + gg.random.normal(x.shape)

        compiled = gg.compile(f)
        x = on_device(values(40))
        for seed in (0, 1, 2, 3, 2):
            gg.random.seed(seed)
            got = host(compiled(x))
            gg.random.seed(seed)
            if seed:
                np.testing.assert_allclose(got, host(f(x)), rtol=1e-12)
        runner = runner_of(compiled)
        assert runner.captured
        assert "normal" in runner.source.splitlines()[1]


def test_random_numbers_with_parameters_that_are_computed(cuda):
    with gg.device(cuda):
        compiled = gg.compile(lambda x: gg.random.gamma(x * 2, 1.0) + 1)
        x = on_device(np.ones(3))
        results = [host(compiled(x)) for _ in range(4)]
    assert not np.array_equal(results[-1], results[-2])
    runner = runner_of(compiled)
    assert not runner.captured
    assert "gamma random numbers are drawn with parameters" in runner.reason


# ---- what is not captured


def test_bounds_are_checked(cuda):
    with gg.device(cuda), gg.check_bounds():
        compiled = gg.compile(lambda x, i: gg.take(x, i, axis=0) + 1)
        x, i = on_device(values(3)), on_device(np.array([0, 2]))
        for _ in range(3):
            np.testing.assert_allclose(host(compiled(x, i)), values(3)[[0, 2]] + 1)
        with pytest.raises(IndexError):
            compiled(x, on_device(np.array([0, 3])))
    assert "check_bounds" in runner_of(compiled).reason


def test_a_function_that_cannot_be_captured(cuda):
    with gg.device(cuda):
        a, b = on_device(values(3, 3)), on_device(values(3, 3, seed=1))
        state = on_device(np.zeros(()))

        def f(a, b):
            out = gg.einsum("ij,jk,kl->il", a, b, b) + 1
            state[...] = state + gg.sum(out)
            return out

        compiled = gg.compile(f)
        for _ in range(4):
            got = compiled(a, b)
        expected = values(3, 3) @ values(3, 3, seed=1) @ values(3, 3, seed=1) + 1
        np.testing.assert_allclose(host(got), expected)
        np.testing.assert_allclose(host(state), 4 * expected.sum())
    runner = runner_of(compiled)
    assert not runner.captured
    assert "cuBLAS" in runner.reason


def test_transforms_are_not_captured():
    """Emulated devices have no cuFFT, but what a program shows is the same on the CPU."""
    for f, n, is_one in (
        (gg.fft.fft, 4, True),
        (lambda x: gg.convolve(x, x), 4096, False),
        (lambda x: gg.convolve(x, x), 4097, True),
    ):
        compiled = gg.compile(f)
        compiled(gg.asarray(values(n)))
        assert ("cuFFT" in cuda_runner._hindrance(compiled.steps[-1].program)) == is_one


def test_products_that_cublas_does_not_take(cuda):
    with gg.device(cuda):
        x = on_device(np.arange(12).reshape(3, 4))
        compiled = gg.compile(lambda x: gg.matmul(x, x.T))
        for _ in range(3):
            np.testing.assert_array_equal(host(compiled(x)), host(x) @ host(x).T)


@pytest.mark.parametrize(
    ("subscripts", "shapes"),
    [
        ("ij,jk->ik", [(2, 3), (3, 4)]),
        ("bqhd,bkhd->bhqk", [(2, 3, 2, 4), (2, 5, 2, 4)]),
        ("bhqk,bkhd->bqhd", [(2, 2, 3, 5), (2, 5, 2, 4)]),
        ("ij,ij->", [(2, 3), (2, 3)]),
        ("kji,jk->i", [(2, 3, 4), (3, 2)]),
        ("...ij,...j->...i", [(2, 3, 4), (2, 4)]),
    ],
)
def test_einsum_of_two_is_captured(subscripts, shapes, cuda):
    with gg.device(cuda):
        xs = [on_device(values(*shape, seed=k)) for k, shape in enumerate(shapes)]
        results, _ = replayed(lambda *xs: gg.einsum(subscripts, *xs), xs, xs, xs)
        expected = np.einsum(subscripts, *map(host, xs))
        for result in results:
            np.testing.assert_allclose(host(result), expected, rtol=1e-12)


@pytest.mark.parametrize("calls", [1, 2, 4])
def test_nothing_is_stored_if_memory_runs_out(calls, cuda, cupy):
    """While it is built, while it is captured, and for the results of a launch."""
    with gg.device(cuda):
        w, x = on_device(np.zeros(3)), on_device(np.zeros(1 << 12))

        def f(x):
            w[...] = w + 1
            return gg.cumulative_sum(gg.exp(x) + 1) * 2

        compiled = gg.compile(f)
        for _ in range(calls):
            compiled(x)
        failed = 0
        for limit in (512, 1 << 15, 1 << 16, 1 << 17, 1 << 20):
            pool = cupy.cuda.MemoryPool()
            pool.set_limit(size=limit)
            other = x.copy()  # in other memory
            before = host(w).copy()
            try:
                with cupy.cuda.using_allocator(pool.malloc):
                    compiled(other)
                before += 1
            except MemoryError:
                failed += 1
            np.testing.assert_array_equal(host(w), before)
        assert 0 < failed < 5
        out = compiled(x)
        np.testing.assert_array_equal(host(w), before + 1)
        np.testing.assert_array_equal(host(out), np.cumsum(np.full(1 << 12, 2.0)) * 2)


# ---- streams and devices


def test_streams(cuda, cupy):
    """Calls on several streams: each sees what the one before it did."""
    with gg.device(cuda):
        w = on_device(np.zeros(3))

        def f(x):
            w[...] = w + x
            return w * 2

        compiled = gg.compile(f)
        streams = [cupy.cuda.Stream(non_blocking=True) for _ in range(2)]
        total = np.zeros(3)
        for k in range(8):
            with streams[k // 2 % 2] as stream:
                got = compiled(on_device(values(3, seed=k)))
                stream.synchronize()
            total += values(3, seed=k)
            np.testing.assert_allclose(host(got), total * 2)
    runner = runner_of(compiled)
    assert runner.captured
    assert runner._stream.ptr == streams[1].ptr


@pytest.fixture
def waits(cupy, monkeypatch):
    """The events that streams have been made to wait for."""
    events = []
    kind = cupy.cuda.Stream.__mro__[1]
    wait = kind.wait_event
    monkeypatch.setattr(kind, "wait_event", lambda *args: (events.append(args[1]), wait(*args)))
    return events


def test_a_first_replay_elsewhere(cuda, cupy, waits):
    """Buffers may be memory that is still in use where they were taken."""
    with gg.device(cuda):
        x = on_device(values(3))
        compiled = gg.compile(lambda x: gg.sum(gg.exp(x)) * 2)
        compiled(x)
        assert not waits
        with cupy.cuda.Stream(non_blocking=True):
            compiled(x)
        assert len(waits) == 1


def test_default_streams_of_threads(cuda, cupy, waits):
    """All have one address: what was queued by another thread is waited for all the same."""
    w = gg.asarray(np.zeros(3), device=cuda)
    x = gg.asarray(values(3), device=cuda)

    def f(x):
        w[...] = w + x

    compiled = gg.compile(f)

    def work():
        with cupy.cuda.Stream.ptds:
            compiled(x)
            compiled(x)

    done = []
    for _ in range(2):
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        assert set(done) <= set(waits)
        done.append(runner_of(compiled)._done)
    assert None not in done
    compiled(x)
    compiled(x)
    np.testing.assert_allclose(host(w), 6 * values(3))
    assert runner_of(compiled).captured
    assert runner_of(compiled)._done is None


def test_a_caller_that_captures(cuda, cupy):
    """Then the call is made call by call, and is part of the caller's graph."""
    backend = backends.backend_of_kind("cuda")
    with gg.device(cuda):
        x, w = on_device(values(3)), on_device(np.zeros(3))

        def f(x):
            w[...] = w + gg.exp(x)

        compiled = gg.compile(f)
        for _ in range(3):
            compiled(x)
        graph = backend.capture(cuda, lambda: compiled(x))
        for _ in range(2):
            graph.launch()
        compiled(x)
        np.testing.assert_allclose(host(w), 6 * np.exp(values(3)))
    assert runner_of(compiled).captured


@pytest.mark.devices
def test_another_device_than_the_current_one(cuda):
    second = gg.device("cuda:1")
    with gg.device(second):
        w = on_device(np.zeros(3))
        x = on_device(values(3))

    def f(x):
        w[...] = w + gg.exp(x)
        return gg.sum(w)

    compiled = gg.compile(f)
    for _ in range(5):
        out = compiled(x)
    assert out.device == second
    np.testing.assert_allclose(host(w), 5 * np.exp(values(3)))
    assert runner_of(compiled).captured


@pytest.mark.devices
def test_several_devices_in_one_function(cuda):
    xs = [gg.asarray(values(3, seed=k), device=f"cuda:{k}") for k in range(2)]
    cpu = gg.asarray(values(3, seed=2), device="cpu")

    def f(x, y, z):
        x += gg.ones_like(x)
        return gg.exp(x), gg.sin(y), z * 2

    compiled = gg.compile(f)
    for k in range(4):
        results = compiled(*xs, cpu)
        assert [str(r.device) for r in results] == ["cuda:0", "cuda:1", "cpu"]
        np.testing.assert_allclose(host(results[0]), np.exp(values(3) + k + 1))
        np.testing.assert_allclose(host(results[1]), np.sin(values(3, seed=1)))


# ---- modes


def test_a_launch_is_no_transfer(cuda):
    _, step, x, labels = mnist(cuda)
    step = gg.compile(step)
    for _ in range(2):
        step(x, labels)
    with gg.no_transfers():
        for _ in range(3):
            step(x, labels)
    assert runner_of(step).captured


def test_nothing_that_is_built_is_a_transfer(cuda):
    """Constants are looked at once, which is no part of a step."""
    with gg.device(cuda):
        x, state = on_device(values(3)), on_device(np.zeros(3))

        def f(x):
            state[...] = state + gg.full((3,), 0.5) * x
            return gg.mean(x * 2)

        compiled = gg.compile(f)
        with gg.no_transfers():
            for _ in range(4):
                out = compiled(x)
            with pytest.raises(gg.TransferError):
                float(out)
        np.testing.assert_allclose(host(state), 2 * values(3))
    assert runner_of(compiled).captured
