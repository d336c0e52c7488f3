"""What is measured: each task once per library, the variants of a task side by side.

A variant is given the inputs of its task (NumPy arrays) and a device ("cpu", "cuda:0"), and returns
a `Job`: all that can be prepared is prepared, and what is left is timed. "By hand" means the array
library alone: NumPy on the CPU, CuPy on a CUDA device.
"""

from __future__ import annotations

import dataclasses
import importlib
import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..backends import backend_of_kind

Array = np.ndarray[Any, Any]

BY_HAND = "by hand"
TOLERANCE = 1e-4  # float32 against float64, relative to the largest entry of an array
CHAIN, NETWORK, SIGMOID, JACOBIAN, LOOP = "chain", "network", "sigmoid", "jacobian", "loop"
CHECKPOINT = "checkpoint"
COMPILED = "gpugrad.compile"
# a variant that compiles -> the same without
UNCOMPILED = {COMPILED: "gpugrad", "jax.jit": "jax", "torch.compile": "torch eager"}


class Mismatch(Exception):
    """A library came to another value or gradient than the others."""


@dataclass(frozen=True)
class Job:
    """`run()` is what is timed; `outcome(result)` are the value and the arrays it came to."""

    run: Callable[[], Any]
    outcome: Callable[[Any], Iterable[Any]] = tuple


@dataclass(frozen=True)
class Variant:
    """A task written for one library."""

    task: str
    label: str
    library: str
    build: Callable[[Any, str], Job]
    kind: str | None  # of the devices that it is for; None: all


VARIANTS: list[Variant] = []


def variant(task: str, library: str, label: str, kind: str | None = None) -> Callable[[Any], Any]:
    """Enter a function `build(inputs, device) -> Job` in the list of variants."""

    def enter(build: Any) -> Any:
        VARIANTS.append(Variant(task, label, library, build, kind))
        return build

    return enter


def unavailable(library: str, device: str) -> str | None:
    """Why a library cannot take part on `device`; None, and made ready, if it can."""
    try:
        module = importlib.import_module(library)
    except ImportError as error:
        return "not installed" if error.name == library else str(error)
    if device != "cpu":
        if library in ("autograd", "mygrad"):
            return "has no CUDA arrays"
        if library == "torch" and not module.cuda.is_available():
            return "finds no CUDA device"
        if library == "jax":
            try:
                module.devices("cuda")
            except (RuntimeError, AssertionError):  # the latter from a jaxlib without CUDA
                return "finds no CUDA device"
    if library == "mygrad":
        module.turn_memory_guarding_off()  # as its documentation advises where time matters
    return None


def array_library(device: str) -> Any:
    """The library for arrays on `device`."""
    array_type = backend_of_kind(device.partition(":")[0]).array_type
    return importlib.import_module(array_type.__module__.partition(".")[0])


def on_host(array: Any) -> Array:
    """An array of any of the libraries as a NumPy array."""
    if hasattr(array, "detach") and hasattr(array, "cpu"):  # torch
        return array.detach().cpu().numpy()
    return array.get() if hasattr(array, "get") else np.asarray(array)  # gpugrad, CuPy; others


def finished(run: Callable[[], Any], device: str) -> Callable[[], Any]:
    """On the CPU, JAX alone returns before its work is done: wait, as all others do."""
    import jax

    return run if device != "cpu" else lambda: jax.block_until_ready(run())


def compiled(job: Job) -> Job:
    """A job of gpugrad whose runs replay the first one, which is made here."""
    import gpugrad as gg

    run = gg.compile(job.run)
    run()
    return Job(run, job.outcome)


# ---- inputs


@dataclass(frozen=True)
class Inputs:
    """The inputs of a task."""

    def gradients(self, arrays: list[Array]) -> list[Array]:
        """The gradients in the arrays of a job's outcome."""
        return arrays

    def in_float64(self) -> Any:
        """The same values in float64."""

        def widen(value: Any) -> Any:
            if isinstance(value, list):
                return [widen(v) for v in value]
            return value.astype(np.float64) if isinstance(value, np.ndarray) else value

        return dataclasses.replace(self, **{k: widen(v) for k, v in vars(self).items()})


@dataclass(frozen=True)
class Chain(Inputs):
    """The sum of x * x * ... * x with `length` multiplications, x of shape (4, 4)."""

    x: Array
    length: int


