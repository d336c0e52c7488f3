"""draw: what stands in the picture, that it is right, and that the tape does not notice."""

import contextlib
import gc
import os
import re
import stat
import sys
import weakref
from html import unescape
from xml.etree import ElementTree

import numpy as np
import pytest
from helpers import host

import gpugrad as gg
from gpugrad.drawing import values
from gpugrad.drawing.drawing import Drawing
from gpugrad.drawing.units import Tape
from gpugrad.rules import Op
from gpugrad.tape import reach
from gpugrad.testing.table import ROWS
from gpugrad.trees import flatten


def boxes(drawing, kind=None):
    return [box for box in drawing.picture.boxes if kind in (None, box.kind)]


def box(drawing, title):
    (found,) = (b for b in boxes(drawing) if b.title == title)
    return found


def arrows(drawing):
    """(title of the source, of the target) -> (value, gradient), in order."""
    titles = [b.title for b in drawing.picture.boxes]
    return [
        (titles[a.source], titles[a.target], a.value, a.gradient) for a in drawing.picture.arrows
    ]


def leaf(value, dtype=None):
    return gg.asarray(value, dtype=dtype, requires_grad=True)


# ---- what is written


def test_a_chain_of_numbers(device):
    x = leaf(3.0)
    y = gg.square(gg.exp(x * 0.5))
    picture = gg.draw(y)
    assert [b.title for b in boxes(picture, "operation")] == ["×", "exp", "x²"]
    assert [b.title for b in boxes(picture, "parameter")] == ["x"]
    assert [b.title for b in boxes(picture, "input")] == ["0.5"]
    assert [b.title for b in boxes(picture, "result")] == ["y"]
    assert arrows(picture) == [
        ("x", "×", "3", "∇ 20.09"),
        ("0.5", "×", "", ""),
        ("×", "exp", "1.5", "∇ 40.17"),
        ("exp", "x²", "4.482", "∇ 8.963"),
        ("x²", "y", "20.09", "∇ 1"),
    ]
    assert [b.ports for b in boxes(picture, "operation")] == [["0.5", ""], ["4.482"], ["8.963"]]


def test_gradients_of_branches_add_up(device):
    x = leaf(3.0)
    y = x * x
    z = y + y
    picture = gg.draw(z)
    assert box(picture, "x").gradient == "∇ 12"
    assert box(picture, "×").gradient == "∇ 2"
    assert arrows(picture) == [
        ("x", "×", "3", "∇ 6"),
        ("x", "×", "3", "∇ 6"),
        ("×", "+", "y = 9", "∇ 1"),
        ("×", "+", "y = 9", "∇ 1"),
        ("+", "z", "18", "∇ 1"),
    ]
    assert [a.port for a in picture.picture.arrows] == [0, 1, 0, 1, 0]


def test_the_hinge_loss(device):
    w = leaf([0.5, -1.0])
    phi, y = gg.asarray([2.0, 1.0]), gg.asarray(1.0)
    with gg.keep_values():
        margin = (w @ phi) * y
        loss = gg.maximum(0.0, 1 - margin)
    assert arrows(gg.draw(loss)) == [
        ("w", "@", "[0.5, −1]", "∇ [−2, −1]"),
        ("phi", "@", "[2, 1]", ""),
        ("@", "×", "0", "∇ −1"),
        ("y", "×", "1", ""),
        ("1", "−", "", ""),
        ("×", "−", "margin = 0", "∇ −1"),
        ("0", "max", "", ""),
        ("−", "max", "1", "∇ 1"),
        ("max", "loss", "1", "∇ 1"),
    ]


def mnist():
    gg.random.seed(0)
    sigmoid = gg.nn.Sigmoid()
    net = gg.nn.Sequential(gg.nn.Linear(784, 100), sigmoid, gg.nn.Linear(100, 10), sigmoid)
    images, targets = gg.ones((32, 784), dtype="float32"), gg.zeros((32, 10), dtype="float32")
    loss = gg.nn.mean_squared_error(net(images), targets)
    return loss, net, gg.draw(loss)


