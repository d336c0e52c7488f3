"""The Tensor: operators, attributes, writing, and the ways out of the library."""

import copy
import operator
import pickle
import weakref

import numpy as np
import pytest
from helpers import array, assert_same, gradients, host, leaf

import gpugrad as gg

OPERATORS = {
    operator.add: gg.add,
    operator.sub: gg.subtract,
    operator.mul: gg.multiply,
    operator.truediv: gg.divide,
    operator.floordiv: gg.floor_divide,
    operator.mod: gg.remainder,
    operator.pow: gg.pow,
    operator.matmul: gg.matmul,
}
BIT_OPERATORS = {
    operator.and_: gg.bitwise_and,
    operator.or_: gg.bitwise_or,
    operator.xor: gg.bitwise_xor,
    operator.lshift: gg.bitwise_left_shift,
    operator.rshift: gg.bitwise_right_shift,
}
COMPARISONS = [operator.eq, operator.ne, operator.lt, operator.le, operator.gt, operator.ge]

A, B = np.array([1.0, 2.0, 5.0]), np.array([4.0, 2.0, 3.0])

each_operator = pytest.mark.parametrize(
    ("op", "function"), OPERATORS.items(), ids=[op.__name__ for op in OPERATORS]
)


# ---- operators


@each_operator
def test_operators_are_the_functions(op, function, device):
    for a, b in ((leaf(A), leaf(B)), (leaf(A), array(B)), (array(A), leaf(B))):
        out = op(a, b)
        assert isinstance(out, gg.Tensor)
        assert_same(out, np.asarray(op(A, B)))
        gg.sum(out).backward()
        expected = dict(zip("ab", gradients(function, A, B), strict=True))
        for x, name in ((a, "a"), (b, "b")):
            if isinstance(x, gg.Tensor):
                np.testing.assert_allclose(host(x.grad), expected[name])


@each_operator
@pytest.mark.parametrize("number", [2, 2.5, True, np.float32(2.5), np.float64(2.5), np.int64(2)])
def test_operators_with_numbers(op, function, number, device):
    """Python numbers are weak, NumPy's are not: as NumPy 2."""
    if op is operator.matmul:
        for call in (lambda: op(leaf(A), number), lambda: op(number, leaf(A))):
            with pytest.raises((ValueError, TypeError), match="matmul"):
                call()
        return
    for dtype in ("float32", "int64"):
        x = A.astype(dtype)
        assert_same(op(gg.asarray(array(x)), number), op(x, number))
        assert_same(op(number, gg.asarray(array(x))), op(number, x))


@pytest.mark.parametrize(
    ("op", "function"), BIT_OPERATORS.items(), ids=[op.__name__ for op in BIT_OPERATORS]
)
def test_bit_operators_are_the_functions(op, function, device):
    a, b = A.astype(int), B.astype(int)
    x, y = gg.asarray(array(a)), gg.asarray(array(b))
    assert_same(op(x, y), op(a, b))
    assert_same(op(x, 3), op(a, 3))
    assert_same(op(3, y), op(3, b))
    assert_same(function(x, y), op(a, b))


@pytest.mark.parametrize("op", COMPARISONS)
def test_comparisons(op, device):
    x, y = leaf(A), leaf(B)
    for out, expected in (
        (op(x, y), op(A, B)),
        (op(x, array(B)), op(A, B)),
        (op(array(A), y), op(A, B)),
        (op(x, 2), op(A, 2)),
        (op(2.0, y), op(2.0, B)),
    ):
        assert_same(out, expected)
        assert not out.requires_grad


def test_unary_operators(device):
    x = leaf(A - 2)
    assert_same(-x, -(A - 2))
    assert_same(+x, A - 2)
    assert_same(abs(x), np.abs(A - 2))
    assert_same(~gg.asarray(array([1, 2])), ~np.array([1, 2]))
    np.testing.assert_array_equal(gradients(lambda x: -x + +x + abs(x), A - 2)[0], [-1, 0, 1])


@pytest.mark.parametrize("op", [*OPERATORS, *BIT_OPERATORS])
def test_operators_in_place(op, device):
    in_place = getattr(operator, f"i{op.__name__.strip('_')}")
    a, b = np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([[4.0, 2.0], [1.0, 3.0]])
    if op in BIT_OPERATORS:
        a, b = a.astype(int), b.astype(int)
    x = gg.asarray(array(a), copy=True)
    before, data = x, x.data
    assert in_place(x, gg.asarray(array(b))) is before
    assert x.data is data
    assert_same(x, op(a, b))


def test_in_place_on_a_leaf_inside_no_grad(device):
    x = leaf(A)
    with gg.no_grad():
        x -= 0.5 * x
    assert x.is_leaf
    assert x.requires_grad
    assert_same(x, A / 2)


