"""Special functions on NumPy arrays: short ones here, the rest from SciPy.

SciPy is imported when a function of its own is first asked for. What stands here works without it,
is right in both tails, and is the specification of kernels/special.cuh. Every function broadcasts
like a ufunc, computes two-byte floats in float32 and integers in float64, and never warns.
"""

from __future__ import annotations

import functools
import importlib
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from .backends import Namespace
from .twins import _TAIL_64, _quiet, _rational, erf, working_dtypes

Array = np.ndarray[Any, Any]

FUNCTIONS: dict[str, Callable[..., Array]] = {}


def over_floats(f: Callable[..., Any]) -> Callable[..., Array]:
    """Extend f, written for float32 and float64 arrays, to numbers and all real arrays."""

    @functools.wraps(f)
    def call(*args: Any) -> Array:
        work, result = working_dtypes(np.result_type(*args))
        out = f(*(np.asarray(x, work) for x in args))
        return np.asarray(out).astype(result, copy=False)

    return _quiet(call)


def _of_scipy(f: Callable[..., Any]) -> Callable[..., Array]:
    """f of SciPy's; integers beside floats stay integers, which some of its functions insist on."""

    def call(*args: Any) -> Array:
        work, result = working_dtypes(np.result_type(*args))
        kinds = [getattr(x, "dtype", work).kind for x in args]
        mixed = "f" in kinds and len(args) > 1
        out = f(
            *(
                x.astype(np.int64) if mixed and kind in "iu" else np.asarray(x, work)
                for x, kind in zip(args, kinds, strict=True)
            )
        )
        return np.asarray(out).astype(result, copy=False)

    return _quiet(call)


def _twin(f: Callable[..., Any]) -> Callable[..., Array]:
    FUNCTIONS[f.__name__] = over_floats(f)
    return FUNCTIONS[f.__name__]


def _in_float64(f: Callable[..., Array]) -> Callable[..., Array]:
    """f, written for vectors of float64."""

    @functools.wraps(f)
    def wide(*args: Array) -> Array:
        arrays = np.broadcast_arrays(*args)
        flat = [x.reshape(-1).astype(np.float64) for x in arrays]
        return f(*flat).reshape(arrays[0].shape).astype(args[0].dtype, copy=False)

    return wide


class SpecialFunctions(Namespace):
    """The functions of `FUNCTIONS`, then those of `scipy.special`."""

    def __init__(self) -> None:
        super().__init__(None, **FUNCTIONS)

    def __getattr__(self, name: str) -> Any:
        try:
            scipys = importlib.import_module("scipy.special")
        except ModuleNotFoundError as error:
            if error.name and error.name.partition(".")[0] == "scipy":
                raise ImportError(
                    f'special.{name} on the CPU is SciPy\'s: pip install "gpugrad[scipy]" brings it'
                ) from None
            raise
        function = _of_scipy(getattr(scipys, name))
        setattr(self, name, function)
        return function


# ---- the error function and the normal distribution


def _exp_of_square(x: Array, factor: float) -> Array:
    """exp(factor * x * x) without the rounding error of the square."""
    head = x.astype(np.float32).astype(np.float64)  # its square is exact
    rest = (x + head) * (x - head)
    return np.exp(factor * head * head) * np.exp(factor * rest)


def _scaled_tail(y: Array) -> Array:
    """exp(y * y / 2) * Phi(-y) for y >= 0, also where both factors leave the range."""
    out = _rational(_TAIL_64, np.minimum(y, 39.0))
    far = y > 39
    if far.any():
        # the asymptotic series 1 - 1/y^2 + 3/y^4 - ... (Abramowitz and Stegun 26.2.12)
        u = 1 / np.square(y[far])
        series = 1 - u * (1 - 3 * u * (1 - 5 * u * (1 - 7 * u * (1 - 9 * u))))
        out[far] = series / y[far] / math.sqrt(2 * math.pi)
    return out


