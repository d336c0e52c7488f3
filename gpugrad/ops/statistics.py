"""Statistics beyond the standard's: order statistics, averages, covariance, and NaN left out.

NumPy's functions of these names, with NumPy's arguments. Where several elements have the value of
an order statistic they share its derivative evenly, as with `max`.
"""

from __future__ import annotations

import functools
import math
import operator
from typing import Any

import numpy as np

from ..rules import check_arrays, constant, general, linear, xp
from ..tensor import Tensor
from .dtypes import astype, is_inexact
from .elementwise import conj, isnan, real, sqrt, where
from .indexing import take
from .linalg import einsum, matmul
from .manipulation import concat, expand_dims, matrix_transpose, moveaxis, reshape, stack
from .reductions import _axes, _merged, _winners, all, max, mean, min, sum

__all__ = [
    "average",
    "bincount",
    "corrcoef",
    "cov",
    "median",
    "nanmax",
    "nanmean",
    "nanmin",
    "nansum",
    "percentile",
    "ptp",
    "quantile",
]

# ---- order statistics


def check_order(name: str, x: Any) -> None:
    """Raise a TypeError unless `x` is an array of real numbers."""
    check_arrays(name, x)
    if x.dtype.kind == "c":
        raise TypeError(f"{name}: complex numbers have no order ({x.dtype} {x.shape})")


def _shares(x: Any, best: Any) -> Any:
    return _winners(x, best, x.shape, -1, False)


def _order_statistics_vjp(t: Any, x: Any, out: Any, ranks: tuple[int, ...]) -> Any:
    terms = [expand_dims(t[i], -1) * _shares(x, out[i]) for i in range(len(ranks))]
    return functools.reduce(operator.add, terms)


def _order_statistics_jvp(t: Any, x: Any, out: Any, ranks: tuple[int, ...]) -> Any:
    return stack([(t * _shares(x, out[i])).sum(axis=-1) for i in range(len(ranks))])


@general((_order_statistics_vjp,), (_order_statistics_jvp,))
def _order_statistics(x: Any, /, *, ranks: tuple[int, ...]) -> Any:
    """The elements of these ranks along the last axis, one after the other along a new first one.

    NaN where there is one in the row, as it is sorted to the end.
    """
    ordered = xp(x).sort(x, axis=-1)
    out = ordered[..., list(ranks)]
    if is_inexact(x.dtype):
        last = ordered[..., -1:]
        out = xp(x).where(last != last, last, out)
    return xp(x).moveaxis(out, -1, 0)


def _mixture(position: float, method: str) -> list[tuple[int, float]]:
    """The ranks that a quantile at `position` is made of, with their weights."""
    low, high = math.floor(position), math.ceil(position)
    rank = {"lower": low, "higher": high, "nearest": round(position)}.get(method)
    if rank is not None or low == high:
        return [(low if rank is None else rank, 1.0)]
    weight = 0.5 if method == "midpoint" else position - low
    return [(low, 1 - weight), (high, weight)]


_METHODS = ("linear", "lower", "higher", "nearest", "midpoint")


def _quantile(
    name: str, x: Any, q: Any, whole: float, axis: Any, method: str, keepdims: bool
) -> Any:
    check_arrays(name, x)
    if method not in _METHODS:
        raise ValueError(f"{name}: method is one of {_METHODS}, not {method!r}")
    if isinstance(q, Tensor):
        raise TypeError(f"{name}: q is a number or several on the host, not a Tensor")
    q = np.asarray(q, np.float64) / whole
    if not ((q >= 0) & (q <= 1)).all():
        raise ValueError(f"{name}: q must lie between 0 and {whole:g}, got {q * whole}")
    check_order(name, x)
    axes = _axes(x.shape, axis)
    rows, _ = _merged(x, axes)
    *kept, count = rows.shape
    if not count:
        raise ValueError(f"{name}: of no elements (axis {axis} of shape {x.shape})")
    if not is_inexact(x.dtype) and method in ("linear", "midpoint"):
        rows = astype(rows, np.float64)
    mixtures = [_mixture(fraction * (count - 1), method) for fraction in q.reshape(-1).tolist()]
    ranks = tuple(dict.fromkeys(rank for mixture in mixtures for rank, _ in mixture))
    values = _order_statistics(rows, ranks=ranks)
    found = []
    for (rank, weight), *more in mixtures:
        value = values[ranks.index(rank)]
        for next_rank, next_weight in more:
            value = value * weight + values[ranks.index(next_rank)] * next_weight
        found.append(value)
    if keepdims:
        kept = [1 if i in axes else n for i, n in enumerate(x.shape)]
    return reshape(found[0] if len(found) == 1 else stack(found), (*q.shape, *kept))