def test_arrays_by_shape_and_memory(device):
    loss, net, picture = mnist()
    assert boxes(picture, "parameter") == [
        box(picture, f"layers.{i}.{name}") for i in (0, 2) for name in ("weight", "bias")
    ]
    assert box(picture, "layers.0.weight").lines == ["(784, 100) 306 KiB"]
    assert box(picture, "images").lines == ["(32, 784) 98 KiB"]
    loss.backward()
    norms = {
        f"layers.{i}.{name}": np.linalg.norm(host(getattr(net.layers[i], name).grad))
        for i in (0, 2)
        for name in ("weight", "bias")
    }
    found = {source: gradient for source, _, _, gradient in arrows(picture)}
    for name, norm in norms.items():
        assert float(found[name].removeprefix("‖∇‖ ")) == pytest.approx(norm, rel=1e-3)
    assert ("linear", "sigmoid", "(32, 100) 12.5 KiB") in [a[:3] for a in arrows(picture)]
    assert picture.picture.caption == (
        f"float32 on {device} · 5 operations · 79,510 parameters, 311 KiB"
    )


def test_gradients_are_those_of_backward(device):
    rng = np.random.default_rng(0)
    a, b, c = (leaf(rng.standard_normal(n)) for n in ((2, 2), (2,), (3, 1)))
    out = gg.sum(gg.tanh(a @ b) * c) + gg.sum(gg.exp(gg.stack([b, b * b])) / 3)
    picture = gg.draw(out)
    out.backward()
    for name, tensor in zip("abc", (a, b, c), strict=True):
        drawn = box(picture, name).gradient
        if not drawn:
            (drawn,) = (arrow[3] for arrow in arrows(picture) if arrow[0] == name)
        assert drawn == f"∇ {values.numbers(tensor.grad.data)}"


def test_complex_gradients_are_the_public_ones(device):
    z = leaf(1.0 + 2.0j)
    out = gg.real(z * z)
    picture = gg.draw(out)
    assert box(picture, "z").gradient == "∇ 2 − 4i"
    assert box(picture, "×").ports == ["", ""]
    assert picture.picture.caption.startswith("complex128")
    out.backward()
    assert z.grad.item() == 2 - 4j


def test_other_dtypes_are_named(device):
    x = leaf(2.0, "float32")
    picture = gg.draw(gg.astype(x * x, gg.float64) + 1.0, names={"x": x})
    assert picture.picture.caption.startswith(f"float32 on {device}, unless another is named")
    assert ("astype", "+", "4 float64", "∇ 1") in arrows(picture)


@pytest.mark.devices
def test_other_devices_are_named():
    x = gg.asarray(2.0, device="cuda:0", requires_grad=True)
    v = gg.ones(9, device="cuda:0")
    with gg.keep_values():
        y = (x * x * v).to("cuda:1")
        z = gg.sum(y) * 3.0
    picture = gg.draw(z)
    assert picture.picture.caption.startswith("float64 on cuda:0, unless another is named")
    assert arrows(picture)[-5:] == [
        ("×", "to_device", "(9,) 72 bytes", "‖∇‖ 9"),
        ("to_device", "sum", "y: (9,) 72 bytes on cuda:1", "‖∇‖ 9"),
        ("sum", "×", "36 on cuda:1", "∇ 3"),
        ("3", "×", "", ""),
        ("×", "z", "108 on cuda:1", "∇ 1"),
    ]


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0.0, "0"),
        (-0.25, "−0.25"),
        (1 / 3, "0.3333"),
        (123456.0, "1.235e5"),
        (1.5e-7, "1.5e−7"),
        (2e-12, "2e−12"),
        (float("nan"), "nan"),
        (float("-inf"), "−inf"),
        (1234567, "1,234,567"),
        (-3, "−3"),
        (True, "True"),
        (1 - 2j, "1 − 2i"),
        ([[1.0, 2.0], [3.0, -4.0]], "[[1, 2], [3, −4]]"),
    ],
)
def test_numbers(number, text):
    assert values.numbers(np.asarray(number)) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (8, "8 bytes"),
        (2048, "2 KiB"),
        (313600, "306 KiB"),
        (1_024_000, "1000 KiB"),
        (3 << 20, "3 MiB"),
        (5 << 30, "5 GiB"),
    ],
)
def test_memory(count, text):
    assert values.memory(count) == text


# ---- values that are known, and those that are not


