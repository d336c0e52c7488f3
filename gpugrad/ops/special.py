"""Special functions under SciPy's names, of real numbers.

On the CPU the values come from gpugrad itself or from `scipy.special`, on a GPU from CuPy and
kernels/special.cuh. A parameter with the rule None has no known derivative: to ask for its gradient
raises. A derivative that is a difference of nearly equal numbers somewhere is a series or a
continued fraction there.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

from ..rules import check_arrays, elementwise, general
from . import activations
from .activations import log_sigmoid, sigmoid
from .creation import full_like, zeros_like
from .dtypes import is_inexact
from .elementwise import (
    abs,
    clip,
    cos,
    exp,
    expm1,
    floor,
    hypot,
    log,
    log1p,
    sign,
    sin,
    sqrt,
    where,
)
from .reductions import _axes, _merged, logsumexp

__all__ = [
    "bdtr",
    "bdtrc",
    "bdtri",
    "beta",
    "betainc",
    "betaincc",
    "betaincinv",
    "betaln",
    "binom",
    "boxcox",
    "boxcox1p",
    "cbrt",
    "chdtr",
    "chdtrc",
    "chdtri",
    "cosdg",
    "cosm1",
    "cotdg",
    "digamma",
    "ellipe",
    "ellipk",
    "ellipkm1",
    "entr",
    "erf",
    "erfc",
    "erfcinv",
    "erfcx",
    "erfinv",
    "exp1",
    "exp2",
    "exp10",
    "expi",
    "expit",
    "expm1",
    "expn",
    "exprel",
    "fdtr",
    "fdtrc",
    "fdtri",
    "gamma",
    "gammainc",
    "gammaincc",
    "gammainccinv",
    "gammaincinv",
    "gammaln",
    "gammasgn",
    "gdtr",
    "gdtrc",
    "huber",
    "i0",
    "i0e",
    "i1",
    "i1e",
    "inv_boxcox",
    "inv_boxcox1p",
    "j0",
    "j1",
    "k0",
    "k0e",
    "k1",
    "k1e",
    "kl_div",
    "log1p",
    "log_expit",
    "log_ndtr",
    "log_softmax",
    "loggamma",
    "logit",
    "logsumexp",
    "lpmv",
    "multigammaln",
    "nbdtr",
    "nbdtrc",
    "nbdtri",
    "ndtr",
    "ndtri",
    "pdtr",
    "pdtrc",
    "pdtri",
    "poch",
    "polygamma",
    "pseudo_huber",
    "psi",
    "radian",
    "rel_entr",
    "rgamma",
    "sinc",
    "sindg",
    "softmax",
    "spence",
    "stdtr",
    "stdtrit",
    "tandg",
    "xlog1py",
    "xlogy",
    "y0",
    "y1",
    "yn",
    "zeta",
]

_SQRT_PI = math.sqrt(math.pi)
_SQRT_2 = math.sqrt(2)
_SQRT_2_PI = math.sqrt(2 * math.pi)
_DEGREE = math.pi / 180

expit = sigmoid
log_expit = log_sigmoid


def _special(
    name: str, *rules: Any, doc: str, arrays: tuple[str, ...] | None = None
) -> Callable[..., Any]:
    return elementwise(name, *rules, doc=doc, arrays=arrays, function=f"special.{name}")


_PYTHON = (bool, int, float)


def _arrays(*values: Any) -> tuple[Any, ...]:
    """`values` with arrays in place of numbers, as functions of one argument need them."""
    arrays = [x for x in values if type(x) not in _PYTHON]  # numpy.float64 is a float too
    like = next((x for x in arrays if is_inexact(x.dtype)), arrays[0])
    return tuple(full_like(like, x) if type(x) in _PYTHON else x for x in values)


def _zero(t: Any) -> Any:
    """The derivative of a piecewise constant function."""
    return zeros_like(t)


def _polynomial(coefficients: Sequence[float], x: Any) -> Any:
    """The sum of coefficients[k] * x**k."""
    total = full_like(x, coefficients[-1])
    for c in reversed(coefficients[:-1]):
        total = total * x + c
    return total


def _piecewise(here: Any, x: Any, f: Callable, otherwise: Callable, at: float, other: float) -> Any:
    """f(x) where `here` holds, else otherwise(x).

    Neither sees the other's arguments, whose derivatives could be NaN; f has x = `at` in their
    place and `otherwise` x = `other`.
    """
    return where(here, f(where(here, x, at)), otherwise(where(here, other, x)))


def _near_zero(x: Any, coefficients: Sequence[float], otherwise: Callable, bound: float = 1) -> Any:
    """A power series in x for |x| < bound, else otherwise(x)."""
    series = functools.partial(_polynomial, coefficients)
    return _piecewise(abs(x) < bound, x, series, otherwise, 0, bound)


# ---- the error function and the normal distribution


def _gauss(x: Any) -> Any:
    """exp(-x * x), bounded where it is 0 already, so that no infinity meets that 0."""
    x = clip(x, -40, 40)
    return exp(-x * x)


def _normal_density(x: Any) -> Any:
    return _gauss(x * (1 / _SQRT_2)) * (1 / _SQRT_2_PI)


def _erfcx_slope(x: Any) -> Any:
    """2 x erfcx(x) - 2 / sqrt(pi); from 6 on by Laplace's continued fraction for erfcx."""

    def fraction(x: Any) -> Any:
        k = zeros_like(x)
        for n in range(14, 0, -1):
            k = 0.5 * n / (x + k)
        return -2 / _SQRT_PI * (k / (x + k))

    return _piecewise(x > 6, x, fraction, lambda x: 2 * x * erfcx(x) - 2 / _SQRT_PI, 6, 0)


