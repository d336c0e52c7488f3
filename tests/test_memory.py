"""Memory: how much is in use, and what is left as it was when it runs out."""

import contextlib
import gc
import os
import subprocess
import sys
import weakref

import numpy as np
import pytest
from helpers import array, host, leaf

import gpugrad as gg
from gpugrad import backends
from gpugrad.backends import numpy as cpu
from gpugrad.tape import owner_of

HUGE = 1 << 50  # elements, more than any machine has


def runs_out(x):
    """A scalar of `x` whose derivative needs more memory than there is."""
    return gg.broadcast_to(x, (HUGE, *x.shape))[0].sum()


class Failing:
    """The identity, whose derivative runs out of memory as long as `.full`; arrays are watched."""

    def __init__(self):
        self.full = True
        self.seen = []
        self.call = gg.custom_vjp(lambda x: x.copy(), self.vjp)

    def vjp(self, g, out, x):
        self.seen.append(weakref.ref(g))
        if self.full:
            raise MemoryError("Unable to allocate 7 bytes")
        return g


# ---- what the message says


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: gg.exp(gg.broadcast_to(x, (HUGE,))), "exp: .*allocat"),
        (lambda x: gg.broadcast_to(x, (HUGE,)) * x, "multiply: .*allocat"),
        (lambda x: gg.where(gg.broadcast_to(x, (HUGE,)) > 0, x, 0.0), "greater: .*allocat"),
        (lambda x: gg.clip(gg.broadcast_to(x, (HUGE,)), 0.0, 1.0), "clip: .*allocat"),
        (lambda x: gg.reshape(gg.broadcast_to(x, (HUGE, 1)), (-1,), copy=True), "reshape: .*alloc"),
        (lambda x: gg.concat([gg.broadcast_to(x, (HUGE,))] * 2), "concat: .*allocat"),
    ],
    ids=["unary", "binary", "comparison", "n-ary", "general", "many"],
)
def test_an_operation_says_what_it_asked_for_and_where(call, message, device):
    x = leaf([1.0])
    with pytest.raises(gg.OutOfMemoryError, match=rf"{message}[^\n]*{HUGE}[^\n]* on {device}"):
        call(x)
    assert issubclass(gg.OutOfMemoryError, MemoryError)


def test_new_data_say_where_they_were_to_go(device):
    with pytest.raises(gg.OutOfMemoryError, match=rf"zeros: .*allocat.*\(on {device}\)"):
        gg.zeros(HUGE)
    with pytest.raises(gg.OutOfMemoryError, match=rf"like: .*allocat.* on {device}"):
        gg.zeros_like(gg.broadcast_to(leaf(0.0), (HUGE,)))
    with pytest.raises(gg.OutOfMemoryError, match=rf"random.normal: .*allocat.*\(on {device}\)"):
        gg.random.default_generator().normal(HUGE)
    with pytest.raises(gg.OutOfMemoryError, match=rf"asarray: .*float64 .* on {device}"):
        gg.asarray(gg.broadcast_to(gg.zeros(()), (HUGE,)).data, copy=True)


# ---- a sweep that fails


def test_a_failed_backward_has_changed_nothing(device):
    x, w = leaf([1.0, 2.0]), leaf([3.0, 4.0])
    (x * w).sum().backward()
    before, values = (x.grad, w.grad), (host(x.grad), host(w.grad))
    loss = runs_out(x) + (x * w * 2).sum()  # the older part of the tape fails, at the end
    for _ in range(2):  # and not "released" the second time
        message = rf"the derivative of getitem: .*allocat.*float64 \(2,\) on {device}"
        with pytest.raises(gg.OutOfMemoryError, match=message):
            loss.backward()
        assert (x.grad, w.grad) == before
        for g, value in zip(before, values):
            np.testing.assert_array_equal(host(g), value)
    assert gg.tape.recording()


@pytest.mark.parametrize("create_graph", [False, True])
def test_a_failed_backward_can_be_repeated(create_graph, device):
    failing = Failing()
    x, w = leaf([1.0, 2.0]), leaf([3.0, 4.0])
    (x * w).sum().backward()
    loss = (gg.exp(failing.call(x)) * w).sum()
    if not create_graph:
        with pytest.raises(gg.OutOfMemoryError, match="the derivative of <lambda>: .*7 bytes"):
            loss.backward()
        np.testing.assert_array_equal(host(x.grad), [3, 4])
    failing.full = False
    loss.backward(create_graph=create_graph)
    np.testing.assert_allclose(host(x.grad), [3, 4] + np.exp([1, 2]) * [3, 4])
    np.testing.assert_allclose(host(w.grad) - [1, 2], np.exp([1, 2]))


