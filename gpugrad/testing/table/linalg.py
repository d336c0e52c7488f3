"""Rows of the table: products of arrays."""

from __future__ import annotations

from ..rows import (
    FLOATING,
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
    *(
        written(
            "einsum",
            subscripts,
            lambda library, *xs, subscripts=subscripts: library.einsum(subscripts, *xs),
            *(signed(*shape) for shape in shapes),
            dtypes=FLOATING,
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
