"""Elements by index: reading, writing and adding, in the modes of `modes.py`."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.lib.array_utils import normalize_axis_index

from ..modes import checks_bounds, is_deterministic
from .functions import by_integers, on_device
from .source import source_of

_CHUNK = 64  # values that one thread adds up where the order is fixed


def _items(key: Any, ndim: int) -> Iterator[tuple[Any, int]]:
    """The items of an index, `...` written out, each with the (first) axis that it is for.

    Raises:
        IndexError: if there are more items than axes.
    """
    items = key if isinstance(key, tuple) else (key,)
    widths = [0 if x is None or x is ... else _mask_width(x, 1) for x in items]
    rest = ndim - sum(widths)
    if rest < 0:
        raise IndexError(f"too many indices: {sum(widths)} for {ndim} axes")
    axis = 0
    for item, width in zip(items, widths, strict=True):
        if item is not ...:
            yield item, axis
            axis += width
        else:
            yield from ((slice(None), axis + i) for i in range(rest))
            axis += rest
    if not any(item is ... for item in items):
        yield from ((slice(None), axis + i) for i in range(rest))


def _mask_width(item: Any, otherwise: int) -> int:
    """The number of axes that a mask is for; `otherwise` for other items."""
    if isinstance(item, (bool, np.bool_)):
        return 0
    dtype = getattr(item, "dtype", None)
    return otherwise if dtype is None or dtype.kind != "b" else item.ndim


def check_indices(indices: Any, n: int, axis: int) -> None:
    """Raise an IndexError for the first index out of range; waits for the device."""
    wide = indices.astype(np.int64, copy=False)
    bad = (wide < -n) | (wide >= n)
    if bad.any():
        position = tuple(map(int, np.unravel_index(int(bad.argmax()), bad.shape)))
        raise IndexError(
            f"index {int(indices[position])} at position {position} of the index array is out of "
            f"bounds for axis {axis} of length {n}, on cuda:{indices.device.id}"
        )


def element_functions(cp: Any) -> dict[str, Callable[..., Any]]:
    """Reading, writing and adding by index, in the modes of `modes.py`."""
    source = source_of("scatter")
    add = cp.ElementwiseKernel(
        "raw V values, raw int64 index, raw int64 order, "
        "int64 m, int64 n, int64 after, int64 chunk",
        "raw T array, raw S heads, raw int64 head_index",
        "gpugrad::add_in_order<T, S>("
        "i, values, index, order, m, n, after, chunk, array, heads, head_index)",
        "gpugrad_add_in_order",
        preamble=source,
    )
    write = cp.ElementwiseKernel(
        "raw V values, raw int64 index, raw int64 last, int64 m, int64 n, int64 after",
        "raw T array",
        "gpugrad::write_last(i, values, index, last, m, n, after, array)",
        "gpugrad_write_last",
        preamble=source,
    )

    def has_integers(key: Any) -> bool:
        """Whether an index has arrays of integers, and so may name an element more than once."""
        items = key if isinstance(key, tuple) else (key,)
        return any(isinstance(x, cp.ndarray) and x.dtype.kind in "iu" for x in items)

    def check_key(x: Any, key: Any) -> None:
        for item, axis in _items(key, x.ndim):
            if has_integers(item):
                check_indices(item, x.shape[axis], axis)

    def wrapped(index: Any, n: int) -> Any:
        if not isinstance(index, cp.ndarray):
            if not -n <= index < n:
                raise IndexError(f"index {index} is out of bounds for an axis of length {n}")
            return int(index) % n
        if n == 0 and index.size:
            raise IndexError("an axis of length 0 has nothing to choose from")
        return index.astype(np.int64, copy=False) % n

    def aligned(array: Any, key: Any, values: Any) -> tuple[Any, ...]:
        """What is done at `array[key]`, in the words of kernels/scatter.cuh.

        Returns:
            values and index, both flat; a view of `array` (*before, *places, *after), flat where
            that takes no copy; n and the size of `after`.
        """
        items: list[Any] = []
        for item, axis in _items(key, array.ndim):
            width = _mask_width(item, -1)
            if width == 0:
                raise IndexError("a truth value without axes beside arrays of integers")
            if width > 0 and item.shape != array.shape[axis : axis + width]:
                raise IndexError(f"a mask of shape {item.shape} for an array of {array.shape}")
            items += item.nonzero() if width > 0 else [item]
        chosen = [i for i, x in enumerate(items) if not (x is None or isinstance(x, slice))]
        view = array[tuple(slice(None) if i in chosen else x for i, x in enumerate(items))]
        # index arrays with something between them: what they choose comes first
        start = chosen[0] if chosen[-1] - chosen[0] < len(chosen) else 0
        stop = start + len(chosen)
        view = cp.moveaxis(view, chosen, range(start, stop))
        index: Any = 0
        for i, n in zip(chosen, view.shape[start:stop], strict=True):
            index = index * n + wrapped(items[i], n)
        shape = (*view.shape[:start], *index.shape, *view.shape[stop:])
        if isinstance(values, cp.ndarray):
            values = values.astype(array.dtype, copy=False)
        else:  # a number, which `asarray` would copy to the device
            values = cp.full((), values, array.dtype)
        if cp.may_share_memory(values, array):
            values = values.copy()
        lengths = math.prod(view.shape[start:stop]), math.prod(view.shape[stop:])
        if view.flags.c_contiguous:  # CuPy compiles a kernel for every number of axes
            view = view.ravel()
        return cp.broadcast_to(values, shape).ravel(), index.ravel(), view, *lengths

    def add_in_order(array: Any, key: Any, values: Any) -> None:
        """One launch for m up to _CHUNK, one more with every factor of _CHUNK."""
        values, index, view, n, after = aligned(array, key, values)
        if not values.size:
            return
        kind, bytes_each = array.dtype.kind, array.dtype.itemsize
        sums = array.dtype
        if bytes_each <= 2:
            sums = np.dtype(np.float32 if kind in "fV" else np.int64)
        order = cp.argsort(index)  # which in CuPy is always stable
        while True:
            m = index.size
            chunks = -(-m // _CHUNK)
            heads = cp.empty(values.size // m * chunks, sums)
            head_index = cp.empty(chunks, np.int64)
            lengths = m, n, after, _CHUNK
            add(values, index, order, *lengths, view, heads, head_index, size=values.size)
            if chunks == 1:
                return
            values, index, order = heads, head_index, cp.arange(chunks)

    def write_last(array: Any, key: Any, values: Any) -> None:
        values, index, view, n, after = aligned(array, key, values)
        if values.size:
            m = index.size
            last = cp.full(n, -1, np.int64)
            cp.maximum.at(last, index, cp.arange(m))  # of integers: in any order the same
            write(values, index, last, m, n, after, view, size=values.size)

    def getitem(x: Any, key: Any) -> Any:
        if checks_bounds():
            check_key(x, key)
        return x[key]

    def setitem(x: Any, key: Any, value: Any) -> None:
        if checks_bounds():
            check_key(x, key)
        if is_deterministic() and has_integers(key):
            write_last(x, key, value)
        else:
            x[key] = value

    def add_at(array: Any, index: Any, values: Any) -> None:
        """array[index] += values, with every repetition of an index counted."""
        if checks_bounds():
            check_key(array, index)
        kind, bytes_each = array.dtype.kind, array.dtype.itemsize
        in_order = is_deterministic() if kind in "fVc" else bytes_each <= 2  # no atomics for these
        if in_order and has_integers(index):
            add_in_order(array, index, values)
        elif kind == "c":
            values = cp.asarray(values)
            cp.add.at(array.real, index, values.real)
            if values.dtype.kind == "c":
                cp.add.at(array.imag, index, values.imag)
        elif bytes_each == 2 and kind in "fV":
            total = array.astype(np.float32)
            cp.add.at(total, index, values)
            array[...] = total.astype(array.dtype)
        else:
            cp.add.at(array, index, values)

    def take(x: Any, indices: Any, axis: int | None = None) -> Any:
        if checks_bounds():
            check_axis(x, indices, axis)
        return cp.take(x, indices, axis)

    def take_along_axis(x: Any, indices: Any, axis: int | None) -> Any:
        if checks_bounds():
            check_axis(x, indices, axis)
        return cp.take_along_axis(x, indices, axis)

    def check_axis(x: Any, indices: Any, axis: int | None) -> None:
        shape, axis = ((x.size,), 0) if axis is None else (x.shape, axis)
        axis = normalize_axis_index(axis, len(shape))
        check_indices(cp.asarray(indices), shape[axis], axis)

    def bincount(x: Any, weights: Any = None, minlength: int = 0) -> Any:
        if weights is None or not x.size or not is_deterministic():
            return cp.bincount(x, weights, minlength)
        if x.shape != weights.shape:
            raise ValueError("The weights and list don't have the same length.")
        out = cp.zeros(cp.bincount(x, None, minlength).shape)
        add_in_order(out, x, weights)
        return out

    return {
        "add_at": on_device(add_at),
        "bincount": on_device(bincount),
        "getitem": getitem,
        "setitem": setitem,
        "take": by_integers(on_device(take)),
        "take_along_axis": by_integers(on_device(take_along_axis)),
    }
