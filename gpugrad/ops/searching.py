"""Where elements are: array API standard 2025.12, section "Searching Functions".

The indices of the largest and smallest elements are with the reductions, `where` with the
elementwise functions.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..rules import _apply, check_arrays, constant, xp
from ..tensor import Tensor
from .indexing import take

__all__ = [
    "nonzero",
    "searchsorted",
]


def nonzero(x: Any, /) -> tuple[Any, ...]:
    """Where `x` is not zero: an array of indices (int64) per axis, in C order.

    The shape depends on the data; a GPU is waited for.

    Raises:
        ValueError: if `x` has no axes.
    """
    check_arrays("nonzero", x)
    if x.ndim == 0:
        raise ValueError("nonzero: needs at least one axis; use x[None] for a number")
    return _apply("nonzero", None, _nonzero, (x,), {}, tuple) if type(x) is Tensor else _nonzero(x)


def _nonzero(x: Any) -> Any:
    return xp(x).nonzero(x)


def searchsorted(x1: Any, x2: Any, /, *, side: str = "left", sorter: Any = None) -> Any:
    """The positions in `x1` before which the values `x2` keep it in order: int64.

    Args:
        x1: shape (n,), ascending; NaN counts as the largest value.
        x2: an array, whose shape the result has, or a number.
        side: "left" for the first such position, i with x1[i-1] < v <= x1[i]; "right" for the
            last.
        sorter: integers of shape (n,) that sort `x1`, where it is not in order.

    Raises:
        ValueError: if `x1` has not one axis, or for another `side`.
    """
    if side not in ("left", "right"):
        raise ValueError(f"searchsorted: side is 'left' or 'right', not {side!r}")
    if sorter is not None:
        x1 = take(x1, sorter)
    return _searchsorted(x1, x2, side=side)


@constant
def _searchsorted(x1: Any, x2: Any, /, *, side: str) -> Any:
    if not hasattr(x2, "dtype"):
        x2 = xp(x1).asarray(x2, dtype=np.result_type(x1.dtype, x2))
    return xp(x1).searchsorted(x1, x2, side=side)
