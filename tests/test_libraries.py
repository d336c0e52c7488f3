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


# Each row of gg.special through scipy.special; that of multigammaln has an option of its own.
THROUGH_SCIPY = """
import numpy as np, scipy.special
import gpugrad as gg
from gpugrad.testing.rows import Domain
from gpugrad.testing.table import ROWS

for row in ROWS:
    name = row.name.removeprefix("special.")
    if row.name == name or not hasattr(scipy.special, name) or name == "multigammaln":
        continue
    args = [
        gg.asarray(x, requires_grad=isinstance(domain, Domain) and row.order > 0)
        for x, domain in zip(row.draw("float64"), row.args)
    ]
    out = getattr(scipy.special, name)(*args, **getattr(row.function, "keywords", {}))
    expected = row.function(*args)
    assert type(out) is gg.Tensor and out.requires_grad == expected.requires_grad, name
    np.testing.assert_allclose(out.get(), expected.get(), rtol=1e-12, err_msg=name)
    print(name)
"""


def run(*command):
    """What a process of its own prints: SciPy reads a setting when it is imported."""
    done = subprocess.run(
        [sys.executable, *command],
        capture_output=True,
        text=True,
        env={"PYTHONPATH": str(ROOT), "GPUGRAD_DEVICE": "cpu", "SCIPY_ARRAY_API": "1"},
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def table():
    """Case -> outcome."""
    printed = run(ROOT / "examples" / "libraries.py")
    return dict(re.findall(r"^\| `(.*)` \| (.*) \|$", printed, re.MULTILINE))


def test_scipys_special_functions_run_gpugrads():
    names = set(run("-c", THROUGH_SCIPY).split())
    assert {"erf", "gammaln", "ndtr", "ndtri", "betainc"} <= names
    assert len(names) >= 90


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