def test_what_is_not_known_is_not_shown(device):
    x = leaf(2.0)
    y = gg.exp((x + 1.0) - 3.0)  # neither the sums nor their constants are kept
    picture = gg.draw(y)
    assert arrows(picture) == [
        ("x", "+", "2", "∇ 1"),
        ("+", "−", "scalar", "∇ 1"),
        ("−", "exp", "scalar", "∇ 1"),
        ("exp", "y", "1", "∇ 1"),
    ]
    with gg.keep_values():
        y = gg.exp((x + 1.0) - 3.0)
    assert arrows(gg.draw(y)) == [
        ("x", "+", "2", "∇ 1"),
        ("1", "+", "", ""),
        ("+", "−", "3", "∇ 1"),
        ("3", "−", "", ""),
        ("−", "exp", "0", "∇ 1"),
        ("exp", "y", "1", "∇ 1"),
    ]


@pytest.mark.parametrize("keep", [contextlib.nullcontext, gg.keep_values])
@pytest.mark.parametrize("shape", [(1,), (3,), (1, 1), (5, 7)])
def test_values_per_example_are_not_shown(device, keep, shape):
    c = gg.asarray(2.0)
    x = leaf(np.ones(shape).tolist())
    with keep():
        y = gg.sum(gg.vmap(lambda t: gg.sin(t) * c * gg.exp(t.detach()))(x))
    picture = gg.draw(y)
    (found,) = (a for a in arrows(picture) if a[:2] == ("sin", "×"))
    words = "scalar" if len(shape) == 1 else str(shape[1:])
    assert found[2:] == (words if shape != (5, 7) else f"{words} 56 bytes", "")
    assert box(picture, "sin").ports == [""]


def test_values_are_computed_again_from_what_is_known(device):
    a, b = leaf(2.0), leaf(5.0)
    x = leaf([1.0, 2.0, 3.0, 4.0, 5.0])
    out = -(a + b) + gg.sum(gg.exp(x))
    found = {(source, target): value for source, target, value, _ in arrows(gg.draw(out))}
    assert found["+", "−x"] == "7"
    assert found["−x", "+"] == "−7"
    assert found["sum", "+"] == values.number(float(np.exp(np.arange(1, 6)).sum()))
    assert found["exp", "sum"] == "(5,) 40 bytes"


def test_values_that_changed_are_not_shown(device):
    x = leaf(2.0)
    y = x + 1.0
    z = y * 3.0
    assert ("x", "+", "2", "∇ 3") in arrows(gg.draw(z))
    with gg.no_grad():
        x += 10.0
    assert ("x", "+", "scalar", "∇ 3") in arrows(gg.draw(z))
    x = leaf(2.0)
    y = x + 1.0
    with gg.no_grad():
        x += 10.0
    z = y + x * x  # keeps what x is now
    assert ("x", "+", "scalar", "∇ 1") in arrows(gg.draw(z))
    shift, x = gg.asarray(2.0), leaf(12.0)
    with gg.keep_values():
        z = x + shift
    assert ("shift", "+", "2", "") in arrows(gg.draw(z))
    shift += 10.0
    x.detach()[...] = 10.0
    assert [a[:3] for a in arrows(gg.draw(z))] == [("x", "+", "scalar"), ("+", "z", "14")]


def test_tensors_that_are_alive_are_known(device):
    x = leaf(2.0)
    y = x + 1.0
    z = (y - 1.0) - 1.0
    assert ("+", "−", "y = 3", "∇ 1") in arrows(gg.draw(z))
    del y
    assert ("+", "−", "scalar", "∇ 1") in arrows(gg.draw(z))


def equal(a, b):
    return np.array_equal(host(gg.asarray(a)), host(gg.asarray(b)), equal_nan=True)


