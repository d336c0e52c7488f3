"""What the passes have made of a program, in numbers."""

from __future__ import annotations

import math

from .emit import is_view
from .program import Fused, Instruction, Program, Value


def summary(before: Program, after: Program) -> str:
    """A table of a program as it was recorded, and as it is run.

    Its rows: array functions that are called, views left out; loops among them that do the work
    of several; bytes that they read and write, each operand and result once; the most bytes that
    their results take at a time, those included that outlive the call.
    """
    rows = [
        ("", "recorded", "run"),
        ("operations", *(f"{len(computed(x)):,}" for x in (before, after))),
        ("fused loops", *(f"{loops(x):,}" for x in (before, after))),
        ("bytes moved", *(f"{bytes_moved(x):,}" for x in (before, after))),
        ("peak memory, bytes", *(f"{peak_memory(x):,}" for x in (before, after))),
    ]
    widths = [max(len(row[i]) for row in rows) for i in range(3)]
    lines = (f"{a:<{widths[0]}}  {b:>{widths[1]}}  {c:>{widths[2]}}" for a, b, c in rows)
    return "".join(f"{line}\n" for line in lines)


def computed(program: Program) -> list[Instruction]:
    """The instructions that compute something: views do not."""
    return [step for step in program.instructions if not is_view(step)]


def loops(program: Program) -> int:
    """How many of them are fused loops."""
    return sum(isinstance(step, Fused) for step in program.instructions)


def bytes_moved(program: Program) -> int:
    """What all instructions read and write: of each, every operand and result once; views none."""
    return sum(x.nbytes for s in computed(program) for x in {*s.operands(), *s.results})


def peak_memory(program: Program) -> int:
    """The most bytes that results need at a time; a view needs what it is a view of."""
    root: dict[Value, Value] = {}
    last: dict[Value, float] = {}
    for i, step in enumerate(program.instructions):
        if is_view(step):
            root[step.result] = root.get(step.args[0], step.args[0])
        for x in (*step.operands(), *step.results):
            last[root.get(x, x)] = i
    for x in program.wanted():
        last[root.get(x, x)] = math.inf
    live: set[Value] = set()
    peak = 0
    for i, step in enumerate(program.instructions):
        live.update(x for x in step.results if x not in root)
        peak = max(peak, sum(x.nbytes for x in live))
        live = {x for x in live if last[x] > i}
    return peak
