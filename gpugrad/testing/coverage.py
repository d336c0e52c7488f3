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

from ..backends import backend_of_kind
from ..trees import flatten, map_tree
from .check import Errors, GradientError, measure_grads, relative_error
from .points import POINTS, shown
from .rows import Domain, Row
from .table import ROWS

# Functions without a row, and why they need no derivative, or where theirs is shown.
REASONS = {
    **dict.fromkeys("arange empty eye ones zeros".split(), "makes a constant"),
    **dict.fromkeys("empty_like ones_like zeros_like".split(), "makes a constant"),
    **dict.fromkeys("full full_like".split(), "keeps the graph of a tensor"),
    **dict.fromkeys("can_cast finfo iinfo isdtype result_type".split(), "about dtypes"),
    **dict.fromkeys(
        "default_device device devices memory set_default_device".split(), "about devices"
    ),
    **dict.fromkeys(
        "grad hessian hvp jacobian jvp value_and_grad vjp".split(), "takes derivatives"
    ),
    **dict.fromkeys(
        "checkpoint compile custom_vjp elementwise_kernel vmap".split(),
        "makes differentiable functions",
    ),
    "broadcast_shapes": "about shapes",
    "draw": "shows derivatives",
    "asarray": "keeps the graph of a tensor",
    "from_dlpack": "of data from outside",
    **dict.fromkeys("fft.fftfreq fft.rfftfreq".split(), "makes a constant"),
    **dict.fromkeys("geomspace linspace logspace".split(), "of its ends, through arithmetic"),
}

# What no row shows because it is not there.
OMISSIONS = (
    "neither a derivative nor a reason for having none",
    "derivatives of complex arguments not checked",
)

MODULES = {"": gg, "fft.": gg.fft, "linalg.": gg.linalg, "nn.": gg.nn, "special.": gg.special}


@dataclass
class Measured:
    """What was measured of one public function on one device: the largest over its rows.

    Attributes:
        forward: error of a value against the reference, in units of its dtype's epsilon.
        errors: of the derivatives.
        launches: kernels of the first row, forward and backward; None where they are not counted.
        failures: what is wrong.
    """

    forward: float = 0.0
    errors: Errors = field(default_factory=Errors)
    launches: int | None = None
    failures: list[str] = field(default_factory=list)


@dataclass
class Entry:
    """What was found about one public function.

    Attributes:
        vjp, jvp, second, complex: "yes", "" (not applicable), or what went wrong.
        devices: where -> "yes", "needs <library>" or what went wrong.
        note: why there is no derivative.
        measured: where -> the numbers, of a function with rows.
    """

    name: str
    vjp: str = ""
    jvp: str = ""
    second: str = ""
    complex: str = ""
    devices: dict[str, str] = field(default_factory=dict)
    note: str = ""
    measured: dict[str, Measured] = field(default_factory=dict)


def public_functions() -> dict[str, Callable[..., Any]]:
    """Name -> function, once each, under its name in `gpugrad` itself where it has one."""
    found: dict[Any, str] = {}
    for prefix, module in reversed(MODULES.items()):
        for name in module.__all__:
            f = getattr(module, name)
            if inspect.isfunction(f) and not name.startswith("_"):
                found[f] = prefix + name
    return {name: f for f, name in sorted(found.items(), key=lambda item: item[1])}


def coverage(devices: Sequence[gg.Device], filter: str = "") -> Iterator[Entry]:
    """One entry per public function whose name contains `filter`, on each of `devices`."""
    for name in public_functions():
        if filter not in name:
            continue
        rows = [row for row in ROWS if row.name == name]
        entry = Entry(name, note=REASONS.get(name, ""))
        for device in devices:
            here, lacks = place(device), backend_of_kind(device.kind).about(device).lacks
            needs = next((row.needs for row in rows if row.needs in lacks), "")
            rows_here = [row for row in rows if row.needs not in lacks]
            with device:
                measured = Measured()
                outcomes = [_try(row, entry, measured) for row in rows_here]
                worst = next((x for x in outcomes if x != "yes"), "yes") if rows_here else ""
                if worst == "yes" and not entry.vjp:
                    entry.note = entry.note or _constant(rows_here)
                elif worst == "yes" and not entry.complex and any(map(_takes_complex, rows_here)):
                    entry.complex = OMISSIONS[1]
                if rows_here and not measured.failures:
                    measured.launches = _launches(rows_here[0], device)
            if rows_here:
                entry.measured[here] = measured
            entry.devices[here] = f"needs {needs}" if needs and worst in ("", "yes") else worst
        yield entry


def place(device: gg.Device) -> str:
    """The heading of a device."""
    emulated = backend_of_kind(device.kind).about(device).emulated
    return f"{device}, emulated" if emulated else str(device)


