"""Shapes: array API standard 2025.12, section "Manipulation Functions". All linear."""

from __future__ import annotations

import itertools
import math
import operator
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.lib.array_utils import normalize_axis_index, normalize_axis_tuple

from .. import backends
from ..rules import check_arrays, linear, many, placed, raw, xp

__all__ = [
    "broadcast_arrays",
    "broadcast_shapes",
    "broadcast_to",
    "concat",
    "expand_dims",
    "flip",
    "matrix_transpose",
    "meshgrid",
    "moveaxis",
    "permute_dims",
    "repeat",
    "reshape",
    "roll",
    "squeeze",
    "stack",
    "tile",
    "tril",
    "triu",
    "unstack",
]


@linear(lambda t, shape: reshape(t, shape), views=True)
def _reshape(x: Any, /, *, to: tuple[int, ...], copy: Any = None) -> Any:
    return xp(x).reshape(x, to) if copy is None else xp(x).reshape(x, to, copy=copy)


def reshape(x: Any, /, shape: int | Sequence[int], *, copy: Any = None) -> Any:
    """`x` in another shape of the same size, in C order; one length may be -1.

    Raises:
        ValueError: if the sizes differ, or `copy=False` and a copy is needed.
    """
    return _reshape(x, to=as_shape(shape), copy=copy)


def as_shape(shape: Any) -> tuple[int, ...]:
    """A shape as the tuple of its lengths; an integer is the shape of a vector."""
    return (operator.index(shape),) if hasattr(shape, "__index__") else tuple(shape)


def _inverse(axes: Sequence[int]) -> tuple[int, ...]:
    """The permutation that undoes `axes`."""
    return tuple(np.argsort([i % len(axes) for i in axes]).tolist())


@linear(lambda t, axes: permute_dims(t, _inverse(axes)), views=True)
def permute_dims(x: Any, /, axes: tuple[int, ...]) -> Any:
    """`x` with its axes in another order: axis i of the result is axis axes[i] of `x`; a view.

    Raises:
        ValueError: if `axes` does not name every axis once.
    """
    return xp(x).transpose(x, axes)


@linear(lambda t: matrix_transpose(t), views=True)
def matrix_transpose(x: Any, /) -> Any:
    """The last two axes swapped; a view.

    Raises:
        ValueError: if there are less than two axes.
    """
    _check_matrix(x)
    return x.swapaxes(-1, -2)


def _check_matrix(x: Any) -> None:
    if x.ndim < 2:
        raise ValueError("needs at least two axes")


def moveaxis(x: Any, source: Any, destination: Any, /) -> Any:
    """Axes `source` (an integer or a tuple) moved to positions `destination`; a view.

    Raises:
        IndexError, ValueError: (one exception that is both) if there is no such axis.
        ValueError: if the numbers of axes differ, or one is named twice.
    """
    source, destination = (
        normalize_axis_tuple(axes, x.ndim, "moveaxis") for axes in (source, destination)
    )
    axes = [i for i in range(x.ndim) if i not in source]
    for to, i in sorted(zip(destination, source, strict=True)):
        axes.insert(to, i)
    return permute_dims(x, tuple(axes))


@linear(lambda t, shape: reshape(t, shape), views=True)
def expand_dims(x: Any, /, axis: int | tuple[int, ...] = 0) -> Any:
    """A new axis of length 1 at position `axis` of the result, or several; a view.

    Raises:
        IndexError, ValueError: (one exception that is both) if the result has no such axis.
    """
    return xp(x).expand_dims(x, axis)


@linear(lambda t, shape: reshape(t, shape), views=True)
def squeeze(x: Any, /, axis: int | tuple[int, ...]) -> Any:
    """`x` without the axes `axis`; a view.

    Raises:
        ValueError: if one of these axes has not length 1, or is not there.
    """
    return xp(x).squeeze(x, axis)


@linear(lambda t, shape: sum_to(t, shape), views=True)
def _broadcast_to(x: Any, /, *, to: tuple[int, ...]) -> Any:
    return xp(x).broadcast_to(x, to)


def broadcast_to(x: Any, /, shape: Sequence[int]) -> Any:
    """`x` repeated along axes of length 1, and new leading axes, to `shape`; a read-only view.

    Raises:
        ValueError: if `x` does not broadcast to `shape`.
    """
    return _broadcast_to(x, to=as_shape(shape))


