"""NumPy's own calls on Tensors: ufuncs and their methods, functions, methods of arrays."""

import importlib.util
import inspect
import math
import operator
import subprocess
import sys

import numpy as np
import pytest
from helpers import assert_same, flat, gradients, host, leaf

import gpugrad as gg
from gpugrad.protocols import functions, ufuncs
from gpugrad.testing import check_grads
from gpugrad.testing.rows import MASK


@pytest.fixture(autouse=True)
def _on_the_cpu():
    with gg.device("cpu"):
        yield


RNG = np.random.default_rng(3)
X = RNG.uniform(0.2, 0.9, (2, 3))
Y = RNG.uniform(0.2, 0.9, (2, 3))
V, W = X[0], Y[1]
S = X[:, :2] @ X[:, :2].T + np.eye(2)
Z = X + 1j * Y
N = np.array([[1.0, np.nan, 3.0], [0.5, 2.5, np.nan]])
CUBE = RNG.uniform(0.2, 0.9, (2, 3, 4))


def tensors(*args, **options):
    return [gg.asarray(x, **options) if isinstance(x, np.ndarray) else x for x in args]


def assert_as_numpy(f, *args, rtol=64, order=1):
    """`f` on Tensors gives what it gives on arrays, and with the right derivatives."""
    with np.errstate(all="ignore"):
        expected = f(*args)
        got = f(*tensors(*args))
    if isinstance(expected, (bool, str, int, np.dtype, type(None))):
        assert got == expected
        return
    pairs = list(zip(flat(got), flat(expected), strict=True))
    assert all(isinstance(x, gg.Tensor) for x, _ in pairs)
    assert_same([x for x, _ in pairs], [np.asarray(x) for _, x in pairs], rtol)

    given = [x for x in args if isinstance(x, np.ndarray) and x.dtype.kind in "fc"]
    if not order or not given or not any(x.dtype.kind in "fc" for x, _ in pairs):
        return

    def of_floats(*xs):
        rest = iter(xs)
        out = f(
            *(next(rest) if isinstance(x, np.ndarray) and x.dtype.kind in "fc" else x for x in args)
        )
        return [x for x in flat(out) if x.dtype.kind in "fc"]

    with np.errstate(all="ignore"):
        check_grads(of_floats, given, order=order)


# ---- ufuncs

UFUNCS = {
    name: getattr(np, name)
    for name in sorted(dir(np))
    if isinstance(getattr(np, name), np.ufunc) and getattr(np, name).__name__ == name
}
REFUSED = {"isnat", "spacing", "bitwise_count"}
INTEGERS = {"gcd", "lcm", "invert", "left_shift", "right_shift"}
PRODUCTS = {"matmul": (S, S), "vecdot": (X, Y), "matvec": (S, S[0]), "vecmat": (S[0], S)}


def arguments(name):
    """Arguments of NumPy's ufunc `name`, in its domain."""
    if name in PRODUCTS:
        return PRODUCTS[name]
    a, b = X, Y
    if name == "arccosh":
        a = X + 1
    if name in INTEGERS or name.startswith("bitwise"):
        a, b = (np.ceil(10 * x).astype(int) for x in (X, Y))
    if name == "ldexp":
        b = np.array([1, -2, 3])
    return (a, b)[: UFUNCS[name].nin]


@pytest.mark.parametrize("name", sorted(UFUNCS.keys() - REFUSED))
def test_ufuncs(name):
    assert_as_numpy(UFUNCS[name], *arguments(name))


@pytest.mark.parametrize("name", sorted(REFUSED & UFUNCS.keys()))
def test_ufuncs_without_a_counterpart(name):
    with pytest.raises(TypeError, match=rf"numpy\.{name} is not supported on Tensors"):
        UFUNCS[name](leaf(X))


@pytest.mark.parametrize("name", ["modf", "frexp", "divmod"])
def test_ufuncs_with_two_results_at_special_values(name):
    values = np.array([0.0, -0.0, 3.0, -3.5, np.inf, -np.inf, np.nan])
    args = (
        (values[:4], np.array(2.0)) if name == "divmod" else (values,)
    )  # the standard's infinities
    assert_as_numpy(UFUNCS[name], *args, order=0)
    with np.errstate(all="ignore"):
        pairs = zip(UFUNCS[name](*tensors(*args)), UFUNCS[name](*args), strict=True)
    for got, expected in pairs:
        np.testing.assert_array_equal(np.signbit(host(got)), np.signbit(expected))


def test_the_table_of_ufuncs_is_numpys():
    """A Tensor is asked for each of NumPy's ufuncs under its own name."""
    assert not {*ufuncs._HERE, *ufuncs._RENAMED} - {*dir(np)}


OPERANDS = [X, X.tolist(), 2.0, np.float32(2), np.float64(2), np.int64(2), True]


@pytest.mark.parametrize("other", OPERANDS, ids=lambda x: type(x).__name__)
def test_operands_beside_a_tensor(other):
    assert_as_numpy(lambda t: np.add(t, other), Y)
    assert_as_numpy(lambda t: np.multiply(other, t), Y)
    if not isinstance(other, list):
        for op in (operator.add, operator.truediv, operator.pow, operator.eq, operator.lt):
            assert_as_numpy(lambda t, op=op: op(other, t), Y)
            assert_as_numpy(lambda t, op=op: op(t, other), Y.astype("float32"), order=0)


def test_comparisons_give_booleans_off_the_tape():
    t = leaf(X)
    for out in (t == Y, t > Y, np.greater(t, Y), np.isfinite(t), np.float64(0.5) >= t):
        assert isinstance(out, gg.Tensor)
        assert out.dtype == bool
        assert not out.requires_grad


