"""CUDA GPUs: CuPy arrays. The only file that names CuPy; imported when a GPU is first asked for."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import math
import os
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.array_utils import normalize_axis_index

from .. import backends, fusion
from ..batches import BatchedArray
from ..modes import checks_bounds, is_deterministic, refuses_transfers
from ..rules import raw
from ..symbols import DEVICE_FUNCTIONS, files_of, working_type
from ..tensor import Tensor
from ..twins import places, working_dtypes
from . import About, Backend, Device, DeviceError, Memory, Namespace, TransferError

KIND = "cuda"

_INSTALL = (
    'pip install "gpugrad[cuda12]" or pip install "gpugrad[cuda13]", for a driver of CUDA 12 or 13'
)
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
            what, mend = "kernel", "declare it with gpugrad.elementwise_kernel"
            if isinstance(kernel, cupy.ufunc):
                what, mend = "ufunc", "give it one with gpugrad.custom_vjp"
            raise TypeError(
                f"{kernel.name}: gpugrad knows no derivative of this {what}: {mend}; where none is "
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


def _peak_hook(cupy: Any) -> Any:
    """A hook that notes per device the most that the pool in use had handed out."""

    class PeakHook(cupy.cuda.MemoryHook):
        name = "gpugrad.memory"

        def __init__(self) -> None:
            self.highest: dict[int, int] = {}

        def malloc_postprocess(self, **_: Any) -> None:
            if (pool := _pool(cupy)) is not None:
                device = cupy.cuda.runtime.getDevice()  # CuPy 14 may call another one device_id
                self.highest[device] = max(self.highest.get(device, 0), pool.used_bytes())

    return PeakHook()


class CupyBackend(Backend):
    """CuPy arrays on one or several CUDA devices."""

    kind = KIND
    runs_kernels = True

    def __init__(self, cupy: Any, count: int) -> None:
        self._cupy = cupy
        self._devices = [Device(KIND, i) for i in range(count)]
        self.array_type = cupy.ndarray
        self.array_types = (cupy.ndarray,)
        self._peaks = _peak_hook(cupy)
        functions = {**_replacements(cupy), **_kernels(cupy)}
        namespace = Namespace if count == 1 else functools.partial(_PlacedNamespace, cupy)
        self.xp = namespace(
            cupy,
            linalg=namespace(cupy.linalg, **_linalg(cupy)),
            special=namespace(_SpecialFunctions(cupy)),
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
            x = self._cupy.ascontiguousarray(x)  # what CuPy would do, but before the event
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
    def guard(self) -> Iterator[None]:
        with contextlib.ExitStack() as stack:
            with warnings.catch_warnings():  # that not every wait is detected
                warnings.simplefilter("ignore")
                stack.enter_context(import_module("cupyx").allow_synchronize(False))
            yield

    def memory(self, device: Device, reset_peak: bool) -> Memory:
        with self.scope(device):
            if (pool := _pool(self._cupy)) is not None:
                used, held = pool.used_bytes(), pool.total_bytes()
            else:
                free, total = self._cupy.cuda.runtime.memGetInfo()
                used = held = total - free
        highest = self._watched_peaks()
        peak = max(used, highest.get(device.index, 0))
        highest[device.index] = used if reset_peak else peak
        return Memory(used, peak, held)

    def _watched_peaks(self) -> dict[int, int]:
        """Device -> the most that was in use; watched in this thread from now on."""
        hooks = self._cupy.cuda.memory_hook.get_memory_hooks()  # of this thread
        if self._peaks.name not in hooks:
            self._peaks.__enter__()
        return self._peaks.highest

    def kernel(self, kernel: fusion.Kernel) -> Callable[..., Any]:
        def parameters(dtypes: Mapping[str, Any]) -> str:
            return ", ".join(f"{dtype.name} {name}" for name, dtype in dtypes.items())

        text, preamble = kernel.text, _source(*kernel.text.files)
        inputs, outputs = parameters(kernel.inputs), parameters(kernel.outputs)
        if not kernel.summed:
            return self._cupy.ElementwiseKernel(
                inputs, outputs, text.statements, kernel.name, preamble=preamble
            )
        ((name, dtype),) = kernel.outputs.items()
        return self._cupy.ReductionKernel(
            inputs,
            outputs,
            text.expression,
            "a + b",
            f"{name} = a",
            "0",
            f"{kernel.name}_sum",
            reduce_type=working_type(dtype),
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

    def peak(self, device: Device, work: Callable[[], Any]) -> int:
        class Peak(self._cupy.cuda.MemoryHook):  # type: ignore[name-defined]
            name = "gpugrad_peak"
            now = highest = 0

            def malloc_postprocess(self, **what: Any) -> None:
                if what["device_id"] == device.index:
                    self.now += what["mem_size"]
                    self.highest = max(self.highest, self.now)

            def free_postprocess(self, **what: Any) -> None:
                if what["device_id"] == device.index:
                    self.now -= what["mem_size"]

        with self.scope(device), Peak() as peak:
            work()
        return peak.highest

    def launches(self, device: Device, work: Callable[[], Any]) -> int | None:
        """An emulated device counts them; on a GPU `work` is captured as a CUDA graph, and the
        graph's kernel nodes are counted: None where CuPy or CUDA refuse to capture it (cuBLAS,
        reading a value).
        """
        driver = _driver()
        if driver is None:
            return None
        with self.scope(device):
            work()  # compiles: what is left are the launches
            if _counts_launches():
                before = driver.emu_launch_count()
                work()
                return driver.emu_launch_count() - before
            self.synchronize(device)
            stream = self._cupy.cuda.Stream(non_blocking=True)
            with stream:
                # relaxed: the pool may ask for memory meanwhile
                stream.begin_capture(self._cupy.cuda.runtime.streamCaptureModeRelaxed)
                try:
                    kept = work()
                except Exception:
                    with contextlib.suppress(Exception):  # the capture may be void already
                        stream.end_capture()
                    return None
                try:
                    graph = stream.end_capture()
                except self._cupy.cuda.runtime.CUDARuntimeError:
                    return None
            del kept
            return _count_kernels(driver, graph.graph)


def _driver() -> Any:
    """The CUDA driver's own library; None where it is not found under its usual name."""
    try:
        return ctypes.CDLL("nvcuda.dll" if os.name == "nt" else "libcuda.so.1")
    except OSError:
        return None


