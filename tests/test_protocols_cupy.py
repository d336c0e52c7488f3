"""CuPy's own calls on Tensors, and NumPy's on tensors of a CUDA device."""

import operator
import warnings
from importlib import import_module

import numpy as np
import pytest
from helpers import assert_same, flat, host, leaf
from test_protocols import CALLS

import gpugrad as gg

X = np.array([[0.3, 0.8, 0.5], [0.6, 0.2, 0.9]])
Y = np.array([[0.4, 0.1, 0.7], [0.6, 0.8, 0.3]])
LOSS = r"would lose"


@pytest.fixture
def cp(cuda):
    import cupy

    with cuda:
        yield cupy


def gradient(f, x):
    t = leaf(x)
    out = f(t)
    assert isinstance(out, gg.Tensor)
    gg.sum(out).backward()
    return host(out), host(t.grad)


UNARY = """
    abs arccos arcsin arctan cbrt ceil cos cosh deg2rad exp exp2 expm1 fabs fix floor log log10
    log1p log2 negative rad2deg reciprocal rint sign sin sinh sqrt square tan tanh trunc
""".split()
BINARY = """
    add arctan2 copysign divide float_power floor_divide fmax fmin fmod heaviside hypot logaddexp
    logaddexp2 maximum minimum multiply power remainder subtract
""".split()


@pytest.mark.parametrize("name", UNARY)
def test_unary_ufuncs(name, cp):
    theirs, ours = getattr(cp, name), getattr(np, name)
    with gg.device("cpu"):
        expected = gradient(ours, X)
    assert_same(gradient(theirs, X), expected)
    assert_same(gradient(ours, X), expected)  # NumPy's call on a tensor of the device


@pytest.mark.parametrize("name", BINARY)
def test_binary_ufuncs(name, cp):
    theirs, ours = getattr(cp, name), getattr(np, name)
    with gg.device("cpu"):
        expected = gradient(lambda t: ours(Y, t), X)
    array = cp.asarray(Y)
    assert_same(gradient(lambda t: theirs(array, t), X), expected)
    assert_same(gradient(lambda t: ours(array, t), X), expected)


def test_operators_with_arrays_of_the_device(cp):
    array = cp.asarray(Y)
    for op in (operator.add, operator.mul, operator.truediv, operator.pow, operator.sub):
        with gg.device("cpu"):
            expected = gradient(lambda t, op=op: op(Y, t), X)
        assert_same(gradient(lambda t, op=op: op(array, t), X), expected)
    assert_same(gradient(lambda t: array.T @ t, X)[0], Y.T @ X)
    for op in (operator.eq, operator.ne, operator.lt, operator.ge):
        out = op(array, leaf(X))
        assert isinstance(out, gg.Tensor)
        assert_same(out, op(Y, X))
    assert_same(divmod(array, gg.asarray(cp.asarray(X))), divmod(Y, X))


def test_in_place_on_an_array_of_the_device(cp):
    array = cp.asarray(Y)
    for call in (
        lambda: operator.iadd(array, leaf(X)),
        lambda: cp.add(array, leaf(X), out=array),
        lambda: cp.add(array, leaf(X), array),
        lambda: np.add(array, leaf(X), out=array),
    ):
        with pytest.raises(RuntimeError, match=LOSS):
            call()
    np.testing.assert_array_equal(array.get(), Y)
    array += gg.asarray(cp.asarray(X))
    np.testing.assert_array_equal(array.get(), X + Y)


DUCKS = {
    "sum": lambda lib, t: lib.sum(t, axis=1, keepdims=True),
    "prod": lambda lib, t: lib.prod(t, 0),
    "mean": lambda lib, t: lib.mean(t, axis=0),
    "max": lambda lib, t: lib.max(t, axis=1),
    "min": lambda lib, t: lib.min(t),
    "std": lambda lib, t: lib.std(t, axis=1, ddof=1),
    "var": lambda lib, t: lib.var(t),
    "add.accumulate": lambda lib, t: lib.add.accumulate(t, 1),
    "transpose": lambda lib, t: lib.transpose(t),
    "swapaxes": lambda lib, t: lib.swapaxes(t, 0, 1),
    "reshape": lambda lib, t: lib.reshape(t, (3, 2)),
    "reshape, order": lambda lib, t: lib.reshape(t, (3, 2), order="F"),
    "ravel": lambda lib, t: lib.ravel(t),
    "squeeze": lambda lib, t: lib.squeeze(t[:, None]),
    "repeat": lambda lib, t: lib.repeat(t, 2, axis=0),
    "take": lambda lib, t: lib.take(t, 1, axis=1),
    "clip": lambda lib, t: lib.clip(t, 0.3, 0.6),
    "copy": lambda lib, t: lib.copy(t),
    "where": lambda lib, t: lib.where(t > 0.5, t, 0.0),
    "dot": lambda lib, t: lib.dot(t, t.T),
    "flip": lambda lib, t: lib.flip(t, 1),
    "add.reduce": lambda lib, t: lib.add.reduce(t, 0),
    "conj": lambda lib, t: lib.conj(t),
}


