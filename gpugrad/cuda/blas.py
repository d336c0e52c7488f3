"""Matrix products by cuBLAS itself, which a stream being captured takes; CuPy's own refuse to.

cuBLAS is called through ctypes: six functions of the library that CuPy has loaded anyway.
nvmath-python binds them too, but as an experimental module and one more dependency.
"""

from __future__ import annotations

import ctypes
import itertools
import math
import os
import threading
from typing import Any, NamedTuple

import numpy as np

_INT, _LONG, _POINTER = ctypes.c_int, ctypes.c_longlong, ctypes.c_void_p
_MATRIX, _BATCH = [_POINTER, _INT, _INT], [_POINTER, _INT, _INT, _LONG]
_HEAD, _TAIL = [_POINTER, *[_INT] * 5, _POINTER], [_INT, _INT]
_SIGNATURES = {
    "cublasCreate_v2": [_POINTER],
    "cublasSetMathMode": [_POINTER, _INT],
    "cublasSetStream_v2": [_POINTER, _POINTER],
    "cublasSetWorkspace_v2": [_POINTER, _POINTER, ctypes.c_size_t],
    "cublasGemmEx": [*_HEAD, *_MATRIX, *_MATRIX, _POINTER, *_MATRIX, *_TAIL],
    "cublasGemmStridedBatchedEx": [
        *(*_HEAD, *_BATCH, *_BATCH, _POINTER, *_BATCH),
        *(_INT, *_TAIL),
    ],
}
_LARGEST = 2**31 - 1  # of an int
_DEFAULT_ALGORITHM = -1
# Sums of several blocks are added up in float32 too, where the result is float16 or bfloat16.
# That mode is otherwise the default one: float32 is not rounded to TF32.
_FULL_SUMS = 16  # CUBLAS_MATH_DISALLOW_REDUCED_PRECISION_REDUCTION


class _Kind(NamedTuple):
    """What cuBLAS calls a dtype: cudaDataType, cublasComputeType_t, and 1 and 0 to scale with."""

    type: int
    compute: int
    one: np.ndarray
    zero: np.ndarray


_KINDS = {
    name: _Kind(type_, compute, np.ones(1, scale), np.zeros(1, scale))
    for name, type_, compute, scale in (
        ("float16", 2, 68, "float32"),
        ("bfloat16", 14, 68, "float32"),
        ("float32", 0, 68, "float32"),
        ("float64", 1, 70, "float64"),
        ("complex64", 4, 68, "complex64"),
        ("complex128", 5, 70, "complex128"),
    )
}


class _Layout(NamedTuple):
    """A matrix as cuBLAS knows them: by rows, or transposed; elements from one to the next."""

    transposed: int
    leading: int


class _Axis(NamedTuple):
    """A batch axis: its length, and the elements from one matrix to the next."""

    length: int
    a: int
    b: int
    out: int


class _Plan(NamedTuple):
    """out = a @ b as products of m x k and k x n matrices; `starts` says where, in elements."""

    kind: _Kind
    m: int
    n: int
    k: int
    a: _Layout
    b: _Layout
    batch: _Axis
    starts: list[tuple[int, int, int]]


