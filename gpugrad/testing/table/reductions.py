"""Rows of the table: reductions and cumulative operations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..rows import (
    ANY,
    FLOATING,
    NUMERIC,
    REAL,
    case,
    signed,
    written,
)


def _logsumexp(x: np.ndarray, axis: Any = None, keepdims: bool = False) -> np.ndarray:
    return np.log(np.exp(x).sum(axis=axis, keepdims=keepdims))


def _cumulative(f: Callable[..., Any], initial: int) -> Callable[..., Any]:
    def reference(x: np.ndarray, axis: int = 0, include_initial: bool = False) -> np.ndarray:
        out = f(x, axis=axis)
        if not include_initial:
            return out
        return np.concatenate([np.full_like(out.take([0], axis), initial), out], axis=axis)

    return reference


ROWS = [
    *(
        case(name, signed(2, 3, 2), dtypes=dtypes, **options)
        for name, dtypes in [
            ("sum", ANY),
            ("mean", NUMERIC),
            ("var", FLOATING),
            ("std", FLOATING),
            ("prod", ANY),
            ("max", NUMERIC),
            ("min", NUMERIC),
            ("logsumexp", REAL),
        ]
        for options in [
            {"axis": None},
            {"axis": 0},
            {"axis": -1, "keepdims": True},
            {"axis": (0, 2)},
            {"axis": (-1, 1), "keepdims": True},
            {"axis": None, "keepdims": True},
        ]
        for options in [options | ({"reference": _logsumexp} if name == "logsumexp" else {})]
    ),
    case("sum", signed(2, 3), dtypes=REAL, dtype=np.dtype("float64")),
    case("prod", signed(2, 3), dtypes=REAL, dtype=np.dtype("float64")),
    case("var", signed(2, 3), axis=1, correction=1),
    case("std", signed(2, 3), axis=1, correction=0.5),
    *(case(name, signed()) for name in ("sum", "mean", "prod", "max")),
    case("logsumexp", signed(), dtypes=REAL, reference=_logsumexp),
    *(case(name, signed(0, 3), axis=0) for name in ("sum", "prod")),
    *(case(name, signed(0, 3), axis=1) for name in ("sum", "mean", "std", "prod", "max")),
    case("logsumexp", signed(0, 3), dtypes=REAL, axis=1, reference=_logsumexp),
    *(
        case(name, signed(2, 3), dtypes=ANY, order=0, **options)
        for name in ("all", "any", "count_nonzero")
        for options in [{}, {"axis": 0}, {"axis": (0, 1), "keepdims": True}]
    ),
    *(
        case(name, signed(2, 3), dtypes="qfd", order=0, **options)
        for name in ("argmax", "argmin")
        for options in [{}, {"axis": 0}, {"axis": 1, "keepdims": True}]
    ),
    *(
        case(name, signed(*shape), dtypes=NUMERIC, reference=reference, **options)
        for name, reference in [
            ("cumulative_sum", _cumulative(np.cumsum, 0)),
            ("cumulative_prod", _cumulative(np.cumprod, 1)),
        ]
        for shape, options in [
            ((5,), {}),
            ((2, 3), {"axis": 0}),
            ((2, 3), {"axis": -1, "include_initial": True}),
            ((2, 0), {"axis": 1}),
        ]
    ),
    case("diff", signed(5), dtypes=ANY),
    case("diff", signed(3, 4), axis=0, n=2, dtypes=NUMERIC),
    case("diff", signed(2, 3), n=0),
    case("diff", signed(2, 2), n=3),
    case("diff", signed(2, 3), axis=1, prepend=0.5, append=2, dtypes="d"),
    written(
        "diff",
        "prepend, append",
        lambda m, x, a, b: m.diff(x, axis=0, n=2, prepend=a, append=b),
        signed(2, 3),
        signed(1, 3),
        signed(2, 3),
        dtypes=FLOATING,
    ),
    written("diff", "0-d ends", lambda m, x, a: m.diff(x, prepend=a), signed(2, 3), signed()),
]
