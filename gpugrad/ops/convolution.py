"""Convolution and pooling of images, as products with their patches (im2col).

Images have the shape (images, channels, rows, columns). A window is given by its `size`, and its
`stride`, `padding` (with zeros, on both sides) and `dilation`: an integer, or a pair for rows and
columns. It stands at (length + 2 padding - dilation (size - 1) - 1) // stride + 1 places.
"""

from __future__ import annotations

import math
import operator
from typing import Any

from ..rules import check_arrays, linear, xp
from .dtypes import iinfo, is_inexact
from .linalg import matmul
from .manipulation import expand_dims, permute_dims, reshape, squeeze
from .reductions import max, mean
from .signal import pad
from .statistics import check_order

Pair = tuple[int, int]


@linear(
    lambda t, shape, stride, padding, dilation: patch_sums(
        t, lengths=shape[2:], stride=stride, padding=padding, dilation=dilation
    )
)
def patches(x: Any, /, *, size: Pair, stride: Pair, padding: Pair, dilation: Pair) -> Any:
    """What a window sees: shape (channels, size, size, images, places, places)."""
    return xp(x).patches(x, size, stride, padding, dilation)


@linear(
    lambda t, shape, stride, padding, dilation: patches(
        t, size=shape[1:3], stride=stride, padding=padding, dilation=dilation
    )
)
def patch_sums(x: Any, /, *, lengths: Pair, stride: Pair, padding: Pair, dilation: Pair) -> Any:
    """The transpose of `patches`: images of `lengths` to which overlapping patches add up."""
    return xp(x).patch_sums(x, lengths, stride, padding, dilation)


def _window(
    name: str, x: Any, size: Any, stride: Any, padding: Any, dilation: Any
) -> dict[str, Pair]:
    """The options of `patches`, checked."""
    window = {
        "size": _pair(name, "size", size, 1),
        "stride": _pair(name, "stride", stride, 1),
        "padding": _pair(name, "padding", padding, 0),
        "dilation": _pair(name, "dilation", dilation, 1),
    }
    if x.ndim != 4:
        raise ValueError(
            f"{name}: images of shape (images, channels, rows, columns) are needed, got {x.shape}"
        )
    for n, k, p, d in zip(
        x.shape[2:], window["size"], window["padding"], window["dilation"], strict=True
    ):
        if n + 2 * p < d * (k - 1) + 1:
            raise ValueError(
                f"{name}: a window of size {size} (dilation {dilation}) is larger than images of "
                f"shape {x.shape} with padding {padding}"
            )
    return window


def _pair(name: str, what: str, value: Any, least: int) -> Pair:
    try:
        pair = (value, value) if hasattr(value, "__index__") else tuple(value)
        rows, columns = map(operator.index, pair)
    except (TypeError, ValueError):
        raise TypeError(f"{name}: {what} is an integer or two, not {value!r}") from None
    if rows < least or columns < least:
        raise ValueError(f"{name}: {what} must be at least {least}, got {value!r}")
    return rows, columns


