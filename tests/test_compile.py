"""`gpugrad.compile`: recorded steps against the same steps run as they are, and what is refused."""

import asyncio
import copy
import dataclasses
import functools
import gc
import math
import pickle
import random as python_random
import threading
import types
import weakref
from collections import deque, namedtuple

import einops
import numpy as np
import pytest
from helpers import array, assert_same, flat, host, leaf

import gpugrad as gg
import gpugrad.einops
from gpugrad.compiler import host as host_loops

SCALE = 2.0


@pytest.fixture(params=["numpy"], autouse=True)
def loops(request, monkeypatch):
    """What runs fused loops on the CPU: NumPy, for to compile each recording takes a second."""
    if request.param == "numpy":
        monkeypatch.setattr(host_loops, "_command", tuple)


def values(*shape, seed=0, dtype="float64"):
    return np.random.default_rng(seed).uniform(-1, 1, shape).astype(dtype)


def on_device(x, **options):
    return gg.asarray(x, device=gg.backends.default_device(), **options)


class Net(gg.nn.Module):
    """Two layers, small enough for a thousand steps."""

    def __init__(self, dtype="float64", seed=0):
        rng = gg.random.Generator(seed)
        self.first = gg.nn.Linear(6, 5, dtype=dtype, rng=rng)
        self.last = gg.nn.Linear(5, 3, dtype=dtype, rng=rng)

    def __call__(self, x):
        return self.last(gg.sigmoid(self.first(x)))


OPTIMIZERS = {
    "SGD": lambda p: gg.optim.SGD(p, 0.1),
    "momentum": lambda p: gg.optim.SGD(p, 0.1, momentum=0.9),
    "Adam": lambda p: gg.optim.Adam(p, 0.01),
}


def training(optimizer="SGD", dtype="float64"):
    """A network, its optimiser, and a step of training."""
    net = Net(dtype)
    opt = OPTIMIZERS[optimizer](net.parameters())
    return net, opt, training_step(net, opt)


def training_step(net, opt):
    """A step that trains what `net`, any function, computes with."""

    def step(x, labels):
        loss = gg.nn.cross_entropy(net(x), labels)
        opt.zero_grad()
        loss.backward()
        opt.step()
        return loss

    return step


def batches(count, dtype="float64"):
    rng = np.random.default_rng(5)
    for _ in range(count):
        yield (
            on_device(rng.uniform(-1, 1, (4, 6)).astype(dtype)),
            on_device(rng.integers(0, 3, 4)),
        )


def assert_equal_networks(a, b, rtol=1e-12):
    for p, q in zip(a.parameters(), b.parameters(), strict=True):
        np.testing.assert_allclose(host(p), host(q), rtol=rtol, atol=rtol)
        assert (p.grad is None) == (q.grad is None)
        if p.grad is not None:
            np.testing.assert_allclose(host(p.grad), host(q.grad), rtol=rtol, atol=rtol)


def compare(f, *calls, count=1, rtol=1e-12):
    """Call `f` compiled and as it is, with the same arguments; it was recorded `count` times."""
    compiled = gg.compile(f)
    for args in calls:
        assert_close(compiled(*args), f(*args), rtol)
    assert len(compiled.steps) == count
    return compiled


def assert_close(got, expected, rtol=1e-12):
    got, expected = flat(got), flat(expected)
    assert len(got) == len(expected)
    for x, y in zip(got, expected, strict=True):
        assert isinstance(x, gg.Tensor) or not isinstance(y, gg.Tensor)
        np.testing.assert_allclose(host(x), host(y), rtol=rtol, atol=rtol)


def refuses(f, *args, match, before=True):
    """Compiled, the call is refused with a message that names this file."""
    compiled = gg.compile(f)
    with pytest.raises(gg.CompileError, match=match) as caught:
        compiled(*args)
    if before:
        assert f"{__file__}:" in str(caught.value)
    assert not compiled.steps
    assert_no_gates()
    return caught.value


def stream(generator):
    """Where a generator is; cuRAND does not tell."""
    return str(generator._state.get_state()) if generator.device.kind == "cpu" else None


def assert_no_gates():
    assert type(gg.Tensor.__dict__["data"]).__name__ == "member_descriptor"
    assert type(gg.backends.backend_of_kind("cpu")).__name__ == "NumpyBackend"
    assert "gated" not in np.random.rand.__name__


# ---- the face


def test_a_function_a_decorator_and_one_with_options(device):
    def f(x):
        """Twice x."""
        return 2 * x

    for compiled in (gg.compile(f), gg.compile(limit=2)(f), gg.compile(f, check=True)):
        assert compiled.__name__ == "f"
        assert compiled.__doc__ == "Twice x."
        for seed in range(3):
            x = on_device(values(3, seed=seed))
            assert_same(compiled(x), f(x))
        assert len(compiled.steps) == 1


def test_the_program_can_be_read(device):
    _, _, step = training()
    compiled = gg.compile(step)
    assert compiled.source == ""
    for x, labels in batches(2):
        compiled(x, labels)
    assert "matmul(" in compiled.source
    assert compiled.source == compiled.steps[0].source


def test_a_parameter_named_self(device):
    compiled, x = gg.compile(lambda self, args: self * args), on_device(values(3))
    assert_close(compiled(self=x, args=x), x * x)


def test_results_keep_their_structure(device):
    Pair = namedtuple("Pair", "a b")

    def f(x, other):
        y = x + other["shift"][0]
        return {"pair": Pair(y, 3), "list": [y.data, x, None], "t": (y * 2,), "name": "f"}

    compiled = gg.compile(f)
    for seed in range(3):
        x, shift = on_device(values(2, 3, seed=seed)), array(values(3, seed=seed + 7))
        out = compiled(x, {"shift": [shift]})
        want = f(x, {"shift": [shift]})
        assert type(out["pair"]) is Pair
        assert out["list"][1] is x
        assert type(out["list"][0]) is type(want["list"][0])
        assert out["list"][2] is None
        assert out["name"] == "f"
        assert_close(
            flat([out["pair"].a, out["list"][0], out["t"]]),
            flat([want["pair"].a, want["list"][0], want["t"]]),
        )
    assert len(compiled.steps) == 1


def test_keywords_and_arrays(device):
    def f(a, *, b, n=2):
        return gg.sin(gg.asarray(a)) * b**n

    compiled = gg.compile(f)
    for seed in range(2):
        a, b = array(values(3, seed=seed)), on_device(values(3, seed=seed + 4))
        assert_close(compiled(a, b=b), f(a, b=b))
        assert_close(compiled(b=b, a=a, n=3), f(a, b=b, n=3))
    assert len(compiled.steps) == 2


def test_a_callable_object_a_bound_method_and_a_partial(device):
    net = Net()
    x = on_device(values(4, 6))

    class Stepper:
        def __init__(self):
            self.net = net
            self.scale = 3.0

        def step(self, x):
            return (self.net(x) * self.scale).detach()

    stepper = Stepper()
    with gg.no_grad():
        assert_close(gg.compile(net)(x), net(x))
    compiled = gg.compile(stepper.step)
    for scale in (3.0, 4.0, 3.0):
        stepper.scale = scale
        assert_close(compiled(x), stepper.step(x))
    assert len(compiled.steps) == 2
    part = functools.partial(lambda a, x: a * x, 2.0)
    assert_close(gg.compile(part)(x), part(x))


