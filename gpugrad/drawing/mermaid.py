"""The picture in Mermaid's language, which GitHub and notebooks render by themselves."""

from __future__ import annotations

from .dot import COLOURS, FRAME, RANKS, VALUE
from .picture import Arrow, Box, Picture, nested
from .units import Instance

SHAPES = {
    "parameter": ("([", "])"),
    "input": ("[/", "/]"),
    "operation": ("[", "]"),
    "result": ("[[", "]]"),
    "scope": ("(", ")"),
    "more": (">", "]"),
}


def mermaid(picture: Picture, direction: str) -> str:
    """The text of a flow chart."""
    groups: dict[Instance, list[str]] = {}
    for i, box in enumerate(picture.boxes):
        groups.setdefault(box.scope, []).append(_box(i, box))
    kinds = dict.fromkeys(box.kind for box in picture.boxes)
    lines = ["---", f"title: {picture.caption}", "---", f"flowchart {RANKS[direction]}"]
    lines += nested(groups, _opening, "end")
    lines += [f"  {_arrow(arrow)}" for arrow in picture.arrows]
    scopes = {x for scope in groups for x in scope}
    for _, number in sorted(scopes, key=lambda x: x[1]):
        lines.append(f"  style scope_{number} fill:none,stroke:{FRAME}")
    for kind in kinds:
        fill, line = COLOURS[kind]
        dashes = ",stroke-dasharray:4" if kind == "more" else ""
        lines.append(f"  classDef {kind} fill:{fill},stroke:{line},color:{VALUE}{dashes}")
    return "\n".join([*lines, ""])


def _opening(scope: Instance) -> str:
    name, number = scope[-1]
    return f'subgraph scope_{number}["{_text(name)}"]'


def _box(i: int, box: Box) -> str:
    parts = [box.title, *box.lines]
    several = len(box.ports) > 1
    for name, text in zip(box.names, box.ports):
        if text:
            parts.append(f"∂/∂{name} = {text}" if several else f"∂ = {text}")
    if box.gradient:
        parts.append(box.gradient)
    start, end = SHAPES[box.kind]
    return f'n{i}{start}"{"<br/>".join(map(_text, parts))}"{end}:::{box.kind}'


def _arrow(arrow: Arrow) -> str:
    words = "<br/>".join(_text(x) for x in (arrow.value, arrow.gradient) if x)
    label = f'|"{words}"|' if words else ""
    return f"n{arrow.source} -->{label} n{arrow.target}"


def _text(text: str) -> str:
    """`text` with what Mermaid and HTML would take for their own as entities."""
    printable = "".join(c if c.isprintable() else " " for c in text)
    special = {"#": "#35;", "&": "#amp;", '"': "#quot;", "<": "#lt;", ">": "#gt;", "`": "#96;"}
    return "".join(special.get(c, c) for c in printable)
