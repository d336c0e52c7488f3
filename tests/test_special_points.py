"""Derivatives where a function has a kink, a pole, a tie, or numbers at the end of the range.

The limit where there is one, else the subgradient of smallest norm; ties share evenly.
"""

import math
import warnings

import numpy as np
import pytest
from helpers import array, host

import gpugrad as gg

inf, nan = math.inf, math.nan
MASK = np.array([True, False])
EYE = [[1, 0], [0, 1]]
norm = gg.linalg.vector_norm


def rising():
    return array([1.0, 2.0, 3.0])


def polygon():
    """The knots of a function with slopes 1 and 2."""
    return array([0.0, 1.0, 3.0]), array([0.0, 1.0, 5.0])


# case, function, its arguments, the gradients of the sum of its result (None: not looked at)
POINTS = [
    # ---- order
    ("max of a tie", gg.max, [[1, 2, 2]], [[0, 0.5, 0.5]]),
    ("max of a tie, axis", lambda x: gg.max(x, axis=0), [[1, 2, 2]], [[0, 0.5, 0.5]]),
    ("max of two rows", lambda x: gg.max(x, axis=1), [[[1, 1], [0, 1]]], [[[0.5, 0.5], [0, 1]]]),
    ("max with nan", gg.max, [[nan, 1]], [[1, 0]]),
    ("min of a tie", gg.min, [[1, 1, 2]], [[0.5, 0.5, 0]]),
    ("min with nan", gg.min, [[1, nan]], [[0, 1]]),
    ("maximum of a tie", gg.maximum, [1, 1], [0.5, 0.5]),
    ("maximum(nan, 1)", gg.maximum, [nan, 1], [1, 0]),
    ("maximum(1, nan)", gg.maximum, [1, nan], [0, 1]),
    ("minimum of a tie", gg.minimum, [1, 1], [0.5, 0.5]),
    ("minimum(nan, 1)", gg.minimum, [nan, 1], [1, 0]),
    ("clip(0, 0, 1)", lambda x: gg.clip(x, 0, 1), [0], [1]),
    ("clip(x, x, high)", gg.clip, [0, 0, 1], [1, 0, 0]),
    ("clip(x, low, x)", gg.clip, [1, 0, 1], [1, 0, 0]),
    ("clip below", gg.clip, [-1, 0, 1], [0, 1, 0]),
    ("clip, low > high", gg.clip, [0.5, 2, 1], [0, 0, 1]),
    ("abs(0)", gg.abs, [0], [0]),
    ("abs(0+0j)", gg.abs, [0j], [0]),
    ("sign(0)", gg.sign, [0], [0]),
    ("relu(0)", gg.relu, [0], [0]),
    ("round(2.5)", gg.round, [2.5], [0]),
    ("copysign(2, -1)", gg.copysign, [2, -1], [-1, 0]),
    ("copysign(0, -1)", gg.copysign, [0, -1], [0, 0]),
    ("nextafter(1, 2)", gg.nextafter, [1, 2], [1, 0]),
    ("remainder(5, 3)", gg.remainder, [5, 3], [1, -1]),
    ("floor_divide(5, 3)", gg.floor_divide, [5, 3], [0, 0]),
    ("floor_divide(-1, inf)", gg.floor_divide, [-1, inf], [0, 0]),
    ("sort of a tie", lambda x: gg.sort(x) * rising(), [[2, 1, 2]], [[2, 1, 3]]),
    ("sort down", lambda x: gg.sort(x, descending=True) * rising(), [[2, 1, 2]], [[1, 3, 2]]),
    ("unique values", gg.unique_values, [[2, 1]], [[1, 1]]),
    ("unique values of a tie", gg.unique_values, [[1, 1]], [[1, 0]]),
    # ---- poles and corners
    ("sqrt(0)", gg.sqrt, [0], [inf]),
    ("sqrt of a sum of squares", lambda x: gg.sqrt(gg.sum(x * x)), [[0, 0]], [[nan, nan]]),
    ("reciprocal(0)", gg.reciprocal, [0], [-inf]),
    ("acos(1)", gg.acos, [1], [-inf]),
    ("acosh(1)", gg.acosh, [1], [inf]),
    ("log1p(-1)", gg.log1p, [-1], [inf]),
    ("expm1(800)", gg.expm1, [800], [inf]),
    ("tan(pi/2)", gg.tan, [math.pi / 2], [math.tan(math.pi / 2) ** 2]),
    ("hypot(0, 0)", gg.hypot, [0, 0], [0, 0]),
    ("atan2(0, 0)", gg.atan2, [0, 0], [0, 0]),
    ("where(True, x, 1 / x)", lambda x: gg.where(x == 0, x, 1 / x), [0], [nan]),
    ("where(True, 0, log(x))", lambda x: gg.where(x == 0, 0, gg.log(x)), [0], [nan]),
    # ---- powers
    ("0 ** 2", gg.pow, [0, 2], [0, 0]),
    ("0 ** 0", gg.pow, [0, 0], [0, 0]),
    ("0 ** 1", gg.pow, [0, 1], [1, 0]),
    ("0 ** 0.5", gg.pow, [0, 0.5], [inf, 0]),
    ("-2 ** 3", gg.pow, [-2, 3], [12, nan]),
    ("-2 ** 3, constant exponent", lambda x: x**3, [-2], [12]),
    ("0 ** 2, constant exponent", lambda x: x**2, [0], [0]),
    ("0 ** 1, constant exponent", lambda x: x**1, [0], [1]),
    ("0 ** 0, constant exponent", lambda x: x**0, [0], [0]),
    ("0.0 ** 0.0, constant exponent", lambda x: x**0.0, [0], [0]),
    ("0 ** 2, constant base", lambda x: 0**x, [2], [0]),
    ("2 ** 3, constant base", lambda x: 2**x, [3], [8 * math.log(2)]),
    # ---- reductions
    ("prod, one zero", gg.prod, [[0, 2, 3]], [[6, 0, 0]]),
    ("prod, two zeros", gg.prod, [[0, 0, 3]], [[0, 0, 0]]),
    ("cumulative_prod, zero", gg.cumulative_prod, [[2, 0, 3]], [[1, 8, 0]]),
    ("std of a constant", gg.std, [[1, 1, 1]], [[0, 0, 0]]),
    ("var of one, correction=1", lambda x: gg.var(x, correction=1), [[1]], [[nan]]),
    ("mean of none", gg.mean, [[]], [[]]),
    ("sum of none", gg.sum, [[]], [[]]),
    ("logaddexp(-inf, -inf)", gg.logaddexp, [-inf, -inf], [0.5, 0.5]),
    ("logaddexp(inf, 1)", gg.logaddexp, [inf, 1], [1, 0]),
    ("logaddexp(-inf, 1)", gg.logaddexp, [-inf, 1], [0, 1]),
    ("logsumexp with -inf", gg.logsumexp, [[-inf, 0, 0]], [[0, 0.5, 0.5]]),
    ("logsumexp, large", gg.logsumexp, [[1e4, 1e4, -1e4]], [[0.5, 0.5, 0]]),
    # ---- indexing and shapes
    ("x[[0, 0, 2]]", lambda x: x[[0, 0, 2]], [[1, 2, 3]], [[2, 0, 1]]),
    ("x[mask]", lambda x: x[array(MASK)], [[1, 2]], [[1, 0]]),
    ("take", lambda x: gg.take(x, array([0, 0, 2])), [[1, 2, 3]], [[2, 0, 1]]),
    (
        "take_along_axis",
        lambda x: gg.take_along_axis(x, array([0, 0, 2])),
        [[1, 2, 3]],
        [[2, 0, 1]],
    ),
    ("repeat", lambda x: gg.repeat(x, [1, 0, 2]), [[1, 2, 3]], [[1, 0, 2]]),
    ("repeat by an array", lambda x: gg.repeat(x, array([1, 0, 2])), [[1, 2, 3]], [[1, 0, 2]]),
    ("linspace", lambda a, b: gg.linspace(a, b, 3), [0, 1], [1.5, 1.5]),
    ("by way of integers", lambda x: x.astype("int64").astype("float64"), [1.5], [0]),
    # ---- norms and products
    ("vector_norm at 0", norm, [[0, 0]], [[0, 0]]),
    ("vector_norm at 0+0j", norm, [0j], [0]),
    ("vector_norm at 0, ord=1", lambda x: norm(x, ord=1), [[0, 0]], [[0, 0]]),
    ("vector_norm at 0, ord=3", lambda x: norm(x, ord=3), [[0, 0]], [[0, 0]]),
    ("vector_norm at 0, ord=inf", lambda x: norm(x, ord=inf), [[0, 0]], [[0, 0]]),
    ("vector_norm, tie of ord=inf", lambda x: norm(x, ord=inf), [[1, -1]], [[0.5, -0.5]]),
    ("vector_norm, tie of ord=-inf", lambda x: norm(x, ord=-inf), [[1, -1]], [[0.5, -0.5]]),
    ("vector_norm, ord=0", lambda x: norm(x, ord=0), [[0, 2]], [[0, 0]]),
    ("vector_norm, ord=3, a zero", lambda x: norm(x, ord=3), [[0, 1]], [[0, 1]]),
    ("vector_norm, ord=0.5, a zero", lambda x: norm(x, ord=0.5), [[0, 1]], [[inf, 1]]),
    ("vector_norm, ord=-1, a zero", lambda x: norm(x, ord=-1), [[0, 1]], [[0, 0]]),
    ("vector_norm, large", lambda x: norm(x, ord=4), [[2.0**200, 0]], [[1, 0]]),
    ("matrix_norm at 0", gg.linalg.matrix_norm, [[[0, 0], [0, 0]]], [[[0, 0], [0, 0]]]),
    (
        "matrix_norm, tie of ord=1",
        lambda x: gg.linalg.matrix_norm(x, ord=1),
        [EYE],
        [[[0.5, 0], [0, 0.5]]],
    ),
    ("matrix_power(x, 0)", lambda x: gg.linalg.matrix_power(x, 0), [EYE], [[[0, 0], [0, 0]]]),
    ("cross", gg.linalg.cross, [[1, 2, 3], [3, 4, 5]], [[-1, 2, -1], [1, -2, 1]]),
    ("pad, reflected", lambda x: gg.pad(x, 2, "reflect"), [[1, 2, 3]], [[2, 3, 2]]),
    # ---- order statistics, interpolation, pooling
    ("median of a tie", gg.median, [[1, 2, 2]], [[0, 0.5, 0.5]]),
    ("median of an even number", gg.median, [[4, 1, 3, 2]], [[0, 0, 0.5, 0.5]]),
    ("median with nan", gg.median, [[1, nan, 2]], [[0, 1, 0]]),
    ("quantile 1 of a tie", lambda x: gg.quantile(x, 1), [[1, 2, 2]], [[0, 0.5, 0.5]]),
    ("quantile", lambda x: gg.quantile(x, 0.25), [[1, 0, 4]], [[0.5, 0.5, 0]]),
    ("nanmax of a tie", gg.nanmax, [[nan, 1, 1]], [[0, 0.5, 0.5]]),
    ("nansum", gg.nansum, [[nan, 1]], [[0, 1]]),
    ("interp at the first knot", lambda x: gg.interp(x, *polygon()), [0], [1]),
    ("interp at a knot", lambda x: gg.interp(x, *polygon()), [1], [2]),
    ("interp at the last knot", lambda x: gg.interp(x, *polygon()), [3], [2]),
    ("interp beyond", lambda x: gg.interp(x, *polygon()), [4], [0]),
    (
        "max_pool2d of a tie",
        lambda x: gg.nn.max_pool2d(x, 2),
        [[[[[1, 2], [2, 0]]]]],
        [[[[[0, 0.5], [0.5, 0]]]]],
    ),
    # ---- complex numbers: steepest ascent
    ("Re z", gg.real, [1 + 2j], [1]),
    ("Re conj z", lambda z: gg.real(gg.conj(z)), [1 + 2j], [1]),
    ("Re -iz", lambda z: gg.real(-1j * z), [1 + 2j], [1j]),
    ("Im z", gg.imag, [1 + 2j], [1j]),
    ("abs(z)**2", lambda z: gg.abs(z) ** 2, [1 + 2j], [2 + 4j]),
    ("Re z**2", lambda z: gg.real(z**2), [1 + 2j], [2 - 4j]),
    # ---- the ends of the range
    ("atan, large", gg.atan, [1e200], [0]),
    ("asinh, large", gg.asinh, [1e200], [1e-200]),
    ("atan2, large", gg.atan2, [1e200, 1e200], [0.5e-200, -0.5e-200]),
    ("atan2, small", gg.atan2, [1e-200, 1e-200], [0.5e200, -0.5e200]),
    ("hypot, large", gg.hypot, [3e200, 4e200], [0.6, 0.8]),
    ("hypot, small", gg.hypot, [3e-200, 4e-200], [0.6, 0.8]),
    ("acosh, large", gg.acosh, [1e200], [1e-200]),
    ("acos, near 1", gg.acos, [1 - 2**-53], [-(2.0**26)]),
    ("tanh, tail", gg.tanh, [300], [4 * math.exp(-600)]),
    ("sigmoid, tails", gg.sigmoid, [[-700, 700]], [[math.exp(-700), math.exp(-700)]]),
    ("log_sigmoid, tails", gg.log_sigmoid, [[-1e4, 1e4, 700]], [[1, 0, math.exp(-700)]]),
    ("softplus, tails", gg.softplus, [[-700, 1e4]], [[math.exp(-700), 1]]),
    ("softmax, large", lambda x: gg.softmax(x)[0], [[1e4, 0, -1e4]], [[0, 0, 0]]),
    ("log_softmax, large", lambda x: gg.log_softmax(x)[2], [[1e4, 0, -1e4]], [[-1, 0, 1]]),
    ("cross_entropy", lambda x: gg.cross_entropy(x, array([1])), [[[1e4, 0]]], [[[1, -1]]]),
]

