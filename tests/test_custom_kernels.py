"""elementwise_kernel: the user's CUDA text, its twin, its derivatives, and what it refuses."""

import numpy as np
import pytest
from helpers import array, assert_same, host, launched, leaf
from test_cuda_expressions import PLAIN

import gpugrad as gg
from gpugrad.testing import GradientError, check_grads

R = np.array([[0.9, 1.2, 2.0], [1.1, 1.3, 1.7]])
S = np.array([1.0, 1.1, 0.9])

LENNARD_JONES = ("T r, T s", "T y", "T q = pow(s / r, 6); y = 4 * (q * q - q)")
DEVICE_FUNCTIONS = """
template <typename T> __device__ T well(T r, T s) {
    T q = s / r, p = 1;
    for (int k = 0; k < 6; k++) p *= q;
    return 4 * (p * p - p);
}
template <typename T> __device__ T slope(T r, T s) {
    T q = s / r, p = 1;
    for (int k = 0; k < 6; k++) p *= q;
    return 24 * (p - 2 * p * p);
}
"""


def well(r, s):
    q = (s / r) ** 6
    return 4 * (q * q - q)


derived = gg.elementwise_kernel(*LENNARD_JONES, "derived")
stated = gg.elementwise_kernel(
    *LENNARD_JONES,
    "stated",
    derivative={
        "r": "24 * (pow(s / r, 6) - 2 * pow(s / r, 12)) / r",
        "s": "-24 * (pow(s / r, 6) - 2 * pow(s / r, 12)) / s",
    },
)
with_result = gg.elementwise_kernel(
    "T r, T s", "T y", "y = exp(-r * s)", "with_result", derivative=("-s * y", "-r * y")
)
with_twin = gg.elementwise_kernel(
    "T r, T s", "T y", "y = well(r, s)", "with_twin", twin=well, preamble=DEVICE_FUNCTIONS
)
with_both = gg.elementwise_kernel(
    "T r, T s",
    "T y",
    "y = well(r, s)",
    "with_both",
    derivative=("slope(r, s) / r", "-slope(r, s) / s"),
    twin=well,
    preamble=DEVICE_FUNCTIONS,
)
half_stated = gg.elementwise_kernel(
    *LENNARD_JONES,
    "half_stated",
    derivative={"s": "-24 * (pow(s / r, 6) - 2 * pow(s / r, 12)) / s"},
)
KERNELS = [derived, stated, with_result, with_twin, with_both, half_stated]


@pytest.mark.parametrize("kernel", KERNELS, ids=lambda k: k.__name__)
def test_derivatives_of_every_order_and_mode(kernel, device):
    # every order has kernels of its own, which take long to compile
    highest = 2 if kernel in (derived, with_both) or device == "cpu" else 1
    check_grads(kernel, (array(R), array(S)), order=highest)


@pytest.mark.parametrize("kernel", KERNELS, ids=lambda k: k.__name__)
def test_derivatives_of_other_arguments(kernel):
    check_grads(kernel, (np.asarray(0.9), np.asarray(1.1)), order=3)
    check_grads(kernel, (np.float32(R), np.float32(S)), order=1)
    check_grads(lambda r: kernel(r, 1.1), (R,), order=2)


@pytest.mark.parametrize("kernel", KERNELS, ids=lambda k: k.__name__)
def test_under_transforms(kernel, device):
    r, s = array(R[0]), array(S)
    slopes = np.diag(host(gg.jacobian(lambda r: kernel(r, s))(r)))
    for outer in (gg.vmap(gg.grad(kernel)), gg.grad(lambda r, s: gg.sum(kernel(r, s)))):
        np.testing.assert_allclose(host(outer(r, s)), slopes, rtol=1e-12)
    one = gg.vmap(gg.grad(lambda r: kernel(r, 1.1)))(r)
    np.testing.assert_allclose(host(one)[1], slopes[1], rtol=1e-12)
    pairs = gg.vmap(lambda s: kernel(array(R), s), in_axes=0)(s)
    np.testing.assert_allclose(host(pairs)[2], host(kernel(array(R), 0.9)), rtol=1e-12)
    hessian = gg.hessian(lambda r: gg.sum(kernel(r, s)))(r)
    second = gg.grad(lambda r: gg.sum(gg.grad(lambda r: gg.sum(kernel(r, s)))(r)))(r)
    np.testing.assert_allclose(np.diag(host(hessian)), host(second), rtol=1e-12)


