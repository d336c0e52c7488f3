"""jacobian, hessian and hvp: closed forms, structures, nesting, complex numbers, memory."""

import numpy as np
import pytest
from helpers import array, assert_same, flat, host, leaf

import gpugrad as gg
from gpugrad import jacobians
from gpugrad.testing import check_grads

X = np.array([0.3, -0.7, 1.1])
W = np.cos(np.arange(12.0)).reshape(4, 3)


def layer(x, w=W):
    return gg.tanh(gg.matmul(gg.asarray(w, device=x.device), x))


def energy(x):
    return gg.sum(layer(x) ** 3) * x[0]


def layer_jacobian(x=X, w=W):
    return (1 - np.tanh(w @ x) ** 2)[:, None] * w


def by_sweeps(f, x):
    """The Jacobian of `f` at one array, a sweep per result."""
    out, pullback = gg.vjp(f, x)
    rows = []
    for k in range(out.size):
        unit = np.zeros(out.size)
        unit[k] = 1
        rows.append(host(pullback(array(unit.reshape(out.shape)))[0]))
    return np.reshape(rows, (*out.shape, *x.shape))


def is_raw(x):
    return type(x) is type(array(0.0))


@pytest.mark.parametrize("rows", [1, 2, 4, 7])
def test_in_both_directions_against_the_closed_form(rows, device):
    w = np.cos(np.arange(rows * 3.0)).reshape(rows, 3)
    got = gg.jacobian(lambda x: layer(x, w))(array(X))
    assert is_raw(got)
    assert_same(got, layer_jacobian(w=w))


def test_of_arrays_with_several_axes(device):
    x = array(np.linspace(-1, 1, 6).reshape(2, 3))
    more = gg.jacobian(lambda x: gg.stack([gg.exp(x), x**2, x.T.reshape(2, 3)]))(x)
    assert more.shape == (3, 2, 3, 2, 3)
    assert_same(more[:2], by_sweeps(lambda x: gg.stack([gg.exp(x), x**2]), x))
    fewer = gg.jacobian(lambda x: gg.sum(x * x, axis=1))(x)
    assert_same(fewer, by_sweeps(lambda x: gg.sum(x * x, axis=1), x))


def test_the_sweep_with_fewer_unit_vectors_is_run_once(monkeypatch, device):
    calls = []
    for name in ("push", "pull"):
        original = getattr(jacobians, name)

        def counted(*args, name=name, original=original, **options):
            calls.append(name)
            return original(*args, **options)

        monkeypatch.setattr(jacobians, name, counted)
    gg.jacobian(lambda x: gg.sum(x) * gg.ones(4))(array(X))
    gg.jacobian(lambda x: x[:2] * 2)(array(X))
    assert calls == ["push", "pull"]


def test_large_jacobians_are_made_in_portions(monkeypatch, device):
    expected = [host(gg.jacobian(f)(array(X))) for f in (layer, lambda x: layer(x)[:2])]
    sizes = []
    original = jacobians.batching.examples

    def noted(count, level):
        sizes.append(count)
        return original(count, level)

    monkeypatch.setattr(jacobians.batching, "examples", noted)
    monkeypatch.setattr(jacobians, "_LARGEST", 8)
    assert_same(gg.jacobian(layer)(array(X)), expected[0], 0)
    assert sizes == [2, 1]
    assert_same(gg.jacobian(lambda x: layer(x)[:2])(array(X)), expected[1], 0)
    assert sizes == [2, 1, 2]


# ---- structures and kinds


def test_structures_one_inside_the_other(device):
    def f(tree, y):
        return {"a": tree["x"] * y, "b": (gg.sum(tree["x"]), gg.asarray(y) ** 2)}

    x, y = array([1.0, 2.0]), array([3.0, 4.0])
    got = gg.jacobian(f)({"x": x}, y)
    assert_same(got["a"]["x"], np.diag([3.0, 4.0]))
    assert_same(got["b"][0]["x"], np.ones(2))
    assert_same(got["b"][1]["x"], np.zeros((2, 2)))
    assert all(map(is_raw, flat(got)))
    got = gg.jacobian(f, argnums=(1, 0))({"x": x}, y)
    assert isinstance(got["a"], tuple)
    assert_same(got["a"][0], np.diag([1.0, 2.0]))
    assert_same(got["a"][1]["x"], np.diag([3.0, 4.0]))
    assert_same(got["b"][1][0], np.diag([6.0, 8.0]))


