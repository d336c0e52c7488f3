"""Passes of the compiler: each makes a program smaller, and what it computes stays the same."""

import numpy as np
import pytest

import gpugrad as gg
from gpugrad.compiler import passes
from gpugrad.compiler.compiled import Interpreter, record
from gpugrad.compiler.program import Fused

X, Y = np.random.default_rng(0).uniform(0.5, 2.0, (2, 3, 4))
V = X[0].copy()


@pytest.fixture(autouse=True)
def on_the_cpu():
    with gg.device("cpu"):
        yield


def recorded(f, *args):
    tensors = [gg.asarray(x) for x in args]
    return record(f, tensors, lambda leaves: (leaves, {}))[0].program


def functions(program):
    return [step.function for step in program.instructions]


def flat(program):
    """The functions of all instructions, those of loops too."""
    parts = [getattr(step, "body", None) or (step,) for step in program.instructions]
    return [part.function for body in parts for part in body]


def values(program, *args):
    arrays = [args[x.source] if x.kind == "argument" else x.source for x in program.inputs]
    held = [x.value for x in program.inputs]
    before = [x.copy() for x in arrays]
    outputs = Interpreter(program)(arrays)
    updates = [arrays[held.index(value)].copy() for value, _ in program.updates]
    for array, old in zip(arrays, before):
        if array.flags.writeable:
            array[...] = old
    return [*outputs, *updates]


def assert_same(before, after, *args):
    for a, b in zip(values(before, *args), values(after, *args), strict=True):
        assert np.asarray(a).dtype == np.asarray(b).dtype
        np.testing.assert_allclose(a, b, rtol=1e-14)


def test_what_depends_on_constants_only_is_computed_once():
    def f(x):
        return x * gg.sum(gg.exp(gg.arange(4.0)))

    before = recorded(f, X)
    after = passes.fold(before)
    assert functions(before) == ["arange", "exp", "sum", "multiply"]
    assert functions(after) == ["multiply"]
    assert_same(before, after, X)


def test_large_constants_are_made_in_every_call():
    program = passes.fold(recorded(lambda x: gg.sum(gg.cumulative_sum(gg.arange(1e6))) + x, V))
    assert "cumsum" in functions(program)


def test_random_numbers_are_no_constants():
    generator = gg.random.Generator(0, "cpu")
    program = passes.optimise(recorded(lambda x: x + generator.uniform(shape=4), V), passes.HOST)
    assert "draw" in functions(program)


@pytest.mark.parametrize(
    "f",
    [
        lambda x: x * 1,
        lambda x: 1 * x,
        lambda x: x / 1,
        lambda x: x**1,
        lambda x: x - 0,
        lambda x: x + -0.0,
        lambda x: x * gg.ones((4,)),
        lambda x: gg.negative(gg.negative(x)),
        lambda x: gg.astype(x, gg.float64),
        lambda x: x.T.T,
        lambda x: gg.matrix_transpose(gg.matrix_transpose(x)),
        lambda x: gg.permute_dims(gg.permute_dims(x, (1, 0)), (1, 0)),
        lambda x: gg.reshape(gg.reshape(x, (2, 6)), (3, 4)),
        lambda x: gg.broadcast_to(x, (3, 4)),
        lambda x: +x,
    ],
)
def test_algebra_leaves_nothing(f):
    before = recorded(f, X)
    after = passes.drop(passes.simplify(passes.fold(before)))
    assert functions(before)
    assert functions(after) == []
    assert_same(before, after, X)


@pytest.mark.parametrize(
    "f",
    [
        lambda x: x + 0.0,  # of -0 it is 0
        lambda x: x * 1j,
        lambda x: x * gg.ones((2, 1, 4)),  # another shape
        lambda x: gg.astype(x, gg.float32),
        lambda x: x * gg.asarray([1.0, 1.0, 1.0, 2.0]),
        lambda x: 1 / x,
        lambda x: 1**x,
        lambda x: 0 - x,
    ],
)
def test_algebra_keeps_what_changes_something(f):
    before = recorded(f, X)
    after = passes.drop(passes.simplify(passes.fold(before)))
    assert len(functions(after)) >= 1
    assert_same(before, after, X)


def test_integers_plus_nothing():
    after = passes.drop(passes.simplify(recorded(lambda x: x + 0, np.arange(3))))
    assert functions(after) == []


