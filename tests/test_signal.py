"""Sequences: what is refused, ends and knots, and precision."""

import numpy as np
import pytest
from helpers import array, assert_same, gradients, host, leaf

import gpugrad as gg

x = np.array([1.0, 2.0, 4.0])


@pytest.mark.parametrize(
    ("error", "message", "args", "options"),
    [
        (TypeError, "pad: pad_width holds integers, not float64", (1.5,), {}),
        (ValueError, r"pad: pad_width of shape \(3,\) is no pair per axis", ([1, 2, 3],), {}),
        (ValueError, "pad: widths must not be negative", ((1, -1),), {}),
        (ValueError, "pad: mode is .*'mean'", (1, "mean"), {}),
        (ValueError, "pad: constant_values of shape", (1,), {"constant_values": (1, 2, 3)}),
    ],
)
def test_padding_refused(error, message, args, options, device):
    with pytest.raises(error, match=message):
        gg.pad(leaf(x), *args, **options)


def test_padding_of_nothing(device):
    empty = leaf(np.zeros((2, 0)))
    assert gg.pad(empty, 1).shape == (4, 2)
    with pytest.raises(ValueError, match=r"pad: axis 1 of shape \(2, 0\)"):
        gg.pad(empty, 1, "edge")


@pytest.mark.parametrize("mode", ["edge", "reflect", "symmetric", "wrap"])
def test_padding_of_any_width(mode, device):
    for n in range(1, 5):
        for pair in [(0, 1), (2, 3), (5, 0), (9, 11)]:
            values = np.arange(1.0, n + 1)
            index = np.pad(np.arange(n), pair, mode)
            assert_same(gg.pad(gg.asarray(array(values)), pair, mode), values[index])
            (got,) = gradients(lambda a, pair=pair: gg.pad(a, pair, mode), values)
            np.testing.assert_array_equal(got, np.bincount(index, minlength=n))


@pytest.mark.parametrize("name", ["convolve", "correlate"])
def test_convolution_refused(name, device):
    f = getattr(gg, name)
    with pytest.raises(ValueError, match=f"{name}: mode .*'middle'"):
        f(leaf(x), leaf(x), mode="middle")
    with pytest.raises(ValueError, match=rf"{name}: two sequences .*\(3, 1\) and \(3,\)"):
        f(leaf(x[:, None]), leaf(x))
    with pytest.raises(ValueError, match=rf"{name}: two sequences .*\(3,\) and \(0,\)"):
        f(leaf(x), leaf([]))
    with pytest.raises(TypeError, match=f"{name}: .*list"):
        f(leaf(x), [1.0])


@pytest.mark.parametrize("mode", ["full", "same", "valid"])
def test_convolution_with_an_impulse(mode, device):
    """The impulse shifts, and the gradient shifts back."""
    impulse = np.array([0.0, 0.0, 1.0])
    a = np.arange(1.0, 8.0)
    assert_same(gg.convolve(leaf(a), leaf(impulse), mode), np.convolve(a, impulse, mode))
    w = np.random.default_rng(0).standard_normal(np.convolve(a, impulse, mode).shape)
    got, _ = gradients(lambda a, b: gg.convolve(a, b, mode) * array(w), a, impulse)
    start = {"full": 0, "same": 1, "valid": 2}[mode]
    full = np.zeros(9)
    full[start : start + len(w)] = w
    np.testing.assert_array_equal(got, full[2:])


def test_large_and_small_elements_do_not_mix(device):
    """As transforms would."""
    a = np.array([1e8, 0, 0, 0, 1, 1], np.float32)
    assert host(gg.convolve(gg.asarray(array(a)), gg.asarray(array(np.float32([1, 1])))))[5] == 2


def test_interpolation_refused(device):
    a = leaf(x)
    with pytest.raises(ValueError, match=r"interp: .*\(3,\) and \(2,\)"):
        gg.interp(a, a, a[:2])
    with pytest.raises(ValueError, match=r"interp: .*\(0,\)"):
        gg.interp(a, a[:0], a[:0])
    with pytest.raises(ValueError, match="interp: period"):
        gg.interp(a, a, a, period=0)
    with pytest.raises(TypeError, match="interp: positions are real, got complex128"):
        gg.interp(gg.asarray(array(x + 1j)), a, a)


def test_interpolation_at_the_ends(device):
    at = array([-np.inf, 0.0, 1.0, 4.0, 5.0, np.inf, np.nan])
    knots, values = array(x), array([3.0, 5.0, 11.0])
    got = host(gg.interp(at, knots, values))
    np.testing.assert_array_equal(got, [3, 3, 3, 11, 11, 11, np.nan])
    got = host(gg.interp(at, knots, values, left=-1, right=-2))
    np.testing.assert_array_equal(got, [-1, -1, 3, 11, -2, -2, np.nan])
    at[-1] = 2.0
    slope, _, weights = gradients(gg.interp, host(at), x, host(values))
    np.testing.assert_array_equal(slope, [0, 0, 2, 3, 0, 0, 3])
    np.testing.assert_array_equal(weights, [3, 1, 3])


def test_interpolated_single_precision(device):
    a = np.float32([0.5, 1.5])
    out = gg.interp(array(a), array(x.astype(np.float32)), array(x.astype(np.float32)))
    assert out.dtype == np.float32


def test_integral_of_a_parabola(device):
    at = np.linspace(0, 1, 101) ** 2
    got = host(gg.trapezoid(array(at**2), array(at)))
    assert got == pytest.approx(1 / 3, abs=1e-4)
    assert_same(gg.trapezoid(leaf(at), dx=0.5), np.trapezoid(at, dx=0.5))
    with pytest.raises(ValueError, match="axis 2 is out of bounds"):
        gg.trapezoid(leaf(at), axis=2)
