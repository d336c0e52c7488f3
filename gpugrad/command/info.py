"""`python -m gpugrad`: versions, devices, cache folders, and what is missing."""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import os
import platform
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gpugrad as gg

from .. import backends


def run(args: argparse.Namespace) -> int:
    """Print it."""
    print("\n".join(f"{title:8}  {text}" for title, text in lines()))
    return 0


def lines() -> Iterator[tuple[str, str]]:
    """Title and text of every line."""
    yield (
        "gpugrad",
        (
            f"{gg.__version__} in {Path(gg.__file__).parent}, Python {platform.python_version()}, "
            f"{platform.system()} {platform.machine()}"
        ),
    )
    optional = {name: _version(name) for name in ("SciPy", "torch", "jax")}
    found = backends.versions() | {name: v for name, v in optional.items() if v}
    yield "versions", ", ".join(f"{name} {version}" for name, version in found.items())
    missing = [] if optional["SciPy"] else ['SciPy, for some of gg.special: pip install "scipy"']
    about = {device: _about(device) for device in gg.devices()}
    for device, what in about.items():
        yield f"{device}", f"{describe(device)}, {what.details}"
        for mend in dict.fromkeys(what.lacks.values()):
            libraries = [name for name, how in what.lacks.items() if how == mend]
            missing.append(f"{' and '.join(libraries)} for {device}: {mend}")
    yield "default", _default()
    for folder in dict.fromkeys(folder for what in about.values() for folder in what.caches):
        state = "can be written" if _writable(folder) else "cannot be written: kernels compile anew"
        yield "cache", f"{folder}, {state}"
    try:
        backends.backend_of_kind("cuda")
    except gg.DeviceError as error:
        missing.insert(0, f"a CUDA device: {error}")
    for text in missing or ["nothing"]:
        yield "missing", text


def machine() -> dict[str, Any]:
    """Where and with what something is found or measured, for a JSON file."""
    return {
        "date": datetime.date.today().isoformat(),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "system": f"{platform.system()} {platform.machine()}",
        "cpu": backends.backend_of_kind("cpu").name(backends.device("cpu")),
        "cpus": os.cpu_count(),
        "versions": {"gpugrad": gg.__version__} | backends.versions(),
    }


def describe(device: gg.Device) -> str:
    """A device in words."""
    about = _about(device)
    return f"{about.name} (emulated: its times mean nothing)" if about.emulated else about.name


def _about(device: gg.Device) -> backends.About:
    return backends.backend_of_kind(device.kind).about(device)


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _default() -> str:
    """The default device, and why it is that one."""
    setting = os.environ.get("GPUGRAD_DEVICE")
    try:
        device = gg.default_device()
    except (ValueError, gg.DeviceError) as error:
        return f"none: GPUGRAD_DEVICE is {setting!r}: {error}"
    if setting:
        return f"{device}, by the setting GPUGRAD_DEVICE"
    return f"{device}, the " + ("only device" if len(gg.devices()) == 1 else "first usable device")


def _writable(folder: Path) -> bool:
    """Whether files can be made in `folder`, which may have to be made first."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return folder.is_dir() and os.access(folder, os.W_OK)
