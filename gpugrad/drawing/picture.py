"""The picture: boxes and arrows with what is written on them, still without a notation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..batches import BatchedArray
from ..rules import NUMBERS
from ..tape import Node
from . import values
from .naming import Names
from .units import Instance, Link, Tape, Unit, shared
from .values import Gradients
from .view import Folded, View

PARALLEL = 8  # more arrows than this between two boxes are one
COPIES = 4  # a parameter or input with more arrows than this is drawn at each of them

SYMBOLS = {
    "add": "+",
    "subtract": "−",
    "multiply": "×",
    "divide": "÷",
    "matmul": "@",
    "maximum": "max",
    "minimum": "min",
    "negative": "−x",
    "square": "x²",
    "sqrt": "√x",
}


@dataclass(eq=False)
class Box:
    """One box.

    Attributes:
        kind: "parameter", "input", "operation", "result", "scope" (folded) or "more" (left out).
        title, lines: what is written in it.
        gradient: the whole gradient, where the contributions of several arrows add up.
        ports: per argument of an operation its local derivative, "" where there is none.
        names: of those arguments.
        scope: the name scopes around it.
        where: file and line of the call, if known.
    """

    kind: str
    title: str
    lines: list[str] = field(default_factory=list)
    gradient: str = ""
    ports: list[str] = field(default_factory=list)
    names: Sequence[str] = ()
    scope: Instance = ()
    where: tuple[str, int] | None = None


@dataclass(eq=False)
class Arrow:
    """A value on its way from one box (a number in `boxes`) to another, and the gradient back."""

    source: int
    target: int
    port: int = 0
    value: str = ""
    gradient: str = ""


@dataclass
class Picture:
    """Boxes, arrows between them, and what is written below."""

    boxes: list[Box]
    arrows: list[Arrow]
    caption: str


def nested(
    groups: Mapping[Instance, list[str]], opening: Callable[[Instance], str], closing: str
) -> list[str]:
    """Lines of text by scope, each scope between its opening and closing lines, indented."""
    scopes = {scope[:n] for scope in groups for n in range(len(scope) + 1)}
    lines: list[str] = []
    opened: Instance = ()

    def close(scope: Instance) -> None:
        lines.extend("  " * n + closing for n in range(len(opened), len(scope), -1))

    for scope in sorted(scopes, key=lambda scope: [number for _, number in scope]):
        outer = shared(opened, scope)
        close(outer)
        if scope:
            lines.append("  " * len(scope) + opening(scope))
        opened = scope
        lines += ["  " * (len(scope) + 1) + text for text in groups.get(scope, ())]
    close(())
    return lines


# ---- from units to boxes


class Painter:
    """Makes the picture of a tape.

    Args:
        seeds: result -> the cotangent that a reverse sweep starts with; None for no sweep.
    """

    def __init__(
        self,
        order: list[Node],
        tape: Tape,
        names: Names,
        seeds: dict[Node, Any] | None,
        view: View,
    ) -> None:
        self.tape, self.names, self.view = tape, names, view
        self.members: dict[Any, list[Unit]] = {}
        for unit in tape.units:
            self.members.setdefault(view.key[unit], []).append(unit)
        self.links = self._shown_links()
        self.counted_in = self._crowds()
        self.leaving = Counter(link.source for link, _, _ in self.links)
        self.copied = {
            unit
            for unit, n in self.leaving.items()
            if n > COPIES and unit.kind in ("parameter", "input") and view.key[unit] is unit
        }
        small = {
            link.value
            for link, _, _ in self.links
            if link.value is not None and values.size_of(link.value.shape) <= values.SMALL
        }
        values.compute_again(tape, order, small)
        self.seeds: dict[Any, Any] = seeds or {}
        self.gradients = self._sweep(order) if seeds else None
        self._find_home(order)

    def _shown_links(self) -> list[tuple[Link, Unit, int]]:
        """Links between boxes, where each leads to, and how many it stands for.

        Between the same two boxes one value goes once, if one of them is several units or it went
        too often; and into or out of the rest one arrow is enough.
        """
        key = self.view.key
        merged: dict[Any, list[tuple[Link, Unit]]] = {}
        self.uses = Counter(link.value for unit in self.tape.units for link in unit.links)
        often = Counter((link.source, unit) for unit in self.tape.units for link in unit.links)
        for unit in self.tape.units:
            for link in unit.links:
                ends = (key[link.source], key[unit])
                if ends[0] == ends[1]:
                    continue
                if "more" in ends:
                    merged.setdefault(ends, []).append((link, unit))
                elif often[link.source, unit] > PARALLEL or not all(
                    isinstance(end, Unit) for end in ends
                ):
                    value = link.source if link.value is None else link.value
                    merged.setdefault((ends, value), []).append((link, unit))
                else:
                    merged.setdefault(link, []).append((link, unit))
        return [(*links[0], len(links)) for links in merged.values()]

    def _crowds(self) -> dict[Any, list[Unit]]:
        """Shared parameters that a folded box counts: those of many boxes, or where there are many.

        No links lead from them; what has no other links either is not drawn.
        """
        key = self.view.key
        crowds: dict[Any, list[Unit]] = {}
        for link, to, _ in self.links:
            outside = link.source.kind == "parameter" and key[link.source] is link.source
            if outside and isinstance(key[to], Folded):
                crowds.setdefault(key[to], []).append(link.source)
        often = Counter(link.source for link, _, _ in self.links)
        for folded, units in crowds.items():
            if len(units) <= COPIES:
                crowds[folded] = [unit for unit in units if often[unit] > PARALLEL]
        counted = {(unit, folded) for folded, units in crowds.items() for unit in units}
        self.links = [x for x in self.links if (x[0].source, key[x[1]]) not in counted]
        for unit in {unit for unit, _ in counted} - {link.source for link, _, _ in self.links}:
            del self.members[unit]
        return crowds

    def _sweep(self, order: list[Node]) -> Gradients:
        edges = {link.edge for link, _, n in self.links if link.edge is not None and n == 1}
        totals = {unit.node for unit in self.leaving if unit.node and self._branches(unit)}
        totals |= {link.value for link, _, n in self.links if n > 1 and link.value is not None}
        return Gradients(order, self.seeds, edges, totals)

    def _branches(self, unit: Unit) -> bool:
        return self.leaving[unit] > 1 and unit.kind in ("parameter", "operation")

    def _find_home(self, order: list[Node]) -> None:
        """The device and dtype that go without saying."""
        arrays = [*self.tape.operands.values(), *self.seeds.values()]
        places = Counter(values.device_of(x) for x in arrays if type(x) not in NUMBERS)
        places.update(home for node in order if (home := self._home(node)))
        dtypes = Counter(str(node.dtype) for node in order if node.dtype is not None)
        self.dtypes = len(dtypes)
        self.device = places.most_common(1)[0][0] if places else ""
        self.several = len(places) > 1
        self.dtype = dtypes.most_common(1)[0][0]

    # ---- words

    def _home(self, x: Any) -> str | None:
        """The device of an array, or of the value of a node if it is known."""
        if not isinstance(x, Node):
            return values.device_of(x)
        if x in self.tape.values:
            return values.device_of(self.tape.values[x])
        return self.gradients.devices.get(x) if self.gradients else None

    def _described(self, x: Any, shape: bool = True) -> str:
        """Shape, dtype, device and memory of a node or an array."""
        words = [] if not shape else ["scalar" if x.shape == () else str(x.shape)]
        if str(x.dtype) != self.dtype:
            words.insert(0, str(x.dtype))
        if values.size_of(x.shape) > values.SMALL:
            words.append(values.memory(values.size_of(x.shape) * x.dtype.itemsize))
        if self.several and (home := self._home(x)) not in (None, self.device):
            words.append(f"on {home}")
        return " ".join(words)

    def _value(self, link: Link, to: Unit) -> str:
        """What stands above the line of a link; a box of its own has said it of arrays already."""
        unit = link.source
        if link.value is None:
            array = unit.array
            if type(array) in NUMBERS or self.names.of_array(array) is None:
                return ""
            small = values.size_of(array.shape) <= values.SMALL
            return values.numbers(array) if small else ""
        node = link.value
        array = self.tape.values.get(node)
        large = values.size_of(node.shape) > values.SMALL
        if large and unit.kind == "parameter":
            return ""
        known = not (array is None or large or isinstance(array, BatchedArray))
        text = values.numbers(array) if known else self._described(node)
        if known:
            text = " ".join(filter(None, (text, self._described(node, shape=False))))
        name = self.names.of_node(node) if unit.kind == "operation" else None
        if name is None or to.kind == "result":  # which has a name of its own
            return text
        return f"{name} = {text}" if known else f"{name}: {text}"

    def _gradient(self, link: Link, count: int) -> str:
        if self.gradients is None:
            return ""
        if count > 1:
            if link.value is None or count < self.uses[link.value]:
                return ""
            return self.gradients.of_node.get(link.value, "")
        if link.edge is not None:
            return self.gradients.of_edge.get(link.edge, "")
        return values.gradient_text(self.seeds[link.value]) if link.value in self.seeds else ""

    # ---- boxes

    def _box(self, key: Any, units: list[Unit]) -> Box:
        if not isinstance(key, Unit):
            return self._rest(units) if key == "more" else self._folded(key, units)
        box = getattr(self, f"_{key.kind}")(key)
        box.scope, box.where = key.scope, key.where
        if key.node is not None and self.gradients is not None and self._branches(key):
            box.gradient = self.gradients.of_node.get(key.node, "")
        if key.kind != "result" and key.node is not None and key.node.hooks:
            box.lines.append("hook, not run")
        return box

    def _parameter(self, unit: Unit) -> Box:
        assert unit.node is not None
        lines = []
        if values.size_of(unit.node.shape) > values.SMALL:
            lines.append(self._described(unit.node))
        return Box("parameter", self.names.of_node(unit.node) or "parameter", lines)

    def _input(self, unit: Unit) -> Box:
        array = unit.array
        name = self.names.of_array(array)
        if type(array) in NUMBERS:
            return Box("input", values.number(array))
        if values.size_of(array.shape) <= values.SMALL and not isinstance(array, BatchedArray):
            return Box("input", name or values.numbers(array))
        return Box("input", name or unit.name or "input", [self._described(array)])

    def _operation(self, unit: Unit) -> Box:
        assert unit.node is not None
        ports = [""] * len(unit.names)
        like = self.tape.values.get(unit.node)
        if like is None:
            like = next(
                (self.tape.values[x.value] for x in unit.links if x.value in self.tape.values), None
            )
        for link in unit.links:
            if link.edge is not None and like is not None:
                ports[link.port] = values.local_derivative(*link.edge, like) or ""
        return Box("operation", SYMBOLS.get(unit.name, unit.name), ports=ports, names=unit.names)

    def _result(self, unit: Unit) -> Box:
        return Box("result", unit.name)

    def _folded(self, key: Folded, units: list[Unit]) -> Box:
        operations = [u.name for u in units if u.kind == "operation"]
        operations = operations[: len(operations) // key.count]
        few = len(operations) <= 3
        line = ", ".join(operations) if few else f"{len(operations):,} operations"
        title = key.scope[-1][0]
        if key.count > 1:
            title, line = f"{title} … {key.last}", f"{key.count} × ({line})"
        own, shared = (self._counted(x) for x in (units, self.counted_in.get(key, ())))
        lines = [line, *own, *(f"shared: {words}" for words in shared)]
        return Box("scope", title, lines, scope=key.scope[:-1])

    def _rest(self, units: list[Unit]) -> Box:
        operations = Counter(u.name for u in units if u.kind == "operation")
        most = [f"{n:,} {name}" for name, n in operations.most_common(4)]
        others = operations.total() - sum(n for _, n in operations.most_common(4))
        if others:
            most.append(f"{others:,} other{'s' if others > 1 else ''}")
        count = operations.total()
        what = f"more operation{'s' if count > 1 else ''}" if count else "more"
        title = f"{count or len(units):,} {what}"
        inputs = sum(u.kind == "input" for u in units)
        lines = [", ".join(most)] if most else []
        lines += self._counted(units)
        if inputs:
            lines.append(f"{inputs:,} input{'s' if inputs > 1 else ''}")
        return Box("more", title, lines)

    def _counted(self, units: Iterable[Unit]) -> list[str]:
        """How many parameters, element by element, in how much memory."""
        nodes = [u.node for u in units if u.kind == "parameter" and u.node is not None]
        if not nodes:
            return []
        sizes = [values.size_of(x.shape) for x in nodes]
        count = sum(sizes)
        space = sum(n * x.dtype.itemsize for n, x in zip(sizes, nodes, strict=True))
        return [f"{count:,} parameter{'s' if count > 1 else ''}, {values.memory(space)}"]

    def picture(self) -> Picture:
        boxes: list[Box] = []
        numbers: dict[Any, int] = {}
        for key, units in self.members.items():
            if key not in self.copied:
                numbers[key] = len(boxes)
                boxes.append(self._box(key, units))
        arrows = []
        for link, to, count in self.links:
            source, target = self.view.key[link.source], self.view.key[to]
            if source in self.copied:
                box = self._box(source, [])
                box.scope = to.scope
                boxes.append(box)
            arrow = Arrow(
                len(boxes) - 1 if source in self.copied else numbers[source], numbers[target]
            )
            if isinstance(target, Unit):
                arrow.port = link.port
            if count == 1 or "more" not in (source, target):  # else of several values
                arrow.value = self._value(link, to)
                arrow.gradient = self._gradient(link, count)
            arrows.append(arrow)
        return Picture(boxes, arrows, self._caption())

    def _caption(self) -> str:
        units = self.tape.units
        operations = sum(u.kind == "operation" for u in units)
        words = [f"{self.dtype} on {self.device}" if self.device else self.dtype]
        if self.several or self.dtypes > 1:
            words[0] += ", unless another is named"
        words.append(f"{operations:,} operation{'s' if operations != 1 else ''}")
        return " · ".join([*words, *self._counted(units)])