def _mills(x: Any) -> Any:
    """The normal density over the distribution function."""
    return _piecewise(
        x > 0,
        x,
        lambda x: _normal_density(x) / ndtr(x),
        lambda x: 2 / _SQRT_2_PI / erfcx(x * (-1 / _SQRT_2)),
        0,
        0,
    )


erf = elementwise("erf", lambda t, x: t * (2 / _SQRT_PI * _gauss(x)), doc="The error function.")
erfc = _special("erfc", lambda t, x: t * (-2 / _SQRT_PI * _gauss(x)), doc="1 - erf(x).")
erfcx = _special("erfcx", lambda t, x: t * _erfcx_slope(x), doc="exp(x * x) * erfc(x).")
erfinv = _special(
    "erfinv", lambda t, out: t * (_SQRT_PI / 2 * exp(out * out)), doc="The inverse of erf."
)
erfcinv = _special(
    "erfcinv", lambda t, out: t * (-_SQRT_PI / 2 * exp(out * out)), doc="The inverse of erfc."
)
ndtr = _special(
    "ndtr", lambda t, x: t * _normal_density(x), doc="The normal distribution function."
)
log_ndtr = _special(
    "log_ndtr", lambda t, x: t * _mills(x), doc="log(ndtr(x)), right in both tails."
)
ndtri = _special(
    "ndtri", lambda t, out: t * (_SQRT_2_PI * exp(0.5 * out * out)), doc="The inverse of ndtr."
)

# ---- logarithms, entropies, losses


def _ratio(x: Any, y: Any) -> Any:
    """x / y, and 0 / 0 = 0: xlogy(0, y) does not depend on y."""
    return x / where((x == 0) & (y == 0), 1, y)


logit = _special("logit", lambda t, x: t / (x * (1 - x)), doc="log(x / (1 - x)).")
xlogy = _special(
    "xlogy",
    lambda t, a, b: t * log(_arrays(a, b)[1]),
    lambda t, a, b: t * _ratio(a, b),
    doc="a * log(b), and 0 for a = 0.",
)
xlog1py = _special(
    "xlog1py",
    lambda t, a, b: t * log1p(_arrays(a, b)[1]),
    lambda t, a, b: t * _ratio(a, 1 + b),
    doc="a * log(1 + b), and 0 for a = 0.",
)
entr = _special("entr", lambda t, x: -t * (log(x) + 1), doc="-x * log(x), and -inf for x < 0.")
rel_entr = _special(
    "rel_entr",
    lambda t, a, b: t * (log(a / b) + 1),
    lambda t, a, b: -t * _ratio(a, b),
    doc="a * log(a / b), 0 for a = 0 and inf outside a, b >= 0.",
)
kl_div = _special(
    "kl_div",
    lambda t, a, b: t * log(a / b),
    lambda t, a, b: t * (1 - _ratio(a, b)),
    doc="a * log(a / b) - a + b, and inf outside a, b >= 0.",
)


def _or_1(x: Any) -> Any:
    return where(x == 0, 1, x)


