"""Data types: array API standard 2025.12, section "Data Type Functions".

A dtype is a `numpy.dtype` on every device.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import backends
from ..rules import linear
from ..tensor import Tensor

__all__ = [
    "astype",
    "bool",
    "can_cast",
    "complex64",
    "complex128",
    "finfo",
    "float16",
    "float32",
    "float64",
    "iinfo",
    "int8",
    "int16",
    "int32",
    "int64",
    "isdtype",
    "result_type",
    "uint8",
    "uint16",
    "uint32",
    "uint64",
]

bool = np.dtype("bool")
int8 = np.dtype("int8")
int16 = np.dtype("int16")
int32 = np.dtype("int32")
int64 = np.dtype("int64")
uint8 = np.dtype("uint8")
uint16 = np.dtype("uint16")
uint32 = np.dtype("uint32")
uint64 = np.dtype("uint64")
float16 = np.dtype("float16")
float32 = np.dtype("float32")
float64 = np.dtype("float64")
complex64 = np.dtype("complex64")
complex128 = np.dtype("complex128")


def is_inexact(dtype: Any) -> Any:
    """Whether a gradient can have this dtype: floating-point (bfloat16 too) or complex."""
    return dtype.kind in "fc" or dtype.name == "bfloat16"


@linear(lambda t: t)
def _astype(x: Any, /, *, dtype: Any) -> Any:
    return x.astype(dtype)


def astype(x: Any, dtype: Any, /, *, copy: Any = True, device: Any = None) -> Any:
    """`x` in another dtype. Between floating-point types the gradient goes through.

    Args:
        copy: False gives `x` itself where the dtype is already right.
        device: move there too.

    Raises:
        TypeError: for complex to real, where `real` or `abs` says which is meant.
    """
    dtype = np.dtype(dtype)
    if x.dtype.kind == "c" and dtype.kind not in "cb":
        raise TypeError(f"astype: {x.dtype} to {dtype} drops the imaginary part: use real or abs")
    if dtype == x.dtype and not copy:
        out = x
    elif is_inexact(dtype):
        out = _astype(x, dtype=dtype)
    else:
        out = Tensor(x.data.astype(dtype), None) if type(x) is Tensor else x.astype(dtype)
    return out if device is None else to_device(out, device)


@linear(lambda t, source: to_device(t, source))
def _to_device(x: Any, /, *, source: backends.Device, target: backends.Device) -> Any:
    new = backends.backend_of_kind(target.kind)
    if source.kind != target.kind:
        x = backends.backend_of(x).to_host(x)
    return new.asarray(x, None, target, None)


def to_device(x: Any, device: str | backends.Device, /) -> Any:
    """`x` on another device; itself if it is there. The gradient goes the way back.

    Raises:
        DeviceError: if there is no such device, saying why.
    """
    target = backends.device(device)
    array = x.data if type(x) is Tensor else x
    source = backends.device_of(array)
    return x if source == target else _to_device(x, source=source, target=target)


def result_type(*arrays_and_dtypes: Any) -> np.dtype:
    """The dtype that an operation on these arrays, dtypes and Python numbers gives."""
    return np.result_type(
        *(
            x if isinstance(x, (int, float, complex, np.dtype)) else getattr(x, "dtype", x)
            for x in arrays_and_dtypes
        )
    )


def can_cast(from_: Any, to: Any, /) -> Any:
    """Whether a dtype, or the dtype of an array, can become `to` without loss of kind."""
    return np.can_cast(getattr(from_, "dtype", from_), to)


def isdtype(dtype: Any, kind: Any) -> Any:
    """Whether `dtype` is of `kind`: a dtype, one of the standard's words, or a tuple of these."""
    return np.isdtype(np.dtype(dtype), kind)


def finfo(type: Any, /) -> Any:
    """The limits of a floating-point dtype."""
    return np.finfo(getattr(type, "dtype", type))


def iinfo(type: Any, /) -> Any:
    """The limits of an integer dtype."""
    return np.iinfo(getattr(type, "dtype", type))
