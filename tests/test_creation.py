"""Creation functions and dtypes, against NumPy."""

import numpy as np
import pytest
from helpers import array, assert_same, host, leaf

import gpugrad as gg

SIX = np.arange(6.0, dtype=np.float32).reshape(2, 3)


@pytest.mark.parametrize(
    ("name", "args", "options"),
    [
        ("zeros", (3,), {}),
        ("zeros", ((2, 0),), {"dtype": np.dtype("int32")}),
        ("ones", ((),), {}),
        ("ones", ((2, 3),), {"dtype": np.dtype("complex64")}),
        ("full", (2, 3), {}),
        ("full", ((2, 2), 1.5), {}),
        ("full", (2, True), {}),
        ("full", (2, 3), {"dtype": np.dtype("float32")}),
        ("arange", (5,), {}),
        ("arange", (1, 2.5, 0.5), {}),
        ("arange", (5, 1, -2), {"dtype": np.dtype("float32")}),
        ("arange", (0,), {}),
        ("linspace", (0, 1, 5), {}),
        ("linspace", (1, -1, 4), {"endpoint": False, "dtype": np.dtype("float32")}),
        ("linspace", (0, 1, 1), {}),
        ("linspace", (0, 1, 0), {}),
        ("eye", (3,), {}),
        ("eye", (2, 4), {"k": 1, "dtype": np.dtype("int64")}),
    ],
)
def test_creation(name, args, options, device):
    out = getattr(gg, name)(*args, **options)
    assert_same(out, getattr(np, name)(*args, **options))
    assert out.device == device
    assert not out.requires_grad
    assert getattr(gg, name)(*args, **options, device="cpu").device == "cpu"


def test_empty(device):
    out = gg.empty((2, 0, 3), dtype="float32")
    assert (out.shape, out.dtype, out.device) == ((2, 0, 3), np.float32, device)
    assert gg.empty(2).dtype == np.float64


@pytest.mark.parametrize("name", ["zeros_like", "ones_like", "empty_like", "full_like"])
def test_like(name, device):
    fill = (2.5,) if name == "full_like" else ()
    f, reference = getattr(gg, name), getattr(np, name)
    x = leaf(SIX, dtype="float32")
    for options in ({}, {"dtype": np.dtype("int64")}):
        out, expected = f(x, *fill, **options), reference(SIX, *fill, **options)
        if name == "empty_like":
            out, expected = out * 0, expected * 0
        assert_same(out, expected)
        assert not out.requires_grad
        assert out.device == device
    assert f(x, *fill, device="cpu").device == "cpu"
    assert type(f(x.data, *fill)) is type(x.data)


def test_linspace_between_tensors(device):
    a, b = leaf(1.0, dtype="float32"), leaf(3.0, dtype="float32")
    out = gg.linspace(a, b, 5)
    assert_same(out, np.linspace(1, 3, 5, dtype=np.float32))
    assert out.device == device
    out[1].backward()
    assert (float(a.grad), float(b.grad)) == (0.75, 0.25)
    assert_same(gg.linspace(a, 3, 4, endpoint=False), np.linspace(1, 3, 4, False, dtype=np.float32))
    assert gg.linspace(0, b, 3, dtype="float64").dtype == np.float64


# ---- asarray


@pytest.mark.parametrize(
    "obj", [1, 1.5, True, 1j, [1, 2], [[1.0], [2.0]], (True, False), [], range(3)], ids=str
)
def test_asarray_of_python_data(obj, device):
    out = gg.asarray(obj, device=device)
    assert_same(out, np.asarray(obj))
    assert out.device == device
    assert_same(gg.asarray(obj, dtype="complex64", device=device), np.asarray(obj, "complex64"))


def test_asarray_shares_memory_where_it_can(device):
    x = array(SIX)
    t = gg.asarray(x)
    assert t.data is x
    assert gg.asarray(t) is t
    assert gg.asarray(t, dtype="float32", device=device, copy=False) is t
    assert gg.asarray(x, copy=False).data is x
    for copied in (
        gg.asarray(x, copy=True),
        gg.asarray(t, copy=True),
        gg.asarray(x, dtype="float64"),
        gg.asarray(x, requires_grad=True),
        gg.asarray(t, requires_grad=True),
    ):
        copied.detach()[...] = -1
    np.testing.assert_array_equal(host(x), SIX)


