"""Decompositions of matrices and what is computed by them: array API standard 2025.12, `linalg`.

All functions take stacks of matrices, shape (..., m, n), of float32, float64, complex64 or
complex128; integers count as float64. Errors of shape, and on the CPU a matrix that has no such
decomposition, raise `numpy.linalg.LinAlgError`; on a GPU the latter gives infinities, NaN or
meaningless numbers, as CuPy does by default, for to see it is to wait for the device.

The rules follow Giles (2008), "Collected matrix derivative results for forward and reverse mode
algorithmic differentiation", and for complex matrices Hjørungnes (2011), "Complex-Valued Matrix
Derivatives". Inside, a cotangent `t` of a result y means the real part of sum(t * dy).
What holds for phases and for repeated values is said in `gpugrad.linalg`.
"""

from __future__ import annotations

import math
import operator
from typing import Any, NamedTuple

import numpy as np

from ..rules import check_arrays, constant, general, raw, several, xp
from ..tape import recording
from ..tensor import Tensor
from . import reductions
from .creation import zeros_like
from .elementwise import abs, conj, imag, real, where
from .linalg import (
    _diagonal,
    largest,
    matmul,
    place_diagonal,
    vector_norm,
)
from .manipulation import concat, expand_dims, matrix_transpose, moveaxis, squeeze, tril, triu
from .reductions import _product_of_others

__all__: list[str] = []  # the face is `gpugrad.linalg`


class EighResult(NamedTuple):
    """Eigenvalues (..., n), ascending, and eigenvectors (..., n, n), in columns."""

    eigenvalues: Any
    eigenvectors: Any


class EigResult(NamedTuple):
    """Eigenvalues (..., n) and eigenvectors (..., n, n), in columns."""

    eigenvalues: Any
    eigenvectors: Any


class QRResult(NamedTuple):
    """Orthonormal columns Q and an upper triangular R."""

    Q: Any
    R: Any


class SlogdetResult(NamedTuple):
    """The sign (or phase) and the logarithm of the absolute value of a determinant."""

    sign: Any
    logabsdet: Any


class SVDResult(NamedTuple):
    """Left vectors in columns, singular values in descending order, right vectors in rows."""

    U: Any
    S: Any
    Vh: Any


# ---- what the rules share


def _adjoint(x: Any) -> Any:
    return conj(matrix_transpose(x))


def _hermitian(x: Any) -> Any:
    return (x + _adjoint(x)) * 0.5


def _half_lower(x: Any) -> Any:
    """The lower triangle with half of the diagonal."""
    return (tril(x) + tril(x, k=-1)) * 0.5


def _half_upper(x: Any) -> Any:
    return (triu(x) + triu(x, k=1)) * 0.5


def _total(x: Any) -> Any:
    return reductions.sum(x, axis=(-2, -1))


def _trace(x: Any) -> Any:
    return reductions.sum(_diagonal(x, offset=0), axis=-1)


def _square(x: Any) -> tuple[int, ...]:
    return (*x.shape, x.shape[-1])


def _tolerance(w: Any) -> Any:
    """The gap below which values `w` (..., n) count as equal, shape (..., 1).

    Equal eigenvalues come out up to 2 * sqrt(n) * eps apart (measured for n to 400), while distinct
    ones of large random float32 matrices lie closer than n * eps.
    """
    eps = float(np.finfo(w.dtype).eps)
    return largest(abs(w), (-1,), True) * (4 * math.sqrt(w.shape[-1]) * eps)


def _inverse(x: Any, tolerance: Any) -> Any:
    """1 / x, but 0 where |x| is within the tolerance."""
    nothing = abs(x) <= tolerance
    return where(nothing, 0, 1 / where(nothing, 1, x))


def _inverse_gaps(w: Any) -> Any:
    """1 / (w_j - w_i), 0 on the diagonal and between equal values."""
    gaps = expand_dims(w, -2) - expand_dims(w, -1)
    return _inverse(gaps, expand_dims(_tolerance(w), -1))


