"""Batches and vmap: every operation of the table against a loop, derivatives through both."""

import numpy as np
import pytest
from helpers import array, assert_same, flat, host, leaf

import gpugrad as gg
from gpugrad.testing import check_grads
from gpugrad.testing.table import ROWS

# Results whose shape depends on values differ from example to example.
OF_VALUES = ("nonzero", "unique")
DIFFERENTIABLE = [row for row in ROWS if row.order and "d" in row.dtypes]


def some_of(x, rng):
    """Three arrays like `x`, one of them `x` itself, stacked."""
    if x.dtype.kind in "biu":
        return np.stack([x] * 3)
    others = x[..., ::-1] if x.ndim else x, x * rng.uniform(0.9, 1.0, x.shape)
    return np.stack([x, *others]).astype(x.dtype)


def stacked(results):
    parts = [flat(result) for result in results]
    return [np.stack([host(x) for x in xs]) for xs in zip(*parts, strict=True)]


def check_vmap(f, args, mapped, rtol=64):
    """`vmap` of `f` over the arguments `mapped` against a loop."""
    rng = np.random.default_rng(1)
    args = [array(some_of(host(x), rng)) if i in mapped else x for i, x in enumerate(args)]
    in_axes = tuple(0 if i in mapped else None for i in range(len(args)))
    one = [
        f(*(gg.asarray(x[i] if k in mapped else x) for k, x in enumerate(args))) for i in range(3)
    ]
    assert_same(flat(gg.vmap(f, in_axes)(*args)), stacked(one), rtol)


@pytest.mark.parametrize(
    ("row", "dtype"),
    [
        (row, np.dtype(c))
        for row in ROWS
        for c in row.dtypes
        if row.args and all(hasattr(x, "shape") for x in row.args)
        if not row.name.startswith(OF_VALUES)
    ],
    ids=str,
)
@np.errstate(all="ignore")
def test_vmap_of_every_operation_is_a_loop(row, dtype, device):
    args = [array(x) for x in row.draw(dtype)]
    for mapped in {(0,), tuple(range(len(args))), (len(args) - 1,)}:
        check_vmap(row.function, args, mapped, max(256, row.rtol))


@pytest.mark.parametrize("row", DIFFERENTIABLE, ids=str)
def test_derivatives_of_and_through_vmap(row, device):
    """The first argument has three examples, the others are shared: their gradients add up."""
    f, (x, *others) = row.of_differentiable([array(x) for x in row.draw(np.float64)])
    xs = array(some_of(host(x), np.random.default_rng(1)))
    in_axes = (0, *(None for _ in others))

    def squares(*args):
        return sum(gg.sum(gg.real(y * gg.conj(y))) for y in flat(f(*args)))

    everything = tuple(range(1 + len(others)))
    each = [gg.grad(squares, everything)(xs[i], *others) for i in range(3)]
    per_example = gg.vmap(gg.grad(squares, everything), in_axes)(xs, *others)
    assert_same(flat(per_example), stacked(each), 1e6)

    for g in (
        gg.grad(lambda *args: gg.sum(gg.vmap(squares, in_axes)(*args)), everything)(xs, *others),
        gg.grad(  # the others closed over, not handed in
            lambda xs, *rest: gg.sum(gg.vmap(lambda x: squares(x, *rest))(xs)), everything
        )(xs, *others),
    ):
        expected = stacked(each)
        assert_same(flat(g), [expected[0], *(e.sum(axis=0) for e in expected[1:])], 1e6)


def square_of_sum(x):
    return gg.sum(x) ** 2


def mixed(x, w):
    """A function of one example and of what all share, with a little of everything."""
    y = gg.tanh(gg.matmul(w, x)) * w[0, 0] + w.sum(axis=1)
    y = gg.concat([y, w[:, 1]]) * gg.max(x)
    return gg.sum(gg.sigmoid(y) * y, axis=0)


X = np.linspace(-1, 1, 12).reshape(4, 3)
W = np.cos(np.arange(6.0)).reshape(2, 3)


def test_check_grads_of_vmap(device):
    xs, w = array(X), array(W)
    check_grads(lambda xs, w: gg.vmap(lambda x: mixed(x, w))(xs), (xs, w), order=2)
    check_grads(gg.vmap(mixed, (0, None)), (xs, w), order=2)
    check_grads(gg.vmap(lambda x: gg.grad(mixed, 1)(x, w)), (xs,), order=1)
    check_grads(lambda xs, w: gg.vmap(lambda x: gg.grad(mixed)(x, w))(xs), (xs, w), order=1)


