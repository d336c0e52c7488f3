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
    a, b = gg.asarray(1.0), gg.asarray([2.0, 3.0])
    assert_same(gg.asarray([a, 2, np.float32(3)]), np.array([1.0, 2.0, 3.0]))
    assert_same(gg.asarray(([a, a], b)), np.array([[1.0, 1.0], [2.0, 3.0]]))
    assert_same(gg.asarray([b, b.data], dtype="int8"), np.array([[2, 3], [2, 3]], np.int8))
    assert_same(gg.asarray([array([1, 2]), array([3, 4])]), np.array([[1, 2], [3, 4]]))
    assert gg.asarray([a, 1.0]).device == device
    assert gg.asarray([a, 1.0], device="cpu").device == "cpu"
    assert not gg.asarray([a, 1.0]).requires_grad
    x = gg.asarray([a, 1.0], requires_grad=True)
    assert x.is_leaf
    assert x.requires_grad
    with pytest.raises(ValueError, match="shapes differ"):
        gg.asarray([[a, 1.0], [a]])
    with pytest.raises(ValueError, match="copy=False"):
        gg.asarray([a], copy=False)


def test_numbers_beside_tensors_count_by_their_kind():
    a = gg.asarray(1.0, dtype="float32")
    for number, dtype in ((2.0, "float32"), (2j, "complex64"), (True, "float32")):
        assert gg.asarray([[a], [number]]).dtype == gg.result_type(a, number) == dtype
    assert gg.asarray([a, np.float64(2)]).dtype == np.float64


def test_asarray_of_a_list_stays_on_the_tape(device):
    x, y = leaf(2.0), leaf([3.0, 4.0])
    matrix = gg.asarray([[x * x, 0.0], [1, y[0]], y])
    assert_same(matrix, np.array([[4.0, 0.0], [1.0, 3.0], [3.0, 4.0]]))
    gg.sum(matrix * gg.asarray([[1.0, 2], [3, 4], [5, 6]], device=device)).backward()
    assert_same([x.grad, y.grad], [np.array(4.0), np.array([9.0, 6.0])])
    assert_same(
        gg.grad(lambda t: gg.sum(gg.asarray([t, t], dtype="float32")))(array(1.0)), np.array(2.0)
    )


def test_a_leaf_is_not_made_of_a_computed_tensor(device):
    x = leaf([1.0, 2.0])
    assert gg.asarray(x, requires_grad=True) is x
    for call in (
        lambda: gg.asarray(x * 2, requires_grad=True),
        lambda: gg.asarray(x, dtype="float32", requires_grad=True),
        lambda: gg.asarray(x, copy=True, requires_grad=True),
        lambda: gg.asarray([x, x], requires_grad=True),
    ):
        with pytest.raises(RuntimeError, match=r"\.detach\(\)"):
            call()
    assert gg.asarray((x * 2).detach(), requires_grad=True).is_leaf
    assert host(gg.grad(lambda t: gg.sum(gg.asarray(t, requires_grad=True) * 3))(array(1.0))) == 3


def test_full_of_a_tensor(device):
    x = leaf(2.0)
    for out in (
        gg.full((2, 3), x),
        gg.full_like(gg.ones((2, 3)), x),
        gg.full((2, 3), x, dtype="float32"),
    ):
        assert_same(out.astype("float64"), np.full((2, 3), 2.0))
        assert host(gg.grad(lambda t: gg.sum(gg.full((2, 3), t)))(array(1.0))) == 6
        out.detach()[0, 0] = 5
        assert host(out).sum() == 15
    assert gg.full_like(gg.ones(2, dtype="float32"), x).dtype == np.float32
    assert gg.full(2, x, device="cpu").device == "cpu"


def test_what_is_no_number_or_dtype_is_refused(device):
    for call in (
        lambda: gg.full(2, "a"),
        lambda: gg.full(2, None),
        lambda: gg.asarray("a"),
        lambda: gg.result_type(None),
        lambda: gg.isdtype(None, "bool"),
        lambda: gg.can_cast(None, gg.float64),
    ):
        with pytest.raises(TypeError):
            call()


def test_arange_takes_integer_tensors(device):
    assert_same(gg.arange(gg.asarray(3)), np.arange(3))
    with pytest.raises(TypeError, match="only an integer tensor"):
        gg.arange(leaf(3.0))


def test_masked_arrays_are_refused():
    masked = np.ma.array([1.0, 2.0], mask=[False, True])
    x = gg.asarray([1.0, 2.0], device="cpu")
    with pytest.raises(TypeError, match="filled"):
        gg.asarray(masked)
    for call in (
        lambda: x + masked,
        lambda: gg.where(masked > 1, x, x),
        lambda: gg.sin(masked),
        lambda: gg.sum(masked),
        lambda: gg.matmul(x, masked),
    ):
        with pytest.raises(TypeError, match=r"MaskedArray.*gpugrad\.asarray"):
            call()


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
        assert getattr(gg, name) is np.dtype(name).type
        assert gg.zeros(1, dtype=getattr(gg, name)).dtype == getattr(gg, name) == np.dtype(name)


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
    assert gg.can_cast(x, "complex64")
    assert gg.finfo(x).eps == gg.finfo(gg.float32).eps == np.finfo(np.float32).eps
    assert gg.finfo(gg.complex64).dtype == gg.float32
    limits = gg.finfo("float32")
    assert {type(getattr(limits, n)) for n in "eps max min smallest_normal".split()} == {float}
    assert (x * limits.eps).dtype == gg.float32
    assert (limits.bits, limits.tiny) == (32, limits.smallest_normal)
    assert "float32" in repr(limits)
    assert not hasattr(limits, "bit")
    with pytest.raises(ValueError, match="int64"):
        gg.finfo(gg.int64)
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


@pytest.mark.parametrize("dtype", ["float32", "int8", "bool", "complex128"])
def test_dlpack_is_versioned(dtype, device):
    x = gg.asarray([[0, 1], [1, 0]], dtype=dtype)
    capsule = {"dltensor_versioned"} if device.kind == "cpu" else {"dltensor", "dltensor_versioned"}
    assert any(f'"{name}"' in repr(x.__dlpack__(max_version=(1, 0))) for name in capsule)
    x.__dlpack__(stream=None, max_version=None, dl_device=None, copy=None)
    x.__dlpack__(copy=True)
    x.__dlpack__(copy=False)
    assert [int(i) for i in x.__dlpack_device__()] == [1 if device.kind == "cpu" else 2, 0]
    host_copy = x.__dlpack__(dl_device=(1, 0), max_version=(1, 0))
    assert "dltensor" in repr(host_copy)
    if device.kind != "cpu":
        with pytest.raises(BufferError):
            x.__dlpack__(dl_device=(1, 0), copy=False)
    with pytest.raises(TypeError):
        x.__dlpack__(flag=1)


def test_dlpack_keeps_gradients():
    with pytest.raises(RuntimeError, match="detach"):
        leaf([1.0]).__dlpack__(max_version=(1, 0))
    with pytest.raises(RuntimeError, match="detach"):
        gg.from_dlpack(leaf([1.0]))


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
