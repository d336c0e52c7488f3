"""Reductions and cumulative operations: array API standard 2025.12, "Statistical Functions",
"Utility Functions", "Searching Functions", and log-sum-exp.

`axis` is None (all axes), an integer or a tuple of integers; these axes are left out of the result,
or kept with length 1 by `keepdims=True`. An axis that is not there is an `IndexError` and a
`ValueError`. Where several elements attain a maximum they share the derivative evenly.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.lib.array_utils import normalize_axis_index, normalize_axis_tuple

from .. import backends
from ..rules import _spread, check_arrays, constant, general, linear, raw, reduction, xp
from .activations import softmax
from .creation import ones_like
from .elementwise import conj, isnan, not_equal, where
from .manipulation import _broadcast_to, broadcast_to, concat, flip, moveaxis, reshape

__all__ = [
    "all",
    "any",
    "argmax",
    "argmin",
    "count_nonzero",
    "cumulative_prod",
    "cumulative_sum",
    "diff",
    "logsumexp",
    "max",
    "mean",
    "min",
    "prod",
    "std",
    "sum",
    "var",
]


def _axes(shape: tuple[int, ...], axis: Any) -> tuple[int, ...]:
    if axis is None:
        return tuple(range(len(shape)))
    return normalize_axis_tuple(axis, len(shape))


def _checked(axis: Any, x: Any) -> Any:
    """`axis`, which CuPy does not check everywhere."""
    return axis if axis is None else _axes(x.shape, axis)


def _count(shape: tuple[int, ...], axis: Any) -> int:
    return math.prod(shape[i] for i in _axes(shape, axis))


def _merged(x: Any, axes: Sequence[int]) -> tuple[Any, Callable[[Any], Any]]:
    """`x` with `axes` made into one, the last; and the function that takes that apart again."""
    ends = tuple(range(-len(axes), 0))
    moved = moveaxis(x, axes, ends)
    flat = reshape(moved, (*moved.shape[: x.ndim - len(axes)], _count(x.shape, axes)))
    return flat, lambda y: moveaxis(reshape(y, moved.shape), ends, axes)


@linear(lambda t, shape, axis, keepdims: _broadcast_to(_spread(t, shape, axis, keepdims), to=shape))
def sum(x: Any, /, axis: Any = None, *, dtype: Any = None, keepdims: bool = False) -> Any:
    """The sum over `axis`; 0 of no elements.

    Args:
        axis: None for all axes, an integer, or a tuple of integers.
        dtype: of the addition and the result. Where None that of `x`, but int64 for booleans and
            smaller signed integers, uint64 for smaller unsigned ones.
        keepdims: keep the reduced axes with length 1.

    Raises:
        IndexError, ValueError: (one exception that is both) if there is no such axis.
    """
    return xp(x).sum(x, axis=axis, dtype=dtype, keepdims=keepdims)


@linear(
    lambda t, shape, axis, keepdims: broadcast_to(
        _spread(t * (1 / (_count(shape, axis) or math.nan)), shape, axis, keepdims), shape
    )
)
def mean(x: Any, /, axis: Any = None, *, keepdims: bool = False) -> Any:
    """The arithmetic mean over `axis`; NaN of no elements. float64 of integers and booleans.

    Args:
        axis, keepdims: as in `sum`.
    """
    return xp(x).mean(x, axis=axis, keepdims=keepdims)


def _centred(x: Any, axis: Any) -> Any:
    return x - mean(x, axis=axis, keepdims=True)


@general(
    (
        lambda t, x, shape, axis, correction, keepdims: (
            _spread(t * (2 / _freedom(shape, axis, correction)), shape, axis, keepdims)
            * conj(_centred(x, axis))
        ),
    ),
    (
        lambda t, x, shape, axis, correction, keepdims: (
            t * conj(_centred(x, axis)) * (2 / _freedom(shape, axis, correction))
        ).sum(axis=axis, keepdims=keepdims),
    ),
)
def var(x: Any, /, axis: Any = None, *, correction: float = 0.0, keepdims: bool = False) -> Any:
    """The variance over `axis`: the sum of squared deviations over N - correction.

    Of complex numbers it is that of the distances from the mean, and real.

    Args:
        correction: 0 for the variance of a population, 1 for the unbiased one of a sample.
        axis, keepdims: as in `sum`.
    """
    return xp(x).var(x, axis=_checked(axis, x), ddof=correction, keepdims=keepdims)


def _freedom(shape: tuple[int, ...], axis: Any, correction: float) -> float:
    return (_count(shape, axis) - correction) or math.nan


@reduction(
    lambda x, out, shape, axis, correction, keepdims: (
        conj(_centred(x, axis))
        / _nonzero(_spread(out, shape, axis, keepdims) * _freedom(shape, axis, correction))
    )
)
def std(x: Any, /, axis: Any = None, *, correction: float = 0.0, keepdims: bool = False) -> Any:
    """The standard deviation over `axis`, the square root of `var`; derivative 0 where it is 0.

    Args:
        axis, correction, keepdims: as in `var`.
    """
    return xp(x).std(x, axis=_checked(axis, x), ddof=correction, keepdims=keepdims)


def _nonzero(x: Any) -> Any:
    return where(x == 0, 1, x)


def _winners(x: Any, out: Any, shape: tuple[int, ...], axis: Any, keepdims: bool) -> Any:
    """An equal share for every element that attains the extremum `out`; of NaN, for the NaN."""
    best = _spread(out, shape, axis, keepdims)
    attains = (x == best) | isnan(x)
    return (attains / attains.sum(axis=axis, keepdims=True)).astype(out.dtype)


@reduction(_winners)
def max(x: Any, /, axis: Any = None, *, keepdims: bool = False) -> Any:
    """The largest element over `axis`, in the dtype of `x`; NaN if there is one.

    Elements that attain it share the derivative evenly.

    Args:
        axis, keepdims: as in `sum`.

    Raises:
        ValueError: of no elements.
    """
    return xp(x).max(x, axis=axis, keepdims=keepdims)


@reduction(_winners)
def min(x: Any, /, axis: Any = None, *, keepdims: bool = False) -> Any:
    """The smallest element over `axis`, in the dtype of `x`; NaN if there is one.

    Elements that attain it share the derivative evenly.

    Args:
        axis, keepdims: as in `sum`.

    Raises:
        ValueError: of no elements.
    """
    return xp(x).min(x, axis=axis, keepdims=keepdims)


@reduction(lambda x, axis: _product_of_others(x, axis))
def prod(x: Any, /, axis: Any = None, *, dtype: Any = None, keepdims: bool = False) -> Any:
    """The product over `axis`; 1 of no elements. Its derivative is right where factors are zero.

    Args:
        axis, dtype, keepdims: as in `sum`.
    """
    return xp(x).prod(x, axis=axis, dtype=dtype, keepdims=keepdims)


def _product_of_others(x: Any, axis: Any) -> Any:
    """Per element the product of the other elements over `axis`, without a division."""
    axes = _axes(x.shape, axis)
    if not axes:
        return ones_like(x)
    flat, parted = _merged(x, axes)
    one = ones_like(flat[..., :1])
    before = cumulative_prod(concat([one, flat[..., :-1]], axis=-1), axis=-1)
    after = concat([flat[..., 1:], one], axis=-1)
    after = flip(cumulative_prod(flip(after, axis=-1), axis=-1), axis=-1)
    return parted(before * after)


@reduction(lambda x, axis: softmax(x, axis=axis))
def _logsumexp(x: Any, /, *, axis: Any, keepdims: bool) -> Any:
    return xp(x).logsumexp(x, axis, keepdims)


def logsumexp(x: Any, /, axis: Any = None, *, keepdims: bool = False) -> Any:
    """log(sum(e**x)) over `axis`, without overflow; -inf where all elements are, and of none.

    Args:
        x: real; float64 is the result for integers.
        axis, keepdims: as in `sum`.
    """
    check_arrays("logsumexp", x)
    if isinstance(axis, int):
        return _logsumexp(x, axis=axis, keepdims=keepdims)
    axes = range(x.ndim) if axis is None else normalize_axis_tuple(axis, x.ndim, "logsumexp")
    out = _logsumexp(_merged(x, axes)[0], axis=-1, keepdims=False)
    if keepdims:
        out = reshape(out, tuple(1 if i in axes else n for i, n in enumerate(x.shape)))
    return out


@constant
def all(x: Any, /, axis: Any = None, *, keepdims: bool = False) -> Any:
    """Whether all elements over `axis` are non-zero (NaN is); true of none. Booleans.

    Args:
        axis, keepdims: as in `sum`.
    """
    return xp(x).all(x, axis=axis, keepdims=keepdims)


@constant
def any(x: Any, /, axis: Any = None, *, keepdims: bool = False) -> Any:
    """Whether an element over `axis` is non-zero (NaN is); false of none. Booleans.

    Args:
        axis, keepdims: as in `sum`.
    """
    return xp(x).any(x, axis=axis, keepdims=keepdims)


@constant
def argmax(x: Any, /, axis: int | None = None, *, keepdims: bool = False) -> Any:
    """The index of the first largest element along `axis`: int64; NaN is the largest.

    Args:
        axis: an integer; None for the index in the flat array.
        keepdims: keep the reduced axes with length 1.

    Raises:
        ValueError: of no elements.
    """
    return xp(x).argmax(x, axis=axis, keepdims=keepdims)


@constant
def argmin(x: Any, /, axis: int | None = None, *, keepdims: bool = False) -> Any:
    """The index of the first smallest element along `axis`: int64; NaN is the smallest.

    Args:
        axis: an integer; None for the index in the flat array.
        keepdims: keep the reduced axes with length 1.

    Raises:
        ValueError: of no elements.
    """
    return xp(x).argmin(x, axis=axis, keepdims=keepdims)


@constant
def count_nonzero(x: Any, /, axis: Any = None, *, keepdims: bool = False) -> Any:
    """How many elements over `axis` are not zero: int64.

    Args:
        axis, keepdims: as in `sum`.
    """
    return xp(x).count_nonzero(x, axis=axis, keepdims=keepdims)


# ---- cumulative


def _only_axis(x: Any, axis: int | None) -> int:
    if axis is None:
        if x.ndim != 1:
            raise ValueError(f"axis is needed for {x.ndim} axes")
        return 0
    return axis


def _with_initial(out: Any, value: int, axis: int) -> Any:
    shape = tuple(1 if i == axis % out.ndim else n for i, n in enumerate(out.shape))
    return xp(out).concatenate([xp(out).full(shape, value, out.dtype), out], axis=axis)


def _without_initial(t: Any, axis: int, include_initial: bool) -> Any:
    if not include_initial:
        return t
    return t[(slice(None),) * (axis % t.ndim) + (slice(1, None),)]


def _uncumulate(t: Any, axis: int | None, include_initial: bool) -> Any:
    axis = _only_axis(t, axis)
    t = _without_initial(t, axis, include_initial)
    return flip(cumulative_sum(flip(t, axis=axis), axis=axis), axis=axis)


@linear(_uncumulate)
def cumulative_sum(
    x: Any, /, axis: int | None = None, *, dtype: Any = None, include_initial: bool = False
) -> Any:
    """The running sum along `axis`, which may be left out for one axis only.

    Args:
        dtype: as in `sum`.
        include_initial: put a 0 in front; the axis then is one longer.

    Raises:
        ValueError: if there is no such axis, or none is given for several.
    """
    axis = _only_axis(x, axis)
    out = xp(x).cumsum(x, axis=axis, dtype=dtype)
    return _with_initial(out, 0, axis) if include_initial else out


def _shifted(x: Any, axis: int, first: Any) -> Any:
    """`x` moved on by one along `axis`, with `first` in front."""
    return concat([first, x[(slice(None),) * axis + (slice(None, -1),)]], axis=axis)


def _recurrence(a: Any, b: Any, axis: int) -> Any:
    """y[i] = a[i] * y[i-1] + b[i] along `axis`, y[-1] = 0, in log2(n) steps on whole arrays.

    The recursive doubling of Hillis and Steele (1986).
    """
    step = 1
    while step < a.shape[axis]:
        head, tail, back = (
            (*(slice(None),) * axis, part)
            for part in (slice(step), slice(step, None), slice(None, -step))
        )
        b = concat([b[head], b[tail] + a[tail] * b[back]], axis=axis)
        a = concat([a[head], a[tail] * a[back]], axis=axis)
        step *= 2
    return b


def _cumulative_prod_vjp(t: Any, x: Any, axis: int | None, include_initial: bool) -> Any:
    axis = _only_axis(x, axis) % x.ndim
    t = _without_initial(t, axis, include_initial)
    first = ones_like(x[(slice(None),) * axis + (slice(1),)])
    before = _shifted(cumulative_prod(x, axis=axis), axis, first)
    back = flip(x, axis=axis)
    factors = _shifted(back, axis, first * 0)
    return before * flip(_recurrence(factors, flip(t, axis=axis), axis), axis=axis)


def _cumulative_prod_jvp(t: Any, x: Any, axis: int | None, include_initial: bool) -> Any:
    axis = _only_axis(x, axis) % x.ndim
    first = ones_like(x[(slice(None),) * axis + (slice(1),)])
    before = _shifted(cumulative_prod(x, axis=axis), axis, first)
    out = _recurrence(x, before * t, axis)
    return concat([first * 0, out], axis=axis) if include_initial else out


@general((_cumulative_prod_vjp,), (_cumulative_prod_jvp,))
def cumulative_prod(
    x: Any, /, axis: int | None = None, *, dtype: Any = None, include_initial: bool = False
) -> Any:
    """The running product along `axis`, which may be left out for one axis only.

    Its derivative is right where factors are zero.

    Args:
        dtype: as in `sum`.
        include_initial: put a 1 in front; the axis then is one longer.

    Raises:
        ValueError: if there is no such axis, or none is given for several.
    """
    axis = _only_axis(x, axis)
    out = xp(x).cumprod(x, axis=axis, dtype=dtype)
    return _with_initial(out, 1, axis) if include_initial else out


# ---- differences


def diff(x: Any, /, *, axis: int = -1, n: int = 1, prepend: Any = None, append: Any = None) -> Any:
    """The differences of neighbours along `axis`, x[i + 1] - x[i], taken `n` times.

    Args:
        x: at least one axis; of booleans the difference is whether they differ.
        prepend, append: put before and after `x` first: arrays of its shape, but of any length
            along `axis`, or numbers for one element.

    Returns:
        As long along `axis` as `x` and what is joined to it, less `n`, but not below 0.

    Raises:
        ValueError: if there is no such axis, shapes do not fit, or `n` is negative.
    """
    check_arrays("diff", x)
    axis = normalize_axis_index(axis, x.ndim, "diff")
    if n < 0:
        raise ValueError(f"diff: n must not be negative, got {n}")
    ends = [_end(x, axis, value) for value in (prepend, append)]
    parts = [part for part in (ends[0], x, ends[1]) if part is not None]
    out = concat(parts, axis=axis) if len(parts) > 1 else +x if n == 0 else x
    lead = (slice(None),) * axis
    for _ in range(n):
        after, before = out[(*lead, slice(1, None))], out[(*lead, slice(None, -1))]
        out = not_equal(after, before) if out.dtype.kind == "b" else after - before
    return out


def _end(x: Any, axis: int, value: Any) -> Any:
    """What `diff` joins to `x`: a number as one element along `axis`."""
    if value is None or (hasattr(value, "ndim") and value.ndim):
        return value
    shape = tuple(1 if i == axis else n for i, n in enumerate(x.shape))
    if hasattr(value, "dtype"):
        return broadcast_to(value, shape)
    home = backends.backend_of(raw(x))
    with home.scope(home.device_of(raw(x))):
        return home.xp.full(shape, value, dtype=np.result_type(x.dtype, value))
