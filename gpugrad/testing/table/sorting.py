"""Rows of the table: sorting."""

from __future__ import annotations

import numpy as np

from ..rows import (
    ANY,
    GRID,
    case,
    signed,
)


def _argsort(
    x: np.ndarray, axis: int = -1, descending: bool = False, stable: bool = True
) -> np.ndarray:
    """Stable in both directions: ranks of equal values rise with the index."""
    _, rank = np.unique(x, return_inverse=True)
    rank = rank.reshape(x.shape)
    return np.argsort(-rank if descending else rank, axis=axis, kind="stable")


def _sort(x: np.ndarray, axis: int = -1, **options: bool) -> np.ndarray:
    return np.take_along_axis(x, _argsort(x, axis, **options), axis)


ROWS = [
    case("sort", signed(7), dtypes=ANY, reference=_sort),
    case("sort", signed(7), dtypes=ANY, descending=True, reference=_sort),
    case("sort", signed(3, 4), axis=0, stable=False, reference=_sort),
    case("sort", signed(2, 3, 4), axis=1, descending=True, stable=False, reference=_sort),
    case("sort", signed(0, 3), axis=0, reference=_sort),
    case("argsort", signed(7), dtypes=ANY, order=0, reference=_argsort),
    case("argsort", signed(7), dtypes=ANY, order=0, descending=True, reference=_argsort),
    case("argsort", signed(3, 4), order=0, axis=0, stable=False, reference=_argsort),
    case("argsort", GRID, order=0, axis=0, descending=True, reference=_argsort),
    case("argsort", signed(2, 0), order=0, reference=_argsort),
]