def conv2d(
    x: Any,
    weight: Any,
    bias: Any = None,
    stride: int | Pair = 1,
    padding: int | Pair = 0,
    dilation: int | Pair = 1,
    groups: int = 1,
) -> Any:
    """The cross-correlation of images with `weight`, summed over channels, plus `bias`.

    It is one product of matrices with all patches, which are kept for the derivative: size * size /
    (stride * stride) times the memory of `x`, less at the borders.

    Args:
        x: shape (images, channels, rows, columns).
        weight: shape (outputs, channels / groups, size, size).
        bias: shape (outputs,).
        stride, padding, dilation: the step between windows, zeros around the images, the step
            between the entries that a window sees: an integer, or one for rows and one for columns.
        groups: that channels and outputs are divided into; each output sees its own group alone.

    Returns:
        Shape (images, outputs, places, places).

    Raises:
        ValueError: if shapes do not fit, or the window is larger than the padded images.
        TypeError: for options that are no integers.
    """
    check_arrays("conv2d", x, weight, *(() if bias is None else (bias,)))
    if weight.ndim != 4:
        raise ValueError(
            f"conv2d: weight must have shape (outputs, channels, size, size), got {weight.shape}"
        )
    outputs, channels, *size = weight.shape
    window = _window("conv2d", x, size, stride, padding, dilation)
    _check_fit("conv2d", x, weight, bias, groups)
    seen = patches(x, **window)
    images, *places = seen.shape[3:]
    inner = channels * math.prod(size)
    columns = reshape(seen, (groups, inner, images * math.prod(places)))
    out = matmul(reshape(weight, (groups, outputs // groups, inner)), columns)
    out = reshape(out, (outputs, images, *places))
    if bias is not None:
        out = out + reshape(bias, (outputs, 1, 1, 1))
    return permute_dims(out, (1, 0, 2, 3))


def _check_fit(name: str, x: Any, weight: Any, bias: Any, groups: int) -> None:
    outputs, channels = weight.shape[:2]
    if groups < 1 or outputs % groups or x.shape[1] != channels * groups:
        raise ValueError(
            f"{name}: weight of shape {weight.shape} does not fit x of shape {x.shape} "
            f"in {groups} groups"
        )
    if bias is not None and bias.shape != (outputs,):
        raise ValueError(f"{name}: bias must have shape ({outputs},), got {bias.shape}")


def conv1d(
    x: Any,
    weight: Any,
    bias: Any = None,
    stride: int = 1,
    padding: int = 0,
    dilation: int = 1,
    groups: int = 1,
) -> Any:
    """`conv2d` of sequences: `x` (sequences, channels, n), `weight` (outputs, channels, size).

    Raises:
        ValueError, TypeError: as `conv2d`.
    """
    check_arrays("conv1d", x, weight, *(() if bias is None else (bias,)))
    if x.ndim != 3 or weight.ndim != 3:
        raise ValueError(f"conv1d: x and weight have 3 axes, got shapes {x.shape}, {weight.shape}")
    _check_fit("conv1d", x, weight, bias, groups)
    x, weight = expand_dims(x, 2), expand_dims(weight, 2)
    options = {"stride": (1, stride), "padding": (0, padding), "dilation": (1, dilation)}
    return squeeze(conv2d(x, weight, bias, groups=groups, **options), 2)


def _pooled(name: str, x: Any, size: Any, stride: Any, padding: Any, reduce: Any) -> Any:
    check_arrays(name, x)
    window = _window(name, x, size, size if stride is None else stride, padding, 1)
    if any(2 * p > k for p, k in zip(window["padding"], window["size"], strict=True)):
        raise ValueError(f"{name}: padding {padding} is more than half of size {size}")
    return permute_dims(reduce(x, window), (1, 0, 2, 3))


def max_pool2d(
    x: Any, size: int | Pair, stride: int | Pair | None = None, padding: int | Pair = 0
) -> Any:
    """The largest element that a window sees; its derivative is shared evenly by all that are it.

    The patches are kept for the derivative, as with `conv2d`.

    Args:
        x: real, shape (images, channels, rows, columns).
        stride: that of `size` where None.
        padding: with the lowest number there is, at most half of `size`.

    Raises:
        ValueError: if shapes do not fit.
        TypeError: for complex numbers, and for options that are no integers.
    """

    def reduce(x: Any, window: dict[str, Pair]) -> Any:
        rows, columns = window["padding"]
        if rows or columns:
            widths = ((0, 0), (0, 0), (rows, rows), (columns, columns))
            lowest = -math.inf if is_inexact(x.dtype) else iinfo(x.dtype).min
            x = pad(x, widths, constant_values=lowest)
        return max(patches(x, **window | {"padding": (0, 0)}), axis=(1, 2))

    check_order("max_pool2d", x)
    return _pooled("max_pool2d", x, size, stride, padding, reduce)


def avg_pool2d(
    x: Any, size: int | Pair, stride: int | Pair | None = None, padding: int | Pair = 0
) -> Any:
    """The mean of what a window sees, the zeros of the padding included.

    Args:
        x: shape (images, channels, rows, columns).
        stride: that of `size` where None.
        padding: at most half of `size`.

    Raises:
        ValueError: if shapes do not fit; TypeError: for options that are no integers.
    """

    def reduce(x: Any, window: dict[str, Pair]) -> Any:
        return mean(patches(x, **window), axis=(1, 2))

    return _pooled("avg_pool2d", x, size, stride, padding, reduce)
