"""The methods of `numpy.ndarray`, with NumPy's signatures.

`numpy.sum(t)` and its like run them too, and so do functions of CuPy: its `sum(a)` calls
`a.sum(axis, dtype, out, keepdims)`. An `out=` that would lose a gradient raises.
"""

from __future__ import annotations

import builtins
import operator
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from .. import backends
from ..ops import elementwise, reductions
from ..ops.creation import _copy
from ..ops.manipulation import as_shape
from ..rules import raw
from ..tape import recording
from ..tensor import Tensor

__all__ = [
    "__contains__",
    "__divmod__",
    "__format__",
    "__rdivmod__",
    "__round__",
    "all",
    "any",
    "argmax",
    "argmin",
    "argsort",
    "astype",
    "clip",
    "conj",
    "conjugate",
    "copy",
    "cumprod",
    "cumsum",
    "diagonal",
    "dot",
    "fill",
    "flatten",
    "itemsize",
    "max",
    "mean",
    "min",
    "nbytes",
    "nonzero",
    "prod",
    "ravel",
    "repeat",
    "reshape",
    "round",
    "searchsorted",
    "sort",
    "squeeze",
    "std",
    "sum",
    "swapaxes",
    "take",
    "tolist",
    "trace",
    "transpose",
    "var",
]

gg: Any = sys.modules["gpugrad"]  # asked at each call: it is being imported
UNSET: Any = np._NoValue  # NumPy's own mark of an option not given


# ---- what all these calls share


def on_tape(*values: Any) -> bool:
    """Whether an operation on `values` would be recorded."""
    return recording() and builtins.any(
        isinstance(x, Tensor) and x.node is not None for x in values
    )


def write(name: str, out: Any, result: Any, where: Any = True) -> Any:
    """Write `result` into `out` where `where` holds, and return `out`.

    Into a Tensor it is written as by `out[...] = result`, which the tape records.

    Raises:
        RuntimeError: if `out` is a raw array and `result` on the tape, or as `out[...] = result`.
        TypeError: if the kind of the dtype, or the device, is another one.
    """
    if not isinstance(out, Tensor) and on_tape(result):
        raise RuntimeError(
            f"{name}: writing into an array would lose the gradient; give a Tensor as out=, or "
            "none, or .detach() the operands, or call it inside gpugrad.no_grad()"
        )
    target = out if isinstance(out, Tensor) else Tensor(out, None)
    if where is not True:
        result = gg.where(as_arrays(where, target)[0], result, target)
    target[...] = result
    return out


def as_arrays(*values: Any) -> Any:
    """Lists and numbers beside a Tensor as Tensors, on its device; arrays as they are."""
    device = next((x.device for x in values if isinstance(x, Tensor)), None)
    found = [
        x
        if isinstance(x, Tensor) or backends.find_backend(type(x)) is not None
        else gg.asarray(x, device=device)
        for x in values
    ]
    return found[0] if len(found) == 1 else found


def _given(name: str, out: Any, result: Any) -> Any:
    return result if out is None else write(name, out, result)


# ---- reductions


def _reduced(
    function: Callable[..., Any],
    identity: Any,
    combine: Callable[..., Any],
    a: Any,
    axis: Any,
    out: Any,
    initial: Any,
    where: Any,
    **options: Any,
) -> Any:
    """`function` of the elements that `where` selects, combined with `initial`."""
    name = function.__name__
    if identity is None and where is not True and initial is UNSET:
        raise ValueError(f"{name}: where= needs initial=, there is no {name} of nothing")
    if where is not True:
        a = gg.where(as_arrays(where, a)[0], a, initial if identity is None else identity)
    if identity is None and initial is not UNSET and a.size == 0:
        result = gg.sum(a, axis, **options).astype(a.dtype) * 0 + initial
    else:
        result = function(a, axis, **options)
        if initial is not UNSET and initial is not None:
            result = combine(result, initial)
    return _given(name, out, result)


def sum(
    a: Any,
    axis: Any = None,
    dtype: Any = None,
    out: Any = None,
    keepdims: Any = False,
    initial: Any = UNSET,
    where: Any = True,
) -> Any:
    """The sum over `axis`, as `gpugrad.sum`."""
    if dtype is None and out is None and not keepdims and initial is UNSET and where is True:
        return reductions.sum(a, axis)  # the usual call, at once
    options = {"dtype": dtype, "keepdims": keepdims}
    return _reduced(gg.sum, 0, gg.add, a, axis, out, initial, where, **options)