huber = _special(
    "huber",
    lambda t, delta, r: t * clip(abs(_arrays(r, delta)[0]) - delta, 0),
    lambda t, delta, r: t * clip(_arrays(r, delta)[0], -delta, delta),
    arrays=("delta", "r"),
    doc="r * r / 2 up to |r| = delta, from there on linear (Huber 1964).",
)
pseudo_huber = _special(
    "pseudo_huber",
    lambda t, delta, r: t * _pseudo_huber_slope(delta, r),
    lambda t, delta, r: t * (r * (delta / _or_1(hypot(delta, r)))),
    arrays=("delta", "r"),
    doc="delta**2 * (sqrt(1 + (r / delta)**2) - 1), a smooth huber.",
)


def _pseudo_huber_slope(delta: Any, r: Any) -> Any:
    norm = hypot(delta, r)
    share = r / _or_1(delta + norm)
    return share * share * (r / _or_1(norm)) * r


# ---- powers and exponentials

exp2 = _special("exp2", lambda t, out: t * (out * math.log(2)), doc="2 ** x.")
exp10 = _special("exp10", lambda t, out: t * (out * math.log(10)), doc="10 ** x.")
cbrt = _special("cbrt", lambda t, out: t / (3 * out * out), doc="Cube root, also of x < 0.")
cosm1 = _special("cosm1", lambda t, x: -t * sin(x), doc="cos(x) - 1, accurate near 0.")
exprel = _special("exprel", lambda t, x: t * _exprel_slope(x), doc="(exp(x) - 1) / x.")

_EXPREL_SLOPE = [(k + 1) / math.factorial(k + 2) for k in range(24)]
_LOG_RATIO_SLOPE = [(-1) ** k * k / (k + 1) for k in range(1, 30)]


def _exprel_slope(x: Any) -> Any:
    return _near_zero(x, _EXPREL_SLOPE, lambda x: (exp(x) - exprel(x)) / x)


def _log_ratio_slope(x: Any) -> Any:
    """The derivative of log(1 + x) / x."""
    return _near_zero(x, _LOG_RATIO_SLOPE, lambda x: (1 / (1 + x) - log1p(x) / x) / x, 0.25)


def _by_lmbda(log_x: Any, lmbda: Any) -> Any:
    return log_x * log_x * _exprel_slope(lmbda * log_x)


def _inverse_by_lmbda(x: Any, lmbda: Any) -> Any:
    return x * x * _log_ratio_slope(lmbda * x)


_BOX_COX = ("x", "lmbda")
boxcox = _special(
    "boxcox",
    lambda t, x, lmbda: t * x ** (lmbda - 1),
    lambda t, x, lmbda: t * _by_lmbda(log(_arrays(x, lmbda)[0]), lmbda),
    arrays=_BOX_COX,
    doc="(x**lmbda - 1) / lmbda, and log(x) for lmbda = 0 (Box and Cox 1964).",
)
boxcox1p = _special(
    "boxcox1p",
    lambda t, x, lmbda: t * (1 + x) ** (lmbda - 1),
    lambda t, x, lmbda: t * _by_lmbda(log1p(_arrays(x, lmbda)[0]), lmbda),
    arrays=_BOX_COX,
    doc="boxcox(1 + x, lmbda).",
)
inv_boxcox = _special(
    "inv_boxcox",
    lambda t, x, lmbda, out: t * (out / (1 + lmbda * x)),
    lambda t, x, lmbda, out: t * (out * _inverse_by_lmbda(x, lmbda)),
    arrays=_BOX_COX,
    doc="The inverse of boxcox in x.",
)
inv_boxcox1p = _special(
    "inv_boxcox1p",
    lambda t, x, lmbda, out: t * ((1 + out) / (1 + lmbda * x)),
    lambda t, x, lmbda, out: t * ((1 + out) * _inverse_by_lmbda(x, lmbda)),
    arrays=_BOX_COX,
    doc="The inverse of boxcox1p in x.",
)

# ---- degrees

sindg = _special("sindg", lambda t, x: t * (_DEGREE * cosdg(x)), doc="Sine of degrees.")
cosdg = _special("cosdg", lambda t, x: t * (-_DEGREE * sindg(x)), doc="Cosine of degrees.")
tandg = _special("tandg", lambda t, out: t * (_DEGREE * (1 + out * out)), doc="Tangent of degrees.")
cotdg = _special(
    "cotdg", lambda t, out: t * (-_DEGREE * (1 + out * out)), doc="Cotangent of degrees."
)
radian = _special(
    "radian",
    lambda t: t * _DEGREE,
    lambda t: t * (_DEGREE / 60),
    lambda t: t * (_DEGREE / 3600),
    arrays=("d", "m", "s"),
    doc="Degrees, minutes and seconds as radians.",
)
sinc = _special("sinc", lambda t, x: t * _sinc_slope(x), doc="sin(pi x) / (pi x), and 1 at 0.")

