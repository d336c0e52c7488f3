"""Each kernel three ways: its twin against decimal arithmetic, its text compiled for the host
against the twin, and through CuPy against the twin."""

from decimal import Decimal

import numpy as np
import pytest
from helpers import launches
from kernels_host import BINARY, COMPILER, DIVISION, UNARY, HostKernels
from kernels_reference import exact, limits, ulps

import gpugrad as gg
from gpugrad import backends, twins
from gpugrad.cuda import ranges as cuda_ranges
from gpugrad.cuda.ranges import decoded

try:
    from ml_dtypes import bfloat16
except ImportError:
    HALVES = [np.dtype("float16")]
else:
    HALVES = [np.dtype("float16"), np.dtype(bfloat16)]
DTYPES = [*HALVES, np.dtype("float32"), np.dtype("float64")]

SPECIAL = [0.0, -0.0, 0.5, -0.5, 1, -1, 3, -3, 30, -30, 80, -80, 1e4, -1e4, np.inf, -np.inf, np.nan]

# the largest error in units of the last place, over the range where the result is normal
ULPS = {
    "sigmoid": {"float32": 4, "float64": 4},
    "sigmoid_grad": {"float32": 4, "float64": 4},
    "tanh_grad": {"float32": 5, "float64": 4},
    "softplus": {"float32": 4, "float64": 3},
    "log_sigmoid": {"float32": 4, "float64": 3},
    "silu": {"float32": 4, "float64": 4},
    "silu_grad": {"float32": 5, "float64": 5},
    "erf": {"float32": 1, "float64": 4},
    "gelu": {"float32": 1, "float64": 10},
    "gelu_grad": {"float32": 1, "float64": 8},
    "relu": {"float32": 0, "float64": 0},
    "relu_grad": {"float32": 0, "float64": 0},
}

LIMITS = {
    "sigmoid": [(0, 0.5), (np.inf, 1), (-np.inf, 0), (-1e4, 0)],
    "softplus": [(np.inf, np.inf), (-np.inf, 0), (1e4, 1e4)],
    "log_sigmoid": [(np.inf, 0), (-np.inf, -np.inf), (-1e4, -1e4)],
    "silu": [(0, 0), (np.inf, np.inf), (-np.inf, 0), (-1e4, 0)],
    "gelu": [(0, 0), (np.inf, np.inf), (-np.inf, 0), (-1e4, 0)],
    "erf": [(0, 0), (np.inf, 1), (-np.inf, -1)],
    "relu": [(0, 0), (np.inf, np.inf), (-np.inf, 0)],
    "sigmoid_grad": [(0, 0.25), (np.inf, 0), (-np.inf, 0), (-1e4, 0)],
    "tanh_grad": [(0, 1), (np.inf, 0), (-np.inf, 0), (-1e4, 0)],
    "silu_grad": [(0, 0.5), (np.inf, 1), (-np.inf, 0), (-1e4, 0)],
    "gelu_grad": [(0, 0.5), (np.inf, 1), (-np.inf, 0), (-1e4, 0)],
    "relu_grad": [(0, 0), (np.inf, 1), (-np.inf, 0)],
}

each_name = pytest.mark.parametrize("name", UNARY + BINARY)
each_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=str)


def twin(name, x):
    """A twin at x, a derivative for a cotangent of ones."""
    f = getattr(twins, name)
    return f(np.ones_like(x), x) if name in BINARY else f(x)


def special(dtype):
    """Special values and a range of ordinary ones."""
    with np.errstate(over="ignore"):
        return np.array(SPECIAL + list(np.linspace(-20, 20, 47)), dtype)


def assert_close(got, expected, units, floor=0.0):
    """Equal dtype, shape, infinities and NaN; else within some units of the last place.

    Below the smallest normal number a device gives 0.
    """
    assert (got.dtype, got.shape) == (expected.dtype, expected.shape)
    eps, tiny, _ = limits(got.dtype)
    np.testing.assert_allclose(
        got.astype(float),
        expected.astype(float),
        rtol=units * eps,
        atol=max(tiny, units * eps * floor),
    )


# ---- the twins


@each_name
@each_dtype
def test_twin_is_accurate(name, dtype):
    rng = np.random.default_rng(0)
    near_zero = rng.standard_normal(60) * 10.0 ** rng.uniform(-6, 0, 60)
    x = np.concatenate([rng.uniform(-80, 80, 60), rng.uniform(-6, 6, 60), near_zero]).astype(dtype)
    x = x[x != 0]
    references = [exact(name, v) for v in x.astype(float).tolist()]
    # near the zero of the derivatives of silu and gelu the absolute error counts
    floor = 0.3 if name in ("silu_grad", "gelu_grad") else 0
    near = np.abs(x.astype(float)) < 4 if floor else np.ones(x.shape, bool)
    bound = ULPS[name].get(dtype.name, 0.51)
    for where, at_least in ((near, floor), (~near, 0)):
        if where.any():
            chosen = [r for r, keep in zip(references, where, strict=True) if keep]
            assert ulps(twin(name, x)[where], chosen, dtype, at_least) <= bound