def prod(
    a: Any,
    axis: Any = None,
    dtype: Any = None,
    out: Any = None,
    keepdims: Any = False,
    initial: Any = UNSET,
    where: Any = True,
) -> Any:
    """The product over `axis`, as `gpugrad.prod`."""
    options = {"dtype": dtype, "keepdims": keepdims}
    return _reduced(gg.prod, 1, gg.multiply, a, axis, out, initial, where, **options)


def _extremum(name: str, combine: Callable[..., Any]) -> Callable[..., Any]:
    reduction = getattr(reductions, name)

    def method(
        a: Any,
        axis: Any = None,
        out: Any = None,
        keepdims: Any = False,
        initial: Any = UNSET,
        where: Any = True,
    ) -> Any:
        if out is None and not keepdims and initial is UNSET and where is True:
            return reduction(a, axis)
        return _reduced(reduction, None, combine, a, axis, out, initial, where, keepdims=keepdims)

    method.__name__ = method.__qualname__ = name
    method.__doc__ = f"As `gpugrad.{name}`, over `axis`; `initial` counts as one more element."
    return method


max = _extremum("max", elementwise.maximum)
min = _extremum("min", elementwise.minimum)


def all(
    a: Any, axis: Any = None, out: Any = None, keepdims: Any = False, *, where: Any = True
) -> Any:
    """Whether all elements over `axis` are non-zero, as `gpugrad.all`."""
    combine = gg.logical_and
    return _reduced(gg.all, True, combine, a, axis, out, UNSET, where, keepdims=keepdims)


def any(
    a: Any, axis: Any = None, out: Any = None, keepdims: Any = False, *, where: Any = True
) -> Any:
    """Whether an element over `axis` is non-zero, as `gpugrad.any`."""
    combine = gg.logical_or
    return _reduced(gg.any, False, combine, a, axis, out, UNSET, where, keepdims=keepdims)


def mean(
    a: Any,
    axis: Any = None,
    dtype: Any = None,
    out: Any = None,
    keepdims: Any = False,
    *,
    where: Any = True,
) -> Any:
    """The arithmetic mean over `axis`, as `gpugrad.mean`; computed in `dtype`."""
    if dtype is None and out is None and not keepdims and where is True:
        return reductions.mean(a, axis)
    a = a if dtype is None else gg.astype(a, dtype, copy=False)
    if where is True:
        result = gg.mean(a, axis, keepdims=keepdims)
    else:
        where = gg.broadcast_to(as_arrays(where, a)[0], a.shape)
        count = gg.sum(where, axis, keepdims=keepdims)
        total = gg.sum(gg.where(where, a, 0), axis, keepdims=keepdims)
        result = total / count.astype(total.real.dtype)
    return _given("mean", out, result)


def _moment(name: str) -> Callable[..., Any]:
    def method(
        a: Any,
        axis: Any = None,
        dtype: Any = None,
        out: Any = None,
        ddof: Any = UNSET,
        keepdims: Any = False,
        *,
        where: Any = True,
        mean: Any = UNSET,
        correction: Any = UNSET,
    ) -> Any:
        if where is not True or mean is not UNSET:
            raise TypeError(f"{name}: where= and mean= are not supported; see gpugrad.{name}")
        if ddof is UNSET:
            ddof = 0 if correction is UNSET else correction
        elif correction is not UNSET:
            raise ValueError(f"{name}: ddof and correction are two names of one number")
        a = a if dtype is None else gg.astype(a, dtype, copy=False)
        result = getattr(gg, name)(a, axis, correction=ddof, keepdims=keepdims)
        return _given(name, out, result)

    method.__name__ = method.__qualname__ = name
    method.__doc__ = f"As `gpugrad.{name}`; `ddof`, or `correction`, is taken off the count."
    return method


std = _moment("std")
var = _moment("var")


def argmax(
    a: Any, axis: Any = None, out: Any = None, *, keepdims: Any = False, dtype: Any = None
) -> Any:
    """The index of the first largest element, as `gpugrad.argmax`; `dtype` is CuPy's option."""
    found = gg.argmax(a, axis, keepdims=keepdims)
    return _given("argmax", out, found if dtype is None else gg.astype(found, dtype))


def argmin(
    a: Any, axis: Any = None, out: Any = None, *, keepdims: Any = False, dtype: Any = None
) -> Any:
    """The index of the first smallest element, as `gpugrad.argmin`; `dtype` is CuPy's option."""
    found = gg.argmin(a, axis, keepdims=keepdims)
    return _given("argmin", out, found if dtype is None else gg.astype(found, dtype))


