"""Tensor: an array and its place on the tape."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np

from . import backends

if TYPE_CHECKING:
    from .tape import Node


STANDARDS = ("2021.12", "2022.12", "2023.12", "2024.12", "2025.12")


class Tensor:
    """A NumPy or CuPy array that knows how it was computed.

    Made by `gpugrad.asarray` and by the functions of gpugrad, not by its constructor. The
    operators are those of the array API standard.
    """

    # `view` and `views` are set only where memory is shared (views.py)
    __slots__ = ("__weakref__", "data", "node", "view", "views")

    data: Any
    node: Node | None
    view: tuple[Tensor | None, Callable[..., Any] | None, tuple, dict]
    views: list[weakref.ref[Tensor]]

    def __init__(self, data: Any, node: Node | None) -> None:
        self.data = data
        self.node = node

    # ---- what it is

    @property
    def shape(self) -> tuple[int, ...]:
        """Lengths of the axes."""
        return self.data.shape

    @property
    def dtype(self) -> np.dtype:
        """Type of the elements, a `numpy.dtype` on every device."""
        return self.data.dtype

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return self.data.ndim

    @property
    def size(self) -> int:
        """Number of elements."""
        return self.data.size

    @property
    def device(self) -> backends.Device:
        """Where the data live."""
        return backends.device_of(self.data)

    def __len__(self) -> int:
        if self.ndim == 0:
            raise TypeError("len() of a 0-d tensor")
        return self.shape[0]

    def __iter__(self) -> Iterator[Tensor]:
        if self.ndim == 0:
            raise TypeError("iteration over a 0-d tensor")
        return (self[i] for i in range(self.shape[0]))

    def __repr__(self) -> str:
        flag = ", requires_grad=True" if self.node is not None else ""
        body = np.array2string(self._to_host(), separator=", ", prefix="Tensor(")
        return f"Tensor({body}, dtype={self.dtype}, device={str(self.device)!r}{flag})"

    __hash__ = object.__hash__

    if TYPE_CHECKING:  # given to the class by `ops`, `protocols` and `sweeps`, built on it

        def _unary(self) -> Tensor: ...
        def _binary(self, other: Any, /) -> Tensor: ...
        def _reduce(self, axis: Any = None, *args: Any, **options: Any) -> Tensor: ...
        def _method(self, *args: Any, **options: Any) -> Tensor: ...

        __neg__ = __pos__ = __abs__ = __invert__ = _unary
        __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = _binary
        __truediv__ = __rtruediv__ = __floordiv__ = __rfloordiv__ = _binary
        __mod__ = __rmod__ = __pow__ = __rpow__ = __matmul__ = __rmatmul__ = _binary
        __and__ = __rand__ = __or__ = __ror__ = __xor__ = __rxor__ = _binary
        __lshift__ = __rlshift__ = __rshift__ = __rrshift__ = _binary
        __lt__ = __le__ = __gt__ = __ge__ = __getitem__ = _binary
        __eq__ = __ne__ = _binary  # type: ignore[assignment]
        sum = mean = prod = max = min = var = std = all = any = argmax = argmin = _reduce
        clip = cumprod = cumsum = diagonal = dot = flatten = ravel = repeat = round = _method
        searchsorted = squeeze = swapaxes = take = trace = transpose = argsort = _method
        astype = reshape = copy = _method
        conj = conjugate = _unary
        itemsize: int
        nbytes: int

        def __setitem__(self, key: Any, value: Any) -> None: ...
        def __contains__(self, value: Any) -> bool: ...
        def __divmod__(self, other: Any) -> tuple[Tensor, Tensor]: ...
        def __rdivmod__(self, other: Any) -> tuple[Tensor, Tensor]: ...
        def __round__(self, ndigits: int | None = None) -> Tensor: ...
        def fill(self, value: Any) -> None: ...
        def nonzero(self) -> tuple[Tensor, ...]: ...
        def sort(self, axis: int = -1) -> None: ...
        def tolist(self) -> Any: ...
        def to(self, target: Any) -> Tensor: ...
        def to_device(self, device: str | backends.Device, /, *, stream: Any = None) -> Tensor: ...
        def backward(
            self,
            gradient: Any = None,
            retain_graph: bool | None = None,
            create_graph: bool = False,
        ) -> None: ...
        @property
        def T(self) -> Tensor: ...
        @property
        def mT(self) -> Tensor: ...
        @property
        def real(self) -> Tensor: ...
        @property
        def imag(self) -> Tensor: ...

    # ---- its place on the tape

    @property
    def requires_grad(self) -> bool:
        """Whether operations on this tensor are recorded."""
        return self.node is not None

    @property
    def is_leaf(self) -> bool:
        """Whether it was made by the user and not by a recorded operation."""
        return self.node is None or self.node.op is None

    @property
    def grad(self) -> Tensor | None:
        """The gradient that `backward` has gathered on this leaf, of its shape and dtype."""
        return getattr(self.node, "grad", None)

    @grad.setter
    def grad(self, value: Tensor | None) -> None:
        if not (self.is_leaf and self.node is not None):
            raise RuntimeError("only a leaf that requires a gradient holds one")
        if value is not None:
            if not isinstance(value, Tensor):
                raise TypeError(f"grad must be a Tensor or None, got {type(value).__name__}")
            mine, its = ((x.shape, x.dtype, x.device) for x in (self, value))
            if mine != its:
                raise ValueError(
                    "grad must have shape {} and dtype {} on {}, ".format(*mine)
                    + "got {} and {} on {}".format(*its)
                )
        self.node.grad = value  # type: ignore[attr-defined]

    def detach(self) -> Tensor:
        """The same data off the tape: no copy, no gradient.

        A write into this tensor that is recorded makes new memory, so it does not show there.
        """
        return Tensor(self.data, None)

    def register_hook(self, hook: Callable[[Tensor], Tensor | None]) -> Callable[[], None]:
        """Call `hook(gradient)` whenever a sweep has the whole gradient of this tensor.

        What the hook returns, if not None, takes the gradient's place.

        Returns:
            A function that takes the hook away again.

        Raises:
            RuntimeError: if this tensor does not require a gradient.
        """
        if self.node is None:
            raise RuntimeError("register_hook: this tensor does not require a gradient")
        if self.node.hooks is None:
            self.node.hooks = []
        hooks = self.node.hooks
        hooks.append(hook)
        return lambda: hooks.remove(hook)

    # ---- leaving the library

    def get(self) -> np.ndarray:
        """The data as a NumPy array (waits for the device); a copy, also on the CPU."""
        return np.array(self._to_host())

    def numpy(self) -> np.ndarray:
        """The data as a NumPy array; on the CPU it shares memory.

        Raises:
            RuntimeError: if this tensor requires a gradient, which would be lost.
        """
        self._refuse_loss("numpy()")
        return self._to_host()

    def item(self, *index: Any) -> Any:
        """The one element, or the one at `index`, as a Python number; waits for the device.

        Args:
            index: an integer per axis, or one for the flat array.

        Raises:
            ValueError: if there is not exactly one element.
        """
        array = self.data
        if index:
            where = index[0] if len(index) == 1 else index
            array = array[where] if isinstance(where, tuple) else array.reshape(-1)[where]
        if array.size != 1:
            raise ValueError(
                f"item() needs exactly one element, this is {self._described()}: use .get()"
            )
        return backends.backend_of(array).to_host(array).item()

    def _described(self) -> str:
        return f"a {self.dtype} tensor of shape {self.shape} on {self.device}"

    def _to_host(self) -> np.ndarray:
        return backends.backend_of(self.data).to_host(self.data)

    def _refuse_loss(self, what: str) -> None:
        if self.node is not None:
            raise RuntimeError(
                f"{what} of a tensor that requires a gradient would lose it: use .detach() first, "
                "or stay with gpugrad's arrays (asarray, stack)"
            )

    def _scalar(self, kind: str) -> Any:
        if self.ndim != 0:
            raise TypeError(
                f"{kind}() needs a 0-d tensor, this is {self._described()}: reduce or index it"
            )
        return self._to_host().item()

    # These lead off the tape, as item() does. Python's `math` asks for a float in the same way, and
    # so does NumPy for `array[i] = t` of one element: nothing can tell them apart.

    def __float__(self) -> float:
        return float(self._scalar("float"))

    def __int__(self) -> int:
        return int(self._scalar("int"))

    def __complex__(self) -> complex:
        return complex(self._scalar("complex"))

    def __index__(self) -> int:
        if self.dtype.kind not in "iu":
            raise TypeError(f"only an integer tensor is an index, the dtype is {self.dtype}")
        return int(self._scalar("index"))

    def __bool__(self) -> bool:
        if self.size != 1:
            raise ValueError(
                f"bool() is ambiguous for {self._described()}: use gpugrad.any or gpugrad.all"
            )
        return bool(self._to_host().item())

    def __copy__(self) -> Tensor:
        """A copy, as of a NumPy array; on the tape, so it has no gradient of its own."""
        return self.copy()

    def __deepcopy__(self, memo: Any) -> Tensor:
        return self.copy()  # without the tape, whose copy would lead to copies of the leaves

    def __reduce__(self) -> Any:
        """For pickle: the data, and whether it is a leaf, which comes back as a leaf of its own.

        Raises:
            RuntimeError: for a computed tensor that requires a gradient, which would be lost.
        """
        if not self.is_leaf:
            self._refuse_loss("pickle")
        return _unpickled, (self.data, self.requires_grad)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        self._refuse_loss("numpy.asarray")
        if self.device.kind != "cpu":
            raise RuntimeError(
                f"numpy.asarray of a tensor on {self.device} would copy in silence: use .get(), "
                "or .data for the array on the device"
            )
        return np.array(self.data, dtype=dtype, copy=copy)

    def __array_namespace__(self, /, *, api_version: str | None = None) -> Any:
        """gpugrad itself, whose functions are those of the array API standard.

        Raises:
            ValueError: for a version of the standard that is not known.
        """
        if api_version is not None and api_version not in STANDARDS:
            raise ValueError(
                f"version {api_version!r} of the array API standard is not known: "
                f"gpugrad follows {STANDARDS[-1]}, and {', '.join(STANDARDS[:-1])} with it"
            )
        return import_module(__package__)

    def __dlpack__(
        self,
        /,
        *,
        stream: Any = None,
        max_version: tuple[int, int] | None = None,
        dl_device: tuple[Any, int] | None = None,
        copy: bool | None = None,
    ) -> Any:
        """The data as a DLPack capsule, for `from_dlpack` of another library.

        Args:
            stream: of the device, on which the other library will use the data.
            max_version: of DLPack, that the other library understands.
            dl_device: where the data are wanted; the CPU, (1, 0), is possible from everywhere.
            copy: True for new memory, False never; None only where needed.

        Raises:
            RuntimeError: if this tensor requires a gradient, which would be lost.
            BufferError: if the data cannot be exported so.
        """
        self._refuse_loss("__dlpack__")
        given = {"stream": stream, "max_version": max_version, "dl_device": dl_device, "copy": copy}
        # an older library knows the older options only
        options = {name: value for name, value in given.items() if value is not None}
        return backends.backend_of(self.data).to_dlpack(self.data, **options)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.data.__dlpack_device__()


def _unpickled(data: Any, requires_grad: bool) -> Tensor:
    out = Tensor(data, None)
    out.requires_grad = requires_grad  # type: ignore[misc]
    return out
