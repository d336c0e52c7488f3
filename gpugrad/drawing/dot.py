"""The picture in Graphviz's language."""

from __future__ import annotations

import os
from html import escape

from .picture import Arrow, Box, Picture, nested
from .units import Instance, shared

RANKS = {"right": "LR", "down": "TB", "up": "BT"}
# where a line leaves a box, where it enters one
SIDES = {"right": ("e", "w"), "down": ("s", "n"), "up": ("n", "s")}

# fill, line; told apart by shape too, for print and for the colour-blind
COLOURS = {
    "parameter": ("#fdf0d5", "#b8860b"),
    "input": ("#eef1f5", "#7b8794"),
    "operation": ("#ffffff", "#3d4852"),
    "result": ("#e3f1e5", "#3f7d4e"),
    "scope": ("#f3eefa", "#7a5ea8"),
    "more": ("#f5f5f5", "#999999"),
}
STYLES = {
    "parameter": 'shape=box, style="rounded,filled"',
    "input": "shape=box, style=filled",
    "result": "shape=box, style=filled, peripheries=2",
    "scope": 'shape=box3d, style=filled, margin="0.16,0.09"',
    "more": 'shape=box, style="filled,dashed"',
}
VALUE, GRADIENT, DERIVATIVE = "#1f2933", "#b3261e", "#1f5fa8"
QUIET, FRAME = "#6b7280", "#c9ced6"
BLANK = '<FONT POINT-SIZE="10"> </FONT>'
FONT = "Helvetica,Arial,sans-serif"


def dot(picture: Picture, direction: str) -> str:
    """The text that `dot` draws."""
    lines = [
        "digraph {",
        f'  graph [rankdir={RANKS[direction]}, ranksep=0.18, nodesep=0.14, fontname="{FONT}", '
        f'fontsize=11, fontcolor="{QUIET}", ordering=in, labeljust=l, bgcolor=white, pad=0.2];',
        f'  node [fontname="{FONT}", fontsize=12, fontcolor="{VALUE}", height=0.3, width=0.3, '
        'margin="0.1,0.05"];',
        f'  edge [color="{QUIET}", arrowsize=0.6, penwidth=0.9];',
        f"  label=<{_legend(picture)}>;",
    ]
    groups: dict[Instance, list[str]] = {}
    for i, box in enumerate(picture.boxes):
        groups.setdefault(box.scope, []).append(_box(i, box, direction))
    lines_of_arrows = []
    for i, arrow in enumerate(picture.arrows):
        scope = shared(picture.boxes[arrow.source].scope, picture.boxes[arrow.target].scope)
        label, text = _arrow(i, arrow, picture, direction)
        if label:
            groups.setdefault(scope, []).append(label)
        lines_of_arrows += text
    lines += nested(groups, _opening, "}")
    return "\n".join([*lines, *(f"  {x}" for x in lines_of_arrows), "}", ""])


def _opening(scope: Instance) -> str:
    name, number = scope[-1]
    return (
        f"subgraph cluster_{number} {{ label=<{_font(name, QUIET)}>; "
        f'style=rounded; color="{FRAME}"; margin=8;'
    )


def _font(text: str, colour: str, size: int | None = None) -> str:
    size_of = f' POINT-SIZE="{size}"' if size else ""
    return f'<FONT COLOR="{colour}"{size_of}>{_text(text)}</FONT>'


def _text(text: str) -> str:
    printable = "".join(c if c.isprintable() else " " for c in text)
    return escape(printable).replace("&#x27;", "&#39;")


def _box(i: int, box: Box, direction: str) -> str:
    fill, line = COLOURS[box.kind]
    where = ""
    if box.where:  # not the folder: a picture is shown to others
        file, number = os.path.basename(box.where[0]), box.where[1]
        where = f', tooltip="{_quoted(f"{file}:{number}")}"'
    if box.kind == "operation" and any(box.ports):
        return f"n{i} [shape=plain, width=0, height=0, label=<{_table(box, direction)}>{where}];"
    style = STYLES.get(box.kind, "shape=box, style=filled")
    return f'n{i} [{style}, fillcolor="{fill}", color="{line}", label=<{_words(box)}>{where}];'


