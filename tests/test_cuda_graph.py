"""Work captured as a CUDA graph."""

import contextlib
import gc
import threading

import numpy as np
import pytest

import gpugrad as gg
from gpugrad import backends
from gpugrad.backends import Device
from gpugrad.cuda import graph as graph_module
from gpugrad.cuda.graph import CaptureError


@pytest.fixture
def cupy(cuda):
    return backends.backend_of_kind("cuda")._cupy


@pytest.fixture
def capture(cuda):
    backend = backends.backend_of_kind("cuda")
    return lambda work, device=cuda: backend.capture(device, work)


def test_captured_work_runs_when_it_is_launched(cupy, capture):
    x, y = cupy.arange(4.0), cupy.zeros(4)

    def work():
        cupy.add(cupy.exp(x), 1, out=y)

    graph = capture(work)
    np.testing.assert_array_equal(y.get(), np.zeros(4))
    for k in range(3):
        x[...] = k
        graph.launch()
        np.testing.assert_allclose(y.get(), np.exp(k) + 1 + np.zeros(4))


def test_a_training_step(cupy, capture, cuda):
    """With products by cuBLAS, against NumPy."""
    rng, rate = np.random.default_rng(0), 0.1
    inputs, targets = rng.standard_normal((2, 16, 8)), rng.standard_normal((2, 16, 4))
    weights = rng.standard_normal((8, 4)) * 0.1
    blas = backends.backend_of_kind("cuda").blas
    x, y, w = (cupy.asarray(v) for v in (inputs[0], targets[0], weights))
    loss = cupy.empty(())

    def step():
        z, change = cupy.empty((16, 4)), cupy.empty((8, 4))
        blas.matmul(x, w, z)
        s = 1 / (1 + cupy.exp(-z))
        cupy.sum((s - y) ** 2, out=loss)
        blas.matmul(x.T, (s - y) * s * (1 - s), change)
        cupy.subtract(w, rate * change, out=w)

    step()
    w[...] = cupy.asarray(weights)
    graph = capture(step)
    for k in (0, 1, 0, 1):
        x[...], y[...] = cupy.asarray(inputs[k]), cupy.asarray(targets[k])
        s = 1 / (1 + np.exp(-inputs[k] @ weights))
        graph.launch()
        np.testing.assert_allclose(float(loss), np.sum((s - targets[k]) ** 2))
        weights = weights - rate * inputs[k].T @ ((s - targets[k]) * s * (1 - s))
        np.testing.assert_allclose(w.get(), weights)


def test_results_are_those_of_the_last_launch(cupy, capture):
    x = cupy.ones(3)
    graph = capture(lambda: (x + 1, x * 3))
    graph.launch()
    total, product = graph.results
    np.testing.assert_array_equal(total.get(), [2, 2, 2])
    x[...] = 5
    graph.launch()
    np.testing.assert_array_equal(product.get(), [15, 15, 15])


class Recorded:
    """A graph that notes where it was launched."""

    def __init__(self, cupy):
        self.streams = []
        self._cuda = cupy.cuda

    def launch(self):
        place = self._cuda.runtime.getDevice(), self._cuda.get_current_stream().ptr
        self.streams.append(place)


def test_it_is_launched_on_the_current_stream(cupy, capture):
    """What was queued there before is done then, and what comes next sees what it did."""
    x, y = cupy.ones(3), cupy.zeros(3)
    graph = capture(lambda: cupy.add(y, x, out=y))
    cupy.cuda.Device().synchronize()
    stream = cupy.cuda.Stream(non_blocking=True)
    with stream:
        x[...] = 2
        graph.launch()
        z = y * 10
    np.testing.assert_array_equal(z.get(stream=stream), [20, 20, 20])
    graph._graph = noted = Recorded(cupy)
    graph.launch()
    with stream:
        graph.launch()
    graph.launch()
    assert noted.streams == [(0, 0), (0, stream.ptr), (0, 0)]


def test_a_launch_is_no_transfer(cupy, capture):
    x = cupy.ones(3)
    graph = capture(lambda: cupy.add(x, 1, out=x))
    with gg.no_transfers():
        graph.launch()
    np.testing.assert_array_equal(x.get(), [2, 2, 2])


def test_a_graph_in_a_graph(cupy, capture):
    """Where a caller captures, the launch is captured; a capture of its own is refused."""
    x = cupy.ones(3)
    inner = capture(lambda: cupy.add(x, 1, out=x))
    outer = capture(inner.launch)
    outer.launch()
    np.testing.assert_array_equal(x.get(), [2, 2, 2])
    with pytest.raises(CaptureError, match="captured already"):
        capture(lambda: capture(lambda: x + 1))


# ---- what cannot be captured

FAILING = {
    "cuBLAS through CuPy": (lambda cp, x: x @ x, "cuBLAS"),
    "a value": (lambda cp, x: float(x[0, 0]), "cuda:0: .*[Cc]aptur"),
    "a copy to the host": (lambda cp, x: x.get(), "[Cc]aptur"),
    "a copy from the host": (lambda cp, x: x.set(np.ones((3, 3))), "[Cc]aptur"),
    "a wait": (lambda cp, x: cp.cuda.get_current_stream().synchronize(), "[Cc]aptur"),
    "a wait, and the error is lost": (
        lambda cp, x: swallowed(cp.cuda.runtime.deviceSynchronize),
        "[Cc]aptur",
    ),
    "an error": (lambda cp, x: [][0], "list index out of range"),
    "an error without words": (lambda cp, x: fail(), "cuda:0: ZeroDivisionError"),
    "memory": (lambda cp, x: cp.empty(1 << 50), "[Mm]emory"),
}