_SINC_SLOPE = [(-1) ** k * 2 * k / math.factorial(2 * k + 1) for k in range(1, 14)]


def _sinc_slope(x: Any) -> Any:
    def series(y: Any) -> Any:
        return y * _polynomial(_SINC_SLOPE, y * y)

    def quotient(y: Any) -> Any:
        return (cos(y) - sin(y) / y) / y

    y = x * math.pi
    return math.pi * _piecewise(abs(y) < 1, y, series, quotient, 0, 1)


# ---- the gamma function and its like

gammaln = _special("gammaln", lambda t, x: t * digamma(x), doc="log(|gamma(x)|).")
loggamma = _special(
    "loggamma", lambda t, x: t * digamma(x), doc="log(gamma(x)); NaN for x < 0, being complex."
)
gammasgn = _special("gammasgn", _zero, doc="The sign of gamma(x).")
gamma = _special("gamma", lambda t, x, out: t * (out * digamma(x)), doc="The gamma function.")
rgamma = _special("rgamma", lambda t, x: t * _rgamma_slope(x), doc="1 / gamma(x).")
digamma = psi = _special(
    "psi", lambda t, x: t * polygamma(1, x), doc="The derivative of log(gamma(x))."
)
polygamma = _special(
    "polygamma",
    None,
    lambda t, n, x: t * polygamma(n + 1, x),
    arrays=("n", "x"),
    doc="The n-th derivative of psi, n = 0, 1, ...",
)
_zeta = _special(
    "zeta",
    None,
    lambda t, x, q: -t * (x * _zeta(x + 1, q)),
    arrays=("x", "q"),
    doc="The sum of (k + q)**-x over k = 0, 1, ...",
)


def zeta(x: Any, q: Any = 1, /) -> Any:
    """The sum of (k + q)**-x over k = 0, 1, ... (Riemann's for q = 1, else Hurwitz').

    Elementwise; no derivative with respect to x is known.
    """
    return _zeta(x, q)


def _rgamma_slope(x: Any) -> Any:
    """Below 1/2 by the reflection formula, which has no poles there."""

    def reflected(x: Any) -> Any:
        y = math.pi * x
        return gamma(1 - x) * (cos(y) - sin(y) / math.pi * digamma(1 - x))

    return _piecewise(x < 0.5, x, reflected, lambda x: -rgamma(x) * digamma(x), 0, 1)


beta = _special(
    "beta",
    lambda t, a, b, out: t * (out * (digamma(a) - digamma(a + b))),
    lambda t, a, b, out: t * (out * (digamma(b) - digamma(a + b))),
    doc="gamma(a) * gamma(b) / gamma(a + b).",
)
betaln = _special(
    "betaln",
    lambda t, a, b: t * (digamma(a) - digamma(a + b)),
    lambda t, a, b: t * (digamma(b) - digamma(a + b)),
    doc="log(|beta(a, b)|).",
)
binom = _special(
    "binom",
    lambda t, n, k, out: t * (out * (digamma(n + 1) - digamma(n - k + 1))),
    lambda t, n, k, out: t * (out * (digamma(n - k + 1) - digamma(k + 1))),
    arrays=("n", "k"),
    doc="The binomial coefficient n over k of real numbers.",
)
poch = _special(
    "poch",
    lambda t, z, m, out: t * (out * (digamma(z + m) - digamma(z))),
    lambda t, z, m, out: t * (out * digamma(z + m)),
    arrays=("z", "m"),
    doc="gamma(z + m) / gamma(z).",
)


def multigammaln(a: Any, d: int, /) -> Any:
    """log of the multivariate gamma function of order d, an integer.

    Elementwise in a. Raises a ValueError unless d is a positive integer.
    """
    check_arrays("multigammaln", a)
    if d != int(d) or d < 1:
        raise ValueError(f"multigammaln: d must be a positive integer, not {d}")
    d = int(d)
    total = sum(gammaln(a - 0.5 * j) for j in range(1, d))
    return gammaln(a) + total + 0.25 * d * (d - 1) * math.log(math.pi)


# ---- the gamma distribution and those that are made of it


