"""Values where the standard differs from NumPy, or NumPy and CuPy from each other."""

import numpy as np
import pytest
from helpers import assert_same, host

import gpugrad as gg

inf, nan = np.inf, np.nan


def test_floor_divide_of_infinities(device):
    a = gg.asarray([inf, inf, -inf, -inf, 1.0, -1.0, 1.0, inf, nan, 7.0])
    b = gg.asarray([2.0, -2.0, 2.0, -2.0, -inf, inf, inf, inf, inf, 2.0])
    wanted = np.array([inf, -inf, -inf, inf, -0.0, -0.0, 0.0, nan, nan, 3.0])
    with np.errstate(invalid="ignore"):
        out = host(a // b)
    np.testing.assert_array_equal(out, wanted)
    np.testing.assert_array_equal(np.signbit(out[:7]), np.signbit(wanted[:7]))
    with np.errstate(all="raise"):  # an infinity is no invalid operation
        assert_same(a[:4] // b[:4], wanted[:4])
    assert host(gg.asarray(inf, dtype="float32") // 2) == inf
    assert (gg.asarray([inf], dtype="float32") // 2.0).dtype == np.float32


def test_expm1_at_complex_infinities(device):
    x = gg.asarray([complex(inf, 0), complex(-inf, inf), complex(inf, nan), complex(nan, 0), 1j])
    with np.errstate(invalid="ignore"):
        out = host(gg.expm1(x))
    wanted = [complex(inf, 0), -1, complex(inf, nan), complex(nan, 0), np.expm1(1j)]
    np.testing.assert_allclose(out.real, np.real(wanted), rtol=1e-14)
    np.testing.assert_allclose(out.imag, np.imag(wanted), rtol=1e-14)


def test_expm1_of_complex_zeros(device):
    out = host(gg.expm1(gg.asarray([complex(-0.0, 0.0), complex(-0.0, -0.0), complex(0, 0)])))
    np.testing.assert_array_equal(out, [0, 0, 0])
    assert np.signbit(out.real).tolist() == [False, False, False]
    assert np.signbit(out.imag).tolist() == [False, True, False]


def test_tanh_at_complex_infinities(device):
    x = [complex(inf, 2), complex(inf, -2), complex(-inf, 2), complex(inf, 1e154), 1 + 1j]
    out = host(gg.tanh(gg.asarray(x)))
    np.testing.assert_allclose(out, [1, 1, -1, 1, np.tanh(1 + 1j)], rtol=1e-14)
    assert np.signbit(out.imag).tolist() == [False, True, False, False, False]


@pytest.mark.parametrize("name", ["log", "log1p"])
def test_the_logarithm_of_an_infinite_complex_number_is_infinite(name, device):
    x = gg.asarray([complex(inf, nan), complex(nan, inf), complex(-inf, nan), complex(nan, 1)])
    with np.errstate(invalid="ignore"):
        out = host(getattr(gg, name)(x))
    np.testing.assert_array_equal(out.real, [inf, inf, inf, nan])
    assert np.isnan(out.imag).all()


def test_what_nan_leaves_known(device):
    with np.errstate(invalid="ignore"):
        out = host(gg.tanh(gg.asarray([complex(0, inf), complex(0, nan), complex(-0.0, nan)])))
        root = host(gg.acosh(gg.asarray(complex(0, nan))))
    np.testing.assert_array_equal(out.real, [0, 0, 0])
    assert np.isnan(out.imag).all()
    np.testing.assert_allclose(abs(root.imag), np.pi / 2)


def test_a_zero_keeps_its_sign(device):
    for x in (
        gg.asarray(-0.0),
        gg.asarray([-0.0]),
        gg.full(2, -0.0),
        gg.asarray(-0.0, dtype="float32"),
    ):
        assert np.signbit(host(x)).all()


def test_sign_of_complex_zeros(device):
    out = host(gg.sign(gg.asarray([0j, complex(-0.0, -0.0), 3 + 4j])))
    np.testing.assert_allclose(out, [0, 0, 0.6 + 0.8j], rtol=1e-15)
    assert not np.signbit(out.real[:2]).any()
    with pytest.raises(TypeError):
        gg.sign(gg.asarray([True]))


def test_integers_have_no_negative_powers(device):
    x = gg.asarray([1, 2])
    for call in (lambda: x**-1, lambda: x ** gg.asarray([1, -1]), lambda: 2 ** gg.asarray(-1)):
        with pytest.raises(ValueError, match="negative integer powers"):
            call()
    assert_same(x ** gg.asarray([3, 0]), np.array([1, 1]))
    assert_same(x ** gg.asarray([3, 2], dtype="uint8"), np.array([1, 4]))


def test_einsum_keeps_the_axes_of_an_ellipsis(device):
    with pytest.raises(ValueError, match=r"\.\.\.i->i"):
        gg.einsum("...i->i", gg.ones((2, 3)))
    assert_same(gg.einsum("...i->i", gg.ones(3)), np.ones(3))


def test_an_axis_out_of_bounds_is_both_an_index_and_a_value_error(device):
    x = gg.ones((2, 3))
    for call in (
        lambda: gg.expand_dims(x, axis=4),
        lambda: gg.sum(x, axis=2),
        lambda: gg.flip(x, axis=-3),
        lambda: gg.sort(x, axis=2),
    ):
        with pytest.raises(IndexError, match="out of bounds"):
            call()
        with pytest.raises(ValueError, match=r"float64 \(2, 3\) on|normalize|axis"):
            call()