def test_a_sum_of_gradients_that_fails_has_changed_no_gradient(device, monkeypatch):
    x, w = leaf([1.0, 2.0]), leaf([3.0, 4.0])
    (x * w).sum().backward()
    before = (x.grad, w.grad)
    loss = (x * w).sum()
    calls = []

    def add(a, b):
        calls.append(a)
        if len(calls) == 2:
            raise gg.OutOfMemoryError("add: no memory")
        return a + b

    monkeypatch.setattr(gg.Tensor, "__add__", lambda a, b: Tensors.add(a, b))
    Tensors.add = add
    with pytest.raises(gg.OutOfMemoryError, match="add"):
        loss.backward()
    assert (x.grad, w.grad) == before
    monkeypatch.undo()
    loss.backward()
    np.testing.assert_array_equal(host(x.grad), [6, 8])
    np.testing.assert_array_equal(host(w.grad), [2, 4])


class Tensors:
    add = None


def test_a_failed_backward_lets_go_of_what_it_made_while_the_error_is_held(device):
    failing = Failing()
    x = leaf(np.arange(4.0))
    loss = (failing.call(x) ** 2).sum()
    with pytest.raises(gg.OutOfMemoryError) as held:
        loss.backward()
    (g,) = failing.seen
    assert g() is None
    assert held.value.__traceback__ is not None


@pytest.mark.parametrize(
    "derivative",
    [
        lambda f, x: gg.grad(f)(x),
        lambda f, x: gg.vjp(lambda x: gg.broadcast_to(f(x), (HUGE,)) + 1, x),
        lambda f, x: gg.jvp(lambda x: gg.broadcast_to(f(x), (HUGE,)) + 1, (x,), (x,)),
        lambda f, x: gg.hvp(f, (x,), (x,)),
        lambda f, x: gg.jacobian(f)(x),
        lambda f, x: gg.checkpoint(f)(gg.asarray(x, requires_grad=True)).backward(),
        lambda f, x: gg.vmap(gg.grad(f))(x[None]),
    ],
    ids=["grad", "vjp", "jvp", "hvp", "jacobian", "checkpoint", "vmap"],
)
def test_the_derivative_of_a_function_lets_go_of_its_tape(derivative, device):
    made = []

    def f(x):
        y = gg.exp(x)
        made.append(weakref.ref(owner_of(y.data) if hasattr(y.data, "base") else y.data))
        return runs_out(y)

    with pytest.raises(gg.OutOfMemoryError, match="allocat") as held:
        derivative(f, array(np.arange(3.0)))
    assert made
    assert all(y() is None for y in made)
    assert held.value.__traceback__ is not None


# ---- writes that fail


def test_a_write_that_fails_has_changed_neither_the_tensor_nor_its_views(device, monkeypatch):
    x = leaf([1.0, 2.0, 3.0]) * 1
    view = x[1:]
    tensors = (x, view, gg.flip(view))
    before = [(t.data, t.node) for t in tensors]
    follow = gg.views.follow
    calls = []

    def fails_the_second_time(*args):
        calls.append(args)
        if len(calls) == 2:
            raise gg.OutOfMemoryError("flip: no memory")
        return follow(*args)

    with monkeypatch.context() as patched:
        patched.setattr(gg.views, "follow", fails_the_second_time)
        with pytest.raises(gg.OutOfMemoryError):
            x *= 2.0
    for t, (data, node) in zip(tensors, before, strict=True):
        assert t.data is data
        assert t.node is node
    x *= 2.0
    np.testing.assert_array_equal(host(tensors[2]), [6, 4])


def test_a_write_off_the_tape_says_what_failed(device):
    x = gg.zeros((4,))
    with pytest.raises(gg.OutOfMemoryError, match="add: .*allocat"):
        x += gg.broadcast_to(gg.zeros(()), (HUGE, 4))
    np.testing.assert_array_equal(host(x), 0)


# ---- optimisers

OPTIMIZERS = {
    "SGD": lambda params: gg.optim.SGD(params, 0.1),
    "momentum": lambda params: gg.optim.SGD(params, 0.1, momentum=0.9),
    "Adam": gg.optim.Adam,
}
each_optimizer = pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)


