"""Work on a second CUDA device happens there, while the first is the current one.

Where the devices do not reach each other's memory (EMU_PEER=0 of the emulated device), CuPy raises
for every kernel that runs on the wrong one; where they do, it warns, which is an error here.
"""

import copy
import pickle
import threading

import numpy as np
import pytest
from helpers import flat
from test_streams import OPTIMIZERS, Streams

import gpugrad as gg
from gpugrad import backends
from gpugrad.testing.table import ROWS

pytestmark = pytest.mark.devices


@pytest.fixture
def cupy(cuda):
    cupy = backends.backend_of_kind("cuda")._cupy
    yield cupy
    assert cupy.cuda.runtime.getDevice() == 0


@pytest.fixture
def second(cupy):
    return gg.device("cuda:1")


def test_a_number_keeps_its_shape(second):
    x = gg.asarray(2.0, device="cuda:0", requires_grad=True)
    y = x.to(second)
    assert y.shape == ()
    y.backward()
    assert (x.grad.shape, x.grad.device) == ((), "cuda:0")


@pytest.fixture
def make(second):
    def make(*shape, **options):
        x = np.arange(1.0, 1 + np.prod(shape)).reshape(shape)
        return gg.asarray(x, device=second, **options)

    return make


@pytest.fixture
def leaf(make):
    return lambda *shape: make(*shape, requires_grad=True)


def places(out):
    return {x.device for x in flat(out) if isinstance(x, gg.Tensor)}


@pytest.mark.parametrize("row", [row for row in ROWS if not row.needs], ids=str)
def test_every_operation_and_its_derivatives(row, second):
    dtype = row.dtypes[-1]
    args = [
        gg.asarray(x, device=second) if isinstance(x, np.ndarray) else x for x in row.draw(dtype)
    ]
    assert places(row.function(*args)) == {second}
    if row.order and np.dtype(dtype).kind in "fc":
        f, xs = row.of_differentiable(args)
        leaves = [gg.asarray(x, requires_grad=True) for x in xs]
        for x in flat(f(*leaves)):
            if x.requires_grad:
                x.backward(gg.ones_like(x), retain_graph=True)
        assert places([x.grad for x in leaves if x.grad is not None]) == {second}
        assert places(gg.jvp(f, xs, xs)) == {second}


