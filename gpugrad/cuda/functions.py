"""Array functions that CuPy lacks, or has otherwise than NumPy."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

_OF_REALS = ("atan2", "copysign", "hypot", "logaddexp", "nextafter")
MIXED = "NumPy and CuPy arrays do not mix: move one with .to(device)"


def is_bfloat16(x: Any) -> bool:
    return x.dtype.kind == "V"


def on_device(f: Callable[..., Any]) -> Callable[..., Any]:
    """f, but where it would move a NumPy array to the device it raises."""

    @functools.wraps(f)
    def checked(*args: Any, **kwargs: Any) -> Any:
        for x in args:
            for item in x if isinstance(x, (list, tuple)) else (x,):
                if isinstance(item, np.ndarray):
                    raise TypeError(MIXED)
        return f(*args, **kwargs)

    return checked


def by_integers(f: Callable[..., Any]) -> Callable[..., Any]:
    """f(x, indices, ...), whose kernel would not compile for other indices."""

    @functools.wraps(f)
    def checked(x: Any, indices: Any, *args: Any, **kwargs: Any) -> Any:
        dtype = getattr(indices, "dtype", None)
        if dtype is not None and dtype.kind not in "biu":
            raise TypeError(f"indices must be integers, not {dtype}")
        return f(x, indices, *args, **kwargs)

    return checked


def replacements(cp: Any) -> dict[str, Callable[..., Any]]:
    def through_float32(f: Callable[..., Any]) -> Callable[..., Any]:
        """f, with bfloat16 arrays computed in float32."""

        @functools.wraps(f)
        def cast(x: Any, *args: Any, **kwargs: Any) -> Any:
            if not is_bfloat16(x):
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
            out = cp.moveaxis(x, axis, 0).copy()
            step = 1
            while step < len(out):
                out[step:] = op(out[step:], out[:-step])
                step *= 2
            return cp.moveaxis(out, 0, axis)

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
        return cp.power(a, b)

    def sign(x: Any) -> Any:
        if x.dtype.kind == "b":
            raise TypeError("not defined for booleans")
        return cp.sign(x)

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
        out.real = cp.where(cp.isinf(a) | cp.isinf(b), np.inf, out.real)

    def of_acosh(out: Any, a: Any, b: Any) -> None:
        out.imag = cp.where((a == 0) & cp.isnan(b), np.pi / 2, out.imag)

    def of_tanh(out: Any, a: Any, b: Any) -> None:
        out.real = cp.where((a == 0) & ~cp.isfinite(b), a, out.real)
        out.imag = cp.where(cp.isinf(a), cp.copysign(0, b), out.imag)

    def isin(a: Any, b: Any, invert: bool) -> Any:
        if a.dtype != b.dtype:
            a, b = (x.astype(np.result_type(a, b), copy=False) for x in (a, b))
        return cp.isin(a, b, invert=invert)

    def matmul(a: Any, b: Any) -> Any:
        if not (isinstance(a, cp.ndarray) and isinstance(b, cp.ndarray)):
            if isinstance(a, np.ndarray) or isinstance(b, np.ndarray):
                raise TypeError(MIXED)
            raise ValueError("matmul needs arrays of at least one axis")
        if (a.ndim > 2 or b.ndim > 2) and (is_bfloat16(a) or is_bfloat16(b)):
            out = cp.matmul(_widened(a), _widened(b))
            return out.astype(np.result_type(a, b), copy=False)
        return cp.matmul(a, b)

    def einsum(subscripts: str, *arrays: Any, **kwargs: Any) -> Any:
        if not any(map(is_bfloat16, arrays)):
            return cp.einsum(subscripts, *arrays, **kwargs)
        out = cp.einsum(subscripts, *map(_widened, arrays), **kwargs)
        return out.astype(np.result_type(*arrays), copy=False)

    def where(condition: Any, a: Any, b: Any) -> Any:
        out = cp.where(condition, a, b)
        dtypes = [x.dtype for x in (a, b) if isinstance(x, cp.ndarray)]
        if any(dtype.kind == "V" for dtype in dtypes):
            out = out.astype(np.result_type(*dtypes), copy=False)
        return out

    def vecdot(a: Any, b: Any, axis: int = -1) -> Any:
        a, b = cp.moveaxis(a, axis, -1), cp.moveaxis(b, axis, -1)
        return matmul(a.conj()[..., None, :], b[..., None])[..., 0, 0]

    def unstack(x: Any, axis: int = 0) -> tuple[Any, ...]:
        return tuple(cp.moveaxis(x, axis, 0))

    sum_of_halves = cp.ReductionKernel(
        "float16 x",
        "float16 y",
        "float(x)",
        "a + b",
        "y = a",
        "0",
        "gpugrad_sum_of_halves",
        reduce_type="float",
    )

    def sum(x: Any, axis: Any = None, dtype: Any = None, keepdims: bool = False) -> Any:
        """With float16 in float32: CUB, where CuPy asks it, adds in float16."""
        if x.dtype == np.float16 and dtype in (None, np.float16):
            return sum_of_halves(x, axis=axis, keepdims=keepdims)
        return cp.sum(x, axis=axis, dtype=dtype, keepdims=keepdims)

    def count_nonzero(x: Any, axis: Any = None, keepdims: bool = False) -> Any:
        return (x != 0).sum(axis=axis, keepdims=keepdims)

    return {
        **{name: of_reals(getattr(cp, name)) for name in _OF_REALS},
        "acosh": complex_points(cp.arccosh, of_acosh),
        "count_nonzero": count_nonzero,
        "cumprod": cumulative(through_float32(cp.cumprod), cp.multiply),
        "cumsum": cumulative(through_float32(cp.cumsum), cp.add),
        "einsum": on_device(einsum),
        "isin": on_device(isin),
        "log": complex_points(cp.log, of_log),
        "log1p": complex_points(cp.log1p, of_log),
        "fftn": _sized(cp.fft.fftn),
        "ifftn": _sized(cp.fft.ifftn),
        "irfftn": _inverse_of_real(cp.fft),
        "logical_and": truth(cp.logical_and),
        "logical_not": truth(cp.logical_not),
        "logical_or": truth(cp.logical_or),
        "logical_xor": truth(cp.logical_xor),
        "matmul": matmul,
        "power": power,
        "rfftn": _sized(cp.fft.rfftn),
        "round": through_float32(cp.round),
        "searchsorted": on_device(cp.searchsorted),
        "sign": sign,
        "std": through_float32(cp.std),
        "sum": on_device(sum),
        "tanh": complex_points(cp.tanh, of_tanh),
        "unstack": unstack,
        "var": through_float32(cp.var),
        "vecdot": vecdot,
        "where": where,
    }


def linalg(cp: Any) -> dict[str, Callable[..., Any]]:
    """As `replacements`, for `cp.linalg`.

    Its functions do not look whether cuSOLVER found a solution, unless told by an `errstate` of
    CuPy's: to look is to wait for the device.
    """

    def solve(a: Any, b: Any) -> Any:
        """With stacks that broadcast."""
        stack = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
        a, b = (cp.broadcast_to(x, (*stack, *x.shape[-2:])) for x in (a, b))
        if b.size == 0:
            inexact = [x.dtype if x.dtype.kind in "fc" else np.float64 for x in (a, b)]
            return cp.empty(b.shape, np.result_type(*inexact))
        return cp.linalg.solve(a, b)

    def qr(x: Any, mode: str = "reduced") -> Any:
        """Integers as float64: of stacks CuPy takes the working memory by the size of theirs."""
        return cp.linalg.qr(x if x.dtype.kind in "fc" else x.astype(np.float64), mode=mode)

    return {"qr": qr, "solve": solve}


def _sized(f: Callable[..., Any]) -> Callable[..., Any]:
    """f of several axes, with lengths that CuPy takes for lengths along these axes.

    A tuple equal to the shape of `x` it takes for no change, in whatever order the axes are.
    """

    def transform(x: Any, s: tuple[int, ...], axes: tuple[int, ...], norm: str) -> Any:
        return f(x, list(s), axes, norm)

    return transform


def _inverse_of_real(fft: Any) -> Callable[..., Any]:
    """irfftn by one axis of real results: plans for several rely on a symmetry of the input."""

    def irfftn(x: Any, s: tuple[int, ...], axes: tuple[int, ...], norm: str) -> Any:
        if len(axes) > 1:
            x = fft.ifftn(x, s[:-1], axes[:-1], norm)
        return fft.irfft(x, s[-1], axes[-1], norm)

    return irfftn


def _widened(x: Any) -> Any:
    return x.astype(np.float32) if is_bfloat16(x) else x
