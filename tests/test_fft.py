"""Discrete Fourier transforms: what they refuse, their dtypes, and how gradients follow."""

import numpy as np
import pytest
from helpers import array, assert_same, gradients

import gpugrad as gg
from gpugrad import backends
from gpugrad.cuda.functions import _inverse_of_real, _sized
from gpugrad.testing import check_grads
from gpugrad.testing.table import ROWS

NAMES = ["fft", "ifft", "rfft", "irfft", "hfft", "ihfft", "fftn", "ifftn", "rfftn", "irfftn"]

on_cufft = pytest.mark.parametrize("needs", ["cuFFT"])

x = np.random.default_rng(0).standard_normal((3, 5))


@pytest.mark.parametrize("name", NAMES)
def test_refused(name, device):
    f, a = getattr(gg.fft, name), gg.asarray(array(x))
    many = name.endswith("n")
    with pytest.raises(ValueError, match=f"^{name}: norm .*'unitary'"):
        f(a, norm="unitary")
    for size in (0, -2) if many else (0, -1, -2):
        with pytest.raises(ValueError, match=rf"^{name}: at least one point.*\(3, 5\)"):
            f(a, s=(size,), axes=(0,)) if many else f(a, n=size)
    for size in (2.5, "4"):
        with pytest.raises(TypeError, match=f"^{name}: lengths are integers"):
            f(a, s=(size,), axes=(0,)) if many else f(a, n=size)
    with pytest.raises(ValueError, match="axis 2 is out of bounds"):
        f(a, axes=(0, 2)) if many else f(a, axis=2)
    with pytest.raises(TypeError, match=f"^{name}: .*list"):
        f([1.0, 2.0])
    if many:
        with pytest.raises(ValueError, match="repeated axis"):
            f(a, axes=(1, 1))
        with pytest.raises(ValueError, match=f"^{name}: 1 lengths for 2 axes"):
            f(a, s=(4,), axes=(0, 1))
        with pytest.raises(ValueError, match=f"^{name}: .*needs the axes"):
            f(a, s=(4, 4))


@pytest.mark.parametrize("name", ["rfft", "ihfft", "rfftn", "rfft2"])
def test_complex_input_of_a_real_transform(name, device):
    with pytest.raises(TypeError, match=r"the input is real, got complex128 \(3, 5\)"):
        getattr(gg.fft, name)(gg.asarray(array(x + 1j)))


@on_cufft
@pytest.mark.parametrize("name", NAMES)
def test_halves_are_computed_in_single_precision(name, needs, device):
    half = gg.asarray(array(x.astype(np.float16)), requires_grad=True)
    out = getattr(gg.fft, name)(half)
    single = getattr(gg.fft, name)(array(x.astype(np.float16).astype(np.float32)))
    assert_same(out, gg.asarray(single))
    gg.sum(gg.abs(out)).backward()
    assert half.grad.dtype == np.float16


@on_cufft
def test_positional_arguments_and_no_norm(needs, device):
    a = array(x)
    assert_same(gg.asarray(gg.fft.fft(a, 4, 0, None)), np.fft.fft(x, 4, 0))
    assert_same(
        gg.asarray(gg.fft.rfftn(a, (2, 4), (0, 1), "ortho")),
        np.fft.rfftn(x, (2, 4), (0, 1), "ortho"),
    )


@on_cufft
def test_convolution_theorem(needs, device):
    """The gradient through transforms is that of the circular convolution they compute."""
    a, b, w = np.random.default_rng(0).standard_normal((3, 7))

    def by_transforms(a, b):
        return gg.fft.irfft(gg.fft.rfft(a) * gg.fft.rfft(b), n=7) * array(w)

    def circulant(v):
        return np.stack([np.roll(v, i) for i in range(7)], axis=1)

    got = gradients(by_transforms, a, b)
    np.testing.assert_allclose(got[0], circulant(b).T @ w, rtol=1e-12)
    np.testing.assert_allclose(got[1], circulant(a).T @ w, rtol=1e-12)


def test_a_shift_moves_the_gradient_back(device):
    w = np.arange(15.0).reshape(3, 5)
    (got,) = gradients(lambda a: gg.fft.fftshift(a, axes=-1) * array(w), x)
    np.testing.assert_array_equal(got, np.fft.ifftshift(w, axes=-1))
    assert_same(gg.fft.ifftshift(gg.fft.fftshift(gg.asarray(array(x)))), x)
    with pytest.raises(ValueError, match="axis 3 is out of bounds"):
        gg.fft.fftshift(array(x), axes=3)


class Fourier:
    """In place of the GPU library: its transforms are NumPy's, and noted."""

    def __init__(self):
        self.calls = []

    def __getattr__(self, name):
        def transform(*args):
            self.calls.append((name, *args[1:]))
            return getattr(np.fft, name)(*args)

        return transform


@pytest.mark.parametrize(("s", "axes"), [((4,), (1,)), ((5, 4), (0, 1)), ((3, 5, 3), (2, 0, 1))])
def test_inverse_of_several_real_axes_on_a_gpu(s, axes):
    """Complex transforms along all axes but the last, where a real one comes last."""
    library = Fourier()
    a = np.random.default_rng(0).standard_normal((2, 3, 4, 2)) @ np.array([1, 1j])
    out = _inverse_of_real(library)(a, s, axes, "ortho")
    np.testing.assert_allclose(out, np.fft.irfftn(a, s, axes, "ortho"), rtol=1e-13, atol=1e-14)
    several = [("ifftn", s[:-1], axes[:-1], "ortho")] if len(axes) > 1 else []
    assert library.calls == [*several, ("irfft", s[-1], axes[-1], "ortho")]


def test_lengths_are_those_along_the_axes_that_are_given():
    """CuPy takes a tuple that is the shape of x for "as it is", whatever the axes."""
    lengths = _sized(lambda x, s, axes, norm: (s != x.shape, tuple(s)))
    assert lengths(np.zeros((2, 3)), (2, 3), (1, 0), "backward") == (True, (2, 3))


@pytest.mark.parametrize("case", [row for row in ROWS if row.needs == "cuFFT"], ids=str)
def test_all_around_the_transforms_of_a_gpu(case, cuda, monkeypatch):
    """With transforms by NumPy in place of those of the GPU library."""
    backend = backends.backend_of_kind("cuda")

    class Library:
        def __getattr__(self, name):
            def transform(a, *args):
                out = getattr(np.fft, name)(backend.to_host(a), *args)
                return backend.asarray(out, None, cuda, None)

            return transform

    for name in ("fftn", "ifftn", "rfftn"):
        monkeypatch.setattr(backend.xp, name, getattr(Library(), name))
    monkeypatch.setattr(backend.xp, "irfftn", _inverse_of_real(Library()))
    with cuda:
        for dtype in case.dtypes:
            args = case.draw(dtype)
            assert_same(case.function(*map(gg.asarray, map(array, args))), case.reference(*args))
        if case.order:
            check_grads(case.function, [array(a) for a in case.draw(case.dtypes[-1])], order=2)
