"""Functions as boxes: each knows its own derivative, and nothing of the rest of the graph.

    python examples/boxes.py
    python examples/boxes.py --draw FOLDER --plot boxes.svg

First four boxes with their local derivatives; then what happens where a value goes into several;
then the hinge loss, made of such boxes; then a linear classifier trained with it.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import figures
import numpy as np

import gpugrad as gg

# A box, and its derivative by each input, as a formula and as it is worked out from (inputs, out).
Box = tuple[Callable, list[tuple[str, Callable]]]
BOXES: dict[str, Box] = {
    "a + b": (gg.add, [("1", lambda a, b, out: 1.0), ("1", lambda a, b, out: 1.0)]),
    "a * b": (gg.multiply, [("b", lambda a, b, out: b), ("a", lambda a, b, out: a)]),
    "max(a, b)": (
        gg.maximum,
        [("[a > b]", lambda a, b, out: float(a > b)), ("[b > a]", lambda a, b, out: float(b > a))],
    ),
    "sigmoid(a)": (gg.sigmoid, [("out (1 - out)", lambda a, out: out * (1 - out))]),
}


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Functions as boxes, and the hinge loss of them.")
    parser.add_argument("--draw", type=Path, metavar="FOLDER", help="draw the graphs")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="the classifier: .svg or .png")
    parser.add_argument("--epochs", type=int, default=30, help="of its training (%(default)s)")
    args = parser.parse_args(argv)
    boxes(3.0, -2.0, args.draw)
    branching(3.0, args.draw)
    corner(args.draw)
    classifier(args.epochs, args.plot)


def scalar(x: float) -> gg.Tensor:
    return gg.asarray(x, dtype=gg.float64, requires_grad=True)


def boxes(a: float, b: float, folder: Path | None) -> None:
    """Each box's local derivatives, stated and from the tape."""
    if folder:
        both = scalar(a), scalar(b)
        with gg.keep_values():  # for the drawing: the tape alone keeps what derivatives need
            outs = {name: f(*both[: len(d)]) for name, (f, d) in BOXES.items()}
        names = dict(zip("ab", both, strict=True))
        figures.save_drawing(gg.draw(outs, names=names), folder / "boxes")
    print(f"boxes, a = {a:g}, b = {b:g}         out   local derivative    stated  by the tape")
    for name, (f, derivatives) in BOXES.items():
        inputs = [scalar(x) for x in (a, b)[: len(derivatives)]]
        out = f(*inputs)
        out.backward()
        for letter, x, (formula, stated) in zip("ab", inputs, derivatives, strict=False):
            value = stated(*(float(i) for i in inputs), float(out))
            left = f"{name:20}{float(out):10.4f}" if letter == "a" else " " * 30
            print(f"  {left}   d/d{letter} = {formula:13}{value:8.4f}{float(x.grad):13.4f}")
            assert abs(value - float(x.grad)) < 1e-15


def branching(at: float, folder: Path | None) -> None:
    """A value that goes into several boxes: their gradients are added."""
    print(f"\nbranching: y = x * x + x, x = {at:g} goes into three arrows")
    x = scalar(at)
    y = x * x + x
    if folder:
        figures.save_drawing(gg.draw(y), folder / "branching")
    y.backward()
    left, right, added = copies = [scalar(at) for _ in range(3)]  # of x, one for each arrow
    (left * right + added).backward()
    terms = [float(copy.grad) for copy in copies]
    print(f"  along each: {' + '.join(f'{t:g}' for t in terms)} = {sum(terms):g}")
    print(f"  the tape: dy/dx = {float(x.grad):g}; by hand 2 x + 1 = {2 * at + 1:g}")
    assert sum(terms) == float(x.grad)


def hinge(w: Any, phi: Any, y: Any) -> gg.Tensor:
    """Loss(x, y, w) = max(1 - (w . phi(x)) y, 0): none where the margin (w . phi) y reaches 1."""
    return gg.maximum(1 - (phi @ w) * y, 0)


