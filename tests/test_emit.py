"""What the CPU's runner makes of a program, against calls of NumPy one after the other."""

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

import gpugrad as gg
from gpugrad.compiler import host
from gpugrad.compiler.compiled import Interpreter, record
from gpugrad.compiler.cpu import Runner

FORMS = ["c++", "numpy"]
RNG = np.random.default_rng(0)
X, Y = RNG.uniform(0.5, 2.0, (2, 3, 4))


@pytest.fixture(autouse=True, scope="module")
def on_the_cpu():
    with gg.device("cpu"):
        yield


@pytest.fixture(params=FORMS)
def loops(request):
    return request.param


def recorded(f, *args):
    """The program of `f`, and the arrays of its inputs; arguments may be arrays or Tensors."""
    args = [x if isinstance(x, gg.Tensor) else gg.asarray(x) for x in args]
    recording, _, arrays = record(f, args, lambda leaves: (leaves, {}))
    return recording.program, arrays


def run_and_compare(f, *args, loops, rtol=1e-12, calls=3):
    program, arrays = recorded(f, *args)
    runner = Runner(program, arrays, loops=loops)
    compare(program, arrays, runner, rtol, calls)
    return runner


def compare(program, arrays, runner, rtol=1e-12, calls=3):
    kept = []
    mine = [x.copy() for x in arrays]
    for _ in range(calls):
        for x, other, given_ in zip(arrays, mine, program.inputs):
            if given_.kind == "argument" and x.flags.writeable and x.dtype.kind in "fc":
                x[...] = np.roll(x, 1)
                other[...] = x
        with np.errstate(all="ignore"):
            expected = Interpreter(program)(mine)
            got = runner(arrays)
        for a, b in zip(expected, got, strict=True):
            assert_close(b, a, rtol)
        for a, b in zip(mine, arrays, strict=True):
            assert_close(b, a, rtol)
        kept.append((got, [np.copy(x) for x in got]))
    for outputs, copies in kept:  # nothing was written into what was returned
        for a, b in zip(outputs, copies):
            np.testing.assert_array_equal(a, b)


def assert_close(a, b, rtol):
    a, b = np.asarray(a), np.asarray(b)
    assert (a.shape, a.dtype) == (b.shape, b.dtype)
    np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol, equal_nan=True)


# ---- random programs

SHAPES = [(), (3,), (4,), (3, 4), (4, 3), (1, 4), (3, 1), (2, 3, 4)]


KINDS = (
    "unary unary unary unary binary binary binary binary binary binary sum sum keep keep "
    "transpose reshape index slice flip broadcast matmul cumsum where diagonal cast keep_value "
    "write add_in_place swap setslice"
).split()


@st.composite
def programs(draw):
    """Steps of a program: (kind, numbers that choose among what is there)."""
    kinds = st.sampled_from(KINDS)
    numbers = st.tuples(*[st.integers(0, 11)] * 3)
    return draw(st.lists(st.tuples(kinds, numbers), min_size=1, max_size=14))


