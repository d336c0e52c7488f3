"""CUDA GPUs: CuPy arrays. The only file that names CuPy; imported when a GPU is first asked for."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.array_utils import normalize_axis_index

from .. import backends
from ..tensor import Tensor
from ..twins import working_dtypes
from . import Backend, Device, DeviceError, Namespace

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
    _take_calls(cupy)
    if count > 1:
        backends.following_devices = functools.partial(_following, cupy)
    return backend


@contextlib.contextmanager
def _following(cupy: Any) -> Iterator[Callable[[Any], None]]:
    def follow(array: Any) -> None:
        if isinstance(array, cupy.ndarray):
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
                f"{kernel.name}: gpugrad knows no derivative of this kernel; "
                "where none is wanted, give it the arrays themselves, t.data"
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
        with cupy.cuda.Device(device.index):
            self._rng = cupy.random.RandomState(seed)

    def normal(self, shape: tuple[int, ...], dtype: Any) -> Any:
        return self._floats(self._rng.standard_normal, shape, dtype)

    def uniform(self, shape: tuple[int, ...], dtype: Any) -> Any:
        return self._floats(self._rng.random_sample, shape, dtype)

    def integers(self, low: int, high: int, shape: tuple[int, ...], dtype: Any) -> Any:
        return self._rng.randint(low, high, shape, dtype="int64").astype(dtype, copy=False)

    def permutation(self, n: int) -> Any:
        return self._rng.permutation(n)

    def _floats(self, draw: Any, shape: tuple[int, ...], dtype: Any) -> Any:
        dtype = np.dtype(dtype)
        working = dtype if dtype == np.float64 else np.dtype(np.float32)
        return draw(shape, dtype=working).astype(dtype, copy=False)


class CupyBackend(Backend):
    """CuPy arrays on one or several CUDA devices."""

    kind = KIND

    def __init__(self, cupy: Any, count: int) -> None:
        self._cupy = cupy
        self._devices = [Device(KIND, i) for i in range(count)]
        self.array_type = cupy.ndarray
        self.array_types = (cupy.ndarray,)
        functions = {**_replacements(cupy), **_kernels(cupy)}
        self.xp = (
            Namespace(cupy, **functions) if count == 1 else _PlacedNamespace(cupy, **functions)
        )

    def devices(self) -> list[Device]:
        return list(self._devices)

    def device_of(self, array: Any) -> Device:
        return self._devices[array.data.device_id]

    def asarray(self, obj: Any, dtype: Any, device: Device, copy: bool | None) -> Any:
        with self.scope(device):
            if not isinstance(obj, self._cupy.ndarray):
                return self._cupy.asarray(np.asarray(obj, dtype))
            if obj.data.device_id != device.index:
                obj, copy = obj.copy(), None
            dtype = obj.dtype if dtype is None else np.dtype(dtype)
            if copy is False and dtype != obj.dtype:
                raise ValueError(f"{obj.dtype} as {dtype} needs a copy, and copy=False")
            return obj.astype(dtype, copy=bool(copy))

    def to_host(self, array: Any) -> np.ndarray:
        return array.get()

    def scope(self, device: Device) -> AbstractContextManager[Any]:
        return self._cupy.cuda.Device(device.index)

    def synchronize(self, device: Device) -> None:
        self._cupy.cuda.Device(device.index).synchronize()

    def generator(self, seed: int | None, device: Device) -> CupyGenerator:
        return CupyGenerator(self._cupy, seed, device)

    def name(self, device: Device) -> str:
        return self._cupy.cuda.runtime.getDeviceProperties(device.index)["name"].decode()


class _PlacedNamespace(Namespace):
    """Runs every function on the device of its arrays: CuPy puts results on the current one."""

    def __init__(self, cupy: Any, **functions: Any) -> None:
        self._place = functools.partial(_placed, cupy)
        super().__init__(cupy, **{name: self._place(f) for name, f in functions.items()})

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


def _replacements(cupy: Any) -> dict[str, Callable[..., Any]]:
    def on_device(f: Callable[..., Any]) -> Callable[..., Any]:
        """f, but where it would move a NumPy array to the device it raises."""

        @functools.wraps(f)
        def checked(*args: Any, **kwargs: Any) -> Any:
            for x in args:
                for item in x if isinstance(x, (list, tuple)) else (x,):
                    if isinstance(item, np.ndarray):
                        raise TypeError(_MIXED)
            return f(*args, **kwargs)

        return checked

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
            if x.dtype.kind != "c":
                return f(x, axis)
            x, axis = (x.ravel(), 0) if axis is None else (x, axis)
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

    def add_at(array: Any, index: Any, values: Any) -> None:
        """array[index] += values, with every repetition of an index counted."""
        if array.dtype.kind == "c":
            values = cupy.asarray(values)
            cupy.add.at(array.real, index, values.real)
            if values.dtype.kind == "c":
                cupy.add.at(array.imag, index, values.imag)
        elif array.dtype.itemsize == 2 and array.dtype.kind in "fV":
            total = array.astype(np.float32)
            cupy.add.at(total, index, values)
            array[...] = total.astype(array.dtype)
        else:
            cupy.add.at(array, index, values)

    return {
        **{name: of_reals(getattr(cupy, name)) for name in _OF_REALS},
        "add_at": on_device(add_at),
        "count_nonzero": count_nonzero,
        "cumprod": cumulative(through_float32(cupy.cumprod), cupy.multiply),
        "cumsum": cumulative(through_float32(cupy.cumsum), cupy.add),
        "einsum": on_device(einsum),
        "logical_and": truth(cupy.logical_and),
        "logical_not": truth(cupy.logical_not),
        "logical_or": truth(cupy.logical_or),
        "logical_xor": truth(cupy.logical_xor),
        "matmul": matmul,
        "round": through_float32(cupy.round),
        "std": through_float32(cupy.std),
        "take": on_device(cupy.take),
        "take_along_axis": on_device(cupy.take_along_axis),
        "unstack": unstack,
        "var": through_float32(cupy.var),
        "vecdot": vecdot,
        "where": where,
    }


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
    activations = _source("common", "activations")
    for name in ("sigmoid", "softplus", "log_sigmoid", "silu", "gelu", "erf", "relu"):
        kernel = cupy.ElementwiseKernel(
            "T x", "T y", f"y = gpugrad::{name}(x)", f"gpugrad_{name}", preamble=activations
        )
        kernels[name] = _unary(kernel, keep="biu" if name == "relu" else "")
    for name in ("sigmoid_grad", "silu_grad", "gelu_grad", "tanh_grad", "relu_grad"):
        kernel = cupy.ElementwiseKernel(
            "T g, T x", "T y", f"y = gpugrad::{name}(g, x)", f"gpugrad_{name}", preamble=activations
        )
        kernels[name] = _binary(kernel)
    return {
        **kernels,
        **_division_kernels(cupy),
        **_softmax_kernels(cupy),
        **_optimizer_kernels(cupy),
    }


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
        kernel = cupy.ElementwiseKernel(
            "T a, T b",
            "T y",
            f"y = gpugrad::{name}(a, b)",
            f"gpugrad_{name}",
            preamble=_source("common", "division"),
        )

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
            return kernel(*(x.astype(dtype) if hasattr(x, "dtype") else x for x in (a, b)))

        return call

    return {
        "floor_divide": division("floor_quotient", cupy.floor_divide),
        "remainder": division("floor_remainder", cupy.remainder),
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

    def cross_entropy(logits: Any, labels: Any) -> Any:
        x = _as_float(logits)
        top, total = sums(x, 1)
        return loss_of(x, labels, top[:, 0], total[:, 0], x.shape[1])

    def cross_entropy_grad(g: Any, logits: Any, labels: Any) -> Any:
        g, x = _same_float(g, logits)
        return slope_of(g[:, None], x, labels[:, None], *sums(x, 1), x.shape[1])

    return {
        "cross_entropy": cross_entropy,
        "cross_entropy_grad": cross_entropy_grad,
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
