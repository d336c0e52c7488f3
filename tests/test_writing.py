"""`x[key] = value` and `x += y` on the tape: values in every view as in NumPy, and the gradient."""

import gc
import operator
import weakref

import numpy as np
import pytest
from helpers import array, host, leaf

import gpugrad as gg
from gpugrad.testing import check_grads

X = np.arange(1.0, 7.0).reshape(2, 3)


def tracked(values):
    """A tensor on the tape that is no leaf."""
    return leaf(values) * 1


# name, a program of writes on x (2, 3) and v (3,), which NumPy runs as well; it returns what it saw
PROGRAMS = {
    "one element": lambda x, v: x.__setitem__((0, 1), v[0]),
    "a row": lambda x, v: x.__setitem__(1, v),
    "a number": lambda x, v: x.__setitem__((slice(None), 2), 5.0),
    "everything": lambda x, v: x.__setitem__(..., v),
    "steps": lambda x, v: x.__setitem__((0, slice(None, None, -2)), v[:2]),
    "a mask": lambda x, v: x.__setitem__(np.array([[True, False, True], [False] * 3]), v[1:]),
    "a list": lambda x, v: x.__setitem__([1, 0], v),
    "an element twice": lambda x, v: x.__setitem__((0, [2, 0, 2]), v * 2),
    "more axes": lambda x, v: x.__setitem__(0, v.reshape(1, 1, 3)),
    "from itself": lambda x, v: x.__setitem__((slice(None), slice(1, None)), x[:, :-1] * v[0]),
    "onto itself": lambda x, v: x.__setitem__((0, slice(1, None)), x[0, :-1]),
    "twice": lambda x, v: (x.__setitem__(0, v), x.__setitem__((0, 0), v[1] * x[0, 1])),
    "a view that was there": lambda x, v: [x[0], x.__setitem__((0, 0), v[0]), x[0]],
    "through a row": lambda x, v: [row := x[1], row.__setitem__(0, v[0] * row[1]), row],
    "through a transpose": lambda x, v: [y := x.T, y.__setitem__(0, v[:2]), y],
    "through two views": lambda x, v: [y := x.T[1:], z := y[::-1], z.__setitem__((0, 1), v[2]), y],
    "through a reshape": lambda x, v: [y := x.reshape(-1), y.__setitem__([5, 1], v[:2]), y],
    "through a squeeze of nothing": lambda x, v: np.squeeze(x).__setitem__(0, v),
    "through a new axis": lambda x, v: x[:, None].__setitem__((0, 0), v),
    "two elements swapped": lambda x, v: [
        pair := (x[0, 0], x[0, 1]),
        x.__setitem__((0, 1), pair[0]),
        x.__setitem__((0, 0), pair[1] * v[0]),
    ],
    "not through a copy": lambda x, v: [y := x[[0, 1]], y.__setitem__(0, v), y],
    "through an added row": lambda x, v: [row := x[0], row.__iadd__(v), row],
    "into the sister": lambda x, v: [a := x[0], b := x[:, 0], a.__setitem__(0, v[0]), b],
    "a view of before and after": lambda x, v: [
        a := x[0],
        x.__imul__(v),
        a * 1,
        a.__setitem__(..., 0.0),
        x[:, 1] * 1,
    ],
}


def run(program, x, v):
    seen = program(x, v)
    return [y for y in seen or [] if hasattr(y, "shape")] + [x]


def on_device(name):
    """The program, with its mask where the tensors are."""
    if name != "a mask":
        return PROGRAMS[name]
    mask = array(np.array([[True, False, True], [False] * 3]))
    return lambda x, v: x.__setitem__(mask if isinstance(x, gg.Tensor) else host(mask), v[1:])