def test_asarray_of_a_tensor_stays_on_the_tape(device):
    x = leaf(SIX, dtype="float32")
    for y in (
        gg.asarray(x, dtype="float64"),
        gg.asarray(x, copy=True),
        gg.asarray(x * 2),
        gg.asarray(x, device=device),
    ):
        assert y.requires_grad
    gg.sum(gg.asarray(x, dtype="float64", copy=True) * 3).backward()
    assert_same(x.grad, np.full((2, 3), 3, np.float32))


def test_asarray_of_tensors_in_a_list(device):
    if device.kind == "cpu":
        assert_same(gg.asarray([gg.asarray(1.0), gg.asarray(2.0)]), np.array([1.0, 2.0]))
    else:
        with pytest.raises(RuntimeError, match="would copy in silence"):
            gg.asarray([gg.asarray(1.0), gg.asarray(2.0)])


def test_asarray_requires_grad(device):
    x = gg.asarray([1, 2], dtype="float32", requires_grad=True)
    assert x.requires_grad
    assert x.is_leaf
    assert not gg.asarray([1.0]).requires_grad
    bfloat16 = pytest.importorskip("ml_dtypes").bfloat16
    y = gg.asarray(np.ones(2, bfloat16), requires_grad=True)
    gg.sum(y * 2).backward()
    assert y.grad.dtype == bfloat16
    np.testing.assert_array_equal(y.grad.get().astype(float), [2, 2])


# ---- dtypes


def test_dtypes_are_numpys():
    for name in (
        *["bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"],
        *["float16", "float32", "float64", "complex64", "complex128"],
    ):
        assert getattr(gg, name) is np.dtype(name)


def test_constants():
    assert (gg.pi, gg.e, gg.inf, gg.newaxis) == (np.pi, np.e, np.inf, None)
    assert np.isnan(gg.nan)


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (("float32", 1.0), "float32"),
        (("float32", 1j), "complex64"),
        (("int64", 1.5), "float64"),
        (("float32", "float64"), "float64"),
        (("int32", "float32"), "float64"),
        (("bool", 1), "int64"),
    ],
)
def test_result_type(args, expected, device):
    numbers = [a for a in args if not isinstance(a, str)]
    dtypes = [np.dtype(a) for a in args if isinstance(a, str)]
    tensors = [gg.zeros(2, dtype=d) for d in dtypes]
    assert gg.result_type(*dtypes, *numbers) == expected
    assert gg.result_type(*tensors, *numbers) == expected
    assert sum(tensors, start=numbers[0] if numbers else 0).dtype == expected


def test_questions_about_dtypes(device):
    x = gg.zeros(2, dtype="float32")
    assert gg.can_cast(x, gg.float64)
    assert not gg.can_cast(gg.float64, gg.float32)
    assert gg.isdtype(x.dtype, "real floating")
    assert gg.isdtype(gg.int8, ("integral", gg.bool))
    assert not gg.isdtype(gg.complex64, "real floating")
    assert gg.finfo(x).eps == gg.finfo(gg.float32).eps == np.finfo(np.float32).eps
    assert gg.iinfo(gg.asarray([1])).max == np.iinfo(np.int64).max


@pytest.mark.parametrize("to", ["float32", "float64", "complex64", "int64", "bool"])
def test_astype(to, device):
    x = leaf([0.0, 1.5, -2.0], dtype="float32")
    out = gg.astype(x, to)
    assert_same(out, np.array([0, 1.5, -2], np.float32).astype(to))
    assert out.requires_grad is (np.dtype(to).kind in "fc")
    assert out is not x
    assert (gg.astype(x, to, copy=False) is x) is (to == "float32")
    assert_same(gg.astype(x.data, to), host(out))
    assert gg.astype(x, to, device="cpu").device == "cpu"


