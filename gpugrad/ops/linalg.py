"""Products of arrays, diagonals, and vector norms.

Array API standard 2025.12, "Linear Algebra Functions" and the `linalg` extension as far as it needs
no decomposition; `einsum` and NumPy's products. Where NumPy and the extension mean different things
by one name (`diagonal`, `trace`, `outer`, `cross`), the extension's function is `linalg_...` here.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.lib.array_utils import normalize_axis_tuple

from ..rules import bilinear, check_arrays, general, many, raw, reduction, xp
from ..rules import linear as linear_op
from . import reductions
from .creation import zeros_like
from .dtypes import astype, is_inexact
from .elementwise import abs, conj, sign, where
from .manipulation import (
    expand_dims,
    matrix_transpose,
    moveaxis,
    permute_dims,
    reshape,
    squeeze,
)
from .reductions import _spread

__all__ = [
    "cross",
    "diagonal",
    "dot",
    "einsum",
    "inner",
    "kron",
    "matmul",
    "outer",
    "tensordot",
    "trace",
    "vdot",
    "vecdot",
]


def _matmul_a(t: Any, b: Any, shape: tuple[int, ...]) -> Any:
    if b.ndim == 1:
        return expand_dims(t, -1) * b
    if len(shape) == 1:
        t = expand_dims(t, -2)
    out = matmul(t, matrix_transpose(b))
    return squeeze(out, -2) if len(shape) == 1 else out


def _matmul_b(t: Any, a: Any, shape: tuple[int, ...]) -> Any:
    if len(shape) == 1:
        if a.ndim == 1:
            return expand_dims(t, -1) * a
        if a.ndim == 2:
            return matmul(t, a)
        return matmul(matrix_transpose(a), expand_dims(t, -1))[..., 0]
    if a.ndim == 1:
        return expand_dims(a, -1) * expand_dims(t, -2)
    return matmul(matrix_transpose(a), t)


@bilinear(_matmul_a, _matmul_b)
def matmul(a: Any, b: Any, /) -> Any:
    """The matrix product `a @ b` over the last two axes; the others broadcast.

    A 1-d `a` is a row, a 1-d `b` a column, and that axis is left out of the result.

    Raises:
        ValueError: if the inner lengths differ, or an argument has no axes.
    """
    return xp(a).matmul(a, b)


@general(
    (
        lambda t, weight: t @ weight.T if t.ndim == 2 else matmul(t, weight.T),
        lambda t, x: _weight_gradient(t, x),
        lambda t: t,
    ),
    (
        lambda t, weight: matmul(t, weight),
        lambda t, x: matmul(x, t),
        lambda t: t,
    ),
)
def linear(x: Any, weight: Any, bias: Any, /) -> Any:
    """`x @ weight + bias`, the sum in the memory of the product.

    Args:
        x: shape (..., n_in).
        weight: shape (n_in, n_out).
        bias: shape (n_out,).

    Returns:
        Shape (..., n_out).
    """
    if weight.ndim != 2 or bias.shape != weight.shape[1:]:
        raise ValueError("weight must have shape (n_in, n_out) and bias (n_out,)")
    out = xp(x).matmul(x, weight)
    if out.dtype != bias.dtype or out.ndim == 0:
        return out + bias
    out += bias
    return out


def _weight_gradient(t: Any, x: Any) -> Any:
    if x.ndim != 2:
        x, t = reshape(x, (-1, x.shape[-1])), reshape(t, (-1, t.shape[-1]))
    return x.T @ t


def vecdot(a: Any, b: Any, /, *, axis: int = -1) -> Any:
    """The sum of conj(a) * b along `axis`; the other axes broadcast."""
    check_arrays("vecdot", a, b)
    for x in (a, b):
        normalize_axis_tuple(axis, x.ndim, "vecdot")
    if a.shape[axis] != b.shape[axis]:
        raise ValueError(f"vecdot: shapes {a.shape} and {b.shape} differ along axis {axis}")
    a, b = moveaxis(a, axis, -1), moveaxis(b, axis, -1)
    return squeeze(matmul(expand_dims(conj(a), -2), expand_dims(b, -1)), (-2, -1))


def tensordot(a: Any, b: Any, /, *, axes: int | tuple[Sequence[int], Sequence[int]] = 2) -> Any:
    """The sum of products over `axes`: the last n of `a` and first n of `b`, or two lists.

    Raises:
        ValueError: if the lengths of the paired axes differ.
    """
    check_arrays("tensordot", a, b)
    if isinstance(axes, int):
        if not 0 <= axes <= min(a.ndim, b.ndim):
            raise ValueError(f"tensordot: axes={axes} for shapes {a.shape} and {b.shape}")
        axes_a, axes_b = list(range(a.ndim - axes, a.ndim)), list(range(axes))
    else:
        axes_a = list(normalize_axis_tuple(axes[0], a.ndim, "tensordot"))
        axes_b = list(normalize_axis_tuple(axes[1], b.ndim, "tensordot"))
    if [a.shape[i] for i in axes_a] != [b.shape[i] for i in axes_b]:
        raise ValueError(
            f"tensordot: axes {axes_a} of shape {a.shape} and {axes_b} of {b.shape} do not pair"
        )
    free_a = [i for i in range(a.ndim) if i not in axes_a]
    free_b = [i for i in range(b.ndim) if i not in axes_b]
    shape = tuple(a.shape[i] for i in free_a) + tuple(b.shape[i] for i in free_b)
    inner = int(np.prod([a.shape[i] for i in axes_a], dtype=np.int64))
    rows = int(np.prod([a.shape[i] for i in free_a], dtype=np.int64))
    columns = int(np.prod([b.shape[i] for i in free_b], dtype=np.int64))
    left = reshape(permute_dims(a, tuple(free_a + axes_a)), (rows, inner))
    right = reshape(permute_dims(b, tuple(axes_b + free_b)), (inner, columns))
    return reshape(matmul(left, right), shape)


def dot(a: Any, b: Any, /) -> Any:
    """NumPy's product: over the last axis of `a` and the last but one (or only) axis of `b`.

    Raises:
        ValueError: if these lengths differ.
    """
    check_arrays("dot", a, b)
    if a.ndim == 0 or b.ndim == 0:
        return a * b
    if b.ndim <= 2:
        return matmul(a, b)
    return tensordot(a, b, axes=((-1,), (-2,)))


def inner(a: Any, b: Any, /) -> Any:
    """The sum of products over the last axes of `a` and `b`, for all pairs of the other axes.

    Raises:
        ValueError: if these lengths differ.
    """
    check_arrays("inner", a, b)
    if a.ndim == 0 or b.ndim == 0:
        return a * b
    return tensordot(a, b, axes=((-1,), (-1,)))


def vdot(a: Any, b: Any, /) -> Any:
    """The sum of conj(a) * b over all elements, in C order.

    Raises:
        ValueError: if the sizes differ.
    """
    check_arrays("vdot", a, b)
    return vecdot(reshape(a, (-1,)), reshape(b, (-1,)))


def linalg_outer(a: Any, b: Any, /) -> Any:
    """The products of all pairs of elements of two vectors: (n,) and (m,) to (n, m).

    Raises:
        ValueError: if an argument has not one axis.
    """
    check_arrays("outer", a, b)
    if a.ndim != 1 or b.ndim != 1:
        raise ValueError(f"outer: two vectors are needed, got shapes {a.shape} and {b.shape}")
    return expand_dims(a, 1) * expand_dims(b, 0)


def outer(a: Any, b: Any, /) -> Any:
    """The products of all pairs of elements of `a` and `b`, each flattened: (a.size, b.size)."""
    check_arrays("outer", a, b)
    return linalg_outer(reshape(a, (-1,)), reshape(b, (-1,)))


def kron(a: Any, b: Any, /) -> Any:
    """The Kronecker product: `b` in blocks, each times an element of `a`.

    The shorter shape is filled up with ones in front; lengths multiply.
    """
    check_arrays("kron", a, b)
    n = max(a.ndim, b.ndim)
    shapes = [(1,) * (n - x.ndim) + tuple(x.shape) for x in (a, b)]
    left = reshape(a, tuple(k for length in shapes[0] for k in (length, 1)))
    right = reshape(b, tuple(k for length in shapes[1] for k in (1, length)))
    return reshape(left * right, tuple(k * m for k, m in zip(*shapes, strict=True)))


@bilinear(lambda t, b: _cross(b, t), lambda t, a: _cross(t, a))
def _cross(a: Any, b: Any, /) -> Any:
    roll = xp(a).roll
    return roll(a, -1, -1) * roll(b, -2, -1) - roll(a, -2, -1) * roll(b, -1, -1)


def cross(
    a: Any,
    b: Any,
    /,
    axisa: int = -1,
    axisb: int = -1,
    axisc: int = -1,
    axis: int | None = None,
) -> Any:
    """The vector product of 3-vectors; the other axes broadcast.

    Args:
        axisa, axisb, axisc: the axes of `a`, `b` and the result that hold the vectors.
        axis: all three of them.

    Raises:
        ValueError: if such an axis has not length 3.
    """
    check_arrays("cross", a, b)
    if axis is not None:
        axisa = axisb = axisc = axis
    a, b = moveaxis(a, axisa, -1), moveaxis(b, axisb, -1)
    if a.shape[-1] != 3 or b.shape[-1] != 3:
        raise ValueError(
            f"cross: vectors of length 3 are needed, got lengths {a.shape[-1]} and {b.shape[-1]}"
        )
    return moveaxis(_cross(a, b), -1, axisc)


def linalg_cross(a: Any, b: Any, /, *, axis: int = -1) -> Any:
    """The vector product of 3-vectors along `axis`; the other axes broadcast.

    Raises:
        ValueError: if `axis` has not length 3 in both.
    """
    return cross(a, b, axis=axis)


def multi_dot(arrays: Sequence[Any], /) -> Any:
    """The product of two or more matrices, in the order that takes the fewest multiplications.

    The first and the last may be vectors: a row and a column.

    Raises:
        ValueError: for fewer than two arrays, or shapes that do not fit.
    """
    arrays = list(arrays)
    check_arrays("multi_dot", *arrays)
    inner_ndims = {x.ndim for x in arrays[1:-1]}
    if len(arrays) < 2 or inner_ndims - {2} or {arrays[0].ndim, arrays[-1].ndim} - {1, 2}:
        raise ValueError(
            f"multi_dot: two or more matrices are needed, got shapes {[x.shape for x in arrays]}"
        )
    rows = [1 if x.ndim == 1 and i == 0 else x.shape[0] for i, x in enumerate(arrays)]
    lengths = [*rows, 1 if arrays[-1].ndim == 1 else arrays[-1].shape[1]]

    @functools.cache
    def best(first: int, last: int) -> tuple[int, int]:
        """The cost of the product of arrays first ... last, and where to cut it."""
        if first == last:
            return 0, first
        return min(
            (
                best(first, cut)[0]
                + best(cut + 1, last)[0]
                + lengths[first] * lengths[cut + 1] * lengths[last + 1],
                cut,
            )
            for cut in range(first, last)
        )

    def product(first: int, last: int) -> Any:
        if first == last:
            return arrays[first]
        cut = best(first, last)[1]
        return matmul(product(first, cut), product(cut + 1, last))

    return product(0, len(arrays) - 1)


# ---- diagonals


@linear_op(lambda t, shape, offset: place_diagonal(t, to=shape, offset=offset), views=True)
def _diagonal(x: Any, /, *, offset: int) -> Any:
    rows, columns = x.shape[-2:]
    # any offset is valid, as in the standard, also one that overflows in the array library
    return xp(x).diagonal(x, max(-rows, min(offset, columns)), -2, -1)


@linear_op(lambda t, offset: _diagonal(t, offset=offset))
def place_diagonal(x: Any, /, *, to: tuple[int, ...], offset: int = 0) -> Any:
    """Matrices of shape `to` that are zero but for `x` on a diagonal: the transpose of
    `diagonal`.
    """
    out = xp(x).zeros(to, x.dtype)
    index = xp(x).arange(x.shape[-1])
    out[..., index - min(offset, 0), index + max(offset, 0)] = x
    return out


def linalg_diagonal(x: Any, /, *, offset: int = 0) -> Any:
    """The diagonals of matrices, shape (..., m, n) to (..., k).

    Args:
        offset: which diagonal, counted from the main one to the right.

    Raises:
        ValueError: if `x` has fewer than two axes.
    """
    check_arrays("diagonal", x)
    _check_matrices("diagonal", x)
    return _diagonal(x, offset=offset)


def diagonal(x: Any, /, offset: int = 0, axis1: int = 0, axis2: int = 1) -> Any:
    """The diagonals of the matrices in axes `axis1` and `axis2`, as the last axis of the result.

    Raises:
        ValueError: if `x` has fewer than two axes.
    """
    check_arrays("diagonal", x)
    _check_matrices("diagonal", x)
    return _diagonal(moveaxis(x, (axis1, axis2), (-2, -1)), offset=offset)


def linalg_trace(x: Any, /, *, offset: int = 0, dtype: Any = None) -> Any:
    """The sums of the diagonals of matrices, shape (..., m, n) to (...).

    Args:
        offset: which diagonal, counted from the main one to the right.
        dtype: as in `sum`.
    """
    return reductions.sum(linalg_diagonal(x, offset=offset), axis=-1, dtype=dtype)


def trace(x: Any, /, offset: int = 0, axis1: int = 0, axis2: int = 1, dtype: Any = None) -> Any:
    """The sums of the diagonals of the matrices in axes `axis1` and `axis2`."""
    return reductions.sum(diagonal(x, offset, axis1, axis2), axis=-1, dtype=dtype)


def _check_matrices(name: str, x: Any) -> None:
    if x.ndim < 2:
        raise ValueError(f"{name}: at least two axes are needed, got shape {x.shape}")


# ---- norms of vectors


@reduction(lambda x, out, shape, axis, keepdims: _unit(x, _spread(out, shape, axis, keepdims)))
def _norm_2(x: Any, /, *, axis: Any, keepdims: bool) -> Any:
    wide = x.astype(np.float32) if x.dtype.itemsize == 2 else x
    squares = wide * wide if wide.dtype.kind != "c" else wide.real**2 + wide.imag**2
    out = xp(x).sqrt(squares.sum(axis=axis, keepdims=keepdims))
    return out.astype(x.dtype) if wide is not x else out


def _unit(x: Any, size: Any) -> Any:
    """conj(x) / size, but 0 where the size is: the subgradient of least norm."""
    return conj(x) / where(size == 0, 1, size)


@reduction(lambda x: zeros_like(x))
def _norm_0(x: Any, /, *, axis: Any, keepdims: bool) -> Any:
    return (x != 0).sum(axis=axis, keepdims=keepdims).astype(x.real.dtype)


@reduction(
    lambda x, out, shape, axis, keepdims, ord: _slope(x, _spread(out, shape, axis, keepdims), ord)
)
def _norm_p(x: Any, /, *, axis: Any, keepdims: bool, ord: float) -> Any:
    return (abs(x) ** ord).sum(axis=axis, keepdims=keepdims) ** (1 / ord)


def _slope(x: Any, size: Any, ord: float) -> Any:
    """(|x| / size) ** (ord - 1), times the sign of x.

    At 0 it is infinite for 0 < ord < 1, else 0.
    """
    flat = (x == 0) | (size == 0)
    ratio = abs(where(flat, 1, x)) / where(flat, 1, size)
    return where(flat, math.inf if 0 < ord < 1 else 0.0, conj(sign(x)) * ratio ** (ord - 1))


def vector_norm(x: Any, /, *, axis: Any = None, keepdims: bool = False, ord: float = 2) -> Any:
    """The norm of the vectors along `axis`: sum(|x|**ord) ** (1/ord).

    At 0 the derivative is the subgradient of least norm, which is 0; elements that attain a
    maximum or minimum share it evenly. For 0 < ord < 1 it is infinite at an element that is 0.

    Args:
        axis: an integer, a tuple of integers, or None for all elements.
        keepdims: keep these axes with length 1.
        ord: any number; `inf` is the largest, `-inf` the smallest |x|, 0 counts the elements that
            are not 0 (derivative 0).

    Returns:
        Real, of the precision of `x`.
    """
    check_arrays("vector_norm", x)
    if not isinstance(ord, (int, float)):
        raise ValueError(f"vector_norm: ord is a number, not {ord!r}")
    axis = None if axis is None else normalize_axis_tuple(axis, x.ndim, "vector_norm")
    x = as_inexact(x)
    if ord == 2:
        return _norm_2(x, axis=axis, keepdims=keepdims)
    if ord == 0:
        return _norm_0(x, axis=axis, keepdims=keepdims)
    if ord == 1:
        return reductions.sum(abs(x), axis=axis, keepdims=keepdims)
    if ord == math.inf:
        return largest(abs(x), axis, keepdims)
    if ord == -math.inf:
        return reductions.min(abs(x), axis=axis, keepdims=keepdims)
    return _norm_p(x, axis=axis, keepdims=keepdims, ord=ord)


def largest(x: Any, axis: Any, keepdims: bool) -> Any:
    """The maximum of `x`, which is not negative; 0 of no elements."""
    reduce = reductions.max if x.size else reductions.sum
    return reduce(x, axis=axis, keepdims=keepdims)


def as_inexact(x: Any) -> Any:
    """Integers and booleans as float64, as NumPy's linear algebra takes them."""
    return x if is_inexact(x.dtype) else astype(x, np.float64)