@pytest.mark.parametrize("row", [row for row in ROWS if row.order], ids=str)
def test_every_operation_is_drawn(row, device):
    """What is found or computed again is what was computed, bit by bit."""
    arrays = row.draw(next(c for c in "dDfF" if c in row.dtypes))
    tensors = [gg.asarray(x) if isinstance(x, np.ndarray) else x for x in arrays]
    f, drawn = row.of_differentiable(tensors)
    leaves = [gg.asarray(x, requires_grad=True) for x in drawn]
    with gg.keep_values():
        results = [x for x in flatten(f(*leaves))[0] if x.requires_grad]
    picture = gg.draw(results)
    assert len(boxes(picture, "result")) == len(results)
    assert picture.mermaid
    assert picture.dot
    order, _ = reach([x.node for x in results])
    kept = {}
    for node in order:
        if getattr(node, "note", None) is not None:
            if node.dtype is not None:
                several = isinstance(node.note.out, tuple)
                kept[node] = node.note.out[node.op.index] if several else node.note.out
            del node.note
    assert kept or row.name == "conj"
    tape = Tape(order)
    values.add_alive(tape, order, leaves)
    values.compute_again(tape, order, kept)
    for node in kept.keys() & tape.values.keys():
        assert equal(tape.values[node], kept[node])
    seeds = {x.node: gg.ones_like(x).data for x in results}
    gradients = values.Gradients(order, seeds, set(), {x.node for x in leaves})
    for x in results:
        x.backward(gg.ones_like(x), retain_graph=True)
    for x in leaves:
        if x.node in gradients.of_node:
            assert gradients.of_node[x.node] == values.gradient_text(x.grad.data)
        else:
            assert x.grad is None


def test_most_operations_can_be_computed_again():
    known = [op for op in map(op_of, dir(gg)) if op is not None and op.call is not None]
    assert len(known) > 60


def op_of(name):
    op = getattr(getattr(gg, name), "op", None)
    return op if isinstance(op, Op) else None


# ---- operations of several nodes


def test_operations_of_several_nodes_are_one_box(device):
    x = leaf([1.0, 2.0])
    double = gg.custom_vjp(lambda x: x * 2, lambda g, out, x: g * 2)
    halves = gg.custom_vjp(lambda x, k: (x / k, x), lambda g, out, x, k: g[0] / k + g[1])
    both = gg.checkpoint(lambda x: gg.sum(gg.exp(x)))
    p, q = halves(double(x), 2.0)
    r = both(p * q)
    picture = gg.draw(r)
    assert [b.title for b in boxes(picture, "operation")] == [
        "<lambda>",
        "<lambda>",
        "×",
        "checkpoint(<lambda>)",
    ]
    assert arrows(picture)[:2] == [
        ("x", "<lambda>", "[1, 2]", f"∇ {values.numbers(np.array([4, 8]) * np.exp([2, 8]))}"),
        (
            "<lambda>",
            "<lambda>",
            "[2, 4]",
            f"∇ {values.numbers(np.array([2, 4]) * np.exp([2, 8]))}",
        ),
    ]
    assert ("<lambda>", "×", "p = [1, 2]") in [a[:3] for a in arrows(picture)]
    assert ("<lambda>", "×", "q = [2, 4]") in [a[:3] for a in arrows(picture)]


def test_several_results_of_an_operation():
    x = gg.asarray([[2.0, 1.0], [1.0, 3.0]], device="cpu", requires_grad=True)
    w, v = gg.linalg.eigh(x)
    for keep in (False, True):
        if keep:
            with gg.keep_values():
                w, v = gg.linalg.eigh(x)
        picture = gg.draw({"trace": gg.sum(w), "first": v[0, 0]})
        assert [b.title for b in boxes(picture, "operation")] == ["eigh", "sum", "getitem"]
        assert [b.title for b in boxes(picture, "result")] == ["trace", "first"]
        assert ("eigh", "sum", "w = [1.382, 3.618]", "∇ [1, 1]") in arrows(picture)


def test_lists_of_arrays(device):
    x, y = leaf([1.0]), leaf([2.0])
    picture = gg.draw(gg.sum(gg.concat([x, y, x])))
    assert [a[:2] for a in arrows(picture)[:3]] == [
        ("x", "concat"),
        ("y", "concat"),
        ("x", "concat"),
    ]
    assert [a.port for a in picture.picture.arrows[:3]] == [0, 1, 2]


# ---- the tape does not notice


def test_the_tape_is_as_it_was(device):
    x = leaf([1.0, 2.0, 3.0])
    calls = []
    y = gg.exp(x)
    y.register_hook(calls.append)
    z = gg.sum(y * y)
    first = gg.draw(z)
    assert calls == []
    assert box(first, "exp").lines == ["hook, not run"]
    assert x.grad is None
    assert gg.draw(z).dot == first.dot
    z.backward(retain_graph=True)
    np.testing.assert_allclose(host(x.grad), 2 * np.exp(2 * host(x)))
    assert len(calls) == 1
    before = x.grad
    assert gg.draw(z).mermaid == first.mermaid
    assert x.grad is before
    z.backward()


