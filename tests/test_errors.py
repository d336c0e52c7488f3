"""Bad input: the right exception, a message that names what is wrong and the mend, no damage."""

import operator
import re

import numpy as np
import pytest
from helpers import array, host, leaf

import gpugrad as gg


def kind_of(x):
    return type(x).__name__


@pytest.fixture
def refused():
    """Runs a call that must raise, and sees that it changed no tensor."""

    def run(error, message, call, *tensors):
        tensors = [x for x in tensors if isinstance(x, gg.Tensor)]
        before = [(host(x.data), x.grad, x.node, x.requires_grad) for x in tensors]
        with pytest.raises(error, match=message) as caught:
            call()
        for x, (data, grad, node, requires) in zip(tensors, before, strict=True):
            np.testing.assert_array_equal(host(x.data), data)
            assert x.grad is grad
            assert x.node is node
            assert x.requires_grad is requires
        return str(caught.value)

    return run


# ---- shapes

WRONG_SHAPES = {
    "add": (lambda a, b: a + b, (3,), (4,)),
    "multiply": (lambda a, b: a * b, (2, 3), (3, 2)),
    "maximum": (gg.maximum, (2,), (3,)),
    "where": (lambda a, b: gg.where(a > 0, a, b), (2,), (3,)),
    "clip": (lambda a, b: gg.clip(a, min=b), (2,), (3,)),
    "matmul": (lambda a, b: a @ b, (2, 3), (2, 3)),
    "vecdot": (gg.vecdot, (2, 3), (2, 4)),
    "tensordot": (lambda a, b: gg.tensordot(a, b, axes=1), (2, 3), (2, 3)),
    "einsum": (lambda a, b: gg.einsum("ij,jk->ik", a, b), (2, 3), (2, 3)),
    "concat": (lambda a, b: gg.concat([a, b]), (2, 3), (2, 2)),
    "stack": (lambda a, b: gg.stack([a, b]), (2, 3), (2, 2)),
    "linear": (lambda a, b: gg.nn.linear(a, b, b[0]), (2, 3), (2, 3)),
    "mean_squared_error": (gg.nn.mean_squared_error, (2, 3), (2, 1)),
}


@pytest.mark.parametrize("name", WRONG_SHAPES)
def test_shapes_that_do_not_fit(name, device, refused):
    f, *shapes = WRONG_SHAPES[name]
    a, b = (leaf(np.ones(shape)) for shape in shapes)
    text = refused(ValueError, rf"^{name}\b", lambda: f(a, b), a, b)
    for shape in shapes:
        assert str(shape) in text


ONE_ARGUMENT = {
    "reshape": (ValueError, lambda x: gg.reshape(x, (4,))),
    "broadcast_to": (ValueError, lambda x: gg.broadcast_to(x, (2, 2))),
    "permute_dims": (ValueError, lambda x: gg.permute_dims(x, (0, 0))),
    "expand_dims": (ValueError, lambda x: gg.expand_dims(x, 7)),
    "squeeze": (ValueError, lambda x: gg.squeeze(x, 0)),
    "matrix_transpose": (ValueError, lambda x: gg.matrix_transpose(x[0])),
    "sum": (ValueError, lambda x: gg.sum(x, axis=2)),
    "mean": (ValueError, lambda x: gg.mean(x, axis=-3)),
    "var": (ValueError, lambda x: gg.var(x, axis=2)),
    "max": (ValueError, lambda x: gg.max(x[:0])),
    "argmax": (ValueError, lambda x: gg.argmax(x[:0])),
    "logsumexp": (ValueError, lambda x: gg.logsumexp(x, axis=5)),
    "logsumexp, two axes": (ValueError, lambda x: gg.logsumexp(x, axis=(0, 5))),
    "moveaxis": (ValueError, lambda x: gg.moveaxis(x, 0, 2)),
    "tensordot": (ValueError, lambda x: gg.tensordot(x, x, axes=((3,), (0,)))),
    "vecdot": (ValueError, lambda x: gg.vecdot(x, x, axis=2)),
    "take_along_axis": (ValueError, lambda x: gg.take_along_axis(x, array([[0]]), axis=2)),
    "std": (ValueError, lambda x: gg.std(x, axis=(0, 2))),
    "prod": (ValueError, lambda x: gg.prod(x, axis=2)),
    "roll": (ValueError, lambda x: gg.roll(x, 1, axis=2)),
    "cumulative_sum, axis": (ValueError, lambda x: gg.cumulative_sum(x, axis=2)),
    "softmax": (ValueError, lambda x: gg.softmax(x, axis=5)),
    "cumulative_sum": (ValueError, lambda x: gg.cumulative_sum(x)),
    "cumulative_prod": (ValueError, lambda x: gg.cumulative_prod(x)),
    "concat": (ValueError, lambda x: gg.concat([x, x], axis=2)),
    "flip": (ValueError, lambda x: gg.flip(x, axis=2)),
    "repeat": (ValueError, lambda x: gg.repeat(x, [1, 2, 3], axis=0)),
    "take": (ValueError, lambda x: gg.take(x, array([0]), axis=2)),
    "getitem": (IndexError, lambda x: x[0, 0, 0]),
}


