"""Rows of the table: sets."""

from __future__ import annotations

from typing import Any

import numpy as np

import gpugrad as gg

from ..rows import (
    ANY,
    GRID,
    INDICES,
    Row,
    case,
    signed,
    written,
)

NANS = np.array([[np.nan, 1.0, -0.0], [0.0, np.nan, 1.0]])


def _unique(x: np.ndarray) -> tuple[np.ndarray, ...]:
    """Values, first indices, inverse and counts, one element after the other."""
    flat = x.ravel()
    order = sorted(range(x.size), key=lambda i: (flat[i] != flat[i], flat[i].real, flat[i].imag))
    firsts: list[int] = []
    counts: list[int] = []
    inverse = np.zeros(x.size, int)
    for i in order:
        if not firsts or flat[firsts[-1]] != flat[i]:
            firsts.append(i)
            counts.append(0)
        counts[-1] += 1
        inverse[i] = len(firsts) - 1
    indices = np.array(firsts, int)
    return flat[indices], indices, inverse.reshape(x.shape), np.array(counts, int)


def _of_integers(name: str, x: Any, *which: int, dtypes: str = "fd") -> Row:
    """The row of the results that are integers."""

    def function(x: Any) -> Any:
        return getattr(gg, name)(x)[1:]

    def reference(x: np.ndarray) -> Any:
        return tuple(_unique(x)[i] for i in which)

    return case(name, x, function=function, reference=reference, dtypes=dtypes, order=0)


ROWS = [
    *(
        row
        for name, which in [
            ("unique_all", (1, 2, 3)),
            ("unique_counts", (3,)),
            ("unique_inverse", (2,)),
        ]
        for row in [
            written(name, "values", lambda m, x, name=name: getattr(m, name)(x)[0], signed(2, 3)),
            *(_of_integers(name, x, *which) for x in (GRID, INDICES, NANS)),
            _of_integers(name, signed(2, 3), *which, dtypes=ANY),
            _of_integers(name, signed(0, 3), *which),
        ]
    ),
    case("unique_values", signed(7), dtypes=ANY, reference=lambda x: _unique(x)[0]),
    case("unique_values", signed(2, 0), reference=lambda x: _unique(x)[0]),
    case("isin", GRID, INDICES, order=0),
    case("isin", GRID, INDICES, order=0, invert=True),
    case("isin", signed(2, 3), np.array([], np.int64), order=0, dtypes=ANY),
    case("isin", NANS, NANS, order=0),
]