class Model(gg.nn.Module):
    def __init__(self, scale):
        self.weight = leaf([scale, 1.0])

    @gg.compile
    def loss(self, x):
        """The loss."""
        return gg.sum(self.weight * x).detach()

    @gg.compile(limit=1)
    def twice(self, x):
        return (2 * self.weight * x).detach()


def test_a_method_has_recordings_for_each_instance(device):
    x = on_device([1.0, 2.0])
    a, b = Model(1.0), Model(5.0)
    for _ in range(3):
        assert float(a.loss(x)) == 3.0
        assert float(b.loss(x)) == 7.0
        assert host(a.twice(x)).tolist() == [2.0, 4.0]
    assert len(a.loss.steps) == len(b.loss.steps) == 1
    assert Model.loss.__doc__ == "The loss."
    assert a.parameters() == [a.weight]


def test_a_copied_instance_has_its_own_recordings(device):
    x = on_device([1.0, 2.0])
    a = Model(1.0)
    assert float(a.loss(x)) == 3.0
    shallow, deep = copy.copy(a), copy.deepcopy(a)
    shallow.weight = leaf([2.0, 1.0])
    with gg.no_grad():
        deep.weight = leaf([4.0, 1.0])
    assert [float(m.loss(x)) for m in (a, shallow, deep)] == [3.0, 4.0, 6.0]
    assert not pickle.loads(pickle.dumps(a)).loss.steps


def test_an_instance_is_not_kept_alive(device):
    gc.disable()
    try:
        a = Model(1.0)
        a.loss(on_device([1.0, 2.0]))
        a.loss(on_device([1.0, 2.0]))
        gone = weakref.ref(a)
        del a
        assert gone() is None
    finally:
        gc.enable()


def test_a_method_needs_room_for_its_recordings():
    class Small:
        __slots__ = ("x",)

        @gg.compile
        def f(self):
            return 1

    with pytest.raises(TypeError, match="__slots__"):
        Small().f()


def test_what_runs_later_is_refused():
    def numbers(x):
        yield x

    async def later(x):
        return x

    async def stream(x):
        yield x

    for f in (numbers, later, stream):
        with pytest.raises(TypeError, match=f"test_compile.py:.*{f.__name__} runs after"):
            gg.compile(f)
    with pytest.raises(TypeError, match="int is not callable"):
        gg.compile(3)


# ---- signatures


def test_new_shapes_dtypes_and_strides_are_recorded_afresh(device):
    x = on_device(values(3, 4))
    calls = [(x,), (x[:, :2],), (x.astype("float32"),), (x.copy().T,), (x.T,), (x,)]
    compare(lambda x: gg.sum(gg.exp(x), axis=0), *calls, count=4, rtol=1e-6)


@pytest.mark.parametrize(
    "constants",
    [
        (1, True),
        (1, 1.0),
        (0.0, -0.0),
        (0.0, math.nan),
        (1.0, 1 + 0j),
        ("a", b"a"),
        (None, False),
        (np.float32(1), np.float64(1)),
        ((1, 2), (1, 2.0)),
        (np.float64(0.0), np.float64(-0.0)),
    ],
    ids=repr,
)
def test_constants_are_known_by_value_and_type(constants):
    seen = []

    @gg.compile
    def f(x, c):
        seen.append(c)
        return x * 1

    x = on_device(values(2))
    for c in (*constants, *copy.deepcopy(constants)):
        f(x, c)
    assert list(map(repr, seen)) == list(map(repr, constants))


def test_nan_is_itself():
    f = gg.compile(lambda x, c: x + c)
    x = on_device(values(2))
    f(x, math.nan)
    f(x, float("nan"))
    assert len(f.steps) == 1


def test_objects_are_known_by_hash(device):
    x = on_device(values(2, 3))

    class Config:
        def __init__(self, axis):
            self.axis = axis

        def __eq__(self, other):
            return self.axis == other.axis

        def __hash__(self):
            return hash(self.axis)

    f = gg.compile(lambda x, config, g: g(gg.sum(x, axis=config.axis)))
    for config in (Config(0), Config(1), Config(0)):
        assert_close(f(x, config, gg.sin), gg.sin(gg.sum(x, axis=config.axis)))
    assert len(f.steps) == 2
    with pytest.raises(TypeError, match="an argument is a set"):
        f(x, Config(0), {1, 2})


def test_requires_grad_is_part_of_the_signature(device):
    def f(x):
        if x.requires_grad:
            x.grad = None
            gg.sum(x * x).backward()
            return x.grad
        return x * x

    calls = [(on_device(values(3)),), (leaf(values(3)),), (leaf(values(3, seed=2)),)]
    compare(f, *calls, count=2)


def test_settings_are_part_of_the_signature(device):
    net = Net()
    f = gg.compile(lambda x: gg.sum(net(x)).requires_grad)
    x = on_device(values(2, 6))
    assert f(x) is True
    with gg.no_grad():
        assert f(x) is False
    with gg.deterministic():
        assert f(x) is True
    with gg.check_bounds():
        assert f(x) is True
    assert f(x) is True
    assert len(f.steps) == 4


def test_the_default_device_is_part_of_the_signature(device):
    f = gg.compile(lambda: gg.zeros(3))
    assert f().device == device
    with gg.device("cpu"):
        assert f().device == "cpu"
    assert f().device == device


def test_the_same_tensor_twice_and_then_two(device):
    a, b = on_device(values(3)), on_device(values(3, seed=1))
    compare(lambda x, y: x * 2 + y, (a, a), (a, b), (b, b), (b, a))


def test_an_argument_that_is_also_closed_over(device):
    w, x = on_device(values(3)), on_device(values(3, seed=1))
    compare(lambda x: x * 2 + w, (w,), (x,), (w,))
    array_w = array(values(3))
    compare(lambda x: gg.asarray(x) * 2 + array_w, (array_w,), (array(values(3, seed=1)),))


def test_one_leaf_on_two_ways_is_refused(device):
    w, other = leaf(values(3)), leaf(values(3, seed=1))

    def f(x, y):
        x.grad = y.grad = None
        gg.sum(x * y).backward()
        return x.grad

    refuses(f, w, w, match="given twice")
    refuses(lambda x: f(x, w), w, match="closed over too")
    assert w.grad is None
    compiled = gg.compile(f)
    compiled(w, other)
    assert_close(w.grad, other)
    with pytest.raises(gg.CompileError, match="given twice"):
        compiled(w, w)


def test_an_argument_in_memory_that_is_written(device):
    state, other = on_device(values(4)), on_device(values(4, seed=1))

    @gg.compile
    def f(x):
        with gg.no_grad():
            state[...] = state + gg.sum(x)
        return x * 2

    f(other)
    f(other)
    for x in (state, state[1:], gg.asarray(state.data)):
        before = host(state)
        with pytest.raises(gg.CompileError, match="shares its memory"):
            f(x)
        assert_same(state, before)


def test_arguments_that_overlap(device):
    @gg.compile
    def f(x, y):
        x += y
        return y * 2

    a, b = on_device(values(4)), on_device(values(4, seed=1))
    for _ in range(2):
        expected = host(a) + host(b)
        f(a, b)
        assert_close(a, expected)
    both = on_device(values(8))
    f(both[:4], both[4:])
    with pytest.raises(gg.CompileError, match="shares its memory"):
        f(a, a)
    with pytest.raises(gg.CompileError, match="shares its memory"):
        f(both[:4], both[2:6])


