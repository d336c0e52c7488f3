"""Discrete Fourier transforms: array API standard 2025.12, the fft extension. All linear.

With norm "backward" the inverse transforms divide by the number of points, with "forward" the
others do, with "ortho" each divides by its square root. `n` and `s` are lengths of the transform:
the input is cut off or padded with zeros at the end. float32 stays in single precision; the
two-byte floats are computed in it.

The matrix of a transform is symmetric, so the transpose of "pad, transform" is "transform, cut".
Beside that, the real transforms leave out half of the coefficients, each of which stands for its
conjugate too: hence the weights 2 and 1/2 of all but the coefficients that are their own partners.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

from numpy.lib.array_utils import normalize_axis_tuple

from ..rules import check_arrays, linear, raw, xp
from .dtypes import astype
from .elementwise import conj
from .manipulation import roll

__all__ = [
    "fft",
    "fft2",
    "fftn",
    "fftshift",
    "hfft",
    "ifft",
    "ifft2",
    "ifftn",
    "ifftshift",
    "ihfft",
    "irfft",
    "irfft2",
    "irfftn",
    "rfft",
    "rfft2",
    "rfftn",
]

_OPPOSITE = {"backward": "forward", "ortho": "ortho", "forward": "backward"}


@linear(lambda t, shape: _cut(t, to=shape))
def _cut(x: Any, /, *, to: tuple[int, ...]) -> Any:
    """`x` cut off or padded with zeros at the end of each axis."""
    part = tuple(slice(min(n, m)) for n, m in zip(x.shape, to, strict=True))
    if all(n >= m for n, m in zip(x.shape, to, strict=True)):
        return x[part]
    out = xp(x).zeros(to, x.dtype)
    out[part] = x[part]
    return out


def _fit(x: Any, shape: tuple[int, ...]) -> Any:
    return x if x.shape == shape else _cut(x, to=shape)


def _transposed(
    t: Any, axes: tuple[int, ...], norm: str, inverse: bool, shape: tuple[int, ...]
) -> Any:
    s = tuple(t.shape[i] for i in axes)
    return _fit(_fftn(t, s=s, axes=axes, norm=norm, inverse=inverse), shape)


@linear(_transposed)
def _fftn(x: Any, /, *, s: tuple[int, ...], axes: tuple[int, ...], norm: str, inverse: bool) -> Any:
    transform = xp(x).ifftn if inverse else xp(x).fftn
    return transform(x, s, axes, norm)


def _weighted(x: Any, weight: float, n: int, axis: int) -> Any:
    """`x` times `weight`, but not the coefficients that are real for real data of length `n`."""
    array = raw(x)
    k = xp(array).arange(x.shape[axis])
    weights = xp(array).where((k == 0) | (2 * k == n), 1.0, weight).astype(x.dtype.char.lower())
    return x * weights.reshape([-1 if i == axis else 1 for i in range(x.ndim)])


@linear(
    lambda t, s, axes, norm, shape: _fit(
        _irfftn(_weighted(conj(t), 0.5, s[-1], axes[-1]), s=s, axes=axes, norm=_OPPOSITE[norm]),
        shape,
    )
)
def _rfftn(x: Any, /, *, s: tuple[int, ...], axes: tuple[int, ...], norm: str) -> Any:
    return xp(x).rfftn(x, s, axes, norm)


@linear(
    lambda t, s, axes, norm, shape: _fit(
        _weighted(conj(_rfftn(t, s=s, axes=axes, norm=_OPPOSITE[norm])), 2.0, s[-1], axes[-1]),
        shape,
    )
)
def _irfftn(x: Any, /, *, s: tuple[int, ...], axes: tuple[int, ...], norm: str) -> Any:
    return xp(x).irfftn(x, s, axes, norm)


def _arguments(
    name: str, x: Any, s: Any, axes: Any, norm: str | None, *, halved: bool = False
) -> tuple[Any, dict[str, Any]]:
    """The input and the options of a transform, checked; `halved`: of an input from `rfftn`."""
    check_arrays(name, x)
    norm = "backward" if norm is None else norm
    if norm not in _OPPOSITE:
        raise ValueError(f"{name}: norm is 'backward', 'ortho' or 'forward', not {norm!r}")
    if axes is None:
        if s is not None:
            raise ValueError(f"{name}: s={s} needs the axes that these lengths belong to")
        axes = range(x.ndim)
    axes = normalize_axis_tuple(axes, x.ndim, name)
    lengths = [x.shape[i] for i in axes]
    if halved and axes:
        lengths[-1] = 2 * (lengths[-1] - 1)
    if s is not None:
        try:
            s = [operator.index(n) for n in s]
        except TypeError:
            raise TypeError(f"{name}: lengths are integers, got {s!r}") from None
        if len(s) != len(axes):
            raise ValueError(f"{name}: {len(s)} lengths for {len(axes)} axes")
        lengths = [n if m == -1 else m for n, m in zip(lengths, s, strict=True)]
    if not lengths or min(lengths) < 1:
        raise ValueError(
            f"{name}: at least one point along each axis is needed, got lengths {lengths} of "
            f"{x.dtype} {x.shape}"
        )
    if x.dtype.itemsize == 2 and x.dtype.kind not in "iu":
        x = astype(x, "float32")
    return x, {"s": tuple(lengths), "axes": axes, "norm": norm}


def _real_arguments(name: str, x: Any, *rest: Any) -> tuple[Any, dict[str, Any]]:
    x, options = _arguments(name, x, *rest)
    if x.dtype.kind == "c":
        raise TypeError(
            f"{name}: the input is real, got {x.dtype} {x.shape}: use fft, ifft or fftn"
        )
    return x, options


def _one(n: int | None) -> tuple[int] | None:
    """The length along one axis, where -1 has no meaning."""
    return None if n is None else (0 if n == -1 else n,)


def fft(x: Any, /, n: int | None = None, axis: int = -1, norm: str | None = "backward") -> Any:
    """sum_j x[j] exp(-2 pi i j k / n) for k = 0 ... n-1 along `axis`: complex.

    Raises:
        ValueError: for n < 1, and for another `norm` than "backward", "ortho", "forward".
    """
    x, options = _arguments("fft", x, _one(n), (axis,), norm)
    return _fftn(x, **options, inverse=False)


def ifft(x: Any, /, n: int | None = None, axis: int = -1, norm: str | None = "backward") -> Any:
    """The inverse of `fft`: sum_k x[k] exp(2 pi i j k / n) / n along `axis`.

    Raises:
        ValueError: as `fft`.
    """
    x, options = _arguments("ifft", x, _one(n), (axis,), norm)
    return _fftn(x, **options, inverse=True)


def fftn(
    x: Any,
    /,
    s: Sequence[int] | None = None,
    axes: Sequence[int] | None = None,
    norm: str | None = "backward",
) -> Any:
    """`fft` along each of `axes` (None: all), of lengths `s` (-1: that of the axis).

    Raises:
        ValueError: as `fft`, for axes that repeat, and for `s` without `axes`.
    """
    x, options = _arguments("fftn", x, s, axes, norm)
    return _fftn(x, **options, inverse=False)


def ifftn(
    x: Any,
    /,
    s: Sequence[int] | None = None,
    axes: Sequence[int] | None = None,
    norm: str | None = "backward",
) -> Any:
    """The inverse of `fftn`.

    Raises:
        ValueError: as `fftn`.
    """
    x, options = _arguments("ifftn", x, s, axes, norm)
    return _fftn(x, **options, inverse=True)


def rfft(x: Any, /, n: int | None = None, axis: int = -1, norm: str | None = "backward") -> Any:
    """`fft` of a real `x`: its coefficients 0 ... n//2, the others are their conjugates.

    Raises:
        ValueError: as `fft`.
        TypeError: for a complex `x`.
    """
    x, options = _real_arguments("rfft", x, _one(n), (axis,), norm)
    return _rfftn(x, **options)


def irfft(x: Any, /, n: int | None = None, axis: int = -1, norm: str | None = "backward") -> Any:
    """The inverse of `rfft`: real, of length `n`, by default the even number 2 (m - 1).

    The imaginary parts of coefficient 0 and, for even `n`, of coefficient n/2 do not count.

    Raises:
        ValueError: as `fft`.
    """
    x, options = _arguments("irfft", x, _one(n), (axis,), norm, halved=True)
    return _irfftn(x, **options)


def rfftn(
    x: Any,
    /,
    s: Sequence[int] | None = None,
    axes: Sequence[int] | None = None,
    norm: str | None = "backward",
) -> Any:
    """`rfft` of a real `x` along the last of `axes`, and `fft` along the others.

    Raises:
        ValueError: as `fftn`.
        TypeError: for a complex `x`.
    """
    x, options = _real_arguments("rfftn", x, s, axes, norm)
    return _rfftn(x, **options)


def irfftn(
    x: Any,
    /,
    s: Sequence[int] | None = None,
    axes: Sequence[int] | None = None,
    norm: str | None = "backward",
) -> Any:
    """The inverse of `rfftn`: `ifft` along all of `axes` but the last, there `irfft`.

    Raises:
        ValueError: as `fftn`.
    """
    x, options = _arguments("irfftn", x, s, axes, norm, halved=True)
    return _irfftn(x, **options)


def hfft(x: Any, /, n: int | None = None, axis: int = -1, norm: str | None = "backward") -> Any:
    """`fft` of a sequence of which x[-j] is the conjugate of x[j]: real, of length `n`.

    `x` is its first half, j = 0 ... n//2; the imaginary parts that must be zero do not count.

    Raises:
        ValueError: as `fft`.
    """
    x, options = _arguments("hfft", x, _one(n), (axis,), norm, halved=True)
    return _irfftn(conj(x), **_reversed(options))


def ihfft(x: Any, /, n: int | None = None, axis: int = -1, norm: str | None = "backward") -> Any:
    """The inverse of `hfft`: the first half of `ifft` of a real `x`.

    Raises:
        ValueError: as `fft`.
        TypeError: for a complex `x`.
    """
    x, options = _real_arguments("ihfft", x, _one(n), (axis,), norm)
    return conj(_rfftn(x, **_reversed(options)))


def _reversed(options: dict[str, Any]) -> dict[str, Any]:
    return options | {"norm": _OPPOSITE[options["norm"]]}


def _over_two(transform: Callable[..., Any], name: str) -> Callable[..., Any]:
    def over_two(
        x: Any,
        /,
        s: Sequence[int] | None = None,
        axes: Sequence[int] = (-2, -1),
        norm: str | None = "backward",
    ) -> Any:
        return transform(x, s, axes, norm)

    over_two.__name__ = over_two.__qualname__ = name
    over_two.__doc__ = f"`{transform.__name__}` over the last two axes, with its shapes and errors."
    return over_two


fft2 = _over_two(fftn, "fft2")
ifft2 = _over_two(ifftn, "ifft2")
rfft2 = _over_two(rfftn, "rfft2")
irfft2 = _over_two(irfftn, "irfft2")


def fftshift(x: Any, /, *, axes: int | Sequence[int] | None = None) -> Any:
    """Coefficient 0 moved to the middle of each of `axes` (None: all)."""
    check_arrays("fftshift", x)
    return _shifted("fftshift", x, axes, lambda n: n // 2)


def ifftshift(x: Any, /, *, axes: int | Sequence[int] | None = None) -> Any:
    """The inverse of `fftshift`."""
    check_arrays("ifftshift", x)
    return _shifted("ifftshift", x, axes, lambda n: -(n // 2))


def _shifted(name: str, x: Any, axes: Any, distance: Callable[[int], int]) -> Any:
    axes = normalize_axis_tuple(range(x.ndim) if axes is None else axes, x.ndim, name)
    return roll(x, tuple(distance(x.shape[i]) for i in axes), axis=axes)
