"""The recorder: a step is run once on arrays that write down what is computed with them.

A `RecordedArray` is one more kind of array, with a backend of its own: it has a concrete value, so
that the step really happens, and is a `Value` of the program that is written. The engine knows
nothing of it. What it reads from outside comes through a few gates that stand while a step is
recorded: the array of a Tensor, the gradient of a leaf, the numbers of a random generator, and the
backends that new data come from.

Nothing outside is written before the recording has succeeded: a write makes a new value, and what
was captured gets its own at the end.
"""

from __future__ import annotations

import functools
import itertools
import math
import operator
import random as python_random
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from types import ModuleType
from typing import Any, ClassVar, NoReturn

import numpy as np

from .. import backends, custom_kernels, optim, places, random, sweeps
from ..backends import Backend, Device, Namespace
from ..batches import _COMPARISONS, _OPERATORS, _UNARY, BatchedArray, ByFunctions
from ..fusion import real_dtype
from ..rules import NUMBERS, as_array
from ..symbols import working_dtype
from ..tape import Leaf, owner_of
from ..tape import recording as recording_tape
from ..tensor import Tensor
from .program import Input, Instruction, Note, Value, perform, values_in


class CompileError(RuntimeError):
    """What a compiled function does would make its recording wrong; says where, and the mend."""


_PHASES = {sweeps.__file__: "backward", optim.__file__: "update"}

# Results whose shape depends on what is in the arrays.
_OF_ANY_SHAPE = frozenset(
    "argwhere bincount compress extract flatnonzero nonzero unique unique_all unique_counts "
    "unique_inverse unique_values".split()
)


def refuse(what: str, mend: str) -> NoReturn:
    """Raise a `CompileError` that names the user's line."""
    file, line = places.user()
    error = CompileError(f"{file}:{line}: inside gpugrad.compile {what}; {mend}")
    if (trace := current()) is not None and not _is_trial():
        trace.refused = trace.refused or error
    raise error


def _is_trial() -> bool:
    """Whether the twin of a kernel runs on what is no array, only to see what it does."""
    frame: Any = sys._getframe(1)
    while frame is not None and frame.f_code.co_filename != custom_kernels.__file__:
        frame = frame.f_back
    return frame is not None


def refuse_escaped() -> NoReturn:
    """Raise a `CompileError` for a recorded array that is used when its recording is over."""
    file, line = places.user()
    raise CompileError(
        f"{file}:{line}: an array that was made inside a compiled function is used outside of it, "
        "where it has no value; return it from the function instead of storing it elsewhere"
    )


# NumPy's functions that look at shapes and dtypes alone, and those that write their argument
_OF_SHAPES = frozenset("can_cast iscomplexobj isrealobj ndim result_type shape size".split())
_WRITERS = frozenset("fill_diagonal place put put_along_axis putmask".split())


