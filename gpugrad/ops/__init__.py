"""The table of operations, one file per chapter of the standard, each with its derivative.

Importing it gives `Tensor` its operators; `gpugrad.protocols` gives it the methods of an array.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .. import backends
from ..tensor import Tensor
from . import (
    creation,
    dtypes,
    elementwise,
    indexing,
    inspection,
    linalg,
    manipulation,
    reductions,
    searching,
    sets,
    signal,
    sorting,
    statistics,
    writing,
)


def _reflected(op: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    return lambda self, other: op(other, self)


def _to(self: Tensor, target: Any) -> Tensor:
    """On another device, or in another dtype; itself where nothing changes."""
    if isinstance(target, (str, backends.Device)):
        try:
            backends.parse(str(target))
        except ValueError:
            pass
        else:
            return dtypes.to_device(self, target)
    try:
        dtype = np.dtype(target)
    except TypeError:
        raise TypeError(
            f"to: {target!r} is neither a device ('cpu', 'cuda', 'cuda:1') nor a dtype"
        ) from None
    return dtypes.astype(self, dtype, copy=False)


_OPERATORS = {
    "add": elementwise.add,
    "sub": elementwise.subtract,
    "mul": elementwise.multiply,
    "truediv": elementwise.divide,
    "floordiv": elementwise.floor_divide,
    "mod": elementwise.remainder,
    "pow": elementwise.pow,
    "matmul": linalg.matmul,
    "and": elementwise.bitwise_and,
    "or": elementwise.bitwise_or,
    "xor": elementwise.bitwise_xor,
    "lshift": elementwise.bitwise_left_shift,
    "rshift": elementwise.bitwise_right_shift,
}
for _name, _op in _OPERATORS.items():
    setattr(Tensor, f"__{_name}__", _op)
    setattr(Tensor, f"__r{_name}__", _reflected(_op))
    setattr(Tensor, f"__i{_name}__", writing.in_place(_op))

_METHODS = {
    "__eq__": elementwise.equal,
    "__ne__": elementwise.not_equal,
    "__lt__": elementwise.less,
    "__le__": elementwise.less_equal,
    "__gt__": elementwise.greater,
    "__ge__": elementwise.greater_equal,
    "__neg__": elementwise.negative,
    "__pos__": elementwise.positive,
    "__abs__": elementwise.abs,
    "__invert__": elementwise.bitwise_invert,
    "__getitem__": indexing.getitem,
    "__setitem__": writing.setitem,
    "to": _to,
    "to_device": dtypes.to_device,
}
for _name, _method in _METHODS.items():
    setattr(Tensor, _name, _method)


def _reversed_axes(x: Tensor) -> Tensor:
    """The axes in reverse order; a view."""
    return manipulation.permute_dims(x, tuple(range(x.ndim))[::-1])


_PROPERTIES = {
    "T": _reversed_axes,
    "mT": manipulation.matrix_transpose,
    "real": elementwise.real,
    "imag": elementwise.imag,
}
for _name, _method in _PROPERTIES.items():
    setattr(Tensor, _name, property(_method))

__all__ = [
    "activations",
    "creation",
    "dtypes",
    "elementwise",
    "indexing",
    "inspection",
    "linalg",
    "manipulation",
    "reductions",
    "searching",
    "sets",
    "signal",
    "sorting",
    "statistics",
    "writing",
]
