"""CUDA GPUs: CuPy arrays. The only file that names CuPy; imported when a GPU is first asked for."""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from .. import backends, fusion
from ..batches import BatchedArray
from ..cuda import graph
from ..cuda.blas import Blas
from ..cuda.functions import linalg, replacements
from ..cuda.kernels import kernels
from ..cuda.ranges import Ranges
from ..cuda.source import source_of
from ..cuda.spans import Span, read_spans
from ..cuda.special import SpecialFunctions
from ..modes import refuses_transfers
from ..rules import raw
from ..symbols import working_type
from ..tensor import Tensor
from . import About, Backend, Device, DeviceError, Memory, Namespace, TransferError

KIND = "cuda"

_INSTALL = (
    'pip install "gpugrad[cuda12]" or pip install "gpugrad[cuda13]", for a driver of CUDA 12 or 13'
)
_numbers = itertools.count(1)  # of memory hooks, whose names differ
_INSUFFICIENT_DRIVER, _NO_DEVICE = 35, 100  # cudaError_t


def load() -> Backend:
    """The CuPy backend.

    Raises:
        DeviceError: if there is no usable CUDA device, saying why: CuPy not installed, no driver,
            driver too old, no device visible, or CUDA headers missing.
    """
    cupy = _import_cupy()
    count = _count_devices(cupy.cuda.runtime)
    _try_kernel(cupy)
    backend = CupyBackend(cupy, count)
    backends.hindrances += (import_module("cupyx").DeviceSynchronized,)
    backends.fusion = fusion.Fusion(backend)
    _take_calls(cupy)
    if count > 1:
        backends.following_devices = functools.partial(_following, cupy)
    return backend


@contextlib.contextmanager
def _following(cupy: Any) -> Iterator[Callable[[Any], None]]:
    def follow(array: Any) -> None:
        while not isinstance(array, cupy.ndarray):
            if isinstance(array, tuple):  # cotangents of several results, None for some
                array = next((raw(x) for x in array if x is not None), None)
            elif isinstance(array, BatchedArray):
                array = array.values
            else:
                return
        array.device.use()

    current = cupy.cuda.Device()
    try:
        yield follow
    finally:
        current.use()


# ---- CuPy's own calls on Tensors


def _take_calls(cupy: Any) -> None:
    """Give Tensor the hook that CuPy asks before any ufunc or ElementwiseKernel runs.

    No hook that hands over the array: CuPy would then take `array @ t` for its own.
    """

    def override(self: Tensor, kernel: Any, *args: Any, **kwargs: Any) -> Any:
        """`kernel(*args, **kwargs)` on Tensors.

        Raises:
            TypeError: if gpugrad knows no derivative of it.
        """
        from ..protocols.functions import find
        from ..protocols.ufuncs import named, run, special

        function, name = None, kernel.name
        if isinstance(kernel, cupy.ufunc):
            name = name.removeprefix("cupyx_scipy_special_").removeprefix("cupy_")
            if name in ("angle", "fix", "i0", "sinc"):  # which are no ufuncs in NumPy
                function = find(getattr(np, name))
            elif name != kernel.name:
                function = named(name) or special(name)
        if function is None:
            raise TypeError(
                f"{kernel.name}: gpugrad knows no derivative of this kernel: declare it with "
                "gpugrad.elementwise_kernel, or its call with gpugrad.custom_vjp; where none is "
                "wanted, give it the arrays themselves, t.data"
            )
        if len(args) > kernel.nin:
            kwargs["out"] = args[kernel.nin :]
        return run(name, function, "__call__", args[: kernel.nin], kwargs)

    Tensor.__cupy_override_elementwise_kernel__ = override  # type: ignore[attr-defined]


# ---- is there a usable device?


def _import_cupy() -> Any:
    try:
        cupy = import_module("cupy")
    except ModuleNotFoundError as error:
        if error.name == "cupy":
            raise DeviceError(f"CuPy is not installed: {_INSTALL}") from None
        raise DeviceError(f"CuPy cannot be imported: {error}") from error
    except ImportError as error:
        raise DeviceError(f"CuPy cannot be imported: {error}") from error
    if int(cupy.__version__.partition(".")[0]) < 14:
        raise DeviceError(f"CuPy 14 is needed, {cupy.__version__} is installed: {_INSTALL}")
    return cupy