def _try(row: Row, entry: Entry, measured: Measured) -> str:
    """Run one row on the default device; enter what it shows."""
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            error = max(_forward(row, dtype) for dtype in row.dtypes)
    except Exception as problem:
        measured.failures.append(f"{row}: {_short(problem)}")
        return _short(problem)
    measured.forward = max(measured.forward, error)
    outcome = "yes"
    if error > row.rtol:
        outcome = f"off by {error:.3g} units of epsilon, {row.rtol:g} are allowed"
        measured.failures.append(f"{row}: {outcome}")
    orders = ((1, ("vjp", "jvp")), (2, ("second",)))
    for dtype, (order, fields) in itertools.product("dD", orders):
        if dtype in row.dtypes and row.order >= order:
            found = _check(row, dtype, order, measured)
            for name in fields if dtype == "d" else (*fields, "complex"):
                if getattr(entry, name) in ("", "yes"):
                    setattr(entry, name, found)
    return outcome


def _forward(row: Row, dtype: str) -> float:
    """The error of a value of `row` against its reference, in units of epsilon."""
    args = row.draw(dtype)
    out, expected = row.function(*map(_there, args)), row.reference(*args)
    worst = 0.0
    for x, wanted in zip(map(_host, flatten(out)[0]), flatten(expected)[0], strict=True):
        wanted = np.asarray(wanted)
        if (x.dtype, x.shape) != (wanted.dtype, wanted.shape):
            raise TypeError(f"{x.dtype} {x.shape} instead of {wanted.dtype} {wanted.shape}")
        if x.dtype.kind in "fc":
            worst = max(worst, relative_error(x, wanted) / float(np.finfo(x.dtype).eps))
        elif not np.array_equal(x, wanted):
            return np.inf
    return worst


def _launches(row: Row, device: gg.Device) -> int | None:
    """The kernels that a call of `row` and the vjp of its result launch."""
    dtype = "f" if "f" in row.dtypes else row.dtypes[-1]
    f, xs = row.of_differentiable([_there(x) for x in row.draw(dtype)])
    if not row.order:
        return backend_of_kind(device.kind).launches(device, lambda: f(*xs))
    gs = map_tree(gg.ones_like, gg.vjp(f, *xs)[0])

    def work() -> Any:
        out, pullback = gg.vjp(f, *xs)
        return out, pullback(gs)

    return backend_of_kind(device.kind).launches(device, work)


def _takes_complex(row: Row) -> bool:
    if not any(isinstance(x, Domain) for x in row.args):
        return False
    try:
        with np.errstate(all="ignore"):
            row.function(*(_there(x) for x in row.draw("D")))
    except (TypeError, ValueError):
        return False
    return True


def _check(row: Row, dtype: str, order: int, measured: Measured) -> str:
    f, xs = row.of_differentiable([_there(x) for x in row.draw(dtype)])
    try:
        measure_grads(f, xs, order, measured.errors)
    except (GradientError, NotImplementedError, TypeError) as error:
        measured.failures.append(f"{row}: {error}")
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


def _host(x: Any) -> np.ndarray:
    return x.get() if isinstance(x, gg.Tensor) else gg.asarray(x).get()


def problems(entries: Sequence[Entry]) -> list[str]:
    """What is wrong: no derivative and no reason, or a check that failed or was not made."""
    found = []
    for e in entries:
        unseen = any(x.startswith("needs") for x in e.devices.values())
        if not (e.vjp or e.note or unseen):
            found.append(f"{e.name}: {OMISSIONS[0]}")
        outcomes = [e.vjp, e.jvp, e.second, e.complex, *e.devices.values()]
        found += [
            f"{e.name}: {x}" for x in outcomes if x not in ("", "yes") and not x.startswith("needs")
        ]
    return found


_POINTS = """
## Ties, kinks and poles

What the gradient is there: the limit where there is one, else the subgradient of smallest norm;
ties share evenly. Decided otherwise: `clip` at a bound is the identity, `interp` has at a knot the
slope to its right, a singular value of 0 has the slope 1. Of a result with several elements it is
the gradient of their sum. Ends of the range and complex numbers (the direction of steepest ascent)
are here too. The tests check each line.

"""


def as_markdown(entries: Sequence[Entry]) -> str:
    """The entries as a table, and as another one the special points of their functions."""
    named = {e.name for e in entries}
    points = [p for p in POINTS if p.name in named or p.name == "x[key]"]
    with_points = {p.name for p in points}
    places = list(entries[0].devices)
    heads = ["function", "vjp", "jvp", "second order", "complex", *places, "note"]
    lines = [heads, ["---"] * len(heads)]
    for e in entries:
        where = [e.devices[place] for place in places]
        seen = "[special points](#ties-kinks-and-poles)" if e.name in with_points else ""
        note = "; ".join(filter(None, (e.note, seen)))
        lines.append([f"`{e.name}`", e.vjp, e.jvp, e.second, e.complex, *where, note])
    about = [["function", "what", "at", "gradient"], ["---"] * 4]
    for p in sorted(points, key=lambda p: p.name):
        values = (
            ", ".join(f"{name} = {shown(x)}" for name, x in zip(p.names, xs, strict=True))
            for xs in (p.args, p.gradients)
        )
        about.append([f"`{x}`" for x in (p.name, p.text, *values)])
    return _table(lines) + _POINTS + _table(about)


def _table(lines: Sequence[Sequence[str]]) -> str:
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)