# ---- shape, kind and place


def test_attributes(device):
    x = gg.asarray(array([[1.0, 2.0]], "float32"))
    assert (x.shape, x.dtype, x.ndim, x.size, len(x)) == ((1, 2), np.float32, 2, 2, 1)
    assert x.device == device
    assert_same(x.T, np.array([[1], [2]], np.float32))
    assert_same(x.mT, np.array([[1], [2]], np.float32))
    z = gg.asarray(array([1 + 2j]))
    assert_same(z.real, np.array([1.0]))
    assert_same(z.imag, np.array([2.0]))


def test_transposes_of_more_axes(device):
    x = np.arange(24.0).reshape(2, 3, 4)
    assert_same(leaf(x).T, x.T)
    assert_same(leaf(x).mT, x.swapaxes(1, 2))
    with pytest.raises(ValueError, match="matrix_transpose"):
        _ = leaf(A).mT


@pytest.mark.parametrize("name", "sum mean prod max min var std all any argmax argmin".split())
def test_methods(name, device):
    x = np.array([[1.0, 2.0], [4.0, 3.0]])
    t = leaf(x)
    for out, expected in (
        (getattr(t, name)(), getattr(x, name)()),
        (getattr(t, name)(1), getattr(x, name)(1)),
        (getattr(t, name)(axis=0, keepdims=True), getattr(x, name)(axis=0, keepdims=True)),
    ):
        assert_same(out, expected)


def test_reshape_copy_and_casts(device):
    x = leaf(A)
    for out in (x.reshape(1, 3), x.reshape((1, 3)), x.reshape([1, -1]), x.reshape(1, -1)):
        assert out.shape == (1, 3)
        assert out.requires_grad
    assert x.copy().data is not x.data
    assert x.copy().requires_grad
    assert x.to("float64") is x
    assert x.to(device) is x
    assert x.to(str(device)) is x
    assert x.to(np.float32).dtype == np.float32
    assert x.to(gg.float32).requires_grad
    assert x.astype("int64").dtype == np.int64
    with pytest.raises(TypeError, match="nonsense"):
        x.to("nonsense")


def test_a_result_is_an_array_even_without_axes(device):
    x = leaf(A)
    kind = type(x.data)
    for out in (x.sum(), x[0], x[0] * 2, x[0] + x[1], x.max(), x @ x, gg.exp(x[0]), x[0] > 1):
        assert type(out.data) is kind
        assert out.shape == ()


def test_iteration_and_containers(device):
    x = leaf([[1.0, 2.0], [3.0, 4.0]])
    a, b = x
    assert_same(b, np.array([3.0, 4.0]))
    (a * b).sum().backward()
    assert_same(x.grad, np.array([[3.0, 4.0], [1.0, 2.0]]))
    assert {x: 1}[x] == 1
    assert weakref.ref(x)() is x


def test_repr(device):
    x = leaf([1.0, 2.5], dtype="float32")
    text = f"Tensor([1. , 2.5], dtype=float32, device='{device}'"
    assert repr(x) == f"{text}, requires_grad=True)"
    assert repr(x.detach()) == f"{text})"
    assert repr((x * 1).sum().detach()) == f"Tensor(3.5, dtype=float32, device='{device}')"


# ---- the ways out


def test_numbers(device):
    """float() and its like leave the tape, as documented."""
    x = leaf(2.5)
    assert (float(x), int(x), complex(x), bool(x), x.item()) == (2.5, 2, 2.5, True, 2.5)
    assert type(float(x)) is float
    assert float((x * x).sum()) == 6.25
    assert complex(leaf(1j, dtype="complex128")) == 1j
    assert leaf([[2.5]]).item() == 2.5
    assert not bool(leaf([0.0]))
    assert list(range(gg.asarray(array(3)))) == [0, 1, 2]
    assert [10, 20, 30][gg.asarray(array(1))] == 20


def test_get_is_a_copy(device):
    x = leaf(A)
    out = x.get()
    assert type(out) is np.ndarray
    out[...] = 0
    assert_same(x, A)


def test_numpy(device):
    x = gg.asarray(array(A))
    assert type(x.numpy()) is np.ndarray
    np.testing.assert_array_equal(x.numpy(), A)
    if device.kind == "cpu":
        assert np.shares_memory(x.numpy(), x.data)


def test_numpy_asarray_on_the_cpu():
    x = gg.asarray(A)
    np.testing.assert_array_equal(np.asarray(x), A)
    assert np.shares_memory(np.asarray(x), A)
    assert not np.shares_memory(np.array(x), A)
    assert np.asarray(x, dtype=np.float32).dtype == np.float32
    with pytest.raises(ValueError, match="copy"):
        np.asarray(x, dtype=np.float32, copy=False)


