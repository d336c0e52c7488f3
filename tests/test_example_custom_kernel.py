"""examples/custom_kernel.py on each device."""

import re
import sys
from pathlib import Path

import numpy as np
from helpers import array, host

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))
import custom_kernel


def test_the_fit_finds_argon(device, capsys):
    custom_kernel.main()
    printed = capsys.readouterr().out
    assert "derivatives checked" in printed
    (depth,), (size,) = (re.findall(name + r" ([\d.]+)", printed) for name in ("depth", "size"))
    assert abs(float(depth) - custom_kernel.DEPTH) < 2
    assert abs(float(size) - custom_kernel.SIZE) < 0.01


def test_the_force_vanishes_where_the_energy_is_least(device):
    r = array([custom_kernel.SIZE * 2 ** (1 / 6)])
    for kernel in (custom_kernel.energy, custom_kernel.by_hand):
        force = custom_kernel.force(r, custom_kernel.DEPTH, custom_kernel.SIZE, kernel)
        np.testing.assert_allclose(host(force), 0, atol=1e-10)
        lowest = kernel(r, custom_kernel.DEPTH, custom_kernel.SIZE)
        np.testing.assert_allclose(host(lowest), -custom_kernel.DEPTH)
