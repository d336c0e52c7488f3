"""`python -m gpugrad`: what it tells of a machine, and that `check` sees what is wrong."""

import ctypes
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import gpugrad as gg
from gpugrad import backends, twins
from gpugrad.__main__ import main
from gpugrad.backends import cupy
from gpugrad.command import check, info
from gpugrad.cuda import graph
from gpugrad.rules import elementwise
from gpugrad.testing import coverage, kernels, rows

ROOT = Path(__file__).resolve().parent.parent


def told(capsys):
    """Title -> texts of what `python -m gpugrad` prints."""
    assert main([]) == 0
    found = {}
    for line in capsys.readouterr().out.splitlines():
        title, _, text = line.partition(" ")
        found.setdefault(title, []).append(text.strip())
    return found


@pytest.fixture
def no_cuda(monkeypatch):
    """A machine without CuPy."""

    def import_module(name):
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setattr(cupy, "import_module", import_module)
    monkeypatch.setattr(backends, "_refused", {})
    monkeypatch.setattr(backends, "_by_kind", {"cpu": backends.backend_of_kind("cpu")})
    monkeypatch.setattr(backends, "_default", None)
    monkeypatch.delenv("GPUGRAD_DEVICE", raising=False)
    return monkeypatch


# ---- what there is


def test_a_machine_without_cupy(no_cuda, capsys):
    found = told(capsys)
    assert sum(map(len, found.values())) <= 10
    assert found["gpugrad"][0].startswith(gg.__version__)
    assert f"NumPy {np.__version__}" in found["versions"][0]
    assert "CuPy" not in found["versions"][0]
    assert "CPUs" in found["cpu"][0]
    assert found["default"] == ["cpu, the only device"]
    assert "CuPy is not installed: pip install" in found["missing"][0]
    assert "cache" not in found


def test_the_default_device_and_its_reason(no_cuda, capsys):
    no_cuda.setenv("GPUGRAD_DEVICE", "cpu")
    assert told(capsys)["default"] == ["cpu, by the setting GPUGRAD_DEVICE"]
    no_cuda.setattr(backends, "_default", None)
    no_cuda.setenv("GPUGRAD_DEVICE", "cuda")
    (text,) = told(capsys)["default"]
    assert text.startswith("none: GPUGRAD_DEVICE is 'cuda': CuPy is not installed")


