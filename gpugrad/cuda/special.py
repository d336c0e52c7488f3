"""Special functions: those of kernels/special.cuh, then CuPy's."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from ..symbols import DEVICE_FUNCTIONS
from ..twins import working_dtypes
from .functions import MIXED, is_bfloat16
from .kernels import device_function


class SpecialFunctions:
    """kernels/special.cuh, then CuPy's special functions, over all real dtypes."""

    def __init__(self, cp: Any, library: Callable[[str], Any]) -> None:
        self._cp = cp
        self._library = library  # a function of CuPy's by its name

    def __getattr__(self, name: str) -> Any:
        function = self._over_floats(self._find(name))
        setattr(self, name, function)
        return function

    def _find(self, name: str) -> Any:
        if name in DEVICE_FUNCTIONS and DEVICE_FUNCTIONS[name].file == "special":
            return device_function(self._cp, name)
        own = getattr(type(self), f"_{name}", None)
        return functools.partial(own, self) if own else self._library(name)

    def _over_floats(self, f: Callable[..., Any]) -> Callable[..., Any]:
        """f, written for float32 and float64 arrays, for all real arrays."""
        array_type = self._cp.ndarray

        def call(*args: Any) -> Any:
            if any(isinstance(x, np.ndarray) for x in args):
                raise TypeError(MIXED)
            arrays = [x for x in args if isinstance(x, array_type)]
            numbers = [x for x in args if not isinstance(x, array_type)]
            dtypes = [x.dtype for x in arrays]
            if not any(map(is_bfloat16, arrays)):
                dtypes += numbers
            work, result = working_dtypes(np.result_type(*dtypes))
            out = f(*(x.astype(work, copy=False) if isinstance(x, array_type) else x for x in args))
            return out.astype(result, copy=False)

        return call

    def _psi(self, x: Any) -> Any:
        return self.digamma(x)

    def _polygamma(self, n: Any, x: Any) -> Any:
        gamma, zeta, where = self._library("gamma"), self._library("zeta"), self._cp.where
        n = self._cp.asarray(n, dtype=x.dtype) if not hasattr(n, "dtype") else n
        higher = (2 * (n % 2) - 1) * gamma(n + 1) * zeta(n + 1, x)
        return where(n == 0, self.digamma(x), higher)

    def _betaincc(self, a: Any, b: Any, x: Any) -> Any:
        return self._library("betainc")(b, a, 1 - x)

    def _stdtr(self, df: Any, x: Any) -> Any:
        tail = 0.5 * self.betainc(0.5 * df, 0.5, df / (df + x * x))
        return self._cp.where(x < 0, tail, 1 - tail)

    def _stdtrit(self, df: Any, p: Any) -> Any:
        # from the tail in the tails, from the middle around 1/2
        where, inverse = self._cp.where, self.betaincinv
        tail = where(p < 0.5, p, 1 - p)
        far, near = inverse(0.5 * df, 0.5, 2 * tail), inverse(0.5, 0.5 * df, 1 - 2 * tail)
        square = df * where(tail < 0.25, (1 - far) / far, near / (1 - near))
        return where(p < 0.5, -1, 1) * self._cp.sqrt(square)