class Blas:
    """out = a @ b into memory that is there, on the current stream of the arrays' device.

    One for all devices and threads: each device has a handle, made by its first product and kept
    as long as the process. That first product is made outside of a capture.

    The workspace of a product is a temporary array like any other, so products on two streams, or
    in two graphs, never share one; what is captured has it in the graph's own pool. Without one
    cuBLAS would put nodes into the graph that allocate memory, for each product.
    """

    def __init__(self, cp: Any) -> None:
        self._cp = cp
        self._library: Any = None
        self._handles: dict[int, ctypes.c_void_p] = {}
        self._lock = threading.Lock()

    def supports(self, a: Any, b: Any, out: Any) -> bool:
        """Whether `matmul` takes these arrays as they are.

        All three of one dtype, float16, bfloat16, float32, float64, complex64 or complex128, and
        on one device. `out` is C-contiguous, of the shape of the product, and in memory of its
        own. Of `a` and `b` either the rows or the columns are contiguous in each matrix, as in
        a transpose or a slice; batch axes may have any strides that are not negative.
        """
        return self._plan(a, b, out) is not None

    def _plan(self, a: Any, b: Any, out: Any) -> _Plan | None:
        if any(self._cp.may_share_memory(x, out) for x in (a, b)):
            return None
        return _plan(a, b, out)

    def matmul(self, a: Any, b: Any, out: Any) -> None:
        """out[...] = a @ b, as the standard's matmul: vectors, matrices, batches that broadcast.

        float16 and bfloat16 are summed in float32.

        Raises:
            ValueError: if `supports` says no; nothing has been done then.
            RuntimeError: if cuBLAS fails.
        """
        plan = self._plan(a, b, out)
        if plan is None:
            raise ValueError(
                f"matmul: cuBLAS does not take {_told(a)} and {_told(b)} into {_told(out)}: "
                "it takes one floating-point dtype, matrices with contiguous rows or columns, and "
                "a C-contiguous result of their shape and apart from them: copy them first"
            )
        where = out.data.device_id
        with self._cp.cuda.Device(where):
            if not plan.k:
                out.fill(0)
            elif out.size:
                self._run(plan, a, b, out, where)

    def _run(self, plan: _Plan, a: Any, b: Any, out: Any, where: int) -> None:
        def check(name: str, *args: Any) -> None:
            if status := getattr(self._library, name)(*args):
                raise RuntimeError(
                    f"{name}: {self._cp.cuda.cublas.CUBLASError(status)} for "
                    f"{_told(a)} and {_told(b)} into {_told(out)} on cuda:{where}"
                )

        with self._lock:  # stream and workspace belong to the handle
            handle = self._handle(where, check)
            check("cublasSetStream_v2", handle, self._cp.cuda.get_current_stream().ptr)
            if hasattr(self._library, "cublasSetWorkspace_v2"):  # an emulated one has none
                size = _workspace(self._cp.cuda.Device(where).compute_capability)
                workspace = self._cp.cuda.alloc(size)
                # after each SetStream, which takes the last workspace away
                check("cublasSetWorkspace_v2", handle, workspace.ptr, size)
            for starts in plan.starts:
                name, args = _call(plan, (a, b, out), starts)
                check(name, handle, *args)

    def _handle(self, where: int, check: Any) -> ctypes.c_void_p:
        if self._library is None:
            self._library = _load(self._cp)
        handle = self._handles.get(where)
        if handle is None:
            handle = _POINTER()
            check("cublasCreate_v2", ctypes.byref(handle))
            check("cublasSetMathMode", handle, _FULL_SUMS)
            self._handles[where] = handle
        return handle


def _load(cp: Any) -> Any:
    """The cuBLAS that CuPy has loaded, from a wheel or a toolkit: a loaded one has its bare name.

    Raises:
        ImportError: CuPy's own, if it finds none.
    """
    assert cp.cuda.cublas  # the attribute loads it
    major = cp.cuda.runtime.runtimeGetVersion() // 1000
    name = f"cublas64_{major}.dll" if os.name == "nt" else f"libcublas.so.{major}"
    library = ctypes.CDLL(name)
    for function, types in _SIGNATURES.items():
        if hasattr(library, function):
            getattr(library, function).argtypes = types
    return library


def _workspace(compute_capability: str) -> int:
    """The bytes that NVIDIA's manual recommends (cublasSetWorkspace): more from Hopper on."""
    return 32 << 20 if int(compute_capability) >= 90 else 4 << 20


def _told(x: Any) -> str:
    if x.flags.c_contiguous:
        return f"{x.dtype}{list(x.shape)}"
    return f"{x.dtype}{list(x.shape)} with strides {list(x.strides)}"


def _call(plan: _Plan, arrays: Any, starts: tuple[int, int, int]) -> tuple[str, list[Any]]:
    """The function of cuBLAS and its arguments after the handle.

    cuBLAS counts by columns, where an array by rows is its transpose: out.T = b.T @ a.T.
    """
    kind, (a, b, out) = plan.kind, arrays
    batch = plan.batch.length > 1

    def matrix(x: Any, start: int, leading: int, stride: int) -> list[int]:
        found = [x.data.ptr + start * x.itemsize, kind.type, leading]
        return [*found, stride] if batch else found

    arguments = [
        *(plan.b.transposed, plan.a.transposed, plan.n, plan.m, plan.k, kind.one.ctypes.data),
        *matrix(b, starts[1], plan.b.leading, plan.batch.b),
        *matrix(a, starts[0], plan.a.leading, plan.batch.a),
        kind.zero.ctypes.data,
        *matrix(out, starts[2], plan.n, plan.batch.out),
        *([plan.batch.length] if batch else []),
        *(kind.compute, _DEFAULT_ALGORITHM),
    ]
    return "cublasGemmStridedBatchedEx" if batch else "cublasGemmEx", arguments