def test_equal_parts_are_computed_once():
    def f(x):
        return gg.sin(x) * gg.exp(x) + gg.sin(x) / gg.exp(x)

    before = recorded(f, X)
    after = passes.merge(before)
    assert sorted(functions(after)) == ["add", "divide", "exp", "multiply", "sin"]
    assert_same(before, after, X)


def test_numbers_that_are_equal_but_not_the_same_are_told_apart():
    after = passes.merge(recorded(lambda x: (x * 0.0, x * -0.0, x**2, x**2.0, x * True), X))
    assert len(functions(after)) == 5


def test_random_numbers_are_not_merged_and_not_dropped():
    generator = gg.random.Generator(0, "cpu")

    def f(x):
        generator.uniform(shape=4)
        return generator.uniform(shape=4) + generator.uniform(shape=4) + x

    after = passes.optimise(recorded(f, V), passes.HOST)
    assert functions(after).count("draw") == 3


def test_a_checkpointed_function_is_computed_again():
    def f(x):
        return gg.value_and_grad(lambda x: gg.sum(gg.checkpoint(lambda x: gg.exp(gg.sin(x)))(x)))(x)

    assert flat(passes.optimise(recorded(f, X), passes.HOST)).count("sin") == 2


def test_what_nothing_needs_is_left_out():
    def f(x, y):
        gg.exp(x) + y
        return gg.sin(x)

    before = recorded(f, X, Y)
    after = passes.drop(before)
    assert functions(after) == ["sin"]
    assert len(after.inputs) == 1
    assert_same(before, after, X, Y)


def test_an_update_is_needed():
    w = gg.asarray(X.copy())

    def f(x):
        w[...] = w + x

    after = passes.drop(recorded(f, X))
    assert len(after.updates) == 1
    assert "add" in functions(after)


def test_a_mean_and_a_dot_product_become_sums():
    before = recorded(lambda x, y: (gg.mean(x), gg.nn.mean_squared_error(x, y)), X, Y)
    after = passes.lower(before)
    assert {"mean", "dot"} <= set(functions(before))
    assert not {"mean", "dot"} & set(functions(after))
    assert_same(before, after, X, Y)


# ---- loops


def loops(program):
    return [step for step in program.instructions if isinstance(step, Fused)]


def test_a_chain_is_one_loop():
    before = recorded(lambda x: gg.sin(gg.exp(x) * 2 + 1) / x, X)
    (loop,) = passes.optimise(before, passes.HOST).instructions
    assert [part.function for part in loop.body] == ["exp", "multiply", "add", "sin", "divide"]
    assert len(loop.results) == 1


def test_a_loop_has_all_results_that_others_need():
    program = passes.optimise(recorded(lambda x: (gg.exp(x), gg.sin(gg.exp(x))), X), passes.HOST)
    (loop,) = program.instructions
    assert len(loop.results) == 2


def test_a_sum_ends_a_loop_and_what_needs_it_is_another():
    def f(x):
        e = gg.exp(x)
        return e / gg.sum(e, axis=1, keepdims=True)

    program = passes.optimise(recorded(f, X), passes.HOST)
    first, second = program.instructions
    assert list(first.sums.values()) == [(1,)]
    assert second.function == "divide"


def test_what_reads_the_same_array_is_one_loop():
    program = passes.optimise(recorded(lambda x, y: (gg.exp(x), gg.sin(x) * y), X, Y), passes.HOST)
    (loop,) = program.instructions
    assert len(loop.args) == len(loop.results) == 2


def test_nothing_is_fused_over_what_stands_between():
    def f(x):
        e = gg.exp(x)
        return gg.cumulative_sum(e, axis=0) + gg.sin(e)

    names = functions(passes.optimise(recorded(f, X), passes.HOST))
    assert names.index("fused") < names.index("cumsum") < len(names) - 1
    assert names[-1] == "add"


def test_loops_have_one_shape():
    program = passes.optimise(recorded(lambda x, v: (gg.exp(v) * 2) + x, X, V), passes.HOST)
    assert [loop.shape for loop in loops(program)] == [(4,)]
    assert functions(program)[-1] == "add"


