"""Making tensors: array API standard 2025.12, section "Creation Functions".

New data go to the default device; an array given to `asarray` stays where it is.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from .. import backends
from ..rules import constant, hindered, linear, raw, xp
from ..tape import Leaf
from ..tensor import Tensor
from .dtypes import astype, is_inexact, result_type, to_device
from .manipulation import as_shape, broadcast_to, stack

__all__ = [
    "arange",
    "asarray",
    "empty",
    "empty_like",
    "eye",
    "from_dlpack",
    "full",
    "full_like",
    "geomspace",
    "linspace",
    "logspace",
    "ones",
    "ones_like",
    "zeros",
    "zeros_like",
]


def asarray(
    obj: Any,
    /,
    *,
    dtype: Any = None,
    device: str | backends.Device | None = None,
    copy: bool | None = None,
    requires_grad: bool = False,
) -> Tensor:
    """A Tensor from an array, a number, or nested lists of numbers, arrays and Tensors.

    What is computed from a Tensor that requires a gradient stays on its tape, also in a list.

    Args:
        obj: a NumPy or CuPy array, a Tensor, nested lists and tuples of these and of numbers, or
            what `numpy.asarray` takes.
        dtype: where None that of `obj`; of a list with arrays the `result_type` of what is in it.
        device: where None an array, or a list with one, stays where it is; other data go to the
            default device.
        copy: None shares the memory of `obj` where that is possible, False insists on it.
        requires_grad: make a leaf that `backward` gives a `.grad`. A leaf has memory of its own
            (it is going to be updated in place) unless `copy=False`. A leaf is one already.

    Raises:
        TypeError: if a gradient is asked for a dtype that is not floating-point or complex; for a
            masked array, and what else is not numbers.
        ValueError: if `copy=False` and a copy is needed, or if a list is ragged.
        RuntimeError: if a leaf is asked for of a computed tensor, which would be cut off its tape.
        DeviceError: if the device cannot be used, saying why; OutOfMemoryError: if it is full.
    """
    if isinstance(obj, Tensor):
        return _from_tensor(obj, dtype, device, copy, requires_grad)
    if isinstance(obj, np.ma.MaskedArray):
        raise TypeError("asarray: a masked array would lose its mask; use its .filled(value)")
    source = backends.find_backend(type(obj))
    if source is None and isinstance(obj, (list, tuple)) and _holds_arrays(obj):
        if copy is False:
            raise ValueError("asarray: copy=False, but the items of a list must be joined")
        return _from_tensor(_joined(obj, dtype, device), None, None, None, requires_grad)
    where = backends.device(device) if device is not None else None
    if source is None:
        if copy is False:
            raise ValueError("asarray: copy=False, but Python data must be copied into an array")
        if isinstance(obj, np.ndarray):
            raise TypeError(
                f"asarray: a {type(obj).__name__} is more than its data, which its mask or unit "
                "would be lost from; take the data out first (a masked array: .filled(value))"
            )
        source = backends.backend_of_kind("cpu")
        # names ragged lists and strange objects in NumPy's words
        obj = source.constant(obj, backends.Device("cpu"))
        where = where or backends.default_device()
    if obj.dtype.kind not in "biufc" and obj.dtype.name != "bfloat16":
        raise TypeError(f"asarray: numbers are needed, got data of dtype {obj.dtype}")
    if obj.dtype.char in "gG":
        raise TypeError(f"asarray: {obj.dtype} is not supported: use float64 or complex128")
    where = where or source.device_of(obj)
    if copy is None and requires_grad:
        copy = True
    target = backends.backend_of_kind(where.kind)
    if source is not target or source.device_of(obj) != where:
        if copy is False:
            raise ValueError(f"asarray: copy=False, but the data must move to {where}")
        obj, copy = (obj if source is target else source.to_host(obj)), None
    if requires_grad:
        _check_inexact(np.dtype(dtype) if dtype is not None else obj.dtype)
    try:
        data = target.asarray(obj, dtype, where, copy)
    except backends.hindrances as error:
        described = f"{obj.dtype} {obj.shape} to {dtype or obj.dtype} on {where}"
        raise hindered("asarray", described, error) from None
    return Tensor(data, Leaf(data.shape, data.dtype) if requires_grad else None)


def from_dlpack(
    x: Any, /, *, device: str | backends.Device | None = None, copy: bool | None = None
) -> Tensor:
    """A Tensor from an array of any library that speaks DLPack, in the same memory.

    Args:
        x: an object with `__dlpack__`, on the CPU or a CUDA device.
        device, copy: as in `asarray`.

    Raises:
        DeviceError: if its device cannot be used here, saying why.
    """
    kinds = {1: "cpu", 2: "cuda", 3: "cpu", 13: "cuda"}  # DLDeviceType: pinned, managed
    kind = x.__dlpack_device__()[0]
    if kind not in kinds:
        raise backends.DeviceError(f"from_dlpack: device type {int(kind)} of DLPack is not known")
    library = backends.backend_of_kind(kinds[kind])
    array = x.data if isinstance(x, Tensor) else x
    if type(array) is not library.array_type:
        array = library.xp.from_dlpack(x)
    elif isinstance(x, Tensor):  # as it is: through a capsule, whose memory it is would be lost
        x._refuse_loss("__dlpack__")
    return asarray(array, device=device, copy=copy)


def _from_tensor(
    x: Tensor, dtype: Any, device: Any, copy: bool | None, requires_grad: bool
) -> Tensor:
    if requires_grad and x.node is None:
        return asarray(x.data, dtype=dtype, device=device, copy=copy, requires_grad=True)
    out = x
    if dtype is not None and np.dtype(dtype) != x.dtype:
        out = astype(out, dtype)
    if device is not None:
        out = to_device(out, device)
    if out is not x and copy is False:
        raise ValueError("asarray: copy=False, but the dtype or the device asks for one")
    out = _copy(out) if out is x and copy else out
    if requires_grad and not out.is_leaf:
        raise RuntimeError(
            "asarray: requires_grad=True for a tensor that was computed; it requires a gradient "
            "already, and a leaf made of it would cut the tape: use .detach() first to cut it"
        )
    return out


def _holds_arrays(obj: Any) -> Any:
    """Whether a nested list has a Tensor in it, or an array that is not NumPy's."""
    types = set(map(type, obj))
    if any(t is Tensor or _is_foreign(t) for t in types):
        return True
    return not types.isdisjoint((list, tuple)) and any(
        _holds_arrays(item) for item in obj if type(item) in (list, tuple)
    )


