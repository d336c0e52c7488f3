"""The kernels of ``kernels/*.cuh`` in NumPy: their specification, CPU path and test oracle.

Every function takes and returns raw NumPy arrays and broadcasts like a ufunc. Two-byte floats
(float16, bfloat16) are computed in float32, integers in float64. Overflow, infinities and NaN give
the limit or NaN and never a warning. Only ``sgd_step`` and ``adam_step`` write their arguments.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

__all__ = [
    "adam_step",
    "cross_entropy",
    "cross_entropy_grad",
    "erf",
    "exp_sums",
    "gelu",
    "gelu_grad",
    "log_sigmoid",
    "log_softmax",
    "logsumexp",
    "patch_sums",
    "patches",
    "relu",
    "relu_grad",
    "sgd_step",
    "sigmoid",
    "sigmoid_grad",
    "silu",
    "silu_grad",
    "softmax",
    "softplus",
    "tanh_grad",
]

Array = np.ndarray[Any, Any]

_quiet = np.errstate(all="ignore")

# Zero-dimensional arrays of the working dtype: a ufunc takes them faster than a Python number.
_ZERO = {c: np.array(0, c) for c in "fd"}
_ONE = {c: np.array(1, c) for c in "fd"}
_TWO = {c: np.array(2, c) for c in "fd"}
_MINUS_TWO = {c: np.array(-2, c) for c in "fd"}
_QUARTER = {c: np.array(0.25, c) for c in "fd"}
_HIGHEST = {c: np.array(np.finfo(c).max, c) for c in "fd"}
_LOWEST = {c: np.array(np.finfo(c).min, c) for c in "fd"}

# Large arrays go in pieces whose temporaries stay in the cache.
_BLOCK = 1 << 14


def working_dtypes(dtype: np.dtype[Any]) -> tuple[np.dtype[Any], np.dtype[Any]]:
    """The dtype to compute in, and that of the result."""
    if dtype.kind == "c":
        raise TypeError(f"a real dtype is needed, got {dtype}")
    if dtype.kind in "biu":
        return np.dtype(np.float64), np.dtype(np.float64)
    return np.dtype(np.float32 if dtype.itemsize == 2 else dtype), dtype


def _unary(f: Callable[[Array], Array]) -> Callable[[Array], Array]:
    """Extend f(x), written for float32 and float64 arrays with dimensions, to all real arrays."""
    quiet = _quiet(f)

    @functools.wraps(f)
    def twin(x: Array) -> Array:
        if x.dtype.char in "fd" and x.ndim:
            return quiet(x) if x.size <= _BLOCK else _blockwise(quiet, x)
        work, result = working_dtypes(x.dtype)
        out = twin(np.atleast_1d(np.asarray(x, work)))
        return _quietly_cast(out.reshape(x.shape), result)

    return twin


def _binary(f: Callable[[Array, Array], Array]) -> Callable[[Array, Array], Array]:
    """Extend f(g, x) likewise."""
    quiet = _quiet(f)

    @functools.wraps(f)
    def twin(g: Array, x: Array) -> Array:
        dtype = x.dtype
        if g.dtype is dtype and dtype.char in "fd" and x.ndim:
            if x.size <= _BLOCK or g.shape != x.shape:
                return quiet(g, x)
            return _blockwise(quiet, g, x)
        shape = np.broadcast_shapes(g.shape, x.shape)
        work, result = working_dtypes(np.result_type(g, x))
        out = twin(np.asarray(g, work), np.atleast_1d(np.asarray(x, work)))
        return _quietly_cast(out.reshape(shape), result)

    return twin


def _blockwise(f: Callable[..., Array], *args: Array) -> Array:
    out = np.empty(args[0].shape, args[0].dtype)
    flat_out, flats = out.reshape(-1), [a.reshape(-1) for a in args]
    for start in range(0, out.size, _BLOCK):
        piece = slice(start, start + _BLOCK)
        flat_out[piece] = f(*(flat[piece] for flat in flats))
    return out


@_quiet
def _quietly_cast(x: Array, dtype: np.dtype[Any]) -> Array:
    return x.astype(dtype, copy=False)


def _into(out: Array, *args: Array) -> Array | None:
    """out as the ``out=`` of a ufunc of args, if it has the shape of the result."""
    return out if all(a.shape == out.shape for a in args) else None


@_unary
def sigmoid(x: Array) -> Array:
    """1 / (1 + exp(-x)), right in both tails: where exp overflows the result is below the normal
    range."""
    e = np.negative(x)
    np.exp(e, out=e)
    np.add(e, _ONE[e.dtype.char], out=e)
    return np.reciprocal(e, out=e)


@_binary
def sigmoid_grad(g: Array, x: Array) -> Array:
    """g times the derivative of the sigmoid, as g / (1/E + (E + 2)) with E = exp(|x|).

    At most 4 ulp off in float32, of which NumPy's exp may be 2.5; e / (1 + e)**2 would be 5.
    """
    e = np.abs(x)
    np.exp(e, out=e)
    d = np.reciprocal(e)
    e += _TWO[e.dtype.char]
    d += e
    return np.divide(g, d, out=_into(d, g))


@_unary
def softplus(x: Array) -> Array:
    """log(1 + exp(x)), as max(x, 0) + log1p(exp(-|x|))."""
    e = np.abs(x)
    np.negative(e, out=e)
    np.exp(e, out=e)
    np.log1p(e, out=e)
    e += np.maximum(x, _ZERO[e.dtype.char])
    return e


@_unary
def log_sigmoid(x: Array) -> Array:
    """log(sigmoid(x)) = -softplus(-x)."""
    e = np.abs(x)
    np.negative(e, out=e)
    np.exp(e, out=e)
    np.log1p(e, out=e)
    return np.subtract(np.minimum(x, _ZERO[e.dtype.char]), e, out=e)


@_unary
def silu(x: Array) -> Array:
    """x * sigmoid(x); -0 at -inf."""
    e = np.negative(x)
    np.exp(e, out=e)
    np.add(e, _ONE[e.dtype.char], out=e)
    return np.divide(np.maximum(x, _LOWEST[e.dtype.char]), e, out=e)


@_binary
def silu_grad(g: Array, x: Array) -> Array:
    """g times the derivative of silu, sigmoid(x) * (1 + x * sigmoid(-x))."""
    char = x.dtype.char
    x = np.maximum(x, _LOWEST[char])
    np.minimum(x, _HIGHEST[char], out=x)
    e = np.exp(x)
    s = np.reciprocal(e)
    s += _ONE[char]
    np.reciprocal(s, out=s)
    e += _ONE[char]
    np.divide(x, e, out=e)
    e += _ONE[char]
    e *= s
    return np.multiply(g, e, out=_into(e, g))


def _coefficients(*rows: tuple[float, ...]) -> tuple[list[Array], ...]:
    """Numerator and denominator of a rational function, from the highest power down."""
    return tuple([np.array(c) for c in row] for row in rows)


# Relative minimax fits. In y: exp(y**2 / 2) * Phi(-y), for 0 <= y <= 39.5 to 5e-17 and for
# 0 <= y <= 14.5 to 6e-9, with positive coefficients only, so that nothing cancels.
# In u = x**2: erf(x) / x for |x| <= 1/2 to 3e-20. (The form is that of Cody 1969, Math. Comp. 23.)
_TAIL_64 = _coefficients(
    (
        1.3912405766750193e-06,
        3.737846639308703e-05,
        0.0004917852278543473,
        0.004098766791661423,
        0.023666906144934816,
        0.09784485343433823,
        0.28965660863147874,
        0.5944995437550643,
        0.7751865506982932,
        0.5,
    ),
    (
        3.4873229663173885e-06,
        9.369392072120422e-05,
        0.001236210080344609,
        0.010367778640943228,
        0.06054988464273014,
        0.2553473615451442,
        0.7829552491324111,
        1.7158348991284367,
        2.562637620966424,
        2.3482576621994413,
        1.0,
    ),
)
_TAIL_32 = _coefficients(
    (
        0.004116201553950403,
        0.04063253197169462,
        0.18323312676335807,
        0.43829231598878643,
        0.50000000295338,
    ),
    (
        0.010317667442069085,
        0.10185710118461384,
        0.4694653080718143,
        1.2024949165338148,
        1.6744696130923828,
        1.0,
    ),
)
_ERF_NEAR_0 = _coefficients(
    (
        6.531725683351742e-05,
        0.0011114107697555678,
        0.04003327947927727,
        0.13271923970737903,
        1.1283791670955126,
    ),
    (
        0.00035158774439253274,
        0.00829792821159232,
        0.08579613588459029,
        0.4509526970876314,
        1.0,
    ),
)


def _polynomial(coefficients: list[Array], y: Array) -> Array:
    """A polynomial of a float64 vector, by Horner's scheme."""
    out = y * coefficients[0]
    for c in coefficients[1:-1]:
        np.add(out, c, out=out)
        np.multiply(out, y, out=out)
    return np.add(out, coefficients[-1], out=out)