def test_vmap_in_vmap(device):
    xs, ws = array(X), array(np.stack([W, W * 2, W - 1]))
    got = gg.vmap(lambda w: gg.vmap(lambda x: mixed(x, w))(xs))(ws)
    expected = [[float(mixed(gg.asarray(x), gg.asarray(w))) for x in X] for w in host(ws)]
    np.testing.assert_allclose(host(got), expected, rtol=1e-13)
    got = gg.vmap(gg.vmap(mixed, (0, None)), (None, 0))(xs, ws)
    np.testing.assert_allclose(host(got), expected, rtol=1e-13)

    def total(xs, ws):
        return gg.sum(gg.vmap(lambda w: gg.vmap(lambda x: mixed(x, w))(xs))(ws) ** 2)

    def by_loop(xs, ws):
        parts = [mixed(xs[i], ws[k]) ** 2 for i in range(4) for k in range(3)]
        return sum(parts, start=0)

    assert_same(list(gg.grad(total, (0, 1))(xs, ws)), list(gg.grad(by_loop, (0, 1))(xs, ws)), 1e4)


def test_derivatives_in_vmap_in_derivatives(device):
    """Inside, outside, and both; through tensors that the function closes over."""
    xs, w = array(X), array(W)

    def penalty(w):
        slopes = gg.vmap(lambda x: gg.grad(mixed)(x, w))(xs)
        return gg.sum(slopes**2)

    def by_loop(w):
        return sum((gg.sum(gg.grad(mixed)(x, w) ** 2) for x in map(array, X)), start=0)

    assert_same(gg.grad(penalty)(w), gg.grad(by_loop)(w), 1e4)
    v = leaf(W)
    penalty(v).backward()
    assert_same(v.grad, gg.grad(by_loop)(w), 1e4)
    assert_same(gg.hessian(penalty)(w), gg.hessian(by_loop)(w), 1e6)


def test_jacobian_of_vmap_and_vmap_of_jacobian(device):
    xs, w = array(X), array(W)

    def f(x):
        return gg.tanh(gg.matmul(w, x)) * gg.sum(x)

    each = np.stack([host(gg.jacobian(f)(array(x))) for x in X])
    assert_same(gg.vmap(gg.jacobian(f))(xs), each)
    whole = host(gg.jacobian(gg.vmap(f))(xs))
    assert whole.shape == (4, 2, 4, 3)
    for i in range(4):
        np.testing.assert_allclose(whole[i, :, i], each[i], rtol=1e-13)
        assert not np.delete(whole[i], i, axis=1).any()
    second = np.stack([host(gg.jacobian(gg.jacobian(f))(array(x))) for x in X])
    assert_same(gg.vmap(gg.jacobian(gg.jacobian(f)))(xs), second, 1e3)
    assert_same(
        gg.vmap(gg.hessian(mixed), (0, None))(xs, w),
        np.stack([host(gg.hessian(mixed)(array(x), w)) for x in X]),
        1e3,
    )


def test_perturbations_of_an_input_that_all_share(device):
    """A derivative inside vmap by something without examples is still one per example."""
    xs = array([1.0, 2.0, 3.0])
    got = gg.vmap(lambda x: gg.grad(lambda y: x * y * y)(array(5.0)))(xs)
    assert_same(got, np.array([10.0, 20.0, 30.0]))
    got = gg.vmap(lambda x: gg.jvp(lambda y: x * y * y, (array(5.0),), (x,))[1])(xs)
    assert_same(got, np.array([10.0, 40.0, 90.0]))
    got = gg.vmap(lambda x: gg.vjp(lambda y: x * y * y, array(5.0))[1](array(2.0))[0])(xs)
    assert_same(got, np.array([20.0, 40.0, 60.0]))


def test_backward_through_and_inside_vmap(device):
    w, xs = leaf([1.0, 2.0, 3.0]), array(X)
    gg.sum(gg.vmap(lambda x: gg.sum(w * x * x))(xs)).backward()
    np.testing.assert_allclose(host(w.grad), (X**2).sum(axis=0))
    w = leaf([1.0, 2.0, 3.0])

    def f(x):
        gg.sum(w + x).backward()  # the leaf gathers what every example gives
        return x

    gg.vmap(f)(xs)
    np.testing.assert_allclose(host(w.grad), [4, 4, 4])


def test_axes_and_structures(device):
    a, b = array(X), array(X.T)

    def f(tree, scale):
        return {"sum": tree["a"] + tree["b"], "all": (gg.sum(tree["a"]) * scale, tree["b"])}

    got = gg.vmap(lambda a, b: a * gg.sum(b), in_axes=(0, 1))(a, b)
    assert_same(got, X * X.sum(axis=1, keepdims=True))
    got = gg.vmap(f, in_axes=(-2, None))({"a": a, "b": a * 2}, 3)
    assert_same(got["sum"], X * 3)
    assert_same(got["all"][0], X.sum(axis=1) * 3)
    assert_same(got["all"][1], X * 2)
    assert_same(gg.vmap(lambda x: x * 2, out_axes=1)(a), 2 * X.T)
    one, two = gg.vmap(lambda x: (x, x + 1), out_axes=(0, -1))(a)
    assert_same(one, X)
    assert_same(two, X.T + 1)
    shared = gg.vmap(lambda x: gg.asarray(b) * 1)(a)
    assert_same(shared, np.stack([X.T] * 4))
    shared[...] = 0  # its own memory
    one[...] = 0
    assert_same(a, X)
    same = gg.vmap(lambda x: x)(a)
    same[...] = 0
    assert_same(a, X)