def test_in_place_on_an_array():
    a = Y.copy()
    with pytest.raises(RuntimeError, match="would lose the gradient"):
        a += leaf(X)
    np.testing.assert_array_equal(a, Y)
    a += gg.asarray(X)
    assert type(a) is np.ndarray
    np.testing.assert_array_equal(a, X + Y)
    with gg.no_grad():
        a -= leaf(X)
    np.testing.assert_allclose(a, Y)


def test_matmul_of_an_array_and_a_tensor():
    assert_as_numpy(lambda t: Y.T @ t, X)
    assert_as_numpy(lambda t: t @ Y.T, X)


# ---- options of ufuncs


def test_out_of_a_ufunc():
    buffer = np.zeros((2, 3))
    assert np.add(gg.asarray(X), 1, out=buffer) is buffer
    np.testing.assert_array_equal(buffer, X + 1)
    into = gg.zeros((2, 3))
    assert np.add(gg.asarray(X), Y, into) is into
    assert_same(into, X + Y)
    with pytest.raises(RuntimeError, match=r"add: .*would lose the gradient"):
        np.add(leaf(X), 1, out=buffer)
    np.testing.assert_array_equal(buffer, X + 1)
    flags = np.zeros((2, 3), bool)
    np.greater(leaf(X), 0.5, out=flags)  # a boolean has no gradient to lose
    np.testing.assert_array_equal(flags, X > 0.5)


def test_out_as_a_tensor_is_recorded():
    t = leaf(X)
    into = gg.zeros((2, 3))
    np.multiply(t, t, out=into)
    into.sum().backward()
    np.testing.assert_allclose(host(t.grad), 2 * X)
    with pytest.raises(RuntimeError, match="leaf"):
        np.add(X, 1, out=leaf(X))


def test_out_that_does_not_fit():
    with pytest.raises(TypeError, match="int64"):
        np.add(gg.asarray(X), 1, out=gg.zeros((2, 3), dtype="int64"))
    with pytest.raises(ValueError, match=r"\(2,\)"):
        np.add(gg.asarray(X), 1, out=np.zeros(2))