class RecordedArray(ByFunctions):
    """An array that is being computed by a step that is recorded.

    A view knows the array it is a view of, and is taken again after that was written.
    """

    __slots__ = ("__weakref__", "_array", "_value", "again", "parent", "seen", "trace", "version")
    __hash__ = None  # type: ignore[assignment]

    inner: ClassVar[type]
    xp: ClassVar[Functions]

    def __init__(self, trace: Trace, value: Value, array: Any) -> None:
        self.trace = trace
        self._value = value
        self._array = array
        self.version = 0  # of one that is no view: how often it was written
        self.seen = 0  # the version of the root that this view shows
        self.parent: RecordedArray | None = None
        self.again: Callable[[RecordedArray], RecordedArray] | None = None

    # ---- its value now

    @property
    def root(self) -> RecordedArray:
        """What it is in the end a view of; itself if it is none."""
        x = self
        while x.parent is not None:
            x = x.parent
        return x

    @property
    def value(self) -> Value:
        self._refresh()
        return self._value

    @property
    def array(self) -> Any:
        """The concrete array."""
        self._refresh()
        return self._array

    def _refresh(self) -> None:
        self.trace.check_open()
        if self.parent is not None and self.root.version != self.seen:
            assert self.again is not None
            new = self.again(self.parent)
            self._value, self._array, self.seen = new._value, new._array, self.root.version

    def _take(self, name: str, new: RecordedArray) -> RecordedArray:
        """Write `new`, what a function gave, if it fits."""
        if new.shape != self.shape or not np.can_cast(new.dtype, self.dtype, "same_kind"):
            raise TypeError(
                f"{name}: {new.dtype} {new.shape} does not go into {self.dtype} {self.shape}"
            )
        self.write(new.astype(self.dtype, copy=False))
        return self

    def write(self, new: RecordedArray) -> None:
        """Take the value of `new`, of the same shape and dtype, as if it were written in place."""
        if not getattr(self._array.flags, "writeable", True):
            raise ValueError("assignment destination is read-only")
        if self.parent is not None:
            _write_through(self, new)
            return
        self._value, self._array = new.value, new.array
        self.version += 1

    # ---- what the engine asks of an array

    @property
    def shape(self) -> tuple[int, ...]:
        return self._value.shape

    @property
    def ndim(self) -> int:
        return len(self._value.shape)

    @property
    def size(self) -> int:
        return math.prod(self._value.shape)

    @property
    def dtype(self) -> Any:
        return self._value.dtype

    @property
    def itemsize(self) -> int:
        return self._value.dtype.itemsize

    @property
    def nbytes(self) -> int:
        return self._value.nbytes

    @property
    def base(self) -> Any:
        return self.parent

    def astype(self, dtype: Any, copy: bool = True) -> Any:
        dtype = np.dtype(dtype)
        return self if dtype == self.dtype and not copy else self.xp.astype(self, dtype)

    def transpose(self, *axes: Any) -> Any:
        order: Any = axes or None
        if len(axes) == 1 and not isinstance(axes[0], int):
            order = axes[0]
        return self.xp.transpose(self, order)

    def copy(self) -> Any:
        return self.xp.copy(self)

    def fill(self, value: Any) -> None:
        self[...] = value

    def __getattr__(self, name: str) -> Any:
        """A method: the function of that name."""
        if name.startswith("__") or not callable(getattr(self.inner, name, None)):
            raise AttributeError(f"an array that is recorded has no {name!r}")
        if name in ("item", "tolist", "tobytes", "get"):
            return getattr(self.read(), name)
        return functools.partial(getattr(self.xp, name), self)

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError("len() of an array without axes")
        return self.shape[0]

    def __iter__(self) -> Iterator[Any]:
        return (self[i] for i in range(len(self)))

    def read(self) -> Any:
        """The concrete array, for code that looks at its values.

        Raises:
            CompileError: if it depends on more than constants.
        """
        if not self.trace.is_static(self.value):
            refuse(
                "a value is read (a branch on one, float(x), .item(), print(x), a NumPy array of "
                "it), which later calls would not do",
                "use gpugrad.where for a branch, and return what is to be looked at",
            )
        return self.array

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        return np.array(self.read(), dtype=dtype, copy=copy)

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **options: Any) -> Any:
        if any(isinstance(x, (Tensor, BatchedArray)) for x in inputs):
            return NotImplemented
        name = ufunc.__name__ if method == "__call__" else f"{ufunc.__name__}.{method}"
        if getattr(np, ufunc.__name__, None) is not ufunc:
            name = f"special.{name}"
        if method == "at" or len(options.get("out", ())) > 1:
            refuse(f"numpy.{name} is called that way", "write it with x[i] = v or gpugrad")
        if "out" in options:
            (options["out"],) = options["out"]
        return _call(type(self), name, *inputs, **options)

    def __array_function__(self, func: Any, kinds: Any, args: Any, options: Any) -> Any:
        path = f"{func.__module__}.{func.__name__}".removeprefix("numpy.")
        if path in _OF_SHAPES:
            return func(*_map(_concrete, args), **options)
        if path in _WRITERS:
            refuse(f"numpy.{path} writes an array", "write it with x[i] = v")
        return operator.attrgetter(path)(self.xp)(*args, **options)

    def _refuse(self, *_: Any, **__: Any) -> NoReturn:
        self.read()
        refuse("an array is taken out", "return it instead")

    __dlpack__ = __dlpack_device__ = __reduce__ = _refuse


@functools.cache
def _recorded(inner: Any) -> type[RecordedArray]:
    """The type of recorded arrays of type `inner`."""
    made: Any = type("RecordedArray", (RecordedArray,), {"__slots__": ()})
    made.inner = inner
    made.xp = Functions(made, real_of(inner).xp, "")
    return made


def _write_through(view: RecordedArray, new: RecordedArray) -> None:
    """Write `new` into the elements of the root of `view` that it shows."""
    root, steps = view, []
    while root.parent is not None:
        steps.append(root.again)
        root = root.parent
    trace, xp = view.trace, view.xp
    numbers = trace.constant(np.arange(root.size).reshape(root.shape), backends.device_of(root))
    for step in reversed(steps):
        assert step is not None
        numbers = step(numbers)
    flat = trace.call("setitem", xp.reshape(root, (-1,)), numbers, new)
    root.write(xp.reshape(flat, root.shape))


