"""Functions that bring their own way back: `custom_vjp` and `checkpoint`.

Each call is one node on the tape, whatever the function does. Before it stands a node that gathers
the tensors it depends on, so that one cotangent of all of them is computed once; behind it stands
one node per result.
"""

from __future__ import annotations

import contextvars
import functools
import weakref
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from . import backends, batching, rules, transforms
from .batches import BatchedArray
from .ops.creation import zeros_like
from .rules import Part, Parts, _parts, align, as_array, at, frees, raw
from .sweeps import as_tensor, conjugate, pull, push, route
from .tape import (
    Leaf,
    Node,
    arrays_in,
    change_of,
    changed_at,
    described,
    now,
    owner_of,
    reach,
    recording,
)
from .tensor import Tensor
from .transforms import _enter
from .trees import flatten


class _Source(Part):
    """One of the tensors that a call depends on: a `Part` the other way round."""

    __slots__ = ()

    vjp = Part.jvp
    jvp = Part.vjp


class _Gathering:
    name = "custom"

    def wrap(self, node: Node) -> tuple:
        return node.edges


_GATHERING = _Gathering()


def _on_tape(op: Any, sources: Sequence[Node], kept: Any, outs: Iterable[Any]) -> list[Tensor]:
    """Arrays as the results of `op`, whose rules are given Parts, one per source or result."""
    edges = tuple((x, _Source(op.name, i, len(sources)), None) for i, x in enumerate(sources))
    gathered = Node(_GATHERING, edges, (), None)
    return _results(Node(op, ((gathered, op, kept),), (), None), outs)


def _results(node: Node, outs: Iterable[Any]) -> list[Tensor]:
    outs = list(outs)
    return [
        Tensor(
            x,
            None if x.dtype.kind in "biu" else Node(part, ((node, part, None),), x.shape, x.dtype),
        )
        for x, part in zip(outs, _parts(node.op.name, len(outs)), strict=True)
    ]


def _is_recorded(t: Parts) -> bool:
    return any(isinstance(x, Tensor) for x in t)


# ---- custom_vjp


def custom_vjp(
    f: Callable[..., Any], vjp: Callable[..., Any], jvp: Callable[..., Any] | None = None
) -> Callable[..., Any]:
    """`f`, whatever code it runs, with a derivative written by hand.

        def launched(x):  # any code of raw arrays: here a kernel, that of a symmetric matrix
            y = cp.empty_like(x)
            raw_kernel((blocks,), (256,), (x, y, x.size))
            return y

        f = gg.custom_vjp(launched, lambda g, out, x: f(g))

    A kernel that computes element by element is shorter with `elementwise_kernel`.

    Args:
        f: is called with arrays of the library in place of Tensors, and other arguments as they
            are; returns an array, or a tuple of them.
        vjp: `vjp(g, out, *args)` returns the cotangent of every array among `args`, of its shape:
            a tuple, None in it for one that is zero; for a single array without the tuple. `g` and
            `out` are as `f` returned. For complex arrays a cotangent is the direction of steepest
            ascent, as everywhere.
        jvp: `jvp(t, out, *args)` returns the tangent of `out`; `t` is a tuple with the tangents of
            the arrays among `args`, None for one that is zero. Without it the forward sweep
            transposes `vjp`, which then must compute with gpugrad's functions or operators.

    Returns:
        A function of the same positional arguments, on tensors and arrays.

    For second derivatives `vjp` and `jvp` are called with Tensors; if they are written in gpugrad's
    functions they are differentiated in turn (what they take off the tape, by `.detach()` or
    `.data`, is a constant).

    Raises:
        TypeError, ValueError: when a cotangent does not fit its argument, which is named;
            TypeError when None is returned, as without a `return`.
        RuntimeError: for a derivative that `vjp` or `jvp` cannot give; it is never taken for zero.
    """
    op = _Custom(f, vjp, jvp)

    @functools.wraps(f)
    def call(*args: Any) -> Any:
        return op.call(args)

    return call


