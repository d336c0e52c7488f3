"""custom_vjp: raw code with a hand-written derivative, in every mode, and what it refuses."""

import numpy as np
import pytest
import scipy.sparse.linalg
from helpers import array, assert_same, host, leaf

import gpugrad as gg
from gpugrad.rules import xp
from gpugrad.testing import GradientError, check_grads

X = np.array([0.3, -0.7, 1.1])


def raw_sin(x):
    """Stands for code that knows arrays only."""
    assert not isinstance(x, gg.Tensor)
    return xp(x).sin(x)


sin = gg.custom_vjp(raw_sin, lambda g, out, x: g * gg.cos(x))


def test_values_and_kinds(device):
    x = array(X)
    assert type(sin(x)) is type(x)
    assert_same(sin(x), np.sin(X))
    out = sin(gg.asarray(x))
    assert isinstance(out, gg.Tensor)
    assert not out.requires_grad
    with gg.no_grad():
        assert not sin(leaf(X)).requires_grad
    assert sin.__name__ == "raw_sin"
    assert sin.__doc__ == "Stands for code that knows arrays only."


def test_derivatives_of_every_order_and_mode(device):
    check_grads(sin, (array(X),), order=3)
    x = leaf(X)
    gg.sum(sin(x) * 2).backward()
    assert_same(x.grad, 2 * np.cos(X))
    assert_same(gg.hessian(lambda x: gg.sum(sin(x)))(array(X)), -np.diag(np.sin(X)))
    more = gg.jacobian(lambda x: sin(gg.concat([x, x])))(array(X))
    assert_same(more, np.tile(np.diag(np.cos(X)), (2, 1)))


def test_with_a_jvp_of_raw_code(device):
    def library(x):
        return xp(x if not isinstance(x, gg.Tensor) else x.data)

    def forward(t, out, x):
        (t,) = t
        return t * library(x).cos(x)

    both = gg.custom_vjp(raw_sin, lambda g, out, x: g * library(x).cos(x), forward)
    check_grads(both, (array(X),), order=1)
    assert_same(gg.jvp(both, (array(X),), (array(X),))[1], np.cos(X) * X)


def test_several_arguments_and_results(device):
    """Of which some have no derivative, or no array."""

    def f(a, n, b, mode, c):
        assert mode == "fast"
        return a * b**n, xp(c).floor(c), b + c

    def vjp(g, out, a, n, b, mode, c):
        first, _, last = g
        return first * b**n, first * a * n * b ** (n - 1) + last, last

    h = gg.custom_vjp(f, vjp)

    def smooth(a, b, c):
        first, _, last = h(a, 3, b, "fast", c)
        return first, last

    a, b, c = array(X), array(X[::-1] + 2), array(X * 0.4 + 5.2)
    check_grads(smooth, (a, b, c), order=2)
    partly = gg.grad(lambda b: gg.sum(smooth(a, b, c)[0]))(b)
    assert_same(partly, 3 * X * (X[::-1] + 2) ** 2)
    only = gg.grad(lambda b: gg.sum(h(a, 3, b, "fast", c)[2]))(b)
    assert_same(only, np.ones(3))
    out = h(gg.asarray(a), 3, leaf(X), "fast", c)
    assert all(isinstance(x, gg.Tensor) for x in out)


def test_none_is_zero_and_integers_have_no_derivative(device):
    index = array([2, 0, 1])

    def pick(x, i, unused):
        return x[i]

    def vjp(g, out, x, i, unused):
        assert i.dtype.kind == "i"
        back = gg.zeros_like(x)
        if not isinstance(back, gg.Tensor):
            back[i] = g
            return back, None, None
        return g[gg.argsort(i)] if hasattr(gg, "argsort") else g[[1, 2, 0]], None, None

    f = gg.custom_vjp(pick, vjp)
    a, b = gg.grad(lambda x, y: gg.sum(f(x, index, y) * gg.asarray(array(X))), (0, 1))(
        array(X), array(X)
    )
    assert_same(a, X[[1, 2, 0]])
    assert_same(b, np.zeros(3))
    a, b = gg.jacobian(lambda x, y: f(x, index, y), (0, 1))(array(X), array(X))
    assert_same(a, np.eye(3)[[2, 0, 1]])
    assert_same(b, np.zeros((3, 3)))


def test_complex_cotangents_point_to_steepest_ascent(device):
    def vjp(g, out, z):
        return g * gg.conj(gg.cos(z))

    f = gg.custom_vjp(raw_sin, vjp)
    z = array(X + 1j * X[::-1])
    check_grads(f, (z,), order=2)
    weights = gg.asarray(array(X - 2j))
    expected = gg.vjp(gg.sin, z)[1](weights)
    assert_same(gg.vjp(f, z)[1](weights), expected)
    square = gg.custom_vjp(lambda z: (z * z.conj()).real, lambda g, out, z: 2 * g * z)
    check_grads(square, (z,), order=2)


