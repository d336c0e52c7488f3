"""Whole matrices of derivatives: `jacobian` and `hessian`; and `hvp`, a product with the Hessian.

A Jacobian is one sweep over the tape, not one per row: the unit vectors go through the rules as a
batch (`batching.py`).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from . import batching
from .ops.dtypes import astype
from .ops.manipulation import concat, moveaxis, reshape
from .rules import ElementwiseOp, at, frees, xp
from .sweeps import as_tensor, pull, push, route
from .tape import Node, enable_grad, no_grad
from .tensor import Tensor
from .transforms import _outputs, _Trace, grad, jvp, tracing
from .trees import flatten

# Unit vectors that go through a sweep together are so many that the largest array of the sweep
# stays below this number of elements (of float64, 128 MiB).
_LARGEST = 1 << 24


def jacobian(
    f: Callable[..., Any], argnums: int | Sequence[int] = 0, *, holomorphic: bool = False
) -> Callable[..., Any]:
    """A function that gives the Jacobian of `f`, all first derivatives of all results.

    Rows (the reverse sweep) or columns (the forward one) are computed together, whichever are
    fewer; in portions, so that no array of a sweep has more than 2**24 elements.

    Args:
        f: a function of tensors to a tensor, or to nested lists, tuples and dicts of them.
        argnums: which positional arguments to differentiate: an integer, or several.
        holomorphic: says that `f`, of complex numbers, is complex differentiable, so that there is
            such a thing as d out / d z. It is not checked.

    Returns:
        A function of the same arguments. The Jacobian of a result of shape m by an argument of
        shape n has shape m + n and the argument's dtype, its complex one if the result is complex.
        The structure is that of the results, with that of the argument inside each of them (a
        tuple with several `argnums`).

    Raises:
        TypeError: if arguments are integers, or complex and `holomorphic` does not say so, or if
            `f` returns something else than tensors; ValueError: for `argnums` that do not fit.
    """
    several = isinstance(argnums, Sequence)
    traced = tracing("jacobian", f, argnums)

    @frees
    @functools.wraps(f)
    def jacobian_of(*args: Any, **kwargs: Any) -> Any:
        trace = traced(args, kwargs)
        outs, unflatten = _outputs(trace, trace.out)
        _check_numbers(trace, outs, holomorphic)
        rows, columns = (sum(x.size for x in xs) for xs in (outs, trace.inputs))
        if any(x.dtype.kind == "c" for x in outs) and not holomorphic:
            forward = True  # the reverse sweep sees one part of a complex number at a time
        else:
            forward = columns < rows and not _reverse_only(trace, outs)
        blocks = _by_columns(trace, outs) if forward else _by_rows(trace, outs)
        results = []
        for x, row in zip(outs, blocks, strict=True):
            dtypes = [_dtype(x, y) for y in trace.inputs]
            row = [astype(b, dtype, copy=False) for b, dtype in zip(row, dtypes, strict=True)]
            parts = trace.rebuild(trace.like_given(row))
            results.append(tuple(parts) if several else parts[0])
        return unflatten(results)

    return jacobian_of


def _check_numbers(trace: _Trace, outs: list[Tensor], holomorphic: bool) -> None:
    complexes = [x.dtype for x in trace.inputs if x.dtype.kind == "c"]
    if complexes and not holomorphic:
        raise TypeError(
            f"jacobian: {trace.name} has an argument of {complexes[0]}: say holomorphic=True if it "
            "is complex differentiable, else make it a function of real and imaginary parts "
            "(the gradient of a real function: gpugrad.grad)"
        )
    for x in outs:
        if holomorphic and x.dtype.kind != "c":
            raise TypeError(f"jacobian: {trace.name} gives {x.dtype}: it is not holomorphic")


def _reverse_only(trace: _Trace, outs: list[Tensor]) -> bool:
    order, _ = trace.reach([x.node for x in outs if x.node is not None])
    return any(getattr(node.op, "reverse_only", False) for node in order)


def _dtype(out: Tensor, x: Tensor) -> Any:
    return np.result_type(x.dtype, np.complex64) if out.dtype.kind == "c" else x.dtype


def _by_rows(trace: _Trace, outs: list[Tensor]) -> list[list[Tensor]]:
    """The reverse sweep: per result the Jacobians by every input."""
    return list(map(functools.partial(_rows, trace), outs))


def _rows(trace: _Trace, out: Tensor) -> list[Tensor]:
    found: list[list[Any]] = [[] for _ in trace.inputs]
    if out.node is not None:
        order, record = trace.reach([out.node])
        path, ends = route(order, trace.nodes), set(trace.nodes)
        sweep = functools.partial(pull, path, ends)
        with enable_grad() if record else no_grad():
            node, entries = (out.node, None) if record else _diagonal(out, path, ends)
            found = _portions(sweep, node, entries, out, trace.nodes, order, path, record)
    with enable_grad():
        return [
            _joined(portions, x, out.shape + x.shape)
            for portions, x in zip(found, trace.inputs, strict=True)
        ]


def _diagonal(out: Tensor, path: list[Node], ends: set[Node]) -> tuple[Node, Any]:
    """From where on elementwise operations alone lead to `out`, and the derivative of these.

    Their Jacobian is diagonal: it takes one plain sweep. None where there are none.
    """
    assert out.node is not None
    node: Node = out.node
    entries = None
    useful = ends.union(path)
    with at(out):
        while node not in ends and isinstance(node.op, ElementwiseOp) and not node.hooks:
            edges = [edge for edge in node.edges if edge[0] in useful]
            parent, argument, kept = edges[0]
            alike = (parent.shape, parent.dtype) == (node.shape, node.dtype)
            if len(edges) > 1 or not alike or node.dtype.kind == "c":
                break
            entries = xp(out.data).ones_like(out.data) if entries is None else entries
            entries = argument.vjp(entries, kept)
            node = parent
    return node, entries


def _by_columns(trace: _Trace, outs: list[Tensor]) -> list[list[Tensor]]:
    """The forward sweep: per result the Jacobians by every input."""
    order, record = trace.reach([x.node for x in outs if x.node is not None])
    blocks: list[list[Tensor]] = [[] for _ in outs]
    ends = [x.node for x in outs]
    for x, node in zip(trace.inputs, trace.nodes, strict=True):
        path = route(order, [node])
        with enable_grad() if record else no_grad():
            sweep = functools.partial(push, path)
            found = _portions(sweep, node, None, x, ends, order, path, record)
        with enable_grad():
            for row, portions, out in zip(blocks, found, outs, strict=True):
                columns = _joined(portions, out, x.shape + out.shape)
                ahead = tuple(range(x.ndim))
                row.append(moveaxis(columns, ahead, tuple(i - x.ndim for i in ahead)))
    return blocks


def _portions(
    sweep: Callable[..., dict[Node, Any]],
    node: Node,
    entries: Any,
    x: Tensor,
    wanted: Sequence[Node | None],
    order: list[Node],
    path: list[Node],
    record: bool,
) -> list[list[Any]]:
    """What `sweep` makes of unit vectors at `node`: arrays (count, ...) per node of `wanted`.

    The unit vectors are of the shape of `x`; `entries`, if any, are in place of the ones.
    """
    library = xp(x.data)
    found: list[list[Any]] = [[] for _ in wanted]
    here, level = batching.depth(), batching.deepest(order) + 1
    largest = max([x.size, 1, *(math.prod(n.shape) for n in path)])
    step = max(1, _LARGEST // largest)
    with at(x):
        ones = library.ones((x.size,), x.dtype) if entries is None else entries.reshape((x.size,))
    for start in range(0, x.size, step):
        count = min(step, x.size - start)
        some = ones[start : start + count]
        with at(x):
            units = library.zeros((count * x.size,), x.dtype)
            units[start :: x.size + 1] = some
            units = library.reshape(units, (count, *x.shape))
        with batching.examples(count, level):
            batch = batching.up(units, level, count)
            batch.diagonal = (start, some) if x.ndim == 1 else None
            batch = Tensor(batch, None) if record else batch
            lift = batching.kept_at(level, count)
            reached = sweep({node: batch}, record=record, lift=lift)
            for end, portions in zip(wanted, found, strict=True):
                c = None if end is None else reached.get(end)
                portions.append(None if c is None else batching.down(c, level, count, here))
    return found


def _joined(portions: list[Any], like: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Arrays (count, ...), of which one is None where all are, as one of `shape`."""
    if not portions or portions[0] is None:
        with at(like):
            return Tensor(xp(like.data).zeros(shape, like.dtype), None)
    tensors = [as_tensor(p) for p in portions]
    return reshape(tensors[0] if len(tensors) == 1 else concat(tensors), shape)


