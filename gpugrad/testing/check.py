"""Checks of derivatives against numerical ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .. import backends
from ..ops.creation import asarray
from ..rules import raw
from ..transforms import jvp, vjp
from ..trees import flatten

_STEP = 1e-4


class GradientError(AssertionError):
    """A derivative that is wrong; the message names the worst entry."""


@dataclass
class Errors:
    """The largest relative errors that a check met, also where it then raised.

    Attributes:
        jvp: against a central difference.
        vjp: against the jvp, by <g, J t> = <J^H g, t>.
    """

    jvp: float = 0.0
    vjp: float = 0.0


def check_grads(
    f: Callable[..., Any],
    args: Sequence[Any],
    order: int = 2,
    *,
    tol: float = 1e-6,
    seed: int = 0,
) -> None:
    """Check the derivatives of `f` at `args`, in both modes, up to `order`.

    In float64: (1) the jvp along a random direction against a central difference of fourth order;
    (2) the vjp against the jvp by <g, J t> = <J^H g, t>, to 1e-9; (3) shapes and dtypes, also for
    the dtypes as given; (4) all this again for both derivatives, up to `order`.

    Args:
        f: a smooth function (near `args`) of tensors to tensors or nested structures of them.
        args: arrays, tensors, or nested structures, floating-point or complex, on any device.
        tol: largest error of (1), relative to 1 + the size of the entry.
        seed: of the random directions.

    Raises:
        GradientError: naming what is wrong and the worst entry.
    """
    measure_grads(f, args, order, Errors(), tol=tol, seed=seed)


def measure_grads(
    f: Callable[..., Any],
    args: Sequence[Any],
    order: int,
    errors: Errors,
    *,
    tol: float = 1e-6,
    seed: int = 0,
) -> None:
    """`check_grads`, which enters into `errors` what it measures."""
    leaves, unflatten = flatten(list(args))
    given = [raw(x) if _has_dtype(x) else asarray(x).data for x in leaves]
    _check_shapes(f, unflatten(given))
    wide = [_like(x, _host(x).astype(_wide(x.dtype))) for x in given]

    def flat(*values: Any) -> list[Any]:
        return flatten(f(*unflatten(list(values))))[0]

    rng, name = np.random.default_rng(seed), getattr(f, "__name__", repr(f))
    _check(flat, wide, order, tol, rng, name, errors)


def _check(
    f: Any, args: list[Any], order: int, tol: float, rng: Any, name: str, errors: Errors
) -> None:
    t = [_direction(x, rng) for x in args]
    out, tangent = jvp(f, args, t)
    g = [_direction(x, rng) for x in out]
    value, pullback = vjp(f, *args)
    cotangent = pullback(g)
    for a, b in zip(out, value, strict=True):
        _compare(name, "value under vjp and jvp", _host(a), _host(b), 1e-12)

    for k, (got, expected) in enumerate(zip(tangent, _difference(f, args, t), strict=True)):
        errors.jvp = max(errors.jvp, relative_error(_host(got), expected))
        _compare(name, f"jvp against a central difference, result {k}", _host(got), expected, tol)

    left = sum(_inner(a, b) for a, b in zip(g, tangent, strict=True))
    right = sum(_inner(a, b) for a, b in zip(cotangent, t, strict=True))
    size = sum(_inner(_absolute(a), _absolute(b)) for a, b in zip(g, tangent, strict=True))
    errors.vjp = max(errors.vjp, relative_error(np.array([left]), np.array([right]), size))
    if not abs(left - right) <= 1e-9 * (1 + size):
        _name_worst(f, args, g, cotangent, name)
        raise GradientError(f"{name}: <g, J t> = {left!r} but <J^H g, t> = {right!r}")

    if order > 1:
        for what, derivative in (
            ("derivative", lambda *xs: jvp(f, xs, t)[1]),
            ("gradient", lambda *xs: list(vjp(f, *xs)[1](g))),
        ):
            _check(derivative, args, order - 1, tol * 10, rng, f"{what} of {name}", errors)


def _difference(f: Any, args: list[Any], t: list[Any]) -> list[np.ndarray]:
    """d/ds f(args + s t) at 0: the five-point stencil."""

    def at(s: float) -> list[np.ndarray]:
        moved = [x + s * direction for x, direction in zip(args, t, strict=True)]
        return [_host(raw(y)) for y in vjp(f, *moved)[0]]

    near = [b - a for a, b in zip(at(-_STEP), at(_STEP), strict=True)]
    far = [b - a for a, b in zip(at(-2 * _STEP), at(2 * _STEP), strict=True)]
    return [(8 * n - d) / (12 * _STEP) for n, d in zip(near, far, strict=True)]


def _name_worst(f: Any, args: list[Any], g: list[Any], cotangent: Any, name: str) -> None:
    """Compare the vjp with the jvp entry by entry."""
    for k, x in enumerate(args):
        expected = np.zeros(x.shape, x.dtype)
        for index in np.ndindex(x.shape):
            for unit in (1, 1j) if x.dtype.kind == "c" else (1,):
                e = [np.zeros(y.shape, y.dtype) for y in args]
                e[k][index] = unit
                _, column = jvp(f, args, [_like(y, d) for y, d in zip(args, e, strict=True)])
                expected[index] += unit * sum(_inner(a, b) for a, b in zip(g, column, strict=True))
        _compare(name, f"vjp against the jvp, argument {k}", _host(cotangent[k]), expected, 1e-9)


def _check_shapes(f: Any, args: Any) -> None:
    leaves, refill = flatten(list(args))
    out, pullback = vjp(f, *args)
    outs, rebuild = flatten(out)
    gs = rebuild([_like(raw(x), np.ones(x.shape, x.dtype)) for x in outs])
    ones = [_like(x, np.ones(x.shape, x.dtype)) for x in leaves]
    for what, derivative, wanted in (
        ("cotangent of argument", lambda: pullback(gs), leaves),
        ("tangent of result", lambda: jvp(f, args, refill(ones))[1], outs),
    ):
        results, _ = flatten(derivative())
        for k, (got, like) in enumerate(zip(results, wanted, strict=True)):
            if (got.shape, got.dtype) != (like.shape, like.dtype):
                raise GradientError(
                    f"{getattr(f, '__name__', f)}: the {what} {k} is {got.dtype} {got.shape} "
                    f"where {like.dtype} {like.shape} is needed"
                )


def _compare(name: str, what: str, got: np.ndarray, expected: np.ndarray, tol: float) -> None:
    error = np.abs(got - expected)
    bad = ~(error <= tol * (1 + np.abs(expected)))
    if bad.any():
        worst = np.unravel_index(np.argmax(np.where(np.isnan(error), np.inf, error)), error.shape)
        index = tuple(int(i) for i in worst)
        raise GradientError(
            f"{name}: {what}: {int(bad.sum())} of {error.size} entries are wrong, worst at "
            f"{index}: got {got[worst]!r}, expected {expected[worst]!r}"
        )


def relative_error(got: np.ndarray, expected: np.ndarray, size: Any = None) -> float:
    """The largest error of an entry over 1 + its size, 0 where both are the same infinity or NaN.

    Infinite where only one of them is NaN.
    """
    with np.errstate(all="ignore"):
        error = np.abs(got - expected) / (1 + (np.abs(expected) if size is None else size))
    same = (got == expected) | (np.isnan(got) & np.isnan(expected))
    error = np.where(same, 0.0, np.where(np.isnan(error), np.inf, error))
    return float(error.max(initial=0.0))


def _has_dtype(x: Any) -> bool:
    return hasattr(x, "dtype") and hasattr(x, "shape")


def _wide(dtype: np.dtype) -> Any:
    return np.complex128 if dtype.kind == "c" else np.float64


def _host(x: Any) -> np.ndarray:
    x = raw(x)
    return np.asarray(backends.backend_of(x).to_host(x))


def _like(x: Any, values: np.ndarray) -> Any:
    backend = backends.backend_of(x)
    return backend.asarray(values, None, backend.device_of(x), None)


def _direction(x: Any, rng: Any) -> Any:
    d = rng.standard_normal(x.shape)
    if x.dtype.kind == "c":
        d = d + 1j * rng.standard_normal(x.shape)
    return _like(raw(x), np.asarray(d, _wide(x.dtype)))


def _absolute(x: Any) -> np.ndarray:
    return np.abs(_host(x))


def _inner(a: Any, b: Any) -> float:
    """The real inner product Re sum(conj(a) * b)."""
    return float(np.sum(np.conj(_host(a)) * _host(b)).real)