@pytest.mark.parametrize("name", ["sigmoid", "sigmoid_grad"])
def test_both_tails_in_float32(name):
    start, stop = np.array([2.0**-20, 80], np.float32).view(np.uint32)
    x = np.arange(start, stop, 1009, dtype=np.uint32).view(np.float32)
    x = np.concatenate([x, -x])
    e = np.exp(-np.abs(x.astype(float)))
    expected = e / (1 + e) ** 2 if name == "sigmoid_grad" else np.where(x > 0, 1, e) / (1 + e)
    unit = 2.0 ** (np.frexp(expected)[1] - 24)
    assert np.max(np.abs(twin(name, x) - expected) / unit) <= 4


@each_name
@each_dtype
def test_limits(name, dtype):
    for x, expected in LIMITS[name]:
        np.testing.assert_array_equal(
            twin(name, np.array([x]).astype(dtype)).astype(float),
            np.array([expected]).astype(dtype).astype(float),
        )
    assert np.isnan(twin(name, np.array([np.nan], dtype)).astype(float)[0]) or name == "relu_grad"


@each_name
@each_dtype
def test_twin_takes_any_shape_and_leaves_its_arguments(name, dtype):
    x = special(dtype)
    kept = x.copy()
    whole = twin(name, x)
    assert whole.dtype == dtype
    assert twin(name, x[:0]).shape == (0,)
    assert_close(twin(name, x[::-2]), whole[::-2], 4)
    assert_close(twin(name, x.reshape(2, -1).T), whole.reshape(2, -1).T, 4)
    assert_close(twin(name, x[5].reshape(())), whole[5].reshape(()), 4)
    assert x.tobytes() == kept.tobytes()


@each_name
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_large_arrays_give_what_small_ones_give(name, dtype):
    x = np.random.default_rng(0).standard_normal((70, 500)).astype(dtype) * 9
    expected = np.concatenate([twin(name, row)[None] for row in x])
    eps = np.finfo(dtype).eps
    np.testing.assert_allclose(twin(name, x), expected, rtol=4 * eps)
    np.testing.assert_allclose(twin(name, x.T), expected.T, rtol=4 * eps)


@pytest.mark.parametrize("name", BINARY)
def test_derivatives_broadcast_and_promote(name):
    f = getattr(twins, name)
    x = np.linspace(-3, 3, 6, dtype=np.float32)
    slope = f(np.ones_like(x), x)
    g = np.arange(1, 3, dtype=np.float32)[:, None]
    np.testing.assert_allclose(f(g, x), g * slope, rtol=1e-6)
    np.testing.assert_allclose(f(g[0, 0].reshape(()), x), slope, rtol=1e-6)
    np.testing.assert_allclose(f(g[:, 0], x[0].reshape(())), g[:, 0] * slope[0], rtol=1e-6)
    assert f(g.astype(np.float64), x).dtype == np.float64
    assert f(np.ones(6, np.float16), x).dtype == np.float32


@each_name
def test_integers_and_complex_numbers(name):
    x = np.array([0, 1, 2])
    got = twin(name, x)
    assert got.dtype == (x.dtype if name == "relu" else np.float64)
    np.testing.assert_array_equal(got, twin(name, x.astype(float)))
    with pytest.raises(TypeError, match="real"):
        twin(name, x + 1j)


@each_dtype
def test_infinite_cotangents_stay_silent(dtype):
    x = special(dtype)
    for name in BINARY:
        getattr(twins, name)(np.full_like(x, np.inf), x)
    grad = np.array([np.inf, np.nan, 1]).astype(dtype)
    param, m, v = np.zeros((3, 3)).astype(dtype)
    twins.sgd_step(param, m, grad, RATE, 0.9)
    twins.adam_step(param, m, v, grad, RATE, 0.9, 0.999, 1e-8, powers(1))


@each_dtype
def test_softmax_and_its_like(dtype):
    x = np.array([[1, 2, 3, -4], [50, 0, 0, 0], [-20, -20, -20.5, -21]]).astype(dtype)
    exps = [[Decimal(v).exp() for v in row] for row in x.astype(float).tolist()]
    sums = [sum(row) for row in exps]
    units = 1 if dtype in HALVES else 8
    shares = np.array([[float(e / s) for e in row] for row, s in zip(exps, sums)]).astype(dtype)
    logs = np.array([[float((e / s).ln()) for e in row] for row, s in zip(exps, sums)])
    log_sums = np.array([float(s.ln()) for s in sums]).astype(dtype)
    assert_close(twins.softmax(x, 1), shares, units)
    assert_close(twins.softmax(x.T, 0), shares.T, units)
    assert_close(twins.log_softmax(x, -1), logs.astype(dtype), units, floor=1)
    assert_close(twins.logsumexp(x, 1), log_sums, units)
    assert_close(twins.logsumexp(x, (1,), keepdims=True), log_sums[:, None], units)
    total = np.array(float(sum(sums).ln())).astype(dtype)
    assert_close(twins.logsumexp(x), total, units)
    labels = np.array([2, 0, -1])
    picked = logs[np.arange(3), labels]
    sums = twins.exp_sums(x)
    assert_close(twins.cross_entropy(x, labels, sums), (-picked).astype(dtype), units, floor=1)
    slope = shares.astype(float)
    slope[np.arange(3), labels] -= 1
    g = np.array([1, -2, 3]).astype(dtype)
    expected = (slope * g.astype(float)[:, None]).astype(dtype)
    assert_close(twins.cross_entropy_grad(g, x, labels, sums), expected, 2 * units, floor=3)