def hessian(f: Callable[..., Any], argnums: int | Sequence[int] = 0) -> Callable[..., Any]:
    """A function that gives the Hessian of a scalar function `f`, all its second derivatives.

    It is the Jacobian of the gradient.

    Args:
        f: returns a 0-d (or one-element) tensor, real.
        argnums: which positional arguments to differentiate: an integer, or several.

    Returns:
        A function of the same arguments. The Hessian by an argument of shape n has shape n + n;
        for nested structures, and several `argnums`, the structure twice, one inside the other.

    Raises:
        ValueError, TypeError: as `grad`; TypeError for complex arguments.
    """
    return jacobian(grad(f, argnums), argnums)


@frees
def hvp(f: Callable[..., Any], primals: Sequence[Any], vectors: Sequence[Any]) -> Any:
    """The product of the Hessian of a scalar function `f` at `primals` with `vectors`.

    The gradient's derivative along `vectors` (Pearlmutter 1994): as dear as a few gradients, and
    the Hessian itself is never made.

    Args:
        f: returns a 0-d (or one-element) tensor, real.
        primals: a tuple or list of arguments: arrays, tensors, or nested structures of them.
        vectors: of the same structure and shapes.

    Returns:
        The product, in the structure of `primals`.

    Raises:
        ValueError, TypeError: as `jvp` and `grad`.
    """
    if not isinstance(primals, (tuple, list)):
        raise TypeError("hvp: primals is a tuple or list, one item per argument")
    gradient = grad(f, tuple(range(len(primals))))
    product, _ = flatten(jvp(gradient, primals, vectors)[1])
    return flatten(primals)[1](product)
