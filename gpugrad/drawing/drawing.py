"""`draw`, and the Drawing that it returns."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from .. import sweeps
from ..batches import BatchedArray
from ..tape import Node, reach
from ..tensor import Tensor
from ..trees import flatten, flatten_like
from . import dot, mermaid, values
from .naming import Names
from .picture import Painter, Picture
from .units import Tape
from .view import View


def draw(
    results: Any,
    *,
    gradient: Any = None,
    names: Mapping[str, Any] | None = None,
    depth: int | None = None,
    limit: int = 60,
    direction: str = "right",
) -> Drawing:
    """The computational graph of `results`: functions as boxes, values and gradients on the arrows.

        w = gg.asarray(0.5, requires_grad=True)
        loss = (gg.sigmoid(w * 2.0) - 1.0) ** 2
        gg.draw(loss).save("loss.svg")  # in a notebook: gg.draw(loss)

    Above an arrow stands the value that goes along it, below it the gradient that comes back, in
    the box of a function its local derivative where argument and result are numbers. Of arrays
    of more than four elements it is shape, memory and the norm of the gradient; dtype and device
    stand below the picture, and at the arrow where they are others. Names are those of the
    caller's variables, and of parameters in its modules.

    Draw before `backward`, which releases the tape, or pass it `retain_graph=True`. Drawing takes
    a reverse sweep of its own: it changes no `.grad` and calls no hooks (but the rules of
    `custom_vjp` and checkpointed functions run), and waits for the device to read what it shows.
    A tape keeps only what derivatives need. Other values are found where a Tensor still holds
    them, or computed again from what is known; the rest are left out. What ran inside
    `gg.keep_values()` is shown in full. Inside `vmap` there is a value per example: none is shown.

    Args:
        results: a Tensor, or several in nested lists, tuples and dicts (whose keys name them).
        gradient: cotangents to start from, in the structure of `results`. Results of one element
            start from one; without a cotangent for every other, no gradients are drawn.
        names: name -> Tensor, array or Module, for what should be named otherwise.
        depth: name scopes deeper than this are drawn as one box; 0 folds all, None none.
        limit: how many functions are drawn, those nearest to the results; the others are one box
            that says what it stands for. Of parameters and inputs it is twice as many.
        direction: where the arrows lead, "right", "down" or "up"; long chains fit a page better
            when they lead down.

    Returns:
        A drawing with the texts `.svg`, `.mermaid` and `.dot`, and `.save(path)` for files .svg,
        .png, .pdf, .mmd and .dot. SVG, PNG and PDF need Graphviz (extra `viz` and the program).

    Raises:
        RuntimeError: if a result does not require a gradient, or its tape was released, or an
            array on it was changed.
        ValueError, TypeError: for a gradient that does not fit, or an unknown direction.
    """
    if direction not in dot.RANKS:
        raise ValueError(f"draw: direction is one of {', '.join(dot.RANKS)}, not {direction!r}")
    if limit < 1 or (depth is not None and depth < 0):
        raise ValueError(f"draw: limit must be positive and depth not negative: {limit}, {depth}")
    leaves, _ = flatten(results)
    for x in leaves:
        _check(x)
    roots = [x.node for x in leaves]
    seeds = _seeds(results, leaves, gradient)
    order, _ = reach(roots)
    with np.errstate(all="ignore"):  # warnings have been given when it was computed
        tape = Tape(order)
        values.add_alive(tape, order, leaves)
        if any(node.dtype is not None and node not in tape.values for node in order):
            values.add_alive(tape, order, values.alive())
        frame = sys._getframe(1)
        try:
            known = Names(names, frame)
        finally:
            del frame
        for path, node in zip(_paths(results), roots, strict=True):
            tape.add_result(node, path or known.of_node(node) or "result")
        for unit in tape.units:
            if unit.kind == "input" and known.of_array(unit.array):
                unit.scope = ()  # what the caller has a name for is not hidden in a scope
        view = View(tape, depth, limit)
        picture = Painter(order, tape, known, seeds, view).picture()
    return Drawing(picture, direction)


def _check(x: Any) -> None:
    if not isinstance(x, Tensor):
        raise TypeError(f"draw: expected a Tensor, got {type(x).__name__}")
    if isinstance(x.data, BatchedArray):
        raise RuntimeError("draw: a tensor inside vmap has no values of its own; draw outside")
    if x.node is None:
        raise RuntimeError(
            "draw: this tensor does not require a gradient, nor does anything it was computed "
            "from; set requires_grad=True on an input (or leave the no_grad block)"
        )


def _seeds(results: Any, leaves: list[Tensor], gradient: Any) -> dict[Node, Any] | None:
    """Cotangents to start from; None where there is not one for each result."""
    given = [None] * len(leaves)
    if gradient is not None:
        one = isinstance(results, Tensor)
        given = [gradient] if one else flatten_like(gradient, results, "draw: the gradient")
    if any(g is None and x.size != 1 for x, g in zip(leaves, given, strict=True)):
        return None
    seeds: dict[Any, Any] = {}
    for x, g in zip(leaves, given, strict=True):
        c = sweeps.seed(x, g, "draw").data
        seeds[x.node] = seeds[x.node] + c if x.node in seeds else c
    return seeds


def _paths(tree: Any, path: str = "") -> list[str]:
    """The keys that lead to each leaf in dicts; "" elsewhere, where a name is the variable's."""
    if isinstance(tree, dict):
        parts = [(f"{path}.{key}" if path else str(key), x) for key, x in tree.items()]
    elif isinstance(tree, (list, tuple)):
        parts = [(f"{path}.{i}" if path else "", x) for i, x in enumerate(tree)]
    else:
        return [path]
    return [leaf for name, x in parts for leaf in _paths(x, name)]