# ---- the functions


class Functions(Namespace):
    """The functions of an array library on recorded arrays: each call is written down."""

    def __init__(self, array_type: type[RecordedArray], inside: Any, path: str) -> None:
        super().__init__(inside)
        self._type = array_type
        self._path = path
        if not path:
            self.special = Functions(array_type, inside.special, "special.")

    def __getattr__(self, name: str) -> Any:
        f = getattr(self._module, name) if name != "astype" else np.ndarray.astype
        path = self._path + name
        value: Any
        if isinstance(f, (ModuleType, Namespace)):
            value = Functions(self._type, f, path + ".")
        elif isinstance(f, type) or not callable(f):
            value = f
        else:
            value = functools.partial(_call, self._type, path)
        setattr(self, name, value)
        return value

    def ones_like(self, x: Any, dtype: Any = None) -> Any:
        """Ones: of the values of `x` nothing is needed."""
        return self.ones(x.shape, dtype=dtype or x.dtype)

    def zeros_like(self, x: Any, dtype: Any = None) -> Any:
        """Zeros, likewise."""
        return self.zeros(x.shape, dtype=dtype or x.dtype)

    def setitem(self, x: Any, key: Any, value: Any) -> None:
        """x[key] = value."""
        x = _inside(x)
        x.write(x.trace.call("setitem", x, key, value))

    def add_at(self, x: Any, key: Any, value: Any) -> None:
        """x[key] += value, with every repetition of an index counted."""
        x = _inside(x)
        x.write(x.trace.call("add_at", x, key, value))

    def copyto(self, x: Any, value: Any) -> None:
        """x[...] = value."""
        self.setitem(x, ..., value)

    def ascontiguousarray(self, x: Any) -> Any:
        """`x` itself: how a value lies in memory is decided later."""
        return x

    def sgd_step(self, x: Any, velocity: Any, grad: Any, lr: Any, momentum: float) -> None:
        """As the kernel: gradient descent, here as plain array operations."""
        x, velocity, grad, lr = map(x.trace.lifted, (x, velocity, grad, lr))
        work = working_dtype(x.dtype)
        grad = grad.astype(work, copy=False)
        if velocity is not None:
            grad = velocity.astype(work, copy=False) * momentum + grad
            velocity.write(grad.astype(velocity.dtype, copy=False))
        step = grad * lr.astype(real_dtype(work), copy=False)
        x.write((x.astype(work, copy=False) - step).astype(x.dtype, copy=False))

    def adam_step(
        self,
        x: Any,
        m: Any,
        v: Any,
        grad: Any,
        lr: Any,
        beta1: float,
        beta2: float,
        eps: float,
        powers: Any,
    ) -> None:
        """As the kernel: Adam, here as plain array operations."""
        x, m, v, grad, lr, powers = map(x.trace.lifted, (x, m, v, grad, lr, powers))
        work = working_dtype(x.dtype)
        grad = grad.astype(work, copy=False)
        mean, square = (a.astype(work, copy=False) for a in (m, v))
        mean = mean + (grad - mean) * (1 - beta1)
        square = square + (grad * grad - square) * (1 - beta2)
        m.write(mean.astype(m.dtype, copy=False))
        v.write(square.astype(v.dtype, copy=False))
        bias1, bias2 = (1 - powers[i : i + 1].reshape(()) for i in (0, 1))  # views, no copies
        root = self.sqrt(square / bias2.astype(work)) + eps
        step = mean / root * (lr / bias1).astype(work)
        x.write((x.astype(work, copy=False) - step).astype(x.dtype, copy=False))


def _inside(x: Any) -> Any:
    """An array that is written, of which the recording may not have heard yet."""
    trace = current()
    if trace is None:
        refuse_escaped()
    return trace.lifted(x)


def _call(array_type: type[RecordedArray], function: str, *args: Any, **options: Any) -> Any:
    trace = current()
    if trace is None:
        refuse_escaped()
    return trace.call(function, *args, library=array_type, **options)


def _operator(name: str, swapped: bool) -> Callable[[RecordedArray, Any], Any]:
    def method(self: RecordedArray, other: Any) -> Any:
        if isinstance(other, (Tensor, list, tuple)):
            return NotImplemented
        if type(other) not in NUMBERS and backends.find_backend(type(other)) is None:
            return NotImplemented
        if getattr(other, "level", 0):  # a batch of recorded arrays
            return NotImplemented
        pair = (other, self) if swapped else (self, other)
        return getattr(self.xp, name)(*pair)

    return method


