"""The suite runs on NumPy, and on CuPy where there is a usable CUDA device.

The setting GPUGRAD_CUPY_EMU names a folder with `cupy_emu.py`, which emulates a CUDA device for the
stock CuPy wheel; it must be imported before anything else meets CuPy.
"""

import os
import sys

import pytest

if folder := os.environ.get("GPUGRAD_CUPY_EMU"):
    sys.path.insert(0, folder)
    import cupy_emu  # noqa: F401

    if os.environ.get("RECORD_DIR"):
        import record  # noqa: F401

import gpugrad as gg


def _kinds():
    return ["cpu"] + (["cuda"] if any(d.kind == "cuda" for d in gg.devices()) else [])


@pytest.fixture(params=_kinds())
def device(request):
    """Each kind of device there is, as the default one."""
    with gg.device(request.param) as chosen:
        yield chosen


@pytest.fixture
def cuda():
    """The first CUDA device, real or emulated."""
    try:
        return gg.device("cuda")
    except gg.DeviceError as error:
        pytest.skip(str(error))