class _Custom:
    """The operation of a function with derivatives written by hand."""

    def __init__(self, f: Any, vjp: Any, jvp: Any) -> None:
        self.name = getattr(f, "__name__", type(f).__name__)
        self._f, self._vjp, self._jvp = f, vjp, jvp
        self.reverse_only = jvp is None  # for `jacobian`, which may choose

    def call(self, args: tuple) -> Any:
        if rules.watch is not None and (watchers := rules.watch()) is not None:
            return watchers(self.name, args, functools.partial(self.call, args))
        tensors = [x for x in args if isinstance(x, Tensor)]
        arrays = [i for i, x in enumerate(args) if _is_array(raw(x))]
        aligned = align([args[i] for i in arrays])
        if aligned is not None:
            args = _filled(args, arrays, aligned)
        inside = tuple(map(raw, args))
        with at(inside[arrays[0]] if arrays else None):
            out = _per_example(self._f, inside)
        several = isinstance(out, (tuple, list))
        outs = tuple(map(as_array, out if several else (out,)))
        for x in outs:
            if not _is_array(x):
                raise TypeError(
                    f"custom_vjp: {self.name} returns arrays, or a tuple of them, not "
                    f"{type(x).__name__}"
                )
        if not tensors:
            return outs if several else outs[0]
        where = [i for i in arrays if isinstance(args[i], Tensor) and args[i].node is not None]
        if where and recording():
            kept = (outs if several else outs[0], inside, tuple(arrays), tuple(where))
            results = _on_tape(self, [args[i].node for i in where], kept, outs)
        else:
            results = [Tensor(x, None) for x in outs]
        return tuple(results) if several else results[0]

    def wrap(self, node: Node) -> tuple:
        ((gathered, _, (out, args, arrays, where)),) = node.edges
        nodes = dict(zip(where, (edge[0] for edge in gathered.edges), strict=True))
        tensors = _filled(args, arrays, [Tensor(args[i], nodes.get(i)) for i in arrays])
        outs = _results(node, out if isinstance(out, tuple) else (out,))
        wrapped = tuple(outs) if isinstance(out, tuple) else outs[0]
        return ((gathered, self, (wrapped, tensors, arrays, where)),)

    def vjp(self, t: Parts, kept: Any) -> Parts:
        out, args, arrays, where = kept
        outs = out if isinstance(out, tuple) else (out,)
        gs = tuple(
            conjugate(zeros_like(x) if g is None else g) for g, x in zip(t, outs, strict=True)
        )
        g = gs if isinstance(out, tuple) else gs[0]
        found = self._cotangents(_is_recorded(t), g, out, args, arrays)
        return Parts(
            zeros_like(args[i]) if found[i] is None else conjugate(found[i]) for i in where
        )

    def _cotangents(
        self, recorded: bool, g: Any, out: Any, args: tuple, arrays: tuple[int, ...]
    ) -> dict[int, Any]:
        """What the pullback gives, by position of the argument."""
        values = self._several("vjp", self._called("vjp", self._vjp, recorded, (g, out, *args)))
        if len(values) != len(arrays):
            raise ValueError(
                f"custom_vjp: the vjp of {self.name} returned {len(values)} cotangents for "
                f"{len(arrays)} arrays"
            )
        found = {}
        for i, c in zip(arrays, values, strict=True):
            what = f"the cotangent of argument {i}"
            found[i] = None if c is None else self._checked(recorded, what, c, args[i])
        return found

    def jvp(self, t: Parts, kept: Any) -> Parts:
        out, args, arrays, where = kept
        outs = out if isinstance(out, tuple) else (out,)
        recorded = _is_recorded(t)
        if self._jvp is None:
            return self._transposed(t, kept)
        by_position = dict(zip(where, t, strict=True))
        given = tuple(by_position.get(i) for i in arrays)
        values = self._several("jvp", self._called("jvp", self._jvp, recorded, (given, out, *args)))
        if len(values) != len(outs):
            raise ValueError(
                f"custom_vjp: the jvp of {self.name} returned {len(values)} tangents for "
                f"{len(outs)} results"
            )
        return Parts(
            None if d is None else self._checked(recorded, f"the tangent of result {i}", d, x)
            for i, (d, x) in enumerate(zip(values, outs, strict=True))
        )

    def _transposed(self, t: Parts, kept: Any) -> Parts:
        """The pullback is linear in the cotangent, and its transpose is the forward rule."""
        out, args, arrays, where = kept
        outs = out if isinstance(out, tuple) else (out,)
        floats = [i for i, x in enumerate(outs) if x.dtype.kind not in "biu"]
        moved = [k for k, x in enumerate(t) if x is not None]

        def pullback(*gs: Any) -> list[Any]:
            every = _filled(tuple(zeros_like(x) for x in outs), floats, gs)
            g = every if isinstance(out, tuple) else every[0]
            found = self._cotangents(True, g, out, args, arrays)
            likes = ((found[i], args[i]) for i in (where[k] for k in moved))
            return [zeros_like(as_tensor(x)) if c is None else c for c, x in likes]

        try:
            zeros = [as_tensor(zeros_like(outs[i])) for i in floats]
            _, forward = transforms.vjp(pullback, *zeros)
        except RuntimeError as error:
            raise RuntimeError(
                f"custom_vjp: {self.name} has no jvp, and its vjp cannot be transposed for the "
                "forward sweep: give a jvp, or write the vjp with gpugrad's functions"
            ) from error
        tangents = dict(zip(floats, forward([t[k] for k in moved]), strict=True))
        given = (tangents.get(i) for i in range(len(outs)))
        return Parts(given if _is_recorded(t) else (None if x is None else raw(x) for x in given))

    def _several(self, kind: str, values: Any) -> Any:
        if values is None:  # a `return` left out would be a derivative of zero
            raise TypeError(
                f"custom_vjp: the {kind} of {self.name} returned None; a derivative of zero is "
                "(None,)"
            )
        return values if isinstance(values, (tuple, list)) else (values,)

    def _called(self, kind: str, rule: Any, recorded: bool, args: tuple) -> Any:
        if not recorded:
            return _per_example(rule, args)
        try:
            return rule(*args)
        except (TypeError, ValueError, RuntimeError, AttributeError) as error:
            raise self._not_differentiable(kind) from error

    def _not_differentiable(self, kind: str) -> RuntimeError:
        return RuntimeError(
            f"custom_vjp: the {kind} of {self.name} cannot be differentiated; second derivatives "
            "need it written with gpugrad's functions"
        )

    def _checked(self, recorded: bool, what: str, value: Any, like: Any) -> Any:
        if recorded and not isinstance(value, Tensor):
            raise self._not_differentiable("vjp" if "cotangent" in what else "jvp")
        value = value if isinstance(value, Tensor) == recorded else raw(value)
        value = value if isinstance(value, Tensor) else as_array(value)
        if not _is_array(raw(value)):
            raise TypeError(
                f"custom_vjp: {self.name}: {what} must be an array, not {type(value).__name__}"
            )
        if value.shape != like.shape:
            raise ValueError(
                f"custom_vjp: {self.name}: {what} has shape {value.shape} where {like.shape} is "
                "needed"
            )
        homes = [backends.device_of(raw(x)) for x in (value, like)]
        if homes[0] != homes[1] or not np.can_cast(value.dtype, like.dtype, "same_kind"):
            raise TypeError(
                f"custom_vjp: {self.name}: {what} is {value.dtype} on {homes[0]} where {like.dtype}"
                f" on {homes[1]} is needed"
            )
        return value


