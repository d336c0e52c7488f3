"""Matrix products by cuBLAS itself, against NumPy in float64."""

import threading
import time
from types import SimpleNamespace

import ml_dtypes
import numpy as np
import pytest

from gpugrad import backends
from gpugrad.cuda import blas as blas_module
from gpugrad.cuda.blas import Blas

DTYPES = ["float16", "bfloat16", "float32", "float64", "complex64", "complex128"]
EPS = {"bfloat16": 2.0**-7, "complex64": 2.0**-23, "complex128": 2.0**-52}


@pytest.fixture
def cupy(cuda):
    return backends.backend_of_kind("cuda")._cupy


@pytest.fixture
def blas(cuda):
    return backends.backend_of_kind("cuda").blas


def random(shape, dtype, seed=0):
    rng = np.random.default_rng(seed)
    values = rng.standard_normal(shape)
    if dtype.startswith("complex"):
        values = values + 1j * rng.standard_normal(shape)
    return values.astype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)


def wide(x):
    return x.astype("complex128" if x.dtype.kind == "c" else "float64")


def check(cupy, blas, a, b, change_a=lambda x: x, change_b=lambda x: x, where=0):
    """a @ b of what the changes make of the arrays, on the device and in NumPy."""
    expected = np.matmul(wide(change_a(a)), wide(change_b(b)))
    with cupy.cuda.Device(where):
        x, y = change_a(cupy.asarray(a)), change_b(cupy.asarray(b))
        out = cupy.empty(expected.shape, a.dtype)
    assert blas.supports(x, y, out)
    blas.matmul(x, y, out)
    got = wide(out.get())
    scale = np.matmul(abs(wide(change_a(a))), abs(wide(change_b(b))))
    eps = EPS.get(a.dtype.name) or np.finfo(a.dtype).eps
    np.testing.assert_array_less(abs(got - expected), 8 * eps * (scale + 1))


