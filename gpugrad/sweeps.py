"""The two sweeps over the tape: backwards for the vjp, forwards for the jvp.

Inside, cotangents follow the plain convention (a holomorphic rule is `t * f'(x)`, without a
conjugate). The public gradient is the direction of steepest ascent, the conjugate of that:
`backward` and `transforms.py` convert at the border.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Iterable
from contextlib import nullcontext
from typing import Any

from . import backends, places, rules
from .ops.creation import asarray
from .ops.dtypes import astype
from .ops.elementwise import conj, real
from .ops.manipulation import broadcast_to, sum_to
from .rules import raw, xp
from .tape import Node, check_unchanged, last_change, reach, recording_flag
from .tensor import Tensor

_HERE = nullcontext()  # one device: nothing to follow


def route(order: list[Node], ends: Collection[Node]) -> list[Node]:
    """The nodes of `order` that depend on `ends`."""
    useful = set(ends)
    path = []
    for node in order:
        if node not in useful and any(edge[0] in useful for edge in node.edges):
            useful.add(node)
            path.append(node)
    return path


def pull(
    path: list[Node],
    ends: set[Node],
    cotangents: dict[Node, Any],
    *,
    record: bool,
    lift: Callable[[Any], Any] | None = None,
) -> dict[Node, Any]:
    """Read the tape backwards: from cotangents of results to cotangents of `ends`.

    The first term of a cotangent is borrowed from the rule that made it, the second makes a fresh
    array, from the third on it is added in place. A rule returns its `t`, a view of it, or a new
    array; so a copy is made only where one of the first two would leave the library.

    Args:
        path: the nodes to sweep over, oldest first.
        ends: the nodes whose cotangents are wanted; the sweep does not go past them.
        cotangents: node -> cotangent of its output, an array (a Tensor if `record`). Consumed.
        record: run the rules on Tensors, so that the sweep is itself on the tape.
        lift: applied to all that a node kept, where the cotangents are batches (`batching.py`).

    Returns:
        The ends that were reached -> cotangent, in memory that nobody else holds.
    """
    useful = ends.union(path)
    for node in list(cotangents):
        if node in ends:
            cotangents[node] = _own(cotangents[node])
        elif node not in useful:
            del cotangents[node]
    summed = set()
    get, pop = cotangents.get, cotangents.pop
    edges_of = _reader(record, lift)
    if edges_of is None and backends.fusion is not None:
        edges_of = functools.partial(backends.fusion.pulled, useful=useful)
    scope = backends.following_devices
    try:
        with scope() if scope else _HERE as follow_device:
            nodes: Iterable[Node] = reversed(path)
            if rules.watch is not None:
                nodes = _watched("vjp", nodes, cotangents)
            for node in nodes:
                g = pop(node, None)
                if g is None:
                    continue
                if follow_device is not None:
                    follow_device(raw(g))
                if node.hooks is not None:
                    changed = last_change()
                    g = _run_hooks(node, g)
                    if last_change() > changed:  # a hook has written something
                        check_unchanged(x for x in path if x.serial <= node.serial)
                for parent, argument, kept in edges_of(node, g) if edges_of else node.edges:
                    if parent not in useful:
                        continue
                    c = argument.vjp(g, kept)
                    if c.shape != parent.shape:
                        c = sum_to(c, parent.shape)
                    if c.dtype is not parent.dtype:
                        c = cast(c, parent.dtype)
                    before = get(parent)
                    if before is None:
                        if parent in ends and (record or c is g or c.base is not None):
                            c = _own(c)
                        cotangents[parent] = c
                        continue
                    if follow_device is not None:
                        follow_device(raw(c))  # the rule may have moved it
                    if record or parent not in summed:
                        cotangents[parent] = before + c
                        summed.add(parent)
                    else:
                        before += c
                        cotangents[parent] = before
    except backends.hindrances as error:
        raise _refusal(node, [g], error) from None
    for end in cotangents:
        if end.hooks is not None:
            cotangents[end] = _own(_run_hooks(end, cotangents[end]))
    return cotangents


def _reader(record: bool, lift: Callable[[Any], Any] | None) -> Callable[..., Any] | None:
    """How a sweep reads the edges of a node, given its cotangent too; None for as they are."""
    if lift is None:
        return (lambda node, g: node.op.wrap(node)) if record else None

    def lifted(node: Node, g: Any) -> list[tuple]:
        edges = node.op.wrap(node) if record else node.edges
        return [(parent, argument, lift(kept)) for parent, argument, kept in edges]

    return lifted


def push(
    order: list[Node],
    tangents: dict[Node, Any],
    *,
    record: bool,
    lift: Callable[[Any], Any] | None = None,
) -> dict[Node, Any]:
    """Read the tape forwards: from tangents of some nodes to tangents of all that follow.

    Args:
        order: the nodes of the sweep, oldest first, as `reach` gives them.
        tangents: node -> tangent of its output, an array (a Tensor if `record`). Extended.
        record: run the rules on Tensors, so that the sweep is itself on the tape.
        lift: as in `pull`.
    """
    edges_of = _reader(record, lift)
    fusion = backends.fusion if edges_of is None else None
    scope = backends.following_devices
    try:
        with scope() if scope else _HERE as follow_device:
            nodes: Iterable[Node] = order
            if rules.watch is not None:
                nodes = _watched("jvp", nodes, tangents)
            for node in nodes:
                if node in tangents or node.op is None:
                    continue
                if follow_device is not None:
                    t = next(
                        (tangents[edge[0]] for edge in node.edges if edge[0] in tangents), None
                    )
                    if t is not None:
                        follow_device(raw(t))
                total = fusion.pushed(node, tangents) if fusion is not None else None
                if total is None:
                    for parent, argument, kept in edges_of(node, None) if edges_of else node.edges:
                        t = tangents.get(parent)
                        if t is not None:
                            d = argument.jvp(t, kept)
                            total = d if total is None else total + d
                if total is not None:
                    if total.shape != node.shape:
                        total = broadcast_to(total, node.shape)
                    if total.dtype is not node.dtype:
                        total = cast(total, node.dtype)
                    tangents[node] = total
    except backends.hindrances as error:
        given = [tangents[edge[0]] for edge in node.edges if edge[0] in tangents]
        raise _refusal(node, given, error) from None
    return tangents


def _watched(kind: str, nodes: Iterable[Node], found: dict[Node, Any]) -> Iterable[Node]:
    from . import watching  # which an import of gpugrad does without

    return watching.swept(kind, nodes, found)


places.sweeps.update((pull.__code__, push.__code__))


def _refusal(node: Node, given: list[Any], error: Exception) -> Exception:
    """`error` told in full: whose derivative it was, at which tangents or cotangents."""
    parts = (x if isinstance(x, rules.Parts) else (x,) for x in given)
    arrays = [x for part in parts for x in part if x is not None]
    return rules.refusal(f"the derivative of {node.op.name}", arrays, error)


def cast(x: Any, dtype: Any) -> Any:
    """A tangent or cotangent in the dtype of the value it belongs to."""
    if x.dtype.kind == "c" and dtype.kind != "c":
        x = real(x)
    return x if x.dtype == dtype else astype(x, dtype)


def conjugate(x: Any) -> Any:
    """From the plain convention to steepest ascent, and back."""
    return conj(x) if x.dtype.kind == "c" else x


def _own(c: Any) -> Any:
    if type(c) is Tensor:
        return Tensor(xp(c.data).copy(c.data), c.node)
    return xp(c).copy(c)


def _run_hooks(node: Node, g: Any) -> Any:
    for hook in node.hooks or ():
        changed = hook(conjugate(as_tensor(_own(g))))  # which may write it
        if changed is None:
            continue
        if not isinstance(changed, Tensor):
            raise TypeError(f"a hook returns None or a Tensor, not {type(changed).__name__}")
        if changed.shape != node.shape:
            raise ValueError(f"a hook returned shape {changed.shape} in place of {node.shape}")
        changed = cast(conjugate(changed), node.dtype)
        g = changed if type(g) is Tensor else changed.data
    return g


def as_tensor(x: Any) -> Tensor:
    """A Tensor as it is; one around a raw array or array scalar, off the tape."""
    if type(x) is Tensor:
        return x
    backend = backends.backend_of(x)
    if type(x) is not backend.array_type:
        x = backend.asarray(x, None, backend.device_of(x), None)
    return Tensor(x, None)


def fit(value: Any, like: Tensor, name: str) -> Tensor:
    """`value` as a tangent or cotangent of `like`: a Tensor of its shape, dtype and device.

    Raises:
        ValueError: if shape or device differ; TypeError: if `value` is no array or number.
    """
    if not isinstance(value, Tensor) and backends.find_backend(type(value)) is None:
        value = asarray(value, device=like.device)
    value = as_tensor(value)
    if value.shape != like.shape:
        raise ValueError(
            f"{name} has shape {value.shape} where {like.shape} is needed "
            f"({like.dtype} on {like.device})"
        )
    if value.device != like.device:
        raise ValueError(
            f"{name} is on {value.device} where {like.device} is needed; move it with .to(device)"
        )
    value, _ = rules.align((value, like)) or (value, like)
    return cast(value, like.dtype)


def seed(root: Tensor, gradient: Any, name: str) -> Tensor:
    """The cotangent that starts a sweep at `root`: `gradient`, or one for a scalar.

    Raises:
        ValueError: if `root` is no scalar and no gradient is given; otherwise as `fit`.
    """
    if gradient is not None:
        return conjugate(fit(gradient, root, f"{name}: the gradient"))
    if root.size != 1:
        raise ValueError(
            f"{name}: only a scalar has an implied gradient, this result is {root.dtype} "
            f"{root.shape} on {root.device}; give a gradient of that shape, or reduce it first"
        )
    try:
        return Tensor(xp(root.data).ones_like(root.data), None)
    except backends.hindrances as error:
        raise rules.refusal(name, (root,), error) from None


@rules.frees
def backward(
    self: Tensor,
    gradient: Any = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
) -> None:
    """Add the gradient of this tensor to `.grad` of every leaf it depends on.

    Args:
        gradient: cotangent of this tensor, of its shape and on its device; may be left out for a
            tensor with one element, and is one then.
        retain_graph: keep the tape for another sweep; by default only with `create_graph`.
        create_graph: record the sweep itself, so that the gradients can be differentiated.

    Raises:
        RuntimeError: if this tensor does not require a gradient, if its tape was released by an
            earlier sweep, or if an array kept on it was changed in place.
        ValueError, TypeError: for a gradient that is missing or does not fit.
        OutOfMemoryError: if there is no memory for the sweep; it may then be tried again.

    Nothing has been changed when one of these is raised.
    """
    if self.node is None:
        raise RuntimeError(
            "backward: this tensor does not require a gradient, nor does anything it was computed "
            "from; set requires_grad=True on an input (or leave the no_grad block)"
        )
    order, _ = reach((self.node,))
    g = seed(self, gradient, "backward")
    retain = create_graph if retain_graph is None else retain_graph
    outside = recording_flag.set(create_graph)
    try:
        path = [node for node in order if node.op is not None]
        ends: Any = {node for node in order if node.op is None}
        start = {self.node: g if create_graph else g.data}
        found: dict[Any, Any] = pull(path, ends, start, record=create_graph)
        for leaf, c in found.items():
            c = as_tensor(conjugate(c))
            # fresh, not in place: the user may hold what .grad was before
            found[leaf] = c if leaf.grad is None else leaf.grad + c
    finally:
        recording_flag.reset(outside)
    # nothing was changed before this line, and what follows cannot fail
    for leaf, grad in found.items():
        leaf.grad = grad
    if not retain:
        for node in path:
            node.edges = None


Tensor.backward = backward  # type: ignore[method-assign]