def state_of(optimizer):
    state = getattr(optimizer, "_velocities", None) or getattr(optimizer, "_moments", [])
    arrays = [x for item in state for x in (item if isinstance(item, tuple) else (item,))]
    arrays += [p.data for p in optimizer.params]
    arrays += [powers for _, powers, _ in getattr(optimizer, "_tables", [])]
    return [None if x is None else host(x).tobytes() for x in arrays]


def stepped(make, *, dtype="float64"):
    params = [leaf([1.0, 2.0], dtype=dtype), leaf([[3.0]], dtype=dtype)]
    optimizer = make(params)
    for _ in range(2):
        for p in params:
            p.grad = gg.ones_like(p)
        optimizer.step()
    return params, optimizer


@each_optimizer
@pytest.mark.parametrize("dtype", ["float64", "float16"])
def test_a_step_that_finds_no_memory_has_changed_nothing(make, dtype, monkeypatch):
    with gg.device("cpu"):
        _, optimizer = stepped(make, dtype=dtype)
    before = state_of(optimizer)
    asked = []

    def empty(shape, dtype):
        asked.append(shape)
        raise MemoryError("Unable to allocate")

    with monkeypatch.context() as patched:
        patched.setattr(gg.optim.np, "empty", empty)
        with pytest.raises(gg.OutOfMemoryError, match=r"(SGD|Adam).step: Unable.*on cpu"):
            optimizer.step()
    assert asked == [2 * (8 if dtype == "float64" else 20)]
    assert state_of(optimizer) == before
    optimizer.step()
    assert state_of(optimizer) != before


@each_optimizer
def test_a_read_only_parameter_raises_before_anything_is_changed(make):
    with gg.device("cpu"):
        params, optimizer = stepped(make)
    before = state_of(optimizer)
    params[1].data.flags.writeable = False
    with pytest.raises(ValueError, match="parameter 1 is read-only"):
        optimizer.step()
    assert state_of(optimizer) == before
    params[1].data.flags.writeable = True
    optimizer.step()
    assert state_of(optimizer) != before


def test_a_read_only_parameter_is_not_loaded_into():
    model = gg.nn.Linear(2, 2, device="cpu")
    state = {name: value + 1 for name, value in model.state_dict().items()}
    before = model.state_dict()
    model.bias.data.flags.writeable = False
    with pytest.raises(ValueError, match="bias is read-only"):
        model.load_state_dict(state)
    np.testing.assert_array_equal(model.weight.get(), before["weight"])


# ---- a GPU that is full


@pytest.fixture
def pool(cuda):
    """CuPy's memory pool, whose limit is lifted at the end."""
    pool = backends.backend_of_kind("cuda")._cupy.get_default_memory_pool()
    gc.collect()  # what failed tests left
    with gg.device(cuda):
        yield pool
    pool.set_limit(size=0)


def filled(pool):
    """Arrays that take what the pool has, which gets no more; the smallest there are."""
    pool.free_all_blocks()
    pool.set_limit(size=pool.total_bytes() or 1)
    arrays = []
    with contextlib.suppress(gg.OutOfMemoryError):
        while True:
            arrays.append(gg.zeros(64))
    return arrays


@each_optimizer
def test_a_full_gpu_leaves_everything_as_it_was(make, pool):
    rng = np.random.default_rng(0)
    model = gg.nn.Sequential(gg.nn.Linear(64, 64), gg.nn.Sigmoid(), gg.nn.Linear(64, 64))
    params = model.parameters()
    optimizer = make(params)
    x, y = (array(rng.random((64, 64), dtype="f")) for _ in range(2))

    def loss():
        return gg.nn.mean_squared_error(model(x), y)

    loss().backward()
    optimizer.step()
    optimizer.zero_grad()
    loss().backward()
    expected = [2 * p.grad.get() for p in params]
    value = loss()
    state, grads = state_of(optimizer), [p.grad for p in params]
    ballast = [gg.zeros(64), gg.zeros(64), *filled(pool)]
    used = pool.used_bytes()
    message = r"backward: Out of memory allocating 512 bytes .* on cuda:0"
    with pytest.raises(gg.OutOfMemoryError, match=message) as held:
        value.backward()
    del ballast[:2]
    message = r"the derivative of mean_squared_error: Out of memory allocating 16,384 .* on cuda:0"
    with pytest.raises(gg.OutOfMemoryError, match=message) as held_too:
        value.backward()
    assert pool.used_bytes() == used - 1024
    assert state_of(optimizer) == state
    assert [p.grad for p in params] == grads
    with pytest.raises(gg.OutOfMemoryError, match="linear: Out of memory allocating 16,384"):
        loss()
    pool.set_limit(size=0)
    value.backward()
    for p, g in zip(params, expected):
        np.testing.assert_allclose(p.grad.get(), g, rtol=1e-6)
    del ballast, held, held_too
    ballast = [filled(pool)]
    optimizer.step()  # which needs no memory
    ballast.clear()