@each_dtype
def test_softmax_of_special_rows(dtype):
    inf, nan = np.inf, np.nan
    x = np.array([[-inf, -inf], [inf, 0], [nan, 0], [-inf, 0], [inf, -inf]]).astype(dtype)
    np.testing.assert_array_equal(
        twins.logsumexp(x, 1).astype(float), np.array([-inf, inf, nan, 0, inf])
    )
    np.testing.assert_array_equal(twins.softmax(x[3:4], 1).astype(float), [[0, 1]])
    np.testing.assert_array_equal(twins.log_softmax(x[3:4], 1).astype(float), [[-inf, 0]])
    assert np.isnan(twins.softmax(x[:1], 1).astype(float)).all()
    assert twins.logsumexp(x[:0], 0).astype(float).tolist() == [-inf, -inf]
    assert twins.softmax(x[:, :0], 1).shape == (5, 0)
    assert twins.logsumexp(x[3, 1].reshape(())).shape == ()


def test_log_softmax_of_large_numbers_keeps_its_digits():
    x = np.array([[1000, 1000.0625]], np.float32)
    np.testing.assert_allclose(twins.log_softmax(x, 1), twins.log_softmax(x - 1000, 1), rtol=1e-6)


RATE = np.array(0.1)


def powers(t):
    """What a step of Adam is given, with 0.9 and 0.999, at step t."""
    return np.array([0.9, 0.999]) ** t


def plain_adam(p, m, v, g, lr, beta1, beta2, eps, t):
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * g * g
    return p - lr * (m / (1 - beta1**t)) / (np.sqrt(v / (1 - beta2**t)) + eps), m, v


def problem(dtype, state):
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal((3, 4)).astype(dtype) for _ in range(2)]
    states = [np.abs(rng.standard_normal((3, 4))).astype(state) for _ in range(2)]
    return arrays[0], *states, arrays[1]


STATES = [(d, d) for d in DTYPES] + [(d, np.dtype(np.float32)) for d in HALVES]
each_state = pytest.mark.parametrize(("dtype", "state"), STATES, ids=str)


@each_state
def test_optimizer_steps(dtype, state):
    p, v, m, g = problem(dtype, state)
    kept = g.copy()
    units = 1 if dtype in HALVES else 8
    p64, v64, m64, g64 = (a.astype(float) for a in (p, v, m, g))
    twins.sgd_step(p, None, g, RATE, 0.0)
    assert_close(p, (p64 - 0.1 * g64).astype(dtype), units, floor=1)
    p64, velocity = p.astype(float), v.copy()
    twins.sgd_step(p, velocity, g, RATE, 0.9)
    assert_close(velocity, (0.9 * v64 + g64).astype(state), units, floor=1)
    assert_close(p, (p64 - 0.1 * (0.9 * v64 + g64)).astype(dtype), units, floor=1)
    for t in (1, 2):
        p64, m64, v64 = plain_adam(
            *(a.astype(float) for a in (p, m, v, g)), 0.1, 0.9, 0.999, 1e-8, t
        )
        twins.adam_step(p, m, v, g, RATE, 0.9, 0.999, 1e-8, powers(t))
        for got, expected in ((p, p64), (m, m64), (v, v64)):
            assert_close(got, expected.astype(got.dtype), units, floor=1)
    np.testing.assert_array_equal(g, kept)


# ---- the text of the kernels, compiled for the host


@pytest.fixture(scope="module")
def host_kernels(tmp_path_factory):
    if COMPILER is None:
        pytest.skip("no C++ compiler")
    return HostKernels(tmp_path_factory.mktemp("kernels"))


def units_of(dtype):
    return 1 if dtype in HALVES else 12


@each_name
@each_dtype
def test_text_agrees_with_twin(host_kernels, name, dtype):
    x = special(dtype)
    if name in UNARY:
        assert_close(host_kernels.elementwise(name, x), twin(name, x), units_of(dtype), floor=0.1)
        return
    for value in (1, -2.5, 0, np.inf, np.nan):
        g = np.full_like(x, value)
        got = host_kernels.elementwise(name, g, x)
        assert_close(got, getattr(twins, name)(g, x), units_of(dtype), floor=0.1)