def test_in_batches_raw_code_runs_once_per_example(device):
    calls = []

    def f(x):
        assert x.shape == (3,)
        calls.append(1)
        return raw_sin(x)

    def vjp(g, out, x):
        assert g.shape == out.shape == x.shape == (3,)
        return g * (xp(x).cos(x) if not isinstance(x, gg.Tensor) else gg.cos(x))

    h = gg.custom_vjp(f, vjp)
    xs = array(np.stack([X, X * 2]))
    assert_same(gg.vmap(h)(xs), np.sin(host(xs)))
    assert len(calls) == 2
    assert_same(gg.jacobian(h)(array(X)), np.diag(np.cos(X)))
    assert_same(gg.vmap(gg.grad(lambda x: gg.sum(h(x))))(xs), np.cos(host(xs)))
    assert_same(gg.grad(lambda xs: gg.sum(gg.vmap(h)(xs)))(xs), np.cos(host(xs)))
    assert_same(gg.vmap(gg.hessian(lambda x: gg.sum(sin(x))))(xs)[1], -np.diag(np.sin(2 * X)))
    w = leaf(X)
    gg.sum(gg.vmap(lambda x: gg.custom_vjp(np_mul, mul_back)(w, x))(xs)).backward()
    assert_same(w.grad, host(xs).sum(axis=0))


def np_mul(a, b):
    return a * b


def mul_back(g, out, a, b):
    return g * b, g * a


# ---- what it is for: code of other libraries


def test_a_raw_kernel(cuda):
    """A stencil and its transpose, each the other's pullback: derivatives of every order."""
    import cupy as cp

    source = """
    extern "C" __global__ void stencil(const double* x, double* y, int n, int step) {
        int k = blockDim.x * blockIdx.x + threadIdx.x;
        if (k >= n) return;
        int other = k + step;
        y[k] = 3 * x[k] - (other >= 0 && other < n ? x[other] : 0);
    }
    """
    kernel = cp.RawKernel(source, "stencil")

    def launched(step):
        def stencil(x):
            x = cp.ascontiguousarray(x)
            y = cp.empty_like(x)
            kernel((1,), (32,), (x, y, np.int32(x.size), np.int32(step)))
            return y

        return stencil

    ahead = gg.custom_vjp(launched(1), lambda g, out, x: behind(g))
    behind = gg.custom_vjp(launched(-1), lambda g, out, x: ahead(g))
    with cuda:
        x = array(np.linspace(-1, 1, 7))
        assert_same(gg.jacobian(ahead)(x), 3 * np.eye(7) - np.eye(7, k=1))
        check_grads(lambda x: ahead(x) ** 2 * ahead(x * x), (x,), order=2)
        rows = gg.vmap(gg.grad(lambda x: gg.sum(ahead(x))))(x[None])
        assert_same(rows[0], np.array([3.0, 2, 2, 2, 2, 2, 2]))


def test_a_call_of_scipy():
    """A sparse solver: the pullback solves with the transpose, jvp and all from it."""
    matrix = scipy.sparse.diags_array(
        [[1.0, 2.0], [4.0, 5.0, 6.0], [-1.0, 0.5]], offsets=[-1, 0, 1]
    )
    solvers = [scipy.sparse.linalg.factorized(m.tocsc()) for m in (matrix, matrix.T)]
    solve = gg.custom_vjp(lambda b: solvers[0](b), lambda g, out, b: solve_transposed(g))
    solve_transposed = gg.custom_vjp(lambda b: solvers[1](b), lambda g, out, b: solve(g))
    check_grads(lambda b: solve(b) ** 3, (X,), order=2)
    assert_same(gg.jacobian(solve)(X), np.linalg.inv(matrix.toarray()))


# ---- never a silent zero


def raw_vjp(g, out, x):
    """A pullback that leaves gpugrad."""
    assert not isinstance(x, gg.Tensor), "raw code"
    return g * xp(x).cos(x)