def _count_devices(runtime: Any) -> int:
    try:
        count = int(runtime.getDeviceCount())
    except runtime.CUDARuntimeError as error:
        if error.status == _INSUFFICIENT_DRIVER:
            raise DeviceError(_driver_trouble(runtime)) from None
        if error.status != _NO_DEVICE:
            raise DeviceError(f"CUDA cannot be started: {error}") from error
        count = 0
    if count == 0:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        hint = "" if visible is None else f" (CUDA_VISIBLE_DEVICES is {visible!r})"
        raise DeviceError(f"no CUDA device is visible{hint}")
    return count


def _driver_trouble(runtime: Any) -> str:
    driver = runtime.driverGetVersion()
    if driver == 0:
        return "there is no NVIDIA driver: install one, see https://www.nvidia.com/drivers"
    needed = runtime.runtimeGetVersion()
    return (
        f"the NVIDIA driver is too old: it supports CUDA {_version(driver)}, the installed CuPy "
        f"is built for CUDA {_version(needed)}: update the driver, or {_INSTALL}"
    )


def _version(number: int) -> str:
    return f"{number // 1000}.{number % 1000 // 10}"


def versions() -> dict[str, str]:
    """The versions of CuPy, of the CUDA runtime it is built for, and of the driver."""
    try:
        cupy = _import_cupy()
    except DeviceError:
        return {}
    found = {"CuPy": cupy.__version__}
    runtime = cupy.cuda.runtime
    found["CUDA runtime"] = _version(runtime.runtimeGetVersion())
    if driver := runtime.driverGetVersion():
        found["CUDA driver"] = _version(driver)
        with contextlib.suppress(OSError):
            text = Path("/proc/driver/nvidia/version").read_text()
            if number := re.search(r"\d+\.\d+(\.\d+)?", text):
                found["CUDA driver"] += f" ({number[0]})"
    return found


def _caches() -> tuple[Path, ...]:
    """The folders where CuPy and the driver keep compiled kernels."""
    folders = {"CUPY_CACHE_DIR": "~/.cupy/kernel_cache", "CUDA_CACHE_PATH": "~/.nv/ComputeCache"}
    return tuple(Path(os.environ.get(k, v)).expanduser() for k, v in folders.items())


def _try_kernel(cupy: Any) -> None:
    """Compile and run a small kernel: needs NVRTC, the CUDA headers and a working device."""
    try:
        # float16, because CuPy includes a CUDA header for it and does without for float32
        kernel = cupy.ElementwiseKernel("T x", "T y", "y = x + T(1)", "gpugrad_probe")
        result = float(kernel(cupy.zeros((), "float16")))
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        if any(sign in reason for sign in ("cannot open source file", "CUDA_PATH", "header")):
            raise DeviceError(
                f"the CUDA headers that CuPy compiles kernels with are missing ({reason}): "
                f"{_INSTALL}, brings them; or set CUDA_PATH to a CUDA toolkit"
            ) from error
        raise DeviceError(f"a CUDA kernel cannot be compiled and run: {reason}") from error
    if result != 1:
        raise DeviceError(f"a CUDA kernel gave a wrong result, {result} instead of 1")


# ---- the backend


class CupyGenerator:
    """Random numbers on one GPU: XORWOW of cuRAND, through `cupy.random.RandomState`."""

    def __init__(self, cupy: Any, seed: int | None, device: Device) -> None:
        self._cuda = cupy.cuda
        self._device = cupy.cuda.Device(device.index)
        self._seeds = np.random.default_rng(seed)
        with self._device:
            self._generator = cupy.random.RandomState(seed)
            self._stream = cupy.cuda.get_current_stream()

    @property
    def _rng(self) -> Any:
        """The generator, for the current stream; its state is on the device, so that waits."""
        stream = self._cuda.get_current_stream()
        if stream.ptr != self._stream.ptr:
            stream.wait_event(self._stream.record())
            self._stream = stream
        return self._generator

    def get_state(self) -> Any:
        """Where in the stream it is. cuRAND does not tell: it starts a new one, and says which."""
        state = int(self._seeds.integers(1 << 63))
        self.set_state(state)
        return state

    def set_state(self, state: Any) -> None:
        """Go back to what `get_state` gave."""
        with self._device:
            self._rng.seed(state)

    def normal(self, shape: tuple[int, ...], dtype: Any) -> Any:
        return self._floats(self._rng.standard_normal, shape, dtype)

    def uniform(self, shape: tuple[int, ...], dtype: Any) -> Any:
        return self._floats(self._rng.random_sample, shape, dtype)

    def integers(self, low: int, high: int, shape: tuple[int, ...], dtype: Any) -> Any:
        return self._rng.randint(low, high, shape, dtype="int64").astype(dtype, copy=False)

    def gamma(self, a: Any, shape: tuple[int, ...], dtype: Any) -> Any:
        return self._rng.standard_gamma(a, shape, dtype)

    def poisson(self, lam: Any, shape: tuple[int, ...]) -> Any:
        return self._rng.poisson(lam, shape)

    def binomial(self, n: Any, p: Any, shape: tuple[int, ...]) -> Any:
        return self._rng.binomial(n, p, shape)

    def permutation(self, n: int) -> Any:
        return self._rng.permutation(n)

    def _floats(self, draw: Any, shape: tuple[int, ...], dtype: Any) -> Any:
        dtype = np.dtype(dtype)
        working = dtype if dtype == np.float64 else np.dtype(np.float32)
        return draw(shape, dtype=working).astype(dtype, copy=False)


