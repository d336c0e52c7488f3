"""Passes: functions from a program to a program that computes the same with less.

Each looks at one thing only, and none changes a program it is given. `optimise` says in which order
they are applied.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from .. import backends, fusion, symbols
from ..symbols import NotElementwise, Symbol
from .program import Fused, Input, Instruction, Note, Program, Value, map_values, perform

# functions whose results hold elements of their argument, unchanged
VIEWS = frozenset(
    "broadcast_to diagonal expand_dims flip moveaxis ravel reshape squeeze swapaxes "
    "transpose".split()
)
# A constant that a program makes anew is kept, if it is not larger than this: in bytes.
_LARGEST_CONSTANT = 1 << 20
_FEW = 1 << 16  # entries up to which one elementwise function is no loop


def optimise(program: Program, target: Target) -> Program:
    """The program as it is emitted for `target`."""
    for step in (fold, lower, simplify, merge, drop):
        program = step(program)
    return drop(fuse(program, target))


# ---- constants


def fold(program: Program) -> Program:
    """Compute what depends on constants only, once and for all."""
    known = {x.value: x.source for x in program.inputs if x.kind == "constant"}
    inputs, kept = list(program.inputs), []
    for step in program.instructions:
        if (
            step.function == "draw"
            or any(value not in known for value in step.operands())
            or sum(x.nbytes for x in step.results) > _LARGEST_CONSTANT
        ):
            kept.append(step)
            continue
        backend = backends.backend_of_kind(step.results[0].device.kind)
        args, options = map_values(known.__getitem__, (step.args, step.options))
        with backend.scope(step.results[0].device):
            out = perform(backend.xp, step.function, args, options)
        for value, array in zip(step.results, out if step.several else (out,), strict=True):
            array = backend.asarray(array, None, value.device, None)
            known[value] = array
            inputs.append(Input(value, "constant", array))
    return replace(program, inputs=tuple(inputs), instructions=tuple(kept))


def numbers_of(program: Program) -> dict[Value, Any]:
    """The constants all of whose elements are one number, finite, and that number."""
    found = {}
    for value, kind, source in program.inputs:
        if kind == "constant" and value.size and value.dtype.kind in "biufc":
            backend = backends.backend_of_kind(value.device.kind)
            host = backend.to_host(source)
            first = host.reshape(-1)[:1]
            small = host.size <= 1 << 16 or host.strides == (0,) * host.ndim
            if small and np.isfinite(first[0]) and _is_all(host, first[0]):
                found[value] = _shortest(first[0])
    return found


def _is_all(array: Any, x: Any) -> bool:
    """Whether all elements are `x`, 0 and -0 told apart."""
    alike = (array == x).all()
    if alike and x == 0 and array.dtype.kind in "fc":
        signs = [np.signbit(part) for part in (array.real, array.imag)]
        alike = all((s == s.flat[0]).all() for s in signs)
    return bool(alike)


def _shortest(x: Any) -> Any:
    """A scalar as a number of Python; of a float32 the one with the fewest digits."""
    return float(str(x)) if x.dtype == np.float32 else x.item()


# ---- functions in terms of simpler ones


def lower(program: Program) -> Program:
    """Write functions that a loop cannot hold by those that it can: a mean as a sum, ..."""
    made: dict[Value, Instruction] = {}
    kept: list[Instruction] = []
    for step in program.instructions:
        parts = _lowered(step, made)
        kept += parts
        made.update((value, part) for part in parts for value in part.results)
    return program.with_instructions(kept)


def _lowered(step: Instruction, made: Mapping[Value, Instruction]) -> list[Instruction]:
    def call(function: str, *args: Any, like: Value, **options: Any) -> Instruction:
        return Instruction(function, args, options, (like,), False, step.note)

    match step.function, step.args:
        case "dot", (Value() as a, Value() as b) if len(a.shape) == len(b.shape) == 1 and (
            a.dtype == b.dtype and a.dtype.kind == "f" and a.dtype.itemsize > 2
        ):
            # of arrays that were made flat: in their own shape
            flat = [made.get(x) for x in (a, b)]
            if all(x is not None and x.function in ("reshape", "ravel") for x in flat):
                before = [x.args[0] for x in flat if x is not None]
                if before[0].shape == before[1].shape:
                    a, b = before
            product = Value(a.shape, a.dtype, a.device)
            return [
                call("multiply", a, b, like=product),
                call("sum", product, like=step.result, axis=None),
            ]
        case "mean", (Value() as x, *rest) if (
            x.dtype == step.result.dtype
            and x.size
            and (x.dtype.itemsize > 2 and len(rest) <= 1 and "dtype" not in step.options)
        ):
            total = Value(step.result.shape, x.dtype, x.device)
            return [
                call("sum", x, *rest, like=total, **step.options),
                call("divide", total, x.size // step.result.size, like=step.result),
            ]
        case "setitem", (Value() as x, key, Value() as new) if _is_whole(key) and (
            len(new.shape) <= len(x.shape)
        ):
            parts = []
            if new.dtype != x.dtype:
                cast = Value(new.shape, x.dtype, x.device)
                parts.append(call("astype", new, x.dtype, like=cast))
                new = cast
            if new.shape != x.shape:
                spread = Value(x.shape, x.dtype, x.device)
                parts.append(call("broadcast_to", new, x.shape, like=spread))
                new = spread
            return [*parts, call("copy", new, like=step.result)]
    return [step]


def _is_whole(key: Any) -> bool:
    """Whether an index is `...` alone."""
    return key is ... or (isinstance(key, tuple) and len(key) == 1 and key[0] is ...)


# ---- algebra


def simplify(program: Program) -> Program:
    """Leave out what changes nothing, such as x * 1, x - 0, copies, and transposes of transposes.

    x + 0 stays where x may be a floating-point -0, which it would make 0.
    """
    numbers = numbers_of(program)
    same: dict[Value, Value] = {}
    made: dict[Value, Instruction] = {}
    kept = []
    for step in program.instructions:
        step = step.with_operands(lambda value: same.get(value, value))
        if not step.several and step.function != "draw":
            step = _shortened(step, made)
            other = _equal_operand(step, numbers)
            if other is not None and _alike(other, step.result):
                same[step.result] = other
                continue
            made[step.result] = step
        kept.append(step)
    return program.renamed(kept, same)


def _alike(a: Value, b: Value) -> bool:
    return a.shape == b.shape and a.dtype == b.dtype and a.device == b.device


def _equal_operand(step: Instruction, numbers: Mapping[Value, Any]) -> Value | None:
    """The operand that the result is equal to, if its shape and dtype are the same."""

    def number(x: Any) -> Any:
        return (
            numbers.get(x) if isinstance(x, Value) else x if isinstance(x, (int, float)) else None
        )

    match step.function, step.args:
        case ("copy" | "positive" | "astype" | "reshape" | "broadcast_to" | "ravel", (x, *_)):
            return x if isinstance(x, Value) else None
        case (("multiply" | "add" | "divide"), _) if step.result.dtype.kind == "c":
            return None  # times 1 + 0j a zero may change its sign, and an infinity becomes NaN
        case (("multiply" | "add"), (a, b)):
            for x, other in ((a, b), (b, a)):
                if isinstance(x, Value) and _is_neutral(step.function, x, number(other)):
                    return x
        case (("divide" | "power"), (Value() as x, one)) if number(one) == 1:
            return x
        case "subtract", (Value() as x, zero) if _is_zero(number(zero), 1):
            return x
        case "transpose", (x, axes) if axes is not None and tuple(axes) == tuple(range(len(axes))):
            return x
    return None


def _is_neutral(function: str, x: Value, other: Any) -> bool:
    if function == "multiply":
        return other == 1
    return _is_zero(other, -1) or (x.dtype.kind in "biu" and other == 0)


def _is_zero(x: Any, sign: int) -> bool:
    return isinstance(x, (int, float)) and x == 0 and math.copysign(1, x) == sign


def _shortened(step: Instruction, made: Mapping[Value, Instruction]) -> Instruction:
    """The same result from an older value: of a transpose of a transpose, a reshape of one, ..."""
    first = made.get(step.args[0]) if step.args and isinstance(step.args[0], Value) else None
    if first is None or step.options or first.options:
        return step
    match step.function, first.function:
        case (("transpose" | "swapaxes"), ("transpose" | "swapaxes")):
            inner, outer = _order(first), _order(step)
            order = tuple(inner[i] for i in outer)
            return replace(step, function="transpose", args=(first.args[0], order))
        case ("reshape", "reshape") | ("broadcast_to", "broadcast_to") if len(step.args) == 2:
            return replace(step, args=(first.args[0], step.result.shape))
        case "negative", "negative":
            return replace(step, function="copy", args=first.args)
    return step


def _order(step: Instruction) -> tuple[int, ...]:
    """The order of axes of a transpose or swapaxes."""
    x, *axes = step.args
    order = list(range(len(x.shape)))
    if step.function == "swapaxes":
        a, b = axes
        order[a], order[b] = order[b], order[a]
        return tuple(order)
    if not axes or axes[0] is None:
        return tuple(order[::-1])
    return tuple(i % len(order) for i in axes[0])


# ---- common subexpressions, dead code


def merge(program: Program) -> Program:
    """Compute equal instructions once.

    Not what a checkpointed function computes again: that is what it is for.
    """
    known: dict[Any, Instruction] = {}
    same: dict[Value, Value] = {}
    kept = []
    for step in program.instructions:
        step = step.with_operands(lambda value: same.get(value, value))
        key = None
        if step.function != "draw":
            key = _key((step.function, step.args, step.options, step.note.run))
        before = known.get(key) if key is not None else None
        if before is None:
            kept.append(step)
            if key is not None:
                known[key] = step
        else:
            same.update(zip(step.results, before.results, strict=True))
    return program.renamed(kept, same)


def _key(tree: Any) -> Any:
    """What instructions are equal by; -0.0 is not 0.0, and 1 is not 1.0."""
    if isinstance(tree, (tuple, list)):
        return (type(tree), *map(_key, tree))
    if isinstance(tree, Mapping):
        return (dict, *((name, _key(x)) for name, x in tree.items()))
    if isinstance(tree, (float, complex)):
        return (type(tree), repr(tree))
    if isinstance(tree, np.generic):
        return (type(tree), tree.dtype, tree.tobytes())
    if isinstance(tree, slice):
        return (slice, tree.start, tree.stop, tree.step)
    try:
        hash(tree)
    except TypeError:
        return (type(tree), id(tree))
    return (type(tree), tree)


def drop(program: Program) -> Program:
    """Leave out what nothing depends on, inputs too. Random numbers are drawn all the same."""
    needed = set(program.wanted()) | {held for held, _ in program.updates}
    kept = []
    for step in reversed(program.instructions):
        if step.function == "draw" or needed.intersection(step.results):
            kept.append(step)
            needed.update(step.operands())
    inputs = tuple(x for x in program.inputs if x.value in needed)
    return replace(program, inputs=inputs, instructions=tuple(kept[::-1]))


# ---- fusion


class Target(NamedTuple):
    """What the loops of a target may be.

    Attributes:
        sums: several sums, and sums beside other results; else one sum, alone, if it is not of many
            entries to few (`fusion.py` says why).
    """

    sums: bool


HOST, CUDA = Target(True), Target(False)


def fuse(program: Program, target: Target) -> Program:
    """Make loops of elementwise instructions that depend on each other and have one shape.

    A sum joins the loop of what it is of. What has no axes is computed in every loop that needs it.
    """
    return _Fusion(program, target).fused()


class _Group:
    """Instructions that will be one loop, or a single other one."""

    def __init__(self, step: Instruction, shape: tuple[int, ...] | None) -> None:
        self.steps = [step]
        self.shape = shape  # None if it is no loop
        self.before: set[_Group] = set()  # all that it depends on
        self.sums: dict[Value, tuple[int, ...]] = {}


class _Fusion:
    def __init__(self, program: Program, target: Target) -> None:
        self._program = program
        self._target = target
        self._numbers = numbers_of(program)
        self._uses: dict[Value, int] = defaultdict(int)
        for step in program.instructions:
            for value in step.operands():
                self._uses[value] += 1
        for value in program.wanted():
            self._uses[value] += 1
        self._wanted = set(program.wanted())
        self._number = {step: i for i, step in enumerate(program.instructions)}
        self._users: dict[Value, list[tuple[_Group, Instruction]]] = defaultdict(list)
        self._group_of: dict[Value, _Group] = {}
        self._readers: dict[Value, list[_Group]] = defaultdict(list)
        self._groups: list[_Group] = []
        self._scalars: dict[Value, Instruction] = {}  # computed wherever they are needed
        self._drawn: _Group | None = None  # the last draw: they stay in order

    def fused(self) -> Program:
        for step in self._program.instructions:
            self._place(step)
        for group in self._groups:
            for step in group.steps:
                for value in step.operands():
                    self._users[value].append((group, step))
        out: list[Instruction] = []
        for group in _in_order(self._groups):
            out += self._emit(group)
        return self._program.with_instructions(out)

    def _place(self, step: Instruction) -> None:
        shape = step.results[0].shape
        if is_elementwise(step):
            if shape == () and all(x.shape == () for x in step.operands()):
                self._scalars[step.result] = step
            into = [self._group_of[x] for x in step.operands() if x in self._group_of]
            if self._target.sums:  # what reads the same arrays, too: they are read once then
                into += [g for x in step.operands() if x.shape == shape for g in self._readers[x]]
            into = [g for g in dict.fromkeys(into) if g.shape == shape and g in self._groups]
            group = self._joined(step, into)
            if group is None:
                group = self._new(step, shape)
            for x in step.operands():
                self._readers[x].append(group)
        elif (axes := _summed_axes(step)) is not None and (group := self._sum(step, axes)):
            pass
        else:
            group = self._new(step, None)
            if step.function == "draw":
                if self._drawn is not None:
                    group.before |= {self._drawn} | self._drawn.before
                self._drawn = group
        for value in step.results:
            self._group_of[value] = group

    def _needs(self, step: Instruction) -> set[_Group]:
        """The groups that the operands come from, and all before them."""
        found: set[_Group] = set()
        for value in step.operands():
            group = self._group_of.get(value)
            if group is not None:
                found |= {group} | group.before
        return found

    def _new(self, step: Instruction, shape: tuple[int, ...] | None) -> _Group:
        group = _Group(step, shape)
        group.before = self._needs(step)
        self._groups.append(group)
        return group

    def _joined(self, step: Instruction, into: list[_Group]) -> _Group | None:
        """`step` in one of the groups, merged with those of the others that can be; or None."""
        chosen: list[_Group] = []
        for group in into:
            if any(value in group.sums for value in step.operands()):
                continue
            if not self._target.sums and group.sums:
                continue
            together = [*chosen, group]
            sums = {value for g in together for value in g.sums}
            if any(value in sums for g in together for s in g.steps for value in s.operands()):
                continue
            before = self._needs(step).union(*(g.before for g in together))
            # nothing outside of it may lie between two of its parts
            outside = before.difference(together)
            if any(outside_group.before.intersection(together) for outside_group in outside):
                continue
            chosen = together
        if not chosen:
            return None
        group, *others = chosen
        for other in others:
            self._absorb(group, other)
        group.steps.append(step)
        self._grown(group, self._needs(step))
        return group

    def _absorb(self, group: _Group, other: _Group) -> None:
        group.steps += other.steps
        group.sums |= other.sums
        for step in other.steps:
            for value in step.results:
                self._group_of[value] = group
        self._groups.remove(other)
        for g in self._groups:
            if other in g.before:
                g.before.discard(other)
                g.before.add(group)
        self._grown(group, other.before)

    def _grown(self, group: _Group, needs: set[_Group]) -> None:
        """`group` depends on `needs` too, and with it what depends on it."""
        group.before |= needs - {group}
        group.before.discard(group)
        for g in self._groups:
            if group in g.before:
                g.before |= group.before

    def _sum(self, step: Instruction, axes: tuple[int, ...]) -> _Group | None:
        value = step.args[0]
        group = self._group_of.get(value)
        if group is None or group.shape != value.shape or value in group.sums:
            return None
        if not self._target.sums:
            alone = self._uses[value] == 1 and not group.sums
            inner = {x for s in group.steps for x in s.results} - {value}
            used_outside = any(self._uses[x] > self._uses_in(group, x) for x in inner)
            count = step.result.size
            few = count < fusion._FEW and value.size > fusion._MANY
            if not alone or used_outside or few:
                return None
        group.steps.append(step)
        group.sums[step.result] = axes
        return group

    def _uses_in(self, group: _Group, value: Value) -> int:
        return sum(x is value for s in group.steps for x in s.operands())

    # -- from groups to instructions

    def _emit(self, group: _Group) -> Iterator[Instruction]:
        if group.shape is None:
            yield from group.steps
            return
        own = {value for step in group.steps for value in step.results}
        body = sorted(group.steps, key=self._number.__getitem__)
        body = self._with_scalars(body, own)
        own = {value for step in body for value in step.results}
        inside: dict[Value, int] = defaultdict(int)
        for step in body:
            for value in step.operands():
                inside[value] += 1
        given = [x for x in inside if x not in own]
        results = [
            value
            for step in group.steps
            for value in step.results
            if value in group.sums or self._is_used_outside(value, group)
        ]
        if len(group.steps) == 1 and len(body) == 1 and _is_cheap(body[0]):
            yield group.steps[0]
            return
        if results:
            yield Fused(
                "fused",
                tuple(given),
                {},
                tuple(results),
                True,
                _note_of(body),
                shape=group.shape,
                body=tuple(body),
                sums=dict(group.sums),
            )

    def _with_scalars(self, body: list[Instruction], own: set[Value]) -> list[Instruction]:
        """With what computes the scalars that come from elsewhere."""
        added: dict[Value, Instruction] = {}

        def need(value: Value) -> None:
            step = self._scalars.get(value)
            if step is not None and value not in own and value not in added:
                for x in step.operands():
                    need(x)
                added[value] = step

        for step in body:
            for value in step.operands():
                need(value)
        return [*added.values(), *body]

    def _is_used_outside(self, value: Value, group: _Group) -> bool:
        if value in self._wanted:
            return True
        for other, step in self._users[value]:
            # of a scalar, loops compute it themselves
            if other is not group and (
                value not in self._scalars or other.shape is None or step.result in other.sums
            ):
                return True
        return False


def _in_order(groups: list[_Group]) -> list[_Group]:
    """The groups so that each stands behind what it depends on, else as they came."""
    done: set[_Group] = set()
    out: list[_Group] = []
    pending = list(groups)
    while pending:
        ready = next(g for g in pending if g.before <= done)
        pending.remove(ready)
        done.add(ready)
        out.append(ready)
    return out


def _is_cheap(step: Instruction) -> bool:
    """Whether the array library computes it in one pass, and so few that threads do not pay."""
    if step.function == "broadcast_to":  # a view
        return True
    xp: Any = backends.backend_of_kind("cpu").xp
    is_ufunc = "." not in step.function and isinstance(getattr(xp, step.function), np.ufunc)
    return step.result.size < _FEW and (is_ufunc or step.function == "astype")


def _note_of(body: list[Instruction]) -> Note:
    return body[-1].note


def is_elementwise(step: Instruction) -> bool:
    """Whether an instruction can be part of a loop."""
    if step.several or isinstance(step, Fused) or len({x.device for x in step.operands()}) != 1:
        return False
    if step.function == "broadcast_to":
        return step.result.shape != () and isinstance(step.args[0], Value)
    try:
        return as_symbol(step, _placeholder).dtype == step.result.dtype
    except (NotElementwise, TypeError, ValueError, KeyError):
        return False


def _placeholder(value: Value) -> Symbol:
    return symbols.variable("x", value.dtype)


def as_symbol(step: Instruction, find: Callable[[Value], Symbol]) -> Symbol:
    """The symbol of what an elementwise instruction computes.

    Raises:
        NotElementwise, or another exception: if it is none.
    """
    if step.function == "broadcast_to":
        return find(step.args[0])
    if any(not isinstance(x, (Value, int, float, complex, np.generic)) for x in step.args[:-1]):
        raise NotElementwise(step.function)
    args, options = map_values(find, (step.args, step.options))
    args = tuple(x.item() if isinstance(x, np.generic) else x for x in args)
    if step.function == "astype":
        return args[0].astype(np.dtype(args[1]))
    return getattr(_SYMBOLS, step.function.removeprefix("special."))(*args, **options)


_SYMBOLS: Any = backends.backend_of_type(Symbol).xp


def _summed_axes(step: Instruction) -> tuple[int, ...] | None:
    """The axes of a plain sum; None if it is none."""
    if step.function != "sum" or not isinstance(step.args[0], Value):
        return None
    x = step.args[0]
    options = dict(zip(("axis", "dtype", "keepdims"), step.args[1:])) | dict(step.options)
    if options.keys() - {"axis", "dtype", "keepdims"}:
        return None
    if x.dtype.kind not in "fc" or x.dtype != step.result.dtype or not x.shape:
        return None
    axis = options.get("axis")
    axes = range(len(x.shape)) if axis is None else axis if isinstance(axis, tuple) else (axis,)
    return tuple(sorted(i % len(x.shape) for i in axes)) or None
