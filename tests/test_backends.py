"""Devices and their backends, and that nothing leaves a device unasked."""

import threading

import numpy as np
import pytest
import standin
from helpers import flat, host, leaf

import gpugrad as gg
from gpugrad import backends
from gpugrad.tape import owner_of
from gpugrad.testing.table import ROWS
from gpugrad.trees import map_tree

# ---- devices


def test_devices_are_named():
    assert gg.Device("cpu") == "cpu" == str(gg.Device("cpu"))
    assert gg.Device("cpu") == "cpu:0"
    assert gg.Device("cuda") == "cuda" == "cuda" != gg.Device("cuda", 1)
    assert str(gg.Device("cuda")) == "cuda:0"
    assert gg.Device("cuda", 1) == "cuda:1"
    assert gg.Device("cpu") != gg.Device("cuda")
    assert gg.Device("cpu") != "nonsense"
    assert gg.Device("cpu") != 3
    assert len({gg.Device("cuda"), gg.Device("cuda", 0), gg.Device("cuda", 1)}) == 2
    assert repr(gg.Device("cuda", 1)) == "gpugrad.device('cuda:1')"


@pytest.mark.parametrize("name", ["", "gpu", "cuda:", "cuda:x", "cuda:-1", "cpu:1", "CPU"])
def test_unknown_device(name):
    with pytest.raises(ValueError, match="unknown device.*'cuda:1'"):
        gg.device(name)


def test_a_device_that_is_not_there(device):
    with pytest.raises(gg.DeviceError, match=f"no device.*usable are {device}"):
        gg.device(gg.Device(device.kind, 99))
    assert issubclass(gg.DeviceError, RuntimeError)


def test_devices_lists_cuda_first():
    assert gg.devices()[-1] == "cpu"
    assert all(d.kind == "cuda" for d in gg.devices()[:-1])
    assert [d.index for d in gg.devices()[:-1]] == list(range(len(gg.devices()) - 1))


@pytest.fixture
def no_default(monkeypatch):
    monkeypatch.setattr(backends, "_default", None)
    monkeypatch.delenv("GPUGRAD_DEVICE", raising=False)
    return monkeypatch


def test_default_device(no_default):
    assert backends.default_device() == gg.devices()[0]


def test_default_device_by_setting(no_default):
    no_default.setenv("GPUGRAD_DEVICE", "cpu")
    assert gg.zeros(1).device == "cpu"


def test_default_device_by_a_wrong_setting(no_default):
    no_default.setenv("GPUGRAD_DEVICE", "gpu")
    with pytest.raises(ValueError, match="unknown device 'gpu'"):
        gg.zeros(1)


def test_set_default_device(no_default):
    gg.set_default_device("cpu")
    assert gg.zeros(1).device == "cpu"
    gg.set_default_device(gg.devices()[0])
    assert gg.zeros(1).device == gg.devices()[0]
    for wrong, error in [("gpu", ValueError), (gg.Device("cpu", 99), gg.DeviceError)]:
        with pytest.raises(error):
            gg.set_default_device(wrong)
    assert gg.zeros(1).device == gg.devices()[0]
    no_default.setenv("GPUGRAD_DEVICE", "cpu")
    gg.set_default_device(None)
    assert gg.zeros(1).device == "cpu"


def test_device_blocks_nest(no_default):
    gg.set_default_device("cpu")
    with gg.Device("cuda", 7) as outer:
        assert outer == "cuda:7"
        with gg.device("cpu"):
            assert gg.zeros(1).device == "cpu"
        assert backends.default_device() == outer
        with pytest.raises(KeyError), gg.device("cpu"):
            raise KeyError
        assert backends.default_device() == outer
    assert gg.zeros(1).device == "cpu"


def test_a_device_block_is_a_matter_of_its_thread(no_default):
    seen = []
    gg.set_default_device("cpu")
    with gg.Device("cuda", 7):
        thread = threading.Thread(target=lambda: seen.append(gg.zeros(1).device))
        thread.start()
        thread.join()
    assert seen == ["cpu"]


