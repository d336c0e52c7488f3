"""Rows of the table: activations and losses."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

import gpugrad as gg

from ...ops import activations, elementwise, linalg
from ..rows import (
    LABELS,
    REAL,
    case,
    entrywise,
    in_float64,
    signed,
)


def _phi(x: np.ndarray) -> np.ndarray:
    """The normal distribution function."""
    return np.vectorize(lambda v: 0.5 * math.erfc(-v / math.sqrt(2)), otypes=[float])(x)


def _density(x: np.ndarray) -> np.ndarray:
    return np.exp(-x * x / 2) / math.sqrt(2 * math.pi)


def _logistic(x: np.ndarray) -> np.ndarray:
    return np.exp(-np.logaddexp(0, -x))


def _logistic_density(x: np.ndarray) -> np.ndarray:
    return np.exp(-np.logaddexp(0, x) - np.logaddexp(0, -x))


def _or_0_at_minus_infinity(f: Callable[..., Any]) -> Callable[..., Any]:
    return lambda x: np.where(x == -np.inf, -0.0, f(np.where(x == -np.inf, 0, x)))


def _softmax(x: np.ndarray, axis: int = -1) -> np.ndarray:
    return np.exp(x) / np.exp(x).sum(axis=axis, keepdims=True)


def _log_softmax(x: np.ndarray, axis: int = -1) -> np.ndarray:
    return np.log(_softmax(x, axis))


def _cross_entropy(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    return -_log_softmax(logits)[np.arange(len(labels)), labels]


def _cross_entropy_grad(g: np.ndarray, logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    return g[:, None] * (_softmax(logits) - np.eye(logits.shape[1])[labels])


def _grad_and_sums(g: Any, logits: Any, labels: Any) -> Any:
    return activations.cross_entropy_grad(g, logits, labels, activations.exp_sums(logits))


ROWS = [
    *(
        entrywise(name, signed, reference=in_float64(reference))
        for name, reference in [
            ("sigmoid", _logistic),
            ("softplus", lambda x: np.logaddexp(0, x)),
            ("log_sigmoid", lambda x: -np.logaddexp(0, -x)),
            ("silu", _or_0_at_minus_infinity(lambda x: x * _logistic(x))),
            ("gelu", _or_0_at_minus_infinity(lambda x: x * _phi(x))),
            ("relu", lambda x: np.maximum(x, 0)),
        ]
    ),
    *(
        case(
            name,
            signed(2, 3),
            signed(3),
            function=getattr(elementwise if name == "tanh_grad" else activations, name),
            reference=in_float64(reference),
            dtypes=REAL,
        )
        for name, reference in [
            ("tanh_grad", lambda g, x: 4 * g * _logistic_density(2 * x)),
            ("sigmoid_grad", lambda g, x: g * _logistic_density(x)),
            ("silu_grad", lambda g, x: g * (_logistic(x) + x * _logistic_density(x))),
            ("gelu_grad", lambda g, x: g * (_phi(x) + x * _density(x))),
            ("relu_grad", lambda g, x: g * (x > 0)),
        ]
    ),
    case("softmax", signed(2, 3), reference=_softmax, dtypes=REAL),
    case("softmax", signed(2, 3), axis=0, reference=_softmax, dtypes=REAL),
    case("log_softmax", signed(2, 3), reference=_log_softmax, dtypes=REAL),
    case("log_softmax", signed(2, 3), axis=0, reference=_log_softmax, dtypes=REAL),
    case("cross_entropy", signed(3, 4), LABELS, reference=in_float64(_cross_entropy), dtypes=REAL),
    case(
        "cross_entropy_grad",
        signed(3),
        signed(3, 4),
        LABELS,
        function=_grad_and_sums,
        reference=in_float64(_cross_entropy_grad),
        dtypes=REAL,
    ),
    case(
        "nn.cross_entropy",
        signed(3, 4),
        LABELS,
        function=gg.nn.cross_entropy,
        reference=in_float64(lambda logits, labels: _cross_entropy(logits, labels).mean()),
        dtypes=REAL,
    ),
    case(
        "nn.mean_squared_error",
        signed(2, 3),
        signed(2, 3),
        function=gg.nn.mean_squared_error,
        reference=lambda a, b: np.mean((a - b) ** 2),
    ),
    *(
        case(
            "linear",
            signed(*shape),
            signed(3, 2),
            signed(2),
            function=linalg.linear,
            reference=lambda x, weight, bias: x @ weight + bias,
        )
        for shape in [(4, 3), (5, 4, 3), (3,)]
    ),
]