def _counts_launches() -> bool:
    """Whether the driver is one that emulates a device: those of NVIDIA do not count launches."""
    return hasattr(_driver(), "emu_launch_count")


_KERNEL_NODE = 0  # CUgraphNodeType


def _count_kernels(driver: Any, graph: int) -> int | None:
    """The kernel nodes of a CUgraph, which is what a cudaGraph_t is too."""
    handle, count = ctypes.c_void_p(graph), ctypes.c_size_t()
    trouble = driver.cuGraphGetNodes(handle, None, ctypes.byref(count))
    nodes = (ctypes.c_void_p * count.value)()
    trouble = trouble or driver.cuGraphGetNodes(handle, nodes, ctypes.byref(count))
    kernels = 0
    for node in nodes:
        kind = ctypes.c_int()
        trouble = trouble or driver.cuGraphNodeGetType(ctypes.c_void_p(node), ctypes.byref(kind))
        kernels += kind.value == _KERNEL_NODE
    return None if trouble else kernels


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


# ---- what CuPy lacks, or does otherwise than NumPy


_OF_REALS = ("atan2", "copysign", "hypot", "logaddexp", "nextafter")
_MIXED = "NumPy and CuPy arrays do not mix: move one with .to(device)"


def _is_bfloat16(x: Any) -> bool:
    return x.dtype.kind == "V"


def _on_device(f: Callable[..., Any]) -> Callable[..., Any]:
    """f, but where it would move a NumPy array to the device it raises."""

    @functools.wraps(f)
    def checked(*args: Any, **kwargs: Any) -> Any:
        for x in args:
            for item in x if isinstance(x, (list, tuple)) else (x,):
                if isinstance(item, np.ndarray):
                    raise TypeError(_MIXED)
        return f(*args, **kwargs)

    return checked


def _by_integers(f: Callable[..., Any]) -> Callable[..., Any]:
    """f(x, indices, ...), whose kernel would not compile for other indices."""

    @functools.wraps(f)
    def checked(x: Any, indices: Any, *args: Any, **kwargs: Any) -> Any:
        dtype = getattr(indices, "dtype", None)
        if dtype is not None and dtype.kind not in "biu":
            raise TypeError(f"indices must be integers, not {dtype}")
        return f(x, indices, *args, **kwargs)

    return checked