def test_new_data_go_to_the_default_device(device):
    made = [
        gg.asarray([1.0, 2.0]),
        gg.asarray(1.0),
        gg.zeros(2),
        gg.arange(2),
        gg.eye(2),
        gg.random.normal(2),
        gg.random.Generator(0).permutation(3),
        gg.nn.Linear(2, 3).weight,
        gg.nn.Linear(2, 3).bias,
    ]
    assert all(x.device == device for x in made)


def test_arrays_stay_where_they_are(device):
    x = gg.asarray([1.0, 2.0]).data
    with gg.device("cpu"):
        assert gg.asarray(x).device == device
        assert gg.asarray(gg.asarray(x)).device == device
        assert gg.zeros_like(gg.asarray(x)).device == device
        assert (gg.asarray(x) + 1).device == device
        assert gg.asarray(x, requires_grad=True).device == device
    assert gg.asarray(np.ones(2)).device == "cpu"


def test_to_device_and_back(device):
    x = leaf([1.0, 2.0], dtype="float32")
    assert x.to(device) is x
    y = (x * x).to("cpu")
    assert y.device == "cpu"
    (y * gg.asarray(np.array([3, 4], np.float32))).sum().backward()
    assert x.grad.device == device
    np.testing.assert_array_equal(host(x.grad), [6, 16])
    assert gg.asarray(x, device="cpu").device == "cpu"
    assert gg.asarray(x, device="cpu").requires_grad


def test_the_backend_of_an_array(device):
    x = gg.asarray([1.0, 2.0]).data
    backend = backends.backend_of(x)
    assert backend is backends.backend_of_kind(device.kind)
    assert backend.device_of(x) == device
    assert owner_of(x[1:]) is owner_of(x[:1])
    assert owner_of(x) is not owner_of(x.copy())
    assert isinstance(backend.to_host(x), np.ndarray)
    assert backend.name(device)
    backend.synchronize(device)


@pytest.mark.parametrize("wrong", [1, "text", [1.0], None])
def test_what_is_no_array_has_no_backend(wrong):
    with pytest.raises(TypeError, match=rf"got {type(wrong).__name__}.*gpugrad\.asarray"):
        backends.backend_of(wrong)


# ---- nothing leaves a device unasked


@pytest.fixture
def hidden(monkeypatch):
    """A device whose values the host cannot see, as the default one; asking is counted."""
    monkeypatch.setitem(backends._by_type, standin.HiddenArray, standin.BACKEND)
    monkeypatch.setitem(backends._by_kind, "hidden", standin.BACKEND)
    monkeypatch.setattr(standin.BACKEND, "reads", 0)
    with standin.DEVICE:
        yield standin.BACKEND
    assert standin.BACKEND.reads == 0


def test_the_stand_in_shows_nothing(hidden):
    x = hidden.asarray([1.0, 2.0], None, standin.DEVICE, None)
    for look in (np.asarray, bool, float, int, complex, list, sum, lambda x: x.item()):
        with pytest.raises((AssertionError, TypeError)):
            look(x)
    for mix in (lambda x: x + np.ones(2), lambda x: np.ones(2) + x, lambda x: x[np.ones(2, bool)]):
        with pytest.raises(TypeError):
            mix(x)


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_no_operation_reads_a_value(row, hidden):
    args = [gg.asarray(x, device=standin.DEVICE) for x in row.draw(row.dtypes[-1])]
    assert all(isinstance(x.data, standin.HiddenArray) for x in flat(row.function(*args)))
    if row.order:
        f, xs = row.of_differentiable(args)
        out, pullback = gg.vjp(f, *xs)
        gs = map_tree(gg.ones_like, out)
        ts = [gg.ones_like(x) for x in xs]

        def pulled(*xs):
            return gg.vjp(f, *xs)[1](gs)

        def pushed(*xs):
            return gg.jvp(f, xs, ts)[1]

        pullback(gs)
        for derivative in (pulled, pushed) if row.order > 1 else ():
            out, pullback = gg.vjp(derivative, *xs)
            pullback(map_tree(gg.ones_like, out))
            gg.jvp(derivative, xs, ts)
        if row.dtypes[-1] in "fd":
            gg.jacobian(f)(*xs)
            gg.jacobian(lambda t: f(xs[0] * t, *xs[1:]))(gg.asarray(1.0, dtype=row.dtypes[-1]))


