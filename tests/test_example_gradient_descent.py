"""examples/gradient_descent.py: how the errors fall and rise, and where the descent ends."""

import sys
from pathlib import Path

import numpy as np
import pytest

import gpugrad as gg

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))
import gradient_descent as example


def test_the_exact_derivative(device):
    exact, _ = example.errors(example.parabola, 0.5, 0.5)
    by_hand = np.mean(2 * (0.5 * example.X + 0.5 - example.Y) * example.X)
    assert exact == pytest.approx(by_hand, rel=1e-14)


def test_the_errors_fall_with_the_step_and_then_rise(device):
    _, found = example.errors(example.parabola, 0.5, 0.5)
    assert len(found) == 4
    double = found["forward", "float64"]
    for k in range(5):  # steps 1e-1 to 1e-6: in proportion to the step
        assert double[k] / double[k + 1] == pytest.approx(10, rel=0.01)
    assert 6 <= int(np.argmin(double)) <= 8
    assert max(double[-3:]) > 1e-3
    assert found["central", "float64"][0] < 1e-13  # a parabola
    single = found["forward", "float32"]
    assert 1 <= int(np.argmin(single)) <= 3
    assert single[7:] == [1.0] * 8  # w + h is w
    _, found = example.errors(example.curve, 0.5, 0.5)
    central = found["central", "float64"]
    for k in range(1, 3):  # in proportion to its square
        assert central[k] / central[k + 1] == pytest.approx(100, rel=0.05)


def test_the_descent_reaches_the_normal_equations(device):
    best = example.solution()
    np.testing.assert_allclose(best, np.polyfit(example.X, example.Y, 1), rtol=1e-12)
    path = example.descend(0.12, 30)
    assert path.shape == (31, 2)
    distance = np.linalg.norm(path - best, axis=1)
    assert (np.diff(distance) < 0).all()
    with gg.device("cpu"):
        np.testing.assert_allclose(example.descend(0.12, 600)[-1], best, rtol=1e-12)
        assert np.linalg.norm(example.descend(0.26, 100)[-1] - best) > distance[0]


def test_what_it_prints_and_draws(tmp_path, capsys):
    pytest.importorskip("matplotlib")
    with gg.device("cpu"):
        example.main(["--plot", str(tmp_path)])
    printed = capsys.readouterr().out
    w, b = example.solution()
    assert f"normal equations: w = {w:.6f}, b = {b:.6f}" in printed
    assert printed.count("e-") > 60
    for name in ("derivative_as_limit.svg", "gradient_descent.svg"):
        assert f"picture: {tmp_path / name}" in printed
        assert "</svg>" in (tmp_path / name).read_text()