def _replacements(cupy: Any) -> dict[str, Callable[..., Any]]:
    def through_float32(f: Callable[..., Any]) -> Callable[..., Any]:
        """f, with bfloat16 arrays computed in float32."""

        @functools.wraps(f)
        def cast(x: Any, *args: Any, **kwargs: Any) -> Any:
            if not _is_bfloat16(x):
                return f(x, *args, **kwargs)
            return f(x.astype(np.float32), *args, **kwargs).astype(x.dtype)

        return cast

    def cumulative(f: Callable[..., Any], op: Callable[..., Any]) -> Callable[..., Any]:
        """f, the running op; of complex numbers in log2(n) steps on whole arrays.

        CuPy's own kernel for complex numbers compiles for real devices only. The steps are the
        recursive doubling of Hillis and Steele (1986).
        """

        def scan(x: Any, axis: int | None = None, dtype: Any = None) -> Any:
            x = x if dtype is None else x.astype(dtype, copy=False)
            # with an axis CuPy does not use CUB's scan, which adds in no fixed order
            x, axis = (x.ravel(), 0) if axis is None else (x, axis)
            if x.dtype.kind != "c":
                return f(x, axis)
            out = cupy.moveaxis(x, axis, 0).copy()
            step = 1
            while step < len(out):
                out[step:] = op(out[step:], out[:-step])
                step *= 2
            return cupy.moveaxis(out, 0, axis)

        return scan

    def truth(f: Callable[..., Any]) -> Callable[..., Any]:
        """f of truth values, complex numbers included."""

        @functools.wraps(f)
        def logical(*args: Any) -> Any:
            return f(*(x != 0 if getattr(x, "dtype", None) in complexes else x for x in args))

        return logical

    complexes = (np.complex64, np.complex128)

    def of_reals(f: Callable[..., Any]) -> Callable[..., Any]:
        """f, but where its kernel would not compile for complex numbers it raises."""

        @functools.wraps(f)
        def checked(*args: Any) -> Any:
            for x in args:
                if isinstance(x, complex) or getattr(x, "dtype", None) in complexes:
                    raise TypeError("not defined for complex numbers")
            return f(*args)

        return checked

    def integral(x: Any) -> bool:
        return isinstance(x, int) or (hasattr(x, "dtype") and x.dtype.kind in "biu")

    def power(a: Any, b: Any) -> Any:
        """a ** b; it waits for the device to refuse negative powers of integers, as NumPy does."""
        if integral(a) and integral(b) and (b < 0 if isinstance(b, int) else (b < 0).any()):
            raise ValueError("Integers to negative integer powers are not allowed.")
        return cupy.power(a, b)

    def sign(x: Any) -> Any:
        if x.dtype.kind == "b":
            raise TypeError("not defined for booleans")
        return cupy.sign(x)

    def complex_points(f: Callable[..., Any], mend: Callable[..., None]) -> Callable[..., Any]:
        """f, with the standard's values at some infinite or NaN complex numbers."""

        @functools.wraps(f)
        def mended(x: Any) -> Any:
            out = f(x)
            if x.dtype.kind == "c":
                mend(out, x.real, x.imag)
            return out

        return mended

    def of_log(out: Any, a: Any, b: Any) -> None:
        out.real = cupy.where(cupy.isinf(a) | cupy.isinf(b), np.inf, out.real)

    def of_acosh(out: Any, a: Any, b: Any) -> None:
        out.imag = cupy.where((a == 0) & cupy.isnan(b), np.pi / 2, out.imag)

    def of_tanh(out: Any, a: Any, b: Any) -> None:
        out.real = cupy.where((a == 0) & ~cupy.isfinite(b), a, out.real)
        out.imag = cupy.where(cupy.isinf(a), cupy.copysign(0, b), out.imag)

    def isin(a: Any, b: Any, invert: bool) -> Any:
        if a.dtype != b.dtype:
            a, b = (x.astype(np.result_type(a, b), copy=False) for x in (a, b))
        return cupy.isin(a, b, invert=invert)

    def matmul(a: Any, b: Any) -> Any:
        if not (isinstance(a, cupy.ndarray) and isinstance(b, cupy.ndarray)):
            if isinstance(a, np.ndarray) or isinstance(b, np.ndarray):
                raise TypeError(_MIXED)
            raise ValueError("matmul needs arrays of at least one axis")
        if (a.ndim > 2 or b.ndim > 2) and (_is_bfloat16(a) or _is_bfloat16(b)):
            out = cupy.matmul(_widened(a), _widened(b))
            return out.astype(np.result_type(a, b), copy=False)
        return cupy.matmul(a, b)

    def einsum(subscripts: str, *arrays: Any, **kwargs: Any) -> Any:
        if not any(map(_is_bfloat16, arrays)):
            return cupy.einsum(subscripts, *arrays, **kwargs)
        out = cupy.einsum(subscripts, *map(_widened, arrays), **kwargs)
        return out.astype(np.result_type(*arrays), copy=False)

    def where(condition: Any, a: Any, b: Any) -> Any:
        out = cupy.where(condition, a, b)
        dtypes = [x.dtype for x in (a, b) if isinstance(x, cupy.ndarray)]
        if any(dtype.kind == "V" for dtype in dtypes):
            out = out.astype(np.result_type(*dtypes), copy=False)
        return out

    def vecdot(a: Any, b: Any, axis: int = -1) -> Any:
        a, b = cupy.moveaxis(a, axis, -1), cupy.moveaxis(b, axis, -1)
        return matmul(a.conj()[..., None, :], b[..., None])[..., 0, 0]

    def unstack(x: Any, axis: int = 0) -> tuple[Any, ...]:
        return tuple(cupy.moveaxis(x, axis, 0))

    def count_nonzero(x: Any, axis: Any = None, keepdims: bool = False) -> Any:
        return (x != 0).sum(axis=axis, keepdims=keepdims)

    return {
        **{name: of_reals(getattr(cupy, name)) for name in _OF_REALS},
        "acosh": complex_points(cupy.arccosh, of_acosh),
        "count_nonzero": count_nonzero,
        "cumprod": cumulative(through_float32(cupy.cumprod), cupy.multiply),
        "cumsum": cumulative(through_float32(cupy.cumsum), cupy.add),
        "einsum": _on_device(einsum),
        "isin": _on_device(isin),
        "log": complex_points(cupy.log, of_log),
        "log1p": complex_points(cupy.log1p, of_log),
        "fftn": cupy.fft.fftn,
        "ifftn": cupy.fft.ifftn,
        "irfftn": _inverse_of_real(cupy.fft),
        "logical_and": truth(cupy.logical_and),
        "logical_not": truth(cupy.logical_not),
        "logical_or": truth(cupy.logical_or),
        "logical_xor": truth(cupy.logical_xor),
        "matmul": matmul,
        "power": power,
        "rfftn": cupy.fft.rfftn,
        "round": through_float32(cupy.round),
        "searchsorted": _on_device(cupy.searchsorted),
        "sign": sign,
        "std": through_float32(cupy.std),
        "tanh": complex_points(cupy.tanh, of_tanh),
        "unstack": unstack,
        "var": through_float32(cupy.var),
        "vecdot": vecdot,
        "where": where,
    }