def test_nothing_keeps_the_tape_alive(device):
    x = leaf([1.0, 2.0])
    gc.collect()
    gc.disable()
    try:
        y = gg.exp(x)
        z = gg.sum(y * 2.0)
        reference = weakref.ref(y)
        picture = gg.draw(z)
        del y, z
        assert reference() is None
        assert gc.collect() == 0
    finally:
        gc.enable()
    assert isinstance(picture, Drawing)


def test_a_gradient_to_start_from(device):
    x = leaf([1.0, 2.0])
    y = x * 3.0
    assert ("x", "×", "[1, 2]", "∇ [3, −3]") in arrows(gg.draw(y, gradient=[1.0, -1.0]))
    assert ("x", "×", "[1, 2]", "") in arrows(gg.draw(y))  # nothing is implied
    z = gg.sum(x)
    both = gg.draw([y, z], gradient=[gg.ones(2), 2.0])
    found = arrows(both)
    assert ("×", "y", "[3, 6]", "∇ [1, 1]") in found
    assert ("sum", "z", "3", "∇ 2") in found
    assert box(both, "x").gradient == "∇ [5, 5]"
    with pytest.raises(ValueError, match="shape"):
        gg.draw(y, gradient=[1.0, 2.0, 3.0])


def test_a_result_that_is_used_again(device):
    x = leaf(2.0)
    y = x * x
    z = y * 3.0
    assert ("×", "y", "4", "∇ 1") in arrows(gg.draw([y, z]))
    assert boxes(gg.draw([y, z]), "operation")[0].gradient == "∇ 4"
    assert arrows(gg.draw(x)) == [("x", "x", "2", "∇ 1")]


# ---- names


def test_names(device):
    weight, net = leaf(1.0), gg.nn.Linear(1, 1, dtype="float64")
    layers = [leaf(2.0), leaf(3.0)]
    table = {"scale": leaf(4.0)}
    hidden = leaf(5.0)
    out = weight * layers[1] * table["scale"] * gg.sum(net(gg.ones((1, 1)))) * hidden
    titles = {b.title for b in boxes(gg.draw(out, names={"given": weight}), "parameter")}
    assert titles == {"given", "layers[1]", "table['scale']", "weight", "bias", "hidden"}
    del hidden
    assert "parameter" in {b.title for b in boxes(gg.draw(out), "parameter")}


def test_parameters_of_several_modules(device):
    encoder, heads = gg.nn.Linear(2, 2), [gg.nn.Linear(2, 1), gg.nn.Linear(2, 1)]
    x = gg.ones((1, 2), dtype="float32")
    h = encoder(x)
    out = gg.sum(heads[0](h) * heads[1](h))
    titles = [b.title for b in boxes(gg.draw(out), "parameter")]
    assert titles[:2] == ["encoder.weight", "encoder.bias"]
    assert set(titles[2:]) == {f"heads[{i}].{name}" for i in (0, 1) for name in ("weight", "bias")}


# ---- large graphs


def test_the_rest_is_one_box(device):
    x = leaf(0.5)
    y = x
    for i in range(2500):
        y = gg.sin(y) * x if i % 2 else y + gg.cos(x)
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(200)
    try:
        picture = gg.draw(y)
    finally:
        sys.setrecursionlimit(limit)
    assert len(boxes(picture, "operation")) == 60
    (rest,) = boxes(picture, "more")
    assert rest.title == "4,940 more operations"
    assert rest.lines == ["1,235 cos, 1,235 add, 1,235 sin, 1,235 multiply"]
    assert boxes(picture, "operation")[-1].title == "×"  # the last one is there
    titles = [b.kind for b in picture.picture.boxes]
    assert not any(
        titles[a.target] == "more" and titles[a.source] == "operation"
        for a in picture.picture.arrows
    )
    assert ("4,940 more operations", "+") in [a[:2] for a in arrows(picture)]
    assert len(picture.mermaid.splitlines()) < 300
    assert len(boxes(gg.draw(y, limit=3), "operation")) == 3


