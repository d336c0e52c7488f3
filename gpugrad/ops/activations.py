"""Sigmoid and its like, softmax and cross-entropy: each with a kernel of its own and a twin.

The derivative of a kernel is a kernel too (`sigmoid_grad`), and an operation like any other, with
rules of its own; so higher derivatives need nothing more.
"""

from __future__ import annotations

import math
from typing import Any

from ..rules import check_arrays, constant, elementwise, fused, general, refusal, xp
from .creation import ones_like, zeros_like
from .elementwise import clip, exp, tanh

__all__ = [
    "cross_entropy",
    "gelu",
    "log_sigmoid",
    "log_softmax",
    "relu",
    "sigmoid",
    "silu",
    "softmax",
    "softplus",
]

sigmoid = elementwise(
    "sigmoid",
    lambda t, x: sigmoid_grad(t, x),
    doc="1 / (1 + e**-x), right in both tails.",
)
sigmoid_grad = elementwise(
    "sigmoid_grad",
    lambda t, x: sigmoid_grad(t, x),
    lambda t, g, x: sigmoid_grad(-(t * g) * tanh(x * 0.5), x),
    arrays=("g", "x"),
    doc="g times the derivative of sigmoid at x, right in both tails.",
)
softplus = elementwise(
    "softplus", lambda t, x: t * sigmoid(x), doc="log(1 + e**x) without overflow."
)
log_sigmoid = elementwise(
    "log_sigmoid", lambda t, x: t * sigmoid(-x), doc="log(sigmoid(x)) without overflow."
)
silu = elementwise(
    "silu",
    lambda t, x: silu_grad(t, x),
    doc="x * sigmoid(x) (Hendrycks and Gimpel 2016; Elfwing et al. 2018).",
)
silu_grad = elementwise(
    "silu_grad",
    lambda t, x: silu_grad(t, x),
    lambda t, g, x: sigmoid_grad(t * g, x) * _silu_bend(x),
    arrays=("g", "x"),
    doc="g times the derivative of silu at x.",
)
gelu = elementwise(
    "gelu",
    lambda t, x: gelu_grad(t, x),
    doc="x * Phi(x), Phi the normal distribution function (Hendrycks and Gimpel 2016).",
)
gelu_grad = elementwise(
    "gelu_grad",
    lambda t, x: gelu_grad(t, x),
    lambda t, g, x: t * g * _gelu_curvature(x),
    arrays=("g", "x"),
    doc="g times the derivative of gelu at x.",
)
relu = elementwise("relu", lambda t, x: relu_grad(t, x), doc="max(x, 0); derivative I[x > 0].")
relu_grad = elementwise(
    "relu_grad",
    lambda t, x: relu_grad(t, x),
    lambda t: zeros_like(t),
    arrays=("g", "x"),
    doc="g where x > 0, else 0.",
)


# Both bounded where the derivative is 0 already, so that no infinity meets that 0.


def _silu_bend(x: Any) -> Any:
    x = clip(x, -1000, 1000)
    return 2 - x * tanh(x * 0.5)


def _gelu_curvature(x: Any) -> Any:
    x = clip(x, -40, 40)
    return (2 - x * x) * exp(x * x * -0.5) * (1 / math.sqrt(2 * math.pi))


def _softmax_rule(t: Any, out: Any, axis: int) -> Any:
    weighted = t * out
    return _less(weighted, out, weighted.sum(axis=axis, keepdims=True))


@fused
def _less(weighted: Any, out: Any, total: Any) -> Any:
    return weighted - out * total


@general((_softmax_rule,), (_softmax_rule,))
def softmax(x: Any, /, *, axis: int = -1) -> Any:
    """e**x over its sum along `axis`, without overflow; shape and dtype of `x`."""
    return xp(x).softmax(x, axis)


@fused
def _less_exp(t: Any, out: Any, total: Any) -> Any:
    return t - exp(out) * total


@general(
    (lambda t, out, axis: _less_exp(t, out, t.sum(axis=axis, keepdims=True)),),
    (lambda t, out, axis: t - (exp(out) * t).sum(axis=axis, keepdims=True),),
)
def log_softmax(x: Any, /, *, axis: int = -1) -> Any:
    """log(softmax(x)) along `axis`, without overflow; shape and dtype of `x`."""
    return xp(x).log_softmax(x, axis)


@constant
def exp_sums(logits: Any, /) -> Any:
    """What `cross_entropy` and its derivative share: (n, 2), the largest of each row and the sum
    of the exponentials of the distances to it. A function of `logits`, taken into account in the
    rules of both."""
    return xp(logits).exp_sums(logits)


def _per_row(t: Any, logits: Any, labels: Any, sums: Any) -> Any:
    gradient = cross_entropy_grad(ones_like(t[:, 0]), logits, labels, sums)
    return (t * gradient).sum(axis=1)


def _curvature(t: Any, g: Any, logits: Any) -> Any:
    return g.reshape((-1, 1)) * _softmax_rule(t, softmax(logits), -1)


def cross_entropy(logits: Any, labels: Any, /) -> Any:
    """-log softmax(logits)[label] per row.

    Args:
        logits: shape (n, classes), floating-point.
        labels: shape (n,), integers in [0, classes).

    Returns:
        Shape (n,), dtype of `logits`.

    Raises:
        ValueError: if the shapes do not fit; TypeError: if `labels` are no integers.
        IndexError: for a label out of range; on a GPU inside `check_bounds`.
    """
    check_arrays("cross_entropy", logits, labels)
    if logits.ndim != 2 or labels.shape != logits.shape[:1]:
        error: Exception = ValueError("logits must have shape (n, classes) and labels (n,)")
        raise refusal("cross_entropy", (logits, labels), error)
    if labels.dtype.kind not in "iu":
        error = TypeError("labels must be integers, the number of the right class")
        raise refusal("cross_entropy", (logits, labels), error)
    return _cross_entropy(logits, labels, exp_sums(logits))


@general(
    (
        lambda t, logits, labels, sums: cross_entropy_grad(t, logits, labels, sums),
        None,
        None,
    ),
    (lambda t, logits, labels, sums: _per_row(t, logits, labels, sums), None, None),
)
def _cross_entropy(logits: Any, labels: Any, sums: Any, /) -> Any:
    return xp(logits).cross_entropy(logits, labels, sums)


@general(
    (
        lambda t, logits, labels, sums: _per_row(t, logits, labels, sums),
        lambda t, g, logits: _curvature(t, g, logits),
        None,
        None,
    ),
    (
        lambda t, logits, labels, sums: cross_entropy_grad(t, logits, labels, sums),
        lambda t, g, logits: _curvature(t, g, logits),
        None,
        None,
    ),
)
def cross_entropy_grad(g: Any, logits: Any, labels: Any, sums: Any, /) -> Any:
    """The vjp of `cross_entropy`: g (n,) to (n, classes), g * (softmax(logits) - one at label).

    `sums` is `exp_sums(logits)`, which the forward pass computed.
    """
    return xp(logits).cross_entropy_grad(g, logits, labels, sums)
