"""Backends and devices: an array brings its backend, new data goes to the default device.

A backend module, named after its array library, defines `load() -> Backend`.
It is imported when an array of that library, or a device of its kind, is first met; nothing here
names a GPU library.
"""

from __future__ import annotations

import importlib
import os
import pkgutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from .. import places

if TYPE_CHECKING:
    from pathlib import Path

    from ..cuda.blas import Blas
    from ..cuda.graph import Graph
    from ..cuda.ranges import Ranges
    from ..cuda.spans import Span
    from ..fusion import Fusion, Kernel

KINDS = ("cpu", "cuda")


class DeviceError(RuntimeError):
    """A device that cannot be used; the message says why, and what would mend it."""


class OutOfMemoryError(MemoryError):
    """There is no memory for a result; the message says which operation asked for how much, where.

    Tensors, the tape, gradients and the state of optimisers are as they were. A backward sweep, and
    a derivative of a function, has let go of what it had made; what a forward pass computed is
    held by the frames in the traceback until the exception is dropped.
    """


class TransferError(RuntimeError):
    """A copy between devices, or a wait for one, inside `gpugrad.no_transfers()`."""


class Memory(NamedTuple):
    """What `gpugrad.memory` tells, in bytes.

    Attributes:
        used: in use by arrays now.
        peak: the most that was in use.
        pool: held for arrays, in use or kept for the next ones.
    """

    used: int
    peak: int
    pool: int


class Device:
    """A place where arrays live: `"cpu"`, `"cuda:0"`, `"cuda:1"`, ...

    Equal to its own name. Used as a context manager it is the default device inside the block.
    """

    __slots__ = ("index", "kind")

    def __init__(self, kind: str, index: int = 0) -> None:
        self.kind = kind
        self.index = index

    def __str__(self) -> str:
        return self.kind if self.kind == "cpu" else f"{self.kind}:{self.index}"

    def __repr__(self) -> str:
        return f"gpugrad.device({str(self)!r})"

    def __eq__(self, other: object) -> bool:
        if isinstance(other, str):
            try:
                other = parse(other)
            except ValueError:
                return False
        if not isinstance(other, Device):
            return NotImplemented
        return self.kind == other.kind and self.index == other.index

    def __hash__(self) -> int:
        return hash(str(self))

    def __enter__(self) -> Device:
        _overrides.set((*_overrides.get(), self))
        return self

    def __exit__(self, *exc: object) -> None:
        _overrides.set(_overrides.get()[:-1])


class Namespace:
    """The functions of one array library, under the standard's names.

    `overrides` win; every other name is looked up in `module` once and then kept. Special
    functions have a namespace of their own.
    """

    special: Any

    def __init__(self, module: Any, **overrides: Any) -> None:
        self._module = module
        self.__dict__.update(overrides)

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._module, name)
        setattr(self, name, value)
        return value


class About(NamedTuple):
    """What is known of a device.

    Attributes:
        name: its name for people, such as its model.
        details: what else people want to know of it.
        emulated: whether the CPU plays the device: its times mean nothing.
        caches: where what was compiled for it is kept.
        lacks: the libraries that work on it may need and that are not there -> the mend.
    """

    name: str
    details: str
    emulated: bool
    caches: tuple[Path, ...]
    lacks: dict[str, str]


