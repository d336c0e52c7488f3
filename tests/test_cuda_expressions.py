"""CUDA text -> Python functions: values as C has them, and what is refused by its word."""

import math

import numpy as np
import pytest
import scipy.special
from helpers import array, assert_same, host

import gpugrad as gg
from gpugrad.cuda_expressions import NotPlain, Parameter, function, names_in, parameters

X = np.array([-1.75, -0.5, 0.25, 2.0])


def twin(text, inputs="T x", output="T y"):
    (out,) = parameters(output)
    return function("twin", parameters(inputs), out, text)


# text -> the same in NumPy
PLAIN = {
    "y = 3 * x - x / 4 + 0.5f": lambda x: 3 * x - x / 4 + 0.5,
    "y = -(x - (2 - x)) * -x": lambda x: -(x - (2 - x)) * -x,
    "y = x - 1 - 2 - x * 2 / 4": lambda x: x - 3 - x * 2 / 4,
    "y = 1 / 2 + 7 / 2 * x + -7 / 2": lambda x: 3 * x - 3,
    "y = 1 / 2.f + 1. / 4 + .5e1f * x": lambda x: 0.75 + 5 * x,
    "y = 0x10 + 010 * x + 3u + 2ll": lambda x: 21 + 8 * x,
    "y = x > 0 ? x * x : -x;": lambda x: np.where(x > 0, x * x, -x),
    "y = x < -1 ? 1 : x < 0 ? 2 : 3": lambda x: np.where(x < -1, 1, np.where(x < 0, 2, 3)),
    "y = x > -1 && !(x > 0.3) || x == 2": lambda x: (x > -1) & (x <= 0.3) | (x == 2),
    "y = (x > -1) + (x > 0) - -(x > 1)": lambda x: 1.0 * (x > -1) + (x > 0) + (x > 1),
    "y = !x == 0": lambda x: x != 0,
    "y = (x && 1) ? 1 : 0": lambda x: x != 0,
    "T u = x * x; const T v = u + 1; y = v; y *= 2; y += u; y -= 1; y /= 4": lambda x: (
        (2 * (x * x + 1) + x * x - 1) / 4
    ),
    "auto u = x, v = u + 1; float w(3); y = u * v + w": lambda x: x * (x + 1) + 3,
    "int k = x; y = k": np.trunc,
    "y = (int)x + int(x) + static_cast<int>(x)": lambda x: 3 * np.trunc(x),
    "unsigned long long k = 7; y = k / 2 + T(1) / 2 + (T)1 / 4": lambda x: 3.75 + 0 * x,
    "bool p = x > 0; y = p ? x : 0": lambda x: np.where(x > 0, x, 0),
    "if (x > 0) y = x; else if (x < -1) { T u = x * x; y = u; } else y = 7;": lambda x: np.where(
        x > 0, x, np.where(x < -1, x * x, 7)
    ),
    "T u; y = 1; if (x > 0) { u = 2; y = u; { T y = 3; y += u; } }": lambda x: np.where(
        x > 0, 2, 1
    ),
    "y = ::exp(x) /* a */ * M_PI; // b": lambda x: np.exp(x) * math.pi,
    "y = exp(0.f) + sqrt(4.0) + pow(2.0, 3) + max(1, 2) * x": lambda x: 1 + 2 + 8 + 2 * x,
    "y = fma(x, x, T(1)) + fdim(x, T(0.5)) + round(x)": lambda x: (
        x * x + 1 + np.maximum(x - 0.5, 0) + np.sign(x) * np.floor(np.abs(x) + 0.5)
    ),
    "y = rsqrtf(x * x)": lambda x: 1 / np.abs(x),
    "y = fmax(x, T(0)) + fmin(x, T(0)) + max(x, T(0)) + min(x, T(0))": lambda x: 2 * x,
    "y = isfinite(x) && !isnan(x) && !isinf(x) && signbit(x)": lambda x: x < 0,
    "y = __expf(x) + fabsf(x) + abs(x)": lambda x: np.exp(x) + 2 * np.abs(x),
    "y = copysign(T(2), x) * floor(x) + ceil(x) + trunc(x) + rint(x)": lambda x: (
        np.copysign(2, x) * np.floor(x) + np.ceil(x) + np.trunc(x) + np.rint(x)
    ),
    "y = pow(x, 3) + pow(fabs(x), x) + pow(T(2), x) + fmod(x, T(1.5))": lambda x: (
        x**3 + np.abs(x) ** x + 2**x + np.fmod(x, 1.5)
    ),
    "y = 1 / 0.f + 0 * x": lambda x: np.full_like(x, np.inf),
}

# what the C library of the emulated device has not, or CUDA without a header
MORE = {
    "y = fmax(x, NAN) + fminf(x, INFINITY)": lambda x: 2 * x,
    "y = rcbrt(x) + rhypot(x, 3)": lambda x: 1 / np.cbrt(x) + 1 / np.hypot(x, 3),
    "y = normcdf(x)": lambda x: scipy.special.ndtr(x),
}


@pytest.mark.parametrize("text", PLAIN | MORE)
def test_values(text, device):
    f = twin(text)
    expression = (PLAIN | MORE)[text]
    with np.errstate(all="ignore"):
        for x in (X, X.astype(np.float32), np.asarray(X[1])):
            expected = np.asarray(expression(x), x.dtype)
            for given in (array(x), gg.asarray(array(x))):
                got = f(given)
                got = host(got) if hasattr(got, "dtype") else np.full(x.shape, got)
                np.testing.assert_allclose(np.asarray(got, x.dtype), expected, rtol=4e-6)


