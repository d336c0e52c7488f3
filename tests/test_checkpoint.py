"""checkpoint: the same derivatives in every way, with less kept, and the same random numbers."""

import gc
import tracemalloc
import weakref

import numpy as np
import pytest
from helpers import array, assert_same, flat, host, leaf

import gpugrad as gg
from gpugrad.testing import check_grads

X = np.array([0.3, -0.7, 1.1])
W = np.cos(np.arange(9.0)).reshape(3, 3)


def block(x, w):
    return gg.tanh(gg.matmul(w, gg.sin(x))) * x


def gradients(f, *args):
    """The gradients of the sum of squares by `backward`."""
    leaves = [leaf(x) for x in args]
    sum((gg.sum(y * y) for y in flat(f(*leaves))), start=0).backward()
    return [x.grad for x in leaves]


# ---- the same derivatives


def test_gradients_are_the_same_bit_for_bit(device):
    expected = gradients(block, X, W)
    assert_same(gradients(gg.checkpoint(block), X, W), expected, 0)


def test_of_tensors_that_it_closes_over(device):
    def closing(wrap):
        def f(x, w):
            inner = wrap(lambda x: block(x, w) + w[0])
            return wrap(lambda x: inner(gg.exp(x)))(x)  # nested

        return f

    expected = gradients(closing(lambda f: f), X, W)
    assert_same(gradients(closing(gg.checkpoint), X, W), expected, 0)
    w = leaf(W)  # with nothing in the arguments that needs a gradient
    gg.sum(gg.checkpoint(lambda x: block(x, w))(gg.asarray(array(X))) ** 2).backward()
    assert_same(w.grad, expected_of_w(), 0)


def expected_of_w():
    w = leaf(W)
    gg.sum(block(gg.asarray(array(X)), w) ** 2).backward()
    return w.grad


@pytest.mark.parametrize("order", [1, 2, 3])
def test_check_grads(order, device):
    check_grads(gg.checkpoint(block), (array(X), array(W)), order=order)


def test_transforms(device):
    x, t = array(X), array(X[::-1].copy())
    w = gg.asarray(array(W))

    def energy(x):
        return gg.sum(block(x, w) ** 2)

    inner = gg.checkpoint(block)

    def same(x):
        return gg.sum(inner(x, w) ** 2)

    assert_same(gg.grad(same)(x), gg.grad(energy)(x), 0)
    assert_same(list(gg.jvp(same, (x,), (t,))), list(gg.jvp(energy, (x,), (t,))), 0)
    assert_same(gg.hvp(same, (x,), (t,)), gg.hvp(energy, (x,), (t,)), 64)
    assert_same(gg.hessian(same)(x), gg.hessian(energy)(x), 64)
    assert_same(gg.hessian(gg.checkpoint(energy))(x), gg.hessian(energy)(x), 64)
    assert_same(gg.jacobian(lambda x: inner(x, w))(x), gg.jacobian(lambda x: block(x, w))(x), 64)
    wide = gg.jacobian(lambda x: gg.concat([inner(x, w)] * 2))(x)
    assert_same(wide, gg.jacobian(lambda x: gg.concat([block(x, w)] * 2))(x), 64)
    xs = gg.stack([gg.asarray(x), gg.asarray(t)])
    for f, g in ((energy, same), (gg.grad(energy), gg.grad(same))):
        assert_same(gg.vmap(g)(xs), gg.vmap(f)(xs), 64)
    for f, g in ((energy, gg.vmap(same)), (energy, gg.checkpoint(gg.vmap(same)))):
        expected = gg.stack([gg.grad(f)(row) for row in xs])
        assert_same(gg.grad(lambda xs, g=g: gg.sum(g(xs)))(xs), expected, 64)
        assert_same(gg.jacobian(g)(xs).sum(axis=0), expected, 64)


