"""What has a derivative: every public function, checked on every device that is there.

The entries are the outcome of running the rows of the table, not a list that is kept by hand.
"""

from __future__ import annotations

import inspect
import itertools
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

import gpugrad as gg

from ..trees import flatten
from .check import GradientError, check_grads
from .rows import Domain, Row
from .table import ROWS

# Functions without a row, and why they need no derivative, or where theirs is shown.
REASONS = {
    **dict.fromkeys("arange empty eye ones zeros".split(), "makes a constant"),
    **dict.fromkeys("empty_like ones_like zeros_like".split(), "makes a constant"),
    **dict.fromkeys("full full_like".split(), "keeps the graph of a tensor"),
    **dict.fromkeys("can_cast finfo iinfo isdtype result_type".split(), "about dtypes"),
    **dict.fromkeys("default_device device devices set_default_device".split(), "about devices"),
    **dict.fromkeys(
        "grad hessian hvp jacobian jvp value_and_grad vjp".split(), "takes derivatives"
    ),
    **dict.fromkeys(
        "checkpoint custom_vjp vmap".split(),
        "makes differentiable functions",
    ),
    "broadcast_shapes": "about shapes",
    "asarray": "keeps the graph of a tensor",
    "from_dlpack": "of data from outside",
    **dict.fromkeys("fft.fftfreq fft.rfftfreq".split(), "makes a constant"),
    **dict.fromkeys("geomspace linspace logspace".split(), "of its ends, through arithmetic"),
}

MODULES = {"": gg, "fft.": gg.fft, "linalg.": gg.linalg, "nn.": gg.nn, "special.": gg.special}


@dataclass
class Entry:
    """What was found about one public function.

    Attributes:
        vjp, jvp, second, complex: "yes", "" (not applicable), or what went wrong.
        devices: where -> "yes", "needs <library>" or what went wrong.
        note: why there is no derivative.
    """

    name: str
    vjp: str = ""
    jvp: str = ""
    second: str = ""
    complex: str = ""
    devices: dict[str, str] = field(default_factory=dict)
    note: str = ""


def public_functions() -> dict[str, Callable[..., Any]]:
    """Name -> function, once each, under its name in `gpugrad` itself where it has one."""
    found: dict[Any, str] = {}
    for prefix, module in reversed(MODULES.items()):
        for name in module.__all__:
            f = getattr(module, name)
            if inspect.isfunction(f) and not name.startswith("_"):
                found[f] = prefix + name
    return {name: f for f, name in sorted(found.items(), key=lambda item: item[1])}


def coverage(devices: Sequence[gg.Device]) -> Iterator[Entry]:
    """One entry per public function, as its rows turn out on each of `devices`."""
    for name in public_functions():
        rows = [row for row in ROWS if row.name == name]
        entry = Entry(name, note=REASONS.get(name, ""))
        for device in devices:
            with device:
                outcomes = [_try(row, entry) for row in rows]
                worst = next((x for x in outcomes if x != "yes"), "yes") if rows else ""
                entry.devices[_named(device)] = worst
                if worst == "yes" and not entry.vjp:
                    entry.note = entry.note or _constant(rows)
                elif worst == "yes" and not entry.complex and any(map(_takes_complex, rows)):
                    entry.complex = "not checked"
        yield entry


def _try(row: Row, entry: Entry) -> str:
    """Run one row on the default device; enter what it shows."""
    if row.needs and _is_emulated(gg.default_device()):
        return f"needs {row.needs}"
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            row.function(*(_there(x) for x in row.draw(row.dtypes[-1])))
    except Exception as error:
        return _short(error)
    orders = ((1, ("vjp", "jvp")), (2, ("second",)))
    for dtype, (order, fields) in itertools.product("dD", orders):
        if dtype in row.dtypes and row.order >= order:
            outcome = _check(row, dtype, order)
            for name in fields if dtype == "d" else (*fields, "complex"):
                if getattr(entry, name) in ("", "yes"):
                    setattr(entry, name, outcome)
    return "yes"


def _takes_complex(row: Row) -> bool:
    if not any(isinstance(x, Domain) for x in row.args):
        return False
    try:
        with np.errstate(all="ignore"):
            row.function(*(_there(x) for x in row.draw("D")))
    except (TypeError, ValueError):
        return False
    return True


def _check(row: Row, dtype: str, order: int) -> str:
    f, xs = row.of_differentiable([_there(x) for x in row.draw(dtype)])
    try:
        check_grads(f, xs, order=order)
    except (GradientError, NotImplementedError, TypeError) as error:
        return _short(error)
    return "yes"


def _there(x: Any) -> Any:
    return gg.asarray(x, device=gg.default_device()).data if isinstance(x, np.ndarray) else x


def _constant(rows: list[Row]) -> str:
    """Why the function of `rows` has no derivative, by what it returns; "" if that is no reason."""
    out = [
        x.dtype.kind
        for row in rows
        for x in flatten(row.function(*(_there(x) for x in row.draw(row.dtypes[-1]))))[0]
    ]
    if set(out) <= set("b"):
        return "boolean result"
    return "integer result" if set(out) <= set("biu") else ""


def _short(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).splitlines()[0][:60]}"


def _is_emulated(device: gg.Device) -> bool:
    return "emulation" in gg.backends.backend_of_kind(device.kind).name(device)


def _named(device: gg.Device) -> str:
    return f"{device.kind}, emulated" if _is_emulated(device) else device.kind


def problems(entries: Sequence[Entry]) -> list[str]:
    """What is wrong: no derivative and no reason, or a check that failed or was not made."""
    found = []
    for e in entries:
        if not e.vjp and not e.note:
            found.append(f"{e.name}: neither a derivative nor a reason for having none")
        outcomes = [e.vjp, e.jvp, e.second, e.complex, *e.devices.values()]
        found += [
            f"{e.name}: {x}" for x in outcomes if x not in ("", "yes") and not x.startswith("needs")
        ]
    return found


def as_markdown(entries: Sequence[Entry]) -> str:
    """The entries as a table."""
    places = list(entries[0].devices)
    heads = ["function", "vjp", "jvp", "second order", "complex", *places, "note"]
    lines = [heads, ["---"] * len(heads)]
    for e in entries:
        where = [e.devices[place] for place in places]
        lines.append([f"`{e.name}`", e.vjp, e.jvp, e.second, e.complex, *where, e.note])
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)