@pytest.mark.parametrize("name", ONE_ARGUMENT)
def test_axes_and_shapes_that_are_not_there(name, device, refused):
    error, f = ONE_ARGUMENT[name]
    x = leaf(np.ones((2, 3)))
    text = refused(error, rf"^{name.partition(',')[0]}\b", lambda: f(x), x)
    assert re.search(r"float64 \(.*\) on \S+|\(2, 3\)|2 axes|dimension 2", text)


def test_concat_of_nothing():
    with pytest.raises(ValueError, match="concat"):
        gg.concat([])
    with pytest.raises(ValueError, match="stack"):
        gg.stack([])


# ---- dtypes and types


@pytest.mark.parametrize("dtype", ["int64", "uint8", "bool"])
def test_only_inexact_tensors_require_gradients(dtype, device, refused):
    values = array([0, 1], dtype)
    x = gg.asarray(values)

    def switch_on():
        x.requires_grad = True

    for call in (
        switch_on,
        lambda: gg.asarray(values, requires_grad=True),
        lambda: gg.asarray(x, requires_grad=True),
        lambda: gg.asarray([0.5], dtype=dtype, requires_grad=True),
        lambda: gg.grad(gg.sum)(values),
    ):
        refused(TypeError, rf"floating-point or complex.*{dtype}.*dtype=gpugrad\.float32", call, x)


@pytest.mark.parametrize("other", ["text", [1.0, 2.0], None, object(), {}], ids=kind_of)
def test_operands_that_are_no_arrays(other, device, refused):
    x = leaf([1.0, 2.0])
    kind = type(other).__name__
    message = rf"expected a Tensor, an array or a number, got {kind}.*asarray"
    for f in (operator.add, operator.eq, gg.maximum):
        refused(TypeError, message, lambda f=f: f(x, other), x)
        refused(TypeError, message, lambda f=f: f(other, x), x)


@pytest.mark.parametrize("f", [gg.sin, gg.sigmoid, gg.sum, gg.reshape, gg.softmax, gg.add])
@pytest.mark.parametrize("wrong", [[1.0, 2.0], "text", None, 1.5], ids=str)
def test_functions_of_what_is_no_array(f, wrong):
    options = {gg.reshape: ((1,),), gg.add: (wrong,)}.get(f, ())
    with pytest.raises(TypeError, match=rf"got {type(wrong).__name__}.*gpugrad\.asarray"):
        f(wrong, *options)


@pytest.mark.parametrize(
    ("name", "f"),
    [
        ("bitwise_and", lambda x: x & x),
        ("bitwise_invert", lambda x: ~x),
        ("bitwise_left_shift", lambda x: x << 1),
        ("getitem", lambda x: x[x]),
        ("cross_entropy", lambda x: gg.cross_entropy(gg.stack([x, x]), x)),
    ],
)
def test_dtypes_that_an_operation_does_not_have(name, f, device, refused):
    x = leaf([1.0, 2.0])
    error = IndexError if name == "getitem" else TypeError
    assert "float64" in refused(error, rf"^{name}\b", lambda: f(x), x)


