"""`python -m gpugrad bench`, on tiny sizes: measures what it says, refuses wrong gradients."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from gpugrad.__main__ import main
from gpugrad.command import first, memory, report, tasks
from gpugrad.compiler import host

ROOT = Path(__file__).resolve().parent.parent
TIMED = ["kernels", "chain", "long-chain", "mnist-32", "sigmoid", "jacobian-1", "jacobian-2"]
TIMED += ["loops-2-64", "loops-16-64", "checkpoint", "checkpoint-dropout"]
CHECKPOINTS = ["gpugrad", "gpugrad, checkpoint per layer", "gpugrad, checkpoint per segment"]

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
    env |= {k: v for k, v in os.environ.items() if k == "GPUGRAD_CACHE_DIR"}
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        env={**env, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8"},
        capture_output=True,
        text=True,
        encoding="utf-8",
    )


def bench(*arguments, file):
    """Its results, and what it prints."""
    done = python("-W", "error", "-m", "gpugrad", "bench", "--quick", "--json", file, *arguments)
    assert done.returncode == 0, done.stderr
    return json.loads(file.read_text("utf-8")), done.stdout


def test_every_topic_has_its_rows(tmp_path):
    options = ("--device", "cpu", "--threads", "1", "--libraries", "numpy")
    results, text = bench(*options, file=tmp_path / "results.json")
    assert "values and gradients of all agree" in text
    assert "the times mean nothing" in text
    assert "mnist-32: gpugrad / by hand" in text
    topics = {topic["name"]: topic["rows"] for topic in results["topics"]}
    memories = ["memory", "checkpoint-memory", "checkpoint-memory-dropout"]
    assert sorted(topics) == sorted([*TIMED, "import", *memories, "compile", "counts"])
    for name in ("checkpoint", "checkpoint-dropout", *memories[1:]):
        assert [row["label"] for row in topics[name]] == CHECKPOINTS
    for name in TIMED:
        assert len(topics[name]) >= 2
        for row in topics[name]:
            assert 0 < row["lower_quartile"] <= row["median"] <= row["upper_quartile"]
            assert row["ratio"] > 0
            assert row["label"] in text
    for name in ("chain", "mnist-32", "sigmoid", "loops-2-64", "loops-16-64"):
        assert {"by hand", "gpugrad", "gpugrad.compile"} <= {row["label"] for row in topics[name]}
    assert [row["label"] for row in topics["compile"]] == [
        "gpugrad.compile, empty cache",
        "gpugrad.compile, full cache",
    ]
    assert all(row["median"] > 0 for row in topics["compile"])
    assert [row["label"] for row in topics["counts"]] == ["chain", "mnist-32", "sigmoid"]
    for row in topics["counts"]:
        assert 1 <= row["instructions"] <= row["recorded"]
        assert 0 < row["bytes"] <= row["recorded_bytes"]
        assert row["launches"] is None
    assert [topics["counts"][0][key] for key in ("instructions", "loops")] == [1, 1]
    assert [row["label"] for row in topics["import"]] == ["gpugrad", "numpy"]
    assert [row["label"] for row in topics["memory"]] == ["by hand", "gpugrad"]
    assert results["machine"]["versions"].keys() >= {"NumPy", "gpugrad"}
    assert results["machine"]["threads"] == 1
    assert [row["label"] for row in topics["kernels"]][:2] == ["copy", "sigmoid"]
    for row in topics["kernels"]:
        speed = row["bytes"] / row["median"] / 1e3
        assert row["gigabytes_per_second"] == pytest.approx(speed)
    assert results["missing"].keys() == {"torch", "jax", "autograd", "mygrad"}


@pytest.mark.parametrize("library", ["torch", "jax", "autograd", "mygrad"])
def test_other_libraries(library, tmp_path):
    if importlib.util.find_spec(library) is None:
        pytest.skip(f"{library} is not installed")
    topics = "chain,mnist,sigmoid" + (",jacobian" if library in ("torch", "jax") else "")
    options = ("--device", "cpu", "--topics", topics, "--libraries", library)
    results, _ = bench(*options, file=tmp_path / "results.json")
    for topic in results["topics"]:
        assert any(row["label"].startswith(library) for row in topic["rows"])


def test_a_wrong_gradient_stops_the_run_before_it_measures():
    options = ["bench", "--quick", "--device", "cpu", "--libraries", "numpy"]
    code = f"{WRONG}from gpugrad.__main__ import main; sys.exit(main({options}))"
    done = python("-c", code)
    assert done.returncode == 1
    assert "mnist-32: gpugrad: gradient 0 is off by 1.0e-03" in done.stderr
    assert "median" not in done.stdout


def test_a_wrong_gradient_stops_the_measurement_of_memory():
    done = python(
        "-c", WRONG + "from gpugrad.command import memory; memory.main('gpugrad', 'cpu', 2, 4)"
    )
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
def test_parity(value, gradient, message):
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
        (["--device", "gpu"], "unknown device 'gpu'"),
        (["--device", "cpu:1"], "unknown device 'cpu:1'"),
    ],
)
def test_wrong_arguments(arguments, message):
    done = python("-m", "gpugrad", "bench", *arguments)
    assert done.returncode == 2
    assert message in done.stderr


def test_a_compiled_step_is_compared_when_it_is_replayed():
    """Its first run, which records, is over by then."""
    inputs = tasks.mnist(4)
    right = tasks.expected(tasks.NETWORK, inputs)
    (variant,) = (v for v in tasks.VARIANTS if (v.task, v.label) == (tasks.NETWORK, tasks.COMPILED))
    job = variant.build(inputs, "cpu")
    (step,) = job.run.steps
    replays = []
    runner = step.runner
    step.runner = lambda arrays: replays.append(1) or runner(arrays)
    tasks.check("gpugrad.compile", tasks.outcome(inputs, job), right)
    assert replays == [1]


def test_a_first_call_builds_in_the_folder_that_is_given(tmp_path, monkeypatch):
    monkeypatch.setenv("GPUGRAD_CACHE_DIR", str(tmp_path))
    assert first.main(tasks.COMPILED, "cpu", 4) > 0
    assert any(tmp_path.iterdir()) == (host.compiler() is not None)


def test_ratios_of_kernels_are_of_times_per_byte():
    topic = report.Bandwidth("kernels", "kernels", "µs", "copy", bytes={"copy": 2000, "step": 6000})
    for copy, step in ((1.0, 6.0), (2.0, 12.0), (1.0, 3.0)):
        topic.add("copy", copy)
        topic.add("step", step)
    _, step = topic.rows()
    assert step["ratio"] == 2
    assert step["gigabytes_per_second"] == 1
    assert topic.table().splitlines()[-1].split()[-2:] == ["1.0", "50%"]


def test_targets_of_a_gpu():
    kernels = report.Bandwidth("kernels", "kernels", "µs", "copy", bytes={"copy": 2, "sigmoid": 2})
    chain = report.Topic("chain", "chain", "µs")
    step = report.Topic("mnist-128", "step", "µs")
    for _ in range(2):
        step.add("gpugrad.compile", 59.0)
        step.add("torch, CUDA graph", 58.0)
        kernels.add("copy", 1.0)
        kernels.add("sigmoid", 1.05)
        chain.add("gpugrad", 1.3)
        chain.add("torch eager", 1.0)
    goals = report.targets("cuda", [kernels, chain, step])
    met = {(goal["topic"], goal["row"]): goal["met"] for goal in goals}
    assert met["kernels", "sigmoid"] is True
    assert met["chain", "gpugrad"] is False
    assert met["kernels", "adam_step"] is met["mnist-128", "gpugrad"] is None
    text = report.verdicts(goals)
    assert "  mnist-128: gpugrad.compile 59.00 (target 60.00) met\n" in text
    assert "  mnist-128: gpugrad.compile / torch, CUDA graph 1.02 (target 1.00) missed\n" in text
    for words in ("1.05 (target 1.11) met", "1.30 (target 1.20) missed", "- (target 1.00) not me"):
        assert words in text


def test_an_emulated_device_is_not_measured(cuda, capsys, tmp_path):
    """Nor is a real one here: `--quick`."""
    file = tmp_path / "results.json"
    options = ["--quick", "--libraries", "numpy", "--topics", "kernels,chain,counts"]
    options += ["--json", str(file)]
    assert main(["bench", "--device", "cuda", *options]) == 0
    text = capsys.readouterr().out
    results = json.loads(file.read_text("utf-8"))
    assert "the times mean nothing" in text
    assert results["machine"]["device"] == "cuda:0"
    assert "CuPy" in results["machine"]["versions"]
    assert [topic["name"] for topic in results["topics"]] == ["counts", "kernels", "chain"]
    for row in results["topics"][0]["rows"]:
        assert row["launches"] is None or row["launches"] > 0
    if results["machine"]["emulated"]:
        assert results["targets"] == []
        assert "emulated" in text


def test_memory_on_a_device(cuda):
    inputs = tasks.deep(3, 8)
    (variant,) = (v for v in tasks.VARIANTS if (v.task, v.label) == (tasks.NETWORK, "gpugrad"))
    job = variant.build(inputs, "cuda:0")
    job.run()
    assert 8 * 8 * 4 * 6 <= memory.growth(job.run, str(cuda)) <= 1 << 20