def _in_place(name: str) -> Callable[[RecordedArray, Any], RecordedArray]:
    def method(self: RecordedArray, other: Any) -> RecordedArray:
        return self._take(name, getattr(self.xp, name)(self, other))

    return method


def _reader(name: str) -> Callable[[RecordedArray], Any]:
    return lambda self: getattr(self.read(), name)()


for _name in ("__bool__", "__float__", "__int__", "__index__", "__complex__"):
    setattr(RecordedArray, _name, _reader(_name))
for _name, _function in _OPERATORS.items():
    setattr(RecordedArray, f"__{_name}__", _operator(_function, False))
    setattr(RecordedArray, f"__r{_name}__", _operator(_function, True))
    setattr(RecordedArray, f"__i{_name}__", _in_place(_function))
for _name, _function in _COMPARISONS.items():
    setattr(RecordedArray, f"__{_name}__", _operator(_function, False))
for _name, _function in _UNARY.items():
    setattr(RecordedArray, f"__{_name}__", lambda self, f=_function: getattr(self.xp, f)(self))


# ---- the backend


class RecordingBackend(Backend):
    """Stands for a backend while a step is recorded; in other threads and tasks it is that one."""

    def __init__(self, real: Backend) -> None:
        self.real = real
        self.kind = real.kind
        self.runs_kernels = real.runs_kernels
        self._type = _recorded(real.array_type)
        backends._by_type[self._type] = self

    @property
    def array_type(self) -> Any:  # type: ignore[override]
        return self.real.array_type if current() is None else self._type

    @property
    def array_types(self) -> Any:  # type: ignore[override]
        return (*self.real.array_types, self._type)

    @property
    def xp(self) -> Any:  # type: ignore[override]
        return self.real.xp if current() is None else self._type.xp

    def __getattribute__(self, name: str) -> Any:
        if name in _OWN or name.startswith("_"):
            return object.__getattribute__(self, name)
        return getattr(object.__getattribute__(self, "real"), name)

    def functions(self, array_type: type) -> Any:
        return self._type.xp if array_type is self._type else self.real.xp

    def device_of(self, array: Any) -> Device:
        return array.value.device if type(array) is self._type else self.real.device_of(array)

    def asarray(self, obj: Any, dtype: Any, device: Device, copy: bool | None) -> Any:
        trace = current()
        if trace is None:
            return self.real.asarray(obj, dtype, device, copy)
        if not isinstance(obj, RecordedArray):
            library = backends.find_backend(type(obj))
            if library is None:
                return self.constant(obj, device)
            obj = trace.lifted(as_array(obj))
        if obj.value.device != device:
            if trace.is_static(obj.value):
                obj = trace.constant(obj.array, device)
            else:
                refuse(
                    f"an array is copied from {obj.value.device} to {device}",
                    "move it there before, and give it to the compiled function as an argument",
                )
        new = obj.astype(obj.dtype if dtype is None else dtype, copy=False)
        return new.copy() if copy and new is obj else new

    def constant(self, data: Any, device: Device) -> Any:
        trace = current()
        if trace is None:
            return self.real.constant(data, device)
        return trace.constant(data, device)

    def elementwise_kernel(self, *texts: str) -> Callable[..., Any]:
        kernel = self.real.elementwise_kernel(*texts)

        def call(*arrays: Any) -> Any:
            return _call(self._type, "kernel", kernel, *arrays)

        return call

    def to_host(self, array: Any) -> Any:
        if type(array) is not self._type:
            return self.real.to_host(array)
        # on the CPU this leads nowhere else yet
        return array if self.kind == "cpu" else self.real.to_host(array.read())

    def to_dlpack(self, array: Any, **options: Any) -> Any:
        return array._refuse() if type(array) is self._type else self.real.to_dlpack(array)

    def ranges(self, rows: int) -> Any:
        if current() is None:
            return self.real.ranges(rows)
        refuse(
            "detect_anomaly looks at values, which are not there yet",
            "put the block around the call: the function then runs as it is written",
        )


_OWN = frozenset(
    "array_type array_types asarray constant device_of elementwise_kernel functions kind real "
    "ranges runs_kernels to_dlpack to_host xp".split()
)


# ---- the recording

_trace: ContextVar[Trace | None] = ContextVar("gpugrad_trace", default=None)
current = _trace.get