def test_kinds_of_arrays(device):
    x = array(X, "float32")
    got = gg.jacobian(gg.sin)(x)
    assert is_raw(got)
    assert got.dtype == np.float32
    got = gg.jacobian(gg.sin)(gg.asarray(x))
    assert isinstance(got, gg.Tensor)
    assert not got.requires_grad
    assert got.device == device
    for rows in (1, 5):  # both directions
        f = gg.jacobian(lambda x, rows=rows: gg.astype(x[0] * gg.ones(rows), "float64"))
        assert f(x).dtype == np.float32


def test_keywords_and_names(device):
    def power(x, *, n):
        """A docstring."""
        return x**n

    assert_same(gg.jacobian(power)(array(X), n=2), np.diag(2 * X))
    assert gg.jacobian(power).__name__ == "power"


def test_results_are_the_callers(device):
    x = array(X)
    f = gg.jacobian(lambda x: x)
    first = f(x)
    first[...] = 7
    assert_same(f(x), np.eye(3))
    assert_same(x, X)
    zero = gg.jacobian(lambda x: gg.zeros(2))(x)
    assert_same(zero, np.zeros((2, 3)))
    zero[...] = 1


def test_what_is_refused(device):
    x = array(X)
    with pytest.raises(ValueError, match="jacobian: argnums=1"):
        gg.jacobian(gg.sin, 1)(x)
    with pytest.raises(TypeError, match="int64"):
        gg.jacobian(gg.sin)(array([1, 2]))
    with pytest.raises(TypeError, match="returned float"):
        gg.jacobian(lambda x: 1.0)(x)
    with pytest.raises(ValueError, match="only a scalar"):
        gg.hessian(gg.sin)(x)
    with pytest.raises(TypeError, match="tuple or list"):
        gg.hvp(energy, x, x)


# ---- complex numbers


def test_holomorphic_functions(device):
    z = array(X + 1j * X[::-1])
    w = gg.asarray(array(W + 0.5j))

    for rows in (slice(None), slice(2)):

        def f(z, rows=rows):
            return gg.sin(gg.matmul(w[rows], z))

        expected = np.cos(host(w)[rows] @ host(z))[:, None] * host(w)[rows]
        assert_same(gg.jacobian(f, holomorphic=True)(z), expected)
    with pytest.raises(TypeError, match="complex128.*holomorphic=True"):
        gg.jacobian(gg.sin)(z)
    with pytest.raises(TypeError, match="float64: it is not holomorphic"):
        gg.jacobian(gg.abs, holomorphic=True)(z)
    with pytest.raises(TypeError, match="complex"):
        gg.hessian(lambda z: gg.sum(gg.abs(z) ** 2))(z)


def test_complex_functions_of_real_numbers(device):
    for x in (array(X), array(X, "float32")):
        got = gg.jacobian(lambda x: gg.exp(x[:2] * 1j))(x)
        assert got.dtype == ("complex128" if x.dtype == "float64" else "complex64")
        expected = np.zeros((2, 3), got.dtype)
        expected[[0, 1], [0, 1]] = 1j * np.exp(1j * host(x)[:2])
        assert_same(got, expected)


def test_real_functions_through_complex_numbers(device):
    def f(x):
        return gg.abs(gg.exp(x * (1 + 2j)))[:2]

    assert_same(gg.jacobian(f)(array(X)), np.diag(np.exp(X))[:2], 64)


# ---- nesting