def interpretation(steps, state, limit=200):
    """A function of two arguments that runs the steps."""

    def f(x, y):
        known, out = [x, y, *state], []
        for kind, (i, j, k) in steps:
            a, b = known[i % len(known)], known[j % len(known)]
            new = None
            if kind == "unary":
                functions = [gg.exp, gg.sin, gg.negative, gg.abs, gg.tanh, lambda x: x * 2.5]
                new = functions[k % 6](gg.tanh(a))
            elif kind == "binary":
                if broadcasts(a, b):
                    new = [gg.add, gg.subtract, gg.multiply, gg.maximum][k % 4](a, b)
            elif kind == "where":
                if broadcasts(a, b):
                    new = gg.where(a > b, a, b * 2)
            elif kind in ("sum", "keep"):
                axis = None if a.ndim == 0 or k % 3 == 0 else k % a.ndim
                new = gg.sum(a, axis=axis, keepdims=kind == "keep") / 7
            elif kind == "transpose":
                new = gg.permute_dims(a, tuple(range(a.ndim))[::-1])
            elif kind == "reshape":
                new = gg.reshape(a, [(-1,), (a.size, 1), (1, -1)][k % 3])
            elif kind == "index" and a.ndim:
                new = a[k % a.shape[0]]
            elif kind == "slice" and a.ndim:
                new = a[(k % a.shape[0]) :]
            elif kind == "flip" and a.ndim:
                new = gg.flip(a, axis=k % a.ndim)
            elif kind == "broadcast":
                new = gg.broadcast_to(a, (2, *a.shape)) if a.ndim < 3 else None
            elif kind == "matmul":
                if a.ndim == b.ndim == 2 and a.shape[1] == b.shape[0]:
                    new = a @ b / 5
            elif kind == "cumsum" and a.ndim:
                new = gg.cumulative_sum(gg.tanh(a), axis=k % a.ndim)
            elif kind == "diagonal" and a.ndim == 2:
                new = gg.linalg.diagonal(a)
            elif kind == "cast":
                new = gg.astype(gg.astype(a, gg.float32), gg.float64)
            elif kind == "write":
                target = state[k % len(state)]
                if a.shape == target.shape:
                    target[...] = gg.sin(a)
            elif kind == "add_in_place":
                target = state[k % len(state)]
                if a.shape == target.shape:
                    target[...] = target + gg.cos(a)
            elif kind == "setslice":
                target = state[k % len(state)]
                if target.ndim == 2:
                    target[j % 3] = gg.sin(target[i % 3])
            elif kind == "swap":
                same = [t for t in state if t.shape == state[0].shape]
                if len(same) > 1:
                    one, two = same[0] + 0.5, same[1] * 1
                    same[0][...], same[1][...] = two, one
            elif kind == "keep_value":
                out.append(a * 1 if k % 2 else a[...])
            if new is not None and new.size <= limit:
                known.append(new)
        return [*out, *(x * 1 for x in known[2 + len(state) :: 2])]

    return f


def broadcasts(a, b):
    try:
        return len(np.broadcast_shapes(a.shape, b.shape)) < 4
    except ValueError:
        return False


def state_of(seed):
    rng = np.random.default_rng(seed)
    shapes = [(3, 4), (3, 4), (4, 3), (4,), ()]
    return [gg.asarray(rng.uniform(-1, 1, shape)) for shape in shapes]


@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(programs(), st.sampled_from([(3, 4), (4, 3), (4,)]), st.sampled_from(SHAPES))
def test_random_programs_in_blocks(steps, one, two):
    rng = np.random.default_rng(1)
    run_and_compare(
        interpretation(steps, state_of(0)),
        rng.uniform(-1, 1, one),
        rng.uniform(-1, 1, two),
        loops="numpy",
    )


@pytest.mark.parametrize("seed", range(2))
def test_random_programs_in_one(seed, loops):
    """Many programs in a row, so that their loops are compiled together."""
    rng = np.random.default_rng(seed)
    parts = []
    for _ in range(14):
        steps = [
            (str(rng.choice(KINDS)), tuple(map(int, rng.integers(0, 12, 3)))) for _ in range(12)
        ]
        parts.append(interpretation(steps, state_of(seed)))

    def f(x, y):
        return [out for part in parts for out in part(x, y)]

    run_and_compare(f, rng.uniform(-1, 1, (3, 4)), rng.uniform(-1, 1, (4, 3)), loops=loops)


# ---- values in memory


def tensor(*shape, seed=3):
    return gg.asarray(np.random.default_rng(seed).uniform(0.5, 2, shape))


def update_and_read_later(x, w, u):
    w[...] = w - 0.1 * x
    return w * 2


