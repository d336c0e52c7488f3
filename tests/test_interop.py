"""Arrays of PyTorch and JAX, and examples/interop.py. Collected where both are installed."""

import sys
from pathlib import Path

import jax
import numpy as np
import pytest
import torch
from helpers import host

import gpugrad as gg
from gpugrad.testing import check_grads

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))
import interop

X = np.random.default_rng(0).standard_normal((4, 3))
W = np.random.default_rng(1).standard_normal((3, 2))


@pytest.fixture(autouse=True)
def on_the_cpu_in_float64():
    with gg.device("cpu"), jax.enable_x64(True):
        yield


def test_memory_is_shared_with_torch():
    theirs = torch.arange(3.0)
    ours = gg.from_dlpack(theirs)
    theirs[0] = 7.0
    assert float(ours[0]) == 7
    back = torch.from_dlpack(ours)
    assert back.data_ptr() == theirs.data_ptr()
    np.testing.assert_array_equal(gg.asarray(theirs.numpy()).get(), theirs.numpy())


def test_memory_is_shared_with_jax():
    theirs = jax.numpy.arange(3.0)
    ours = gg.from_dlpack(theirs)
    assert ours.data.ctypes.data == theirs.unsafe_buffer_pointer()
    np.testing.assert_array_equal(host(ours), [0, 1, 2])
    np.testing.assert_array_equal(np.asarray(jax.numpy.from_dlpack(gg.ones(2))), [1, 1])


@pytest.mark.parametrize("library", [torch, jax], ids=["torch", "jax"])
def test_a_gradient_is_not_exported(library):
    read = library.from_dlpack if library is torch else jax.numpy.from_dlpack
    with pytest.raises(RuntimeError, match=r"would lose it: use \.detach\(\)"):
        read(gg.asarray([1.0], requires_grad=True))


def softplus_of_torch(x, w):
    return torch.nn.functional.softplus(x @ w)


def softplus_of_jax(x, w):
    return jax.nn.softplus(x @ w)


BRIDGES = [(interop.from_torch, softplus_of_torch), (interop.from_jax, softplus_of_jax)]


@pytest.mark.parametrize(("bridge", "f"), BRIDGES, ids=["torch", "jax"])
def test_a_function_of_theirs_in_gpugrad(bridge, f):
    op = bridge(f)
    np.testing.assert_allclose(op(X, W), host(gg.softplus(gg.asarray(X @ W))), rtol=1e-12)
    got = gg.grad(lambda x, w: gg.sum(op(x, w) ** 2), argnums=(0, 1))(X, W)
    expected = gg.grad(lambda x, w: gg.sum(gg.softplus(x @ w) ** 2), argnums=(0, 1))(X, W)
    for x, wanted in zip(got, expected, strict=True):
        np.testing.assert_allclose(x, wanted, rtol=1e-12)


@pytest.mark.parametrize(("bridge", "f"), BRIDGES, ids=["torch", "jax"])
def test_what_their_derivative_cannot_give_is_no_zero(bridge, f):
    op = bridge(f)
    with pytest.raises(Exception, match=r"derivative|gradient|\.detach\(\)|custom_vjp"):
        gg.grad(lambda w: gg.sum(gg.grad(lambda w: gg.sum(op(X, w) ** 2))(w) ** 2))(W)


def test_a_function_of_gpugrad_in_torch():
    def f(x, w):
        return gg.sin(x @ w) * gg.sigmoid(w[0])

    bridge = interop.to_torch(f)
    x, w = (torch.tensor(a, requires_grad=True) for a in (X, W))
    assert torch.autograd.gradcheck(bridge, (x, w))
    out = bridge(x, w)
    np.testing.assert_allclose(out.detach().numpy(), f(gg.asarray(X), gg.asarray(W)).numpy())
    check_grads(f, [X, W])
