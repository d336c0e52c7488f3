"""Layers, their parameters, losses, and that a small network learns."""

import math

import numpy as np
import pytest
from helpers import array, assert_same, host, leaf

import gpugrad as gg
from gpugrad import nn

LAYERS = {
    "Sigmoid": gg.sigmoid,
    "Tanh": gg.tanh,
    "ReLU": gg.relu,
    "GELU": gg.gelu,
    "SiLU": gg.silu,
    "Softplus": gg.softplus,
}


def network(seed=0):
    rng = gg.random.Generator(seed)
    return nn.Sequential(nn.Linear(4, 3, rng=rng), nn.Tanh(), nn.Linear(3, 2, rng=rng))


def test_linear(device):
    layer = nn.Linear(4, 3)
    assert (layer.weight.shape, layer.bias.shape) == ((4, 3), (3,))
    for p in (layer.weight, layer.bias):
        assert (p.dtype, p.device, p.requires_grad, p.is_leaf) == (np.float32, device, True, True)
    x = gg.random.normal((5, 4), dtype="float32")
    assert_same(layer(x), host(x) @ host(layer.weight))
    assert layer(gg.random.normal((2, 5, 4), dtype="float32")).shape == (2, 5, 3)
    assert layer(gg.random.normal(4, dtype="float32")).shape == (3,)
    assert nn.Linear(4, 3, dtype="float64").bias.dtype == np.float64
    assert all(p.device == "cpu" for p in nn.Linear(4, 3, device="cpu").parameters())


def test_initial_weights(device):
    """Glorot and Bengio (2010): uniform with variance 2 / (n_in + n_out)."""
    weight = host(nn.Linear(100, 60, rng=gg.random.Generator(0)).weight).astype(float)
    bound = math.sqrt(6 / 160)
    assert abs(weight).max() <= bound
    assert abs(weight).max() > 0.99 * bound
    assert abs(weight.mean()) < 5 * math.sqrt(2 / 160 / 6000)
    assert weight.var() == pytest.approx(2 / 160, rel=0.1)
    assert not host(nn.Linear(100, 60).bias).any()


def test_initial_weights_by_seed(device):
    for make in (lambda: network(3), lambda: (gg.random.seed(3), nn.Linear(4, 3))[1]):
        a, b = make().state_dict(), make().state_dict()
        for name in a:
            np.testing.assert_array_equal(a[name], b[name])
    assert not np.array_equal(host(network(3).layers[0].weight), host(network(4).layers[0].weight))


@pytest.mark.parametrize("sizes", [(0, 3), (3, 0), (-1, 2)])
def test_linear_without_units(sizes):
    with pytest.raises(ValueError, match="Linear"):
        nn.Linear(*sizes)


@pytest.mark.parametrize("name", LAYERS)
def test_activation_layers(name, device):
    x = leaf([-1.0, 0.5, 2.0])
    layer = getattr(nn, name)()
    assert_same(layer(x), host(LAYERS[name](x)))
    assert layer.parameters() == []
    assert layer(x).requires_grad


def test_parameters_in_order_and_once(device):
    net = network()
    assert [name for name, _ in net.named_parameters()] == [
        *["layers.0.weight", "layers.0.bias", "layers.2.weight", "layers.2.bias"]
    ]
    first, _, last = net.layers
    assert net.parameters() == [first.weight, first.bias, last.weight, last.bias]
    assert nn.Sequential(first, first).parameters() == [first.weight, first.bias]


def test_parameters_of_a_module_of_ones_own(device):
    class Scale(nn.Module):
        def __init__(self):
            self.factor = leaf(2.0)
            self.shift = gg.asarray(array(1.0))
            self.computed = self.factor * 2
            self.inner = [nn.Linear(1, 1), "text"]

        def __call__(self, x):
            return x * self.factor + self.shift

    module = Scale()
    names = [name for name, _ in module.named_parameters()]
    assert names == ["factor", "inner.0.weight", "inner.0.bias"]
    (module(leaf(3.0)) ** 2).backward()
    assert float(module.factor.grad) == 2 * 7 * 3
    module.zero_grad()
    assert module.factor.grad is None
    with pytest.raises(NotImplementedError):
        nn.Module()(1)


