"""What the library can do: array API standard 2025.12, section "Inspection"."""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import backends
from .dtypes import isdtype

__all__ = ["__array_namespace_info__"]

_DTYPES = {
    name: np.dtype(name)
    for name in [
        *["bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"],
        *["float32", "float64", "complex64", "complex128"],
    ]
}


class Info:
    """Answers about devices and dtypes. They are the same on every device."""

    def capabilities(self) -> dict[str, Any]:
        """What is supported: boolean indexing, shapes that depend on data, up to 64 axes."""
        return {"boolean indexing": True, "data-dependent shapes": True, "max dimensions": 64}

    def default_device(self) -> backends.Device:
        """Where new data goes, at this moment."""
        return backends.default_device()

    def devices(self) -> tuple[backends.Device, ...]:
        """Every usable device."""
        return tuple(backends.devices())

    def default_dtypes(self, *, device: Any = None) -> dict[str, np.dtype]:
        """The dtypes that new data has by kind, and that of indices.

        Raises:
            DeviceError: if the device cannot be used, saying why.
        """
        _check(device)
        return {
            "real floating": np.dtype(np.float64),
            "complex floating": np.dtype(np.complex128),
            "integral": np.dtype(np.int64),
            "indexing": np.dtype(np.int64),
        }

    def dtypes(self, *, device: Any = None, kind: Any = None) -> dict[str, np.dtype]:
        """The standard's dtypes by name; of `kind` only (one of `isdtype`'s, or a tuple of them).

        Raises:
            ValueError: for another kind.
            DeviceError: if the device cannot be used, saying why.
        """
        _check(device)
        return {name: d for name, d in _DTYPES.items() if kind is None or isdtype(d, kind)}


def _check(device: Any) -> None:
    if device is not None:
        backends.device(device)


def __array_namespace_info__() -> Info:
    """An object that tells `capabilities default_device default_dtypes devices dtypes`."""
    return Info()