def _plan(a: Any, b: Any, out: Any) -> _Plan | None:
    """How cuBLAS makes `out`; None where it cannot."""
    kind = _KINDS.get(out.dtype.name)
    if kind is None or not (a.dtype == b.dtype == out.dtype and a.ndim and b.ndim):
        return None
    if not a.data.device_id == b.data.device_id == out.data.device_id:
        return None
    if not out.flags.c_contiguous or any(s % x.itemsize for x in (a, b) for s in x.strides):
        return None
    # a vector is a row on the left and a column on the right; its other stride is not used
    shape_a, shape_b = (1,) * (a.ndim == 1) + a.shape, b.shape + (1,) * (b.ndim == 1)
    strides_a = [0] * (a.ndim == 1) + [s // a.itemsize for s in a.strides]
    strides_b = [s // b.itemsize for s in b.strides] + [0] * (b.ndim == 1)
    (m, k), n = shape_a[-2:], shape_b[-1]
    try:
        batch = np.broadcast_shapes(shape_a[:-2], shape_b[:-2])
    except ValueError:
        return None
    if k != shape_b[-2] or out.shape != (*batch, *(m,) * (a.ndim > 1), *(n,) * (b.ndim > 1)):
        return None
    if not (out.size and k):
        return _Plan(kind, m, n, k, _Layout(0, 0), _Layout(0, 0), _Axis(0, 0, 0, 0), [])
    if any(s < 0 for x in (a, b) for length, s in zip(x.shape, x.strides) if length > 1):
        return None

    def steps(shape: tuple[int, ...], strides: list[int]) -> list[int]:
        """The strides of the batch axes, 0 where the array is broadcast."""
        found = [s if length > 1 else 0 for length, s in zip(shape[:-2], strides)]
        return [0] * (len(batch) - len(found)) + found

    axes = _merged(batch, steps(shape_a, strides_a), steps(shape_b, strides_b), m * n)
    m, row, axes = _rows(m, k, strides_a, axes)
    layout_a, layout_b = _layout(m, k, row, strides_a[-1]), _layout(k, n, *strides_b[-2:])
    if layout_a is None or layout_b is None:
        return None
    inner = max(axes, key=lambda axis: axis.length, default=_Axis(1, 0, 0, 0))
    if max(m, n, k, inner.length, layout_a.leading, layout_b.leading) > _LARGEST:
        return None
    others = [axis for axis in axes if axis is not inner]
    starts = [
        tuple(sum(i * axis[x] for i, axis in zip(index, others)) for x in (1, 2, 3))
        for index in itertools.product(*(range(axis.length) for axis in others))
    ]
    return _Plan(kind, m, n, k, layout_a, layout_b, inner, starts)  # type: ignore[arg-type]


def _merged(
    lengths: tuple[int, ...], strides_a: list[int], strides_b: list[int], size: int
) -> list[_Axis]:
    """The batch axes, the innermost one first; two that are one for every array are made one."""
    axes: list[_Axis] = []
    for i, length in reversed(list(enumerate(lengths))):
        axis = _Axis(length, strides_a[i], strides_b[i], size * math.prod(lengths[i + 1 :]))
        if length == 1:
            continue
        if axes and all(axis[x] == axes[-1].length * axes[-1][x] for x in (1, 2, 3)):
            axes[-1] = axes[-1]._replace(length=axes[-1].length * length)
        else:
            axes.append(axis)
    return axes


def _rows(m: int, k: int, strides_a: list[int], axes: list[_Axis]) -> tuple[int, int, list[_Axis]]:
    """The rows of `a`, their stride and the batch axes left, where one `b` serves many matrices.

    Those are more rows of one matrix, if they lie as such: one product is faster than a batch.
    """
    row = strides_a[-2]
    if axes and axes[0].b == 0 and (m == 1 or axes[0].a == m * row):
        stride = axes[0].a if m == 1 else row
        if _layout(m * axes[0].length, k, stride, strides_a[-1]):
            return m * axes[0].length, stride, axes[1:]
    return m, row, axes


def _layout(rows: int, columns: int, row: int, column: int) -> _Layout | None:
    """A matrix of these strides, in elements; None if neither rows nor columns are contiguous."""
    if columns == 1 or column == 1:
        leading = row if rows > 1 else columns
        if leading >= columns:
            return _Layout(0, leading)
    if rows == 1 or row == 1:
        leading = column if columns > 1 else rows
        if leading >= rows:
            return _Layout(1, leading)
    return None
