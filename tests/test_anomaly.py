"""The first bad number, named."""

import functools
import sys

import numpy as np
import pytest
from helpers import launched, launches, leaf

import gpugrad as gg
from gpugrad import anomaly, rules

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")


def line(offset=0):
    """The line of the caller, or one near by."""
    return f"{__file__}:{sys._getframe(1).f_lineno + offset}"


def message_of(f):
    with pytest.raises(gg.AnomalyError) as caught, gg.detect_anomaly():
        f()
    assert rules.watch is None
    return str(caught.value)


def test_a_forward_call_is_named_in_full(device):
    places = []

    def f():
        y = leaf([0.0, 1.0, 4.0]) * 1.0
        places.append(line(1))
        z = gg.log(y)
        gg.sum(gg.exp(z) * z)  # not the first

    message = message_of(f)
    assert message == (
        f"log, called at {places[0]}, made an infinity out of finite input\n"
        f"  argument 0: float64 (3,) on {device}: 0 to 4\n"
        f"  result: float64 (3,) on {device}: 0 to 1.38629, and infinities"
    )


def test_a_derivative_is_named_with_the_line_of_the_forward_call(device):
    places = []

    def f():
        x = leaf([0.0, 1.0, 4.0])
        with gg.name_scope("root"):
            places.append(line(1))
            y = gg.sqrt(x)
        gg.sum(y * 3.0).backward()

    message = message_of(f)
    assert message == (
        f"the derivative of sqrt, called at {places[0]} in root, made an infinity out of finite "
        "input\n"
        f"  cotangent of the result: float64 (3,) on {device}: 3\n"
        f"  kept out: float64 (3,) on {device}: 0 to 2\n"
        f"  cotangent of argument 0: float64 (3,) on {device}: 0.75 to 1.5, and infinities"
    )


def test_an_array_without_axes_is_told_as_one(device):
    x = leaf([0.0, 0.0])
    message = message_of(lambda: gg.sqrt(gg.sum(x * x)).backward())
    assert message.count(f": float64 () on {device}: ") == 3


def test_no_gradient_is_set_and_the_tape_is_whole(device):
    x, y = leaf([0.0, 1.0]), leaf([1.0, 2.0])
    with gg.detect_anomaly():
        loss = gg.sum(gg.sqrt(x) * y)
        with pytest.raises(gg.AnomalyError, match="derivative of sqrt"):
            loss.backward()
    assert x.grad is y.grad is None
    loss.backward()
    assert y.grad is not None


CALLS = {
    "unary": (lambda x: gg.exp(x * 1e6), "exp", "an infinity"),
    "binary": (lambda x: 1.0 / (x - x), "divide", "an infinity"),
    "nary": (lambda x: gg.where(x > 0, gg.inf * x, x), "multiply", None),
    "reduction": (lambda x: gg.prod(x * 1e200), "prod", "an infinity"),
    "product": (lambda x: gg.matmul(x * 1e200, x * 1e200), "matmul", "an infinity"),
    "custom": (
        gg.custom_vjp(lambda x: x / (x - x), lambda g, out, x: g),
        "<lambda>",
        "an infinity",
    ),
    "nan": (lambda x: gg.sqrt(-x), "sqrt", "a NaN"),
    "complex": (lambda x: 1j / (x - x), "divide", "a NaN"),
    "float32": (lambda x: gg.exp(gg.astype(x * 100.0, "float32")), "exp", "an infinity"),
    "float16": (lambda x: gg.astype(x * 1e6, "float16"), "astype", "an infinity"),
    "vmap": (gg.vmap(lambda x: gg.log(x - x)), "log", "an infinity"),
    "checkpoint": (gg.checkpoint(lambda x: gg.log(x - x)), "log", "an infinity"),
    "compiled": (gg.compile(lambda x: gg.log(x - x)), "log", "an infinity"),
    "no tape": (lambda x: gg.log((x - x).detach()), "log", "an infinity"),
}


@pytest.mark.parametrize("name", CALLS)
def test_every_kind_of_call(device, name):
    f, op, made = CALLS[name]
    x = leaf([2.0, 5.0])
    if made is None:  # of infinite input
        with gg.detect_anomaly():
            f(x)
    else:
        assert message_of(lambda: f(x)).startswith(f"{op}, called at {__file__}")
        assert f"made {made} out of" in message_of(lambda: f(x))