def test_closing_over_in_vmap(device):
    xs, w = array(np.stack([X, X[::-1], X * 2])), array(W)

    def total(wrap):
        def f(xs, w):
            return gg.sum(gg.vmap(wrap(lambda x: gg.sum(block(x, w))))(xs) ** 2)

        return f

    plain, kept = total(lambda f: f), total(gg.checkpoint)
    assert_same(gg.grad(kept, (0, 1))(xs, w), gg.grad(plain, (0, 1))(xs, w), 256)
    assert_same(gg.jacobian(kept, 1)(xs, w), gg.jacobian(plain, 1)(xs, w), 256)
    check_grads(kept, (xs, w), order=2)


def test_create_graph_and_retain_graph(device):
    x = leaf(X)
    y = gg.sum(gg.checkpoint(gg.sin)(x) * x)
    y.backward(create_graph=True)
    first = x.grad
    x.grad = None
    gg.sum(first).backward()
    np.testing.assert_allclose(host(x.grad), 2 * np.cos(X) - X * np.sin(X))
    x.grad = None
    y = gg.sum(gg.checkpoint(gg.sin)(x))
    y.backward(retain_graph=True)
    y.backward()
    np.testing.assert_allclose(host(x.grad), 2 * np.cos(X))


# ---- arguments and results


def test_structures_of_arguments_and_results(device):
    def f(tree, scale, *, shift):
        a, b = tree["a"], tree["b"][0]
        return {"product": a * b * scale, "rest": (gg.exp(b) + shift, gg.floor(a) > 0, "text")}

    def gradient(f):
        a, b, s = leaf(X), leaf(X + 2), leaf(0.5)
        out = f({"a": a, "b": [b]}, 3, shift=s)
        assert out["rest"][2] == "text"
        assert not out["rest"][1].requires_grad
        gg.sum(out["product"] + 2 * out["rest"][0]).backward()
        return [a.grad, b.grad, s.grad]

    assert_same(gradient(gg.checkpoint(f)), gradient(f), 0)


def test_results_without_a_cotangent(device):
    """What only they depend on gets zeros, and an infinite slope there does no harm."""

    def f(a, b, w):
        return a * a, gg.sqrt(b * 0) * w

    a, b, w = leaf(X), leaf(X), leaf(2.0)
    gg.sum(gg.checkpoint(lambda a, b: f(a, b, w))(a, b)[0]).backward()
    assert_same(a.grad, 2 * X)
    assert_same(b.grad, np.zeros(3))
    assert_same(w.grad, np.zeros(()))
    one, _ = gg.jvp(lambda a: gg.checkpoint(f)(a, b.detach(), 1.0)[0], (a.detach(),), (array(X),))
    assert_same(one, X * X)
    rows = gg.jacobian(lambda a, b: gg.checkpoint(lambda a, b: f(a, b, w))(a, b)[0][:2], (0, 1))
    by_a, by_b = rows(a.detach(), b.detach())
    assert_same(by_a.detach(), np.diag(2 * X)[:2])
    assert_same(by_b.detach(), np.zeros((2, 3)))


def test_the_identity_and_constants(device):
    x = leaf(X)
    a, b, c = gg.checkpoint(lambda x: (x, x, gg.asarray(array(X))))(x)
    gg.sum(a * 2 + b * 3 + c).backward()
    assert_same(x.grad, np.full(3, 5.0))
    assert not c.requires_grad


def test_nothing_to_differentiate(device):
    assert type(gg.checkpoint(gg.sin)(array(X))) is type(array(X))
    out = gg.checkpoint(gg.sin)(gg.asarray(array(X)))
    assert not out.requires_grad
    with gg.no_grad():
        assert not gg.checkpoint(gg.sin)(leaf(X)).requires_grad


# ---- what is kept, and run again


def test_only_the_arguments_are_kept(device):
    kept = []

    def f(x):
        y = gg.exp(x)
        kept.append(weakref.ref(y))
        return gg.sin(y)

    x = leaf(X)
    gc.disable()
    try:
        out = gg.checkpoint(f)(x)
        assert kept[0]() is None
        gg.sum(out).backward()
        assert len(kept) == 2
        assert kept[1]() is None
    finally:
        gc.enable()