class Trace:
    """What has been written down so far.

    Attributes:
        inputs: in the order in which they were met.
        instructions: in order.
        gradients: leaf -> its `.grad` now; `first_gradients` what it was where that was asked for.
    """

    def __init__(self) -> None:
        self.inputs: list[Input] = []
        self.instructions: list[Instruction] = []
        self.gradients: dict[Leaf, Tensor | None] = {}
        self.first_gradients: dict[Leaf, Tensor | None] = {}
        self.roots: list[tuple[Input, RecordedArray]] = []
        self.arrays: dict[Value, Any] = {}  # of inputs
        self.tensors: list[tuple[Tensor, Any]] = []  # whose arrays were captured
        self.arguments: dict[int, int] = {}  # id of a Tensor inside -> its number
        self.generators: set[random.Generator] = set()  # that were made inside
        self.rated: dict[int, Any] = {}  # optimisers whose learning rate was set
        self.own: set[Leaf] = set()  # leaves that were made inside
        self.refused: CompileError | None = None  # also if the function went on
        self._known: dict[int, tuple[Any, RecordedArray]] = {}  # id of an array or Tensor
        self._static: set[Value] = set()
        self._draws: list[tuple[tuple, RecordedArray]] = []
        self._states: dict[random.Generator, Any] = {}  # of those drawn from, before
        self._replayed: Iterator[tuple[tuple, RecordedArray]] | None = None
        self._runs = itertools.count(1)
        self._run = 0
        self._is_open = True

    def check_open(self) -> None:
        """Raise where a recorded array is used when its recording is over."""
        if not self._is_open:
            refuse_escaped()

    def close(self) -> None:
        """No recorded array can be used any more; let go of all but the draws' generators."""
        states = self._states
        self.__init__()  # type: ignore[misc]
        self._is_open, self._states = False, states

    # -- from arrays to values

    def enter(self, kind: str, array: Any, source: Any) -> RecordedArray:
        """The recorded array of one more input."""
        backend = real_of(type(array))
        if type(array) is not backend.array_type:  # of a subclass
            array = backend.asarray(array, None, backend.device_of(array), None)
        if not array.dtype.isnative:
            refuse(
                f"an array has the bytes of another machine (dtype {array.dtype.str})",
                "convert it before: x.astype(x.dtype.newbyteorder('='))",
            )
        value = Value(array.shape, array.dtype, backend.device_of(array))
        made = _recorded(backend.array_type)(self, value, array)
        self.inputs.append(Input(value, kind, source))
        self.roots.append((self.inputs[-1], made))
        self.arrays[value] = array
        return made

    def argument(self, given: Any, number: int) -> Any:
        """What an argument is inside: an array or Tensor of its own.

        Of its own, so that it is not taken for what the function closes over when both are the
        same object in the call that is recorded.
        """
        if not isinstance(given, Tensor):
            return self.enter("argument", given, number)
        x = self.enter("argument", _data.__get__(given), number)
        outside: Any = given.node
        node = None
        if outside is not None:
            node = Leaf(outside.shape, outside.dtype)
            self.own.discard(node)
            _grad.__set__(node, _grad.__get__(outside))
            node.hooks = outside.hooks
        inside = Tensor(x, node)
        self.arguments[id(inside)] = number
        return inside

    def know(self, held: Any, x: RecordedArray) -> None:
        """`held`, an array or a Tensor, is `x` inside."""
        self._known[id(held)] = held, x

    def constant(self, data: Any, device: Device) -> RecordedArray:
        """The recorded array of data that are the same in every call."""
        array = real_of_kind(device.kind).constant(data, device)
        x = self.enter("constant", array, array)
        self._static.add(x.value)
        return x

    def is_static(self, value: Value) -> bool:
        """Whether `value` depends on constants only, so that it may be read."""
        return value in self._static

    def lifted(self, x: Any) -> Any:
        """What `x` is inside: an array from outside is captured, all else stays as it is."""
        if isinstance(x, (RecordedArray, np.generic)) or not _is_of_library(type(x)):
            return x
        if id(x) not in self._known:
            self.know(x, self.enter("captured", x, x))
        return self._known[id(x)][1]

    def data_of(self, tensor: Tensor) -> Any:
        """What the array of `tensor` is inside."""
        if id(tensor) in self._known:
            return self._known[id(tensor)][1]
        array = _data.__get__(tensor)
        if _is_inside(array):
            return array
        if not tensor.is_leaf and recording_tape():
            refuse(
                "a tensor is used that was computed outside and requires a gradient",
                "give it as an argument (a derivative from outside runs the function itself), or "
                "detach it before the call: y = x.detach()",
            )
        x = self.lifted(array)
        if x is not array:
            self.know(tensor, x)
            self.tensors.append((tensor, array))
        return x

    def gradient_of(self, leaf: Leaf) -> Tensor | None:
        """The `.grad` of `leaf` inside."""
        if leaf not in self.gradients:
            found = self.gradients[leaf] = self.first_gradients[leaf] = _grad.__get__(leaf)
            if found is not None and not isinstance(_data.__get__(found), RecordedArray):
                self.know(found, self.enter("gradient", _data.__get__(found), leaf))
        return self.gradients[leaf]

    # -- from calls to instructions

    def call(
        self,
        function: str,
        *args: Any,
        library: type[RecordedArray] | None = None,
        **options: Any,
    ) -> Any:
        """Perform a function on the concrete arrays, and write it down."""
        self.check_open()
        if (
            function.rpartition(".")[2] in _OF_ANY_SHAPE
            or (function == "getitem" and _has_mask(args[1]))
            or (function == "repeat" and _is_varying(args[1]))
        ):
            refuse(
                f"{function} gives an array whose shape depends on values",
                "choose with gpugrad.where, or compute this outside",
            )
        args, options = _map(self.lifted, (args, options))
        if (into := options.pop("out", None)) is not None:
            return into._take(function, self.call(function, *args, library=library, **options))
        backend = real_of((library or type(args[0])).inner)
        first = next(values_in(_map(_value, (args, options))), None)
        with nullcontext() if first is None else backend.scope(first.device):
            out = perform(backend.xp, function, *_map(_concrete, (args, options)))
        return self.note(function, args, options, out)

    def note(self, function: str, args: tuple, options: dict[str, Any], out: Any) -> Any:
        """`out`, what a function gave for recorded arrays, as recorded arrays."""
        several = isinstance(out, (tuple, list))
        arrays = [as_array(x) for x in (out if several else (out,))]
        if any(backends.find_backend(type(x)) is None for x in arrays):
            refuse(
                f"a value is read ({function} gives a {type(out).__name__})",
                "use gpugrad.where for a branch, and return what is to be looked at",
            )
        first = args[0] if args and isinstance(args[0], RecordedArray) else None
        if first is not None and arrays[0] is first.array and not several:
            return first
        made = [self._made(x) for x in arrays]
        values = tuple(x.value for x in made)
        given, named = _map(_value, (args, options))
        operands = values_in((given, named))
        if function != "draw" and all(value in self._static for value in operands):
            self._static.update(values)
        self.instructions.append(
            Instruction(function, given, named, values, several, self._place())
        )
        if several:
            return getattr(type(out), "_make", type(out))(made)
        (result,) = made
        if first is not None and owner_of(arrays[0]) is owner_of(first.array):
            result.parent, result.seen = first, first.root.version
            result.again = lambda x: self.call(function, x, *args[1:], **options)
        return result

    def _made(self, array: Any) -> RecordedArray:
        backend = real_of(type(array))
        value = Value(array.shape, array.dtype, backend.device_of(array))
        return _recorded(backend.array_type)(self, value, array)

    def _place(self) -> Note:
        """Where the call comes from, by the frames below it."""
        phase, operation = "forward", ""
        for frame in places.frames():
            if not operation and frame.f_code in places.sweeps:
                operation = getattr(frame.f_locals["node"].op, "name", "")  # a leaf has none
            if phase == "forward":
                phase = _PHASES.get(frame.f_code.co_filename, phase)
        return Note(phase, operation, frame.f_code.co_filename, frame.f_lineno, self._run)

    # -- random numbers

    def draw(self, generator: random.Generator, name: str, args: tuple) -> Tensor:
        """A draw of a generator: an instruction that is never left out, merged or moved."""
        device = generator.device
        own = random._generators.get(device) is generator
        if generator in self.generators and not own:
            refuse(
                "a random generator is made and drawn from, which starts anew in every call",
                "make it outside, or use the functions of gpugrad.random",
            )
        asked: Any = (device if own else generator, name, *_map(self.lifted, args))
        if self._replayed is not None:
            drawn, x = next(self._replayed, (None, None))
            if drawn is None or x is None or drawn[:2] != asked[:2]:
                raise RuntimeError("checkpoint: it drew other random numbers when it was run again")
            return Tensor(x, None)
        # cuRAND does not tell where it is in its stream; to ask would start another one
        if generator not in self._states and generator.device.kind == "cpu":
            self._states[generator] = generator._state.get_state()
        token = _trace.set(None)  # the generator makes a Tensor of its own
        try:
            drawn_array = _draw(generator, name, *_map(_concrete, asked[2:])).data
        finally:
            _trace.reset(token)
        x = self.note("draw", asked, {}, drawn_array)
        self._draws.append((asked, x))
        return Tensor(x, None)

    def take_back_draws(self) -> None:
        """The generators are where they were before: nothing was drawn."""
        for generator, state in self._states.items():
            generator._state.set_state(state)

    def drawn(self) -> int:
        """How often was drawn: in place of the states of the generators."""
        return len(self._draws)

    @contextmanager
    def redrawn(self, since: int) -> Iterator[None]:
        """Inside it the draws after the first `since` ones are repeated."""
        before = self._replayed, self._run
        self._replayed, self._run = iter(self._draws[since:]), next(self._runs)
        try:
            yield
        finally:
            self._replayed, self._run = before