def _checked(x: Any, *, square: bool = False) -> Any:
    """A raw array as the libraries' linear algebra takes it; CuPy's would take others."""
    if x.dtype.kind not in "biufc" or (x.dtype.itemsize == 2 and x.dtype.kind == "f"):
        raise TypeError(f"{x.dtype} is not supported: use .astype(gpugrad.float32)")
    if x.ndim < 2:
        raise np.linalg.LinAlgError(f"at least two axes are needed, got shape {x.shape}")
    if square and x.shape[-1] != x.shape[-2]:
        raise np.linalg.LinAlgError(f"square matrices are needed, got shape {x.shape}")
    return x


def _is_recorded(x: Any) -> bool:
    return type(x) is Tensor and x.node is not None and recording()


# ---- inverse and linear equations


@general(
    (lambda t, out: -matrix_transpose(out) @ t @ matrix_transpose(out),),
    (lambda t, out: -out @ t @ out,),
)
def inv(x: Any, /) -> Any:
    """The inverse of square matrices, shape (..., n, n).

    Raises:
        numpy.linalg.LinAlgError: if they are not square; on the CPU, if one is singular.
    """
    return xp(x).linalg.inv(_checked(x, square=True))


@general(
    (
        lambda t, a, out: -_solve(matrix_transpose(a), t) @ matrix_transpose(out),
        lambda t, a: _solve(matrix_transpose(a), t),
    ),
    (
        lambda t, a, out: -_solve(a, t @ out),
        lambda t, a: _solve(a, t),
    ),
)
def _solve(a: Any, b: Any, /) -> Any:
    a, b = _checked(a, square=True), _checked(b)
    if a.shape[-1] != b.shape[-2]:
        raise ValueError(f"there are {a.shape[-1]} equations, but right sides of {b.shape[-2]}")
    return xp(a).linalg.solve(a, b)


def solve(a: Any, b: Any, /) -> Any:
    """The solution x of a @ x = b.

    Args:
        a: shape (..., n, n).
        b: shape (n,), or (..., n, k); stacks broadcast.

    Returns:
        Shape (..., n) or (..., n, k).

    Raises:
        numpy.linalg.LinAlgError: as `inv`.
        ValueError: if the shapes do not fit.
    """
    check_arrays("solve", a, b)
    return squeeze(_solve(a, expand_dims(b, -1)), -1) if b.ndim == 1 else _solve(a, b)


