"""Modes: settings that hold inside a `with` block or a decorated function, in one thread or task.

This file imports nothing of gpugrad, so that every other one may ask for a mode.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, ContextDecorator
from contextvars import ContextVar
from inspect import isasyncgenfunction, iscoroutinefunction, isgeneratorfunction
from typing import Any, Self


class Mode(ContextDecorator):
    """Gives a context variable a value inside a block or a decorated function; may be nested."""

    _variable: ContextVar[Any]
    _value: Any = True

    def __init__(self) -> None:
        self._tokens: list[Any] = []

    def _recreate_cm(self) -> Self:
        return type(self)()

    def __call__(self, f: Any) -> Any:
        """`f` with the mode on while it runs.

        Raises:
            TypeError: for a generator or coroutine, which runs after the call of its function.
        """
        if isgeneratorfunction(f) or iscoroutinefunction(f) or isasyncgenfunction(f):
            mode = type(self).__name__
            raise TypeError(
                f"{mode}: {f.__name__} runs after it is called: put `with {mode}():` in it"
            )
        return super().__call__(f)

    def __enter__(self) -> Any:
        self._tokens.append(self._variable.set(self._value))

    def __exit__(self, *exc: object) -> None:
        self._variable.reset(self._tokens.pop())


_deterministic: ContextVar[bool] = ContextVar("gpugrad_deterministic", default=False)
is_deterministic = _deterministic.get


class deterministic(Mode):
    """The same bits again, every time: `with deterministic(): ...`, or `@deterministic()`.

    On a GPU, sums into elements that are named more than once (`scatter_add`, `bincount` with
    weights, the derivatives of `x[i]`, `take`, `take_along_axis`) are otherwise taken in the order
    in which threads happen to arrive, and of several values written to one element (`x[i] = v`)
    any may stay. Inside, they are added in a fixed order, after a stable sort of the indices, and
    the last value stays, as in NumPy. It costs that sort, and no wait for the device. On the
    CPU nothing changes. A `backward` that is to be reproducible stands inside as well.

    Not in gpugrad's hands: NVIDIA's libraries (cuBLAS gives the same bits on one stream, not on
    several that share its workspace: its manual, "Results Reproducibility"), CuPy's `optimize`,
    which chooses the shape of reductions by their times, another model of GPU, another version of
    a library, and random numbers without a seed.
    """

    _variable = _deterministic


_checked: ContextVar[bool] = ContextVar("gpugrad_check_bounds", default=False)
checks_bounds = _checked.get


class check_bounds(Mode):
    """Integer indices out of range raise: `with check_bounds(): ...`, or `@check_bounds()`.

    NumPy always raises an IndexError for them. CuPy wraps them in silence: to look is to wait for
    the device. Inside, every array of integers that chooses elements of an array on a GPU
    (`x[i]`, `x[i] = v`, `take`, `take_along_axis`, `scatter_add`, the labels of `cross_entropy`) is
    looked at first: four kernels and a wait each. For finding mistakes; not possible while a
    stream is captured. On the CPU nothing changes.
    """

    _variable = _checked


_no_transfers: ContextVar[bool] = ContextVar("gpugrad_no_transfers", default=False)
refuses_transfers = _no_transfers.get


class no_transfers(Mode):
    """What copies between devices or waits for one raises: `with no_transfers(): ...`.

    For a training step that is to keep a GPU busy. A `TransferError` is raised, before anything is
    copied, by

    - gpugrad: making a tensor on a GPU from data in host memory (a list or NumPy array as an index
      too), `.to` and `asarray` to another device, `.get()`, `.item()`, `float(t)`, `bool(t)`,
      `print(t)`, and DLPack to the CPU;
    - CuPy, also when it is called directly: whatever ends in `ndarray.get` (`float(array)`, and
      results whose shape depends on the data: `nonzero`, `unique`, a boolean mask as an index), and
      `Device.synchronize`. Called directly it raises its own `DeviceSynchronized`, which is a
      `TransferError` where it leaves the block; that needs CuPy to be in use before the block.

    Not seen are copies to the device that code makes with CuPy directly (`asarray` of a list,
    `ndarray.set`), `Stream.synchronize`, `Event.synchronize`, what is done through
    its `cuda.runtime`, by other libraries or inside CUDA libraries, and waits of the driver (a
    first kernel, memory from the driver when the pool is empty). A number is not copied, it is an
    argument of a kernel. On the CPU alone nothing is refused. Inside an asynchronous task other
    tasks of the thread must not use CuPy until the block is left: CuPy's part is by thread.
    """

    _variable = _no_transfers

    def __init__(self) -> None:
        super().__init__()
        self._guards: list[AbstractContextManager[Any]] = []

    def __enter__(self) -> None:
        from .backends import guarded

        guard = guarded()
        guard.__enter__()
        self._guards.append(guard)
        super().__enter__()

    def __exit__(self, *exc: Any) -> None:
        super().__exit__(*exc)
        self._guards.pop().__exit__(*exc)


class transfers(Mode):
    """What `no_transfers` refuses is let through: for what is done once, not in every step."""

    _variable = _no_transfers
    _value = False