@pytest.mark.parametrize("on_tape", ["x", "v", "both"])
@pytest.mark.parametrize("name", PROGRAMS)
@gg.deterministic()  # "an element twice": which of its values stays
def test_program(name, on_tape, device):
    program = on_device(name)
    v = np.array([10.0, 20.0, 30.0])

    def f(*given):
        given = iter(given)
        x = next(given) * 1 if on_tape != "v" else gg.asarray(array(X)) * 1
        return run(program, x, next(given) if on_tape != "x" else gg.asarray(array(v)))

    args = {"x": [X], "v": [v], "both": [X, v]}[on_tape]
    args = [array(x) for x in args]
    expected = run(PROGRAMS[name], X.copy(), v)
    for got, wanted in zip(gg.vjp(f, *args)[0], expected, strict=True):
        np.testing.assert_array_equal(host(got), wanted)
    check_grads(f, args)


@pytest.mark.parametrize("name", "add sub mul truediv floordiv mod pow".split())
def test_operators_in_place(name, device):
    op = getattr(operator, f"i{name}")

    def f(x, y):
        z = x * 1
        part = z[0]
        before = z
        z = op(z, y)
        assert z is before
        return z, part

    args = [array(X), array([1.37, 2.61, 0.53])]
    expected = op(X.copy(), host(args[1]))
    z, part = gg.vjp(f, *args)[0]
    np.testing.assert_allclose(host(z), expected, rtol=1e-14)
    np.testing.assert_array_equal(host(part), host(z)[0])
    check_grads(f, args)


@pytest.mark.parametrize("start", ["of each", "of all"])
@pytest.mark.parametrize("name", PROGRAMS)
@gg.deterministic()
def test_program_inside_vmap(name, start, device):
    """Views of a batch see writes; one that begins as one array for all examples, too."""
    program = on_device(name)
    v = np.array([[2.0, 3.0, 5.0], [7.0, -1.0, 4.0]])
    factor = {"of each": 1.0, "of all": 0.0}[start]

    def f(v):
        lib = gg if isinstance(v, gg.Tensor) else np
        rows = lib.stack([v, v])
        x = (rows * factor if factor else lib.zeros_like(rows)) + array_like(X, v)
        return run(program, x, v * 1)

    def array_like(x, like):
        return array(x) if isinstance(like, gg.Tensor) else x

    expected = [np.stack(parts) for parts in zip(*(f(row) for row in v), strict=True)]
    for got, wanted in zip(gg.vmap(f)(array(v)), expected, strict=True):
        np.testing.assert_array_equal(host(got), wanted)

    def total(v):
        return sum(gg.sum(y**2) for y in f(v))

    loop = np.stack([host(gg.grad(total)(array(row))) for row in v])
    np.testing.assert_allclose(host(gg.vmap(gg.grad(total))(array(v))), loop, rtol=1e-12)
    through = gg.grad(lambda v: gg.sum(gg.vmap(total)(v)))(array(v))
    np.testing.assert_allclose(host(through), loop, rtol=1e-12)


def test_what_is_kept_for_a_derivative_is_not_written(device):
    x = leaf([1.0, 2.0])
    y = gg.exp(x)
    y[0] = 5.0
    z = y * y
    y[1] = x[0]
    gg.sum(z + y).backward()
    np.testing.assert_allclose(host(x.grad), [1, 2 * np.exp(4)], rtol=1e-14)


def test_memory_of_others_is_not_written(device):
    mine = array([1.0, 2.0])
    x = gg.asarray(mine)
    x[0] = leaf(3.0)
    np.testing.assert_array_equal(host(mine), [1, 2])
    np.testing.assert_array_equal(host(x), [3, 2])


def test_the_written_value_keeps_its_own_memory(device):
    x, y = tracked([1.0, 2.0]), tracked([3.0, 4.0])
    x[...] = y
    y[0] = 0.0
    np.testing.assert_array_equal(host(x), [3, 4])


def test_a_leaf_is_not_written(device):
    x = leaf([1.0, 2.0])
    for target in (x, x[:1]):
        with pytest.raises(RuntimeError, match=r"setitem: a leaf.*copy.*no_grad"):
            target[0] = 1.0
        with pytest.raises(RuntimeError, match=r"add: a leaf.*copy.*no_grad"):
            target += 1
    np.testing.assert_array_equal(host(x), [1, 2])
    with gg.no_grad():
        x[0] = 7.0
    np.testing.assert_array_equal(host(x), [7, 2])