@_twin
@_in_float64
def erfcx(x: Array) -> Array:
    """exp(x * x) * erfc(x)."""
    tail = 2 * _scaled_tail(math.sqrt(2) * np.abs(x))
    return np.where(x < 0, 2 * _exp_of_square(np.clip(x, -30, 0), 1.0) - tail, tail)


@_twin
@_in_float64
def erfc(x: Array) -> Array:
    """1 - erf(x)."""
    y = np.minimum(np.abs(x), 30.0)
    tail = 2 * _scaled_tail(math.sqrt(2) * y) * _exp_of_square(y, -1.0)
    return np.where(x < 0, 2 - tail, tail)


@_twin
@_in_float64
def ndtr(x: Array) -> Array:
    """The normal distribution function."""
    y = np.minimum(np.abs(x), 40.0)
    tail = _scaled_tail(y) * _exp_of_square(y, -0.5)
    return np.where(x > 0, 1 - tail, tail)


@_twin
@_in_float64
def log_ndtr(x: Array) -> Array:
    """log(ndtr(x))."""
    y = np.abs(x)
    tail = _scaled_tail(y)
    right = np.log1p(-tail * _exp_of_square(np.minimum(y, 40.0), -0.5))
    return np.where(x > 0, right, np.log(tail) - 0.5 * y * y)


@_twin
@_in_float64
def ndtri(p: Array) -> Array:
    """The inverse of ndtr: Abramowitz and Stegun 26.2.23, then three steps of Newton's method.

    The steps are for log(ndtr) in the tails, where they keep their digits down to the smallest p.
    """
    q = np.where((p > 0) & (p < 1), np.minimum(p, 1 - p), 0.5)
    log_q = np.log(q)
    t = np.sqrt(-2 * log_q)
    x = (2.515517 + t * (0.802853 + t * 0.010328)) / (
        1 + t * (1.432788 + t * (0.189269 + t * 0.001308))
    ) - t
    for _ in range(3):
        tail = _scaled_tail(np.abs(x))
        square = 0.5 * x * x
        middle = ((0.5 - q) - 0.5 * erf(-x * math.sqrt(0.5))) * np.exp(square)
        x = x - math.sqrt(2 * math.pi) * np.where(
            q > 0.2, middle, (np.log(tail) - square - log_q) * tail
        )
    x = np.where(p > 0.5, -x, x)
    x = np.where(p == 0, -np.inf, np.where(p == 1, np.inf, x))
    return np.where((p >= 0) & (p <= 1), x, np.nan)


# ---- logarithms and entropies


@_twin
def logit(x: Array) -> Array:
    """log(x / (1 - x))."""
    s = 2 * (x - 0.5)
    middle = np.abs(s) < 0.5
    s = np.where(middle, s, 0)
    return np.where(middle, np.log1p(s) - np.log1p(-s), np.log(x / (1 - x)))


@_twin
def xlogy(x: Array, y: Array) -> Array:
    """x * log(y), and 0 for x = 0."""
    return np.where((x == 0) & ~np.isnan(y), 0, x * np.log(y))


@_twin
def xlog1py(x: Array, y: Array) -> Array:
    """x * log(1 + y), and 0 for x = 0."""
    return np.where((x == 0) & ~np.isnan(y), 0, x * np.log1p(y))


@_twin
def entr(x: Array) -> Array:
    """-x * log(x), and -inf for x < 0."""
    return np.where(x < 0, -np.inf, np.where(x == 0, 0, -x * np.log(x)))


def _relative(x: Array, y: Array, positive: Array, at_zero: Any) -> Array:
    """`positive` inside the domain of a relative entropy, `at_zero` for x = 0, else inf."""
    out = np.where((x > 0) & (y > 0), positive, np.inf)
    out = np.where((x == 0) & (y >= 0), at_zero, out)
    return np.where(np.isnan(x) | np.isnan(y), np.nan, out)


@_twin
def rel_entr(x: Array, y: Array) -> Array:
    """x * log(x / y)."""
    return _relative(x, y, x * np.log(x / y), 0)