@pytest.mark.parametrize(
    "count_and_names",
    [
        (1, ["sigmoid", "softplus", "gelu", "softmax", "logsumexp", "floor", "signbit"]),
        (2, ["atan2", "hypot", "copysign", "nextafter", "remainder", "floor_divide", "logaddexp"]),
    ],
)
def test_complex_where_a_real_number_is_needed(count_and_names, device, refused):
    z = leaf([1j, 2.0], dtype="complex128")
    count, names = count_and_names
    for name in names:
        f = getattr(gg, name)
        assert "complex128" in refused(TypeError, rf"^{name}\b", lambda f=f: f(*[z] * count), z)


def test_floor_divide_by_a_complex_number(device, refused):
    x = leaf([1.0, 2.0])
    refused(TypeError, r"^floor_divide\b", lambda: gg.floor_divide(x, 1j), x)


def test_complex_to_real(device, refused):
    z = leaf([1j, 2.0], dtype="complex128")
    for to in ("float64", "int64"):
        refused(TypeError, "astype: complex128.*use real or abs", lambda to=to: z.astype(to), z)


@pytest.mark.parametrize(
    "wrong",
    ["text", None, object(), {}, [None], np.array(["a"]), np.array([object()])],
    ids=kind_of,
)
def test_asarray_of_what_are_no_numbers(wrong):
    with pytest.raises(TypeError, match="asarray: numbers are needed"):
        gg.asarray(wrong)


def test_asarray_of_a_ragged_list():
    with pytest.raises(ValueError, match="inhomogeneous"):
        gg.asarray([[1.0], [1.0, 2.0]])


def test_asarray_without_a_copy(device, refused):
    x = gg.asarray(array([1.0, 2.0]))
    for call in (
        lambda: gg.asarray([1.0, 2.0], copy=False),
        lambda: gg.asarray(x, dtype="float32", copy=False),
        lambda: gg.asarray(x.data, dtype="float32", copy=False),
    ):
        refused(ValueError, "copy", call, x)


def test_asarray_of_other_kinds_of_arrays(device):
    with pytest.raises(TypeError, match="mask"):
        gg.asarray(np.ma.array([1.0, 2.0], mask=[True, False]))


# ---- indices


@pytest.mark.parametrize("key", [1.0, "text", {}, (0, 1.5), object()], ids=kind_of)
def test_keys_that_are_no_indices(key, device, refused):
    x = leaf([[1.0, 2.0]])
    kind = type(key[-1] if isinstance(key, tuple) else key).__name__
    refused(IndexError, rf"getitem: an index is.*not {kind}", lambda: x[key], x)


def test_index_out_of_range(device, refused):
    x = leaf([1.0, 2.0])
    refused(IndexError, r"^getitem: .*\(2,\)", lambda: x[2], x)
    refused(IndexError, r"^getitem: .*\(2,\)", lambda: x[array([True, False, True])], x)
    if device.kind == "cpu":
        refused(IndexError, r"^getitem: .*\(2,\)", lambda: x[array([5])], x)
        refused(IndexError, r"^take: .*\(2,\)", lambda: gg.take(x, array([5])), x)


def test_writing_what_does_not_fit(device, refused):
    x, i = gg.asarray(array([1.0, 2.0])), gg.asarray(array([1, 2]))

    def write(target, key, value):
        target[key] = value

    refused(ValueError, r"^setitem\b.*\(2,\)", lambda: write(x, ..., array([1.0, 2.0, 3.0])), x)
    refused(IndexError, r"^setitem\b.*\(2,\)", lambda: write(x, 7, 1.0), x)
    refused(TypeError, "^setitem: float64 does not go into int64", lambda: write(i, 0, x[0]), i)
    refused(TypeError, "^setitem", lambda: write(x, 0, "text"), x)

    def add(target, value):
        target += value

    refused(ValueError, r"^setitem\b|^add\b", lambda: add(x, array([[1.0, 2.0], [3.0, 4.0]])), x)
    refused(TypeError, r"float64 does not go into int64", lambda: add(i, x), i)