def chain(length: int, spread: float) -> Chain:
    """Inputs within `spread` of 1; with exact ones no rounding errors add up in a long chain."""
    x = np.random.default_rng(0).uniform(1 - spread, 1 + spread, (4, 4))
    return Chain(x.astype(np.float32), length)


@dataclass(frozen=True)
class Network(Inputs):
    """One training step: dense layers with sigmoids, mean squared error, plain SGD.

    `parameters` alternates weights (n_in, n_out) and biases (n_out,).
    """

    x: Array
    target: Array
    parameters: list[Array]
    lr: float

    def gradients(self, arrays: list[Array]) -> list[Array]:
        """What the step took from the parameters, over the learning rate."""
        return [(p - new) / self.lr for p, new in zip(self.parameters, arrays, strict=True)]


def network(sizes: list[int], x: Array, target: Array, lr: float, gain: float) -> Network:
    """Weights as Glorot and Bengio (2010) draw them, times `gain`; zero biases."""
    rng = np.random.default_rng(1)
    parameters = []
    for n_in, n_out in itertools.pairwise(sizes):
        bound = gain * np.sqrt(6 / (n_in + n_out))
        parameters.append(rng.uniform(-bound, bound, (n_in, n_out)).astype(np.float32))
        parameters.append(np.zeros(n_out, np.float32))
    return Network(x, target, parameters, lr)


def mnist(batch: int) -> Network:
    """784-100-10 on random images with the share of ink of MNIST's, and one-hot targets."""
    rng = np.random.default_rng(2)
    x = rng.random((batch, 784), np.float32) * (rng.random((batch, 784)) < 0.2)
    target = np.eye(10, dtype=np.float32)[rng.integers(0, 10, batch)]
    return network([784, 100, 10], x, target, lr=1.0, gain=1.0)


def deep(depth: int, width: int) -> Network:
    """`depth` square layers, batch `width`; the gain keeps gradients alive through the sigmoids."""
    rng = np.random.default_rng(3)
    x, target = rng.random((2, width, width), np.float32)
    return network([width] * (depth + 1), x, target, lr=1000.0, gain=9.0)


@dataclass(frozen=True)
class Dropped(Inputs):
    """The gradient of a network with dropout of a share of the outputs of every layer."""

    network: Network
    dropout: float

    def layers(self, arrays: list[Any]) -> list[tuple[Any, Any]]:
        """Weight and bias of each layer."""
        return list(zip(arrays[::2], arrays[1::2], strict=True))

    def segment(self) -> int:
        """The number of layers in a segment, where activations and segments are to be few."""
        return round((len(self.network.parameters) / 2) ** 0.5)


@dataclass(frozen=True)
class Sigmoid(Inputs):
    """The sigmoid of x and its vjp for the cotangent g."""

    x: Array
    g: Array


def sigmoid(size: int) -> Sigmoid:
    """Standard normal x and g of shape (size,)."""
    return Sigmoid(*np.random.default_rng(4).standard_normal((2, size), np.float32))


@dataclass(frozen=True)
class Layers(Inputs):
    """The Jacobian of x -> tanh(W x), for one weight after the other."""

    weights: list[Array]
    x: Array


def layers(size: int, count: int) -> Layers:
    """`count` square weights that keep the size of what goes through them."""
    rng = np.random.default_rng(5)
    weights = rng.standard_normal((count, size, size)) / size**0.5
    return Layers([*weights.astype(np.float32)], rng.standard_normal(size).astype(np.float32))


@dataclass(frozen=True)
class Loop(Inputs):
    """`length` elementwise operations on x, one after the other."""

    x: Array
    length: int


def loops(size: int, lengths: Iterable[int]) -> list[Loop]:
    """The same standard normal x of shape (size,) for each of the lengths."""
    x = np.random.default_rng(6).standard_normal(size, np.float32)
    return [Loop(x, length) for length in lengths]


# ---- parity


def outcome(inputs: Inputs, job: Job) -> tuple[Array, list[Array]]:
    """The value and the gradients of one run."""
    value, *arrays = (on_host(array) for array in job.outcome(job.run()))
    return value, inputs.gradients(arrays)


def expected(task: str, inputs: Inputs) -> tuple[Array, list[Array]]:
    """The value and the gradients by hand, in float64."""
    by_hand = next(v for v in VARIANTS if (v.task, v.label) == (task, BY_HAND))
    wide = inputs.in_float64()
    return outcome(wide, by_hand.build(wide, "cpu"))