def _linalg(cupy: Any) -> dict[str, Callable[..., Any]]:
    """As `_replacements`, for `cupy.linalg`.

    Its functions do not look whether cuSOLVER found a solution, unless told by `cupyx.errstate`: to
    look is to wait for the device.
    """

    def solve(a: Any, b: Any) -> Any:
        """With stacks that broadcast."""
        stack = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
        a, b = (cupy.broadcast_to(x, (*stack, *x.shape[-2:])) for x in (a, b))
        if b.size == 0:
            inexact = [x.dtype if x.dtype.kind in "fc" else np.float64 for x in (a, b)]
            return cupy.empty(b.shape, np.result_type(*inexact))
        return cupy.linalg.solve(a, b)

    return {"solve": solve}


def _inverse_of_real(fft: Any) -> Callable[..., Any]:
    """irfftn by one axis of real results: plans for several rely on a symmetry of the input."""

    def irfftn(x: Any, s: tuple[int, ...], axes: tuple[int, ...], norm: str) -> Any:
        if len(axes) > 1:
            x = fft.ifftn(x, s[:-1], axes[:-1], norm)
        return fft.irfft(x, s[-1], axes[-1], norm)

    return irfftn


def _widened(x: Any) -> Any:
    return x.astype(np.float32) if _is_bfloat16(x) else x


# ---- the kernels of kernels/*.cuh, under the names of their twins


def _source(*names: str) -> str:
    """The text of kernels/<name>.cuh: beside the package when installed, else one folder up."""
    package = Path(__file__).resolve().parent.parent
    folder = package / "kernels"
    if not folder.is_dir():
        folder = package.parent / "kernels"
    return "\n".join((folder / f"{name}.cuh").read_text() for name in names)


def _as_float(x: Any) -> Any:
    """x in the dtype of a kernel's result: itself if it is floating-point."""
    return x if x.dtype.kind == "f" else x.astype(working_dtypes(x.dtype)[1], copy=False)


def _same_float(*arrays: Any) -> tuple[Any, ...]:
    """Arrays in the common dtype of a kernel's arguments."""
    dtype = working_dtypes(np.result_type(*arrays))[1]
    return tuple(x.astype(dtype, copy=False) for x in arrays)


def _kernels(cupy: Any) -> dict[str, Callable[..., Any]]:
    kernels: dict[str, Callable[..., Any]] = {}
    for name, (file, arity) in DEVICE_FUNCTIONS.items():
        if file == "activations":
            kernel = _device_function(cupy, name)
            keep = "biu" if name == "relu" else ""
            kernels[name] = _unary(kernel, keep) if arity == 1 else _binary(kernel)
    return {
        **kernels,
        **_division_kernels(cupy),
        **_softmax_kernels(cupy),
        **_optimizer_kernels(cupy),
        **_patch_kernels(cupy),
        **_element_functions(cupy),
    }


def _device_function(cupy: Any, name: str) -> Any:
    """The kernel that applies a function of kernels/*.cuh to every element."""
    names = ["x"] if DEVICE_FUNCTIONS[name].arity == 1 else ["a", "b"]
    return cupy.ElementwiseKernel(
        ", ".join(f"T {x}" for x in names),
        "T y",
        f"y = gpugrad::{name}({', '.join(names)})",
        f"gpugrad_{name}",
        preamble=_source(*files_of([name])),
    )


def _unary(kernel: Any, keep: str) -> Callable[[Any], Any]:
    """The kernel with arrays of the kinds `keep` as they are, others made floating-point."""

    def call(x: Any) -> Any:
        return kernel(x if x.dtype.kind in keep else _as_float(x))

    return call


def _binary(kernel: Any) -> Callable[[Any, Any], Any]:
    def call(g: Any, x: Any) -> Any:
        if g.dtype != x.dtype or x.dtype.kind != "f":
            g, x = _same_float(g, x)
        return kernel(g, x)

    return call


def _division_kernels(cupy: Any) -> dict[str, Callable[..., Any]]:
    """NumPy's floor_divide and remainder of floats; CuPy's round a / b first."""

    def division(name: str, ufunc: Any) -> Callable[[Any, Any], Any]:
        kernel = _device_function(cupy, name)

        def call(a: Any, b: Any) -> Any:
            operands = [x.dtype if hasattr(x, "dtype") else x for x in (a, b)]
            if any(getattr(x, "kind", "") == "V" for x in operands):
                # beside bfloat16 NumPy's ufuncs take a Python float as float32
                operands = [np.float32 if isinstance(x, float) else x for x in operands]
                operands = [x for x in operands if not isinstance(x, int)]
            try:
                dtype = np.result_type(*operands)
            except TypeError:
                return ufunc(a, b)
            if dtype.kind not in "fV":
                return ufunc(a, b)
            return kernel(
                *(x.astype(dtype, copy=False) if hasattr(x, "dtype") else x for x in (a, b))
            )

        return call

    return {
        "floor_divide": division("floor_divide", cupy.floor_divide),
        "remainder": division("remainder", cupy.remainder),
    }