def test_a_view_that_cannot_be_followed_is_not_written(device):
    z = gg.asarray(array([1 + 1j, 2])) * leaf([1.0, 2.0])
    with pytest.raises(RuntimeError, match="setitem: a view.*copy"):
        z.real[0] = 1.0
    x = tracked([1.0, 2.0])
    with gg.no_grad():
        part = x[:1]
    with pytest.raises(RuntimeError, match="setitem: a view.*no_grad"):
        part[0] = x[1]
    wide = gg.broadcast_to(x, (3, 2))
    with pytest.raises(ValueError, match="setitem: elements that a broadcast repeated"):
        wide[0, 0] = 1.0
    np.testing.assert_array_equal(host(x), [1, 2])


def test_a_refused_write_changes_nothing(device):
    x = tracked([1.0, 2.0])
    node = x.node
    for error, key, value in [
        (ValueError, ..., leaf([1.0, 2.0, 3.0])),
        (IndexError, 5, leaf(1.0)),
        (TypeError, 0, gg.asarray(1j) * leaf(1.0)),
    ]:
        with pytest.raises(error, match="^setitem"):
            x[key] = value
    assert x.node is node
    np.testing.assert_array_equal(host(x), [1, 2])


def test_a_write_keeps_the_dtype(device):
    x = leaf([1.0, 2.0], dtype="float32") * 1
    v = leaf([5.0, 6.0])
    x[:] = v
    assert x.dtype == np.float32
    gg.sum(x * x).backward()
    assert v.grad.dtype == np.float64
    np.testing.assert_array_equal(host(v.grad), [10, 12])


def test_views_hold_nobody_longer_than_needed():
    gc.collect()
    gc.disable()
    try:
        x = tracked([1.0, 2.0, 3.0])
        for _ in range(1000):
            x[:1]
        assert len(x.views) < 1000
        row, watch = x[1:], weakref.ref(x)
        row[0] = x[2]
        del x
        assert watch() is not None  # the view is one of it
        del row
        assert watch() is None
        x = tracked([1.0, 2.0])
        with gg.no_grad():
            part, watch = x[:1], weakref.ref(x)
        del x
        assert watch() is None  # what is off the tape keeps no tape alive
        assert part.size == 1
        assert gc.collect() == 0
    finally:
        gc.enable()


def test_a_tensor_without_axes(device):
    def f(x, y):
        z = x * y
        z[()] = z * y
        z += x
        z[...] = z * z
        return z * x

    check_grads(f, [array(1.5), array(-0.7)])


def test_a_loop_of_writes_against_numpy(device):
    """A recurrence filled in element by element, as scientific code does."""

    def recurrence(out, a):
        out[0] = a[0]
        for i in range(1, 5):
            out[i] = out[i - 1] * a[i] + a[0]
        return out

    a = np.array([0.5, 1.5, -1.0, 2.0, 0.3])
    np.testing.assert_allclose(
        host(recurrence(gg.zeros(5), leaf(a))), recurrence(np.zeros(5), a), rtol=1e-14
    )
    check_grads(lambda a: recurrence(gg.zeros(5), a), [array(a)])


# ---- random programs


VIEWS = [
    lambda x, key: x[key],
    lambda x, key: x[key],
    lambda x, key: x.T,
    lambda x, key: x.reshape(-1),
    lambda x, key: x.reshape(*x.shape[::-1], 1),
    lambda x, key: x[None],
    lambda x, key: x[..., None],
    lambda x, key: x[::-1] if x.ndim else x[...],
    lambda x, key: np.squeeze(x),
    lambda x, key: np.moveaxis(x, 0, -1) if x.ndim else x[...],
]


def random_key(rng, shape):
    """Integers and slices, sometimes a list in front."""
    key = [int(rng.integers(n)) if rng.random() < 0.3 else slice(None) for n in shape]
    for i, n in enumerate(shape):
        if rng.random() < 0.4:
            start = int(rng.integers(n))
            key[i] = slice(start, None, -1) if rng.random() < 0.3 else slice(start, None, 2)
    if shape and rng.random() < 0.2:
        key[0] = [int(i) for i in rng.permutation(shape[0])]
        key[1:] = [slice(None)] * (len(shape) - 1)
    return (*key, ...)