def test_state_is_copied_out_and_in(device):
    net, other = network(0), network(1)
    state = net.state_dict()
    assert all(type(x) is np.ndarray for x in state.values())
    before = {name: x.copy() for name, x in state.items()}
    held = [p.data for p in other.parameters()]
    other.load_state_dict(state)
    for x in state.values():
        x[...] = 99
    for module in (net, other):
        for name, x in module.state_dict().items():
            np.testing.assert_array_equal(x, before[name])
    assert all(p.data is x for p, x in zip(other.parameters(), held, strict=True))
    assert all(p.requires_grad for p in other.parameters())


def test_state_that_does_not_fit(device):
    net = network()
    before = net.state_dict()
    shorter = dict(list(before.items())[1:])
    more = before | {"more": np.ones(1)}
    wrong = before | {"layers.2.bias": np.ones(3)}
    for state, error, message in (
        (shorter, KeyError, r"missing \['layers.0.weight'\]"),
        (more, KeyError, r"unknown \['more'\]"),
        (wrong, ValueError, r"layers.2.bias has shape \(3,\), not \(2,\)"),
    ):
        changed = {name: x + 1 for name, x in state.items()}
        with pytest.raises(error, match=message):
            net.load_state_dict(changed)
        for name, x in net.state_dict().items():
            np.testing.assert_array_equal(x, before[name])


def test_loading_a_state_is_a_change_in_place(device):
    net = network()
    loss = net(gg.ones((1, 4), dtype="float32")).sum()
    net.load_state_dict(net.state_dict())
    with pytest.raises(RuntimeError, match="changed in place"):
        loss.backward()


def test_mean_squared_error(device):
    a, b = leaf([[1.0, 2.0], [3.0, 4.0]]), leaf([[0.0, 2.0], [5.0, 4.5]])
    loss = nn.mean_squared_error(a, b)
    assert loss.shape == ()
    assert float(loss) == pytest.approx((1 + 0 + 4 + 0.25) / 4)
    loss.backward()
    assert_same(a.grad, np.array([[1.0, 0.0], [-2.0, -0.5]]) / 2)
    assert_same(b.grad, -host(a.grad))


def test_cross_entropy(device):
    logits, labels = leaf([[1.0, 2.0, 0.0], [0.0, 0.0, 0.0]]), array([1, 0])
    loss = nn.cross_entropy(logits, labels)
    rows = [math.log(math.e + math.e**2 + 1) - 2, math.log(3)]
    assert float(loss) == pytest.approx(sum(rows) / 2)
    assert_same(gg.cross_entropy(logits, gg.asarray(labels)), np.array(rows))
    loss.backward()
    softmax = np.exp(host(logits)) / np.exp(host(logits)).sum(1, keepdims=True)
    assert_same(logits.grad, (softmax - np.array([[0, 1, 0], [1, 0, 0]])) / 2)


@pytest.mark.parametrize(
    ("logits", "labels", "error"),
    [
        (np.ones((2, 3)), np.array([0, 1, 2]), ValueError),
        (np.ones(3), np.array([0]), ValueError),
        (np.ones((2, 3)), np.array([[0], [1]]), ValueError),
        (np.ones((2, 3)), np.array([0.0, 1.0]), TypeError),
    ],
)
def test_cross_entropy_of_what_does_not_fit(logits, labels, error, device):
    with pytest.raises(error, match=r"^cross_entropy: .*logits.*|^cross_entropy: labels"):
        nn.cross_entropy(leaf(logits), array(labels))


def test_a_network_learns_the_exclusive_or(device):
    gg.random.seed(0)
    net = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 2))
    x, labels = array([[0, 0], [0, 1], [1, 0], [1, 1]], "float32"), array([0, 1, 1, 0])
    optimizer = gg.optim.Adam(net.parameters(), lr=0.1)
    for _ in range(60):
        net.zero_grad()
        loss = nn.cross_entropy(net(gg.asarray(x)), labels)
        loss.backward()
        optimizer.step()
    assert float(loss) < 0.1
    assert_same(gg.argmax(net(gg.asarray(x)), axis=1), labels)


