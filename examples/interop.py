"""PyTorch and JAX beside gpugrad: one library's function inside another's derivative.

Arrays pass by DLPack without a copy, on the CPU and on the GPU. Each bridge is a few lines: the
derivative of the function comes from the library it is written in.

    pip install torch jax
    python examples/interop.py
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import torch

import gpugrad as gg


def from_torch(f: Callable[..., torch.Tensor]) -> Callable[..., Any]:
    """A PyTorch function as an operation of gpugrad."""

    def value(*arrays: Any) -> Any:
        return gg.from_dlpack(f(*map(torch.from_dlpack, arrays))).data

    def vjp(g: Any, out: Any, *arrays: Any) -> Any:
        xs = [torch.from_dlpack(x).requires_grad_() for x in arrays]
        grads = torch.autograd.grad(f(*xs), xs, torch.from_dlpack(g))
        return tuple(gg.from_dlpack(c).data for c in grads)

    return gg.custom_vjp(value, vjp)


def to_torch(f: Callable[..., gg.Tensor]) -> Callable[..., torch.Tensor]:
    """A function of gpugrad as a `torch.autograd.Function`."""

    class Bridge(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, *xs: torch.Tensor) -> torch.Tensor:
            out, ctx.pullback = gg.vjp(f, *(gg.from_dlpack(x.detach()) for x in xs))
            return torch.from_dlpack(out)

        @staticmethod
        def backward(ctx: Any, g: torch.Tensor) -> Any:
            return tuple(map(torch.from_dlpack, ctx.pullback(gg.from_dlpack(g.contiguous()))))

    return Bridge.apply


def from_jax(f: Callable[..., jax.Array]) -> Callable[..., Any]:
    """A JAX function as an operation of gpugrad."""

    def value(*arrays: Any) -> Any:
        return gg.from_dlpack(jax.jit(f)(*map(jax.numpy.from_dlpack, arrays))).data

    def vjp(g: Any, out: Any, *arrays: Any) -> Any:
        _, pullback = jax.vjp(f, *map(jax.numpy.from_dlpack, arrays))
        return tuple(gg.from_dlpack(c).data for c in pullback(jax.numpy.from_dlpack(g)))

    return gg.custom_vjp(value, vjp)


def main() -> None:
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((4, 3)), rng.standard_normal((3, 2))

    hidden = from_torch(lambda x, w: torch.nn.functional.softplus(x @ w))
    gradient = gg.grad(lambda w: gg.sum(hidden(gg.asarray(x), w) ** 2))(w)
    print("PyTorch inside gpugrad:", np.asarray(gradient).ravel())

    hidden = from_jax(lambda x, w: jax.nn.softplus(x @ w))
    gradient = gg.grad(lambda w: gg.sum(hidden(gg.asarray(x), w) ** 2))(w)
    print("JAX inside gpugrad:    ", np.asarray(gradient).ravel())

    loss = to_torch(lambda x, w: gg.sum(gg.softplus(x @ w) ** 2))
    leaf = torch.tensor(w, requires_grad=True)
    loss(torch.tensor(x), leaf).backward()
    print("gpugrad inside PyTorch:", leaf.grad.numpy().ravel())


if __name__ == "__main__":
    jax.config.update("jax_enable_x64", True)
    gg.set_default_device("cpu")
    main()
