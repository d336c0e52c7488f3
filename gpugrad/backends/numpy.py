"""The CPU: NumPy arrays."""

from __future__ import annotations

import _thread  # `threading` would take a tenth of an import of gpugrad
import contextlib
import functools
import math
import operator
import os
import platform
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from .. import twins
from ..special_twins import SpecialFunctions
from . import About, Backend, Device, Memory, Namespace

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


def _count_nonzero(x: Any, axis: Any = None, keepdims: bool = False) -> np.ndarray:
    return np.asarray(np.count_nonzero(x, axis, keepdims=keepdims))  # NumPy 2.0 may give an int


def _infinite(x: Any) -> Any:
    """Where `x` is infinite; None if it is so nowhere."""
    if isinstance(x, (int, float, complex)):
        return True if isinstance(x, float) and math.isinf(x) else None
    if x.dtype.kind not in "fV":
        return None
    mask = np.isinf(x)
    return mask if np.count_nonzero(mask) else None


def _floor_divide(a: Any, b: Any) -> Any:
    """`numpy.floor_divide`, but the standard's infinities: a / b where an operand is infinite."""
    masks = [mask for mask in (_infinite(a), _infinite(b)) if mask is not None]
    if not masks:
        return np.floor_divide(a, b)
    with np.errstate(invalid="ignore"):
        finite = np.floor_divide(a, b)
    return np.where(functools.reduce(np.logical_or, masks), np.true_divide(a, b), finite)


def _expm1(x: Any) -> Any:
    """`numpy.expm1`, but the standard's values at complex infinities and zeros, as of exp - 1."""
    if x.dtype.kind != "c":
        return np.expm1(x)
    with np.errstate(invalid="ignore"):
        out = np.asarray(np.expm1(x))
    out.real += 0  # of -0 it is 0
    finite = np.isfinite(x)
    return out if finite.all() else np.where(finite, out, np.exp(x) - 1)


def _tanh(x: Any) -> Any:
    """`numpy.tanh`, but at complex infinities the imaginary zero has the sign of that of `x`."""
    out = np.tanh(x)
    if x.dtype.kind == "c":
        out = np.asarray(out)
        out.imag = np.where(np.isinf(x.real), np.copysign(0, x.imag), out.imag)
    return out


class NumpyGenerator:
    """Random numbers on the CPU: PCG64 (O'Neill 2014), through `numpy.random.Generator`."""

    def __init__(self, seed: int | None) -> None:
        self._rng = np.random.default_rng(seed)

    def get_state(self) -> Any:
        """Where in the stream it is."""
        return self._rng.bit_generator.state

    def set_state(self, state: Any) -> None:
        """Go back to what `get_state` gave."""
        self._rng.bit_generator.state = state

    def normal(self, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        return self._floats(self._rng.standard_normal, shape, dtype)

    def uniform(self, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        return self._floats(self._rng.random, shape, dtype)

    def integers(self, low: int, high: int, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        return np.asarray(self._rng.integers(low, high, shape, dtype))

    def gamma(self, a: Any, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        return np.asarray(self._rng.standard_gamma(a, shape, dtype))

    def poisson(self, lam: Any, shape: tuple[int, ...]) -> np.ndarray:
        return np.asarray(self._rng.poisson(lam, shape))

    def binomial(self, n: Any, p: Any, shape: tuple[int, ...]) -> np.ndarray:
        return np.asarray(self._rng.binomial(n, p, shape))

    def permutation(self, n: int) -> np.ndarray:
        return self._rng.permutation(n)

    def _floats(self, draw: Any, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        dtype = np.dtype(dtype)
        if dtype in (np.float32, np.float64):
            return np.asarray(draw(shape, dtype))
        return np.asarray(draw(shape, np.float32)).astype(dtype)


def _memory_of_process() -> Memory:
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except FileNotFoundError:  # no Linux
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # of macOS in bytes
        return Memory(peak, peak, peak)
    fields = dict(line.split(":", 1) for line in lines)
    used, peak = (1024 * int(fields[name].split()[0]) for name in ("VmRSS", "VmHWM"))
    return Memory(used, max(used, peak), used)


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
        self._lock = _thread.allocate_lock()
        self._gauges = 0  # in use
        self._starts = False  # whether it is they that have tracemalloc on
        kernels = {name: getattr(twins, name) for name in twins.__all__}
        self.xp = Namespace(
            np,
            add_at=np.add.at,
            broadcast_to=_broadcast_to,
            count_nonzero=_count_nonzero,
            expm1=_expm1,
            floor_divide=_floor_divide,
            fftn=np.fft.fftn,
            getitem=operator.getitem,
            ifftn=np.fft.ifftn,
            irfftn=np.fft.irfftn,
            max=_reducer(np.maximum),
            min=_reducer(np.minimum),
            ones_like=_ones_like,
            prod=_reducer(np.multiply),
            rfftn=np.fft.rfftn,
            setitem=operator.setitem,
            special=SpecialFunctions(),
            sum=_reducer(np.add),
            tanh=_tanh,
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

    def memory(self, device: Device, reset_peak: bool) -> Memory:
        found = _memory_of_process()
        if reset_peak:
            with contextlib.suppress(FileNotFoundError):  # proc(5); no Linux
                Path("/proc/self/clear_refs").write_text("5")
        return found

    @contextlib.contextmanager
    def gauge(self, device: Device) -> Iterator[Callable[[], tuple[int, int]]]:
        """What Python's tracemalloc counts, to which NumPy tells its arrays too."""
        with self._lock:
            if not self._gauges:
                self._starts = not tracemalloc.is_tracing()  # else it is the user's
            if self._starts:
                tracemalloc.start()
            self._gauges += 1

        def read() -> tuple[int, int]:
            found = tracemalloc.get_traced_memory()
            tracemalloc.reset_peak()
            return found

        try:
            yield read
        finally:
            with self._lock:
                self._gauges -= 1
                if self._starts and not self._gauges:
                    tracemalloc.stop()

    def about(self, device: Device) -> About:
        details = f"{os.cpu_count()} CPUs"
        try:
            size = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        except (AttributeError, OSError, ValueError):
            pass  # not told on this system
        else:
            details += f", {size / 2**30:.1f} GiB"
        return About(_processor(), details, False, (), {})


def versions() -> dict[str, str]:
    """The version of NumPy."""
    return {"NumPy": np.__version__}


def load() -> Backend:
    """The NumPy backend, which is always usable."""
    return NumpyBackend()
