"""Rows of the table: where elements are."""

from __future__ import annotations

import numpy as np

import gpugrad as gg

from ..rows import (
    ANY,
    GRID,
    MASK,
    case,
    signed,
)

LADDER = np.array([-1.0, 0.0, 0.0, 1.5, np.nan])
STEPS = np.array([3, -2, 0, 1, 1])

ROWS = [
    case("nonzero", signed(2, 3), dtypes=ANY, order=0),
    case("nonzero", MASK, order=0),
    case("nonzero", GRID, order=0),
    case("nonzero", signed(2, 0), order=0),
    case("searchsorted", LADDER, signed(2, 3), dtypes="fd", order=0),
    case("searchsorted", LADDER, np.array([0.0, np.nan, np.inf]), order=0, side="left"),
    case("searchsorted", LADDER, np.array([0.0, np.nan, np.inf]), order=0, side="right"),
    case("searchsorted", np.sort(STEPS), GRID, order=0, side="right"),
    case(
        "searchsorted",
        STEPS,
        GRID,
        np.argsort(STEPS),
        function=lambda x1, x2, sorter: gg.searchsorted(x1, x2, sorter=sorter),
        reference=lambda x1, x2, sorter: np.searchsorted(x1, x2, sorter=sorter),
        order=0,
    ),
]