def test_a_scalar_is_computed_in_every_loop_that_needs_it():
    s = gg.asarray(np.array(0.5))

    def f(x, v):
        rate = gg.exp(s) * 2
        return gg.sin(x) * rate, gg.sin(v) * rate

    found = loops(passes.optimise(recorded(f, X, V), passes.HOST))
    assert [loop.shape for loop in found] == [(3, 4), (4,)]
    assert all("exp" in [part.function for part in loop.body] for loop in found)


def test_on_cuda_a_sum_stands_alone():
    def f(x):
        e = gg.exp(x) * 2
        return e, gg.sum(e), gg.sum(gg.sin(x) * 3)

    found = loops(passes.optimise(recorded(f, X), passes.CUDA))
    assert [bool(loop.sums) for loop in found] in ([False, True], [True, False])
    assert all(len(loop.results) == 1 for loop in found)


def test_what_is_no_elementwise_function_is_left_alone():
    program = passes.optimise(recorded(lambda x: gg.sort(gg.exp(x) + 1) * 2 - x, X), passes.HOST)
    assert functions(program) == ["fused", "sort", "fused"]


def test_a_whole_array_that_is_written_is_what_is_written():
    def f(x, y):
        x[...] = y * 2
        x[...] = gg.astype(y[0], "float32")
        return x + 1

    program = passes.optimise(recorded(f, X, Y), passes.HOST)
    assert "setitem" not in flat(program)
    x, expected = X.copy(), np.broadcast_to(Y[0].astype("float32"), X.shape).astype("float64")
    (out,) = Interpreter(passes.lower(recorded(f, X, Y)))([x, Y])
    np.testing.assert_array_equal(out, expected + 1)
    np.testing.assert_array_equal(x, expected)


def test_zeros_of_both_signs_are_not_one_number():
    x = np.array([1.0, 2.0])
    signs = gg.asarray(np.array([0.0, -0.0]))
    program = recorded(lambda x: gg.copysign(x, gg.ones((2,)) * signs), x)
    constants = passes.numbers_of(passes.fold(program))
    assert all(value != 0 for value in constants.values())
    ones = recorded(lambda x: x * gg.asarray([0.0, -0.0]), x)
    assert passes.numbers_of(passes.fold(ones)) == {}


@pytest.mark.parametrize(
    "f", [lambda x: x * 1, lambda x: x / 1, lambda x: x * gg.ones((2,)), lambda x: x + -0.0]
)
def test_a_complex_product_with_one_stays(f):
    """Of -0 and of infinities it may be something else."""
    x = np.array([complex(-0.0, -0.0), 2 - 1j])
    before = recorded(f, x)
    after = passes.drop(passes.simplify(passes.fold(before)))
    assert len(functions(after)) >= 1


def test_numbers_of_numpy_are_told_apart():
    zeros = [np.float32(0.0), np.float32(-0.0), np.float64(0.0), 0.0]
    assert len({passes._key(x) for x in zeros}) == 4
    assert passes._key(np.float32(2)) == passes._key(np.float32(2))


def test_no_loop_uses_a_sum_that_it_makes():
    def f(x):
        e = gg.exp(x)
        share = e / gg.sum(e, axis=1, keepdims=True)
        return share * e

    program = passes.optimise(recorded(f, X), passes.HOST)
    for loop in loops(program):
        assert not any(x in loop.sums for part in loop.body for x in part.operands())


def test_draws_stay_in_order():
    generator = gg.random.Generator(0, "cpu")

    def f(x):
        late = gg.sum(gg.tanh(gg.cumulative_sum(gg.sin(x), axis=0)), axis=0)
        return generator.gamma(gg.exp(late)), generator.uniform(shape=4), generator.gamma(x)

    before = recorded(f, X)
    drawn = [s.results for s in before.instructions if s.function == "draw"]
    after = passes.optimise(before, passes.HOST)
    assert [s.results for s in after.instructions if s.function == "draw"] == drawn


def test_one_function_that_takes_several_passes_is_a_loop():
    assert len(loops(passes.optimise(recorded(gg.nn.Sigmoid(), X), passes.HOST))) == 1
    assert not loops(passes.optimise(recorded(gg.exp, X), passes.HOST))
    large = np.zeros(1 << 16)
    assert len(loops(passes.optimise(recorded(gg.exp, large), passes.HOST))) == 1
    spread = passes.optimise(recorded(lambda x: gg.broadcast_to(x, (1 << 14, 4)), V), passes.HOST)
    assert functions(spread) == ["broadcast_to"]
