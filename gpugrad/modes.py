"""Modes: settings that hold inside a `with` block or a decorated function, in one thread or task.

This file imports nothing of gpugrad, so that every other one may ask for a mode.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, ContextDecorator
from contextvars import ContextVar
from typing import Any, Self


class Mode(ContextDecorator):
    """Gives a context variable a value inside a block or a decorated function; may be nested."""

    _variable: ContextVar[Any]
    _value: Any = True

    def __init__(self) -> None:
        self._tokens: list[Any] = []

    def _recreate_cm(self) -> Self:
        return type(self)()

    def __enter__(self) -> None:
        self._tokens.append(self._variable.set(self._value))

    def __exit__(self, *exc: object) -> None:
        self._variable.reset(self._tokens.pop())


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
      `Device.synchronize`.

    Not seen are copies to the device that code makes with CuPy directly (`cupy.asarray(list)`,
    `ndarray.set`), `Stream.synchronize`, `Event.synchronize`, what is done through
    `cupy.cuda.runtime`, by other libraries or inside CUDA libraries, and waits of the driver (a
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
