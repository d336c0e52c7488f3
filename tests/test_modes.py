"""The modes: where they hold, the same bits again on a GPU, indices out of range."""

import contextvars
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from helpers import array, host, leaf

import gpugrad as gg
from gpugrad import modes
from gpugrad.testing import check_grads

MODES = {
    gg.no_grad: lambda: not gg.tape.recording(),
    gg.deterministic: modes.is_deterministic,
    gg.check_bounds: modes.checks_bounds,
}
each_mode = pytest.mark.parametrize("mode", MODES, ids=lambda m: m.__name__)


@each_mode
def test_a_mode_holds_inside_a_block_and_a_decorated_function(mode):
    holds = MODES[mode]

    @mode()
    def f(again):
        return holds() and (again == 0 or f(again - 1))

    assert not holds()
    assert f(2)
    assert not holds()
    one = mode()
    with one:
        with one, mode():
            assert holds()
        assert holds()
    assert not holds()
    with pytest.raises(KeyError), mode():
        raise KeyError
    assert not holds()


@each_mode
def test_a_mode_is_a_matter_of_each_thread(mode):
    seen = []
    with mode():
        thread = threading.Thread(
            target=contextvars.Context().run, args=(lambda: seen.append(MODES[mode]()),)
        )
        thread.start()
        thread.join()
    assert seen == [False]


@each_mode
def test_a_mode_is_not_for_what_runs_later(mode):
    def generator():
        yield

    async def coroutine():
        pass

    for f in (generator, coroutine):
        with pytest.raises(TypeError, match=f"{f.__name__}.*with {mode.__name__}"):
            mode()(f)


# ---- scatter-add in a fixed order

RNG = np.random.default_rng(0)
MANY = RNG.integers(-4, 4, 300)

GATHERS = {
    "an array": lambda x: x[array([1, -1, 1, 1])],
    "two arrays": lambda x: x[array([[0], [3]]), array([0, 0, 2])],
    "arrays with a slice between": lambda x: gg.stack([x, x])[array([1, 1]), 1:, array([2, 2])],
    "an array and a number": lambda x: x[2, array([0, 0])],
    "an array and a new axis": lambda x: x[..., None, array([2, 2, 1])],
    "an array and a mask": lambda x: x[array([True, False, True, True]), array([1, 1, 1])],
    "many": lambda x: x[array(MANY)],
    "take": lambda x: gg.take(x, array([[2, 0], [0, 0]]), axis=1),
    "take, flat": lambda x: gg.take(x, array([11, 0, 11])),
    "take_along_axis": lambda x: gg.take_along_axis(x, array([[0, 0, 1], [3, 3, 3]]), axis=0),
    "repeat": lambda x: gg.repeat(x, 3, axis=0),
    "scatter_add": lambda x: gg.scatter_add(x[:, 0], array([3, 3, 0]), x[0] * x[1]),
    "bincount": lambda x: gg.bincount(array([0, 2, 2, 2]), x[:, 1]),
    "written": lambda x: written(x),
}


def written(x):
    y = x * 1
    y[array([1, 1, 3]), array([0, 0, 2])] = x[0]
    return y


@pytest.mark.parametrize("name", GATHERS)
def test_gradients_in_the_modes(device, name):
    x = RNG.standard_normal((4, 3))
    f = GATHERS[name]
    with gg.device("cpu"):
        expected = gg.grad(lambda x: gg.sum(f(x) ** 2))(leaf(x))
        values = f(leaf(x))
    with gg.deterministic(), gg.check_bounds():
        check_grads(f, [leaf(x)], order=2)
        got = gg.grad(lambda x: gg.sum(f(x) ** 2))(leaf(x))
        mapped = gg.vmap(f)(gg.stack([leaf(x), leaf(2 * x)]))
    np.testing.assert_allclose(host(got), host(expected), rtol=1e-12)
    np.testing.assert_allclose(host(mapped[0]), host(values), rtol=1e-12)


def test_the_last_of_several_values_stays(device):
    x = gg.zeros((3, 2))
    with gg.deterministic():
        x[array([0, 2, 0, -1, 0])] = array(np.arange(10.0).reshape(5, 2))
        x[array([1, 1]), array([1, 1])] = 7
        x[:, array([0, 0])] = x[:, ::-1]  # which is read before it is written
    assert host(x).tolist() == [[8, 9], [0, 7], [6, 7]]
    y = leaf([1.0, 2, 3]) * 1
    with gg.deterministic():
        y[array([0, 0, 1])] = y * 10
    assert host(y).tolist() == [20, 30, 3]


@gg.deterministic()
def bits():
    """The bytes of sums of many numbers into few places, whose order shows in the last digits."""
    rng = np.random.default_rng(0)
    found = []
    for dtype in ("float16", "float32", "float64", "complex64"):
        rows = array((rng.standard_normal((700, 3)) * 10.0 ** rng.integers(-2, 1, (700, 1))), dtype)
        index = array(rng.integers(0, 5, 700))
        x = gg.asarray(rows, requires_grad=True)
        (x[array(rng.integers(0, 700, 2100)), :2] ** 2).sum().real.backward()
        y = gg.zeros((5, 3), dtype=dtype)
        y[index] = rows
        found += [x.grad, y, gg.scatter_add(gg.zeros((5, 3), dtype=dtype), index, rows)]
        if dtype != "complex64":
            found.append(gg.bincount(index, rows[:, 0]))
    return b"".join(host(x).tobytes() for x in found)


