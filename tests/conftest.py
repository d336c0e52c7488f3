"""The suite runs on NumPy, and on CuPy where there is a usable CUDA device.

The setting GPUGRAD_CUPY_EMU names a folder with `cupy_emu.py`, which emulates a CUDA device for the
stock CuPy wheel; it must be imported before anything else meets CuPy. Where PyTorch is installed,
gradients are compared with its own.
"""

import gc
import importlib.util
import os
import sys

import pytest

collect_ignore = [] if importlib.util.find_spec("torch") else ["test_against_torch.py"]
if not (importlib.util.find_spec("torch") and importlib.util.find_spec("jax")):
    collect_ignore.append("test_interop.py")

EMULATOR = os.environ.get("GPUGRAD_CUPY_EMU")
if EMULATOR:
    sys.path.insert(0, EMULATOR)
    import cupy_emu  # noqa: F401

    if os.environ.get("RECORD_DIR"):
        import record  # noqa: F401
    if os.environ.get("EMU_EXACT"):  # every array a block of its own, for AddressSanitizer
        import cupy

        cupy.cuda.set_allocator(None)

import gpugrad as gg  # noqa: E402

try:
    CUDA = gg.device("cuda")
    NO_CUDA = None
except gg.DeviceError as error:
    if EMULATOR:
        raise
    CUDA = None
    NO_CUDA = str(error)


def pytest_addoption(parser):
    parser.addoption("--cuda", action="store_true", help="only tests that run on a CUDA device")


def on_cuda(item):
    """Whether a test runs on a CUDA device."""
    params = item.callspec.params if hasattr(item, "callspec") else {}
    return "cuda" in (params.get("device"), *item.fixturenames)


def pytest_report_header():
    if CUDA is None:
        return f"devices: the CPU; tests that need a CUDA device are deselected: {NO_CUDA}"
    return f"devices: the CPU and {'an emulated' if EMULATOR else 'a'} CUDA device"


def pytest_collection_modifyitems(config, items):
    """Without a CUDA device, tests that need one are not skipped one by one but left out."""
    count = sum(d.kind == "cuda" for d in gg.devices())

    def can_run(item):
        params = item.callspec.params if hasattr(item, "callspec") else {}
        needs = params.get("needs") or getattr(params.get("row"), "needs", "")
        if "emulated" in item.fixturenames and not EMULATOR:
            return False
        if config.getoption("cuda") and not on_cuda(item):
            return False
        if EMULATOR and needs and on_cuda(item):  # no cuSOLVER, no cuFFT there
            return False
        return count >= (2 if item.get_closest_marker("devices") else "cuda" in item.fixturenames)

    left_out = [item for item in items if not can_run(item)]
    items[:] = [item for item in items if can_run(item)]
    config.hook.pytest_deselected(items=left_out)


def pytest_collection_finish():
    """Python's collector need not look at 14,000 tests each time; memory that runs out calls it."""
    gc.collect()
    gc.freeze()


@pytest.fixture(params=["cpu", "cuda"] if CUDA else ["cpu"])
def device(request):
    """Each kind of device there is, as the default one."""
    with gg.device(request.param) as chosen:
        yield chosen


@pytest.fixture
def cuda():
    """The first CUDA device, real or emulated."""
    return CUDA


@pytest.fixture
def emulated():
    """Asked for by tests of what only the emulated device can be made to do."""
