"""The optimisers against their textbook formulas, step by step."""

import numpy as np
import pytest
from helpers import array, assert_same, host, launched, leaf

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


# ---- settings


@each_maker
def test_a_learning_rate_computed_on_the_device(make, device):
    p, q = leaf(START), leaf(START)
    optimizer, other = make([p]), make([q])
    for k, g in enumerate(GRADS):
        p.grad, q.grad = gg.asarray(array(g)), gg.asarray(array(g))
        rate = gg.asarray(array(0.25, "float32")) / 2**k
        with gg.no_transfers():
            optimizer.lr = rate
            optimizer.step()
        other.lr = 0.25 / 2**k
        other.step()
        rate *= 0  # the optimiser has a copy
        assert_same(optimizer.lr, np.array(0.25 / 2**k))
        assert_same(p, host(q), rtol=0)
    optimizer.lr.data[...] = 7  # and so has the caller
    assert_same(optimizer.lr, np.array(0.25 / 8))
    optimizer.lr = np.float32(0.5)
    assert type(optimizer.lr) is float
    assert optimizer.lr == 0.5


@each_maker
def test_learning_rates_that_are_refused(make, device):
    p = leaf(START)
    optimizer = make([p])
    before = optimizer.lr
    with pytest.raises(ValueError, match=r"lr is a Tensor of shape \(1,\)"):
        optimizer.lr = gg.ones(1)
    with pytest.raises(TypeError, match="lr is a Tensor of complex128"):
        optimizer.lr = gg.asarray(1j)
    with pytest.raises(ValueError, match="lr=inf is not in"):
        optimizer.lr = np.inf
    assert optimizer.lr == before


def test_an_optimizer_may_start_with_a_tensor_as_its_learning_rate(device):
    p = leaf(START)
    p.grad = gg.ones_like(p)
    gg.optim.SGD([p], gg.asarray(array(1.0))).step()
    assert_same(p, START - 1)


def test_settings_that_are_fixed(device):
    p = leaf(START)
    sgd, adam = gg.optim.SGD([p], 0.1, momentum=0.5), gg.optim.Adam([p], betas=(0.5, 0.75), eps=0.1)
    assert (sgd.momentum, adam.betas, adam.eps) == (0.5, (0.5, 0.75), 0.1)
    for optimizer, name, value in (
        (sgd, "momentum", 0.9),
        (adam, "betas", (0.9, 0.99)),
        (adam, "eps", 0.0),
    ):
        before = getattr(optimizer, name)
        with pytest.raises(AttributeError, match=f"{name} is fixed; make a new (SGD|Adam) with"):
            setattr(optimizer, name, value)
        assert getattr(optimizer, name) == before


# ---- what is counted


def test_each_parameter_counts_its_own_steps(device):
    together = [leaf(START, dtype=dtype) for dtype in ("float64", "float32", "float16")]
    alone = [leaf(START, dtype=p.dtype) for p in together]
    optimizer, others = gg.optim.Adam(together, 0.1), [gg.optim.Adam([p], 0.1) for p in alone]
    for k, missing in enumerate([(), (1,), (0, 2), (), (0, 1, 2), (2,)]):
        for i, (p, q) in enumerate(zip(together, alone, strict=True)):
            g = gg.asarray(array(GRADS[(k + i) % 4], p.dtype))
            p.grad, q.grad = (None, None) if i in missing else (g, g)
        for step in (optimizer.step, *(other.step for other in others)):
            step()
        for p, q in zip(together, alone, strict=True):
            np.testing.assert_array_equal(host(p), host(q))


def test_ten_thousand_steps(device):
    """0.5**t is 0 long before; nobody is told that it underflows."""
    p, q = leaf([0.0]), leaf([0.0])
    optimizer = gg.optim.Adam([p, q], 1.0, betas=(0.5, 0.75))
    with np.errstate(all="raise"):
        for step in range(10_000 if device == "cpu" else 4_000):
            p.grad, q.grad = gg.ones_like(p), gg.ones_like(q) if step % 2 else None
            optimizer.step()
    np.testing.assert_allclose(host(p), [-(step + 1)], rtol=1e-7)
    np.testing.assert_allclose(host(q), [-(step + 1) / 2], rtol=1e-7)


@each_maker
def test_a_step_is_one_kernel_for_each_parameter(make, cuda):
    with gg.device(cuda):
        params = [leaf(START), leaf(START, dtype="float32"), leaf(START[0])]
        optimizer = make(params)
        counting = isinstance(optimizer, gg.optim.Adam)
        for p in params:
            p.grad = gg.ones_like(p)
        with gg.no_transfers():
            assert launched(optimizer.step) in (3 + counting, None)
            assert launched(lambda: setattr(optimizer, "lr", 0.5)) in (1, None)


@pytest.mark.devices
@each_maker
def test_parameters_on_two_devices(make, cuda):
    devices = gg.devices()[:2]
    params = [leaf(START, device=d) for d in (*devices, devices[0])]
    alone = [leaf(START, device=p.device) for p in params]
    optimizer, others = make(params), [make([p]) for p in alone]
    rate = gg.asarray(0.25, device=devices[1])
    for o in (optimizer, *others):
        o.lr = rate
    for missing in (None, 0, 1, None):
        for i, (p, q) in enumerate(zip(params, alone, strict=True)):
            p.grad, q.grad = (None, None) if i == missing else (gg.ones_like(p), gg.ones_like(q))
        for o in (optimizer, *others):
            o.step()
        for p, q in zip(params, alone, strict=True):
            assert p.device == q.device
            np.testing.assert_array_equal(p.get(), q.get())