def _has_mask(key: Any) -> bool:
    items = key if isinstance(key, tuple) else (key,)
    return any(_is_varying(x) and x.dtype.kind == "b" for x in items)


def _is_varying(x: Any) -> bool:
    return isinstance(x, RecordedArray) and not x.trace.is_static(x.value)


def _concrete(x: Any) -> Any:
    return x.array if isinstance(x, RecordedArray) else x


def _value(x: Any) -> Any:
    return x.value if isinstance(x, RecordedArray) else x


def _map(f: Callable[[Any], Any], tree: Any) -> Any:
    """`tree` with `f` applied to what is no tuple, list or dict in it."""
    if isinstance(tree, (tuple, list)):
        return getattr(type(tree), "_make", type(tree))([_map(f, x) for x in tree])
    if isinstance(tree, dict):
        return {name: _map(f, x) for name, x in tree.items()}
    return f(tree)


# ---- the gates

_data: Any = Tensor.__dict__["data"]
_grad: Any = Leaf.__dict__["grad"]
_requires_grad: Any = Tensor.__dict__["requires_grad"]
_lr: Any = optim._Optimizer.__dict__["lr"]
_numpy: Any = Tensor.numpy
_draw: Any = random.Generator._draw
_make_generator: Any = random.Generator.__init__
_seed = random.seed
_states, _replayed = random.states, random.replayed