@each_name
@pytest.mark.parametrize("dtype", [np.dtype("float32"), np.dtype("float64")], ids=str)
def test_text_is_accurate_in_the_tails(host_kernels, name, dtype):
    x = np.linspace(-80, 80, 41).astype(dtype)
    args = (np.ones_like(x), x) if name in BINARY else (x,)
    references = [exact(name, v) for v in x.astype(float).tolist()]
    assert ulps(host_kernels.elementwise(name, *args), references, dtype) <= 6


def division_operands(dtype):
    values = [0.0, -0.0, 0.1, 0.3, 1, 2.5, 7, 1e4, np.inf]
    both_signs = np.array([*values, *(-v for v in values), np.nan]).astype(dtype)
    return [np.ascontiguousarray(a) for a in np.meshgrid(both_signs, both_signs)]


def by_numpy(name, a, b):
    """// or % of NumPy arrays, of which the device functions are twins."""
    with np.errstate(all="ignore"):
        return gg.floor_divide(a, b) if name == "floor_divide" else np.remainder(a, b)


def assert_identical(got, expected):
    """Equal dtype and values, signs of zeros included."""
    assert got.dtype == expected.dtype
    got, expected = got.astype(float), expected.astype(float)
    np.testing.assert_array_equal(got, expected)
    real = ~np.isnan(expected)
    np.testing.assert_array_equal(np.signbit(got[real]), np.signbit(expected[real]))


@pytest.mark.parametrize("name", DIVISION)
@each_dtype
def test_text_of_division_agrees_with_numpy(host_kernels, name, dtype):
    a, b = division_operands(dtype)
    assert_identical(host_kernels.elementwise(name, a, b), by_numpy(name, a, b))


def logits(dtype):
    rng = np.random.default_rng(0)
    x = (rng.standard_normal((8, 11)) * 4).astype(dtype)
    x[1], x[2, 3], x[3, 4], x[4, :9] = -np.inf, np.inf, np.nan, -np.inf
    x[5] *= 100
    g = rng.standard_normal(8).astype(dtype)
    return x, np.array([0, 1, 2, 3, 10, 5, -1, -11]), g


@each_dtype
@pytest.mark.parametrize("stride", [1, 4, 32])
def test_text_of_softmax_agrees_with_twin(host_kernels, dtype, stride):
    x, labels, g = logits(dtype)
    expected = [
        twins.logsumexp(x, 1),
        twins.softmax(x, 1),
        twins.log_softmax(x, 1),
        twins.cross_entropy(x, labels, twins.exp_sums(x)),
        twins.cross_entropy_grad(g, x, labels, twins.exp_sums(x)),
    ]
    for got, wanted in zip(host_kernels.rows(x, labels, g, stride), expected, strict=True):
        assert_close(got, wanted, units_of(dtype), floor=4)


@each_state
def test_text_of_optimizers_agrees_with_twin(host_kernels, dtype, state):
    units = units_of(dtype)
    p, v, m, g = problem(dtype, state)
    q, w, n = p.copy(), v.copy(), m.copy()
    twins.sgd_step(p, None, g, RATE, 0.0)
    host_kernels.update("sgd", (q, g), (0.1,))
    assert_close(q, p, units, floor=1)
    twins.adam_step(p, m, v, g, RATE, 0.9, 0.999, 1e-8, powers(3))
    settings = (0.1, 1 - 0.9, 1 - 0.999, 1e-8, *powers(3))
    host_kernels.update("adam", (q, n, w, g), settings)
    for got, expected in ((q, p), (n, m), (w, v)):
        assert_close(got, expected, units, floor=1)
    twins.sgd_step(p, v, g, RATE, 0.9)
    host_kernels.update("momentum", (q, w, g), (0.1, 0.9))
    assert_close(q, p, units, floor=1)
    assert_close(w, v, units, floor=1)


# shape of the images, then size, stride, padding and dilation of the window
WINDOWS = [
    ((2, 3, 5, 4), (2, 2), (1, 1), (0, 0), (1, 1)),
    ((1, 2, 6, 5), (3, 2), (2, 3), (1, 2), (2, 1)),
    ((2, 1, 3, 2), (1, 3), (1, 2), (0, 3), (1, 2)),
    ((1, 1, 7, 1), (2, 1), (4, 1), (0, 0), (3, 1)),
    ((1, 1, 1, 1), (2, 2), (5, 1), (3, 1), (1, 1)),
    ((0, 2, 3, 3), (2, 2), (1, 1), (0, 0), (1, 1)),
]
each_window = pytest.mark.parametrize("window", WINDOWS, ids=str)


def images(window, dtype):
    """Images, and patches of them that are independent of these."""
    shape, *options = window
    rng = np.random.default_rng(0)
    x = rng.standard_normal(shape).astype(dtype)
    found = twins.patches(x, *options)
    return x, rng.standard_normal(found.shape).astype(dtype)