class Backend:
    """What the engine must know of an array library. `xp` holds its functions on raw arrays."""

    kind: str
    array_type: type
    array_types: tuple[type, ...]  # with the library's scalar types and subclasses of its arrays
    xp: Namespace
    runs_kernels = False  # CUDA text

    def devices(self) -> list[Device]:
        """The usable devices, in order."""
        raise NotImplementedError

    def takes(self, array_type: type) -> bool:
        """Whether an array, or scalar, of this type is plain data, with no meaning of its own."""
        return issubclass(array_type, self.array_types)

    def functions(self, array_type: type) -> Namespace:
        """The functions for arrays of one of its types."""
        return self.xp

    def device_of(self, array: Any) -> Device:
        """Where `array` lives."""
        raise NotImplementedError

    def constant(self, data: Any, device: Device) -> Any:
        """An array on `device` of Python data, which are part of the program and do not change."""
        return self.asarray(np.asarray(data), None, device, None)

    def asarray(self, obj: Any, dtype: Any, device: Device, copy: bool | None) -> Any:
        """An array of this library on `device` from a host object or an array of this library."""
        raise NotImplementedError

    def to_host(self, array: Any) -> Any:
        """`array` as a NumPy array; waits for the device."""
        raise NotImplementedError

    def scope(self, device: Device) -> AbstractContextManager[Any]:
        """Inside it, new arrays and work land on `device`."""
        return nullcontext()

    def to_dlpack(self, array: Any, **options: Any) -> Any:
        """`array` as a DLPack capsule; options as in the standard, without those that are None."""
        return array.__dlpack__(**options)

    def queue(self, stream: Any) -> AbstractContextManager[Any]:
        """Inside it, work is queued on `stream` of the device.

        Raises:
            ValueError: if the device has no streams.
        """
        raise ValueError(f"a stream is given, but the device {self.kind!r} has none")

    def elementwise_kernel(
        self, in_params: str, out_params: str, operation: str, name: str, preamble: str
    ) -> Callable[..., Any]:
        """The user's own CUDA text, given as CuPy's ElementwiseKernel, as a function of arrays."""
        raise NotImplementedError

    def synchronize(self, device: Device) -> None:
        """Wait until all work queued on `device` is done."""

    def guard(self, waits: bool = False) -> AbstractContextManager[Any]:
        """Inside it the library itself raises one of `hindrances` when it waits for a device.

        Unless it `waits`: then it may, whatever guard is around.
        """
        return nullcontext()

    def memory(self, device: Device, reset_peak: bool) -> Memory:
        """The memory in use on `device`; see `gpugrad.memory`."""
        raise NotImplementedError

    def gauge(self, device: Device) -> AbstractContextManager[Callable[[], tuple[int, int]]]:
        """Inside it a function tells the bytes in use, and the most since it was last asked."""
        raise NotImplementedError

    def span(self, device: Device, name: str) -> Span | None:
        """A piece of work that begins now on `device`; None where its own time is not measured."""
        return None

    def read_spans(self, device: Device, spans: Sequence[Span]) -> list[tuple[int, int] | None]:
        """Beginning and end of pieces of work, on the clock of `time.perf_counter_ns`.

        Waits for the device. None for one that was captured.
        """
        raise NotImplementedError

    def kernel(self, kernel: Kernel) -> Callable[..., Any]:
        """A generated kernel as a function of arrays, to one array or a tuple of them.

        One that sums takes the options `axis` and `keepdims`.
        """
        raise NotImplementedError

    def generator(self, seed: int | None, device: Device) -> Any:
        """A random state on `device`, as `numpy.NumpyGenerator` is one on the CPU."""
        raise NotImplementedError

    def name(self, device: Device) -> str:
        """The device's name for people, such as its model."""
        raise NotImplementedError

    def about(self, device: Device) -> About:
        """What there is to know of `device`."""
        raise NotImplementedError

    def seconds(self, device: Device, work: Callable[[], Any]) -> float:
        """How long `device` is busy with the work that `work()` queues; waits for it."""
        start = time.perf_counter()
        work()
        return time.perf_counter() - start

    def launches(self, device: Device, work: Callable[[], Any]) -> int | None:
        """How many kernels `work()` launches on `device`; None where that cannot be told."""
        return None

    def capture(self, device: Device, work: Callable[[], Any]) -> Graph:
        """What `work()` queues on `device`, to be launched again: see `gpugrad.cuda.graph`.

        Raises:
            CaptureError: if it cannot be captured.
        """
        raise NotImplementedError

    def ranges(self, rows: int) -> Ranges | None:
        """A table in the memory of the current device for the ranges of `rows` arrays.

        None where arrays are looked at without waiting for a device.
        """
        return None

    @property
    def blas(self) -> Blas | None:
        """Matrix products that can be captured: see `gpugrad.cuda.blas`; None without capture."""
        return None


# What an array library raises for reasons that no argument shows; told in full by `rules.refusal`.
# A backend adds its own errors.
hindrances: tuple[type[Exception], ...] = (MemoryError, TransferError)

_by_type: dict[type, Backend | None] = {}
_by_kind: dict[str, Backend] = {}
_refused: dict[str, str] = {}
_overrides: ContextVar[tuple[Device, ...]] = ContextVar("gpugrad_device", default=())
_default: Device | None = None

# A context for work in plain operators and methods (`t * b`, `x.copy()`), which run on the current
# device. A backend with several devices puts in one whose value is a function that makes the device
# of an array the current one, and that restores the current device at the end.
following_devices: Callable[[], AbstractContextManager[Callable[[Any], None]]] | None = None

# What makes kernels of derivative rules; a backend that runs them puts it in.
fusion: Fusion | None = None


def _modules() -> list[str]:
    return [module.name for module in pkgutil.iter_modules(__path__)]


def _load(module: Any) -> Backend:
    backend: Backend = module.load()
    _by_kind[backend.kind] = _by_type[backend.array_type] = backend
    library = sys.modules[backend.array_type.__module__.partition(".")[0]]
    places.ours += (os.path.dirname(str(library.__file__)) + os.sep,)
    return backend


def find_backend(array_type: type) -> Backend | None:
    """The backend of an array type or of its scalar types; None for a type that is no array."""
    try:
        return _by_type[array_type]
    except KeyError:
        backend = None
        roots = {base.__module__.partition(".")[0] for base in array_type.__mro__}
        for root in roots.intersection(_modules()):
            module = importlib.import_module(f"{__name__}.{root}")
            library = _by_kind.get(module.KIND) or _load(module)
            backend = library if library.takes(array_type) else None
        _by_type[array_type] = backend
        return backend


def backend_of(array: Any) -> Backend:
    """The backend of a raw array.

    Raises:
        TypeError: if `array` is no array of a known library.
    """
    return backend_of_type(type(array))