def test_it_is_the_function(device):
    out = derived(array(R), array(S))
    assert type(out) is type(array(R))
    np.testing.assert_allclose(host(out), well(R, S), rtol=1e-14)
    t = leaf(R)
    gg.sum(derived(t, array(S))).backward()
    q = (S / R) ** 6
    np.testing.assert_allclose(host(t.grad), 24 * (q - 2 * q * q) / R, rtol=1e-13)
    assert derived.__name__ == "derived"
    assert "q = pow(s / r, 6)" in derived.__doc__
    assert "cast(pow(divide(s, r), 6), T)" in derived.twin.__doc__
    assert not derived(gg.asarray(array(R)), 1.0).requires_grad


def test_what_is_kept_is_what_the_derivative_has_in_it():
    """So a sum keeps nothing, and memory in between is free."""

    def kept(text, **options):
        kernel = gg.elementwise_kernel("T x, T a", "T y", text, "kept", **options)
        return [argument.names for argument in kernel.op.arguments]

    assert kept("y = x + a") == [[], []]
    assert kept("y = 3 * x + a * a + 1 / (a - 1)") == [[], ["a"]]
    assert kept("y = x * a") == [["a"], ["x"]]
    assert kept("y = exp(x) * a", derivative=("y", "exp(x)")) == [["out"], ["x"]]
    check_grads(
        gg.elementwise_kernel("T x, T a", "T y", "y = 3 * x + a * a + 1 / (a - 1)", "kept"),
        (np.array([1.0, 2.0]), np.array([2.0, 3.0])),
    )


def test_the_branch_not_chosen_does_no_harm(device):
    """Its slope is infinite or NaN there: `where` on a tape read backwards would make NaN of it."""
    safe = gg.elementwise_kernel("T x", "T y", "y = x > 0 ? sqrt(x) : 0", "safe")
    by_if = gg.elementwise_kernel("T x", "T y", "y = 0; if (x > 0) y = sqrt(x)", "by_if")
    x, one = array([-1.0, 0.0, 4.0]), array([1.0, 1.0, 1.0])
    for f in (safe, by_if):
        assert_same(f(x), np.array([0.0, 0.0, 2.0]))
        backwards = gg.grad(lambda x, f=f: gg.sum(f(x)))
        for slope in (backwards, lambda x, f=f: gg.jvp(f, (x,), (one,))[1]):
            assert_same(slope(x), np.array([0.0, 0.0, 0.25]))
            assert_same(gg.grad(lambda x, s=slope: gg.sum(s(x)))(x), np.array([0, 0, -1 / 32]))
            assert_same(gg.jvp(slope, (x,), (one,))[1], np.array([0, 0, -1 / 32]))


def test_complex_numbers(device):
    highest = 2 if device == "cpu" else 1
    z, c = array([1 + 2j, 0.5 - 1j], "complex128"), array([0.3 + 1j, 2 - 1j], "complex128")
    check_grads(gg.elementwise_kernel("T z, T c", "T y", "y = exp(z) * c", "analytic"), (z, c))
    text = "y = exp(z) * conj(z) * c"
    check_grads(gg.elementwise_kernel("T z, T c", "T y", text, "mixed"), (z, c), order=highest)
    check_grads(
        gg.elementwise_kernel("T z", "T y", "y = exp(z) * conj(z)", "one"), (z,), order=highest
    )
    one = gg.elementwise_kernel("T z", "T y", "y = exp(z) * conj(z)", "one")
    check_grads(lambda z, t: gg.jvp(one, (z,), (t,))[1], (z, c), order=highest)
    check_grads(lambda z, g: gg.vjp(one, z)[1](g)[0], (z, c), order=highest)
    norm = gg.elementwise_kernel("complex128 z, float64 a", "float64 y", "y = a * norm(z)", "norm")
    a = array([0.5, 2.0])
    assert_same(norm(z, a), host(a) * np.abs(host(z)) ** 2)
    check_grads(norm, (z, a), order=highest)
    square = gg.elementwise_kernel("T z", "T y", "y = z * z", "square", derivative=("z + z",))
    check_grads(square, (z,), order=highest)


