"""Rows of the table: products of arrays."""

from __future__ import annotations

import math

import numpy as np

from ..rows import (
    ANY,
    NUMERIC,
    case,
    signed,
    written,
)

ROWS = [
    *(
        case("matmul", signed(*a), signed(*b), dtypes=NUMERIC)
        for a, b in [
            ((3,), (3,)),
            ((2, 3), (3,)),
            ((3,), (3, 2)),
            ((2, 3), (3, 4)),
            ((5, 2, 3), (3, 4)),
            ((2, 3), (5, 3, 4)),
            ((1, 2, 3), (5, 3, 4)),
            ((3,), (5, 3, 4)),
            ((5, 2, 3), (3,)),
            ((2, 0), (0, 3)),
        ]
    ),
    case("tensordot", signed(2, 3, 4), signed(3, 4, 2), dtypes=NUMERIC),
    case("tensordot", signed(2, 3), signed(3, 2), axes=1),
    case("tensordot", signed(2), signed(3), axes=0),
    case("tensordot", signed(2, 3, 4), signed(3, 5, 2), axes=((1, 0), (0, -1))),
    case("vecdot", signed(2, 3), signed(3), dtypes=NUMERIC),
    case("vecdot", signed(3, 1, 2), signed(3, 4, 1), axis=0),
    case("dot", signed(3), signed(3), dtypes=NUMERIC),
    case("dot", signed(), signed(2, 3)),
    case("dot", signed(2, 3), signed(3)),
    case("dot", signed(5, 2, 3), signed(4, 3, 2)),
    case("inner", signed(3), signed(3), dtypes=NUMERIC),
    case("inner", signed(2, 3), signed(4, 5, 3)),
    case("inner", signed(2), signed()),
    case("vdot", signed(2, 3), signed(3, 2), dtypes=NUMERIC),
    case("outer", signed(2), signed(3), dtypes=NUMERIC),
    case("outer", signed(2, 2), signed(3, 1)),
    case("linalg.outer", signed(2), signed(3), dtypes=NUMERIC),
    case("linalg.outer", signed(0), signed(3)),
    case("kron", signed(2), signed(3), dtypes=NUMERIC),
    case("kron", signed(2, 3), signed(2, 1)),
    case("kron", signed(2, 1, 2), signed(3)),
    case("cross", signed(3), signed(3), dtypes=NUMERIC),
    case("cross", signed(3, 2), signed(5, 2, 3), axisa=0, axisc=1),
    case("cross", signed(3, 2), signed(3, 2), axis=0),
    case("linalg.cross", signed(4, 3), signed(4, 3), dtypes=NUMERIC),
    case("linalg.cross", signed(3, 2), signed(5, 3, 2), reference=np.cross, axis=-2),
    *(
        written(
            "linalg.multi_dot",
            str(shapes),
            lambda library, *xs: library.linalg.multi_dot(xs),
            *(signed(*shape) for shape in shapes),
        )
        for shapes in [
            ((2, 3), (3, 2)),
            ((2, 3), (3, 4), (4, 1), (1, 2)),
            ((3,), (3, 4), (4,)),
        ]
    ),
    case("diagonal", signed(2, 3), dtypes=ANY),
    case("diagonal", signed(2, 3, 4), offset=1, axis1=2, axis2=-2),
    case("linalg.diagonal", signed(3, 2), dtypes=ANY),
    *(case("linalg.diagonal", signed(2, 3, 4), offset=k) for k in (-9, -3, -1, 2, 4, 99)),
    case("trace", signed(2, 3), dtypes=NUMERIC),
    case("trace", signed(2, 3, 4), offset=-1, axis1=2, axis2=0),
    case("linalg.trace", signed(3, 2), dtypes=NUMERIC),
    case("linalg.trace", signed(2, 3, 4), dtypes="fd", offset=2, dtype=np.float64),
    case("linalg.trace", signed(2, 0, 3)),
    *(
        case("linalg.vector_norm", signed(2, 3), ord=ord)
        for ord in (2, 1, 0, 3, 0.5, -1, -2.5, math.inf, -math.inf)
    ),
    case("linalg.vector_norm", signed(2, 3), dtypes="qfdFD", axis=0),
    case("linalg.vector_norm", signed(2, 3, 4), axis=(0, -1), keepdims=True),
    case("linalg.vector_norm", signed(2, 3, 4), axis=(0, -1), ord=math.inf),
    case("linalg.vector_norm", signed(2, 3, 4), axis=1, ord=3, keepdims=True),
    case("linalg.vector_norm", signed()),
    case("linalg.vector_norm", signed(0, 2), axis=0, ord=math.inf),
    *(
        case("linalg.matrix_norm", signed(2, 3), ord=ord)
        for ord in ("fro", 1, -1, math.inf, -math.inf)
    ),
    case("linalg.matrix_norm", signed(2, 2, 3), ord=1, keepdims=True),
    case("linalg.matrix_norm", signed(3, 0, 2), ord=1),
    *(
        case("linalg.matrix_norm", signed(2, 3), ord=ord, needs="cuSOLVER")
        for ord in (2, -2, "nuc")
    ),
    case("linalg.norm", signed(2, 3, 2)),
    case("linalg.norm", signed(3), ord=1, keepdims=True),
    case("linalg.norm", signed(2, 3), ord=math.inf),
    case("linalg.norm", signed(2, 3), axis=1),
    case("linalg.norm", signed(2, 3, 4), ord=1, axis=(2, 0)),
    case("linalg.norm", signed(2, 3, 4), axis=(2, 0), keepdims=True),
    *(
        written(
            "einsum",
            subscripts,
            lambda library, *xs, subscripts=subscripts: library.einsum(subscripts, *xs),
            *(signed(*shape) for shape in shapes),
        )
        for subscripts, *shapes in [
            ("ij,jk->ik", (2, 3), (3, 4)),
            ("ij, kj", (2, 3), (4, 3)),
            ("ii->i", (3, 3)),
            ("ii", (3, 3)),
            ("ij->j", (2, 3)),
            ("ij->", (2, 3)),
            ("ij->ji", (2, 3)),
            ("...ij,jk", (5, 2, 3), (3, 2)),
            ("...i,...i->...", (2, 1, 3), (4, 3)),
            ("i,j,k->jk", (2,), (3,), (4,)),
            ("ij,ij->", (2, 3), (1, 3)),
            ("iij->ij", (2, 2, 3)),
            ("ii,i->i", (3, 3), (3,)),
        ]
    ),
]