def _cumulative(name: str, ours: str) -> Callable[..., Any]:
    def method(a: Any, axis: Any = None, dtype: Any = None, out: Any = None) -> Any:
        if axis is None:
            a, axis = gg.reshape(a, (-1,)), 0
        return _given(name, out, getattr(gg, ours)(a, axis=axis, dtype=dtype))

    method.__name__ = method.__qualname__ = name
    method.__doc__ = f"As `gpugrad.{ours}`; `axis=None` is the flat array."
    return method


cumsum = _cumulative("cumsum", "cumulative_sum")
cumprod = _cumulative("cumprod", "cumulative_prod")


# ---- shapes


def _in_c_order(name: str, a: Any, order: str) -> bool:
    """Whether `order`, one of "CFAK", asks for C order, else for Fortran's."""
    if order in ("C", "F"):
        return order == "C"
    flags = raw(a).flags
    if not (order in ("A", "K") and (flags.c_contiguous or flags.f_contiguous)):
        raise TypeError(f"{name}: order={order!r} of this array: use 'C' or 'F'")
    return flags.c_contiguous


def reshape(a: Any, *shape: Any, order: str = "C", copy: Any = None) -> Any:
    """`a` in another shape of the same size, given as one tuple or as several integers."""
    to: Any = shape[0] if len(shape) == 1 else shape
    if _in_c_order("reshape", a, order):
        return gg.reshape(a, to, copy=copy)
    to = as_shape(to)
    return transpose(gg.reshape(transpose(a), to[::-1], copy=copy))


def ravel(a: Any, order: str = "C") -> Any:
    """`a` with one axis; shares memory where it can."""
    return reshape(a, -1, order=order)


def flatten(a: Any, order: str = "C") -> Any:
    """A copy of `a` with one axis."""
    return _copy(ravel(a, order))


def transpose(a: Any, *axes: Any) -> Any:
    """`a` with its axes in another order, given as one tuple or as several; reversed without."""
    to: Any = axes[0] if len(axes) == 1 else axes or None
    if to is None:
        to = range(a.ndim)[::-1]
    elif hasattr(to, "__index__"):
        to = (to,)
    return gg.permute_dims(a, tuple(i % a.ndim for i in _valid(to, a)))


def _valid(axes: Any, a: Any) -> Any:
    axes = tuple(map(operator.index, axes))
    if builtins.any(not -a.ndim <= i < a.ndim for i in axes) or len(axes) != a.ndim:
        raise ValueError(f"transpose: axes {axes} do not fit an array of shape {a.shape}")
    return axes


def swapaxes(a: Any, axis1: int, axis2: int) -> Any:
    """`a` with two axes in each other's place."""
    if builtins.any(not -a.ndim <= i < a.ndim for i in (axis1, axis2)):
        raise ValueError(f"swapaxes: axes {axis1} and {axis2} for an array of shape {a.shape}")
    axes = list(range(a.ndim))
    axes[axis1], axes[axis2] = axes[axis2], axes[axis1]
    return gg.permute_dims(a, tuple(axes))


def squeeze(a: Any, axis: Any = None) -> Any:
    """`a` without the axes `axis`, all axes of length 1 where None."""
    if axis is None:
        axis = tuple(i for i, n in enumerate(a.shape) if n == 1)
    return gg.squeeze(a, axis)


def repeat(a: Any, repeats: Any, axis: int | None = None) -> Any:
    """Each element `repeats` times, as `gpugrad.repeat`."""
    return gg.repeat(a, repeats, axis=axis)


def copy(a: Any, order: str = "C") -> Any:
    """A copy, in C order."""
    return _copy(a)


def astype(
    a: Any,
    dtype: Any,
    order: str = "K",
    casting: Any = "unsafe",
    subok: bool = True,
    copy: bool = True,
    *,
    device: Any = None,
) -> Any:
    """`a` in another dtype, as `gpugrad.astype`, and like it never from complex to real."""
    if casting != "unsafe" and not np.can_cast(a.dtype, dtype, casting):
        raise TypeError(f"astype: {a.dtype} to {np.dtype(dtype)} is no {casting!r} cast")
    return gg.astype(a, dtype, copy=copy, device=device)


# ---- elements


def conj(a: Any) -> Any:
    """The complex conjugate, as `gpugrad.conj`."""
    return gg.conj(a)


conjugate = conj