def _gamma_density(a: Any, x: Any) -> Any:
    a, x = _arrays(a, x)
    x = clip(x, None, 1e30)
    return exp(xlogy(a - 1, x) - x - gammaln(a))


def _gamma_by_shape(a: Any, x: Any) -> Any:
    """d gammainc(a, x) / da."""
    a, x = _arrays(a, x)
    inside = (x > 0) & (x < 1e30)
    x = where(inside, x, 1)
    return where(inside, -_gamma_density(a, x) * gamma_slope(a, x), 0)


gamma_slope = _special(
    "gamma_slope",
    None,
    lambda t, a, z, out: t * (digamma(_arrays(a, z)[0]) - log(z) - out * ((a - 1) / z - 1)),
    arrays=("a", "z"),
    doc="dz / da of the quantile z of the gamma distribution of shape a.",
)


def _sample_rule(t: Any, a: Any, out: Any) -> Any:
    return t * gamma_slope(a, out)


@general((_sample_rule, None), (_sample_rule, None))
def gamma_sample(a: Any, z: Any, /) -> Any:
    """z, drawn from the gamma distribution of shape a, as a function of a.

    The derivative is that of the quantile (Figurnov, Mohamed and Mnih 2018).
    """
    return +z


_AX = ("a", "x")
gammainc = _special(
    "gammainc",
    lambda t, a, x: t * _gamma_by_shape(a, x),
    lambda t, a, x: t * _gamma_density(a, x),
    arrays=_AX,
    doc="The distribution function of the gamma distribution of shape a.",
)
gammaincc = _special(
    "gammaincc",
    lambda t, a, x: -t * _gamma_by_shape(a, x),
    lambda t, a, x: -t * _gamma_density(a, x),
    arrays=_AX,
    doc="1 - gammainc(a, x).",
)
gammaincinv = _special(
    "gammaincinv",
    lambda t, a, out: t * gamma_slope(a, out),
    lambda t, a, out: t / _gamma_density(a, out),
    arrays=("a", "y"),
    doc="The x with gammainc(a, x) = y.",
)
gammainccinv = _special(
    "gammainccinv",
    lambda t, a, out: t * gamma_slope(a, out),
    lambda t, a, out: -t / _gamma_density(a, out),
    arrays=("a", "y"),
    doc="The x with gammaincc(a, x) = y.",
)
chdtr = _special(
    "chdtr",
    lambda t, v, x: t * (0.5 * _gamma_by_shape(0.5 * v, 0.5 * x)),
    lambda t, v, x: t * (0.5 * _gamma_density(0.5 * v, 0.5 * x)),
    arrays=("v", "x"),
    doc="The distribution function of the chi-square distribution, v degrees of freedom.",
)
chdtrc = _special(
    "chdtrc",
    lambda t, v, x: t * (-0.5 * _gamma_by_shape(0.5 * v, 0.5 * x)),
    lambda t, v, x: t * (-0.5 * _gamma_density(0.5 * v, 0.5 * x)),
    arrays=("v", "x"),
    doc="1 - chdtr(v, x).",
)
chdtri = _special(
    "chdtri",
    lambda t, v, out: t * gamma_slope(0.5 * v, 0.5 * out),
    lambda t, v, out: -2 * t / _gamma_density(0.5 * v, 0.5 * out),
    arrays=("v", "p"),
    doc="The x with chdtrc(v, x) = p.",
)
gdtr = _special(
    "gdtr",
    lambda t, a, b, x: t * (x * _gamma_density(b, a * x)),
    lambda t, a, b, x: t * _gamma_by_shape(b, a * x),
    lambda t, a, b, x: t * (a * _gamma_density(b, a * x)),
    arrays=("a", "b", "x"),
    doc="The distribution function of the gamma distribution of rate a and shape b.",
)
gdtrc = _special(
    "gdtrc",
    lambda t, a, b, x: -t * (x * _gamma_density(b, a * x)),
    lambda t, a, b, x: -t * _gamma_by_shape(b, a * x),
    lambda t, a, b, x: -t * (a * _gamma_density(b, a * x)),
    arrays=("a", "b", "x"),
    doc="1 - gdtr(a, b, x).",
)
pdtr = _special(
    "pdtr",
    _zero,
    lambda t, k, m: -t * _gamma_density(_whole(k, m) + 1, m),
    arrays=("k", "m"),
    doc="The distribution function of the Poisson distribution of mean m at floor(k).",
)
pdtrc = _special(
    "pdtrc",
    _zero,
    lambda t, k, m: t * _gamma_density(_whole(k, m) + 1, m),
    arrays=("k", "m"),
    doc="1 - pdtr(k, m).",
)
pdtri = _special(
    "pdtri",
    None,
    lambda t, k, out: -t / _gamma_density(_whole(k, out) + 1, out),
    arrays=("k", "y"),
    doc="The m with pdtr(k, m) = y.",
)