def test_types_of_several_letters(device):
    x, a = array(R), array(S, "float32")
    k = array([1, 2, 3], "int32")
    for derivative in (None, {"x": "T(a) * b", "a": "x * b", "b": "x * a"}):
        f = gg.elementwise_kernel(
            "T x, S a, float32 b, int32 k",
            "T y",
            "y = a * x * b + k",
            "typed",
            derivative=derivative,
        )
        assert_same(f(x, a, a, k), R * np.float32(S) ** 2.0 + host(k), rtol=2**28)
        got = gg.grad(lambda x, a, b, f=f: gg.sum(f(x, a, b, k)), argnums=(0, 1, 2))(x, a, a)
        s = np.float64(np.float32(S))
        expected = [np.broadcast_to(s * s, R.shape), *[np.float32(np.sum(R, 0) * s)] * 2]
        assert_same(list(got), expected)
        tangents = (gg.ones_like(gg.asarray(a)).data,) * 2
        forward = gg.jvp(lambda a, b, f=f: f(x, a, b, k), (a, a), tangents)[1]
        np.testing.assert_allclose(host(forward), 2 * R * s, rtol=1e-6)
        assert host(forward).dtype == np.float64


def test_halves_compute_in_float32(device):
    h = np.array([1.0, 1.25, 2.0], np.float16)
    text = "float q = pow(float(s) / float(r), 6.f); y = 4 * (q * q - q)"
    q = "pow(float(s) / float(r), 6.f)"
    slope = f"24 * ({q} - 2 * {q} * {q}) / float(r)"
    for derivative in (None, {"r": slope}):
        f = gg.elementwise_kernel("T r, T s", "T y", text, "halves", derivative=derivative)
        q = (1.125 / np.float64(h)) ** 6
        assert_same(f(array(h, "float16"), 1.125), np.float16(4 * (q * q - q)), rtol=1)
        got = gg.grad(lambda r, f=f: gg.sum(f(r, 1.125)))(array(h, "float16"))
        assert_same(got, np.float16(24 * (q - 2 * q * q) / h), rtol=4)


def test_integers_and_truth_values(device):
    f = gg.elementwise_kernel("T a, T b", "T y", "y = a / b", "quotient")
    assert_same(f(array([7, -7], "int32"), 2), np.array([3, -3], np.int32))
    above = gg.elementwise_kernel("T x", "bool y", "y = x > 1", "above")
    out = above(leaf(S))
    assert not out.requires_grad
    assert_same(out, S > 1)
    with pytest.raises(TypeError, match="quotient: b is float64 where a is int32|mismatched"):
        f(array([7, -7], "int32"), array([1.0, 2.0]))


def test_numbers_take_the_type_of_their_parameter(device):
    f = gg.elementwise_kernel("T x, T k, int32 n", "T y", "y = x / k + 1 / k + 1 / n", "numbers")
    assert_same(f(array(S), 2, 2), S / 2 + 0.5)
    assert_same(f(array(S), 2, 1.5), S / 2 + 1.5)
    assert_same(f(array(S), True, np.float64(1)), S + 2)
    assert_same(f(array(S, "float32"), np.float64(2), 2), np.float32(S) / 2 + np.float32(0.5))
    assert_same(gg.grad(lambda x: gg.sum(f(x, 2, 2)))(array(S)), np.full(3, 0.5))
    whole = gg.elementwise_kernel("T x, int32 n", "T y", "y = x * (7 / n) * x", "whole")
    assert_same(gg.grad(lambda x: gg.sum(whole(x, 2)))(array(S)), 6 * S)


