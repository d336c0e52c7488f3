"""examples/boxes.py: the classifier finds the least hinge loss; what is printed and drawn."""

import sys
from pathlib import Path

import numpy as np
import pytest
from helpers import array, gradients, host
from scipy.optimize import linprog

import gpugrad as gg

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))
import boxes as example


def test_what_it_prints(device, capsys):
    example.main(["--epochs", "1"])
    printed = " ".join(capsys.readouterr().out.split())
    assert "a * b -6.0000 d/da = b -2.0000 -2.0000 d/db = a 3.0000 3.0000" in printed
    assert "max(a, b) 3.0000 d/da = [a > b] 1.0000 1.0000 d/db = [b > a] 0.0000 0.0000" in printed
    assert "sigmoid(a) 0.9526 d/da = out (1 - out) 0.0452 0.0452" in printed
    assert "3 + 3 + 1 = 7 the tape: dy/dx = 7" in printed
    assert "margin 0.5: loss 0.5, gradient [ 2. -1.] = -1 phi y" in printed
    assert "margin 1: loss 0, gradient [ 1. -0.5] = -0.5 phi y" in printed
    assert "margin 2: loss 0, gradient [0. 0.] = 0 phi y" in printed


def test_the_gradient_of_the_hinge_loss(device):
    phi, y = example.points()
    w = np.asarray([0.1, 0.4, 0.3])
    (got,) = gradients(lambda w: example.hinge(w, array(phi), array(y)), w)
    below = phi @ w * y < 1
    assert 0 < below.sum() < len(y)
    np.testing.assert_allclose(got, -(below * y) @ phi)


def test_training_finds_the_least_loss():
    """The mean hinge loss is least at the solution of a linear program: slacks s >= 1 - margin."""
    phi, y = example.points()
    n = len(y)
    least = linprog(
        np.r_[np.zeros(3), np.full(n, 1 / n)],
        A_ub=np.hstack([-phi * y[:, None], -np.eye(n)]),
        b_ub=np.full(n, -1.0),
        bounds=[(None, None)] * 3 + [(0, None)] * n,
    ).fun
    with gg.device("cpu"):
        w = example.train(gg.asarray(phi), gg.asarray(y), 30)
        loss = float(gg.mean(example.hinge(w, phi, y)))
    assert least <= loss < 1.02 * least
    wrong = np.flatnonzero(phi @ host(w) * y < 0)
    np.testing.assert_array_equal(wrong, [0, 1, 2, 40, 41, 42])  # the mislabelled ones


def test_the_picture(tmp_path, capsys):
    pytest.importorskip("matplotlib")
    one, two = (tmp_path / folder / "classifier.svg" for folder in ("one", "two"))
    for file in (one, two):
        with gg.device("cpu"):
            example.main(["--epochs", "1", "--plot", str(file)])
        assert f"picture: {file}" in capsys.readouterr().out
    assert "</svg>" in one.read_text()
    assert one.read_bytes() == two.read_bytes()


def test_the_drawings(tmp_path, capsys):
    with gg.device("cpu"):
        example.main(["--epochs", "1", "--draw", str(tmp_path)])
    assert f"drawing: {tmp_path / 'hinge.mmd'}" in capsys.readouterr().out
    branching, hinge = ((tmp_path / f"{name}.mmd").read_text() for name in ("branching", "hinge"))
    assert "∇ 7" in branching
    assert "max" in hinge
    assert "phi" in hinge