def test_training_with_grad_and_with_backward_agree(device):
    net = network()
    x = gg.random.Generator(0).normal((5, 4), dtype="float32")
    net(x).sum().backward()
    state = {name: p.data for name, p in net.named_parameters()}

    def loss(state):
        hidden = gg.tanh(nn.linear(x, state["layers.0.weight"], state["layers.0.bias"]))
        return nn.linear(hidden, state["layers.2.weight"], state["layers.2.bias"]).sum()

    gradient = gg.grad(loss)(state)
    for name, p in net.named_parameters():
        np.testing.assert_allclose(host(gradient[name]), host(p.grad), rtol=1e-5, atol=1e-6)


def test_a_state_that_does_not_fit_changes_nothing(device):
    layer = nn.Linear(2, 1)
    before = layer.state_dict()
    for bias in (np.array(["a"]), np.ones(2), np.array([1j])):
        with pytest.raises((TypeError, ValueError)):
            layer.load_state_dict({"weight": before["weight"] + 1, "bias": bias})
        np.testing.assert_array_equal(layer.state_dict()["weight"], before["weight"])


def test_convolutional_layer(device):
    layer = nn.Conv2d(4, 6, (3, 2), stride=2, padding=1, groups=2)
    assert (layer.weight.shape, layer.bias.shape) == ((6, 2, 3, 2), (6,))
    for p in layer.parameters():
        assert (p.dtype, p.device, p.requires_grad, p.is_leaf) == (np.float32, device, True, True)
    x = gg.random.normal((5, 4, 7, 6), dtype="float32")
    out = layer(x)
    assert out.shape == (5, 6, 4, 4)
    again = nn.conv2d(x, layer.weight, layer.bias, stride=2, padding=1, groups=2)
    np.testing.assert_array_equal(host(out), host(again))
    weight = host(nn.Conv2d(40, 24, 3, groups=2, rng=gg.random.Generator(0)).weight)
    bound = math.sqrt(6 / ((20 + 12) * 9))
    assert 0.99 * bound < abs(weight).max() <= bound
    for wrong in [(0, 2, 3), (3, 4, 3)]:
        with pytest.raises(ValueError, match="Conv2d: "):
            nn.Conv2d(*wrong, groups=2)
    with pytest.raises(ValueError, match="Conv2d: size"):
        nn.Conv2d(1, 1, 0)


def test_pooling_and_flattening_layers(device):
    x = leaf(np.arange(32.0).reshape(2, 1, 4, 4))
    assert host(nn.MaxPool2d(2)(x))[0, 0].tolist() == [[5, 7], [13, 15]]
    assert host(nn.AvgPool2d(2, stride=1)(x)).shape == (2, 1, 3, 3)
    assert host(nn.AvgPool2d((4, 2))(x))[1, 0].tolist() == [[22.5, 24.5]]
    assert nn.Flatten()(x).shape == (2, 16)
    assert nn.Flatten()(x[:0]).shape == (0, 16)
    assert nn.MaxPool2d(2).parameters() == []


def test_a_convolutional_network_learns(device):
    """To tell horizontal from vertical stripes wherever they begin."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 24)
    stripes = np.array([np.roll(np.eye(3)[0], shift) for shift in rng.integers(0, 3, 24)])
    images = np.tile(stripes, (1, 2))[:, None, :, None] + np.zeros((1, 1, 1, 6))
    images[labels == 1] = images[labels == 1].swapaxes(2, 3)
    images += 0.1 * rng.standard_normal(images.shape)
    x, targets = (gg.asarray(array(v)) for v in (images.astype(np.float32), labels))
    generator = gg.random.Generator(0)
    net = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1, rng=generator),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(4, 4, 2, rng=generator),
        nn.ReLU(),
        nn.AvgPool2d(2),
        nn.Flatten(),
        nn.Linear(4, 2, rng=generator),
    )
    assert [name for name, _ in net.named_parameters()][2:4] == ["layers.3.weight", "layers.3.bias"]
    optimizer = gg.optim.Adam(net.parameters(), lr=0.03)
    losses = []
    for _ in range(60):
        loss = nn.cross_entropy(net(x), targets)
        net.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(host(loss)))
    assert losses[-1] < 0.1 < losses[0]
    assert (host(gg.argmax(net(x), axis=1)) == labels).all()
