"""The package as its users get it: from a wheel, an editable install or a plain checkout."""

import os
import shutil
import subprocess
import sys
import venv
import zipfile
from email.parser import Parser
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parent.parent
LIBRARIES = Path(np.__file__).resolve().parent.parent

# Run with the kernels folder that must be found, and whether `kernels` must not be a module.
PROBE = """
import importlib.util, pathlib, sys
import numpy as np
import gpugrad as gg
from gpugrad.cuda.source import source_of

x = np.asarray([1.0, 2.0])
gradient = gg.grad(lambda x: gg.sum(gg.sigmoid(x) * x))(x)
assert isinstance(gradient, np.ndarray) and gradient.shape == (2,), gradient
assert "cupy" not in sys.modules
for path in pathlib.Path(sys.argv[1]).glob("*.cuh"):
    assert source_of(path.stem) == path.read_text()
if sys.argv[2] == "no module":
    assert importlib.util.find_spec("kernels") is None
print(gg.__file__)
"""


def run(*command, cwd, **settings):
    """What a command prints, in an environment without the settings of this run."""
    env = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "GPUGRAD", "COV_"))}
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=env | {name: str(value) for name, value in settings.items()},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def checkout(tmp_path):
    """A copy of what is packaged: a build leaves folders in the tree it builds."""
    copy = tmp_path / "checkout"
    unwanted = shutil.ignore_patterns("__pycache__")
    for folder in ("gpugrad", "kernels"):
        shutil.copytree(ROOT / folder, copy / folder, ignore=unwanted)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    return copy


@pytest.fixture
def fresh(tmp_path):
    """The Python of a new virtual environment that also sees the libraries of this one."""
    where = tmp_path / "venv"
    venv.create(where, symlinks=True)
    (site_packages,) = where.glob("lib/python*/site-packages")
    (site_packages / "libraries.pth").write_text(f"{LIBRARIES}\n")
    return where / "bin" / "python"


def pip_install(python, *what, cwd):
    options = ("--no-deps", "--no-index", "--no-build-isolation", "--ignore-installed")
    run(sys.executable, "-m", "pip", "--python", python, "install", *options, *what, cwd=cwd)


def test_wheel(checkout, fresh, tmp_path):
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", cwd=checkout)
    (wheel,) = (checkout / "dist").glob("*.whl")

    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
        (metadata,) = (name for name in archive.namelist() if name.endswith("/METADATA"))
        fields = Parser().parsestr(archive.read(metadata).decode())
    sources = {path.relative_to(ROOT).as_posix() for path in (ROOT / "gpugrad").rglob("*.py")}
    kernels = {f"gpugrad/kernels/{path.name}" for path in (ROOT / "kernels").glob("*.cuh")}
    assert kernels
    assert names == sources | kernels | {"gpugrad/py.typed"}
    needed = [line for line in fields.get_all("Requires-Dist") if "extra ==" not in line]
    assert needed == ["numpy>=2.0"]

    pip_install(fresh, wheel, cwd=tmp_path)
    found = run(fresh, "-c", PROBE, ROOT / "kernels", "no module", cwd=tmp_path)
    assert Path(found.strip()).is_relative_to(fresh.parent.parent)
    told = run(fresh, "-m", "gpugrad", cwd=tmp_path, GPUGRAD_DEVICE="cpu")
    assert f"NumPy {np.__version__}" in told
    options = ("--device", "cpu", "--quick", "--topics", "kernels,chain", "--libraries", "numpy")
    assert "share of copy" in run(fresh, "-m", "gpugrad", "bench", *options, cwd=tmp_path)


def test_editable_install(checkout, fresh, tmp_path):
    pip_install(fresh, "--editable", checkout, cwd=tmp_path)
    found = run(fresh, "-c", PROBE, ROOT / "kernels", "no module", cwd=tmp_path)
    assert Path(found.strip()) == checkout / "gpugrad" / "__init__.py"


def test_plain_checkout(checkout, fresh):
    # Any folder of a path on PYTHONPATH counts as a namespace package: nothing to refuse here.
    found = run(fresh, "-c", PROBE, ROOT / "kernels", "-", cwd=checkout, PYTHONPATH=".")
    assert Path(found.strip()) == checkout / "gpugrad" / "__init__.py"


def test_import_brings_in_numpy_alone(tmp_path):
    code = """
import sys, numpy
before = set(sys.modules)
import gpugrad
new = {name.partition(".")[0] for name in set(sys.modules) - before}
print(*sorted(new - set(sys.stdlib_module_names)))
"""
    new = run(sys.executable, "-W", "error", "-c", code, cwd=tmp_path, PYTHONPATH=ROOT)
    assert set(new.split()) <= {"gpugrad", "numpy"}


def test_what_takes_long_to_import_waits_until_it_is_asked_for(tmp_path):
    code = """
import sys, numpy
before = set(sys.modules)
import gpugrad
late = ["threading", "gpugrad.watching", "gpugrad.anomaly", "gpugrad.profiling", "gpugrad.drawing"]
print(*sorted((set(sys.modules) - before).intersection(late)))
"""
    assert not run(sys.executable, "-c", code, cwd=tmp_path, PYTHONPATH=ROOT).split()


def test_the_gpu_library_is_named_in_one_file():
    sources = {path.relative_to(ROOT).as_posix(): path for path in ROOT.glob("gpugrad/**/*.py")}
    naming = [name for name, path in sources.items() if "cupy" in path.read_text()]
    assert naming == ["gpugrad/backends/cupy.py"]