def _rational(coefficients: tuple[list[Array], ...], y: Array) -> Array:
    above, below = (_polynomial(c, y) for c in coefficients)
    return np.divide(above, below, out=above)


def _gauss_tail(x: Array) -> tuple[Array, Array, Array]:
    """y = |x|, exp(-y**2 / 2) and Phi(-y) of a vector, in float64; y stops where they are 0."""
    if x.dtype.char == "f":
        y = np.abs(x, dtype=np.float64)
        np.minimum(y, 40.0, out=y)
        e = y * y
        e *= -0.5
        np.exp(e, out=e)
        tail = _rational(_TAIL_32, y)
    else:
        y = np.abs(x)
        np.minimum(y, 40.0, out=y)
        head = y.astype(np.float32).astype(np.float64)  # its square is exact
        e = y + head
        e *= y - head
        e *= -0.5
        np.exp(e, out=e)
        head *= head
        head *= -0.5
        e *= np.exp(head, out=head)
        tail = _rational(_TAIL_64, y)
    tail *= e
    return y, e, tail


@_unary
def erf(x: Array) -> Array:
    """The error function."""
    flat = x.reshape(-1).astype(np.float64)
    near = np.clip(flat, -0.5, 0.5)
    near *= _rational(_ERF_NEAR_0, near * near)
    flat *= np.sqrt(2.0)
    _, _, far = _gauss_tail(flat)
    far *= -2
    far += 1
    out = np.where(np.abs(flat) > np.sqrt(0.5), np.copysign(far, flat), near)
    return out.reshape(x.shape).astype(x.dtype, copy=False)