def test_the_limit_warns_once_and_says_what_changed(device):
    runs = []

    @gg.compile(limit=2)
    def f(x, lr):
        runs.append(lr)
        return x * lr

    x = on_device(values(3))
    f(x, 0.1)
    f(x, 0.2)
    with pytest.warns(gg.CompileWarning, match=r"f: .*limit=2.*lr: 0\.2, then 0\.3") as caught:
        f(x, 0.3)
    assert caught[0].filename == __file__
    assert_close(f(x, 0.4), x * 0.4)
    f(x, 0.1)
    assert runs == [0.1, 0.2, 0.3, 0.4]
    f(on_device(values(2)), 0.1)
    assert runs[-1] == 0.1


# ---- what is closed over


def test_constants_that_are_closed_over(device, monkeypatch):
    factor = 2.0
    sizes = [1, 2]
    config = namedtuple("Box", "")()

    class Settings:
        rate = 1.0

        def __init__(self):
            self.rate = 0.5

    settings = Settings()

    def f(x, *, power=2):
        return x**power * factor * SCALE * settings.rate * sizes[0] + len(config)

    compiled = gg.compile(f)
    x = on_device(values(3))
    assert_close(compiled(x), f(x))
    factor = 3.0
    assert_close(compiled(x), f(x))
    monkeypatch.setitem(globals(), "SCALE", 5.0)
    assert_close(compiled(x), f(x))
    settings.rate = 0.25
    assert_close(compiled(x), f(x))
    sizes[0] = 7
    assert_close(compiled(x), f(x))
    f.__kwdefaults__["power"] = 3
    assert_close(compiled(x), f(x))
    assert len(compiled.steps) == 6
    factor = float("3")
    assert_close(compiled(x), f(x))
    assert len(compiled.steps) == 6


def test_a_helper_and_a_module_that_are_closed_over(device):
    net = Net()
    net.training = True

    def loss(x):
        return gg.sum(net(x) * (2 if net.training else 1)).detach()

    compiled = gg.compile(lambda x: loss(x) + 1)
    x = on_device(values(2, 6))
    for training in (True, False, True):
        net.training = training
        assert_close(compiled(x), loss(x) + 1)
    assert len(compiled.steps) == 2
    net.last = gg.nn.Linear(5, 3, dtype="float64")
    assert_close(compiled(x), loss(x) + 1)
    net.first.weight = leaf(values(6, 5))
    assert_close(compiled(x), loss(x) + 1)


def test_what_methods_and_classes_name(device):
    class Scaled(gg.nn.Module):
        training = True
        power = 2

        def __init__(self):
            self.weight = leaf(values(3))

        def scale(self):
            return SCALE * self.rate

        @property
        def rate(self):
            return 3.0 if self.training else 1.0

        def __call__(self, x):
            return x**self.power * self.scale() * self.weight

    net = Scaled()
    compiled = gg.compile(lambda x: net(x).detach())
    x = on_device(values(3))
    assert_close(compiled(x), net(x))
    net.training = False
    assert_close(compiled(x), net(x))
    del net.training
    assert_close(compiled(x), net(x))
    assert len(compiled.steps) == 2
    Scaled.power = 3
    assert_close(compiled(x), net(x))
    globals()["SCALE"] = 4.0
    try:
        assert_close(compiled(x), net(x))
    finally:
        globals()["SCALE"] = 2.0
    assert len(compiled.steps) == 4


@dataclasses.dataclass(slots=True)
class Slots:
    rate: float = 1.0


class Rates:
    rate = 1.0

    def __init__(self):
        self.own = 1.0

    def __mul__(self, x):
        return x * self.own

    @classmethod
    def scaled(cls, x):
        return x * cls.rate


class MoreRates(Rates):
    def __mul__(self, x):
        return super().__mul__(x) + 1


def other_file(name):
    """A module of the user's, with `f` and what `f` names."""
    made = types.ModuleType(name)
    text = "rate, rates, box = 1.0, {'rate': 1.0}, None\ndef f(x): return x * rate"
    exec(compile(text, f"{name}.py", "exec"), vars(made))
    made.__file__ = f"{name}.py"
    made.box = types.SimpleNamespace(rate=1.0)
    return made


def places():
    """(a function, what changes something that it reads)."""
    slots, rates, more, other = Slots(), Rates(), MoreRates(), other_file("other")
    numbers, keyed, many, queue = {1.0}, {"a": 1.0}, [1.0] * 100, deque([1.0])
    many_keyed = dict.fromkeys(range(100), 1.0)

    class Kept(Rates):
        rate = 1.0

    def named(x):
        return x * named.rate

    named.rate = 1.0

    def total(x, all_of):
        return sum((x * y for y in all_of), x)

    return {
        "slot": (lambda x: x * slots.rate, lambda: setattr(slots, "rate", 2.0)),
        "class": (lambda x: x * Kept.rate, lambda: setattr(Kept, "rate", 2.0)),
        "class method": (Kept.scaled, lambda: setattr(Kept, "rate", 2.0)),
        "operator": (lambda x: rates * x, lambda: setattr(rates, "own", 2.0)),
        "super": (lambda x: more * x, lambda: setattr(more, "own", 2.0)),
        "getattr": (lambda x: x * rates.own, lambda: setattr(rates, "own", 3.0)),
        "function": (named, lambda: setattr(named, "rate", 2.0)),
        "module": (lambda x: x * other.rate, lambda: setattr(other, "rate", 2.0)),
        "dict of a module": (
            lambda x: x * other.rates["rate"],
            lambda: other.rates.update(rate=2.0),
        ),
        "object of a module": (lambda x: x * other.box.rate, lambda: setattr(other.box, "rate", 2)),
        "global of a module": (lambda x: other.f(x), lambda: setattr(other, "rate", 2.0)),
        "set": (lambda x: total(x, numbers), lambda: numbers.add(2.0)),
        "deque": (lambda x: total(x, queue), lambda: queue.append(2.0)),
        "keys": (lambda x: total(x, keyed.values()), lambda: keyed.update(b=2.0)),
        "long list": (lambda x: total(x, many), lambda: many.append(2.0)),
        "long dict": (lambda x: total(x, many_keyed.values()), lambda: many_keyed.update({3: 2.0})),
    }


@pytest.mark.parametrize("name", places())
def test_where_constants_may_be(name, device):
    f, change = places()[name]
    compiled = gg.compile(f)
    x = on_device(values(3))
    before = compiled(x)
    assert_close(compiled(x), f(x))
    assert len(compiled.steps) == 1
    change()
    assert_close(compiled(x), f(x))
    assert abs(host(before) - host(f(x))).max() > 0.1
    assert len(compiled.steps) == 2


def test_a_hook_that_reads_something(device):
    w, factor = leaf(values(3)), [2.0]
    w.register_hook(lambda g: g * factor[0])

    def f(x):
        w.grad = None
        gg.sum(w * x).backward()
        return w.grad

    compiled, x = gg.compile(f), on_device(values(3, seed=1))
    for factor[0] in (1.0, 2.0, 3.0):
        assert_close(compiled(x), f(x))


@pytest.mark.parametrize(("start", "after"), [(True, False), (None, 1.0)])
def test_a_flag_that_the_function_sets(start, after, device):
    class State:
        now = start

    def f(x, state):
        if state.now is start:
            state.now = after
            return x * 0
        return x * 2

    compiled, x, state, other = gg.compile(f), on_device(values(3)), State(), State()
    for _ in range(3):
        assert_close(compiled(x, state), f(x, other))
    assert len(compiled.steps) == 2


