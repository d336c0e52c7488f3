"""The code in the README runs as it is printed."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
from helpers import host

import gpugrad as gg

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def test_the_first_example(device):
    scope = {}
    exec(BLOCKS[0], scope)
    x = np.linspace(-2, 2, 5)
    s, e = 1 / (1 + np.exp(-x)), np.exp(-x * x)
    expected = s * (1 - s) * e - 2 * x * s * e
    np.testing.assert_allclose(host(scope["gg"].grad(scope["energy"])(scope["x"])), expected)
    assert scope["w"].grad.shape == (2, 2)


def test_the_second_example():
    """In a process of its own: SciPy reads a setting when it is imported."""
    check = "gg.testing.check_grads(turned, [np.asarray([0.1, 0.2, 0.3])])"
    subprocess.run(
        [sys.executable, "-c", "\n".join([*BLOCKS[:2], check])],
        check=True,
        env={"PATH": "", "PYTHONPATH": str(ROOT), "GPUGRAD_DEVICE": "cpu"},
        timeout=300,
    )


def test_the_third_example(device):
    scope = {}
    exec(BLOCKS[2], scope)
    r = host(scope["r"])
    q = (3.405 / r) ** 6
    expected = 24 * 119.8 * (2 * q * q - q) / r
    np.testing.assert_allclose(host(scope["force"]), expected, rtol=1e-4, atol=1e-3)


def emitted():
    """What the fourth example runs on the CPU, as a file train.py."""
    scope = {}
    with gg.device("cpu"):
        exec(compile(BLOCKS[3], "train.py", "exec"), scope)
        images, targets = (gg.zeros((32, n), dtype=gg.float32) for n in (784, 10))
        scope["step"](images, targets)
    return scope["step"].source


def test_the_fourth_example():
    """And the text that it shows."""
    assert f"```\n{emitted()}```\n" in README


def test_the_fifth_example():
    """And the picture."""
    scope = {}
    with gg.device("cpu"):
        exec(BLOCKS[4], scope)
    assert f"```mermaid\n{scope['picture'].mermaid}```\n" in README


def test_all_examples_are_python():
    for block in BLOCKS:
        compile(block, "README.md", "exec")