def test_names_that_have_a_meaning_elsewhere(device):
    """In rules, in generated kernels, and in Python."""
    params = "T t, T out, T n, T v0, T dt, T lambda, T shape, T kernel_, T dy"
    text = "T in = t * out * n; y = in * v0 * dt * lambda * shape * kernel_ * dy"
    names = [word.split()[1] for word in params.split(", ")]
    stated = {name: f"y / {name}" for name in names}
    for derivative in (None, stated):
        f = gg.elementwise_kernel(params, "T y", text, "names", derivative=derivative)
        xs = [array(S * (1 + 0.1 * k)) for k in range(len(names))]
        expected = [np.prod([host(x) for x in xs], axis=0) / host(x) for x in xs]
        got = gg.grad(lambda *xs, f=f: gg.sum(f(*xs)), argnums=tuple(range(len(xs))))(*xs)
        assert_same(list(got), expected)
    check_grads(lambda t, dt: f(t, *xs[1:4], dt, *xs[5:]), (xs[0], xs[4]), order=2)


def test_functions_whose_derivatives_have_no_cuda_text(device):
    """Then the rules run as they stand."""
    f = gg.elementwise_kernel("T x, T a", "T y", "y = lgamma(x) * a", "gammas")
    check_grads(f, (array(S), array(S)), order=2)
    np.testing.assert_allclose(host(f(array(S), 2.0)), 2 * host(gg.special.gammaln(array(S))))


def test_twins_that_are_no_expressions(device):
    """What cannot be run on symbols is run as it stands, on a GPU too."""

    def powers(x):
        assert x.shape == (3,)
        return gg.stack([x[k] ** (k + 1) for k in range(3)])

    f = gg.elementwise_kernel("T x", "T y", "y = pow(x, (T)(i + 1))", "powers", twin=powers)
    check_grads(f, (array(S),), order=2)
    assert_same(gg.grad(lambda x: gg.sum(f(x)))(array(S)), np.array([1, 2, 3]) * S ** [0, 1, 2])


def test_what_depends_on_the_index_sees_every_example_by_itself(device):
    f = gg.elementwise_kernel(
        "T x",
        "T y",
        "y = x * x * (i + 1)",
        "ramp",
        derivative=("2 * x * (i + 1)",),
        twin=lambda x: x * x * gg.arange(1, 4, dtype=x.dtype, device=x.device),
    )
    expected = S * S * [1, 2, 3]
    assert_same(f(array(S)), expected)
    rows = gg.vmap(f)(array(np.stack([S, S])))
    assert_same(rows, np.stack([expected, expected]))
    slopes = gg.vmap(gg.grad(lambda x: gg.sum(f(x))))(array(np.stack([S, S])))
    assert_same(slopes, np.stack([2 * S * [1, 2, 3]] * 2))
    assert_same(gg.jacobian(f)(array(S)), np.diag(2 * S * [1, 2, 3]))


def test_shapes_and_memory(device):
    constant = gg.elementwise_kernel("T x, T a", "T y", "y = 2", "constant")
    same = gg.elementwise_kernel("T x, T a", "T y", "y = x", "same")
    x, a = array(S), array(R)
    assert_same(constant(x, a), np.full((2, 3), 2.0))
    assert_same(same(x, a), np.broadcast_to(S, (2, 3)))
    out = same(x, 1.0)
    out += 1
    assert_same(x, S)
    assert_same(gg.grad(lambda x, a: gg.sum(same(x, a)), argnums=(0, 1))(x, a)[0], np.full(3, 2.0))
    assert_same(gg.grad(lambda x: gg.sum(constant(x, a)))(x), np.zeros(3))
    assert derived(array(np.zeros((0, 3))), x).shape == (0, 3)
    assert derived(array(0.9), 1.0).shape == ()


def test_what_has_no_derivative(device):
    f = gg.elementwise_kernel("T x, T a", "T y", "y = x * a", "f", derivative=("a", None))
    assert_same(gg.grad(lambda x: gg.sum(f(x, array(S))))(array(S)), S)
    with pytest.raises(NotImplementedError, match=r"f: no derivative with respect to argument 1"):
        f(array(S), leaf(S))
    wrong = gg.elementwise_kernel("T x", "T y", "y = x * x", "wrong", derivative=("x",))
    with pytest.raises(GradientError):
        check_grads(wrong, (array(S),))


