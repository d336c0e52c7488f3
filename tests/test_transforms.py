"""grad, value_and_grad, vjp and jvp: closed forms, nesting, structures, kinds of arrays."""

import itertools
from collections import OrderedDict, defaultdict, namedtuple

import numpy as np
import pytest
from helpers import array, assert_same, flat, host, leaf

import gpugrad as gg

# Four ways to the derivative of a function of one number.
MODES = {
    "grad": gg.grad,
    "value_and_grad": lambda f: lambda x: gg.value_and_grad(f)(x)[1],
    "vjp": lambda f: lambda x: gg.vjp(f, x)[1](gg.ones_like(gg.asarray(x)))[0],
    "jvp": lambda f: lambda x: gg.jvp(f, (x,), (gg.ones_like(gg.asarray(x)),))[1],
}
PAIRS = list(itertools.product(MODES.values(), repeat=2))
PAIR_NAMES = ["-".join(names) for names in itertools.product(MODES, repeat=2)]

each_mode = pytest.mark.parametrize("d", MODES.values(), ids=MODES)
each_pair = pytest.mark.parametrize(("outer", "inner"), PAIRS, ids=PAIR_NAMES)


def is_raw(x):
    return not isinstance(x, gg.Tensor) and isinstance(x, type(array(0.0)))


# ---- nesting


@pytest.mark.parametrize("names", list(itertools.product(MODES, repeat=4)), ids="-".join)
def test_nested_to_order_4_against_the_closed_form(names, device):
    """The n-th derivative of e**-x sin x is Im (i - 1)**n e**((i - 1) x)."""

    def f(x):
        return gg.sin(x) * gg.exp(-x)

    x, c = 0.7, 1j - 1
    for n, name in enumerate(names, 1):
        f = MODES[name](f)
        assert float(f(array(x))) == pytest.approx((c**n * np.exp(c * x)).imag, rel=1e-13)


@each_pair
def test_perturbations_are_not_confused(outer, inner, device):
    """Siskind and Pearlmutter (2005), "Perturbation Confusion and Referential Transparency"."""

    def at(f, x):
        return float(f(array(x)))

    one = array(1.0)
    assert at(outer(lambda x: x * inner(lambda y: x + y)(one)), 1.0) == 1
    assert at(outer(lambda x: x * inner(lambda y: x * y)(one)), 3.0) == 6
    assert at(outer(lambda x: x * inner(lambda y: x)(one)), 3.0) == 0
    assert at(outer(lambda x: inner(lambda y: x * y)(x)), 3.0) == 1
    assert at(outer(lambda x: inner(lambda y: x * y * y)(x)), 3.0) == 12
    assert at(outer(lambda x: inner(lambda y: x * y * y)(2 * x)), 3.0) == 24
    assert at(outer(lambda x: inner(lambda y: y * y)(x) + inner(lambda y: x)(x)), 3.0) == 2


@each_pair
def test_three_levels_that_see_each_other(outer, inner, device):
    def f(x):
        def g(y):
            return y * outer(lambda z: x * y * z * z)(array(3.0))  # 6 x y**2

        return x * inner(g)(array(2.0))  # 24 x**2

    assert float(outer(f)(array(5.0))) == 240


@each_mode
def test_derivative_of_a_shift(d, device):
    """Manzyuk et al. (2019), "Perturbation confusion in forward automatic differentiation"."""

    def shifted(f):
        return lambda x: d(lambda u: f(x + u))(array(0.0))

    assert float(shifted(shifted(gg.exp))(gg.asarray(array(1.0)))) == pytest.approx(np.e)


def test_derivative_of_a_pullback_and_of_a_tangent(device):
    x = array([0.5, 1.0])
    _, pullback = gg.vjp(gg.sin, x)
    weights = array([2.0, 3.0])
    got = gg.grad(lambda g: gg.sum(pullback(g)[0] * gg.asarray(weights)))(x)
    np.testing.assert_allclose(host(got), host(weights) * np.cos(host(x)))
    got = gg.grad(lambda t: gg.sum(gg.jvp(gg.sin, (x,), (t,))[1] * gg.asarray(weights)))(x)
    np.testing.assert_allclose(host(got), host(weights) * np.cos(host(x)))