def plain_bits():
    """The same of CuPy's own sums."""
    values = np.random.default_rng(0).standard_normal(700).astype("float32")
    return host(gg.scatter_add(gg.zeros(1), array(np.zeros(700, int)), array(values))).tobytes()


def test_the_same_bits_again(cuda):
    with gg.device(cuda):
        assert len({bits() for _ in range(3)}) == 1


def test_the_order_of_threads_does_not_matter(cuda):
    """In processes that differ in it where the device is emulated."""
    program = "import conftest, test_modes, gpugrad as gg\nwith gg.device('cuda'):\n"
    program += "    print(test_modes.bits().hex(), test_modes.plain_bits().hex())"
    root = Path(__file__).parent
    path = os.pathsep.join([str(root.parent), *sys.path])
    outputs = []
    for order in ("0", "1", "5"):
        environment = {**os.environ, "EMU_ORDER": order, "PYTHONPATH": path}
        done = subprocess.run(
            [sys.executable, "-c", program], cwd=root, env=environment, capture_output=True
        )
        assert done.returncode == 0, done.stderr.decode()
        outputs.append(done.stdout.split())
    ours, plain = (set(x) for x in zip(*outputs, strict=True))
    assert len(ours) == 1
    assert "cupy_emu" not in sys.modules or len(plain) > 1


def test_the_cpu_is_deterministic_as_it_is():
    with gg.device("cpu"):
        inside = bits()
        assert inside == bits.__wrapped__()


# ---- bounds

# name, a function of x (4, 3) that reads or writes with the index given; the axis and its length
BOUNDS = {
    "getitem": (lambda x, i: x[i], 0, 4),
    "getitem, a second axis": (lambda x, i: x[1:, i], 1, 3),
    "getitem, beside a mask": (lambda x, i: x[None, array([True] * 3 + [False]), i], 1, 3),
    "getitem, of a view": (lambda x, i: x.T[..., i], 1, 4),
    "setitem": (lambda x, i: (x * 1).__setitem__(i, 0.0), 0, 4),
    "setitem, on the tape": (lambda x, i: (x * 1).__setitem__(i, x[0]), 0, 4),
    "setitem, through a view": (lambda x, i: (x * 1).T.__setitem__(i, x[0, 0]), 0, 3),
    "take": (lambda x, i: gg.take(x, i, axis=-1), 1, 3),
    "take, flat": (lambda x, i: gg.take(x, i * 3), 0, 12),
    "take_along_axis": (lambda x, i: gg.take_along_axis(x, i[:, None], axis=0), 0, 4),
    "place, for scatter_add": (lambda x, i: gg.scatter_add(x, i, x[:1]), 0, 4),
    "cross_entropy": (lambda x, i: gg.nn.cross_entropy(x[:3], i), 1, 3),
}


@pytest.mark.parametrize("tracked", [True, False])
@pytest.mark.parametrize("name", BOUNDS)
def test_indices_out_of_range_raise(device, name, tracked):
    f, axis, length = BOUNDS[name]
    x = leaf(np.arange(12.0).reshape(4, 3), requires_grad=tracked)
    for bad in (4, -5):
        index = gg.asarray([1, bad, 2], device=device)
        if device.kind == "cuda":
            f(x, index)  # wrapped in silence
        with gg.check_bounds(), pytest.raises(IndexError) as caught:
            f(x, index)
        message = str(caught.value)
        assert message.startswith(name.partition(",")[0] + ": ")
        assert f"index {3 * bad if 'flat' in name else bad} " in message
        if device.kind == "cuda":
            assert " at position (1" in message
            assert f"for axis {axis} of length {length}, on cuda:0" in message
    with gg.check_bounds():
        f(x, gg.asarray([1, -1, 2], device=device))


@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint64"])
def test_bounds_for_indices_of_every_kind(device, dtype):
    with gg.check_bounds():
        x = gg.zeros(300)
        x[array([3, 0], dtype)]
        gg.take(x, array(np.array(7, dtype)))
        gg.take(x, array(np.array([], dtype)))
        with pytest.raises(IndexError, match="index 100"):
            gg.zeros(100)[array([3, 100], dtype)]
        with pytest.raises(IndexError, match="7"):
            gg.take(gg.zeros(7), array(np.array(7, dtype)))
        with pytest.raises(IndexError):
            gg.zeros((2, 0))[:, array([0], dtype)]


def test_bounds_inside_vmap(device):
    x = gg.zeros((2, 3))
    for index in (array([[0, 1], [2, 5]]), array([[-4, 1], [2, 0]])):
        for f in (lambda row, i: row[i], gg.take, lambda row, i: gg.scatter_add(row, i, row[:2])):
            with gg.check_bounds(), pytest.raises(IndexError, match="5|-4"):
                gg.vmap(f)(x, index)
