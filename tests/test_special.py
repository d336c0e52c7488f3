"""Special functions: accuracy, singular points, tails, and what is there without SciPy.

Values and derivatives at ordinary points are the table's, in test_ops.py.
"""

import math
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import scipy.special
from helpers import array, host
from kernels_host import COMPILER, SPECIAL_BINARY, SPECIAL_UNARY, HostKernels

import gpugrad as gg
from gpugrad.ops.special import gamma_slope
from gpugrad.special_twins import FUNCTIONS

ROOT = Path(__file__).resolve().parent.parent
inf, nan, pi = math.inf, math.nan, math.pi

# shape, quantile, derivative of the quantile with respect to the shape: to 40 digits by mpmath
QUANTILES = [
    (0.05, 5.844632057286632e-61, 1.6153899294411105e-57),
    (0.05, 3.7498380938538135e-06, 0.0008996610913347116),
    (0.3, 0.2565649133210519, 1.3989200024582285),
    (0.7, 15.02567071493995, 3.9176979700165773),
    (1.0, 1.203972804325936, 1.2875587667461967),
    (1.2, 2.641460426150976, 1.657677315174326),
    (1.5, 0.00012090524360062132, 0.0007838004580013274),
    (3.0, 1.9137757941270621, 0.8364989291446187),
    (5.0, 4.406175899311982, 0.9698764438819875),
    (5.0, 26.154769205944536, 2.110076099001187),
    (10.0, 2.96052037274376, 0.5200632528848211),
    (50.0, 23.25066535794657, 0.6677196575300014),
    (300.0, 297.49688514074074, 0.9963699036908896),
    (10000.0, 9872.060875049736, 0.9935921468545164),
    (10000.0, 9999.666668642047, 0.9999999998024547),
]

# name, argument, first and second derivative, by mpmath
TAILS = [
    ("log_ndtr", -1000, 1000.000999998, -0.99999900000599995),
    ("log_ndtr", -40, 40.024968847207264, -0.99937733162140861),
    ("log_ndtr", -3, 3.2830986549304365, -0.92944081321473188),
    ("log_ndtr", 5, 1.4867199409049057e-6, -7.4336019148607112e-6),
    ("log_ndtr", 1e4, 0, 0),
    ("erfcx", -2, -436.8919967270074, 1965.4497956879856),
    ("erfcx", 5.5, -0.017794764701022603, 0.0061820250877495398),
    ("erfcx", 7, -0.011178406487371505, 0.0031024178351047964),
    ("erfcx", 30, -0.00062583541050748407, 4.1653092384458876e-5),
    ("erfcx", 1000, -5.6418873726549667e-7, 1.1283757819707055e-9),
    ("erfcx", inf, 0, 0),
    ("log_ndtr", -inf, inf, None),
    ("log_ndtr", inf, 0, 0),
    ("erf", 1e4, 0, 0),
    ("erfc", -1e4, 0, 0),
    ("ndtr", inf, 0, 0),
    ("i0e", 20, -0.0022740897015373562, 0.00017286829391027921),
    ("i0e", 30, -0.0012296158835897392, 6.2020747224559955e-5),
    ("i0e", -1000, 6.3101989626271155e-6, 9.4676683256014869e-9),
    ("i1e", 20, -0.002101221407627077, 0.0001509583319292963),
    ("i1e", 30, -0.0011675951363651793, 5.6806124652776637e-5),
    ("i1e", 1000, -6.300731294301514e-6, 9.4439932256286566e-9),
    ("k0e", 20, -0.0068806202835442212, 0.00051003427994787978),
    ("k0e", 30, -0.0037674637614580719, 0.00018687678967424971),
    ("k0e", 1000, -1.9809212205993365e-5, 2.970640097347964e-8),
    ("k1e", 20, -0.007390654563492101, 0.00057306219057854139),
    ("k1e", 30, -0.0039543405511323216, 0.00020232803911650746),
    ("k1e", 1000, -1.9838918606966845e-5, 2.9780648446447415e-8),
    # where the formula for the derivative is 0 / 0, 0 * inf or a difference of infinities
    ("sinc", 0, 0, -(pi**2) / 3),
    ("exprel", 0, 1 / 2, 1 / 3),
    ("i1", 0, 1 / 2, 0),
    ("j1", 0, 1 / 2, 0),
    ("rgamma", -2, 2, -3.6911373403938686),
    ("rgamma", 0, 1, 2 * 0.57721566490153286),
    ("spence", 1, -1, 1 / 2),
    ("ellipk", 0, pi / 8, 9 * pi / 64),
    ("ellipe", 0, -pi / 8, -3 * pi / 64),
    ("ellipkm1", 1, -pi / 8, 9 * pi / 64),
    ("i0e", 0, 0, None),
    ("i0e", inf, 0, 0),
    ("k1e", inf, 0, 0),
]