def test_an_argument_changed_in_place_is_noticed(device):
    x = leaf(X)
    y = x * 1
    out = gg.checkpoint(gg.sin)(y)
    with gg.no_grad():
        y[0] = 5.0
    with pytest.raises(RuntimeError, match="checkpoint.*changed in place"):
        gg.sum(out).backward()


def test_a_function_that_does_something_else(device):
    calls = []

    def f(x):
        calls.append(1)
        return x * x if len(calls) == 1 else gg.sum(x)

    with pytest.raises(RuntimeError, match=r"checkpoint\(f\): it did something else"):
        gg.sum(gg.checkpoint(f)(leaf(X))).backward()
    others = [leaf(X), leaf(X)]
    with pytest.raises(RuntimeError, match="other tensors"):
        gg.sum(gg.checkpoint(lambda x: x * others.pop())(leaf(X))).backward()


@pytest.mark.parametrize("own", [False, True])
def test_random_numbers_are_drawn_again(own, device):
    generator = gg.random.Generator(3)
    noises = []

    def f(x):
        noise = generator.normal(3) if own else gg.random.uniform(shape=3)
        noises.append(noise)
        return gg.exp(x * noise)

    x = leaf(X)
    gg.random.seed(1)
    out = gg.checkpoint(f)(gg.checkpoint(f)(x))
    after = gg.random.normal(5)
    gg.random.normal(5)
    gg.sum(out).backward()
    assert len(noises) == 4  # the second again, then the first
    again = gg.random.normal(3)
    assert_same(noises[2], noises[1], 0)
    assert_same(noises[3], noises[0], 0)
    assert not np.array_equal(host(noises[0]), host(noises[1]))
    assert not np.array_equal(host(after[:3]), host(again))
    expected = np.exp(X * host(noises[0]))
    expected = np.exp(expected * host(noises[1])) * host(noises[1]) * expected * host(noises[0])
    np.testing.assert_allclose(host(x.grad), expected)


def test_the_stream_of_random_numbers_goes_on(device):
    """On the CPU a checkpoint, and its backward sweep, leave the stream as it would be."""
    if device.kind == "cpu":
        x = leaf(X)
        draws = []
        for f in (gg.sin, gg.checkpoint(gg.sin)):
            gg.random.seed(1)
            out = gg.sum(f(x) * gg.random.normal(3))
            out.backward()
            draws.append(gg.random.normal(3))
        assert_same(*draws, 0)


def test_the_default_device_is_that_of_the_call(device):
    x = leaf(X)
    out = gg.checkpoint(lambda x: x * gg.full(3, 2.0))(x)
    with gg.device("cpu"):
        gg.sum(out).backward()
    assert_same(x.grad, np.full(3, 2.0))


def test_a_network_in_segments(device):
    gg.random.seed(0)
    layers = [gg.nn.Linear(3, 3, dtype="float64", device=device) for _ in range(4)]
    x = gg.asarray(array(np.stack([X, X * 2])))

    def train(wrap):
        y = x
        for layer in layers:
            y = wrap(lambda y, layer=layer: gg.tanh(layer(y)))(y)
        gg.mean(y * y).backward()
        found = [p.grad for layer in layers for p in layer.parameters()]
        for layer in layers:
            layer.zero_grad()
        return found

    assert_same(train(gg.checkpoint), train(lambda f: f), 0)


def test_what_the_function_leaves_elsewhere_has_its_gradient(device):
    left = []

    @gg.checkpoint
    def f(x):
        left.append(x * x)
        return gg.sum(x)

    x = leaf(X)
    (f(x) + gg.sum(left[0])).backward()
    assert_same(x.grad, 1 + 2 * X)
    x.grad = None
    gg.sum(left[1]).backward()  # of the second run
    assert_same(x.grad, 2 * X)


@pytest.mark.parametrize("place", ["argument", "closure"])
@pytest.mark.parametrize("when", ["in the call", "after it"])
def test_an_array_changed_in_place_is_noticed(place, when, device):
    buffer = gg.asarray(array([1.0, 1.0, 1.0]))

    def f(x, a=buffer):
        if when == "in the call":
            a[0] = a[0] + 1.0
        return gg.sum(x * x * a)

    y = gg.checkpoint(f)(leaf(X), *[buffer] * (place == "argument"))
    if when == "after it":
        buffer[0] = 5.0
    with pytest.raises(RuntimeError, match="changed in place"):
        y.backward()