def _is_foreign(array_type: type) -> Any:
    backend = backends.find_backend(array_type)
    return backend is not None and backend.kind != "cpu"


def _joined(obj: Any, dtype: Any, device: Any) -> Tensor:
    """Nested lists of Tensors, arrays and numbers as one Tensor."""
    leaves = list(_leaves(obj))
    common = result_type(*leaves) if dtype is None else np.dtype(dtype)
    beside = device or next(
        backends.device_of(raw(x)) for x in leaves if type(x) is Tensor or _is_foreign(type(x))
    )

    def joined(item: Any) -> Tensor:
        if isinstance(item, (list, tuple)):
            return stack([joined(each) for each in item])
        is_number = isinstance(item, (int, float, complex, np.generic))
        return asarray(item, dtype=common, device=beside if is_number else device)

    return joined(obj)


def _leaves(obj: Any) -> Iterator[Any]:
    for item in obj:
        if isinstance(item, (list, tuple)):
            yield from _leaves(item)
        else:
            yield item


@linear(lambda t: t)
def _copy(x: Any, /) -> Any:
    return x.copy()


def _check_inexact(dtype: np.dtype) -> None:
    if not is_inexact(dtype):
        raise TypeError(
            f"only a floating-point or complex tensor can require a gradient, not {dtype}: "
            "give numbers like 1.0, or dtype=gpugrad.float32 or float64"
        )


def _set_requires_grad(self: Tensor, value: bool) -> None:
    if not self.is_leaf:
        raise RuntimeError(
            "requires_grad can be set on a leaf only; this tensor was computed: use .detach()"
        )
    if value and self.node is None:
        _check_inexact(self.dtype)
        if hasattr(self, "view"):
            del self.view
        self.data = xp(self.data).copy(self.data)  # as `asarray` does: a leaf will be written
        self.node = Leaf(self.shape, self.dtype)
    elif not value:
        self.node = None


Tensor.requires_grad = Tensor.requires_grad.setter(_set_requires_grad)  # type: ignore


def _new(name: str, device: Any, *args: Any, **options: Any) -> Tensor:
    where = backends.default_device() if device is None else backends.device(device)
    backend = backends.backend_of_kind(where.kind)
    try:
        with backend.scope(where):
            return Tensor(getattr(backend.xp, name)(*args, **options), None)
    except backends.hindrances as error:
        raise hindered(name, f"on {where}", error) from None


