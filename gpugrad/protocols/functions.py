"""NumPy's functions on Tensors: `Tensor.__array_function__`.

Each takes NumPy's arguments and calls the function of gpugrad that does the same. Where NumPy
reads a list or a number beside a Tensor, it goes to the Tensor's device.
"""

from __future__ import annotations

import builtins
import functools
import inspect
import itertools
import operator
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.lib.array_utils import normalize_axis_index, normalize_axis_tuple

from ..ops.creation import _copy
from ..ops.indexing import place
from ..rules import raw
from ..tensor import Tensor
from . import methods
from .methods import UNSET, as_arrays, write
from .ufuncs import rad2deg, unsupported

gg: Any = sys.modules["gpugrad"]
F = Callable[..., Any]


# ---- kinds of adaptors


def _with_out(name: str, function: F, index: int) -> F:
    """`function` with NumPy's `out`, argument number `index`, which it itself ignores."""

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        out = kwargs.pop("out", None)
        if len(args) > index:
            out, args = args[index], (*args[:index], None, *args[index + 1 :])
        result = function(*args, **kwargs)
        return result if out is None else write(name, out, result)

    return call


def _listed(arrays: Any, dtype: Any = None) -> list[Any]:
    """The arrays that NumPy joins, which a list may mix with numbers and lists of numbers."""
    found = as_arrays(*arrays)
    found = found if isinstance(found, list) else [found]
    return found if dtype is None else [gg.astype(x, dtype, copy=False) for x in found]


def _atleast(n: int, x: Any) -> Any:
    if x.ndim >= n:
        return x
    if n == 3:  # NumPy puts the axes of a vector in the middle, those of a matrix in front
        return gg.reshape(x, {0: (1, 1, 1), 1: (1, -1, 1), 2: (*x.shape, 1)}[x.ndim])
    return gg.reshape(x, (1,) * (n - x.ndim) + tuple(x.shape))


def _each_atleast(n: int) -> F:
    def atleast(*arys: Any) -> Any:
        found = tuple(_atleast(n, x) for x in _listed(arys))
        return found[0] if len(found) == 1 else found

    return atleast


# ---- joining and splitting


def _concatenate(
    arrays: Any, axis: Any = 0, out: Any = None, *, dtype: Any = None, casting: Any = "same_kind"
) -> Any:
    return gg.concat(_listed(arrays, dtype), axis=axis)


def _stack(
    arrays: Any, axis: int = 0, out: Any = None, *, dtype: Any = None, casting: Any = "same_kind"
) -> Any:
    return gg.stack(_listed(arrays, dtype), axis=axis)


def _vstack(tup: Any, *, dtype: Any = None, casting: Any = "same_kind") -> Any:
    return gg.concat([_atleast(2, x) for x in _listed(tup, dtype)], axis=0)


def _hstack(tup: Any, *, dtype: Any = None, casting: Any = "same_kind") -> Any:
    arrays = [_atleast(1, x) for x in _listed(tup, dtype)]
    return gg.concat(arrays, axis=0 if arrays[0].ndim == 1 else 1)


def _dstack(tup: Any) -> Any:
    return gg.concat([_atleast(3, x) for x in _listed(tup)], axis=2)


def _column_stack(tup: Any) -> Any:
    return gg.concat([_atleast(2, x).mT if x.ndim < 2 else x for x in _listed(tup)], axis=1)


def _block(arrays: Any) -> Any:
    def depth(x: Any) -> int:
        return 1 + builtins.max(map(depth, x)) if isinstance(x, list) else 0

    def leaves(x: Any) -> list[Any]:
        return [y for item in x for y in leaves(item)] if isinstance(x, list) else [x]

    levels = depth(arrays)
    found = _listed(leaves(arrays))
    ndim = builtins.max(levels, *(x.ndim for x in found), 0)
    items = iter(found)

    def joined(x: Any, level: int) -> Any:
        if not isinstance(x, list):
            return _atleast_front(ndim, next(items))
        return gg.concat([joined(item, level - 1) for item in x], axis=-level)

    return joined(arrays, levels)


def _atleast_front(n: int, x: Any) -> Any:
    return gg.reshape(x, (1,) * (n - x.ndim) + tuple(x.shape)) if x.ndim < n else x


def _append(arr: Any, values: Any, axis: Any = None) -> Any:
    return gg.concat(as_arrays(arr, values), axis=axis)