@pytest.mark.parametrize("name", DUCKS)
def test_functions_that_call_a_method(name, cp):
    with gg.device("cpu"):
        expected = gradient(lambda t: DUCKS[name](np, t), X)
    assert_same(gradient(lambda t: DUCKS[name](cp, t), X), expected)
    assert_same(gradient(lambda t: DUCKS[name](np, t), X), expected)


WITH_ARRAYS_ALONE = [
    (name, f, args)
    for name in CALLS
    if not name.startswith(("linalg.", "fft."))
    for f, *args in CALLS[name]
    if getattr(f, "__name__", "") == name and all(isinstance(x, np.ndarray) for x in args)
    if "share_memory" not in name and "shares_memory" not in name
]


@pytest.mark.parametrize(
    ("name", "f", "args"), WITH_ARRAYS_ALONE, ids=[name for name, _, _ in WITH_ARRAYS_ALONE]
)
def test_numpys_functions_on_the_device(name, f, args, cp):
    with np.errstate(all="ignore"):
        expected = f(*args)
        got = f(*(gg.asarray(cp.asarray(x)) for x in args))
    if isinstance(expected, (bool, str, int, np.dtype)):
        assert got == expected
    else:
        assert all(isinstance(x.data, cp.ndarray) for x in flat(got))
        assert_same(flat(got), [np.asarray(x) for x in flat(expected)], rtol=4096)


def test_functions_that_search(cp):
    for name in ("argmax", "argmin"):
        assert_same(getattr(cp, name)(leaf(X), axis=1), getattr(np, name)(X, axis=1))


def test_special_functions(cp):
    from cupyx.scipy import special

    for name in ("erf", "gammaln", "expit"):
        function = getattr(special, name)
        if hasattr(gg.special, name):
            assert gradient(function, X)[0].shape == (2, 3)
        else:
            with pytest.raises(TypeError, match=f"_{name}: gpugrad knows no derivative"):
                function(leaf(X))


def test_kernels_without_a_derivative(cp):
    kernel = cp.ElementwiseKernel("T x", "T y", "y = x * x", "squared")
    vectorized = cp.vectorize(squared)
    for t in (leaf(X), gg.asarray(cp.asarray(X))):
        message = (
            "(squared|vectorize|zetac): gpugrad knows no derivative.*gpugrad.elementwise_kernel"
        )
        zetac = import_module("cupyx.scipy.special").zetac
        for call in (kernel, vectorized, zetac, lambda t: kernel(cp.asarray(X), t)):
            with pytest.raises(TypeError, match=message):
                call(t)


RAW = """
extern "C" __global__ void squares(const double* x, double* y, int n) {
    int k = threadIdx.x;
    if (k < n) y[k] = x[k] * x[k];
}
extern "C" __global__ void filled(double value, double* y) { y[threadIdx.x] = value; }
"""


def squared(x):
    return x * x


def test_kernels_that_do_not_ask(cp):
    """CuPy itself refuses a Tensor, on the tape or off it, of any size, read or written."""
    from cupyx import jit

    def jit_squares(x, y, n):
        k = jit.threadIdx.x
        if k < n:
            y[k] = x[k] * x[k]

    squares, filled = (cp.RawKernel(RAW, name) for name in ("squares", "filled"))
    module = cp.RawModule(code=RAW).get_function("squares")
    with warnings.catch_warnings():  # that it is experimental
        warnings.simplefilter("ignore", FutureWarning)
        compiled = jit.rawkernel()(jit_squares)
    total = cp.ReductionKernel("T x", "T y", "x", "a + b", "y = a", "0", "total")
    x, y = cp.ones(3), cp.zeros(3)
    for shape in ((3,), (1,), ()):
        for t in (leaf(np.ones(shape)), gg.asarray(cp.ones(shape))):
            for call in (
                lambda t=t: squares((1,), (3,), (t, y, 3)),
                lambda t=t: squares((1,), (3,), (x, t, 3)),
                lambda t=t: module((1,), (3,), (t, y, 3)),
                lambda t=t: filled((1,), (3,), (t, y)),
                lambda t=t: compiled((1,), (3,), (t, y, 3)),
                lambda t=t: compiled[1, 3](t, y, 3),
                lambda t=t: total(t),
                lambda t=t: total(x, out=t),
            ):
                with pytest.raises(TypeError, match=r"Unsupported type|not supported|ndarray"):
                    call()
            assert_same(t, np.ones(shape))
    assert_same(y, np.zeros(3))
    np.testing.assert_allclose(float(total(leaf(X).data)), X.sum())


