"""The CuPy backend: why there is none, and where CuPy alone does otherwise than NumPy."""

import re
from types import SimpleNamespace
from unittest.mock import MagicMock

import numpy as np
import pytest
from helpers import assert_same

import gpugrad as gg
from gpugrad import backends
from gpugrad.backends import DeviceError, cupy
from gpugrad.cuda.functions import linalg, replacements
from gpugrad.cuda.kernels import kernels
from gpugrad.fusion import Kernel
from gpugrad.symbols import variable, write
from gpugrad.tape import owner_of
from gpugrad.testing import check_grads
from gpugrad.testing.table import ROWS


class CudaError(Exception):
    def __init__(self, status):
        super().__init__(f"cuda error {status}")
        self.status = status


def fake_cupy(status=None, count=1, driver=13000, kernel=None, version="14.2.0"):
    """As much of CuPy as load() asks before it builds the backend."""

    def get_device_count():
        if status is not None:
            raise CudaError(status)
        return count

    runtime = SimpleNamespace(
        CUDARuntimeError=CudaError,
        getDeviceCount=get_device_count,
        driverGetVersion=lambda: driver,
        runtimeGetVersion=lambda: 13000,
    )
    return SimpleNamespace(
        __version__=version,
        cuda=SimpleNamespace(runtime=runtime),
        ElementwiseKernel=lambda *args: kernel,
        zeros=np.zeros,
    )


def fails_with(message):
    def kernel(x):
        raise RuntimeError(message)

    return kernel


def missing(name):
    def import_module(_):
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    return import_module


def broken(_):
    raise ImportError("libstdc++.so.6: version `GLIBCXX_3.4.32' not found")


REASONS = {
    "not installed": (missing("cupy"), ["not installed", "gpugrad[cuda12]", "gpugrad[cuda13]"]),
    "broken": (missing("cupy_backends"), ["cannot be imported", "cupy_backends"]),
    "unloadable": (broken, ["cannot be imported", "GLIBCXX"]),
    "too old a CuPy": (fake_cupy(version="13.6.0"), ["CuPy 14", "13.6.0"]),
    "no driver": (fake_cupy(35, driver=0), ["no NVIDIA driver"]),
    "old driver": (fake_cupy(35, driver=12020), ["too old", "CUDA 12.2", "CUDA 13.0", "cuda12"]),
    "no device": (fake_cupy(100), ["no CUDA device is visible"]),
    "none of them": (fake_cupy(count=0), ["no CUDA device is visible"]),
    "other trouble": (fake_cupy(999), ["cannot be started", "999"]),
    "headers": (
        fake_cupy(kernel=fails_with('cannot open source file "cuda_fp16.h"')),
        ["headers", "CUDA_PATH"],
    ),
    "compiler": (fake_cupy(kernel=fails_with("ptxas died")), ["compiled and run", "ptxas died"]),
    "wrong result": (fake_cupy(kernel=lambda x: x + 7), ["wrong result"]),
}


def refusal(monkeypatch, source):
    module = source if callable(source) else lambda name: source
    monkeypatch.setattr(cupy, "import_module", module)
    with pytest.raises(DeviceError) as caught:
        cupy.load()
    return str(caught.value)


@pytest.mark.parametrize("case", REASONS)
def test_reasons_for_no_gpu(monkeypatch, case):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    source, words = REASONS[case]
    message = refusal(monkeypatch, source)
    for word in words:
        assert word in message


