"""The device functions of kernels/*.cuh, compiled for the host, against their twins at special
values: every function, every dtype."""

import re
from pathlib import Path

import numpy as np
import pytest
from kernels_host import (
    BINARY,
    CHOICE,
    COMPILER,
    DIVISION,
    SPECIAL_BINARY,
    SPECIAL_UNARY,
    UNARY,
    HostKernels,
)
from test_kernels import (
    DTYPES,
    STATES,
    assert_close,
    assert_identical,
    by_numpy,
    units_of,
)

from gpugrad import backends, twins

KERNELS = Path(__file__).parent.parent / "kernels"

POSITIVE = [0.0, 0.5, 1.0, 3.0, 30.0, 80.0, 1e4, np.inf]

each_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=str)


def extremes(dtype):
    """The smallest subnormal and normal number and the largest, of `dtype`."""
    bits, mantissa = {"float16": (16, 10), "bfloat16": (16, 7), "float32": (32, 23)}.get(
        dtype.name, (64, 52)
    )
    whole = f"u{bits // 8}"
    largest = int(np.array(np.inf, dtype).view(whole)) - 1
    return np.array([1, 1 << mantissa, largest], whole).view(dtype)


def special(dtype):
    """Special values: of both signs, zeros, infinities, the extremes; and NaN."""
    positive = np.concatenate([np.array(POSITIVE).astype(dtype), extremes(dtype)])
    return np.concatenate([positive, -positive, np.array([np.nan]).astype(dtype)])


def grid(dtype):
    return [np.ascontiguousarray(x) for x in np.meshgrid(special(dtype), special(dtype))]


@pytest.fixture(scope="module")
def host_kernels(tmp_path_factory):
    if COMPILER is None:
        pytest.skip("no C++ compiler")
    return HostKernels(tmp_path_factory.mktemp("kernels"))


@pytest.mark.parametrize("name", UNARY)
@each_dtype
def test_activations(host_kernels, name, dtype):
    x = special(dtype)
    got = host_kernels.elementwise(name, x)
    assert_close(got, getattr(twins, name)(x), units_of(dtype), floor=0.1)


@pytest.mark.parametrize("name", BINARY)
@each_dtype
def test_derivatives_of_activations(host_kernels, name, dtype):
    g, x = grid(dtype)
    got = host_kernels.elementwise(name, g, x)
    assert_close(got, getattr(twins, name)(g, x), units_of(dtype), floor=0.1)


@pytest.mark.parametrize("name", DIVISION)
@each_dtype
def test_division(host_kernels, name, dtype):
    a, b = grid(dtype)
    assert_identical(host_kernels.elementwise(name, a, b), by_numpy(name, a, b))


@pytest.mark.parametrize("name", CHOICE)
@each_dtype
def test_choice(host_kernels, name, dtype):
    a, b = grid(dtype)
    expected = getattr(np, name)(a.astype(float), b.astype(float))
    np.testing.assert_array_equal(host_kernels.elementwise(name, a, b).astype(float), expected)


@each_dtype
def test_sign(host_kernels, dtype):
    x = special(dtype)
    got = host_kernels.elementwise("sign", x).astype(float)
    np.testing.assert_array_equal(got, np.sign(x.astype(float)))


# Where SciPy has NaN or infinity and the device function the value or the limit: which arguments,
# and what is right there. Half the smallest subnormal number is 0, hence the k's.
BETTER = {
    "i0": (np.isinf, lambda x: np.abs(x)),
    "i1": (np.isinf, lambda x: x),
    "spence": (np.isposinf, lambda x: -x),
    "sinc": (lambda x: (np.abs(x) > 1e38) & (np.abs(x) < 1e39), lambda x: x * 0),  # of float32
    "k0": (lambda x: x == 5e-324, lambda x: -np.log(x) + np.log(2) - np.euler_gamma),
    "k1": (lambda x: x == 5e-324, lambda x: x / 0.0),
}
BETTER["k0e"], BETTER["k1e"] = BETTER["k0"], BETTER["k1"]
# functions with zeros, near which the absolute error counts; and one that is less accurate
FLOOR = {"sinc": 1, "digamma": 1, "ndtri": 0.1}
UNITS = {"ellipe": 100}


@pytest.mark.parametrize("name", SPECIAL_UNARY + SPECIAL_BINARY)
@each_dtype
def test_special_functions(host_kernels, name, dtype):
    args = grid(dtype) if name in SPECIAL_BINARY else [special(dtype)]
    twin = getattr(backends.backend_of_kind("cpu").xp.special, name)
    got, expected = host_kernels.elementwise(name, *args), twin(*args)
    if name in BETTER:
        where, limit = BETTER[name]
        x = args[0].astype(float)
        with np.errstate(all="ignore"):
            expected = np.where(where(x), limit(x), expected.astype(float)).astype(dtype)
    units = UNITS.get(name, units_of(dtype))
    assert_close(got, expected, units, floor=FLOOR.get(name, 0))


