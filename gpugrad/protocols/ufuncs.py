"""NumPy's ufuncs, and the raw ufuncs of `scipy.special`, on Tensors: `Tensor.__array_ufunc__`.

Most have a function of gpugrad, under the standard's name. Those that the standard lacks are
declared here, with their derivatives, under NumPy's names.
"""

from __future__ import annotations

import difflib
import functools
import itertools
import math
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.lib.array_utils import normalize_axis_tuple

from .. import backends
from ..ops.elementwise import __all__ as _STANDARD
from ..ops.elementwise import _share, _zero
from ..ops.indexing import _raw_key
from ..rules import elementwise, raw, xp
from ..tape import mark_changed
from ..tensor import Tensor
from . import methods
from .methods import UNSET, as_arrays, write

gg: Any = sys.modules["gpugrad"]
Function = Callable[..., Any]

# ---- what the standard lacks

cbrt = elementwise("cbrt", lambda t, out: t / (3 * out * out), doc="Cube root.")
exp2 = elementwise("exp2", lambda t, out: t * (out * math.log(2)), doc="2 ** x.")
fabs = elementwise("fabs", lambda t, x: t * gg.sign(x), doc="|x| of a real x, floating-point.")
rint = elementwise("rint", _zero, doc="The nearest integer, halves to even, floating-point.")
deg2rad = elementwise("deg2rad", lambda t: t * (math.pi / 180), doc="Degrees in radians.")
rad2deg = elementwise("rad2deg", lambda t: t * (180 / math.pi), doc="Radians in degrees.")
logaddexp2 = elementwise(
    "logaddexp2",
    lambda t, a, b: t * _share(a * math.log(2), b * math.log(2)),
    lambda t, a, b: t * _share(b * math.log(2), a * math.log(2)),
    doc="log2(2**a + 2**b) without overflow.",
)
fmax = elementwise(
    "fmax",
    lambda t, a, b: gg.where(a == b, t * 0.5, gg.where((a > b) | (b != b), t, 0)),
    lambda t, a, b: gg.where(a == b, t * 0.5, gg.where((b > a) | (a != a), t, 0)),
    doc="The larger, or what is not NaN. A tie shares the derivative evenly.",
)
fmin = elementwise(
    "fmin",
    lambda t, a, b: gg.where(a == b, t * 0.5, gg.where((a < b) | (b != b), t, 0)),
    lambda t, a, b: gg.where(a == b, t * 0.5, gg.where((b < a) | (a != a), t, 0)),
    doc="The smaller, or what is not NaN. A tie shares the derivative evenly.",
)
fmod = elementwise(
    "fmod",
    lambda t: t,
    lambda t, a, b, out: -t * rint((a - out) / b),
    doc="a - b * trunc(a / b): has the sign of a.",
)
heaviside = elementwise(
    "heaviside",
    _zero,
    lambda t, a: gg.where(gg.zeros_like(t) == a, t, 0),
    doc="0, b or 1 as a is <, = or > 0.",
)
ldexp: Function = elementwise(
    "ldexp", lambda t, b: ldexp(t, b), None, doc="a * 2**b for integer b."
)
gcd = elementwise("gcd", None, None, doc="The greatest common divisor of integers.")
lcm = elementwise("lcm", None, None, doc="The least common multiple of integers.")


def float_power(a: Any, b: Any, /) -> Any:
    """a ** b, at least in double precision."""
    dtype = gg.result_type(a, b, np.dtype(np.float64))
    a, b = (gg.astype(x, dtype, copy=False) if hasattr(x, "dtype") else x for x in (a, b))
    return gg.pow(a, b)


def modf(x: Any, /) -> tuple[Any, Any]:
    """The fractional and the integer part of x, both with its sign."""
    x = gg.astype(x, gg.result_type(x, 1.0), copy=False)
    return fmod(gg.where(gg.isinf(x), gg.copysign(0, x), x), 1), gg.trunc(x)


def frexp(x: Any, /) -> tuple[Any, Any]:
    """The mantissa, in [0.5, 1), and the exponent of 2."""
    array = raw(x)
    exponent = Tensor(xp(array).frexp(array)[1], None)
    return ldexp(x, -exponent), exponent


def matvec(a: Any, b: Any, /) -> Any:
    """A matrix, the last two axes of a, times a vector, the last axis of b."""
    return gg.matmul(a, b[..., None])[..., 0]


def vecmat(a: Any, b: Any, /) -> Any:
    """A vector, the conjugate of the last axis of a, times a matrix, the last two axes of b."""
    return gg.matmul(gg.conj(a)[..., None, :], b)[..., 0, :]