def _whole(k: Any, like: Any) -> Any:
    return floor(_arrays(k, like)[0])


# ---- the beta distribution and those that are made of it


def _beta_density(a: Any, b: Any, x: Any) -> Any:
    a, b, x = _arrays(a, b, x)
    return exp(xlogy(a - 1, x) + xlog1py(b - 1, -x) - betaln(a, b))


_ABX = ("a", "b", "x")
betainc = _special(
    "betainc",
    None,
    None,
    lambda t, a, b, x: t * _beta_density(a, b, x),
    arrays=_ABX,
    doc="The distribution function of the beta distribution.",
)
betaincc = _special(
    "betaincc",
    None,
    None,
    lambda t, a, b, x: -t * _beta_density(a, b, x),
    arrays=_ABX,
    doc="1 - betainc(a, b, x).",
)
betaincinv = _special(
    "betaincinv",
    None,
    None,
    lambda t, a, b, out: t / _beta_density(a, b, out),
    arrays=("a", "b", "y"),
    doc="The x with betainc(a, b, x) = y.",
)


def _binomial_density(k: Any, n: Any, p: Any) -> Any:
    """-d bdtr(k, n, p) / dp."""
    k, n, p = _arrays(k, n, p)
    k = floor(k)
    inside = k < n
    return where(inside, _beta_density(k + 1, where(inside, n - k, 1), p), 0)


bdtr = _special(
    "bdtr",
    _zero,
    None,
    lambda t, k, n, p: -t * _binomial_density(k, n, p),
    arrays=("k", "n", "p"),
    doc="The distribution function of the binomial distribution at floor(k).",
)
bdtrc = _special(
    "bdtrc",
    _zero,
    None,
    lambda t, k, n, p: t * _binomial_density(k, n, p),
    arrays=("k", "n", "p"),
    doc="1 - bdtr(k, n, p).",
)
bdtri = _special(
    "bdtri",
    None,
    None,
    lambda t, k, n, out: -t / _binomial_density(k, n, out),
    arrays=("k", "n", "y"),
    doc="The p with bdtr(k, n, p) = y.",
)
nbdtr = _special(
    "nbdtr",
    _zero,
    None,
    lambda t, k, n, p: t * _beta_density(n, _whole(k, p) + 1, p),
    arrays=("k", "n", "p"),
    doc="The distribution function of the negative binomial distribution at floor(k).",
)
nbdtrc = _special(
    "nbdtrc",
    _zero,
    None,
    lambda t, k, n, p: -t * _beta_density(n, _whole(k, p) + 1, p),
    arrays=("k", "n", "p"),
    doc="1 - nbdtr(k, n, p).",
)
nbdtri = _special(
    "nbdtri",
    None,
    None,
    lambda t, k, n, out: t / _beta_density(n, _whole(k, out) + 1, out),
    arrays=("k", "n", "y"),
    doc="The p with nbdtr(k, n, p) = y.",
)


def _f_density(m: Any, n: Any, x: Any) -> Any:
    """The density of the F distribution, m and n degrees of freedom."""
    m, n, x = _arrays(m, n, x)
    total = n + m * x
    return _beta_density(0.5 * m, 0.5 * n, m * x / total) * (m / total) * (n / total)


def _t_density(df: Any, x: Any) -> Any:
    """The density of Student's t distribution."""
    df, x = _arrays(df, x)
    log_of = betaln(0.5 * df, zeros_like(df) + 0.5) + 0.5 * log(df)
    return exp(-log_of - 0.5 * (df + 1) * log1p(x * x / df))