def test_a_fused_function_runs_as_it_stands(cp):
    """CuPy fuses only where all arguments are its arrays."""

    @cp.fuse()
    def damped(x):
        return cp.exp(-x) * cp.sin(x)

    out, got = gradient(damped, X)
    np.testing.assert_allclose(out, np.exp(-X) * np.sin(X))
    np.testing.assert_allclose(got, np.exp(-X) * (np.cos(X) - np.sin(X)))


def test_arrays_are_not_made_of_tensors_on_the_tape(cp):
    t, array = leaf(X), cp.zeros((2, 3))
    for call in (
        lambda: cp.asarray(t),
        lambda: cp.array([t, t]),
        lambda: cp.ascontiguousarray(cp.asarray(t)),
        lambda: operator.setitem(array, slice(None), t),
        lambda: operator.setitem(array, 0, t[0]),
        lambda: cp.asnumpy(t),
        lambda: cp.from_dlpack(t),
        lambda: cp.vstack([t, t]),
    ):
        with pytest.raises(RuntimeError, match=LOSS):
            call()
    np.testing.assert_array_equal(array.get(), 0)
    for call in (
        lambda: cp.concatenate([t, t]),
        lambda: cp.matmul(array.T, t),
        lambda: cp.add.at(array, (0,), t[0]),
    ):
        with pytest.raises((TypeError, RuntimeError, AttributeError)):
            call()


def test_joining_with_numpys_calls(cp):
    array = cp.asarray(Y)
    out, grad = gradient(lambda t: np.concatenate([array, t * t]), X)
    np.testing.assert_array_equal(out, np.concatenate([Y, X * X]))
    np.testing.assert_allclose(grad, 2 * X)
    assert_same(np.where(gg.asarray(array) > 0.5, array, leaf(X)), np.where(Y > 0.5, Y, X))
    assert_same(np.dot(leaf(X), [1.0, 2.0, 3.0]), np.dot(X, [1.0, 2.0, 3.0]))
    with pytest.raises((TypeError, ValueError), match="different devices"):
        np.add(Y, leaf(X))
    with pytest.raises((TypeError, ValueError), match=r"different devices|two array libraries"):
        np.concatenate([Y, leaf(X)])


def test_numpy_does_not_take_from_the_device(cp):
    for t in (leaf(X), gg.asarray(cp.asarray(X))):
        with pytest.raises(RuntimeError, match=r"would lose it|\.get\(\)"):
            np.asarray(t)
        with pytest.raises(RuntimeError, match=r"would lose it|\.get\(\)"):
            np.array([t, t])


def test_at_on_the_device(cp):
    t = gg.asarray(cp.asarray(np.zeros(3)))
    np.add.at(t, [0, 0, 2], np.float64(1.0))
    np.subtract.at(t, cp.asarray([1]), gg.asarray(cp.asarray([2.0])))
    assert_same(t, np.array([2.0, -2.0, 1.0]))
    with pytest.raises(TypeError, match=r"multiply\.at"):
        np.multiply.at(t, [0], 2.0)


def test_no_function_of_cupys_loses_a_gradient_in_silence(cp):
    """Of every function of one or two arrays: a Tensor on the tape, an error, or no numbers."""
    inexact = []
    for name in dir(cp):
        f = getattr(cp, name)
        if not callable(f) or isinstance(f, type) or name.startswith("_") or name in _NO_ARRAYS:
            continue
        for args in ((X,), (X[0],), (X[0], X[0]), (X, X.T)):
            try:
                out = f(*(leaf(x) for x in args))
            except Exception:
                continue
            for x in out if isinstance(out, (list, tuple)) else (out,):
                if isinstance(x, cp.ndarray) and x.dtype.kind in "fc":
                    inexact.append(name)
    assert set(inexact) <= {"fromiter"}  # which takes float(t) of each element


_NO_ARRAYS = {"clear_memo", "fuse", "memoize", "poly", "printoptions", "save", "show_config"}
