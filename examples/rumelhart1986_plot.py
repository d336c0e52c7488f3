"""The two pictures of `rumelhart1986.py`, drawn as in the paper."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Circle, Rectangle
from mnist_plot import BLUE, GREY, ORANGE
from rumelhart1986_trees import ENGLISH, ITALIAN


@contextmanager
def canvas(path: Path, width: float, height: float) -> Iterator[Any]:
    """Bare axes, measured in inches; an SVG that has the same bytes each time."""
    with matplotlib.rc_context({"font.size": 9, "svg.hashsalt": path.stem}):
        figure = Figure(figsize=(width, height))
        axes = figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(0, height))
        axes.set_axis_off()
        yield axes
        figure.savefig(path, metadata={"Date": None})


def symmetry(path: Path, found: Any) -> None:
    """Fig. 1: the network whose sweeps come nearest to the paper's, with weights and biases."""
    learned = np.where(found.needed > 0, found.needed, np.inf)
    seed = int(np.argmin(np.abs(learned - 1425)))
    hidden, output = found.hidden[seed], found.output[seed]
    inputs = [(3.6, 3.5 - 0.6 * i) for i in range(6)]
    units, top = [(0.9, 2.0), (6.3, 2.0)], (3.6, 4.6)
    with canvas(path, 7.2, 5.1) as axes:
        for unit, place in enumerate(units):
            for start, weight in zip(inputs, hidden[:6, unit], strict=True):
                _arrow(axes, start, place, weight, 0.27)
            _arrow(axes, place, top, output[unit, 0], 0.45)
        for place, bias in [*zip(units, hidden[6], strict=True), (top, output[2, 0])]:
            axes.add_patch(Circle(place, 0.3, fc="white", ec="black", zorder=3))
            _number(axes, place, bias, "black")
        for place in inputs:
            axes.add_patch(Circle(place, 0.17, fc=GREY, ec="black", zorder=3))
        axes.plot([2.6, 4.6], [2, 2], ":", color="black", lw=1)
        for place, text in [
            ((3.6, 0.12), "six inputs"),
            ((0.9, 1.5), "hidden unit"),
            ((6.3, 1.5), "hidden unit"),
            ((4.05, 4.6), f"is it symmetrical?\nlearned in {learned[seed]:,.0f} sweeps"),
        ]:
            side = "left" if place[1] > 4 else "center"
            axes.text(*place, text, ha=side, va="center", color=GREY)


def _arrow(axes: Any, start: Any, end: Any, weight: float, where: float) -> None:
    """An arrow from unit to unit, as thick as its weight is strong, with the number on it."""
    start, end = np.array(start), np.array(end)
    along = (end - start) / np.linalg.norm(end - start)
    colour = BLUE if weight > 0 else ORANGE
    style = {"arrowstyle": "-|>", "color": colour, "shrinkA": 0, "shrinkB": 0}
    style["lw"] = 0.5 + abs(weight) / 8
    axes.annotate("", end - 0.32 * along, start + 0.18 * along, arrowprops=style)
    _number(axes, start + where * (end - start), weight, colour)


def _number(axes: Any, place: Any, value: float, colour: str) -> None:
    box = {"boxstyle": "round,pad=0.15", "fc": "white", "ec": "none"}
    text = f"{value:+.1f}".replace("-", "\N{MINUS SIGN}")
    axes.text(*place, text, color=colour, ha="center", va="center", bbox=box, zorder=4)


def families(path: Path, found: Any) -> None:
    """Fig. 4: weights from the people, of the network that answers most new facts.

    White squares excite, black ones inhibit; the area is the strength. Above each unit stands the
    property of people that its weights correlate most with.
    """
    best = int(np.lexsort((-found.learned("0.5"), -found.new("0.5").sum(1)))[0])
    weights = found.people[best].reshape(2, 12, 6)  # tree, person, unit
    cell = 0.29
    largest = cell * 0.94 / np.sqrt(np.abs(weights).max())
    with canvas(path, 8.6, 4.5) as axes:
        for unit in range(6):
            left, bottom = 0.55 + 4 * (unit % 2), 2.75 - (unit // 2)
            axes.add_patch(Rectangle((left, bottom), 12 * cell, 2 * cell, fc="#9aa1a8", ec="none"))
            for (tree, person), w in np.ndenumerate(weights[..., unit]):
                side = largest * np.sqrt(abs(w))
                x, y = left + (person + 0.5) * cell, bottom + (1.5 - tree) * cell
                square = Rectangle((x - side / 2, y - side / 2), side, side, ec="none")
                square.set_facecolor("white" if w > 0 else "black")
                axes.add_patch(square)
            text = f"unit {unit + 1}: {_property(weights[..., unit])}"
            axes.text(left, bottom + 2 * cell + 0.06, text, va="bottom")
        for left in (0.55, 4.55):
            for person in range(12):
                x = left + (person + 0.5) * cell
                name = {"ha": "left", "va": "bottom", "rotation": 60, "rotation_mode": "anchor"}
                axes.text(x + 0.05, 3.62, ENGLISH[person], **name)
                name |= {"ha": "right", "va": "top"}
                axes.text(x + 0.02, 0.68, ITALIAN[person], **name)


def _property(weights: np.ndarray) -> str:
    """What a unit is about, with the correlation of its weights (2, 12) with it."""
    generation = [1, 1, 2, 2, 2, 3, 1, 1, 2, 2, 2, 3]
    branch = [-1, 1, -1, 1, 1, 0, -1, 1, -1, 1, -1, 0]
    about = {
        "English or Italian": np.repeat([[1], [-1]], 12, axis=1),
        "generation": np.tile(generation, (2, 1)),
        "branch of the family": np.tile(branch, (2, 1)),
        "old or young against the middle": np.tile(np.abs(np.array(generation) - 2), (2, 1)),
        "man or woman": np.tile(np.repeat([1, -1], 6), (2, 1)),
    }
    fits = {k: abs(np.corrcoef(weights.ravel(), v.ravel())[0, 1]) for k, v in about.items()}
    name = max(fits, key=fits.__getitem__)
    return f"{name} ({fits[name]:.2f})"
