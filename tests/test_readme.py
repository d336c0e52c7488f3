"""The code in the README runs as it is printed."""

import re
from pathlib import Path

import numpy as np
from helpers import host

README = Path(__file__).parents[1] / "README.md"


def test_the_first_example(device):
    code = re.search(r"```python\n(.*?)```", README.read_text(), re.DOTALL)[1]
    scope = {}
    exec(code, scope)
    x = np.linspace(-2, 2, 5)
    s, e = 1 / (1 + np.exp(-x)), np.exp(-x * x)
    expected = s * (1 - s) * e - 2 * x * s * e
    np.testing.assert_allclose(host(scope["gg"].grad(scope["energy"])(scope["x"])), expected)
    assert scope["w"].grad.shape == (2, 2)
