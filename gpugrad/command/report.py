"""The report: statistics, tables, the machine, and the targets."""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import gpugrad as gg

from .. import backends
from ..compiler import summary
from . import info
from .bandwidth import COPY, CROSS_ENTROPY
from .tasks import COMPILED

OWN = ("gpugrad", "numpy")  # whose versions every report has

# What gpugrad should reach on a kind of device: topic, row, over which row, at most. Without a row
# to compare with it is the row's own median, in the unit of the topic.
TARGETS: dict[str, tuple[tuple[str, str, str | None, float], ...]] = {
    "cpu": (
        ("chain", "gpugrad", "torch eager", 0.55),
        ("chain", "gpugrad", "autograd", 0.45),
        ("mnist-32", "gpugrad", "by hand", 1.15),
        ("mnist-128", "gpugrad", "by hand", 1.15),
        ("mnist-32", "gpugrad", "torch eager", 0.80),
        ("mnist-128", "gpugrad", "torch eager", 0.80),
        # 25 µs where PyTorch took 132
        ("chain", COMPILED, "torch eager", 0.19),
        ("mnist-32", COMPILED, "by hand, no allocation", 1.02),
        ("mnist-128", COMPILED, "by hand, no allocation", 1.02),
        ("mnist-32", COMPILED, "jax.jit", 0.80),
        ("mnist-128", COMPILED, "jax.jit", 0.80),
        ("sigmoid", COMPILED, "torch eager", 1.10),  # and so 1.1 times the better of the two
        ("sigmoid", COMPILED, "jax.jit", 1.10),
        ("import", "gpugrad", "numpy", 1.30),
        ("long-chain", "100,000 operations", "10,000 operations", 1.50),  # linear: quadratic is 10
    ),
    "cuda": (
        ("kernels", "sigmoid", COPY, 1 / 0.9),
        ("kernels", "sigmoid_grad", COPY, 1 / 0.9),
        ("kernels", "adam_step", COPY, 1 / 0.9),
        ("kernels", CROSS_ENTROPY, COPY, 1.25),
        ("chain", "gpugrad", "torch eager", 1.20),
        ("mnist-128", "gpugrad", "torch eager", 1.00),
        ("mnist-128", COMPILED, None, 60.0),
        ("mnist-128", COMPILED, "torch, CUDA graph", 1.00),
        ("mnist-128", COMPILED, "jax.jit", 1.00),
    ),
}


@dataclass
class Topic:
    """One table. `samples` holds, for each row, one number per round."""

    name: str
    title: str
    unit: str
    base: str = "gpugrad"  # the row that the ratios refer to
    samples: dict[str, list[float]] = field(default_factory=dict)

    def add(self, label: str, sample: float) -> None:
        """Enter the sample of one round."""
        self.samples.setdefault(label, []).append(sample)

    def ratio(self, row: str, base: str) -> float | None:
        """Median of the ratios within a round, so that a slow change of load drops out.

        None if one of the rows is missing, or has a zero where it is divided by.
        """
        above, below = self.samples.get(row), self.samples.get(base)
        if above is None or below is None or not all(below):
            return None
        return statistics.median(a / b for a, b in zip(above, below, strict=True))

    def compared(self, row: str, base: str | None) -> float | None:
        """The ratio; without a base the median of the row."""
        if base is not None:
            return self.ratio(row, base)
        return statistics.median(self.samples[row]) if row in self.samples else None

    def rows(self) -> list[dict[str, Any]]:
        """The statistics of every row."""
        rows = []
        for label, samples in self.samples.items():
            low, median, high = statistics.quantiles(samples, n=4, method="inclusive")
            row = {"label": label, "median": median, "lower_quartile": low, "upper_quartile": high}
            rows.append({**row, "ratio": self.ratio(label, self.base), "samples": samples})
        return rows

    def results(self) -> dict[str, Any]:
        """The topic for a JSON file."""
        about = {"name": self.name, "title": self.title, "unit": self.unit, "base": self.base}
        return {**about, "rows": self.rows()}

    def table(self) -> str:
        """The rows as text."""
        width = max(map(len, self.samples))
        lines = [
            f"{self.title} [{self.unit}]",
            f"  {'':{width}} {'median':>12} {'quartiles':>27}   {self.head()}",
        ]
        for row in self.rows():
            places = 0 if row["median"] >= 1000 else 1 if row["median"] >= 10 else 3
            low, median, high = (
                f"{row[key]:,.{places}f}" for key in ("lower_quartile", "median", "upper_quartile")
            )
            lines.append(
                f"  {row['label']:{width}} {median:>12} {low:>12} .. {high:>12} {self.last(row)}"
            )
        return "\n".join(lines)

    def head(self) -> str:
        """The heading of the last column."""
        return f"ratio to {self.base}"

    def last(self, row: dict[str, Any]) -> str:
        """The last column of a row."""
        return f"{'-' if row['ratio'] is None else format(row['ratio'], '.2f'):>8}"