linalg = gg.linalg
ZEROS = [[0, 0], [0, 0]]
SMALL = [[2, 0.5], [0.5, 1]]
LOWEST = [[0.5 - 8**-0.5, -(8**-0.5)], [-(8**-0.5), 0.5 + 8**-0.5]]
CORNER = 0.875**-0.5 / 2  # of the Cholesky factor
BESIDE = 8**-0.5 - CORNER / 4
FACTOR = [[8**-0.5 * (1 - 0.25) + CORNER / 16, BESIDE], [BESIDE, CORNER]]
TALL = [[1, 2], [3, 4], [5, 7]]
# from PyTorch 2.13
TALL_R = [
    [-1.057707255758, 1.117714148996],
    [0.916005255072, 0.190864786820],
    [0.845154254729, 0.845154254729],
]
WIDE_R = [
    [2.023857702508, 1.264911064067, -0.632455532034],
    [0.379473319220, 0.632455532034, 1.264911064067],
]
ABS_OF_V = [[0.055299331019, 0.064072155377], [0.031017671108, -0.055299331019]]


def weighted(values):
    return values * array([1.0, 2.0])


def projector(v):
    return v @ v.mT


def polar(x):
    u, _, vh = linalg.svd(x)
    return u @ vh


# the same for what needs a decomposition, on a GPU one of cuSOLVER's
DECOMPOSED = [
    ("det, singular", linalg.det, [[[1, 2], [2, 4]]], [[[4, -2], [-2, 1]]]),
    ("det of zeros", linalg.det, [np.zeros((3, 3))], [np.zeros((3, 3))]),
    ("det of a zero", linalg.det, [[[0]]], [[[1]]]),
    ("det of nothing", linalg.det, [np.zeros((0, 0))], [np.zeros((0, 0))]),
    ("det, rank n - 1", linalg.det, [np.diag([1.0, 1, 0])], [np.diag([0, 0, 1])]),
    ("det, rank n - 2", linalg.det, [np.diag([1.0, 0, 0])], [np.zeros((3, 3))]),
    (
        "det, stack of ranks",
        linalg.det,
        [[[[1, 2], [3, 5]], [[1, 2], [2, 4]], ZEROS]],
        [[[[5, -3], [-2, 1]], [[4, -2], [-2, 1]], ZEROS]],
    ),
    (
        "slogdet, singular",
        lambda x: linalg.slogdet(x).logabsdet,
        [[[1, 2], [2, 4]]],
        [[[inf, -inf], [-inf, inf]]],
    ),
    (
        "slogdet, a singular one in a stack",
        lambda x: linalg.slogdet(x).logabsdet,
        [[[[1, 2], [2, 4]], [[2, 0], [0, 4]]]],
        [[[[inf, -inf], [-inf, inf]], [[0.5, 0], [0, 0.25]]]],
    ),
    ("eigvalsh of eye", lambda x: weighted(linalg.eigvalsh(x)), [EYE], [[[1, 0], [0, 2]]]),
    ("eigvalsh, layout", lambda x: linalg.eigvalsh(x)[0], [SMALL], [LOWEST]),
    ("eigh of eye, projector", lambda x: projector(linalg.eigh(x)[1]), [EYE], [ZEROS]),
    ("svdvals of eye", lambda x: weighted(linalg.svdvals(x)), [EYE], [[[1, 0], [0, 2]]]),
    ("svdvals, rank 1", linalg.svdvals, [[[1, 0], [0, 0]]], [EYE]),
    ("svd of eye, polar", lambda x: polar(x)[0, 1], [EYE], [[[0, 0.5], [-0.5, 0]]]),
    ("svd of zeros", lambda x: projector(linalg.svd(x).U), [ZEROS], [ZEROS]),
    ("matrix_norm nuc of eye", lambda x: linalg.matrix_norm(x, ord="nuc"), [EYE], [EYE]),
    ("matrix_norm nuc at 0", lambda x: linalg.matrix_norm(x, ord="nuc"), [ZEROS], [EYE]),
    (
        "matrix_norm 2, tie",
        lambda x: linalg.matrix_norm(x, ord=2),
        [EYE],
        [[[0.5, 0], [0, 0.5]]],
    ),
    ("cholesky, layout", linalg.cholesky, [SMALL], [FACTOR]),
    ("qr, wide 1x2: R", lambda x: linalg.qr(x).R, [[[2, 3]]], [[[1, 1]]]),
    ("qr, tall 3x2: R", lambda x: gg.abs(linalg.qr(x).R), [TALL], [TALL_R]),
    ("qr, wide 2x3: R", lambda x: gg.abs(linalg.qr(x).R), [[[1, 2, 1], [3, 1, 7]]], [WIDE_R]),
    ("pinv, rank-deficient", linalg.pinv, [[[1, 0], [0, 0]]], [[[-1, 1], [1, 0]]]),
    ("pinv of zeros", linalg.pinv, [ZEROS], [ZEROS]),
    (
        "matrix_power(x, -1)",
        lambda x: linalg.matrix_power(x, -1),
        [[[2, 0], [0, 2]]],
        [[[-0.25, -0.25], [-0.25, -0.25]]],
    ),
    ("eigvals", lambda x: gg.real(linalg.eigvals(x)), [[[1, 2], [3, 4]]], [EYE]),
    ("eig, abs of vectors", lambda x: gg.abs(linalg.eig(x)[1]), [[[1, 2], [3, 5]]], [ABS_OF_V]),
    ("eig of a defective one", lambda x: gg.real(linalg.eig(x)[0]), [[[1, 1], [0, 1]]], [EYE]),
]

