"""Rows of the table: statistics beyond the standard's."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

import gpugrad as gg

from ..rows import FLOATING, NUMERIC, REAL, case, positive, signed, written

_BINS = np.array([2, 0, 2, 4])


def _holed(name: str) -> Any:
    """A function of `x` with NaN in place of the elements above 1."""

    def of(library: Any) -> Any:
        f = getattr(library, name)
        return lambda x, **options: f(library.where(x > 1, math.nan, x), **options)

    return {"function": of(gg), "reference": of(np)}


def _kept(f: Any) -> Any:
    """`f`, which computes in double precision, in the precision of its arguments."""

    def reference(*args: Any, **options: Any) -> Any:
        dtype = np.result_type(*(x if x.dtype.kind in "fc" else np.float64 for x in args))
        return np.asarray(f(*args, **options)).astype(dtype)

    return reference


ROWS = [
    *(
        case(name, *args, dtypes="qfd", **options)
        for name, *args in [("median", signed(2, 3, 2)), ("ptp", signed(2, 3, 2))]
        for options in [{}, {"axis": 1}, {"axis": (0, -1), "keepdims": True}]
    ),
    *(
        case(name, signed(2, 3, 2), dtypes="qd" if isinstance(q, list) else "qfd", q=q, **options)
        for name, whole in [("quantile", 1), ("percentile", 100)]
        for q, options in [
            (0.3 * whole, {}),
            (0.5 * whole, {"axis": 1, "keepdims": True}),
            ([0.0, 0.25 * whole, whole], {"axis": (0, 2)}),
            ([[0.2 * whole, 0.6 * whole]], {"axis": None, "keepdims": True}),
        ]
    ),
    *(
        case("quantile", signed(4, 2), q=q, axis=0, method=method, dtypes="qd")
        for method in ("lower", "higher", "nearest", "midpoint")
        for q in ([0.1, 0.5, 0.7], [0.0, 1.0, 1 / 3, 2 / 3])
    ),
    *(
        written(
            "average",
            f"weights {shape}, axis={axis}",
            lambda m, x, w, axis=axis: m.average(x, axis, w),
            signed(2, 3, 2),
            positive(*shape),
            dtypes=NUMERIC,
        )
        for shape, axis in [((2, 3, 2), None), ((2, 3, 2), 1), ((3,), 1), ((2, 2), (2, 0))]
    ),
    written(
        "average",
        "keepdims",
        lambda m, x, w: m.average(x, axis=-1, weights=w, keepdims=True),
        signed(2, 3),
        positive(3),
    ),
    case("average", signed(2, 3), axis=1),
    *(
        case(name, signed(3, 4), dtypes=NUMERIC, reference=_kept(getattr(np, name)), **options)
        for name in ("cov", "corrcoef")
        for options in [{}, {"rowvar": False}]
    ),
    case("cov", signed(3, 4), signed(2, 4), dtypes=FLOATING, ddof=2, reference=_kept(np.cov)),
    case("cov", signed(4), signed(4), bias=True, reference=_kept(np.cov)),
    case("corrcoef", signed(4), signed(4), reference=_kept(np.corrcoef)),
    case("cov", signed(4), reference=_kept(np.cov)),
    case("corrcoef", signed(4), reference=_kept(np.corrcoef)),
    *(
        case(name, signed(4, 5), dtypes=REAL, **options, **_holed(name))
        for name in ("nansum", "nanmean", "nanmax", "nanmin")
        for options in [{}, {"axis": 1}, {"axis": (0, 1), "keepdims": True}]
    ),
    case("nansum", signed(2, 3), dtypes="qFD"),
    case("nanmean", signed(2, 3), dtypes="qFD", axis=0),
    case("bincount", _BINS, dtypes="d", order=0),
    case("bincount", _BINS, dtypes="d", order=0, minlength=7),
    case("bincount", _BINS, signed(4), dtypes="fd"),
    case("bincount", _BINS, signed(4), dtypes="d", minlength=7),
]
