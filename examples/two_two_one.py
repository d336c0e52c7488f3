"""The smallest network worth drawing: two inputs, two hidden units, one output, all by hand.

    python examples/two_two_one.py
    python examples/two_two_one.py --draw FOLDER

    h1 = sigmoid(w1 x1 + w2 x2 + b1)
    h2 = sigmoid(w3 x1 + w4 x2 + b2)
    o1 = sigmoid(w5 h1 + w6 h2 + b3)        C = (o1 - y)^2

Every partial derivative, from dC/do1 down to dC/dw1, is a product of small factors along the path
from the cost to it. They are multiplied here one by one, beside what the tape says, which
multiplies the same factors on its way backwards, but shares what the paths have in common.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import figures

import gpugrad as gg

X1, X2, Y = 1.0, -2.0, 1.0
START = {
    "w1": 0.5,
    "w2": -0.25,
    "b1": 0.1,
    "w3": -0.75,
    "w4": 0.5,
    "b2": -0.2,
    "w5": 0.8,
    "w6": -1.2,
    "b3": -0.3,
}
RATE = 1.0

# Which factors to multiply: the path from C to what it is differentiated by.
PATHS = {
    "dC/do1": "dC/do1",
    "dC/dz3": "dC/do1 · do1/dz3",
    "dC/dw5": "dC/do1 · do1/dz3 · dz3/dw5",
    "dC/dw6": "dC/do1 · do1/dz3 · dz3/dw6",
    "dC/db3": "dC/do1 · do1/dz3 · dz3/db3",
    "dC/dh1": "dC/do1 · do1/dz3 · dz3/dh1",
    "dC/dh2": "dC/do1 · do1/dz3 · dz3/dh2",
    "dC/dz1": "dC/do1 · do1/dz3 · dz3/dh1 · dh1/dz1",
    "dC/dz2": "dC/do1 · do1/dz3 · dz3/dh2 · dh2/dz2",
    "dC/dw1": "dC/do1 · do1/dz3 · dz3/dh1 · dh1/dz1 · dz1/dw1",
    "dC/dw2": "dC/do1 · do1/dz3 · dz3/dh1 · dh1/dz1 · dz1/dw2",
    "dC/db1": "dC/do1 · do1/dz3 · dz3/dh1 · dh1/dz1 · dz1/db1",
    "dC/dw3": "dC/do1 · do1/dz3 · dz3/dh2 · dh2/dz2 · dz2/dw3",
    "dC/dw4": "dC/do1 · do1/dz3 · dz3/dh2 · dh2/dz2 · dz2/dw4",
    "dC/db2": "dC/do1 · do1/dz3 · dz3/dh2 · dh2/dz2 · dz2/db2",
}


def network(p: Mapping[str, gg.Tensor]) -> dict[str, gg.Tensor]:
    """Every value on the way from the inputs to the cost, by name."""
    x1, x2, y = (gg.asarray(x, dtype=gg.float64) for x in (X1, X2, Y))
    z1 = p["w1"] * x1 + p["w2"] * x2 + p["b1"]
    z2 = p["w3"] * x1 + p["w4"] * x2 + p["b2"]
    h1, h2 = gg.sigmoid(z1), gg.sigmoid(z2)
    z3 = p["w5"] * h1 + p["w6"] * h2 + p["b3"]
    o1 = gg.sigmoid(z3)
    inputs = {"x1": x1, "x2": x2, "y": y}
    return inputs | {"z1": z1, "z2": z2, "h1": h1, "h2": h2, "z3": z3, "o1": o1, "C": (o1 - y) ** 2}


def factors(p: Mapping[str, float], v: Mapping[str, float]) -> dict[str, tuple[str, float]]:
    """The derivative of each step by what goes into it: as a formula, and its value."""
    h1, h2, o1 = v["h1"], v["h2"], v["o1"]
    return {
        "dC/do1": ("2 (o1 - y)", 2 * (o1 - Y)),
        "do1/dz3": ("o1 (1 - o1)", o1 * (1 - o1)),
        "dz3/dw5": ("h1", h1),
        "dz3/dw6": ("h2", h2),
        "dz3/db3": ("1", 1.0),
        "dz3/dh1": ("w5", p["w5"]),
        "dz3/dh2": ("w6", p["w6"]),
        "dh1/dz1": ("h1 (1 - h1)", h1 * (1 - h1)),
        "dh2/dz2": ("h2 (1 - h2)", h2 * (1 - h2)),
        "dz1/dw1": ("x1", X1),
        "dz1/dw2": ("x2", X2),
        "dz1/db1": ("1", 1.0),
        "dz2/dw3": ("x1", X1),
        "dz2/dw4": ("x2", X2),
        "dz2/db2": ("1", 1.0),
    }


def by_hand(p: Mapping[str, float], v: Mapping[str, float]) -> dict[str, float]:
    """Each derivative of the cost: the product of the factors on its path."""
    known = factors(p, v)
    return {d: math.prod(known[f][1] for f in path.split(" · ")) for d, path in PATHS.items()}


def by_tape(p: Mapping[str, gg.Tensor], v: Mapping[str, gg.Tensor]) -> dict[str, float]:
    """The same from one sweep: of the parameters in `.grad`, of what lies between by hooks."""
    found = {}
    for name in ("z1", "z2", "h1", "h2", "z3", "o1"):
        v[name].register_hook(lambda g, name=name: found.update({f"dC/d{name}": float(g)}))
    v["C"].backward()
    return found | {f"dC/d{name}": float(x.grad) for name, x in p.items()}


def numbers(tensors: Mapping[str, gg.Tensor]) -> dict[str, float]:
    return {name: float(x) for name, x in tensors.items()}


def draw(p: Mapping[str, gg.Tensor], v: Mapping[str, gg.Tensor], path: Path) -> None:
    figures.save_drawing(gg.draw(v["C"], names={**p, **v}, direction="down"), path)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="A network of 2-2-1 units, by hand and by tape.")
    parser.add_argument("--draw", type=Path, metavar="FOLDER", help="draw its graph, twice")
    folder = parser.parse_args(argv).draw

    p = {name: gg.asarray(x, dtype=gg.float64, requires_grad=True) for name, x in START.items()}
    with gg.keep_values():  # for the drawing: the tape alone keeps what derivatives need
        v = network(p)
    print("forwards: the output is o1, and should be y")
    for names in ("x1 x2 y", "z1 z2 h1 h2", "z3 o1 C"):
        print("  " + "   ".join(f"{name} = {float(v[name]):7.4f}" for name in names.split()))
    if folder:
        draw(p, v, folder / "two_two_one_before")

    print("\nthe factors, one for each arrow of the graph")
    for name, (formula, value) in factors(numbers(p), numbers(v)).items():
        print(f"  {name:7} = {formula:11} = {value:8.4f}")

    print(f"\nthe chain rule{'by hand':>56}{'tape':>13}")
    hand, tape = by_hand(numbers(p), numbers(v)), by_tape(p, v)
    for name, path in PATHS.items():
        shown = path if name != path else "2 (o1 - y)"
        print(f"  {name} = {shown:48}{hand[name]:12.8f} {tape[name]:12.8f}")
        assert math.isclose(hand[name], tape[name], rel_tol=1e-12), name

    print(f"\none update, w := w - {RATE} · dC/dw")
    for name, x in p.items():
        new = float(x) - RATE * tape[f"dC/d{name}"]
        print(f"  {name} := {float(x):5.2f} - ({tape[f'dC/d{name}']:8.5f}) = {new:8.5f}")
        p[name] = gg.asarray(new, dtype=gg.float64, requires_grad=True)
    with gg.keep_values():
        after = network(p)
    print(f"  o1: {float(v['o1']):.4f} -> {float(after['o1']):.4f}, wanted {Y:g}")
    print(f"  C:  {float(v['C']):.4f} -> {float(after['C']):.4f}")
    if folder:
        draw(p, after, folder / "two_two_one_after")


if __name__ == "__main__":
    main()