def check(name: str, found: tuple[Array, list[Array]], right: tuple[Array, list[Array]]) -> None:
    """Compare value and gradients.

    Raises:
        Mismatch: if they are not float32, or differ in shape or by more than the tolerance.
    """
    (value, gradients), (right_value, right_gradients) = found, right
    names = ["value", *(f"gradient {i}" for i in range(len(right_gradients)))]
    pairs = zip([value, *gradients], [right_value, *right_gradients], strict=True)
    for what, (a, b) in zip(names, pairs, strict=True):
        if a.dtype != np.float32 or a.shape != b.shape:
            raise Mismatch(f"{name}: {what} is {a.dtype} {a.shape}, should be float32 {b.shape}")
        error = np.max(np.abs(a - b)) / np.max(np.abs(b))
        if not error <= TOLERANCE:
            raise Mismatch(f"{name}: {what} is off by {error:.1e} of its largest entry")


def check_repeated(variant: Variant, inputs: Dropped, job: Job, device: str) -> None:
    """Compare with what the same library comes to without computing anything twice, bit for bit.

    On a GPU dropout draws other numbers inside `gpugrad.checkpoint`, and is not compared.

    Raises:
        Mismatch: if one bit differs; as `check` where nothing is computed twice.
    """
    if inputs.dropout and device != "cpu":
        return
    plain = next(
        v for v in VARIANTS if (v.task, v.library) == (CHECKPOINT, variant.library)
    )  # the first one
    right = outcome(inputs, plain.build(inputs, device))
    if not inputs.dropout:
        check(plain.label, right, expected(NETWORK, inputs.network))
    found = outcome(inputs, job)
    pairs = zip([found[0], *found[1]], [right[0], *right[1]], strict=True)
    if not all(np.array_equal(a, b) for a, b in pairs):
        raise Mismatch(f"{variant.label}: not the same bits as {plain.label}")


# ---- chain: a sum of products, forward and backward


@variant(CHAIN, "numpy", BY_HAND)
def chain_by_hand(inputs: Chain, device: str) -> Job:
    xp = array_library(device)
    x = xp.asarray(inputs.x)

    def run():
        ys = [x]
        for _ in range(inputs.length):
            ys.append(ys[-1] * x)
        total = ys.pop().sum()
        g = xp.ones_like(x)
        gradient = xp.zeros_like(x)
        for y in reversed(ys):
            gradient += g * y
            g = g * x
        gradient += g
        return total, gradient

    return Job(run)


@variant(CHAIN, "gpugrad", "gpugrad")
def chain_gpugrad(inputs: Chain, device: str) -> Job:
    import gpugrad as gg

    x = gg.asarray(inputs.x, device=device, requires_grad=True)

    def run():
        x.grad = None
        y = x
        for _ in range(inputs.length):
            y = y * x
        total = gg.sum(y)
        total.backward()
        return total

    return Job(run, lambda total: (total, x.grad))


@variant(CHAIN, "gpugrad", COMPILED)
def chain_gpugrad_compile(inputs: Chain, device: str) -> Job:
    return compiled(chain_gpugrad(inputs, device))


@variant(CHAIN, "torch", "torch eager")
def chain_torch(inputs: Chain, device: str) -> Job:
    import torch

    x = torch.tensor(inputs.x, device=device, requires_grad=True)

    def run():
        x.grad = None
        y = x
        for _ in range(inputs.length):
            y = y * x
        total = torch.sum(y)
        total.backward()
        return total, x.grad

    return Job(run)


def chain_jax(inputs: Chain, device: str, jit: Callable[[Any], Any]) -> Job:
    import jax
    import jax.numpy as jnp

    def total(x):
        y = x
        for _ in range(inputs.length):
            y = y * x
        return jnp.sum(y)

    f = jit(jax.value_and_grad(total))
    x = jnp.asarray(inputs.x)
    return Job(finished(lambda: f(x), device))


@variant(CHAIN, "jax", "jax.jit")
def chain_jax_jit(inputs: Chain, device: str) -> Job:
    import jax

    return chain_jax(inputs, device, jax.jit)


@variant(CHAIN, "jax", "jax")
def chain_jax_eager(inputs: Chain, device: str) -> Job:
    return chain_jax(inputs, device, lambda f: f)


@variant(CHAIN, "autograd", "autograd")
def chain_autograd(inputs: Chain, device: str) -> Job:
    import autograd
    import autograd.numpy as anp

    def total(x):
        y = x
        for _ in range(inputs.length):
            y = y * x
        return anp.sum(y)

    f = autograd.value_and_grad(total)
    return Job(lambda: f(inputs.x))