def test_what_only_the_rest_uses_is_in_it(device):
    leaves = [leaf(float(i)) for i in range(6)]
    y = leaves[0]
    for x in leaves[1:]:
        y = y * x
    picture = gg.draw(y, limit=2, names={f"x{i}": x for i, x in enumerate(leaves)})
    assert [b.title for b in boxes(picture, "parameter")] == ["x4", "x5"]
    (rest,) = boxes(picture, "more")
    assert rest.title == "3 more operations"
    assert rest.lines == ["3 multiply", "4 parameters, 32 bytes"]


def test_many_arguments(device):
    leaves = [leaf(float(i)) for i in range(50)]
    picture = gg.draw(gg.sum(gg.stack(leaves)), limit=20)
    (rest,) = boxes(picture, "more")
    assert rest.title == "32 more operations"  # each is given an axis before
    assert rest.lines[-1] == "32 parameters, 256 bytes"
    assert len(boxes(picture, "parameter")) == 18
    x = leaf([2.0])
    assert arrows(gg.draw(gg.concat([x] * 5000)))[0] == ("x", "concat", "2", "")
    assert arrows(gg.draw(gg.sum(gg.concat([x] * 5000))))[0] == ("x", "concat", "2", "∇ 5000")
    arrays = [leaf([float(i)]) for i in range(50)]
    picture = gg.draw(gg.concat(arrays), limit=20)
    assert len(boxes(picture, "parameter")) == 40
    (rest,) = boxes(picture, "more")
    assert rest.title == "10 more"
    assert rest.lines == ["10 parameters, 80 bytes"]


def test_what_is_used_everywhere_is_drawn_everywhere(device):
    x = leaf(2.0)
    y = x * 1.0 + x * 2.0 + x * 3.0
    assert len(boxes(gg.draw(y), "parameter")) == 1
    y = y + x * 4.0 + x * 5.0
    copies = boxes(gg.draw(y), "parameter")
    assert len(copies) == 5
    assert {(b.title, b.gradient) for b in copies} == {("x", "∇ 15")}


# ---- scopes


def network(n=4):
    """A chain of layers in scopes, and its loss."""
    gg.random.seed(0)
    layers = [gg.nn.Linear(3, 3) for _ in range(n)]
    x = h = gg.ones((2, 3), dtype="float32")
    for i, layer in enumerate(layers):
        with gg.name_scope(f"layer {i + 1}"):
            with gg.name_scope("linear"):
                h = layer(h)
            h = gg.tanh(h)
    return gg.draw, gg.sum(h), x


def test_scopes_frame_what_they_made(device):
    draw, loss, _ = network(2)
    picture = draw(loss)
    names = [tuple(name for name, _ in b.scope) for b in boxes(picture, "operation")]
    assert names == [
        ("layer 1", "linear"),
        ("layer 1",),
        ("layer 2", "linear"),
        ("layer 2",),
        (),
    ]
    for b in boxes(picture, "parameter"):
        assert [name for name, _ in b.scope][1:] == ["linear"]
    assert picture.dot.count("subgraph cluster_") == 4
    assert picture.mermaid.count("subgraph scope_") == 4
    assert picture.dot.count("{") == picture.dot.count("}")
    assert boxes(picture, "operation")[0].where[0] == __file__
    assert 'tooltip="test_drawing.py:' in picture.dot


def test_scopes_fold(device):
    draw, loss, _ = network()
    picture = draw(loss, depth=1)
    assert [b.title for b in boxes(picture, "scope")] == ["linear"] * 4
    assert boxes(picture, "scope")[0].lines == ["linear", "12 parameters, 48 bytes"]
    assert [b.title for b in boxes(picture, "operation")] == ["tanh"] * 4 + ["sum"]
    assert boxes(picture, "parameter") == []
    flat = draw(loss)
    gradients = {a[3] for a in arrows(flat) if a[:2] == ("linear", "tanh")}
    assert {a[3] for a in arrows(picture) if a[:2] == ("linear", "tanh")} == gradients


