"""Generated kernels of derivative rules: their text, on the host, and how many are launched."""

import itertools
from pathlib import Path

import numpy as np
import pytest
from generated_kernels import COMPILER, ENTRYWISE, Host, Recorder, derivatives, fused_by, listing
from helpers import array, assert_same, host, launched, launches

import gpugrad as gg
from gpugrad import backends
from gpugrad.symbols import NotElementwise, Symbol, variable, write
from gpugrad.testing.rows import SPECIAL

LISTING = Path(__file__).parent / "generated_kernels.txt"
PAIRS = [(row, np.dtype(c)) for row in ENTRYWISE for c in "fdFD" if c in row.dtypes]


def values(row, dtype):
    """Arguments of the row: of real numbers all combinations of special values.

    For complex infinities the libraries of CPU and GPU, and NumPy, have different conventions.
    """
    if dtype.kind == "c":
        return row.draw(dtype)
    drawn = [not isinstance(x, np.ndarray) for x in row.args]
    grid = iter(np.array(list(itertools.product(SPECIAL, repeat=sum(drawn))), dtype).T.copy())
    condition = np.arange(len(SPECIAL) ** sum(drawn)) % 2 == 0
    return [next(grid) if is_drawn else condition for is_drawn in drawn]


# ---- the text


def test_the_text_is_that_of_the_listing():
    """If a rule was changed: tests/generated_kernels.py says how to write the listing again."""
    assert listing() == LISTING.read_text()


def texts(f, *names, dtype="float32"):
    return write({"y": (f(*(variable(n, dtype) for n in names)), np.dtype(dtype))})


def test_equal_parts_are_computed_once():
    text = texts(lambda t, x: t * gg.exp(-x * x) + gg.exp(-x * x), "t", "x")
    assert text.statements == "const float v0 = exp(-x * x);\ny = t * v0 + v0;"
    assert text.expression == "[&] { const float v0 = exp(-x * x); return t * v0 + v0; }()"
    assert text.operations == 5


def test_parentheses_keep_the_order_of_computation():
    def f(a, b, c):
        return (a - (b - c)) * (a / (b * c)) - gg.negative(-a)

    assert texts(f, "a", "b", "c").statements == "y = (a - (b - c)) * (a / (b * c)) - -(-a);"


def test_dtypes_follow_numpy():
    t, n = variable("t", "float32"), variable("n", "int64")
    assert (
        write({"y": (t * n, np.dtype("float32"))}).statements == "y = float(double(t) * double(n));"
    )
    h = variable("h", "float16")
    assert write({"y": (h * h * 0.1, h.dtype)}).statements == "y = float(h) * float(h) * 0.1f;"
    z = variable("z", "complex64")
    assert write({"y": (z * t, t.dtype)}).statements == "y = real(z * complex<float>(t));"
    assert gg.where(t > 0, t, 0).dtype == np.float32


def test_the_files_of_kernels_that_are_needed_are_named():
    assert texts(gg.exp, "x").files == ()
    assert texts(lambda x: gg.special.ndtr(gg.maximum(x, 0)), "x").files == (
        *("common", "activations", "choice", "special"),
    )


@pytest.mark.parametrize(
    "f",
    [
        lambda x: x if x > 0 else -x,
        lambda x: x * float(x),
        lambda x: x.sum(),
        lambda x: x[0],
        lambda x: gg.special.gammaln(x),
        lambda x: gg.matmul(x, x),
        lambda x: x * np.inf,
        lambda x: x * np.ones(3),
        lambda x: x.astype("int64") % x.astype("int64"),
        lambda x: x * 1e300,
        lambda x: x * 10**400,
        lambda x: x.astype("uint32") > -1,
        lambda x: (x > 0) + (x > 1),
        lambda x: ~x.astype("int32"),
        lambda x: x * 1j < x,
        lambda x: (x * 1j) ** x,
        lambda x: gg.where(x * 1j, x, 0),
    ],
    ids="branch number sum index text matmul infinity array integers large huge negative truths "
    "bits order power truth".split(),
)
def test_what_is_no_elementwise_expression_says_so(f):
    with pytest.raises(NotElementwise):
        texts(f, "x")