class _Stream:
    """A stream given by its address, in the words of the CUDA stream protocol."""

    def __init__(self, address: int) -> None:
        self._address = address

    def __cuda_stream__(self) -> tuple[int, int]:
        return 0, self._address


def _refuse_transfer(what: str) -> None:
    if refuses_transfers():
        raise TransferError(f"{what} inside gpugrad.no_transfers()")


def _pool(cupy: Any) -> Any:
    """The memory pool behind the current allocator; None where there is none."""
    pool = getattr(cupy.cuda.get_allocator(), "__self__", None)
    return pool if hasattr(pool, "used_bytes") else None


def _peak_hook(cupy: Any, purpose: str) -> Any:
    """A hook that notes per device the most that the pool in use had handed out."""

    class PeakHook(cupy.cuda.MemoryHook):
        name = f"gpugrad.{purpose}"

        def __init__(self) -> None:
            self.highest: dict[int, int] = {}

        def malloc_postprocess(self, **_: Any) -> None:
            if (pool := _pool(cupy)) is not None:
                device = cupy.cuda.runtime.getDevice()  # CuPy 14 may call another one device_id
                self.highest[device] = max(self.highest.get(device, 0), pool.used_bytes())

    return PeakHook()


def _special(name: str) -> Any:
    return getattr(import_module("cupyx.scipy.special"), name)


