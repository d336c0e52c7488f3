"""Rows of the table: decompositions of matrices, and what is computed by them.

Vectors are determined up to a phase: the rows look at what does not depend on it, and for `eig` not
on the order either.
"""

from __future__ import annotations

import functools

from ..rows import case, signed, written


def _adjoint(library, x):
    return library.conj(library.matrix_transpose(x))


def _as_it_is(library, x):
    return x


def _regular(library, x):
    return x + 3 * library.linalg.matrix_power(x, 0)


def _positive(library, x):
    return x @ _adjoint(library, x) + library.linalg.matrix_power(x, 0)


def _hermitian(library, x):
    return x + _adjoint(library, x)


def _combined(library, left, values, right):
    """left @ diag(exp(values)) @ right."""
    return left * library.exp(values)[..., None, :] @ right


def _of(make, name, **options):
    """The function `name` of the matrix that `make` makes."""

    def f(library, x):
        return getattr(library.linalg, name)(make(library, x), **options)

    return f


def _qr(library, x, **options):
    return list(library.linalg.qr(x, **options))


def _slogdet(library, x):
    return list(library.linalg.slogdet(_regular(library, x)))


def _eigh(library, x):
    w, v = library.linalg.eigh(_hermitian(library, x))
    first = v[..., :1]
    return [
        w,
        library.abs(v),
        first @ _adjoint(library, first),
        _combined(library, v, w, _adjoint(library, v)),
    ]


def _eig(library, x):
    w, v = library.linalg.eig(x)
    lengths = library.sum(library.abs(v) ** 3, axis=-1)
    return [lengths, _combined(library, v, w, library.linalg.inv(v))]


def _eigvals(library, x):
    return library.sum(library.exp(library.linalg.eigvals(x)), axis=-1)


def _svd(library, x, **options):
    u, s, vh = library.linalg.svd(x, **options)
    return [s, library.abs(u), library.abs(vh), u[..., :1] @ vh[..., :1, :]]


def _svd_whole(library, x):
    return _combined(library, *library.linalg.svd(x, full_matrices=False))


def _pinv_of_product(library, a, b):
    return library.linalg.pinv(a @ b, rtol=1e-3)


def _rank_of_half(library, x):
    return library.linalg.matrix_rank(x, rtol=0.5)


def _lstsq(library, a, b):
    x, residuals, _, s = library.linalg.lstsq(a, b, rcond=1e-3)
    return [x, residuals, s]


_row = functools.partial(written, rtol=256, needs="cuSOLVER")
_case = functools.partial(case, rtol=256, needs="cuSOLVER")

SQUARE = [(3, 3), (2, 2, 2), (1, 1), (0, 0), (0, 2, 2)]
ANY_SHAPE = [(3, 3), (4, 2), (2, 4), (2, 3, 2), (3, 0), (0, 2, 3)]

ROWS = [
    *(
        _row(
            f"linalg.{name}", f"{shape}{options or ''}", _of(make, name, **options), signed(*shape)
        )
        for name, make, options in [
            ("inv", _regular, {}),
            ("det", _regular, {}),
            ("cholesky", _positive, {}),
            ("cholesky", _positive, {"upper": True}),
            ("eigvalsh", _hermitian, {}),
        ]
        for shape in SQUARE
    ),
    *(
        _row(name, str(shape), f, signed(*shape))
        for name, f in [
            ("linalg.slogdet", _slogdet),
            ("linalg.eigh", _eigh),
        ]
        for shape in [(3, 3), (2, 3, 3), (0, 0), (0, 2, 2)]
    ),
    *(
        # of NumPy's complex results only: it gives real ones where no value is complex
        _row(name, str(shape), f, signed(*shape), dtypes=dtypes)
        for name, f in [("linalg.eig", _eig), ("linalg.eigvals", _eigvals)]
        for shape, dtypes in [((3, 3), "fdFD"), ((2, 3, 3), "fdFD"), ((0, 0), "FD")]
    ),
    *(
        _row(name, str(shape), f, signed(*shape))
        for name, f in [
            ("linalg.qr", _qr),
            ("linalg.svd", functools.partial(_svd, full_matrices=False)),
            ("linalg.svd", _svd_whole),
            ("linalg.svdvals", _of(_as_it_is, "svdvals")),
        ]
        for shape in ANY_SHAPE
    ),
    _row("linalg.qr", "complete", functools.partial(_qr, mode="complete"), signed(2, 3)),
    _row("linalg.svd", "full", _svd, signed(3, 3)),
    *(_case("linalg.pinv", signed(*shape)) for shape in ANY_SHAPE),
    _row("linalg.pinv", "of rank 2", _pinv_of_product, signed(4, 2), signed(2, 3)),
    _case("linalg.matrix_rank", signed(2, 3, 2), order=0),
    _row("linalg.matrix_rank", "rtol", _rank_of_half, signed(3, 3), order=0),
    *(
        _row(
            "linalg.matrix_power",
            str(n),
            lambda library, x, n=n: library.linalg.matrix_power(_regular(library, x), n),
            signed(2, 3, 3),
            needs="cuSOLVER" if n < 0 else "",
        )
        for n in (0, 1, 2, 3, 4, 7, -1, -2)
    ),
    _case("linalg.solve", signed(3, 3), signed(3)),
    _case("linalg.solve", signed(3, 3), signed(3, 2)),
    _case("linalg.solve", signed(2, 3, 3), signed(3)),
    _case("linalg.solve", signed(3, 3), signed(2, 3, 2)),
    _case("linalg.solve", signed(2, 1, 3, 3), signed(4, 3, 1)),
    _case("linalg.solve", signed(0, 0), signed(0, 2)),
    _row("linalg.lstsq", "(4,2),(4,)", _lstsq, signed(4, 2), signed(4)),
    _row("linalg.lstsq", "(4,2),(4,3)", _lstsq, signed(4, 2), signed(4, 3)),
    _row("linalg.lstsq", "(2,3),(2,1)", _lstsq, signed(2, 3), signed(2, 1)),
]