@dataclass
class Bandwidth(Topic):
    """A table of kernels, each with the bytes that it must move; ratios are of times per byte."""

    bytes: dict[str, int] = field(default_factory=dict)

    def ratio(self, row: str, base: str) -> float | None:
        ratio = super().ratio(row, base)
        return None if ratio is None else ratio * self.bytes[base] / self.bytes[row]

    def rows(self) -> list[dict[str, Any]]:
        rows = super().rows()
        for row in rows:
            row["bytes"] = self.bytes[row["label"]]
            row["gigabytes_per_second"] = row["bytes"] / row["median"] / 1e3
        return rows

    def head(self) -> str:
        return f"{'GB/s':>8} {f'share of {self.base}':>14}"

    def last(self, row: dict[str, Any]) -> str:
        share = "-" if row["ratio"] is None else f"{1 / row['ratio']:.0%}"
        return f"{row['gigabytes_per_second']:10,.1f} {share:>14}"


@dataclass
class Counts:
    """A table of compiled functions: what was recorded, and what is left to be done in a call."""

    name: str
    title: str
    rows: list[dict[str, Any]] = field(default_factory=list)

    def add(self, label: str, step: Any, launches: int | None) -> None:
        """Enter a recorded step; `launches` of kernels by a call of it."""
        before, after = step.program, step.runner.program
        self.rows.append(
            {
                "label": label,
                "recorded": len(summary.computed(before)),
                "instructions": len(summary.computed(after)),
                "loops": summary.loops(after),
                "launches": launches,
                "recorded_bytes": summary.bytes_moved(before),
                "bytes": summary.bytes_moved(after),
                "buffers": getattr(step.runner, "memory", None),  # None: not planned
            }
        )

    def results(self) -> dict[str, Any]:
        """The topic for a JSON file."""
        return {"name": self.name, "title": self.title, "rows": self.rows}

    def table(self) -> str:
        """The rows as text."""
        width = max(len(row["label"]) for row in self.rows)
        heads = ("recorded", "instructions", "loops", "launches", "KiB recorded", "KiB", "buffers")
        lines = [self.title, " ".join([f"  {'':{width}}", *(f"{head:>12}" for head in heads)])]
        for row in self.rows:
            label, *numbers, recorded, moved, buffers = row.values()
            numbers += [x and round(x / 1024) for x in (recorded, moved, buffers)]
            cells = ("-" if x is None else f"{x:,}" for x in numbers)
            lines.append(" ".join([f"  {label:{width}}", *(f"{cell:>12}" for cell in cells)]))
        lines += [
            "  recorded: array operations. instructions: what is left of them, loops among them.",
            "  KiB: what they read and write, as recorded and as run; memory beside the inputs.",
        ]
        return "\n".join(lines)


def machine(device: gg.Device, threads: int | None, libraries: Sequence[str]) -> dict[str, Any]:
    """Where and with what the numbers were measured."""
    about = backends.backend_of_kind(device.kind).about(device)
    found = info.machine()
    found["versions"] |= {name: version(name) for name in libraries if name not in OWN}
    return found | {
        "threads": threads,
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0,
        "device": str(device),
        "device_name": info.describe(device),
        "device_details": about.details,
        "emulated": about.emulated,
    }


def version(name: str) -> str:
    """The version of an installed library."""
    module = importlib.import_module(name)
    return getattr(module, "__version__", None) or importlib.metadata.version(name)


def targets(kind: str, topics: Sequence[Topic]) -> list[dict[str, Any]]:
    """The ratios to reach; `ratio` and `met` are None where a row was not measured."""
    by_name = {topic.name: topic for topic in topics}
    results = []
    for name, row, base, most in TARGETS[kind]:
        ratio = by_name[name].compared(row, base) if name in by_name else None
        met = None if ratio is None else ratio <= most
        results.append(
            {"topic": name, "row": row, "base": base, "target": most, "ratio": ratio, "met": met}
        )
    return results


def header(found: dict[str, Any], missing: dict[str, str]) -> str:
    """The machine as text."""
    versions = ", ".join(f"{name} {number}" for name, number in found["versions"].items())
    threads = "as many threads as each library takes"
    lines = [
        f"{found['date']}, {found['device']}: {found['device_name']}, {found['device_details']}",
        f"{found['cpu']}, {found['cpus']} CPUs, "
        + (f"{found['threads']} threads used" if found["threads"] else threads),
        f"{found['python']}, {found['system']}",
        versions,
        *(f"not measured: {name}, {reason}" for name, reason in missing.items()),
        "by hand: the array library and a derivative worked out on paper",
    ]
    if found["load"] > found["cpus"] - (found["threads"] or 1) + 1:
        lines.append(f"BUSY: the load average is {found['load']:.1f}, times may be far off")
    return "\n".join(lines)


def verdicts(results: Sequence[dict[str, Any]]) -> str:
    """The targets as text."""
    lines = ["targets: ratios of times (of kernels: per byte), each the median over the rounds"]
    for r in results:
        ratio = "-" if r["ratio"] is None else f"{r['ratio']:.2f}"
        verdict = {True: "met", False: "missed", None: "not measured"}[r["met"]]
        what = r["row"] if r["base"] is None else f"{r['row']} / {r['base']}"
        lines.append(f"  {r['topic']}: {what} {ratio} (target {r['target']:.2f}) {verdict}")
    return "\n".join(lines)
