"""Every operation of the table: values, derivatives, dtypes, special values, on every device."""

import inspect
import itertools
import warnings

import numpy as np
import pytest
from helpers import array, assert_same, assert_same_zeros, flat, host

import gpugrad as gg
from gpugrad import backends
from gpugrad.ops import activations
from gpugrad.testing import check_grads
from gpugrad.testing.rows import SPECIAL
from gpugrad.testing.table import ROWS
from gpugrad.trees import flatten

DIFFERENTIABLE = [row for row in ROWS if row.order]
ENTRYWISE = [row for row in ROWS if row.broadcasts and "d" in row.dtypes]
BINARY = [row for row in ENTRYWISE if len(row.args) == 2]

each_row = pytest.mark.parametrize("row", ROWS, ids=str)
each_entrywise = pytest.mark.parametrize("row", ENTRYWISE, ids=str)
each_binary = pytest.mark.parametrize("row", BINARY, ids=str)


def each_dtype(rows, dtypes="?qfdFD"):
    pairs = [(row, np.dtype(c)) for row in rows for c in row.dtypes if c in dtypes]
    return pytest.mark.parametrize(("row", "dtype"), pairs, ids=str)


def special_values(row, dtype):
    """Arguments of an elementwise row that go through all combinations of special values."""
    drawn = [not isinstance(x, np.ndarray) for x in row.args]
    grid = iter(np.array(list(itertools.product(SPECIAL, repeat=sum(drawn))), dtype).T.copy())
    condition = np.arange(len(SPECIAL) ** sum(drawn)) % 2 == 0
    return [next(grid) if is_drawn else condition for is_drawn in drawn]