@pytest.mark.parametrize(
    "make", [lambda p: gg.optim.SGD(p, 0.1, momentum=0.9), gg.optim.Adam], ids=["SGD", "Adam"]
)
@pytest.mark.parametrize("create_graph", [False, True])
def test_training_reads_no_value(make, create_graph, hidden):
    rng = gg.random.Generator(0)
    net = gg.nn.Sequential(
        *[gg.nn.Linear(4, 5, rng=rng), gg.nn.Sigmoid(), gg.nn.Linear(5, 5, rng=rng), gg.nn.ReLU()],
        *[gg.nn.Linear(5, 3, rng=rng), gg.nn.Tanh()],
    )
    x, labels = rng.normal((8, 4), dtype="float32"), rng.integers(0, 3, 8)
    weights = net.layers[0].weight
    weights.register_hook(lambda g: g * 1)
    before = weights.data.copy()
    optimizer = make(net.parameters())
    for _ in range(3):
        rows = rng.permutation(8)[:4]
        logits = net(gg.take(x, rows, axis=0))
        loss = gg.nn.cross_entropy(logits, labels[rows]) + gg.sum(logits[labels[rows] == 0]) * 0
        net.zero_grad()
        loss.backward(create_graph=create_graph)
        optimizer.lr = 1 / (10 + gg.sum(x * x))
        optimizer.step()
    assert not np.array_equal(before._values, weights.data._values)  # behind the wall


def test_gradients_on_the_stand_in_are_right(hidden):
    x = leaf([1.0, 2.0])
    gg.sum(gg.sin(x) * x + x[:1] - x).backward()
    values = np.array([1.0, 2.0])
    expected = np.cos(values) * values + np.sin(values) + [2 - 1, -1]
    np.testing.assert_allclose(x.grad.data._values, expected)


def test_arrays_of_two_libraries_do_not_mix(hidden):
    x, other = leaf([1.0, 2.0]), np.array([1.0, 2.0])
    for y, error in ((other, TypeError), (gg.asarray(other), ValueError)):
        with pytest.raises(error, match=r"multiply: .*hidden:0.*cpu.*\.to\(device\)"):
            x * y
        with pytest.raises(error, match=r"multiply: .*cpu.*hidden:0.*\.to\(device\)"):
            y * x
    assert x.grad is None


def test_random_tensors_read_no_value(hidden):
    """Nor their gradients."""
    g = gg.random.Generator(0)
    x = gg.asarray([0.3, 0.6], requires_grad=True)
    continuous = [
        *(f(x) for f in (g.exponential, g.laplace, g.gumbel, g.logistic, g.cauchy, g.rayleigh)),
        *(f(x, x) for f in (g.log_normal, g.uniform, g.gamma, g.beta, g.weibull, g.student_t)),
        *(g.normal(loc=x), g.truncated_normal(x - 1, x), g.dirichlet(x)),
        g.multivariate_normal(x, gg.eye(2)),
    ]
    sum(map(gg.sum, continuous)).backward()
    assert isinstance(x.grad.data, standin.HiddenArray)
    for out in (g.poisson(x), g.bernoulli(x), g.binomial(5, x), g.categorical(x), g.choice(x, 3)):
        assert isinstance(out.data, standin.HiddenArray)
    for replace in (True, False):
        assert g.choice(2, 2, replace=replace, p=x).shape == (2,)