# ---- backward


def test_backward_of_what_requires_no_gradient(device, refused):
    x = gg.asarray(array([1.0, 2.0]))
    message = "does not require a gradient.*requires_grad=True"
    refused(RuntimeError, message, (x * x).sum().backward, x)
    refused(RuntimeError, message, (leaf([1.0]) * 2).detach().backward)


def test_backward_of_a_non_scalar(device, refused):
    x = leaf([[1.0, 2.0]])
    y = x * x
    refused(
        ValueError,
        r"backward: .*scalar.*float64 \(1, 2\).*give a gradient of that shape",
        y.backward,
        x,
        y,
    )
    y.sum().backward()


def test_second_backward(device, refused):
    x = leaf([1.0, 2.0])
    y = (x * x).sum()
    y.backward()
    refused(RuntimeError, "sum: .*released.*retain_graph=True", y.backward, x, y)
    refused(RuntimeError, "multiply|sum", (y * 2).backward, x, y)


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        (np.ones(3), ValueError, r"backward: the gradient has shape \(3,\) where \(2,\)"),
        (1.0, ValueError, r"backward: the gradient has shape \(\) where \(2,\)"),
        ("text", TypeError, "numbers are needed"),
        ([[1.0], [1.0, 2.0]], ValueError, "inhomogeneous"),
    ],
)
def test_backward_with_a_gradient_that_does_not_fit(given, error, message, device, refused):
    x = leaf([1.0, 2.0])
    y = x * x
    g = array(given) if isinstance(given, np.ndarray) else given
    refused(error, message, lambda: y.backward(g), x, y)
    y.backward(array([1.0, 1.0]))


def test_grad_that_does_not_fit(device, refused):
    x = leaf([1.0, 2.0])

    def put(target, value):
        target.grad = value

    refused(ValueError, r"grad must have shape \(2,\)", lambda: put(x, gg.ones(3)), x)
    refused(ValueError, "dtype float64", lambda: put(x, gg.ones(2, dtype="float32")), x)
    refused(TypeError, "Tensor", lambda: put(x, array([1.0, 2.0])), x)
    refused(RuntimeError, "only a leaf", lambda: put(x * 2, gg.ones(2)), x)
    refused(RuntimeError, "only a leaf", lambda: put(x.detach(), gg.ones(2)), x)


def test_hook_on_what_requires_no_gradient(device, refused):
    x = gg.asarray(array([1.0]))
    refused(RuntimeError, "register_hook: .*not require", lambda: x.register_hook(print), x)


# ---- numbers and other libraries


@pytest.mark.parametrize("convert", [float, int, complex])
def test_number_of_a_non_scalar(convert, device, refused):
    for shape in ((2,), (1,), (0,), (1, 1)):
        x = leaf(np.ones(shape))
        told = rf"float64.*{re.escape(str(shape))} on {device}: reduce or index"
        message = rf"{convert.__name__}\(\) needs a 0-d tensor.*{told}"
        refused(TypeError, message, lambda x=x: convert(x), x)


def test_item_truth_value_and_index(device, refused):
    x, i = leaf([1.0, 2.0]), gg.asarray(array([1, 2]))
    told = rf"float64 tensor of shape \(2,\) on {device}"
    refused(ValueError, rf"item\(\).*{told}: use \.get", x.item, x)
    refused(ValueError, rf"bool\(\).*{told}: use gpugrad\.any", lambda: bool(x), x)
    refused(TypeError, "float64", lambda: range(leaf(1.0)))
    refused(TypeError, r"0-d.*\(2,\)", lambda: range(i))
    refused(TypeError, "0-d", lambda: len(leaf(1.0)))
    refused(TypeError, "0-d", lambda: list(leaf(1.0)))


def test_numpy_takes_no_gradient_away(device, refused):
    x = leaf([1.0, 2.0])
    for call in (
        x.numpy,
        lambda: np.asarray(x),
        lambda: np.array([x, x]),
        lambda: np.from_dlpack(x),
        x.__dlpack__,
    ):
        refused(RuntimeError, r"would lose it: use \.detach\(\)", call, x)