@each_window
def test_twin_of_patch_sums_is_the_transpose(window):
    x, p = images(window, np.float64)
    shape, _, *options = window
    sums = twins.patch_sums(p, shape[2:], *options)
    assert sums.shape == shape
    np.testing.assert_allclose(np.sum(sums * x), np.sum(p * twins.patches(x, *window[1:])))


@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_halves_are_added_in_single_precision(dtype):
    p = np.full((1, 60, 60, 1, 1, 1), 1.0).astype(dtype)
    p[0, 0, 0] = 2048  # from there on float16 cannot count, and bfloat16 long before
    p = np.broadcast_to(p, (1, 60, 60, 1, 60, 60))
    sums = twins.patch_sums(p, (60, 60), (1, 1), (59, 59), (1, 1))
    assert sums.dtype == dtype
    expected = twins.patch_sums(p.astype(float), (60, 60), (1, 1), (59, 59), (1, 1))
    np.testing.assert_array_equal(sums, expected.astype(dtype))


@each_window
@each_dtype
def test_text_of_patches_agrees_with_twin(host_kernels, window, dtype):
    x, p = images(window, dtype)
    shape, size, *options = window
    numbers = zip(shape[2:], size, p.shape[4:], *options)
    args = (*shape[:2], list(numbers))
    got = host_kernels.patches(x, p.shape, *args, back=False)
    np.testing.assert_array_equal(got, twins.patches(x, size, *options))
    got = host_kernels.patches(p, shape, *args, back=True)
    assert_close(got, twins.patch_sums(p, shape[2:], *options), units_of(dtype), floor=1)


@each_dtype
@pytest.mark.parametrize(("m", "n"), [(5, 3), (2, 6), (1, 1), (4, 4)])
def test_text_of_convolution_agrees_with_numpy(host_kernels, dtype, m, n):
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal(k).astype(dtype) for k in (m, n))
    expected = np.convolve(a.astype(float), b.astype(float)).astype(dtype)
    assert_close(host_kernels.convolved(a, b), expected, units_of(dtype), floor=1)


def scattered(dtype, before, n, m, after):
    """An array, where in it values go, and values, whose sums depend on the order."""
    rng = np.random.default_rng(0)
    array, values = (
        (rng.standard_normal((before, k, after)) * 10.0 ** rng.integers(-2, 3, (k, 1))).astype(
            dtype
        )
        for k in (n, m)
    )
    return array, rng.integers(0, n, m), values


SCATTERS = [(1, 4, 23, 1), (2, 3, 200, 3), (1, 1, 200, 1), (3, 50, 20, 2), (1, 2, 1, 1)]
each_scatter = pytest.mark.parametrize("sizes", SCATTERS, ids=str)


@each_scatter
@each_dtype
@pytest.mark.parametrize("chunk", [2, 7, 64])
def test_text_of_add_in_order(host_kernels, sizes, dtype, chunk):
    array, index, values = scattered(dtype, *sizes)
    expected = array.astype(float)
    np.add.at(expected, (slice(None), index), values.astype(float))
    found = []
    for step in (1, -1, 997):
        got = array.copy()
        host_kernels.add_in_order(got, index, values, chunk, step)
        found.append(got.tobytes())
    assert len(set(found)) == 1
    levels = 1 + np.log(max(index.size, 2)) / np.log(chunk)
    scale = np.abs(array.astype(float)).max() + np.abs(values.astype(float)).sum()
    eps = limits(dtype)[0]
    assert np.abs(got.astype(float) - expected).max() <= eps * scale * levels
    if index.size <= chunk and dtype not in HALVES:  # then it is NumPy's order
        np.add.at(array, (slice(None), index), values)
        np.testing.assert_array_equal(got, array)


@each_scatter
@each_dtype
def test_text_of_write_last(host_kernels, sizes, dtype):
    array, index, values = scattered(dtype, *sizes)
    expected = array.copy()
    expected[:, index] = values
    for step in (1, -1, 997):
        got = array.copy()
        host_kernels.write_last(got, index, values, step)
        np.testing.assert_array_equal(got, expected)


RANGES = [
    ([1, -2, 3], (-2, 3, 0)),
    ([-5, -7], (-7, -5, 0)),
    ([0.0, -0.0], (0, 0, 0)),
    ([np.inf, 5], (5, 5, 1)),
    ([-np.inf, np.nan, -7.5], (-7.5, -7.5, 2)),
    ([np.nan, np.inf], (np.nan, np.nan, 2)),
    ([], (np.nan, np.nan, 0)),
    ([2.0**-24, 61440, -61440], (-61440, 61440, 0)),
]
each_range = pytest.mark.parametrize(("values", "expected"), RANGES, ids=str)


@each_range
@each_dtype
def test_text_of_note_range(host_kernels, values, expected, dtype):
    (found,) = decoded(host_kernels.ranges(np.array(values, dtype)))
    np.testing.assert_allclose(found, expected, rtol=1e-7)


# ---- through CuPy