class Drawing:
    """What `gpugrad.draw` returns; in a notebook it shows itself.

    Attributes:
        picture: its boxes and arrows.
    """

    def __init__(self, picture: Picture, direction: str) -> None:
        self.picture = picture
        self._direction = direction

    def __repr__(self) -> str:
        kinds = Counter(box.kind for box in self.picture.boxes)
        listed = ", ".join(
            f"{n} {kind}{'s' if n > 1 and kind != 'more' else ''}" for kind, n in kinds.items()
        )
        return f"<Drawing of {listed}: .svg, .mermaid, .dot, .save(path)>"

    @cached_property
    def dot(self) -> str:
        """The text that Graphviz draws."""
        return dot.dot(self.picture, self._direction)

    @cached_property
    def mermaid(self) -> str:
        """A flow chart for Mermaid, which GitHub and notebooks render by themselves."""
        return mermaid.mermaid(self.picture, self._direction)

    @cached_property
    def svg(self) -> str:
        """The picture as SVG text, drawn by Graphviz.

        Raises:
            ImportError, RuntimeError: if the Python package or the program is missing.
        """
        return self._drawn("svg").decode()

    def save(self, path: str | Path) -> None:
        """Write the picture into a file: .svg, .png, .pdf by Graphviz, .dot or .mmd the texts.

        Raises:
            ValueError: for another suffix; ImportError, RuntimeError: as `svg`.
        """
        path = Path(path)
        kind = path.suffix.lower().removeprefix(".")
        texts = {"dot": "dot", "gv": "dot", "mmd": "mermaid"}
        if kind in texts:
            data = getattr(self, texts[kind]).encode()
        elif kind in ("svg", "png", "pdf"):
            data = self._drawn(kind)
        else:
            raise ValueError(
                f"draw: a file ends in .svg, .png, .pdf, .dot or .mmd, not {path.name!r}"
            )
        path.write_bytes(data)

    def _drawn(self, kind: str) -> bytes:
        try:
            import graphviz
        except ImportError as error:
            raise ImportError(
                'draw: SVG, PNG and PDF need Graphviz: pip install "gpugrad[viz]", and the program '
                "itself (https://graphviz.org/download); .mermaid and .dot need neither"
            ) from error
        try:
            return graphviz.pipe("dot", kind, self.dot.encode())
        except graphviz.ExecutableNotFound as error:
            raise RuntimeError(
                "draw: SVG, PNG and PDF need the program `dot` of Graphviz, which is not on the "
                "PATH: install it (apt install graphviz, brew install graphviz, or "
                "https://graphviz.org/download); .mermaid and .dot do not need it"
            ) from error

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        """For notebooks: the picture where Graphviz is there, else Mermaid's text."""
        try:
            return {"image/svg+xml": self.svg, "text/plain": repr(self)}
        except (ImportError, RuntimeError):
            return {
                "text/vnd.mermaid": self.mermaid,
                "text/markdown": f"```mermaid\n{self.mermaid}```\n",
                "text/plain": repr(self),
            }
