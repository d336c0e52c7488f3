"""The CPU: NumPy arrays."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Any

import numpy as np

from .. import twins
from . import Backend, Device, Namespace

KIND = "cpu"
CPU = Device("cpu")


def _reducer(ufunc: np.ufunc) -> Any:
    """`numpy.sum` and its like without their Python layers, which cost more than a small sum."""
    reduce: Any = ufunc.reduce

    def reducer(x: Any, axis: Any = None, dtype: Any = None, keepdims: bool = False) -> Any:
        return reduce(x, axis, dtype, None, keepdims)

    return reducer


def _broadcast_to(x: Any, shape: tuple[int, ...]) -> np.ndarray:
    """`numpy.broadcast_to`, but ten times as fast for a number: what a full reduction spreads."""
    if x.ndim or x.dtype.kind not in "fc":
        return np.broadcast_to(x, shape)
    out = np.ndarray(shape, x.dtype, x, 0, (0,) * len(shape))
    out.flags.writeable = False
    return out


def _ones_like(x: Any, dtype: Any = None) -> np.ndarray:
    return np.array(1, dtype or x.dtype) if x.ndim == 0 else np.ones_like(x, dtype)


class NumpyGenerator:
    """Random numbers on the CPU: PCG64 (O'Neill 2014), through `numpy.random.Generator`."""

    def __init__(self, seed: int | None) -> None:
        self._rng = np.random.default_rng(seed)

    def normal(self, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        return self._floats(self._rng.standard_normal, shape, dtype)

    def uniform(self, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        return self._floats(self._rng.random, shape, dtype)

    def integers(self, low: int, high: int, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        return np.asarray(self._rng.integers(low, high, shape, dtype))

    def permutation(self, n: int) -> np.ndarray:
        return self._rng.permutation(n)

    def _floats(self, draw: Any, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        dtype = np.dtype(dtype)
        if dtype in (np.float32, np.float64):
            return np.asarray(draw(shape, dtype))
        return np.asarray(draw(shape, np.float32)).astype(dtype)


def _processor() -> str:
    """The processor's model where the system tells it, else its architecture."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass  # no Linux
    return platform.processor() or platform.machine()


class NumpyBackend(Backend):
    """NumPy arrays on the CPU."""

    kind = KIND
    array_type = np.ndarray
    array_types = (np.ndarray, np.generic)

    def __init__(self) -> None:
        kernels = {name: getattr(twins, name) for name in twins.__all__}
        self.xp = Namespace(
            np,
            add_at=np.add.at,
            broadcast_to=_broadcast_to,
            max=_reducer(np.maximum),
            min=_reducer(np.minimum),
            ones_like=_ones_like,
            prod=_reducer(np.multiply),
            sum=_reducer(np.add),
            **kernels,
        )

    def devices(self) -> list[Device]:
        return [CPU]

    def takes(self, array_type: type) -> bool:
        # not masked arrays, and none that compute in their own way, such as quantities with units:
        # taken as plain data they would lose mask or unit
        if not issubclass(array_type, np.ndarray):
            return issubclass(array_type, np.generic)
        masked = any(base.__module__.startswith("numpy.ma") for base in array_type.__mro__)
        return not masked and array_type.__array_ufunc__ is np.ndarray.__array_ufunc__

    def device_of(self, array: Any) -> Device:
        return CPU

    def asarray(self, obj: Any, dtype: Any, device: Device, copy: bool | None) -> np.ndarray:
        return np.asarray(obj, dtype=dtype, copy=copy)

    def to_host(self, array: Any) -> np.ndarray:
        return array

    def generator(self, seed: int | None, device: Device) -> NumpyGenerator:
        return NumpyGenerator(seed)

    def name(self, device: Device) -> str:
        return _processor()


def load() -> Backend:
    """The NumPy backend, which is always usable."""
    return NumpyBackend()