@each_range
@each_dtype
def test_ranges_of_arrays(on_gpu, values, expected, dtype):
    backend, put = on_gpu
    x = put(np.array(values, dtype))
    ranges = backend.ranges(3)
    rows = [ranges.note(y) for y in (x, backend.xp.stack([x, x])[:, ::-1], x * 1j)]
    assert rows == [0, 1, 2]
    assert ranges.free == 0
    plain, strided, complex_ = ranges.read()
    np.testing.assert_allclose([plain, strided], [expected, expected], rtol=1e-7)
    assert complex_[2] >= expected[2]


@pytest.mark.parametrize("place", [0, 31, 32, 383, 384, 999])
def test_ranges_of_more_numbers_than_threads(on_gpu, monkeypatch, place):
    monkeypatch.setattr(cuda_ranges, "_THREADS", 384)
    backend, put = on_gpu
    array = np.zeros(1000)
    array[place] = -3.5
    ranges = backend.ranges(2)
    ranges.note(put(array))
    array[place] = np.nan
    ranges.note(put(array.reshape(10, 100)).T)
    assert ranges.read() == [(-3.5, 0, 0), (0, 0, 2)]


def test_ranges_on_other_streams_are_in_order(on_gpu, monkeypatch):
    backend, put = on_gpu
    x = put(np.array([1.0, 2.0]))
    order = []
    cuda = backend._cupy.cuda

    class Watched(cuda.Stream):
        def record(self, event=None):
            order.append((self, "records"))
            return super().record(event)

        def wait_event(self, event):
            order.append((self, "waits"))
            super().wait_event(event)

    home, other = Watched(non_blocking=True), Watched(non_blocking=True)
    with home:
        ranges = backend.ranges(2)
        ranges.note(x)
    assert order == [(home, "records")]  # when the table is empty
    with other:
        ranges.note(x)
    assert order[1:] == [(other, "waits"), (other, "records"), (home, "waits")]
    home.synchronize()
    assert ranges.read() == [(1, 2, 0)] * 2


@pytest.fixture
def on_gpu(cuda):
    """The backend of the CUDA device, and a function that puts a NumPy array there."""
    backend = backends.backend_of_kind("cuda")
    return backend, lambda x: backend.asarray(x, None, cuda, None)


@each_name
@each_dtype
def test_kernel_agrees_with_twin(on_gpu, name, dtype):
    backend, put = on_gpu
    x = special(dtype)
    f, f_twin = getattr(backend.xp, name), getattr(twins, name)
    shapes = (x, x.reshape(2, -1).T, x[:0], x[5].reshape(()))
    for arg in shapes:
        args = (np.full(arg.shape, 2, dtype), arg) if name in BINARY else (arg,)
        got = backend.to_host(f(*map(put, args)))
        assert_close(got, f_twin(*args), units_of(dtype), floor=0.1)


@pytest.mark.parametrize("name", BINARY)
def test_kernels_of_derivatives_broadcast_and_promote(on_gpu, name):
    backend, put = on_gpu
    x = np.linspace(-3, 3, 6, dtype=np.float32)
    f, f_twin = getattr(backend.xp, name), getattr(twins, name)
    for g in (np.float32([[1], [2]]), np.array(2, np.float32), np.ones((2, 1)), np.ones(6, "e")):
        got = backend.to_host(f(put(g), put(x)))
        assert_close(got, f_twin(g, x), 12)


@each_name
def test_kernels_take_integers_but_no_complex_numbers(on_gpu, name):
    backend, put = on_gpu
    x = np.array([0, 1, 2])
    args = (x, x) if name in BINARY else (x,)
    f = getattr(backend.xp, name)
    assert_close(
        backend.to_host(f(*map(put, args))).astype(float), 1.0 * getattr(twins, name)(*args), 12
    )
    assert backend.to_host(f(*map(put, args))).dtype == getattr(twins, name)(*args).dtype
    with pytest.raises(TypeError, match="real"):
        f(*(put(a + 1j) for a in args))


@pytest.mark.parametrize("name", DIVISION)
@each_dtype
def test_kernels_of_division_agree_with_numpy(on_gpu, name, dtype):
    backend, put = on_gpu
    f = getattr(backend.xp, name)
    a, b = division_operands(dtype)
    assert_identical(backend.to_host(f(put(a), put(b))), by_numpy(name, a, b))
    for number in (2, 2.5, True, np.float64(2.5)):
        assert_identical(backend.to_host(f(put(a), number)), by_numpy(name, a, number))
        assert_identical(backend.to_host(f(number, put(a))), by_numpy(name, number, a))
    x = np.arange(-5, 5)
    for other in (3, -3, x[::-1] * 2 + 1, x * 0.5 + 0.25):
        y = put(other) if isinstance(other, np.ndarray) else other
        assert_identical(backend.to_host(f(put(x), y)), by_numpy(name, x, other))
    with pytest.raises(TypeError):
        f(put(x), 2j)