def outside_data(tensor: Tensor) -> Any:
    """The array of a Tensor as it is, also while a step is recorded."""
    return _data.__get__(tensor)


def _get_data(self: Tensor) -> Any:
    trace = current()
    return _data.__get__(self) if trace is None else trace.data_of(self)


def _set_data(self: Tensor, array: Any) -> None:
    if (trace := current()) is not None:
        try:
            before = _data.__get__(self)
        except AttributeError:  # it is being made
            before = array = trace.lifted(array)
        if before is not array and _is_from_outside(self):
            refuse(
                "a tensor from outside is given other memory (by a write that is on the tape)",
                "change a copy of it, x = x.copy(), or write inside gpugrad.no_grad()",
            )
    _data.__set__(self, array)


def _is_inside(array: Any) -> bool:
    while isinstance(array, BatchedArray):
        array = array.values
    return isinstance(array, RecordedArray)


def _is_from_outside(tensor: Tensor) -> bool:
    trace = current()
    if trace is not None and id(tensor) in trace.arguments:
        return True
    return not _is_inside(_data.__get__(tensor))


def _set_requires_grad(self: Tensor, value: bool) -> None:
    if current() is not None and _is_from_outside(self) and bool(value) != self.requires_grad:
        refuse(
            "requires_grad of a tensor from outside is set",
            "set it before the call, or make a tensor inside: x = x.copy()",
        )
    _requires_grad.__set__(self, value)


def _get_lr(self: Any) -> Any:
    # a number would stay the same in every call; the array is written by the setter
    trace = current()
    return _lr.__get__(self) if trace is None else Tensor(trace.lifted(self._rates[0]).copy(), None)


def _set_lr(self: Any, value: Any) -> None:
    _lr.__set__(self, value)
    if (trace := current()) is not None:
        trace.rated[id(self)] = self
        self._lr = None  # the array is what holds it from now on


def _gated_numpy(self: Tensor) -> Any:
    if current() is not None and isinstance(self.data, RecordedArray):
        return self.data.read()
    return _numpy(self)


def _get_grad(self: Leaf) -> Tensor | None:
    trace = current()
    return _grad.__get__(self) if trace is None or self in trace.own else trace.gradient_of(self)


