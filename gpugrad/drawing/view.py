"""Which units share a box: scopes that are folded, scopes that repeat, and what is left out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .units import Instance, Tape, Unit


@dataclass(frozen=True)
class Folded:
    """The key of a scope that is one box, or of scopes that repeat one after the other.

    Attributes:
        scope: the first of them.
        last: the name of the last, if there are several.
        count: how often they repeat.
    """

    scope: Instance
    last: str = ""
    count: int = 1


class View:
    """Which box a unit is in: its own, that of a folded scope, or the one of all that is left out.

    Args:
        depth: scopes deeper than this are one box each; None for no folding.
        limit: how many boxes of operations there may be; of parameters and inputs twice as many.
    """

    def __init__(self, tape: Tape, depth: int | None, limit: int) -> None:
        self.key: dict[Unit, Any] = {}
        for unit in tape.units:
            self.key[unit] = unit
            if depth is not None and len(unit.scope) > depth:
                self.key[unit] = Folded(unit.scope[: depth + 1])
        self._repeat(tape)
        self._cut(tape, limit)

    def _repeat(self, tape: Tape) -> None:
        """Make one box of folded scopes in a chain that repeat, alone or several in turn."""
        inside: dict[Any, list[str]] = {}
        takes: dict[Any, set] = {}
        gives: dict[Any, set] = {}
        for unit in tape.units:
            key = self.key[unit]
            if isinstance(key, Folded) and unit.node is not None:
                words = f"{unit.kind} {unit.name} {unit.node.shape} {unit.node.dtype}"
                inside.setdefault(key, []).append(words)
            for link in unit.links:
                source = self.key[link.source]
                if source != key and link.source.kind == "operation":
                    takes.setdefault(key, set()).add(source)
                    gives.setdefault(source, set()).add(key)
        chain: list[Folded] = []
        operations = (self.key[unit] for unit in tape.units if unit.kind == "operation")
        for key in [*dict.fromkeys(operations), None]:
            last = chain[-1] if chain else None
            follows = takes.get(key) == {last} and gives.get(last) == {key}
            if isinstance(key, Folded) and last and follows and key.scope[:-1] == last.scope[:-1]:
                chain.append(key)
                continue
            self._join(chain, [sorted(inside[x]) for x in chain])
            chain = [key] if isinstance(key, Folded) else []

    def _join(self, chain: list[Folded], inside: list[list[str]]) -> None:
        start = 0
        while start < len(chain):
            most, count = 0, 1
            for period in range(1, min(8, (len(chain) - start) // 2) + 1):
                end = start + period
                while end < len(chain) and inside[end] == inside[end - period]:
                    end += 1
                times = (end - start) // period
                if times > 1 and times * period > most:
                    most, count = times * period, times
            if most:
                whole = chain[start : start + most]
                equal = set(whole)
                one = Folded(whole[0].scope, whole[-1].scope[-1][0], count)
                self.key.update({u: one for u, key in self.key.items() if key in equal})
            start += most or 1

    def _cut(self, tape: Tape, limit: int) -> None:
        """Leave what lies furthest from the results to the box of the rest.

        The distance is along the longest way: whatever a box takes lies further than itself, so
        that nothing goes from what is shown into the rest and back.
        """
        far: dict[Any, int] = {}
        for unit in reversed(tape.units):
            key = self.key[unit]
            for link in unit.links:
                source = self.key[link.source]
                if source != key:
                    far[source] = max(far.get(source, 0), far.get(key, 0) + 1)
        for kinds, most in ((("operation",), limit), (("parameter", "input"), 2 * limit)):
            keys = dict.fromkeys(self.key[u] for u in reversed(tape.units) if u.kind in kinds)
            boxes = [k for k in keys if kinds[0] == "operation" or isinstance(k, Unit)]
            if len(boxes) > most:
                rest = set(sorted(boxes, key=lambda k: far.get(k, 0))[most:])
                for unit, key in self.key.items():
                    if key in rest:
                        self.key[unit] = "more"
        self._absorb(tape)

    def _absorb(self, tape: Tape) -> None:
        """What is only used by the rest belongs to it."""
        users: dict[Unit, set] = {}
        for unit in tape.units:
            for link in unit.links:
                users.setdefault(link.source, set()).add(self.key[unit])
        for unit, keys in users.items():
            if unit.kind in ("parameter", "input") and keys == {"more"}:
                self.key[unit] = "more"
