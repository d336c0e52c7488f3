"""Sorting: array API standard 2025.12, section "Sorting Functions"."""

from __future__ import annotations

from typing import Any

from numpy.lib.array_utils import normalize_axis_index

from ..rules import check_arrays, constant, linear, raw, xp
from ..tensor import Tensor

__all__ = [
    "argsort",
    "sort",
]


@constant
def argsort(x: Any, /, *, axis: int = -1, descending: bool = False, stable: bool = True) -> Any:
    """The indices that sort `x` along `axis`: int64, of the shape of `x`.

    NaN counts as the largest value; complex numbers go by real part, then imaginary part.

    Args:
        descending: from the largest to the smallest.
        stable: equal elements keep their order; without it they may not.

    Raises:
        ValueError: if there is no such axis.
    """
    axis = normalize_axis_index(axis, x.ndim)
    kind = "stable" if stable else None
    if not descending:
        return xp(x).argsort(x, axis=axis, kind=kind)
    backwards = xp(x).argsort(xp(x).flip(x, axis), axis=axis, kind=kind)
    return x.shape[axis] - 1 - xp(x).flip(backwards, axis)


@constant
def _sorted(x: Any, /, *, axis: int, descending: bool, stable: bool) -> Any:
    axis = normalize_axis_index(axis, x.ndim)
    kind = "stable" if stable else None
    if not descending:
        return xp(x).sort(x, axis=axis, kind=kind)
    return xp(x).flip(xp(x).sort(xp(x).flip(x, axis), axis=axis, kind=kind), axis)


@linear(lambda t, order, axis: _permuted(t, order=raw(argsort(order, axis=axis)), axis=axis))
def _permuted(x: Any, /, *, order: Any, axis: int) -> Any:
    """`x` along `axis` in the order of a permutation: given the order, sorting is linear."""
    return xp(x).take_along_axis(x, order, axis)


def sort(x: Any, /, *, axis: int = -1, descending: bool = False, stable: bool = True) -> Any:
    """The elements of `x` in order along `axis`: a new array of its shape and dtype.

    NaN counts as the largest value; complex numbers go by real part, then imaginary part. The
    derivative takes every element to its place; equal ones keep their order.

    Args:
        descending: from the largest to the smallest.
        stable: equal elements (0.0 and -0.0) keep their order; without it they may not.

    Raises:
        ValueError: if there is no such axis.
    """
    check_arrays("sort", x)
    if type(x) is not Tensor or x.node is None:
        return _sorted(x, axis=axis, descending=descending, stable=stable)
    return _permuted(x, order=raw(argsort(x, axis=axis, descending=descending)), axis=axis)
