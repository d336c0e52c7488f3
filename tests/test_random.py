"""Random tensors: where they are, what they are, and that a seed repeats them."""

import math

import numpy as np
import pytest
from helpers import host

import gpugrad as gg

DRAWS = {
    "normal": lambda g: g.normal((3, 2)),
    "uniform": lambda g: g.uniform(-1, 2, (3, 2)),
    "integers": lambda g: g.integers(-5, 50, (3, 2)),
    "permutation": lambda g: g.permutation(20),
}
each_draw = pytest.mark.parametrize("draw", DRAWS.values(), ids=DRAWS)


@each_draw
def test_a_seed_repeats_the_numbers(draw, device):
    a, b, other = gg.random.Generator(3), gg.random.Generator(3), gg.random.Generator(4)
    first, second = host(draw(a)), host(draw(a))
    np.testing.assert_array_equal(host(draw(b)), first)
    np.testing.assert_array_equal(host(draw(b)), second)
    assert not np.array_equal(first, second)
    assert not np.array_equal(first, host(draw(other)))


@each_draw
def test_without_a_seed_they_differ(draw, device):
    assert not np.array_equal(host(draw(gg.random.Generator())), host(draw(gg.random.Generator())))


@each_draw
def test_the_modules_own_generator(draw, device):
    gg.random.seed(5)
    first, second = host(draw(gg.random)), host(draw(gg.random))
    gg.random.seed(5)
    np.testing.assert_array_equal(host(draw(gg.random)), first)
    np.testing.assert_array_equal(host(draw(gg.random)), second)
    np.testing.assert_array_equal(host(draw(gg.random.Generator(5))), first)
    assert not np.array_equal(first, second)


@each_draw
def test_place(draw, device):
    assert draw(gg.random).device == device
    assert draw(gg.random.default_generator("cpu")).device == "cpu"
    assert draw(gg.random.Generator(0, "cpu")).device == "cpu"
    assert not draw(gg.random).requires_grad


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("shape", [(), 3, (2, 0), (2, 3)], ids=str)
def test_shapes_and_dtypes(shape, dtype, device):
    expected = np.empty(shape).shape
    for out in (
        gg.random.normal(shape, dtype=dtype),
        gg.random.uniform(-1, 1, shape, dtype=dtype),
        gg.random.normal(shape, dtype=dtype, device="cpu"),
    ):
        assert (out.shape, out.dtype) == (expected, np.dtype(dtype))
    out = gg.random.integers(0, 3, shape, dtype="int32")
    assert (out.shape, out.dtype) == (expected, np.int32)
    assert gg.random.integers(0, 3, shape).dtype == np.int64
    assert gg.random.permutation(3).dtype == np.int64
    assert gg.random.normal().dtype == gg.random.uniform().dtype == np.float64


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_moments(dtype, device):
    n = 20_000
    g = gg.random.Generator(0)
    x = host(g.normal(n, dtype=dtype)).astype(float)
    assert abs(x.mean()) < 5 / math.sqrt(n)
    assert abs(x.var() - 1) < 5 * math.sqrt(2 / n)
    assert abs((x**3).mean()) < 5 * math.sqrt(15 / n)
    u = host(g.uniform(-1, 3, n, dtype=dtype)).astype(float)
    assert u.min() >= -1
    assert u.max() <= 3
    assert abs(u.mean() - 1) < 5 * math.sqrt(16 / 12 / n)
    assert abs(u.var() - 16 / 12) < 5 * 16 * math.sqrt(1 / 180 / n)


def test_integers_and_permutations(device):
    g = gg.random.Generator(0)
    counts = np.bincount(host(g.integers(0, 6, 6000)), minlength=6)
    assert counts.sum() == 6000
    assert (abs(counts - 1000) < 5 * math.sqrt(1000)).all()
    assert set(host(g.integers(-3, -1, 100)).tolist()) == {-3, -2}
    np.testing.assert_array_equal(np.sort(host(g.permutation(50))), np.arange(50))
    assert host(g.permutation(0)).shape == (0,)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda g: g.normal(2, dtype="int64"), TypeError, "int64"),
        (lambda g: g.uniform(0, 1, 2, dtype="complex128"), TypeError, "complex128"),
        (lambda g: g.uniform(2, 1, 2), ValueError, "low=2 is above high=1"),
        (lambda g: g.uniform(float("nan"), 1, 2), ValueError, "low=nan"),
        (lambda g: g.integers(3, 3, 2), ValueError, r"\[3, 3\) is empty"),
    ],
)
def test_bad_input(call, error, message, device):
    with pytest.raises(error, match=message):
        call(gg.random)


def test_a_generator_on_no_device():
    with pytest.raises(ValueError, match="unknown device"):
        gg.random.Generator(0, "gpu")