def test_a_nan_out_of_infinities_is_named(device):
    x = leaf([np.inf, 1.0])
    message = message_of(lambda: x - x)
    assert "subtract" in message
    assert "made a NaN out of input without one" in message
    assert "argument 1: float64 (2,) on" in message
    assert "1, and infinities" in message


SWEEPS = {
    "backward": lambda x: gg.sum(gg.sqrt(x)).backward(),
    "retained": lambda x: gg.sum(gg.sqrt(x)).backward(retain_graph=True),
    "create_graph": lambda x: gg.sum(gg.sqrt(x)).backward(create_graph=True),
    "grad": lambda x: gg.grad(lambda a: gg.sum(gg.sqrt(a)))(x),
    "jvp": lambda x: gg.jvp(gg.sqrt, (x,), (gg.ones_like(x),)),
    "jacobian": lambda x: gg.jacobian(gg.sqrt)(x),
    "second order": lambda x: gg.hessian(lambda a: gg.sum(a * a + gg.sqrt(a)))(x),
    "checkpoint": lambda x: gg.sum(gg.checkpoint(gg.sqrt)(x)).backward(),
    "vmap": lambda x: gg.vmap(gg.grad(gg.sqrt))(x),
}


@pytest.mark.parametrize("name", SWEEPS)
def test_every_kind_of_sweep(device, name):
    message = message_of(lambda: SWEEPS[name](leaf([0.0, 1.0])))
    assert message.startswith(f"the derivative of sqrt, called at {__file__}")
    assert ("made a NaN" if name == "jacobian" else "made an infinity") in message  # 0 / 0


def test_a_sum_of_cotangents_that_overflows_is_named(device):
    def f():
        x = leaf(1.0)
        (x * 1.0 + x * 1.0).backward(gg.asarray(1.2e308, dtype="float64", device=device))

    assert "sum so far" in message_of(f)


def test_what_two_edges_keep_is_told_once(device):
    message = message_of(lambda: gg.sum(gg.pow(leaf([0.0]), leaf([0.5]))).backward())
    assert "the derivative of pow" in message
    assert message.count("kept a") == message.count("kept b") == 1


def test_infinities_among_the_options_are_input(device):
    x = leaf([0.0, 1.0])
    with gg.detect_anomaly():
        gg.full_like(x, -np.inf)
        np.pad(x, 1, constant_values=np.inf)


def test_inside_of_a_compiled_function_it_is_refused(device):
    @gg.compile
    def f(x):
        with gg.detect_anomaly():
            return gg.log(x)

    x = gg.asarray([1.0], device=device)
    with pytest.raises(gg.CompileError, match="put the block around the call"):
        f(x)
    with gg.detect_anomaly():  # now it runs as it is written
        f(x)


def test_a_forward_call_outside_of_the_block_is_said_to_be(device):
    y = gg.sum(gg.sqrt(leaf([0.0])))
    assert "sqrt, called before detect_anomaly was on, made" in message_of(y.backward)


@pytest.mark.parametrize("optimizer", [gg.optim.SGD, gg.optim.Adam])
def test_an_update_is_named(device, optimizer):
    x = leaf([1e308, 1.0])
    x.grad = gg.asarray([-1e308, 1.0], dtype="float64", device=device)
    step = optimizer([x], lr=1e308).step
    message = message_of(step)
    assert message.startswith(f"{optimizer.__name__}.step, called at {__file__}")
    assert f"gradient: float64 (2,) on {device}: -1e+308 to 1\n" in message


def test_a_custom_derivative_is_named(device):
    f = gg.custom_vjp(lambda x: x * 1.0, lambda g, out, x: g / (x - x))
    message = message_of(lambda: gg.sum(f(leaf([1.0]))).backward())
    assert message.startswith(f"the derivative of <lambda>, called at {__file__}")


def test_a_number_beyond_all_integer_dtypes():
    """Which CuPy refuses."""
    x = leaf([1e300], device="cpu")
    message = message_of(lambda: x * 10**30)
    assert "argument 1: int: 1e+30\n" in message