@each_dtype
def test_kernels_of_softmax_agree_with_twins(on_gpu, dtype):
    backend, put = on_gpu
    xp, units = backend.xp, units_of(dtype)
    x, labels, g = logits(dtype)
    X, L, G = put(x), put(labels), put(g)

    def check(got, expected):
        assert_close(backend.to_host(got), expected, units, floor=4)

    for a, A in ((x, X), (np.asfortranarray(x[:, ::2]), X[:, ::2])):
        for axis in (0, 1, -1):
            check(xp.softmax(A, axis), twins.softmax(a, axis))
            check(xp.log_softmax(A, axis), twins.log_softmax(a, axis))
            check(xp.logsumexp(A, axis), twins.logsumexp(a, axis))
            check(xp.logsumexp(A, axis, keepdims=True), twins.logsumexp(a, axis, keepdims=True))
    check(xp.logsumexp(X[6:]), twins.logsumexp(x[6:]))
    check(xp.logsumexp(X[6:], (0, 1), True), twins.logsumexp(x[6:], (0, 1), True))
    check(xp.logsumexp(X[:0], 0), twins.logsumexp(x[:0], 0))
    check(xp.softmax(X[:0], 1), twins.softmax(x[:0], 1))
    for a, A in ((x, X), (x.T[:8], X.T[:8])):
        b, B = labels % a.shape[1], L % a.shape[1]
        sums, Sums = twins.exp_sums(a), xp.exp_sums(A)
        assert backend.to_host(Sums).dtype == sums.dtype
        assert Sums.shape == sums.shape == (8, 2)
        check(xp.cross_entropy(A, B, Sums), twins.cross_entropy(a, b, sums))
        expected = twins.cross_entropy_grad(g, a, b, sums)
        check(xp.cross_entropy_grad(G, A, B, Sums), expected)
    with pytest.raises(ValueError, match="axis"):
        xp.softmax(X, 2)


@each_state
def test_kernels_of_optimizers_agree_with_twins(on_gpu, dtype, state):
    backend, put = on_gpu
    units = units_of(dtype)
    arrays = problem(dtype, state)
    on_device = [put(a) for a in arrays]

    def check(step, *order, settings):
        settings_there = [put(s) if isinstance(s, np.ndarray) else s for s in settings]
        getattr(twins, step)(*(arrays[i] if i is not None else None for i in order), *settings)
        before = launches()
        getattr(backend.xp, step)(
            *(on_device[i] if i is not None else None for i in order), *settings_there
        )
        assert before is None or launches() == before + 1
        for got, expected in zip(on_device, arrays, strict=True):
            assert_close(backend.to_host(got), expected, units, floor=1)

    check("sgd_step", 0, None, 3, settings=(RATE, 0.0))
    check("adam_step", 0, 2, 1, 3, settings=(RATE, 0.9, 0.999, 1e-8, powers(1)))
    check("adam_step", 0, 2, 1, 3, settings=(RATE, 0.9, 0.999, 1e-8, powers(2)))
    check("sgd_step", 0, 1, 3, settings=(RATE, 0.9))


@pytest.mark.parametrize("narrow", [True, False])
@each_window
@pytest.mark.parametrize("dtype", [*DTYPES, np.dtype("complex64"), np.dtype("int16")], ids=str)
def test_kernels_of_patches_agree_with_twins(on_gpu, window, dtype, narrow, monkeypatch):
    backend, put = on_gpu
    if not narrow:  # as for arrays that are too large to be tested
        monkeypatch.setattr("gpugrad.cuda.kernels._NARROW", 0)
    x, p = images(window, dtype)
    shape, size, *options = window
    for a in (x, np.asfortranarray(x)):
        got = backend.to_host(backend.xp.patches(put(a), size, *options))
        np.testing.assert_array_equal(got, twins.patches(x, size, *options))
        assert got.dtype == dtype
    if dtype.kind != "i":
        for b in (p, np.asfortranarray(p)):
            got = backend.to_host(backend.xp.patch_sums(put(b), shape[2:], *options))
            expected = twins.patch_sums(p, shape[2:], *options)
            if dtype.kind == "c":
                np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)
            else:
                assert_close(got, expected, units_of(dtype), floor=1)


INDICES = {
    "one array": np.array([0, 0, 2, 0, -1]),
    "two arrays": (np.array([0, 0, 2]), np.array([1, 1, -1])),
    "behind a slice": (slice(None), np.array([1, 1])),
    "of two axes": (None, ..., np.array([[1, 1], [0, 1]])),
    "beside a number": (1, np.array([3, 3, 3])),
    "beside a NumPy number": (np.int64(1), np.array([0, 0], np.uint8)),
    "around a slice": (np.array([1, 1]), slice(None, None, -1), np.array(0)),
    "beside a mask": (np.array([2, 2, 2]), np.array([True, False, True, True])),
    "without axes": (np.array(1),),
    "empty": np.array([], int),
    "many": np.arange(300) % 3,
}