@pytest.mark.parametrize("optimizer", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_a_training_step(optimizer, make, second):
    rng = gg.random.Generator(0, second)
    net = gg.nn.Sequential(
        *(gg.nn.Conv2d(1, 2, 3, rng=rng), gg.nn.ReLU(), gg.nn.MaxPool2d(2), gg.nn.Flatten()),
        *(gg.nn.Linear(2, 3, rng=rng), gg.nn.Sigmoid()),
    )
    params = net.parameters()
    assert places(params) == {second}
    update = optimizer(params)
    x = make(2, 1, 4, 4).astype("float32")
    labels = gg.asarray(np.array([0, 2]), device=second)
    for _ in range(2):
        update.zero_grad()
        gg.nn.cross_entropy(net(x), labels).backward()
        update.step()
    assert places([p.grad for p in params]) == {second}
    net.load_state_dict(net.state_dict())


def test_transforms(make, leaf):
    def f(x):
        return gg.sum(gg.exp(-x / 9) @ x * gg.cumulative_sum(x[0])[1])

    x = make(3, 3)
    z = x + 1j * x
    found = {
        "grad": gg.grad(f)(x),
        "grad of grad": gg.grad(lambda x: gg.grad(f)(x).sum())(x),
        "vjp": gg.vjp(f, x)[1](1.0),
        "jvp": gg.jvp(f, (x,), (x,)),
        "hvp": gg.hvp(f, (x,), (x,)),
        "hessian": gg.hessian(f)(x),
        "jacobian by rows": gg.jacobian(lambda x: gg.sin(x) @ x)(x),
        "jacobian by columns": gg.jacobian(lambda x: gg.concat([x, x * x]))(x[0]),
        "jacobian, diagonal": gg.jacobian(gg.tanh)(x),
        "jacobian, zero": gg.jacobian(lambda x: [x[0], gg.ones_like(x)])(x),
        "jacobian, holomorphic": gg.jacobian(lambda z: z @ z, holomorphic=True)(z),
        "vmap": gg.vmap(lambda row, x: gg.where(row > 0, x, row[0]) @ row, (0, None))(x, x[0]),
        "vmap of grad": gg.vmap(gg.grad(lambda row: gg.logsumexp(row) * row[0]))(x),
    }
    for name, out in found.items():
        assert places(out) == {x.device}, name
    assert gg.grad(f)(x.data).device.id == 1
    y = leaf(3, 3)
    f(y).backward(create_graph=True)
    (y.grad**2).sum().backward()
    assert y.grad.device == x.device


def test_checkpoint_custom_functions_and_hooks(leaf, second):
    x = leaf(3, 3)
    rng = gg.random.Generator(0, second)
    double = gg.custom_vjp(lambda x: x * 2, lambda g, out, x: g * 2)
    y = gg.checkpoint(lambda x: gg.sigmoid(gg.sin(x) @ x) + rng.normal((3, 3)) * x)(x)
    y = double(y)
    y.register_hook(lambda g: g * 2)
    x.register_hook(lambda g: g + 1)
    (y * y).sum().backward()
    assert x.grad.device == second
    assert places(gg.jvp(double, (x.detach(),), (x.detach(),))) == {second}


def test_writes(make, leaf):
    x = leaf(3, 3) * 1
    view = x[1:]
    x[0] = 2.0
    view += x[0]
    x[[0, 0], [1, 1]] = make(2)
    x[x > 6] = 0.0
    (x.sum() + view.sum()).backward()
    y = make(3, 3)
    y[0] = 1.0
    y += y
    y[[0, 1]] = make(2, 3)
    y.fill(3)
    y.sort()
    assert y.device == x.device
    z = make(3)
    z.requires_grad = True
    (z * z).sum().backward()
    assert z.grad.device == x.device


def test_random_numbers(make, leaf, second):
    rng = gg.random.Generator(0, second)
    drawn = [
        *(getattr(rng, name)(1.0, 2.0, 3) for name in ("uniform", "gamma", "beta", "laplace")),
        *(getattr(rng, name)(1.0, 3) for name in ("exponential", "poisson", "rayleigh")),
        *(rng.normal(3), rng.truncated_normal(-1.0, 1.0, 3), rng.student_t(3.0, shape=3)),
        *(
            rng.integers(0, 5, 3),
            rng.permutation(3),
            rng.bernoulli(0.5, 3),
            rng.binomial(5, 0.3, 3),
        ),
        *(rng.dirichlet(make(3), 2), rng.categorical(make(3), 2)),
        rng.multivariate_normal(make(3), make(3, 3), 2),
    ]
    assert places(drawn) == {second}
    loc = leaf(3)
    (rng.normal(loc=loc, scale=loc) + rng.gamma(loc)).sum().backward()
    assert loc.grad.device == second


def test_reading_and_copies(make, leaf, cupy):
    x = leaf(3, 3)
    assert "cuda:1" in repr(x)
    assert float(x[0, 1]) == x[0, 1].item() == 2
    for again in (copy.copy(x), copy.deepcopy(x), pickle.loads(pickle.dumps(x.detach()))):
        np.testing.assert_array_equal(again.get(), x.get())
    x = x.detach()
    assert gg.from_dlpack(x).device == gg.from_dlpack(x, copy=True).device == x.device
    assert cupy.from_dlpack(x).device.id == 1
    np.testing.assert_array_equal(np.from_dlpack(x, device="cpu"), x.get())


def test_memory_of_the_second_device(make, second):
    x = make(1000)
    start = gg.memory(second, reset_peak=True)
    assert start.used >= x.data.nbytes
    gg.zeros(1000, device=second)
    assert gg.memory(second).peak == start.used + 8192
    assert gg.memory(second).used == start.used


# ---- from one device to the other


def test_gradients_travel_back(leaf, second):
    x = leaf(4, 4)
    y = x.to("cuda:0") * 2
    z = y.T[::2].to(second) + x[:2]
    (z.to("cpu") * z.to("cpu")).sum().backward()
    values = np.arange(1.0, 17).reshape(4, 4)
    z = 2 * values.T[::2] + values[:2]
    expected = np.zeros((4, 4))
    expected.T[::2] += 4 * z
    expected[:2] += 2 * z
    np.testing.assert_allclose(x.grad.get(), expected)
    assert x.grad.device == second


def test_devices_do_not_mix(make, leaf):
    there = make(3, 3)
    here = there.to("cuda:0")
    index = here.astype(int) % 3
    there_too = leaf(3, 3)
    for call in (
        lambda: there + here,
        lambda: there @ here,
        lambda: gg.where(there > 0, there, here),
        lambda: gg.concat([there, here]),
        lambda: gg.clip(there, here, here),
        lambda: there[index[0]],
        lambda: gg.take(there, index[0], axis=0),
        lambda: there.__setitem__(0, here[0]),
        lambda: there.__iadd__(here),
        lambda: there_too.backward(here),
        lambda: setattr(there_too, "grad", here),
        lambda: gg.jvp(gg.sin, (there,), (here,)),
        lambda: gg.random.Generator(0, there.device).normal(loc=here),
    ):
        with pytest.raises(ValueError, match=r"cuda:0.*cuda:1|cuda:1.*cuda:0"):
            call()


def test_a_copy_waits_for_the_source_and_the_source_for_the_copy(make, cupy, monkeypatch):
    x = make(4, 4)
    for given in (x, x[::2, ::2]):
        streams = Streams(cupy)
        with monkeypatch.context() as patched:
            patched.setattr(cupy.cuda, "get_current_stream", streams)
            y = given.to("cuda:0")
        expected = [("record", 1), ("wait", 0, ("record", 1)), ("record", 0)]
        assert streams.log == [*expected, ("wait", 1, ("record", 0))]
        np.testing.assert_array_equal(y.get(), given.get())


def test_copies_between_devices_are_transfers(make):
    x = make(3)
    with gg.no_transfers():
        gg.sum(x * x)
        with pytest.raises(gg.TransferError, match="to_device: .*24 bytes from cuda:1 to cuda:0"):
            x.to("cuda:0")


def test_each_thread_has_its_own_current_device(make, cupy):
    x, found = make(3), []

    def work():
        with cupy.cuda.Device(1):
            found.append(gg.grad(lambda x: gg.sum(gg.exp(x)))(x).device)
            found.append(cupy.cuda.runtime.getDevice())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [x.device, 1]