def _array_split(ary: Any, indices_or_sections: Any, axis: int = 0) -> list[Any]:
    axis = normalize_axis_index(axis, ary.ndim)
    n = ary.shape[axis]
    if hasattr(indices_or_sections, "__index__"):
        sections = operator.index(indices_or_sections)
        if sections <= 0:
            raise ValueError(f"array_split: {sections} sections")
        lengths = [n // sections + (i < n % sections) for i in range(sections)]
        stops = np.cumsum(lengths).tolist()[:-1]
    else:
        stops = list(map(operator.index, indices_or_sections))
    edges = [0, *stops, None]
    lead = (slice(None),) * axis
    return [ary[(*lead, slice(a, b))] for a, b in itertools.pairwise(edges)]


def _split(ary: Any, indices_or_sections: Any, axis: int = 0) -> list[Any]:
    if hasattr(indices_or_sections, "__index__") and ary.shape[axis] % indices_or_sections:
        raise ValueError(f"split: {ary.shape[axis]} is no multiple of {indices_or_sections}")
    return _array_split(ary, indices_or_sections, axis)


def _meshgrid(*xi: Any, copy: bool = True, sparse: bool = False, indexing: str = "xy") -> Any:
    if sparse:
        raise unsupported("numpy.meshgrid with sparse=True", "gpugrad.expand_dims")
    return tuple(gg.meshgrid(*[gg.reshape(x, -1) for x in _listed(xi)], indexing=indexing))


# ---- shapes


def _moveaxis(a: Any, source: Any, destination: Any) -> Any:
    source, destination = (tuple(x) if isinstance(x, list) else x for x in (source, destination))
    return gg.moveaxis(a, source, destination)


def _rollaxis(a: Any, axis: int, start: int = 0) -> Any:
    axis = normalize_axis_index(axis, a.ndim)
    start = start + a.ndim if start < 0 else start
    return gg.moveaxis(a, axis, start - (axis < start))


def _rot90(m: Any, k: int = 1, axes: tuple[int, int] = (0, 1)) -> Any:
    first, second = normalize_axis_tuple(axes, m.ndim)
    if k % 4 == 0:
        return +m
    if k % 4 == 2:
        return gg.flip(m, axis=(first, second))
    if k % 4 == 1:
        return methods.swapaxes(gg.flip(m, axis=second), first, second)
    return gg.flip(methods.swapaxes(m, first, second), axis=second)


def _tile(A: Any, reps: Any) -> Any:
    return gg.tile(A, (operator.index(reps),) if hasattr(reps, "__index__") else reps)


def _reshape(a: Any, /, shape: Any, order: str = "C", *, copy: Any = None) -> Any:
    return methods.reshape(a, shape, order=order, copy=copy)


def _like(name: str) -> F:
    def like(
        a: Any,
        dtype: Any = None,
        order: str = "K",
        subok: bool = True,
        shape: Any = None,
        *,
        device: Any = None,
    ) -> Any:
        if shape is None:
            return getattr(gg, f"{name}_like")(a, dtype=dtype, device=device)
        return getattr(gg, name)(shape, dtype=dtype or a.dtype, device=device or a.device)

    return like


def _empty_like(
    prototype: Any,
    /,
    dtype: Any = None,
    order: str = "K",
    subok: bool = True,
    shape: Any = None,
    *,
    device: Any = None,
) -> Any:
    return _like("empty")(prototype, dtype, order, subok, shape, device=device)


def _full_like(
    a: Any,
    fill_value: Any,
    dtype: Any = None,
    order: str = "K",
    subok: bool = True,
    shape: Any = None,
    *,
    device: Any = None,
) -> Any:
    base = _like("zeros")(a, dtype, order, subok, shape, device=device)
    if isinstance(fill_value, (list, tuple)):
        fill_value = as_arrays(fill_value, base)[0]
    if hasattr(fill_value, "dtype"):
        fill_value = gg.astype(fill_value, base.dtype, copy=False)
        return _copy(gg.broadcast_to(as_arrays(fill_value, base)[0], base.shape))
    return gg.full_like(base, fill_value)


def _linspace(
    start: Any,
    stop: Any,
    num: int = 50,
    endpoint: bool = True,
    retstep: bool = False,
    dtype: Any = None,
    axis: int = 0,
    *,
    device: Any = None,
) -> Any:
    if retstep or axis != 0 or builtins.any(getattr(x, "ndim", 0) for x in (start, stop)):
        raise unsupported("numpy.linspace of arrays, or with retstep= or axis=", "gpugrad.linspace")
    return gg.linspace(start, stop, num, dtype=dtype, device=device, endpoint=endpoint)


# ---- elements


def _where(condition: Any, x: Any = UNSET, y: Any = UNSET, /) -> Any:
    if x is UNSET and y is UNSET:
        return gg.nonzero(condition)
    like = [v for v in (condition, x, y) if isinstance(v, Tensor)]
    condition, x, y = (
        as_arrays(v, *like)[0] if isinstance(v, (list, tuple)) else v for v in (condition, x, y)
    )
    if isinstance(condition, (bool, np.bool_)) or condition.dtype.kind != "b":
        condition = as_arrays(condition, *like)[0] != 0
    return gg.where(condition, x, y)


def _select(condlist: Any, choicelist: Any, default: Any = 0) -> Any:
    out = default
    for condition, choice in zip(condlist[::-1], choicelist[::-1], strict=True):
        out = _where(condition, choice, out)
    return out


def _extract(condition: Any, arr: Any) -> Any:
    condition, arr = as_arrays(condition, arr)
    return gg.reshape(arr, -1)[gg.reshape(condition != 0, -1)]


def _compress(condition: Any, a: Any, axis: int | None = None, out: Any = None) -> Any:
    condition, a = as_arrays(condition, a)
    if axis is None:
        a, axis = gg.reshape(a, -1), 0
    axis = normalize_axis_index(axis, a.ndim)
    picked = gg.nonzero(condition != 0)[0]
    return a[(*(slice(None),) * axis, picked)]


def _nan_to_num(
    x: Any, copy: bool = True, nan: Any = 0.0, posinf: Any = None, neginf: Any = None
) -> Any:
    if not copy:
        return write("nan_to_num", x, _nan_to_num(x, True, nan, posinf, neginf))
    if x.dtype.kind not in "fc":
        return +x
    if x.dtype.kind == "c":
        return _nan_to_num(x.real, True, nan, posinf, neginf) + 1j * _nan_to_num(
            x.imag, True, nan, posinf, neginf
        )
    limits = gg.finfo(x.dtype)
    high = float(limits.max) if posinf is None else posinf
    low = float(limits.min) if neginf is None else neginf
    x = gg.where(gg.isnan(x), nan, x)
    return gg.where(x == gg.inf, high, gg.where(x == -gg.inf, low, x))


def _angle(z: Any, deg: bool = False) -> Any:
    out = gg.atan2(_imag(z), _real(z))
    return rad2deg(out) if deg else out


def _real(val: Any) -> Any:
    return gg.real(val) if val.dtype.kind == "c" else val


def _imag(val: Any) -> Any:
    return gg.imag(val) if val.dtype.kind == "c" else gg.zeros_like(val)


def _polyval(p: Any, x: Any) -> Any:
    p, x = as_arrays(p, x)
    out = gg.zeros_like(x)
    for i in range(p.shape[0]):
        out = out * x + p[i]
    return out


def _isclose(
    a: Any, b: Any, rtol: float = 1e-05, atol: float = 1e-08, equal_nan: bool = False
) -> Any:
    a, b = (x.detach() if isinstance(x, Tensor) else x for x in as_arrays(a, b))
    finite = gg.isfinite(a) & gg.isfinite(b)
    with np.errstate(invalid="ignore"):
        close = (abs(a - b) <= atol + rtol * abs(b)) & finite
    close = close | (a == b)
    return close | (gg.isnan(a) & gg.isnan(b)) if equal_nan else close


def _allclose(
    a: Any, b: Any, rtol: float = 1e-05, atol: float = 1e-08, equal_nan: bool = False
) -> bool:
    return bool(gg.all(_isclose(a, b, rtol, atol, equal_nan)))


def _array_equal(a1: Any, a2: Any, equal_nan: bool = False) -> bool:
    a1, a2 = as_arrays(a1, a2)
    if a1.shape != a2.shape:
        return False
    same = a1 == a2
    return bool(gg.all(same | ((a1 != a1) & (a2 != a2)) if equal_nan else same))


def _array_equiv(a1: Any, a2: Any) -> bool:
    a1, a2 = as_arrays(a1, a2)
    try:
        np.broadcast_shapes(a1.shape, a2.shape)
    except ValueError:
        return False
    return bool(gg.all(a1 == a2))


# ---- statistics


def _average(
    a: Any, axis: Any = None, weights: Any = None, returned: bool = False, *, keepdims: Any = False
) -> Any:
    a, weights = (as_arrays(a), None) if weights is None else as_arrays(a, weights)
    out = gg.average(a, axis, weights, keepdims=keepdims)
    if not returned:
        return out
    if weights is None:
        return out, gg.full_like(out, a.size / builtins.max(out.size, 1))
    total = gg.sum(weights, axis if weights.shape == a.shape else None, keepdims=keepdims)
    return out, gg.broadcast_to(total, out.shape)


def _ptp(a: Any, axis: Any = None, out: Any = None, keepdims: Any = False) -> Any:
    return gg.ptp(a, axis, keepdims=keepdims)


def _without_nan(reduce: F, fill: Any) -> F:
    """`reduce`, with `fill` in place of NaN."""

    @functools.wraps(reduce)
    def nan_reduce(a: Any, *args: Any, **kwargs: Any) -> Any:
        return reduce(gg.where(gg.isnan(a), fill, a), *args, **kwargs)

    return nan_reduce


def _nan_extremum(name: str, empty: float) -> F:
    def nan_extremum(
        a: Any,
        axis: Any = None,
        out: Any = None,
        keepdims: Any = False,
        initial: Any = UNSET,
        where: Any = True,
    ) -> Any:
        if a.dtype.kind not in "fc":
            return getattr(methods, name)(a, axis, None, keepdims, initial, where)
        gone = gg.isnan(a)
        best = getattr(methods, name)(
            gg.where(gone, empty, a), axis, None, keepdims, initial, where
        )
        return gg.where(gg.all(gone, axis, keepdims=keepdims), gg.nan, best)

    return nan_extremum


def _nanmean(
    a: Any,
    axis: Any = None,
    dtype: Any = None,
    out: Any = None,
    keepdims: Any = False,
    *,
    where: Any = True,
) -> Any:
    keep = ~gg.isnan(a) if where is True else ~gg.isnan(a) & as_arrays(where, a)[0]
    return methods.mean(a, axis, dtype, None, keepdims, where=keep)


def _nanvar(
    a: Any,
    axis: Any = None,
    dtype: Any = None,
    out: Any = None,
    ddof: Any = 0,
    keepdims: Any = False,
    *,
    where: Any = True,
    mean: Any = UNSET,
    correction: Any = UNSET,
) -> Any:
    if mean is not UNSET:
        raise unsupported("numpy.nanvar with mean=", "gpugrad.var")
    ddof = ddof if correction is UNSET else correction
    a = a if dtype is None else gg.astype(a, dtype, copy=False)
    kept = ~gg.isnan(a) if where is True else ~gg.isnan(a) & as_arrays(where, a)[0]
    count = gg.astype(gg.sum(kept, axis, keepdims=keepdims), a.real.dtype)
    deviation = gg.where(kept, a - _nanmean(a, axis, keepdims=True, where=where), 0)
    total = gg.sum((deviation * gg.conj(deviation)).real, axis, keepdims=keepdims)
    return total / gg.where(count > ddof, count - ddof, gg.nan)


@functools.wraps(_nanvar)
def _nanstd(a: Any, *args: Any, **kwargs: Any) -> Any:
    return gg.sqrt(_nanvar(a, *args, **kwargs))


def _nan_arg(name: str, fill: float) -> F:
    def nan_arg(a: Any, axis: Any = None, out: Any = None, *, keepdims: Any = False) -> Any:
        filled = gg.where(gg.isnan(a), fill, a)
        return getattr(gg, name)(filled, axis, keepdims=keepdims)

    return nan_arg


def _median(
    a: Any, axis: Any = None, out: Any = None, overwrite_input: bool = False, keepdims: Any = False
) -> Any:
    return gg.median(a, axis=axis, keepdims=keepdims)


def _quantile(name: str) -> F:
    def quantile(
        a: Any,
        q: Any,
        axis: Any = None,
        out: Any = None,
        overwrite_input: bool = False,
        method: str = "linear",
        keepdims: Any = False,
        *,
        weights: Any = None,
    ) -> Any:
        if weights is not None:
            raise unsupported(f"numpy.{name} with weights=", f"gpugrad.{name}")
        function, q = getattr(gg, name), np.asarray(q)
        return function(as_arrays(a), q, axis=axis, method=method, keepdims=keepdims)

    return quantile


def _cov(
    m: Any,
    y: Any = None,
    rowvar: bool = True,
    bias: bool = False,
    ddof: Any = None,
    fweights: Any = None,
    aweights: Any = None,
    *,
    dtype: Any = None,
) -> Any:
    if fweights is not None or aweights is not None:
        raise unsupported("numpy.cov with weights", "gpugrad.matmul")
    return gg.cov(*_observations(m, y, dtype), rowvar, bias, ddof)


def _corrcoef(x: Any, y: Any = None, rowvar: bool = True, *, dtype: Any = None) -> Any:
    return gg.corrcoef(*_observations(x, y, dtype), rowvar)


def _observations(m: Any, y: Any, dtype: Any) -> tuple[Any, Any]:
    """`m` and `y` in float64 where no dtype is given, as NumPy has it."""
    arrays = [as_arrays(m)] if y is None else _listed([m, y])
    wide = dtype or gg.result_type(*arrays, np.dtype(np.float64))
    m, y = (*(gg.astype(x, wide, copy=False) for x in arrays), None)[:2]
    return m, y


# ---- differences and products


def _diff(a: Any, n: int = 1, axis: int = -1, prepend: Any = UNSET, append: Any = UNSET) -> Any:
    ends = {}
    for name, x in (("prepend", prepend), ("append", append)):
        if x is not UNSET and x is not None:
            x = as_arrays(x, a)[0]
            if x.ndim == 0:
                i = normalize_axis_index(axis, a.ndim)
                x = gg.broadcast_to(x, (*a.shape[:i], 1, *a.shape[i + 1 :]))
            ends[name] = x
    return gg.diff(as_arrays(a), axis=axis, n=n, **ends)


def _ediff1d(ary: Any, to_end: Any = None, to_begin: Any = None) -> Any:
    inner = gg.diff(gg.reshape(ary, -1))
    ends = [None if x is None else gg.reshape(as_arrays(x, ary)[0], -1) for x in (to_begin, to_end)]
    return gg.concat([x for x in (ends[0], inner, ends[1]) if x is not None])


def _gradient(f: Any, *varargs: Any, axis: Any = None, edge_order: int = 1) -> Any:
    """Central differences at even spacing, one-sided of order `edge_order` at the ends."""
    axes = normalize_axis_tuple(range(f.ndim) if axis is None else axis, f.ndim)
    steps = varargs * len(axes) if len(varargs) == 1 else varargs or (1.0,) * len(axes)
    if len(steps) != len(axes) or builtins.any(np.ndim(raw(h)) for h in steps):
        raise unsupported("numpy.gradient at positions", "gpugrad.diff")
    out = []
    for i, h in zip(axes, steps):
        x = gg.moveaxis(f, i, 0)
        if x.shape[0] <= edge_order:
            raise ValueError(f"gradient: {x.shape[0]} elements along axis {i} are too few")
        if edge_order == 1:
            first, last = x[1:2] - x[:1], x[-1:] - x[-2:-1]
        else:
            first = -1.5 * x[:1] + 2.0 * x[1:2] - 0.5 * x[2:3]
            last = 1.5 * x[-1:] - 2.0 * x[-2:-1] + 0.5 * x[-3:-2]
        inner = (x[2:] - x[:-2]) / 2.0
        out.append(gg.moveaxis(gg.concat([first, inner, last]) / h, 0, i))
    return out[0] if len(out) == 1 else tuple(out)


def _trapezoid(y: Any, x: Any = None, dx: Any = 1.0, axis: int = -1) -> Any:
    if x is not None:
        y, x = as_arrays(y, x)
    return gg.trapezoid(as_arrays(y), x, dx=dx, axis=axis)


def _vdot(a: Any, b: Any, /) -> Any:
    return gg.vdot(*as_arrays(a, b))


def _inner(a: Any, b: Any, /) -> Any:
    return gg.inner(*as_arrays(a, b))


def _outer(a: Any, b: Any, out: Any = None) -> Any:
    return gg.outer(*as_arrays(a, b))


def _tensordot(a: Any, b: Any, axes: Any = 2) -> Any:
    if not isinstance(axes, int):
        axes = tuple((x,) if hasattr(x, "__index__") else tuple(x) for x in axes)
    return gg.tensordot(*as_arrays(a, b), axes=axes)


def _einsum(
    *operands: Any,
    out: Any = None,
    optimize: Any = False,
    dtype: Any = None,
    order: Any = "K",
    casting: Any = "safe",
) -> Any:
    if not isinstance(operands[0], str):
        raise TypeError("numpy.einsum: on Tensors the subscripts are a string, as gpugrad.einsum")
    subscripts, *arrays = operands
    result = gg.einsum(subscripts, *_listed(arrays, dtype))
    return result if out is None else write("einsum", out, result)


def _diag(v: Any, k: int = 0) -> Any:
    if v.ndim == 2:
        return gg.linalg.diagonal(v, offset=k)
    if v.ndim != 1:
        raise ValueError(f"diag: one or two axes are needed, the shape is {v.shape}")
    rows, columns = (range(i, i + v.size) for i in (builtins.max(-k, 0), builtins.max(k, 0)))
    n = v.size + builtins.abs(k)
    return place(v, key=(rows, columns), to=(n, n))


def _diagflat(v: Any, k: int = 0) -> Any:
    return _diag(gg.reshape(v, -1), k)


def _svd(
    a: Any, full_matrices: bool = True, compute_uv: bool = True, hermitian: bool = False
) -> Any:
    if hermitian:
        raise unsupported("numpy.linalg.svd with hermitian=True", "gpugrad.linalg.eigh")
    if not compute_uv:
        return gg.linalg.svdvals(a)
    return gg.linalg.svd(a, full_matrices=full_matrices)


def _of_symmetric(name: str) -> F:
    def symmetric(a: Any, UPLO: str = "L") -> Any:
        if UPLO.upper() == "U":
            a = gg.conj(a.mT)  # the upper triangle of a is the lower one of this
        return getattr(gg.linalg, name)(a)

    return symmetric


def _pinv(a: Any, rcond: Any = None, hermitian: bool = False, *, rtol: Any = UNSET) -> Any:
    rtol = rcond if rtol is UNSET else rtol
    return gg.linalg.pinv(a, rtol=rtol)


def _matrix_rank(A: Any, tol: Any = None, hermitian: bool = False, *, rtol: Any = None) -> Any:
    if tol is not None:
        raise unsupported("numpy.linalg.matrix_rank with tol=", "gpugrad.linalg.matrix_rank(rtol=)")
    return gg.linalg.matrix_rank(A, rtol=rtol)


def _multi_dot(arrays: Any, *, out: Any = None) -> Any:
    return gg.linalg.multi_dot(_listed(arrays))


def _cross(
    a: Any, b: Any, axisa: int = -1, axisb: int = -1, axisc: int = -1, axis: Any = None
) -> Any:
    return gg.cross(*as_arrays(a, b), axisa, axisb, axisc, axis)


def _fft(name: str) -> F:
    def transform(a: Any, n: Any = None, axis: int = -1, norm: Any = None, out: Any = None) -> Any:
        return getattr(gg.fft, name)(a, n=n, axis=axis, norm=norm or "backward")

    return transform


def _fftn(name: str, axes: Any) -> F:
    def transform(
        a: Any, s: Any = None, axes: Any = axes, norm: Any = None, out: Any = None
    ) -> Any:
        return getattr(gg.fft, name)(a, s=s, axes=axes, norm=norm or "backward")

    return transform


# ---- sorting and searching


def _sort(
    a: Any, axis: Any = -1, kind: Any = None, order: Any = None, *, stable: Any = None
) -> Any:
    return gg.sort(gg.reshape(a, -1) if axis is None else a, axis=-1 if axis is None else axis)


def _digitize(x: Any, bins: Any, right: bool = False) -> Any:
    return methods.searchsorted(bins, x, "left" if right else "right")


def _unique(
    ar: Any,
    return_index: bool = False,
    return_inverse: bool = False,
    return_counts: bool = False,
    axis: Any = None,
    *,
    equal_nan: bool = True,
    sorted: bool = True,
) -> Any:
    if axis is not None or not equal_nan:
        raise unsupported("numpy.unique with axis= or equal_nan=False", "gpugrad.unique_values")
    if not (return_index or return_inverse or return_counts):
        return gg.unique_values(ar)
    values, *more = gg.unique_all(ar)
    wanted = zip((return_index, return_inverse, return_counts), more, strict=True)
    return (values, *(x for asked, x in wanted if asked))


def _isin(
    element: Any,
    test_elements: Any,
    assume_unique: bool = False,
    invert: bool = False,
    *,
    kind: Any = None,
) -> Any:
    element, test_elements = as_arrays(element, test_elements)
    return gg.isin(element, test_elements, invert=invert)


def _count_nonzero(a: Any, axis: Any = None, *, keepdims: Any = False) -> Any:
    return gg.count_nonzero(a, axis, keepdims=keepdims)


def _argwhere(a: Any) -> Any:
    return gg.stack(list(gg.nonzero(a)), axis=-1)


# ---- numerical helpers


def _pad(array: Any, pad_width: Any, mode: Any = "constant", **kwargs: Any) -> Any:
    return gg.pad(array, pad_width, mode=mode, **kwargs)


def _interp(
    x: Any, xp: Any, fp: Any, left: Any = None, right: Any = None, period: Any = None
) -> Any:
    return gg.interp(*as_arrays(x, xp, fp), left, right, period)


def _convolve(a: Any, v: Any, mode: str = "full") -> Any:
    return gg.convolve(*as_arrays(a, v), mode=mode)


def _correlate(a: Any, v: Any, mode: str = "valid") -> Any:
    return gg.correlate(*as_arrays(a, v), mode=mode)


# ---- inspection, text, copies


def _can_cast(from_: Any, to: Any, casting: Any = "safe") -> bool:
    given: Any = getattr(from_, "dtype", from_)
    return np.can_cast(given, to, casting)


def _size(a: Any, axis: Any = None) -> int:
    if axis is None:
        return a.size
    axes = normalize_axis_tuple(axis, a.ndim)
    return int(np.prod([a.shape[i] for i in axes], dtype=np.int64))


def _share(compare: F) -> F:
    def share(a: Any, b: Any, /, max_work: Any = None) -> bool:
        if builtins.any(type(raw(x)) is not np.ndarray for x in (a, b)):
            raise TypeError(f"numpy.{compare.__name__}: for tensors on the CPU")
        return compare(raw(a), raw(b), max_work=max_work)

    return share


def _text(of_array: F) -> F:
    @functools.wraps(of_array)
    def text(a: Any, *args: Any, **kwargs: Any) -> str:
        return of_array(a._to_host(), *args, **kwargs)

    return text


def _copyto(dst: Any, src: Any, casting: Any = "same_kind", where: Any = True) -> None:
    like = next(x for x in (dst, src, where) if isinstance(x, Tensor))
    src = as_arrays(src, like)[0]
    if not np.can_cast(src.dtype, dst.dtype, casting):
        raise TypeError(f"copyto: {src.dtype} to {dst.dtype} is no {casting!r} cast")
    src = gg.astype(src, dst.dtype, copy=False)
    write("copyto", dst, src, where)


def _copied(a: Any, order: str = "K", subok: bool = False) -> Any:
    return _copy(a)


# ---- the table

_FUNCTIONS: dict[str, F] = {
    # reductions: NumPy's functions have the signatures of its methods
    "all": methods.all,
    "amax": methods.max,
    "amin": methods.min,
    "any": methods.any,
    "argmax": methods.argmax,
    "argmin": methods.argmin,
    "average": _average,
    "corrcoef": _corrcoef,
    "count_nonzero": _count_nonzero,
    "cov": _cov,
    "cumprod": methods.cumprod,
    "cumsum": methods.cumsum,
    "cumulative_prod": lambda x, /, *, axis=None, dtype=None, out=None, include_initial=False: (
        gg.cumulative_prod(x, axis=axis, dtype=dtype, include_initial=include_initial)
    ),
    "cumulative_sum": lambda x, /, *, axis=None, dtype=None, out=None, include_initial=False: (
        gg.cumulative_sum(x, axis=axis, dtype=dtype, include_initial=include_initial)
    ),
    "max": methods.max,
    "mean": methods.mean,
    "median": _median,
    "min": methods.min,
    "nanargmax": _nan_arg("argmax", -np.inf),
    "nanargmin": _nan_arg("argmin", np.inf),
    "nancumprod": _without_nan(methods.cumprod, 1),
    "nancumsum": _without_nan(methods.cumsum, 0),
    "nanmax": _nan_extremum("max", -np.inf),
    "nanmean": _nanmean,
    "nanmin": _nan_extremum("min", np.inf),
    "nanprod": _without_nan(methods.prod, 1),
    "nanstd": _nanstd,
    "nansum": _without_nan(methods.sum, 0),
    "nanvar": _nanvar,
    "percentile": _quantile("percentile"),
    "prod": methods.prod,
    "ptp": _ptp,
    "quantile": _quantile("quantile"),
    "std": methods.std,
    "sum": methods.sum,
    "var": methods.var,
    # joining and splitting
    "append": _append,
    "array_split": _array_split,
    "block": _block,
    "column_stack": _column_stack,
    "concatenate": _concatenate,
    "dsplit": lambda ary, indices_or_sections: _split(ary, indices_or_sections, 2),
    "dstack": _dstack,
    "hsplit": lambda ary, indices_or_sections: _split(
        ary, indices_or_sections, 0 if ary.ndim == 1 else 1
    ),
    "hstack": _hstack,
    "meshgrid": _meshgrid,
    "split": _split,
    "stack": _stack,
    "unstack": lambda x, /, *, axis=0: gg.unstack(x, axis=axis),
    "vsplit": lambda ary, indices_or_sections: _split(ary, indices_or_sections, 0),
    "vstack": _vstack,
    # shapes
    "atleast_1d": _each_atleast(1),
    "atleast_2d": _each_atleast(2),
    "atleast_3d": _each_atleast(3),
    "broadcast_arrays": lambda *args, subok=False: tuple(gg.broadcast_arrays(*_listed(args))),
    "broadcast_to": lambda array, shape, subok=False: gg.broadcast_to(array, shape),
    "expand_dims": lambda a, axis: gg.expand_dims(
        a, tuple(axis) if isinstance(axis, list) else axis
    ),
    "flip": lambda m, axis=None: gg.flip(m, axis=axis),
    "fliplr": lambda m: gg.flip(m, axis=1),
    "flipud": lambda m: gg.flip(m, axis=0),
    "matrix_transpose": lambda x, /: gg.matrix_transpose(x),
    "moveaxis": _moveaxis,
    "ravel": methods.ravel,
    "repeat": methods.repeat,
    "reshape": _reshape,
    "roll": lambda a, shift, axis=None: gg.roll(a, shift, axis=axis),
    "rollaxis": _rollaxis,
    "rot90": _rot90,
    "squeeze": methods.squeeze,
    "swapaxes": methods.swapaxes,
    "tile": _tile,
    "transpose": lambda a, axes=None: methods.transpose(a, axes),
    # elements
    "angle": _angle,
    "around": methods.round,
    "astype": lambda x, dtype, /, *, copy=True, device=None: gg.astype(
        x, dtype, copy=copy, device=device
    ),
    "clip": methods.clip,
    "compress": _compress,
    "copy": _copied,
    "copyto": _copyto,
    "diag": _diag,
    "diagflat": _diagflat,
    "diagonal": methods.diagonal,
    "extract": _extract,
    "fix": lambda x, out=None: gg.trunc(x),
    "i0": lambda x: gg.special.i0(x),
    "imag": _imag,
    "nan_to_num": _nan_to_num,
    "polyval": _polyval,
    "real": _real,
    "round": methods.round,
    "select": _select,
    "sinc": lambda x: gg.special.sinc(x),
    "take": methods.take,
    "take_along_axis": lambda arr, indices, axis=-1: gg.take_along_axis(
        arr, as_arrays(indices, arr)[0], axis=axis
    ),
    "trace": methods.trace,
    "tril": lambda m, k=0: gg.tril(m, k=k),
    "triu": lambda m, k=0: gg.triu(m, k=k),
    "where": _where,
    # products
    "cross": _cross,
    "dot": methods.dot,
    "einsum": _einsum,
    "inner": _inner,
    "kron": lambda a, b: gg.kron(*as_arrays(a, b)),
    "outer": _outer,
    "tensordot": _tensordot,
    "vdot": _vdot,
    # numerical helpers
    "convolve": _convolve,
    "correlate": _correlate,
    "diff": _diff,
    "ediff1d": _ediff1d,
    "gradient": _gradient,
    "interp": _interp,
    "pad": _pad,
    "trapezoid": _trapezoid,
    # sorting and searching
    "argsort": methods.argsort,
    "argwhere": _argwhere,
    "bincount": lambda x, /, weights=None, minlength=0: gg.bincount(
        x, weights=weights, minlength=minlength
    ),
    "digitize": _digitize,
    "flatnonzero": lambda a: gg.nonzero(gg.reshape(a, -1))[0],
    "isin": _isin,
    "nonzero": methods.nonzero,
    "searchsorted": methods.searchsorted,
    "sort": _sort,
    "unique": _unique,
    "unique_all": lambda x: gg.unique_all(x),
    "unique_counts": lambda x: gg.unique_counts(x),
    "unique_inverse": lambda x: gg.unique_inverse(x),
    "unique_values": lambda x: gg.unique_values(x),
    # new arrays
    "empty_like": _empty_like,
    "full_like": _full_like,
    "linspace": _linspace,
    "ones_like": _like("ones"),
    "zeros_like": _like("zeros"),
    # inspection and comparison
    "allclose": _allclose,
    "array2string": _text(np.array2string),
    "array_equal": _array_equal,
    "array_equiv": _array_equiv,
    "array_repr": lambda arr, max_line_width=None, precision=None, suppress_small=None: repr(arr),
    "array_str": _text(np.array_str),
    "can_cast": _can_cast,
    "isclose": _isclose,
    "iscomplex": lambda x: _imag(x) != 0,
    "iscomplexobj": lambda x: x.dtype.kind == "c",
    "isneginf": lambda x, out=None: x == -np.inf,
    "isposinf": lambda x, out=None: x == np.inf,
    "isreal": lambda x: _imag(x) == 0,
    "isrealobj": lambda x: x.dtype.kind != "c",
    "may_share_memory": _share(np.may_share_memory),
    "ndim": lambda a: a.ndim,
    "result_type": lambda *arrays_and_dtypes: np.result_type(
        *(x.dtype if isinstance(x, Tensor) else x for x in arrays_and_dtypes)
    ),
    "shape": lambda a: a.shape,
    "shares_memory": _share(np.shares_memory),
    "size": _size,
    # numpy.linalg
    "linalg.cholesky": lambda a, /, *, upper=False: gg.linalg.cholesky(a, upper=upper),
    "linalg.cross": lambda x1, x2, /, *, axis=-1: gg.linalg.cross(*as_arrays(x1, x2), axis=axis),
    "linalg.det": lambda a: gg.linalg.det(a),
    "linalg.diagonal": lambda x, /, *, offset=0: gg.linalg.diagonal(x, offset=offset),
    "linalg.eig": lambda a: gg.linalg.eig(a),
    "linalg.eigh": _of_symmetric("eigh"),
    "linalg.eigvals": lambda a: gg.linalg.eigvals(a),
    "linalg.eigvalsh": _of_symmetric("eigvalsh"),
    "linalg.inv": lambda a: gg.linalg.inv(a),
    "linalg.matmul": lambda x1, x2, /: gg.matmul(*as_arrays(x1, x2)),
    "linalg.matrix_norm": lambda x, /, *, keepdims=False, ord="fro": gg.linalg.matrix_norm(
        x, keepdims=keepdims, ord=ord
    ),
    "linalg.matrix_power": lambda a, n: gg.linalg.matrix_power(a, n),
    "linalg.matrix_rank": _matrix_rank,
    "linalg.matrix_transpose": lambda x, /: gg.matrix_transpose(x),
    "linalg.multi_dot": _multi_dot,
    "linalg.lstsq": lambda a, b, rcond=None: gg.linalg.lstsq(*as_arrays(a, b), rcond),
    "linalg.norm": lambda x, ord=None, axis=None, keepdims=False: gg.linalg.norm(
        x, ord, axis, keepdims
    ),
    "linalg.outer": lambda x1, x2, /: gg.linalg.outer(*as_arrays(x1, x2)),
    "linalg.pinv": _pinv,
    "linalg.qr": lambda a, mode="reduced": gg.linalg.qr(a, mode=mode),
    "linalg.slogdet": lambda a: gg.linalg.slogdet(a),
    "linalg.solve": lambda a, b: gg.linalg.solve(*as_arrays(a, b)),
    "linalg.svd": _svd,
    "linalg.svdvals": lambda x, /: gg.linalg.svdvals(x),
    "linalg.tensordot": lambda x1, x2, /, *, axes=2: _tensordot(x1, x2, axes),
    "linalg.trace": lambda x, /, *, offset=0, dtype=None: gg.linalg.trace(
        x, offset=offset, dtype=dtype
    ),
    "linalg.vecdot": lambda x1, x2, /, *, axis=-1: gg.vecdot(*as_arrays(x1, x2), axis=axis),
    "linalg.vector_norm": lambda x, /, *, axis=None, keepdims=False, ord=2: gg.linalg.vector_norm(
        x, axis=axis, keepdims=keepdims, ord=ord
    ),
    # numpy.fft
    **{f"fft.{name}": _fft(name) for name in "fft ifft rfft irfft hfft ihfft".split()},
    **{f"fft.{name}": _fftn(name, None) for name in "fftn ifftn rfftn irfftn".split()},
    **{f"fft.{name}2": _fftn(f"{name}n", (-2, -1)) for name in "fft ifft rfft irfft".split()},
    "fft.fftshift": lambda x, axes=None: gg.fft.fftshift(x, axes=axes),
    "fft.ifftshift": lambda x, axes=None: gg.fft.ifftshift(x, axes=axes),
}

# what to use where the table has nothing, and the names do not tell
_INSTEAD = {
    "apply_along_axis": "gpugrad.unstack and gpugrad.stack",
    "argpartition": "gpugrad.argsort",
    "choose": "gpugrad.where",
    "delete": "indexing",
    "fill_diagonal": "gpugrad.where",
    "insert": "gpugrad.concat",
    "linalg.cond": "gpugrad.linalg.svdvals",
    "partition": "gpugrad.sort",
    "piecewise": "gpugrad.where",
    "place": "gpugrad.where",
    "put": "gpugrad.where",
    "put_along_axis": "gpugrad.where",
    "putmask": "gpugrad.where",
    "trim_zeros": "indexing",
}


@functools.cache
def _names() -> dict[Any, str]:
    """NumPy's functions -> their names in the table, without those an older NumPy lacks."""
    homes = {"": np, "fft": np.fft, "linalg": np.linalg}
    pairs = [(homes[n.rpartition(".")[0]], n) for n in _FUNCTIONS]
    return {getattr(home, n.rpartition(".")[2], None): n for home, n in pairs}


def find(func: Any) -> F:
    """The adaptor of one of NumPy's functions.

    Raises:
        TypeError: if there is none, naming the function of gpugrad that is close.
    """
    name = _names().get(func)
    if name is None:
        name = f"{func.__module__}.{func.__name__}".removeprefix("numpy.")
        raise unsupported(f"numpy.{name}", _INSTEAD.get(name, ""))
    function = _FUNCTIONS[name]
    parameters = list(inspect.signature(function).parameters)
    if "out" in parameters and function.__module__ != methods.__name__ and function is not _einsum:
        return _with_out(name, function, parameters.index("out"))
    return function