def test_a_derivative_that_fills_a_gpu_holds_nothing_afterwards(pool):
    x = array(np.ones(100_000))
    # what a first call makes for good
    gg.grad(lambda x: (gg.sin(x) * gg.cos(x) * gg.exp(x)).sum())(x)
    pool.free_all_blocks()
    used = pool.used_bytes()
    for step in range(1, 6):
        pool.set_limit(size=pool.total_bytes() + step * x.nbytes)
        with pytest.raises(gg.OutOfMemoryError, match="Out of memory allocating") as held:
            gg.grad(lambda x: (gg.sin(x) * gg.cos(x) * gg.exp(x)).sum())(x)
        assert pool.used_bytes() == used
        assert held.value.__traceback__ is not None
        pool.free_all_blocks()
    pool.set_limit(size=0)
    gg.grad(lambda x: (gg.sin(x) * gg.cos(x) * gg.exp(x)).sum())(x)


FULL_DEVICE = """
import conftest
import gpugrad as gg

x = gg.asarray(gg.ones(2_000_000), requires_grad=True)
loss = (gg.sin(x) * gg.cos(x)).sum()
try:
    loss.backward()
except gg.OutOfMemoryError as error:
    print("|".join([str(error), str(x.grad), str(loss.node.edges is not None)]))
else:
    print("there was memory")
"""


def test_a_device_without_a_limit_of_the_pool_that_is_full(emulated, cuda):
    settings = {"EMU_MEM": str(100 << 20), "RECORD_DIR": "", "GPUGRAD_DEVICE": "cuda"}
    run = subprocess.run(
        [sys.executable, "-c", FULL_DEVICE],
        env={**os.environ, **settings, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert run.returncode == 0, run.stderr
    message, grad, whole = run.stdout.strip().split("|")
    assert "the derivative of" in message
    assert "Out of memory allocating 16," in message
    assert (grad, whole) == ("None", "True")


# ---- how much is in use


def test_memory_of_the_process():
    start = gg.memory("cpu", reset_peak=True)
    assert 0 < start.used <= start.peak
    assert start.pool == start.used
    array = np.ones(1 << 23)
    block = array.nbytes * 0.9
    during = gg.memory("cpu")
    assert during.used >= start.used + block
    del array
    after = gg.memory("cpu", reset_peak=True)
    assert after.peak >= during.used * 0.99  # pages are counted in portions
    assert after.used < start.used + block
    assert gg.memory("cpu").peak < after.peak


def test_memory_where_the_system_tells_the_peak_alone(monkeypatch):
    def missing(self):
        raise FileNotFoundError

    monkeypatch.setattr(cpu.Path, "read_text", missing)
    used, peak, pool = gg.memory("cpu")
    assert used == peak == pool > 0


def test_memory_of_a_gpu(pool):
    pool.free_all_blocks()
    start = gg.memory(reset_peak=True)
    assert start.used == pool.used_bytes()
    assert start.pool == pool.total_bytes()
    x = gg.zeros(1 << 20)
    size = x.data.nbytes
    assert gg.memory() == (start.used + size, start.used + size, pool.total_bytes())
    y = x + 1
    del x, y
    assert gg.memory() == (start.used, start.used + 2 * size, pool.total_bytes())
    assert gg.memory(reset_peak=True).peak == start.used + 2 * size
    assert gg.memory().peak == start.used
    assert gg.memory("cuda:0") == gg.memory()


def test_memory_of_another_allocator(pool):
    cupy = backends.backend_of_kind("cuda")._cupy
    own = cupy.cuda.MemoryPool()
    with cupy.cuda.using_allocator(own.malloc):
        x = gg.zeros(1 << 10)
        assert gg.memory()[::2] == (own.used_bytes(), own.total_bytes())
        assert own.used_bytes() == x.data.nbytes
    with cupy.cuda.using_allocator(lambda size: cupy.cuda.memory.Memory(size) and own.malloc(size)):
        free, total = cupy.cuda.runtime.memGetInfo()
        assert gg.memory().used == total - free
