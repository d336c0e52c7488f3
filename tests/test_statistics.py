"""Order statistics, averages and counts: what is refused, NaN, and infinities."""

import numpy as np
import pytest
from helpers import array, assert_same, host, leaf

import gpugrad as gg

inf, nan = np.inf, np.nan
x = np.array([[3.0, 1.0, 2.0], [0.0, 5.0, 5.0]])


@pytest.mark.parametrize("name", ["quantile", "percentile"])
def test_quantiles_refused(name, device):
    f, a = getattr(gg, name), leaf(x)
    whole = 1 if name == "quantile" else 100
    for q in (-0.1, whole * 1.1, nan, [0.5, 101]):
        with pytest.raises(ValueError, match=f"{name}: q must lie between 0 and {whole}"):
            f(a, q)
    with pytest.raises(ValueError, match=f"{name}: method is .*'weibull'"):
        f(a, 0.5, method="weibull")
    with pytest.raises(ValueError, match=rf"{name}: of no elements \(axis 1 of shape \(2, 0\)\)"):
        f(a[:, :0], 0.5, axis=1)
    with pytest.raises(TypeError, match=f"{name}: complex"):
        f(gg.asarray(array(x + 1j)), 0.5)
    with pytest.raises(TypeError, match=f"{name}: q is a number"):
        f(a, leaf(0.5))
    with pytest.raises(ValueError, match="axis 2 is out of bounds"):
        f(a, 0.5, axis=2)


@pytest.mark.parametrize("name", ["median", "ptp", "nanmax", "nanmin"])
def test_complex_numbers_have_no_order(name, device):
    with pytest.raises(TypeError, match=rf"^{name}: complex .*complex128 \(2, 3\)"):
        getattr(gg, name)(gg.asarray(array(x + 1j)))


def test_quantiles_of_infinities_and_nan(device):
    assert host(gg.median(array([inf, inf, 1.0, 2.0]))) == inf
    assert host(gg.median(array([inf, inf, inf, 2.0]))) == inf
    assert host(gg.quantile(array([-inf, 1.0, inf]), 0.25)) == -inf
    got = host(gg.quantile(array([[1.0, nan, 2.0], [1.0, 3.0, 2.0]]), [0.0, 0.5], axis=1))
    np.testing.assert_array_equal(got, [[nan, 1], [nan, 2]])


def test_quantiles_keep_their_dtype(device):
    for dtype in (np.float16, np.float32):
        assert gg.quantile(array(x.astype(dtype)), [0.3, 0.6]).dtype == dtype
    assert gg.median(array([1, 2])).dtype == np.float64
    assert_same(gg.quantile(gg.asarray(array([1, 2, 5])), 0.4, method="nearest"), np.asarray(2))


def test_of_equal_elements_only_those_share(device):
    slope = gg.grad(lambda a: gg.quantile(a, 0.5))(array([5.0, 2.0, 2.0, 2.0, 0.0]))
    np.testing.assert_allclose(host(slope), [0, 1 / 3, 1 / 3, 1 / 3, 0])
    slope = gg.grad(lambda a: gg.sum(gg.quantile(a, [0.0, 0.5, 1.0])))(array([1.0, 1.0, 3.0]))
    np.testing.assert_allclose(host(slope), [1, 1, 1])


def test_averages_refused(device):
    a = leaf(x)
    for weights, axis in [(x[0], None), (x[0], 0), (x.T, 1), (x.T, (0, 1))]:
        with pytest.raises(ValueError, match=r"average: weights of shape .*of shape \(2, 3\)"):
            gg.average(a, axis, leaf(weights))
    with pytest.raises(TypeError, match="average: .*list"):
        gg.average(a, 0, [1.0, 2.0])


def test_covariance_refused(device):
    with pytest.raises(ValueError, match=r"cov: one or two axes .*\(1, 2, 3\)"):
        gg.cov(leaf(x[None]))
    with pytest.raises(ValueError, match="cov: 3 and 2 observations"):
        gg.cov(leaf(x), leaf(x[0, :2]))
    assert np.isnan(host(gg.cov(leaf(x[:, :1])))).all()


def test_sums_without_nan(device):
    a = array([[nan, 1.0, 2.0], [nan, nan, nan]])
    np.testing.assert_array_equal(host(gg.nansum(a, axis=1)), [3, 0])
    for name, expected in [("nanmean", 1.5), ("nanmax", 2), ("nanmin", 1)]:
        f = getattr(gg, name)
        with np.errstate(invalid="ignore"):
            np.testing.assert_array_equal(host(f(a, axis=1)), [expected, nan])
        slope = host(gg.grad(lambda a, f=f: gg.sum(f(a, axis=1)))(a))
        np.testing.assert_array_equal(slope[:, 0], 0)
        assert slope[0].sum() == 1


def test_counting(device):
    bins = array([1, 0, 1, 3])
    assert_same(gg.bincount(gg.asarray(bins)), np.array([1, 2, 0, 1]))
    slope = gg.grad(lambda w: gg.sum(gg.bincount(bins, w) * array([1.0, 2.0, 3.0, 4.0])))
    np.testing.assert_array_equal(host(slope(array([0.5, 0.5, 0.5, 0.5]))), [2, 1, 2, 4])
    weights = leaf([0.5, 0.5, 0.5, 0.5])
    for wrong, kind in [([-1, 0, 1, 2], ValueError), ([0.0, 1.0, 1.0, 0.0], TypeError)]:
        for w in (None, weights):
            with pytest.raises(kind, match="^bincount: "):
                gg.bincount(gg.asarray(array(wrong)), w)
    with pytest.raises(TypeError, match="bincount: weights are real, got complex128"):
        gg.bincount(gg.asarray(bins), weights * 1j)
    with pytest.raises(ValueError, match="bincount"):
        gg.bincount(gg.asarray(bins), weights[:3])


def test_scattering_refused(device):
    a, i = leaf(x), gg.asarray(array([0, 2]))
    with pytest.raises(ValueError, match=r"scatter_add: values of shape \(3, 2\) .*\(2, 2\)"):
        gg.scatter_add(a, i, leaf(np.ones((3, 2))), axis=1)
    with pytest.raises(IndexError, match="float64"):
        gg.scatter_add(a, leaf([0.0]), a[:1])
    with pytest.raises(ValueError, match="axis 2 is out of bounds"):
        gg.scatter_add(a, i, a, axis=2)
    with pytest.raises(TypeError, match="scatter_add: .*list"):
        gg.scatter_add(a, [0, 1], a)


def test_scattering_adds_up_and_leaves_its_argument(device):
    a, values = leaf(np.zeros(3)), leaf([1.0, 2.0, 4.0])
    out = gg.scatter_add(a, gg.asarray(array([2, 0, 2])), values)
    np.testing.assert_array_equal(host(out), [2, 0, 5])
    np.testing.assert_array_equal(host(a), 0)
    gg.sum(out * out).backward()
    np.testing.assert_array_equal(host(values.grad), [10, 4, 10])
    np.testing.assert_array_equal(host(a.grad), [4, 0, 10])
    assert host(gg.scatter_add(a, gg.asarray(array([1, 1])), leaf(3.0))).tolist() == [0, 6, 0]
