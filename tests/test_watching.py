"""Watchers: what the tape is told of the calls inside their blocks."""

import contextvars
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from helpers import host

import gpugrad as gg
from gpugrad import rules, watching


def note_of(x):
    return x.node.note


def line():
    """The line of the caller."""
    return sys._getframe(1).f_lineno


def leaf(device, values=(1.0, 2.0)):
    return gg.asarray(list(values), device=device, requires_grad=True)


class Log(watching.Watcher):
    """Writes down what it sees."""

    def __init__(self):
        super().__init__()
        self.calls = []
        self.sweeps = []

    def __enter__(self):
        super().__enter__()
        return self

    def called(self, call, run):
        out = run()
        self.calls.append(call.name)
        return out

    def swept(self, kind, nodes, found):
        for node in nodes:
            yield node
            if node.op is not None:
                self.sweeps.append((kind, node.op.name))


def test_nothing_is_noted_where_nobody_watches(device):
    y = gg.exp(leaf(device))
    assert not hasattr(y.node, "note")
    assert rules.watch is None


def test_every_kind_of_call_is_seen(device):
    x = leaf(device)
    double = gg.custom_vjp(lambda a: 2 * a, lambda g, out, a: 2 * g)
    with Log() as log:
        gg.exp(x)
        x * 2.0
        gg.where(gg.asarray([True, False], device=device), x, x)
        gg.reshape(x, (2, 1))
        gg.matmul(x, x)
        gg.concat([x, x])
        double(x)
        gg.exp(x.data)  # of a raw array: not gpugrad's to see
    names = ["exp", "multiply", "where", "reshape", "matmul", "concat", "<lambda>"]
    assert log.calls == names


def test_sweeps_are_seen_in_their_order(device):
    x = leaf(device)
    with Log() as log:
        gg.sum(gg.exp(x)).backward()
        gg.jvp(lambda a: gg.sum(gg.sin(a)), (x.detach(),), (x.detach(),))
    assert log.sweeps == [("vjp", "sum"), ("vjp", "exp"), ("jvp", "sin"), ("jvp", "sum")]


