"""Rows of the table: elementwise functions."""

from __future__ import annotations

import numpy as np

from ..rows import (
    ANY,
    FLOATING,
    MASK,
    NUMERIC,
    above_1,
    case,
    entrywise,
    inside,
    positive,
    signed,
)


def _floor_divide(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """NumPy's, but a / b where one is infinite, as in the standard."""
    finite = np.floor_divide(a, b)
    return np.where(np.isinf(a) | np.isinf(b), np.asarray(np.divide(a, b), finite.dtype), finite)


ROWS = [
    # ---- arithmetic
    entrywise("add", signed, signed, dtypes=ANY),
    entrywise("subtract", signed, signed, dtypes=NUMERIC),
    entrywise("multiply", signed, signed, dtypes=ANY),
    entrywise("divide", signed, signed, dtypes=NUMERIC),
    entrywise("negative", signed, dtypes=NUMERIC),
    entrywise("positive", signed, dtypes=NUMERIC),
    entrywise("reciprocal", signed, dtypes=FLOATING),
    entrywise("square", signed, dtypes=NUMERIC),
    entrywise("sqrt", positive, dtypes=NUMERIC),
    entrywise("pow", positive, signed, dtypes=FLOATING),
    entrywise("floor_divide", signed, signed, dtypes="qfd", reference=_floor_divide),
    entrywise("remainder", signed, signed, dtypes="qfd"),
    entrywise("hypot", signed, signed),
    # ---- exponentials and logarithms
    entrywise("exp", signed, dtypes=NUMERIC),
    entrywise("expm1", signed, dtypes=NUMERIC),
    entrywise("log", positive, dtypes=NUMERIC),
    entrywise("log1p", positive, dtypes=NUMERIC),
    entrywise("log2", positive, dtypes=NUMERIC),
    entrywise("log10", positive, dtypes=NUMERIC),
    entrywise("logaddexp", signed, signed),
    # ---- trigonometric and hyperbolic
    entrywise("sin", signed, dtypes=NUMERIC),
    entrywise("cos", signed, dtypes=NUMERIC),
    entrywise("tan", inside, dtypes=NUMERIC),
    entrywise("asin", inside, dtypes=FLOATING),
    entrywise("acos", inside, dtypes=FLOATING),
    entrywise("atan", signed, dtypes=NUMERIC),
    entrywise("atan2", signed, signed),
    entrywise("sinh", signed, dtypes=NUMERIC),
    entrywise("cosh", signed, dtypes=NUMERIC),
    entrywise("tanh", signed, dtypes=NUMERIC),
    entrywise("asinh", signed, dtypes=NUMERIC),
    entrywise("acosh", above_1, dtypes=NUMERIC),
    entrywise("atanh", inside, dtypes=FLOATING),
    # ---- rounding, sign and order
    entrywise("floor", signed),
    entrywise("ceil", signed),
    entrywise("trunc", signed),
    entrywise("round", signed, dtypes=FLOATING),
    entrywise("abs", signed, dtypes=NUMERIC),
    entrywise("sign", signed, dtypes=NUMERIC),
    entrywise("copysign", signed, signed),
    entrywise("nextafter", signed, signed),
    entrywise("maximum", signed, signed, dtypes=ANY),
    entrywise("minimum", signed, signed, dtypes=ANY),
    entrywise("clip", signed, signed, signed, dtypes="qfd"),
    case("clip", signed(2, 3), min=-0.5, max=None),
    case("clip", signed(2, 3), min=None, max=0.5),
    case("clip", signed(2, 3), min=-0.5, max=1),
    entrywise("where", MASK, signed, signed, dtypes=ANY),
    # ---- complex numbers
    entrywise("conj", signed, dtypes=NUMERIC),
    entrywise("real", signed, dtypes=FLOATING),
    entrywise("imag", signed, dtypes="FD"),
    # ---- comparison, logic, bits: no derivative
    *(
        entrywise(name, signed, signed, dtypes="?qfd", order=0)
        for name in [
            *["equal", "not_equal", "less", "less_equal", "greater", "greater_equal"],
            *["logical_and", "logical_or", "logical_xor"],
        ]
    ),
    entrywise("logical_not", signed, dtypes="?qfd", order=0),
    entrywise("isfinite", signed, dtypes=NUMERIC, order=0),
    entrywise("isinf", signed, dtypes=FLOATING, order=0),
    entrywise("isnan", signed, dtypes=FLOATING, order=0),
    entrywise("signbit", signed, order=0),
    entrywise("bitwise_and", positive, positive, dtypes="?q", order=0),
    entrywise("bitwise_or", positive, positive, dtypes="?q", order=0),
    entrywise("bitwise_xor", positive, positive, dtypes="?q", order=0),
    entrywise("bitwise_invert", positive, dtypes="?q", order=0),
    entrywise("bitwise_left_shift", positive, positive, dtypes="q", order=0),
    entrywise("bitwise_right_shift", positive, positive, dtypes="q", order=0),
]
