"""Sets: array API standard 2025.12, section "Set Functions".

The shapes of results depend on the data, so a GPU is waited for. Elements are the same if they
compare equal: 0.0 is -0.0, and every NaN is an element of its own. Unique values are in ascending
order, each the first of its equals in `x`, from which its derivative goes back there.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from ..rules import check_arrays, constant, namespace_of
from ..tensor import Tensor
from .creation import full_like, ones_like
from .elementwise import not_equal
from .indexing import take
from .manipulation import concat, reshape
from .reductions import cumulative_sum
from .searching import nonzero
from .sorting import argsort

__all__ = [
    "isin",
    "unique_all",
    "unique_counts",
    "unique_inverse",
    "unique_values",
]


class UniqueAll(NamedTuple):
    """What `unique_all` gives."""

    values: Any
    indices: Any
    inverse_indices: Any
    counts: Any


class UniqueCounts(NamedTuple):
    """What `unique_counts` gives."""

    values: Any
    counts: Any


class UniqueInverse(NamedTuple):
    """What `unique_inverse` gives."""

    values: Any
    inverse_indices: Any


def _runs(x: Any) -> tuple[Any, Any, Any]:
    """The order that sorts the flat `x`, where a new value begins in it, and where those are."""
    flat = reshape(x.detach() if type(x) is Tensor else x, (-1,))
    order = argsort(flat)
    ordered = take(flat, order)
    is_new = concat([ones_like(order[:1], dtype=bool), not_equal(ordered[1:], ordered[:-1])])
    return order, is_new, nonzero(is_new)[0]


def _counts(starts: Any, total: int) -> Any:
    return concat([starts[1:], full_like(starts[:1], total)]) - starts


def _inverse(order: Any, is_new: Any, shape: tuple[int, ...]) -> Any:
    return reshape(take(cumulative_sum(is_new) - 1, argsort(order)), shape)


def _values(x: Any, indices: Any) -> Any:
    return take(reshape(x, (-1,)), indices)


def unique_all(x: Any, /) -> UniqueAll:
    """The unique elements of `x`, flattened, with all that is known of them.

    Returns:
        A named tuple: `values` (n,) of the dtype of `x`, `indices` (n,) of the first occurrence of
        each in the flat `x`, `inverse_indices` of the shape of `x` with
        `values[inverse_indices] == x`, and `counts` (n,). The indices and counts are int64.
    """
    check_arrays("unique_all", x)
    order, is_new, starts = _runs(x)
    indices = take(order, starts)
    inverse = _inverse(order, is_new, x.shape)
    return UniqueAll(_values(x, indices), indices, inverse, _counts(starts, x.size))


def unique_counts(x: Any, /) -> UniqueCounts:
    """The unique elements of `x`, flattened, and how often each occurs.

    Returns:
        A named tuple: `values` (n,) of the dtype of `x`, and `counts` (n,), int64.
    """
    check_arrays("unique_counts", x)
    order, _, starts = _runs(x)
    return UniqueCounts(_values(x, take(order, starts)), _counts(starts, x.size))


def unique_inverse(x: Any, /) -> UniqueInverse:
    """The unique elements of `x`, flattened, and which of them each element is.

    Returns:
        A named tuple: `values` (n,) of the dtype of `x`, and `inverse_indices` of the shape of `x`,
        int64, with `values[inverse_indices] == x`.
    """
    check_arrays("unique_inverse", x)
    order, is_new, starts = _runs(x)
    return UniqueInverse(_values(x, take(order, starts)), _inverse(order, is_new, x.shape))


def unique_values(x: Any, /) -> Any:
    """The unique elements of `x`, flattened: shape (n,), of the dtype of `x`."""
    check_arrays("unique_values", x)
    order, _, starts = _runs(x)
    return _values(x, take(order, starts))


@constant
def isin(x1: Any, x2: Any, /, *, invert: bool = False) -> Any:
    """Per element of `x1` whether an element of `x2` is equal to it; booleans of its shape.

    Args:
        x1, x2: arrays, of which one may be a number.
        invert: ask whether none is.
    """
    library = namespace_of[type(x1 if hasattr(x1, "dtype") else x2)]
    x1, x2 = (x if hasattr(x, "dtype") else library.asarray(x) for x in (x1, x2))
    return library.isin(x1, x2, invert=invert)
