"""Rows of the table: indexing."""

from __future__ import annotations

import numpy as np

from ..rows import (
    ANY,
    GRID,
    INDICES,
    MASK,
    NUMERIC,
    case,
    signed,
    written,
)


def _scatter_add(x: np.ndarray, i: np.ndarray, values: np.ndarray, axis: int = 0) -> np.ndarray:
    out = x.copy()
    np.add.at(out, (*(slice(None),) * (axis % x.ndim), i), values)
    return out


ROWS = [
    written("getitem", "integer", lambda m, x: x[:, 1], signed(2, 3)),
    written("getitem", "slices", lambda m, x: x[1:, ::-2], signed(3, 4), dtypes=ANY),
    written("getitem", "...", lambda m, x: x[..., None, 0], signed(2, 3)),
    written("getitem", "None", lambda m, x: x[None, 1:3], signed(3, 4)),
    written("getitem", "empty slice", lambda m, x: x[2:2], signed(3, 2)),
    written("getitem", "()", lambda m, x: x[()], signed()),
    written("getitem", "list", lambda m, x: x[[2, 0, 0]], signed(3, 2)),
    written("getitem", "array", lambda m, x, i: x[i], signed(3, 2), INDICES, dtypes=ANY),
    written("getitem", "slice, array", lambda m, x, i: x[:, i], signed(2, 3), INDICES),
    written("getitem", "array, slice", lambda m, x, i: x[i, 1:], signed(2, 3), GRID),
    written("getitem", "array, None, integer", lambda m, x, i: x[i, None, 1], signed(2, 3), GRID),
    written("getitem", "arrays", lambda m, x, i, j: x[i, j], signed(2, 3), GRID, INDICES[:3]),
    written("getitem", "apart", lambda m, x, i, j: x[i, :, j], signed(2, 3, 2), GRID, INDICES[:3]),
    written("getitem", "mask", lambda m, x, i: x[i], signed(2, 3), MASK, dtypes=ANY),
    written("getitem", "slice, mask", lambda m, x, i: x[:, i], signed(2, 3), MASK[0]),
    written("getitem", "empty mask", lambda m, x, i: x[i], signed(2, 3), MASK & False),
    case("take", signed(3, 2), INDICES, dtypes=ANY),
    case("take", signed(3, 2), INDICES, axis=0),
    case("take", signed(2, 3), GRID, axis=-1),
    case("take_along_axis", signed(3, 3), GRID, axis=0),
    case("take_along_axis", signed(3, 3), GRID, axis=-1),
    case("take_along_axis", signed(3, 2), np.array([[1, 0, 1]]), axis=1),
    case("take_along_axis", signed(1, 2), np.array([[0, 1], [1, 1], [0, 0]]), axis=1),
    *(
        case("scatter_add", signed(*x), i, signed(*v), dtypes=NUMERIC, **options)
        for x, i, v, options in [
            ((4,), INDICES, (4,), {}),
            ((3, 2), INDICES, (4, 2), {}),
            ((2, 3), GRID, (2, 3, 3), {"axis": -1}),
            ((2, 3), INDICES, (4,), {"axis": 1}),
            ((3, 2), np.array(1), (2,), {}),
            ((3,), INDICES[:0], (0,), {}),
        ]
        for options in [options | {"reference": _scatter_add}]
    ),
]