@_unary
def gelu(x: Array) -> Array:
    """x * Phi(x) with the normal distribution function Phi (Hendrycks & Gimpel 2016, not the tanh
    form), as max(x, 0) - |x| * Phi(-|x|)."""
    flat = x.reshape(-1)
    y, _, tail = _gauss_tail(flat)
    tail *= y
    np.subtract(np.maximum(flat, _ZERO[x.dtype.char]), tail, out=tail)
    return tail.reshape(x.shape).astype(x.dtype, copy=False)


@_binary
def gelu_grad(g: Array, x: Array) -> Array:
    """g times the derivative of gelu, Phi(x) + x * phi(x)."""
    flat = x.reshape(-1)
    y, e, slope = _gauss_tail(flat)
    e *= 0.3989422804014327  # 1 / sqrt(2 pi)
    e *= y
    slope -= e
    # 1 - slope where x > 0; in arithmetic, because a select per entry is many times slower
    positive = np.greater(flat, _ZERO[x.dtype.char]).astype(np.float64)
    sign = positive * -2.0
    sign += 1.0
    slope *= sign
    slope += positive
    return np.multiply(g, slope.reshape(x.shape).astype(x.dtype, copy=False))


@_binary
def tanh_grad(g: Array, x: Array) -> Array:
    """g / cosh(x)**2, as 4 g times the derivative of the sigmoid at 2 x."""
    e = np.abs(x)
    np.multiply(e, _MINUS_TWO[e.dtype.char], out=e)
    np.exp(e, out=e)
    d = np.reciprocal(e)
    np.add(e, _TWO[e.dtype.char], out=e)
    d += e
    np.multiply(d, _QUARTER[d.dtype.char], out=d)
    return np.divide(g, d, out=_into(d, g))


def relu(x: Array) -> Array:
    """max(x, 0) in the dtype of x."""
    if x.dtype.kind == "c":
        raise TypeError(f"a real dtype is needed, got {x.dtype}")
    return np.maximum(x, np.zeros((), x.dtype))


_MASK = {"f": np.int32, "d": np.int64}


@_binary
def relu_grad(g: Array, x: Array) -> Array:
    """g where x > 0 or x is NaN, else 0."""
    # All bits or none of g: a select per entry is many times slower on signs without a pattern.
    mask_type = _MASK[x.dtype.char]
    mask = np.less_equal(x, _ZERO[x.dtype.char]).astype(mask_type)
    mask -= 1
    kept = np.bitwise_and(mask, g.view(mask_type), out=_into(mask, g))
    return kept.view(x.dtype)


