"""Arrays with a hidden axis, one array per example: a backend like any other.

Its functions compute all examples at once, the hidden axis in front; a function without a way to
do that runs once per example. What is written in gpugrad's functions, the derivative rules above
all, so runs on batches unchanged. `batching.py` makes batches and takes them apart.

Every type of `BatchedArray` has a level, one more than that of the arrays inside.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from types import ModuleType
from typing import Any, ClassVar

import numpy as np
from numpy.lib.array_utils import normalize_axis_index, normalize_axis_tuple

from . import backends, rules
from .backends import Backend, Device, Namespace
from .ops.manipulation import moveaxis
from .rules import as_array, elementwise_functions

NUMBERS = (int, float, complex, bool, np.generic)


class ByFunctions:
    """What an array has by the functions of its library alone, which are in `xp`."""

    __slots__ = ()

    xp: ClassVar[Any]

    @property
    def T(self) -> Any:
        return self.xp.transpose(self)

    @property
    def mT(self) -> Any:
        return self.xp.swapaxes(self, -1, -2)

    @property
    def real(self) -> Any:
        return self.xp.real(self)

    @property
    def imag(self) -> Any:
        return self.xp.imag(self)

    def reshape(self, *shape: Any) -> Any:
        return self.xp.reshape(self, shape[0] if len(shape) == 1 else shape)

    def __getitem__(self, key: Any) -> Any:
        return self.xp.getitem(self, key)

    def __setitem__(self, key: Any, value: Any) -> None:
        self.xp.setitem(self, key, value)


class BatchedArray(ByFunctions):
    """An array per example.

    Attributes:
        values: all of them, with a hidden axis in front; without it if not `batched`, which says
            that the examples share one array.
        diagonal: where the values are rows of a diagonal matrix, (start, entries): row i has
            entries[i] in column start + i. A product then need not multiply all the zeros.
    """

    __slots__ = ("__weakref__", "batched", "diagonal", "values")
    __array_ufunc__ = None  # NumPy's operators leave it to these
    __hash__ = None  # type: ignore[assignment]

    level: ClassVar[int]
    inner: ClassVar[type]
    xp: ClassVar[Library]

    def __init__(self, values: Any, batched: bool) -> None:
        self.values = values
        self.batched = batched
        self.diagonal: tuple[int, Any] | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        return self.values.shape[1:] if self.batched else self.values.shape

    @property
    def ndim(self) -> int:
        return self.values.ndim - self.batched

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def dtype(self) -> Any:
        return self.values.dtype

    @property
    def base(self) -> Any:
        return self.values

    def astype(self, dtype: Any, **options: Any) -> Any:
        return type(self)(self.values.astype(dtype, **options), self.batched)

    def __getattr__(self, name: str) -> Any:
        """A method: the function of that name."""
        if name.startswith("__") or not callable(getattr(self.values, name, None)):
            raise AttributeError(f"a batch of arrays has no {name!r}")
        return functools.partial(getattr(self.xp, name), self)

    def _refuse(self, *args: Any, **options: Any) -> Any:
        raise RuntimeError(
            "a value per example where one for all is needed: inside vmap no value is read "
            "(float(x), a branch on one); gpugrad.where chooses for each example"
        )

    def __array__(self, *args: Any, **options: Any) -> Any:
        raise TypeError(  # which operations catch, to bring all operands to one type
            "arrays of all examples and of one do not mix: inside vmap nothing is converted to "
            "NumPy, nor written into a tensor that all examples share (see gpugrad.zeros_like)"
        )

    __bool__ = __float__ = __int__ = __index__ = __complex__ = _refuse


def level_of(x: Any) -> int:
    """How many hidden axes the raw array `x` has."""
    return x.level if isinstance(x, BatchedArray) else 0


@functools.cache
def _batches_of(inner: Any) -> type[BatchedArray]:
    """The type of a batch of arrays of type `inner`, a backend of its own."""
    made: Any = type("BatchedArray", (BatchedArray,), {"__slots__": ()})
    made.inner, made.level = inner, getattr(inner, "level", 0) + 1
    made.xp = Library(made, rules.namespace_of[inner], "")
    backends._by_type[made] = _Batches(made)
    return made


def shared(x: Any) -> BatchedArray:
    """The raw array `x` as a batch whose examples share it."""
    home = backends.backend_of(x)
    if type(x) is not home.array_type:  # an array scalar, or of a subclass
        x = home.asarray(x, None, home.device_of(x), None)
    return _batches_of(home.array_type)(x, False)


class _Batches(Backend):
    """What the engine must know of batches of one type."""

    kind = "batch"

    def __init__(self, array_type: type[BatchedArray]) -> None:
        self.array_type = self._make = array_type
        self.array_types = (array_type,)
        self.xp = array_type.xp
        self._inside: Any = backends.find_backend(array_type.inner)

    def devices(self) -> list[Device]:
        return []

    def device_of(self, array: Any) -> Device:
        return backends.device_of(array.values)

    def asarray(self, obj: Any, dtype: Any, device: Device, copy: bool | None) -> Any:
        values, batched = obj, False
        if type(obj) is self._make:
            values, batched = obj.values, obj.batched
        return self._make(self._inside.asarray(values, dtype, device, copy), batched)

    def to_host(self, array: Any) -> Any:
        return array._refuse()

    def scope(self, device: Device) -> Any:
        return self._inside.scope(device)


# ---- the functions

# over `axis`, None for all, which then is gone or has length 1
_REDUCTIONS = frozenset(
    "all any count_nonzero logsumexp max mean median min prod std sum var".split()
)
# along one axis, with its default; None for the flattened array
_ALONG = {
    **dict.fromkeys(("argmax", "argmin", "cumprod", "cumsum"), None),
    **dict.fromkeys(("argsort", "log_softmax", "softmax", "sort"), -1),
}
# of matrices in the last two axes
_OF_MATRICES = frozenset("tril triu linalg.cholesky linalg.det linalg.inv linalg.pinv".split())
_LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"


class Library(Namespace):
    """The functions of an array library on batches of its arrays.

    They see the axes that are not hidden. Axes are handed on counted from the end, where the
    hidden one in front does not matter.
    """

    def __init__(self, array_type: type[BatchedArray], inside: Any, path: str) -> None:
        super().__init__(inside)
        self._type = array_type
        self._path = path

    def __getattr__(self, name: str) -> Any:
        f = getattr(self._module, name)
        path = self._path + name
        value: Any
        if isinstance(f, (ModuleType, Namespace)):
            value = Library(self._type, f, path + ".")
        elif isinstance(f, type) or not callable(f):
            value = f
        elif path in elementwise_functions:
            value = functools.partial(self._elementwise, f)
        elif path in _REDUCTIONS:
            value = functools.partial(self._reduce, f)
        elif path in _ALONG:
            value = functools.partial(self._along, f, _ALONG[path])
        elif path in _OF_MATRICES:
            value = functools.partial(self._of_matrices, f)
        else:
            value = functools.partial(self.one_by_one, f)
        setattr(self, name, value)
        return value

    # -- between batches and what is inside

    def _is_batch(self, x: Any) -> bool:
        if type(x) is self._type:
            return True
        if isinstance(x, NUMBERS) or backends.find_backend(type(x)) is None:
            return False
        raise TypeError("arrays of all examples and of one do not mix")

    def _made(self, out: Any, batched: bool) -> Any:
        """A result from inside as a batch: the array, or each of several."""
        if type(out) is self._type.inner:
            return self._type(out, batched)
        if isinstance(out, (tuple, list)):
            parts = [self._made(x, batched) for x in out]
            return getattr(type(out), "_make", type(out))(parts)
        if isinstance(out, np.generic):
            return self._type(as_array(out), batched)
        return out

    def _spread(self, x: Any, count: int) -> Any:
        """The values of `x`, one per example also where they are shared."""
        if x.batched:
            return x.values
        return self._module.broadcast_to(x.values, (count, *x.shape))

    def _count(self, *arrays: Any) -> int:
        """The number of examples; 0 if all is shared."""
        return next((x.values.shape[0] for x in arrays if self._is_batch(x) and x.batched), 0)

    def one_by_one(self, f: Callable[..., Any], *args: Any, **options: Any) -> Any:
        given = (list(args), options)
        count = self._count(*_leaves(given))
        if not count:
            args, options = self._example(given, None)
            return self._made(f(*args, **options), False)
        results = []
        for i in range(count):
            args, options = self._example(given, i)
            results.append(f(*args, **options))
        return self._stacked(results)

    def _example(self, x: Any, i: int | None) -> Any:
        if isinstance(x, (tuple, list)):
            parts = [self._example(item, i) for item in x]
            return getattr(type(x), "_make", type(x))(parts)
        if isinstance(x, dict):
            return {name: self._example(item, i) for name, item in x.items()}
        if not self._is_batch(x):
            return x
        return as_array(x.values[i]) if x.batched else x.values

    def _stacked(self, results: list[Any]) -> Any:
        first = results[0]
        if isinstance(first, (tuple, list)):
            parts = [self._stacked(list(x)) for x in zip(*results, strict=True)]
            return getattr(type(first), "_make", type(first))(parts)
        if backends.find_backend(type(first)) is None:  # no array, and for all the same
            return first
        home = rules.namespace_of[self._type.inner]
        return self._type(home.stack([as_array(x) for x in results]), True)

    # -- families of functions

    def _elementwise(self, f: Callable[..., Any], *args: Any, **options: Any) -> Any:
        given = [(x, self._is_batch(x)) for x in args]
        ndim = max([x.ndim for x, is_batch in given if is_batch], default=0)
        values = [self._aligned(x, ndim) if is_batch else x for x, is_batch in given]
        batched = any(is_batch and x.batched for x, is_batch in given)
        return self._made(f(*values, **options), batched)

    def _aligned(self, x: Any, ndim: int) -> Any:
        """Values with axes of length 1 behind the hidden one, so that they broadcast."""
        v = x.values
        if not x.batched or x.ndim == ndim:
            return v
        return self._module.reshape(v, (v.shape[0], *(1,) * (ndim - x.ndim), *v.shape[1:]))

    def _reduce(
        self, f: Callable[..., Any], x: Any, axis: Any = None, *args: Any, **options: Any
    ) -> Any:
        if not (self._is_batch(x) and x.batched):
            return self.one_by_one(f, x, axis, *args, **options)
        axes = range(x.ndim) if axis is None else normalize_axis_tuple(axis, x.ndim)
        v = x.values
        if x.ndim == 0:
            v, axes = self._module.reshape(v, (*v.shape, 1)), (0,)
            options["keepdims"] = False
        elif not len(axes):
            return self.one_by_one(f, x, axis, *args, **options)
        return self._made(f(v, _from_end(axes, v.ndim - 1), *args, **options), True)

    def _along(
        self,
        f: Callable[..., Any],
        default: int | None,
        x: Any,
        *args: Any,
        **options: Any,
    ) -> Any:
        if not (self._is_batch(x) and x.batched):
            return self.one_by_one(f, x, *args, **options)
        axis, *args_ = args or (options.pop("axis", default),)
        if axis is not None and x.ndim:
            axis = normalize_axis_index(axis, x.ndim) - x.ndim
            return self._made(f(x.values, axis, *args_, **options), True)
        keepdims = options.pop("keepdims", False)
        flat = self._module.reshape(x.values, (x.values.shape[0], x.size))
        out = self._made(f(flat, -1, *args_, **options), True)
        return self.reshape(out, (1,) * x.ndim) if keepdims else out

    def _of_matrices(self, f: Callable[..., Any], x: Any, *args: Any, **options: Any) -> Any:
        if self._is_batch(x) and x.ndim >= 2:
            return self._made(f(x.values, *args, **options), x.batched)
        return self.one_by_one(f, x, *args, **options)

    # -- shapes

    def copy(self, x: Any) -> Any:
        return self._made(self._module.copy(x.values), x.batched)

    def _zeros_like(self, x: Any, name: str, *args: Any, **options: Any) -> Any:
        like = as_array(x.values[0]) if x.batched else x.values  # one for all
        return self._made(getattr(self._module, name)(like, *args, **options), False)

    def zeros_like(self, x: Any, dtype: Any = None) -> Any:
        return self._zeros_like(x, "zeros_like", dtype=dtype)

    def ones_like(self, x: Any, dtype: Any = None) -> Any:
        return self._zeros_like(x, "ones_like", dtype=dtype)

    def empty_like(self, x: Any, dtype: Any = None) -> Any:
        return self._zeros_like(x, "empty_like", dtype=dtype)

    def full_like(self, x: Any, fill_value: Any, dtype: Any = None) -> Any:
        if self._is_batch(fill_value):
            return self.one_by_one(self._module.full_like, x, fill_value, dtype=dtype)
        return self._zeros_like(x, "full_like", fill_value, dtype=dtype)

    def reshape(self, x: Any, shape: Any, **options: Any) -> Any:
        if not x.batched:
            return self._made(self._module.reshape(x.values, shape, **options), False)
        shape = tuple(shape) if isinstance(shape, Sequence) else (shape,)
        if -1 in shape:  # which the hidden axis would make ambiguous where there are no elements
            known = -math.prod(shape)
            shape = tuple((x.size // known if known else 0) if n == -1 else n for n in shape)
        if math.prod(shape) != x.size:
            raise ValueError(f"cannot reshape an array of shape {x.shape} into {shape}")
        values = self._module.reshape(x.values, (x.values.shape[0], *shape), **options)
        return self._made(values, True)

    def ravel(self, x: Any) -> Any:
        return self.reshape(x, (x.size,))

    def transpose(self, x: Any, axes: Any = None) -> Any:
        axes = range(x.ndim)[::-1] if axes is None else normalize_axis_tuple(axes, x.ndim)
        if len(axes) != x.ndim:
            raise ValueError("axes don't match array")
        order = (0, *(i + 1 for i in axes)) if x.batched else tuple(axes)
        return self._made(self._module.transpose(x.values, order), x.batched)

    def swapaxes(self, x: Any, a: int, b: int) -> Any:
        axes = list(range(x.ndim))
        a, b = (normalize_axis_index(i, x.ndim) for i in (a, b))
        axes[a], axes[b] = b, a
        return self.transpose(x, axes)

    def moveaxis(self, x: Any, source: Any, destination: Any) -> Any:
        return moveaxis(x, source, destination)

    def expand_dims(self, x: Any, axis: Any) -> Any:
        ndim = x.ndim + (len(axis) if isinstance(axis, tuple) else 1)
        axes = _from_end(normalize_axis_tuple(axis, ndim), ndim)
        return self._made(self._module.expand_dims(x.values, axes), x.batched)

    def squeeze(self, x: Any, axis: Any = None) -> Any:
        if axis is None:
            axis = tuple(i for i, n in enumerate(x.shape) if n == 1)
        axes = _from_end(normalize_axis_tuple(axis, x.ndim), x.ndim)
        return self._made(self._module.squeeze(x.values, axes), x.batched)

    def broadcast_to(self, x: Any, shape: tuple[int, ...]) -> Any:
        if not x.batched:
            return self._made(self._module.broadcast_to(x.values, shape), False)
        if x.ndim > len(shape):
            raise ValueError(f"shape {x.shape} does not broadcast to {shape}")
        v = self._aligned(x, len(shape))
        return self._made(self._module.broadcast_to(v, (v.shape[0], *shape)), True)

    def flip(self, x: Any, axis: Any = None) -> Any:
        axes = range(x.ndim) if axis is None else normalize_axis_tuple(axis, x.ndim)
        return self._made(self._module.flip(x.values, _from_end(axes, x.ndim)), x.batched)

    def roll(self, x: Any, shift: Any, axis: Any = None) -> Any:
        if axis is None:
            return self.reshape(self.roll(self.ravel(x), shift, -1), x.shape)
        axes = _from_end(normalize_axis_tuple(axis, x.ndim, allow_duplicate=True), x.ndim)
        return self._made(self._module.roll(x.values, shift, axes), x.batched)

    def repeat(self, x: Any, repeats: Any, axis: int | None = None) -> Any:
        if axis is None:
            x, axis = self.ravel(x), -1
        axis = normalize_axis_index(axis, x.ndim) - x.ndim
        if self._is_batch(repeats):
            if repeats.batched:
                return self.one_by_one(self._module.repeat, x, repeats, axis)
            repeats = repeats.values
        return self._made(self._module.repeat(x.values, repeats, axis), x.batched)

    def concatenate(self, arrays: Any, axis: int | None = 0) -> Any:
        arrays = [self.ravel(x) for x in arrays] if axis is None else list(arrays)
        axis = normalize_axis_index(axis or 0, arrays[0].ndim) - arrays[0].ndim
        count = self._count(*arrays)
        values = [self._spread(x, count) if count else x.values for x in arrays]
        return self._made(self._module.concatenate(values, axis=axis), bool(count))

    def stack(self, arrays: Any, axis: int = 0) -> Any:
        return self.concatenate([self.expand_dims(x, axis) for x in arrays], axis=axis)

    # -- elements

    def take(self, x: Any, indices: Any, axis: int | None = None) -> Any:
        if axis is None:
            x, axis = self.ravel(x), 0
        axis = normalize_axis_index(axis, x.ndim)
        if not (self._is_batch(indices) and indices.batched):
            i = indices.values if self._is_batch(indices) else indices
            return self._made(self._module.take(x.values, i, axis=axis - x.ndim), x.batched)
        return self.getitem(x, (*(slice(None),) * axis, indices))

    def take_along_axis(self, x: Any, indices: Any, axis: int | None = -1) -> Any:
        if axis is None or x.ndim != indices.ndim:
            return self.one_by_one(self._module.take_along_axis, x, indices, axis)
        count = self._count(x, indices)
        axis = normalize_axis_index(axis, x.ndim) - x.ndim
        v, i = (self._spread(a, count) if count else a.values for a in (x, indices))
        return self._made(self._module.take_along_axis(v, i, axis), bool(count))

    def _key(self, key: Any) -> tuple[tuple, int] | None:
        """`key` behind the hidden axis, and the axis of the result that then is the hidden one.

        None if an index array differs from example to example.
        """
        key = key if isinstance(key, tuple) else (key,)
        items: list[Any] = [slice(None)]
        advanced = []
        for item in key:
            if self._is_batch(item):
                if item.batched:
                    return None
                item = item.values
            if not (item is None or item is ... or isinstance(item, slice)):
                advanced.append(len(items))
            items.append(item)
        arrays = [items[i] for i in advanced if not isinstance(items[i], (int, np.integer))]
        if not arrays or advanced[-1] - advanced[0] + 1 == len(advanced):
            return tuple(items), 0
        # index arrays with something between them: what they choose comes first
        return tuple(items), max(1 if a.dtype.kind == "b" else a.ndim for a in arrays)

    def getitem(self, x: Any, key: Any) -> Any:
        if x.batched and (found := self._key(key)):
            items, hidden = found
            out = self._module.getitem(x.values, items)
            return self._made(moveaxis(out, hidden, 0) if hidden else out, True)
        return self.one_by_one(self._module.getitem, x, key)

    def setitem(self, x: Any, key: Any, value: Any) -> None:
        """x[key] = value; `x` gets an array per example where the others have."""
        self._write(self._module.setitem, x, key, value)

    def add_at(self, x: Any, key: Any, value: Any) -> None:
        """x[key] += value, with every repetition of an index counted."""
        self._write(self._module.add_at, x, key, value)

    def _write(self, write: Callable[..., Any], x: Any, key: Any, value: Any) -> None:
        x.diagonal = None
        count = self._count(x, *_leaves([value, key]))
        found = self._key(key)
        if count and not x.batched:
            x.values, x.batched = self._module.copy(self._spread(x, count)), True
        if count and found and not found[1]:
            items, _ = found
            if self._is_batch(value):
                ndim = x.values[items].ndim - 1
                if value.ndim > ndim:  # NumPy lets axes of length 1 go
                    value = self.reshape(value, value.shape[value.ndim - ndim :])
                value = self._aligned(value, ndim)
            write(x.values, items, value)
            return
        for i in range(count or 1):
            one = i if count else None
            into = x.values[i] if count and x.ndim else x.values
            at = self._example(key, one)
            if count and not x.ndim:
                at = (i, *at) if isinstance(at, tuple) else (i, at)
            write(into, at, self._example(value, one))

    # -- products

    def matmul(self, a: Any, b: Any) -> Any:
        if not (self._is_batch(a) and self._is_batch(b)):
            raise ValueError("matmul needs arrays of at least one axis")
        x, y = a.values, b.values
        product = self._module.matmul
        if not (a.batched or b.batched):
            return self._made(product(x, y), False)
        if not (a.ndim and b.ndim) or a.shape[-1] != b.shape[-2 if b.ndim > 1 else 0]:
            raise ValueError(f"matmul: shapes {a.shape} and {b.shape} do not fit")
        if a.diagonal is not None and b.ndim == 2 and not b.batched:
            out = _scaled_rows(a.diagonal, y)
        elif b.diagonal is not None and a.ndim == 2 and not a.batched:
            out = _scaled_rows(b.diagonal, x.swapaxes(-1, -2))
        elif b.ndim <= 2 and not b.batched:  # one product of matrices for all examples
            rows = self._module.reshape(x, (math.prod(x.shape[:-1]), a.shape[-1]))
            out = self._module.reshape(product(rows, y), x.shape[:-1] + b.shape[1:])
        elif a.ndim == 2 and b.ndim == 1 and not a.batched:
            out = product(y, x.swapaxes(-1, -2))
        else:
            ends = (-2,) * (a.ndim == 1) + (-1,) * (b.ndim == 1)
            a = a if a.ndim > 1 else self.expand_dims(a, 0)
            b = b if b.ndim > 1 else self.expand_dims(b, 1)
            ndim = max(a.ndim, b.ndim)
            out = product(self._aligned(a, ndim), self._aligned(b, ndim))
            out = self._module.squeeze(out, ends) if ends else out
        return self._made(out, True)

    def dot(self, a: Any, b: Any) -> Any:
        if 1 <= a.ndim <= 2 and 1 <= b.ndim <= 2:
            return self.matmul(a, b)
        return self.one_by_one(self._module.dot, a, b)

    def einsum(self, subscripts: str, *arrays: Any, **options: Any) -> Any:
        inputs, output = subscripts.split("->")
        batched = any(x.batched for x in arrays)
        if batched:
            letter = next(c for c in _LETTERS if c not in subscripts)
            terms = zip(inputs.split(","), arrays, strict=True)
            inputs = ",".join(letter + term if x.batched else term for term, x in terms)
            output = letter + output
        values = [x.values for x in arrays]
        return self._made(self._module.einsum(f"{inputs}->{output}", *values, **options), batched)

    def exp_sums(self, logits: Any) -> Any:
        return self._by_rows(self._module.exp_sums, logits)

    def cross_entropy(self, *arrays: Any) -> Any:
        return self._by_rows(self._module.cross_entropy, *arrays)

    def cross_entropy_grad(self, *arrays: Any) -> Any:
        return self._by_rows(self._module.cross_entropy_grad, *arrays)

    def _by_rows(self, f: Callable[..., Any], *arrays: Any) -> Any:
        """f, in which every row stands for itself, of the rows of all examples."""
        count = self._count(*arrays)
        if not count:
            return self.one_by_one(f, *arrays)
        values = [self._spread(x, count) for x in arrays]
        flat = [self._module.reshape(v, (count * v.shape[1], *v.shape[2:])) for v in values]
        out = f(*flat)
        out = self._module.reshape(out, (*values[0].shape[:2], *out.shape[1:]))
        return self._made(out, True)


def _scaled_rows(diagonal: tuple[int, Any], matrix: Any) -> Any:
    """The product of rows of a diagonal matrix with `matrix`."""
    start, entries = diagonal
    return matrix[start : start + entries.shape[0]] * entries[:, None]


def _from_end(axes: Iterable[int], ndim: int) -> tuple[int, ...]:
    return tuple(i - ndim for i in axes)


def _leaves(tree: Any) -> Iterator[Any]:
    if isinstance(tree, dict):
        tree = tree.values()
    elif not isinstance(tree, (tuple, list)):
        yield tree
        return
    for item in tree:
        yield from _leaves(item)


_OPERATORS = {
    "add": "add",
    "sub": "subtract",
    "mul": "multiply",
    "truediv": "divide",
    "floordiv": "floor_divide",
    "mod": "remainder",
    "pow": "power",
    "matmul": "matmul",
    "and": "bitwise_and",
    "or": "bitwise_or",
    "xor": "bitwise_xor",
    "lshift": "bitwise_left_shift",
    "rshift": "bitwise_right_shift",
}
_COMPARISONS = {
    "eq": "equal",
    "ne": "not_equal",
    "lt": "less",
    "le": "less_equal",
    "gt": "greater",
    "ge": "greater_equal",
}
_UNARY = {"neg": "negative", "pos": "positive", "abs": "abs", "invert": "bitwise_invert"}


def _operator(name: str, swapped: bool) -> Callable[[BatchedArray, Any], Any]:
    def method(self: BatchedArray, other: Any) -> Any:
        if not isinstance(other, NUMBERS):
            if backends.find_backend(type(other)) is None or level_of(other) > self.level:
                return NotImplemented
            while level_of(other) < self.level:
                other = shared(other)
        pair = (other, self) if swapped else (self, other)
        return getattr(self.xp, name)(*pair)

    return method


for _name, _function in _OPERATORS.items():
    setattr(BatchedArray, f"__{_name}__", _operator(_function, False))
    setattr(BatchedArray, f"__r{_name}__", _operator(_function, True))
for _name, _function in _COMPARISONS.items():
    setattr(BatchedArray, f"__{_name}__", _operator(_function, False))
for _name, _function in _UNARY.items():
    setattr(BatchedArray, f"__{_name}__", lambda self, f=_function: getattr(self.xp, f)(self))