def swallowed(f):
    with contextlib.suppress(Exception):
        f()


def fail():
    raise ZeroDivisionError


@pytest.mark.parametrize("case", FAILING)
def test_failing_captures_leave_everything_usable(case, cupy, capture):
    work, reason = FAILING[case]
    x = cupy.ones((3, 3))
    y = cupy.zeros((3, 3))

    def failing():
        cupy.add(x, 1, out=y)
        work(cupy, x)

    stream, allocator = cupy.cuda.get_current_stream(), cupy.cuda.get_allocator()
    with pytest.raises(CaptureError, match=reason) as info:
        capture(failing)
    assert str(info.value).startswith("this cannot be captured on cuda:0: ")
    assert info.value.__cause__ is not None
    assert cupy.cuda.get_current_stream() == stream
    assert cupy.cuda.get_allocator() == allocator
    assert not cupy.cuda.get_current_stream().is_capturing()
    del info
    np.testing.assert_array_equal(y.get(), np.zeros((3, 3)))
    graph = capture(lambda: cupy.add(x, 1, out=y))
    graph.launch()
    np.testing.assert_array_equal(y.get(), np.full((3, 3), 2))
    np.testing.assert_array_equal((x @ x).get(), np.full((3, 3), 3))


def test_an_interrupt_is_passed_on(cupy, capture):
    def work():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        capture(work)
    x = cupy.ones(3)
    assert capture(lambda: x + 1).nbytes


def test_the_cpu_captures_nothing():
    with pytest.raises(NotImplementedError):
        backends.backend_of_kind("cpu").capture(Device("cpu"), lambda: None)


# ---- memory


@pytest.fixture
def free(cupy, emulated):
    """The memory of the device that is free, to the byte; what others left is collected before."""
    gc.collect()
    return lambda: cupy.cuda.runtime.memGetInfo()[0]


def test_temporaries_belong_to_the_graph(cupy, capture):
    """Memory that is freed while it is captured is not handed out while launches write there."""
    x, y = cupy.ones(1000), cupy.empty(1000)

    def work():
        z = x + 1
        cupy.add(z, 1, out=y)

    work()
    graph = capture(work)
    others = [cupy.full(1000, 7.0) for _ in range(20)]
    graph.launch()
    assert y.sum() == 3000
    assert all(other.sum() == 7000 for other in others)
    assert graph.nbytes >= 8000


def test_temporaries_share_memory(cupy, capture):
    x = cupy.ones(1 << 16)

    def work():
        for _ in range(20):
            cupy.add(x + 1, 1, out=x)

    assert capture(work).nbytes == x.nbytes


def test_dropping_a_graph_frees_its_memory(cupy, capture, free):
    x = cupy.ones(1 << 16)

    def work():
        return cupy.sum(cupy.exp(x) + cupy.sin(x))

    work()
    before = free()
    for _ in range(3):
        graph = capture(work)
        graph.launch()
        assert free() < before
        del graph
        assert free() == before
    assert not graph_module._left


def test_a_failed_capture_frees_its_memory(cupy, capture, free):
    x = cupy.ones(1 << 16)
    before = free()
    with pytest.raises(CaptureError):
        capture(lambda: (x + 1).get())
    capture(lambda: None)
    assert free() == before


def test_arrays_that_outlive_the_graph(cupy, capture, free):
    """Their memory is kept, and given back with the next graph."""
    x = cupy.arange(1000.0)
    capture(lambda: [x + 1, x + 2, x + 3])
    before = free()
    graph = capture(lambda: [x + 1, x + 2, x + 3])
    graph.launch()
    kept = graph.results[1]
    del graph
    np.testing.assert_array_equal(kept.get(), np.arange(1000.0) + 2)
    assert free() < before
    del kept
    capture(lambda: None)
    assert free() == before


def test_dropped_in_another_thread(cupy, capture, free):
    x = cupy.ones(1 << 16)
    before = free()
    graphs = [capture(lambda: x + 1)]
    thread = threading.Thread(target=graphs.clear)
    thread.start()
    thread.join()
    assert free() == before


# ---- kernels


def test_an_emulated_driver_does_not_tell_the_kernels(cupy, capture, emulated):
    x = cupy.ones(3)
    assert capture(lambda: x + 1).kernels is None


# ---- several devices


@pytest.mark.devices
def test_a_step_on_the_second_device(cupy, capture):
    second, blas = gg.device("cuda:1"), backends.backend_of_kind("cuda").blas
    values = np.random.default_rng(0).standard_normal((4, 4))
    with cupy.cuda.Device(1):
        x, out = cupy.asarray(values), cupy.zeros((4, 4))

    def step():
        blas.matmul(x, x, out)
        cupy.add(cupy.exp(out), x, out=out)

    with cupy.cuda.Device(1):
        step()
        out.fill(0)
    graph = capture(step, second)
    assert cupy.cuda.runtime.getDevice() == 0
    np.testing.assert_array_equal(out.get(), np.zeros((4, 4)))
    graph.launch()
    assert cupy.cuda.runtime.getDevice() == 0
    np.testing.assert_allclose(out.get(), np.exp(values @ values) + values)
    assert graph.nbytes
    with cupy.cuda.Device(1):
        before = cupy.cuda.runtime.memGetInfo()[0]
        held = graph.nbytes
        del graph
        assert cupy.cuda.runtime.memGetInfo()[0] == before + held
    with pytest.raises(CaptureError, match="cuda:1: "):
        capture(lambda: x.get(), second)
    assert cupy.cuda.runtime.getDevice() == 0