def test_equal_scopes_in_a_chain_are_one_box(device):
    draw, loss, x = network()
    picture = draw(loss, depth=0, names={"x": x})
    (folded,) = boxes(picture, "scope")
    assert folded.title == "layer 1 … layer 4"
    assert folded.lines == ["4 × (linear, tanh)", "48 parameters, 192 bytes"]
    assert [a[:2] for a in arrows(picture)] == [
        ("x", "layer 1 … layer 4"),
        ("layer 1 … layer 4", "sum"),
        ("sum", "loss"),
    ]


def test_layers_in_turn_are_one_box(device):
    modules = [m for _ in range(12) for m in (gg.nn.Linear(3, 3), gg.nn.Tanh())]
    net = gg.nn.Sequential(gg.nn.Linear(5, 3), *modules, gg.nn.Linear(3, 1))
    x = gg.ones((2, 5), dtype="float32")
    with gg.name_scope("net"):
        out = net(x)
    picture = gg.draw(gg.sum(out), depth=1)
    assert {(b.title, b.lines[0]) for b in boxes(picture, "scope")} == {
        ("0 Linear", "linear"),
        ("1 Linear … 24 Tanh", "12 × (linear, tanh)"),
        ("25 Linear", "linear"),
    }
    assert all([name for name, _ in b.scope] == ["net"] for b in boxes(picture, "scope"))


def test_two_calls_of_a_scope_are_two_boxes(device):
    x = leaf(2.0)
    for _ in range(2):
        with gg.name_scope("twice"):
            y = gg.exp(x)
        x = y + x
    picture = gg.draw(x, depth=0)
    assert [b.title for b in boxes(picture, "scope")] == ["twice", "twice"]


def test_shared_parameters_of_folded_scopes_are_counted(device):
    net = gg.nn.Sequential(*(gg.nn.Linear(3, 3) for _ in range(3)))
    few = gg.asarray(0.5, dtype="float32", requires_grad=True)
    z = gg.ones((2, 3), dtype="float32")
    for k in range(12):
        with gg.name_scope(f"round {k}"):
            z = gg.tanh(net(z)) * few
    loss = gg.sum(z)
    picture = gg.draw(loss, depth=1)
    layers = boxes(picture, "scope")
    assert len(layers) == 12
    assert {tuple(b.lines) for b in layers} == {
        ("3 × (linear)", "shared: 36 parameters, 144 bytes")
    }
    assert [b.title for b in boxes(picture, "parameter")] == ["few"] * 12
    picture = gg.draw(loss, depth=0)
    (folded,) = boxes(picture, "scope")
    assert folded.lines == ["12 × (5 operations)", "shared: 37 parameters, 148 bytes"]
    assert boxes(picture, "parameter") == []


# ---- texts


HARD = 'a "b" <i>c</i> & |{x}| `y` #1; \\ %% ;\nend'


def hard():
    x = leaf(2.0)
    with gg.name_scope(HARD):
        y = x * x
    return gg.draw({HARD: y}, names={HARD: x})


def test_dot_escapes(device):
    text = hard().dot
    labels = re.findall(r"label=<(.*?)>[;\],]", text)
    for label in labels:
        ElementTree.fromstring(f"<x>{label}</x>")
    shown = HARD.replace("\n", " ")
    assert sum(shown in unescape(re.sub("<[^>]*>", "", label)) for label in labels) == 3


def test_mermaid_escapes(device):
    lines = hard().mermaid.splitlines()
    quoted = [re.findall(r'"([^"]*)"', line) for line in lines if '"' in line]
    assert all(line.count('"') % 2 == 0 for line in lines)
    texts = [text for line in quoted for text in line]
    entities = {"#quot;": '"', "#lt;": "<", "#gt;": ">", "#amp;": "&", "#96;": "`", "#35;": "#"}
    plain = [re.sub("#[a-z0-9]+;", lambda m: entities[m[0]], text) for text in texts]
    assert sum(HARD.replace("\n", " ") in text for text in plain) == 3


def test_texts_name_every_box_once(device):
    _, _, picture = mnist()
    count = len(picture.picture.boxes)
    for text, pattern in ((picture.dot, r"^\s*n(\d+) \["), (picture.mermaid, r"^\s*n(\d+)[\[(]")):
        found = [int(i) for i in re.findall(pattern, text, re.MULTILINE)]
        assert sorted(found) == list(range(count))
    assert len(re.findall(r" -->", picture.mermaid)) == len(picture.picture.arrows)
    assert re.match(r"---\ntitle: .*\n---\nflowchart LR\n", picture.mermaid)
    for kind in ("parameter", "input", "operation", "result"):
        assert f"classDef {kind} fill:#" in picture.mermaid


