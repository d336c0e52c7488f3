"""Rows of the table: sequences."""

from __future__ import annotations

from typing import Any

import numpy as np

import gpugrad as gg

from ..rows import ANY, FLOATING, NUMERIC, case, positive, signed

_KNOTS = np.array([-1.0, -0.3, 0.2, 1.1, 2.0])


def _interp(x: Any, xp: Any, fp: Any, **options: Any) -> np.ndarray:
    dtype = np.result_type(x, xp, fp)
    return np.asarray(np.interp(x, xp, fp, **options)).astype(dtype)


def _of_widths(library: Any) -> Any:
    """interp at knots that are made increasing."""
    cumulate = np.cumsum if library is np else gg.cumulative_sum
    f = _interp if library is np else gg.interp
    return lambda x, widths, fp: f(x, cumulate(widths) - 2.5, fp)


ROWS = [
    *(
        case("pad", signed(*shape), dtypes=ANY, pad_width=width, **options)
        for shape, width, options in [
            ((3,), 2, {}),
            ((2, 3), ((1, 0), (0, 2)), {"mode": "constant", "constant_values": 1}),
            ((2, 3), (1, 2), {"constant_values": ((1, 2), (3, 4))}),
            ((0, 2), 1, {}),
        ]
    ),
    case("pad", signed(), pad_width=2),
    *(
        case("pad", signed(*shape), dtypes=ANY if shape == (2, 3) else "d", pad_width=w, mode=mode)
        for mode in ("edge", "reflect", "symmetric", "wrap")
        for shape, w in [
            ((2, 3), ((1, 0), (2, 2))),
            ((3,), 0),
            ((3,), (7, 8)),
            ((1, 2), (3, 5)),
            ((0, 2), ((0, 0), (1, 1))),
        ]
    ),
    *(
        case(name, signed(*a), signed(*v), dtypes=NUMERIC, mode=mode)
        for name in ("convolve", "correlate")
        for mode in ("full", "same", "valid")
        for a, v in [((5,), (3,)), ((6,), (4,)), ((2,), (5,)), ((3,), (4,)), ((3,), (3,))]
    ),
    case("convolve", signed(3), signed(1)),
    case("correlate", signed(3), signed(4)),
    *(
        case(
            "interp",
            signed(*shape),
            positive(5),
            signed(5),
            dtypes="fd",
            function=_of_widths(gg),
            reference=_of_widths(np),
        )
        for shape in [(9,), (2, 3), ()]
    ),
    *(
        case("interp", x, knots, signed(*knots.shape), reference=_interp, dtypes="dD", **options)
        for x, knots, options in [
            (np.array([-3.0, -1.0, 0.0, 2.0, 9.0]), _KNOTS, {}),
            (np.array([-3.0, 0.5, 9.0]), _KNOTS, {"left": 0.5, "right": -1}),
            (np.array([-3.0, 0.5, 9.0, 0.0]), _KNOTS, {"period": 2.5}),
            (np.array([-3.0, 0.5, 9.0, 0.0]), _KNOTS[[3, 0, 1, 4, 2]], {"period": -4}),
            (np.array([-3, 1, 9]), np.array([0, 2, 5]), {}),
            (np.array([0.5, 1.0, 2.0]), np.array([1.0]), {}),
        ]
    ),
    case("trapezoid", signed(2, 4), dtypes=NUMERIC),
    case("trapezoid", signed(2, 4), axis=0, dx=0.5),
    case("trapezoid", signed(2, 4), signed(4)),
    case("trapezoid", signed(4, 2), signed(4, 2), axis=0, dtypes=FLOATING),
    case("trapezoid", signed(4, 2), signed(4), axis=0),
    case("trapezoid", signed(1)),
]