def matrix_power(x: Any, n: int, /) -> Any:
    """Square matrices multiplied `n` times with themselves; their inverses for negative `n`.

    For n = 0 the identity, with derivative 0.
    """
    check_arrays("matrix_power", x)
    n = operator.index(n)
    if x.ndim < 2 or x.shape[-1] != x.shape[-2]:
        raise np.linalg.LinAlgError(f"matrix_power: square matrices are needed, got {x.shape}")
    if n < 0:
        return matrix_power(inv(x), -n)
    if n == 0:
        return _power_0(x)
    if n == 1:
        return +x
    half = matrix_power(matmul(x, x), n // 2) if n > 3 else matmul(x, x)
    return matmul(x, half) if n % 2 else half


@general((lambda t: zeros_like(t),), (lambda t: zeros_like(t),))
def _power_0(x: Any, /) -> Any:
    out = xp(x).zeros(x.shape, x.dtype)
    out[...] = xp(x).eye(x.shape[-1], dtype=x.dtype)
    return out


# ---- determinants


@general(
    (lambda t, x: _spread(t) * _cofactors(x),),
    (lambda t, x: _total(t * _cofactors(x)),),
)
def det(x: Any, /) -> Any:
    """The determinant of square matrices.

    The derivative, the matrix of cofactors, and the second derivative are right for matrices of any
    rank; third and higher ones need a regular matrix.
    """
    return xp(x).linalg.det(_checked(x, square=True))


def _spread(t: Any) -> Any:
    return expand_dims(t, (-2, -1))


# Derivatives of all orders of a function are symmetric: each of these serves both sweeps.


@general((lambda t, x: _cofactor_slope(t, x),), (lambda t, x: _cofactor_slope(t, x),))
def _cofactors(x: Any, /) -> Any:
    """The derivative of `det`: with x = u diag(s) vh it is that of diag(s), turned back."""
    u, s, vh = _mixed_svd(x)
    others = _product_of_others(s, -1)
    return _spread(xp(x).linalg.det(u @ vh)) * conj(u * others[..., None, :] @ vh)


@general(
    (lambda t, x: _cofactor_slope(t, x), lambda t, g, x: _cofactor_curvature(t, g, x)),
    (lambda t, x: _cofactor_slope(t, x), lambda t, g, x: _cofactor_curvature(t, g, x)),
)
def _cofactor_slope(g: Any, x: Any, /) -> Any:
    """The second derivative of `det` along `g`.

    For diag(s) and a direction d, with p_ij the product of all s but s_i and s_j, it is
    sum_j p_ij d_jj on the diagonal and -p_ij d_ji beside it.
    """
    u, s, vh = _mixed_svd(x)
    pairs = _product_of_other_pairs(s)
    d = _adjoint(u) @ g @ _adjoint(vh)
    slope = matrix_transpose(-pairs * d)
    slope = slope + place_diagonal((pairs @ _diagonal(d, offset=0)[..., None])[..., 0], to=d.shape)
    return _spread(xp(x).linalg.det(u @ vh)) * (conj(u) @ slope @ conj(vh))


def _mixed_svd(x: Any) -> Any:
    """The decomposition with large and small values in turn: running products stay in range."""
    u, s, vh = xp(x).linalg.svd(x, full_matrices=False)
    i = xp(x).arange(s.shape[-1])
    order = xp(x).where(i % 2 == 0, i // 2, s.shape[-1] - 1 - i // 2)
    return u[..., order], s[..., order], vh[..., order, :]


def _product_of_other_pairs(s: Any) -> Any:
    """Per pair i != j the product of all other elements of `s` (..., n), without a division."""
    library = xp(s)
    n = s.shape[-1]
    ones = library.ones((*s.shape, 1), dtype=s.dtype)
    one = ones[..., :1, 0]
    above = library.arange(n)[:, None] < library.arange(n)
    rows = library.where(above, s[..., None, :], ones)
    between = library.concatenate([ones, library.cumprod(rows, axis=-1)[..., :-1]], axis=-1)
    forward = library.concatenate([one, library.cumprod(s, axis=-1)[..., :-1]], axis=-1)
    back = library.cumprod(library.flip(s, -1), axis=-1)
    back = library.flip(library.concatenate([one, back[..., :-1]], axis=-1), -1)
    out = library.where(above, forward[..., :, None] * between * back[..., None, :], 0)
    return out + matrix_transpose(out)


def _cofactor_curvature(a: Any, b: Any, x: Any) -> Any:
    """The third derivative of `det` along `a` and `b`, for a regular matrix."""
    inverse = inv(x)
    p, q = inverse @ a, inverse @ b
    of_p, of_q = _spread(_trace(p)), _spread(_trace(q))
    scale = of_p * of_q - _spread(_total(p * matrix_transpose(q)))
    turned = (p @ q + q @ p - of_p * q - of_q * p) @ inverse
    return _spread(det(x)) * matrix_transpose(scale * inverse + turned)


def _slogdet_vjp(t: Any, x: Any, out: Any) -> Any:
    t_sign, total = t
    if t_sign is not None and x.dtype.kind == "c":  # the sign of a real one is constant
        turn = imag(t_sign * out[0]) * 1j
        total = turn if total is None else total + turn
    return zeros_like(x) if total is None else _spread(total) * _slogdet_slope(x, out[0])


def _slogdet_jvp(t: Any, x: Any, out: Any) -> Any:
    z = _total(t * _slogdet_slope(x, out[0]))
    if x.dtype.kind != "c":
        return None, z
    return imag(z) * 1j * out[0], real(z)


def _slogdet_slope(x: Any, sign: Any) -> Any:
    """The transpose of the inverse; of a singular matrix infinities with the adjugate's signs.

    There it is the inverse of a matrix close by that says what grows.
    """
    tiny = math.sqrt(np.finfo(x.dtype).eps)
    singular = _spread(sign == 0)
    scale = largest(abs(x), (-2, -1), True)
    step = where(scale == 0, 1, scale) * tiny
    near = where(singular & _identity(x), x + step, x)
    out = matrix_transpose(inv(near))
    grows = singular & (abs(out) * step > math.sqrt(tiny))
    positive = real(out * _spread(slogdet(near).sign)) > 0
    return where(grows, where(positive, math.inf, -math.inf), out)


def _identity(x: Any) -> Any:
    return xp(raw(x)).eye(x.shape[-1], dtype=bool)


@several((_slogdet_vjp,), (_slogdet_jvp,))
def _slogdet(x: Any, /) -> Any:
    return tuple(xp(x).linalg.slogdet(_checked(x, square=True)))


def slogdet(x: Any, /) -> SlogdetResult:
    """The sign and the logarithm of the absolute value of the determinant of square matrices.

    A singular matrix gives 0 and -inf; the derivative of the logarithm has infinities there, with
    the signs of the adjugate.

    Returns:
        sign: of the dtype of `x`, shape (...); a phase for complex matrices.
        logabsdet: real, shape (...).
    """
    check_arrays("slogdet", x)
    return SlogdetResult(*_slogdet(x))


# ---- Cholesky


def _cholesky_vjp(t: Any, out: Any) -> Any:
    z = _half_lower(matrix_transpose(out) @ t)
    left = _solve(matrix_transpose(out), z)
    return _hermitian(matrix_transpose(_solve(_adjoint(out), matrix_transpose(left))))


def _cholesky_jvp(t: Any, out: Any) -> Any:
    left = _solve(out, _hermitian(t))
    return out @ _half_lower(_adjoint(_solve(out, _adjoint(left))))


@general((_cholesky_vjp,), (_cholesky_jvp,))
def _cholesky(x: Any, /) -> Any:
    return xp(x).linalg.cholesky(_checked(x, square=True))


def cholesky(x: Any, /, *, upper: bool = False) -> Any:
    """The lower triangular l with x = l @ l^H, or the upper triangular l^H.

    Args:
        x: Hermitian positive definite. Only the lower triangle is read; the derivative counts both
            and is Hermitian.
        upper: give l^H.

    Raises:
        numpy.linalg.LinAlgError: if `x` is not square; on the CPU, if not positive definite.
    """
    check_arrays("cholesky", x)
    out = _cholesky(x)
    return _adjoint(out) if upper else out


# ---- QR


def _qr_vjp(t: Any, out: Any) -> Any:
    tq, tr = t
    q, r = out
    g = 0
    if tr is not None:
        g = tr @ matrix_transpose(r)
    if tq is not None:
        g = g - matrix_transpose(q) @ tq
    w = _half_upper(g)
    total = conj(q) @ (w + _adjoint(w))
    if tq is not None:
        total = total + tq
    return matrix_transpose(_solve(r, matrix_transpose(total)))


def _qr_jvp(t: Any, out: Any) -> Any:
    q, r = out
    dx = matrix_transpose(_solve(matrix_transpose(r), matrix_transpose(t)))
    c = _adjoint(q) @ dx
    m = _half_upper(c + _adjoint(c))
    return dx - q @ m, m @ r


@several((_qr_vjp,), (_qr_jvp,))
def _qr(x: Any, /) -> Any:
    return tuple(xp(x).linalg.qr(_checked(x)))


@several((None,), (None,))
def _complete_qr(x: Any, /) -> Any:
    return tuple(xp(x).linalg.qr(_checked(x), mode="complete"))


def qr(x: Any, /, *, mode: str = "reduced") -> QRResult:
    """Orthonormal columns Q and an upper triangular R with x = Q @ R; the diagonal of R is real.

    The derivative needs independent columns (of a wide matrix: the first m of them).

    Args:
        x: shape (..., m, n); k = min(m, n).
        mode: "reduced" for Q (..., m, k) and R (..., k, n), "complete" for (..., m, m) and
            (..., m, n).

    Raises:
        ValueError: for another mode.
        NotImplementedError: for the complete decomposition of a tall matrix that requires a
            gradient: the columns that complete Q are not determined by `x`.
    """
    check_arrays("qr", x)
    if mode not in ("reduced", "complete"):
        raise ValueError(f"qr: mode is 'reduced' or 'complete', not {mode!r}")
    m, n = x.shape[-2:] if x.ndim > 1 else (0, 0)
    if m > n and mode == "complete":
        if _is_recorded(x):
            raise NotImplementedError(
                f"qr: the complete Q of a tall matrix (shape {x.shape}) has no derivative, the "
                "last columns are not determined: use mode='reduced', or .detach()"
            )
        return QRResult(*_complete_qr(x))
    if m < n and _is_recorded(x):
        q, r = _qr(x[..., :m])
        return QRResult(q, concat([r, _adjoint(q) @ x[..., m:]], axis=-1))
    return QRResult(*_qr(x))


# ---- eigenvalues


def _eigh_vjp(t: Any, out: Any) -> Any:
    tw, tv = t
    w, v = out
    z = 0 if tw is None else place_diagonal(tw, to=_square(w))
    if tv is not None:
        z = z + _inverse_gaps(w) * (matrix_transpose(v) @ tv)
    return _hermitian(conj(v) @ z @ matrix_transpose(v))


def _eigh_jvp(t: Any, out: Any) -> Any:
    w, v = out
    s = _adjoint(v) @ _hermitian(t) @ v
    return real(_diagonal(s, offset=0)), v @ (_inverse_gaps(w) * s)


@several((_eigh_vjp,), (_eigh_jvp,))
def _eigh(x: Any, /) -> Any:
    return tuple(xp(x).linalg.eigh(_checked(x, square=True)))


def eigh(x: Any, /) -> EighResult:
    """Eigenvalues, ascending, and orthonormal eigenvectors of Hermitian matrices.

    Only the lower triangle of `x` is read; the derivative counts both and is Hermitian. See
    `gpugrad.linalg` for the phases of the vectors and for repeated eigenvalues.

    Args:
        x: shape (..., n, n).

    Returns:
        eigenvalues: real, shape (..., n).
        eigenvectors: of the dtype of `x`, the columns of (..., n, n).

    Raises:
        numpy.linalg.LinAlgError: if `x` is not square.
    """
    check_arrays("eigh", x)
    return EighResult(*_eigh(x))


@constant
def _eigvalsh(x: Any, /) -> Any:
    return xp(x).linalg.eigvalsh(_checked(x, square=True))


def eigvalsh(x: Any, /) -> Any:
    """The eigenvalues of Hermitian matrices, ascending; see `eigh`.

    Where eigenvalues are equal, the derivatives of each are those along the vectors that were
    found; their sum over equal ones is right.
    """
    check_arrays("eigvalsh", x)
    return eigh(x).eigenvalues if _is_recorded(x) else _eigvalsh(x)


def _eig_vjp(t: Any, out: Any) -> Any:
    tw, tv = t
    w, v = out
    turned = matrix_transpose(v)
    z = 0 if tw is None else place_diagonal(tw, to=_square(w))
    if tv is not None:
        g = turned @ tv
        lengths = real(_diagonal(g, offset=0))  # columns keep length 1
        z = z + _inverse_gaps(w) * (g - turned @ conj(v) * lengths[..., None, :])
    return _solve(turned, z @ turned)


def _eig_jvp(t: Any, out: Any) -> Any:
    w, v = out
    s = _solve(v, t @ v)
    dv = v @ (_inverse_gaps(w) * s)
    lengths = real(reductions.sum(conj(v) * dv, axis=-2, keepdims=True))
    return _diagonal(s, offset=0), dv - v * lengths


@several((_eig_vjp,), (_eig_jvp,))
def _eig(x: Any, /) -> Any:
    w, v = xp(x).linalg.eig(_checked(x, square=True))
    return _complex(w), _complex(v)


def _complex(x: Any) -> Any:
    return x.astype(np.result_type(x.dtype, np.complex64), copy=False)


def eig(x: Any, /) -> EigResult:
    """Eigenvalues and eigenvectors of square matrices, always complex; vectors have length 1.

    A matrix without n independent eigenvectors has no derivative. See `gpugrad.linalg` for the
    phases of the vectors and for repeated eigenvalues.

    Args:
        x: shape (..., n, n).

    Returns:
        eigenvalues: shape (..., n).
        eigenvectors: the columns of (..., n, n).

    Raises:
        numpy.linalg.LinAlgError: if `x` is not square.
    """
    check_arrays("eig", x)
    return EigResult(*_eig(x))


@constant
def _eigvals(x: Any, /) -> Any:
    return _complex(xp(x).linalg.eigvals(_checked(x, square=True)))


def eigvals(x: Any, /) -> Any:
    """The eigenvalues of square matrices, always complex; see `eig`."""
    check_arrays("eigvals", x)
    return eig(x).eigenvalues if _is_recorded(x) else _eigvals(x)


# ---- singular values


def _svd_vjp(t: Any, out: Any) -> Any:
    tu, ts, tvh = t
    u, s, vh = out
    back = conj(vh)
    z = 0 if ts is None else place_diagonal(ts, to=_square(s))
    if tu is None and tvh is None:
        return conj(u) @ z @ back
    by_s = _inverse(s, _tolerance(s))
    gu = gv = 0
    beside = 0
    if tu is not None:
        gu = matrix_transpose(u) @ tu
        if u.shape[-2] > u.shape[-1]:
            beside = (tu - conj(u) @ gu) * by_s[..., None, :] @ back
    if tvh is not None:
        gv = back @ _adjoint(tvh)
        if vh.shape[-1] > vh.shape[-2]:
            rest = tvh - tvh @ matrix_transpose(vh) @ back
            beside = beside + conj(u) * by_s[..., None, :] @ rest
    differing, adding = _inverse_gaps(s), _inverse_sums(s)
    z = z + _hermitian((gu + gv) * differing) + _skew((gu - gv) * adding)
    return conj(u) @ z @ back + beside


def _svd_jvp(t: Any, out: Any) -> Any:
    u, s, vh = out
    v = _adjoint(vh)
    right, left = t @ v, _adjoint(t) @ u
    p = _adjoint(u) @ right
    even, odd = _hermitian(p) * _inverse_gaps(s), _skew(p) * _inverse_sums(s)
    du, dv = u @ (even + odd), v @ (even - odd)
    by_s = _inverse(s, _tolerance(s))[..., None, :]
    if u.shape[-2] > u.shape[-1]:
        du = du + (right - u @ p) * by_s
    if vh.shape[-1] > vh.shape[-2]:
        dv = dv + (left - v @ _adjoint(p)) * by_s
    return du, real(_diagonal(p, offset=0)), _adjoint(dv)


def _skew(x: Any) -> Any:
    return (x - _adjoint(x)) * 0.5


def _inverse_sums(s: Any) -> Any:
    """1 / (s_i + s_j), 0 where both are 0."""
    sums = expand_dims(s, -2) + expand_dims(s, -1)
    return _inverse(sums, expand_dims(_tolerance(s), -1))


@several((_svd_vjp,), (_svd_jvp,))
def _svd(x: Any, /) -> Any:
    """The rules split u^H dx v into its Hermitian and its skew part, which turn u and v together
    by 1 / (s_j - s_i) and against each other by 1 / (s_i + s_j).
    """
    return tuple(xp(x).linalg.svd(_checked(x), full_matrices=False))


@several((None,), (None,))
def _full_svd(x: Any, /) -> Any:
    return tuple(xp(x).linalg.svd(_checked(x), full_matrices=True))


def svd(x: Any, /, *, full_matrices: bool = True) -> SVDResult:
    """The singular value decomposition x = U @ diag(S) @ Vh.

    See `gpugrad.linalg` for the phases of the vectors and for repeated values; vectors of a
    singular value that is 0 count as not moving out of the space they span.

    Args:
        x: shape (..., m, n); k = min(m, n).
        full_matrices: U (..., m, m) and Vh (..., n, n), else (..., m, k) and (..., k, n).

    Raises:
        NotImplementedError: for the full decomposition of a matrix that is not square and requires
            a gradient: the vectors beyond k are not determined by `x`.
    """
    check_arrays("svd", x)
    if full_matrices and x.ndim > 1 and x.shape[-1] != x.shape[-2]:
        if _is_recorded(x):
            raise NotImplementedError(
                f"svd: the full decomposition of a matrix that is not square (shape {x.shape}) has "
                "no derivative, the vectors beyond the singular values are not determined: use "
                "full_matrices=False, svdvals for the values alone, or .detach()"
            )
        return SVDResult(*_full_svd(x))
    return SVDResult(*_svd(x))


@constant
def _svdvals(x: Any, /) -> Any:
    return xp(x).linalg.svd(_checked(x), compute_uv=False)


def svdvals(x: Any, /) -> Any:
    """The singular values of matrices, descending; see `svd`."""
    check_arrays("svdvals", x)
    return _svd(x)[1] if _is_recorded(x) else _svdvals(x)


@constant
def _matrix_rank(x: Any, /, *, rtol: Any) -> Any:
    s = xp(x).linalg.svd(_checked(x), compute_uv=False)
    return (s > _cutoff(x, s, rtol)).sum(axis=-1)


def _cutoff(x: Any, s: Any, rtol: Any) -> Any:
    """What counts as a singular value 0, shape (..., 1)."""
    if rtol is None:
        rtol = max(x.shape[-2:]) * float(np.finfo(s.dtype).eps)
    return s[..., :1] * (rtol if isinstance(rtol, (int, float)) else rtol[..., None])


def matrix_rank(x: Any, /, *, rtol: Any = None) -> Any:
    """How many singular values of `x` (..., m, n) are above `rtol` times the largest: integers.

    Args:
        rtol: a number, or an array that broadcasts to (...); max(m, n) * eps by default.
    """
    check_arrays("matrix_rank", x)
    return _matrix_rank(x, rtol=raw(rtol))


# ---- pseudo-inverse


def _pinv_vjp(t: Any, x: Any, out: Any) -> Any:
    tt = matrix_transpose(t)
    adjoint = _adjoint(out)
    left, right = tt @ out @ adjoint, adjoint @ out @ tt
    left, right = left - x @ (out @ left), right - right @ out @ x
    return conj(left) + conj(right) - matrix_transpose(out @ tt @ out)


def _pinv_jvp(t: Any, x: Any, out: Any) -> Any:
    down = _adjoint(t)
    adjoint = _adjoint(out)
    left, right = out @ adjoint @ down, down @ adjoint @ out
    return left - left @ x @ out + right - out @ (x @ right) - out @ t @ out


@general((_pinv_vjp,), (_pinv_jvp,))
def _pinv(x: Any, /, *, rtol: Any) -> Any:
    u, s, vh = xp(x).linalg.svd(_checked(x), full_matrices=False)
    nothing = s <= _cutoff(x, s, rtol)
    where = xp(x).where
    by_s = where(nothing, 0, 1 / where(nothing, 1, s))
    return _adjoint(vh) @ (by_s[..., None] * _adjoint(u))


def pinv(x: Any, /, *, rtol: Any = None) -> Any:
    """The Moore-Penrose inverse of `x`, shape (..., m, n) to (..., n, m).

    The derivative is that among matrices of the same rank: Golub and Pereyra (1973), "The
    differentiation of pseudo-inverses and nonlinear least squares problems whose variables
    separate". It takes the singular values left out for 0, so its relative error is up to `rtol`.

    Args:
        rtol: singular values up to `rtol` times the largest count as 0. A number, or an array that
            broadcasts to (...); max(m, n) * eps by default.
    """
    check_arrays("pinv", x)
    return _pinv(x, rtol=raw(rtol))


def lstsq(a: Any, b: Any, /, rcond: float | None = None) -> tuple[Any, Any, Any, Any]:
    """The x of least norm among those with the least |b - a @ x|, by the pseudo-inverse.

    Args:
        a: shape (m, n).
        b: shape (m,) or (m, k).
        rcond: singular values up to `rcond` times the largest count as 0; max(m, n) * eps by
            default.

    Returns:
        `(x, residuals, rank, singular_values)`: x has shape (n,) or (n, k). The residuals are
        |b - a @ x|**2 per column, shape (k,) or (1,), empty for m <= n; unlike NumPy's they are
        given for an `a` without full rank too, for the shape does not depend on data.
    """
    check_arrays("lstsq", a, b)
    if a.ndim != 2 or b.ndim not in (1, 2) or a.shape[0] != b.shape[0]:
        raise np.linalg.LinAlgError(
            f"lstsq: shapes (m, n) and (m,) or (m, k) are needed, got {a.shape} and {b.shape}"
        )
    m, n = a.shape
    x = matmul(pinv(a, rtol=rcond), b)
    rest = b - matmul(a, x)
    residuals = reductions.sum(abs(rest) ** 2, axis=0, keepdims=b.ndim == 1)
    return x, residuals if m > n else residuals[:0], matrix_rank(a, rtol=rcond), svdvals(a)


# ---- norms


def matrix_norm(x: Any, /, *, keepdims: bool = False, ord: Any = "fro") -> Any:
    """A norm of matrices, shape (..., m, n) to (...).

    Columns, rows or singular values that attain a maximum or minimum share the derivative evenly.

    Args:
        keepdims: keep the last two axes with length 1.
        ord: "fro" (Frobenius), "nuc" (the sum of the singular values), 2 and -2 (the largest and
            the smallest singular value), 1 and -1 (the largest and the smallest sum of |x| in a
            column), inf and -inf (in a row). None is "fro".

    Returns:
        Real, of the precision of `x`.
    """
    check_arrays("matrix_norm", x)
    if x.ndim < 2:
        raise np.linalg.LinAlgError(f"matrix_norm: matrices are needed, got shape {x.shape}")
    if ord in ("fro", None):
        return vector_norm(x, axis=(-2, -1), keepdims=keepdims)
    if ord in (2, -2, "nuc"):
        values = svdvals(x)
    elif ord in (1, -1):
        values = vector_norm(x, ord=1, axis=-2)
    elif ord in (math.inf, -math.inf):
        values = vector_norm(x, ord=1, axis=-1)
    else:
        raise ValueError(
            f"matrix_norm: there is no norm {ord!r}, but 1, 2, inf, -1, -2, -inf, 'fro' and 'nuc'"
        )
    if ord == "nuc":
        out = reductions.sum(values, axis=-1)
    elif ord > 0:
        out = largest(values, -1, False)
    else:
        out = reductions.min(values, axis=-1)
    return _spread(out) if keepdims else out


def norm(x: Any, /, ord: Any = None, axis: Any = None, keepdims: bool = False) -> Any:
    """NumPy's norm: of vectors, or of matrices.

    Args:
        ord: as in `vector_norm` and `matrix_norm`; None is the root of the sum of squares.
        axis: one axis for vectors, two for matrices. None takes all of `x`: as a vector or matrix
            by its number of axes; where `ord` is None too, however many.

    Raises:
        ValueError: if neither fits.
    """
    check_arrays("norm", x)
    if axis is None and ord is None:
        return vector_norm(x, keepdims=keepdims)
    if axis is None:
        axis = tuple(range(x.ndim))
    axes = axis if isinstance(axis, tuple) else (axis,)
    if len(axes) == 1:
        return vector_norm(x, ord=2 if ord is None else ord, axis=axes, keepdims=keepdims)
    if len(axes) != 2:
        raise ValueError(f"norm: one axis or two are needed, got {axis}")
    out = matrix_norm(moveaxis(x, axes, (-2, -1)), ord=ord)
    return expand_dims(out, tuple(sorted(i % x.ndim for i in axes))) if keepdims else out