def _set_grad(self: Leaf, value: Tensor | None) -> None:
    trace = current()
    if trace is not None:
        if not _is_set(self):  # it is being made
            trace.own.add(self)
        if self not in trace.own:
            trace.gradients[self] = value
            return
    _grad.__set__(self, value)


def _is_set(leaf: Leaf) -> bool:
    try:
        _grad.__get__(leaf)
    except AttributeError:
        return False
    return True


def _gated_draw(self: random.Generator, name: str, *args: Any) -> Tensor:
    trace = current()
    return _draw(self, name, *args) if trace is None else trace.draw(self, name, args)


def _gated_making(self: random.Generator, *args: Any, **options: Any) -> None:
    _make_generator(self, *args, **options)
    if (trace := current()) is not None:
        trace.generators.add(self)


def _gated_seed(seed: int) -> None:
    if current() is not None:
        refuse("the random numbers are seeded, which later calls would not do", "seed them before")
    _seed(seed)


def _gated_states() -> Any:
    trace = current()
    return _states() if trace is None else trace.drawn()


def _gated_replayed(saved: Any) -> Any:
    trace = current()
    return _replayed(saved) if trace is None else trace.redrawn(saved)


def _gated_foreign(f: Callable[..., Any], name: str) -> Callable[..., Any]:
    def gated(*args: Any, **options: Any) -> Any:
        if current() is not None:
            refuse(
                f"{name} draws a number that would be the same in every call",
                "use gpugrad.random, or draw before, and give it as an argument",
            )
        return f(*args, **options)

    return gated


_FOREIGN = tuple(
    (module, name, _gated_foreign(f, f"{module.__name__}.{name}"))
    for module in (np.random, python_random)
    for name, f in vars(module).items()
    if name in module.__all__
    and not isinstance(f, (type, ModuleType))
    and name not in ("default_rng", "get_state", "getstate", "seed", "set_state", "setstate")
)
_GATES: tuple[tuple[Any, str, Any], ...] = (
    *_FOREIGN,
    (Tensor, "data", property(_get_data, _set_data)),
    (Tensor, "requires_grad", property(_requires_grad.fget, _set_requires_grad)),
    (Tensor, "numpy", _gated_numpy),
    (optim._Optimizer, "lr", property(_get_lr, _set_lr)),
    (Leaf, "grad", property(_get_grad, _set_grad)),
    (random.Generator, "_draw", _gated_draw),
    (random.Generator, "__init__", _gated_making),
    (random, "seed", _gated_seed),
    (random, "states", _gated_states),
    (random, "replayed", _gated_replayed),
)
_lock = threading.RLock()


@functools.cache
def _recording_backend(real: Backend) -> RecordingBackend:
    return RecordingBackend(real)


def real_of(array_type: Any) -> Any:
    """The backend of a type of arrays, also while a step is recorded."""
    backend = backends.find_backend(array_type)
    return backend.real if isinstance(backend, RecordingBackend) else backend


def real_of_kind(kind: str) -> Any:
    """The backend that serves devices of `kind`, also while a step is recorded."""
    backend = backends.backend_of_kind(kind)
    return backend.real if isinstance(backend, RecordingBackend) else backend


def _is_of_library(array_type: type) -> bool:
    """Whether it is a type of real arrays: not of batches or symbols."""
    backend = real_of(array_type)
    return (
        backend is not None
        and backend.kind in backends._by_kind
        and (backend is real_of_kind(backend.kind))
    )


@contextmanager
def recording() -> Iterator[Trace]:
    """Inside it, in this thread or task, what is computed is written into the `Trace` it gives."""
    with _lock:
        trace = Trace()
        before = [(owner, name, owner.__dict__[name]) for owner, name, _ in _GATES]
        kinds, types = backends._by_kind, backends._by_type
        real = dict(kinds)
        for kind, backend in real.items():
            kinds[kind] = types[backend.array_type] = _recording_backend(backend)
        for owner, name, gate in _GATES:
            setattr(owner, name, gate)
        token = _trace.set(trace)
        try:
            yield trace
        finally:
            _trace.reset(token)
            for owner, name, member in before:
                setattr(owner, name, member)
            kinds.update(real)
            for array_type, found in list(types.items()):
                if isinstance(found, RecordingBackend) and not _is_recorded(array_type):
                    types[array_type] = found.real


def _is_recorded(array_type: type) -> bool:
    return issubclass(array_type, RecordedArray)
