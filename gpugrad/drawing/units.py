"""What stands on a tape, as a picture shows it: one unit per call, links between them.

An operation with several results, `custom_vjp` and `checkpoint` are several nodes on the tape and
one unit here. Constants have no node: those that a node kept are units too.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from .. import backends
from ..custom import _Call, _Custom, _Gathering
from ..rules import NUMBERS, Argument, ManyOp, Op, Part
from ..tape import Node, changed_at, owner_of

Instance = tuple[tuple[str, int], ...]  # scopes around a unit: (name, which of that name)


@dataclass(eq=False)
class Unit:
    """A box to be: `kind` is "parameter", "input", "operation" or "result".

    Attributes:
        node: of a parameter, operation or result; an operation's is the one with the rules.
        array: of an input.
        names: of the arguments of an operation, by port.
        scope: the name scopes it was made in.
        name: of an operation, a result, or of the argument where an input goes in.
        where: file and line of the call, where they were noted.
    """

    kind: str
    node: Node | None = None
    array: Any = None
    name: str = ""
    names: Sequence[str] = ()
    scope: Instance = ()
    where: tuple[str, int] | None = None
    links: list[Link] = field(default_factory=list)


@dataclass(eq=False)
class Link:
    """A value on its way from a unit to the one that has this link.

    Attributes:
        value: the node whose value it is; None for an input.
        edge: of which node it is an edge on the tape, and which; None if no gradient comes back.
        port: at which argument it arrives.
    """

    source: Unit
    port: int
    value: Node | None
    edge: tuple[Node, int] | None


class Tape:
    """Units and links of a tape, and the arrays that its nodes kept.

    Args:
        order: the nodes, oldest first, as `reach` gives them.

    Attributes:
        units: in the order of the tape, inputs before those that take them.
        values: node -> its value, where a node kept it.
        operands: (node, position of the argument) -> the array of a call, where it was kept.
        owner: node -> the operation's unit.
    """

    def __init__(self, order: list[Node]) -> None:
        self.values: dict[Node, Any] = {}
        self.operands: dict[tuple[Node, int], Any] = {}
        self.owner: dict[Node, Unit] = {}
        self.units: list[Unit] = []
        self._inputs: dict[int, Unit] = {}
        for node in order:
            self._read(node)
        for node in order:
            self._add(node)
        self._place()

    # ---- what nodes kept

    def _read(self, node: Node) -> None:
        parents = {_port(node, edge): edge[0] for edge in node.edges}
        for parent, argument, kept in node.edges:
            if isinstance(argument, Argument):
                self._keep(node, argument, kept, parents)
            elif isinstance(argument, _Call):
                for (source, _, _), array in zip(parent.edges, kept[1:]):
                    self._value(source, array)
            elif isinstance(argument, _Custom):
                _, args, arrays, where = kept
                nodes = dict(zip(where, (edge[0] for edge in parent.edges), strict=True))
                for i in arrays:
                    self._operand(node, i, args[i], nodes.get(i))
        seen = getattr(node, "note", None)
        if seen is None or seen.out is None:
            return
        # the sweeps look whether what the rules need was changed in place, but not at these
        if node.dtype is not None:
            several = isinstance(seen.out, tuple) and isinstance(node.op, Part)
            out = seen.out[node.op.index] if several else seen.out
            if changed_at(owner_of(out)) <= node.serial:
                self._value(node, out)
        if isinstance(node.op, Op):
            for i, array in enumerate(seen.operands):
                if changed_at(owner_of(array)) <= node.serial:
                    self._operand(node, i, array, parents.get(i))

    def _keep(self, node: Node, argument: Argument, kept: Any, parents: dict[int, Node]) -> None:
        names = node.op.array_names
        values = (kept,) if len(argument.names) == 1 else kept
        for name, value in zip(argument.names, values):
            if name == "out" and node.dtype is not None:
                self._value(node, value)
            elif isinstance(node.op, ManyOp):
                if name == "arrays" and (node, 0) not in self.operands:  # all edges keep them
                    for i, array in enumerate(value):
                        self._operand(node, i, array, parents.get(i))
            elif name in names:
                index = names.index(name)
                self._operand(node, index, value, parents.get(index))

    def _value(self, node: Node, value: Any) -> None:
        if getattr(value, "shape", None) == node.shape and value.dtype == node.dtype:
            self.values.setdefault(node, value)

    def _operand(self, node: Node, index: int, value: Any, parent: Node | None) -> None:
        if type(value) not in NUMBERS and backends.find_backend(type(value)) is None:
            return
        self.operands.setdefault((node, index), value)
        if parent is not None:
            self._value(parent, value)

    # ---- units

    def _add(self, node: Node) -> None:
        if node.op is None:
            self._new(Unit("parameter", node), node)
        elif isinstance(node.op, Part):  # a result of an operation that is there already
            self.owner[node] = self.owner[node.edges[0][0]]
        elif isinstance(node.op, _Gathering):
            pass  # part of the operation that follows
        else:
            self._add_operation(node)

    def _new(self, unit: Unit, node: Node) -> Unit:
        seen = getattr(node, "note", None)
        if seen is not None:
            unit.scope = tuple((name, 0) for name in seen.scope)
            unit.where = seen.where
        self.units.append(unit)
        self.owner[node] = unit
        return unit

    def _add_operation(self, node: Node) -> None:
        op = node.op
        edges = [(node, k) for k in range(len(node.edges))]
        gathered = node.edges[0][0]
        if isinstance(gathered.op, _Gathering):
            edges = [(gathered, k) for k in range(len(gathered.edges))]
        where = node.edges[0][2][3] if isinstance(op, _Custom) else None
        taken = {}
        for owner, k in edges:
            port = _port(owner, owner.edges[k])
            taken[port if where is None else where[port]] = (owner, k)
        constants = {
            i: self._input(self.operands[node, i]) for i in self._positions(node) if i not in taken
        }
        unit = self._new(Unit("operation", node, name=op.name), node)
        count = max([*taken, *constants], default=-1) + 1
        names = () if isinstance(op, (ManyOp, _Call, _Custom)) else op.array_names
        unit.names = [names[i] if i < len(names) else str(i) for i in range(count)]
        for i in range(count):
            if i in taken:
                owner, k = taken[i]
                parent = owner.edges[k][0]
                unit.links.append(Link(self.owner[parent], i, parent, taken[i]))
            elif i in constants:
                if len(unit.names[i]) > 1:  # better than nothing, for what has no other name
                    constants[i].name = unit.names[i]
                unit.links.append(Link(constants[i], i, None, None))

    def _positions(self, node: Node) -> Iterator[int]:
        """Arguments of an operation that are known arrays."""
        if isinstance(node.op, ManyOp):
            return itertools.takewhile(lambda i: (node, i) in self.operands, itertools.count())
        if isinstance(node.op, _Custom):
            count = len(node.edges[0][2][1])
        else:
            count = len(getattr(node.op, "array_names", ()))
        return (i for i in range(count) if (node, i) in self.operands)

    def _input(self, array: Any) -> Unit:
        """The unit of a constant: one per array, one per use of a number."""
        if type(array) not in NUMBERS and id(array) in self._inputs:
            return self._inputs[id(array)]
        unit = Unit("input", array=array)
        self.units.append(unit)
        if type(array) not in NUMBERS:
            self._inputs[id(array)] = unit
        return unit

    def add_result(self, node: Node, name: str) -> Unit:
        """A result, behind all else."""
        unit = Unit("result", node, name=name)
        unit.links.append(Link(self.owner[node], 0, node, None))
        self.units.append(unit)
        return unit

    # ---- scopes

    def _place(self) -> None:
        """Tell apart scopes of one name: operations one after the other in it share it.

        A scope then is a piece of the tape, so a picture in which it is one box has no cycle.
        What only operations of one scope take is in that scope too.
        """
        numbers = itertools.count(1)
        before: Instance = ()
        users: dict[Unit, Instance] = {}
        for unit in [u for u in self.units if u.kind == "operation"]:
            path: list[tuple[str, int]] = []
            for i, (name, _) in enumerate(unit.scope):
                same = len(before) > i and before[:i] == tuple(path) and before[i][0] == name
                path.append(before[i] if same else (name, next(numbers)))
            before = unit.scope = tuple(path)
            for link in unit.links:
                users[link.source] = shared(users.get(link.source, before), before)
        for unit, scope in users.items():
            if unit.kind != "operation":
                unit.scope = scope


def shared(a: Instance, b: Instance) -> Instance:
    """The scope around two others."""
    same = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(a, b))
    return tuple(x for x, _ in same)


def _port(node: Node, edge: tuple) -> int:
    """Which argument of its operation an edge of `node` belongs to."""
    _, argument, kept = edge
    if isinstance(node.op, ManyOp):  # one of a list
        return kept if len(argument.names) == 1 else kept[0]
    return getattr(argument, "index", 0)