def slope(f, *args):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        return [host(x) for x in gg.grad(f, argnums=range(len(args)))(*args)]


@pytest.mark.parametrize(("name", "x", "first", "second"), TAILS)
def test_derivatives_in_the_tails(name, x, first, second, device):
    f = getattr(gg.special, name)
    x = array(float(x))
    np.testing.assert_allclose(slope(f, x)[0], first, rtol=1e-12, atol=1e-300)
    if second is not None:
        found = slope(lambda x: gg.grad(f)(x), x)[0]
        np.testing.assert_allclose(found, second, rtol=3e-10, atol=1e-15)


def test_shape_derivative_of_gamma_quantiles(device):
    a, z, expected = (array(x) for x in np.array(QUANTILES).T)
    np.testing.assert_allclose(host(gamma_slope(a, z)), host(expected), rtol=2e-11)
    edges = host(gamma_slope(array([2.0, 2.0, -1.0, 1.0]), array([0.0, nan, 1.0, -1.0])))
    np.testing.assert_array_equal(edges, [0, nan, nan, nan])


def test_a_parameter_without_a_derivative_raises(device):
    x = gg.asarray(array([0.3, 0.4]), requires_grad=True)
    for call in (
        lambda: gg.special.betainc(x, 2.0, 0.5),
        lambda: gg.special.zeta(x + 2),
        lambda: gg.special.polygamma(x, array([1.0, 2.0])),
        lambda: gg.special.stdtr(x, array([1.0, 2.0])),
    ):
        with pytest.raises(NotImplementedError, match="no derivative with respect to argument 0"):
            call()
    with pytest.raises(NotImplementedError, match="gamma_slope"):
        gg.grad(lambda a: gg.sum(gg.grad(lambda a: gg.sum(gg.special.gammainc(a, 1.5)))(a)))(x)


def test_integer_parameters(device):
    x = array([0.3, 1.4])
    for n in (2, array([2, 2])):
        np.testing.assert_allclose(host(gg.special.polygamma(n, x)), [-75.2725, -0.9891], rtol=1e-4)
    out = gg.special.bdtr(array([1, 2]), array([3, 4]), array([0.5, 0.5]))
    np.testing.assert_allclose(host(out), [0.5, 11 / 16])


@pytest.mark.parametrize("name", ["erfcx", "gammaln", "log_ndtr", "i0e"])
def test_dtypes(name, device):
    f = getattr(gg.special, name)
    half = gg.asarray(array(np.array([0.5, 2], np.float16)), requires_grad=True)
    out = f(half)
    gg.sum(out).backward()
    assert out.dtype == half.grad.dtype == np.float16
    assert f(array([1, 2])).dtype == np.float64
    with pytest.raises(TypeError, match="real dtype"):
        f(array([1j]))


def test_multigammaln_of_a_wrong_order(device):
    for d in (0, 1.5):
        with pytest.raises(ValueError, match="positive integer"):
            gg.special.multigammaln(array([3.0]), d)


def test_softmax_is_over_all_axes_unless_told(device):
    x = array(np.arange(6.0).reshape(2, 3))
    assert host(gg.sum(gg.special.softmax(x))) == pytest.approx(1)
    np.testing.assert_allclose(host(gg.sum(gg.special.softmax(x, axis=1), axis=1)), 1)