class CupyBackend(Backend):
    """CuPy arrays on one or several CUDA devices."""

    kind = KIND
    runs_kernels = True

    def __init__(self, cupy: Any, count: int) -> None:
        self._cupy = cupy
        self._devices = [Device(KIND, i) for i in range(count)]
        self.array_type = cupy.ndarray
        self.array_types = (cupy.ndarray,)
        self._peaks = _peak_hook(cupy, "memory")
        functions = {**replacements(cupy), **kernels(cupy)}
        namespace = Namespace if count == 1 else functools.partial(_PlacedNamespace, cupy)
        self.xp = namespace(
            cupy,
            linalg=namespace(cupy.linalg, **linalg(cupy)),
            special=namespace(SpecialFunctions(cupy, _special)),
            **functions,
        )

    def devices(self) -> list[Device]:
        return list(self._devices)

    def device_of(self, array: Any) -> Device:
        return self._devices[array.data.device_id]

    def asarray(self, obj: Any, dtype: Any, device: Device, copy: bool | None) -> Any:
        with self.scope(device):
            if not isinstance(obj, self._cupy.ndarray):
                host = np.asarray(obj, dtype)
                negative_zero = host.ndim == 0 and not host and any(host.tobytes())
                if host.ndim or negative_zero:  # other numbers are an argument of a kernel
                    _refuse_transfer(f"a copy of {host.nbytes} bytes from the host to {device}")
                if negative_zero:  # CuPy would fill with 0.0
                    return self._cupy.asarray(host[None]).reshape(())
                return self._cupy.asarray(host)
            if obj.data.device_id != device.index:
                obj, copy = self._moved(obj, device), None
            dtype = obj.dtype if dtype is None else np.dtype(dtype)
            if copy is False and dtype != obj.dtype:
                raise ValueError(f"{obj.dtype} as {dtype} needs a copy, and copy=False")
            return obj.astype(dtype, copy=bool(copy))

    def _moved(self, x: Any, device: Device) -> Any:
        """A copy of `x` on another device.

        The copy is queued on the target's current stream. It waits for the source's, and what comes
        next on the source's waits for it: memory that is freed there may be written again.
        """
        source, stream = self.device_of(x), self._cupy.cuda.get_current_stream
        _refuse_transfer(f"a copy of {x.nbytes} bytes from {source} to {device}")
        with self.scope(source):
            # what CuPy would do, but before the event; one without axes gets one by it
            x = self._cupy.ascontiguousarray(x).reshape(x.shape)
            ready = stream().record()
        with self.scope(device):
            stream().wait_event(ready)
            out = x.copy()
            done = stream().record()
        with self.scope(source):
            stream().wait_event(done)
        return out

    def to_host(self, array: Any) -> np.ndarray:
        source = self.device_of(array)
        _refuse_transfer(f"a copy of {array.nbytes} bytes from {source} to the host")
        with self.scope(source):
            return array.get()

    def scope(self, device: Device) -> AbstractContextManager[Any]:
        return self._cupy.cuda.Device(device.index)

    def to_dlpack(self, array: Any, **options: Any) -> Any:
        to_cpu = "dl_device" in options and int(options["dl_device"][0]) == 1
        if to_cpu and options.get("copy") is False:
            raise BufferError("CUDA memory does not go to the CPU without a copy")
        source = self.device_of(array)
        if to_cpu:
            _refuse_transfer(f"a copy of {array.nbytes} bytes from {source} to the host")
        with self.scope(source):  # whose current stream the other library's stream waits for
            if not to_cpu and options.pop("copy", False):  # which CuPy itself refuses
                array = array.copy()
            return array.__dlpack__(**options)

    def queue(self, stream: Any) -> AbstractContextManager[Any]:
        if isinstance(stream, int):
            return self._cupy.cuda.Stream.from_external(_Stream(stream))
        return stream

    def elementwise_kernel(
        self, in_params: str, out_params: str, operation: str, name: str, preamble: str
    ) -> Callable[..., Any]:
        kernel = self._cupy.ElementwiseKernel(
            in_params, out_params, operation, name, preamble=preamble
        )
        return kernel if len(self._devices) == 1 else _placed(self._cupy, kernel)

    def synchronize(self, device: Device) -> None:
        _refuse_transfer(f"a wait for {device}")
        self._cupy.cuda.Device(device.index).synchronize()

    @contextlib.contextmanager
    def guard(self, waits: bool = False) -> Iterator[None]:
        with contextlib.ExitStack() as stack:
            with warnings.catch_warnings():  # that not every wait is detected
                warnings.simplefilter("ignore")
                stack.enter_context(import_module("cupyx").allow_synchronize(waits))
            yield

    def memory(self, device: Device, reset_peak: bool) -> Memory:
        used, held = self._in_use(device)
        highest = self._watched_peaks()
        peak = max(used, highest.get(device.index, 0))
        highest[device.index] = used if reset_peak else peak
        return Memory(used, peak, held)

    def _in_use(self, device: Device) -> tuple[int, int]:
        """The bytes of arrays, and of what holds them."""
        with self.scope(device):
            if (pool := _pool(self._cupy)) is not None:
                return pool.used_bytes(), pool.total_bytes()
            free, total = self._cupy.cuda.runtime.memGetInfo()
            return total - free, total - free

    @contextlib.contextmanager
    def gauge(self, device: Device) -> Iterator[Callable[[], tuple[int, int]]]:
        hook = _peak_hook(self._cupy, f"gauge {next(_numbers)}")

        def read() -> tuple[int, int]:
            used, _ = self._in_use(device)
            peak = max(used, hook.highest.get(device.index, 0))
            hook.highest[device.index] = used
            return used, peak

        with hook:
            yield read

    def span(self, device: Device, name: str) -> Span:
        place = self.scope(device) if len(self._devices) > 1 else contextlib.nullcontext()
        return Span(self._cupy, place, name)

    def read_spans(self, device: Device, spans: Sequence[Span]) -> list[tuple[int, int] | None]:
        with self.scope(device):
            return read_spans(self._cupy, spans)

    def _watched_peaks(self) -> dict[int, int]:
        """Device -> the most that was in use; watched in this thread from now on."""
        hooks = self._cupy.cuda.memory_hook.get_memory_hooks()  # of this thread
        if self._peaks.name not in hooks:
            self._peaks.__enter__()
        return self._peaks.highest

    def kernel(self, kernel: fusion.Kernel) -> Callable[..., Any]:
        def parameters(dtypes: Mapping[str, Any]) -> str:
            return ", ".join(f"{dtype.name} {name}" for name, dtype in dtypes.items())

        text, preamble = kernel.text, source_of(*kernel.text.files)
        inputs, outputs = parameters(kernel.inputs), parameters(kernel.outputs)
        if kernel.summed is None:
            return self._cupy.ElementwiseKernel(
                inputs, outputs, text.statements, kernel.name, preamble=preamble
            )
        (name,) = kernel.outputs
        expression = text.expression
        if len(kernel.inputs) == 1:
            # for CUB's block reduction CuPy puts in0 for every t in the text, in `float` too
            (given,) = kernel.inputs
            expression = re.sub(rf"\b{given}\b", "in0", expression)
            inputs = re.sub(rf"\b{given}$", "in0", inputs)
        return self._cupy.ReductionKernel(
            inputs,
            outputs,
            expression,
            "a + b",
            f"{name} = a",
            "0",
            f"{kernel.name}_sum",
            reduce_type=working_type(kernel.summed),
            preamble=preamble,
        )

    def generator(self, seed: int | None, device: Device) -> CupyGenerator:
        return CupyGenerator(self._cupy, seed, device)

    def name(self, device: Device) -> str:
        return self._cupy.cuda.runtime.getDeviceProperties(device.index)["name"].decode()

    def about(self, device: Device) -> About:
        properties = self._cupy.cuda.runtime.getDeviceProperties(device.index)
        with self.scope(device):
            free, total = self._cupy.cuda.runtime.memGetInfo()
        details = (
            f"compute capability {properties['major']}.{properties['minor']}, "
            f"{total / 2**30:.1f} GiB, {free / 2**30:.1f} GiB free"
        )
        name = properties["name"].decode()
        return About(name, details, _counts_launches(), _caches(), self._lacks)

    @functools.cached_property
    def _lacks(self) -> dict[str, str]:
        cuda = self._cupy.cuda
        found = {}
        for library, probe in (
            ("cuBLAS", lambda: cuda.device.get_cublas_handle()),
            ("cuSOLVER", lambda: cuda.device.get_cusolver_handle()),
            ("cuFFT", lambda: cuda.cufft),  # the attribute loads the library
            ("cuRAND", lambda: cuda.curand.getVersion()),
        ):
            try:
                probe()
            except Exception:
                found[library] = f"{_INSTALL}; or set CUDA_PATH to a CUDA toolkit"
        return found

    def seconds(self, device: Device, work: Callable[[], Any]) -> float:
        with self.scope(device):
            start, stop = (self._cupy.cuda.Event() for _ in range(2))
            start.record()
            work()
            stop.record()
            stop.synchronize()
            return self._cupy.cuda.get_elapsed_time(start, stop) / 1e3

    def launches(self, device: Device, work: Callable[[], Any]) -> int | None:
        """An emulated device counts them; on a GPU `work` is captured as a CUDA graph, and the
        graph's kernel nodes are counted: None where CuPy or CUDA refuse to capture it (cuBLAS,
        reading a value).
        """
        driver = graph.driver()
        if driver is None:
            return None
        with self.scope(device):
            work()  # compiles: what is left are the launches
            if _counts_launches():
                before = driver.emu_launch_count()
                work()
                return driver.emu_launch_count() - before
            try:
                return self.capture(device, work).kernels
            except graph.CaptureError:
                return None

    def capture(self, device: Device, work: Callable[[], Any]) -> graph.Graph:
        return graph.capture(self._cupy, device, work)

    def ranges(self, rows: int) -> Ranges:
        return Ranges(self._cupy, rows)

    @functools.cached_property
    def blas(self) -> Blas:
        return Blas(self._cupy)