# ---- two devices


@pytest.fixture
def two_places(cuda):
    """A leaf on the CPU and one on the CUDA device."""
    with gg.device("cpu"):
        on_cpu = leaf([1.0, 2.0])
    with cuda:
        return on_cpu, leaf([3.0, 4.0])


@pytest.mark.parametrize(
    ("name", "f"),
    [
        ("add", lambda a, b: a + b),
        ("maximum", gg.maximum),
        ("where", lambda a, b: gg.where(a > 0, a, b)),
        ("matmul", lambda a, b: a @ b),
        ("concat", lambda a, b: gg.concat([a, b])),
        ("concat", lambda a, b: gg.stack([a, b])),
        ("einsum", lambda a, b: gg.einsum("i,i", a, b)),
        ("mean_squared_error", gg.nn.mean_squared_error),
        ("multiply", lambda a, b: a.sum() * b.sum()),
        ("multiply", lambda a, b: a * b.sum()),
        ("clip", lambda a, b: gg.clip(a, max=b)),
    ],
)
def test_tensors_on_two_devices(name, f, two_places, refused):
    a, b = two_places
    for x, y in ((a, b), (b, a)):
        text = refused(ValueError, rf"^{name}\b.*\.to\(device\)", lambda x=x, y=y: f(x, y), a, b)
        assert "cpu" in text
        assert "cuda:0" in text


@pytest.mark.parametrize("f", [gg.add, gg.pow, gg.matmul, gg.nn.mean_squared_error])
def test_an_array_of_another_device(f, two_places, refused):
    """A NumPy array meets a tensor on the GPU, a CuPy array one on the CPU."""
    a, b = two_places
    for x, y in ((a.data, b), (b, a.data), (b.data, a), (a, b.data)):
        text = refused(TypeError, r"\.to\(device\)", lambda x=x, y=y: f(x, y), a, b)
        assert "cpu" in text
        assert "cuda:0" in text


def test_operators_with_an_array_of_another_device(two_places, refused):
    a, b = two_places
    for call in (
        lambda: a.data + b,
        lambda: b + a.data,
        lambda: b.data * a,
        lambda: a * b.data,
        lambda: a.data @ b,
        lambda: b.data > a,
        lambda: np.array(2.0) * b,
        lambda: b.data[0] - a,
    ):
        refused(TypeError, r"cpu.*cuda:0|cuda:0.*cpu", call, a, b)


def test_other_arguments_on_another_device(two_places, cuda, refused):
    a, b = two_places
    i = np.array([0, 1])
    message = r"(cpu.*cuda:0|cuda:0.*cpu).*\.to\(device\)"

    def write(value):
        x = gg.zeros(2, device=cuda)
        x[...] = value

    refused(TypeError, message, lambda: b[i], b)
    refused(ValueError, message, lambda: b[gg.asarray(i)], b)
    refused(TypeError, message, lambda: gg.take(b, i), b)
    refused(ValueError, message, lambda: gg.take_along_axis(b, gg.asarray(i)), b)
    refused(ValueError, message, lambda: (b * b).backward(a.detach()), b)
    refused(ValueError, message, lambda: write(a.detach()), a)
    refused(TypeError, message, lambda: write(a.data), a)
    refused(ValueError, "copy=False", lambda: gg.asarray(b, device="cpu", copy=False), b)
    refused(ValueError, "copy=False", lambda: gg.asarray(b.data, device="cpu", copy=False), b)
    refused(ValueError, message, lambda: gg.jvp(gg.sin, (b.detach(),), (a.detach(),)), b)


def test_conversion_to_numpy_from_another_device(two_places):
    _, b = two_places
    with pytest.raises(RuntimeError, match=r"cuda:0 would copy in silence: use \.get\(\)"):
        np.asarray(b.detach())
    np.testing.assert_array_equal(b.get(), [3, 4])
    np.testing.assert_array_equal(b.detach().numpy(), [3, 4])