@variant(CHAIN, "mygrad", "mygrad")
def chain_mygrad(inputs: Chain, device: str) -> Job:
    import mygrad as mg

    x = mg.tensor(inputs.x)

    def run():
        x.null_grad()
        y = x
        for _ in range(inputs.length):
            y = y * x
        total = mg.sum(y)
        total.backward()
        return total, x.grad

    return Job(run)


# ---- network: forward, backward, update


@variant(NETWORK, "numpy", BY_HAND)
def network_by_hand(inputs: Network, device: str) -> Job:
    xp = array_library(device)
    x, target = xp.asarray(inputs.x), xp.asarray(inputs.target)
    parameters = [xp.array(p) for p in inputs.parameters]
    weights, biases = parameters[::2], parameters[1::2]

    def run():
        activations = [x]
        for w, b in zip(weights, biases):
            activations.append(1 / (1 + xp.exp(-(activations[-1] @ w + b))))
        error = activations[-1] - target
        loss = (error * error).mean()
        g = error * (2 / error.size)
        for i in reversed(range(len(weights))):
            y = activations.pop()
            g = g * y * (1 - y)
            dw, db = activations[-1].T @ g, g.sum(axis=0)
            if i:
                g = g @ weights[i].T
            weights[i] -= inputs.lr * dw
            biases[i] -= inputs.lr * db
        return loss

    return Job(run, lambda loss: (loss, *parameters))


@variant(NETWORK, "numpy", "by hand, no allocation")
def network_by_hand_out(inputs: Network, device: str) -> Job:
    xp = array_library(device)
    x, target = xp.asarray(inputs.x), xp.asarray(inputs.target)
    parameters = [xp.array(p) for p in inputs.parameters]
    weights, biases = parameters[::2], parameters[1::2]
    gradients = [xp.empty_like(p) for p in parameters]
    outputs = [xp.empty((len(x), b.size), x.dtype) for b in biases]
    slopes = [xp.empty_like(y) for y in outputs]
    cotangents = [xp.empty_like(y) for y in outputs]

    def run():
        a = x
        for w, b, y in zip(weights, biases, outputs):
            xp.matmul(a, w, out=y)
            y += b
            xp.negative(y, out=y)
            xp.exp(y, out=y)
            y += 1
            xp.reciprocal(y, out=y)
            a = y
        g = xp.subtract(a, target, out=cotangents[-1])
        loss = xp.vdot(g, g) / g.size
        g *= 2 / g.size
        for i in reversed(range(len(weights))):
            y, g = outputs[i], cotangents[i]
            xp.subtract(1, y, out=slopes[i])
            slopes[i] *= y
            g *= slopes[i]
            xp.matmul((outputs[i - 1] if i else x).T, g, out=gradients[2 * i])
            xp.sum(g, axis=0, out=gradients[2 * i + 1])
            if i:
                xp.matmul(g, weights[i].T, out=cotangents[i - 1])
        for p, g in zip(parameters, gradients):
            g *= inputs.lr
            p -= g
        return loss

    return Job(run, lambda loss: (loss, *parameters))


def network_of_gpugrad(inputs: Network, device: str) -> tuple[Any, Job]:
    """The network, and its training step."""
    import gpugrad as gg

    x, target = gg.asarray(inputs.x, device=device), gg.asarray(inputs.target, device=device)
    layers = []
    for w in inputs.parameters[::2]:
        layers += [gg.nn.Linear(*w.shape, device=device), gg.nn.Sigmoid()]
    model = gg.nn.Sequential(*layers)
    model.load_state_dict(dict(zip(model.state_dict(), inputs.parameters, strict=True)))
    optimizer = gg.optim.SGD(model.parameters(), inputs.lr)

    def run():
        loss = gg.nn.mean_squared_error(model(x), target)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss

    return model, Job(run, lambda loss: (loss, *model.parameters()))


@variant(NETWORK, "gpugrad", "gpugrad")
def network_gpugrad(inputs: Network, device: str) -> Job:
    _, job = network_of_gpugrad(inputs, device)
    return job


@variant(NETWORK, "gpugrad", COMPILED)
def network_gpugrad_compile(inputs: Network, device: str) -> Job:
    model, job = network_of_gpugrad(inputs, device)
    start = {name: array.copy() for name, array in model.state_dict().items()}
    job = compiled(job)
    model.load_state_dict(start)
    return job