def test_without_a_twin(cuda):
    f = gg.elementwise_kernel(
        "T r, T s",
        "T y",
        "y = well(r, s)",
        "bare",
        derivative=("slope(r, s) / r", "-slope(r, s) / s"),
        preamble=DEVICE_FUNCTIONS,
    )
    with pytest.raises(TypeError, match=r"bare: 'well' is not understood.*twin="):
        f(R, S)
    with cuda:
        check_grads(f, (array(R), array(S)), order=1)
        with pytest.raises(NotImplementedError, match="no derivative"):
            gg.hessian(lambda r: gg.sum(f(r, 1.0)))(array(S))


REFUSED = {
    "raw": (("raw T x", "T y", "y = x[i]"), {}, "custom_vjp"),
    "results": (("T x", "T y, T z", "y = x; z = x"), {}, "2 results"),
    "no inputs": (("", "T y", "y = 1"), {}, "0 inputs"),
    "name": (("T x", "T y", "y = x", "a kernel"), {}, "no name of a kernel"),
    "names": (("T x, T x", "T y", "y = x"), {}, "two parameters of one name"),
    "text": (("T x", "T y", "y = mine(x)"), {}, "'mine' is not understood.*derivative=.*twin="),
    "index": (("T x", "T y", "y = x * i"), {}, "'i' is not understood.*custom_vjp"),
    "partly": (
        ("T x, T a", "T y", "y = mine(x, a)"),
        {"derivative": {"x": "a"}},
        "derivative in 'a' cannot be derived",
    ),
    "unknown": (("T x", "T y", "y = x"), {"derivative": {"z": "1"}}, "has no input z"),
    "too many": (("T x", "T y", "y = x"), {"derivative": ("1", "2")}, "1 inputs and 2 deriv"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused(case):
    args, options, message = REFUSED[case]
    with pytest.raises(ValueError, match=message):
        gg.elementwise_kernel(*args, **options)


def test_a_text_alone_is_no_list_of_derivatives():
    with pytest.raises(TypeError, match="mapping"):
        gg.elementwise_kernel("T x", "T y", "y = x", derivative="1")


def test_calls_that_are_refused(device):
    x = array(S)
    for call, message in (
        (lambda: derived(x), r"derived: takes 2 arguments \(r, s\), got 1"),
        (lambda: derived(1.0, 2.0), "of numbers alone"),
        (lambda: derived(x, [1.0, 2.0, 3.0]), "list"),
        (lambda: derived(gg.asarray(x), [1.0, 2.0, 3.0]), "list"),
        (lambda: derived(x, array(S, "float32")), "float32"),
        (lambda: derived(leaf(S), array(S, "float32")), "derived: .*float32"),
    ):
        with pytest.raises(TypeError, match=message):
            call()
    with pytest.raises(ValueError, match="broadcast"):
        derived(x, array([1.0, 2.0]))


# ---- on a CUDA device


@pytest.mark.parametrize("text", PLAIN)
def test_the_twin_is_what_the_text_does(text, cuda):
    """Also where CUDA computes a double literal in double, or expf(x) in float."""
    kernel = gg.elementwise_kernel("T x", "T y", text, "text")
    x = np.array([-1.75, -0.5, 0.25, 2.0])
    for dtype in ("float64", "float32"):
        with np.errstate(all="ignore"):
            expected = kernel(np.asarray(x, dtype))
        with cuda:
            got = host(kernel(array(x, dtype)))
        assert got.dtype == dtype
        np.testing.assert_allclose(got, expected, rtol=4e-7)


@pytest.mark.parametrize("kernel", KERNELS, ids=lambda k: k.__name__)
def test_launches(kernel, cuda):
    """One for the function, and one for each derivative."""
    with cuda:
        r, s, t = array(R), array(R + 1), array(R - 1)
        assert launched(lambda: kernel(r, s)) in (1, None)
        for only in (lambda r: kernel(r, s), lambda s: kernel(r, s)):
            _, pullback = gg.vjp(only, r)
            assert launched(lambda back=pullback: back(t)) in (1, None)
            # of the function, and of its derivative
            assert launched(lambda only=only: gg.jvp(only, (r,), (t,))) in (2, None)
        _, pullback = gg.vjp(kernel, r, s)
        both = 1 if kernel in (derived, with_twin) else 2  # which are derived share a kernel
        assert launched(lambda: pullback(t)) in (both, None)


@pytest.mark.parametrize("kernel", KERNELS, ids=lambda k: k.__name__)
def test_launches_of_a_recorded_sweep(kernel, cuda):
    with cuda:
        x, s, t = leaf(R), array(R + 1), gg.asarray(array(R - 1))
        out = kernel(x, s)

        def backward():
            x.grad = None
            out.backward(t, retain_graph=True, create_graph=True)

        assert launched(backward) in (2, None)  # the derivative, and a copy for .grad to own


def test_generated_text(cuda):
    """What a derivative runs is readable, and has its branch in it."""
    f = gg.elementwise_kernel("T x, T a", "T y", "y = x > 0 ? a * sqrt(x) : a * x", "branch")
    seen = []
    backend = gg.backends.backend_of_kind("cuda")
    make = type(backend).kernel

    def kernel(self, kernel):
        seen.append(kernel)
        return make(self, kernel)

    with pytest.MonkeyPatch.context() as patch, cuda:
        patch.setattr(type(backend), "kernel", kernel)
        gg.grad(lambda x, a: gg.sum(f(x, a)), argnums=(0, 1))(
            array(S, "float32"), array(S, "float32")
        )
    (made,) = seen
    assert made.name == "gpugrad_branch_vjp"
    assert made.text.statements.splitlines() == [
        "const bool v0 = x > 0.0f;",
        "const float v1 = sqrt(x);",
        "dx = (v0 ? t * 0.5f / v1 * a : 0.0f) + (v0 ? 0.0f : t * a);",
        "da = (v0 ? t * v1 : 0.0f) + (v0 ? 0.0f : t * x);",
    ]


@pytest.mark.devices
def test_on_the_device_of_the_arrays(cuda):
    second = gg.device("cuda:1")
    with second:
        r, s = array(R), array(S)
    for kernel in (derived, stated):
        assert gg.asarray(kernel(r, s)).device == second
        assert gg.asarray(gg.grad(lambda r, k=kernel: gg.sum(k(r, s)))(r)).device == second


@pytest.mark.parametrize("names", ["result", "dresult", "t t_0", "dx x", "lambda_ n", "v0 v0_0"])
def test_parameters_may_have_the_names_of_generated_kernels(names, cuda):
    """Where the text of the derivatives is generated, there are other parameters."""
    names = names.split()
    product = " * ".join(names)
    kernel = gg.elementwise_kernel(
        ", ".join(f"T {name}" for name in names), "T y", f"y = sin({product}) * {product}", "named"
    )
    check_grads(kernel, [array(0.5 + i) for i, _ in enumerate(names)], order=2)


def test_a_derivative_may_end_with_a_comment(device):
    kernel = gg.elementwise_kernel(
        "T x", "T y", "y = x * x", "square", derivative=("2 * x // its slope",)
    )
    check_grads(kernel, (array(S),), order=1)


def test_numbers_without_a_text_are_no_obstacle(device):
    """The derivative is then computed by the twin."""
    x = gg.asarray([1.0, -2.0], dtype="float32", device=device)
    for number, wanted in (("(1 / 0.0f)", [np.inf, -np.inf]), ("1e300", [np.inf, -np.inf])):
        kernel = gg.elementwise_kernel("T x", "T y", f"y = x * x * {number}", "far")
        np.testing.assert_array_equal(gg.grad(lambda x, f=kernel: gg.sum(f(x)))(x).get(), wanted)


@pytest.mark.parametrize("name", ["double", "class", "xor", "main", "ü"])
def test_names_that_c_does_not_take(name):
    with pytest.raises(ValueError, match=f"'{name}' is no name of a kernel"):
        gg.elementwise_kernel("T x", "T y", "y = x * x", name)
    with pytest.raises(ValueError, match=f"'T {name}' is no parameter"):
        gg.elementwise_kernel(f"T {name}", "T y", f"y = {name} * 2")