_F = ("dfn", "dfd", "x")
fdtr = _special(
    "fdtr",
    None,
    None,
    lambda t, dfn, dfd, x: t * _f_density(dfn, dfd, x),
    arrays=_F,
    doc="The distribution function of the F distribution.",
)
fdtrc = _special(
    "fdtrc",
    None,
    None,
    lambda t, dfn, dfd, x: -t * _f_density(dfn, dfd, x),
    arrays=_F,
    doc="1 - fdtr(dfn, dfd, x).",
)
fdtri = _special(
    "fdtri",
    None,
    None,
    lambda t, dfn, dfd, out: t / _f_density(dfn, dfd, out),
    arrays=("dfn", "dfd", "p"),
    doc="The x with fdtr(dfn, dfd, x) = p.",
)
stdtr = _special(
    "stdtr",
    None,
    lambda t, df, x: t * _t_density(df, x),
    arrays=("df", "x"),
    doc="The distribution function of Student's t distribution.",
)
stdtrit = _special(
    "stdtrit",
    None,
    lambda t, df, out: t / _t_density(df, out),
    arrays=("df", "p"),
    doc="The x with stdtr(df, x) = p.",
)

# ---- exponential and elliptic integrals

exp1 = _special("exp1", lambda t, x: -t * (exp(-x) / x), doc="The exponential integral E1.")
expi = _special("expi", lambda t, x: t * (exp(x) / x), doc="The exponential integral Ei.")
expn = _special(
    "expn",
    None,
    lambda t, n, x: -t * _expn_below(n, x),
    arrays=("n", "x"),
    doc="The exponential integral of order n = 0, 1, ...",
)


def _expn_below(n: Any, x: Any) -> Any:
    """expn(n - 1, x), also for n = 0."""
    return where(n > 0, expn(where(n > 0, n - 1, 0), x), exp(-x) * (1 + x) / (x * x))


# of K, and of (K - E) / m, in powers of m (Abramowitz and Stegun 17.3.11 and 17.3.12)
_ELLIPK = [math.pi / 2 * (math.comb(2 * k, k) / 4**k) ** 2 for k in range(30)]
_ELLIPD = [c * 2 * k / (2 * k - 1) for k, c in enumerate(_ELLIPK)][1:]


def _ellipd(m: Any) -> Any:
    """(K(m) - E(m)) / m."""
    return _near_zero(m, _ELLIPD, lambda m: (ellipk(m) - ellipe(m)) / m, 0.25)


def _ellipd_of(p: Any, k: Any) -> Any:
    """(K - E) / m at m = 1 - p, with the K of ellipkm1(p)."""
    near = abs(1 - p) < 0.25
    m = where(near, 0.5, 1 - p)
    return where(near, _polynomial(_ELLIPD, where(near, 1 - p, 0)), (k - ellipe(m)) / m)


ellipk = _special(
    "ellipk",
    lambda t, x, out: t * (0.5 * (out - _ellipd(x)) / (1 - x)),
    doc="The complete elliptic integral of the first kind, of the parameter m.",
)
ellipkm1 = _special(
    "ellipkm1",
    lambda t, x, out: t * (-0.5 * (out - _ellipd_of(x, out)) / x),
    doc="ellipk(1 - x), accurate near 0.",
)
ellipe = _special(
    "ellipe",
    lambda t, x: t * (-0.5 * _ellipd(x)),
    doc="The complete elliptic integral of the second kind, of the parameter m.",
)

spence = _special("spence", lambda t, x: -t * _log_ratio(x - 1), doc="The dilogarithm of 1 - x.")
_LOG_RATIO = [(-1) ** k / (k + 1) for k in range(30)]


def _log_ratio(x: Any) -> Any:
    """log(1 + x) / x."""
    return _near_zero(x, _LOG_RATIO, lambda x: log1p(x) / x, 0.25)


lpmv = _special(
    "lpmv",
    None,
    None,
    lambda t, m, v, x, out: t * ((v * x * out - _lpmv_below(m, v, x)) / (x * x - 1)),
    arrays=("m", "v", "x"),
    doc="The associated Legendre function of order m and degree v, for |x| < 1.",
)


def _lpmv_below(m: Any, v: Any, x: Any) -> Any:
    """(v + m) * lpmv(m, v - 1, x), without the degree below those for which it is 0."""
    m, v, x = _arrays(m, v, x)
    return (v + m) * lpmv(m, where(v + m == 0, v, v - 1), x)


# ---- Bessel functions

# I1(x) / x and J1(x) / x in powers of x * x
_I1_RATIO = [0.5 / (4**k * math.factorial(k) * math.factorial(k + 1)) for k in range(12)]
_J1_RATIO = [(-1) ** k * c for k, c in enumerate(_I1_RATIO)]


def _hankel(n: int) -> list[float]:
    """Hankel's coefficients in powers of 25 / x (Abramowitz and Stegun 9.7.2)."""
    out = [1.0]
    for k in range(1, 20):
        out.append(out[-1] * (4 * n * n - (2 * k - 1) ** 2) / (8 * k * 25))
    return out


