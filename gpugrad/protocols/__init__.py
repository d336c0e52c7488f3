"""NumPy's and CuPy's own calls on Tensors: `numpy.sin(t)`, `numpy.sum(t)`, `array * t`, `t.dot(u)`.

NumPy hands a call with a Tensor among its arguments to `Tensor.__array_ufunc__` or
`Tensor.__array_function__`, which run the function of gpugrad that does the same. The tables of
`ufuncs.py` and `functions.py` are read when they are first needed. What they do not list raises a
TypeError; nothing here turns a Tensor into an array, which would make a constant of it in silence.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .. import backends
from ..tensor import Tensor
from . import methods

_of_ufunc: dict[Any, Callable[..., Any]] = {}
_of_function: dict[Any, Callable[..., Any]] = {}


def _array_ufunc(self: Tensor, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
    function = _of_ufunc.get(ufunc)
    if function is None:
        from .ufuncs import find

        function = _of_ufunc[ufunc] = find(ufunc)
    if not kwargs and method == "__call__":
        try:
            return function(*inputs)
        except TypeError:
            if not any(isinstance(x, (list, tuple)) for x in inputs):
                raise
    from .ufuncs import run

    return run(ufunc.__name__, function, method, inputs, kwargs)


def _array_function(self: Tensor, func: Any, types: Any, args: Any, kwargs: Any) -> Any:
    function = _of_function.get(func)
    if function is None:
        from .functions import find

        function = _of_function[func] = find(func)
    for kind in types:
        if kind is not Tensor and backends.find_backend(kind) is None:
            return NotImplemented
    return function(*args, **kwargs)


Tensor.__array_ufunc__ = _array_ufunc  # type: ignore[attr-defined]
Tensor.__array_function__ = _array_function  # type: ignore[attr-defined]
for _name in methods.__all__:
    setattr(Tensor, _name, getattr(methods, _name))