def test_raw_pullbacks_have_first_derivatives_only(device):
    def leaves(g, out, x):
        data = [v.data if isinstance(v, gg.Tensor) else v for v in (g, x)]
        return data[0] * xp(data[1]).cos(data[1])

    def converts(g, out, x):
        values = x.numpy() if isinstance(x, gg.Tensor) else host(x)
        return gg.asarray(np.cos(values), device=device) * g

    for vjp in (leaves, converts):
        f = gg.custom_vjp(raw_sin, vjp)
        assert_same(gg.grad(lambda x, f=f: gg.sum(f(x)))(array(X)), np.cos(X))
        with pytest.raises(RuntimeError, match="vjp of raw_sin cannot be differentiated"):
            gg.grad(lambda x, f=f: gg.sum(gg.grad(lambda x: gg.sum(f(x)))(x)))(array(X))
        with pytest.raises(RuntimeError, match="vjp of raw_sin cannot be differentiated"):
            gg.sum(f(leaf(X))).backward(create_graph=True)
        more = gg.jacobian(lambda x, f=f: f(gg.concat([x, x])))(array(X))
        assert_same(more, np.tile(np.diag(np.cos(X)), (2, 1)))
        with pytest.raises(RuntimeError, match="raw_sin has no jvp"):
            gg.jvp(gg.custom_vjp(raw_sin, leaves), (array(X),), (array(X),))


def test_raw_jvps_have_first_derivatives_only(device):
    def forward(t, out, x):
        data = [v.data if isinstance(v, gg.Tensor) else v for v in (t[0], x)]
        return data[0] * xp(data[1]).cos(data[1])

    f = gg.custom_vjp(raw_sin, lambda g, out, x: g * gg.cos(x), forward)
    assert_same(gg.jvp(f, (array(X),), (array(X),))[1], X * np.cos(X))
    with pytest.raises(RuntimeError, match="of raw_sin cannot be differentiated"):
        gg.grad(lambda x: gg.sum(gg.jvp(f, (x,), (array(X),))[1]))(array(X))


@pytest.mark.parametrize(
    ("vjp", "error", "message"),
    [
        (lambda g, out, a, b: g, ValueError, "1 cotangents for 2 arrays"),
        (lambda g, out, a, b: (g, g, g), ValueError, "3 cotangents for 2 arrays"),
        (lambda g, out, a, b: (g, g[:1]), ValueError, r"argument 2 has shape \(1,\) where \(3,\)"),
        (lambda g, out, a, b: (gg.sum(g), g), ValueError, r"argument 0 has shape \(\)"),
        (lambda g, out, a, b: (g * 1j, g), TypeError, "argument 0 is complex128.*float64"),
        (lambda g, out, a, b: (g, 3.0), TypeError, "argument 2 must be an array, not float"),
        (lambda g, out, a, b: None, TypeError, "returned None"),
    ],
)
def test_cotangents_that_do_not_fit_are_named(vjp, error, message, device):
    def product(a, note, b):
        return a * b

    f = gg.custom_vjp(product, lambda g, out, a, note, b: vjp(g, out, a, b))
    a, b = leaf(X), leaf(X)
    with pytest.raises(error, match=f"custom_vjp.*product.*{message}"):
        gg.sum(f(a, "note", b)).backward()
    assert a.grad is None


def test_a_return_left_out_is_no_derivative_of_zero(device):
    def forgotten(*args):
        args[0] * 2

    with pytest.raises(TypeError, match=r"vjp of .* returned None; .*\(None,\)"):
        gg.grad(lambda x: gg.sum(gg.custom_vjp(gg.sin, forgotten)(x)))(X)
    with pytest.raises(TypeError, match="jvp of .* returned None"):
        gg.jvp(gg.custom_vjp(gg.sin, raw_vjp, forgotten), (X,), (X,))


def test_results_and_tangents_that_do_not_fit(device):
    with pytest.raises(TypeError, match="returns arrays.*not float"):
        gg.custom_vjp(lambda x: 1.0, raw_vjp)(leaf(X))
    f = gg.custom_vjp(raw_sin, raw_vjp, lambda t, out, x: (t[0], t[0]))
    with pytest.raises(ValueError, match="jvp of raw_sin returned 2 tangents for 1 results"):
        gg.jvp(f, (array(X),), (array(X),))
    f = gg.custom_vjp(raw_sin, raw_vjp, lambda t, out, x: t[0][:1])
    with pytest.raises(ValueError, match="tangent of result 0 has shape"):
        gg.jvp(f, (array(X),), (array(X),))


def test_check_grads_finds_a_wrong_pullback(device):
    wrong = gg.custom_vjp(raw_sin, lambda g, out, x: g * gg.sin(x))
    with pytest.raises(GradientError):
        check_grads(wrong, (array(X),))


def test_a_narrower_cotangent_takes_the_dtype_of_its_argument(device):
    f = gg.custom_vjp(raw_sin, lambda g, out, x: (g * gg.cos(x)).astype("float64"))
    assert gg.grad(lambda x: gg.sum(f(x)))(array(X, "float32")).dtype == np.float32


def test_what_is_kept_and_changed_is_noticed(device):
    x = leaf(X)
    y = x * 1
    out = gg.sum(sin(y))
    with gg.no_grad():
        y[0] = 3.0
    with pytest.raises(RuntimeError, match="raw_sin.*changed in place"):
        out.backward()
