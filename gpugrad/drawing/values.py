"""What flows along the links: values that can be known, gradients, local derivatives, in words.

A tape does not keep the values between its operations. Known are those that a node kept, those of
Tensors that are still alive, all of what ran inside `keep_values`, and what follows from them: an
operation whose operands are all known is computed again. Any other value is not shown.
"""

from __future__ import annotations

import gc
import math
from collections.abc import Iterable
from contextlib import nullcontext
from typing import Any

import numpy as np

from .. import backends, sweeps
from ..batches import BatchedArray
from ..ops.linalg import vector_norm
from ..ops.manipulation import sum_to
from ..rules import NUMBERS, Argument, ManyOp, Op, as_array, at
from ..tape import Node, changed_at, owner_of, recording_flag
from ..tensor import Tensor
from .units import Tape

SMALL = 4  # elements of an array that is shown element by element


def alive() -> list[Tensor]:
    """The Tensors that somebody holds."""
    return [x for x in gc.get_objects() if type(x) is Tensor]


def add_alive(tape: Tape, order: list[Node], tensors: Iterable[Tensor]) -> None:
    """Let `tape` know the values of `tensors`; and forget what changed after its first use."""
    used: dict[Node, int] = {}  # node -> when it was first used
    for node in order:
        if node.op is not None:
            used.setdefault(node, node.serial)
        for parent, _, _ in node.edges:
            if parent.op is None:
                used.setdefault(parent, node.serial)
    nodes = set(order)
    for x in tensors:
        if x.node in nodes:
            tape.values.setdefault(x.node, x.data)
    for node, array in list(tape.values.items()):
        changed = changed_at(owner_of(array))
        if changed > used.get(node, changed):
            del tape.values[node]


def compute_again(tape: Tape, order: list[Node], wanted: Iterable[Node]) -> None:
    """Let `tape` know the values of `wanted` that follow from known ones."""
    values = tape.values
    needed = {node for node in wanted if node not in values}
    if not needed:
        return
    recipes: dict[Node, tuple[list[Any], dict[str, Any]]] = {}
    for node in order:
        recipe = _recipe(tape, node, recipes) if node not in values else None
        if recipe is not None:
            recipes[node] = recipe
    for node in reversed(order):
        if node in needed and node in recipes:
            needed.update(x for x in recipes[node][0] if isinstance(x, Node) and x not in values)
    for node in order:
        if node in needed and node in recipes:
            operands, options = recipes.pop(node)
            arrays = [values[x] if isinstance(x, Node) else x for x in operands]
            with at(next(x for x in arrays if type(x) not in NUMBERS)):
                out = as_array(node.op.call(*arrays, **options))
            if out.shape != node.shape or out.dtype != node.dtype:
                raise RuntimeError(f"draw: {node.op.name} is not what it was when computed again")
            values[node] = out


def _recipe(
    tape: Tape, node: Node, recipes: dict[Node, Any]
) -> tuple[list[Any], dict[str, Any]] | None:
    """Operands (arrays, or nodes whose value can be known) and options of the call of `node`."""
    op = node.op
    if not isinstance(op, Op) or isinstance(op, ManyOp) or op.call is None:
        return None
    operands: list[Any] = [tape.operands.get((node, i)) for i in range(len(op.array_names))]
    options: dict[str, Any] = {}
    for parent, argument, kept in node.edges:
        if parent in tape.values or parent in recipes:
            operands[argument.index] = parent
        values = (kept,) if len(argument.names) == 1 else kept
        options.update(zip(argument.names, values))
    complete = all(x is not None for x in operands) and options.keys() >= set(op.options)
    return (operands, {name: options[name] for name in op.options}) if complete else None