@pytest.mark.parametrize("to", ["float64", "complex128"])
def test_the_gradient_of_a_cast_has_the_first_dtype(to, device):
    x = leaf([1.0, 2.0], dtype="float32")
    gg.sum(gg.real(x.astype(to) * 3)).backward()
    assert_same(x.grad, np.array([3, 3], np.float32))
    y = leaf([1.0, 2.0])
    gg.sum(y.astype("float32") * 3).backward()
    assert_same(y.grad, np.array([3.0, 3.0]))


def test_from_dlpack_shares_memory(device):
    given = array([1.0, 2.0])
    x = gg.from_dlpack(given)
    assert x.device == device
    assert not x.requires_grad
    given[0] = 7
    np.testing.assert_array_equal(host(x), [7, 2])
    assert gg.from_dlpack(given, copy=True).data is not given
    np.testing.assert_array_equal(host(gg.from_dlpack(gg.asarray(given))), [7, 2])
    np.testing.assert_array_equal(host(gg.from_dlpack(given, device="cpu")), [7, 2])


def test_from_dlpack_of_an_unknown_device():
    class Elsewhere:
        def __dlpack_device__(self):
            return 99, 0

    with pytest.raises(gg.DeviceError, match="99"):
        gg.from_dlpack(Elsewhere())


def test_meshgrid_of_what_is_no_vector(device):
    with pytest.raises(ValueError, match=r"meshgrid.*\(1, 1\)"):
        gg.meshgrid(gg.asarray([[1.0]]))


@pytest.mark.parametrize("n", [1, 4, 5])
def test_frequencies(n, device):
    for name in ("fftfreq", "rfftfreq"):
        f, reference = getattr(gg.fft, name), getattr(np.fft, name)
        assert_same(f(n), reference(n))
        out = f(n, d=0.1, dtype=np.float32)
        assert_same(out, reference(n, 0.1).astype(np.float32))
        assert out.device == device
        assert f(n, device="cpu").device == "cpu"
        with pytest.raises(ValueError, match=f"^{name}.*0"):
            f(0)
        with pytest.raises(TypeError, match=f"^{name}.*complex64"):
            f(n, dtype=np.complex64)


@pytest.mark.parametrize(
    ("name", "args", "options"),
    [
        ("logspace", (0, 2), {}),
        ("logspace", (0, 2, 5), {"base": 2, "endpoint": False, "dtype": np.dtype("float32")}),
        ("logspace", (-1.5, 1, 0), {}),
        ("geomspace", (1, 1000), {}),
        ("geomspace", (-2, -0.5, 4), {"endpoint": False}),
        ("geomspace", (1, 8, 4), {"dtype": np.dtype("float32")}),
        ("geomspace", (1, 1j, 3), {}),
    ],
)
def test_spaced_by_factors(name, args, options, device):
    out = getattr(gg, name)(*args, **options)
    assert_same(out, getattr(np, name)(*args, **options))
    assert out.device == device
    assert getattr(gg, name)(*args, **options, device="cpu").device == "cpu"


def test_gradients_of_spaces_with_tensor_ends(device):
    start, stop, base = (leaf(x) for x in (1.0, 2.0, 3.0))
    out = gg.logspace(start, stop, 3, base=base)
    assert out.device == device
    gg.sum(out).backward()
    powers, at = 3.0 ** np.array([1, 1.5, 2]), np.array([1, 1.5, 2])
    assert host(start.grad) == pytest.approx(powers @ [1, 0.5, 0] * np.log(3))
    assert host(stop.grad) == pytest.approx(powers @ [0, 0.5, 1] * np.log(3))
    assert host(base.grad) == pytest.approx(np.sum(at * powers / 3))
    start, stop = leaf(2.0), leaf(8.0)
    gg.sum(gg.geomspace(start, stop, 3)).backward()  # 2 + sqrt(2 * 8) + 8
    assert host(start.grad) == pytest.approx(1 + 4 / 2 / 2)
    assert host(stop.grad) == pytest.approx(1 + 4 / 8 / 2)
    with pytest.raises(ValueError, match="geomspace: no multiple leads to or from 0"):
        gg.geomspace(0, stop)