def test_a_tensor_that_is_replaced(device):
    first, x = on_device(values(3)), on_device(values(3, seed=1))
    box, array_box = types.SimpleNamespace(now=first), types.SimpleNamespace(now=first.data)
    cell, items, keyed = first, [on_device(values(3)), first], {"now": first}

    def attribute(x):
        box.now = box.now + x
        return box.now

    def in_cell(x):
        nonlocal cell
        cell = cell + x
        return cell

    def in_list(x):
        items[1] = items[1] + x
        return items[1]

    def in_dict(x):
        keyed["now"] = keyed["now"] + x
        return keyed["now"]

    def taken(x):
        return items.pop() + x

    def array(x):
        array_box.now = array_box.now + x.data
        return array_box.now

    for f in (attribute, in_cell, in_list, in_dict, taken, array):
        refuses(f, x, match="was an array that is used.*return what is new")
        assert box.now is cell is items[1] is keyed["now"] is first
        assert array_box.now is first.data


def test_a_tensor_that_is_made_in_the_first_call(device):
    box = types.SimpleNamespace()

    def f(x):
        box.sum = box.sum + x if hasattr(box, "sum") else x * 1
        return box.sum

    compiled, x = gg.compile(f), on_device(values(3))
    compiled(x)
    with pytest.raises(gg.CompileError, match="is used outside"):
        compiled(x)


def test_the_memory_of_a_tensor_that_is_closed_over(device):
    w = on_device(values(3))
    compiled = gg.compile(lambda x: x * w)
    x = on_device(values(3, seed=1))
    assert_close(compiled(x), x * w)
    w[0] = 7.0
    assert_close(compiled(x), x * w)
    assert len(compiled.steps) == 1
    w.requires_grad = True
    with gg.no_grad():
        assert_close(compiled(x), x * w)
    w.requires_grad = False
    assert_close(compiled(x), x * w)


def test_hooks_of_leaves(device):
    w = leaf(values(3))

    def f(x):
        w.grad = x.grad = None
        gg.sum(w * x).backward()
        return w.grad, x.grad

    compiled = gg.compile(f)
    x = leaf(values(3, seed=1))
    for y in (w, x):
        assert_close(compiled(x), f(x))
        remove = y.register_hook(lambda g: g * 3)
        assert_close(compiled(x), f(x))
        other = y.register_hook(lambda g: g + 1)
        assert_close(compiled(x), f(x))
        remove()
        assert_close(compiled(x), f(x))
        other()
    assert_close(compiled(x), f(x))
    assert len(compiled.steps) == 7


def test_a_tensor_that_is_gone_is_not_used(device):
    tensors = {"w": on_device(values(3))}
    holder = [None]  # a way that no guard looks at
    holder[0] = lambda: tensors
    compiled = gg.compile(lambda x: x * next(iter(holder))()["w"])
    x = on_device(values(3, seed=1))
    compiled(x)
    tensors["w"] = on_device(values(3, seed=2))
    assert_close(compiled(x), x * tensors["w"])


# ---- what is refused


def reads():
    return {
        "if": lambda x: x if gg.sum(x) > 0 else -x,
        "while": lambda x: [x for _ in iter(lambda: bool(gg.sum(x) > 0), False)],
        "float": lambda x: x * float(gg.sum(x)),
        "int": lambda x: x * int(gg.sum(x)),
        "complex": lambda x: x * complex(gg.sum(x)),
        "index": lambda x: [1, 2][gg.argmax(x)],
        "item": lambda x: x[0].item(),
        "item at": lambda x: x.item(0),
        "tolist": lambda x: x.tolist(),
        "print": lambda x: print(x),
        "repr": lambda x: repr(x),
        "format": lambda x: f"{x}",
        "%": lambda x: "%s" % x,  # noqa: UP031
        "get": lambda x: x.get(),
        "numpy": lambda x: x.detach().numpy(),
        "raw bool": lambda x: bool(x.data[0] > 0),
        "raw float": lambda x: float(x.data[0]),
        "raw tolist": lambda x: x.data.tolist(),
        "in": lambda x: 3.0 in x,
        "round": lambda x: round(float(x[0])),
        "math": lambda x: math.sin(x[0]),
        "max": lambda x: max(x[0], x[1]),
        "sorted": lambda x: sorted(x),
        "array": lambda x: np.array([float(x[0])]),
        "pickle": lambda x: pickle.dumps(x),
    }


@pytest.mark.parametrize("name", reads())
def test_a_value_that_is_read(name, device, capsys):
    refuses(reads()[name], on_device(values(3)), match="a value is read.*gpugrad.where|taken out")
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    "f",
    [lambda x: np.asarray(x), lambda x: np.from_dlpack(x), lambda x: np.asarray(x.data)],
    ids=["asarray", "from_dlpack", "raw"],
)
def test_an_array_that_is_taken_out(f):
    with gg.device("cpu"):
        refuses(f, gg.asarray(values(3)), match="inside gpugrad.compile")


@pytest.mark.parametrize(
    "f",
    [
        lambda x: gg.nonzero(x),
        lambda x: gg.unique_values(x),
        lambda x: x[x > 0],
        lambda x: x[0, x[0] > 0],
        lambda x: gg.repeat(x, gg.asarray([1, 2], device=x.device) + gg.argmax(x, axis=1), axis=0),
        lambda x: gg.bincount(gg.argmax(x, axis=0)),
    ],
    ids="nonzero unique mask masks repeat bincount".split(),
)
def test_shapes_that_depend_on_values(f, device):
    refuses(f, on_device(values(2, 3)), match="shape depends on values|a value is read")


def test_an_error_that_is_caught_inside(device):
    def f(x):
        try:
            return x * float(x[0])
        except RuntimeError:
            return x

    refuses(f, on_device(values(3)), match="a value is read")


def test_an_array_with_the_bytes_of_another_machine():
    swapped = np.arange(3.0).astype(">f8")
    refuses(lambda x: x * 2, swapped, match="of another machine.*convert it")
    refuses(lambda x: x * swapped, np.arange(3.0), match="of another machine.*convert it")


def test_a_mask_that_is_constant(device):
    mask = [True, False, True]
    compare(lambda x: x[gg.asarray(mask)], (on_device(values(3)),), (on_device(values(3, seed=1)),))


def test_numbers_that_others_draw(device):
    x = on_device(values(3))
    for f in (
        lambda x: x * np.random.rand(),
        lambda x: x + np.random.normal(size=3),
        lambda x: x * python_random.random(),
    ):
        refuses(f, x, match="draws a number.*gpugrad.random")
    generator = np.random.default_rng(0)
    refuses(
        lambda x: x + gg.asarray(generator.normal(size=3), device=device),
        x,
        match="made inside by something|is copied from cpu",
    )
    held = np.empty(3)

    def into(x):
        generator.random(out=held)
        return x

    old, other = np.random.RandomState(0), python_random.Random(0)
    for f in (
        lambda x: x * generator.random(),
        lambda x: x * float(old.uniform()),
        lambda x: x * other.random(),
        into,
    ):
        before = pickle.dumps((generator, old, other))
        refuses(f, x, match="drawn from (generator|old|other).*gpugrad.random")
        assert pickle.dumps((generator, old, other)) == before
    assert 0 <= np.random.rand() < 1