def test_a_symbol_is_an_array_to_the_tape():
    """So a function of tensors is differentiated symbolically."""
    x = gg.Tensor(variable("x", "float32"), gg.tape.Leaf((), np.dtype("float32")))
    y = gg.sin(x * x)
    y.backward(gg.Tensor(variable("t", "float32"), None))
    assert type(x.grad.data) is Symbol
    text = write({"dx": (x.grad.data, x.dtype)})
    assert text.statements == "const float v0 = t * cos(x * x) * x;\ndx = v0 + v0;"


# ---- on the host


@pytest.fixture(scope="module")
def host_backend(tmp_path_factory):
    assert COMPILER, "the tests need a C++ compiler: g++ or clang++"
    recorder = Recorder()
    with fused_by(recorder):
        for row, dtype in PAIRS:
            derivatives(row, values(row, dtype))
        for row in ENTRYWISE:
            derivatives(row, row.draw(np.float16))
    return Host(recorder.kernels, tmp_path_factory.mktemp("generated"))


@pytest.mark.parametrize(("row", "dtype"), PAIRS, ids=str)
def test_kernels_compiled_for_the_host_agree_with_the_rules(row, dtype, host_backend):
    args = values(row, dtype)
    expected = derivatives(row, args)
    with fused_by(host_backend):
        got = derivatives(row, args)
    assert_same(got, expected, 64)


@pytest.mark.parametrize("row", ENTRYWISE, ids=str)
def test_halves_are_computed_in_float32(row, host_backend):
    args = row.draw(np.float16)
    expected = derivatives(row, args)
    with fused_by(host_backend):
        got = derivatives(row, args)
    assert_same(got, expected, 8)


def test_what_overflows_a_half_on_the_way_does_not_matter(host_backend):
    """tan(x)**2 does, t * (tan(x)**2 + 1) does not."""
    x, t = np.array([1.5674], np.float16), np.array([1e-3], np.float16)
    exact = gg.vjp(gg.tan, x.astype(np.float64))[1](t.astype(np.float64))[0]
    (row,) = (row for row in ENTRYWISE if row.name == "tan")
    with fused_by(host_backend):
        assert_same(gg.vjp(row.function, x)[1](t)[0], exact.astype(np.float16), 8)


# ---- on a device


@pytest.mark.parametrize(
    "name", "sigmoid tanh exp log sqrt sin divide pow softplus gelu atan2 maximum multiply".split()
)
def test_a_derivative_is_one_launch(name, cuda):
    f = getattr(gg, name)
    xs = [
        gg.asarray(np.linspace(1 + i, 2, 12, dtype="float32"), device=cuda, requires_grad=True)
        for i, _ in enumerate(f.op.arguments)
    ]
    t = gg.ones_like(xs[0])
    outs = [f(*xs) for _ in range(2)]

    def backward():
        for x in xs:
            x.grad = None
        outs.pop().backward(t)

    assert launched(backward) in (1, None)
    arrays, ts = [x.data for x in xs], [t.data] * len(xs)
    assert launched(lambda: gg.jvp(f, arrays, ts)) in (2, None)  # one of them the function itself


def test_a_sum_over_broadcast_axes_is_in_the_kernel(cuda):
    a = gg.asarray(np.linspace(1, 2, 12).reshape(3, 4), device=cuda, requires_grad=True)
    for shape in ((4,), (3, 1), (1, 4), (1, 1)):
        b = gg.asarray(np.full(shape, 2.0), device=cuda, requires_grad=True)
        outs = [a.detach() / b for _ in range(2)]
        t = gg.ones_like(a)

        def backward(b=b, outs=outs, t=t):
            b.grad = None
            outs.pop().backward(t)

        assert launched(backward) in (1, None)
        wanted = np.broadcast_to(-a.get() / 4, (3, 4))
        axes = tuple(i for i in (-1, -2) if len(shape) < -i or shape[i] == 1)
        np.testing.assert_allclose(b.grad.get(), wanted.sum(axes).reshape(shape), rtol=1e-14)