def quantile(
    x: Any, /, q: Any, axis: Any = None, *, method: str = "linear", keepdims: bool = False
) -> Any:
    """The value below which the fraction `q` of the elements over `axis` lies; NaN if one is NaN.

    Args:
        q: a number between 0 and 1, or several, on the host; their axes come first in the result.
        method: where `q` falls between two elements: "linear" interpolates, "midpoint" takes the
            mean, "lower", "higher" and "nearest" one of them (Hyndman and Fan 1996, definition 7).

    Raises:
        ValueError: for `q` out of range, another method, or no elements.
        TypeError: for complex numbers, and for `q` on a device.
    """
    return _quantile("quantile", x, q, 1, axis, method, keepdims)


def percentile(
    x: Any, /, q: Any, axis: Any = None, *, method: str = "linear", keepdims: bool = False
) -> Any:
    """`quantile` with `q` in percent.

    Raises:
        ValueError, TypeError: as `quantile`.
    """
    return _quantile("percentile", x, q, 100, axis, method, keepdims)


def median(x: Any, /, axis: Any = None, *, keepdims: bool = False) -> Any:
    """The element in the middle over `axis`, or the mean of the two there; NaN if one is NaN.

    Raises:
        ValueError: of no elements; TypeError: for complex numbers.
    """
    return _quantile("median", x, 0.5, 1, axis, "midpoint", keepdims)


def ptp(x: Any, /, axis: Any = None, *, keepdims: bool = False) -> Any:
    """The range over `axis`: the largest minus the smallest element."""
    check_order("ptp", x)
    return max(x, axis=axis, keepdims=keepdims) - min(x, axis=axis, keepdims=keepdims)


# ---- averages and covariance


def average(x: Any, /, axis: Any = None, weights: Any = None, *, keepdims: bool = False) -> Any:
    """sum(weights * x) / sum(weights) over `axis`; the mean where `weights` is None.

    Args:
        weights: of the shape of `x`, or of its axes `axis` alone. If they add up to zero the result
            is infinite or NaN.

    Raises:
        ValueError: if the shapes do not fit.
    """
    check_arrays("average", x)
    if weights is None:
        return mean(x, axis=axis, keepdims=keepdims)
    check_arrays("average", weights)
    if weights.shape != x.shape:
        axes = _axes(x.shape, axis)
        if axis is None or weights.shape != tuple(x.shape[i] for i in axes):
            raise ValueError(
                f"average: weights of shape {weights.shape} for axis {axis} of shape {x.shape}"
            )
        rest = (1,) * (x.ndim - len(axes))
        weights = moveaxis(reshape(weights, (*weights.shape, *rest)), tuple(range(len(axes))), axes)
    total = sum(weights, axis=axis, keepdims=keepdims)
    return sum(x * weights, axis=axis, keepdims=keepdims) / total


def _variables(x: Any, rowvar: bool) -> Any:
    """The observations as a matrix, one variable in each row."""
    if x.ndim > 2:
        raise ValueError(f"cov: one or two axes are needed, got shape {x.shape}")
    if x.ndim < 2:
        return reshape(x, (1, -1))
    return x if rowvar else matrix_transpose(x)


