"""The CPU: NumPy arrays."""

from __future__ import annotations

import platform
from typing import Any

import numpy as np

from . import Backend, Device, Namespace, twins

KIND = "cpu"
CPU = Device("cpu")


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


class NumpyBackend(Backend):
    """NumPy arrays on the CPU."""

    kind = KIND
    array_type = np.ndarray
    array_types = (np.ndarray, np.generic)

    def __init__(self) -> None:
        kernels = {name: getattr(twins, name) for name in twins.__all__}
        self.xp = Namespace(np, add_at=np.add.at, **kernels)

    def devices(self) -> list[Device]:
        return [CPU]

    def device_of(self, array: Any) -> Device:
        return CPU

    def asarray(self, obj: Any, dtype: Any, device: Device, copy: bool | None) -> np.ndarray:
        return np.asarray(obj, dtype=dtype, copy=copy)

    def to_host(self, array: Any) -> np.ndarray:
        return array

    def owner(self, array: Any) -> Any:
        while isinstance(array.base, np.ndarray):
            array = array.base
        return array if array.base is None else array.base

    def generator(self, seed: int | None, device: Device) -> NumpyGenerator:
        return NumpyGenerator(seed)

    def name(self, device: Device) -> str:
        return platform.processor() or platform.machine()


def load() -> Backend:
    """The NumPy backend, which is always usable."""
    return NumpyBackend()