def test_two_outs():
    q, r = np.zeros((2, 3)), gg.zeros((2, 3))
    out = np.divmod(gg.asarray(X), 0.3, out=(q, r))
    assert out[0] is q
    assert out[1] is r
    np.testing.assert_array_equal(q, X // 0.3)
    assert_same(r, X % 0.3)


def test_where_of_a_ufunc():
    def f(t):
        out = gg.zeros((2, 3)) if isinstance(t, gg.Tensor) else np.zeros((2, 3))
        return np.divide(1.0, t, out=out, where=t > 0.5)

    assert_as_numpy(f, X)
    x = X.copy()
    x[0, 0] = 0.0
    expected = np.divide(1.0, x, out=np.ones((2, 3)), where=x != 0)
    assert_same(np.divide(1.0, gg.asarray(x), out=gg.ones((2, 3)), where=x != 0), expected)
    with pytest.raises(TypeError, match=r"gpugrad\.where"):
        np.divide(1.0, leaf(X), where=X > 0.5)


def test_dtype_of_a_ufunc():
    assert_as_numpy(lambda t: np.add(t, 1, dtype="float32"), X, order=0)
    assert np.exp(leaf(X), dtype="float32").requires_grad
    with pytest.raises(TypeError, match="within a kind"):
        np.add(leaf(X), 1, dtype="int64")


@pytest.mark.parametrize("options", [{"casting": "unsafe"}, {"signature": "dd->d"}, {"axes": []}])
def test_options_of_ufuncs_that_are_refused(options):
    call = np.matmul if "axes" in options else np.add
    with pytest.raises(TypeError, match=next(iter(options))):
        call(leaf(S), leaf(S), **options)


def test_axis_of_vecdot():
    assert_as_numpy(lambda a, b: np.vecdot(a, b, axis=0), X, Y)


# ---- methods of ufuncs

REDUCTIONS = ["add", "multiply", "maximum", "minimum", "logical_and", "logical_or"]
FOLDS = ["subtract", "divide", "power", "hypot", "fmax", "fmin", "logaddexp", "arctan2"]


@pytest.mark.parametrize("name", REDUCTIONS + FOLDS)
def test_reduce(name):
    reduce = UFUNCS[name].reduce
    assert_as_numpy(reduce, X)
    assert_as_numpy(lambda t: reduce(t, axis=1, keepdims=True), CUBE)
    if name in REDUCTIONS:
        assert_as_numpy(lambda t: reduce(t, axis=None), CUBE)
        assert_as_numpy(lambda t: reduce(t, axis=(0, 2)), CUBE)
    if name in REDUCTIONS[:4]:
        assert_as_numpy(lambda t: reduce(t, axis=1, initial=0.55), X)
        assert_as_numpy(lambda t: reduce(t, axis=1, initial=0.55, where=MASK), X)
        assert_as_numpy(lambda t: reduce(t, initial=2.0), np.zeros((0, 3)), order=0)


def test_reduce_of_integers_and_booleans():
    x = np.array([[5, 3], [6, 9]])
    for name in ("bitwise_or", "bitwise_xor", "gcd", "lcm", "add", "maximum"):
        assert_as_numpy(UFUNCS[name].reduce, x)
    assert_as_numpy(np.logical_xor.reduce, MASK)
    assert_as_numpy(lambda t: np.add.reduce(t, dtype=float), x)


def test_reduce_into_an_out():
    buffer = np.zeros(3)
    assert np.add.reduce(gg.asarray(X), out=buffer) is buffer
    np.testing.assert_allclose(buffer, X.sum(0))
    with pytest.raises(RuntimeError, match="would lose the gradient"):
        np.add.reduce(leaf(X), out=buffer)


def test_reduce_of_nothing():
    with pytest.raises(ValueError, match="of nothing"):
        np.hypot.reduce(leaf(np.zeros((0, 2))))


@pytest.mark.parametrize("name", ["add", "multiply", "maximum", "minimum", "subtract", "logaddexp"])
def test_accumulate(name):
    assert_as_numpy(UFUNCS[name].accumulate, X, order=2)
    assert_as_numpy(lambda t: UFUNCS[name].accumulate(t, axis=1), CUBE)


@pytest.mark.parametrize("name", ["add", "multiply", "power", "arctan2", "equal"])
def test_outer(name):
    assert_as_numpy(UFUNCS[name].outer, V, Y)


def test_at():
    for name, values in (("add", [1.0, 2.0, 3.0]), ("multiply", 2.0), ("negative", None)):
        expected, t = V.copy(), gg.asarray(V.copy())
        rest = () if values is None else (np.asarray(values),)
        UFUNCS[name].at(expected, [0, 0, 2], *rest)
        UFUNCS[name].at(t, [0, 0, 2], *rest)
        assert_same(t, expected)
    for a, value in ((leaf(V), 1.0), (gg.asarray(V), leaf(1.0)), (V.copy(), leaf(1.0))):
        with pytest.raises(RuntimeError, match=r"add\.at.*would lose the gradient"):
            np.add.at(a, [0], value)


def test_methods_of_ufuncs_that_are_refused():
    with pytest.raises(TypeError, match="reduceat"):
        np.add.reduceat(leaf(V), [0, 2])
    with pytest.raises(TypeError, match="where="):
        np.hypot.reduce(leaf(X), where=MASK)


def test_a_ufunc_of_the_users_own_is_refused():
    f = np.frompyfunc(lambda x: x, 1, 1)
    with pytest.raises(TypeError, match="no derivative"):
        f(leaf(X))


if importlib.util.find_spec("scipy"):

    def test_ufuncs_of_scipy():
        from scipy import special

        for name in gg.special.__all__:
            function = getattr(special, name, None)
            if isinstance(function, np.ufunc) and function.nin == 1:
                np.testing.assert_allclose(host(function(leaf(X))), function(X), rtol=1e-12)
        with pytest.raises(TypeError, match=r"no gpugrad\.special\.wofz"):
            special.wofz(leaf(X))


# ---- functions: each in the ways it is called

CALLS = {
    "all": [(lambda t: np.all(t > 0.5, axis=1), X), (np.all, X)],
    "allclose": [(np.allclose, X, X + 1e-9), (np.allclose, X, Y), (lambda t: np.allclose(t, N), N)],
    "amax": [(lambda t: np.amax(t, 1), X)],
    "amin": [(lambda t: np.amin(t, axis=0, keepdims=True), X)],
    "angle": [(np.angle, Z), (lambda t: np.angle(t, deg=True), Z), (np.angle, X)],
    "any": [(lambda t: np.any(t > 0.5, axis=1), X)],
    "append": [(np.append, X, Y), (lambda t: np.append(t, Y, axis=0), X), (np.append, V, 2.0)],
    "argmax": [(np.argmax, X), (lambda t: np.argmax(t, axis=1, keepdims=True), X)],
    "argmin": [(np.argmin, X), (lambda t: np.argmin(t, 0), X)],
    "argsort": [(np.argsort, X), (lambda t: np.argsort(t, axis=None), X)],
    "argwhere": [(lambda t: np.argwhere(t > 0.5), X)],
    "around": [(np.around, 10 * X)],
    "array2string": [(np.array2string, X)],
    "array_equal": [(np.array_equal, X, X), (np.array_equal, X, Y), (np.array_equal, X, V)],
    "array_equiv": [(np.array_equiv, X, X), (np.array_equiv, V, np.stack([V, V]))],
    "array_repr": [(lambda t: "0.5" in np.array_repr(t), np.array(0.5))],
    "array_split": [(lambda t: np.array_split(t, 3, axis=2), CUBE), (np.array_split, V, [1])],
    "array_str": [(np.array_str, X)],
    "astype": [(lambda t: np.astype(t, np.float32), X, 0)],
    "atleast_1d": [(np.atleast_1d, np.array(2.0)), (np.atleast_1d, V, X)],
    "atleast_2d": [(np.atleast_2d, np.array(2.0), V, CUBE)],
    "atleast_3d": [(np.atleast_3d, np.array(2.0), V, X, CUBE)],
    "average": [
        (np.average, X),
        (lambda t, w: np.average(t, axis=1, weights=w), X, W),
        (lambda t, w: np.average(t, 0, w, returned=True), X, Y),
    ],
    "bincount": [(np.bincount, np.array([0, 2, 2])), (np.bincount, np.array([0, 2, 2]), V)],
    "block": [(lambda a, b: np.block([[a, b], [b, a]]), X, Y), (lambda a: np.block([a, 1.0]), V)],
    "broadcast_arrays": [(np.broadcast_arrays, X, V)],
    "broadcast_to": [(lambda t: np.broadcast_to(t, (4, 3)), V)],
    "can_cast": [(lambda t: np.can_cast(t, "float64"), X)],
    "clip": [
        (lambda t: np.clip(t, 0.3, 0.6), X),
        (lambda t: np.clip(t, None, 0.6), X),
        (lambda t: np.clip(t, min=0.4), X),
    ],
    "column_stack": [(lambda a, b: np.column_stack([a, b]), V, X.T)],
    "compress": [(lambda t: np.compress([True, False], t, axis=0), X)],
    "concatenate": [
        (lambda a, b: np.concatenate([a, b]), X, Y),
        (lambda a, b: np.concatenate((a, b), axis=None), X, V),
        (lambda a: np.concatenate([a, [1.0, 2.0]]), V),
        (lambda a, b: np.concat([a, b], axis=-1), X, Y),
    ],
    "convolve": [(np.convolve, V, Y[0]), (lambda a, b: np.convolve(a, b, "same"), CUBE[0, 0], V)],
    "copy": [(np.copy, X)],
    "copyto": [(lambda t: np.copyto(np.zeros((2, 3)), t), X, 0)],
    "corrcoef": [(np.corrcoef, X), (np.corrcoef, V, W)],
    "correlate": [(np.correlate, CUBE[0, 0], V), (lambda a, b: np.correlate(a, b, "full"), V, W)],
    "count_nonzero": [(lambda t: np.count_nonzero(t > 0.5, axis=0), X)],
    "cov": [
        (np.cov, X),
        (lambda t: np.cov(t, rowvar=False, bias=True), X),
        (lambda t: np.cov(t, rowvar=False, bias=True), X[:1]),
        (np.cov, V, W),
    ],
    "cross": [(np.cross, X, Y), (lambda a, b: np.cross(a, b, axis=0), X.T, Y.T)],
    "cumprod": [(np.cumprod, X), (lambda t: np.cumprod(t, 1), X)],
    "cumsum": [(np.cumsum, X), (lambda t: np.cumsum(t, axis=0), X)],
    "cumulative_prod": [(lambda t: np.cumulative_prod(t, axis=1, include_initial=True), X)],
    "cumulative_sum": [(lambda t: np.cumulative_sum(t, axis=1, include_initial=True), X)],
    "diag": [(np.diag, V), (lambda t: np.diag(t, -2), V), (lambda t: np.diag(t, 1), S)],
    "diagflat": [(np.diagflat, X)],
    "diagonal": [(np.diagonal, X), (lambda t: np.diagonal(t, 1, 0, 2), CUBE)],
    "diff": [(np.diff, X), (lambda t: np.diff(t, 2, 0), CUBE.T),
             (lambda t: np.diff(t, append=1.0), V)],
    "digitize": [(np.digitize, X, np.array([0.3, 0.5]))],
    "dot": [(np.dot, V, W), (np.dot, X, V), (np.dot, X, CUBE.transpose(0, 1, 2)), (np.dot, X, 2.0)],
    "dsplit": [(lambda t: np.dsplit(t, 2), CUBE)],
    "dstack": [(lambda a, b: np.dstack([a, b]), V, W)],
    "ediff1d": [(np.ediff1d, X), (lambda t: np.ediff1d(t, to_end=[1.0, 2.0]), V)],
    "einsum": [
        (lambda a, b: np.einsum("ij,kj->ik", a, b), X, Y),
        (lambda a: np.einsum("ij,j", a, V, optimize=True), X),
    ],
    "empty_like": [(lambda t: np.empty_like(t).shape == (2, 3), X)],
    "expand_dims": [(lambda t: np.expand_dims(t, (0, 2)), X)],
    "extract": [(lambda t: np.extract(X > 0.5, t), X)],
    "fix": [(np.fix, 10 * X)],
    "flatnonzero": [(lambda t: np.flatnonzero(t > 0.5), X)],
    "flip": [(np.flip, X), (lambda t: np.flip(t, 1), X)],
    "fliplr": [(np.fliplr, X)],
    "flipud": [(np.flipud, X)],
    "full_like": [
        (lambda t: np.full_like(t, 2.5), X, 0),
        (lambda t, v: np.full_like(t, v), X, V),
        (lambda t: np.full_like(t, [1.0, 2.0, 3.0], dtype="float32"), X, 0),
    ],
    "gradient": [
        (np.gradient, CUBE),
        (lambda t: np.gradient(t, 0.5, axis=1), X),
        (lambda t: np.gradient(t, 0.5, 2.0, axis=(2, 1), edge_order=2), CUBE),
    ],
    "hsplit": [(lambda t: np.hsplit(t, 3), X), (lambda t: np.hsplit(t, [1]), V)],
    "hstack": [(lambda a, b: np.hstack([a, b]), X, Y), (lambda a: np.hstack([0.0, a]), V)],
    "i0": [(np.i0, X)],
    "imag": [(np.imag, Z), (np.imag, X, 0)],
    "inner": [(np.inner, X, Y), (np.inner, V, W), (np.inner, X, 2.0)],
    "interp": [(lambda y: np.interp([0.5, 1.5], [0.0, 1.0, 2.0], y), V)],
    "isclose": [(np.isclose, X, Y), (lambda t: np.isclose(t, N, equal_nan=True), N)],
    "iscomplex": [(np.iscomplex, Z), (np.iscomplex, X)],
    "iscomplexobj": [(np.iscomplexobj, Z), (np.iscomplexobj, X)],
    "isin": [(np.isin, np.array([1, 2, 3]), np.array([2, 5]))],
    "isneginf": [(np.isneginf, np.array([1.0, -np.inf, np.inf]))],
    "isposinf": [(np.isposinf, np.array([1.0, -np.inf, np.inf]))],
    "isreal": [(np.isreal, Z), (np.isreal, X)],
    "isrealobj": [(np.isrealobj, Z), (np.isrealobj, X)],
    "kron": [(np.kron, V, X), (np.kron, X, Y)],
    "linspace": [(lambda t: np.linspace(t, 2.0, 5), np.array(0.5))],
    "matrix_transpose": [(np.matrix_transpose, CUBE)],
    "max": [(np.max, X), (lambda t: np.max(t, axis=1, initial=0.5, where=MASK), X)],
    "may_share_memory": [(lambda t: np.may_share_memory(t, t), X)],
    "mean": [
        (np.mean, X),
        (lambda t: np.mean(a=t, axis=-1, keepdims=True), X),
        (lambda t: np.mean(t, axis=0, where=X > 0), X),
        (lambda t: np.mean(t, dtype="float32"), X, 0),
    ],
    "median": [(np.median, X), (lambda t: np.median(t, axis=1, keepdims=True), X)],
    "meshgrid": [(np.meshgrid, V, W), (lambda a, b: np.meshgrid(a, b, indexing="ij"), V, W)],
    "min": [(np.min, X)],
    "moveaxis": [(lambda t: np.moveaxis(t, [0, 1], [-1, 0]), CUBE)],
    "nan_to_num": [
        (np.nan_to_num, np.array([1.0, np.nan, np.inf, -np.inf]), 0),
        (lambda t: np.nan_to_num(t, nan=2.0), np.where(np.isnan(N), 1.0, N)),
    ],
    "nanargmax": [(lambda t: np.nanargmax(t, axis=1), N)],
    "nanargmin": [(np.nanargmin, N)],
    "ndim": [(np.ndim, X)],
    "nonzero": [(lambda t: np.nonzero(t > 0.5), X)],
    "ones_like": [(np.ones_like, X, 0), (lambda t: np.ones_like(t, shape=(2,)), X, 0)],
    "outer": [(np.outer, X, V), (np.outer, V, [1.0, 2.0])],
    "pad": [(lambda t: np.pad(t, 1), X), (lambda t: np.pad(t, ((1, 0), (0, 2)), mode="edge"), X)],
    "percentile": [(lambda t: np.percentile(t, 30), X)],
    "polyval": [(np.polyval, V, X)],
    "prod": [(np.prod, X), (lambda t: np.prod(t, 1, where=MASK), X)],
    "ptp": [(np.ptp, X), (lambda t: np.ptp(t, axis=1, keepdims=True), X)],
    "quantile": [(lambda t: np.quantile(t, 0.3), X), (lambda t: np.quantile(t, [0.2, 0.7], 1), X)],
    "ravel": [(np.ravel, X), (lambda t: np.ravel(t, order="F"), X)],
    "real": [(np.real, Z), (np.real, X)],
    "repeat": [(lambda t: np.repeat(t, 2), X), (lambda t: np.repeat(t, [1, 2], axis=0), X)],
    "reshape": [
        (lambda t: np.reshape(t, (3, -1)), X),
        (lambda t: np.reshape(t, 6), X),
        (lambda t: np.reshape(t, (3, 2), order="F"), X),
    ],
    "result_type": [(np.result_type, X), (lambda t: np.result_type(t, np.complex64), X)],
    "roll": [(lambda t: np.roll(t, 2), X), (lambda t: np.roll(t, (1, 1), (0, 1)), X)],
    "rollaxis": [(lambda t: np.rollaxis(t, 2), CUBE), (lambda t: np.rollaxis(t, 0, 3), CUBE)],
    "rot90": [(lambda t, k=k: np.rot90(t, k), X) for k in range(-1, 4)],
    "round": [
        (np.round, 10 * X),
        (lambda t: np.round(t, 2), X),
        (lambda t: np.round(t, -1), np.array([14, 15, 25, 99])),
    ],
    "searchsorted": [(lambda t: np.searchsorted(t, [0.3, 0.5]), np.sort(V))],
    "select": [(lambda a, b: np.select([X > 0.6, X > 0.4], [a, b], 7.0), X, Y)],
    "shape": [(lambda t: np.shape(t) == (2, 3), X)],
    "shares_memory": [(lambda t: np.shares_memory(t, t), X)],
    "sinc": [(np.sinc, X)],
    "size": [(np.size, X), (lambda t: np.size(t, 1), X)],
    "sort": [(np.sort, X), (lambda t: np.sort(t, axis=None), X), (lambda t: np.sort(t, 0), X)],
    "split": [(lambda t: np.split(t, 3, axis=1), X), (lambda t: np.split(t, [1, 2], 1), X)],
    "squeeze": [(np.squeeze, X[None, :, :, None]), (lambda t: np.squeeze(t, 0), X[None])],
    "stack": [(lambda a, b: np.stack([a, b]), X, Y), (lambda a, b: np.stack((a, b), -1), V, W)],
    "std": [(np.std, X), (lambda t: np.std(t, axis=1, ddof=1), X)],
    "sum": [
        (np.sum, X),
        (lambda t: np.sum(t, axis=(0, 2), keepdims=True), CUBE),
        (lambda t: np.sum(t, 1, initial=2.0, where=MASK), X),
        (lambda t: np.sum(t, dtype="float32"), X, 0),
        (np.sum, MASK),
    ],
    "swapaxes": [(lambda t: np.swapaxes(t, 0, -1), CUBE)],
    "take": [
        (lambda t: np.take(t, [0, 2, 2], axis=1), X),
        (lambda t: np.take(t, np.array([7, -1]), mode="wrap"), X),
        (lambda t: np.take(t, 9, mode="clip"), X),
    ],
    "take_along_axis": [(lambda t: np.take_along_axis(t, np.argsort(X, 1), 1), X)],
    "tensordot": [(lambda a, b: np.tensordot(a, b, 1), X, Y.T),
                  (lambda a, b: np.tensordot(a, b, ([0, 1], [0, 1])), X, Y)],
    "tile": [(lambda t: np.tile(t, 2), X), (lambda t: np.tile(t, (2, 1, 2)), X)],
    "trace": [(np.trace, X), (lambda t: np.trace(t, 1, 1, 2), CUBE)],
    "transpose": [(np.transpose, CUBE), (lambda t: np.transpose(t, (1, -1, 0)), CUBE)],
    "trapezoid": [(np.trapezoid, X), (lambda y: np.trapezoid(y, dx=0.5, axis=0), X)],
    "tril": [(np.tril, X)],
    "triu": [(lambda t: np.triu(t, 1), X)],
    "unique": [
        (np.unique, np.array([3, 1, 1])),
        (np.unique, X),
        (lambda t: np.unique(t, return_inverse=True, return_counts=True), np.array([3, 1, 1])),
    ],
    "unique_all": [(lambda t: tuple(np.unique_all(t)), np.array([3, 1, 1]))],
    "unique_counts": [(lambda t: tuple(np.unique_counts(t)), np.array([3, 1, 1]))],
    "unique_inverse": [(lambda t: tuple(np.unique_inverse(t)), np.array([3, 1, 1]))],
    "unique_values": [(np.unique_values, np.array([3, 1]))],
    "unstack": [(lambda t: np.unstack(t, axis=1), X)],
    "var": [(np.var, X),
            (lambda t: np.var(t, axis=1, correction=1, keepdims=True), X), (np.var, Z)],
    "vdot": [(np.vdot, X, Y), (np.vdot, Z, Z[::-1])],
    "vsplit": [(lambda t: np.vsplit(t, 2), X)],
    "vstack": [(lambda a, b: np.vstack([a, b]), V, X)],
    "where": [
        (lambda a, b: np.where(X > 0.5, a, b), X, Y),
        (lambda a: np.where(a > 0.5, a, 0.0), X),
        (lambda a: np.where([1, 0, 1], a, [7.0, 8.0, 9.0]), X),
        (lambda t: np.where(t > 0.5), X),
    ],
    "zeros_like": [(np.zeros_like, X, 0), (lambda t: np.zeros_like(t, "int32"), X)],
    # nan-functions: at a NaN the derivative is zero, which no difference shows
    **{f"nan{name}": [(getattr(np, f"nan{name}"), X),
                      (lambda t, f=f"nan{name}": getattr(np, f)(t, axis=1), N, 0)]
       for name in "cumprod cumsum max mean min prod std sum var".split()},
    # numpy.linalg
    "linalg.cholesky": [(np.linalg.cholesky, S, 0)],
    "linalg.cross": [(np.linalg.cross, X, Y)],
    "linalg.det": [(np.linalg.det, S)],
    "linalg.diagonal": [(np.linalg.diagonal, CUBE)],
    "linalg.eig": [(lambda t: np.real(np.linalg.eig(t)[0]), np.array([[1.0, 2.0], [0.0, 3.0]]))],
    "linalg.eigh": [(lambda t: np.linalg.eigh(t)[0], S, 0),
                    (lambda t: np.linalg.eigh(t, "U")[0], S, 0)],
    "linalg.eigvals": [(lambda t: np.real(np.linalg.eigvals(t)),
                        np.array([[1.0, 2.0], [0.0, 3.0]]))],
    "linalg.eigvalsh": [(lambda t: np.linalg.eigvalsh(t, UPLO="U"), S, 0)],
    "linalg.inv": [(np.linalg.inv, S)],
    "linalg.matmul": [(np.linalg.matmul, X, Y.T)],
    "linalg.matrix_norm": [(np.linalg.matrix_norm, X)],
    "linalg.matrix_power": [(lambda t: np.linalg.matrix_power(t, 3), S)],
    "linalg.matrix_rank": [(np.linalg.matrix_rank, S)],
    "linalg.matrix_transpose": [(np.linalg.matrix_transpose, X)],
    "linalg.multi_dot": [(lambda a, b: np.linalg.multi_dot([a, b, V]), X, Y.T @ Y)],
    "linalg.lstsq": [(lambda a, b: np.linalg.lstsq(a, b)[0], X.T, W)],
    "linalg.norm": [
        (np.linalg.norm, X),
        (np.linalg.norm, CUBE),
        (lambda t: np.linalg.norm(t, axis=1, keepdims=True), X),
        (lambda t: np.linalg.norm(t, 1), V),
        (lambda t: np.linalg.norm(t, "fro", axis=(0, 2), keepdims=True), CUBE),
        (lambda t: np.linalg.norm(t, np.inf), X),
    ],
    "linalg.outer": [(np.linalg.outer, V, W)],
    "linalg.pinv": [(np.linalg.pinv, X)],
    "linalg.qr": [(lambda t: tuple(np.linalg.qr(t)), S), (lambda t: np.linalg.qr(t.T)[1], X)],
    "linalg.slogdet": [(lambda t: tuple(np.linalg.slogdet(t)), S)],
    "linalg.solve": [(np.linalg.solve, S, X), (np.linalg.solve, S, [1.0, 2.0])],
    "linalg.svd": [
        (lambda t: np.linalg.svd(t, full_matrices=False)[1], X),
        (lambda t: np.linalg.svd(t, compute_uv=False), X),
    ],
    "linalg.svdvals": [(np.linalg.svdvals, X)],
    "linalg.tensordot": [(lambda a, b: np.linalg.tensordot(a, b, axes=1), X, Y.T)],
    "linalg.trace": [(np.linalg.trace, S)],
    "linalg.vecdot": [(np.linalg.vecdot, X, Y)],
    "linalg.vector_norm": [(lambda t: np.linalg.vector_norm(t, axis=1), X)],
    # numpy.fft
    **{f"fft.{name}": [(getattr(np.fft, name), Z),
                       (lambda t, name=name: getattr(np.fft, name)(t, 4, 0, "ortho"), Z)]
       for name in "fft ifft hfft irfft".split()},
    **{f"fft.{name}": [(getattr(np.fft, name), X)] for name in "rfft ihfft rfftn rfft2".split()},
    **{f"fft.{name}": [(getattr(np.fft, name), Z),
                       (lambda t, name=name: getattr(np.fft, name)(t, axes=(1, 0)), Z)]
       for name in "fftn ifftn irfftn fft2 ifft2 irfft2".split()},
    "fft.fftshift": [(np.fft.fftshift, X)],
    "fft.ifftshift": [(lambda t: np.fft.ifftshift(t, axes=1), X)],
}  # fmt: skip


def test_every_function_of_the_table_is_called():
    assert functions._FUNCTIONS.keys() == CALLS.keys()


@pytest.mark.parametrize("name", CALLS)
def test_functions(name):
    for f, *args in CALLS[name]:
        order = args.pop() if isinstance(args[-1], int) else 1
        assert_as_numpy(f, *args, order=order, rtol=4096)


@pytest.mark.parametrize("name", CALLS)
def test_signatures_are_numpys(name):
    module, _, last = name.rpartition(".")
    try:
        theirs = inspect.signature(getattr(getattr(np, module) if module else np, last))
    except ValueError:
        pytest.fail("NumPy tells no signature")
    ours = inspect.signature(functions._FUNCTIONS[name])
    named = [n for n, p in theirs.parameters.items() if p.kind is not p.VAR_KEYWORD]
    missing = [n for n in named if n not in ours.parameters]
    assert not missing, (str(ours), str(theirs))
    positional = [n for n, p in theirs.parameters.items() if p.kind is p.POSITIONAL_OR_KEYWORD]
    assert [n for n in ours.parameters if n in positional] == positional


def test_out_of_a_function():
    buffer = np.zeros(3)
    for f in (np.sum, np.mean, np.max, np.std, np.nanmean, np.ptp):
        assert f(gg.asarray(X), axis=0, out=buffer) is buffer
        np.testing.assert_allclose(buffer, f(X, axis=0))
        with pytest.raises(RuntimeError, match="would lose the gradient"):
            f(leaf(X), axis=0, out=buffer)
    t, into = leaf(X), gg.zeros(3)
    assert np.sum(t, 0, None, into) is into  # recorded, as into[...] = ...
    into.sum().backward()
    np.testing.assert_array_equal(host(t.grad), np.ones((2, 3)))
    assert np.concatenate([gg.asarray(V), W], out=gg.zeros(6)).shape == (6,)
    with pytest.raises(RuntimeError, match="would lose the gradient"):
        np.einsum("ij->j", leaf(X), out=buffer)


def test_nan_functions_of_integers():
    x = np.array([[3, 1], [2, 5]])
    for f in (np.nanmax, np.nanmin, np.nansum, np.nanprod, np.nancumsum, np.nanargmax):
        assert_as_numpy(lambda t, f=f: f(t, axis=1), x)


def test_copyto_and_nan_to_num_write():
    a = np.zeros(3)
    with pytest.raises(RuntimeError, match="would lose the gradient"):
        np.copyto(a, leaf(V))
    np.testing.assert_array_equal(a, 0)
    t, into = leaf(V), gg.zeros(3)
    np.copyto(into, t, where=[True, False, True])
    into.sum().backward()
    np.testing.assert_array_equal(host(t.grad), [1, 0, 1])
    x = gg.asarray([1.0, np.nan])
    assert np.nan_to_num(x, copy=False) is x
    assert_same(x, np.array([1.0, 0.0]))


UNSUPPORTED = {
    "gpugrad.sort": lambda t: np.partition(t, 1),
    "gpugrad.where": lambda t: np.putmask(t, MASK, 1.0),
    "gpugrad.concat": lambda t: np.insert(t, 0, 1.0),
    "gpugrad.linalg.svdvals": lambda t: np.linalg.cond(t),
    "gpugrad.expand_dims": lambda t: np.meshgrid(t, t, sparse=True),
    "t.detach().numpy()": lambda t: np.histogram(t),
}


@pytest.mark.parametrize("instead", UNSUPPORTED)
def test_functions_without_a_counterpart(instead):
    for t in (leaf(X), gg.asarray(X)):
        with pytest.raises(TypeError, match=r"not supported on Tensors") as caught:
            UNSUPPORTED[instead](t)
        assert instead in str(caught.value)


def test_no_function_of_numpys_converts_in_silence():
    """Each one that is not in the table raises for a Tensor, also for one off the tape."""
    for name in dir(np):
        f = getattr(np, name)
        if type(f) is type(np.sum) and f not in functions._names():
            with pytest.raises(TypeError, match="not supported on Tensors"):
                gg.Tensor.__array_function__(gg.asarray(X), f, (gg.Tensor,), (), {})


def test_arrays_of_another_library_are_asked_too():
    class Other:
        def __array_function__(self, func, types, args, kwargs):
            return "other"

    assert np.concatenate([leaf(V), Other()]) == "other"


@pytest.mark.parametrize("value", [leaf(0.5), leaf([0.5])], ids=["0-d", "1-d"])
def test_arrays_are_not_made_of_tensors_on_the_tape(value):
    a = np.zeros((2, 1))
    for call in (
        lambda: np.array([value, value]),
        lambda: np.array([[value], [value]]),
        lambda: np.array([value], dtype=object),
        lambda: np.asarray((value, 1.0)),
        lambda: np.full((2,), value),
        lambda: np.float32(value),
        lambda: np.ma.array(value),
        lambda: operator.setitem(a, 0, value),
        lambda: operator.setitem(a, slice(None), value),
        lambda: np.sum([value, value]),
    ):
        with pytest.raises(RuntimeError, match=r"would lose it: use \.detach\(\)"):
            call()
    np.testing.assert_array_equal(a, 0)
    with pytest.raises(TypeError):
        memoryview(value)


def test_what_asks_for_a_number_takes_it_off_the_tape():
    """NumPy and Python call float(t) here, which is documented to lead off the tape."""
    history = np.zeros(2)
    history[1] = leaf(0.5)
    np.testing.assert_array_equal(history, [0, 0.5])
    assert np.float64(leaf(0.5)) == 0.5
    assert math.sin(leaf(0.5)) == math.sin(0.5)
    assert math.floor(leaf(1.5)) == 1


def test_masked_arrays_are_refused():
    masked = np.ma.array(V, mask=[True, False, False])
    t = leaf(V)
    for call in (
        lambda: t + masked,
        lambda: np.add(t, masked),
        lambda: gg.where(MASK[0], t, masked),
        lambda: np.concatenate([t, masked]),
        lambda: gg.asarray(masked),
    ):
        with pytest.raises((TypeError, RuntimeError), match=r"asarray|Tensor"):
            call()
    with pytest.raises(RuntimeError, match="would lose it"):
        masked + t


def test_arrays_with_units_are_refused():
    class Quantity(np.ndarray):
        def __array_ufunc__(self, ufunc, method, *inputs, **kwargs):
            return NotImplemented

    with pytest.raises(TypeError, match="Quantity"):
        leaf(V) * V.view(Quantity)
    with pytest.raises(TypeError, match="more than its data"):
        gg.asarray(V.view(Quantity))

    class Plain(np.ndarray):
        pass

    assert_same(leaf(V) * W.view(Plain), V * W)


# ---- methods of arrays

METHODS = [
    (lambda x: x.sum(0, np.float32, None, True), X, 0),
    (lambda x: x.sum(axis=1, initial=1.0, where=MASK), X),
    (lambda x: x.prod(axis=1), X),
    (lambda x: x.mean(1, None, None, True), X),
    (lambda x: x.max(1, None, True), X),
    (lambda x: x.min(axis=0, initial=0.4), X),
    (lambda x: x.std(ddof=1), X),
    (lambda x: x.var(0, None, None, 1, True), X),
    (lambda x: x.all(1), X),
    (lambda x: (x > 0.5).any(axis=0, where=MASK), X),
    (lambda x: x.argmax(1), X),
    (lambda x: x.argmin(), X),
    (lambda x: x.cumsum(), X),
    (lambda x: x.cumprod(1), X),
    (lambda x: x.reshape(3, 2), X),
    (lambda x: x.reshape((3, 2), order="F"), X),
    (lambda x: x.reshape(3, -1, order="A"), X),
    (lambda x: x.ravel(), X),
    (lambda x: x.ravel("F"), CUBE),
    (lambda x: x.flatten(order="F"), X),
    (lambda x: x.transpose(), CUBE),
    (lambda x: x.transpose(1, 0, 2), CUBE),
    (lambda x: x.transpose((2, 0, -2)), CUBE),
    (lambda x: x.transpose(None), X),
    (lambda x: x.swapaxes(0, -1), CUBE),
    (lambda x: x.squeeze(), X[:, None]),
    (lambda x: x.squeeze(1), X[:, None]),
    (lambda x: x.repeat(2, axis=1), X),
    (lambda x: x.copy(), X),
    (lambda x: x.astype(np.float32, copy=False), X, 0),
    (lambda x: x.astype(dtype="complex128"), X),
    (lambda x: x.clip(0.3, 0.5), X),
    (lambda x: x.clip(max=0.5), X),
    (lambda x: x.clip(None, W), X),
    (lambda x: x.round(1), X),
    (lambda x: x.dot(x.T), X),
    (lambda x: x.take([0, 1], axis=1), X),
    (lambda x: x.conj(), Z),
    (lambda x: x.conjugate(), X),
    (lambda x: divmod(x, 0.3), X),
    (lambda x: divmod(2.0, x), X),
    (lambda x: divmod(Y, x), X),
]


@pytest.mark.parametrize("index", range(len(METHODS)))
def test_methods(index):
    f, *args = METHODS[index]
    order = args.pop() if isinstance(args[-1], int) else 1
    assert_as_numpy(f, *args, order=order)


def test_attributes_and_ways_out():
    t = leaf(X)
    assert (t.itemsize, t.nbytes) == (8, 48)
    assert t.item(1, 2) == t.item((1, 2)) == t.item(5) == t.item(-1) == X[1, 2]
    assert t.detach().tolist() == X.tolist()
    with pytest.raises(RuntimeError, match=r"tolist\(\) .*would lose it"):
        t.tolist()
    assert X[1, 1] in t
    assert 7.0 not in t
    assert round(leaf(2.567), 1).item() == 2.6
    assert round(leaf(2.567)).item() == 3.0


def test_format():
    assert f"{leaf(2.0):.3f} {leaf(2.0)} {gg.asarray(3):03d}" == "2.000 2.0 003"
    assert f"{leaf(V)}" == str(leaf(V))
    with pytest.raises(TypeError, match="0-d"):
        f"{leaf(V):.3f}"


def test_fill():
    x = gg.zeros(3)
    x.fill(2.5)
    assert_same(x, np.full(3, 2.5))
    t = leaf(V)
    y = t * 1
    y.fill(1.0)
    assert_same(y, np.ones(3))
    with pytest.raises(RuntimeError, match="leaf"):
        t.fill(0.0)


def test_errors_of_methods():
    t = leaf(X)
    for call in (lambda: t.transpose(0), lambda: t.transpose(0, 5), lambda: t.swapaxes(0, 2)):
        with pytest.raises(ValueError, match=r"\(2, 3\)"):
            call()
    with pytest.raises(TypeError, match="order"):
        gg.asarray(CUBE[:, :2]).ravel("K")
    with pytest.raises(TypeError, match="cast"):
        t.astype("int64", casting="safe")
    with pytest.raises(TypeError, match=r"gpugrad\.std"):
        t.std(where=MASK)
    with pytest.raises(ValueError, match="two names"):
        t.std(ddof=1, correction=1)
    with pytest.raises(ValueError, match="initial"):
        t.max(where=MASK)


# ---- at no cost when not used


def test_the_tables_are_read_when_first_needed():
    code = (
        "import sys, gpugrad as gg; t = gg.ones(3, device='cpu'); (t * 2).sum().reshape(1);"
        "print(*(m for m in sys.modules if m.startswith('gpugrad.protocols.')))"
    )
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout
    assert out.split() == ["gpugrad.protocols.methods"]


def test_gradients_through_code_written_for_numpy():
    """A function of NumPy's own calls, differentiated as it is."""

    def f(x):
        y = np.tanh(x @ Y.T) * np.float32(0.5)
        y = np.concatenate([y, np.sqrt(np.abs(x[:, :2]))], axis=1)
        return np.sum(np.where(y > 0.2, y**2, -y)) / y.size

    (got,) = gradients(f, X)
    step = 1e-6
    expected = np.zeros_like(X)
    for i in np.ndindex(X.shape):
        moved = [X.copy(), X.copy()]
        moved[0][i] -= step
        moved[1][i] += step
        expected[i] = (f(moved[1]) - f(moved[0])) / (2 * step)
    np.testing.assert_allclose(got, expected, atol=1e-8)