def with_gradients(loss: Any, parameters: list[Any]) -> list[Any]:
    """A loss of gpugrad or PyTorch, and its gradients, which the parameters do not keep."""
    loss.backward()
    gradients = [p.grad for p in parameters]
    for p in parameters:
        p.grad = None
    return [loss.detach(), *gradients]


@variant(CHECKPOINT, "gpugrad", "gpugrad")
def dropped_gpugrad(inputs: Dropped, device: str, size: int | None = None) -> Job:
    """`size`: the number of layers that are computed twice together."""
    import gpugrad as gg

    given = inputs.network
    x, target = gg.asarray(given.x, device=device), gg.asarray(given.target, device=device)
    parameters = [gg.asarray(p, device=device, requires_grad=True) for p in given.parameters]
    keep = 1 - inputs.dropout

    def segment(x, layers):
        for w, b in layers:
            x = gg.special.expit(gg.nn.linear(x, w, b))
            if inputs.dropout:
                kept = gg.random.uniform(shape=x.shape, dtype="float32", device=device) < keep
                x = gg.where(kept, x * (1 / keep), 0.0)
        return x

    layers = inputs.layers(parameters)
    part = gg.checkpoint(segment) if size else segment

    def run():
        gg.random.seed(0)
        y = x
        for i in range(0, len(layers), size or len(layers)):
            y = part(y, layers[i : i + (size or len(layers))])
        loss = gg.nn.mean_squared_error(y, target)
        return with_gradients(loss, parameters)

    return Job(run)


@variant(CHECKPOINT, "gpugrad", "gpugrad, checkpoint per layer")
def dropped_gpugrad_layers(inputs: Dropped, device: str) -> Job:
    return dropped_gpugrad(inputs, device, 1)


@variant(CHECKPOINT, "gpugrad", "gpugrad, checkpoint per segment")
def dropped_gpugrad_segments(inputs: Dropped, device: str) -> Job:
    return dropped_gpugrad(inputs, device, inputs.segment())


@variant(CHECKPOINT, "torch", "torch eager")
def dropped_torch(inputs: Dropped, device: str, size: int | None = None) -> Job:
    import torch
    from torch.nn import functional
    from torch.utils.checkpoint import checkpoint

    given = inputs.network
    x, target = (torch.tensor(a, device=device) for a in (given.x, given.target))
    parameters = [torch.tensor(p, device=device, requires_grad=True) for p in given.parameters]

    def segment(x, layers):
        for w, b in layers:
            x = torch.sigmoid(torch.addmm(b, x, w))
            if inputs.dropout:
                x = functional.dropout(x, inputs.dropout)
        return x

    layers = inputs.layers(parameters)

    def run():
        torch.manual_seed(0)
        y = x
        for i in range(0, len(layers), size or len(layers)):
            some = layers[i : i + (size or len(layers))]
            y = checkpoint(segment, y, some, use_reentrant=False) if size else segment(y, some)
        loss = functional.mse_loss(y, target)
        return with_gradients(loss, parameters)

    return Job(run)


@variant(CHECKPOINT, "torch", "torch, checkpoint per layer")
def dropped_torch_layers(inputs: Dropped, device: str) -> Job:
    return dropped_torch(inputs, device, 1)


@variant(CHECKPOINT, "torch", "torch, checkpoint per segment")
def dropped_torch_segments(inputs: Dropped, device: str) -> Job:
    return dropped_torch(inputs, device, inputs.segment())


def captured_by_torch(run: Callable[[], Any]) -> Callable[[], Any]:
    """`run` as a CUDA graph, captured after three calls as PyTorch's manual has it."""
    import torch

    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            run()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = run()

    def replay():
        graph.replay()
        return result

    return replay


def network_torch(
    inputs: Network,
    device: str,
    *,
    fused: bool = False,
    compiled: bool = False,
    captured: bool = False,
) -> Job:
    """`captured`: as a CUDA graph."""
    import torch
    from torch import nn

    x = torch.tensor(inputs.x, device=device)
    target = torch.tensor(inputs.target, device=device)
    layers = []
    for w in inputs.parameters[::2]:
        layers += [nn.Linear(*w.shape, device=device), nn.Sigmoid()]
    model = nn.Sequential(*layers)

    def reset():
        with torch.no_grad():
            for p, start in zip(model.parameters(), inputs.parameters, strict=True):
                p.copy_(torch.tensor(start.T))

    reset()
    optimizer = torch.optim.SGD(model.parameters(), inputs.lr, fused=fused)

    def compute_loss():
        return nn.functional.mse_loss(model(x), target)

    update = optimizer.step
    if compiled:
        compute_loss, update = torch.compile(compute_loss), torch.compile(update)

    def run():
        loss = compute_loss()
        loss.backward()
        update()
        optimizer.zero_grad()
        return loss

    if captured:
        run = captured_by_torch(run)
        reset()
    return Job(run, lambda loss: (loss, *(p.mT if p.ndim == 2 else p for p in model.parameters())))