def backend_of_type(array_type: type) -> Backend:
    """The backend of arrays of a type; raises as `backend_of`."""
    backend = find_backend(array_type)
    if backend is None:
        raise TypeError(
            f"expected a Tensor or an array, got {array_type.__name__}: "
            "make it one with gpugrad.asarray(...)"
        )
    return backend


def backend_of_kind(kind: str) -> Backend:
    """The backend that serves devices of `kind`.

    Raises:
        DeviceError: if none can be used, saying why; the reason is found once and kept.
    """
    if kind in _refused:
        raise DeviceError(_refused[kind])
    if kind not in _by_kind:
        for name in _modules():
            module = importlib.import_module(f"{__name__}.{name}")
            if kind == module.KIND:
                try:
                    return _load(module)
                except DeviceError as error:
                    _refused[kind] = str(error)
                    raise
    return _by_kind[kind]


def parse(name: str) -> Device:
    """`"cpu"`, `"cuda"` or `"cuda:1"` as a Device.

    Raises:
        ValueError: if `name` is none of these.
    """
    kind, colon, index = name.partition(":")
    known = index.isdecimal() and (kind != "cpu" or int(index) == 0) if colon else True
    if kind not in KINDS or not known:
        raise ValueError(f"unknown device {name!r}: use 'cpu', 'cuda' or 'cuda:1'")
    return Device(kind, int(index or 0))


def device(name: str | Device) -> Device:
    """The device `name`: `"cpu"`, `"cuda"` (the first one) or `"cuda:1"`.

    `with gpugrad.device("cpu"): ...` makes it the default for new data inside the block.

    Raises:
        ValueError: if there is no device of that name anywhere.
        DeviceError: if it cannot be used here, saying why.
    """
    if not isinstance(name, (str, Device)):
        raise TypeError(f"a device is 'cpu', 'cuda' or 'cuda:1', not {name!r}")
    found = parse(name) if isinstance(name, str) else name
    usable = backend_of_kind(found.kind).devices()
    if found not in usable:
        raise DeviceError(
            f"no device {str(found)!r} here: usable are {', '.join(map(str, usable))}"
        )
    return found


def devices() -> list[Device]:
    """Every usable device, CUDA devices first."""
    found: list[Device] = []
    for kind in reversed(KINDS):
        try:
            found += backend_of_kind(kind).devices()
        except DeviceError:
            continue
    return found


def default_device() -> Device:
    """Where new data goes.

    The innermost `with gpugrad.device(...)`, else `set_default_device`, else the setting
    `GPUGRAD_DEVICE`, else the first usable CUDA device, else the CPU.
    """
    global _default
    if overrides := _overrides.get():
        return overrides[-1]
    if _default is None:
        setting = os.environ.get("GPUGRAD_DEVICE")
        _default = device(setting) if setting else devices()[0]
    return _default


def set_default_device(name: str | Device | None) -> None:
    """Send new data to device `name` from now on; None goes back to the rule of `default_device`.

    Raises:
        ValueError, DeviceError: as `device`; the default then stays as it was.
    """
    global _default
    _default = None if name is None else device(name)


def versions() -> dict[str, str]:
    """The versions of the array libraries and what they stand on, as far as they are there."""
    found: dict[str, str] = {}
    for name in reversed(_modules()):
        found |= importlib.import_module(f"{__name__}.{name}").versions()
    return found


def _chosen(name: str | Device | None) -> Device:
    return default_device() if name is None else device(name)


def memory(device: str | Device | None = None, *, reset_peak: bool = False) -> Memory:
    """The memory in use on a device, in bytes: `(used, peak, pool)`.

    On a GPU that of CuPy's current allocator: of the default pool or of another one (`pool` is what
    the pool holds of the device's memory); without a pool what all programs use of the device. The
    peak is watched from the first call on, in the threads that have called; each allocation then
    takes some microseconds more, for Python code is called. (Of an asynchronous pool, and without a
    pool, it is the most that a call has found.) On the CPU it is the memory of the process, on
    Linux its resident set, and elsewhere only the peak is known and given for all three.

    Args:
        device: the default device where None.
        reset_peak: begin the peak anew with what is in use now, once it is told. On the CPU that
            works on Linux only.

    Raises:
        DeviceError: if the device cannot be used.
    """
    where = _chosen(device)
    return backend_of_kind(where.kind).memory(where, reset_peak)


@contextmanager
def guarded() -> Iterator[None]:
    """Inside it the libraries in use raise a `TransferError` when they wait for a device."""
    try:
        with ExitStack() as stack:
            for backend in list(_by_kind.values()):
                stack.enter_context(backend.guard())
            yield
    except hindrances as error:
        if isinstance(error, (MemoryError, TransferError)):
            raise
        raise TransferError(f"{error} (inside gpugrad.no_transfers())") from error


def device_of(array: Any) -> Device:
    """The device a raw array lives on."""
    return backend_of(array).device_of(array)