def test_results_and_gradients_are_those_without(device):
    def gradients():
        x = leaf(device)
        loss = gg.sum(gg.checkpoint(gg.sin)(gg.stack([x, x * x]))) + gg.max(x)
        loss.backward()
        return host(loss.data), host(x.grad)

    plain = gradients()
    with Log(), gg.keep_values(), gg.name_scope("inside"):
        watched = gradients()
    for a, b in zip(plain, watched, strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_scope_is_noted_with_the_line(device):
    x = leaf(device)
    with gg.name_scope("outer"):
        y = gg.exp(x)
        with gg.name_scope("inner"):
            z, here = gg.sin(y), line()
        w = gg.cos(z)
    assert note_of(y).scope == note_of(w).scope == ("outer",)
    assert note_of(z).scope == ("outer", "inner")
    assert note_of(z).where == (__file__, here)
    assert note_of(z).out is None


def test_a_scope_decorates_a_function(device):
    @gg.name_scope("layer")
    def layer(x):
        return gg.exp(x)

    x = leaf(device)
    assert note_of(layer(layer(x))).scope == ("layer",)


def test_the_layers_of_a_network_are_scopes(device):
    net = gg.nn.Sequential(gg.nn.Linear(2, 3, device=device), gg.nn.Sigmoid())
    with gg.name_scope("net"):
        y = net(leaf(device))
    assert note_of(y).scope == ("net", "1 Sigmoid")
    assert y.node.edges[0][0].note.scope == ("net", "0 Linear")


def test_values_are_kept_with_the_operands(device):
    x = leaf(device)
    with gg.keep_values():
        y = x + 1.0
    note = note_of(y)
    assert note.operands[0] is x.data
    assert note.operands[1] == 1.0
    assert note.out is y.data


def test_a_custom_function_of_arrays_is_as_without():
    f = gg.custom_vjp(lambda x: x * 2.0, lambda g, out, x: g * 2.0)
    with gg.keep_values():
        assert type(f(np.ones(2))) is np.ndarray


def test_values_of_several_results_are_kept():
    with gg.keep_values():
        values, vectors = gg.linalg.eigh(gg.stack([leaf("cpu")] * 2))
    note = values.node.edges[0][0].note
    assert note.out[0] is values.data
    assert note.out[1] is vectors.data


def test_several_results_and_the_node_behind_them_are_noted():
    with gg.name_scope("here"):
        q, _ = gg.linalg.qr(gg.reshape(leaf("cpu", (1.0, 2.0, 3.0, 5.0)), (2, 2)))
    assert note_of(q).scope == q.node.edges[0][0].note.scope == ("here",)


def test_a_checkpoint_is_noted_as_one(device):
    with gg.name_scope("here"):
        y, here = gg.checkpoint(gg.exp)(leaf(device)), line()
    assert note_of(y).where == (__file__, here)
    assert y.node.edges[0][0].note.scope == ("here",)


def test_what_a_derivative_makes_has_the_line_of_the_forward_call(device):
    x = leaf(device)
    with gg.name_scope("forward"):
        y, here = gg.exp(x), line()
    with gg.name_scope("backward"):
        gg.sum(y).backward(create_graph=True)
    node = x.grad.node  # t * out, the rule of exp
    assert node.note == watching.Seen((__file__, here), ("forward",))


def test_a_repeated_checkpoint_is_watched_by_who_watches_now(device):
    x = leaf(device)
    with Log() as before:
        y = gg.sum(gg.checkpoint(gg.sin)(x))
    with Log() as after:
        y.backward()
    assert before.calls == ["sin", "sum"]
    assert after.calls == ["sin"]


def test_an_exception_ends_the_watch(device):
    x = leaf(device)
    with pytest.raises(ValueError, match="matmul"), Log():
        gg.matmul(x, gg.zeros((3, 3), device=device))
    assert rules.watch is None
    with Log() as log:
        with pytest.raises(ValueError, match="matmul"):
            gg.matmul(x, gg.zeros((3, 3), device=device))
        gg.exp(x)
    assert log.calls == ["exp"]


def test_blocks_of_generators_end_in_any_order(device):
    def steps(name):
        with gg.name_scope(name):
            yield
            yield gg.exp(leaf(device))

    a, b = steps("a"), steps("b")
    next(a), next(b)
    next(a)
    a.close()
    assert note_of(next(b)).scope == ("b",)
    b.close()
    assert not watching.active()
    assert rules.watch is None


def test_a_block_may_end_in_another_context():
    scope = gg.name_scope("a")
    contextvars.copy_context().run(scope.__enter__)
    scope.__exit__(None, None, None)  # as of an asynchronous generator that the loop closes
    assert rules.watch is None


def test_another_thread_is_not_watched(device):
    x = leaf(device)
    with Log() as log:
        thread = threading.Thread(target=lambda: gg.exp(x))
        thread.start()
        thread.join()
    assert log.calls == []


def test_a_compiled_function_is_one_call_unless_values_are_kept(device):
    @gg.compile
    def f(x):
        return gg.sum(gg.exp(x) * 2.0)

    x = gg.asarray([1.0, 2.0], device=device)
    f(x)
    with Log() as log:
        f(x)
    with Log() as each, gg.keep_values():
        f(x)
    assert log.calls == ["compiled f"]
    assert each.calls == ["exp", "multiply", "sum"]
    assert len(f.steps) == 1


def test_a_compiled_function_that_runs_as_written_returns_arrays():
    @gg.compile
    def f(x):
        return {"sum": gg.sum(x), "none": None}

    with gg.keep_values():
        out = f(np.asarray([1.0, 2.0]))
    assert type(out["sum"]) is np.ndarray
    assert out == {"sum": 3.0, "none": None}


def test_scopes_in_a_compiled_function_change_nothing():
    @gg.compile
    def f(x):
        with gg.name_scope("inside"):
            return gg.sum(gg.exp(x))

    x = gg.asarray([1.0, 2.0], device="cpu")
    for _ in range(2):
        np.testing.assert_allclose(float(f(x)), float(gg.sum(gg.exp(x))), rtol=1e-14)


@pytest.mark.parametrize(("name", "error"), [(1, TypeError), ("", ValueError)])
def test_a_scope_needs_a_name(name, error):
    with pytest.raises(error, match="name_scope"):
        gg.name_scope(name)


def test_a_generator_is_not_decorated():
    with pytest.raises(TypeError, match="keep_values"):

        @gg.keep_values()
        def numbers():
            yield 1


def test_the_users_line_is_told_from_those_of_a_package_on_an_odd_path(tmp_path):
    package = Path(gg.__file__).parents[1]
    script = tmp_path / "script.py"
    script.write_text(
        f"import sys; sys.path.insert(0, {str(tmp_path)!r} + '/..' * {len(tmp_path.parts) - 1}"
        f" + {str(package)!r})\n"
        "import gpugrad as gg\n"
        "assert '..' in gg.__file__, gg.__file__\n"
        "with gg.name_scope('here'):\n"
        "    y = gg.exp(gg.asarray(1.0, device='cpu', requires_grad=True))\n"
        "print(*y.node.note.where)\n"
    )
    done = subprocess.run(
        [sys.executable, str(script)], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == [str(script), "5"]
