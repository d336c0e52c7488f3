"""Batches and vmap: every operation of the table against a loop, derivatives through both."""

import numpy as np
import pytest
from helpers import array, assert_same, flat, host, leaf

import gpugrad as gg
from gpugrad.testing import check_grads
from gpugrad.testing.table import ROWS
from gpugrad.trees import map_tree

DIFFERENTIABLE = [row for row in ROWS if row.order and "d" in row.dtypes]


def some_of(x, rng):
    """Three arrays like `x`, one of them `x` itself, stacked."""
    if x.dtype.kind in "biu":
        return np.stack([x] * 3)
    return np.stack([x, x[..., ::-1] if x.ndim else x, x * rng.uniform(0.9, 1.0, x.shape)])


def stacked(results):
    parts = [flat(result) for result in results]
    return [np.stack([host(x) for x in xs]) for xs in zip(*parts, strict=True)]


def check_vmap(f, args, mapped, rtol=64):
    """`vmap` of `f` over the arguments `mapped` against a loop."""
    rng = np.random.default_rng(1)
    args = [array(some_of(host(x), rng)) if i in mapped else x for i, x in enumerate(args)]
    in_axes = tuple(0 if i in mapped else None for i in range(len(args)))
    got = gg.vmap(f, in_axes)(*args)
    one = [
        f(*(gg.asarray(x[i] if k in mapped else x) for k, x in enumerate(args))) for i in range(3)
    ]
    assert_same(flat(got), stacked(one), rtol)


@pytest.mark.parametrize("row", DIFFERENTIABLE, ids=str)
def test_vmap_of_every_operation_is_a_loop(row, device):
    f, args = row.of_differentiable([array(x) for x in row.draw(np.float64)])
    for mapped in {(0,), tuple(range(len(args))), (len(args) - 1,)}:
        check_vmap(f, args, mapped, max(64, row.rtol))


@pytest.mark.parametrize("row", DIFFERENTIABLE, ids=str)
def test_jacobian_of_every_operation_is_its_sweeps(row, device):
    """In both directions, and recorded, against one sweep per unit vector."""
    f, args = row.of_differentiable([array(x) for x in row.draw(np.float64)])

    def of_sum(*xs):  # a Jacobian of one row, by the reverse sweep
        return sum(gg.sum(gg.real(y) ** 2) for y in flat(f(*xs)))

    def along(t):  # of many rows, by the forward sweep
        return f(*(x + t * x for x in map(gg.asarray, args)))

    gradient = gg.grad(of_sum, tuple(range(len(args))))(*args)
    assert_same(gg.jacobian(of_sum, tuple(range(len(args))))(*args), gradient, 1e6)
    tangent = gg.jvp(along, (array(0.0),), (array(1.0),))[1]
    assert_same(flat(gg.jacobian(along)(array(0.0))), flat(tangent), 1e6)