def _is_array(x: Any) -> bool:
    return not isinstance(x, np.generic) and backends.find_backend(type(x)) is not None


def _filled(items: tuple, where: Iterable[int], new: Iterable[Any]) -> tuple:
    filled = list(items)
    for i, x in zip(where, new, strict=True):
        filled[i] = x
    return tuple(filled)


def _per_example(f: Callable[..., Any], args: tuple) -> Any:
    """`f` of raw arrays; where some are batches, once per example."""
    batches = [x for x in flatten(args)[0] if isinstance(x, BatchedArray)]
    if not batches:
        return f(*args)

    def one(*inside: Any) -> Any:
        out = _per_example(f, inside)
        return tuple(map(raw, out)) if isinstance(out, (tuple, list)) else raw(out)

    return batches[0].xp.one_by_one(one, *args)


# ---- checkpoint


def checkpoint(f: Callable[..., Any]) -> Callable[..., Any]:
    """`f`, but what it computes on the way is not kept for the backward sweep: it is run again.

    Memory for time (Griewank and Walther 2000; Chen et al. 2016): of a call only the arguments
    stay, and a sweep that comes to it calls `f` once more. Around each sqrt(n) of n layers, it
    leaves a few times sqrt(n) activations of n, for one more forward pass: of the gradient of 50
    layers 256x256, batch 256, 18.7 MiB of 37.8. Derivatives of every order and mode, of arguments
    and of tensors that `f` closes over, are those of `f`. Random numbers from gpugrad's generators
    are drawn again as they were (on a GPU, where the state of a generator cannot be read, each call
    seeds them anew to that end).

    Args:
        f: a function of anything; the tensors in its arguments, in nested lists, tuples and dicts
            too, are the ones kept. Run again, it must do the same.

    Raises:
        RuntimeError: in a sweep, if `f` did something else when it was run again.
    """

    @frees
    @functools.wraps(f)
    def checkpointed(*args: Any, **kwargs: Any) -> Any:
        if not recording():
            return f(*args, **kwargs)
        return _Call(f, args, kwargs).first()

    return checkpointed