class Gradients:
    """A reverse sweep of its own, which puts in words what it is asked for.

    It releases nothing, touches no `.grad` and runs no hooks.

    Args:
        order: the nodes, oldest first.
        seeds: result -> its cotangent, a raw array.
        edges: (node, number of an edge) whose gradients are wanted.
        totals: nodes whose whole gradient is wanted.

    Attributes:
        of_edge, of_node: in words.
        devices: node -> where its cotangent is.
    """

    def __init__(
        self,
        order: list[Node],
        seeds: dict[Node, Any],
        edges: set[tuple[Node, int]],
        totals: set[Node],
    ) -> None:
        self.of_edge: dict[tuple[Node, int], str] = {}
        self.of_node: dict[Node, str] = {}
        self.devices: dict[Node, str] = {}
        cotangents = dict(seeds)
        scope = backends.following_devices
        outside = recording_flag.set(False)
        node = None
        try:
            with scope() if scope else nullcontext() as follow:
                for node in reversed(order):
                    g = cotangents.pop(node, None)
                    if g is None:
                        continue
                    if follow is not None:
                        follow(g)
                    if node.dtype is not None:
                        self.devices[node] = device_of(g)
                    if node in totals:
                        self.of_node[node] = gradient_text(g)
                    for k, (parent, argument, kept) in enumerate(node.edges):
                        c = argument.vjp(g, kept)
                        if c.shape != parent.shape:
                            c = sum_to(c, parent.shape)
                        if c.dtype is not parent.dtype:
                            c = sweeps.cast(c, parent.dtype)
                        if (node, k) in edges:
                            self.of_edge[node, k] = gradient_text(c)
                        if follow is not None:
                            follow(c)  # the rule may have moved it
                        before = cotangents.get(parent)
                        cotangents[parent] = c if before is None else before + c
        except backends.hindrances as error:
            assert node is not None
            raise sweeps._refusal(node, [g], error) from None
        finally:
            recording_flag.reset(outside)


def local_derivative(node: Node, k: int, like: Any) -> str | None:
    """d out / d argument where both are one real number; None elsewhere.

    Args:
        k: the number of the edge.
        like: an array on the device of the operation.
    """
    parent, argument, kept = node.edges[k]
    if not isinstance(argument, Argument) or argument.vjp is None or node.dtype is None:
        return None
    if math.prod(node.shape) != 1 or math.prod(parent.shape) != 1:
        return None
    if "c" in (node.dtype.kind, parent.dtype.kind):
        return None
    backend = backends.backend_of(like)
    with backend.scope(backend.device_of(like)):
        one = backend.xp.ones(node.shape, node.dtype)
        derivative = argument.vjp(one, kept)
    return None if isinstance(derivative, BatchedArray) else numbers(derivative)


# ---- in words


def size_of(shape: tuple[int, ...]) -> int:
    """The number of elements."""
    return math.prod(shape)


def memory(count: float) -> str:
    """A number of bytes for people: 306 KiB."""
    units = ["GiB", "MiB", "KiB", "bytes"]
    while count >= 1024 and len(units) > 1:
        count /= 1024
        units.pop()
    return f"{count:.0f} {units[-1]}" if count >= 100 else f"{count:.3g} {units[-1]}"


def number(x: Any) -> str:
    """A number in four digits, with a minus sign as in print."""
    if isinstance(x, (bool, np.bool_)):
        return str(bool(x))
    if isinstance(x, complex):
        sign = "−" if math.copysign(1, x.imag) < 0 else "+"
        return f"{number(x.real)} {sign} {number(abs(x.imag))}i"
    if isinstance(x, int):
        return f"{x:,}".replace("-", "−")
    return f"{x:.4g}".replace("e-0", "e-").replace("e+0", "e").replace("-", "−")


def numbers(array: Any) -> str:
    """An array of a few elements; of one alone without brackets. Waits for its device."""
    if type(array) in NUMBERS:
        return number(array)
    backend = backends.backend_of(array)
    host = np.asarray(backend.to_host(array))
    return number(host.item()) if host.size == 1 else _listed(host.tolist())


def _listed(x: Any) -> str:
    return f"[{', '.join(map(_listed, x))}]" if isinstance(x, list) else number(x)


def gradient_text(g: Any) -> str:
    """A cotangent, plain, as the gradient that is public: its elements, or its norm."""
    if g.dtype is None or isinstance(g, BatchedArray):  # of several results, of each example
        return ""
    g = sweeps.conjugate(g)
    if size_of(g.shape) <= SMALL:
        return f"∇ {numbers(g)}"
    with at(g):
        return f"‖∇‖ {numbers(vector_norm(g))}"


def device_of(array: Any) -> str:
    """The name of the device of a raw array."""
    return str(backends.device_of(array))
