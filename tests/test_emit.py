"""What the CPU's runner makes of a program, against calls of NumPy one after the other."""

import os

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

import gpugrad as gg
from gpugrad.compiler import host
from gpugrad.compiler.compiled import Interpreter, record
from gpugrad.compiler.cpu import Runner

FORMS = ["c++", "numpy"] if host.compiler() else ["numpy"]
RNG = np.random.default_rng(0)
X, Y = RNG.uniform(0.5, 2.0, (2, 3, 4))


@pytest.fixture(params=FORMS)
def loops(request):
    return request.param


def recorded(f, *args):
    """The program of `f`, and the arrays of its inputs; arguments may be arrays or Tensors."""
    args = [x if isinstance(x, gg.Tensor) else gg.asarray(x) for x in args]
    recording, _, arrays = record(f, args, lambda leaves: (leaves, {}))
    return recording.program, arrays


def copied(x):
    """A copy with the same strides."""
    if not isinstance(x, np.ndarray) or (not x.flags.owndata and not x.flags.c_contiguous):
        base = x
        while base.base is not None:
            base = base.base
        copy = base.copy(order="K")
        start = x.ctypes.data - base.ctypes.data
        raw = np.ndarray(copy.nbytes, np.uint8, copy.data if copy.flags.c_contiguous else copy.T)
        return np.ndarray(x.shape, x.dtype, raw[start:].data, 0, x.strides)
    return x.copy(order="K")


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


@st.composite
def programs(draw):
    """Steps of a program: (kind, numbers that choose among what is there)."""
    kinds = st.sampled_from(
        "unary binary binary binary sum keep transpose reshape index slice flip broadcast "
        "write add_in_place swap matmul cumsum where keep_value diagonal cast setslice".split()
    )
    numbers = st.tuples(*[st.integers(0, 11)] * 3)
    return draw(st.lists(st.tuples(kinds, numbers), min_size=1, max_size=14))


def interpretation(steps, state):
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
            if new is not None and new.size <= 200:
                known.append(new)
        return [*out, known[-1] * 1, known[len(known) // 2] * 1]

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


@settings(max_examples=int(os.environ.get("GG_EXAMPLES", 60)), deadline=None)
@given(programs(), st.sampled_from([(3, 4), (4, 3), (4,)]), st.sampled_from(SHAPES))
def test_random_programs_in_blocks(steps, one, two):
    rng = np.random.default_rng(1)
    run_and_compare(
        interpretation(steps, state_of(0)),
        rng.uniform(-1, 1, one),
        rng.uniform(-1, 1, two),
        loops="numpy",
    )
