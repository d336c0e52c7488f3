"""The benchmark script, on tiny sizes: it measures what it says, and refuses wrong gradients."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "benchmarks"
TIMED = ["chain", "long-chain", "mnist-32", "sigmoid"]

# A loss with the right value, and a gradient that is wrong by one in a thousand.
WRONG = """
import sys
import gpugrad as gg

def wrong(prediction, target, right=gg.nn.mean_squared_error):
    return right(prediction, target) * 1.001 - right(prediction.detach(), target) * 0.001

gg.nn.mean_squared_error = wrong
"""


def python(*arguments):
    """A finished Python process, without the settings of this run."""
    env = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "GPUGRAD", "COV_"))}
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        env={**env, "PYTHONPATH": f"{ROOT}{os.pathsep}{FOLDER}", "PYTHONIOENCODING": "utf-8"},
        capture_output=True,
        text=True,
        encoding="utf-8",
    )


@pytest.fixture
def tasks(monkeypatch):
    monkeypatch.syspath_prepend(FOLDER)
    return importlib.import_module("tasks")


def test_every_topic_has_its_rows(tmp_path):
    file = tmp_path / "results.json"
    done = python(
        *("-W", "error", FOLDER / "compare.py"), "--quick", "--libraries", "numpy", "--json", file
    )
    assert done.returncode == 0, done.stderr
    assert "values and gradients of all agree" in done.stdout
    assert "mnist-32: gpugrad / by hand" in done.stdout

    results = json.loads(file.read_text("utf-8"))
    topics = {topic["name"]: topic["rows"] for topic in results["topics"]}
    assert sorted(topics) == sorted([*TIMED, "import", "memory"])
    for name in TIMED:
        assert len(topics[name]) >= 2
        for row in topics[name]:
            assert 0 < row["lower_quartile"] <= row["median"] <= row["upper_quartile"]
            assert row["ratio"] > 0
            assert row["label"] in done.stdout
    assert [row["label"] for row in topics["import"]] == ["gpugrad", "numpy"]
    assert [row["label"] for row in topics["memory"]] == ["by hand", "gpugrad"]
    assert results["machine"]["versions"].keys() == {"gpugrad", "numpy"}
    assert results["missing"].keys() == {"torch", "jax", "autograd", "mygrad"}


@pytest.mark.parametrize("library", ["torch", "jax", "autograd", "mygrad"])
def test_other_libraries(library, tmp_path):
    if importlib.util.find_spec(library) is None:
        pytest.skip(f"{library} is not installed")
    file = tmp_path / "results.json"
    options = ("--topics", "chain,mnist,sigmoid", "--libraries", library, "--json", file)
    done = python(FOLDER / "compare.py", "--quick", *options)
    assert done.returncode == 0, done.stderr
    for topic in json.loads(file.read_text("utf-8"))["topics"]:
        assert any(row["label"].startswith(library) for row in topic["rows"])


def test_a_wrong_gradient_stops_the_run_before_it_measures():
    code = WRONG + "import compare; sys.exit(compare.main(['--quick', '--libraries', 'numpy']))"
    done = python("-c", code)
    assert done.returncode == 1
    assert "mnist-32: gpugrad: gradient 0 is off by 1.0e-03" in done.stderr
    assert "median" not in done.stdout


def test_a_wrong_gradient_stops_the_measurement_of_memory():
    done = python("-c", WRONG + "import memory; memory.main('gpugrad', 'cpu', 2, 4)")
    assert done.returncode == 1
    assert "gpugrad, deep network: gradient 0 is off by 1.0e-03" in done.stderr


@pytest.mark.parametrize(
    ("value", "gradient", "message"),
    [
        (1.01, [2, 3], "value is off by 1.0e-02"),
        (1, [2, 3.01], "gradient 0 is off by 3.3e-03"),
        (1, [2, np.nan], "gradient 0 is off by nan"),
        (1, [[2, 3]], "gradient 0 is float32 (1, 2), should be float32 (2,)"),
    ],
)
def test_parity(tasks, value, gradient, message):
    right = np.float64(1), [np.array([2.0, 3.0])]
    tasks.check("x", (np.float32(1), [np.array([2, 3], np.float32)]), right)
    with pytest.raises(tasks.Mismatch) as refusal:
        tasks.check("x", (np.float32(value), [np.array(gradient, np.float32)]), right)
    assert message in str(refusal.value)
    with pytest.raises(tasks.Mismatch, match="value is float64"):
        tasks.check("x", right, right)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--rounds", "1"], "'1' is no whole number of at least 2"),
        (["--threads", "many"], "'many' is no whole number of at least 1"),
        (["--topics", "chain,speed"], "unknown: 'speed'"),
        (["--libraries", "nympy"], "unknown: 'nympy'"),
        (["--json", "no/such/folder/file"], "cannot write 'no/such/folder/file'"),
        (["--device", "cuda", "--topics", "import"], "import: not measured on this device"),
    ],
)
def test_wrong_arguments(arguments, message):
    done = python(FOLDER / "compare.py", *arguments)
    assert done.returncode == 2
    assert message in done.stderr


def test_jacobians():
    done = python("-W", "error", FOLDER / "jacobian.py", "--quick")
    assert done.returncode == 0, done.stderr
    for layers in (1, 2):
        assert f"8 x 8 Jacobian of {layers} layer(s)" in done.stdout
    assert "gpugrad, a sweep per row" in done.stdout
