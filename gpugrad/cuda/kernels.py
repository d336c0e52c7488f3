"""The kernels of kernels/*.cuh, under the names of their twins."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.lib.array_utils import normalize_axis_index

from ..modes import checks_bounds
from ..symbols import DEVICE_FUNCTIONS, files_of
from ..twins import places, working_dtypes
from .functions import MIXED
from .indexing import check_indices, element_functions
from .source import source_of


def _as_float(x: Any) -> Any:
    """x in the dtype of a kernel's result: itself if it is floating-point."""
    return x if x.dtype.kind == "f" else x.astype(working_dtypes(x.dtype)[1], copy=False)


def _same_float(*arrays: Any) -> tuple[Any, ...]:
    """Arrays in the common dtype of a kernel's arguments."""
    dtype = working_dtypes(np.result_type(*arrays))[1]
    return tuple(x.astype(dtype, copy=False) for x in arrays)


def kernels(cp: Any) -> dict[str, Callable[..., Any]]:
    kernels: dict[str, Callable[..., Any]] = {}
    for name, (file, arity) in DEVICE_FUNCTIONS.items():
        if file == "activations":
            kernel = device_function(cp, name)
            keep = "biu" if name == "relu" else ""
            kernels[name] = _unary(kernel, keep) if arity == 1 else _binary(kernel)
    return {
        **kernels,
        **_division_kernels(cp),
        **_softmax_kernels(cp),
        **_optimizer_kernels(cp),
        **_patch_kernels(cp),
        **element_functions(cp),
    }


def device_function(cp: Any, name: str) -> Any:
    """The kernel that applies a function of kernels/*.cuh to every element."""
    names = ["x"] if DEVICE_FUNCTIONS[name].arity == 1 else ["a", "b"]
    return cp.ElementwiseKernel(
        ", ".join(f"T {x}" for x in names),
        "T y",
        f"y = gpugrad::{name}({', '.join(names)})",
        f"gpugrad_{name}",
        preamble=source_of(*files_of([name])),
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


def _division_kernels(cp: Any) -> dict[str, Callable[..., Any]]:
    """NumPy's floor_divide and remainder of floats; CuPy's round a / b first."""

    def division(name: str, ufunc: Any) -> Callable[[Any, Any], Any]:
        kernel = device_function(cp, name)

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
        "floor_divide": division("floor_divide", cp.floor_divide),
        "remainder": division("remainder", cp.remainder),
    }


def _softmax_kernels(cp: Any) -> dict[str, Callable[..., Any]]:
    source = source_of("common", "softmax")

    def reduction(name: str, out_params: str, result: str) -> Any:
        # Of one array to one CuPy makes a block reduction with CUB, of in0 and out0; it declares
        # their types only if one of the two had another name.
        return cp.ReductionKernel(
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
        return cp.ElementwiseKernel(
            in_params, "T y", f"y = {result}", f"gpugrad_{name}", preamble=source
        )

    log_of_sum = reduction("logsumexp", "T y", "y = static_cast<T>(gpugrad::log_of(a))")
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
        top, total = cp.empty(shape, working), cp.empty(shape, working)
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
        out = cp.empty((len(x), 2), working_dtypes(x.dtype)[0])
        top_and_total(x, out[:, 0], out[:, 1], axis=1)
        return out

    def cross_entropy(logits: Any, labels: Any, sums: Any) -> Any:
        x = _as_float(logits)
        if checks_bounds():
            check_indices(labels, x.shape[1], 1)
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


def _optimizer_kernels(cp: Any) -> dict[str, Callable[..., Any]]:
    source = source_of("common", "optimizers")

    def update(name: str, in_params: str, inout_params: str, call: str) -> Any:
        return cp.ElementwiseKernel(
            in_params,
            inout_params,
            f"gpugrad::{call}",
            f"gpugrad_{name}",
            preamble=source,
            no_return=True,
        )

    plain = update("sgd", "T grad, raw float64 lr", "T param", "sgd_step(param, grad, lr[0])")
    with_momentum = update(
        "sgd_momentum",
        "T grad, raw float64 lr, float64 momentum",
        "T param, S velocity",
        "sgd_step(param, velocity, grad, lr[0], momentum)",
    )
    adam = update(
        "adam",
        "T grad, raw float64 lr, float64 rate1, float64 rate2, float64 eps, raw float64 powers",
        "T param, S m, S v",
        "adam_step(param, m, v, grad, lr[0], rate1, rate2, eps, powers[0], powers[1])",
    )

    def sgd_step(param: Any, velocity: Any, grad: Any, lr: Any, momentum: float) -> None:
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
        lr: Any,
        beta1: float,
        beta2: float,
        eps: float,
        powers: Any,
    ) -> None:
        grad = grad.astype(param.dtype, copy=False)
        adam(grad, lr, 1 - beta1, 1 - beta2, eps, powers, param, m, v)

    return {"adam_step": adam_step, "sgd_step": sgd_step}


LONGEST_DIRECT = 4096  # a convolution by sums
_NARROW = 2**30  # elements, for which indices have 32 bits


def _patch_kernels(cp: Any) -> dict[str, Callable[..., Any]]:
    source = source_of("common", "patches")
    axes = [f"{name}_{axis}" for axis in "rc" for name in ("n", "size", "count", "s", "p", "d")]

    def of_windows(function: str) -> Callable[..., Any]:
        """The kernel for indices of 32 bits, whose division is many times faster, and of 64."""

        def kernel(name: str, index: str) -> Any:
            numbers = ", ".join(f"{name} {n}" for n in ["images", "channels", *axes])
            rows, columns = (
                f"gpugrad::window<{index}>{{{', '.join(axes[i : i + 6])}}}" for i in (0, 6)
            )
            return cp.ElementwiseKernel(
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
        out = cp.empty((channels, *size, images, *counts), x.dtype)
        return patch_entry(x, out, images, channels, *windows)

    def patch_sums(x: Any, lengths: Any, stride: Any, padding: Any, dilation: Any) -> Any:
        channels, *size, images = x.shape[:4]
        windows = zip(lengths, size, x.shape[4:], stride, padding, dilation, strict=True)
        out = cp.empty((images, channels, *lengths), x.dtype)
        return patch_sum(x, out, images, channels, *windows)

    convolved = cp.ElementwiseKernel(
        "raw T a, raw T b, int64 first, int64 m, int64 n",
        "T y",
        "y = gpugrad::convolved<T>(a, b, i + first, m, n)",
        "gpugrad_convolved",
        preamble=source,
    )

    def convolve(a: Any, b: Any, mode: str) -> Any:
        """By sums, accurate in every element; where both are long by transforms, as CuPy does."""
        if isinstance(a, np.ndarray) or isinstance(b, np.ndarray):
            raise TypeError(MIXED)
        m, n = a.size, b.size
        if min(m, n) > LONGEST_DIRECT:
            return cp.convolve(a, b, mode)
        dtype = np.result_type(a, b)
        work = np.dtype(np.int64) if dtype.kind in "biu" else dtype
        a, b = a.astype(work, copy=False), b.astype(work, copy=False)
        first, size = (0, m + n - 1) if mode == "full" else (min(m, n) - 1, abs(m - n) + 1)
        return convolved(a, b, first, m, n, cp.empty(size, work)).astype(dtype, copy=False)

    return {"convolve": convolve, "patch_sums": patch_sums, "patches": patches}
