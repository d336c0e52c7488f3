"""Where the text of kernels/*.cuh is found."""

from __future__ import annotations

from pathlib import Path


def source_of(*names: str) -> str:
    """The text of kernels/<name>.cuh: beside the package when installed, else one folder up."""
    package = Path(__file__).resolve().parent.parent
    folder = package / "kernels"
    if not folder.is_dir():
        folder = package.parent / "kernels"
    return "\n".join((folder / f"{name}.cuh").read_text() for name in names)
