"""examples/two_two_one.py: the derivatives by hand are right, and what is printed."""

import re
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

import gpugrad as gg

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))
import two_two_one as example


def cost(p):
    """The network once more, in plain NumPy."""

    def sigmoid(x):
        return 1 / (1 + np.exp(-x))

    h1 = sigmoid(p["w1"] * example.X1 + p["w2"] * example.X2 + p["b1"])
    h2 = sigmoid(p["w3"] * example.X1 + p["w4"] * example.X2 + p["b2"])
    return (sigmoid(p["w5"] * h1 + p["w6"] * h2 + p["b3"]) - example.Y) ** 2


@pytest.fixture
def tensors(device):
    return {
        name: gg.asarray(x, dtype=gg.float64, requires_grad=True)
        for name, x in example.START.items()
    }


def test_by_hand_is_the_derivative(tensors):
    values = example.numbers(example.network(tensors))
    hand = example.by_hand(example.START, values)
    assert values["C"] == pytest.approx(cost(example.START), rel=1e-14)
    for name, x in example.START.items():
        above, below = (cost(example.START | {name: x + h}) for h in (1e-5, -1e-5))
        assert hand[f"dC/d{name}"] == pytest.approx((above - below) / 2e-5, rel=1e-8)


def test_the_tape_says_the_same_of_every_value(tensors):
    values = example.network(tensors)
    hand = example.by_hand(example.START, example.numbers(values))
    tape = example.by_tape(tensors, values)
    assert tape.keys() == hand.keys() == example.PATHS.keys()
    assert tape == pytest.approx(hand, rel=1e-13)


def test_every_path_leads_from_the_cost_to_its_end():
    for name, path in example.PATHS.items():
        steps = [step.split("/") for step in path.split(" · ")]
        assert [steps[0][0], steps[-1][1]] == name.split("/")
        assert all(a[1] == "d" + b[0][1:] for a, b in pairwise(steps))


def test_what_it_prints(device, capsys):
    example.main([])
    printed = capsys.readouterr().out
    for name in example.PATHS:
        hand, tape = re.search(rf"  {name} = .* (\S+) +(\S+)\n", printed).groups()
        assert hand == tape
    before, after = map(float, re.search(r"  C: +(\S+) -> (\S+)\n", printed).groups())
    assert before == pytest.approx(cost(example.START), abs=5e-5)
    new = {
        name: float(re.search(rf"  {name} :=.*= +(\S+)\n", printed)[1]) for name in example.START
    }
    assert after == pytest.approx(cost(new), abs=1e-4)
    assert after < before


def test_the_drawings(tmp_path, capsys):
    with gg.device("cpu"):
        example.main(["--draw", str(tmp_path)])
    printed = capsys.readouterr().out
    before, after = (
        (tmp_path / f"two_two_one_{when}.mmd").read_text() for when in ("before", "after")
    )
    for name in [*example.START, "x1", "x2", "z1", "h1", "h2", "o1", "C"]:
        assert re.search(rf"\b{name}\b", before)
        assert re.search(rf"\b{name}\b", after)
    assert "0.5376" in before  # o1
    assert "0.639" in after
    for when in ("before", "after"):
        file = tmp_path / f"two_two_one_{when}.svg"
        said = f"drawing: {file}" if file.exists() else f"no drawing {file}: "
        assert said in printed