def _counts_launches() -> bool:
    """Whether the driver is one that emulates a device: those of NVIDIA do not count launches."""
    return hasattr(graph.driver(), "emu_launch_count")


class _PlacedNamespace(Namespace):
    """Runs every function on the device of its arrays: CuPy puts results on the current one."""

    def __init__(self, cupy: Any, module: Any, **overrides: Any) -> None:
        self._place = functools.partial(_placed, cupy)
        placed = {name: self._place(f) if callable(f) else f for name, f in overrides.items()}
        super().__init__(module, **placed)

    def __getattr__(self, name: str) -> Any:
        value = super().__getattr__(name)
        if callable(value) and not isinstance(value, type):
            value = self._place(value)
            setattr(self, name, value)
        return value


def _placed(cupy: Any, f: Callable[..., Any]) -> Callable[..., Any]:
    def arrays(items: Any) -> Iterator[Any]:
        for item in items:
            if isinstance(item, cupy.ndarray):
                yield item
            elif isinstance(item, (list, tuple)):
                yield from arrays(item)

    @functools.wraps(f, updated=())
    def placed(*args: Any, **kwargs: Any) -> Any:
        found = {x.data.device_id for x in arrays((*args, *kwargs.values()))}
        if len(found) > 1:
            names = " and ".join(f"{KIND}:{i}" for i in sorted(found))
            raise ValueError(f"arrays on different devices, {names}: move one with .to(device)")
        with cupy.cuda.Device(found.pop()) if found else contextlib.nullcontext():
            return f(*args, **kwargs)

    return placed