# ---- einsum


def _transposed_einsum(t: Any, index: int, arrays: Any, inputs: tuple, output: str) -> Any:
    """The cotangent of operand `index`: the others and `t` summed to its letters.

    Letters of the operand that no other term has in full are summed over by the operand alone:
    they come back through ones. A letter twice in it comes back through an identity.
    """
    wanted = inputs[index]
    terms = [output, *(s for i, s in enumerate(inputs) if i != index)]
    factors = [t, *(x for i, x in enumerate(arrays) if i != index)]
    shape = arrays[index].shape
    library = xp(raw(t))
    result = ""
    for letter, n in zip(wanted, shape, strict=True):
        name = letter
        if letter in result:
            name = next(c for c in _LETTERS if c not in "".join([*terms, *inputs, result]))
            terms.append(letter + name)
            factors.append(library.eye(n, dtype=t.dtype))
        elif not any(
            length == n
            for term, x in zip(terms, factors, strict=True)
            for other, length in zip(term, x.shape, strict=True)
            if other == letter
        ):
            terms.append(letter)
            factors.append(library.ones((n,), dtype=t.dtype))
        result += name
    return einsum(",".join(terms) + "->" + result, *factors)


_LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"


def _replaced(t: Any, index: int, arrays: Any, inputs: tuple, output: str) -> Any:
    operands = [t if i == index else x for i, x in enumerate(arrays)]
    return einsum(",".join(inputs) + "->" + output, *operands)