def read_old_value_later(x, w, u):
    old = w * 1.5
    new = w - x
    w[...] = new
    return gg.cumulative_sum(old, axis=0) + new


def old_value_is_an_output(x, w, u):
    old = +w
    w[...] = gg.sin(w) + x
    return old


def view_of_the_old_value_is_an_output(x, w, u):
    old = gg.flip(+w, axis=0).T
    w[...] = gg.sin(w) + x
    return old


def old_value_through_a_view(x, w, u):
    turned = w[::-1]
    new = gg.exp(w) * x + turned
    w[...] = new
    return new


def new_value_is_an_output(x, w, u):
    w[...] = gg.sin(w) * x
    return w * 1, w[...], w.T


def swapped(x, w, u):
    one, two = u * 1, w * 1
    w[...], u[...] = one, two


def swapped_and_changed(x, w, u):
    one, two = u * 2 + x, w * 3 - x
    w[...], u[...] = one, two


def one_into_the_other(x, w, u):
    old = +w
    w[...] = w * x + 1
    u[...] = old


def the_same_into_both(x, w, u):
    new = gg.exp(w) * x
    w[...] = new
    u[...] = new
    return new


def turned_in_place(x, w, u):
    w[...] = w[::-1, ::-1]


def shifted_in_place(x, w, u):
    w[1:] = w[:-1] * 2
    w[:, 0] += x[:, 0]


def twice_updated(x, w, u):
    w[...] = w + x
    w[...] = w * w
    u[...] = w - u


def sum_of_what_is_updated(x, w, u):
    new = w - x * 0.1
    w[...] = new
    return gg.sum(w), gg.sum(new * new, axis=0), gg.sum(x * new, axis=1)


def argument_is_updated(x, w, u):
    x[...] = x * w + 1
    w[...] = x * u
    return x * 2


def argument_is_returned(x, w, u):
    return x, x[...], x.T, w, w.T, x


def constants_are_returned(x, w, u):
    c = gg.ones((3, 4)) * 2
    return c, c, gg.arange(3.0), c.T, x * c


def views_of_values_are_returned(x, w, u):
    y = gg.exp(x) * w
    return y, y.T, y[0], y[0, 1], y[...], gg.flip(y, axis=1), y


def update_with_a_number(x, w, u):
    w[...] = 0
    w[1] = x[1] * 2
    u[:, 1:] = 3.5


def broadcast_update(x, w, u):
    w[...] = gg.sum(x, axis=0)
    u[...] = gg.sum(x, axis=1, keepdims=True) * 2


UPDATES = [
    *(update_and_read_later, read_old_value_later, old_value_is_an_output),
    *(view_of_the_old_value_is_an_output, old_value_through_a_view, new_value_is_an_output),
    *(swapped, swapped_and_changed, one_into_the_other, the_same_into_both, turned_in_place),
    *(shifted_in_place, twice_updated, sum_of_what_is_updated, argument_is_updated),
    *(argument_is_returned, constants_are_returned, views_of_values_are_returned),
    *(update_with_a_number, broadcast_update),
]


@pytest.mark.parametrize("layout", ["rows", "columns", "every other"])
@pytest.mark.parametrize("f", UPDATES, ids=lambda f: f.__name__)
def test_states_and_outputs(f, layout, loops):
    raw = {
        "rows": lambda seed: np.random.default_rng(seed).uniform(0.5, 2, (3, 4)),
        "columns": lambda seed: np.random.default_rng(seed).uniform(0.5, 2, (4, 3)).T,
        "every other": lambda seed: np.random.default_rng(seed).uniform(0.5, 2, (6, 4))[::-2],
    }[layout]
    x, w, u = (gg.asarray(raw(seed)) for seed in (0, 1, 2))
    run_and_compare(lambda x: f(x, w, u), x, loops=loops)