def _along(f: Callable[..., Array]) -> Callable[..., Array]:
    """Give f(x, ...), written for float32 and float64, all real dtypes."""
    quiet = _quiet(f)

    @functools.wraps(f)
    def twin(x: Array, *args: Any, **kwargs: Any) -> Array:
        if x.dtype.char in "fd":
            return quiet(x, *args, **kwargs)
        work, result = working_dtypes(x.dtype)
        return _quietly_cast(quiet(np.asarray(x, work), *args, **kwargs), result)

    return twin


def _shifted(x: Array, axis: Any) -> tuple[Array, Array]:
    """x - max(x) along axis as a new array, and max(x), which is kept finite."""
    top = np.maximum.reduce(x, axis=axis, keepdims=True, initial=-np.inf)
    top = np.minimum(np.maximum(top, _LOWEST[x.dtype.char]), _HIGHEST[x.dtype.char])
    return np.subtract(x, top, out=np.empty(x.shape, x.dtype)), top


@_along
def softmax(x: Array, axis: Any = -1) -> Array:
    """exp(x) / sum(exp(x)) along axis; NaN where that is 0 / 0 or inf / inf."""
    e, _ = _shifted(x, axis)
    np.exp(e, out=e)
    e /= np.add.reduce(e, axis=axis, keepdims=True)
    return e


@_along
def log_softmax(x: Array, axis: Any = -1) -> Array:
    """x - logsumexp(x) along axis, without its rounding error when x is large."""
    e, _ = _shifted(x, axis)
    e -= np.log(np.add.reduce(np.exp(e), axis=axis, keepdims=True))
    return e


@_along
def logsumexp(x: Array, axis: Any = None, keepdims: bool = False) -> Array:
    """log(sum(exp(x))) along axis; -inf for no entries or all -inf, inf beside an inf."""
    e, top = _shifted(x, axis)
    np.exp(e, out=e)
    out = np.add.reduce(e, axis=axis, keepdims=True)
    out = np.log(out) + top
    if keepdims:
        return out
    return out.reshape(()) if axis is None else np.squeeze(out, axis)


@_quiet
def exp_sums(x: Array) -> Array:
    """The sum of exp(x) of each row as total * exp(top): columns top and total, shape (n, 2).

    In the dtype to compute in; top is the largest entry, total what exp(x - top) adds up to.
    """
    if x.dtype.char not in "fd":
        x = np.asarray(x, working_dtypes(x.dtype)[0])
    e, top = _shifted(x, 1)
    np.exp(e, out=e)
    out = np.empty((len(x), 2), x.dtype)
    out[:, :1] = top
    np.add.reduce(e, axis=1, out=out[:, 1])
    return out


@_along
def cross_entropy(logits: Array, labels: Array, sums: Array) -> Array:
    """-log_softmax(logits)[i, labels[i]] for logits (N, C) and integer labels (N,): shape (N,).

    `sums` is ``exp_sums(logits)``.
    """
    picked = logits[np.arange(len(labels)), labels]
    picked -= sums[:, 0]
    out = np.log(sums[:, 1])
    out -= picked
    return out


@_quiet
def cross_entropy_grad(g: Array, logits: Array, labels: Array, sums: Array) -> Array:
    """g[i] * (softmax(logits)[i, j] - (j == labels[i])): shape (N, C).

    `sums` is ``exp_sums(logits)``.
    """
    work, result = working_dtypes(np.result_type(g, logits))
    g = np.asarray(g, work)
    out = np.asarray(logits, work) - sums[:, :1]
    np.exp(out, out=out)
    total, index = sums[:, 1], (np.arange(len(labels)), labels)
    of_labels = out[index] / total
    of_labels -= 1
    of_labels *= g
    out *= (g / total)[:, None]
    out[index] = of_labels
    return out.astype(result, copy=False)


Pair = tuple[int, int]