def _softmax_kernels(cupy: Any) -> dict[str, Callable[..., Any]]:
    source = _source("common", "softmax")

    def reduction(name: str, out_params: str, result: str) -> Any:
        # a second pass of CuPy's reductions replaces the names in0 and out0
        return cupy.ReductionKernel(
            "T in0",
            out_params,
            "gpugrad::exp_sum<T>(in0)",
            "gpugrad::add(a, b)",
            result,
            "_type_reduce()",
            f"gpugrad_{name}",
            reduce_type="gpugrad::exp_sum<T>",
            preamble=source,
        )

    def elementwise(name: str, in_params: str, result: str) -> Any:
        return cupy.ElementwiseKernel(
            in_params, "T y", f"y = {result}", f"gpugrad_{name}", preamble=source
        )

    log_of_sum = reduction("logsumexp", "T out0", "out0 = static_cast<T>(gpugrad::log_of(a))")
    top_and_total = reduction("exp_sum", "S top, S total", "top = a.top, total = a.total")
    softmax_of = elementwise("softmax", "T x, S top, S total", "gpugrad::softmax(x, top, total)")
    log_softmax_of = elementwise(
        "log_softmax", "T x, S top, S total", "gpugrad::log_softmax(x, top, total)"
    )
    loss_of = elementwise(
        "cross_entropy",
        "raw T x, L label, S top, S total, int64 classes",
        "gpugrad::cross_entropy(x[i * classes + gpugrad::wrapped(label, classes)], top, total)",
    )
    slope_of = elementwise(
        "cross_entropy_grad",
        "T g, T x, L label, S top, S total, int64 classes",
        "gpugrad::cross_entropy_grad("
        "g, x, top, total, i % classes == gpugrad::wrapped(label, classes))",
    )

    def sums(x: Any, axis: int) -> tuple[Any, Any]:
        shape = list(x.shape)
        shape[normalize_axis_index(axis, x.ndim)] = 1
        working = working_dtypes(x.dtype)[0]
        top, total = cupy.empty(shape, working), cupy.empty(shape, working)
        top_and_total(x, top, total, axis=axis, keepdims=True)
        return top, total

    def softmax(x: Any, axis: int = -1) -> Any:
        x = _as_float(x)
        return softmax_of(x, *sums(x, axis))

    def log_softmax(x: Any, axis: int = -1) -> Any:
        x = _as_float(x)
        return log_softmax_of(x, *sums(x, axis))

    def logsumexp(x: Any, axis: Any = None, keepdims: bool = False) -> Any:
        return log_of_sum(_as_float(x), axis=axis, keepdims=keepdims)

    def exp_sums(x: Any) -> Any:
        x = _as_float(x)
        out = cupy.empty((len(x), 2), working_dtypes(x.dtype)[0])
        top_and_total(x, out[:, 0], out[:, 1], axis=1)
        return out

    def cross_entropy(logits: Any, labels: Any, sums: Any) -> Any:
        x = _as_float(logits)
        if checks_bounds():
            _check_bounds(labels, x.shape[1], 1)
        return loss_of(x, labels, sums[:, 0], sums[:, 1], x.shape[1])

    def cross_entropy_grad(g: Any, logits: Any, labels: Any, sums: Any) -> Any:
        g, x = _same_float(g, logits)
        top, total = sums[:, :1], sums[:, 1:]
        return slope_of(g[:, None], x, labels[:, None], top, total, x.shape[1])

    return {
        "cross_entropy": cross_entropy,
        "cross_entropy_grad": cross_entropy_grad,
        "exp_sums": exp_sums,
        "log_softmax": log_softmax,
        "logsumexp": logsumexp,
        "softmax": softmax,
    }


def _optimizer_kernels(cupy: Any) -> dict[str, Callable[..., Any]]:
    source = _source("common", "optimizers")

    def update(name: str, in_params: str, inout_params: str, call: str) -> Any:
        return cupy.ElementwiseKernel(
            in_params,
            inout_params,
            f"gpugrad::{call}",
            f"gpugrad_{name}",
            preamble=source,
            no_return=True,
        )

    plain = update("sgd", "T grad, float64 lr", "T param", "sgd_step(param, grad, lr)")
    with_momentum = update(
        "sgd_momentum",
        "T grad, float64 lr, float64 momentum",
        "T param, S velocity",
        "sgd_step(param, velocity, grad, lr, momentum)",
    )
    adam = update(
        "adam",
        "T grad, float64 step, float64 rate1, float64 rate2, float64 bias2, float64 eps",
        "T param, S m, S v",
        "adam_step(param, m, v, grad, step, rate1, rate2, bias2, eps)",
    )

    def sgd_step(param: Any, velocity: Any, grad: Any, lr: float, momentum: float) -> None:
        grad = grad.astype(param.dtype, copy=False)
        if velocity is None:
            plain(grad, lr, param)
        else:
            with_momentum(grad, lr, momentum, param, velocity)

    def adam_step(
        param: Any,
        m: Any,
        v: Any,
        grad: Any,
        lr: float,
        beta1: float,
        beta2: float,
        eps: float,
        t: int,
    ) -> None:
        grad = grad.astype(param.dtype, copy=False)
        step, bias2 = lr / (1 - beta1**t), 1 - beta2**t
        adam(grad, step, 1 - beta1, 1 - beta2, bias2, eps, param, m, v)

    return {"adam_step": adam_step, "sgd_step": sgd_step}