# ---- the twins and the text of the kernels, against SciPy

ONE_SIDED = {"spence", "entr", "logit", "k0", "k0e", "k1", "k1e"}
LINE = np.concatenate(
    [np.linspace(-38, 38, 153), -np.logspace(-8, 3, 45), np.logspace(-8, 3, 45), [0, -0.0, nan]]
)


def arguments(name):
    if name == "ndtri":
        p = np.concatenate([np.linspace(0, 1, 99), np.logspace(-300, -1, 60), [-1, 2, nan]])
        return [np.concatenate([p, 1 - p[99:]])]
    if name == "logit":
        return [np.linspace(0.001, 0.999, 99)]
    if name == "ellipe":
        return [np.concatenate([np.linspace(-30, 1, 99), [2, nan]])]
    if name in ("digamma", "rgamma"):
        return [np.linspace(-9.75, 60, 280)]
    if name in SPECIAL_BINARY:
        values = np.array([0, 1e-3, 0.3, 1, 2.5, 30, 1e4, nan])
        return [np.ascontiguousarray(x) for x in np.meshgrid(values, values)]
    return [np.abs(LINE) if name in ONE_SIDED else LINE]


def assert_near(got, expected, rtol):
    normal = ~(np.abs(expected) < 1e-300)
    np.testing.assert_allclose(got[normal], expected[normal], rtol=rtol, atol=1e-14 * rtol)


@pytest.mark.parametrize("name", sorted(FUNCTIONS.keys() - {"gamma_slope"}))
def test_twins_against_scipy(name):
    args = arguments(name)
    assert_near(FUNCTIONS[name](*args), getattr(scipy.special, name)(*args), 1e-13)


@pytest.fixture(scope="module")
def host_kernels(tmp_path_factory):
    if COMPILER is None:
        pytest.skip("no C++ compiler")
    return HostKernels(tmp_path_factory.mktemp("kernels"))


@pytest.mark.parametrize("name", SPECIAL_UNARY + SPECIAL_BINARY)
def test_text_against_scipy(name, host_kernels):
    if name == "gamma_slope":
        args, expected = np.array(QUANTILES).T.copy()[:2], np.array(QUANTILES).T[2]
    else:
        args = arguments(name)
        with np.errstate(all="ignore"):
            expected = getattr(scipy.special, name)(*args)
    args = [np.ascontiguousarray(x) for x in args]
    rtol = 2e-11 if name == "gamma_slope" else 2e-13
    assert_near(host_kernels.elementwise(name, *args), expected, rtol)
    single = [x.astype(np.float32) for x in args]
    got = host_kernels.elementwise(name, *single).astype(float)
    if name not in ("rgamma", "gamma_slope"):
        wide = [x.astype(float) for x in single]
        with np.errstate(all="ignore"):
            expected = getattr(scipy.special, name)(*wide).astype(np.float32).astype(float)
        assert_near(got[np.abs(expected) > 1e-37], expected[np.abs(expected) > 1e-37], 3e-6)


# ---- without SciPy, and without being asked

PROBE = """
import sys
sys.modules["scipy"] = None
import numpy as np
import gpugrad as gg
assert "gpugrad.ops.special" not in sys.modules
x = gg.asarray(np.array([0.25, 0.5]), requires_grad=True)
names = "erf erfc erfcx ndtr log_ndtr ndtri expit log_expit logit entr sinc cbrt exp2".split()
gg.sum(sum(getattr(gg.special, name)(x) for name in names)).backward()
gg.special.xlogy(x, x), gg.special.rel_entr(x, x), gg.special.softmax(x)
gg.random.gamma(x), gg.random.truncated_normal(x, 3)
try:
    gg.special.gammaln(x)
except ImportError as error:
    print(error)
"""


def test_without_scipy():
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", PROBE], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "special.gammaln" in done.stdout
    assert 'pip install "gpugrad[scipy]"' in done.stdout
