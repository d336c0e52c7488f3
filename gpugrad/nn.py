"""Just enough to train a network: layers, dense and convolutional, parameters, and two losses."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from . import random, rules
from .ops import activations, elementwise
from .ops.convolution import Pair, _pair, avg_pool2d, conv1d, conv2d, max_pool2d
from .ops.creation import asarray
from .ops.linalg import linear
from .ops.manipulation import reshape
from .ops.reductions import mean
from .rules import check_arrays, fused, general, xp
from .tape import no_grad
from .tensor import Tensor
from .watching import name_scope

__all__ = [
    "GELU",
    "AvgPool2d",
    "Conv2d",
    "Flatten",
    "Linear",
    "MaxPool2d",
    "Module",
    "ReLU",
    "Sequential",
    "SiLU",
    "Sigmoid",
    "Softplus",
    "Tanh",
    "avg_pool2d",
    "conv1d",
    "conv2d",
    "cross_entropy",
    "max_pool2d",
    "mean_squared_error",
]


class Module:
    """A function with parameters: the tensors that require a gradient among its attributes.

    Attributes that are modules, or lists of modules, bring their parameters too. A subclass
    defines `__call__`.
    """

    def named_parameters(self, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
        """Every parameter with its dotted name, in the order of assignment."""
        for name, value in vars(self).items():
            items = enumerate(value) if isinstance(value, (list, tuple)) else [(None, value)]
            for index, item in items:
                full = f"{prefix}{name}" if index is None else f"{prefix}{name}.{index}"
                if isinstance(item, Module):
                    yield from item.named_parameters(full + ".")
                elif isinstance(item, Tensor) and item.requires_grad and item.is_leaf:
                    yield full, item

    def parameters(self) -> list[Tensor]:
        """Every parameter once, in the order of assignment."""
        return list(dict.fromkeys(p for _, p in self.named_parameters()))

    def zero_grad(self) -> None:
        """Forget the gradients of all parameters."""
        for p in self.parameters():
            p.grad = None

    def state_dict(self) -> dict[str, np.ndarray]:
        """A copy of every parameter in host memory, by name."""
        return {name: p.get() for name, p in self.named_parameters()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Set every parameter from `state`, as `state_dict` gives it.

        Raises:
            KeyError: if names are missing or unknown; ValueError: if a shape differs, or a
                parameter is read-only. Nothing has been changed then.
        """
        parameters = dict(self.named_parameters())
        if parameters.keys() != state.keys():
            raise KeyError(
                f"load_state_dict: missing {sorted(parameters.keys() - state.keys())}, "
                f"unknown {sorted(state.keys() - parameters.keys())}"
            )
        new = {}
        for name, p in parameters.items():
            value = asarray(state[name], device=p.device).detach()
            if value.shape != p.shape:
                raise ValueError(f"load_state_dict: {name} has shape {value.shape}, not {p.shape}")
            if not getattr(p.data.flags, "writeable", True):  # only NumPy has such arrays
                raise ValueError(f"load_state_dict: {name} is read-only")
            new[name] = value.astype(p.dtype)
        with no_grad():
            for name, p in parameters.items():
                p[...] = new[name]

    def __call__(self, x: Any) -> Any:
        raise NotImplementedError


class Linear(Module):
    """`x @ weight + bias`: shape (..., n_in) to (..., n_out).

    The weight (n_in, n_out) is drawn uniformly from +-sqrt(6 / (n_in + n_out)) (Glorot and Bengio
    2010, eq. 16), the bias (n_out,) is zero.
    """

    def __init__(
        self,
        n_in: int,
        n_out: int,
        *,
        dtype: Any = "float32",
        device: Any = None,
        rng: random.Generator | None = None,
    ) -> None:
        if n_in < 1 or n_out < 1:
            raise ValueError(f"Linear: the sizes must be positive, got {n_in} and {n_out}")
        rng = rng or random.default_generator(device)
        bound = math.sqrt(6 / (n_in + n_out))
        weight = rng.uniform(-bound, bound, (n_in, n_out), dtype=dtype)
        self.weight = asarray(weight, device=device, requires_grad=True)
        self.bias = asarray(np.zeros(n_out, dtype), device=self.weight.device, requires_grad=True)

    def __call__(self, x: Any) -> Any:
        return linear(x, self.weight, self.bias)