def broadcast_shapes(*shapes: Sequence[int]) -> tuple[int, ...]:
    """The shape to which arrays of these shapes broadcast together; () of none.

    Raises:
        ValueError: if they do not fit.
    """
    return np.broadcast_shapes(*shapes)


def broadcast_arrays(*arrays: Any) -> tuple[Any, ...]:
    """All arrays broadcast to their common shape.

    Raises:
        ValueError: if the shapes do not fit.
    """
    check_arrays("broadcast_arrays", *arrays)
    shape = np.broadcast_shapes(*(x.shape for x in arrays))
    return tuple(x if x.shape == shape else broadcast_to(x, shape) for x in arrays)


def sum_to(x: Any, shape: tuple[int, ...]) -> Any:
    """The transpose of `broadcast_to`: `x` summed over the axes along which it was repeated."""
    new = x.ndim - len(shape)
    axes = [*range(new)]
    axes += [i for i, n in enumerate(shape, new) if n == 1 and x.shape[i] != 1]
    summed = x.sum(axis=tuple(axes))
    return summed if len(axes) == new else summed.reshape(shape)


def _piece(t: Any, index: int, shapes: list, starts: list[int], axis: int | None) -> Any:
    part = slice(starts[index], starts[index + 1])
    if axis is None:
        return t[part].reshape(shapes[index])
    return t[(*(slice(None),) * (axis % t.ndim), part)]


def _pad_piece(t: Any, index: int, starts: list[int], axis: int | None) -> Any:
    part = slice(starts[index], starts[index + 1])
    if axis is None:
        return place(t.reshape((-1,)), key=(part,), to=(starts[-1],))
    axis = axis % t.ndim
    to = (*t.shape[:axis], starts[-1], *t.shape[axis + 1 :])
    return place(t, key=(*(slice(None),) * axis, part), to=to)


@many(vjp=_piece, jvp=_pad_piece)
def _concat(arrays: Any, /, *, axis: int | None, starts: list[int]) -> Any:
    return xp(arrays[0]).concatenate(arrays, axis=axis)


def concat(arrays: Any, /, *, axis: int | None = 0) -> Any:
    """The arrays joined along an existing axis; `axis=None` flattens them first.

    Raises:
        ValueError: if there is no array, or the other lengths differ.
    """
    arrays = tuple(arrays)
    if not arrays:
        raise ValueError("concat: needs at least one array")
    check_arrays("concat", *arrays)
    flat = axis is None
    sizes = [x.size if flat or not x.ndim else x.shape[axis % x.ndim] for x in arrays]
    return _concat(arrays, axis=axis, starts=[0, *itertools.accumulate(sizes)])


def stack(arrays: Any, /, *, axis: int = 0) -> Any:
    """The arrays, all of one shape, joined along a new axis.

    Raises:
        ValueError: if the shapes differ, naming them.
    """
    arrays = list(arrays)
    if not arrays:
        raise ValueError("stack: needs at least one array")
    check_arrays("stack", *arrays)
    if len({x.shape for x in arrays}) > 1:
        raise ValueError(f"stack: the shapes differ: {[x.shape for x in arrays]}")
    return concat([expand_dims(x, axis) for x in arrays], axis=axis)


def unstack(x: Any, /, *, axis: int = 0) -> tuple[Any, ...]:
    """The slices of `x` along `axis`, as a tuple of tensors without that axis.

    Raises:
        IndexError, ValueError: (one exception that is both) if there is no such axis.
    """
    x = moveaxis(x, axis, 0)
    return tuple(x[i] for i in range(x.shape[0]))


@linear(lambda t, axis: flip(t, axis=axis), views=True)
def flip(x: Any, /, *, axis: Any = None) -> Any:
    """The order of the elements reversed along `axis` (an integer or a tuple; None: all)."""
    return xp(x).flip(x, axis)


def _negative(shift: Any) -> Any:
    return tuple(-n for n in shift) if isinstance(shift, (tuple, list)) else -shift


@linear(lambda t, shift, axis: roll(t, _negative(shift), axis=axis))
def roll(x: Any, /, shift: Any, *, axis: Any = None) -> Any:
    """The elements moved on by `shift` along `axis`, round the end; None: of the flat array."""
    return xp(x).roll(x, shift, axis)


