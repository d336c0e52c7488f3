"""Sequences: padding, convolution and correlation, interpolation, the trapezoidal rule.

NumPy's functions of these names, with NumPy's arguments.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.lib.array_utils import normalize_axis_index

from ..rules import bilinear, check_arrays, constant, general, xp
from .elementwise import clip, conj, remainder, where
from .indexing import take
from .manipulation import broadcast_to, concat, flip, moveaxis

__all__ = [
    "convolve",
    "correlate",
    "interp",
    "pad",
    "trapezoid",
]

# ---- padding


@general(
    (
        lambda t, widths, shape: t[
            tuple(slice(before, before + n) for (before, _), n in zip(widths, shape, strict=True))
        ],
    ),
    (lambda t, widths: _pad(t, widths=widths, values=0),),
)
def _pad(x: Any, /, *, widths: tuple[tuple[int, int], ...], values: Any) -> Any:
    return xp(x).pad(x, widths, "constant", constant_values=values) if widths else x.copy()


_CONTINUED = ("edge", "reflect", "symmetric", "wrap")


def pad(x: Any, /, pad_width: Any, mode: str = "constant", *, constant_values: Any = 0) -> Any:
    """`x` with `pad_width` more elements before and after each axis.

    Args:
        pad_width: an integer, a pair (before, after), or a pair for each axis.
        mode: what they are: "constant", "edge" (the outermost element), "reflect" (mirrored at
            the outermost element), "symmetric" (mirrored behind it) or "wrap" (from the other end).
        constant_values: of mode "constant": a number, a pair, or a pair for each axis.

    Raises:
        ValueError: for another mode, widths that are negative or do not fit, and for an axis
            without elements that is to be continued; TypeError: for widths that are no integers.
    """
    check_arrays("pad", x)
    widths = np.asarray(pad_width)
    if widths.dtype.kind not in "iu":
        raise TypeError(f"pad: pad_width holds integers, not {widths.dtype}")
    pairs = _pairs("pad_width", widths, x)
    if any(n < 0 for pair in pairs for n in pair):
        raise ValueError(f"pad: widths must not be negative, got {pad_width}")
    if mode not in ("constant", *_CONTINUED):
        raise ValueError(f"pad: mode is 'constant' or one of {_CONTINUED}, not {mode!r}")
    if mode == "constant" or not widths.any():
        values = _pairs("constant_values", np.asarray(constant_values), x)
        return _pad(x, widths=pairs, values=values)
    for axis, pair in enumerate(pairs):
        if any(pair) and not x.shape[axis]:
            raise ValueError(f"pad: axis {axis} of shape {x.shape} has nothing to continue")
    for axis, pair in enumerate(pairs):
        if any(pair):
            x = concat(_continued(x, axis, pair, mode), axis=axis)
    return x


def _pairs(what: str, values: np.ndarray, x: Any) -> tuple[tuple[Any, Any], ...]:
    """The values for before and after each axis of `x`."""
    try:
        return tuple((a, b) for a, b in np.broadcast_to(values, (x.ndim, 2)).tolist())
    except ValueError:
        raise ValueError(
            f"pad: {what} of shape {values.shape} is no pair per axis of shape {x.shape}"
        ) from None


def _continued(x: Any, axis: int, pair: Any, mode: str) -> list[Any]:
    """The pieces of `x` whose concatenation is padded along `axis`: `x`, slices and mirrors of it.

    Slices and not indices, because their transpose is deterministic on a GPU.
    """
    index: Any = np.pad(np.arange(x.shape[axis]), pair, mode=mode)  # type: ignore[call-overload]
    before, after = index[: pair[0]], index[index.size - pair[1] :]
    return [*_runs(x, axis, before.tolist()), x, *_runs(x, axis, after.tolist())]


def _runs(x: Any, axis: int, index: list[int]) -> list[Any]:
    """Slices of `x` along `axis`, mirrored or repeated, that together are its elements `index`."""
    front = (slice(None),) * axis
    pieces = []
    start = 0
    while start < len(index):
        step = index[start + 1] - index[start] if start + 1 < len(index) else 1
        if step not in (-1, 0, 1):  # a jump: a run of one
            step = 1
        stop = start + 1
        while stop < len(index) and index[stop] - index[stop - 1] == step:
            stop += 1
        low, high = sorted((index[start], index[stop - 1]))
        piece = x[(*front, slice(low, high + 1))]
        if step == 0:
            piece = broadcast_to(piece, (*x.shape[:axis], stop - start, *x.shape[axis + 1 :]))
        pieces.append(flip(piece, axis=axis) if step == -1 else piece)
        start = stop
    return pieces


# ---- convolution


@bilinear(
    lambda t, b, mode: _convolve(t, flip(b), mode="valid" if mode == "full" else "full"),
    lambda t, a, mode: (
        _convolve(t, flip(a), mode="valid")
        if mode == "full"
        else _convolve(flip(a), t, mode="valid")
    ),
)
def _convolve(a: Any, b: Any, /, *, mode: str) -> Any:
    return xp(a).convolve(a, b, mode)


def _convolved(name: str, a: Any, b: Any, mode: str, start: int) -> Any:
    """`mode` of the convolution of `a` with a `b` that is no longer; "same" from `start` on."""
    if mode == "same":
        return _convolve(a, b, mode="full")[start : start + a.shape[0]]
    if mode not in ("full", "valid"):
        raise ValueError(f"{name}: mode is 'full', 'same' or 'valid', not {mode!r}")
    return _convolve(a, b, mode=mode)


def _check_sequences(name: str, a: Any, b: Any) -> None:
    check_arrays(name, a, b)
    if a.ndim != 1 or b.ndim != 1 or not a.shape[0] or not b.shape[0]:
        raise ValueError(
            f"{name}: two sequences with one axis and an element at least are needed, got shapes "
            f"{a.shape} and {b.shape}"
        )


def convolve(a: Any, v: Any, /, mode: str = "full") -> Any:
    """sum_j a[k-j] v[j] of two sequences, of m and n elements.

    Args:
        mode: "full" has all m + n - 1 elements where they overlap, "same" the max(m, n) in the
            middle, "valid" the max(m, n) - min(m, n) + 1 where they overlap completely.

    Raises:
        ValueError: for another mode, and for arrays that are not 1-d or empty.
    """
    _check_sequences("convolve", a, v)
    if a.shape[0] < v.shape[0]:
        a, v = v, a
    return _convolved("convolve", a, v, mode, (v.shape[0] - 1) // 2)


def correlate(a: Any, v: Any, /, mode: str = "valid") -> Any:
    """sum_n a[n+k] conj(v[n]) of two sequences, `mode` as in `convolve`.

    Raises:
        ValueError: as `convolve`.
    """
    _check_sequences("correlate", a, v)
    v = flip(conj(v))
    if a.shape[0] < v.shape[0]:
        return _convolved("correlate", v, a, mode, a.shape[0] // 2)
    return _convolved("correlate", a, v, mode, (v.shape[0] - 1) // 2)


# ---- interpolation and integration


@constant
def _order(x: Any, /) -> Any:
    return xp(x).argsort(x)


@constant
def _interval(knots: Any, x: Any, /) -> Any:
    """The number of the interval between `knots` that each `x` lies in, from the right."""
    return xp(x).clip(xp(x).searchsorted(knots, x, side="right") - 1, 0, max(knots.shape[0] - 2, 0))


def interp(
    x: Any, xp: Any, fp: Any, left: Any = None, right: Any = None, period: float | None = None
) -> Any:
    """The values at `x` of the polygon through the points (xp[i], fp[i]).

    Differentiable in `x`, `xp` and `fp`. At a knot the derivative in `x` is the slope to its right,
    at the last knot the slope to its left, beyond the ends zero.

    Args:
        x: real, of any shape.
        xp: real and increasing (this is not looked at), shape (n,).
        fp: real or complex, shape (n,).
        left, right: the values beyond the ends; the first and the last of `fp` by default.
        period: `x` and `xp` are taken modulo `period`, and `xp` need not be sorted.

    Raises:
        ValueError: if `xp` and `fp` are not two sequences of one length, or `period` is 0.
        TypeError: for complex `x` or `xp`.
    """
    check_arrays("interp", x, xp, fp)
    if xp.ndim != 1 or xp.shape != fp.shape or not xp.shape[0]:
        raise ValueError(
            f"interp: xp and fp must be sequences of one length, got {xp.shape} and {fp.shape}"
        )
    if x.dtype.kind == "c" or xp.dtype.kind == "c":
        raise TypeError(f"interp: positions are real, got {x.dtype} and {xp.dtype}")
    if period is not None:
        if period == 0:
            raise ValueError("interp: period must not be 0")
        period = abs(period)
        x, xp = remainder(x, period), remainder(xp, period)
        order = _order(xp)
        xp, fp = take(xp, order, axis=0), take(fp, order, axis=0)
        xp = concat([xp[-1:] - period, xp, xp[:1] + period])
        fp = concat([fp[-1:], fp, fp[:1]])
        left = right = None
    inside = clip(x, xp[0], xp[-1])
    i = _interval(xp, inside)
    j = i + 1 if xp.shape[0] > 1 else i
    start, first = take(xp, i, axis=0), take(fp, i, axis=0)
    width = take(xp, j, axis=0) - start
    share = (inside - start) / where(width == 0, 1, width)
    out = first + (take(fp, j, axis=0) - first) * share
    out = out if left is None else where(x < xp[0], left, out)
    return out if right is None else where(x > xp[-1], right, out)


def trapezoid(y: Any, /, x: Any = None, dx: Any = 1.0, axis: int = -1) -> Any:
    """The integral of `y` along `axis` by the trapezoidal rule.

    Args:
        x: the positions, of the shape of `y` or of one axis; evenly spaced by `dx` where None.
    """
    check_arrays("trapezoid", y)
    axis = normalize_axis_index(axis, y.ndim)
    y = moveaxis(y, axis, -1)
    if x is not None:
        check_arrays("trapezoid", x)
        x = x if x.ndim == 1 else moveaxis(x, axis, -1)
        dx = x[..., 1:] - x[..., :-1]
    return (dx * (y[..., 1:] + y[..., :-1]) / 2).sum(axis=-1)