@pytest.mark.parametrize("shape", [(2, 128), (128,)], ids=["rows", "all"])
def test_reductions_through_cub_compile(shape, cuda):
    """On a GPU they run. An emulated one is without CUB: its programs are recorded for NVRTC."""
    cupy = pytest.importorskip("cupy")
    outside = cupy._core.get_reduction_accelerators()
    x = gg.ones(shape, dtype="float16", device=cuda)
    b = gg.asarray(np.ones((*shape[:-1], 1)), dtype="float32", device=cuda, requires_grad=True)
    y = x - b
    t = gg.ones_like(y)
    cupy._core.set_reduction_accelerators(["cub"])
    try:
        for f in (lambda: gg.logsumexp(x, axis=-1), lambda: y.backward(t)):
            try:
                f()
            except cupy.cuda.compiler.CompileException:
                assert launches() is not None, "on a GPU"
    finally:
        cupy._core.set_reduction_accelerators(outside)


def test_a_sum_is_in_the_dtype_of_its_terms(cuda):
    b = gg.ones(1, dtype="float32", device=cuda)
    large = gg.asarray(np.tile([1e39, -1e39], 8), device=cuda)
    assert gg.grad(lambda b: gg.sum(b * large))(b).get() == 0
    assert gg.grad(lambda b: gg.sum(gg.real(b * (large * (1 + 1j)))))(b).get() == 0


def test_a_power_of_complex_zero(cuda):
    z = gg.asarray([0, 1 + 1j], device=cuda)
    np.testing.assert_allclose(gg.grad(lambda z: gg.sum(gg.real(z**1)))(z).get(), [1, 1])


def test_a_number_is_an_argument_of_the_kernel(cuda):
    """Not of its text: another number is not another kernel."""
    x = gg.asarray([1.0, 2.0], device=cuda)
    made = backends.fusion._kernels
    gg.grad(lambda x: gg.sum(x**2.5))(x)
    before = len(made)
    for p in (3, 1.5, 0.0, -2.0):
        got = gg.grad(lambda x, p=p: gg.sum(x**p))(x)
        np.testing.assert_allclose(got.get(), p * np.array([1.0, 2.0]) ** (p - 1), rtol=1e-14)
    assert len(made) == before


def test_a_layer_has_a_launch_budget(cuda):
    """A layer and the sigmoid, forwards and backwards, and the update with momentum."""
    rng = np.random.default_rng(0)
    layer = gg.nn.Linear(6, 4, device=cuda)
    optimizer = gg.optim.SGD(layer.parameters(), lr=0.1, momentum=0.9)
    x, t = (gg.asarray(rng.standard_normal((5, n)), dtype="float32", device=cuda) for n in (6, 4))

    def step():
        layer.zero_grad()
        gg.sigmoid(layer(x)).backward(t)
        optimizer.step()

    # bias, sigmoid; its derivative, sum for the bias; two updates; and the products, not counted
    assert launched(step) in (6, None)


def test_batches_and_recorded_sweeps_run_the_rules(cuda):
    x = array([0.5, 1.0, 1.5])
    f = gg.grad(lambda x: gg.sum(gg.sin(x) / x))
    once = gg.grad(lambda x: gg.sum(f(x)))(gg.asarray(x, device=cuda))
    np.testing.assert_allclose(once.get(), gg.grad(lambda x: gg.sum(f(x)))(host(x)), rtol=1e-12)
    rows = gg.vmap(f)(gg.asarray(np.stack([host(x)] * 2), device=cuda))
    np.testing.assert_allclose(rows.get()[1], f(host(x)), rtol=1e-12)


def test_parts_of_rules_declared_so_are_one_kernel(cuda):
    a, b = (gg.asarray(np.linspace(i, 2, 12, dtype="float32"), device=cuda) for i in (0, 1))
    x, t = gg.reshape(a, (3, 4)), gg.reshape(b, (3, 4))
    pullbacks = {
        1: gg.vjp(gg.nn.mean_squared_error, a, b)[1],
        3: gg.vjp(gg.softmax, x)[1],  # a product and its sum
        2: gg.vjp(gg.log_softmax, x)[1],  # a sum
    }
    one = gg.asarray(1.0, dtype="float32", device=cuda)
    assert launched(lambda: pullbacks[1](one)) in (2, None)  # for two arguments
    assert launched(lambda: pullbacks[3](t)) in (3, None)
    assert launched(lambda: pullbacks[2](t)) in (2, None)
