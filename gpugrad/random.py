"""Random tensors, drawn on the device they live on.

NumPy's and CuPy's generators differ, so a seed gives the same numbers on the same kind of device
only.
"""

from __future__ import annotations

import contextlib
import secrets
import weakref
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from . import backends
from .ops.dtypes import is_inexact
from .ops.manipulation import as_shape
from .tensor import Tensor


class Generator:
    """A stream of random tensors on one device.

    Args:
        seed: a non-negative integer, or None for a seed from the operating system.
        device: where the tensors are made; None for the default device.
    """

    def __init__(
        self, seed: int | None = None, device: str | backends.Device | None = None
    ) -> None:
        self.device = backends.default_device() if device is None else backends.device(device)
        self._backend = backends.backend_of_kind(self.device.kind)
        self._seed = secrets.randbits(63) if seed is None else seed
        self._restart()
        _living.add(self)

    def _restart(self) -> None:
        self._state = self._backend.generator(self._seed, self.device)

    def _draw(self, name: str, *args: Any) -> Tensor:
        with self._backend.scope(self.device):
            return Tensor(getattr(self._state, name)(*args), None)

    def normal(self, shape: int | Sequence[int] = (), *, dtype: Any = "float64") -> Tensor:
        """Standard normal numbers."""
        return self._draw("normal", as_shape(shape), _float(dtype))

    def uniform(
        self,
        low: float = 0.0,
        high: float = 1.0,
        shape: int | Sequence[int] = (),
        *,
        dtype: Any = "float64",
    ) -> Tensor:
        """Numbers uniform in [low, high); rounding to `dtype` may give `high` itself."""
        if not low <= high:
            raise ValueError(f"uniform: low={low} is above high={high}")
        return self._draw("uniform", as_shape(shape), _float(dtype)) * (high - low) + low

    def integers(
        self, low: int, high: int, shape: int | Sequence[int] = (), *, dtype: Any = "int64"
    ) -> Tensor:
        """Integers uniform in [low, high)."""
        if not low < high:
            raise ValueError(f"integers: the range [{low}, {high}) is empty")
        return self._draw("integers", low, high, as_shape(shape), np.dtype(dtype))

    def permutation(self, n: int) -> Tensor:
        """The integers from 0 to n - 1 in random order, int64."""
        return self._draw("permutation", n)


def _float(dtype: Any) -> np.dtype:
    dtype = np.dtype(dtype)
    if not is_inexact(dtype) or dtype.kind == "c":
        raise TypeError(f"random numbers of this kind are floating-point, not {dtype}")
    return dtype


_living: weakref.WeakSet[Generator] = weakref.WeakSet()


def states() -> tuple[dict[Generator, Any], dict[backends.Device, Generator]]:
    """Every generator and where in its stream it is; and which are the module's own."""
    return {g: g._state.get_state() for g in list(_living)}, dict(_generators)


@contextlib.contextmanager
def replayed(saved: Any) -> Iterator[None]:
    """Inside it, generators draw again what they drew after `states` gave `saved`.

    One that was made later draws from its beginning.
    """
    then, own = saved
    now, own_now = states()
    try:
        _generators.update(own)
        for g in now:
            if g in then:
                g._state.set_state(then[g])
            else:
                g._restart()
        yield
    finally:
        _generators.clear()
        _generators.update(own_now)
        for g, state in now.items():
            g._state.set_state(state)


_seed: int | None = None
_generators: dict[backends.Device, Generator] = {}


def seed(seed: int) -> None:
    """Start the module's own generators afresh, one per device, each from `seed`.

    Raises:
        ValueError: if `seed` is negative.
    """
    global _seed
    if seed < 0:
        raise ValueError(f"seed: {seed} is negative")
    _seed = seed
    _generators.clear()


def default_generator(device: str | backends.Device | None = None) -> Generator:
    """The module's own generator for `device` (None: the default device)."""
    where = backends.default_device() if device is None else backends.device(device)
    if where not in _generators:
        _generators[where] = Generator(_seed, where)
    return _generators[where]


def normal(
    shape: int | Sequence[int] = (), *, dtype: Any = "float64", device: Any = None
) -> Tensor:
    """As `Generator.normal`, from the module's own generator."""
    return default_generator(device).normal(shape, dtype=dtype)


def uniform(
    low: float = 0.0,
    high: float = 1.0,
    shape: int | Sequence[int] = (),
    *,
    dtype: Any = "float64",
    device: Any = None,
) -> Tensor:
    """As `Generator.uniform`, from the module's own generator."""
    return default_generator(device).uniform(low, high, shape, dtype=dtype)


def integers(
    low: int,
    high: int,
    shape: int | Sequence[int] = (),
    *,
    dtype: Any = "int64",
    device: Any = None,
) -> Tensor:
    """As `Generator.integers`, from the module's own generator."""
    return default_generator(device).integers(low, high, shape, dtype=dtype)


def permutation(n: int, *, device: Any = None) -> Tensor:
    """As `Generator.permutation`, from the module's own generator."""
    return default_generator(device).permutation(n)