def test_a_result_that_was_filled_in_place(device):
    def f(x):
        weights = gg.zeros_like(x).detach()
        weights[0] = 2.0
        return gg.sum(x * weights), weights

    x = leaf(X)
    gg.checkpoint(f)(x)[0].backward()
    assert_same(x.grad, np.array([2.0, 0, 0]))


# ---- a network of 50 layers


DEPTH, WIDTH = 50, 16


class Deep:
    """Fifty layers with sigmoids and dropout, `size` of them in a checkpoint; 0: in none."""

    def __init__(self, device, size, dropout):
        rng = np.random.default_rng(0)
        self.device, self.size, self.dropout = device, size, dropout
        batch = 2048 if device.kind == "cpu" else 256
        self.x = gg.asarray(array(rng.normal(size=(batch, WIDTH)), "float32"))
        self.layers = [
            [leaf(rng.normal(size=shape), dtype="float32") for shape in ((WIDTH, WIDTH), (WIDTH,))]
            for _ in range(DEPTH)
        ]

    def segment(self, x, layers):
        for w, b in layers:
            x = gg.special.expit(gg.nn.linear(x, w, b))
            if self.dropout:
                x = gg.where(gg.random.uniform(shape=x.shape, dtype="float32") < 0.9, x / 0.9, 0)
        return x

    def loss(self):
        gg.random.seed(0)
        x, size = self.x, self.size or DEPTH
        segment = gg.checkpoint(self.segment) if self.size else self.segment
        for i in range(0, DEPTH, size):
            x = segment(x, self.layers[i : i + size])
        return gg.mean(x * x)

    def gradients(self):
        """Those of the loss, and what is drawn next."""
        self.loss().backward()
        found = [p.grad for layer in self.layers for p in layer]
        for layer in self.layers:
            for p in layer:
                p.grad = None
        return [*found, gg.random.uniform(shape=3)]

    def memory(self):
        """What is held between the two sweeps, and the peak of the second, in activations."""
        self.gradients()  # what is made once
        gc.collect()
        if self.device.kind == "cpu":
            tracemalloc.start()
            try:
                before = tracemalloc.get_traced_memory()[0]
                loss = self.loss()
                held = tracemalloc.get_traced_memory()[0]
                tracemalloc.reset_peak()
                loss.backward()
                peak = tracemalloc.get_traced_memory()[1]
            finally:
                tracemalloc.stop()
        else:
            before = gg.memory(self.device).used
            loss = self.loss()
            held = gg.memory(self.device, reset_peak=True).used
            loss.backward()
            peak = gg.memory(self.device).peak
        activation = self.x.size * 4
        return (held - before) / activation, (peak - before) / activation


@pytest.mark.parametrize("size", [1, 7, 50])
def test_a_deep_network_has_the_same_bits(size, device):
    for dropout in (False, True):
        other = size if dropout and device.kind != "cpu" else 0  # there the stream is another one
        expected = Deep(device, other, dropout).gradients()
        assert any(np.any(host(x)) for x in expected[:2])
        found = Deep(device, size, dropout).gradients()
        for x, wanted in zip(found, expected, strict=True):
            np.testing.assert_array_equal(host(x), host(wanted))


@pytest.mark.parametrize(
    ("size", "held", "peak"),
    [
        (0, (110, 118), (112, 122)),  # input and slope of each layer, and a quarter for the mask
        (1, (48, 55), (51, 64)),
        (7, (6, 12), (22, 34)),  # the inputs of 8 segments, and 7 layers
    ],
)
def test_the_memory_of_a_deep_network(size, held, peak, device):
    """Of n layers, in segments of sqrt(n), it takes that of a few times sqrt(n) activations."""
    found = Deep(device, size, True).memory()
    for measured, (low, high) in zip(found, (held, peak), strict=True):
        assert low <= measured <= high
