"""What a row of the table of operations is, and short ways to write one."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

import gpugrad as gg

SPECIAL = [0.0, -0.0, 1.5, -2.5, 30.0, -30.0, 1e4, -1e4, np.inf, -np.inf, np.nan]

MASK = np.array([[True, False, True], [False, False, True]])
LABELS = np.array([0, 2, 1])
INDICES = np.array([0, 0, -1, 1])
GRID = np.array([[0, 1, 1], [1, 1, 0], [0, 0, 0]])

REAL = "fd"
FLOATING = "fdFD"
NUMERIC = "qfdFD"
ANY = "?qfdFD"


@dataclass(frozen=True)
class Domain:
    """Where the entries of an argument are drawn from: low < |x| < high."""

    shape: tuple[int, ...]
    low: float
    high: float
    signed: bool

    def draw(self, rng: np.random.Generator, dtype: Any) -> np.ndarray:
        """An array of the values nearest to those of float64 that `dtype` has."""
        dtype = np.dtype(dtype)
        if dtype.kind == "b":
            return rng.random(self.shape) < 0.5
        x = rng.uniform(self.low, self.high, self.shape)
        if dtype.kind == "c":
            x = x + 1j * rng.uniform(self.low, self.high, self.shape)
        if dtype.kind in "iu":
            x = np.ceil(x)
        if self.signed:
            x = x * rng.choice([-1, 1], self.shape)
        return np.asarray(x, dtype)


def signed(*shape: int) -> Domain:
    return Domain(shape, 0.2, 2.0, True)


def positive(*shape: int) -> Domain:
    return Domain(shape, 0.2, 2.0, False)


def inside(*shape: int) -> Domain:
    return Domain(shape, 0.1, 0.9, True)


def fraction(*shape: int) -> Domain:
    return Domain(shape, 0.1, 0.9, False)


def above_1(*shape: int) -> Domain:
    return Domain(shape, 1.2, 3.0, False)


@dataclass(frozen=True)
class Row:
    """One function, or one way of calling it.

    Attributes:
        name: the public name of the function.
        label: what tells the row from others of that name.
        function: on tensors or raw arrays.
        reference: the same on NumPy arrays.
        args: a `Domain` for each argument with a derivative, an array for each without.
        dtypes: characters of the dtypes that the drawn arguments may have.
        order: to which derivatives are checked; 0 for a function without.
        broadcasts: elementwise.
        rtol: error of a value in units of its dtype's epsilon.
        needs: the CUDA library ("cuSOLVER", "cuFFT") without which it cannot run on a GPU; an
            emulated device has none.
    """

    name: str
    label: str
    function: Callable[..., Any]
    reference: Callable[..., Any]
    args: tuple[Any, ...]
    dtypes: str
    order: int
    broadcasts: bool = False
    rtol: float = 32
    needs: str = ""

    def __str__(self) -> str:
        return f"{self.name}({self.label})" if self.label else self.name

    def draw(self, dtype: Any) -> list[np.ndarray]:
        rng = np.random.default_rng(0)
        return [x.draw(rng, dtype) if isinstance(x, Domain) else x for x in self.args]

    def of_differentiable(self, args: list[Any]) -> tuple[Callable[..., Any], list[Any]]:
        """The function of the arguments that have a derivative, the others fixed; and these."""
        where = [i for i, x in enumerate(self.args) if isinstance(x, Domain)]

        def f(*values: Any) -> Any:
            filled = list(args)
            for i, value in zip(where, values, strict=True):
                filled[i] = value
            return self.function(*filled)

        f.__name__ = str(self)
        return f, [args[i] for i in where]


def entrywise(
    name: str,
    *args: Any,
    dtypes: str = "fd",
    order: int = 2,
    function: Callable[..., Any] | None = None,
    reference: Callable[..., Any] | None = None,
    rtol: float = 32,
) -> Row:
    """A row of an elementwise function; `args` are kinds of `Domain`, or arrays of shape (2, 3)."""
    domains = tuple(x(2, 3) if callable(x) else x for x in args)
    function = function or _find(gg, name)
    reference = reference or _find(np, name)
    return Row(name, "", function, reference, domains, dtypes, order, broadcasts=True, rtol=rtol)


def case(
    name: str,
    *args: Any,
    dtypes: str = "fdFD",
    order: int = 2,
    function: Callable[..., Any] | None = None,
    reference: Callable[..., Any] | None = None,
    rtol: float = 32,
    needs: str = "",
    **options: Any,
) -> Row:
    """A row of another function, called with `options`."""
    shapes = ",".join(str(x.shape).replace(" ", "") for x in args)
    label = ", ".join([shapes, *(f"{k}={v}" for k, v in options.items())])
    ours = functools.partial(function or _find(gg, name), **options)
    wanted = functools.partial(reference or _find(np, name), **options)
    return Row(name, label, ours, wanted, args, dtypes, order, rtol=rtol, needs=needs)


def written(
    name: str,
    label: str,
    f: Callable[..., Any],
    *args: Any,
    dtypes: str = "fdFD",
    order: int = 2,
    rtol: float = 32,
    needs: str = "",
) -> Row:
    """A row of an expression `f(library, *arrays)` that gpugrad and NumPy share."""
    ours, wanted = functools.partial(f, gg), functools.partial(f, np)
    return Row(name, label, ours, wanted, args, dtypes, order, rtol=rtol, needs=needs)


def _find(library: Any, name: str) -> Any:
    """A function by its public name, such as `linalg.svd`."""
    return functools.reduce(getattr, name.split("."), library)


def in_float64(f: Callable[..., Any]) -> Callable[..., Any]:
    def reference(*args: Any, **options: Any) -> Any:
        wide = [x.astype(float) if x.dtype.kind == "f" else x for x in args]
        return np.asarray(f(*wide, **options)).astype(args[0].dtype)

    return reference