_K1_LESS_K0 = [b - a for a, b in zip(_hankel(0), _hankel(1), strict=True)]
_I0_LESS_I1 = [-((-1) ** k) * c for k, c in enumerate(_K1_LESS_K0)]


def _over_x(x: Any, f: Callable, coefficients: Sequence[float]) -> Any:
    """f(x) / x for an odd f."""

    def series(x: Any) -> Any:
        return _polynomial(coefficients, x * x)

    return _piecewise(abs(x) < 1, x, series, lambda x: f(x) / x, 0, 1)


def _i0e_less_i1e(x: Any) -> Any:
    """i0e(x) - i1e(x) for x >= 0."""

    def far(x: Any) -> Any:
        return _polynomial(_I0_LESS_I1, 25 / x) / sqrt(2 * math.pi * x)

    return _piecewise(x > 25, x, far, lambda x: i0e(x) - i1e(x), 25, 0)


def _k1e_less_k0e(x: Any) -> Any:
    def far(x: Any) -> Any:
        return _polynomial(_K1_LESS_K0, 25 / x) * math.sqrt(0.5 * math.pi) / sqrt(x)

    return _piecewise(x > 25, x, far, lambda x: k1e(x) - k0e(x), 25, 1)


def _i1e_over_x(x: Any) -> Any:
    def series(x: Any) -> Any:
        return _polynomial(_I1_RATIO, x * x) * exp(-abs(x))

    return _piecewise(abs(x) < 1, x, series, lambda x: i1e(x) / x, 0, 1)


j0 = _special("j0", lambda t, x: -t * j1(x), doc="Bessel function of the first kind, order 0.")
j1 = _special(
    "j1",
    lambda t, x: t * (j0(x) - _over_x(x, j1, _J1_RATIO)),
    doc="Bessel function of the first kind, order 1.",
)
y0 = _special("y0", lambda t, x: -t * y1(x), doc="Bessel function of the second kind, order 0.")
y1 = _special(
    "y1",
    lambda t, x, out: t * (y0(x) - out / x),
    doc="Bessel function of the second kind, order 1.",
)
yn = _special(
    "yn",
    None,
    lambda t, n, x, out: t * (n * out / x - yn(n + 1, x)),
    arrays=("n", "x"),
    doc="Bessel function of the second kind, order n = 0, 1, ...",
)
i0 = _special("i0", lambda t, x: t * i1(x), doc="Modified Bessel function, order 0.")
i1 = _special(
    "i1",
    lambda t, x: t * (i0(x) - _over_x(x, i1, _I1_RATIO)),
    doc="Modified Bessel function, order 1.",
)
i0e = _special(
    "i0e",
    lambda t, x: t * (-sign(x) * _i0e_less_i1e(abs(x))),
    doc="exp(-|x|) * i0(x); derivative 0 at 0.",
)
i1e = _special(
    "i1e",
    lambda t, x: t * (_i0e_less_i1e(abs(x)) - _i1e_over_x(x)),
    doc="exp(-|x|) * i1(x).",
)
k0 = _special("k0", lambda t, x: -t * k1(x), doc="Modified Bessel function of the second kind.")
k1 = _special(
    "k1",
    lambda t, x, out: -t * (k0(x) + out / x),
    doc="Modified Bessel function of the second kind, order 1.",
)
k0e = _special("k0e", lambda t, x: -t * _k1e_less_k0e(x), doc="exp(x) * k0(x).")
k1e = _special("k1e", lambda t, x, out: t * (_k1e_less_k0e(x) - out / x), doc="exp(x) * k1(x).")


# ---- over axes


def _over_axes(name: str, f: Callable[..., Any], x: Any, axis: Any) -> Any:
    """f(x, axis=-1) over one axis, several, or all of them."""
    check_arrays(name, x)
    if isinstance(axis, int):
        return f(x, axis=axis)
    flat, parted = _merged(x, _axes(x.shape, axis))
    return parted(f(flat, axis=-1))


def softmax(x: Any, /, axis: Any = None) -> Any:
    """e**x over its sum over `axis` (None: all axes), without overflow.

    `gpugrad.softmax` is the same over the last axis.
    """
    return _over_axes("softmax", activations.softmax, x, axis)


def log_softmax(x: Any, /, axis: Any = None) -> Any:
    """log(softmax(x)) over `axis` (None: all axes), without overflow."""
    return _over_axes("log_softmax", activations.log_softmax, x, axis)