@variant(NETWORK, "torch", "torch eager")
def network_torch_eager(inputs: Network, device: str) -> Job:
    return network_torch(inputs, device)


@variant(NETWORK, "torch", "torch eager, fused SGD")
def network_torch_fused(inputs: Network, device: str) -> Job:
    return network_torch(inputs, device, fused=True)


@variant(NETWORK, "torch", "torch.compile")
def network_torch_compile(inputs: Network, device: str) -> Job:
    return network_torch(inputs, device, compiled=True)


@variant(NETWORK, "torch", "torch, CUDA graph", kind="cuda")
def network_torch_graph(inputs: Network, device: str) -> Job:
    return network_torch(inputs, device, fused=True, captured=True)


def network_jax(inputs: Network, device: str, jit: Callable[[Any], Any]) -> Job:
    import jax
    import jax.numpy as jnp

    x, target = jnp.asarray(inputs.x), jnp.asarray(inputs.target)
    parameters = [jnp.asarray(p) for p in inputs.parameters]

    def loss(parameters, x, target):
        for w, b in zip(parameters[::2], parameters[1::2]):
            x = jax.nn.sigmoid(x @ w + b)
        error = x - target
        return jnp.mean(error * error)

    def step(parameters, x, target):
        value, gradients = jax.value_and_grad(loss)(parameters, x, target)
        return value, [p - inputs.lr * g for p, g in zip(parameters, gradients)]

    step = jit(step)

    def run():
        nonlocal parameters
        value, parameters = step(parameters, x, target)
        return value, parameters

    return Job(finished(run, device), lambda result: (result[0], *result[1]))


@variant(NETWORK, "jax", "jax.jit")
def network_jax_jit(inputs: Network, device: str) -> Job:
    import jax

    return network_jax(inputs, device, lambda step: jax.jit(step, donate_argnums=0))


@variant(NETWORK, "jax", "jax")
def network_jax_eager(inputs: Network, device: str) -> Job:
    return network_jax(inputs, device, lambda step: step)


@variant(NETWORK, "autograd", "autograd")
def network_autograd(inputs: Network, device: str) -> Job:
    import autograd
    import autograd.numpy as anp

    parameters = [p.copy() for p in inputs.parameters]

    def loss(parameters):
        y = inputs.x
        for w, b in zip(parameters[::2], parameters[1::2]):
            y = 1 / (1 + anp.exp(-(y @ w + b)))
        error = y - inputs.target
        return anp.mean(error * error)

    f = autograd.value_and_grad(loss)

    def run():
        value, gradients = f(parameters)
        for p, g in zip(parameters, gradients):
            p -= inputs.lr * g
        return value

    return Job(run, lambda value: (value, *parameters))


@variant(NETWORK, "mygrad", "mygrad")
def network_mygrad(inputs: Network, device: str) -> Job:
    import mygrad as mg
    from mygrad.nnet.activations import sigmoid

    parameters = [mg.tensor(p) for p in inputs.parameters]

    def run():
        y = inputs.x
        for w, b in zip(parameters[::2], parameters[1::2]):
            y = sigmoid(y @ w + b)
        error = y - inputs.target
        loss = mg.mean(error * error)
        loss.backward()
        for p in parameters:
            values = p.data
            values -= inputs.lr * p.grad
            p.null_grad()
        return loss

    return Job(run, lambda loss: (loss, *parameters))


# ---- sigmoid: forward and backward on one large array


@variant(SIGMOID, "numpy", BY_HAND)
def sigmoid_by_hand(inputs: Sigmoid, device: str) -> Job:
    xp = array_library(device)
    x, g = xp.asarray(inputs.x), xp.asarray(inputs.g)

    def run():
        y = 1 / (1 + xp.exp(-x))
        return y, g * y * (1 - y)

    return Job(run)