ROOT_7 = math.sqrt(7)

TRANSFORMS = [
    (
        "abs(fft), real",
        lambda x: gg.abs(gg.fft.fft(x)),
        [[1, 2, 4]],
        [[1 - 4 / ROOT_7, 1 - 1 / ROOT_7, 1 + 5 / ROOT_7]],
    ),
    (
        "abs(ihfft)",
        lambda x: gg.abs(gg.fft.ihfft(x)) * 3,
        [[1, 2, 4]],
        [[1 - 2 / ROOT_7, 1 - 0.5 / ROOT_7, 1 + 2.5 / ROOT_7]],
    ),
    ("abs(irfft), odd", lambda x: gg.abs(gg.fft.irfft(x, n=3)), [[2, 1j]], [[1, 0]]),
    (
        "irfft, even",
        lambda x: gg.fft.irfft(x, n=4) * array([0.0, 1.0, 2.0, 3.0]),
        [[1, 2, 3]],
        [[1.5, -1, -0.5]],
    ),
    (
        "irfft, imaginary parts that do not count",
        lambda x: gg.fft.irfft(x, n=4) * array([0.0, 1.0, 2.0, 3.0]),
        [[1j, 2j, 3j]],
        [[1.5, -1 + 1j, -0.5]],
    ),
    ("hfft", gg.fft.hfft, [[1, 2j, 3]], [[4, 0, 0]]),
]


