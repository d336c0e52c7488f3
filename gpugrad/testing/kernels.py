"""The kernels of `kernels/*.cuh` on a device, against their twins in float64 on special values.

On the CPU, where the twins are what runs, the float16 and float32 ones are held to the float64 one.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

import gpugrad as gg

from ..backends import backend_of_kind
from .rows import SPECIAL

# Units of the last place that a kernel may be off by: the libraries' exp alone takes up to 4.
ALLOWED = {"float16": 1.0, "float32": 12.0, "float64": 12.0}

_X = np.array([*SPECIAL, 0.5, -0.5, 80, -80, *np.linspace(-20, 20, 47)])
_G = np.array([[2.0], [-2.5], [0.0]])
_LABELS = np.array([0, 1, 2, 3, 10, 5, -1, -11])
_WINDOW = ((3, 2), (2, 3), (1, 2), (2, 1))  # size, stride, padding and dilation
_UNARY = "sigmoid softplus log_sigmoid silu gelu erf relu".split()
_BINARY = "sigmoid_grad silu_grad gelu_grad tanh_grad relu_grad".split()


def _logits() -> np.ndarray:
    x = np.random.default_rng(0).standard_normal((8, 11)) * 4
    x[1], x[2, 3], x[3, 4], x[4, :9] = -np.inf, np.inf, np.nan, -np.inf
    x[5] *= 100
    return x


def _drawn(*shapes: tuple[int, ...]) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.standard_normal(shape) for shape in shapes]


@dataclass(frozen=True)
class Kernel:
    """A kernel, as it is called with the functions `xp` of a backend.

    Attributes:
        arguments: floating-point arrays are cast to the dtype that is checked.
        settings: further arguments, which keep their dtype.
        floor: below this size of an entry the error counts relative to it, not to the entry.
        writes: how many of the arguments it changes; their values are then what is compared.
    """

    name: str
    call: Callable[..., Any]
    arguments: list[np.ndarray]
    floor: float = 0.0
    writes: int = 0
    settings: tuple[np.ndarray, ...] = ()


def _steps() -> Iterator[Kernel]:
    param, m, v, grad = _drawn(*[(3, 4)] * 4)
    v = np.abs(v)
    rate, powers = np.array(0.1), np.array([0.9, 0.999]) ** 2

    def sgd(xp: Any, param: Any, grad: Any, lr: Any) -> None:
        xp.sgd_step(param, None, grad, lr, 0.0)

    def momentum(xp: Any, param: Any, velocity: Any, grad: Any, lr: Any) -> None:
        xp.sgd_step(param, velocity, grad, lr, 0.9)

    def adam(xp: Any, param: Any, m: Any, v: Any, grad: Any, lr: Any, powers: Any) -> None:
        xp.adam_step(param, m, v, grad, lr, 0.9, 0.999, 1e-8, powers)

    yield Kernel("sgd_step", sgd, [param, grad], 1, 1, (rate,))
    yield Kernel("sgd_step with momentum", momentum, [param, m, grad], 1, 2, (rate,))
    yield Kernel("adam_step", adam, [param, m, v, grad], 1, 3, (rate, powers))


def _losses(g: np.ndarray, x: np.ndarray) -> Iterator[Kernel]:
    def sums(xp: Any, x: Any) -> Any:
        return xp.exp_sums(x).astype(x.dtype, copy=False)

    def loss(xp: Any, x: Any, labels: Any) -> Any:
        return xp.cross_entropy(x, labels, xp.exp_sums(x))

    def slope(xp: Any, g: Any, x: Any, labels: Any) -> Any:
        return xp.cross_entropy_grad(g, x, labels, xp.exp_sums(x))

    # of finite rows: for others the largest entry may be infinite, or the largest number
    yield Kernel("exp_sums", sums, [x[5:]], 4)
    yield Kernel("cross_entropy", loss, [x, _LABELS], 4)
    yield Kernel("cross_entropy_grad", slope, [g, x, _LABELS], 4)


def _function(name: str, *options: Any) -> Callable[..., Any]:
    return lambda xp, *arrays: getattr(xp, name)(*arrays, *options)


def _kernels() -> Iterator[Kernel]:
    for name in _UNARY:
        yield Kernel(name, _function(name), [_X], 0.1)
    for name in _BINARY:
        yield Kernel(name, _function(name), [_G, _X], 0.1)
    operands = [_X[:15, None], _X[:15]]
    for name in ("floor_divide", "remainder"):
        yield Kernel(name, _function(name), operands)
    x, (g,) = _logits(), _drawn((8,))
    for name in ("softmax", "log_softmax", "logsumexp"):
        yield Kernel(name, _function(name, 1), [x], 4)
    yield from _losses(g, x)
    yield from _steps()
    (images,) = _drawn((2, 3, 6, 5))
    yield Kernel("patches", _function("patches", *_WINDOW), [images])
    (patches,) = _drawn((3, 3, 2, 2, 3, 3))
    sums = _function("patch_sums", (6, 5), *_WINDOW[1:])
    yield Kernel("patch_sums", sums, [patches], 1)
    yield Kernel("convolve", _function("convolve", "full"), _drawn((5,), (3,)), 4)


KERNELS = list(_kernels())


@dataclass
class KernelResult:
    """How a kernel turned out on one device.

    Attributes:
        errors: dtype -> the largest error, in units of the last place.
        launches: of one call; None where they are not counted.
        failures: what is wrong.
    """

    name: str
    errors: dict[str, float] = field(default_factory=dict)
    launches: int | None = None
    failures: list[str] = field(default_factory=list)


def check_kernel(kernel: Kernel, device: gg.Device) -> KernelResult:
    """`kernel` on `device`, in each dtype."""
    result = KernelResult(kernel.name)
    backend = backend_of_kind(device.kind)
    with warnings.catch_warnings(), np.errstate(all="ignore"), backend.scope(device):
        warnings.simplefilter("ignore")
        for dtype, allowed in ALLOWED.items():
            if device.kind == "cpu" and dtype == "float64":
                continue  # the reference itself
            arguments = [x.astype(dtype) if x.dtype.kind == "f" else x for x in kernel.arguments]
            arguments += kernel.settings
            there = [backend.asarray(x, None, device, True) for x in arguments]
            wide = [x.astype(float) if x.dtype.kind == "f" else x for x in arguments]
            try:
                got = [backend.to_host(x) for x in _outcome(kernel, backend.xp, there)]
                expected = _outcome(kernel, backend_of_kind("cpu").xp, wide)
                error = max(
                    _units(a, b.astype(dtype), kernel.floor)
                    for a, b in zip(got, expected, strict=True)
                )
            except Exception as problem:
                result.failures.append(
                    f"{kernel.name}, {dtype}: {type(problem).__name__}: {problem}"
                )
                continue
            result.errors[dtype] = error
            if error > allowed:
                result.failures.append(
                    f"{kernel.name}, {dtype}: off by {error:.3g} units of the last place, "
                    f"{allowed:g} are allowed"
                )
        if not result.failures:
            result.launches = backend.launches(device, lambda: kernel.call(backend.xp, *there))
    return result


def _outcome(kernel: Kernel, xp: Any, arguments: list[Any]) -> list[Any]:
    out = kernel.call(xp, *arguments)
    return arguments[: kernel.writes] if kernel.writes else [out]


def _units(got: np.ndarray, expected: np.ndarray, floor: float) -> float:
    """The largest error in units of the last place; below the normal range a device may give 0."""
    if (got.dtype, got.shape) != (expected.dtype, expected.shape):
        raise TypeError(f"{got.dtype} {got.shape} instead of {expected.dtype} {expected.shape}")
    info = np.finfo(got.dtype)
    got, expected = got.astype(float), expected.astype(float)
    unit = np.maximum(np.maximum(np.abs(expected), floor) * float(info.eps), float(info.tiny))
    error = np.abs(got - expected) / unit
    same = (got == expected) | (np.isnan(got) & np.isnan(expected))
    return float(np.where(same, 0, np.where(np.isnan(error), np.inf, error)).max(initial=0.0))