@many(vjp=_transposed_einsum, jvp=_replaced)
def _einsum(arrays: Any, /, *, inputs: tuple[str, ...], output: str) -> Any:
    subscripts = ",".join(inputs) + "->" + output
    if any(xp(x) is not xp(arrays[0]) for x in arrays):
        raise TypeError("operands of two array libraries")  # one would move the other's in silence
    return xp(arrays[0]).einsum(subscripts, *arrays, optimize=len(arrays) > 1)


def einsum(subscripts: str, /, *operands: Any) -> Any:
    """Einstein's sum over repeated letters, in NumPy's notation, `...` included.

    Raises:
        ValueError: if `subscripts` and the operands do not fit.
    """
    check_arrays("einsum", *operands)
    inputs, output = _parse(subscripts, operands)
    return _einsum(operands, inputs=inputs, output=output)


def _parse(subscripts: str, operands: Sequence[Any]) -> tuple[tuple[str, ...], str]:
    """Subscripts with letters for `...` and an explicit output."""
    left, arrow, output = subscripts.replace(" ", "").partition("->")
    terms = left.split(",")
    if len(terms) != len(operands):
        raise ValueError(f"einsum: {len(terms)} terms in {subscripts!r}, {len(operands)} operands")
    spare = [c for c in _LETTERS if c not in subscripts]
    most = 0
    inputs = []
    for term, x in zip(terms, operands, strict=True):
        count = x.ndim - len(term.replace("...", ""))
        if count < 0 or (count and "..." not in term):
            raise ValueError(f"einsum: term {term!r} of {subscripts!r} for shape {x.shape}")
        most = max(most, count)
        inputs.append(term.replace("...", "".join(spare[:count][::-1])))
    dots = "".join(spare[:most][::-1])
    if not arrow:
        letters = "".join(terms).replace(".", "")
        output = dots + "".join(sorted(c for c in set(letters) if letters.count(c) == 1))
    elif dots and "..." not in output:
        raise ValueError(f"einsum: the result of {subscripts!r} has no ... for the axes {dots!r}")
    output = output.replace("...", dots)
    return tuple(inputs), output