@pytest.mark.parametrize("rows", [2, 4])
def test_derivatives_of_jacobians(rows, device):
    """In both directions: the Jacobian's own derivatives against finite differences."""
    f = gg.jacobian(lambda x: layer(x, W[:rows]) * x[0])
    check_grads(f, (array(X),), order=2)
    check_grads(gg.jacobian(f), (array(X),), order=1)


def test_jacobian_of_jacobian_in_every_direction(device):
    """The third derivatives of x**4, and of products of all pairs of two numbers."""
    cubes = gg.jacobian(gg.jacobian(gg.jacobian(lambda x: x**4)))(array(X))
    expected = np.zeros((3, 3, 3, 3))
    for i in range(3):
        expected[i, i, i, i] = 24 * X[i]
    assert_same(cubes, expected)
    x = array([2.0, 3.0])
    second = gg.jacobian(gg.jacobian(lambda x: x[:1] * x[1:]))(x)
    assert_same(second, np.array([[[0.0, 1.0], [1.0, 0.0]]]))


def test_perturbations_are_not_confused(device):
    one = array(1.0)
    d = gg.jacobian
    assert float(d(lambda x: x * d(lambda y: x + y)(one))(array(1.0))) == 1
    assert float(d(lambda x: x * d(lambda y: x * y)(one))(array(3.0))) == 6
    assert float(d(lambda x: d(lambda y: x * y * y)(2 * x))(array(3.0))) == 24
    assert float(gg.grad(lambda x: x * d(lambda y: x * y)(one))(array(3.0))) == 6
    assert float(d(lambda x: x * gg.grad(lambda y: x * y)(one))(array(3.0))) == 6
    got = d(lambda x: x * d(lambda y: x * gg.sum(y))(array([1.0, 2.0])))(array([3.0, 4.0]))
    assert got.shape == (2, 2, 2)


@pytest.mark.parametrize("rows", [2, 4])
def test_on_the_tape_of_a_captured_tensor(rows, device):
    w = leaf(W[:rows])

    def f(x):
        return gg.tanh(gg.matmul(w, x))

    got = gg.jacobian(f)(array(X))
    assert got.requires_grad
    weights = np.sin(np.arange(rows * 3.0)).reshape(rows, 3)
    gg.sum(got * gg.asarray(array(weights))).backward()
    lines = [gg.asarray(array(row)) for row in weights]

    def by_sweeps(w):
        slopes = [gg.grad(lambda x, k=k: gg.tanh(w[k] @ x))(array(X)) for k in range(rows)]
        return sum((gg.sum(a * b) for a, b in zip(slopes, lines, strict=True)), start=0)

    expected = gg.grad(by_sweeps)(array(W[:rows]))
    assert_same(w.grad, expected, 1e3)
    with gg.no_grad():
        assert is_raw(gg.jacobian(f)(array(X)))


def test_a_leaf_given_gets_no_grad(device):
    x = leaf(X)
    got = gg.jacobian(gg.sin)(x)
    assert x.grad is None
    gg.sum(got).backward()
    np.testing.assert_allclose(host(x.grad), -np.sin(X))


# ---- hessian and hvp


def hessian_by_sweeps(f, x):
    return by_sweeps(gg.grad(f), x)


def test_hessian_against_sweeps(device):
    x = array(X)
    expected = hessian_by_sweeps(energy, x)
    got = gg.hessian(energy)(x)
    assert is_raw(got)
    assert_same(got, expected, 256)
    np.testing.assert_allclose(host(got), host(got).T, rtol=1e-13)
    v = array([1.0, -2.0, 0.5])
    (product,) = gg.hvp(energy, (x,), (v,))
    assert is_raw(product)
    assert_same(product, expected @ host(v), 256)
    check_grads(lambda x: gg.hessian(energy)(x), (x,), order=1)
    check_grads(lambda x: gg.hvp(energy, [x], [v])[0], (x,), order=1)


