"""Convolution and pooling of images: what is refused, and what they mean."""

import numpy as np
import pytest
from helpers import array, gradients, host, leaf

import gpugrad as gg
from gpugrad import nn
from gpugrad.ops.convolution import patch_sums, patches
from gpugrad.testing import check_grads

rng = np.random.default_rng(0)
x = rng.standard_normal((2, 4, 6, 5))


@pytest.mark.parametrize(
    ("error", "message", "shape", "options"),
    [
        (ValueError, r"weight must have shape .*\(3, 4, 2\)", (3, 4, 2), {}),
        (ValueError, r"weight of shape \(3, 2, 2, 2\) .* \(2, 4, 6, 5\) in 1", (3, 2, 2, 2), {}),
        (ValueError, "in 2 groups", (3, 2, 2, 2), {"groups": 2}),
        (ValueError, "in 0 groups", (3, 4, 2, 2), {"groups": 0}),
        (ValueError, r"window of size \[7, 2\].* is larger", (3, 4, 7, 2), {}),
        (ValueError, "larger than images", (3, 4, 3, 3), {"dilation": 3}),
        (ValueError, "size must be at least 1", (3, 4, 0, 2), {}),
        (ValueError, "stride must be at least 1, got 0", (3, 4, 2, 2), {"stride": 0}),
        (ValueError, "padding must be at least 0", (3, 4, 2, 2), {"padding": (0, -1)}),
        (TypeError, "stride is an integer or two, not 1.5", (3, 4, 2, 2), {"stride": 1.5}),
        (
            TypeError,
            r"dilation is an integer or two, not \(1, 1, 1\)",
            (3, 4, 2, 2),
            {"dilation": (1,) * 3},
        ),
    ],
)
def test_convolution_refused(error, message, shape, options, device):
    with pytest.raises(error, match=f"^conv2d: .*{message}|^conv2d: {message}"):
        nn.conv2d(leaf(x), leaf(np.ones(shape)), **options)


def test_what_else_is_refused(device):
    weight = leaf(np.ones((3, 4, 2, 2)))
    with pytest.raises(ValueError, match=r"conv2d: images of shape .*\(4, 6, 5\)"):
        nn.conv2d(leaf(x[0]), weight)
    with pytest.raises(ValueError, match=r"conv2d: bias must have shape \(3,\), got \(4,\)"):
        nn.conv2d(leaf(x), weight, leaf(np.ones(4)))
    with pytest.raises(TypeError, match="conv2d: .*list"):
        nn.conv2d([1.0], weight)
    with pytest.raises(ValueError, match=r"conv1d: x and weight have 3 axes"):
        nn.conv1d(leaf(x), weight)
    sequences = gg.ones((2, 3, 4))
    with pytest.raises(ValueError, match=r"conv1d: weight of shape \(5, 2, 3\) .* \(2, 3, 4\)"):
        nn.conv1d(sequences, gg.ones((5, 2, 3)))
    with pytest.raises(ValueError, match=r"conv1d: bias must have shape \(5,\), got \(3,\)"):
        nn.conv1d(sequences, gg.ones((5, 3, 3)), gg.ones(3))
    for name in ("max_pool2d", "avg_pool2d"):
        pool = getattr(nn, name)
        with pytest.raises(ValueError, match=f"{name}: padding 2 is more than half of size 3"):
            pool(leaf(x), 3, padding=2)
        with pytest.raises(ValueError, match=f"{name}: a window of size 7"):
            pool(leaf(x), 7)
        with pytest.raises(TypeError, match=f"{name}: size is an integer or two, not None"):
            pool(leaf(x), None)


def test_a_kernel_of_one_entry_shifts(device):
    """A cross-correlation: the kernel is not mirrored."""
    weight = np.zeros((1, 4, 3, 3))
    weight[0, 2, 0, 1] = 1
    out = host(nn.conv2d(leaf(x), leaf(weight), padding=1))
    np.testing.assert_array_equal(out[:, 0, 1:], x[:, 2, :-1])
    np.testing.assert_array_equal(out[:, 0, 0], 0)


def test_groups_are_convolutions_of_their_own(device):
    weight, bias = rng.standard_normal((6, 2, 3, 2)), rng.standard_normal(6)
    whole = host(nn.conv2d(leaf(x), leaf(weight), leaf(bias), groups=2))
    for part in (0, 1):
        channels, outputs = slice(2 * part, 2 * part + 2), slice(3 * part, 3 * part + 3)
        one = nn.conv2d(leaf(x[:, channels]), leaf(weight[outputs]), leaf(bias[outputs]))
        np.testing.assert_allclose(whole[:, outputs], host(one), rtol=1e-12)


def test_a_sequence_is_convolved_as_by_numpy(device):
    a, b = rng.standard_normal(9), rng.standard_normal(4)
    got = nn.conv1d(leaf(a[None, None]), leaf(b[None, None]), padding=3)
    np.testing.assert_allclose(host(got)[0, 0], np.correlate(a, b, "full"), rtol=1e-12)


def test_dtypes(device):
    for dtype in (np.float16, np.float32, np.complex64):
        images = gg.asarray(array(x.astype(dtype)), requires_grad=True)
        weight = gg.asarray(array(np.ones((3, 4, 2, 2), dtype)), requires_grad=True)
        out = nn.conv2d(images, weight, stride=2)
        assert out.dtype == dtype
        gg.sum(gg.abs(out)).backward()
        assert images.grad.dtype == weight.grad.dtype == dtype
    assert nn.max_pool2d(gg.asarray(array(x.astype(np.float16))), 3, padding=1).dtype == np.float16


def test_padding_never_wins_and_ties_share(device):
    images = -np.ones((1, 1, 3, 3))
    assert (host(nn.max_pool2d(leaf(images), 3, 2, 1)) == -1).all()
    (slope,) = gradients(lambda a: nn.max_pool2d(a, 2, 1), images)
    np.testing.assert_array_equal(slope[0, 0], np.array([[1, 2, 1], [2, 4, 2], [1, 2, 1]]) / 4)


def test_patches_and_their_sums_are_transposes(device):
    options = {"stride": (2, 1), "padding": (1, 2), "dilation": (1, 2)}
    seen = patches(array(x), size=(3, 2), **options)
    other = rng.standard_normal(seen.shape)
    back = patch_sums(array(other), lengths=(6, 5), **options)
    assert np.sum(host(seen) * other) == pytest.approx(np.sum(x * host(back)))


def test_third_derivative_of_a_convolutional_loss(device):
    weight = array(rng.standard_normal((2, 4, 3, 2)) / 3)

    def loss(weight):
        return gg.sum(gg.tanh(nn.avg_pool2d(nn.conv2d(array(x), weight, stride=2), 2, 1)))

    check_grads(gg.grad(loss), [weight], order=2)
