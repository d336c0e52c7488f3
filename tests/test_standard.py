"""The names of the array API standard 2025.12, each with a derivative where it has one; and values
where the standard differs from NumPy, or NumPy and CuPy from each other.

The standard's own conformance suite (data-apis/array-api-tests) checks signatures, dtypes and
values; `.ci/run` runs it where the setting ARRAY_API_TESTS names a checkout.
"""

import numpy as np
import pytest
from helpers import assert_same, host

import gpugrad as gg
from gpugrad.testing.table import ROWS

inf, nan = np.inf, np.nan

NAMES = """
arange asarray empty empty_like eye from_dlpack full full_like linspace meshgrid ones ones_like tril
triu zeros zeros_like
astype can_cast finfo iinfo isdtype result_type
abs acos acosh add asin asinh atan atan2 atanh bitwise_and bitwise_left_shift bitwise_invert
bitwise_or bitwise_right_shift bitwise_xor ceil clip conj copysign cos cosh divide equal exp expm1
floor floor_divide greater greater_equal hypot imag isfinite isinf isnan less less_equal log log1p
log2 log10 logaddexp logical_and logical_not logical_or logical_xor maximum minimum multiply
negative nextafter not_equal positive pow real reciprocal remainder round sign signbit sin
sinh square sqrt subtract tan tanh trunc
take take_along_axis
matmul matrix_transpose tensordot vecdot
broadcast_arrays broadcast_shapes broadcast_to concat expand_dims flip moveaxis permute_dims repeat
reshape roll squeeze stack tile unstack
argmax argmin count_nonzero nonzero searchsorted where
isin unique_all unique_counts unique_inverse unique_values
argsort sort
cumulative_prod cumulative_sum max mean min prod std sum var
all any diff
fft.fft fft.ifft fft.fftn fft.ifftn fft.rfft fft.irfft fft.rfftn fft.irfftn fft.hfft fft.ihfft
fft.fftfreq fft.rfftfreq fft.fftshift fft.ifftshift
linalg.cholesky linalg.cross linalg.det linalg.diagonal linalg.eigh linalg.eigvalsh linalg.eig
linalg.eigvals linalg.inv linalg.matmul linalg.matrix_norm linalg.matrix_power linalg.matrix_rank
linalg.matrix_transpose linalg.outer linalg.pinv linalg.qr linalg.slogdet linalg.solve linalg.svd
linalg.svdvals linalg.tensordot linalg.trace linalg.vecdot linalg.vector_norm
""".split()

# Their results are integers, booleans, dtypes, or made of no array.
CONSTANT = """
arange empty empty_like eye full full_like ones ones_like zeros zeros_like from_dlpack
can_cast finfo iinfo isdtype result_type broadcast_shapes
bitwise_and bitwise_left_shift bitwise_invert bitwise_or bitwise_right_shift bitwise_xor
equal greater greater_equal isfinite isinf isnan less less_equal not_equal signbit
logical_and logical_not logical_or logical_xor all any
argmax argmin count_nonzero nonzero searchsorted isin argsort fft.fftfreq fft.rfftfreq
linalg.matrix_rank
""".split()


@pytest.mark.parametrize("name", NAMES)
def test_the_name_is_there(name):
    module, _, function = name.rpartition(".")
    assert callable(getattr(getattr(gg, module) if module else gg, function))


def test_what_has_a_derivative_has_one():
    differentiated = {row.name.rpartition(".")[2] for row in ROWS if row.order}
    named = {name.rpartition(".")[2] for name in {*NAMES} - {*CONSTANT}}
    assert named - differentiated == {"asarray", "linspace"}  # tested in test_creation.py


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