def test_hessian_vector_product_in_every_way(device):
    """f(x) = sum(x)**3 has the Hessian 6 sum(x) in every entry."""

    def f(x):
        return gg.sum(x) ** 3

    x, v = array([1.0, 2.0]), array([1.0, -3.0])
    expected = [6 * 3.0 * -2.0] * 2
    forward_over_reverse = gg.jvp(gg.grad(f), (x,), (v,))[1]
    reverse_over_forward = gg.grad(lambda x: gg.jvp(f, (x,), (v,))[1])(x)
    reverse_over_reverse = gg.vjp(gg.grad(f), x)[1](v)[0]
    for product in (forward_over_reverse, reverse_over_forward, reverse_over_reverse):
        np.testing.assert_allclose(host(product), expected)


# ---- tensors of the outside


def test_a_result_stays_on_the_tape_of_a_captured_tensor(device):
    w, x = leaf([1.0, 2.0]), array([3.0, 4.0])
    value, gradient = gg.value_and_grad(lambda x: gg.sum(w * x * x))(x)
    assert value.requires_grad
    assert gradient.requires_grad
    gg.sum(gradient).backward()
    np.testing.assert_array_equal(host(w.grad), [6, 8])


@pytest.mark.parametrize("name", ["vjp", "jvp"])
def test_vjp_and_jvp_stay_on_the_tape_of_a_captured_tensor(name, device):
    w, x = leaf([1.0, 2.0]), array([3.0, 4.0])
    one = array([1.0, 1.0])

    def f(x):
        return w * x * x

    if name == "vjp":
        out, pullback = gg.vjp(f, x)
        (derivative,) = pullback(one)
    else:
        out, derivative = gg.jvp(f, (x,), (one,))
    (gg.sum(out) + gg.sum(derivative)).backward()
    np.testing.assert_array_equal(host(w.grad), [9 + 6, 16 + 8])


def test_nothing_is_recorded_for_the_outside_under_no_grad(device):
    w, x = leaf([1.0, 2.0]), array([3.0, 4.0])
    with gg.no_grad():
        value, gradient = gg.value_and_grad(lambda x: gg.sum(w * x * x))(x)
    assert is_raw(value)
    assert is_raw(gradient)
    np.testing.assert_array_equal(host(gradient), [6, 16])


def test_a_derivative_under_no_grad_is_a_constant_of_the_outer_one(device):
    def f(x):
        with gg.no_grad():
            slope = gg.grad(lambda y: y**3)(x)
        return x * slope

    assert float(gg.grad(f)(array(2.0))) == 12


def test_what_is_computed_under_no_grad_is_a_constant(device):
    def f(x):
        with gg.no_grad():
            y = x * x
        return x * y

    assert float(gg.grad(f)(array(3.0))) == 9


def test_the_leaf_given_gets_no_grad(device):
    x = leaf([1.0, 2.0])
    gradient = gg.grad(lambda x: gg.sum(x**3))(x)
    assert x.grad is None
    assert gradient.requires_grad
    gg.sum(gradient).backward()
    np.testing.assert_array_equal(host(x.grad), [6, 12])


def test_backward_inside_a_differentiated_function(device):
    w = leaf(2.0)

    def f(x):
        (w * w).backward()
        return x * x

    assert float(gg.grad(f)(array(3.0))) == 6
    assert float(w.grad) == 4


def test_hook_inside_a_differentiated_function(device):
    def f(x):
        y = x * x
        y.register_hook(lambda g: g * 10)
        return gg.sum(y)

    np.testing.assert_array_equal(host(gg.grad(f)(array([1.0, 2.0]))), [20, 40])


# ---- kinds of arrays