def test_a_machine_with_a_cuda_device(cuda, capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(backends, "_default", None)
    monkeypatch.delenv("GPUGRAD_DEVICE", raising=False)
    monkeypatch.setenv("CUPY_CACHE_DIR", str(tmp_path / "not" / "yet"))
    found = told(capsys)
    for name in ("NumPy", "CuPy", "CUDA runtime", "CUDA driver"):
        assert f"{name} " in found["versions"][0]
    (device,) = found["cuda:0"]
    assert "compute capability" in device
    assert "GiB free" in device
    assert found["default"] == ["cuda:0, the first usable device"]
    assert found["cache"][0] == f"{tmp_path / 'not' / 'yet'}, can be written"
    about = backends.backend_of_kind("cuda").about(cuda)
    assert about.emulated == ("emulated" in device) == ("cupy_emu" in sys.modules)
    for library in about.lacks:
        assert library in " ".join(found["missing"])


def test_a_folder_that_cannot_be_written(tmp_path):
    file = tmp_path / "file"
    file.touch()
    assert info._writable(tmp_path / "new" / "folder")
    assert not info._writable(file / "folder")


def test_as_a_process():
    env = {**os.environ, "PYTHONPATH": str(ROOT), "GPUGRAD_DEVICE": "cpu"}
    for command, words in (
        ((), ["default   cpu", "missing "]),
        (("check", "--device", "cpu", "--filter", "sigmoid"), ["log_sigmoid", "no failures"]),
    ):
        done = subprocess.run(
            [sys.executable, "-W", "error", "-m", "gpugrad", *command],
            env=env,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        assert all(word in done.stdout for word in words)


# ---- check


def test_check_prints_a_table_and_json(device, capsys, tmp_path):
    file = tmp_path / "found.json"
    command = ["check", "--device", str(device), "--filter", "sigmoid", "--json", str(file)]
    assert main(command) == 0
    out, err = capsys.readouterr()
    assert "operation" in out
    assert "kernel " in out
    assert out.splitlines()[-1].endswith("no failures")
    assert err.splitlines()[-1].endswith("kernels")

    found = json.loads(file.read_text("utf-8"))
    assert found["failures"] == []
    assert found["machine"]["versions"]["NumPy"] == np.__version__
    (there,) = found["devices"]
    assert there["device"] == str(device)
    assert {row["name"] for row in there["operations"]} == {"log_sigmoid", "sigmoid"}
    assert {row["name"] for row in there["kernels"]} == {"log_sigmoid", "sigmoid", "sigmoid_grad"}
    for row in there["operations"]:
        assert row.keys() == {"name", "forward", "vjp", "jvp", "launches", "failures"}
        assert 0 <= row["forward"] < 32
        assert 0 < row["jvp"] < 1e-6
        assert 0 <= row["vjp"] < 1e-9
    for row in there["kernels"]:
        assert row["errors"].keys() >= {"float16", "float32"}
        assert max(row["errors"].values()) < 12
    counts = [row["launches"] for row in (*there["operations"], *there["kernels"])]
    if device.kind == "cpu":
        assert set(counts) == {None}
    elif "cupy_emu" in sys.modules:
        assert min(counts) == 1


def test_check_of_no_derivative_says_so(capsys):
    assert main(["check", "--device", "cpu", "--filter", "argsort"]) == 0
    (row,) = (x for x in capsys.readouterr().out.splitlines() if x.startswith("argsort"))
    assert row.split() == ["argsort", "0", "-", "-", "-"]


def test_every_kernel_has_a_check():
    names = {kernel.name.partition(" ")[0] for kernel in kernels.KERNELS}
    assert names >= set(twins.__all__)


@pytest.fixture
def table(monkeypatch):
    """A function that makes another table, of one operation."""

    def replace(f, reference=np.sin, **options):
        row = rows.case("wrong", rows.signed(2), function=f, reference=reference, **options)
        monkeypatch.setattr(coverage, "ROWS", [row])
        monkeypatch.setattr(coverage, "public_functions", lambda: {"wrong": f})

    return replace


def fails(device, capsys, tmp_path):
    """What `check` says went wrong with the operation, and its row."""
    file = tmp_path / "found.json"
    command = ["check", "--device", str(device), "--filter", "wrong", "--json", str(file)]
    assert main(command) == 1
    out = capsys.readouterr().out
    assert any(line.startswith("FAILED") for line in out.splitlines())
    found = json.loads(file.read_text("utf-8"))
    return "\n".join(found["failures"]), found["devices"][0]["operations"][0]


def test_a_wrong_rule_is_a_failure(device, table, capsys, tmp_path):
    def rule(t, x):
        return t * gg.cos(x) * 1.01

    table(elementwise("wrong", rule, doc="", function="sin"), dtypes="d")
    text, row = fails(device, capsys, tmp_path)
    assert f"{device}: wrong((2,)): wrong((2,)): jvp against a central difference" in text
    assert 1e-4 < row["jvp"] < 1e-2


def test_a_wrong_value_is_a_failure(device, table, capsys, tmp_path):
    table(gg.sin, reference=lambda x: np.sin(x) * (1 + 1e-4), dtypes="f")
    text, row = fails(device, capsys, tmp_path)
    assert "units of epsilon, 32 are allowed" in text
    assert 32 < row["forward"] < 1e4


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        (lambda x: np.sin(x).astype("f"), "TypeError: float64 (2,) instead of float32 (2,)"),
        (lambda x: np.sin(x)[:1], "TypeError: float64 (2,) instead of float64 (1,)"),
        (lambda x: np.sin(x) * np.nan, "off by inf"),
    ],
)
def test_other_wrong_results(table, reference, message, capsys, tmp_path):
    table(gg.sin, reference=reference, dtypes="d")
    text, _ = fails(gg.device("cpu"), capsys, tmp_path)
    assert message in text


def test_a_missing_derivative_is_a_failure(table, capsys, tmp_path):
    table(gg.sin, order=0)
    text, _ = fails(gg.device("cpu"), capsys, tmp_path)
    assert text == "wrong: neither a derivative nor a reason for having none"