FUNCTIONS = """
    exp expm1 log log2 log10 log1p sqrt sin cos tan asin acos atan sinh cosh tanh asinh atanh
    cbrt exp2 erf erfc lgamma tgamma normcdf exp10
""".split()


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_are_those_of_the_c_library(name, device):
    other = {"lgamma": "gammaln", "tgamma": "gamma", "normcdf": "ndtr"}
    theirs = getattr(
        np, {"asin": "arcsin", "acos": "arccos", "atan": "arctan"}.get(name, name), None
    )
    theirs = theirs or getattr(scipy.special, other.get(name, name), None)
    theirs = theirs or getattr(np, "arc" + name[1:])
    x = np.array([0.125, 0.5, 0.75])
    assert_same(twin(f"y = {name}(x)")(array(x)), theirs(x), rtol=256)
    assert_same(twin(f"y = {name}f(x)")(array(x)), theirs(x), rtol=256)
    assert twin(f"y = {name}(0.5)")(array(x)) == pytest.approx(theirs(0.5), rel=1e-13)


def test_integers_divide_as_in_c(device):
    a, b = array(np.array([7, -7, 7, -7])), array(np.array([2, 2, -2, -2]))
    assert_same(twin("y = a / b", "T a, T b")(a, b), np.array([3, -3, -3, 3]))
    assert_same(twin("y = a / 2.0", "T a")(a), np.array([3.5, -3.5, 3.5, -3.5]))
    assert_same(twin("y = T(a / 2.0)", "T a")(a), np.array([3, -3, 3, -3]))


def test_complex_numbers(device):
    z = array(np.array([1 + 2j, -0.5j]))
    out = twin("y = exp(z) * conj(z) + z.real() - imag(z) + norm(z) + abs(z) + arg(z)", "T z")(z)
    z = host(z)
    expected = np.exp(z) * z.conj() + z.real - z.imag + abs(z) ** 2 + abs(z) + np.angle(z)
    assert_same(out, expected)


def test_a_choice_between_numbers_does_not_widen(device):
    x = array(X, "float32")
    for text in ("y = (x > 0 ? 1.f : 0.5f) * x", "y = x * (x > 0) + T(2) * float(x)"):
        assert twin(text)(x).dtype == np.float32
    assert twin("double u = x; y = u * x")(x).dtype == np.float64


def test_the_source_is_readable():
    f = twin("T q = pow(s / r, 6); y = 4 * (q * q - q)", "T r, T s")
    assert f.__doc__ == (
        "def twin(r, s):\n"
        "    T = dtype_of(r, s)\n"
        "    q = cast(pow(divide(s, r), 6), T)\n"
        "    y = 4 * (q * q - q)\n"
        "    return y\n"
    )


def test_names_that_python_has_taken():
    f = twin("T exp = lambda * in; y = exp - cast", "T lambda, T in, T cast")
    assert f(2.0, 3.0, 4.0) == 2.0


REFUSED = {
    "y = mine(x)": "'mine'",
    "y = x[0]": r"'\['",
    "y = x * i": "'i'",
    "for (int k = 0; k < 3; k++) y += x": "'for'",
    "while (x > 0) y = x": "'while'",
    "y = x % 2": "'%'",
    "y = x >> 1": "'>>'",
    "y = x & 1": "'&'",
    "y = x++": r"'\+\+'",
    "y = ~x": "'~'",
    "y = x.size()": "'size'",
    "y = sqrt(x, x)": "'sqrt' takes 1 arguments, not 2",
    "y = max(x)": "'max' takes 2",
    "x = 1; y = x": "'x' is an input",
    "y += x": "'y' is read before",
    "T u; if (x > 0) u = 1; y = u": "'u' is read before",
    "if (x > 0) y = 1": "'y' is not given a value",
    "T u = x": "'y' is not given a value",
    "y = (x": "ends too early",
    "y = x x": "'x'",
    "const y = x": "'y'",
    "auto u; y = x": "';'",
    "y = S(x)": "'S'",
    "y = static_cast<S>(x)": "'S'",
    "z = x": "'z'",
    'y = "x"': "'\"'",
    "y = x @ x": "'@'",
    "{ T u = x; } y = u": "'u'",
    "T x = 3; y = x": "'x' is declared twice",
    "y = x + 08": "'08' is no number",
}


@pytest.mark.parametrize("text", REFUSED)
def test_what_is_refused(text):
    with pytest.raises(NotPlain, match=REFUSED[text]):
        twin(text)


def test_parameters():
    assert parameters(" T x,float32   a ,") == [Parameter("T", "x"), Parameter("float32", "a")]
    assert parameters("int64 k")[0].dtype == np.int64
    for text, word in {
        "raw T x": "custom_vjp",
        "T": "no parameter",
        "T x y": "no parameter",
        "T i": "no parameter",
        "T 3": "no parameter",
        "Real x": "name of a dtype",
    }.items():
        with pytest.raises(ValueError, match=word):
            parameters(text)
    assert names_in("y = x1 /* not this */ + 2.f * a_b // nor this") == {"y", "x1", "a_b"}
