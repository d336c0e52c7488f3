"""Sets and order, where values are equal or are no numbers."""

import numpy as np
import pytest
from helpers import array, assert_same, host, leaf

import gpugrad as gg

nan = np.nan


def test_every_nan_is_an_element_of_its_own(device):
    x = gg.asarray([[nan, 1.0, -0.0], [0.0, nan, 1.0]])
    out = gg.unique_all(x)
    assert_same(out.values, np.array([0.0, 1.0, nan, nan]))
    assert_same(gg.unique_values(x), out.values)
    assert_same(out.counts, np.array([2, 2, 1, 1]))
    assert_same(out.indices, np.array([2, 1, 0, 4]))
    assert_same(out.values[out.inverse_indices], np.array([[nan, 1, 0], [0, nan, 1]]))


def test_unique_of_complex_numbers_with_nan(device):
    x = gg.asarray([complex(nan, 1), 1 + 1j, complex(nan, 1), 1 + 1j, complex(0, nan)])
    values, counts = gg.unique_counts(x)
    assert sorted(host(counts).tolist()) == [1, 1, 1, 2]
    assert np.isnan(host(values)).sum() == 3


def test_unique_has_names(device):
    x = gg.asarray([2, 1, 2])
    assert gg.unique_counts(x).counts.shape == (2,)
    assert gg.unique_inverse(x).inverse_indices.shape == (3,)
    assert type(gg.unique_all(x.data).values) is type(x.data)


def test_unique_values_keep_the_gradient(device):
    def f(x):
        return gg.sum(gg.unique_all(x).values * array([1.0, 2.0, 3.0]))

    assert_same(gg.grad(f)(array([3.0, 1.0, 3.0, 2.0])), np.array([3.0, 1.0, 0.0, 2.0]))
    x = leaf([3.0, 1.0])
    assert [y.requires_grad for y in gg.unique_all(x)] == [True, False, False, False]


def test_isin_takes_numbers(device):
    x = gg.asarray([[1, 2], [3, 2]])
    assert_same(gg.isin(x, 2), np.array([[False, True], [False, True]]))
    assert_same(gg.isin(2, x), np.array(True))
    assert_same(gg.isin(5, x, invert=True), np.array(True))
    assert_same(gg.isin(x, gg.asarray([2.0, 2.5])), np.array([[False, True], [False, True]]))


def test_sort_is_stable_both_ways(device):
    x = gg.asarray([1, 0, 1, 0, 1])
    assert_same(gg.argsort(x), np.array([1, 3, 0, 2, 4]))
    assert_same(gg.argsort(x, descending=True), np.array([0, 2, 4, 1, 3]))


def test_nan_is_the_largest(device):
    x = leaf([nan, 1.0, np.inf])
    assert_same(gg.sort(x), np.array([1.0, np.inf, nan]))
    assert_same(gg.sort(x.detach(), descending=True), np.array([nan, np.inf, 1.0]))
    assert_same(gg.argsort(x, descending=True), np.array([0, 2, 1]))
    assert_same(gg.searchsorted(gg.sort(x), x), np.array([2, 0, 1]))


def test_a_number_searched_has_the_dtype_of_the_array(device):
    x = gg.asarray([0.1, 0.2], dtype="float32")
    assert int(gg.searchsorted(x, 0.1)) == 0  # float32(0.1) > 0.1
    assert int(gg.searchsorted(x, 0.1, side="right")) == 1


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: gg.sort(x, axis=1), "axis 1"),
        (lambda x: gg.argsort(x, axis=-2), "axis -2"),
        (lambda x: gg.sort(x[0]), "axis -1"),
        (lambda x: gg.nonzero(x[0]), "one axis"),
        (lambda x: gg.searchsorted(x, x, side="middle"), "middle"),
        (lambda x: gg.searchsorted(x[None], x), "deep"),
        (lambda x: gg.diff(x, n=-1), "-1"),
        (lambda x: gg.diff(x, axis=1), "axis 1"),
        (lambda x: gg.diff(x, prepend=gg.ones((2, 2))), "dim"),
        (lambda x: gg.repeat(x, gg.asarray([1, 2])), "repeat"),
        (lambda x: gg.repeat(x, [1, -2, 1]), "negative"),
        (gg.tril, "two axes"),
        (gg.triu, "two axes"),
        (lambda x: gg.broadcast_shapes(x.shape, (2,)), "broadcast"),
    ],
)
def test_what_does_not_fit_is_refused(call, message, device):
    for x in (gg.asarray([1.0, 2.0, 3.0]), leaf([1.0, 2.0, 3.0])):
        with pytest.raises(ValueError, match=message):
            call(x)


def test_repeats_are_integers(device):
    x = gg.asarray([1.0, 2.0])
    for repeats in ([1.0, 2.0], gg.asarray([1.0, 2.0]), gg.asarray([True, False])):
        with pytest.raises(TypeError, match="integers"):
            gg.repeat(x, repeats)
    assert_same(gg.repeat(x, np.int64(2)), np.array([1.0, 1.0, 2.0, 2.0]))
    assert_same(gg.repeat(x, gg.asarray(2)), np.array([1.0, 1.0, 2.0, 2.0]))
    assert_same(gg.repeat(x[:0], []), np.array([]))


def test_broadcast_shapes():
    assert gg.broadcast_shapes() == ()
    assert gg.broadcast_shapes((2, 1), (3,), ()) == (2, 3)