def test_an_update_is_computed_where_the_state_lies():
    w, u = tensor(3, 4), tensor(3, 4, seed=4)

    def f(x):
        w[...] = w - 0.1 * gg.exp(x)
        u[...] = u * 0.9 + x

    runner = run_and_compare(f, X, loops=FORMS[0])
    assert "copyto" not in runner.source
    assert runner.memory == 0


def test_buffers_are_shared_by_values_that_are_not_needed_together(loops):
    def f(x):
        for _ in range(30):
            x = gg.cumulative_sum(gg.sin(x), axis=0) @ gg.cos(x)
            x = gg.tanh(x)
        return x

    runner = run_and_compare(f, np.eye(40), loops=loops)
    assert runner.memory <= 6 * 40 * 40 * 8


def test_numbers_without_a_text(loops):
    w = tensor(3, 4)

    def f(x):
        y = gg.where(x > 1, np.inf, x) * 2
        w[...] = gg.where(w > 1e308, -np.inf, w) - x
        return gg.minimum(y, 1e308 * 10) + w, gg.where(x > 1, np.nan, x) - 1, x + np.inf

    run_and_compare(f, X, loops=loops)
    huge = np.full((3, 4), 2**64 - 5, np.uint64)
    run_and_compare(lambda x: (x - gg.asarray(huge)) + x, huge, loops=loops)


@pytest.mark.parametrize("dtype", "?bBhHiIqQefdFD")
def test_dtypes(dtype, loops):
    x = np.arange(12).reshape(3, 4).astype(dtype)
    y = x[::-1].copy()
    w = gg.asarray(x.copy())

    def f(x, y):
        w[...] = gg.where(x == y, x, w)
        out = [gg.equal(x, y), gg.where(x == y, x, y)]
        if dtype != "?":
            out += [x + y, x * y + x, (x * y * 30) == (y * x * 30), -x * y, gg.sum(x * y, axis=0)]
            out += [x * 2 + 1, gg.sum(x + y), gg.max(x * y) if dtype not in "FD" else x]
        if dtype not in "?FD":
            out += [
                gg.astype(x, "f4") + 1,
                gg.abs(x - y),
                x * y * 40 > 10,
                gg.maximum(x * y, 3),
                (x - y) / 1,
            ]
        if dtype in "fdFDe":
            out += [gg.exp(-x) * y, x / (y + 1), gg.sum(x * y, axis=1, keepdims=True) - x]
        return out

    run_and_compare(f, x, y, loops=loops, rtol={"e": 2e-3, "f": 1e-6, "F": 1e-6}.get(dtype, 1e-12))


@pytest.mark.parametrize("shape", [(), (0,), (3, 0), (0, 4), (1, 1, 1), (2, 0, 3)])
def test_shapes_without_axes_or_elements(shape, loops):
    w = gg.asarray(np.ones(shape))

    def f(x):
        y = gg.exp(x) * w + 1
        w[...] = w + y
        return y, gg.sum(y * 2), y.T, gg.reshape(y, (-1,) if y.size else (0,)), y[...] * 3

    run_and_compare(f, np.full(shape, 0.5), loops=loops)


WORDS = (
    "matmul add exp sin loops_0 loops_1 step x1 t0 v0 v1 w0 n i array double float real imag log "
    "copyto add_reduce slice divide new this template int total gpugrad std complex abs max NAN "
    "M_PI INFINITY NULL k k_1 loop_0 draw_0 isnan lambda_ True_ sum out transpose numpy np T"
).split()


def test_names_that_mean_something_elsewhere(loops):
    source = f"def f({', '.join(WORDS)}):\n    return [{', '.join(f'_f({x})' for x in WORDS)}]"
    scope = {"_f": lambda x: gg.log(gg.abs(gg.exp(x)) * 2 + gg.sum(gg.sin(x) @ x)) + x[0:1]}
    exec(source, scope)
    compiled = gg.compile(scope["f"])
    args = [gg.asarray(RNG.uniform(0.5, 1, (2, 2))) for _ in WORDS]
    expected = scope["f"](*args)
    for _ in range(2):
        for got, x in zip(compiled(*args), expected, strict=True):
            np.testing.assert_allclose(got.data, x.data, rtol=1e-12)