def test_arrays_come_back_as_they_went_in(device):
    def f(x):
        return gg.sum(x * x)

    raw = array([1.0, 2.0], "float32")
    value, gradient = gg.value_and_grad(f)(raw)
    assert is_raw(value)
    assert is_raw(gradient)
    assert gradient.dtype == np.float32
    value, gradient = gg.value_and_grad(f)(gg.asarray(raw))
    assert isinstance(value, gg.Tensor)
    assert isinstance(gradient, gg.Tensor)
    assert not gradient.requires_grad
    assert gradient.device == device
    value, gradient = gg.value_and_grad(f)(3.0)
    assert isinstance(gradient, gg.Tensor)
    assert (float(value), float(gradient)) == (9, 6)


def test_each_gradient_comes_back_as_its_own_argument(device):
    raw, tensor = array([1.0, 2.0]), gg.asarray(array([3.0, 4.0]))
    a, b = gg.grad(lambda a, b: gg.sum(a * b), argnums=(0, 1))(raw, tensor)
    assert is_raw(a)
    assert isinstance(b, gg.Tensor)
    out, pullback = gg.vjp(lambda a, b: a * b, raw, tensor)
    assert isinstance(out, gg.Tensor)
    a, b = pullback(out)
    assert is_raw(a)
    assert isinstance(b, gg.Tensor)


def test_vjp_and_jvp_of_raw_arrays_are_raw(device):
    x = array([1.0, 2.0])
    out, pullback = gg.vjp(gg.sin, x)
    assert is_raw(out)
    assert is_raw(pullback(out)[0])
    assert all(map(is_raw, gg.jvp(gg.sin, (x,), (x,))))


def test_inputs_are_not_written_and_results_are_owned(device):
    """Also where a rule passes its tangent on as it is."""
    x, t = array([1.0, 2.0]), array([3.0, 4.0])

    def f(x):
        return x, x, gg.broadcast_to(x, (2, 2)), gg.reshape(x, (1, 2))

    _, tangents = gg.jvp(f, (x,), (t,))
    _, pullback = gg.vjp(lambda a, b: a + b, x, x)
    derivatives = [*tangents, *pullback(t)]
    for i, result in enumerate(derivatives):
        result[...] = i + 10
    for i, result in enumerate(derivatives):
        np.testing.assert_array_equal(host(result), i + 10)
    np.testing.assert_array_equal(host(x), [1, 2])
    np.testing.assert_array_equal(host(t), [3, 4])


# ---- structures

Point = namedtuple("Point", ["x", "y"])


def nested():
    return {
        "list": [array([1.0, 2.0]), (array(3.0),)],
        "point": Point(array(4.0), {"z": array([[5.0]])}),
        "empty": [],
    }


