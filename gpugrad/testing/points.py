"""What the gradient is where a function has a kink, a pole, a tie, or is at the end of the range.

The limit where there is one, else the subgradient of smallest norm; ties share evenly. What is
differentiated stands there as code, which the tests run and docs/coverage.md shows.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

import gpugrad as gg

inf, nan = math.inf, math.nan
EYE = [[1, 0], [0, 1]]
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
ROOT_7 = math.sqrt(7)


def array(values: Any) -> Any:
    """A raw array on the default device."""
    return gg.asarray(values, device=gg.default_device()).data


def projector(v: Any) -> Any:
    """On the space of the columns of `v`."""
    return v @ v.mT


def polar(x: Any) -> Any:
    """The polar factor."""
    u, _, vh = gg.linalg.svd(x)
    return u @ vh


_SCOPE: dict[str, Any] = vars(gg) | {
    "array": array,
    "polar": polar,
    "projector": projector,
    **{name: getattr(gg, name) for name in ("fft", "linalg", "nn", "special")},
}


@dataclass(frozen=True)
class Point:
    """A function and one argument of it.

    Attributes:
        name: the public function that it is about.
        text: what is differentiated, as code; its sum, if it has several elements.
        args: the arguments: x; a and b; or x, low and high.
        gradients: one per argument.
        rtol: to which they are met.
        needs: as that of a `Row`.
    """

    name: str
    text: str
    args: tuple[Any, ...]
    gradients: tuple[Any, ...]
    rtol: float
    needs: str

    def __str__(self) -> str:
        return f"{self.text} at {', '.join(map(shown, self.args))}"

    @property
    def names(self) -> list[str]:
        """Of the arguments."""
        return ["x", "a b", "x low high"][len(self.args) - 1].split()

    @property
    def function(self) -> Callable[..., Any]:
        """What `text` says."""
        return eval(f"lambda {', '.join(self.names)}: {self.text}", _SCOPE)


# rows of the table: name, text, arguments, gradients


def at(
    name: str, text: str, args: Any, gradients: Any, rtol: float = 1e-14, needs: str = ""
) -> Point:
    return Point(name, text, tuple(args), tuple(gradients), rtol, needs)


decomposed = partial(at, rtol=1e-9, needs="cuSOLVER")
transformed = partial(at, rtol=1e-12, needs="cuFFT")
special = partial(at, rtol=1e-13)


def shown(x: Any) -> str:
    """A number, or nested lists of them, to four digits; in full if that makes it a whole one."""
    x = x.tolist() if isinstance(x, np.ndarray) else x
    if isinstance(x, list):
        return f"[{', '.join(map(shown, x))}]"
    text = f"{x:.4g}"
    return str(x) if text.strip("-").isdigit() and complex(text) != x else text


POINTS = [
    # ---- order
    at("max", "max(x)", [[1, 2, 2]], [[0, 0.5, 0.5]]),
    at("max", "max(x, axis=0)", [[1, 2, 2]], [[0, 0.5, 0.5]]),
    at("max", "max(x, axis=1)", [[[1, 1], [0, 1]]], [[[0.5, 0.5], [0, 1]]]),
    at("max", "max(x)", [[nan, 1]], [[1, 0]]),
    at("min", "min(x)", [[1, 1, 2]], [[0.5, 0.5, 0]]),
    at("min", "min(x)", [[1, nan]], [[0, 1]]),
    at("maximum", "maximum(a, b)", [1, 1], [0.5, 0.5]),
    at("maximum", "maximum(a, b)", [nan, 1], [1, 0]),
    at("maximum", "maximum(a, b)", [1, nan], [0, 1]),
    at("minimum", "minimum(a, b)", [1, 1], [0.5, 0.5]),
    at("minimum", "minimum(a, b)", [nan, 1], [1, 0]),
    at("clip", "clip(x, 0, 1)", [0], [1]),
    at("clip", "clip(x, low, high)", [0, 0, 1], [1, 0, 0]),
    at("clip", "clip(x, low, high)", [1, 0, 1], [1, 0, 0]),
    at("clip", "clip(x, low, high)", [-1, 0, 1], [0, 1, 0]),
    at("clip", "clip(x, low, high)", [0.5, 2, 1], [0, 0, 1]),
    at("abs", "abs(x)", [0], [0]),
    at("abs", "abs(x)", [0j], [0]),
    at("sign", "sign(x)", [0], [0]),
    at("relu", "relu(x)", [0], [0]),
    at("round", "round(x)", [2.5], [0]),
    at("copysign", "copysign(a, b)", [2, -1], [-1, 0]),
    at("copysign", "copysign(a, b)", [0, -1], [0, 0]),
    at("nextafter", "nextafter(a, b)", [1, 2], [1, 0]),
    at("remainder", "remainder(a, b)", [5, 3], [1, -1]),
    at("floor_divide", "floor_divide(a, b)", [5, 3], [0, 0]),
    at("floor_divide", "floor_divide(a, b)", [-1, inf], [0, 0]),
    at("sort", "sort(x) * array([1.0, 2.0, 3.0])", [[2, 1, 2]], [[2, 1, 3]]),
    at("sort", "sort(x, descending=True) * array([1.0, 2.0, 3.0])", [[2, 1, 2]], [[1, 3, 2]]),
    at("unique_values", "unique_values(x)", [[2, 1]], [[1, 1]]),
    at("unique_values", "unique_values(x)", [[1, 1]], [[1, 0]]),
    # ---- poles and corners
    at("sqrt", "sqrt(x)", [0], [inf]),
    at("sqrt", "sqrt(sum(x * x))", [[0, 0]], [[nan, nan]]),
    at("reciprocal", "reciprocal(x)", [0], [-inf]),
    at("acos", "acos(x)", [1], [-inf]),
    at("acosh", "acosh(x)", [1], [inf]),
    at("log1p", "log1p(x)", [-1], [inf]),
    at("expm1", "expm1(x)", [800], [inf]),
    at("tan", "tan(x)", [math.pi / 2], [math.tan(math.pi / 2) ** 2]),
    at("hypot", "hypot(a, b)", [0, 0], [0, 0]),
    at("atan2", "atan2(a, b)", [0, 0], [0, 0]),
    at("where", "where(x == 0, x, 1 / x)", [0], [nan]),
    at("where", "where(x == 0, 0, log(x))", [0], [nan]),
    # ---- powers
    at("pow", "pow(a, b)", [0, 2], [0, 0]),
    at("pow", "pow(a, b)", [0, 0], [0, 0]),
    at("pow", "pow(a, b)", [0, 1], [1, 0]),
    at("pow", "pow(a, b)", [0, 0.5], [inf, 0]),
    at("pow", "pow(a, b)", [-2, 3], [12, nan]),
    at("pow", "x ** 3", [-2], [12]),
    at("pow", "x ** 2", [0], [0]),
    at("pow", "x ** 1", [0], [1]),
    at("pow", "x ** 0", [0], [0]),
    at("pow", "x ** 0.0", [0], [0]),
    at("pow", "0 ** x", [2], [0]),
    at("pow", "2 ** x", [3], [8 * math.log(2)]),
    # ---- reductions
    at("prod", "prod(x)", [[0, 2, 3]], [[6, 0, 0]]),
    at("prod", "prod(x)", [[0, 0, 3]], [[0, 0, 0]]),
    at("cumulative_prod", "cumulative_prod(x)", [[2, 0, 3]], [[1, 8, 0]]),
    at("std", "std(x)", [[1, 1, 1]], [[0, 0, 0]]),
    at("var", "var(x, correction=1)", [[1]], [[nan]]),
    at("mean", "mean(x)", [[]], [[]]),
    at("sum", "sum(x)", [[]], [[]]),
    at("logaddexp", "logaddexp(a, b)", [-inf, -inf], [0.5, 0.5]),
    at("logaddexp", "logaddexp(a, b)", [inf, 1], [1, 0]),
    at("logaddexp", "logaddexp(a, b)", [-inf, 1], [0, 1]),
    at("logsumexp", "logsumexp(x)", [[-inf, 0, 0]], [[0, 0.5, 0.5]]),
    at("logsumexp", "logsumexp(x)", [[1e4, 1e4, -1e4]], [[0.5, 0.5, 0]]),
    # ---- indexing and shapes
    at("x[key]", "x[[0, 0, 2]]", [[1, 2, 3]], [[2, 0, 1]]),
    at("x[key]", "x[array([True, False])]", [[1, 2]], [[1, 0]]),
    at("take", "take(x, array([0, 0, 2]))", [[1, 2, 3]], [[2, 0, 1]]),
    at("take_along_axis", "take_along_axis(x, array([0, 0, 2]))", [[1, 2, 3]], [[2, 0, 1]]),
    at("repeat", "repeat(x, [1, 0, 2])", [[1, 2, 3]], [[1, 0, 2]]),
    at("repeat", "repeat(x, array([1, 0, 2]))", [[1, 2, 3]], [[1, 0, 2]]),
    at("linspace", "linspace(a, b, 3)", [0, 1], [1.5, 1.5]),
    at("astype", 'x.astype("int64").astype("float64")', [1.5], [0]),
    # ---- norms and products
    at("linalg.vector_norm", "linalg.vector_norm(x)", [[0, 0]], [[0, 0]]),
    at("linalg.vector_norm", "linalg.vector_norm(x)", [0j], [0]),
    at("linalg.vector_norm", "linalg.vector_norm(x, ord=1)", [[0, 0]], [[0, 0]]),
    at("linalg.vector_norm", "linalg.vector_norm(x, ord=3)", [[0, 0]], [[0, 0]]),
    at("linalg.vector_norm", "linalg.vector_norm(x, ord=inf)", [[0, 0]], [[0, 0]]),
    at("linalg.vector_norm", "linalg.vector_norm(x, ord=inf)", [[1, -1]], [[0.5, -0.5]]),
    at("linalg.vector_norm", "linalg.vector_norm(x, ord=-inf)", [[1, -1]], [[0.5, -0.5]]),
    at("linalg.vector_norm", "linalg.vector_norm(x, ord=0)", [[0, 2]], [[0, 0]]),
    at("linalg.vector_norm", "linalg.vector_norm(x, ord=3)", [[0, 1]], [[0, 1]]),
    at("linalg.vector_norm", "linalg.vector_norm(x, ord=0.5)", [[0, 1]], [[inf, 1]]),
    at("linalg.vector_norm", "linalg.vector_norm(x, ord=-1)", [[0, 1]], [[0, 0]]),
    at("linalg.vector_norm", "linalg.vector_norm(x, ord=4)", [[2.0**200, 0]], [[1, 0]]),
    at("linalg.matrix_norm", "linalg.matrix_norm(x)", [[[0, 0], [0, 0]]], [[[0, 0], [0, 0]]]),
    at("linalg.matrix_norm", "linalg.matrix_norm(x, ord=1)", [EYE], [[[0.5, 0], [0, 0.5]]]),
    at("linalg.matrix_power", "linalg.matrix_power(x, 0)", [EYE], [[[0, 0], [0, 0]]]),
    at("linalg.cross", "linalg.cross(a, b)", [[1, 2, 3], [3, 4, 5]], [[-1, 2, -1], [1, -2, 1]]),
    at("pad", 'pad(x, 2, "reflect")', [[1, 2, 3]], [[2, 3, 2]]),
    # ---- order statistics, interpolation, pooling
    at("median", "median(x)", [[1, 2, 2]], [[0, 0.5, 0.5]]),
    at("median", "median(x)", [[4, 1, 3, 2]], [[0, 0, 0.5, 0.5]]),
    at("median", "median(x)", [[1, nan, 2]], [[0, 1, 0]]),
    at("quantile", "quantile(x, 1)", [[1, 2, 2]], [[0, 0.5, 0.5]]),
    at("quantile", "quantile(x, 0.25)", [[1, 0, 4]], [[0.5, 0.5, 0]]),
    at("nanmax", "nanmax(x)", [[nan, 1, 1]], [[0, 0.5, 0.5]]),
    at("nansum", "nansum(x)", [[nan, 1]], [[0, 1]]),
    at("interp", "interp(x, array([0.0, 1.0, 3.0]), array([0.0, 1.0, 5.0]))", [0], [1]),
    at("interp", "interp(x, array([0.0, 1.0, 3.0]), array([0.0, 1.0, 5.0]))", [1], [2]),
    at("interp", "interp(x, array([0.0, 1.0, 3.0]), array([0.0, 1.0, 5.0]))", [3], [2]),
    at("interp", "interp(x, array([0.0, 1.0, 3.0]), array([0.0, 1.0, 5.0]))", [4], [0]),
    at("nn.max_pool2d", "nn.max_pool2d(x, 2)", [[[[[1, 2], [2, 0]]]]], [[[[[0, 0.5], [0.5, 0]]]]]),
    # ---- complex numbers: steepest ascent
    at("real", "real(x)", [1 + 2j], [1]),
    at("conj", "real(conj(x))", [1 + 2j], [1]),
    at("multiply", "real(-1j * x)", [1 + 2j], [1j]),
    at("imag", "imag(x)", [1 + 2j], [1j]),
    at("pow", "abs(x) ** 2", [1 + 2j], [2 + 4j]),
    at("pow", "real(x ** 2)", [1 + 2j], [2 - 4j]),
    # ---- the ends of the range
    at("atan", "atan(x)", [1e200], [0]),
    at("asinh", "asinh(x)", [1e200], [1e-200]),
    at("atan2", "atan2(a, b)", [1e200, 1e200], [0.5e-200, -0.5e-200]),
    at("atan2", "atan2(a, b)", [1e-200, 1e-200], [0.5e200, -0.5e200]),
    at("hypot", "hypot(a, b)", [3e200, 4e200], [0.6, 0.8]),
    at("hypot", "hypot(a, b)", [3e-200, 4e-200], [0.6, 0.8]),
    at("acosh", "acosh(x)", [1e200], [1e-200]),
    at("acos", "acos(x)", [1 - 2**-53], [-(2.0**26)]),
    at("tanh", "tanh(x)", [300], [4 * math.exp(-600)]),
    at("sigmoid", "sigmoid(x)", [[-700, 700]], [[math.exp(-700), math.exp(-700)]]),
    at("log_sigmoid", "log_sigmoid(x)", [[-1e4, 1e4, 700]], [[1, 0, math.exp(-700)]]),
    at("softplus", "softplus(x)", [[-700, 1e4]], [[math.exp(-700), 1]]),
    at("softmax", "softmax(x)[0]", [[1e4, 0, -1e4]], [[0, 0, 0]]),
    at("log_softmax", "log_softmax(x)[2]", [[1e4, 0, -1e4]], [[-1, 0, 1]]),
    at("cross_entropy", "cross_entropy(x, array([1]))", [[[1e4, 0]]], [[[1, -1]]]),
    # ---- decompositions
    decomposed("linalg.det", "linalg.det(x)", [[[1, 2], [2, 4]]], [[[4, -2], [-2, 1]]]),
    decomposed("linalg.det", "linalg.det(x)", [np.zeros((3, 3))], [np.zeros((3, 3))]),
    decomposed("linalg.det", "linalg.det(x)", [[[0]]], [[[1]]]),
    decomposed("linalg.det", "linalg.det(x)", [np.zeros((0, 0))], [np.zeros((0, 0))]),
    decomposed("linalg.det", "linalg.det(x)", [np.diag([1.0, 1, 0])], [np.diag([0, 0, 1])]),
    decomposed("linalg.det", "linalg.det(x)", [np.diag([1.0, 0, 0])], [np.zeros((3, 3))]),
    decomposed(
        "linalg.det",
        "linalg.det(x)",
        [[[[1, 2], [3, 5]], [[1, 2], [2, 4]], ZEROS]],
        [[[[5, -3], [-2, 1]], [[4, -2], [-2, 1]], ZEROS]],
    ),
    decomposed(
        "linalg.slogdet",
        "linalg.slogdet(x).logabsdet",
        [[[1, 2], [2, 4]]],
        [[[inf, -inf], [-inf, inf]]],
    ),
    decomposed(
        "linalg.slogdet",
        "linalg.slogdet(x).logabsdet",
        [[[[1, 2], [2, 4]], [[2, 0], [0, 4]]]],
        [[[[inf, -inf], [-inf, inf]], [[0.5, 0], [0, 0.25]]]],
    ),
    decomposed(
        "linalg.eigvalsh", "linalg.eigvalsh(x) * array([1.0, 2.0])", [EYE], [[[1, 0], [0, 2]]]
    ),
    decomposed("linalg.eigvalsh", "linalg.eigvalsh(x)[0]", [SMALL], [LOWEST]),
    decomposed("linalg.eigh", "projector(linalg.eigh(x)[1])", [EYE], [ZEROS]),
    decomposed(
        "linalg.svdvals", "linalg.svdvals(x) * array([1.0, 2.0])", [EYE], [[[1, 0], [0, 2]]]
    ),
    decomposed("linalg.svdvals", "linalg.svdvals(x)", [[[1, 0], [0, 0]]], [EYE]),
    decomposed("linalg.svd", "polar(x)[0, 1]", [EYE], [[[0, 0.5], [-0.5, 0]]]),
    decomposed("linalg.svd", "projector(linalg.svd(x).U)", [ZEROS], [ZEROS]),
    decomposed("linalg.matrix_norm", 'linalg.matrix_norm(x, ord="nuc")', [EYE], [EYE]),
    decomposed("linalg.matrix_norm", 'linalg.matrix_norm(x, ord="nuc")', [ZEROS], [EYE]),
    decomposed("linalg.matrix_norm", "linalg.matrix_norm(x, ord=2)", [EYE], [[[0.5, 0], [0, 0.5]]]),
    decomposed("linalg.cholesky", "linalg.cholesky(x)", [SMALL], [FACTOR]),
    decomposed("linalg.qr", "linalg.qr(x).R", [[[2, 3]]], [[[1, 1]]]),
    decomposed("linalg.qr", "abs(linalg.qr(x).R)", [TALL], [TALL_R]),
    decomposed("linalg.qr", "abs(linalg.qr(x).R)", [[[1, 2, 1], [3, 1, 7]]], [WIDE_R]),
    decomposed("linalg.pinv", "linalg.pinv(x)", [[[1, 0], [0, 0]]], [[[-1, 1], [1, 0]]]),
    decomposed("linalg.pinv", "linalg.pinv(x)", [ZEROS], [ZEROS]),
    decomposed(
        "linalg.matrix_power",
        "linalg.matrix_power(x, -1)",
        [[[2, 0], [0, 2]]],
        [[[-0.25, -0.25], [-0.25, -0.25]]],
    ),
    decomposed("linalg.eigvals", "real(linalg.eigvals(x))", [[[1, 2], [3, 4]]], [EYE]),
    decomposed("linalg.eig", "abs(linalg.eig(x)[1])", [[[1, 2], [3, 5]]], [ABS_OF_V]),
    decomposed("linalg.eig", "real(linalg.eig(x)[0])", [[[1, 1], [0, 1]]], [EYE]),
    # ---- Fourier transforms
    transformed(
        "fft.fft",
        "abs(fft.fft(x))",
        [[1, 2, 4]],
        [[1 - 4 / ROOT_7, 1 - 1 / ROOT_7, 1 + 5 / ROOT_7]],
    ),
    transformed(
        "fft.ihfft",
        "abs(fft.ihfft(x)) * 3",
        [[1, 2, 4]],
        [[1 - 2 / ROOT_7, 1 - 0.5 / ROOT_7, 1 + 2.5 / ROOT_7]],
    ),
    transformed("fft.irfft", "abs(fft.irfft(x, n=3))", [[2, 1j]], [[1, 0]]),
    transformed(
        "fft.irfft",
        "fft.irfft(x, n=4) * array([0.0, 1.0, 2.0, 3.0])",
        [[1, 2, 3]],
        [[1.5, -1, -0.5]],
    ),
    transformed(
        "fft.irfft",
        "fft.irfft(x, n=4) * array([0.0, 1.0, 2.0, 3.0])",
        [[1j, 2j, 3j]],
        [[1.5, -1 + 1j, -0.5]],
    ),
    transformed("fft.hfft", "fft.hfft(x)", [[1, 2j, 3]], [[4, 0, 0]]),
    # ---- special functions
    special("special.xlogy", "special.xlogy(a, b)", [0, 0], [-inf, 0]),
    special("special.xlogy", "special.xlogy(a, b)", [0, 2], [math.log(2), 0]),
    special("special.xlog1py", "special.xlog1py(a, b)", [0, -1], [-inf, 0]),
    special("special.entr", "special.entr(x)", [0], [inf]),
    special("special.logit", "special.logit(x)", [0], [inf]),
    special("special.logit", "special.logit(x)", [1], [inf]),
    special("special.erfinv", "special.erfinv(x)", [1], [inf]),
    special("special.erfcinv", "special.erfcinv(x)", [0], [-inf]),
    special("special.ndtri", "special.ndtri(x)", [0], [inf]),
    special("special.ndtri", "special.ndtri(x)", [1], [inf]),
    special("special.rel_entr", "special.rel_entr(a, b)", [0, 1], [-inf, 0]),
    special("special.rel_entr", "special.rel_entr(a, b)", [0, 0], [nan, 0]),
    special("special.kl_div", "special.kl_div(a, b)", [0, 1], [-inf, 1]),
    special("special.kl_div", "special.kl_div(a, b)", [0, 0], [nan, 1]),
    special("special.kl_div", "special.kl_div(a, b)", [2, 2], [0, 0]),
    special("special.huber", "special.huber(a, b)", [1, 1], [0, 1]),
    special("special.huber", "special.huber(a, b)", [1, -3], [2, -1]),
    special("special.pseudo_huber", "special.pseudo_huber(a, b)", [0, 3], [3, 0]),
    special("special.pseudo_huber", "special.pseudo_huber(a, b)", [0, 0], [0, 0]),
    special("special.cbrt", "special.cbrt(x)", [0], [inf]),
    special("special.boxcox", "special.boxcox(a, b)", [2, 0], [1 / 2, math.log(2) ** 2 / 2]),
    special(
        "special.inv_boxcox", "special.inv_boxcox(a, b)", [2, 0], [math.exp(2), -2 * math.exp(2)]
    ),
    special("special.gammainc", "special.gammainc(a, b)", [0.5, 0], [0, inf]),
    special("special.gammainc", "special.gammainc(a, b)", [2, inf], [0, 0]),
    special("special.gammaln", "special.gammaln(x)", [1], [-0.5772156649015329]),
    special("special.binom", "special.binom(a, b)", [3, 3], [11 / 6, -11 / 6]),
]