def check_forward(row, args, device):
    """`row` on tensors and on raw arrays against NumPy; it warns only where NumPy's ufunc does."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        expected = row.reference(*args)
    # floor_divide is NumPy's too, but for infinities
    is_numpys = isinstance(row.reference, np.ufunc) or row.name == "floor_divide"
    tensors = [gg.asarray(x, device=device) if isinstance(x, np.ndarray) else x for x in args]
    raw = [x.data if isinstance(x, gg.Tensor) else x for x in tensors]
    with np.errstate(all="ignore" if caught and is_numpys else None):
        out, raw_out = row.function(*tensors), row.function(*raw)
    kind = backends.backend_of_kind(device.kind).array_type
    assert all(isinstance(x, gg.Tensor) and type(x.data) is kind for x in flat(out))
    assert not any(isinstance(x, gg.Tensor) for x in flat(raw_out))
    for got in (out, raw_out):
        assert_same(got, expected, row.rtol)
        if is_numpys:
            assert_same_zeros(got, expected)


def vjp_of(row, args):
    """Value and cotangents of `row`, for a fixed cotangent of the result."""
    f, xs = row.of_differentiable([array(x) for x in args])
    out, pullback = gg.vjp(f, *xs)
    rng = np.random.default_rng(1)
    gs = [array(np.asarray(rng.standard_normal(x.shape), x.dtype)) for x in flat(out)]
    return out, pullback(flatten(out)[1](gs))


# ---- the table


def test_every_public_function_is_in_the_table():
    elsewhere = {
        "creation",
        "drawing",
        "dtypes",
        "inspection",
        "backends",
        "batching",
        "compiled",
        "custom",
        "custom_kernels",
        "jacobians",
        "tape",
        "transforms",
    }
    functions = {}
    for module in (gg.special, gg.fft, gg.linalg, gg):
        prefix = "" if module is gg else module.__name__.rpartition(".")[2] + "."
        for name in module.__all__:
            f = getattr(module, name)
            if inspect.isfunction(f) and f.__module__.rpartition(".")[2] not in elsewhere:
                functions[f] = prefix + name  # the name in gg itself where there is one
    functions = {name: f for f, name in functions.items() if name != "broadcast_shapes"}
    functions |= {f.op.name: f for f in vars(activations).values() if getattr(f, "op", None)}
    assert {"add", "all", "sum", "sigmoid_grad", "take"} <= functions.keys()
    assert functions.keys() <= {row.name for row in ROWS}
    with_derivative = {name for name, f in functions.items() if getattr(f, "op", None)}
    assert with_derivative <= {row.name for row in DIFFERENTIABLE}


# ---- forward


@each_dtype(ROWS)
def test_forward(row, dtype, device):
    check_forward(row, row.draw(dtype), device)


@each_dtype(ENTRYWISE, "fd")
def test_forward_at_special_values(row, dtype, device):
    check_forward(row, special_values(row, dtype), device)


@pytest.mark.parametrize("shape", [(), (0,), (2, 0, 3)], ids=str)
@each_entrywise
def test_forward_of_empty_and_0d(row, shape, device):
    check_forward(row, [np.resize(x, shape).astype(x.dtype) for x in row.draw("float32")], device)


@each_row
def test_nothing_is_recorded_without_need(row, device):
    args = [gg.asarray(array(x)) for x in row.draw(row.dtypes[-1])]
    assert not any(x.requires_grad for x in flat(row.function(*args)))
    for x, domain in zip(args, row.args, strict=True):
        x.requires_grad = x.dtype.kind in "fc" and not isinstance(domain, np.ndarray)
    with gg.no_grad():
        assert not any(x.requires_grad for x in flat(row.function(*args)))
    assert all(x.requires_grad is bool(row.order) for x in flat(row.function(*args)))


# ---- derivatives


@each_dtype(DIFFERENTIABLE, "dD")
def test_derivatives(row, dtype, device):
    f, xs = row.of_differentiable([array(x) for x in row.draw(dtype)])
    check_grads(f, xs, order=row.order)


@pytest.mark.parametrize("row", [row for row in ENTRYWISE if row.order], ids=str)
def test_derivatives_of_0d(row, device):
    args = [array(np.asarray(x.flat[0], x.dtype)) for x in row.draw("float64")]
    f, xs = row.of_differentiable(args)
    check_grads(f, xs, order=row.order)


def caught(f, *args):
    """What it says if `f` raises a RuntimeError, and what it returns if not."""
    try:
        return None, f(*args)
    except RuntimeError as error:
        return str(error), None


@pytest.mark.parametrize("row", DIFFERENTIABLE, ids=str)
def test_no_change_in_place_makes_a_wrong_gradient(row, device):
    """What the tape keeps is looked at: after a change the gradient is refused, or as it was."""

    def gradients(changed):
        args = [gg.asarray(array(x), copy=True) for x in row.draw(row.dtypes[-1])]
        for x, domain in zip(args, row.args, strict=True):
            x.requires_grad = x.dtype.kind in "fc" and not isinstance(domain, np.ndarray)
        outs = [x for x in flat(row.function(*args)) if x.requires_grad]
        total = sum((gg.sum(gg.real(x)) for x in outs), start=0)
        with gg.no_grad():
            for x in {"nothing": [], "arguments": args, "results": outs}[changed]:
                if getattr(x.data.flags, "writeable", True):  # a diagonal is not, on the CPU
                    x[...] = ~x if x.dtype.kind == "b" else 1
        total.backward()
        return [x.grad for x in args if x.grad is not None]

    expected = gradients("nothing")
    for changed in ("arguments", "results"):
        error, found = caught(gradients, changed)
        if error is None:
            assert_same(found, expected)  # sums by atomics have no order
        else:
            assert "changed in place since" in error


@each_dtype(DIFFERENTIABLE, "fF")
def test_derivatives_at_single_precision(row, dtype, device):
    args = row.draw(dtype)
    wide = [x.astype(np.result_type(x, np.float64)) if x.dtype.kind in "fc" else x for x in args]
    _, cotangents = vjp_of(row, args)
    assert all(x.dtype == dtype for x in cotangents)
    for got, expected in zip(cotangents, vjp_of(row, wide)[1], strict=True):
        np.testing.assert_allclose(host(got), host(expected), rtol=3e-4, atol=3e-5)


# ---- operands of several kinds


@pytest.mark.parametrize(
    "shapes",
    [((2, 3), (3,)), ((2, 1), (1, 3)), ((), (3,)), ((0, 3), (1, 3)), ((1, 1), ())],
    ids=str,
)
@each_binary
def test_broadcasting(row, shapes, device):
    args = [np.resize(x, shape) for x, shape in zip(row.draw("float64"), shapes, strict=True)]
    check_forward(row, args, device)
    if row.order:
        check_grads(row.function, [array(x) for x in args], order=1)


WITH_SCALARS = [
    (row, np.dtype(c), scalar)
    for row in BINARY
    for c in row.dtypes
    for scalar in (True, 2, 1.5, 1 - 2j)
    if c != "?" and (isinstance(scalar, complex) <= ("D" in row.dtypes))
]


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize(("row", "dtype", "scalar"), WITH_SCALARS, ids=str)
def test_python_scalars(row, dtype, scalar, side, device):
    def pair(x):
        return (scalar, x) if side == "left" else (x, scalar)

    x = row.draw(dtype)[0]
    check_forward(row, pair(x), device)
    if row.order and dtype.char in "dD":
        check_grads(lambda x: row.function(*pair(x)), [array(x)])


MIXTURES = [
    (row, *mixture)
    for row in BINARY
    for mixture in ("fd", "df", "fF", "fD", "Fd", "DF", "qd", "fq")
    if set(mixture) <= set(row.dtypes)
]


@pytest.mark.parametrize(("row", "a", "b"), MIXTURES, ids=str)
def test_mixed_dtypes(row, a, b, device):
    """Each gradient has the dtype of its own argument."""
    args = [row.draw(a)[0], row.draw(b)[1]]
    check_forward(row, args, device)
    if row.order:
        tensors = [gg.asarray(array(x)) for x in args]
        with_derivative = [x for x in tensors if x.dtype.kind != "i"]

        def f(*xs):
            given = iter(xs)
            return row.function(*(x if x.dtype.kind == "i" else next(given) for x in tensors))

        check_grads(f, with_derivative, order=1)


# ---- both backends


@each_dtype(DIFFERENTIABLE, "fd")
def test_gradients_are_the_same_on_both_devices(row, dtype, cuda):
    args = [row.draw(dtype)]
    if row.broadcasts:
        args.append(special_values(row, dtype))
    for each in args:
        with np.errstate(all="ignore"):
            with gg.device("cpu"):
                expected = vjp_of(row, each)
            with cuda:
                got = vjp_of(row, each)
        assert_same(got, expected, rtol=840 if dtype == np.float32 else 45_000)