def structure(tree):
    if isinstance(tree, dict):
        return type(tree), {key: structure(value) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return type(tree), [structure(value) for value in tree]
    return tree.shape


def dot(a, b):
    return sum((host(x) * host(y)).sum() for x, y in zip(flat(a), flat(b), strict=True))


def total(tree):
    return sum((gg.sum(x**2) * (i + 1) for i, x in enumerate(flat(tree))), start=0)


def test_nested_structures_keep_their_structure(device):
    gradient = gg.grad(total)(nested())
    assert structure(gradient) == structure(nested())
    got = [host(x).ravel().tolist() for x in flat(gradient)]
    assert got == [[2, 4], [12], [24], [40]]


def test_structures_of_results(device):
    x = array([1.0, 2.0])

    def f(tree):
        a, b = tree["a"], tree["b"]
        return {"product": a * b, "more": [Point(a, gg.sin(b)), (b,)]}

    primals = {"a": x, "b": x * 2}
    out, pullback = gg.vjp(f, primals)
    assert structure(out) == structure({"product": x, "more": [Point(x, x), (x,)]})
    (gradient,) = pullback(out)
    assert structure(gradient) == structure(primals)
    again, tangent = gg.jvp(f, (primals,), (primals,))
    assert structure(tangent) == structure(out)
    assert_same(again, out)
    assert dot(out, tangent) == pytest.approx(dot(gradient, primals))


@pytest.mark.parametrize("kind", [dict, OrderedDict, lambda d: defaultdict(list, d)])
def test_kinds_of_dicts(kind, device):
    given = kind({"b": array(1.0), "a": array(2.0)})
    gradient = gg.grad(lambda d: d["a"] * d["b"])(given)
    assert type(gradient) is type(given)
    assert list(gradient) == ["b", "a"]
    assert (float(gradient["a"]), float(gradient["b"])) == (1, 2)


def test_second_derivatives_of_structures(device):
    def f(tree):
        return gg.sum(tree[0] ** 2 * tree[1])

    primals, v = [array([1.0, 2.0]), array([3.0, 4.0])], [array([1.0, 0.0]), array([0.0, 1.0])]
    product = gg.jvp(gg.grad(f), (primals,), (v,))[1]
    np.testing.assert_allclose(host(product[0]), [6, 4])
    np.testing.assert_allclose(host(product[1]), [2, 0])


# ---- arguments and options


def power(x, y, *, scale=1.0):
    """A docstring."""
    return gg.sum(scale * x**2 * y**3)


@pytest.mark.parametrize(
    ("argnums", "expected"),
    [
        (0, 48.0),
        (1, 108.0),
        (-1, 108.0),
        ((0,), (48.0,)),
        ((1, 0), (108.0, 48.0)),
        ([0, 1], (48.0, 108.0)),
    ],
)
def test_argnums(argnums, expected, device):
    got = gg.grad(power, argnums)(array(3.0), array(2.0))
    assert type(got) is (tuple if isinstance(expected, tuple) else type(array(0.0)))
    np.testing.assert_array_equal([host(x) for x in flat(got)], np.atleast_1d(expected))


def test_other_arguments_pass_through_untouched(device):
    seen = []

    def f(x, y, *, key):
        seen.extend([y, key])
        return x * x

    y, key = object(), [1, "a"]
    assert float(gg.grad(f)(array(3.0), y, key=key)) == 6
    assert seen == [y, key]
    assert seen[1] is key
    assert float(gg.grad(power)(array(3.0), array(2.0), scale=10.0)) == 480


def test_the_function_keeps_its_name():
    assert gg.grad(power).__name__ == "power"
    assert gg.value_and_grad(power).__doc__ == "A docstring."


@pytest.mark.parametrize("argnums", [2, -3, (0, 5)])
def test_argnums_out_of_range(argnums):
    with pytest.raises(ValueError, match=r"argnums.*2 positional"):
        gg.grad(power, argnums)(1.0, 2.0)


def test_has_aux(device):
    def f(x):
        y = x * x
        return gg.sum(y), {"square": y, "text": "text", "none": None}

    x = array([1.0, 2.0])
    (value, aux), gradient = gg.value_and_grad(f, has_aux=True)(x)
    assert float(value) == 5
    assert is_raw(aux["square"])
    assert (aux["text"], aux["none"]) == ("text", None)
    np.testing.assert_array_equal(host(aux["square"]), [1, 4])
    np.testing.assert_array_equal(host(gradient), [2, 4])
    gradient, aux = gg.grad(f, has_aux=True)(gg.asarray(x))
    np.testing.assert_array_equal(host(gradient), [2, 4])
    assert isinstance(aux["square"], gg.Tensor)
    assert not aux["square"].requires_grad


def test_aux_stays_on_an_outer_tape(device):
    def f(x):
        _, aux = gg.grad(lambda y: (y * y, y * x), has_aux=True)(array(5.0))
        return aux

    assert float(gg.grad(f)(array(3.0))) == 5


def test_a_pullback_may_be_called_often(device):
    x = array([1.0, 2.0])
    _, pullback = gg.vjp(lambda x: x * x, x)
    for factor in (1.0, 3.0):
        np.testing.assert_array_equal(host(pullback(x * factor)[0]), 2 * factor * host(x) ** 2)


def test_a_result_that_is_there_twice(device):
    x = array([1.0, 2.0])

    def f(x):
        y = x * x
        return y, y, x

    out, pullback = gg.vjp(f, x)
    np.testing.assert_array_equal(host(pullback(out)[0]), 2 * 2 * host(x) ** 3 + host(x))


def test_the_same_array_as_two_arguments(device):
    x = array(3.0)
    a, b = gg.grad(lambda a, b: a * a * b, argnums=(0, 1))(x, x)
    assert (float(a), float(b)) == (18, 9)


# ---- functions without much of a derivative


@each_mode
def test_a_function_that_does_not_depend_on_its_argument(d, device):
    other = gg.asarray(array(5.0))
    for f in (lambda x: other, lambda x: other * 2, lambda x: x.detach() * 2):
        got = d(f)(array(3.0))
        assert float(got) == 0


def test_zeros_for_an_argument_that_is_not_used(device):
    x = array([1.0, 2.0], "float32")
    a, b = gg.grad(lambda a, b: gg.sum(a), argnums=(0, 1))(x, x)
    assert_same(a, np.ones(2, np.float32))
    assert_same(b, np.zeros(2, np.float32))


@pytest.mark.parametrize("name", ["floor", "ceil", "trunc", "round", "sign"])
@each_mode
def test_piecewise_constant_functions_have_derivative_0(d, name, device):
    for x in (0.3, -2.0, 0.0):
        assert float(d(getattr(gg, name))(array(x))) == 0
        assert float(d(d(getattr(gg, name)))(array(x))) == 0


@pytest.mark.parametrize(
    "f",
    [
        lambda x: (x > 0).astype("float64"),
        lambda x: gg.argmax(x).astype("float64"),
        lambda x: x.astype("int64").astype("float64"),
        lambda x: gg.zeros_like(x),
        lambda x: gg.full_like(x, 3),
    ],
)
@each_mode
def test_integer_and_boolean_results_cut_the_tape(d, f, device):
    assert float(d(f)(array(0.3))) == 0


@each_mode
def test_identity(d, device):
    assert float(d(lambda x: x)(array(3.0))) == 1


# ---- complex numbers


def test_holomorphic_functions(device):
    """jvp: f'(z) t; vjp: conj(f'(z)) g, so that real gradients are steepest ascent."""
    z, t = array([0.3 + 0.4j, -1 + 2j]), array([1 - 1j, 2j])
    _, tangent = gg.jvp(lambda z: gg.sin(z) * z, (z,), (t,))
    h, s = host(z), host(t)
    slope = np.cos(h) * h + np.sin(h)
    np.testing.assert_allclose(host(tangent), slope * s)
    (cotangent,) = gg.vjp(lambda z: gg.sin(z) * z, z)[1](t)
    np.testing.assert_allclose(host(cotangent), np.conj(slope) * s)


@pytest.mark.parametrize("names", list(itertools.product(["vjp", "jvp"], repeat=3)), ids="-".join)
def test_nested_complex_derivatives(names, device):
    modes = {  # the pullback conjugates
        "jvp": MODES["jvp"],
        "vjp": lambda f: lambda z: gg.conj(MODES["vjp"](f)(z)),
    }
    f = gg.exp
    for name in names:
        f = modes[name](f)
    z = array(0.3 + 0.4j)
    np.testing.assert_allclose(host(f(gg.asarray(z))), np.exp(host(z)))


def test_steepest_ascent_and_its_derivative(device):
    def f(z):
        return gg.sum(gg.abs(z) ** 4)

    z = array([1 + 2j, -0.5j])
    np.testing.assert_allclose(host(gg.grad(f)(z)), 4 * abs(host(z)) ** 2 * host(z))
    # the Hessian of |z|**4 along z itself
    np.testing.assert_allclose(
        host(gg.jvp(gg.grad(f), (z,), (z,))[1]), 12 * abs(host(z)) ** 2 * host(z)
    )


# ---- bad input


@pytest.mark.parametrize("x", [3, [1, 2], True, np.arange(3)], ids=str)
@each_mode
def test_inputs_without_derivative(d, x):
    with pytest.raises(TypeError, match="only a floating-point or complex tensor"):
        d(lambda x: x)(x)


def unnamed(x):
    return float(gg.sum(x))


@pytest.mark.parametrize("f", [unnamed, lambda x: x.get(), lambda x: None, lambda x: "text"])
@each_mode
def test_results_that_are_no_tensors(d, f, device):
    with pytest.raises(TypeError, match=rf"{f.__name__} returned .* Tensor is needed"):
        d(f)(array(1.0))


@pytest.mark.parametrize("transform", [gg.grad, gg.value_and_grad])
def test_grad_needs_a_real_scalar(transform, device):
    with pytest.raises(ValueError, match=r"grad.*\(2,\)"):
        transform(lambda x: x * x)(array([1.0, 2.0]))
    with pytest.raises(TypeError, match=r"grad.*real scalar.*complex128"):
        transform(lambda z: z * z)(array(1j))


@pytest.mark.parametrize(
    ("tangents", "error", "message"),
    [
        (([1.0, 2.0, 3.0],), ValueError, r"jvp: tangents\[0\]: one array"),
        ((np.ones(3),), ValueError, r"shape \(3,\) where \(2,\)"),
        ((), ValueError, "jvp: tangents: a tuple of 1 items"),
        ((np.ones(2), np.ones(2)), ValueError, "jvp: tangents: a tuple of 1 items"),
        (np.ones(2), TypeError, "tuples or lists"),
        (("text",), TypeError, "numbers are needed"),
    ],
)
def test_tangents_that_do_not_fit(tangents, error, message, device):
    if isinstance(tangents, tuple):
        tangents = tuple(array(t) if isinstance(t, np.ndarray) else t for t in tangents)
    with pytest.raises(error, match=message):
        gg.jvp(gg.sin, (array([1.0, 2.0]),), tangents)


@pytest.mark.parametrize(
    ("g", "message"),
    [
        (np.ones(3), r"shape \(3,\) where \(2,\)"),
        ((np.ones(2), np.ones(2)), "vjp: the cotangent: one array"),
    ],
)
def test_cotangents_that_do_not_fit(g, message, device):
    g = array(g) if isinstance(g, np.ndarray) else tuple(map(array, g))
    _, pullback = gg.vjp(gg.sin, array([1.0, 2.0]))
    with pytest.raises(ValueError, match=message):
        pullback(g)


def test_a_cotangent_is_cast_to_the_dtype_of_the_result(device):
    x = array([1.0, 2.0], "float32")
    (cotangent,) = gg.vjp(lambda x: x * 2, x)[1](array([1.0, 2.0], "float64"))
    assert_same(cotangent, np.array([2, 4], np.float32))


def test_an_error_in_the_function_leaves_recording_as_it_was(device):
    def f(x):
        raise KeyError

    with gg.no_grad():
        with pytest.raises(KeyError):
            gg.grad(f)(array(1.0))
        assert not (leaf(1.0) * 2).requires_grad


def test_structures_are_compared_by_key_and_not_by_order(device):
    one, zero = array(1.0), array(0.0)

    def f(d):
        return d["a"] * 2 + d["b"] * 3

    _, tangent = gg.jvp(f, ({"a": one, "b": one},), ({"b": one, "a": zero},))
    assert float(host(tangent)) == 3
    with pytest.raises(ValueError, match=r"tangents\[0\].*\['a', 'b'\]"):
        gg.jvp(f, ({"a": one, "b": one},), ({"a": one},))
    _, pullback = gg.vjp(lambda x: {"a": x * 2, "b": x * 3}, one)
    assert float(host(pullback({"b": one, "a": zero})[0])) == 3
    with pytest.raises(ValueError, match="list of 2"):
        gg.jvp(lambda x: x[0] + x[1][0], ([one, [one]],), ([[one], one, one],))


@pytest.mark.parametrize("argnums", [(0, 0), (0, -2)])
def test_an_argument_named_twice(argnums, device):
    with pytest.raises(ValueError, match="twice"):
        gg.grad(lambda a, b: a * b, argnums=argnums)(array(2.0), array(3.0))


def test_has_aux_needs_a_pair(device):
    with pytest.raises(TypeError, match="pair"):
        gg.grad(lambda x: x * x, has_aux=True)(array(2.0))


def test_a_value_shares_no_memory_with_the_argument(device):
    x = array([1.0, 2.0])
    for value in (gg.vjp(lambda x: x, x)[0], gg.jvp(lambda x: x[:1], (x,), (x,))[0]):
        value[...] = -7
    np.testing.assert_array_equal(host(x), [1, 2])
