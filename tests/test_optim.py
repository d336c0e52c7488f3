"""The optimisers against their textbook formulas, step by step."""

import numpy as np
import pytest
from helpers import array, assert_same, host, leaf

import gpugrad as gg

START = np.array([[1.0, -2.0], [0.5, 3.0]])
GRADS = [np.array([[0.3, 1.0], [-2.0, 0.0]]) * (k + 1) for k in range(4)]


def sgd(lr, momentum=0.0):
    p, v = START.copy(), 0.0
    for g in GRADS:
        v = momentum * v + g
        p = p - lr * v
        yield p


def adam(lr, beta1=0.9, beta2=0.999, eps=1e-8):
    p, m, v = START.copy(), 0.0, 0.0
    for t, g in enumerate(GRADS, 1):
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g * g
        p = p - lr * (m / (1 - beta1**t)) / (np.sqrt(v / (1 - beta2**t)) + eps)
        yield p


MAKERS = {
    "SGD": lambda params: gg.optim.SGD(params, lr=0.1),
    "momentum": lambda params: gg.optim.SGD(params, lr=0.1, momentum=0.9),
    "Adam": gg.optim.Adam,
}
each_maker = pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (MAKERS["SGD"], list(sgd(0.1))),
        (MAKERS["momentum"], list(sgd(0.1, 0.9))),
        (MAKERS["Adam"], list(adam(1e-3))),
        (lambda p: gg.optim.Adam(p, 0.05, (0.5, 0.75), 0.1), list(adam(0.05, 0.5, 0.75, 0.1))),
    ],
    ids=["SGD", "momentum", "Adam", "Adam with options"],
)
def test_steps(make, expected, dtype, device):
    p = leaf(START, dtype=dtype)
    data, optimizer = p.data, make([p])
    for g, wanted in zip(GRADS, expected, strict=True):
        p.grad = gg.asarray(array(g, dtype))
        optimizer.step()
        assert_same(p, wanted.astype(dtype))
        assert_same(p.grad, g.astype(dtype))
    assert p.data is data
    assert p.is_leaf


@each_maker
def test_a_parameter_without_a_gradient_stays(make, device):
    p, q = leaf(START), leaf(START)
    optimizer = make([p, q])
    for g in GRADS[:2]:
        p.grad = gg.asarray(array(g))
        optimizer.step()
    assert_same(q, START)
    q.grad, p.grad = gg.asarray(array(GRADS[0])), None
    before = host(p)
    optimizer.step()
    assert_same(p, before)
    fresh = leaf(START)
    other = make([fresh])
    fresh.grad = gg.asarray(array(GRADS[0]))
    other.step()
    assert_same(q, host(fresh))


@each_maker
def test_zero_grad_and_learning_rate(make, device):
    p = leaf(START)
    optimizer = make([p])
    (p * p).sum().backward()
    optimizer.lr = 0.0
    optimizer.step()
    assert optimizer.lr == 0
    assert_same(p, START)
    optimizer.zero_grad()
    assert p.grad is None


@each_maker
def test_minimum_of_a_quadratic(make, device):
    target = gg.asarray(array([[2.0, 1.0], [0.0, -1.0]]))
    p = leaf(START)
    optimizer = make([p])
    if isinstance(optimizer, gg.optim.Adam):
        optimizer.lr = 0.1
    first = None
    for _ in range(300):
        optimizer.zero_grad()
        loss = gg.nn.mean_squared_error(p, target)
        first = float(loss) if first is None else first
        loss.backward()
        optimizer.step()
    assert float(loss) < 1e-4 * first


@each_maker
def test_bad_parameters(make, device):
    p = leaf(START)
    for params in ([], [p, p * 2], [p.detach()], [START]):
        with pytest.raises(ValueError, match="no parameters|parameter . is no leaf"):
            make(params)


def test_bad_options(device):
    p = leaf(START)
    for call, message in (
        (lambda: gg.optim.SGD([p], -1.0), "lr=-1.0 is not in"),
        (lambda: gg.optim.SGD([p], float("nan")), "lr=nan"),
        (lambda: gg.optim.SGD([p], 0.1, momentum=1.0), r"momentum=1.0 is not in \[0, 1\)"),
        (lambda: gg.optim.SGD([p], 0.1, momentum=-0.1), "momentum=-0.1"),
        (lambda: gg.optim.Adam([p], betas=(0.9, 1.0)), "betas"),
        (lambda: setattr(gg.optim.Adam([p]), "lr", -1), "lr=-1 is not in"),
    ):
        with pytest.raises(ValueError, match=message):
            call()


def test_parameters_may_come_from_a_generator(device):
    p = leaf(START)
    optimizer = gg.optim.SGD((x for x in [p]), lr=1.0)
    p.grad = gg.ones_like(p)
    optimizer.step()
    assert_same(p, START - 1)


def test_parameters_that_are_refused(device):
    w = leaf([1.0])
    with pytest.raises(ValueError, match="twice"):
        gg.optim.SGD([w, w], 0.1)
    with pytest.raises(TypeError, match="complex128"):
        gg.optim.Adam([leaf([1j], dtype="complex128")])
    with pytest.raises(ValueError, match="eps"):
        gg.optim.Adam([w], eps=-1)