class Conv2d(Module):
    """`conv2d` of images: shape (n, n_in, rows, columns) to (n, n_out, places, places).

    The weight (n_out, n_in / groups, size, size) is drawn uniformly from +-sqrt(6 / (a + b)), where
    a = n_in / groups * size * size is the number of entries that an output sees, and
    b = n_out / groups * size * size (Glorot and Bengio 2010, eq. 16). The bias (n_out,) is zero.
    """

    def __init__(
        self,
        n_in: int,
        n_out: int,
        size: int | Pair,
        *,
        stride: int | Pair = 1,
        padding: int | Pair = 0,
        dilation: int | Pair = 1,
        groups: int = 1,
        dtype: Any = "float32",
        device: Any = None,
        rng: random.Generator | None = None,
    ) -> None:
        if min(n_in, n_out, groups) < 1 or n_in % groups or n_out % groups:
            raise ValueError(
                f"Conv2d: {n_in} channels to {n_out} in {groups} groups: the numbers must be "
                "positive, and the channels multiples of the groups"
            )
        rng = rng or random.default_generator(device)
        size = _pair("Conv2d", "size", size, 1)
        bound = math.sqrt(6 * groups / ((n_in + n_out) * size[0] * size[1]))
        weight = rng.uniform(-bound, bound, (n_out, n_in // groups, *size), dtype=dtype)
        self.weight = asarray(weight, device=device, requires_grad=True)
        self.bias = asarray(np.zeros(n_out, dtype), device=self.weight.device, requires_grad=True)
        self.options: dict[str, Any] = {
            "stride": stride,
            "padding": padding,
            "dilation": dilation,
            "groups": groups,
        }

    def __call__(self, x: Any) -> Any:
        return conv2d(x, self.weight, self.bias, **self.options)


class _Pool2d(Module):
    function: Any

    def __init__(
        self, size: int | Pair, stride: int | Pair | None = None, padding: int | Pair = 0
    ) -> None:
        self.options = {"size": size, "stride": stride, "padding": padding}

    def __call__(self, x: Any) -> Any:
        return type(self).function(x, **self.options)


class MaxPool2d(_Pool2d):
    """`max_pool2d` as a layer."""

    function = staticmethod(max_pool2d)


class AvgPool2d(_Pool2d):
    """`avg_pool2d` as a layer."""

    function = staticmethod(avg_pool2d)


class Flatten(Module):
    """All axes but the first made one: shape (n, ...) to (n, product of the others)."""

    def __call__(self, x: Any) -> Any:
        return reshape(x, (x.shape[0], math.prod(x.shape[1:])))


class Sequential(Module):
    """Layers applied one after the other."""

    def __init__(self, *layers: Module) -> None:
        self.layers = layers

    def __call__(self, x: Any) -> Any:
        if rules.watch is not None and rules.watch() is not None:
            for i, layer in enumerate(self.layers):
                with name_scope(f"{i} {type(layer).__name__}"):
                    x = layer(x)
            return x
        for layer in self.layers:
            x = layer(x)
        return x


class _Activation(Module):
    function: Any

    def __call__(self, x: Any) -> Any:
        return type(self).function(x)


class Sigmoid(_Activation):
    """`gpugrad.sigmoid` as a layer."""

    function = staticmethod(activations.sigmoid)


class Tanh(_Activation):
    """`gpugrad.tanh` as a layer."""

    function = staticmethod(elementwise.tanh)


class ReLU(_Activation):
    """`gpugrad.relu` as a layer."""

    function = staticmethod(activations.relu)


class GELU(_Activation):
    """`gpugrad.gelu` as a layer."""

    function = staticmethod(activations.gelu)


class SiLU(_Activation):
    """`gpugrad.silu` as a layer."""

    function = staticmethod(activations.silu)


class Softplus(_Activation):
    """`gpugrad.softplus` as a layer."""

    function = staticmethod(activations.softplus)


@fused
def _slope(t: Any, a: Any, b: Any, scale: float) -> Any:
    return (a - b) * (t * scale)


@general(
    (
        lambda t, prediction, target: _slope(t, prediction, target, 2 / target.size),
        lambda t, prediction, target: _slope(t, target, prediction, 2 / target.size),
    ),
    (
        lambda t, prediction, target: ((prediction - target) * t).sum() * (2 / t.size),
        lambda t, prediction, target: ((target - prediction) * t).sum() * (2 / t.size),
    ),
)
def mean_squared_error(prediction: Any, target: Any, /) -> Any:
    """The mean over all elements of (prediction - target)**2, a scalar.

    Raises:
        ValueError: if the shapes differ.
    """
    check_arrays("mean_squared_error", prediction, target)
    if prediction.shape != target.shape:
        raise ValueError("prediction and target must have one shape")
    difference = (prediction - target).reshape(-1)
    return xp(difference).dot(difference, difference) / difference.size


def cross_entropy(logits: Any, labels: Any) -> Any:
    """The mean over the rows of -log softmax(logits)[label], a scalar.

    Args:
        logits: shape (n, classes).
        labels: shape (n,), integers in [0, classes).
    """
    return mean(activations.cross_entropy(logits, labels))
