"""SciPy, scikit-learn, array-api-extra and einops on Tensors, as examples/libraries.py shows it."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# What must keep the gradient; the others may raise, but none may lose it.
KEPT = """
scipy.stats.skew scipy.stats.zscore scipy.signal.fftconvolve scipy.signal.resample
scipy.integrate.trapezoid scipy.optimize.elementwise.find_root
xpx.at.set einops.rearrange einops.array_api.rearrange
""".split()


@pytest.fixture(scope="module")
def table():
    """Case -> outcome, from a process of its own: SciPy reads a setting when it is imported."""
    script = ROOT / "examples" / "libraries.py"
    done = subprocess.run(
        [sys.executable, script],
        capture_output=True,
        text=True,
        env={"PATH": "", "PYTHONPATH": str(ROOT), "GPUGRAD_DEVICE": "cpu"},
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return dict(re.findall(r"^\| `(.*)` \| (.*) \|$", done.stdout, re.MULTILINE))


def test_no_gradient_is_lost_in_silence(table):
    allowed = ("keeps the gradient", "raises ", "constant", "gives a Python float", "nan: ")
    assert {name: x for name, x in table.items() if not x.startswith(allowed)} == {}


def test_what_must_keep_the_gradient(table):
    kept = [name for name, outcome in table.items() if outcome == "keeps the gradient"]
    kept.append("scipy Rotation.approx_equal")  # True or False
    assert set(KEPT) <= set(kept)
    for start in ("scipy Rotation", "sklearn Ridge", "sklearn PCA", "sklearn GaussianMixture"):
        assert {n for n in table if n.startswith(start)} <= set(kept)


def test_the_page_names_every_case(table):
    page = (ROOT / "docs" / "libraries.md").read_text()
    assert re.findall(r"^\| `(.*)` \|", page, re.MULTILINE) == list(table)
