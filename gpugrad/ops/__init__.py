"""The table of operations, one file per chapter of the standard, each with its derivative.

Importing it gives `Tensor` its operators and array methods.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .. import backends
from ..rules import _check_operand, raw, refusal
from ..tape import mark_changed, recording
from ..tensor import Tensor
from . import creation, dtypes, elementwise, indexing, linalg, manipulation, reductions


def _reflected(op: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    return lambda self, other: op(other, self)


def _in_place(op: Callable[[Any, Any], Any]) -> Callable[[Tensor, Any], Tensor]:
    def method(self: Tensor, other: Any) -> Tensor:
        _check_writable(self, other, op.__name__)
        self[...] = op(self, other)
        return self

    return method


def _check_writable(x: Tensor, value: Any, name: str) -> None:
    if not recording():
        return
    if x.node is not None or (isinstance(value, Tensor) and value.node is not None):
        raise RuntimeError(
            f"{name}: a tensor on the tape is not changed in place, the gradient would be lost; "
            "make a new one (x = x + y, gpugrad.where), or write it inside gpugrad.no_grad()"
        )


def _setitem(self: Tensor, key: Any, value: Any) -> None:
    """`x[key] = value` in place, for a tensor off the tape or inside `no_grad`."""
    _check_writable(self, value, "setitem")
    if not isinstance(value, Tensor):
        _check_operand("setitem", value)
    value_dtype = getattr(value, "dtype", None)
    if value_dtype is not None and not np.can_cast(value_dtype, self.dtype, "same_kind"):
        raise TypeError(f"setitem: {value_dtype} does not go into {self.dtype}: use .astype")
    new = raw(value)
    number = isinstance(new, (int, float, complex, np.generic))
    if not number and backends.device_of(new) != self.device:  # CuPy would take some in silence
        raise refusal("setitem", (self, value), TypeError())
    try:
        self.data[indexing._raw_key(key, self.data, "setitem")] = new
    except (TypeError, ValueError, IndexError) as error:
        raise refusal("setitem", (self, value), error) from None
    mark_changed(self.data)


def _reshape(self: Tensor, *shape: Any) -> Any:
    return manipulation.reshape(self, shape[0] if len(shape) == 1 else shape)


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
    setattr(Tensor, f"__i{_name}__", _in_place(_op))

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
    "__setitem__": _setitem,
    "to": _to,
    "to_device": dtypes.to_device,
    "astype": dtypes.astype,
    "reshape": _reshape,
    "copy": creation._copy,
    "sum": reductions.sum,
    "mean": reductions.mean,
    "prod": reductions.prod,
    "max": reductions.max,
    "min": reductions.min,
    "var": reductions.var,
    "std": reductions.std,
    "all": reductions.all,
    "any": reductions.any,
    "argmax": reductions.argmax,
    "argmin": reductions.argmin,
}
for _name, _method in _METHODS.items():
    setattr(Tensor, _name, _method)

_PROPERTIES = {
    "T": lambda self: manipulation.permute_dims(self, tuple(range(self.ndim))[::-1]),
    "mT": manipulation.matrix_transpose,
    "real": elementwise.real,
    "imag": elementwise.imag,
}
for _name, _method in _PROPERTIES.items():
    setattr(Tensor, _name, property(_method))

__all__ = ["creation", "dtypes", "elementwise", "indexing", "linalg", "manipulation", "reductions"]