def test_hessian_of_structures(device):
    def f(tree, y):
        return gg.sum(tree["x"] ** 2 * y)

    x, y = array([1.0, 2.0]), array([3.0, 4.0])
    got = gg.hessian(f, (0, 1))({"x": x}, y)
    assert_same(got[0]["x"][0]["x"], np.diag([6.0, 8.0]))
    assert_same(got[0]["x"][1], np.diag([2.0, 4.0]))
    assert_same(got[1][0]["x"], np.diag([2.0, 4.0]))
    assert_same(got[1][1], np.zeros((2, 2)))
    primals, vectors = [{"x": x}, y], [{"x": y}, x]
    product = gg.hvp(f, primals, vectors)
    assert isinstance(product, list)
    assert_same(product[0]["x"], np.array([6 * 3 + 2 * 1, 8 * 4 + 4 * 2.0]))
    assert_same(product[1], np.array([2 * 3, 4 * 4.0]))
    assert_same(gg.hessian(lambda x: gg.sum(x) * 3)(x), np.zeros((2, 2)))


def test_hessian_on_the_tape_of_a_captured_tensor(device):
    w = leaf([1.0, 2.0])
    got = gg.hessian(lambda x: gg.sum(w * x**3))(array([3.0, 4.0]))
    assert_same(got.detach(), np.diag([18.0, 48.0]))
    gg.sum(got).backward()
    assert_same(w.grad, np.array([18.0, 24.0]))


def test_complex_hvp_is_the_derivative_of_the_gradient(device):
    z, v = array([1 + 2j, 0.5 - 1j]), array([0.3j, 1.0])

    def f(z):
        return gg.sum(gg.abs(z) ** 4)

    (product,) = gg.hvp(f, (z,), (v,))
    step = 1e-6
    near = [host(gg.grad(f)(array(host(z) + s * host(v)))) for s in (step, -step)]
    np.testing.assert_allclose(host(product), (near[0] - near[1]) / (2 * step), rtol=1e-7)


def test_an_infinite_slope_stays_in_its_place(device):
    """Elementwise operations at the end are no reason for 0 * inf beside the diagonal."""
    with np.errstate(divide="ignore"):
        got = gg.jacobian(lambda x: gg.sqrt(x * 2))(array([0.0, 2.0]))
        assert_same(got, np.array([[np.inf, 0.0], [0.0, 0.5]]))
        got = gg.jacobian(lambda x: gg.sqrt(x)[:1] * 2)(array([0.0, 2.0]))
    assert host(got)[0, 1] == 0


def test_unit_vectors_are_not_multiplied_out(monkeypatch, device):
    """The product with a matrix is read off, in both directions, also in portions."""
    w = np.cos(np.arange(12.0)).reshape(4, 3)
    monkeypatch.setattr(jacobians, "_LARGEST", 8)
    for rows in (slice(None), slice(2)):
        a = gg.asarray(array(w[rows]))
        for f in (lambda x, a=a: gg.matmul(a, x), lambda x, a=a: gg.matmul(x, a.T)):
            assert_same(gg.jacobian(f)(array(X)), w[rows], 0)
            assert_same(
                gg.jacobian(lambda x, f=f: gg.exp(f(x)))(array(X)),
                np.exp(w[rows] @ X)[:, None] * w[rows],
            )


@pytest.mark.parametrize(
    "f",
    [
        lambda x: gg.where(np.True_, x * x, x),
        lambda x: gg.where(x > 2, np.float64(2.0), x * x),
        lambda x: gg.clip(x * x, np.float64(1.5), np.float64(2.5)),
        lambda x: gg.atan2(np.float64(2.0), x),
        lambda x: np.float64(2.0) ** x,
        lambda x: [y := x * 1, y.__setitem__(np.int64(1), y[0] * y[2]), y][-1],
    ],
)
def test_numpy_scalars_beside_a_batch(f, device):
    x = array([1.0, 1.5, 3.0])
    value, pullback = gg.vjp(f, x)
    rows = [host(pullback(array(row))[0]) for row in np.eye(3)]
    assert_same(gg.jacobian(f)(x), np.stack(rows))
    assert_same(gg.vmap(f)(x[None])[0], host(value))