def _unrepeat(t: Any, shape: tuple[int, ...], repeats: Any, axis: int | None) -> Any:
    if axis is None:
        return _unrepeat(t, (math.prod(shape),), repeats, 0).reshape(shape)
    axis = axis % len(shape)
    if isinstance(repeats, int):
        split = (*shape[:axis], shape[axis], repeats, *shape[axis + 1 :])
        return t.reshape(split).sum(axis=axis + 1)
    repeats = raw(repeats)
    index = xp(repeats).repeat(xp(repeats).arange(shape[axis]), repeats)
    return place(t, key=(*(slice(None),) * axis, index), to=shape)


@linear(_unrepeat)
def _repeat(x: Any, repeats: Any, /, *, axis: int | None) -> Any:
    if axis is not None:
        axis = normalize_axis_index(axis, x.ndim)
    return xp(x).repeat(x, repeats, axis)


@placed
def repeat(x: Any, /, repeats: Any, *, axis: int | None = None) -> Any:
    """Each element `repeats` times along `axis` (None: of the flat array).

    Args:
        repeats: an integer; or integers, one per element along `axis`, as an array on the device
            of `x` (which then is waited for, to know the shape) or as a list.

    Raises:
        ValueError: if the number of `repeats` does not fit, or one is negative.
        TypeError: if they are not integers.
    """
    if isinstance(repeats, (int, np.integer)):
        return _repeat(x, int(repeats), axis=axis)
    check_arrays("repeat", x)
    if isinstance(repeats, (list, tuple)):
        home = backends.backend_of(raw(x))
        listed = np.asarray(repeats) if repeats else np.zeros(0, np.int64)
        repeats = home.constant(listed, home.device_of(raw(x)))
    check_arrays("repeat", repeats)
    if repeats.dtype.kind not in "iu":
        raise TypeError(f"repeat: integers are needed as repeats, not {repeats.dtype}")
    repeats = repeats.astype(np.int64)
    return _repeat(x, repeats if repeats.ndim else reshape(repeats, (1,)), axis=axis)


@linear(lambda t, k: tril(t, k=k))
def tril(x: Any, /, *, k: int = 0) -> Any:
    """`x` with zeros above its `k`-th diagonal, in the last two axes.

    Raises:
        ValueError: if there are less than two axes.
    """
    _check_matrix(x)
    return xp(x).tril(x, k)


@linear(lambda t, k: triu(t, k=k))
def triu(x: Any, /, *, k: int = 0) -> Any:
    """`x` with zeros below its `k`-th diagonal, in the last two axes.

    Raises:
        ValueError: if there are less than two axes.
    """
    _check_matrix(x)
    return xp(x).triu(x, k)


def meshgrid(*arrays: Any, indexing: str = "xy") -> tuple[Any, ...]:
    """The coordinates of a grid, one array per axis, from the positions along each axis.

    Args:
        arrays: each of shape (n_i,).
        indexing: "ij" for results of shape (n_0, n_1, ...), "xy" with the first two swapped.

    Raises:
        ValueError: if an array has not one axis, or for another `indexing`.
    """
    check_arrays("meshgrid", *arrays)
    if any(x.ndim != 1 for x in arrays) or indexing not in ("xy", "ij"):
        raise ValueError(
            f"meshgrid: vectors and indexing 'xy' or 'ij' are needed, got shapes "
            f"{[x.shape for x in arrays]} and {indexing!r}"
        )
    axes = list(range(len(arrays)))
    if indexing == "xy" and len(arrays) > 1:
        axes[:2] = 1, 0
    columns = [
        reshape(x, tuple(-1 if i == axis else 1 for i in range(len(arrays))))
        for x, axis in zip(arrays, axes, strict=True)
    ]
    return broadcast_arrays(*columns)


def tile(x: Any, repetitions: Sequence[int], /) -> Any:
    """`x` laid side by side `repetitions[i]` times along axis i."""
    repetitions = tuple(repetitions)
    lead = max(0, x.ndim - len(repetitions))
    counts = (1,) * lead + repetitions
    shape = (1,) * (len(counts) - x.ndim) + tuple(x.shape)
    pairs = tuple(n for count, length in zip(counts, shape, strict=True) for n in (count, length))
    x = reshape(x, tuple(n for length in shape for n in (1, length)))
    total = tuple(count * length for count, length in zip(counts, shape, strict=True))
    return reshape(broadcast_to(x, pairs), total)


from .indexing import place  # noqa: E402  (concat's and repeat's derivatives index)
