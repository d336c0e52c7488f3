"""Fused loops without a compiler: NumPy's functions on pieces that stay in the cache.

The results of a piece are not written to memory before the next function needs them, and threads
share the pieces of large arrays: NumPy lets go of Python's lock while it computes.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from .host import default_threads
from .program import Fused, Value, map_values, perform

_PIECE = 1 << 14  # elements
_LARGE = 1 << 18  # elements from which on threads pay


@functools.cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, "gpugrad")


class Blocked:
    """A loop on arrays of its inputs and outputs, as a function of some of these arrays.

    Args:
        xp: the array functions.
        arrays: of the arguments and results that stay; constants among them.
        given: the arguments that come with the call, in order.
    """

    def __init__(
        self, step: Fused, xp: Any, arrays: Mapping[Value, np.ndarray], given: Sequence[Value]
    ) -> None:
        self._step = step
        self._xp = xp
        self._arrays = dict(arrays)
        self._given = list(given)
        shape = step.shape
        self._axis = max(range(len(shape)), key=lambda a: shape[a], default=0)
        size = math.prod(shape)
        length = shape[self._axis] if shape else 1
        rows = max(1, length * _PIECE // max(size, 1)) if size > _PIECE else max(length, 1)
        self._pieces = [slice(i, min(i + rows, length)) for i in range(0, length, rows)]
        self._threads = default_threads() if size >= _LARGE else 1

    def replace(self, value: Value, array: np.ndarray) -> None:
        """Let `value` stay in another array."""
        self._arrays[value] = array

    @np.errstate(all="ignore")
    def __call__(self, *arrays: np.ndarray) -> None:
        known = {**self._arrays, **dict(zip(self._given, arrays))}
        work = functools.partial(self._piece, known)
        if self._threads > 1:
            parts = list(_pool(self._threads).map(work, self._pieces))
        else:
            parts = [work(piece) for piece in self._pieces]
        for i, (value, axes) in enumerate(self._step.sums.items()):
            sums = [part[i] for part in parts]
            if self._axis in axes:
                total = functools.reduce(np.add, sums) if sums else 0
            else:
                total = np.concatenate(sums, axis=self._axis) if sums else 0
            known[value][...] = np.reshape(total, value.shape) if sums else 0

    def _piece(self, known: Mapping[Value, np.ndarray], piece: slice) -> list[np.ndarray]:
        """Compute the results of a piece; its share of the sums, with all axes."""
        step = self._step
        made: dict[Value, Any] = {}
        sums = []

        def find(value: Value) -> Any:
            if value not in made:
                made[value] = self._cut(known[value], piece)
            return made[value]

        with np.errstate(all="ignore"):  # of this thread
            for part in step.body:
                if part.result in step.sums:
                    x = np.broadcast_to(find(part.args[0]), self._cut_shape(piece))
                    work = np.float32 if x.dtype.itemsize == 2 else None  # as it is the whole sum
                    sums.append(np.add.reduce(x, step.sums[part.result], work, keepdims=True))
                elif part.function == "broadcast_to":
                    made[part.result] = find(part.args[0])
                else:
                    args, options = map_values(find, (part.args, part.options))
                    made[part.result] = perform(self._xp, part.function, args, options)
            stored = [value for value in step.results if value not in step.sums]
            if len(stored) > 1:  # an argument's memory may be written before a view of it is read
                made |= {x: made[x].copy() for x in stored if made[x].base is not None}
            for value in stored:
                self._cut(known[value], piece)[...] = made[value]
        return sums

    def _cut_shape(self, piece: slice) -> tuple[int, ...]:
        shape = list(self._step.shape)
        if shape:
            shape[self._axis] = piece.stop - piece.start
        return tuple(shape)

    def _cut(self, array: np.ndarray, piece: slice) -> np.ndarray:
        """What an array, broadcast to the loop's shape, has in a piece."""
        axis = self._axis - len(self._step.shape)  # from the end
        if axis == 0 or array.ndim < -axis or array.shape[axis] == 1:
            return array
        key: Any = (..., piece, *(slice(None),) * (-axis - 1))
        return array[key]