def cov(
    m: Any,
    /,
    y: Any = None,
    rowvar: bool = True,
    bias: bool = False,
    ddof: int | None = None,
) -> Any:
    """The covariance matrix of variables in the rows of `m` (and `y`), observations in its columns.

    Args:
        rowvar: False for variables in the columns.
        bias: divide by the number n of observations and not by n - 1.
        ddof: divide by n - ddof.

    Raises:
        ValueError: for more than two axes, and if the numbers of observations differ.
    """
    check_arrays("cov", m)
    rows = _variables(m, rowvar)
    if y is not None:
        check_arrays("cov", y)
        more = _variables(y, rowvar)
        if rows.shape[1] != more.shape[1]:
            raise ValueError(f"cov: {rows.shape[1]} and {more.shape[1]} observations")
        rows = concat([rows, more])
    rows = rows - mean(rows, axis=1, keepdims=True)
    freedom = rows.shape[1] - ((0 if bias else 1) if ddof is None else ddof)
    out = matmul(rows, matrix_transpose(conj(rows))) * (1 / freedom if freedom > 0 else math.nan)
    return reshape(out, ()) if out.shape == (1, 1) else out


def corrcoef(x: Any, /, y: Any = None, rowvar: bool = True) -> Any:
    """The matrix of correlation coefficients: `cov` over the standard deviations.

    Raises:
        ValueError: as `cov`.
    """
    out = cov(x, y, rowvar)
    if out.ndim == 0:
        return out / out
    deviation = sqrt(real(einsum("ii->i", out)))
    return out / expand_dims(deviation, 1) / deviation


# ---- NaN left out


def nansum(x: Any, /, axis: Any = None, *, keepdims: bool = False) -> Any:
    """The sum over `axis` of the elements that are not NaN."""
    return sum(where(isnan(x), 0, x), axis=axis, keepdims=keepdims)


def nanmean(x: Any, /, axis: Any = None, *, keepdims: bool = False) -> Any:
    """The mean over `axis` of the elements that are not NaN; NaN if there is none."""
    check_arrays("nanmean", x)
    dtype = x.dtype if is_inexact(x.dtype) else np.float64
    count = sum(~isnan(x), axis=axis, keepdims=keepdims).astype(dtype)
    return nansum(x, axis=axis, keepdims=keepdims) / where(count == 0, math.nan, count)


def nanmax(x: Any, /, axis: Any = None, *, keepdims: bool = False) -> Any:
    """The largest element over `axis` that is not NaN; NaN if there is none."""
    check_order("nanmax", x)
    largest = max(where(isnan(x), -math.inf, x), axis=axis, keepdims=keepdims)
    return where(all(isnan(x), axis=axis, keepdims=keepdims), math.nan, largest)


def nanmin(x: Any, /, axis: Any = None, *, keepdims: bool = False) -> Any:
    """The smallest element over `axis` that is not NaN; NaN if there is none."""
    check_order("nanmin", x)
    smallest = min(where(isnan(x), math.inf, x), axis=axis, keepdims=keepdims)
    return where(all(isnan(x), axis=axis, keepdims=keepdims), math.nan, smallest)


# ---- counting


@linear(lambda t, x: take(t, x, axis=0))
def _bincount(weights: Any, x: Any, /, *, minlength: int) -> Any:
    return xp(weights).bincount(x, weights, minlength)


@constant
def __bincount(x: Any, /, *, minlength: int) -> Any:
    return xp(x).bincount(x, None, minlength)


def bincount(x: Any, /, weights: Any = None, minlength: int = 0) -> Any:
    """How often each of 0, 1, ... max(x) occurs in `x`, or the sum of `weights` where it does.

    The length of the result depends on values: a GPU is waited for.

    Args:
        x: shape (n,), integers, not negative.
        weights: shape (n,), real; differentiable. Their sums are of float64.
        minlength: the result has this many elements at least.

    Raises:
        ValueError: for negative numbers, more axes, or weights of another shape.
        TypeError: if `x` does not hold integers, or `weights` holds complex numbers.
    """
    check_arrays("bincount", x)
    if x.dtype.kind not in "iu":
        raise TypeError(f"bincount: x holds integers, not {x.dtype}")
    if weights is None:
        return __bincount(x, minlength=minlength)
    check_arrays("bincount", weights)
    if weights.dtype.kind == "c":
        raise TypeError(f"bincount: weights are real, got {weights.dtype} {weights.shape}")
    return _bincount(weights, x, minlength=minlength)
