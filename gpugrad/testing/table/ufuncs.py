"""Rows of the table: NumPy's ufuncs that the standard lacks, on Tensors (`gpugrad.protocols`)."""

from __future__ import annotations

from ...protocols import ufuncs
from ..rows import NUMERIC, entrywise, signed


def _row(name: str, *args, dtypes: str = "fd", order: int = 2):
    return entrywise(name, *args, dtypes=dtypes, order=order, function=getattr(ufuncs, name))


ROWS = [
    _row("cbrt", signed, dtypes="qfd"),
    _row("exp2", signed, dtypes=NUMERIC),
    _row("fabs", signed, dtypes="qfd"),
    _row("rint", signed, dtypes=NUMERIC),
    _row("deg2rad", signed, dtypes="qfd"),
    _row("rad2deg", signed, dtypes="qfd"),
    _row("logaddexp2", signed, signed),
    _row("fmax", signed, signed, dtypes="qfd"),
    _row("fmin", signed, signed, dtypes="qfd"),
    _row("fmod", signed, signed, dtypes="qfd"),
    _row("heaviside", signed, signed),
    _row("float_power", signed, signed, dtypes="dD"),
    _row("gcd", signed, signed, dtypes="q", order=0),
    _row("lcm", signed, signed, dtypes="q", order=0),
]
