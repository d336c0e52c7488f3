"""examples/why_backprop.py: what it counts, and that both ways find the same derivatives."""

import re
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers import host

import gpugrad as gg

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))
import why_backprop as example


def test_multiplications_of_a_small_network():
    """3-2-1: 6 + 2 forwards; backwards 2 + 6 for the weights and 2 for the hidden units."""
    assert example.multiplications((3, 2, 1)) == (8, 18)


def test_a_nudge_finds_the_derivative_and_leaves_no_trace(device):
    rng = np.random.default_rng(3)
    params = example.parameters(rng)
    images = gg.asarray(rng.uniform(0, 1, (2, 784)), device=device)
    targets = gg.asarray(np.eye(10)[:2], device=device)
    before = [host(p) for p in params]
    places = [(params[0], 7), (params[1], 3), (params[2], 999), (params[3], 9)]
    nudged = example.finite_differences(params, (images, targets), places)
    for p, was in zip(params, before, strict=True):
        np.testing.assert_array_equal(host(p), was)
    example.backward(params, (images, targets))
    tape = [host(p.grad).ravel()[k] for p, k in places]
    np.testing.assert_allclose(nudged, tape, rtol=1e-4, atol=1e-8)


def test_what_it_prints(device, capsys):
    example.main(["--images", "3", "--sample", "4"])
    printed = capsys.readouterr().out
    assert printed.startswith(f"784-100-10: 79,510 parameters, float64, on {device}\n")
    assert re.search(r"a pass forwards +79,400\n", printed)
    assert re.search(r"back-propagation +159,800   2\.01 passes\n", printed)
    assert re.search(r"finite differences +6,313,173,400   79,511 passes\n", printed)
    assert "92.8 us each, 0.86 billion multiplications per second" in printed
    assert "measured, 1 image at a time " in printed
    assert "measured, 3 images at a time " in printed
    assert printed.count("times as fast") == 2


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (9.28e-5, "92.8 us"),
        (0.0123, "12.3 ms"),
        (9.5, "9.5 s"),
        (156, "2.6 minutes"),
        (442800, "123 hours"),
    ],
)
def test_times_are_spelled(seconds, text):
    assert example.spell(seconds) == text