def test_arrays_come_back_as_they_went_in(device):
    x = array(X)
    assert type(gg.vmap(gg.sin)(x)) is type(x)
    assert isinstance(gg.vmap(gg.sin)(gg.asarray(x)), gg.Tensor)
    w = leaf(2.0)
    out = gg.vmap(lambda x: x * w)(x)
    assert out.requires_grad
    with gg.no_grad():
        assert type(gg.vmap(lambda x: x * w)(x)) is type(x)


def test_indices_and_writes_per_example(device):
    table, indices = array(X), array([2, 0, 0])
    assert_same(gg.vmap(lambda i: gg.asarray(table)[i])(indices), X[[2, 0, 0]])
    assert_same(gg.vmap(lambda x, i: x[i], (1, 0))(table, indices), X.T[[0, 1, 2], [2, 0, 0]])
    assert_same(
        gg.vmap(lambda x, i: gg.take(x, i), (1, 0))(table, indices), X[[2, 0, 0], [0, 1, 2]]
    )

    def write(x, i):
        x = x.copy()
        x[i] = 7.0
        x[1:3] += x[0]
        return x

    expected = X.T.copy()
    for row, i in zip(expected, [2, 0, 0], strict=True):
        row[i] = 7
        row[1:3] += row[0]
    assert_same(gg.vmap(write, (1, 0))(table, indices), expected)
    gradient = gg.grad(lambda t: gg.sum(gg.vmap(write, (1, 0))(t, indices)))(table)
    loop = gg.grad(lambda t: sum(gg.sum(write(t[:, k], i)) for k, i in enumerate([2, 0, 0])))
    assert_same(gradient, loop(table))


def test_what_vmap_refuses(device):
    x = array(X)
    with pytest.raises(ValueError, match="shape"):
        gg.vmap(lambda x: x[x > 0])(x)
    with pytest.raises(RuntimeError, match="inside vmap no value is read"):
        gg.vmap(lambda x: x if gg.sum(x) > 0 else -x)(x)
    with pytest.raises(RuntimeError, match="inside vmap no value is read"):
        gg.vmap(lambda x: x * float(gg.sum(x)))(x)
    with pytest.raises(ValueError, match="number of examples"):
        gg.vmap(lambda a, b: a + b)(x, array([1.0]))
    with pytest.raises(ValueError, match="number of examples"):
        gg.vmap(gg.sin)(x[:0])
    with pytest.raises(ValueError, match="number of examples"):
        gg.vmap(gg.sin, None)(x)
    with pytest.raises(ValueError, match="in_axes=2"):
        gg.vmap(gg.sin, 2)(x)
    with pytest.raises(ValueError, match="in_axes has 1 items for 2"):
        gg.vmap(gg.add, (0,))(x, x)
    with pytest.raises(ValueError, match="out_axes"):
        gg.vmap(gg.sin, 0, (0, 0))(x)
    with pytest.raises(TypeError, match="result 0 is int.*a Tensor"):
        gg.vmap(lambda x: 3)(x)
    with pytest.raises(TypeError, match="setitem: .*nor written into"):
        gg.vmap(lambda x: gg.zeros(3).__setitem__(slice(None), x))(x)
    with pytest.raises((TypeError, RuntimeError), match="nor written into|no value is read"):
        gg.vmap(lambda x: gg.zeros(3).__setitem__(0, x[0]))(x)
    kept = []
    gg.vmap(lambda x: kept.append(x) or x)(x)
    with pytest.raises(RuntimeError, match="outside the vmap"):
        kept[0] + leaf(1.0)
    with pytest.raises(ValueError, match="matmul"):
        gg.vmap(lambda x: gg.matmul(x, gg.asarray(x[:2])))(x)


def test_functions_without_a_way_for_batches_run_once_per_example(device):
    from gpugrad.rules import xp

    x = array(X)

    def f(x):
        return gg.Tensor(xp(x.data).partition(x.data, 1), None)

    if device.kind == "cpu":
        assert_same(gg.vmap(f)(x), np.partition(X, 1))


def test_whole_trees_of_results_of_no_example(device):
    """The Jacobian of a function with an empty result, or argument, is empty too."""
    assert gg.jacobian(lambda x: x[:0])(array([1.0, 2.0])).shape == (0, 2)
    assert gg.jacobian(lambda x: gg.sum(x) * gg.ones(3))(array([])).shape == (3, 0)


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