@pytest.mark.parametrize(("case", "f", "args", "expected"), POINTS, ids=[row[0] for row in POINTS])
def test_gradient_at_special_point(case, f, args, expected, device):
    """A finite derivative comes without a floating-point warning, unless the value has one."""
    check_gradient(f, args, expected, 1e-14)


@pytest.mark.parametrize("needs", ["cuSOLVER"])
@pytest.mark.parametrize(
    ("case", "f", "args", "expected"), DECOMPOSED, ids=[row[0] for row in DECOMPOSED]
)
def test_gradient_at_special_point_of_decomposition(case, f, args, expected, needs, device):
    check_gradient(f, args, expected, 1e-9)


@pytest.mark.parametrize("needs", ["cuFFT"])
@pytest.mark.parametrize(
    ("case", "f", "args", "expected"), TRANSFORMS, ids=[row[0] for row in TRANSFORMS]
)
def test_gradient_at_special_point_of_transform(case, f, args, expected, needs, device):
    check_gradient(f, args, expected, 1e-12)


def check_gradient(f, args, expected, rtol):
    args = [array(x, "complex128" if np.iscomplexobj(x) else "float64") for x in args]
    with warnings.catch_warnings(record=True) as caught, np.errstate(all="warn"):
        warnings.simplefilter("always")
        f(*map(gg.asarray, args))
    finite = all(np.isfinite(x).all() for x in expected)
    with warnings.catch_warnings():
        if caught or not finite:
            warnings.simplefilter("ignore", RuntimeWarning)
        got = gg.grad(lambda *xs: gg.sum(f(*xs)), argnums=range(len(args)))(*args)
    for x, wanted in zip(got, expected, strict=True):
        np.testing.assert_allclose(host(x), wanted, rtol=rtol, atol=rtol if rtol > 1e-14 else 0)


@pytest.mark.parametrize("name", "sigmoid softplus log_sigmoid silu gelu relu tanh".split())
def test_second_derivatives_of_activations_in_the_tails(name, device):
    f = getattr(gg, name)
    x = array([0.0, -0.0, 30.0, -30.0, 1e4, -1e4, 1e200, inf, -inf])
    slope = gg.grad(lambda x: gg.sum(gg.grad(lambda x: gg.sum(f(x)))(x)))(x)
    assert np.isfinite(host(slope)).all()
    np.testing.assert_array_equal(host(slope)[4:], 0)


@pytest.mark.parametrize("f", [gg.mean, gg.max, gg.min], ids=["mean", "max", "min"])
def test_more_halves_than_a_half_can_count(f, device):
    x = gg.asarray(array(np.ones(70_000, np.float16)), requires_grad=True)
    f(x).backward(array(np.float16(100)))
    np.testing.assert_allclose(host(x.grad), 100 / 70_000, rtol=1e-2)