@each_dtype
@pytest.mark.parametrize("stride", [1, 2])
def test_softmax(host_kernels, dtype, stride):
    x = np.stack([a.reshape(-1) for a in grid(dtype)], axis=1)
    x = np.concatenate([x, x[:, :1]], axis=1)
    labels = np.arange(len(x)) % 3
    g = np.resize([0.0, 1, -2.5, np.inf, np.nan], len(x)).astype(dtype)
    sums = twins.exp_sums(x)
    with np.errstate(all="ignore"):
        expected = [
            twins.logsumexp(x, 1),
            twins.softmax(x, 1),
            twins.log_softmax(x, 1),
            twins.cross_entropy(x, labels, sums),
            twins.cross_entropy_grad(g, x, labels, sums),
        ]
    for got, wanted in zip(host_kernels.rows(x, labels, g, stride), expected, strict=True):
        assert_close(got, wanted, units_of(dtype), floor=4)


def problem(dtype, state):
    """Parameters, both states (the second not negative) and gradients: all of all."""
    values = np.meshgrid(special(dtype), special(state), special(dtype))
    p, m, g = (np.ascontiguousarray(x) for x in values)
    return p, m, np.abs(m[::-1].copy()), g


@pytest.mark.parametrize(("dtype", "state"), STATES, ids=str)
def test_optimizers(host_kernels, dtype, state):
    units = units_of(dtype)
    lr, powers = np.array(0.1), np.array([0.9, 0.999]) ** 3
    for name, order, settings, step in [
        ("sgd", "pg", (0.1,), lambda p, g: twins.sgd_step(p, None, g, lr, 0.0)),
        ("momentum", "pmg", (0.1, 0.9), lambda p, m, g: twins.sgd_step(p, m, g, lr, 0.9)),
        (
            "adam",
            "pmvg",
            (0.1, 1 - 0.9, 1 - 0.999, 1e-8, *powers),
            lambda p, m, v, g: twins.adam_step(p, m, v, g, lr, 0.9, 0.999, 1e-8, powers),
        ),
    ]:
        arrays = dict(zip("pmvg", problem(dtype, state), strict=True))
        expected = [arrays[k].copy() for k in order]
        got = [arrays[k].copy() for k in order]
        with np.errstate(all="ignore"):
            step(*expected)
        host_kernels.update(name, got, settings)
        for x, wanted in zip(got, expected, strict=True):
            assert_close(x, wanted, units, floor=0.1)


@each_dtype
def test_patches(host_kernels, dtype):
    size, *options = (2, 2), (1, 1), (1, 0), (1, 2)
    x = np.resize(special(dtype), (2, 1, 5, 4))
    p = twins.patches(x, size, *options)
    numbers = zip(x.shape[2:], size, p.shape[4:], *options, strict=True)
    args = (*x.shape[:2], list(numbers))
    assert_identical(host_kernels.patches(x, p.shape, *args, back=False), p)
    with np.errstate(all="ignore"):
        expected = twins.patch_sums(p, x.shape[2:], *options)
    assert_close(host_kernels.patches(p, x.shape, *args, back=True), expected, units_of(dtype))


@each_dtype
def test_convolution(host_kernels, dtype):
    a, b = special(dtype), np.array([1, 0, -2]).astype(dtype)
    with np.errstate(all="ignore"):
        expected = np.convolve(a.astype(float), b.astype(float)).astype(dtype)
    assert_close(host_kernels.convolved(a, b), expected, units_of(dtype))


@each_dtype
def test_sums_and_writes_in_order(host_kernels, dtype):
    values = special(dtype).reshape(1, -1, 1)
    index = np.arange(values.size) // 2
    array = np.ones((1, index[-1] + 1, 1)).astype(dtype)
    expected = array.astype(np.float64 if dtype == np.float64 else np.float32)
    with np.errstate(all="ignore"):
        np.add.at(expected, (slice(None), index), values.astype(expected.dtype))
        expected = expected.astype(dtype)
    got = array.copy()
    host_kernels.add_in_order(got, index, values, 64, 1)
    assert_identical(got, expected)
    host_kernels.write_last(got, index, values, 1)
    expected[:, index] = values
    assert_identical(got, expected)


# functions that others are made of
PARTS = {
    *("add", "exp_sum", "log_of", "widen", "wrapped", "entry_under", "place_over", "relative"),
    *("normal_cdf", "normal_pdf", "infinity", "scaled_erfc", "digamma_of", "hankel"),
    *("scaled_i", "scaled_k", "dilogarithm"),
    *("ordered", "raise_to", "note_number"),
}


def test_every_device_function_is_tried():
    text = "".join(path.read_text() for path in KERNELS.glob("*.cuh"))
    found = set(re.findall(r"__device__ (?:inline )?[\w<> ]+ (\w+)\(", text))
    tried = {*UNARY, *BINARY, *CHOICE, *DIVISION, *SPECIAL_UNARY, *SPECIAL_BINARY, "sign"}
    tried |= {"softmax", "log_softmax", "cross_entropy", "cross_entropy_grad"}
    tried |= {"sgd_step", "adam_step", "patch_entry", "patch_sum", "convolved"}
    tried |= {"add_in_order", "write_last", "note_range"}
    assert found == tried | PARTS