FULL, ELEMENTS = np.dtype("float64"), [np.dtype(c) for c in ("F", "D", "?", "b", "H", "q")]


@pytest.mark.parametrize(
    ("index", "dtype"),
    [(i, FULL) for i in INDICES] + [("many", d) for d in [*DTYPES[:-1], *ELEMENTS]],
    ids=str,
)
def test_adding_and_writing_in_order_agree_with_numpy(on_gpu, index, dtype):
    backend, put = on_gpu
    shape = (3, 4, 2) if index == "around a slice" else (3, 4)
    index = INDICES[index]
    items = index if isinstance(index, tuple) else (index,)
    rng = np.random.default_rng(0)
    x = (rng.standard_normal(shape) * 9).astype(dtype)
    values = (rng.standard_normal(x[index].shape) * 9).astype(dtype)
    if dtype.kind == "c":
        x, values = x * dtype.type(1 + 2j), values * dtype.type(2 - 1j)
    key = tuple(put(i) if isinstance(i, np.ndarray) else i for i in items)
    for value in (values, dtype.type(2)):
        for strided in (False, True) if dtype == FULL else (False,):
            a, b = x.copy(), x.copy()
            A, B = (put(v.T.copy()).T if strided else put(v) for v in (a, b))
            V = put(value) if value.ndim else 2
            with gg.deterministic():
                backend.xp.add_at(A, key, V)
                backend.xp.setitem(B, key, V)
            wide = a.astype(np.float32) if dtype in HALVES else a
            np.add.at(wide, index, value)
            b[index] = value
            np.testing.assert_array_equal(backend.to_host(B), b)
            if values.size <= 64 or dtype.kind in "biu":
                np.testing.assert_array_equal(backend.to_host(A), wide.astype(dtype))
            else:
                got = backend.to_host(A).astype(complex)
                error = np.abs(got - wide.astype(complex)).max()
                eps = limits(np.dtype(dtype.char.lower()) if dtype.kind == "c" else dtype)[0]
                assert error <= 4 * eps * np.abs(wide.astype(complex)).max() + 300 * eps


@pytest.mark.parametrize("mode", ["full", "valid"])
@pytest.mark.parametrize("dtype", ["?", "h", "q", "e", "f", "d", "F"])
def test_kernel_of_convolution_agrees_with_numpy(on_gpu, mode, dtype):
    backend, put = on_gpu
    rng = np.random.default_rng(0)
    for m, n in [(5, 3), (2, 6), (1, 1), (4, 4)]:
        a, b = ((rng.standard_normal(k) * 9).astype(dtype) for k in (m, n))
        got = backend.to_host(backend.xp.convolve(put(a), put(b)[::-1], mode))
        expected = np.convolve(a, b[::-1], mode)
        assert got.dtype == expected.dtype
        if got.dtype.kind in "bi":
            np.testing.assert_array_equal(got, expected)
        else:
            np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1 if dtype == "e" else 1e-3)
    with pytest.raises(TypeError, match="move one"):
        backend.xp.convolve(put(a), b, mode)


def test_one_launch_per_kernel(on_gpu):
    backend, put = on_gpu
    if launches() is None:
        pytest.skip("launches are counted on the emulated device only")
    xp = backend.xp
    x = put(np.ones((4, 3), np.float32))
    labels, sums = put(np.zeros(4, int)), xp.exp_sums(x)
    expected = {
        lambda: xp.sigmoid(x): 1,
        lambda: xp.sigmoid_grad(x, x): 1,
        lambda: xp.logsumexp(x, 1): 1,
        lambda: xp.softmax(x, 1): 2,
        lambda: xp.exp_sums(x): 1,
        lambda: xp.cross_entropy(x, labels, sums): 1,
        lambda: xp.cross_entropy_grad(x[:, 0], x, labels, sums): 1,
        lambda: xp.patches(x[None, None], (2, 2), (1, 1), (0, 0), (1, 1)): 1,
        lambda: xp.convolve(x[0], x[1], "full"): 1,
    }
    for call, count in expected.items():
        before = launches()
        call()
        assert launches() - before == count


@pytest.mark.parametrize(("m", "levels"), [(3, 1), (64, 1), (65, 2), (4096, 2), (4097, 3)])
def test_launches_of_adding_in_order(on_gpu, m, levels):
    """Index and sort, of two launches, then one per level, from the second on with a range."""
    backend, put = on_gpu
    if launches() is None:
        pytest.skip("launches are counted on the emulated device only")
    x, index, values = put(np.zeros((3, 2))), put(np.arange(m) % 3), put(np.ones((m, 2)))
    before = launches()
    with gg.deterministic():
        backend.xp.add_at(x, (index,), values)
    assert launches() - before == 3 + levels + (levels - 1)
    assert backend.to_host(x).sum() == 2 * m
    before = launches()
    with gg.deterministic():
        backend.xp.setitem(x, (index,), values)
    assert launches() - before == 6