def empty(shape: Any, *, dtype: Any = None, device: Any = None) -> Tensor:
    """A tensor of `shape` (an integer or a tuple) whose elements are whatever the memory held.

    Args:
        dtype: float64 where None.
        device: the default device where None.

    Raises:
        DeviceError: if the device cannot be used, saying why.
    """
    return _new("empty", device, shape, dtype=dtype or np.float64)


def zeros(shape: Any, *, dtype: Any = None, device: Any = None) -> Tensor:
    """A tensor of zeros, of `shape` (an integer or a tuple); float64 by default."""
    return _new("zeros", device, shape, dtype=dtype or np.float64)


def ones(shape: Any, *, dtype: Any = None, device: Any = None) -> Tensor:
    """A tensor of ones, of `shape` (an integer or a tuple); float64 by default."""
    return _new("ones", device, shape, dtype=dtype or np.float64)


def full(shape: Any, fill_value: Any, *, dtype: Any = None, device: Any = None) -> Tensor:
    """A tensor of one value, of `shape` (an integer or a tuple).

    Args:
        fill_value: a number; or a 0-d tensor, on whose tape and device the result then is.
        dtype: where None that of the value: int64, float64, complex128 or bool for a number.

    Raises:
        TypeError: if the value is no number.
    """
    if isinstance(fill_value, Tensor):
        return _spread_over(fill_value, as_shape(shape), dtype, device)
    if isinstance(fill_value, (str, bytes)) or fill_value is None:
        raise TypeError(f"full: a number is needed, got {fill_value!r}")
    return _new("full", device, shape, fill_value, dtype=dtype)


def arange(
    start: Any, /, stop: Any = None, step: Any = 1, *, dtype: Any = None, device: Any = None
) -> Tensor:
    """The numbers start, start + step, ... before `stop`, a vector; from 0 if only one is given.

    Args:
        start, stop, step: numbers, or 0-d tensors of integers, for which the device is waited;
            the length is ceil((stop - start) / step), at least 0.
        dtype: where None int64 if all of them are integers, else float64.
        device: the default device where None.

    Raises:
        ZeroDivisionError: if `step` is 0.
        TypeError: for other tensors, whose gradient would be lost: use float(x).
    """
    start, stop, step = (
        operator.index(x) if isinstance(x, Tensor) else x for x in (start, stop, step)
    )
    start, stop = (0, start) if stop is None else (start, stop)
    return _new("arange", device, start, stop, step, dtype=dtype)


def linspace(
    start: Any,
    stop: Any,
    /,
    num: int,
    *,
    dtype: Any = None,
    device: Any = None,
    endpoint: bool = True,
) -> Tensor:
    """`num` evenly spaced numbers from `start` to `stop`, the end included unless told.

    Args:
        start, stop: numbers; where one is a 0-d tensor, the result is on its device and its tape.
        dtype: where None float64, or complex128 for complex numbers.

    Returns:
        A vector of length `num`.

    Raises:
        ValueError: if `num` is negative.
    """
    ends = [x for x in (start, stop) if isinstance(x, Tensor)]
    if ends:
        dtype = np.dtype(dtype or result_type(start, stop, 1.0))
        where = ends[0].device if device is None else device
        weights = linspace(0, 1, num, dtype=dtype, device=where, endpoint=endpoint)
        return astype(start * (1 - weights) + stop * weights, dtype, copy=False)
    return _new("linspace", device, start, stop, num, dtype=dtype, endpoint=endpoint)


def logspace(
    start: Any,
    stop: Any,
    /,
    num: int = 50,
    endpoint: bool = True,
    base: Any = 10.0,
    *,
    dtype: Any = None,
    device: Any = None,
) -> Tensor:
    """base ** linspace(start, stop, num): differentiable in these where they are 0-d tensors."""
    dtype = np.dtype(dtype or result_type(start, stop, base, 1.0))
    exponents = linspace(start, stop, num, dtype=dtype, device=device, endpoint=endpoint)
    return astype(base**exponents, dtype, copy=False)