def random_program(rng, x, v):
    """Steps of views, writes, and operations in place; tried out on the arrays `x` and `v`."""
    arrays, steps = [x, v], []
    for _ in range(rng.integers(4, 12)):
        kind = rng.choice(["view", "view", "write", "write", "operator", "new", "read"])
        i, j = map(int, rng.integers(len(arrays), size=2))
        number = float(rng.normal())
        key = random_key(rng, arrays[i].shape)
        step = (kind, i, j, key, int(rng.integers(len(VIEWS))), number)
        try:
            run_step(step, arrays, [], np.sin)
        except ValueError:  # shapes that do not fit
            continue
        steps.append(step)
    return steps


def run_step(step, arrays, seen, sin):
    kind, i, j, key, view, number = step
    x = arrays[i]
    if kind == "view":
        arrays.append(VIEWS[view](x, key))
    elif kind == "write":
        x[key] = arrays[j] * number if view % 3 else arrays[j] if view else number
    elif kind == "operator":
        arrays[i] = [x.__iadd__, x.__isub__, x.__imul__][view % 3](
            arrays[j] if view > 2 else number
        )
    elif kind == "new":
        new = (x.T * x.T).T if view % 2 else sin(x)
        arrays.append(new[...])  # an array, also without axes
    else:
        seen.append(sin(x))


def run_program(steps, x, v, sin):
    """The sum over all that was read, and all that is there at the end, with weights."""
    arrays, seen = [x, v], []
    for step in steps:
        run_step(step, arrays, seen, sin)
    total = 0
    for n, y in enumerate([*seen, *arrays]):
        y = y.reshape(-1)
        weights = np.cos(n + np.arange(y.shape[0]))
        total = total + ((y + y * y) * (array(weights) if sin is gg.sin else weights)).sum()
    return total


def reversed_order(x):
    """A copy of `x` on the tape, with its axes in memory from the first to the last."""
    return x.T.reshape(-1).reshape(x.shape[::-1]).T * 1


def check_random_program(rng, order):
    shape = tuple(map(int, rng.integers(1, 4, rng.integers(1, 4))))
    at, along = ([rng.normal(size=s) for s in (shape, 3)] for _ in range(2))
    steps = random_program(rng, *(np.array(x, order=order) for x in at))
    x, v = map(leaf, at)
    total = run_program(steps, x * 1 if order == "C" else reversed_order(x), v * 1, gg.sin)
    total.backward()
    moved = [np.array(x + 1e-40j * t, order=order) for x, t in zip(at, along, strict=True)]
    expected = run_program(steps, *moved, np.sin)
    np.testing.assert_allclose(host(total), expected.real, rtol=1e-9, atol=1e-9)
    slope = sum((host(x.grad) * t).sum() for x, t in zip((x, v), along, strict=True))
    np.testing.assert_allclose(slope, expected.imag / 1e-40, rtol=1e-7, atol=1e-7)


def test_random_programs(device):
    """Values as in NumPy, and the gradient as by a complex step (Squire and Trapp 1998)."""
    rng = np.random.default_rng(0)
    on_cpu = device.kind == "cpu"
    for _ in range(200 if on_cpu else 25):
        check_random_program(rng, "C")
        if on_cpu:  # of other orders CuPy makes other views than NumPy
            check_random_program(rng, "F")


def test_what_was_a_view_stays_one(device):
    """An array whose axes are in another order in memory has it after a write, too."""
    x = gg.asarray(array(np.asfortranarray(X)))
    flat, written = x.T.reshape(-1), gg.asarray(array(5.0)) * leaf(1.0)
    for write in (lambda: x.__setitem__((0, 0), written), lambda: x.__iadd__(gg.zeros((2, 3)))):
        write()
        assert x.data.flags.f_contiguous
        with gg.no_grad():
            x[1, 2] += 1
        np.testing.assert_array_equal(host(flat), host(x).T.reshape(-1))
