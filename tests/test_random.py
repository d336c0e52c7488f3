"""Random tensors: where they are, what they are, and that a seed repeats them."""

import inspect
import math

import numpy as np
import pytest
import scipy.stats
from helpers import array, host

import gpugrad as gg
from gpugrad.testing import check_grads

DRAWS = {
    "normal": lambda g: g.normal((3, 2)),
    "uniform": lambda g: g.uniform(-1, 2, (3, 2)),
    "integers": lambda g: g.integers(-5, 50, (3, 2)),
    "permutation": lambda g: g.permutation(20),
    "log_normal": lambda g: g.log_normal(0, 1, (3, 2)),
    "truncated_normal": lambda g: g.truncated_normal(-1, 2, (3, 2)),
    "student_t": lambda g: g.student_t(3, shape=(3, 2)),
    "multivariate_normal": lambda g: g.multivariate_normal([0.0, 1.0], [[1.0, 0], [0, 2]], 3),
    "exponential": lambda g: g.exponential(shape=(3, 2)),
    "laplace": lambda g: g.laplace(shape=(3, 2)),
    "gumbel": lambda g: g.gumbel(shape=(3, 2)),
    "logistic": lambda g: g.logistic(shape=(3, 2)),
    "cauchy": lambda g: g.cauchy(shape=(3, 2)),
    "weibull": lambda g: g.weibull(2, shape=(3, 2)),
    "rayleigh": lambda g: g.rayleigh(shape=(3, 2)),
    "gamma": lambda g: g.gamma(2, shape=(3, 2)),
    "beta": lambda g: g.beta(2, 3, (3, 2)),
    "dirichlet": lambda g: g.dirichlet([2.0, 3.0], 3),
    "bernoulli": lambda g: g.bernoulli(0.5, 40),
    "binomial": lambda g: g.binomial(100, 0.5, 40),
    "poisson": lambda g: g.poisson(100, 40),
    "categorical": lambda g: g.categorical([0.0, 0.0, 0.0], 40),
    "choice": lambda g: g.choice(50, 6, replace=False),
    "choice_by_weight": lambda g: g.choice(50, 6, p=[0.02] * 50),
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


# ---- distributions


# name, parameters, the same distribution of SciPy's
CONTINUOUS = [
    ("normal", {"loc": 1.5, "scale": 2.0}, scipy.stats.norm(1.5, 2)),
    ("log_normal", {"mean": 0.5, "sigma": 0.4}, scipy.stats.lognorm(0.4, scale=math.exp(0.5))),
    (
        "truncated_normal",
        {"low": -1.0, "high": 2.0, "loc": 0.5, "scale": 2.0},
        scipy.stats.truncnorm(-0.75, 0.75, 0.5, 2),
    ),
    (
        "truncated_normal",
        {"low": 6.0, "high": math.inf, "loc": 1.0, "scale": 0.5},
        scipy.stats.truncnorm(10, np.inf, 1, 0.5),
    ),
    (
        "truncated_normal",
        {"low": -math.inf, "high": 0.0, "loc": 0.0, "scale": 3.0},
        scipy.stats.truncnorm(-np.inf, 0, 0, 3),
    ),
    ("student_t", {"df": 3.0, "loc": 1.0, "scale": 2.0}, scipy.stats.t(3, 1, 2)),
    ("uniform", {"low": -1.0, "high": 3.0}, scipy.stats.uniform(-1, 4)),
    ("exponential", {"scale": 2.5}, scipy.stats.expon(scale=2.5)),
    ("laplace", {"loc": 1.0, "scale": 2.0}, scipy.stats.laplace(1, 2)),
    ("gumbel", {"loc": 1.0, "scale": 2.0}, scipy.stats.gumbel_r(1, 2)),
    ("logistic", {"loc": 1.0, "scale": 2.0}, scipy.stats.logistic(1, 2)),
    ("cauchy", {"loc": 1.0, "scale": 2.0}, scipy.stats.cauchy(1, 2)),
    ("weibull", {"a": 1.5, "scale": 2.0}, scipy.stats.weibull_min(1.5, scale=2)),
    ("rayleigh", {"scale": 2.0}, scipy.stats.rayleigh(scale=2)),
    ("gamma", {"a": 0.3, "scale": 2.0}, scipy.stats.gamma(0.3, scale=2)),
    ("gamma", {"a": 7.0, "scale": 0.5}, scipy.stats.gamma(7, scale=0.5)),
    ("beta", {"a": 0.4, "b": 2.5}, scipy.stats.beta(0.4, 2.5)),
]
each_continuous = pytest.mark.parametrize(
    ("name", "parameters", "law"), CONTINUOUS, ids=[name for name, *_ in CONTINUOUS]
)

DISCRETE = [
    ("bernoulli", {"p": 0.3}, scipy.stats.bernoulli(0.3)),
    ("binomial", {"n": 9, "p": 0.4}, scipy.stats.binom(9, 0.4)),
    ("binomial", {"n": 200, "p": 0.7}, scipy.stats.binom(200, 0.7)),
    ("poisson", {"lam": 2.5}, scipy.stats.poisson(2.5)),
    ("poisson", {"lam": 60.0}, scipy.stats.poisson(60)),
]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@each_continuous
def test_distribution_functions(name, parameters, law, dtype, device):
    """The Kolmogorov-Smirnov distance of n samples is above 2 / sqrt(n) once in 1,500 times."""
    n = 4000
    x = getattr(gg.random.Generator(1), name)(**parameters, shape=n, dtype=dtype)
    assert (x.shape, x.dtype) == ((n,), np.dtype(dtype))
    assert scipy.stats.kstest(host(x).astype(float), law.cdf).statistic < 2 / math.sqrt(n)


@pytest.mark.parametrize(("name", "parameters", "law"), DISCRETE, ids=[d[0] for d in DISCRETE])
def test_frequencies(name, parameters, law, device):
    n = 4000
    x = getattr(gg.random.Generator(1), name)(**parameters, shape=n)
    assert (x.shape, x.dtype) == ((n,), np.int64)
    x = host(x)
    assert abs(x.mean() - law.mean()) < 5 * law.std() / math.sqrt(n)
    assert abs(x.var() - law.var()) < 8 * law.var() / math.sqrt(n)
    for k in (int(law.median()), int(law.median()) + 1):
        assert abs((x <= k).mean() - law.cdf(k)) < 2.5 / math.sqrt(n)


OF_SCALES = [x for x in CONTINUOUS if x[0] != "beta"]


@pytest.mark.parametrize(
    ("name", "parameters", "law"), OF_SCALES, ids=[name for name, *_ in OF_SCALES]
)
def test_gradients_with_the_noise_held(name, parameters, law, device):
    """Against differences of samples from one seed; such samples jump with a shape, see below."""
    smooth = {k: v for k, v in parameters.items() if math.isfinite(v)}
    if name in ("gamma", "student_t"):
        smooth.pop("a" if name == "gamma" else "df")
    fixed = parameters.keys() - smooth.keys()

    def f(*values):
        given = dict(zip(smooth, values, strict=True)) | {k: parameters[k] for k in fixed}
        return getattr(gg.random.Generator(2), name)(**given, shape=(2, 3))

    columns = [array(np.full((2, 1), v)) for v in smooth.values()]
    check_grads(f, columns, order=2, tol=1e-5)
    for x in columns:
        assert f(*columns).dtype == x.dtype


@pytest.mark.parametrize("a", [0.05, 0.7, 3.0, 40.0])
def test_the_gradient_of_a_shape_is_that_of_the_quantile(a, device):
    def sample(a):
        return gg.random.Generator(3).gamma(a, shape=(20,))

    z, slope = (host(x) for x in gg.jvp(sample, [array(a)], [array(1.0)]))
    h, p, q = a * 1e-4, scipy.stats.gamma.cdf(z, a), scipy.stats.gamma.sf(z, a)

    def at(s):
        law = scipy.stats.gamma(a + s)
        return np.where(p < q, law.ppf(p), law.isf(q))

    expected = (8 * (at(h) - at(-h)) - (at(2 * h) - at(-2 * h))) / (12 * h)
    np.testing.assert_allclose(slope, expected, rtol=1e-5, atol=1e-200)


def test_gradients_of_expectations(device):
    """d mean / d parameter, over samples; the standard errors are below 0.01."""
    n = 20_000
    x = array(np.full(n, 2.0))
    for f, expected in [
        (lambda a: gg.random.Generator(4).beta(a, 3.0), 3 / 25),
        (lambda b: gg.random.Generator(4).beta(3.0, b), -3 / 25),
        (lambda a: gg.random.Generator(4).gamma(a, 0.5), 0.5),
        (lambda a: gg.log(gg.random.Generator(4).gamma(a)), math.pi**2 / 6 - 1),
        (lambda df: gg.random.Generator(4).student_t(df + 4) ** 2, -2 / 16),
    ]:
        found = host(gg.grad(lambda x, f=f: gg.mean(f(x)))(x)).sum()
        assert found == pytest.approx(expected, abs=0.04)

    def first(alpha):
        return gg.mean(gg.random.Generator(4).dirichlet(alpha, 8000)[:, 0])

    alpha = array([1.0, 2.0, 3.0])
    np.testing.assert_allclose(host(gg.grad(first)(alpha)), [5 / 36, -1 / 36, -1 / 36], atol=0.01)


def test_vectors(device):
    g = gg.random.Generator(5)
    mean, factor = array([1.0, -2.0]), array([[2.0, 0.0], [1.0, 0.5]])
    x = host(g.multivariate_normal(mean, factor, 8000))
    np.testing.assert_allclose(x.mean(0), [1, -2], atol=0.12)
    np.testing.assert_allclose(np.cov(x.T), [[4, 2], [2, 1.25]], atol=0.25)
    draw = lambda m, f: gg.random.Generator(6).multivariate_normal(m, f, (2, 3))  # noqa: E731
    check_grads(draw, [mean, factor])
    assert g.multivariate_normal(array(np.zeros((4, 1, 2))), factor).shape == (4, 1, 2)
    d = host(g.dirichlet(array([[0.01, 0.02, 0.01], [5.0, 3.0, 2.0]]), (4000, 2)))
    np.testing.assert_allclose(d.sum(-1), 1)
    np.testing.assert_allclose(d.mean(0), [[0.25, 0.5, 0.25], [0.5, 0.3, 0.2]], atol=0.04)


def test_classes(device):
    g = gg.random.Generator(7)
    p = np.array([[0.1, 0.6, 0.3], [0.0, 0.5, 0.5]])
    with np.errstate(divide="ignore"):
        logits = array(np.log(p))
    x = g.categorical(logits, (6000, 2))
    assert (x.shape, x.dtype) == ((6000, 2), np.int64)
    found = [np.bincount(column, minlength=3) / 6000 for column in host(x).T]
    np.testing.assert_allclose(found, p, atol=0.04)
    assert g.categorical(logits).shape == (2,)


def test_choice(device):
    g = gg.random.Generator(8)
    p = array([0.1, 0.0, 0.6, 0.3])
    for weights, expected in ((None, [0.25] * 4), (p, [0.1, 0, 0.6, 0.3])):
        found = np.bincount(host(g.choice(4, 6000, p=weights)), minlength=4) / 6000
        np.testing.assert_allclose(found, expected, atol=0.04)
    items = array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    assert set(host(g.choice(items, 30)[:, 0]).tolist()) == {1, 3, 5}
    assert sorted(host(g.choice(items, 3, replace=False)[:, 1]).tolist()) == [2, 4, 6]
    assert g.choice(items, (2, 5)).shape == (2, 5, 2)
    assert g.choice(4).shape == ()
    # the first of two without replacement has the weights, the second is never the first
    pairs = np.array([host(g.choice(4, 2, replace=False, p=p)) for _ in range(600)])
    assert (pairs[:, 0] != pairs[:, 1]).all()
    assert abs((pairs[:, 0] == 2).mean() - 0.6) < 0.1
    assert not (pairs == 1).any()
    chosen = gg.grad(lambda x: gg.sum(gg.random.Generator(8).choice(x, 4)))(items)
    assert host(chosen).sum() == 8


def test_parameters_broadcast_and_say_the_dtype(device):
    g = gg.random.Generator(9)
    column = gg.asarray(array(np.ones((3, 1), np.float32)), requires_grad=True)
    out = g.normal(loc=column, scale=array(np.ones(2, np.float32)))
    assert (out.shape, out.dtype, out.requires_grad) == ((3, 2), np.float32, True)
    assert g.normal((4, 3, 2), loc=column).shape == (4, 3, 2)
    assert g.gamma(column, shape=(3, 5)).requires_grad
    assert g.laplace(column, dtype="float16").dtype == np.float16
    assert g.exponential(array([1, 2])).dtype == np.float64
    assert g.poisson(column).shape == (3, 1)
    for out in (g.poisson(column), g.bernoulli(column), g.categorical(column)):
        assert not out.requires_grad
    out = g.gamma(column, dtype="float16")
    gg.sum(out).backward()
    assert (column.grad.dtype, column.grad.shape) == (np.float32, (3, 1))


def test_the_modules_functions_have_the_signatures_of_the_methods():
    for name, method in vars(gg.random.Generator).items():
        if not name.startswith("_"):
            parameters = list(inspect.signature(method).parameters)[1:]
            function = getattr(gg.random, name)
            assert list(inspect.signature(function).parameters) == [*parameters, "device"]
            assert function.__doc__.startswith(inspect.getdoc(method))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda g: g.normal(scale=-1.0), ValueError, "normal: scale=-1.0"),
        (lambda g: g.gamma(0), ValueError, "gamma: a=0"),
        (lambda g: g.gamma(math.nan), ValueError, "gamma: a=nan"),
        (lambda g: g.bernoulli(1.5), ValueError, "bernoulli: p=1.5"),
        (lambda g: g.binomial(-1, 0.5), ValueError, "binomial: n=-1"),
        (lambda g: g.poisson(-1), ValueError, "poisson: lam=-1"),
        (lambda g: g.truncated_normal(2, 1), ValueError, "low=2 is not below high=1"),
        (lambda g: g.normal((2,), loc=array([1.0, 2, 3])), ValueError, "normal: .*broadcast"),
        (lambda g: g.normal((1,), loc=array([1.0, 2])), ValueError, r"do not broadcast to \(1,\)"),
        (lambda g: g.normal((2, -3)), ValueError, r"normal: .*negative, got \(2, -3\)"),
        (lambda g: g.uniform(shape=1.5), TypeError, "uniform: a shape .*not 1.5"),
        (lambda g: g.integers(0, 2, (1, "a")), TypeError, "integers: a shape"),
        (lambda g: g.gamma(2.0, dtype="int32"), TypeError, "gamma: .*floating-point, not int32"),
        (lambda g: g.choice(3, 4, replace=False), ValueError, "4 of 3"),
        (lambda g: g.choice(0, 4), ValueError, "nothing to choose"),
        (lambda g: g.choice(3, 4, p=array([0.5, 0.5])), ValueError, r"\(3,\) is needed"),
        (lambda g: g.categorical(array(np.ones((2, 0)))), ValueError, "no classes"),
        (lambda g: g.dirichlet(2.0), ValueError, "axis of concentrations"),
        (
            lambda g: g.multivariate_normal(array([0.0]), array([[1.0, 0.0]])),
            ValueError,
            r"got \(1,\) and \(1, 2\)",
        ),
    ],
)
def test_parameters_out_of_range(call, error, message, device):
    with pytest.raises(error, match=message):
        call(gg.random)


def test_parameters_on_another_device(cuda):
    there = gg.asarray(1.0, device=cuda)
    for call in (lambda g: g.normal(loc=there), lambda g: g.poisson(there)):
        with pytest.raises(ValueError, match="device"):
            call(gg.random.Generator(0, "cpu"))


def test_a_generator_on_no_device():
    with pytest.raises(ValueError, match="unknown device"):
        gg.random.Generator(0, "gpu")
