"""Derivatives where a function has a kink, a pole, a tie, or numbers at the end of the range.

The limit where there is one, else the subgradient of smallest norm; ties share evenly.
"""

import warnings
from math import inf

import numpy as np
import pytest
from helpers import array, host

import gpugrad as gg
from gpugrad.testing.points import POINTS


@pytest.mark.parametrize("row", POINTS, ids=str)
def test_gradient_at_special_point(row, device):
    """A finite derivative comes without a floating-point warning, unless the value has one."""
    f, rtol = row.function, row.rtol
    args = [array(x, "complex128" if np.iscomplexobj(x) else "float64") for x in row.args]
    with warnings.catch_warnings(record=True) as caught, np.errstate(all="warn"):
        warnings.simplefilter("always")
        f(*map(gg.asarray, args))
    finite = all(np.isfinite(x).all() for x in row.gradients)
    with warnings.catch_warnings():
        if caught or not finite:
            warnings.simplefilter("ignore", RuntimeWarning)
        got = gg.grad(lambda *xs: gg.sum(f(*xs)), argnums=range(len(args)))(*args)
    for x, wanted in zip(got, row.gradients, strict=True):
        np.testing.assert_allclose(host(x), wanted, rtol=rtol, atol=rtol if rtol > 1e-14 else 0)


@pytest.mark.parametrize("name", "sigmoid softplus log_sigmoid silu gelu relu tanh".split())
def test_second_derivatives_of_activations_in_the_tails(name, device):
    f = getattr(gg, name)
    x = array([0.0, -0.0, 30.0, -30.0, 1e4, -1e4, 1e200, inf, -inf])
    slope = gg.grad(lambda x: gg.sum(gg.grad(lambda x: gg.sum(f(x)))(x)))(x)
    assert np.isfinite(host(slope)).all()
    np.testing.assert_array_equal(host(slope)[4:], 0)


@pytest.mark.parametrize("f", [gg.mean, gg.max, gg.min], ids=["mean", "max", "min"])
def test_more_halves_than_a_half_can_count(f, device):
    x = gg.asarray(array(np.ones(70_000, np.float16)), requires_grad=True)
    f(x).backward(array(np.float16(100)))
    np.testing.assert_allclose(host(x.grad), 100 / 70_000, rtol=1e-2)