def test_generators_and_seeds_inside(device):
    x = on_device(values(3))
    refuses(lambda x: x + gg.random.Generator(0).normal(3), x, match="generator is made")
    refuses(lambda x: gg.random.seed(0), x, match="are seeded")
    gg.random.seed(0)
    assert gg.random.Generator(0).normal(3).shape == (3,)


def test_the_source_is_that_of_the_last_call(device):
    compiled = gg.compile(lambda x: gg.matmul(x, x))
    assert compiled.source == ""
    for shape in ((2, 2), (3, 3), (2, 2)):
        compiled(on_device(np.ones(shape)))
        (step,) = (s for s in compiled.steps if s.program.outputs[0].shape == shape)
        assert compiled.source == step.runner.source
        assert "matmul(" in compiled.source


def test_a_view_of_which_only_a_tensor_has_the_memory(device):
    """As `numpy.linspace` and `reshape` give them."""
    table = on_device(np.arange(6.0).reshape(2, 3).T)
    compiled = gg.compile(lambda x: x @ table)
    for scale in (1, 2, 3):
        x = on_device(scale * np.ones((1, 3)))
        np.testing.assert_array_equal(host(compiled(x)), scale * np.array([[3.0, 12.0]]))
    assert len(compiled.steps) == 1


def test_a_result_whose_tape_would_be_lost(device):
    net = Net()
    x = on_device(values(2, 6))
    refuses(net.__call__, x, match=r"requires a gradient.*detach", before=False)
    assert not gg.compile(lambda x: net(x).detach())(x).requires_grad


def test_a_result_that_is_some_object(device):
    refuses(lambda x: iter([x]), on_device([1.0]), match="a result is a list_iterator")
    refuses(lambda x: {1, 2}, on_device([1.0]), match="a result is a set")


def test_a_tensor_that_escaped(device):
    kept = []

    @gg.compile
    def f(x):
        kept.append(x * 2)
        return x

    f(on_device(values(3)))
    for use in (gg.sin, float, repr, lambda x: x + 1, lambda x: x.get(), gg.compile(gg.cos)):
        with pytest.raises(gg.CompileError, match=r"test_compile.py:\d+: .*return it"):
            use(kept[0])
    with pytest.raises(gg.CompileError, match="return it"):
        gg.compile(lambda x: x + kept[0])(on_device(values(3)))


def test_a_tensor_from_outside_that_is_written_on_the_tape(device):
    w, buffer = leaf(values(3)), on_device(values(3))

    def f(x):
        buffer[...] = w * x
        return x

    x = on_device(values(3, seed=2))
    before = host(buffer)
    refuses(f, x, match="given other memory.*no_grad")
    assert_same(buffer, before)
    assert not buffer.requires_grad

    def g(x):
        x[0] = gg.sum(w)
        return gg.sum(x).detach()

    refuses(g, x, match="given other memory.*x.copy")
    compare(lambda x: g(x.copy()), (x,), (buffer,))


def test_requires_grad_of_a_tensor_from_outside(device):
    w, x = on_device(values(3)), leaf(values(3))

    def on(y):
        w.requires_grad = True
        return y

    def off(y):
        y.requires_grad = False
        return 1

    refuses(on, x, match="requires_grad of a tensor from outside")
    refuses(off, x, match="requires_grad of a tensor from outside")
    assert not w.requires_grad
    assert x.requires_grad

    def inside(y):
        z = y.copy()
        z.requires_grad = True
        gg.sum(z * z).backward()
        return z.grad

    compare(inside, (w,), (on_device(values(3, seed=3)),))


def test_a_tensor_that_was_computed_outside(device):
    w = leaf(values(3))
    loss = gg.sum(w * w)
    refuses(lambda x: (loss * x).detach(), on_device(2.0), match="computed outside")
    loss.backward()
    assert_close(w.grad, 2 * w.detach())


def test_memory_with_two_names_that_is_written(device):
    x = on_device(values(4))
    view = x[1:]

    def f(y):
        x[...] = x + y
        return view * 2

    before = host(x)
    refuses(f, on_device(1.0), match="shares its memory")
    assert_same(x, before)


def test_a_copy_between_devices(cuda):
    with gg.device("cpu"):
        refuses(lambda x: x.to(cuda), gg.asarray(values(3)), match="is copied|a value is read")
    with cuda:
        refuses(lambda x: x.to("cpu"), on_device(values(3)), match="is copied|a value is read")


def test_nothing_has_changed_after_an_error(device):
    generator = gg.random.Generator(1)
    net, opt, step = training("Adam")
    x, labels = next(batches(1))
    buffer = on_device(values(3))
    step(x, labels)  # a gradient is there

    def wrong(x, labels):
        noise = generator.normal(x.shape)
        loss = step(x + noise, labels)
        buffer[0] = 1.0
        x *= 2
        labels += 1
        return float(loss)

    def state():
        grads = [p.grad for p in net.parameters()]
        moments = [a for pair in opt._moments for a in pair]
        tables = [powers for _, powers, _ in opt._tables]
        return [x, labels, buffer, *net.parameters(), *grads, *moments, *tables]

    before = [host(a).copy() for a in state()]
    drawn = stream(generator)
    refuses(wrong, x, labels, match="a value is read")
    for now, then in zip(state(), before, strict=True):
        assert_same(now, then)
    assert stream(generator) == drawn
    assert gg.random.Generator(1).normal(3).shape == (3,)


def test_exceptions_of_the_function_pass_through(device):
    net, _, step = training()
    before = [host(p) for p in net.parameters()]

    class Mine(Exception):
        pass

    def fails(x, labels, error):
        step(x, labels)
        raise error

    x, labels = next(batches(1))
    for error in (Mine("here"), KeyboardInterrupt(), ValueError("other")):
        compiled = gg.compile(fails)
        with pytest.raises(type(error)) as caught:
            compiled(x, labels, error)
        assert caught.value is error
        assert_no_gates()
        assert not compiled.steps
    for p, value in zip(net.parameters(), before, strict=True):
        assert_same(p, value)
        assert p.grad is None
    assert_close(gg.compile(lambda x: x * 2)(x), x * 2)


def test_a_read_only_array_stops_all_writes():
    with gg.device("cpu"):
        a, b = gg.asarray(values(3)), gg.asarray(values(3))

        @gg.compile
        def f(x):
            a[...] = x
            b[...] = x
            return x * 2

        x = gg.asarray(values(3, seed=1))
        f(x)
        b.data.flags.writeable = False
        a[...] = 0
        with pytest.raises(ValueError, match="read-only"):
            f(x)
        assert_same(a, np.zeros(3))


def test_no_memory_leaves_the_state(monkeypatch):
    with gg.device("cpu"):
        net, _, step = training("Adam")
        compiled = gg.compile(step)
        for x, labels in batches(2):
            compiled(x, labels)
        before = [host(p) for p in (*net.parameters(), *(p.grad for p in net.parameters()))]

        def no_room(arrays):
            raise MemoryError("no room")

        monkeypatch.setattr(compiled.steps[0], "runner", no_room)
        with pytest.raises(gg.OutOfMemoryError, match="step: nothing was changed"):
            compiled(x, labels)
        now = [*net.parameters(), *(p.grad for p in net.parameters())]
        for a, b in zip(now, before, strict=True):
            assert_same(a, b)


