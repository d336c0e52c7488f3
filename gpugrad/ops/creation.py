"""Making tensors: array API standard 2025.12, section "Creation Functions".

New data go to the default device; an array given to `asarray` stays where it is.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import backends
from ..rules import constant, linear, xp
from ..tape import Leaf
from ..tensor import Tensor
from .dtypes import astype, is_inexact, result_type, to_device

__all__ = [
    "arange",
    "asarray",
    "empty",
    "empty_like",
    "eye",
    "from_dlpack",
    "full",
    "full_like",
    "linspace",
    "ones",
    "ones_like",
    "zeros",
    "zeros_like",
]


def asarray(
    obj: Any,
    /,
    *,
    dtype: Any = None,
    device: str | backends.Device | None = None,
    copy: bool | None = None,
    requires_grad: bool = False,
) -> Tensor:
    """A Tensor from an array, a number, or nested lists of numbers.

    Args:
        obj: a NumPy or CuPy array, a Tensor, or what `numpy.asarray` takes.
        dtype: kept as it is where None.
        device: where None an array stays where it is, other data go to the default device.
        copy: None shares the memory of `obj` where that is possible, False insists on it.
        requires_grad: make a leaf that `backward` gives a `.grad`. A leaf has memory of its own
            (it is going to be updated in place) unless `copy=False`.

    Raises:
        TypeError: if a gradient is asked for a dtype that is not floating-point or complex.
        ValueError: if `copy=False` and a copy is needed.
        DeviceError: if the device cannot be used, saying why.
    """
    if isinstance(obj, Tensor):
        return _from_tensor(obj, dtype, device, copy, requires_grad)
    source = backends.find_backend(type(obj))
    where = backends.device(device) if device is not None else None
    if source is None:
        if copy is False:
            raise ValueError("asarray: copy=False, but Python data must be copied into an array")
        if isinstance(obj, np.ndarray):
            raise TypeError(
                f"asarray: a {type(obj).__name__} is more than its data, which its mask or unit "
                "would be lost from; take the data out first (a masked array: .filled(value))"
            )
        obj = np.asarray(obj)  # names ragged lists and strange objects in NumPy's words
        source = backends.backend_of_kind("cpu")
        where = where or backends.default_device()
    if obj.dtype.kind not in "biufc" and obj.dtype.name != "bfloat16":
        raise TypeError(f"asarray: numbers are needed, got data of dtype {obj.dtype}")
    if obj.dtype.char in "gG":
        raise TypeError(f"asarray: {obj.dtype} is not supported: use float64 or complex128")
    where = where or source.device_of(obj)
    if copy is None and requires_grad:
        copy = True
    target = backends.backend_of_kind(where.kind)
    if source is not target or source.device_of(obj) != where:
        if copy is False:
            raise ValueError(f"asarray: copy=False, but the data must move to {where}")
        obj, copy = (obj if source is target else source.to_host(obj)), None
    if requires_grad:
        _check_inexact(np.dtype(dtype) if dtype is not None else obj.dtype)
    data = target.asarray(obj, dtype, where, copy)
    return Tensor(data, Leaf(data.shape, data.dtype) if requires_grad else None)


def from_dlpack(
    x: Any, /, *, device: str | backends.Device | None = None, copy: bool | None = None
) -> Tensor:
    """A Tensor from an array of any library that speaks DLPack, in the same memory.

    Args:
        x: an object with `__dlpack__`, on the CPU or a CUDA device.
        device, copy: as in `asarray`.

    Raises:
        DeviceError: if its device cannot be used here, saying why.
    """
    kinds = {1: "cpu", 2: "cuda", 3: "cpu", 13: "cuda"}  # DLDeviceType: pinned, managed
    kind = x.__dlpack_device__()[0]
    if kind not in kinds:
        raise backends.DeviceError(f"from_dlpack: device type {int(kind)} of DLPack is not known")
    array = backends.backend_of_kind(kinds[kind]).xp.from_dlpack(x)
    return asarray(array, device=device, copy=copy)


def _from_tensor(
    x: Tensor, dtype: Any, device: Any, copy: bool | None, requires_grad: bool
) -> Tensor:
    if requires_grad:
        return asarray(x.data, dtype=dtype, device=device, copy=copy, requires_grad=True)
    out = x
    if dtype is not None and np.dtype(dtype) != x.dtype:
        out = astype(out, dtype)
    if device is not None:
        out = to_device(out, device)
    if out is not x and copy is False:
        raise ValueError("asarray: copy=False, but the dtype or the device asks for one")
    return _copy(out) if out is x and copy else out


@linear(lambda t: t)
def _copy(x: Any, /) -> Any:
    return x.copy()


def _check_inexact(dtype: np.dtype) -> None:
    if not is_inexact(dtype):
        raise TypeError(
            f"only a floating-point or complex tensor can require a gradient, not {dtype}: "
            "give dtype=gpugrad.float32 or float64"
        )


def _set_requires_grad(self: Tensor, value: bool) -> None:
    if not self.is_leaf:
        raise RuntimeError(
            "requires_grad can be set on a leaf only; this tensor was computed: use .detach()"
        )
    if value and self.node is None:
        _check_inexact(self.dtype)
        if hasattr(self, "view"):
            del self.view
        self.data = xp(self.data).copy(self.data)  # as `asarray` does: a leaf will be written
        self.node = Leaf(self.shape, self.dtype)
    elif not value:
        self.node = None


Tensor.requires_grad = Tensor.requires_grad.setter(_set_requires_grad)  # type: ignore


def _new(name: str, device: Any, *args: Any, **options: Any) -> Tensor:
    where = backends.default_device() if device is None else backends.device(device)
    backend = backends.backend_of_kind(where.kind)
    with backend.scope(where):
        return Tensor(getattr(backend.xp, name)(*args, **options), None)


def empty(shape: Any, *, dtype: Any = None, device: Any = None) -> Tensor:
    """A tensor whose elements are whatever the memory held."""
    return _new("empty", device, shape, dtype=dtype or np.float64)


def zeros(shape: Any, *, dtype: Any = None, device: Any = None) -> Tensor:
    """A tensor of zeros; float64 by default."""
    return _new("zeros", device, shape, dtype=dtype or np.float64)


def ones(shape: Any, *, dtype: Any = None, device: Any = None) -> Tensor:
    """A tensor of ones; float64 by default."""
    return _new("ones", device, shape, dtype=dtype or np.float64)


def full(shape: Any, fill_value: Any, *, dtype: Any = None, device: Any = None) -> Tensor:
    """A tensor of one value, a Python number."""
    return _new("full", device, shape, fill_value, dtype=dtype)


def arange(
    start: Any, /, stop: Any = None, step: Any = 1, *, dtype: Any = None, device: Any = None
) -> Tensor:
    """Evenly spaced numbers in [start, stop); from 0 where only one bound is given."""
    start, stop = (0, start) if stop is None else (start, stop)
    return _new("arange", device, start, stop, step, dtype=dtype)


def linspace(
    start: Any,
    stop: Any,
    /,
    num: int,
    *,
    dtype: Any = None,
    device: Any = None,
    endpoint: bool = True,
) -> Tensor:
    """`num` evenly spaced numbers from `start` to `stop`, the end included unless told.

    Where one of these is a 0-d tensor, the result is on its device, and on its tape.
    """
    ends = [x for x in (start, stop) if isinstance(x, Tensor)]
    if ends:
        dtype = np.dtype(dtype or result_type(start, stop, 1.0))
        where = ends[0].device if device is None else device
        weights = linspace(0, 1, num, dtype=dtype, device=where, endpoint=endpoint)
        return astype(start * (1 - weights) + stop * weights, dtype, copy=False)
    return _new("linspace", device, start, stop, num, dtype=dtype, endpoint=endpoint)


def eye(
    n_rows: int, n_cols: int | None = None, /, *, k: int = 0, dtype: Any = None, device: Any = None
) -> Tensor:
    """Ones on the `k`-th diagonal, zeros elsewhere; float64 by default."""
    return _new("eye", device, n_rows, n_cols, k=k, dtype=dtype or np.float64)


@constant
def _like(x: Any, /, *, name: str, dtype: Any) -> Any:
    return getattr(xp(x), name)(x, dtype=dtype)


def empty_like(x: Any, /, *, dtype: Any = None, device: Any = None) -> Any:
    """As `empty`, with the shape, dtype and device of `x` unless told otherwise."""
    return _moved(_like(x, name="empty_like", dtype=dtype), device)


def zeros_like(x: Any, /, *, dtype: Any = None, device: Any = None) -> Any:
    """As `zeros`, with the shape, dtype and device of `x` unless told otherwise."""
    return _moved(_like(x, name="zeros_like", dtype=dtype), device)


def ones_like(x: Any, /, *, dtype: Any = None, device: Any = None) -> Any:
    """As `ones`, with the shape, dtype and device of `x` unless told otherwise."""
    return _moved(_like(x, name="ones_like", dtype=dtype), device)


def full_like(x: Any, /, fill_value: Any, *, dtype: Any = None, device: Any = None) -> Any:
    """As `full`, with the shape, dtype and device of `x` unless told otherwise."""
    return _moved(_filled(x, fill_value=fill_value, dtype=dtype), device)


@constant
def _filled(x: Any, /, *, fill_value: Any, dtype: Any) -> Any:
    return xp(x).full_like(x, fill_value, dtype=dtype)


def _moved(x: Any, device: Any) -> Any:
    return x if device is None else to_device(x, device)