_LONGEST_DIRECT = 4096  # a convolution by sums
_NARROW = 2**30  # elements, for which indices have 32 bits
_CHUNK = 64  # values that one thread adds up where the order is fixed


def _patch_kernels(cupy: Any) -> dict[str, Callable[..., Any]]:
    source = _source("common", "patches")
    axes = [f"{name}_{axis}" for axis in "rc" for name in ("n", "size", "count", "s", "p", "d")]

    def of_windows(function: str) -> Callable[..., Any]:
        """The kernel for indices of 32 bits, whose division is many times faster, and of 64."""

        def kernel(name: str, index: str) -> Any:
            numbers = ", ".join(f"{name} {n}" for n in ["images", "channels", *axes])
            rows, columns = (
                f"gpugrad::window<{index}>{{{', '.join(axes[i : i + 6])}}}" for i in (0, 6)
            )
            return cupy.ElementwiseKernel(
                f"raw T x, {numbers}",
                "T y",
                f"y = gpugrad::{function}<T>(x, ({index})i, images, channels, {rows}, {columns})",
                f"gpugrad_{function}_{name}",
                preamble=source,
            )

        narrow, wide = kernel("int32", "int"), kernel("int64", "long long")

        def call(x: Any, out: Any, images: int, channels: int, *windows: tuple[int, ...]) -> Any:
            call = narrow if max(x.size, out.size) < _NARROW else wide
            return call(x, images, channels, *windows[0], *windows[1], out)

        return call

    patch_entry, patch_sum = of_windows("patch_entry"), of_windows("patch_sum")

    def patches(x: Any, size: Any, stride: Any, padding: Any, dilation: Any) -> Any:
        images, channels, *lengths = x.shape
        counts = places(lengths, size, stride, padding, dilation)
        windows = zip(lengths, size, counts, stride, padding, dilation, strict=True)
        out = cupy.empty((channels, *size, images, *counts), x.dtype)
        return patch_entry(x, out, images, channels, *windows)

    def patch_sums(x: Any, lengths: Any, stride: Any, padding: Any, dilation: Any) -> Any:
        channels, *size, images = x.shape[:4]
        windows = zip(lengths, size, x.shape[4:], stride, padding, dilation, strict=True)
        out = cupy.empty((images, channels, *lengths), x.dtype)
        return patch_sum(x, out, images, channels, *windows)

    convolved = cupy.ElementwiseKernel(
        "raw T a, raw T b, int64 first, int64 m, int64 n",
        "T y",
        "y = gpugrad::convolved<T>(a, b, i + first, m, n)",
        "gpugrad_convolved",
        preamble=source,
    )

    def convolve(a: Any, b: Any, mode: str) -> Any:
        """By sums, accurate in every element; where both are long by transforms, as CuPy does."""
        if isinstance(a, np.ndarray) or isinstance(b, np.ndarray):
            raise TypeError(_MIXED)
        m, n = a.size, b.size
        if min(m, n) > _LONGEST_DIRECT:
            return cupy.convolve(a, b, mode)
        dtype = np.result_type(a, b)
        work = np.dtype(np.int64) if dtype.kind in "biu" else dtype
        a, b = a.astype(work, copy=False), b.astype(work, copy=False)
        first, size = (0, m + n - 1) if mode == "full" else (min(m, n) - 1, abs(m - n) + 1)
        return convolved(a, b, first, m, n, cupy.empty(size, work)).astype(dtype, copy=False)

    return {"convolve": convolve, "patch_sums": patch_sums, "patches": patches}


# ---- elements by index


def _items(key: Any, ndim: int) -> Iterator[tuple[Any, int]]:
    """The items of an index, `...` written out, each with the (first) axis that it is for.

    Raises:
        IndexError: if there are more items than axes.
    """
    items = key if isinstance(key, tuple) else (key,)
    widths = [0 if x is None or x is ... else _mask_width(x, 1) for x in items]
    rest = ndim - sum(widths)
    if rest < 0:
        raise IndexError(f"too many indices: {sum(widths)} for {ndim} axes")
    axis = 0
    for item, width in zip(items, widths, strict=True):
        if item is not ...:
            yield item, axis
            axis += width
        else:
            yield from ((slice(None), axis + i) for i in range(rest))
            axis += rest
    if not any(item is ... for item in items):
        yield from ((slice(None), axis + i) for i in range(rest))


def _mask_width(item: Any, otherwise: int) -> int:
    """The number of axes that a mask is for; `otherwise` for other items."""
    if isinstance(item, (bool, np.bool_)):
        return 0
    dtype = getattr(item, "dtype", None)
    return otherwise if dtype is None or dtype.kind != "b" else item.ndim


def _check_bounds(indices: Any, n: int, axis: int) -> None:
    """Raise an IndexError for the first index out of range; waits for the device."""
    wide = indices.astype(np.int64, copy=False)
    bad = (wide < -n) | (wide >= n)
    if bad.any():
        position = tuple(map(int, np.unravel_index(int(bad.argmax()), bad.shape)))
        raise IndexError(
            f"index {int(indices[position])} at position {position} of the index array is out of "
            f"bounds for axis {axis} of length {n}, on {KIND}:{indices.device.id}"
        )