class _Call:
    """A call of a checkpointed function, to be repeated; the operation of its node."""

    def __init__(self, f: Callable[..., Any], args: tuple, kwargs: dict[str, Any]) -> None:
        self.name = f"checkpoint({getattr(f, '__name__', type(f).__name__)})"
        self._f = f
        self._leaves, self._rebuild = flatten([args, kwargs])
        self._where = [
            i for i, x in enumerate(self._leaves) if isinstance(x, Tensor) and x.node is not None
        ]
        self._inputs = [self._leaves[i].data for i in self._where]
        self._nodes = [self._leaves[i].node for i in self._where]
        for i in self._where:
            self._leaves[i] = None
        self._foreign: list[Node] = []  # of tensors that f closes over
        self._shapes: list[tuple[int, ...]] = []  # of the results on the tape
        # what the run computed with, and since when it must not have changed
        self._memory: list[tuple[Callable[[], Any], int, tuple, str]] = []
        self._level = batching.depth()
        self._context = contextvars.copy_context()
        from . import random  # whose distributions take long to declare

        self._random = random.states()

    def _run(self, inputs: list[Tensor]) -> tuple[list[Any], Any]:
        leaves = list(_filled(tuple(self._leaves), self._where, inputs))
        args, kwargs = self._rebuild(leaves)
        return flatten(self._f(*args, **kwargs))

    def _foreigners(self, roots: list[Node], start: int) -> tuple[list[Node], list[Node]]:
        """The nodes of a run, and the older ones they lean on."""
        order, _ = reach(roots, start)
        older = [x for x in roots if x.serial <= start]
        older += [edge[0] for node in order for edge in node.edges if edge[0].serial <= start]
        return order, list(dict.fromkeys(older))

    def first(self) -> Any:
        """The results of the call, on the tape if they depend on anything there."""
        start = now()
        inputs = [Tensor(x, Leaf(x.shape, x.dtype)) for x in self._inputs]
        leaves, unflatten = self._run(inputs)
        where = [i for i, x in enumerate(leaves) if isinstance(x, Tensor) and x.node is not None]
        order, self._foreign = self._foreigners([leaves[i].node for i in where], start)
        given = [raw(x) for x in self._leaves if isinstance(x, Tensor)]
        used = [(x, "an argument") for x in given]
        for node in order:
            used += [(x, f"kept by {node.op.name}") for x in arrays_in(e[2] for e in node.edges)]
        made = {id(owner_of(x.data)) for x in leaves if isinstance(x, Tensor)}
        end = now()
        for owner, x, use in {id(y := owner_of(x)): (y, x, use) for x, use in used}.values():
            serial = end if id(owner) in made else start
            what = (x.dtype, x.shape, backends.device_of(x))
            self._memory.append((_reference(owner), serial, what, use))
        self._join(inputs)
        sources = [*self._nodes, *self._foreign]
        if not sources or not where:
            return unflatten(leaves)
        self._shapes = [leaves[i].shape for i in where]
        outs = _on_tape(self, sources, (self, *self._inputs), [leaves[i].data for i in where])
        if rules.watch is not None and (watchers := rules.watch()) is not None:
            watchers.note(self.name, tuple(self._inputs), tuple(outs), end)
        return unflatten(_filled(tuple(leaves), where, outs))

    def _join(self, inputs: list[Tensor]) -> None:
        """Lead what `f` may have left elsewhere, in a list say, on to what it came from."""
        for x, node in zip(inputs, self._nodes, strict=True):
            leaf = x.node
            if leaf is not None and leaf.op is None:
                op = _enter.op  # type: ignore[attr-defined]
                leaf.op, leaf.edges = op, op.edges((x.data,), (node,), (), x.data)

    def wrap(self, node: Node) -> tuple:
        return node.edges

    def _again(self, recorded: bool) -> tuple[list[Tensor], list[Tensor], int]:
        """Inputs and results of another run, on a tape of its own, and where that starts."""

        for reference, serial, what, use in self._memory:
            owner = reference()
            if owner is not None and changed_at(owner) > serial:
                raise RuntimeError(
                    f"{self.name}: {described(*what)}, {use}, has been changed in place"
                    f"{change_of(owner) or ', by itself or since'}; change a copy instead, or take "
                    "the derivative first"
                )

        from . import watching

        watchers = watching.as_when_made()

        def run() -> tuple[list[Tensor], list[Tensor], int]:
            start = now()
            inputs = [
                _enter(Tensor(x, node)) if recorded else Tensor(x, Leaf(x.shape, x.dtype))
                for x, node in zip(self._inputs, self._nodes, strict=True)
            ]
            with watchers:
                leaves, _ = self._run(inputs)
            outs = [x for x in leaves if isinstance(x, Tensor) and x.node is not None]
            if [x.shape for x in outs] != self._shapes:
                raise RuntimeError(f"{self.name}: it did something else when it was run again")
            return inputs, outs, start

        from . import random

        with random.replayed(self._random):
            return self._context.copy().run(run)

    def vjp(self, t: Parts, kept: Any) -> Parts:
        return self._swept(t, backwards=True)

    def jvp(self, t: Parts, kept: Any) -> Parts:
        return self._swept(t, backwards=False)

    def _swept(self, t: Parts, backwards: bool) -> Parts:
        """Cotangents of the results to those of the sources, or tangents the other way."""
        inputs, outs, start = self._again(_is_recorded(t))
        sources = [x.node for x in inputs if x.node is not None] + self._foreign
        results = [x.node for x in outs if x.node is not None]
        order, foreign = self._foreigners(results, start)
        if not set(foreign) <= {*self._foreign, *self._nodes}:
            raise RuntimeError(f"{self.name}: it used other tensors when it was run again")
        path = route(order, sources)
        way = (sources, results, path) if backwards else (results, sources, path)
        one = next(raw(x) for x in t if x is not None)
        level = batching.level_of(one)
        if level <= self._level:
            swept = self._sweep(t, *way, backwards, None)
        else:  # a sweep of a batch, on a level which the tape of this run may have used
            count = batching.count_at(level)
            above = batching.deepest(order) + 1
            with batching.examples(count, above):
                raised = [self._moved(x, level, above, count) for x in t]
                swept = self._sweep(raised, *way, backwards, batching.kept_at(above, count))
                swept = [self._moved(x, above, level, count) for x in swept]
        if backwards:  # zero for what only results without a cotangent depend on
            likes = [*self._inputs, *(None for _ in self._foreign)]
            for i, (x, like, node) in enumerate(zip(swept, likes, sources, strict=True)):
                if x is None:
                    zero = _zero(one, node) if like is None else zeros_like(like)
                    zero = batching.lifted(zero, level) if level > self._level else zero
                    swept[i] = Tensor(zero, None) if _is_recorded(t) else zero
        self._join(inputs)
        return Parts(swept)

    def _moved(self, x: Any, source: int, target: int, count: int) -> Any:
        """A batch from one level to another."""
        if x is None:
            return None
        return batching.up(batching.down(x, source, count, self._level), target, count)

    def _sweep(
        self,
        t: Iterable[Any],
        wanted: list[Node],
        starts: list[Node],
        path: list[Node],
        backwards: bool,
        lift: Any,
    ) -> list[Any]:
        given: dict[Node, Any] = {}
        for node, x in zip(starts, t, strict=True):
            if x is not None:
                given[node] = given[node] + x if node in given else x
        recorded = any(isinstance(x, Tensor) for x in given.values())
        if backwards:
            found = pull(path, set(wanted), given, record=recorded, lift=lift)
        else:
            found = push(path, given, record=recorded, lift=lift)
        return [found.get(node) for node in wanted]


def _reference(x: Any) -> Callable[[], Any]:
    try:
        return weakref.ref(x)
    except TypeError:  # such as a bytearray
        return lambda: x


def _zero(like: Any, node: Node) -> Any:
    """Zeros for `node`, an array where `like` is."""
    while isinstance(like, BatchedArray):
        like = like.values
    home = backends.backend_of(like)
    with home.scope(home.device_of(like)):
        return home.xp.zeros(node.shape, node.dtype)
