"""check_grads accepts right rules and refuses wrong ones, saying where."""

import itertools

import numpy as np
import pytest
from helpers import array, host

import gpugrad as gg
from gpugrad.rules import elementwise, general, raw, xp
from gpugrad.testing import GradientError, check_grads

X = np.array([[0.3, -1.2, 2.0], [0.7, 1.5, -0.4]])


def sine(vjp, jvp):
    """The sine with rules of one's own."""

    @general((vjp,), (jvp,))
    def sine(x, /):
        return xp(x).sin(x)

    return sine


def right(t, x):
    return t * gg.cos(x)


def wrong(t, x):
    return t * gg.sin(x)


def wrong_in_one_entry(t, x):
    bad = np.zeros(x.shape)
    bad[1, 2] = 1e-4
    return right(t, x) + t * array(bad)


def wrong_for_small(t, x):
    return t * gg.where(gg.abs(x) < 0.35, 1, gg.cos(x))


def not_recorded(t, x):
    return t * raw(gg.cos(x))


def doubled(t, x):
    return gg.concat([right(t, x)] * 2)


def off_by_conjugate(t, x):
    return t * gg.conj(gg.cos(x))


def test_right_rules_pass(device):
    check_grads(sine(right, right), [array(X)], order=3)
    check_grads(sine(right, right), [array(X + 0.5j)])
    check_grads(elementwise("sin", right, doc=""), [array(X, "float32")])


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize(
    ("vjp", "jvp", "message"),
    [
        (wrong, wrong, r"sine: jvp against a central difference, result 0: 6 of 6 entries"),
        (right, wrong, r"sine: jvp against a central difference, result 0: 6 of 6 entries"),
        (wrong, right, r"sine: vjp against the jvp, argument 0: 6 of 6 entries"),
        (wrong_in_one_entry, right, r"vjp against the jvp.*: 1 of 6 .* worst at \(1, 2\): got"),
        (right, wrong_in_one_entry, r"central difference.*: 1 of 6 .* worst at \(1, 2\): got"),
        (wrong_for_small, right, r"vjp against the jvp.*: 1 of 6 .* worst at \(0, 0\): got"),
        (doubled, right, r"cotangent of argument 0 is float64 \(4, 3\) where float64 \(2, 3\)"),
        (lambda t, x: t * np.nan, right, "vjp against the jvp"),
        (right, lambda t, x: t * np.nan, "central difference"),
        (lambda t, x: t * 0, right, "vjp against the jvp"),
        (lambda t, x: right(t, x) * (1 + 1e-7), right, "vjp against the jvp"),
        (right, lambda t, x: right(t, x) * (1 + 1e-4), "central difference"),
    ],
)
def test_wrong_rules_are_refused(vjp, jvp, message, order, device):
    with pytest.raises(GradientError, match=message):
        check_grads(sine(vjp, jvp), [array(X)], order)


def test_a_tangent_of_the_wrong_shape_is_refused(device):
    with pytest.raises((GradientError, ValueError)):
        check_grads(sine(right, doubled), [array(X)])


@pytest.mark.parametrize(
    ("vjp", "jvp"),
    [(right, not_recorded), (not_recorded, right), (not_recorded, not_recorded)],
)
def test_wrong_second_derivatives_are_refused(vjp, jvp, device):
    f = sine(vjp, jvp)
    check_grads(f, [array(X)], order=1)
    with pytest.raises(GradientError, match="(gradient|derivative) of sine"):
        check_grads(f, [array(X)], order=2)


@pytest.mark.parametrize("rules", [(right, off_by_conjugate), (off_by_conjugate, right)])
def test_a_wrong_conjugate_is_refused(rules, device):
    check_grads(sine(*rules), [array(X)])
    with pytest.raises(GradientError):
        check_grads(sine(*rules), [array(X + 0.5j)])


def test_the_wrong_argument_is_named(device):
    @general((lambda t, b: t * b, lambda t, a: -t * a), (lambda t, b: t * b, lambda t, a: t * a))
    def product(a, b, /):
        return a * b

    with pytest.raises(GradientError, match="product: vjp against the jvp, argument 1: 6 of 6"):
        check_grads(product, [array(X), array(X)])


def test_the_wrong_result_is_named(device):
    def f(x):
        return gg.cos(x), {"sine": sine(wrong, wrong)(x)}

    with pytest.raises(GradientError, match=r"f: jvp against a central difference, result 1"):
        check_grads(f, [array(X)])


def test_a_lost_gradient_is_refused(device):
    with pytest.raises(GradientError, match="central difference"):
        check_grads(lambda x: x * x.detach(), [array(X)])


def test_a_function_of_chance_is_refused(device):
    count = itertools.count()
    with pytest.raises(GradientError, match="value under vjp and jvp"):
        check_grads(lambda x: x * float(next(count)), [array(X)])


def test_structures_and_tensors(device):
    def f(tree, y):
        return [tree["a"] * y, (tree["b"][0] + y,)]

    check_grads(f, [{"a": array(X), "b": [gg.asarray(array(X))]}, 2.0])
    check_grads(gg.sum, [array(np.zeros((0, 3)))])
    check_grads(gg.exp, [array(0.5)])


def test_arguments_are_not_written(device):
    x = array(X)
    t = gg.asarray(x, requires_grad=True, copy=False)
    check_grads(gg.sin, [x])
    check_grads(gg.sin, [t])
    np.testing.assert_array_equal(host(x), X)
    assert t.grad is None


def test_a_gradient_error_is_an_assertion_error():
    assert issubclass(GradientError, AssertionError)


def test_integers_are_refused(device):
    with pytest.raises(TypeError, match="int64"):
        check_grads(gg.square, [array([1, 2])])