def test_a_program_that_cannot_be_built_changes_nothing(device, monkeypatch):
    net, _, step = training("momentum")
    before = [host(p) for p in net.parameters()]
    x, labels = next(batches(1))

    def no_room(*_):
        raise MemoryError("no room")

    compiled = gg.compile(step)
    with monkeypatch.context() as patched:
        patched.setattr("gpugrad.compiler.compiled.build", no_room)
        with pytest.raises(MemoryError, match="no room"):
            compiled(x, labels)
    for p, value in zip(net.parameters(), before, strict=True):
        assert_same(p, value)
        assert p.grad is None
    other, _, eager = training("momentum")
    assert_close(compiled(x, labels), eager(x, labels))
    assert_equal_networks(net, other)


# ---- where the function itself runs


def test_derivatives_from_outside(device):
    runs = []

    def f(x):
        runs.append(1)
        return gg.sum(gg.sin(x) * x)

    compiled = gg.compile(f)
    x = on_device(values(3))
    for _ in range(2):
        assert_close(gg.grad(compiled)(x), gg.grad(f)(x))
        assert_close(gg.hessian(compiled)(x), gg.hessian(f)(x))
        assert_close(gg.jvp(compiled, (x,), (x,)), gg.jvp(f, (x,), (x,)))
        assert_close(
            gg.vmap(compiled)(on_device(values(2, 3))), gg.vmap(f)(on_device(values(2, 3)))
        )
    y = leaf(values(3))
    compiled(y * 1).backward()
    assert_close(y.grad, gg.grad(f)(y.detach()))
    count = len(runs)
    assert_close(compiled(x), f(x))
    compiled(x)
    assert len(runs) == count + 2


def test_random_numbers_of_a_call_that_turns_out_to_be_derived():
    f = gg.compile(lambda x: gg.sum(x * gg.random.normal(3, device="cpu")))
    x = leaf(values(3), device="cpu")
    gg.random.seed(3)
    f(x).backward()
    gg.random.seed(3)
    assert_close(x.grad, gg.random.normal(3, device="cpu"))


def test_compiled_functions_inside(device):
    inner = gg.compile(lambda x: gg.sin(x) * 2)
    outer = gg.compile(lambda x: inner(x) + inner(gg.cos(x)))
    for seed in range(3):
        x = on_device(values(3, seed=seed))
        assert_close(outer(x), 2 * gg.sin(x) + 2 * gg.sin(gg.cos(x)))
    assert len(outer.steps) == 1
    assert not inner.steps
    assert_close(inner(x), gg.sin(x) * 2)


def test_recursion(device):
    @gg.compile
    def power(x, n):
        return x if n == 1 else x * power(x, n - 1)

    x = on_device(values(3))
    for _ in range(2):
        assert_close(power(x, 4), x**4)
    assert len(power.steps) == 1


def test_other_threads_work_while_one_records(device):
    started, done = threading.Event(), threading.Event()
    found = []

    def f(x):
        started.set()
        assert done.wait(30)
        return x * 2

    def work():
        assert started.wait(30)
        with gg.device(device):
            y = leaf(values(3))
            gg.sum(y * y).backward()
            found.append(
                (float(y.grad[0]), gg.random.Generator(0).normal(2).get(), np.random.rand())
            )
            done.set()

    thread = threading.Thread(target=work)
    thread.start()
    x = on_device(values(3))
    assert_close(gg.compile(f)(x), 2 * x)
    thread.join()
    assert found[0][0] == pytest.approx(2 * values(3)[0])


def test_several_threads_run_one_step(device):
    compiled = gg.compile(lambda x: gg.sum(gg.sin(x) @ x.T, axis=0))
    compiled(on_device(values(40, 40)))
    wrong = []

    def work(seed):
        with gg.device(device):
            for i in range(20):
                x = on_device(values(40, 40, seed=100 * seed + i))
                expected = host(gg.sum(gg.sin(x) @ x.T, axis=0))
                if not np.allclose(host(compiled(x)), expected, rtol=1e-9):
                    wrong.append(seed)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_tasks_work_while_one_records():
    async def main():
        x = gg.asarray(values(3), device="cpu")
        await asyncio.gather(*(asyncio.to_thread(gg.compile(lambda x: x * 2), x) for _ in range(4)))
        return float(x[0] * 2)

    assert asyncio.run(main()) == pytest.approx(values(3)[0] * 2)


# ---- check


def test_check_finds_a_counter(device):
    count = 0

    @gg.compile(check=True)
    def f(x):
        nonlocal count
        count += 1
        return x * count

    x = on_device(values(3))
    assert_close(f(x), x)
    with pytest.raises(
        gg.CompileError, match=r"the result of .*f is not what it is.*largest error"
    ):
        f(x)


def test_check_leaves_the_outcome_of_the_function(device):
    numbers = iter([1.0, 2.0, 3.0])
    w, generator = leaf(values(3)), gg.random.Generator(0)
    opt = gg.optim.SGD([w], 1.0)

    @gg.compile(check=1)
    def f(x):
        opt.zero_grad()
        gg.sum(w * x * next(numbers) + 0 * generator.normal(3)).backward()
        opt.step()
        return gg.sum(x)

    x = on_device(np.ones(3))
    f(x)
    before = host(w)
    with pytest.raises(gg.CompileError, match="w of .*f is not what it is"):
        f(x)
    assert_close(w, before - 2.0)
    assert_close(w.grad, np.full(3, 2.0))
    f(x)  # it is no longer compared, and replays the first call
    assert_close(w, before - 3.0)
    other = gg.random.Generator(0)
    other.normal((3, 3))
    assert stream(other) == stream(generator)


def test_check_passes_and_stops(device):
    generator = gg.random.Generator(0)
    runs = []
    (a, _, plain), (b, _, step) = training("momentum"), training("momentum")

    def noisy(x, labels):
        runs.append(1)
        return step(x + 0 * generator.normal(x.shape), labels)

    compiled = gg.compile(noisy, check=True)
    for x, labels in batches(6):
        assert_close(compiled(x, labels), plain(x, labels))
    assert_equal_networks(a, b)
    assert len(runs) == 4


# ---- compiled equals eager


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("loops", ["numpy", "c++"], indirect=True)
def test_a_thousand_steps(optimizer, dtype, loops, device):
    count = 1000 if device.kind == "cpu" else 20
    (a, opt_a, eager), (b, opt_b, step) = training(optimizer, dtype), training(optimizer, dtype)
    compiled = gg.compile(step)
    rtol = 1e-12 if dtype == "float64" else 1e-4
    for i, (x, labels) in enumerate(batches(count, dtype)):
        if i == count // 2:
            opt_a.lr = opt_b.lr = 0.05
        losses = compiled(x, labels), eager(x, labels)
    assert_close(*losses, rtol=rtol)
    assert_equal_networks(a, b, rtol=rtol)
    assert len(compiled.steps) == 1


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("loops", ["c++"], indirect=True)
def test_a_thousand_steps_of_the_network_of_mnist(optimizer, loops):
    def made():
        rng = gg.random.Generator(0, "cpu")
        layers = [gg.nn.Linear(*n, dtype="float64", rng=rng) for n in ((784, 100), (100, 10))]
        net = gg.nn.Sequential(layers[0], gg.nn.Sigmoid(), layers[1])
        opt = OPTIMIZERS[optimizer](net.parameters())

        return net, training_step(net, opt)

    (a, eager), (b, step) = made(), made()
    compiled = gg.compile(step)
    rng = np.random.default_rng(0)
    with gg.device("cpu"):
        for _ in range(1000):
            images = gg.asarray(rng.random((16, 784)))
            labels = gg.asarray(rng.integers(0, 10, 16))
            losses = compiled(images, labels), eager(images, labels)
    assert_close(*losses, rtol=1e-12)
    assert_equal_networks(a, b, rtol=1e-12)


