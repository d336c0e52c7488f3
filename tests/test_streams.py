"""The caller's stream, and `no_transfers`: copies between devices and waits for them."""

import asyncio
import threading

import numpy as np
import pytest
from helpers import array, host, leaf

import gpugrad as gg
from gpugrad import backends


@pytest.fixture
def cupy(cuda):
    """CuPy, with its device as the default one."""
    with gg.device(cuda):
        yield backends.backend_of_kind("cuda")._cupy


# ---- streams

OPTIMIZERS = {
    "SGD": lambda params: gg.optim.SGD(params, 0.1, momentum=0.9),
    "Adam": lambda params: gg.optim.Adam(params, 0.1),
}


@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_a_training_step_is_captured_whole(make, cupy):
    """What waits would raise; what ran elsewhere would be missing when the graph runs."""
    first, second = (np.random.default_rng(i).standard_normal((5, 3)) for i in range(2))

    def training(x):
        w, b = leaf(np.linspace(-1, 1, 12).reshape(3, 4)), leaf(np.ones(4))
        optimizer = make([w, b])

        def step():
            optimizer.zero_grad()
            y = gg.sigmoid(x[:, :, None] * w + b) - gg.logsumexp(w, axis=0)
            loss = gg.mean(gg.softmax(y, axis=-1) * gg.tanh(gg.sum(y, axis=1)[:, None]))
            loss = loss + gg.sum(gg.take(w, x.astype(int)[:, 0] % 3, axis=0) ** 2)
            loss.backward()
            optimizer.step()
            return loss

        return step, (w, b)

    x = gg.asarray(array(first))
    step, expected = training(x)
    step()
    x[...] = array(second)
    expected = [step(), *expected]

    x[...] = array(first)
    step, params = training(x)
    cupy.cuda.Device().synchronize()  # the stream below does not wait for this one
    stream, pool = cupy.cuda.Stream(non_blocking=True), cupy.cuda.MemoryPool()
    with cupy.cuda.using_allocator(pool.malloc), stream:
        step()
        stream.begin_capture(cupy.cuda.runtime.streamCaptureModeRelaxed)
        loss = step()
        graph = stream.end_capture()
        x[...] = array(second)
        graph.launch()
        stream.synchronize()
    for got, wanted in zip((loss, *params), expected, strict=True):
        np.testing.assert_array_equal(host(got), host(wanted))


class Streams:
    """In the place of CuPy's current stream: notes events instead."""

    def __init__(self, cupy, ptr=0):
        self.log = []
        self.ptr = ptr
        self._runtime = cupy.cuda.runtime

    def __call__(self):
        return self

    def record(self):
        self.log.append(("record", self._runtime.getDevice()))
        return self.log[-1]

    def wait_event(self, event):
        self.log.append(("wait", self._runtime.getDevice(), event))


def test_random_numbers_on_another_stream_wait_for_the_last_ones(cupy, monkeypatch):
    """The state of the generator is on the device."""
    one, other = Streams(cupy), Streams(cupy, 1)
    monkeypatch.setattr(cupy.cuda, "get_current_stream", lambda: current)
    current = one
    generator = gg.random.Generator(0, "cuda")
    generator.normal(3)
    generator.uniform(shape=3)
    assert not one.log
    current = other
    generator.normal(3)
    generator.normal(3)
    assert one.log == [("record", 0)]
    assert other.log == [("wait", 0, ("record", 0))]


def test_random_numbers_are_drawn_on_the_current_stream(cupy):
    expected = [gg.random.Generator(0, "cuda").normal(4).get() for _ in range(2)]
    generator = gg.random.Generator(0, "cuda")
    with cupy.cuda.Stream():
        first = generator.normal(4)
    np.testing.assert_array_equal(first.get(), expected[0])
    with cupy.cuda.Stream(non_blocking=True):
        second = generator.normal(4)
        cupy.cuda.get_current_stream().synchronize()  # `get` is on another one
    assert not np.array_equal(second.get(), expected[0])


# ---- no transfers


@pytest.fixture
def x(cupy):
    return gg.asarray(array([1.0, 0.0, 3.0]))


