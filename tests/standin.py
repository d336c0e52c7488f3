"""A stand-in for a device: arrays whose values the host cannot see.

Computes with NumPy behind a wall: no conversion to NumPy, no truth value, no number, no mixing with
arrays of others. What runs on it makes no hidden transfer and waits for no device.
"""

from __future__ import annotations

import operator
from typing import Any

import numpy as np

from gpugrad.backends import Backend, Device, Namespace, backend_of_kind
from gpugrad.backends.numpy import NumpyGenerator


def inside(x: Any) -> Any:
    """What NumPy is given for an argument."""
    if isinstance(x, HiddenArray):
        return x._values
    if isinstance(x, np.ndarray):
        raise TypeError("a NumPy array where an array of the stand-in is needed")
    if isinstance(x, tuple | list):
        return type(x)(map(inside, x))
    return x


def outside(x: Any) -> Any:
    """What the host gets for a result."""
    if isinstance(x, np.ndarray | np.generic):
        return HiddenArray(np.asarray(x))
    if isinstance(x, tuple | list):
        return getattr(type(x), "_make", type(x))(map(outside, x))
    return x


def hidden(f: Any) -> Any:
    def call(*args: Any, **options: Any) -> Any:
        return outside(f(*map(inside, args), **{k: inside(v) for k, v in options.items()}))

    return call


def refuse(*args: Any, **options: Any) -> Any:
    raise AssertionError("a hidden transfer from the device")


class HiddenArray:
    __array_ufunc__ = None

    def __init__(self, values: np.ndarray) -> None:
        self._values = values
        self.shape, self.dtype = values.shape, values.dtype
        self.ndim, self.size, self.base = values.ndim, values.size, values.base

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # such as __array_interface__
            raise AttributeError(name)
        value = getattr(self._values, name)
        return hidden(value) if callable(value) else outside(value)

    def __setitem__(self, key: Any, value: Any) -> None:
        self._values[inside(key)] = inside(value)

    __array__ = __bool__ = __float__ = __int__ = __index__ = __complex__ = __iter__ = refuse
    item = tolist = tobytes = dump = refuse
    __hash__ = None


def _in_place(f: Any) -> Any:
    def method(self: HiddenArray, other: Any) -> HiddenArray:
        f(self._values, inside(other))
        return self

    return method


for _name in "add sub mul truediv floordiv mod pow matmul and or xor lshift rshift".split():
    _f = getattr(operator, f"__{_name}__")
    setattr(HiddenArray, f"__{_name}__", hidden(_f))
    setattr(HiddenArray, f"__r{_name}__", hidden(lambda x, y, f=_f: f(y, x)))
    setattr(HiddenArray, f"__i{_name}__", _in_place(getattr(operator, f"__i{_name}__")))
for _name in "eq ne lt le gt ge neg pos abs invert getitem".split():
    setattr(HiddenArray, f"__{_name}__", hidden(getattr(operator, f"__{_name}__")))


class _Library:
    def __init__(self, home: Any = None) -> None:
        self._home = home

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._home or backend_of_kind("cpu").xp, name)
        return hidden(value) if callable(value) else Namespace(_Library(value))


class _Generator:
    def __init__(self, seed: int | None) -> None:
        self._generator = NumpyGenerator(seed)

    def __getattr__(self, name: str) -> Any:
        return hidden(getattr(self._generator, name))


class HiddenBackend(Backend):
    kind = "hidden"
    array_type = HiddenArray
    array_types = (HiddenArray,)
    xp = Namespace(_Library())
    reads = 0

    def devices(self) -> list[Device]:
        return [DEVICE]

    def device_of(self, array: Any) -> Device:
        return DEVICE

    def asarray(self, obj: Any, dtype: Any, device: Device, copy: bool | None) -> HiddenArray:
        values = obj._values if isinstance(obj, HiddenArray) else obj
        return HiddenArray(np.asarray(values, dtype, copy=copy))

    def to_host(self, array: HiddenArray) -> np.ndarray:
        """The way out that the user asks for; counted."""
        self.reads += 1
        return array._values

    def generator(self, seed: int | None, device: Device) -> _Generator:
        return _Generator(seed)


DEVICE = Device("hidden")
BACKEND = HiddenBackend()