def test_arrays_that_are_not_aligned(loops):
    raw = np.zeros(12 * 8 + 1, np.uint8)
    odd = np.ndarray((3, 4), np.float64, raw.data, 1)
    odd[...] = X
    records = np.zeros(4, dtype=[("a", "i1"), ("b", "f8")])
    records["b"] = Y[0]
    w, v = gg.asarray(odd), gg.asarray(records["b"])

    def f(x):
        y = gg.exp(x) * w + v
        w[...] = w + y
        v[...] = v * 2 - y[0]
        return y, w * 2

    program, arrays = recorded(f, X)
    assert not all(x.flags.aligned for x in arrays)
    compare(program, arrays, Runner(program, arrays, loops=loops))


def test_several_results(loops):
    def f(x):
        s = gg.linalg.svd(x, full_matrices=False)
        q, r = gg.linalg.qr(x * 2)
        return [gg.abs(s[0]) @ gg.abs(s[1] * gg.ones((3,))), gg.abs(q @ r) + 1, gg.exp(s[1]) * 2]

    run_and_compare(f, X, loops=loops)


def test_views_by_a_sum_of_products(loops):
    def f(x):
        turned = gg.einsum("ij->ji", gg.exp(x))
        diagonal = gg.einsum("ii->i", x @ x.T)
        return turned * 2, gg.cumulative_sum(gg.sin(x), axis=0).T + turned, diagonal, turned

    run_and_compare(f, X, loops=loops)


def test_draws_stay_in_order(loops):
    def numbers(compile):
        generator = gg.random.Generator(5, "cpu")

        def f(x):
            one = generator.normal(shape=(3, 4))
            two = generator.uniform(shape=(3, 4)) * gg.exp(x)
            return one * gg.sum(two, axis=0) + two, generator.gamma(gg.exp(x)) + one

        if compile:
            program, arrays = recorded(f, X)
            runner = Runner(program, arrays, loops=loops)
            return [runner(arrays) for _ in range(3)]
        return [[y.data for y in f(gg.asarray(X))] for _ in range(4)][1:]

    for a, b in zip(numbers(True), numbers(False), strict=True):
        for x, y in zip(a, b, strict=True):
            np.testing.assert_allclose(x, y, rtol=1e-12)


def test_what_fails_in_the_middle_leaves_states_as_before(loops):
    w, u = tensor(3, 3), tensor(3, 3, seed=4)

    def f(x):
        w[...] = w * 0.5 + x
        factor = gg.linalg.cholesky(x @ x.T + gg.astype(x[0, 0] > 5, "f8") * gg.asarray(-1e3))
        u[...] = u + factor
        w[1:] = w[1:] * 2
        return gg.sum(w), w

    x = np.random.default_rng(0).uniform(-1, 1, (3, 3))
    program, arrays = recorded(f, x)
    runner = Runner(program, arrays, loops=loops)
    runner(arrays)
    before = w.numpy().copy(), u.numpy().copy()
    bad = x.copy()
    bad[0, 0] = 9
    given_ = [bad if i.kind == "argument" else a for i, a in zip(program.inputs, arrays)]
    with pytest.raises(np.linalg.LinAlgError):
        runner(given_)
    np.testing.assert_array_equal(w.numpy(), before[0])
    np.testing.assert_array_equal(u.numpy(), before[1])
    compare(program, arrays, runner)


# ---- lending

LARGE = np.random.default_rng(7).uniform(0.5, 2, (40, 50))  # larger than what is copied


def addresses(outputs):
    return [x.ctypes.data for x in outputs]


def lending(loops):
    program, arrays = recorded(lambda x: (gg.exp(x) * 2, x @ x.T), LARGE)
    return Runner(program, arrays, loops=loops), arrays