def test_dlpack_on_the_cpu():
    x = gg.asarray(A.copy())
    assert np.shares_memory(np.from_dlpack(x), x.data)
    assert x.__dlpack_device__() == x.data.__dlpack_device__()


# ---- indexing and writing

KEYS = {
    "integer": 1,
    "pair": (1, -1),
    "slice": slice(None, None, 2),
    "slices": (slice(1, None), slice(None, None, -1)),
    "...": (..., 0),
    "None": (None, 1),
    "array": np.array([2, 0]),
    "two arrays": (np.array([0, 2]), np.array([1, 1])),
    "mask": np.array([True, False, True]),
    "whole mask": np.arange(12).reshape(3, 4) % 3 == 0,
    "all": ...,
    "list": [0, 2],
    "empty": slice(0, 0),
}


def on_device(key, wrap):
    if isinstance(key, tuple):
        return tuple(on_device(k, wrap) for k in key)
    return wrap(key) if isinstance(key, np.ndarray) else key


@pytest.mark.parametrize("wrap", [array, lambda x: gg.asarray(array(x))], ids=["raw", "Tensor"])
@pytest.mark.parametrize("key", KEYS.values(), ids=KEYS)
def test_reading_and_writing(key, wrap, device):
    values = np.arange(12.0).reshape(3, 4)
    x = gg.asarray(array(values))
    there = on_device(key, wrap)
    part = values[key]
    assert_same(x[there], part)
    for new in (7.0, -part):
        x[there] = wrap(new) if isinstance(new, np.ndarray) else new
        values[key] = new
        assert_same(x, values)


def test_writing_through_a_view(device):
    x = gg.asarray(array(np.zeros((2, 2))))
    x[0][1] = 5
    x.T[0, 1] += 3
    assert_same(x, np.array([[0.0, 5.0], [3.0, 0.0]]))


def test_writing_casts_within_a_kind_only(device):
    x = gg.asarray(array([1.0, 2.0], "float32"))
    x[0] = array(3.0, "float64")
    x[1] = gg.asarray(array(4, "int64"))
    assert_same(x, np.array([3, 4], np.float32))


def test_a_gradient_by_index_has_the_shape_of_the_whole(device):
    x = leaf(np.arange(6.0).reshape(2, 3))
    x[0, 1].backward()
    assert_same(x.grad, np.array([[0.0, 1, 0], [0, 0, 0]]))


def test_a_list_of_booleans_is_a_mask(device):
    x = leaf([1.0, 2.0, 3.0])
    y = x[[True, False, True]]
    np.testing.assert_array_equal(host(y), [1, 3])
    y.sum().backward()
    np.testing.assert_array_equal(host(x.grad), [1, 0, 1])
    with pytest.raises(IndexError, match="integers or booleans"):
        x[[0.7, 1.9]]


def test_setting_requires_grad_gives_the_leaf_memory_of_its_own(device):
    given = array([1.0, 1.0])
    x = gg.asarray(given)
    x.requires_grad = True
    x.sum().backward()
    gg.optim.SGD([x], 1.0).step()
    np.testing.assert_array_equal(host(given), [1, 1])


def test_an_integer_result_requires_no_gradient(device):
    assert not gg.sum(leaf([1.0, 2.0]), dtype=gg.int64).requires_grad


@pytest.mark.parametrize("f", [gg.sign, gg.conj, gg.logsumexp, lambda x: gg.stack([x])])
def test_a_list_is_no_array(f):
    with pytest.raises(TypeError, match="asarray"):
        f([1.0])


def test_a_target_that_is_neither_device_nor_dtype(device):
    with pytest.raises(TypeError, match="neither a device"):
        leaf([1.0]).to("gpu")
    with pytest.raises(TypeError, match="cuda:1"):
        gg.device(0)


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy])
def test_a_copy_keeps_the_gradient(copied, device):
    given = array([1.0, 2.0])
    np.testing.assert_array_equal(host(gg.grad(lambda x: (copied(x) ** 2).sum())(given)), [2, 4])
    np.testing.assert_array_equal(host(gg.grad(lambda x: copied(x * x).sum())(given)), [2, 4])
    x = gg.asarray(given)
    y = copied(x)
    y[0] = 5.0
    assert not y.requires_grad
    assert_same(x, np.array([1.0, 2.0]))


def test_pickle(device):
    x = leaf([1.0, 2.0])
    y = pickle.loads(pickle.dumps(x))
    assert y.is_leaf
    (y * y).sum().backward()
    assert x.grad is None
    assert_same(y.grad, np.array([2.0, 4.0]))
    assert not pickle.loads(pickle.dumps(x.detach())).requires_grad
    with pytest.raises(RuntimeError, match="pickle"):
        pickle.dumps(x * 1)