def test_reasons_are_told_apart(monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    messages = {refusal(monkeypatch, source) for source, _ in REASONS.values()}
    assert len(messages) == len(REASONS) - 1  # both ways of having no device


def test_hidden_devices_are_mentioned(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    assert "CUDA_VISIBLE_DEVICES is '-1'" in refusal(monkeypatch, fake_cupy(100))


# ---- reductions of one array, for which CuPy has a second text


@pytest.mark.parametrize("dtype", ["float16", "float32", "complex64"])
def test_reductions_of_one_array_fit_block_reductions(dtype):
    """For them CuPy replaces the names of input and output, letter by letter, by in0 and out0, and
    declares the types of in0 and out0, but only where a name was another.
    """
    library, dtype = MagicMock(ndarray=np.ndarray), np.dtype(dtype)
    kernels(library)
    replacements(library)
    backend = object.__new__(cupy.CupyBackend)
    backend._cupy = library
    text = write({"db": (-variable("t", dtype), dtype)})
    backend.kernel(Kernel("gpugrad_negative", {"t": dtype}, {"db": dtype}, text, summed=dtype))
    made = {call.args[6]: call.args for call in library.ReductionKernel.call_args_list}
    assert made.keys() == {
        f"gpugrad_{name}" for name in "logsumexp exp_sum negative_sum sum_of_halves".split()
    }
    for in_params, out_params, mapped, _, result, *_ in made.values():
        if "," in out_params:  # two results: there is but one text
            continue
        given, out = (params.split()[-1] for params in (in_params, out_params))
        assert (given, out) != ("in0", "out0")
        assert mapped.replace(given, "in0") == re.sub(rf"\b{given}\b", "in0", mapped)
        assert result.replace(out, "out0") == re.sub(rf"\b{out}\b", "out0", result)
        assert "in0" in mapped.replace(given, "in0")


# ---- with a device, real or emulated


@pytest.fixture
def gpu(cuda):
    """The backend of the first CUDA device."""
    return backends.backend_of_kind("cuda")


@pytest.fixture
def put(gpu, cuda):
    """A function that puts a NumPy array on the device."""
    return lambda x: gpu.asarray(np.asarray(x), None, cuda, None)


def get(x):
    return backends.backend_of_kind("cuda").to_host(x)


def bfloat16():
    return np.dtype(pytest.importorskip("ml_dtypes").bfloat16)


def test_what_a_backend_tells(gpu, cuda, put):
    x = put(np.arange(6.0).reshape(2, 3))
    assert cuda in gpu.devices()
    assert gpu.device_of(x) == cuda
    assert owner_of(x[1:, ::2]) is owner_of(x) is not owner_of(x.copy())
    assert gpu.name(cuda)
    gpu.synchronize(cuda)
    with gpu.scope(cuda):
        assert gpu.device_of(gpu.xp.zeros(3)) == cuda


def test_asarray_copies_when_it_must(gpu, cuda, put):
    x = put(np.arange(3.0))
    assert gpu.asarray(x, None, cuda, None) is x
    assert gpu.asarray(x, None, cuda, False) is x
    assert owner_of(gpu.asarray(x, None, cuda, True)) is not owner_of(x)
    assert gpu.asarray(x, "float32", cuda, None).dtype == np.float32
    assert gpu.asarray([1, 2], "float32", cuda, None).dtype == np.float32
    with pytest.raises(ValueError, match="copy"):
        gpu.asarray(x, "float32", cuda, False)
    np.testing.assert_array_equal(gpu.to_host(x), np.arange(3.0))


def test_random_numbers(gpu, cuda):
    with gpu.scope(cuda):
        same = [gpu.generator(7, cuda) for _ in range(2)]
        for draw in (
            lambda g: g.normal((2, 3), "float32"),
            lambda g: g.uniform((5,), "float64"),
            lambda g: g.integers(-3, 10**12, (4,), "int64"),
            lambda g: g.permutation(6),
            lambda g: g.normal((), "float16"),
        ):
            a, b = (get(draw(g)) for g in same)
            np.testing.assert_array_equal(a, b)
        generator = gpu.generator(None, cuda)
        assert generator.normal((2, 3), "float32").dtype == np.float32
        assert generator.uniform((2,), "float16").dtype == np.float16
        integers = get(generator.integers(2, 5, (100,), "int32"))
        assert integers.dtype == np.int32
        assert set(integers.tolist()) == {2, 3, 4}
        assert sorted(get(generator.permutation(5)).tolist()) == [0, 1, 2, 3, 4]
        normal = get(generator.normal((2000,), "float64"))
        assert abs(normal.mean()) < 0.2
        assert abs(normal.std() - 1) < 0.2


@pytest.mark.parametrize(
    "dtype",
    ["float16", "float32", "float64", "complex64", "complex128", "int8", "uint16", "bool", "int64"],
)
@pytest.mark.parametrize(
    "index",
    [
        np.array([0, 0, 2, 0, -1]),
        (np.array([0, 0, 2]), np.array([1, 1, -1])),
        (slice(None), np.array([1, 1])),
        (None, ..., np.array([[1, 1], [0, 1]])),
        (1, np.array([3, 3, 3])),
        np.array([], int),
    ],
    ids=repr,
)
def test_add_at_counts_duplicates(gpu, put, dtype, index):
    x = np.arange(12).reshape(3, 4).astype(dtype)
    if x.dtype.kind == "c":
        x *= 1 + 2j
    values = (x[index] + 1).astype(dtype)
    on_device = put(x)
    key = index if isinstance(index, tuple) else (index,)
    key = tuple(put(i) if isinstance(i, np.ndarray) else i for i in key)
    np.add.at(x, index, values)
    gpu.xp.add_at(on_device, key, put(values))
    np.testing.assert_allclose(get(on_device), x)


def test_add_at_of_bfloat16(gpu, put):
    x = put(np.zeros(3, bfloat16()))
    gpu.xp.add_at(x, put(np.array([1, 1, 2])), put(np.array([1, 2, 3], x.dtype)))
    assert get(x).astype(float).tolist() == [0, 3, 3]


def test_bfloat16_keeps_its_dtype(gpu, put):
    xp = gpu.xp
    x = put(np.array([[1, 2, 3], [4, 5, 6]], bfloat16()))
    a, b = x[None], xp.swapaxes(x, 0, 1)[None]
    expected = {
        "matmul": (xp.matmul(a, b)[0], [[14, 32], [32, 77]]),
        "einsum": (xp.einsum("bij,bjk->ik", a, b), [[14, 32], [32, 77]]),
        "vecdot": (xp.vecdot(x, x), [14, 77]),
        "cumsum": (xp.cumsum(x, axis=1), [[1, 3, 6], [4, 9, 15]]),
        "cumprod": (xp.cumprod(x, axis=0), [[1, 2, 3], [4, 10, 18]]),
        "var": (xp.var(x, axis=0), [2.25] * 3),
        "std": (xp.std(x, axis=0), [1.5] * 3),
        "round": (xp.round(x / 2), [[0, 1, 2], [2, 2, 3]]),
        "where": (xp.where(x > 3, x, 0), [[0, 0, 0], [4, 5, 6]]),
    }
    for name, (got, values) in expected.items():
        assert got.dtype == x.dtype, name
        np.testing.assert_array_equal(get(got).astype(float), values, err_msg=name)
    assert xp.matmul(a, b.astype("float32")).dtype == np.float32
    assert xp.cumsum(x, axis=0, dtype=np.float64).dtype == np.float64
    assert xp.where(x > 3, x, put(np.float64(2))).dtype == np.float64


def test_what_cupy_lacks(gpu, put):
    xp = gpu.xp
    x, z = np.arange(6.0).reshape(2, 3), np.array([0, 1j, 1 + 1j, 0])
    X, Z = put(x), put(z)
    np.testing.assert_array_equal(get(xp.count_nonzero(X, axis=1, keepdims=True)), [[2], [3]])
    np.testing.assert_array_equal(get(xp.vecdot(Z, Z)), np.vdot(z, z))
    np.testing.assert_array_equal(get(xp.vecdot(X, X, axis=0)), [9, 17, 29])
    np.testing.assert_array_equal(get(xp.unstack(X, axis=1)[2]), x[:, 2])
    np.testing.assert_array_equal(get(xp.logical_not(Z)), z == 0)
    for name in ("logical_and", "logical_or", "logical_xor"):
        expected = getattr(np, name)(z, z[::-1])
        np.testing.assert_array_equal(get(getattr(xp, name)(Z, Z[::-1])), expected)
    with pytest.raises(ValueError, match="axis"):
        xp.matmul(X, 2)


@pytest.mark.parametrize("name", ["cumsum", "cumprod"])
@pytest.mark.parametrize("axis", [0, 1, -1, None])
def test_running_sums_and_products_of_complex_numbers(gpu, put, name, axis):
    x = (np.arange(12).reshape(3, 4) - 5.5) * (1 - 0.5j)
    np.testing.assert_allclose(
        get(getattr(gpu.xp, name)(put(x), axis=axis)), getattr(np, name)(x, axis=axis), rtol=1e-12
    )
    got = getattr(gpu.xp, name)(put(x.real), axis=axis, dtype="complex64")
    assert got.dtype == np.complex64


@pytest.mark.parametrize("dtype", ["bool", "int64", "float16", "float32", "complex64"])
@pytest.mark.parametrize("name", ["add", "multiply", "divide", "maximum", "power", "where"])
@pytest.mark.parametrize("number", [2, 2.5, True], ids=repr)
def test_python_numbers_are_weak(gpu, put, name, dtype, number):
    x = np.ones(3, dtype)
    args = (x > 0, x) if name == "where" else (x,)
    expected = getattr(np, name)(*args, number)
    got = getattr(gpu.xp, name)(*map(put, args), number)
    assert got.dtype == expected.dtype
    np.testing.assert_allclose(get(got), expected, rtol=1e-3)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("axis", [-1, None])
def test_reductions_of_long_rows(put, dtype, axis):
    """From 128 elements on CuPy has CUB reduce a block of rows."""
    x = np.random.default_rng(0).standard_normal((3, 700)).astype(dtype)
    eps = np.finfo(dtype).eps
    got = gg.logsumexp(put(x), axis=axis).get()
    np.testing.assert_allclose(got, gg.logsumexp(x, axis=axis), rtol=8 * eps)
    b = np.zeros(() if axis is None else (3, 1), dtype)
    got = gg.vjp(lambda b: put(x) - b, put(b))[1](put(x))[0].get()
    expected = -x.sum(axis, dtype="float64", keepdims=axis is not None)
    np.testing.assert_allclose(
        got, expected, rtol=2 * eps, atol=300 * np.finfo("f8").eps + 64 * eps
    )


@pytest.mark.parametrize(("shape", "axis"), [((70_000,), None), ((3, 20_000), 1), ((9, 0), 1)])
def test_halves_are_added_in_float32(put, shape, axis):
    """Not in float16, in which 2048 + 1 = 2048."""
    x = np.random.default_rng(0).random(shape).astype("float16")
    got = gg.sum(put(x), axis=axis)
    assert got.dtype == np.float16
    exact = x.sum(axis=axis, dtype="float64").astype("float16")
    np.testing.assert_allclose(get(got), exact, rtol=np.finfo("float16").eps)
    for options in ({"dtype": np.float32}, {"keepdims": True}):
        got, expected = (gg.sum(a, axis=axis, **options) for a in (put(x), x))
        assert (got.dtype, got.shape) == (expected.dtype, expected.shape)


MIXED = {
    "add": lambda xp, x, y, i: xp.add(x, y),
    "add, 0-d": lambda xp, x, y, i: xp.add(x, y[0, 0, ...]),
    "matmul": lambda xp, x, y, i: xp.matmul(x, y),
    "matmul, reversed": lambda xp, x, y, i: xp.matmul(y, x),
    "einsum": lambda xp, x, y, i: xp.einsum("ij,jk->ik", x, y),
    "concatenate": lambda xp, x, y, i: xp.concatenate([x, y]),
    "where": lambda xp, x, y, i: xp.where(x > 0, x, y),
    "take": lambda xp, x, y, i: xp.take(x, i, axis=0),
    "take_along_axis": lambda xp, x, y, i: xp.take_along_axis(x, i[None], 0),
    "add_at": lambda xp, x, y, i: xp.add_at(x, i, 1.0),
    "add_at, two indices": lambda xp, x, y, i: xp.add_at(x, (i, i), 1.0),
    "sigmoid": lambda xp, x, y, i: xp.sigmoid(y),
    "sigmoid_grad": lambda xp, x, y, i: xp.sigmoid_grad(x, y),
    "cross_entropy": lambda xp, x, y, i: xp.cross_entropy(x, i, xp.exp_sums(x)),
    "sgd_step": lambda xp, x, y, i: xp.sgd_step(x, None, y, xp.sum(x), 0.0),
}


@pytest.mark.parametrize("case", MIXED)
def test_numpy_arrays_do_not_mix(gpu, put, case):
    y = np.ones((2, 2))
    x = put(y)
    with pytest.raises(TypeError):
        MIXED[case](gpu.xp, x, y, np.array([0, 1]))
    np.testing.assert_array_equal(get(x), y)


# ---- decompositions, where there is no cuSOLVER


def test_cusolver_is_given_integers_as_floats():
    """With int32 its working memory for a stack would be half of what it needs."""
    library = MagicMock()
    for dtype, wanted in (("int32", "float64"), ("bool", "float64"), ("float32", "float32")):
        linalg(library)["qr"](np.ones((2, 3, 3), dtype), mode="complete")
        (x,), options = library.linalg.qr.call_args
        assert (x.dtype, options) == (wanted, {"mode": "complete"})


@pytest.fixture
def solved_on_the_host(gpu, put, monkeypatch):
    """`cupy.linalg` with NumPy in the place of cuSOLVER, and with CuPy's narrower arguments."""
    home = gpu._cupy.linalg

    def on_host(name):
        def call(*args, **options):
            assert all(isinstance(x, gpu.array_type) for x in args)
            assert {x.shape[:-1] for x in args} == {args[0].shape[:-1]}
            out = getattr(np.linalg, name)(*map(get, args), **options)
            return tuple(map(put, out)) if isinstance(out, tuple) else put(out)

        return call

    for name in "cholesky det eig eigh eigvals eigvalsh inv qr slogdet solve svd".split():
        monkeypatch.setattr(home, name, on_host(name))
    monkeypatch.setattr(gpu.xp, "linalg", backends.Namespace(home, **linalg(gpu._cupy)))


@pytest.mark.parametrize("case", [row for row in ROWS if row.needs == "cuSOLVER"], ids=str)
def test_what_stands_around_a_decomposition(case, put, solved_on_the_host):
    """The arrays that CuPy computes before and after it, and those of the derivatives."""
    row = case
    args = row.draw(row.dtypes[-1])
    assert_same(row.function(*map(put, args)), row.reference(*args), 1024)
    if row.order:
        f, xs = row.of_differentiable([put(x) for x in row.draw("complex128")])
        check_grads(f, xs, order=1)


# ---- two devices


@pytest.fixture
def pair(gpu):
    devices = gpu.devices()
    if len(devices) < 2:
        pytest.skip("needs two CUDA devices")
    return devices[:2]


@pytest.mark.devices
def test_work_is_done_where_the_arrays_are(gpu, pair):
    xp = gpu.xp
    x = np.arange(1.0, 7).reshape(2, 3)
    first, second = (gpu.asarray(x, None, device, None) for device in pair)
    assert [gpu.device_of(a) for a in (first, second)] == pair
    for f in (
        xp.exp,
        xp.sum,
        xp.sigmoid,
        xp.zeros_like,
        lambda a: xp.softmax(a, 1),
        lambda a: xp.logsumexp(a, 0),
        lambda a: xp.add(2, a),
        lambda a: xp.concatenate([a, a]),
        lambda a: xp.matmul(a, a.T),
        lambda a: xp.einsum("ij,ij->i", a, a),
        lambda a: xp.take(a, xp.argmax(a, axis=1), axis=1),
    ):
        there = f(second)
        assert gpu.device_of(there) == pair[1]
        np.testing.assert_array_equal(get(there), get(f(first)))
    with gpu.scope(pair[1]):
        assert gpu.device_of(xp.zeros(3)) == pair[1]
        assert gpu.device_of(gpu.generator(0, pair[1]).normal((3,), "float32")) == pair[1]
    moved = gpu.asarray(first, None, pair[1], None)
    assert gpu.device_of(moved) == pair[1]
    np.testing.assert_array_equal(get(moved), x)
    xp.sgd_step(moved, None, second, xp.prod(second[:0]), 0.0)
    np.testing.assert_array_equal(get(moved), 0 * x)


@pytest.mark.devices
def test_arrays_on_two_devices_do_not_mix(gpu, pair):
    first, second = (gpu.asarray(np.ones((2, 2)), None, device, None) for device in pair)
    xp = gpu.xp
    for f in (
        lambda: xp.add(first, second),
        lambda: xp.concatenate([first, second]),
        lambda: xp.sigmoid_grad(first, second),
        lambda: xp.matmul(first, second),
        lambda: xp.sgd_step(first, None, second, xp.sum(first), 0.0),
    ):
        with pytest.raises(ValueError, match=r"cuda:0 and cuda:1.*\.to\(device\)"):
            f()


@pytest.mark.devices
@pytest.mark.parametrize("current", [0, 1])
def test_a_tape_stays_on_the_device_of_its_arrays(current, gpu, pair):
    def f(w, x):
        y = gg.nn.linear(x, w, w[0]).copy()
        y = gg.cumulative_sum(gg.sigmoid(y)[[0, 0, 1]], axis=0, include_initial=True)
        return gg.nn.mean_squared_error(y, y.detach() * 0) + gg.mean(gg.concat([y, y.T[:, :3]]))

    with gpu.scope(pair[current]):
        for device in pair:
            w = gg.asarray(np.ones((3, 3)), device=device, requires_grad=True)
            x = gg.asarray(np.arange(6.0).reshape(2, 3), device=device)
            f(w, x).backward()
            optimizer = gg.optim.SGD([w], 0.1, momentum=0.9)
            optimizer.step()
            value, tangent = gg.jvp(f, (w.detach(), x), (gg.ones_like(w), x))
            assert {w.device, w.grad.device, value.device, tangent.device} == {device}
            assert gpu._cupy.cuda.runtime.getDevice() == current
