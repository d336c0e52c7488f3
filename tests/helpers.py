"""What several test files need."""

import sys

import numpy as np

import gpugrad as gg
from gpugrad.trees import flatten


def leaf(values, **options):
    """A float64 tensor on the default device that requires a gradient."""
    options = {"dtype": "float64", "requires_grad": True} | options
    return gg.asarray(values, **{"device": gg.backends.default_device()} | options)


def array(values, dtype=None):
    """A raw array on the default device."""
    return gg.asarray(values, dtype=dtype, device=gg.backends.default_device()).data


def host(x):
    """A tensor, raw array or number as a NumPy array."""
    return (x if isinstance(x, gg.Tensor) else gg.asarray(x)).get()


def flat(out):
    """The leaves of a result."""
    return flatten(out)[0]


def assert_same(got, expected, rtol=32):
    """Results of one dtype and shape, with values equal to `rtol` units of epsilon."""
    for x, wanted in zip(map(host, flat(got)), map(host, flat(expected)), strict=True):
        assert (x.dtype, x.shape) == (wanted.dtype, wanted.shape)
        allowed = rtol * np.finfo(x.dtype).eps if x.dtype.kind in "fc" else 0
        np.testing.assert_allclose(x, wanted, rtol=allowed, atol=allowed)


def assert_same_zeros(got, expected):
    """Zeros of the same sign."""
    for x, wanted in zip(map(host, flat(got)), map(host, flat(expected)), strict=True):
        if wanted.dtype.kind == "f":
            zeros = wanted == 0
            np.testing.assert_array_equal(np.signbit(x[zeros]), np.signbit(wanted[zeros]))


def gradients(f, *args):
    """The gradients of the sum of `f` at float64 values, from `backward`, as NumPy arrays."""
    leaves = [leaf(x) for x in args]
    gg.sum(f(*leaves)).backward()
    return [x.grad.get() for x in leaves]


def launches():
    """Kernels launched so far; None on a GPU, where nothing counts them."""
    emulator = sys.modules.get("cupy_emu")
    return emulator and emulator.launches()


def launched(f):
    """How many kernels `f()` launches; None on a GPU."""
    f()  # compiles them, which launches nothing, and fills caches, which may
    before = launches()
    f()
    return before and launches() - before
