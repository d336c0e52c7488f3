"""Rows of the table: shapes."""

from __future__ import annotations

import numpy as np

from ..rows import (
    ANY,
    FLOATING,
    case,
    signed,
    written,
)

ROWS = [
    written("reshape", "-1", lambda m, x: m.reshape(x, (3, -1)), signed(2, 6), dtypes=ANY),
    written("reshape", "integer", lambda m, x: m.reshape(x, 6), signed(2, 3)),
    written("reshape", "0-d", lambda m, x: m.reshape(x, ()), signed(1, 1)),
    case("permute_dims", signed(2, 3, 4), axes=(2, 0, 1)),
    case("permute_dims", signed(2, 3, 4), axes=(-1, 0, 1)),
    case("matrix_transpose", signed(2, 3, 4)),
    written("moveaxis", "one", lambda m, x: m.moveaxis(x, 0, -1), signed(2, 3, 4)),
    written("moveaxis", "two", lambda m, x: m.moveaxis(x, (0, 1), (2, 0)), signed(2, 3, 4)),
    case("expand_dims", signed(2, 3), axis=-1),
    case("expand_dims", signed(2, 3), axis=(0, 2)),
    case("squeeze", signed(1, 3, 1), axis=0),
    case("squeeze", signed(1, 3, 1), axis=(0, -1)),
    case("broadcast_to", signed(3, 1), shape=(2, 3, 4)),
    case("broadcast_to", signed(), shape=(2, 2)),
    case("broadcast_to", signed(1, 3), shape=(0, 3)),
    case("broadcast_arrays", signed(3, 1), signed(2)),
    case("tril", signed(2, 3, 3), k=-1, dtypes="qfdFD"),
    case("triu", signed(3, 2), k=0, dtypes="qfdFD"),
    case("meshgrid", signed(2), signed(3), signed(4)),
    case("meshgrid", signed(2), signed(3), indexing="ij"),
    case("meshgrid", signed(2)),
    case("flip", signed(2, 3)),
    case("flip", signed(2, 3), axis=1),
    case("flip", signed(2, 3, 2), axis=(0, -1)),
    case("roll", signed(2, 3), shift=2),
    case("roll", signed(2, 3), shift=-1, axis=1),
    case("roll", signed(2, 3), shift=(1, 2), axis=(0, 1)),
    case("repeat", signed(2, 3), repeats=2),
    case("repeat", signed(2, 3), repeats=3, axis=-1),
    case("repeat", signed(3, 2), repeats=[1, 0, 2], axis=0),
    case("repeat", signed(3, 2), np.array([1, 0, 2]), axis=0, dtypes=ANY),
    case("repeat", signed(2, 3), np.array([1, 0, 2], np.uint8), axis=-1),
    case("repeat", signed(2, 2), np.array([1, 0, 2, 1])),
    case("repeat", signed(2, 2), np.array([2]), axis=1),
    written("tile", "more axes", lambda m, x: m.tile(x, (2, 1, 3)), signed(2, 3)),
    written("tile", "fewer axes", lambda m, x: m.tile(x, (2,)), signed(2, 3)),
    *(
        written(
            "concat",
            f"axis={axis}",
            lambda m, *xs, axis=axis: m.concat(xs, axis=axis),
            *(signed(*shape) for shape in shapes),
            dtypes=ANY,
        )
        for axis, *shapes in [
            (0, (2, 3), (1, 3)),
            (-1, (2, 3), (2, 0), (2, 1)),
            (None, (2, 3), (2,)),
        ]
    ),
    written("stack", "axis=0", lambda m, *xs: m.stack(xs), signed(2, 3), signed(2, 3)),
    written("stack", "axis=-1", lambda m, *xs: m.stack(xs, axis=-1), signed(2), signed(2)),
    case("unstack", signed(2, 3), axis=1, reference=lambda x, axis: tuple(np.moveaxis(x, axis, 0))),
    *(
        written("astype", to, lambda m, x, to=to: x.astype(to), signed(2, 3), dtypes=dtypes)
        for to, dtypes in [("float32", "f"), ("float64", "fd"), ("complex128", FLOATING)]
    ),
]