def test_the_learning_rate_as_an_argument(device):
    def made():
        net, opt, step = training("momentum")

        def scheduled(x, labels, lr):
            opt.lr = lr
            return step(x, labels)

        def decaying(x, labels):
            opt.lr = opt.lr * 0.5
            return step(x, labels)

        return net, opt, scheduled, decaying

    (a, opt_a, eager, eager_decay), (b, opt_b, step, decay) = made(), made()
    compiled, compiled_decay = gg.compile(step), gg.compile(decay)
    for i, (x, labels) in enumerate(batches(4)):
        lr = on_device(0.1 / (i + 1))
        assert_close(compiled(x, labels, lr), eager(x, labels, lr))
    opt_a.lr = opt_b.lr = 0.3
    for x, labels in batches(3):
        assert_close(compiled_decay(x, labels), eager_decay(x, labels))
    assert float(opt_b.lr) == float(opt_a.lr) == 0.3 / 8
    assert len(compiled.steps) == len(compiled_decay.steps) == 1
    assert_equal_networks(a, b)


def test_a_number_as_learning_rate_inside(device):
    (a, opt_a, eager), (b, opt_b, step) = training(), training()

    def f(x, labels):
        opt_b.lr = 0.5
        return step(x, labels)

    compiled = gg.compile(f)
    for x, labels in batches(3):
        opt_a.lr = 0.5
        opt_b.lr = 7.0
        assert_close(compiled(x, labels), eager(x, labels))
        assert float(opt_b.lr) == 0.5
    assert_equal_networks(a, b)


@pytest.mark.parametrize("own", [True, False], ids=["a generator", "the module's own"])
def test_dropout(own, device):
    def made():
        net, opt, _ = training()
        generator = gg.random.Generator(3) if own else gg.random

        def step(x, labels):
            hidden = gg.sigmoid(net.first(x))
            kept = generator.bernoulli(0.5, hidden.shape, dtype=hidden.dtype)
            loss = gg.nn.cross_entropy(net.last(hidden * kept * 2), labels)
            opt.zero_grad()
            loss.backward()
            opt.step()
            return loss, generator.normal(2)

        return net, step

    (a, eager), (b, step) = made(), made()
    outcomes = []
    for f in (eager, gg.compile(step)):
        gg.random.seed(5)
        outcomes.append([f(x, labels) for x, labels in batches(5)])
    assert_close(*outcomes)
    assert_equal_networks(a, b)


def test_gradients_over_several_sweeps_and_calls(device):
    def made():
        net, opt, _ = training()

        def gather(x, labels):
            for half in (slice(0, 2), slice(2, 4)):
                gg.nn.cross_entropy(net(x[half]), labels[half]).backward()

        def update():
            opt.step()
            opt.zero_grad()

        return net, gather, update

    (a, *eager), (b, *steps) = made(), made()
    gather, update = map(gg.compile, steps)
    for i, (x, labels) in enumerate(batches(9)):
        assert gather(x, labels) is None
        eager[0](x, labels)
        assert_equal_networks(a, b)
        if i % 3 == 2:
            update()
            eager[1]()
    assert_equal_networks(a, b)
    assert len(gather.steps) == 2
    assert len(update.steps) == 1


def test_gradients_that_are_changed(device):
    def made():
        net, opt, _ = training()

        def step(x, labels):
            opt.zero_grad()
            gg.nn.cross_entropy(net(x), labels).backward()
            norm = gg.sqrt(sum(gg.sum(p.grad * p.grad) for p in net.parameters()))
            for p in net.parameters():
                p.grad *= gg.minimum(0.1 / norm, 1.0)
            opt.step()
            return norm

        def halve():
            for p in net.parameters():
                p.grad *= 0.5

        return net, step, halve

    (a, *eager), (b, *steps) = made(), made()
    compiled = [gg.compile(f) for f in steps]
    for x, labels in batches(3):
        assert_close(compiled[0](x, labels), eager[0](x, labels))
        compiled[1]()
        eager[1]()
        assert_equal_networks(a, b)


def test_gradients_of_arguments(device):
    def f(x, scale):
        gg.sum(scale * x * x).backward()
        return x.grad * 1

    compiled = gg.compile(f)
    a, b = leaf(values(3)), leaf(values(3))
    for scale in (1.0, 2.0, 3.0):
        assert_close(compiled(a, on_device(scale)), f(b, on_device(scale)))
    other = leaf(values(3, seed=1))
    assert_close(compiled(other, on_device(2.0)), 4 * other.detach())
    assert_close(a.grad, b.grad)
    assert_close(other.grad, 4 * other.detach())


def test_a_gradient_penalty(device):
    def made(functional):
        net, opt, _ = training()

        def step(x, labels):
            opt.zero_grad()
            if functional:
                slope = gg.grad(lambda x: gg.nn.cross_entropy(net(x), labels))(x)
            else:
                x = x.copy()
                x.requires_grad = True
                gg.nn.cross_entropy(net(x), labels).backward(create_graph=True)
                slope = x.grad
                opt.zero_grad()
            loss = gg.nn.cross_entropy(net(x), labels) + gg.sum(slope * slope)
            loss.backward()
            opt.step()
            return loss

        return net, step

    for functional in (True, False):
        (a, eager), (b, step) = made(functional), made(functional)
        compiled = gg.compile(step)
        for x, labels in batches(3):
            assert_close(compiled(x, labels), eager(x, labels))
        assert_equal_networks(a, b)
        assert len(compiled.steps) == 1


def test_checkpoint(device):
    def made():
        net, opt, _ = training("momentum")
        generator = gg.random.Generator(1)

        def noisy(x):
            # a checkpoint that is not recorded starts another stream on a GPU
            return net(x + generator.normal(x.shape) * (device.kind == "cpu"))

        return net, training_step(gg.checkpoint(noisy), opt)

    (a, eager), (b, step) = made(), made()
    compiled = gg.compile(step)
    for x, labels in batches(4):
        assert_close(compiled(x, labels), eager(x, labels))
    assert_equal_networks(a, b)


def test_transforms_inside(device):
    w = on_device(values(3))

    def f(x):
        return gg.sum(gg.tanh(x * w) * x)

    def g(x):
        return [
            gg.grad(f)(x),
            gg.value_and_grad(f)(x),
            gg.jacobian(lambda x: gg.sin(x) * w)(x),
            gg.hessian(f)(x),
            gg.hvp(f, (x,), (w,)),
            gg.jvp(f, (x,), (w,)),
            gg.vmap(lambda y: y * x)(gg.stack([x, w])),
            gg.vmap(gg.grad(f))(gg.stack([x, w])),
            gg.vjp(f, x)[1](on_device(1.0)),
        ]

    compare(g, *[(on_device(values(3, seed=seed)),) for seed in range(3)])