def _words(box: Box) -> str:
    """Title and lines of a box, one below the other."""
    title = _font(box.title, VALUE, 13)
    rows = [_font(text, QUIET, 10) for text in box.lines]
    if box.gradient:
        rows.append(_font(box.gradient, GRADIENT, 10))
    if not rows:
        return title
    cells = "".join(f"<TR><TD>{row}</TD></TR>" for row in (title, *rows))
    return f'<TABLE BORDER="0" CELLBORDER="0" CELLSPACING="0" CELLPADDING="1">{cells}</TABLE>'


def _quoted(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')


def _table(box: Box, direction: str) -> str:
    """An operation with its local derivatives where the arguments come in."""
    fill, line = COLOURS["operation"]
    start = (
        f'<TABLE BORDER="1" CELLBORDER="0" CELLSPACING="0" CELLPADDING="3" '
        f'BGCOLOR="{fill}" COLOR="{line}">'
    )
    cells = [
        f'<TD PORT="p{k}" ALIGN="LEFT">{_font(f"∂ {text}", DERIVATIVE, 10) if text else BLANK}</TD>'
        for k, text in enumerate(box.ports)
    ]
    count = len(cells)
    if direction == "right":
        rows = [f"<TR>{cell}</TR>" for cell in cells]
        rows[0] = f'<TR>{cells[0]}<TD ROWSPAN="{count}">{_words(box)}</TD></TR>'
    else:
        row = f"<TR>{''.join(cells)}</TR>"
        head = f'<TR><TD COLSPAN="{count}">{_words(box)}</TD></TR>'
        rows = [row, head] if direction == "down" else [head, row]
    return f"{start}{''.join(rows)}</TABLE>"


def _arrow(i: int, arrow: Arrow, picture: Picture, direction: str) -> tuple[str, list[str]]:
    """The numbers on a line, as a node that lies on it, and the line."""
    leave, enter = SIDES[direction]
    target = picture.boxes[arrow.target]
    end = f"n{arrow.target}"
    if target.kind == "operation" and any(target.ports):
        end += f":p{arrow.port}"
    end += f":{enter}"
    start = f"n{arrow.source}:{leave}"
    if not arrow.value and not arrow.gradient:
        return "", [f"{start} -> {end};"]
    above = _font(arrow.value, VALUE, 10) if arrow.value else BLANK
    below = _font(arrow.gradient.removeprefix("∇ "), GRADIENT, 10) if arrow.gradient else BLANK
    if direction == "right":
        rows = f"<TR><TD>{above}</TD></TR><HR/><TR><TD>{below}</TD></TR>"
        middle, padding = f"e{i}", 1
    else:  # the line goes on between the two, wherever that is
        line = f'<TD PORT="m" WIDTH="1" CELLPADDING="0" BGCOLOR="{QUIET}"></TD>'
        rows = f"<TR><TD>{below}</TD>{line}<TD>{above}</TD></TR>"
        middle, padding = f"e{i}:m", 2
    label = (
        f'e{i} [shape=plain, width=0, height=0, label=<<TABLE BORDER="0" CELLBORDER="0" '
        f'CELLSPACING="0" CELLPADDING="{padding}" COLOR="{QUIET}">{rows}</TABLE>>];'
    )
    return label, [
        f"{start} -> {middle}:{enter} [arrowhead=none];",
        f"{middle}:{leave} -> {end};",
    ]


def _legend(picture: Picture) -> str:
    kinds = {box.kind for box in picture.boxes}
    swatches = [
        f'<TD BGCOLOR="{COLOURS[kind][0]}" BORDER="1" COLOR="{COLOURS[kind][1]}">'
        f"{_font(kind, VALUE, 10)}</TD><TD></TD>"
        for kind in ("parameter", "input", "result")
        if kind in kinds
    ]
    words = [_font("value →", VALUE, 10)]
    if any(arrow.gradient for arrow in picture.arrows):
        words.append(_font("← gradient", GRADIENT, 10))
    if any(text for box in picture.boxes for text in box.ports):
        words.append(_font("∂ local derivative", DERIVATIVE, 10))
    cells = "".join(swatches) + "".join(f"<TD>{word}</TD>" for word in words)
    caption = f'<TD ALIGN="LEFT">{_font(picture.caption, QUIET, 10)}</TD>'
    return (
        '<TABLE BORDER="0" CELLBORDER="0" CELLSPACING="2"><TR><TD ALIGN="LEFT">'
        f'<TABLE BORDER="0" CELLBORDER="0" CELLSPACING="2"><TR>{cells}</TR></TABLE></TD></TR>'
        f"<TR>{caption}</TR></TABLE>"
    )
