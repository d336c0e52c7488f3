"""Indexing: `x[key]`, `take`, `take_along_axis`, and the scatter-add that is their transpose."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.lib.array_utils import normalize_axis_index

from .. import backends, rules
from ..modes import checks_bounds
from ..rules import check_arrays, linear, raw, xp
from ..tensor import Tensor

__all__ = [
    "scatter_add",
    "take",
    "take_along_axis",
]


def _raw_key(key: Any, x: Any, name: str = "getitem") -> tuple:
    """`key` as a tuple of what the array library of the raw array `x` takes as an index."""
    home = backends.backend_of(x)
    found = []
    for item in key if isinstance(key, tuple) else (key,):
        value = item.data if isinstance(item, Tensor) else item
        if isinstance(value, (list, range)):
            listed = np.asarray(value)
            listed = listed if listed.size else listed.astype(np.intp)
            value = home.constant(listed, home.device_of(x))
        library = backends.find_backend(type(value))
        if library is None:
            if not (value is None or value is ... or isinstance(value, (int, slice))):
                raise IndexError(
                    f"{name}: an index is an integer, a slice, ..., None, or an array of integers "
                    f"or booleans, not {type(value).__name__}"
                )
        elif value.dtype.kind not in "iub":
            raise IndexError(
                f"{name}: an index array holds integers or booleans, not {value.dtype}"
            )
        elif not isinstance(value, np.generic) and (
            library is not home or home.device_of(value) != home.device_of(x)
        ):
            aligned = rules.align((x, value))
            if aligned is not None and aligned[0] is x:
                found.append(aligned[1])
                continue
            kind: type[Exception] = ValueError if isinstance(item, Tensor) else TypeError
            raise kind(
                f"{name}: the tensor is on {home.device_of(x)}, an index array on "
                f"{library.device_of(value)}; move one with .to(device)"
            )
        found.append(value)
    return tuple(found)


def _may_repeat(key: tuple) -> bool:
    """Whether `key` can name an element twice: with arrays of integers, but not with masks."""
    return any(getattr(item, "dtype", None) is not None and item.dtype.kind != "b" for item in key)


@linear(lambda t, key, shape: place(t, key=key, to=shape), views=True)
def _getitem(x: Any, /, *, key: tuple) -> Any:
    out = xp(x).getitem(x, key) if checks_bounds() else x[key]
    if out.ndim == 0 and out.base is not None and not any(item is ... for item in key):
        out = out.copy()  # one element is a value, as in NumPy, and no view
    return out


def getitem(x: Any, key: Any, /) -> Any:
    """`x[key]`: integers, slices, `...`, None, integer arrays and boolean masks, as in NumPy.

    The derivative adds up where an element is named more than once.
    """
    try:
        found = _raw_key(key, raw(x))
    except (TypeError, ValueError):  # perhaps for indices that are batches, of an array that is not
        indices = [i for i in (key if isinstance(key, tuple) else (key,)) if hasattr(i, "dtype")]
        aligned = rules.align((x, *indices))
        if aligned is None:
            raise
        x = aligned[0]
        found = _raw_key(key, raw(x))
    return _getitem(x, key=found)


@linear(lambda t, key: getitem(t, key))
def place(x: Any, /, *, key: tuple, to: tuple[int, ...]) -> Any:
    """Zeros of shape `to` with `x` added at `key`: the transpose of `getitem`."""
    key = _raw_key(key, x)
    out = xp(x).zeros(to, x.dtype)
    if _may_repeat(key):
        xp(x).add_at(out, key, x)
    else:
        out[key] = x
    return out


def _untake(t: Any, indices: Any, axis: int | None, shape: tuple[int, ...]) -> Any:
    if axis is None:
        return _untake(t, indices, 0, (math.prod(shape),)).reshape(shape)
    return place(t, key=(*(slice(None),) * (axis % len(shape)), indices), to=shape)


@linear(_untake)
def take(x: Any, indices: Any, /, *, axis: int | None = None) -> Any:
    """The elements of `x` at integer `indices` along `axis` (None: of the flat array).

    Raises:
        IndexError: for an index out of range; on a GPU inside `check_bounds`.
    """
    return xp(x).take(x, indices, axis=axis)


def _grid(indices: Any, axis: int, shape: tuple[int, ...]) -> tuple:
    """The key that names, per element of `indices`, the element it takes along `axis`."""
    indices = raw(indices)
    axis %= len(shape)
    return tuple(
        indices
        if i == axis
        else xp(indices).arange(n).reshape([-1 if j == i else 1 for j in range(len(shape))])
        for i, n in enumerate(shape)
    )


@linear(lambda t, indices, axis, shape: place(t, key=_grid(indices, axis, shape), to=shape))
def take_along_axis(x: Any, indices: Any, /, *, axis: int = -1) -> Any:
    """Per element of `indices`, the element of `x` at that index along `axis`.

    `indices` has as many axes as `x`; the lengths of the others broadcast. This is what other
    libraries call gather.
    """
    return xp(x).take_along_axis(x, indices, axis)


def scatter_add(x: Any, indices: Any, values: Any, /, *, axis: int = 0) -> Any:
    """A new tensor: `x` with `values` added at integer `indices` along `axis`.

    The transpose of `take`. Values whose index occurs more than once add up; on a GPU in no fixed
    order, so that the last digits may vary, but inside `deterministic`.

    Args:
        values: broadcasts to the shape of take(x, indices, axis=axis).

    Raises:
        IndexError: for an index that is no integer, or out of range (on a GPU inside
            `check_bounds`).
        ValueError: if the shapes do not fit.
    """
    check_arrays("scatter_add", x, indices, values)
    axis = normalize_axis_index(axis, x.ndim)
    shape = (*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :])
    try:
        values = broadcast_to(values, shape)
    except ValueError:
        raise ValueError(
            f"scatter_add: values of shape {values.shape} do not broadcast to {shape}, that of "
            f"x[indices] for x of shape {x.shape}, indices of shape {indices.shape}, axis {axis}"
        ) from None
    return x + place(values, key=(*(slice(None),) * axis, indices), to=x.shape)


from .manipulation import broadcast_to  # noqa: E402  (manipulation's derivatives index)
