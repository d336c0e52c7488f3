"""Ranges of arrays, found by the device and read much later."""

from __future__ import annotations

from typing import Any

import numpy as np

from .source import source_of

_THREADS = 1 << 18  # at most, about as many as a device runs at once; blocks of 128 divide it


class Ranges:
    """A table in the memory of the current device: a row per array.

    An array costs one kernel (one of complex numbers two), and the host does not wait until `read`.
    Streams do: another one than that on which the table was made until it is empty, and that one
    until the table is not written any more, for then its memory is free for others.
    """

    def __init__(self, cp: Any, rows: int) -> None:
        self._cp = cp
        self._kernel = cp.ElementwiseKernel(
            "raw T x, int64 row",
            "raw uint64 table",
            "gpugrad::note_range(x, i, _ind.size(), &table[3 * row])",
            "gpugrad_note_range",
            preamble=source_of("ranges"),
        )
        self._table = cp.zeros(3 * rows, np.uint64)
        self._home = cp.cuda.get_current_stream()
        self._ready = self._home.record()
        self._rows = rows
        self._used = 0

    @property
    def free(self) -> int:
        """How many rows are left."""
        return self._rows - self._used

    def note(self, x: Any) -> int:
        """Queue the search through `x`; the row where its range will stand."""
        row, self._used = self._used, self._used + 1
        if x.dtype.kind == "V":  # bfloat16
            x = x.astype(np.float32)
        if x.flags.c_contiguous:
            x = x.ravel()  # one program for all shapes
        stream = self._cp.cuda.get_current_stream()
        away = stream != self._home
        if away:
            stream.wait_event(self._ready)
        if x.size:
            threads = min(-(-x.size // 128) * 128, _THREADS)
            for part in (x.real, x.imag) if x.dtype.kind == "c" else (x,):
                self._kernel(part, row, self._table, size=threads)
        if away:
            self._home.wait_event(stream.record())
        return row

    def read(self) -> list[tuple[float, float, int]]:
        """Per row the smallest and the largest finite number (NaN where there is none), and 0,
        1 where an infinity was, 2 where a NaN was. Waits for the current stream.
        """
        return decoded(self._table[: 3 * self._used].get())


def decoded(table: np.ndarray) -> list[tuple[float, float, int]]:
    """Rows that note_range of ranges.cuh has written, as `Ranges.read` gives them."""
    high, low, worst = table.reshape(-1, 3).T
    return list(zip((-_number(low)).tolist(), _number(high).tolist(), worst.tolist()))


def _number(ordered: np.ndarray) -> np.ndarray:
    """The numbers of which `ordered` of ranges.cuh made integers; NaN of 0."""
    top = np.uint64(1 << 63)
    bits = np.where(ordered & top, ordered ^ top, ~ordered)
    return np.where(ordered == 0, np.nan, bits.view(np.float64))
