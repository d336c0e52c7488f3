"""Data types: array API standard 2025.12, section "Data Type Functions".

A tensor's dtype is a `numpy.dtype` on every device, and the names here are NumPy's scalar types, as
`numpy.float32` is: `x.dtype == gpugrad.float32`, `gpugrad.float32(1.5)`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import backends
from ..rules import constant, linear
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

bool = np.bool
int8 = np.int8
int16 = np.int16
int32 = np.int32
int64 = np.int64
uint8 = np.uint8
uint16 = np.uint16
uint32 = np.uint32
uint64 = np.uint64
float16 = np.float16
float32 = np.float32
float64 = np.float64
complex64 = np.complex64
complex128 = np.complex128


def is_inexact(dtype: Any) -> Any:
    """Whether a gradient can have this dtype: floating-point (bfloat16 too) or complex."""
    return dtype.kind in "fc" or dtype.name == "bfloat16"


@linear(lambda t: t)
def _astype(x: Any, /, *, dtype: Any) -> Any:
    return x.astype(dtype)


@constant
def _rounded(x: Any, /, *, dtype: Any) -> Any:
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
        out = _rounded(x, dtype=dtype)
    return out if device is None else to_device(out, device)


@linear(lambda t, source: to_device(t, source))
def _to_device(x: Any, /, *, source: backends.Device, target: backends.Device) -> Any:
    new = backends.backend_of_kind(target.kind)
    if source.kind != target.kind:
        x = backends.backend_of(x).to_host(x)
    return new.asarray(x, None, target, None)


def to_device(x: Any, device: str | backends.Device, /, *, stream: Any = None) -> Any:
    """`x` on another device; itself if it is there. The gradient goes the way back.

    Args:
        stream: of the CUDA device, to queue the copy on: an integer (its address) or an object of
            the array library. It is not made to wait for the work that makes `x`; without it the
            copy is ordered with the current streams of both devices.

    Raises:
        DeviceError: if there is no such device, saying why.
        ValueError: for a `stream` where both devices are the CPU.
    """
    target = backends.device(device)
    array = x.data if type(x) is Tensor else x
    source = backends.device_of(array)
    if stream is not None:
        owner = source if target.kind == "cpu" else target
        with backends.backend_of_kind(owner.kind).queue(stream):
            return to_device(x, target)
    return x if source == target else _to_device(x, source=source, target=target)


def _dtype_of(x: Any) -> np.dtype:
    """The dtype of a Tensor or an array, or the dtype that `x` names."""
    if type(x) is Tensor or backends.find_backend(type(x)) is not None:
        return x.dtype
    if x is None:  # float64 for NumPy
        raise TypeError("expected a dtype or an array, got None")
    return np.dtype(x)


def result_type(*arrays_and_dtypes: Any) -> np.dtype:
    """The dtype that an operation on these arrays, dtypes and Python numbers gives.

    A Python number counts by its kind only: float32 with 1.0 is float32, with 1j complex64.

    Raises:
        ValueError: if nothing is given.
        TypeError: for what is neither array, dtype nor number.
    """
    return np.result_type(
        *(x if isinstance(x, (int, float, complex)) else _dtype_of(x) for x in arrays_and_dtypes)
    )


def can_cast(from_: Any, to: Any, /) -> Any:
    """Whether a dtype, or the dtype of an array, becomes `to` by the rules of promotion."""
    return np.can_cast(_dtype_of(from_), to)


def isdtype(dtype: Any, kind: Any) -> Any:
    """Whether `dtype` is of `kind`.

    Args:
        kind: a dtype; one of "bool", "signed integer", "unsigned integer", "integral",
            "real floating", "complex floating", "numeric"; or a tuple of these, of which one fits.

    Raises:
        ValueError: for another word.
    """
    return np.isdtype(_dtype_of(dtype), kind)


class FloatInfo:
    """What `finfo` gives: `bits eps max min smallest_normal dtype`, and NumPy's other names.

    The limits are Python floats, so that they do not widen what they are combined with.
    """

    def __init__(self, limits: Any) -> None:
        self._limits = limits

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        value = getattr(self._limits, name)
        return float(value) if isinstance(value, np.generic) else value

    def __repr__(self) -> str:
        return repr(self._limits)


def finfo(type: Any, /) -> Any:
    """The limits of a floating-point dtype, or of that of an array; of complex, of its parts.

    Returns:
        An object with `bits eps max min smallest_normal dtype`.

    Raises:
        ValueError: for another dtype.
    """
    return FloatInfo(np.finfo(_dtype_of(type)))


def iinfo(type: Any, /) -> Any:
    """The limits of an integer dtype, or of that of an array.

    Returns:
        An object with `bits max min dtype`.

    Raises:
        ValueError: for another dtype.
    """
    return np.iinfo(_dtype_of(type))