@variant(SIGMOID, "numpy", "by hand, no allocation")
def sigmoid_by_hand_out(inputs: Sigmoid, device: str) -> Job:
    xp = array_library(device)
    x, g = xp.asarray(inputs.x), xp.asarray(inputs.g)
    y, gradient = xp.empty_like(x), xp.empty_like(x)

    def run():
        xp.negative(x, out=y)
        xp.exp(y, out=y)
        xp.add(y, 1, out=y)
        xp.reciprocal(y, out=y)
        xp.subtract(1, y, out=gradient)
        xp.multiply(gradient, y, out=gradient)
        xp.multiply(gradient, g, out=gradient)
        return y, gradient

    return Job(run)


@variant(SIGMOID, "gpugrad", "gpugrad")
def sigmoid_gpugrad(inputs: Sigmoid, device: str) -> Job:
    import gpugrad as gg

    x = gg.asarray(inputs.x, device=device, requires_grad=True)
    g = gg.asarray(inputs.g, device=device)

    def run():
        x.grad = None
        y = gg.sigmoid(x)
        y.backward(g)
        return y

    return Job(run, lambda y: (y, x.grad))


@variant(SIGMOID, "gpugrad", COMPILED)
def sigmoid_gpugrad_compile(inputs: Sigmoid, device: str) -> Job:
    return compiled(sigmoid_gpugrad(inputs, device))


@variant(SIGMOID, "torch", "torch eager")
def sigmoid_torch(inputs: Sigmoid, device: str) -> Job:
    import torch

    x = torch.tensor(inputs.x, device=device, requires_grad=True)
    g = torch.tensor(inputs.g, device=device)

    def run():
        x.grad = None
        y = torch.sigmoid(x)
        y.backward(g)
        return y, x.grad

    return Job(run)


def sigmoid_jax(inputs: Sigmoid, device: str, jit: Callable[[Any], Any]) -> Job:
    import jax
    import jax.numpy as jnp

    def f(x, g):
        y, pull = jax.vjp(jax.nn.sigmoid, x)
        return y, *pull(g)

    f = jit(f)
    x, g = jnp.asarray(inputs.x), jnp.asarray(inputs.g)
    return Job(finished(lambda: f(x, g), device))


@variant(SIGMOID, "jax", "jax.jit")
def sigmoid_jax_jit(inputs: Sigmoid, device: str) -> Job:
    import jax

    return sigmoid_jax(inputs, device, jax.jit)


@variant(SIGMOID, "jax", "jax")
def sigmoid_jax_eager(inputs: Sigmoid, device: str) -> Job:
    return sigmoid_jax(inputs, device, lambda f: f)


@variant(SIGMOID, "autograd", "autograd")
def sigmoid_autograd(inputs: Sigmoid, device: str) -> Job:
    import autograd
    import autograd.numpy as anp

    f = autograd.make_vjp(lambda x: 1 / (1 + anp.exp(-x)))

    def run():
        pull, y = f(inputs.x)
        return y, pull(inputs.g)

    return Job(run)


@variant(SIGMOID, "mygrad", "mygrad")
def sigmoid_mygrad(inputs: Sigmoid, device: str) -> Job:
    import mygrad as mg
    from mygrad.nnet.activations import sigmoid

    x = mg.tensor(inputs.x)

    def run():
        x.null_grad()
        y = sigmoid(x)
        y.backward(inputs.g)
        return y, x.grad

    return Job(run)


# ---- elementwise operations one after the other, forward

OPERATIONS: tuple[tuple[Any, ...], ...] = (
    *(("multiply", 0.5), ("add", 0.25), ("tanh",), ("exp",)),
    *(("multiply", 0.5), ("add", 0.25), ("sqrt",), ("exp",)),
)


def operations(length: int, xp: Any) -> list[tuple[Any, ...]]:
    """The first `length` of OPERATIONS, again and again: (function of `xp`, numbers)."""
    cycle = itertools.islice(itertools.cycle(OPERATIONS), length)
    return [(getattr(xp, name), *numbers) for name, *numbers in cycle]


def one_by_one(length: int, xp: Any) -> Callable[[Any], Any]:
    """The function that is measured: each operation on what the one before gave."""
    steps = operations(length, xp)

    def f(x):
        for operation, *numbers in steps:
            x = operation(x, *numbers)
        return x

    return f


@variant(LOOP, "numpy", BY_HAND)
def loop_by_hand(inputs: Loop, device: str) -> Job:
    xp = array_library(device)
    f, x = one_by_one(inputs.length, xp), xp.asarray(inputs.x)
    return Job(lambda: (f(x),))