SHAPES = {
    "matrices": ((3, 4), (4, 5)),
    "one row": ((1, 4), (4, 5)),
    "one column": ((3, 4), (4, 1)),
    "one term": ((3, 1), (1, 5)),
    "numbers": ((1, 1), (1, 1)),
    "vectors": ((4,), (4,)),
    "a vector on the left": ((4,), (4, 5)),
    "a vector on the right": ((3, 4), (4,)),
    "a vector and a batch": ((4,), (2, 4, 5)),
    "a batch and a vector": ((2, 3, 4), (4,)),
    "a batch": ((2, 3, 4), (2, 4, 5)),
    "two batch axes": ((2, 6, 3, 4), (2, 6, 4, 5)),
    "one matrix for a batch": ((2, 6, 3, 4), (4, 5)),
    "a batch for one matrix": ((3, 4), (2, 6, 4, 5)),
    "inner axes broadcast": ((2, 1, 3, 4), (2, 6, 4, 5)),
    "outer axes broadcast": ((2, 6, 3, 4), (6, 4, 5)),
    "axes broadcast crosswise": ((2, 1, 3, 4), (1, 6, 4, 5)),
    "three batch axes": ((2, 1, 3, 3, 4), (1, 6, 1, 4, 5)),
    "a batch of rows": ((6, 1, 4), (4, 5)),
    "no terms": ((3, 0), (0, 5)),
    "vectors without terms": ((0,), (0,)),
    "no rows": ((0, 4), (4, 5)),
    "no columns": ((2, 3, 4), (4, 0)),
    "an empty batch": ((0, 3, 4), (4, 5)),
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shapes", SHAPES.values(), ids=SHAPES)
def test_products(shapes, dtype, cupy, blas):
    check(cupy, blas, random(shapes[0], dtype), random(shapes[1], dtype, 1))


def broadcast(x):
    library = np if isinstance(x, np.ndarray) else backends.backend_of(x).xp
    return library.broadcast_to(x[:1], x.shape)


CHANGES = {
    "as it is": lambda x: x,
    "transposed": lambda x: x.swapaxes(-1, -2).copy().swapaxes(-1, -2),
    "columns left out": lambda x: x[..., :-1],
    "rows left out": lambda x: x[..., :-1, :],
    "transposed, rows left out": lambda x: x.swapaxes(-1, -2).copy().swapaxes(-1, -2)[..., 1:, :],
    "every other of the batch": lambda x: x[::2],
    "the batch broadcast": broadcast,
    "axes exchanged": lambda x: x.swapaxes(0, 1).copy().swapaxes(0, 1),
}


@pytest.mark.parametrize("dtype", ["float16", "float32", "complex128"])
@pytest.mark.parametrize("left", CHANGES)
@pytest.mark.parametrize("right", CHANGES)
def test_views_are_taken_without_a_copy(left, right, dtype, cupy, blas):
    columns = 5 if left == "columns left out" else 4
    rows = {"rows left out": 5, "transposed, rows left out": 5}.get(right, 4)
    shape_a, shape_b = (4, 3, 3, columns), (4, 3, rows, 3)
    if left == "every other of the batch":
        shape_a = (8, *shape_a[1:])
    if right == "every other of the batch":
        shape_b = (8, *shape_b[1:])
    a, b = random(shape_a, dtype), random(shape_b, dtype, 1)
    check(cupy, blas, a, b, CHANGES[left], CHANGES[right])


@pytest.mark.parametrize("left", CHANGES)
@pytest.mark.parametrize("rows", [1, 3])
def test_views_times_one_matrix(left, rows, cupy, blas):
    """Whose rows are one matrix only where nothing lies between."""
    rows += left in ("rows left out", "transposed, rows left out")
    a, b = random((4, 3, rows, 5), "float64"), random((5, 2), "float64", 1)
    if left == "columns left out":
        b = b[1:]
    check(cupy, blas, a, b, CHANGES[left])


@pytest.mark.parametrize("left", [False, True])
def test_a_vector_may_have_steps(left, cupy, blas):
    vector, matrix = random(8, "float32"), random((4, 4), "float32", 1)
    if left:
        check(cupy, blas, vector, matrix, lambda x: x[::2])
    else:
        check(cupy, blas, matrix, vector, change_b=lambda x: x[1::2])


class Library:
    """cuBLAS with a note of each call; products fail with `status`."""

    def __init__(self, library, status=0):
        self.calls = []
        self._library = library
        self._status = status

    def __getattr__(self, name):
        def call(*args):
            self.calls.append((name, *args))
            time.sleep(0)  # other threads may run
            if name == "cublasSetWorkspace_v2":  # an emulated one has none
                return 0
            return self._status * name.startswith("cublasGemm") or getattr(self._library, name)(
                *args
            )

        return call

    def names(self):
        return [name for name, *_ in self.calls]


@pytest.fixture
def noted(cupy, monkeypatch):
    library = Library(blas_module._load(cupy))
    monkeypatch.setattr(blas_module, "_load", lambda cp: library)
    return Blas(cupy), library


COUNTS = {
    "one matrix for a batch": 1,
    "a batch of rows": 1,
    "a batch and a vector": 1,
    "two batch axes": 1,
    "a batch for one matrix": 1,
    "inner axes broadcast": 2,
    "axes broadcast crosswise": 2,
}


@pytest.mark.parametrize("case", COUNTS)
def test_batches_are_few_calls(case, cupy, noted):
    blas, library = noted
    a, b = (random(shape, "float32") for shape in SHAPES[case])
    check(cupy, blas, a, b)
    calls = [name for name in library.names() if name.startswith("cublasGemm")]
    one = case in ("one matrix for a batch", "a batch of rows", "a batch and a vector")
    assert calls == ["cublasGemmEx" if one else "cublasGemmStridedBatchedEx"] * COUNTS[case]


def test_each_product_has_its_stream_and_its_workspace(cupy, noted):
    blas, library = noted
    pool, stream = cupy.cuda.MemoryPool(), cupy.cuda.Stream(non_blocking=True)
    x = cupy.ones((3, 3))
    out = cupy.empty((3, 3))
    cupy.cuda.Device().synchronize()
    for _ in range(2):
        with stream, cupy.cuda.using_allocator(pool.malloc):
            blas.matmul(x, x, out)
    stream.synchronize()
    names = ["cublasSetStream_v2", "cublasSetWorkspace_v2", "cublasGemmEx"]
    assert library.names() == ["cublasCreate_v2", "cublasSetMathMode", *names, *names]
    assert library.calls[1][2] == 16  # CUBLAS_MATH_DISALLOW_REDUCED_PRECISION_REDUCTION
    assert [call[2] for call in library.calls if "Stream" in call[0]] == [stream.ptr] * 2
    assert {call[3] for call in library.calls if "Workspace" in call[0]} == {pool.total_bytes()}
    assert pool.total_bytes() in (4 << 20, 32 << 20)
    assert pool.used_bytes() == 0


@pytest.mark.parametrize(("capability", "size"), [("75", 4), ("89", 4), ("90", 32), ("120", 32)])
def test_the_size_of_the_workspace(capability, size):
    assert blas_module._workspace(capability) == size << 20


def test_sums_of_half_precision_do_not_overflow_halfway(cupy, blas):
    a = cupy.asarray(np.asarray([[40000.0, 40000.0, -40000.0, -39999.0]], "float16"))
    out = cupy.empty((1, 1), "float16")
    blas.matmul(a, cupy.ones((4, 1), "float16"), out)
    assert abs(float(out[0, 0])) < 64


def test_a_failing_call_is_named(cupy, monkeypatch):
    library = Library(blas_module._load(cupy), status=13)
    monkeypatch.setattr(blas_module, "_load", lambda cp: library)
    x, out = cupy.ones((2, 3), "float32"), cupy.empty((2, 2), "float32")
    message = r"cublasGemmEx: CUBLAS_STATUS_EXECUTION_FAILED .*float32\[2, 3\] and .* on cuda:0"
    with pytest.raises(RuntimeError, match=message):
        Blas(cupy).matmul(x, x.T, out)


REFUSED = {
    "integers": lambda xp: (xp.ones((2, 2), int), xp.ones((2, 2), int), xp.ones((2, 2), int)),
    "dtypes differ": lambda xp: (xp.ones((2, 2), "f"), xp.ones((2, 2)), xp.ones((2, 2))),
    "another result": lambda xp: (xp.ones((2, 2)), xp.ones((2, 2)), xp.ones((2, 2), "f")),
    "a result by columns": lambda xp: (xp.ones((2, 2)), xp.ones((2, 2)), xp.ones((2, 2)).T),
    "steps both ways": lambda xp: (xp.ones((4, 4))[::2, ::2], xp.ones((2, 2)), xp.ones((2, 2))),
    "backwards": lambda xp: (xp.ones((2, 2))[::-1], xp.ones((2, 2)), xp.ones((2, 2))),
    "a batch backwards": lambda xp: (
        *(xp.ones((3, 2, 2))[::-1], xp.ones((2, 2)), xp.ones((3, 2, 2))),
    ),
    "equal rows": lambda xp: (
        *(xp.broadcast_to(xp.ones(2), (2, 2)), xp.ones((2, 2)), xp.ones((2, 2))),
    ),
    "equal columns": lambda xp: (
        *(xp.broadcast_to(xp.ones((2, 1)), (2, 2)), xp.ones((2, 2)), xp.ones((2, 2))),
    ),
    "a number": lambda xp: (xp.ones(()), xp.ones((2, 2)), xp.ones((2, 2))),
    "shapes do not fit": lambda xp: (xp.ones((2, 3)), xp.ones((2, 2)), xp.ones((2, 2))),
    "batches do not fit": lambda xp: (
        *(xp.ones((2, 2, 2)), xp.ones((3, 2, 2)), xp.ones((3, 2, 2))),
    ),
    "shape of the result": lambda xp: (xp.ones((2, 2)), xp.ones((2, 2)), xp.ones((4,))),
}


def test_results_in_the_memory_of_an_operand(cupy, blas):
    x, memory = cupy.ones((2, 2)), cupy.ones((3, 2))
    assert not blas.supports(x, x, x)
    assert not blas.supports(x, memory[1:], memory[:2])
    assert blas.supports(memory[:1], x, memory[1:2])


def test_sizes_are_32_bit_numbers():
    def array(shape):
        return SimpleNamespace(
            shape=shape,
            ndim=2,
            size=1,
            strides=(8 * shape[1], 8),
            itemsize=8,
            dtype=np.dtype(float),
            data=SimpleNamespace(device_id=0),
            flags=SimpleNamespace(c_contiguous=True),
        )

    for k in (2**31 - 1, 2**31):
        plan = blas_module._plan(array((1, k)), array((k, 1)), array((1, 1)))
        assert (plan is not None) == (k < 2**31)


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_not_supported(case, cupy, blas):
    a, b, out = REFUSED[case](cupy)
    before = out.get()
    assert not blas.supports(a, b, out)
    with pytest.raises(ValueError, match=r"matmul: cuBLAS does not take .* into .*\["):
        blas.matmul(a, b, out)
    np.testing.assert_array_equal(out.get(), before)


def test_numpy_has_no_need_of_it():
    assert backends.backend_of_kind("cpu").blas is None


def test_it_is_loaded_by_the_first_product(cupy):
    blas = Blas(cupy)
    x = cupy.ones((2, 2))
    blas.supports(x, x, x)
    assert blas._library is None
    blas.matmul(x, x, cupy.empty((2, 2)))
    assert blas._library is not None
    blas.matmul(x, x, cupy.empty((2, 2)))
    assert list(blas._handles) == [0]


def test_threads(cupy, noted):
    """A product's stream is its thread's, on the one handle."""
    blas, library = noted
    expected, wrong = np.full((8, 8), 8.0), []

    def work():
        with cupy.cuda.Stream(non_blocking=True) as stream:
            x, out = cupy.ones((8, 8)), cupy.empty((8, 8))
            for _ in range(20):
                blas.matmul(x, x, out)
            wrong.append(np.any(out.get(stream=stream) != expected))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == [False] * 4
    product = ["cublasSetStream_v2", "cublasSetWorkspace_v2", "cublasGemmEx"]
    assert library.names()[2:] == product * 80


@pytest.mark.devices
def test_the_second_device(cupy, blas):
    check(cupy, blas, random((3, 4), "float32"), random((2, 4, 5), "float32"), where=1)
    assert cupy.cuda.runtime.getDevice() == 0
    x = cupy.ones((2, 2))
    with cupy.cuda.Device(1):
        out = cupy.empty((2, 2))
    assert not blas.supports(x, x, out)


@pytest.mark.parametrize("dtype", DTYPES)
def test_captured_products_follow_their_operands(dtype, cupy, cuda, blas):
    a, b = random((2, 3, 4), dtype), random((4, 5), dtype, 1)
    x, y = cupy.asarray(a), cupy.asarray(b)
    out, square = cupy.empty((2, 3, 5), x.dtype), cupy.empty((2, 3, 3), x.dtype)

    def work():
        blas.matmul(x, y, out)
        blas.matmul(x, x.swapaxes(-1, -2), square)

    work()
    graph = backends.backend_of_kind("cuda").capture(cuda, work)
    x[...] = 2 * x
    out.fill(0)
    graph.launch()
    eps = EPS.get(dtype) or np.finfo(dtype).eps
    expected = 2 * np.matmul(wide(a), wide(b))
    np.testing.assert_allclose(wide(out.get()), expected, rtol=32 * eps, atol=32 * eps)
    expected = 4 * np.matmul(wide(a), wide(a).swapaxes(-1, -2))
    np.testing.assert_allclose(wide(square.get()), expected, rtol=32 * eps, atol=32 * eps)


def test_products_without_terms_are_captured(cupy, cuda, blas):
    x, out = cupy.ones((3, 0)), cupy.ones((3, 3))
    graph = backends.backend_of_kind("cuda").capture(cuda, lambda: blas.matmul(x, x.T, out))
    assert out.sum() == 9
    graph.launch()
    assert out.sum() == 0


def test_the_engine_does_not_load_it(cupy):
    """Its own products are CuPy's."""
    backend = type(backends.backend_of_kind("cuda"))(cupy, 1)
    assert "blas" not in vars(backend)
    backend.xp.matmul(cupy.ones((2, 2)), cupy.ones((2, 2)))
    assert "blas" not in vars(backend)