_HERE: dict[str, Function] = {
    "cbrt": cbrt,
    "deg2rad": deg2rad,
    "degrees": rad2deg,
    "divmod": methods.__divmod__,
    "exp2": exp2,
    "fabs": fabs,
    "float_power": float_power,
    "fmax": fmax,
    "fmin": fmin,
    "fmod": fmod,
    "frexp": frexp,
    "gcd": gcd,
    "heaviside": heaviside,
    "lcm": lcm,
    "ldexp": ldexp,
    "logaddexp2": logaddexp2,
    "matvec": matvec,
    "modf": modf,
    "rad2deg": rad2deg,
    "radians": deg2rad,
    "rint": rint,
    "vecmat": vecmat,
}
_RENAMED = {
    "absolute": "abs",
    "arccos": "acos",
    "arccosh": "acosh",
    "arcsin": "asin",
    "arcsinh": "asinh",
    "arctan": "atan",
    "arctan2": "atan2",
    "arctanh": "atanh",
    "conjugate": "conj",
    "invert": "bitwise_invert",
    "left_shift": "bitwise_left_shift",
    "power": "pow",
    "right_shift": "bitwise_right_shift",
    "true_divide": "divide",
}
_PRODUCTS = ("matmul", "vecdot")
_SPECIAL = {"psi": "digamma"}  # scipy.special's names of one ufunc
_REDUCERS: dict[str, Function] = {
    "add": methods.sum,
    "logical_and": methods.all,
    "logical_or": methods.any,
    "maximum": methods.max,
    "minimum": methods.min,
    "multiply": methods.prod,
}
_ACCUMULATORS: dict[str, Function] = {"add": methods.cumsum, "multiply": methods.cumprod}


def named(name: str) -> Function | None:
    """The function for NumPy's ufunc `name`; None where there is none."""
    ours = _RENAMED.get(name, name)
    if name in _HERE:
        return _HERE[name]
    return getattr(gg, ours) if ours in _STANDARD or ours in _PRODUCTS else None


def special(name: str) -> Function | None:
    """The function for the ufunc `name` of SciPy's or CuPy's special functions."""
    return getattr(gg.special, name, None) or getattr(gg.special, _SPECIAL.get(name, name), None)


def unsupported(name: str, close: str = "") -> TypeError:
    """The error for a call that has no counterpart, with what is close by name in gpugrad."""
    if not close:
        listed = {n: f"gpugrad.{n}" for n in gg.__all__ if callable(getattr(gg, n))}
        for module in ("linalg", "fft", "special"):
            listed |= {n: f"gpugrad.{module}.{n}" for n in getattr(gg, module).__all__}
        found = difflib.get_close_matches(name.rpartition(".")[2], listed, 1, 0.75)
        close = listed[found[0]] if found else ""
    hint = f"use {close}, or where" if close else "where"
    return TypeError(
        f"{name} is not supported on Tensors: {hint} no gradient is wanted, give it "
        "t.detach().numpy() (on a GPU: t.data)"
    )


def find(ufunc: Any) -> Function:
    """The function for a ufunc of NumPy's or of scipy.special's.

    Raises:
        TypeError: if there is none, naming what is close.
    """
    name = ufunc.__name__
    if getattr(np, name, None) is ufunc:
        if (function := named(name)) is None:
            raise unsupported(f"numpy.{name}")
        return function
    homes = (sys.modules.get(f"scipy.special{part}") for part in ("", "._ufuncs"))
    if any(getattr(module, name, None) is ufunc for module in homes):
        if (function := special(name)) is None:
            raise TypeError(
                f"scipy.special.{name} is not supported on Tensors: there is no "
                f"gpugrad.special.{name}, and converting would lose the gradient"
            )
        return function
    raise TypeError(
        f"the ufunc {name!r} is not supported on Tensors: gpugrad knows no derivative of it; "
        "where none is wanted, give it t.detach().numpy() (on a GPU: t.data)"
    )


# ---- calls with options, and the methods of ufuncs


def run(name: str, function: Function, method: str, inputs: Any, kwargs: Any) -> Any:
    """`ufunc.method(*inputs, **kwargs)` on Tensors, as NumPy hands it over."""
    options = dict(kwargs)
    for ignored in ("order", "subok"):
        options.pop(ignored, None)
    if options.get("casting", "same_kind") != "same_kind":
        raise TypeError(f"{name}: casting= is not supported on Tensors; use gpugrad.astype")
    options.pop("casting", None)
    out = options.pop("out", None)
    if out is not None and not isinstance(out, tuple):
        out = (out,)
    known: dict[str, Function] = {
        "__call__": _call,
        "reduce": _reduce,
        "accumulate": _accumulate,
        "outer": _outer,
    }
    if method == "at":
        return _at(name, function, *inputs)
    if method not in known:
        raise unsupported(f"numpy.{name}.{method}", f"gpugrad.{_RENAMED.get(name, name)}")
    try:
        return known[method](name, function, inputs, out, **options)
    except TypeError as error:
        if "unexpected keyword argument" not in str(error):
            raise
        raise TypeError(
            f"numpy.{name}{'' if method == '__call__' else '.' + method}: options "
            f"{', '.join(options)} are not supported on Tensors; see gpugrad.{name}"
        ) from None