@pytest.mark.parametrize(
    ("kernel", "message"),
    [
        (lambda xp, x: xp.sigmoid(x) * 1.01, "wrong, float32: off by "),
        (lambda xp, x: xp.sigmoid(x) if x.dtype == float else x[:1], "wrong, float16: TypeError: "),
        (lambda xp, x: xp.nothing(x), "wrong, float32: AttributeError: "),
    ],
)
def test_a_wrong_kernel_is_a_failure(kernel, message, device, monkeypatch, capsys):
    calls = []

    def call(xp, x):
        calls.append(x)
        return xp.sigmoid(x) if len(calls) % 2 == 0 else kernel(xp, x)  # every other is the twin's

    monkeypatch.setattr(check, "KERNELS", [kernels.Kernel("wrong", call, [np.arange(-3.0, 3)])])
    assert main(["check", "--device", str(device), "--filter", "wrong"]) == 1
    assert message in capsys.readouterr().out


def test_what_a_device_lacks_is_left_out_and_said(device, monkeypatch, capsys):
    backend = backends.backend_of_kind(device.kind)
    about = backends.About(
        "a device", "", False, (), dict.fromkeys(["cuFFT", "cuSOLVER"], "get it")
    )
    monkeypatch.setattr(backend, "about", lambda device: about, raising=False)
    assert main(["check", "--device", str(device), "--filter", "linalg.c"]) == 0
    out = capsys.readouterr().out
    assert "not checked in full, it needs cuSOLVER: linalg.cholesky" in out
    assert "cholesky  " not in out
    assert "\nlinalg.cross" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--device", "gpu"], "unknown device 'gpu'"),
        (["--device", "cpu", "--filter", "no such name"], "no name contains 'no such name'"),
    ],
)
def test_wrong_arguments(arguments, message, capsys):
    assert main(["check", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_the_bar_on_a_terminal(monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    assert list(check._progress("abc", 3, "letters")) == ["a", "b", "c"]
    err = capsys.readouterr().err
    assert "\r##########.................... 1/3 letters" in err
    assert err.endswith("\r\x1b[K")


# ---- launches on a device that does not count them


class Driver:
    """The functions of a CUDA driver for the nodes of a graph; every third is no kernel."""

    def __init__(self, count):
        self.count = count
        self.graphs = []

    def cuGraphGetNodes(self, graph, nodes, count):
        self.graphs.append(graph.value)
        count._obj.value = self.count
        if nodes is not None:
            nodes[:] = [i + 1 for i in range(self.count)]
        return 0

    def cuGraphNodeGetType(self, node, kind):
        kind._obj.value = 2 if node.value % 3 == 0 else 0  # cudaGraphNodeTypeMemset
        return 0


def test_launches_are_the_kernels_of_a_captured_graph(cuda, monkeypatch):
    backend, driver = backends.backend_of_kind("cuda"), Driver(7)
    monkeypatch.setattr(graph, "driver", lambda: driver)
    x = gg.asarray(np.ones((2, 3)), device=cuda).data
    assert backend.launches(cuda, lambda: backend.xp.sin(x)) == 5
    assert driver.graphs[0]
    # cuBLAS is not captured, nor is reading a value
    assert backend.launches(cuda, lambda: backend.xp.matmul(x, x.T)) is None
    assert backend.launches(cuda, lambda: float(x.sum())) is None
    np.testing.assert_array_equal(backend.to_host(x), np.ones((2, 3)))
    assert backend.launches(cuda, lambda: backend.xp.sin(x)) == 5
    monkeypatch.setattr(driver, "cuGraphNodeGetType", lambda node, kind: 1)
    assert backend.launches(cuda, lambda: backend.xp.sin(x)) is None
    monkeypatch.setattr(graph, "driver", lambda: None)
    assert backend.launches(cuda, lambda: backend.xp.sin(x)) is None


def test_the_driver_may_have_another_name(monkeypatch):
    def refuse(name):
        raise OSError(name)

    monkeypatch.setattr(graph, "ctypes", SimpleNamespace(**{**vars(ctypes), "CDLL": refuse}))
    assert graph.driver() is None
    assert not cupy._counts_launches()


def test_time_on_a_device(device):
    backend = backends.backend_of_kind(device.kind)
    x = gg.asarray(np.ones(1000), device=device).data
    assert 0 <= backend.seconds(device, lambda: backend.xp.exp(x)) < 60