def corner(folder: Path | None) -> None:
    """The gradient of the hinge loss below, at and above the margin 1."""
    phi, y = np.asarray([2.0, -1.0]), -1.0
    print(f"\nhinge loss, phi = {phi}, y = {y:g}: its gradient is -1[margin < 1] phi y")
    for values in ([-0.5, -0.5], [-0.5, 0.0], [-1.0, 0.0]):
        w = gg.asarray(values, dtype=gg.float64, requires_grad=True)
        with gg.keep_values():  # for the drawing
            loss = hinge(w, gg.asarray(phi, device=w.device), y)
        margin = float(phi @ values * y)
        if folder and margin < 1:
            figures.save_drawing(gg.draw(loss), folder / "hinge")
        loss.backward()
        tape = w.grad.get() + 0.0  # no minus before a zero
        share = 0.5 if margin == 1 else float(margin < 1)
        print(f"  margin {margin:3g}: loss {float(loss):3g}, gradient {tape} = {0 - share:g} phi y")
        assert (tape == -share * phi * y).all()
    print("  At 1 the loss has a corner, and any part of -phi y from none to all is a subgradient:")
    print("  the two sides of gpugrad's max share a tie, a half each.")


def points() -> tuple[np.ndarray, np.ndarray]:
    """Two clouds of 40: phi = (1, x1, x2), and the classes -1 and 1, three of each mislabelled."""
    rng = np.random.default_rng(1)
    y = np.repeat([-1.0, 1.0], 40)
    x = rng.normal(0, 0.8, (80, 2)) + y[:, None] * [1.5, 1.0]
    y[[0, 1, 2, 40, 41, 42]] *= -1
    return np.column_stack([np.ones(80), x]), y


def train(phi: gg.Tensor, y: gg.Tensor, epochs: int) -> gg.Tensor:
    """Stochastic subgradient descent, w := w - rate dLoss/dw, one point at a time."""
    gradient = gg.grad(hinge)
    rng = np.random.default_rng(0)
    w = gg.zeros(3, dtype=gg.float64)
    for epoch in range(epochs):
        for i in rng.permutation(len(phi)).tolist():
            w = w - 0.05 / (1 + epoch) * gradient(w, phi[i, :], y[i])
    return w


def classifier(epochs: int, file: Path | None) -> None:
    phi, y = (gg.asarray(x, device=gg.default_device()) for x in points())
    w = train(phi, y, epochs)
    margin = (phi @ w) * y
    wrong, inside = (int(gg.count_nonzero(margin < bound)) for bound in (0, 1))
    loss = float(gg.mean(hinge(w, phi, y)))
    print(f"\na linear classifier, {len(y)} points, 6 of them mislabelled, {epochs} epochs")
    print(f"  w = {np.round(w.get(), 3)}, mean hinge loss {loss:.4f}")
    print(f"  {wrong} on the wrong side; the {inside} with a margin below 1 are all that pull at w")
    if file:
        plot(file, *points(), w.get())


def plot(file: Path, phi: np.ndarray, y: np.ndarray, w: np.ndarray) -> None:
    """The points, filled where the margin is below 1, and the lines w . phi = -1, 0, 1."""
    with figures.figure(file, 5.4, 4.8) as axes:
        margin = phi @ w * y
        for label, colour, marker in ((1, figures.BLUE, "o"), (-1, figures.ORANGE, "s")):
            for chosen, fill, name in (
                (margin >= 1, "white", f"$y = {label}$"),
                (margin < 1, colour, f"$y = {label}$, margin < 1"),
            ):
                x = phi[(y == label) & chosen]
                axes.scatter(
                    *x[:, 1:].T, 26, fill, marker=marker, edgecolors=colour, label=name, zorder=3
                )
        low, high = at = np.asarray([-4.0, 4.0])
        for level in (-1, 0, 1):
            line = (level - w[0] - w[1] * at) / w[2]
            solid = level == 0
            axes.plot(at, line, "-" if solid else "--", color=figures.GREY, lw=1.8 if solid else 1)
            height = 0.35 * level - 2.35
            where = (level - w[0] - height * w[2]) / w[1], height
            axes.text(
                *where,
                rf"$w \cdot \phi = {level}$",
                fontsize=8,
                ha="center",
                va="center",
                rotation=np.degrees(np.arctan2(line[1] - line[0], high - low)),
                transform_rotates_text=True,
                bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.5},
            )
        axes.set(xlabel="$x_1$", ylabel="$x_2$", xlim=at, ylim=(-3.3, 3.3), aspect="equal")
        axes.set(title="Hinge loss: only the filled points pull at $w$")
        axes.figure.legend(loc="outside lower center", ncols=4, handletextpad=0, columnspacing=1.2)


if __name__ == "__main__":
    main()