def _cast(name: str, inputs: Any, dtype: Any) -> list[Any]:
    dtype = np.dtype(dtype)
    for x in inputs:
        given = getattr(x, "dtype", None)
        if given is not None and not np.can_cast(given, dtype, "same_kind"):
            raise TypeError(f"{name}: {given} to dtype={dtype} is no cast within a kind")
    return [gg.astype(x, dtype, copy=False) if hasattr(x, "dtype") else x for x in inputs]


def _call(
    name: str,
    function: Function,
    inputs: Any,
    out: Any,
    dtype: Any = None,
    where: Any = True,
    axis: Any = UNSET,
) -> Any:
    if axis is not UNSET:
        if name != "vecdot":
            raise unsupported(f"numpy.{name} with axis=", "gpugrad.moveaxis")
        function = functools.partial(function, axis=axis)
    inputs = [as_arrays(x, *inputs)[0] if isinstance(x, (list, tuple)) else x for x in inputs]
    if dtype is not None:
        inputs = _cast(name, inputs, dtype)
    if out is None:
        if where is not True:
            raise TypeError(f"{name}: where= without out= leaves holes; use gpugrad.where")
        return function(*inputs)
    with np.errstate(all=None if where is True else "ignore"):
        result = function(*inputs)
    if not isinstance(result, tuple):
        return write(name, out[0], result, where)
    pairs = zip(out, result, strict=True)
    return tuple(r if o is None else write(name, o, r, where) for o, r in pairs)


def _joined(name: str, function: Function, a: Any, axis: int) -> Iterator[Any]:
    """The running results of a binary function along `axis`, one call per element."""
    if getattr(np, name, None) is not None and getattr(np, name).signature is not None:
        raise unsupported(f"numpy.{name}.reduce")
    return itertools.accumulate(gg.unstack(a, axis=axis), function)


def _reduce(
    name: str,
    function: Function,
    inputs: Any,
    out: Any,
    axis: Any = 0,
    dtype: Any = None,
    keepdims: bool = False,
    initial: Any = UNSET,
    where: Any = True,
) -> Any:
    a = as_arrays(inputs[0])
    out = None if out is None else out[0]
    if name in _REDUCERS:
        options: dict[str, Any] = {"axis": axis, "keepdims": keepdims, "where": where, "out": out}
        if dtype is not None and name in ("add", "multiply"):
            options["dtype"] = dtype
        elif dtype is not None:
            (a,) = _cast(name, [a], dtype)
        if initial is not UNSET and name not in ("logical_and", "logical_or"):
            options["initial"] = initial
        return _REDUCERS[name](a, **options)
    if where is not True or initial is not UNSET:
        raise TypeError(f"numpy.{name}.reduce: where= and initial= are not supported on Tensors")
    if dtype is not None:
        (a,) = _cast(name, [a], dtype)
    axes = normalize_axis_tuple(range(a.ndim) if axis is None else axis, a.ndim)
    for i in sorted(axes, reverse=True):
        if a.shape[i] == 0:
            raise ValueError(f"numpy.{name}.reduce: of nothing along axis {i}, shape {a.shape}")
        *_, a = _joined(name, function, a, i)
    if keepdims:
        a = gg.expand_dims(a, tuple(sorted(axes)))
    return a if out is None else write(name, out, a)


def _accumulate(
    name: str, function: Function, inputs: Any, out: Any, axis: int = 0, dtype: Any = None
) -> Any:
    a = as_arrays(inputs[0])
    if name in _ACCUMULATORS:
        result = _ACCUMULATORS[name](a, axis, dtype)
    else:
        if dtype is not None:
            (a,) = _cast(name, [a], dtype)
        result = gg.stack(list(_joined(name, function, a, axis)), axis=axis) if a.size else +a
    return result if out is None else write(name, out[0], result)


def _outer(name: str, function: Function, inputs: Any, out: Any, dtype: Any = None) -> Any:
    a, b = as_arrays(*inputs)
    a = gg.reshape(a, (*a.shape, *(1,) * b.ndim))
    return _call(name, function, (a, b), out, dtype)


def _at(name: str, function: Function, a: Any, indices: Any, *values: Any) -> None:
    """`ufunc.at`: in place, with every repetition of an index counted; off the tape only."""
    if methods.on_tape(a, *values):
        raise RuntimeError(
            f"numpy.{name}.at: writes in place and would lose the gradient; "
            "build the result with gpugrad.where or by indexing, or call inside gpugrad.no_grad()"
        )
    array = raw(a)
    key = _raw_key(indices, array, f"{name}.at")
    if backends.device_of(array).kind == "cpu":
        getattr(np, name).at(array, key, *map(raw, values))
    elif name in ("add", "subtract"):
        (value,) = values
        xp(array).add_at(array, key, raw(value if name == "add" else -value))
    else:
        raise TypeError(f"numpy.{name}.at is not supported on {backends.device_of(array)}")
    mark_changed(array)