@_twin
def kl_div(x: Array, y: Array) -> Array:
    """x * log(x / y) - x + y."""
    return _relative(x, y, x * np.log(x / y) - x + y, y)


# ---- losses


@_twin
def huber(delta: Array, r: Array) -> Array:
    """r * r / 2 up to |r| = delta, from there on linear."""
    size = np.abs(r)
    out = np.where(size <= delta, 0.5 * r * r, delta * (size - 0.5 * delta))
    return np.where(delta < 0, np.inf, out)


@_twin
def pseudo_huber(delta: Array, r: Array) -> Array:
    """delta**2 * (sqrt(1 + (r / delta)**2) - 1), as delta * r * r / (delta + hypot(delta, r))."""
    size = np.abs(r)
    share = np.where(np.isinf(size), 1, size / (delta + np.hypot(delta, r)))
    out = np.where((delta == 0) | (r == 0), 0, delta * (size * share))
    return np.where(delta < 0, np.inf, out)


# ---- others


FUNCTIONS["cbrt"] = over_floats(np.cbrt)
FUNCTIONS["exp2"] = over_floats(np.exp2)
FUNCTIONS["sinc"] = over_floats(np.sinc)


# ---- the gamma distribution


def _digamma(x: Array) -> Array:
    """The logarithmic derivative of the gamma function, of positive x."""
    out = np.zeros_like(x)
    x = x.copy()
    for _ in range(10):
        low = x < 10
        out -= np.where(low, 1 / x, 0)
        x += low
    u = 1 / (x * x)
    # Abramowitz and Stegun 6.3.18
    series = u * (1 / 240 - u * (1 / 132 - u * 691 / 32760))
    series = u * (1 / 240 - u * (1 / 132 - u * 691 / 32760))
    series = 1 / 12 - u * (1 / 120 - u * (1 / 252 - series))
    return out + np.log(x) - 0.5 / x - u * series


_STEP = 7.3 / 63
_NODES = [-3.8 + _STEP * i for i in range(64)]


@_twin
@_in_float64
def gamma_slope(a: Array, z: Array) -> Array:
    """dz / da of the quantile z of the gamma distribution of shape a, the probability fixed.

    It is -(dF / da) / f for the distribution function F and the density f. Below z = 4 by the
    power series of F, above it as an integral without cancellation by the double exponential
    formula (Takahasi and Mori 1974); relative error 1e-11.
    """
    out = np.empty_like(z)
    for start in range(0, z.size, 1 << 12):
        piece = slice(start, start + (1 << 12))
        out[piece] = _slope(a[piece], z[piece])
    return out


def _slope(a: Array, z: Array) -> Array:
    log_ratio = np.log(z) - _digamma(a)
    out = np.where((a > 0) & (z >= 0), 0.0, np.nan)
    near, far = (a > 0) & (z > 0) & (z < 4), (a > 0) & (z >= 4)
    b, x, log_x = a[near], z[near], log_ratio[near]
    # F / f = z * total, with total = 1/a + z/(a (a+1)) + z^2/(a (a+1) (a+2)) + ...
    term = 1 / b
    falling, total, slope = 1 / b, term, -term / b
    for k in range(1, 50):
        term = term * x / (b + k)
        falling = falling + 1 / (b + k)
        total = total + term
        slope = slope - term * falling
    out[near] = -x * (total * log_x + slope)
    b, x, log_x = a[far], z[far], log_ratio[far]
    sign = np.where(x < b, -1.0, 1.0)
    scale = sign / (np.abs(b - x) + np.sqrt(x))
    area = np.zeros_like(x)
    for u in _NODES:
        y = math.exp(u - math.exp(-u))
        v = scale * y
        area += np.exp(b * v - x * np.expm1(v)) * (log_x + v) * (y * (1 + math.exp(-u)))
    out[far] = x * scale * area * _STEP
    return np.where(np.isnan(a) | np.isnan(z), np.nan, out)