def clip(
    a: Any,
    a_min: Any = UNSET,
    a_max: Any = UNSET,
    out: Any = None,
    *,
    min: Any = UNSET,
    max: Any = UNSET,
) -> Any:
    """`a` limited to [min, max], as `gpugrad.clip`."""
    low, high = (
        second if first is UNSET else first for first, second in ((a_min, min), (a_max, max))
    )
    low, high = (None if x is UNSET else x for x in (low, high))
    return _given("clip", out, gg.clip(a, low, high))


def round(a: Any, decimals: int = 0, out: Any = None) -> Any:
    """The nearest number of `decimals` decimals, halves to even; its derivative is zero."""
    if decimals == 0:
        result = gg.round(a)
    elif a.dtype.kind in "fc":
        scale = 10.0 ** abs(decimals)
        if decimals > 0:
            result = gg.round(a * scale) / scale
        else:
            result = gg.round(a / scale) * scale
    elif decimals > 0:
        result = +a
    else:
        result = round(a.astype(np.float64), decimals).astype(a.dtype)
    return _given("round", out, result)


def dot(a: Any, b: Any, out: Any = None) -> Any:
    """The product over the last axis of `a` and the last but one, or only, axis of `b`."""
    return _given("dot", out, gg.dot(*as_arrays(a, b)))


def take(
    a: Any, indices: Any, axis: int | None = None, out: Any = None, mode: str = "raise"
) -> Any:
    """The elements at `indices` along `axis`, as `gpugrad.take`."""
    indices = as_arrays(indices, a)[0]
    if mode != "raise":
        count = a.size if axis is None else a.shape[axis]
        wrapped = {"wrap": indices % count, "clip": gg.clip(indices, 0, count - 1)}
        indices = wrapped[mode]
    return _given("take", out, gg.take(a, indices, axis=axis))


def diagonal(a: Any, offset: int = 0, axis1: int = 0, axis2: int = 1) -> Any:
    """The elements on the diagonal of two axes, as a new last axis."""
    return gg.diagonal(a, offset, axis1, axis2)


def trace(
    a: Any, offset: int = 0, axis1: int = 0, axis2: int = 1, dtype: Any = None, out: Any = None
) -> Any:
    """The sum along the diagonal of two axes."""
    return _given("trace", out, gg.trace(a, offset, axis1, axis2, dtype))


# ---- sorting and searching


def sort(
    a: Any, axis: int = -1, kind: Any = None, order: Any = None, *, stable: Any = None
) -> None:
    """Sort in place; `gpugrad.sort` gives a new tensor."""
    a[...] = gg.sort(a, axis=axis)


def argsort(
    a: Any, axis: int | None = -1, kind: Any = None, order: Any = None, *, stable: Any = None
) -> Any:
    """The indices that sort along `axis`, as `gpugrad.argsort`."""
    if axis is None:
        a, axis = gg.reshape(a, (-1,)), 0
    return gg.argsort(a, axis=axis)


def searchsorted(a: Any, v: Any, side: Any = "left", sorter: Any = None) -> Any:
    """Where `v` belongs in the sorted `a`, as `gpugrad.searchsorted`."""
    a, v = as_arrays(a, v)
    return gg.searchsorted(a, v, side=side, sorter=sorter)


def nonzero(a: Any) -> Any:
    """The indices of the elements that are not zero, as `gpugrad.nonzero`."""
    return gg.nonzero(a)


# ---- Python's own calls, and the ways out


itemsize = property(lambda a: a.dtype.itemsize, doc="Bytes of one element.")
nbytes = property(lambda a: a.size * a.dtype.itemsize, doc="Bytes of all elements.")


def tolist(a: Any) -> Any:
    """The data as nested lists of Python numbers; waits for the device.

    Raises:
        RuntimeError: if this tensor requires a gradient, which would be lost.
    """
    a._refuse_loss("tolist()")
    return a._to_host().tolist()


def fill(a: Any, value: Any) -> None:
    """Every element set to `value`, in place."""
    a[...] = value


def __format__(a: Any, spec: str) -> str:
    """A 0-d tensor as its number, as `float(t)`; another one only without a format."""
    if a.ndim == 0:
        return format(a.item(), spec)
    if spec:
        raise TypeError(f"format {spec!r} needs a 0-d tensor, this is {a._described()}")
    return str(a)


def __round__(a: Any, ndigits: int | None = None) -> Any:
    return round(a, ndigits or 0)


def __contains__(a: Any, value: Any) -> bool:
    return bool(gg.any(gg.equal(a, value)))


def __divmod__(a: Any, b: Any) -> tuple[Any, Any]:
    return gg.floor_divide(a, b), gg.remainder(a, b)


def __rdivmod__(a: Any, b: Any) -> tuple[Any, Any]:
    return __divmod__(b, a)
