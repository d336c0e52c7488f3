"""Check every operation and every kernel on the devices of this machine.

The rows of the table of operations: values against NumPy's, both derivatives against numerical ones
and each other, to second order. The kernels: against their twins, on special values. Exit status 1
on any failure.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import gpugrad as gg

from ..testing import coverage
from ..testing.kernels import KERNELS, KernelResult, check_kernel
from .info import describe, machine

NAME = "check"

_PAGE = """# Which functions have which derivatives

Every public function, as `python -m gpugrad check --markdown` found it: it runs the rows of the
table of operations (`gpugrad/testing/table/`) and checks the derivatives against numerical ones.
"yes" under "vjp" and "jvp": both are right, also against each other; under "second order": their
derivatives are too; under "complex": the same for complex arguments. Empty: there is none to check,
and the note says why; what a gradient is at a tie or a pole stands [below](#ties-kinks-and-poles).
"needs cuSOLVER", "needs cuFFT": an emulated device lacks that library.

"""
_LEGEND = """forward: error of a value, in units of its dtype's epsilon; vjp: relative error of the
vjp against the jvp (1e-9 is allowed), jvp: of the jvp against a central difference (1e-6, at
second order 1e-5); the largest over dtypes, orders and ways to call it. launches: kernels of one
call, forward and backward; "-" where they cannot be counted: on the CPU, and on a GPU where the
call cannot be captured as a CUDA graph (cuBLAS, sorts, values read on the host)."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    parser.add_argument(
        "--device", nargs="+", metavar="D", help="cpu, cuda:0, ... (default: all there are)"
    )
    parser.add_argument("--filter", default="", metavar="TEXT", help="only names that contain TEXT")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", metavar="FILE", help="write the numbers there too")
    form.add_argument(
        "--markdown", action="store_true", help="print which function has which derivatives instead"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Check, print; 1 if anything failed."""
    start = time.perf_counter()
    try:
        devices = [gg.device(name) for name in args.device] if args.device else _all()
    except (ValueError, gg.DeviceError) as error:
        print(f"--device: {error}", file=sys.stderr)
        return 2
    count = sum(args.filter in name for name in coverage.public_functions())
    entries = list(_progress(coverage.coverage(devices, args.filter), count, "operations"))
    if args.markdown:
        print(_PAGE + coverage.as_markdown(entries), end="")
        failures = coverage.problems(entries)
        print(*failures, sep="\n", file=sys.stderr)
        return bool(failures)
    chosen = [kernel for kernel in KERNELS if args.filter in kernel.name]
    results = _progress(
        (check_kernel(kernel, device) for device in devices for kernel in chosen),
        len(chosen) * len(devices),
        "kernels",
    )
    kernels = {device: [next(results) for _ in chosen] for device in devices}
    if not (entries or chosen):
        print(f"--filter: no name contains {args.filter!r}", file=sys.stderr)
        return 2

    found: dict[str, Any] = {"machine": machine()}
    found["devices"] = [_results(device, entries, kernels[device]) for device in devices]
    found["failures"] = [x for device in found["devices"] for x in device["failures"]]
    found["failures"] += [x for x in coverage.problems(entries) if x.endswith(coverage.OMISSIONS)]
    found["seconds"] = time.perf_counter() - start
    print(_text(found))
    if args.json:
        text = json.dumps(found, indent=1, ensure_ascii=False)
        Path(args.json).write_text(f"{text}\n", "utf-8")
    return bool(found["failures"])


def _all() -> list[gg.Device]:
    """All devices, the CPU first."""
    return sorted(gg.devices(), key=lambda device: (device.kind, device.index))


def _results(
    device: gg.Device, entries: Sequence[coverage.Entry], kernels: Sequence[KernelResult]
) -> dict[str, Any]:
    """What was found on one device."""
    place = coverage.place(device)
    operations: list[dict[str, Any]] = [
        {
            "name": entry.name,
            "forward": _number(measured.forward),
            "vjp": _number(measured.errors.vjp) if entry.vjp else None,
            "jvp": _number(measured.errors.jvp) if entry.vjp else None,
            "launches": measured.launches,
            "failures": measured.failures,
        }
        for entry in entries
        if (measured := entry.measured.get(place))
    ]
    rows: list[dict[str, Any]] = [
        {
            "name": kernel.name,
            "errors": {dtype: _number(error) for dtype, error in kernel.errors.items()},
            "launches": kernel.launches,
            "failures": kernel.failures,
        }
        for kernel in kernels
    ]
    left_out = {e.name: e.devices[place] for e in entries if e.devices[place].startswith("needs")}
    return {
        "device": str(device),
        "name": describe(device),
        "operations": operations,
        "kernels": rows,
        "left_out": left_out,
        "failures": [f"{device}: {x}" for row in (*operations, *rows) for x in row["failures"]],
    }


def _number(x: float) -> float | str:
    """x for JSON, which has no infinity."""
    return x if x < float("inf") else "inf"


def _text(found: dict[str, Any]) -> str:
    lines = []
    for device in found["devices"]:
        lines += [f"{device['device']}: {device['name']}", ""]
        if operations := device["operations"]:
            heads = ["operation", "forward", "vjp", "jvp", "launches", ""]
            lines += _table(heads, [_operation(row) for row in operations])
            lines += ["", *_LEGEND.splitlines(), ""]
        if kernels := device["kernels"]:
            dtypes = list(dict.fromkeys(dtype for row in kernels for dtype in row["errors"]))
            rows = [_kernel(row, dtypes) for row in kernels]
            lines += _table(["kernel", *dtypes, "launches", ""], rows)
            lines += ["", "error in units of the last place, against the twin in float64", ""]
        for why in dict.fromkeys(device["left_out"].values()):
            names = [name for name, reason in device["left_out"].items() if reason == why]
            lines += [f"not checked in full, it {why}: {', '.join(names)}", ""]
    lines += [f"FAILED {text}" for text in found["failures"]]
    counts = [len(d["operations"]) + len(d["kernels"]) for d in found["devices"]]
    failures = len(found["failures"]) or "no"
    lines.append(f"{sum(counts)} checked in {found['seconds']:.0f} s, {failures} failures")
    return "\n".join(lines)


def _operation(row: dict[str, Any]) -> list[str]:
    errors = [_short(row["vjp"], ".0e"), _short(row["jvp"], ".0e")]
    return [row["name"], _short(row["forward"], ".1f"), *errors, *_ending(row)]


def _kernel(row: dict[str, Any], dtypes: Sequence[str]) -> list[str]:
    return [row["name"], *(_short(row["errors"].get(d), ".2f") for d in dtypes), *_ending(row)]


def _ending(row: dict[str, Any]) -> list[str]:
    return [_short(row["launches"], "d"), "FAILED" if row["failures"] else ""]


def _short(x: Any, form: str) -> str:
    return "-" if x is None else x if isinstance(x, str) else "0" if x == 0 else format(x, form)


def _table(heads: list[str], rows: list[list[str]]) -> list[str]:
    """Columns as wide as they need; all but the first and last to the right."""
    widths = [max(len(row[i]) for row in (heads, *rows)) for i in range(len(heads))]
    return [
        "  ".join(
            cell.rjust(width) if 0 < i < len(row) - 1 else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in (heads, *rows)
    ]


_T = TypeVar("_T")


def _progress(items: Iterable[_T], count: int, what: str) -> Iterator[_T]:
    """The items, with a bar on the terminal; elsewhere a line for every tenth of them."""
    err, bar = sys.stderr, sys.stderr.isatty()
    for i, item in enumerate(items, 1):
        if bar:
            done = 30 * i // count
            err.write(f"\r{'#' * done}{'.' * (30 - done)} {i}/{count} {what}")
            err.write("\r\x1b[K" if i == count else "")
        elif 10 * i // count > 10 * (i - 1) // count:
            err.write(f"{i}/{count} {what}\n")
        err.flush()
        yield item
