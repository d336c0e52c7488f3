"""Programs: what a step computes, as a straight line of array operations.

A program is pure: every `Instruction` makes new `Value`s from old ones, and nothing is written in
place. What the step changes (parameters, the state of optimisers) goes in as an input and comes out
as an update, which is stored when all else is computed. So passes (`passes.py`) may leave out,
merge and move instructions by looking at names alone; where memory is shared again, the plan at
the end says so.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np

from .. import random
from ..backends import Device

# array functions that write their first argument: in a program they give a changed copy of it
WRITES = frozenset({"add_at", "setitem"})


class Value:
    """An array of a program, known by its shape, dtype and device."""

    __slots__ = ("device", "dtype", "shape")

    def __init__(self, shape: tuple[int, ...], dtype: Any, device: Device) -> None:
        self.shape = shape
        self.dtype = np.dtype(dtype)
        self.device = device

    def __repr__(self) -> str:
        return f"<{self.dtype} {self.shape} on {self.device}>"

    @property
    def size(self) -> int:
        """The number of elements."""
        return int(np.prod(self.shape, dtype=np.int64))

    @property
    def nbytes(self) -> int:
        """The number of bytes."""
        return self.size * self.dtype.itemsize


class Note(NamedTuple):
    """Where an instruction comes from.

    Attributes:
        phase: "forward", "backward" or "update".
        operation: of gpugrad, whose function or derivative it belongs to; "" for the user's own.
        file, line: of the user's code.
        run: a number that tells the second run of a checkpointed function from the first.
    """

    phase: str
    operation: str
    file: str
    line: int
    run: int = 0


@dataclass(frozen=True, eq=False)
class Instruction:
    """A call of an array function.

    Attributes:
        function: its name in the array library's namespace (`Backend.xp`), such as "linalg.svd".
            "draw" is a call of a generator of random numbers: (generator, method, *arguments);
            "kernel" one of the user's own kernels: (kernel, *arrays).
        args, options: what it is given: values, numbers and other constants, also nested in tuples,
            lists and dicts.
        results: one value; several where the function gives a tuple.
        several: whether it gives a tuple.
        note: where it comes from.
    """

    function: str
    args: tuple
    options: Mapping[str, Any]
    results: tuple[Value, ...]
    several: bool
    note: Note

    @property
    def result(self) -> Value:
        """The one result."""
        (value,) = self.results
        return value

    def operands(self) -> list[Value]:
        """The values it is given, in order, repeated as they are."""
        return list(values_in((self.args, self.options)))

    def with_operands(self, find: Callable[[Value], Value]) -> Instruction:
        """The same with `find(value)` in place of each value it is given."""
        args, options = map_values(find, (self.args, self.options))
        return replace(self, args=args, options=options)


@dataclass(frozen=True, eq=False)
class Fused(Instruction):
    """Elementwise instructions that run as one loop over the entries of `shape`.

    Its arguments are the values that they need from elsewhere, each broadcast to `shape`; its
    results those that are needed elsewhere, each of that shape or summed over some axes.

    Attributes:
        shape: of the loop.
        body: the instructions, in order; sums among them are the last that use their operand.
        sums: result of a sum -> the axes of `shape` that it is over.
    """

    shape: tuple[int, ...] = ()
    body: tuple[Instruction, ...] = ()
    sums: Mapping[Value, tuple[int, ...]] = field(default_factory=dict)

    def with_operands(self, find: Callable[[Value], Value]) -> Instruction:
        """The same with `find(value)` in place of each value it is given."""
        same = {x: find(x) for x in self.args}
        body = tuple(part.with_operands(lambda x: same.get(x, x)) for part in self.body)
        return replace(self, args=tuple(map(find, self.args)), body=body)


class Input(NamedTuple):
    """A value that a program is given.

    Attributes:
        kind: "argument", "captured" (an array that the function closes over), "gradient" (what
            the `.grad` of a leaf was) or "constant".
        source: for the kind: the number of the argument, the array, the leaf's sink, the array.
    """

    value: Value
    kind: str
    source: Any


@dataclass(frozen=True, eq=False)
class Program:
    """What a step computes.

    Attributes:
        inputs: in any order.
        outputs: the results and gradients.
        updates: (an input, the value that is stored in its memory at the end).
    """

    inputs: tuple[Input, ...]
    instructions: tuple[Instruction, ...]
    outputs: tuple[Value, ...]
    updates: tuple[tuple[Value, Value], ...]
    names: Mapping[Value, str] = field(default_factory=dict)

    def wanted(self) -> Iterator[Value]:
        """The values that must be there at the end."""
        yield from self.outputs
        for _, value in self.updates:
            yield value

    def with_instructions(self, instructions: Iterable[Instruction]) -> Program:
        """The same program with other instructions."""
        return replace(self, instructions=tuple(instructions))

    def renamed(self, instructions: Iterable[Instruction], same: Mapping[Value, Value]) -> Program:
        """With other instructions, and `same[value]` in place of each value that is in `same`."""

        def find(value: Value) -> Value:
            while value in same:
                value = same[value]
            return value

        return replace(
            self,
            instructions=tuple(x.with_operands(find) for x in instructions),
            outputs=tuple(map(find, self.outputs)),
            updates=tuple((held, find(value)) for held, value in self.updates),
        )


def values_in(tree: Any) -> Iterator[Value]:
    """The values in nested tuples, lists, dicts and slices."""
    if type(tree) is Value:
        yield tree
    elif isinstance(tree, (tuple, list)):
        for item in tree:
            yield from values_in(item)
    elif isinstance(tree, Mapping):
        for item in tree.values():
            yield from values_in(item)


def map_values(f: Callable[[Value], Any], tree: Any) -> Any:
    """`tree` with `f(value)` in place of each value in it."""
    if type(tree) is Value:
        return f(tree)
    if isinstance(tree, (tuple, list)):
        parts = [map_values(f, item) for item in tree]
        return getattr(type(tree), "_make", type(tree))(parts)
    if isinstance(tree, Mapping):
        return {name: map_values(f, item) for name, item in tree.items()}
    return tree


def perform(xp: Any, function: str, args: tuple, options: Mapping[str, Any]) -> Any:
    """What an instruction gives for these arrays; `xp` is the namespace of their library."""
    if function == "draw":
        generator, method, *rest = args
        if isinstance(generator, Device):  # the module's own one, which `seed` replaces
            generator = random.default_generator(generator)
        return generator._draw(method, *rest).data
    if function == "kernel":
        kernel, *rest = args
        return kernel(*rest, **options)
    if function in WRITES:
        array, *rest = args
        array = array.copy()
        getattr(xp, function)(array, *rest, **options)
        return array
    if function == "astype":
        array, dtype = args
        return array.astype(dtype, **options)
    return operator.attrgetter(function)(xp)(*args, **options)