def _meetings(
    length: int, count: int, size: int, stride: int, padding: int, dilation: int
) -> list[tuple[slice, slice]]:
    """Per tap of a window: the places where it is over an entry, and these entries."""
    found = []
    for tap in range(size):
        shift = padding - tap * dilation
        first = max(0, -(-shift // stride))
        last = min(count - 1, (length - 1 + shift) // stride)
        entry = first * stride - shift
        end = entry + max(0, last - first + 1) * stride
        found.append((slice(first, max(first, last + 1)), slice(entry, end, stride)))
    return found


def places(lengths: Any, size: Pair, stride: Pair, padding: Pair, dilation: Pair) -> list[int]:
    """At how many places the window of ``patches`` stands, along each axis."""
    return [
        (n + 2 * p - d * (k - 1) - 1) // s + 1
        for n, k, s, p, d in zip(lengths, size, stride, padding, dilation, strict=True)
    ]


def patches(x: Array, size: Pair, stride: Pair, padding: Pair, dilation: Pair) -> Array:
    """The patches under a window that slides over images, zero where it stands out of them.

    Args:
        x: shape (images, channels, rows, columns).
        size, stride, padding, dilation: of the window, along rows and columns.

    Returns:
        Shape (channels, size, size, images, places, places).
    """
    images, channels, *lengths = x.shape
    counts = places(lengths, size, stride, padding, dilation)
    out = np.zeros((channels, *size, images, *counts), x.dtype)
    source = x.transpose(1, 0, 2, 3)
    rows, columns = map(_meetings, lengths, counts, size, stride, padding, dilation)
    for i, (place_r, row) in enumerate(rows):
        for j, (place_c, column) in enumerate(columns):
            out[:, i, j, :, place_r, place_c] = source[:, :, row, column]
    return out


def patch_sums(x: Array, lengths: Pair, stride: Pair, padding: Pair, dilation: Pair) -> Array:
    """The images, of `lengths` rows and columns, that patches laid over each other add up to.

    The transpose of ``patches``: x has the shape of its result, the result that of its argument.
    """
    channels, *size, images = x.shape[:4]
    work = np.dtype(np.float32) if x.dtype.itemsize == 2 else x.dtype
    out = np.zeros((images, channels, *lengths), work)
    target = out.transpose(1, 0, 2, 3)
    rows, columns = map(_meetings, lengths, x.shape[4:], size, stride, padding, dilation)
    for i, (place_r, row) in enumerate(rows):
        for j, (place_c, column) in enumerate(columns):
            target[:, :, row, column] += x[:, i, j, :, place_r, place_c]
    return _quietly_cast(out, x.dtype)


def sgd_step(param: Array, velocity: Array | None, grad: Array, lr: Array, momentum: float) -> None:
    """velocity = momentum * velocity + grad; param -= lr * velocity, in place.

    Without velocity: param -= lr * grad. `lr` is a float64 array of shape ().
    """
    if param.dtype.itemsize == 2:
        p = param.astype(np.float32)
        v = None if velocity is None else velocity.astype(np.float32)
        sgd_step(p, v, grad.astype(np.float32), lr, momentum)
        param[...] = p
        if velocity is not None:
            velocity[...] = v
        return
    if velocity is not None:
        velocity *= momentum
        velocity += grad
        grad = velocity
    param -= np.multiply(grad, lr.item())


@_quiet
def adam_step(
    param: Array,
    m: Array,
    v: Array,
    grad: Array,
    lr: Array,
    beta1: float,
    beta2: float,
    eps: float,
    powers: Array,
) -> None:
    """Step t = 1, 2, ... of Adam with bias correction (Kingma & Ba 2015, algorithm 1), in place.

    `lr` is a float64 array of shape (), `powers` one of beta1**t and beta2**t.
    """
    if param.dtype.itemsize == 2:
        p, m32, v32 = (a.astype(np.float32) for a in (param, m, v))
        adam_step(p, m32, v32, grad.astype(np.float32), lr, beta1, beta2, eps, powers)
        param[...], m[...], v[...] = p, m32, v32
        return
    power1, power2 = powers.tolist()
    scratch = np.subtract(grad, m, out=np.empty(param.shape, param.dtype))
    scratch *= 1 - beta1
    m += scratch
    np.multiply(grad, grad, out=scratch)
    scratch -= v
    scratch *= 1 - beta2
    v += scratch
    np.divide(v, 1 - power2, out=scratch)
    np.sqrt(scratch, out=scratch)
    scratch += eps
    np.divide(m, scratch, out=scratch)
    scratch *= lr.item() / (1 - power1)
    param -= scratch