def test_writes(device):
    def made():
        table, vector = on_device(values(4, 3)), on_device(values(3))
        row = table[1]

        def f(x, buffer):
            table[0] = x
            table[2:, 1] += gg.sum(x)
            vector[...] = vector * 2
            x[1] = 5.0
            buffer *= 2
            buffer[gg.asarray([0, 2, 1])] = x  # of one that is named twice any value may stay
            view = buffer[1:]
            view += 1
            swapped = table.T
            swapped[2, 3] = 9.0
            mine = x.copy()
            mine[0] = mine[1] + gg.sum(table[0])
            return mine, view * 1, swapped * 1, gg.sum(table)

        return table, vector, row, f

    (*state_a, f), (*state_b, g) = made(), made()
    compiled = gg.compile(g)
    for seed in range(3):
        (xa, ba), (xb, bb) = [
            [on_device(values(3, seed=seed)), on_device(values(4, seed=seed))] for _ in range(2)
        ]
        assert_close(compiled(xb, bb), f(xa, ba))
        assert_close([xb, bb, *state_b], [xa, ba, *state_a])
    assert len(compiled.steps) == 1


def test_writes_are_seen_by_a_tape_outside(device):
    w, x = on_device(values(3)), leaf(values(3))

    @gg.compile
    def change(y):
        w[0] = y
        y += 1

    for _ in range(2):
        loss = gg.sum(x * w)
        other = on_device(1.0)
        product = x[0] * other
        change(other)
        for root in (loss, product):
            with pytest.raises(RuntimeError, match="changed in place"):
                root.backward()


def test_old_values_that_are_returned(device):
    w = on_device(values(3))

    def f(x):
        before, view = w.copy(), w[::-1]
        w[...] = w + x
        return before, view * 1, w

    first, second = (on_device(values(3, seed=s)) for s in (1, 2))
    compiled = gg.compile(f)
    start = host(w)
    compiled(first)
    before, view, same = compiled(second)
    assert_close(before, start + host(first))
    assert_close(view, (start + host(first) + host(second))[::-1])
    assert same is w


def test_large_results_stay(device):
    """Those of 30 KiB are lent: their memory is used again when nobody holds it."""

    def f(x):
        return x * 2, gg.sin(x) * 3 + 1

    compiled, kept = gg.compile(f), {}
    inputs = [on_device(values(60, 60, seed=i)) for i in range(12)]
    for i, x in enumerate(inputs):
        product, sine = compiled(x)
        kept[i] = product, sine.data[1:]  # of one of them a view
        del product, sine
        for k, (a, b) in kept.items():
            wanted = f(inputs[k])
            assert_close((a, b), (wanted[0], wanted[1].data[1:]))
        if i in (4, 8):
            del kept[i - 1], kept[i - 3]


def test_views_that_are_returned_after_a_write(device):
    def f(x):
        rows, turned = x[1:], x.T
        x[2] = 3.0
        turned[0] = 5.0
        return rows, turned, x[0]

    for seed in range(3):
        a, b = (on_device(values(3, 4, seed=seed)) for _ in range(2))
        assert_close(gg.compile(f)(a), f(b))
        assert_close(a, b)
    compiled = gg.compile(f)
    compiled(a)
    assert_close(compiled(a), f(b))


def test_what_numpy_does_not_write_is_not_written_inside():
    x = gg.asarray(values(3), device="cpu")

    @gg.compile
    def f(x):
        gg.broadcast_to(x, (2, 3))[0] = 1.0

    with pytest.raises(ValueError, match="read-only"):
        f(x)
    x.data.flags.writeable = False
    with pytest.raises(ValueError, match="read-only"):
        gg.compile(lambda: x.fill(1))()


def test_own_derivatives_and_kernels(device):
    def clip(x):
        return x * (abs(x) < 0.5)

    clipped = gg.custom_vjp(clip, lambda g, out, x: g * 2 * x)
    spring = gg.elementwise_kernel(
        "T x, T k", "T y", "y = T(0.5) * k * x * x", "spring", twin=lambda x, k: 0.5 * k * x * x
    )

    def f(x):
        return gg.grad(lambda x: gg.sum(clipped(x) * spring(x, 3.0)))(x)

    compare(f, *[(on_device(values(3, seed=seed)),) for seed in range(3)])


def test_einops(device):
    def f(x):
        y = einops.rearrange(x, "(a b) c -> c b a", a=2)
        return gg.grad(lambda x: gg.sum(einops.reduce(x, "a b -> a", "mean") ** 2))(x), y

    compare(f, *[(on_device(values(4, 3, seed=seed)),) for seed in range(3)])


def test_numpy_calls_on_tensors(device):
    def f(x):
        return np.sum(np.sin(x) * np.sqrt(2.0), axis=0), np.concatenate([x, x]), x.dot(x.T), 2 - x

    compare(f, *[(on_device(values(4, 3, seed=seed)),) for seed in range(3)])


def test_numpy_calls_on_arrays():
    def f(x):
        y = np.sin(x) + np.add.reduce(x, axis=0) - np.sum(x, axis=1, keepdims=True)
        np.multiply(y, 2, out=y)
        np.exp(x[0], out=x[0])
        return y, np.linalg.norm(y), np.concatenate([x, y]), np.where(x > 0, x, -x)

    compiled = gg.compile(f)
    for seed in range(3):
        a, b = values(4, 3, seed=seed), values(4, 3, seed=seed)
        assert_close(compiled(a), f(b))
        assert_close(a, b)
    assert len(compiled.steps) == 1


def test_a_step_that_is_dropped_is_gone(device):
    net, opt, step = training("Adam")
    compiled = gg.compile(step)
    for x, labels in batches(3):
        compiled(x, labels)
    gone = weakref.ref(net.first.weight)
    gc.collect()
    gc.disable()
    try:
        del net, opt, step, compiled
        assert gone() is None
    finally:
        gc.enable()


def test_training_leaves_no_cycles(device):
    _, _, step = training("Adam")
    compiled = gg.compile(step)
    pairs = list(batches(20))
    gc.collect()
    gc.disable()
    try:
        for x, labels in pairs:
            compiled(x, labels)
        gone = weakref.ref(x.data)
        del x, pairs, labels
        assert gone() is None
    finally:
        gc.enable()


@pytest.mark.parametrize("operation", [gg.special.i1, lambda x: gg.where(x > 0, x, 1)])
def test_an_operation_that_is_closed_over_is_no_state(operation):
    """Its table gets an entry for each type of arrays that it meets."""
    operation, where = functools.partial(operation), gg.where
    compiled = gg.compile(lambda x: where(x > 0, operation(x), 2))
    x = on_device(values(3))
    assert_close(compiled(x), where(x > 0, operation(x), 2))
    (step,) = compiled.steps
    assert not any("functions" in name for name in step.described)


@pytest.mark.parametrize("form", ["c++", "numpy"])
def test_what_runs_loops_is_chosen(form, monkeypatch):
    monkeypatch.undo()  # there is a compiler
    compiled = gg.compile(lambda x: gg.sin(x) * 2, loops=form)
    x = gg.asarray(values(5), device="cpu")
    compiled(x)
    assert_same(compiled(x), np.sin(host(x)) * 2)
    assert compiled.steps[0].runner.loops == form


def test_other_loops_are_refused():
    with pytest.raises(ValueError, match=r'loops is "c\+\+" or "numpy", not \'fortran\''):
        gg.compile(loops="fortran")(lambda x: x)