def geomspace(
    start: Any,
    stop: Any,
    /,
    num: int = 50,
    endpoint: bool = True,
    *,
    dtype: Any = None,
    device: Any = None,
) -> Tensor:
    """`num` numbers from `start` to `stop`, each the same multiple of the one before.

    Differentiable in these where they are 0-d tensors. Ends of different sign need a complex dtype.

    Raises:
        ValueError: if an end is the number 0.
    """
    if any(not isinstance(x, Tensor) and x == 0 for x in (start, stop)):
        raise ValueError(f"geomspace: no multiple leads to or from 0, got {start} and {stop}")
    dtype = np.dtype(dtype or result_type(start, stop, 1.0))
    ends = [x for x in (start, stop) if isinstance(x, Tensor)]
    where = ends[0].device if ends and device is None else device
    powers = linspace(0, 1, num, dtype=dtype, device=where, endpoint=endpoint)
    return astype(start * (stop / start) ** powers, dtype, copy=False)


def eye(
    n_rows: int, n_cols: int | None = None, /, *, k: int = 0, dtype: Any = None, device: Any = None
) -> Tensor:
    """A matrix of ones on the `k`-th diagonal and zeros elsewhere; float64 by default.

    Args:
        n_rows, n_cols: its shape; square where `n_cols` is None.
        k: of the diagonal: 0 the main one, above it positive, below it negative.
    """
    return _new("eye", device, n_rows, n_cols, k=k, dtype=dtype or np.float64)


def fftfreq(n: int, /, *, d: float = 1.0, dtype: Any = None, device: Any = None) -> Tensor:
    """The frequencies of `fft`'s coefficients, with steps of `d`: 0, 1, ... -2, -1 over n d.

    Raises:
        ValueError: for n < 1; TypeError: for a dtype that is not real floating-point.
    """
    return _frequencies(
        "fftfreq", n, [*range((n + 1) // 2), *range(-(n // 2), 0)], d, dtype, device
    )


def rfftfreq(n: int, /, *, d: float = 1.0, dtype: Any = None, device: Any = None) -> Tensor:
    """The frequencies of `rfft`'s coefficients, with steps of `d`: 0, 1, ... n//2 over n d.

    Raises:
        ValueError: for n < 1; TypeError: for a dtype that is not real floating-point.
    """
    return _frequencies("rfftfreq", n, range(n // 2 + 1), d, dtype, device)


def _frequencies(
    name: str, n: int, steps: Sequence[int], d: float, dtype: Any, device: Any
) -> Tensor:
    if n < 1:
        raise ValueError(f"{name}: n must be positive, not {n}")
    dtype = np.dtype(dtype or np.float64)
    if not is_inexact(dtype) or dtype.kind == "c":
        raise TypeError(f"{name}: frequencies are real floating-point numbers, not {dtype}")
    where = backends.default_device() if device is None else device
    return asarray([step * (1 / (n * d)) for step in steps], dtype=dtype, device=where)


@constant
def _like(x: Any, /, *, name: str, dtype: Any) -> Any:
    return getattr(xp(x), name)(x, dtype=dtype)


def empty_like(x: Any, /, *, dtype: Any = None, device: Any = None) -> Any:
    """As `empty`, with the shape, dtype and device of `x` unless told otherwise."""
    return _moved(_like(x, name="empty_like", dtype=dtype), device)


def zeros_like(x: Any, /, *, dtype: Any = None, device: Any = None) -> Any:
    """As `zeros`, with the shape, dtype and device of `x` unless told otherwise."""
    return _moved(_like(x, name="zeros_like", dtype=dtype), device)


def ones_like(x: Any, /, *, dtype: Any = None, device: Any = None) -> Any:
    """As `ones`, with the shape, dtype and device of `x` unless told otherwise."""
    return _moved(_like(x, name="ones_like", dtype=dtype), device)


def full_like(x: Any, /, fill_value: Any, *, dtype: Any = None, device: Any = None) -> Any:
    """As `full`, with the shape, dtype and device of `x` unless told otherwise."""
    if isinstance(fill_value, Tensor):
        return _spread_over(fill_value, x.shape, dtype or x.dtype, device)
    return _moved(_filled(x, fill_value=fill_value, dtype=dtype), device)


def _spread_over(value: Tensor, shape: tuple[int, ...], dtype: Any, device: Any) -> Tensor:
    value = value if dtype is None else astype(value, dtype, copy=False)
    return _copy(broadcast_to(_moved(value, device), shape))


@constant
def _filled(x: Any, /, *, fill_value: Any, dtype: Any) -> Any:
    return xp(x).full_like(x, fill_value, dtype=dtype)


def _moved(x: Any, device: Any) -> Any:
    return x if device is None else to_device(x, device)