@pytest.mark.parametrize(
    ("direction", "dot", "mermaid"),
    [("right", "LR", "LR"), ("down", "TB", "TB"), ("up", "BT", "BT")],
)
def test_directions(direction, dot, mermaid):
    x = leaf(2.0)
    picture = gg.draw(x * 2.0, direction=direction)
    assert f"rankdir={dot}" in picture.dot
    assert f"flowchart {mermaid}" in picture.mermaid


def test_the_kinds_have_their_colours_and_shapes():
    x = leaf(2.0)
    text = gg.draw(x * gg.asarray(3.0)).dot
    assert 'style="rounded,filled"' in text
    assert "peripheries=2" in text
    assert len(set(re.findall(r'fillcolor="(#\w+)"', text))) == 3


# ---- Graphviz, files, notebooks


@pytest.fixture
def graphviz(tmp_path, monkeypatch):
    """A stand-in for the program: writes down how it was called."""
    folder = tmp_path / "bin"
    folder.mkdir()
    program = folder / "dot"
    program.write_text(f"#!{sys.executable}\nimport sys\nprint(sys.argv[1:], sys.stdin.read())\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")


def test_svg_is_what_graphviz_draws(graphviz, tmp_path):
    x = leaf(2.0)
    picture = gg.draw(x * x)
    assert picture.svg.startswith("['-Kdot', '-Tsvg'] digraph {")
    assert picture.dot.strip() in picture.svg
    for suffix in ("svg", "png", "PDF"):
        path = tmp_path / f"x.{suffix}"
        picture.save(path)
        assert f"-T{suffix.lower()}" in path.read_text()
    bundle = picture._repr_mimebundle_()
    assert bundle == {"image/svg+xml": picture.svg, "text/plain": repr(picture)}


def test_without_graphviz(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    x = leaf(2.0)
    picture = gg.draw(x * x)
    with pytest.raises(RuntimeError, match="apt install graphviz"):
        picture.save(tmp_path / "x.svg")
    monkeypatch.setitem(sys.modules, "graphviz", None)
    with pytest.raises(ImportError, match=r"gpugrad\[viz\]"):
        _ = picture.svg
    picture.save(tmp_path / "x.mmd")
    picture.save(str(tmp_path / "x.dot"))
    assert (tmp_path / "x.mmd").read_text() == picture.mermaid
    assert (tmp_path / "x.dot").read_text() == picture.dot
    assert not (tmp_path / "x.svg").exists()
    assert picture._repr_mimebundle_() == {
        "text/vnd.mermaid": picture.mermaid,
        "text/markdown": f"```mermaid\n{picture.mermaid}```\n",
        "text/plain": repr(picture),
    }
    with pytest.raises(ValueError, match="ends in"):
        picture.save(tmp_path / "x.gif")


def test_repr():
    x = leaf(2.0)
    y = x * 3.0
    assert repr(gg.draw(y)) == (
        "<Drawing of 1 parameter, 1 input, 1 operation, 1 result: "
        ".svg, .mermaid, .dot, .save(path)>"
    )


# ---- what is refused


def test_refusals(device):
    x = leaf(2.0)
    y = x * x
    with pytest.raises(TypeError, match="expected a Tensor, got float"):
        gg.draw(2.0)
    with pytest.raises(RuntimeError, match="does not require a gradient"):
        gg.draw(gg.asarray(2.0))
    with pytest.raises(ValueError, match="direction"):
        gg.draw(y, direction="left")
    for options in ({"limit": 0}, {"depth": -1}):
        with pytest.raises(ValueError, match="limit must be positive and depth not negative"):
            gg.draw(y, **options)
    with pytest.raises(RuntimeError, match="vmap"):
        gg.vmap(lambda t: gg.draw(t * x))(gg.ones(3))
    with gg.no_grad():
        x += 1.0
    with pytest.raises(RuntimeError, match="changed in place"):
        gg.draw(y)
    y = x * x
    y.backward()
    with pytest.raises(RuntimeError, match="retain_graph=True"):
        gg.draw(y)