def _element_functions(cupy: Any) -> dict[str, Callable[..., Any]]:
    """Reading, writing and adding by index, in the modes of `modes.py`."""
    source = _source("scatter")
    add = cupy.ElementwiseKernel(
        "raw V values, raw int64 index, raw int64 order, "
        "int64 m, int64 n, int64 after, int64 chunk",
        "raw T array, raw S heads, raw int64 head_index",
        "gpugrad::add_in_order<T, S>("
        "i, values, index, order, m, n, after, chunk, array, heads, head_index)",
        "gpugrad_add_in_order",
        preamble=source,
    )
    write = cupy.ElementwiseKernel(
        "raw V values, raw int64 index, raw int64 last, int64 m, int64 n, int64 after",
        "raw T array",
        "gpugrad::write_last(i, values, index, last, m, n, after, array)",
        "gpugrad_write_last",
        preamble=source,
    )

    def has_integers(key: Any) -> bool:
        """Whether an index has arrays of integers, and so may name an element more than once."""
        items = key if isinstance(key, tuple) else (key,)
        return any(isinstance(x, cupy.ndarray) and x.dtype.kind in "iu" for x in items)

    def check_key(x: Any, key: Any) -> None:
        for item, axis in _items(key, x.ndim):
            if has_integers(item):
                _check_bounds(item, x.shape[axis], axis)

    def wrapped(index: Any, n: int) -> Any:
        if not isinstance(index, cupy.ndarray):
            if not -n <= index < n:
                raise IndexError(f"index {index} is out of bounds for an axis of length {n}")
            return int(index) % n
        if n == 0 and index.size:
            raise IndexError("an axis of length 0 has nothing to choose from")
        return index.astype(np.int64, copy=False) % n

    def aligned(array: Any, key: Any, values: Any) -> tuple[Any, ...]:
        """What is done at `array[key]`, in the words of kernels/scatter.cuh.

        Returns:
            values and index, both flat; a view of `array` (*before, *places, *after), flat where
            that takes no copy; n and the size of `after`.
        """
        items: list[Any] = []
        for item, axis in _items(key, array.ndim):
            width = _mask_width(item, -1)
            if width == 0:
                raise IndexError("a truth value without axes beside arrays of integers")
            if width > 0 and item.shape != array.shape[axis : axis + width]:
                raise IndexError(f"a mask of shape {item.shape} for an array of {array.shape}")
            items += item.nonzero() if width > 0 else [item]
        chosen = [i for i, x in enumerate(items) if not (x is None or isinstance(x, slice))]
        view = array[tuple(slice(None) if i in chosen else x for i, x in enumerate(items))]
        # index arrays with something between them: what they choose comes first
        start = chosen[0] if chosen[-1] - chosen[0] < len(chosen) else 0
        stop = start + len(chosen)
        view = cupy.moveaxis(view, chosen, range(start, stop))
        index: Any = 0
        for i, n in zip(chosen, view.shape[start:stop], strict=True):
            index = index * n + wrapped(items[i], n)
        shape = (*view.shape[:start], *index.shape, *view.shape[stop:])
        if isinstance(values, cupy.ndarray):
            values = values.astype(array.dtype, copy=False)
        else:  # a number, which `asarray` would copy to the device
            values = cupy.full((), values, array.dtype)
        if cupy.may_share_memory(values, array):
            values = values.copy()
        lengths = math.prod(view.shape[start:stop]), math.prod(view.shape[stop:])
        if view.flags.c_contiguous:  # CuPy compiles a kernel for every number of axes
            view = view.ravel()
        return cupy.broadcast_to(values, shape).ravel(), index.ravel(), view, *lengths

    def add_in_order(array: Any, key: Any, values: Any) -> None:
        """One launch for m up to _CHUNK, one more with every factor of _CHUNK."""
        values, index, view, n, after = aligned(array, key, values)
        if not values.size:
            return
        kind, bytes_each = array.dtype.kind, array.dtype.itemsize
        sums = array.dtype
        if bytes_each <= 2:
            sums = np.dtype(np.float32 if kind in "fV" else np.int64)
        order = cupy.argsort(index)  # which in CuPy is always stable
        while True:
            m = index.size
            chunks = -(-m // _CHUNK)
            heads = cupy.empty(values.size // m * chunks, sums)
            head_index = cupy.empty(chunks, np.int64)
            lengths = m, n, after, _CHUNK
            add(values, index, order, *lengths, view, heads, head_index, size=values.size)
            if chunks == 1:
                return
            values, index, order = heads, head_index, cupy.arange(chunks)

    def write_last(array: Any, key: Any, values: Any) -> None:
        values, index, view, n, after = aligned(array, key, values)
        if values.size:
            m = index.size
            last = cupy.full(n, -1, np.int64)
            cupy.maximum.at(last, index, cupy.arange(m))  # of integers: in any order the same
            write(values, index, last, m, n, after, view, size=values.size)

    def getitem(x: Any, key: Any) -> Any:
        if checks_bounds():
            check_key(x, key)
        return x[key]

    def setitem(x: Any, key: Any, value: Any) -> None:
        if checks_bounds():
            check_key(x, key)
        if is_deterministic() and has_integers(key):
            write_last(x, key, value)
        else:
            x[key] = value

    def add_at(array: Any, index: Any, values: Any) -> None:
        """array[index] += values, with every repetition of an index counted."""
        if checks_bounds():
            check_key(array, index)
        kind, bytes_each = array.dtype.kind, array.dtype.itemsize
        in_order = is_deterministic() if kind in "fVc" else bytes_each <= 2  # no atomics for these
        if in_order and has_integers(index):
            add_in_order(array, index, values)
        elif kind == "c":
            values = cupy.asarray(values)
            cupy.add.at(array.real, index, values.real)
            if values.dtype.kind == "c":
                cupy.add.at(array.imag, index, values.imag)
        elif bytes_each == 2 and kind in "fV":
            total = array.astype(np.float32)
            cupy.add.at(total, index, values)
            array[...] = total.astype(array.dtype)
        else:
            cupy.add.at(array, index, values)

    def take(x: Any, indices: Any, axis: int | None = None) -> Any:
        if checks_bounds():
            check_axis(x, indices, axis)
        return cupy.take(x, indices, axis)

    def take_along_axis(x: Any, indices: Any, axis: int | None) -> Any:
        if checks_bounds():
            check_axis(x, indices, axis)
        return cupy.take_along_axis(x, indices, axis)

    def check_axis(x: Any, indices: Any, axis: int | None) -> None:
        shape, axis = ((x.size,), 0) if axis is None else (x.shape, axis)
        axis = normalize_axis_index(axis, len(shape))
        _check_bounds(cupy.asarray(indices), shape[axis], axis)

    def bincount(x: Any, weights: Any = None, minlength: int = 0) -> Any:
        if weights is None or not x.size or not is_deterministic():
            return cupy.bincount(x, weights, minlength)
        if x.shape != weights.shape:
            raise ValueError("The weights and list don't have the same length.")
        out = cupy.zeros(cupy.bincount(x, None, minlength).shape)
        add_in_order(out, x, weights)
        return out

    return {
        "add_at": _on_device(add_at),
        "bincount": _on_device(bincount),
        "getitem": getitem,
        "setitem": setitem,
        "take": _by_integers(_on_device(take)),
        "take_along_axis": _by_integers(_on_device(take_along_axis)),
    }


# ---- special functions


class _SpecialFunctions:
    """kernels/special.cuh, then `cupyx.scipy.special`, over all real dtypes."""

    def __init__(self, cupy: Any) -> None:
        self._cupy = cupy

    def __getattr__(self, name: str) -> Any:
        function = self._over_floats(self._find(name))
        setattr(self, name, function)
        return function

    def _find(self, name: str) -> Any:
        if name in DEVICE_FUNCTIONS and DEVICE_FUNCTIONS[name].file == "special":
            return _device_function(self._cupy, name)
        own = getattr(type(self), f"_{name}", None)
        return functools.partial(own, self) if own else self._of_cupy(name)

    def _of_cupy(self, name: str) -> Any:
        return getattr(import_module("cupyx.scipy.special"), name)

    def _over_floats(self, f: Callable[..., Any]) -> Callable[..., Any]:
        """f, written for float32 and float64 arrays, for all real arrays."""
        array_type = self._cupy.ndarray

        def call(*args: Any) -> Any:
            if any(isinstance(x, np.ndarray) for x in args):
                raise TypeError(_MIXED)
            arrays = [x for x in args if isinstance(x, array_type)]
            numbers = [x for x in args if not isinstance(x, array_type)]
            dtypes = [x.dtype for x in arrays]
            if not any(map(_is_bfloat16, arrays)):
                dtypes += numbers
            work, result = working_dtypes(np.result_type(*dtypes))
            out = f(*(x.astype(work, copy=False) if isinstance(x, array_type) else x for x in args))
            return out.astype(result, copy=False)

        return call

    def _psi(self, x: Any) -> Any:
        return self.digamma(x)

    def _polygamma(self, n: Any, x: Any) -> Any:
        gamma, zeta, where = self._of_cupy("gamma"), self._of_cupy("zeta"), self._cupy.where
        n = self._cupy.asarray(n, dtype=x.dtype) if not hasattr(n, "dtype") else n
        higher = (2 * (n % 2) - 1) * gamma(n + 1) * zeta(n + 1, x)
        return where(n == 0, self.digamma(x), higher)

    def _betaincc(self, a: Any, b: Any, x: Any) -> Any:
        return self._of_cupy("betainc")(b, a, 1 - x)

    def _stdtr(self, df: Any, x: Any) -> Any:
        tail = 0.5 * self.betainc(0.5 * df, 0.5, df / (df + x * x))
        return self._cupy.where(x < 0, tail, 1 - tail)

    def _stdtrit(self, df: Any, p: Any) -> Any:
        # from the tail in the tails, from the middle around 1/2
        where, inverse = self._cupy.where, self.betaincinv
        tail = where(p < 0.5, p, 1 - p)
        far, near = inverse(0.5 * df, 0.5, 2 * tail), inverse(0.5, 0.5 * df, 1 - 2 * tail)
        square = df * where(tail < 0.25, (1 - far) / far, near / (1 - near))
        return where(p < 0.5, -1, 1) * self._cupy.sqrt(square)