@pytest.mark.parametrize("count", [2, 3, 4])
def test_a_sum_of_cotangents_is_named(device, count):
    """From the third on they are added in place."""
    x = leaf([1e-10])
    scale = 1.79e308 / (count - 0.5)

    def f():
        terms = [gg.sum(x * scale) for _ in range(count)]
        functools.reduce(gg.add, terms).backward()

    message = message_of(f)
    assert message.startswith("the derivative of multiply")
    assert f"sum so far: float64 (1,) on {device}: {(count - 1) * scale:.6g}\n" in message


def test_what_is_finite_is_as_without(device):
    def step():
        x, y = leaf([1.0, 2.0]), leaf([3.0, 4.0])
        z = gg.concat([gg.sin(x) * y, gg.stack([gg.sum(x), gg.max(y)])])
        gg.sum(z * z).backward()
        return [t.grad.get() for t in (x, y)]

    plain = step()
    with gg.detect_anomaly():
        watched = step()
    np.testing.assert_array_equal(watched, plain)


def test_numbers_that_were_bad_before_are_not_its_matter(device):
    x = leaf([1.0, np.nan, np.inf])
    with gg.detect_anomaly():
        gg.sum(gg.exp(x) * 2.0).backward()


def test_another_exception_passes(device):
    with pytest.raises(ZeroDivisionError), gg.detect_anomaly():
        gg.log(leaf([1.0])) / (1 // 0)


def test_an_array_that_is_written_is_looked_at_again(device):
    x = leaf([1.0])
    y = gg.asarray([0.0], device=device)
    with gg.detect_anomaly():
        x + y
        y[...] = np.inf
        x * y  # infinite, out of infinite input


# ---- on a device


def test_nothing_waits_before_the_sweep_ends(cuda, monkeypatch):
    reads = []
    read = anomaly.detect_anomaly._read

    def counted(self):
        reads.append(len(self._events))
        read(self)

    monkeypatch.setattr(anomaly.detect_anomaly, "_read", counted)
    with gg.device(cuda), gg.detect_anomaly(), gg.no_transfers():
        x = gg.ones((3,), dtype="float64")
        x.requires_grad = True
        y = gg.sum(gg.checkpoint(gg.sin)(gg.exp(x)) * x)
        assert reads == []
        y.backward()
        assert len(reads) == 1
    assert len(reads) == 2
    assert reads[1] == 0


def test_launches_are_one_more_per_array(cuda):
    x = leaf([1.0, 2.0], device=cuda)

    def step():
        gg.sum(gg.exp(x) * x).backward()
        x.grad = None

    def watched():
        with gg.detect_anomaly():
            step()

    plain = launched(step)
    # x; the results of exp, multiply and sum; of the sweep the seed, one cotangent of the product,
    # two of its arguments, and their sum
    if plain is not None:
        assert launched(watched) - plain == 9


def test_nothing_is_launched_outside(cuda):
    x = leaf([1.0, 2.0], device=cuda)
    with gg.detect_anomaly():
        gg.exp(x)
    before = launches()
    gg.exp(x)
    if before is not None:
        assert launches() - before == 1


def test_a_full_table_is_read(cuda, monkeypatch):
    monkeypatch.setattr(anomaly, "_ROWS", 5)

    def f():
        x = leaf([0.0, 1.0], device=cuda)
        gg.log(x)
        for _ in range(3):
            x = x * 2.0
        pytest.fail("the table has not been read")

    assert message_of(f).startswith("log")


def test_more_arrays_than_a_table_has_rows(cuda, monkeypatch):
    monkeypatch.setattr(anomaly, "_ROWS", 2)
    parts = [leaf([float(i)], device=cuda) for i in range(9)]
    with gg.detect_anomaly():
        y = gg.concat(parts)
    with pytest.raises(gg.AnomalyError, match="log"), gg.detect_anomaly():
        gg.log(gg.concat([*parts, y]))


@pytest.mark.devices
def test_two_devices():
    x = leaf([0.0, 1.0], device="cuda:0")
    message = message_of(lambda: gg.log(gg.exp(x).to("cuda:1") - 1.0))
    assert "result: float64 (2,) on cuda:1" in message


@pytest.mark.devices
def test_the_table_of_one_of_two_devices_is_full(monkeypatch):
    monkeypatch.setattr(anomaly, "_ROWS", 12)
    x = leaf([1.0, 2.0], device="cuda:1")
    for count in range(12):
        with gg.detect_anomaly():
            total = gg.sum(gg.sin(x).to("cuda:0"))
            for _ in range(count):
                gg.sin(x)
            total.backward()
