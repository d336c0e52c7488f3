"""Batches on the tape, level by level; and `vmap`.

Batches nest, and an operation takes arrays of one level. `lift` brings an array to the next level,
the same for every example; `enter` makes an axis the hidden one, `leave` and `total` lead back.
These four are on the tape, each the transpose of another.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import numpy as np

from . import backends, rules
from .batches import NUMBERS, BatchedArray, level_of, shared
from .ops.creation import asarray
from .ops.manipulation import moveaxis
from .rules import as_array, frees, linear
from .tape import Node, owner_of
from .tensor import Tensor
from .trees import flatten

# ---- between levels


@linear(lambda t, level, count: leave(t, level=level, count=count))  # type: ignore[has-type]
def enter(x: Any, /, *, level: int, count: int) -> Any:
    """Axis 0 of `x`, of length `count`, becomes the hidden axis of `level`."""
    return _hide(shared(x) if level_of(x) < level else x, 0, level)


def _hide(x: Any, axis: int, level: int) -> Any:
    """`x` with `axis` as the hidden one of `level`."""
    if x.level > level:
        return type(x)(_hide(x.values, axis + x.batched, level), x.batched)
    return type(x)(moveaxis(x.values, axis, 0), True)


@linear(lambda t, level, count: enter(t, level=level, count=count))
def leave(x: Any, /, *, level: int, count: int) -> Any:
    """The hidden axis of `level`, of length `count`, becomes axis 0."""
    out = _show(x, 0, level, count)
    return out if x.level > level else out.values


def _show(x: Any, axis: int, level: int, count: int) -> Any:
    if x.level > level:
        return type(x)(_show(x.values, axis + x.batched, level, count), x.batched)
    values = x.xp._spread(x, count)
    if not x.batched:  # one array for all becomes one for each
        values = x.xp._module.copy(values)
    return type(x)(moveaxis(values, 0, axis), False)


@linear(lambda t, level, count: total(t, level=level, count=count))  # type: ignore[has-type]
def lift(x: Any, /, *, level: int, count: int) -> Any:
    """`x`, one level below, as an array of `level` that all `count` examples share."""
    return shared(x) if level_of(x) < level else x


@linear(lambda t, level, count: lift(t, level=level, count=count))
def total(x: Any, /, *, level: int, count: int) -> Any:
    """The sum over the examples, `count`, of `level`."""
    out = _add_up(x, level, count)
    return out if x.level > level else out.values


def _add_up(x: Any, level: int, count: int) -> Any:
    if x.level > level:
        return type(x)(_add_up(x.values, level, count), x.batched)
    if x.batched:
        return type(x)(as_array(x.values.sum(axis=0)), False)
    return type(x)(x.values * count, False) if count > 1 else x


_CROSSINGS = (enter.op, leave.op, lift.op, total.op)  # type: ignore[attr-defined]

# the number of examples of every level that is in use
_counts: ContextVar[tuple[int, ...]] = ContextVar("gpugrad_batches", default=())


def depth() -> int:
    """The level that the innermost batch has here; 0 outside."""
    return len(_counts.get())


def count_at(level: int) -> int:
    """The number of examples that `level` has here."""
    return _counts.get()[level - 1]


def deepest(order: Iterable[Node]) -> int:
    """The highest level that the nodes of a tape, or the arrays here, have."""
    levels = (node.edges[0][2][0] for node in order if node.op in _CROSSINGS)
    return max([depth(), *levels])


@contextmanager
def examples(count: int, level: int | None = None) -> Iterator[int]:
    """A batch of `count` examples, of the next level or of a higher one, as this gives it."""
    counts = _counts.get()
    level = level or len(counts) + 1
    token = _counts.set((*counts, *(1,) * (level - len(counts) - 1), count))
    try:
        yield level
    finally:
        _counts.reset(token)


def here(x: Tensor) -> Tensor:
    """`x` at the level of the innermost batch."""
    return lifted(x, depth())


def lifted(x: Any, level: int, counts: tuple[int, ...] | None = None) -> Any:
    """The array or Tensor `x` at `level`, where the levels between have `counts` examples."""
    if not isinstance(x, Tensor):
        while level_of(x) < level:
            x = shared(x)
        return x
    counts = _counts.get() if counts is None else counts
    for i in range(level_of(x.data) + 1, level + 1):
        if i > len(counts):
            raise RuntimeError("a tensor of one example is used outside the vmap it belongs to")
        x = lift(x, level=i, count=counts[i - 1])
    return x


def _align(operands: Iterable[Any]) -> tuple[Any, ...] | None:
    """Operands, arrays and numbers, brought to one level; None if they are, or not batches."""
    operands = tuple(operands)
    arrays = [rules.raw(x) for x in operands if not isinstance(x, NUMBERS)]
    levels = [level_of(x) for x in arrays if backends.find_backend(type(x)) is not None]
    if len(set(levels)) < 2:
        return None
    return tuple(x if isinstance(x, NUMBERS) else lifted(x, max(levels)) for x in operands)


rules.align = _align


def kept_at(level: int, count: int) -> Callable[[Any], Any]:
    """A function that brings what a node keeps to `level`, where a sweep has `count` examples.

    The levels between belong to batches that what is kept has no part in.
    """
    counts = (*(1,) * (level - 1), count)

    def at(value: Any) -> Any:
        if type(value) in (tuple, list):
            return type(value)(at(item) for item in value)
        if isinstance(value, Tensor) or (
            not isinstance(value, np.generic) and backends.find_backend(type(value)) is not None
        ):
            return lifted(value, level, counts)
        return value

    return at


def up(x: Any, level: int, count: int) -> Any:
    """The array or Tensor `x`, with an axis of `count` examples in front, entered at `level`."""
    return enter(lifted(x, level - 1, (1,) * level), level=level, count=count)


def down(x: Any, level: int, count: int, to: int) -> Any:
    """The way back from `up`, to level `to`."""
    x = leave(x, level=level, count=count)
    for i in range(level - 1, to, -1):
        x = total(x, level=i, count=1)
    return x


# ---- vmap


def vmap(f: Callable[..., Any], in_axes: Any = 0, out_axes: Any = 0) -> Callable[..., Any]:
    """`f`, written for one example, as a function of all examples at once.

    Args:
        f: a function of tensors, positional arguments only, to tensors, or nested lists, tuples and
            dicts of them. It cannot read values (`float(x)`, a branch on one); random numbers are
            drawn once for all.
        in_axes: the axis of the examples in the arguments: one integer for all, or a tuple or list
            with one per argument, None for an argument that all examples share.
        out_axes: where that axis goes in the results: an integer, or a tuple with one per result.

    Returns:
        A function of the same arguments. Arrays in, arrays out, as `grad`; it can be
        differentiated, and `f` may itself use derivatives.

    Raises:
        ValueError: if the arguments disagree on the number of examples, or there are none;
            RuntimeError: where `f` reads a value.
    """

    @frees
    @functools.wraps(f)
    def mapped(*args: Any) -> Any:
        leaves, rebuild = flatten(list(args))
        axes = _axes("in_axes", in_axes, args)
        raw = not any(isinstance(x, Tensor) for x in leaves)
        inputs = [_moved_in(x, axis) for x, axis in zip(leaves, axes, strict=True)]
        lengths = {x.shape[0] for x, axis in zip(inputs, axes, strict=True) if axis is not None}
        if len(lengths) != 1 or 0 in lengths:
            raise ValueError(
                "vmap: the mapped arguments need one common number of examples, at least one; "
                f"got {sorted(lengths)}"
            )
        (count,) = lengths
        owners = {id(owner_of(x.data)) for x in inputs if isinstance(x, Tensor)}
        with examples(count) as level:
            for i, axis in enumerate(axes):
                if axis is not None:
                    inputs[i] = enter(lifted(inputs[i], level - 1), level=level, count=count)
            out = f(*rebuild(inputs))
            results, unflatten = flatten(out)
            places = _axes("out_axes", out_axes, out)
            for i, (x, axis) in enumerate(zip(results, places, strict=True)):
                if not isinstance(x, Tensor) or axis is None:
                    raise TypeError(
                        f"vmap: result {i} is {type(x).__name__} with axis {axis}: a Tensor and an "
                        "integer are needed"
                    )
                x = leave(lifted(x, level), level=level, count=count)
                results[i] = moveaxis(x, 0, axis) if axis else x
        for i, x in enumerate(results):
            if x.node is None:
                x = x.copy() if id(owner_of(x.data)) in owners else x
                results[i] = x.data if raw and not isinstance(x.data, BatchedArray) else x
        return unflatten(results)

    return mapped


def _axes(name: str, axes: Any, tree: Any) -> list[int | None]:
    """An axis per leaf of `tree`: the one for all, or those that a tuple has for its items."""
    if not isinstance(axes, (tuple, list)):
        return [axes] * len(flatten(tree)[0])
    if not isinstance(tree, (tuple, list)) or len(tree) != len(axes):
        count = len(tree) if isinstance(tree, (tuple, list)) else 1
        raise ValueError(f"vmap: {name} has {len(axes)} items for {count}")
    return [axis for axis, item in zip(axes, tree, strict=True) for _ in flatten(item)[0]]


def _moved_in(x: Any, axis: int | None) -> Any:
    """An argument as a Tensor with the axis of the examples in front; no array as it is."""
    if axis is None:
        return x if backends.find_backend(type(x)) is None else asarray(x)
    x = x if isinstance(x, Tensor) else asarray(x)
    if not -x.ndim <= axis < x.ndim:
        raise ValueError(
            f"vmap: in_axes={axis} for an argument of shape {x.shape}; None for one that all share"
        )
    return moveaxis(x, axis, 0) if axis else x