ALLOWED = {
    "kernels": lambda x: gg.sum(gg.exp(x) * 2 + np.float64(1)),
    "a number": lambda x: gg.asarray(3.5, device="cuda") + x,
    "zero": lambda x: gg.asarray(0.0, device="cuda") + x,
    "new arrays": lambda x: gg.zeros(3) + gg.full((3,), 2.0) + gg.arange(3) + gg.eye(3),
    "slices": lambda x: x[1:] + x[:-1],
    "random": lambda x: gg.random.Generator(0, "cuda").normal(3),
    "data on the CPU": lambda x: float(gg.asarray(np.ones(3), device="cpu").sum()),
    "DLPack": lambda x: gg.from_dlpack(x),
    "to its own device": lambda x: x.to("cuda:0"),
}
REFUSED = {
    "a list": (lambda x: gg.asarray([1.0, 2.0], device="cuda"), "asarray: .* 16 bytes from the h"),
    "a NumPy array": (lambda x: gg.asarray(np.ones(3), device="cuda"), "asarray: .*host to cuda:0"),
    "to the GPU": (
        lambda x: gg.asarray(np.ones(3), device="cpu").to("cuda"),
        "to_device: .*cuda:0",
    ),
    "a list as an index": (lambda x: x[[0, 1]], "host to cuda:0"),
    "negative zero": (lambda x: gg.asarray(-0.0, device="cuda"), "host to cuda:0"),
    "to the CPU": (lambda x: x.to("cpu"), r"to_device: .*24 bytes from cuda:0 to the host"),
    "get": (lambda x: x.get(), "from cuda:0 to the host"),
    "item": (lambda x: x[0].item(), "from cuda:0 to the host"),
    "float": (lambda x: float(x[0]), "from cuda:0 to the host"),
    "bool": (lambda x: bool(x[0]), "from cuda:0 to the host"),
    "repr": (repr, "from cuda:0 to the host"),
    "DLPack": (lambda x: np.from_dlpack(x, device="cpu"), "from cuda:0 to the host"),
    "nonzero": (gg.nonzero, "nonzero: .*synchroniz"),
    "a mask": (lambda x: x[x > 0], "getitem: .*synchroniz"),
    "unique_values": (gg.unique_values, "nonzero: .*synchroniz"),
    "negative powers": (lambda x: x.astype(int) ** x.astype(int), "pow: .*synchroniz"),
    "a derivative": (
        lambda x: gg.grad(read_back)(x),
        "the derivative of <lambda>: .*synchroniz",
    ),
    "wait": (
        lambda x: backends.backend_of_kind("cuda").synchronize(x.device),
        "a wait for cuda:0",
    ),
}


def on_cpu():
    return gg.asarray(np.ones(3), device="cpu")


def read_back(x):
    def vjp(g, out, x):
        return (g + 0 * x) * float(x[0])

    read = gg.custom_vjp(lambda x: x.sum(), vjp)
    return read(x)


@pytest.mark.parametrize("case", ALLOWED)
def test_what_stays_on_the_device_is_allowed(case, x):
    with gg.no_transfers():
        ALLOWED[case](x)


@pytest.mark.parametrize("case", REFUSED)
def test_transfers_are_refused(case, x):
    call, message = REFUSED[case]
    with gg.no_transfers(), pytest.raises(gg.TransferError, match=message):
        call(x)
    call(x)


def test_a_wait_in_cupy_itself_comes_out_as_a_transfer_error(x):
    with pytest.raises(gg.TransferError, match="synchroniz.*no_transfers"), gg.no_transfers():
        float(x.data[0])
    assert float(x.data[0]) == 1
    with pytest.raises(gg.OutOfMemoryError), gg.no_transfers():
        gg.zeros(1 << 50)


def test_blocks_nest_and_decorate(x):
    refuses = gg.no_transfers()
    with refuses:
        with refuses:
            pass
        with pytest.raises(gg.TransferError):
            x.get()
    x.get()

    @gg.no_transfers()
    def read():
        return x.get()

    for _ in range(2):
        with pytest.raises(gg.TransferError):
            read()
    x.get()


def test_other_threads_and_later_tasks_are_free(x):
    found = []
    with gg.no_transfers():
        thread = threading.Thread(target=lambda: found.append(x.get()))
        thread.start()
        thread.join()
    assert len(found) == 1

    async def guarded():
        with gg.no_transfers():
            return gg.sum(x)

    async def both():
        return float(await asyncio.create_task(guarded()))

    assert asyncio.run(both()) == 4


def test_on_the_cpu_nothing_is_refused():
    with gg.no_transfers(), gg.device("cpu"):
        x = gg.asarray([1.0, 2.0], requires_grad=True)
        (x[[0, 1]] * x).sum().backward()
        assert float(gg.sum(x.grad)) == 6
        assert x.detach().to("cpu").get().tolist() == [1, 2]


@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)
@pytest.mark.parametrize("loss", ["cross_entropy", "mean_squared_error"])
def test_a_training_step_makes_no_transfer(make, loss, cupy):
    """The step of examples/mnist.py."""
    rng = gg.random.Generator(0)
    images, labels = rng.uniform(shape=(20, 16), dtype="float32"), rng.integers(0, 10, 20)
    targets = labels if loss == "cross_entropy" else gg.take(gg.eye(10), labels, axis=0)
    net = gg.nn.Sequential(gg.nn.Linear(16, 8), gg.nn.Sigmoid(), gg.nn.Linear(8, 10))
    optimizer = make(net.parameters())
    total = gg.zeros((), dtype=gg.float32)
    for _ in range(2):
        with gg.no_transfers():
            rows = rng.permutation(20)[:8]
            x, y = gg.take(images, rows, axis=0), gg.take(targets, rows, axis=0)
            value = getattr(gg.nn, loss)(net(x), y)
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
            total += value.detach().astype("float32")
    assert np.isfinite(float(total))