def test_memory_of_outputs_that_nobody_holds_is_used_again(loops):
    runner, arrays = lending(loops)
    first = addresses(runner(arrays))
    assert all(addresses(runner(arrays)) == first for _ in range(5))


@pytest.mark.parametrize(
    "keep",
    [
        lambda x: x,
        lambda x: x[1:],
        lambda x: x.T.reshape(-1)[:0],
        lambda x: np.asarray(x),
        lambda x: np.from_dlpack(x),
        lambda x: memoryview(x),
        lambda x: gg.asarray(x),
        lambda x: [x],
        lambda x: gg.asarray(x)[1].T,
    ],
)
def test_memory_of_outputs_that_somebody_holds_is_not_written(keep, loops):
    runner, arrays = lending(loops)
    kept, copies = [], []
    for i in range(6):
        arrays[0] = LARGE + i
        outputs = runner(arrays)
        kept.append([keep(x) for x in outputs])
        copies.append([np.array(x) for x in map(keep, outputs) if not isinstance(x, list)])
    del outputs
    for some, before in zip(kept, copies):
        for x, y in zip(some, before):
            np.testing.assert_array_equal(np.asarray(getattr(x, "data", x)), y)


def test_memory_of_lent_outputs_does_not_grow(loops):
    runner, arrays = lending(loops)
    results = [runner(arrays) for _ in range(20)]
    assert len({a for outputs in results for a in addresses(outputs)}) == 40
    results = results[-1:]
    seen = set()
    for _ in range(1000):  # one is held while the next is computed
        results[0] = runner(arrays)
        seen.update(addresses(results[0]))
    assert len(seen) <= 8


def test_gradients_that_are_kept(loops):
    w = gg.asarray(LARGE.copy(), requires_grad=True)

    def f(x):
        w.grad = None
        gg.sum(gg.exp(w) * x).backward()

    compiled = gg.compile(f)
    kept = []
    for i in range(5):
        compiled(gg.asarray(LARGE * i))
        kept.append((w.grad, w.grad.numpy().copy()))
    for gradient, before in kept:
        np.testing.assert_array_equal(gradient.numpy(), before)
    del kept, gradient, before
    seen = set()
    for i in range(20):
        compiled(gg.asarray(LARGE * i))
        seen.add(w.grad.data.ctypes.data)
    assert len(seen) <= 2


def test_gradients_that_pile_up(loops):
    w = gg.asarray(LARGE.copy(), requires_grad=True)
    other = gg.asarray(LARGE.copy(), requires_grad=True)

    def step(w, x):
        gg.sum(gg.exp(w) * x).backward()

    compiled = gg.compile(lambda x: step(w, x))
    for i in range(6):
        compiled(gg.asarray(LARGE + i))
        step(other, gg.asarray(LARGE + i))
        np.testing.assert_allclose(w.grad.numpy(), other.grad.numpy(), rtol=1e-12)


# ---- without a compiler


def test_without_a_compiler(monkeypatch):
    monkeypatch.setattr(host, "compiler", lambda: None)
    program, arrays = recorded(lambda x: gg.exp(x) * 2 + x, X)
    runner = Runner(program, arrays)
    assert runner.loops == "numpy"
    compare(program, arrays, runner)


def test_a_compiler_that_refuses(monkeypatch):
    def refuse(*_):
        raise host.CompilerError("no such instruction")

    monkeypatch.setattr(host, "compiler", lambda: "c++")
    monkeypatch.setattr(host, "build", refuse)
    program, arrays = recorded(lambda x: gg.exp(x) * 2 + x, X)
    with pytest.warns(RuntimeWarning, match="(?s)by NumPy instead.*no such instruction") as found:
        runner = Runner(program, arrays)
    assert len(found) == 1
    assert runner.loops == "numpy"
    compare(program, arrays, runner)
