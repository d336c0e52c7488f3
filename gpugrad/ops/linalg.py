"""Products of arrays: array API standard 2025.12, "Linear Algebra Functions", and `einsum`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.lib.array_utils import normalize_axis_tuple

from ..rules import bilinear, check_arrays, general, many, raw, xp
from .elementwise import conj
from .manipulation import (
    expand_dims,
    matrix_transpose,
    moveaxis,
    permute_dims,
    reshape,
    squeeze,
)

__all__ = [
    "einsum",
    "matmul",
    "tensordot",
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
    output = output.replace("...", dots)
    return tuple(inputs), output