@variant(LOOP, "numpy", "by hand, no allocation")
def loop_by_hand_out(inputs: Loop, device: str) -> Job:
    xp = array_library(device)
    steps, x = operations(inputs.length, xp), xp.asarray(inputs.x)
    y = xp.empty_like(x)

    def run():
        source = x
        for operation, *numbers in steps:
            operation(source, *numbers, out=y)
            source = y
        return (y,)

    return Job(run)


@variant(LOOP, "gpugrad", "gpugrad")
def loop_gpugrad(inputs: Loop, device: str) -> Job:
    import gpugrad as gg

    f, x = one_by_one(inputs.length, gg), gg.asarray(inputs.x, device=device)
    return Job(lambda: (f(x),))


@variant(LOOP, "gpugrad", COMPILED)
def loop_gpugrad_compile(inputs: Loop, device: str) -> Job:
    return compiled(loop_gpugrad(inputs, device))


def loop_torch(inputs: Loop, device: str, wrap: Callable[[Any], Any]) -> Job:
    import torch

    f, x = wrap(one_by_one(inputs.length, torch)), torch.tensor(inputs.x, device=device)
    return Job(lambda: (f(x),))


@variant(LOOP, "torch", "torch eager")
def loop_torch_eager(inputs: Loop, device: str) -> Job:
    return loop_torch(inputs, device, lambda f: f)


@variant(LOOP, "torch", "torch.compile")
def loop_torch_compile(inputs: Loop, device: str) -> Job:
    import torch

    return loop_torch(inputs, device, torch.compile)


@variant(LOOP, "jax", "jax.jit")
def loop_jax_jit(inputs: Loop, device: str) -> Job:
    import jax
    import jax.numpy as jnp

    f, x = jax.jit(one_by_one(inputs.length, jnp)), jnp.asarray(inputs.x)
    return Job(finished(lambda: (f(x),), device))


# ---- the Jacobian of layers


def through(weights: Any, tanh: Any, matmul: Any) -> Callable[[Any], Any]:
    """The function that is differentiated."""

    def f(x):
        for w in weights:
            x = tanh(matmul(w, x))
        return x

    return f


@variant(JACOBIAN, "numpy", BY_HAND)
def jacobian_by_hand(inputs: Layers, device: str) -> Job:
    xp = array_library(device)
    weights, start = [xp.asarray(w) for w in inputs.weights], xp.asarray(inputs.x)

    def run():
        x, total = start, None
        for w in weights:
            x = xp.tanh(w @ x)
            slope = (1 - x * x)[:, None]
            total = slope * (w if total is None else w @ total)
        return (total,)

    return Job(run)


@variant(JACOBIAN, "gpugrad", "gpugrad")
def jacobian_gpugrad(inputs: Layers, device: str) -> Job:
    import gpugrad as gg

    x, weights = (gg.asarray(a, device=device) for a in (inputs.x, np.stack(inputs.weights)))
    jacobian = gg.jacobian(through(list(weights), gg.tanh, gg.matmul))
    return Job(lambda: (jacobian(x),))


@variant(JACOBIAN, "gpugrad", "gpugrad, a sweep per row")
def jacobian_gpugrad_rows(inputs: Layers, device: str) -> Job:
    import gpugrad as gg

    x, weights = (gg.asarray(a, device=device) for a in (inputs.x, np.stack(inputs.weights)))
    units = list(gg.eye(x.size, dtype=x.dtype, device=device))
    f = through(list(weights), gg.tanh, gg.matmul)

    def run():
        _, pullback = gg.vjp(f, x)
        return (gg.stack([pullback(unit)[0] for unit in units]),)

    return Job(run)


@variant(JACOBIAN, "torch", "torch.func.jacrev")
def jacobian_torch(inputs: Layers, device: str) -> Job:
    import torch

    x, *weights = (torch.tensor(a, device=device) for a in (inputs.x, *inputs.weights))
    jacobian = torch.func.jacrev(through(weights, torch.tanh, torch.matmul))
    return Job(lambda: (jacobian(x),))


@variant(JACOBIAN, "jax", "jax.jit(jax.jacrev)")
def jacobian_jax(inputs: Layers, device: str) -> Job:
    import jax
    import jax.numpy as jnp

    def f(x, weights):
        return through(weights, jnp.tanh, jnp.matmul)(x)

    jacobian = jax.jit(jax.jacrev(f))
    x, *weights = (jnp.asarray(a) for a in (inputs.x, *inputs.weights))
    return Job(finished(lambda: (jacobian(x, weights),), device))
