"""Derivatives of functions: `grad`, `value_and_grad`, `vjp`, `jvp`.

They nest in each other to any order. Every call puts its inputs on the tape anew, so that an inner
derivative never confuses its perturbation with an outer one. A result comes back as it went in: a
NumPy or CuPy array for an array, a Tensor for a Tensor, in the same nested lists, tuples and
dicts; where it depends on a tensor of somebody else's that requires a gradient (an outer
derivative's input, say), it is a Tensor on that tape, for nothing is dropped.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Sequence
from typing import Any

from . import backends
from .batches import BatchedArray
from .batching import depth, here
from .ops.creation import _check_inexact, asarray, zeros_like
from .rules import frees, linear
from .sweeps import _own, as_tensor, cast, conjugate, fit, pull, push, route, seed
from .tape import Leaf, Node, enable_grad, no_grad, now, owner_of, reach, recording
from .tensor import Tensor
from .trees import flatten, flatten_like, map_tree


@linear(lambda t: t)
def _enter(x: Any, /) -> Any:
    """An input of a derivative: the same value, at a new place on the tape."""
    return x


class _Trace:
    """One call of a function on inputs that were put on the tape for it."""

    def __init__(self, f: Callable[..., Any], args: Sequence[Any], argnums: Sequence[int]) -> None:
        self.outer_recording = recording()
        self.start = now()
        self.name = getattr(f, "__name__", type(f).__name__)
        args = list(args)
        leaves, self.rebuild = flatten([args[i] for i in argnums])
        self.given = leaves
        values = [x if isinstance(x, Tensor) else asarray(x) for x in leaves]
        for x in values:
            _check_inexact(x.dtype)
        with enable_grad():
            if depth():
                values = [here(x) for x in values]
            self.inputs = [
                Tensor(x.data, Leaf(x.shape, x.dtype)) if x.node is None else _enter(x)
                for x in values
            ]
            for i, arg in zip(argnums, self.rebuild(self.inputs), strict=True):
                args[i] = arg
            self.nodes = [x.node for x in self.inputs if x.node is not None]
            self.owners = {id(owner_of(x.data)) for x in self.inputs}
            self.out = f(*args)

    def reach(self, roots: list[Node], more: Sequence[Tensor] = ()) -> tuple[list[Node], bool]:
        """The nodes of this trace below `roots`, and whether the derivative must be recorded.

        It must be where anything on the way belongs to an older tape, or `more` is on one.
        """
        order, leans = reach(roots, self.start)
        foreign = leans or any(x.node is not None for x in more)
        return order, foreign and self.outer_recording

    def settle(self, x: Any) -> Any:
        """A result as the caller gets it: off this trace's tape, unless another tape is in it."""
        if not isinstance(x, Tensor) or x.node is None:
            return x
        if self.outer_recording and x.node.edges is not None and self.reach([x.node])[1]:
            return x
        return x.detach()

    def like_given(self, results: list[Tensor]) -> list[Any]:
        """Results as raw arrays where the inputs were, unless that would drop a gradient."""
        return [
            self._raw(r) if backends.find_backend(type(x)) is not None else r
            for r, x in zip(results, self.given, strict=True)
        ]

    def array_like(self, x: Any) -> Any:
        """A result of the function: a raw array if every input was one."""
        if not isinstance(x, Tensor) or x.node is not None:
            return x
        if id(owner_of(x.data)) in self.owners:
            x = x.copy()  # what the caller gets is not what the caller holds
        raw = all(backends.find_backend(type(given)) is not None for given in self.given)
        return self._raw(x) if raw else x

    def _raw(self, x: Tensor) -> Any:
        return x if x.node is not None or isinstance(x.data, BatchedArray) else x.data


def _outputs(trace: _Trace, out: Any) -> tuple[list[Tensor], Callable[[list[Any]], Any]]:
    leaves, unflatten = flatten(out)
    for x in leaves:
        if not isinstance(x, Tensor):
            raise TypeError(
                f"{trace.name} returned {type(x).__name__} where a Tensor is needed: compute it "
                "with gpugrad's functions (float(), .numpy() and the like leave the tape)"
            )
    return leaves, unflatten


@frees
def vjp(f: Callable[..., Any], *primals: Any) -> tuple[Any, Callable[..., tuple[Any, ...]]]:
    """The value of `f(*primals)` and its pullback, the vector-Jacobian product.

    Args:
        f: a function of tensors to a tensor, or to nested lists, tuples and dicts of them.
        primals: arrays, tensors, or nested structures of them, floating-point or complex.

    Returns:
        `(out, pullback)`: `pullback(g)`, for `g` of the structure of `out`, is a tuple with one
        cotangent per primal. It may be called any number of times.

    Raises:
        TypeError: for inputs without derivative (integers), or if `f` returns something else
            than tensors.
    """
    trace = _Trace(f, primals, range(len(primals)))
    outs, unflatten = _outputs(trace, trace.out)

    @frees
    def pullback(g: Any) -> tuple[Any, ...]:
        gs = flatten_like(g, trace.out, "vjp: the cotangent")
        return tuple(trace.rebuild(_pull(trace, outs, gs, "vjp")))

    value = unflatten([trace.array_like(trace.settle(x)) for x in outs])
    return value, pullback


def _pull(trace: _Trace, outs: list[Tensor], gs: list[Any], name: str) -> list[Any]:
    seeds = [seed(x, g, name) for x, g in zip(outs, gs, strict=True)]
    cotangents: dict[Node, Any] = {}
    roots = [x.node for x in outs if x.node is not None]
    order, record = trace.reach(roots, seeds)
    with enable_grad() if record else no_grad():
        for x, g in zip(outs, seeds, strict=True):
            if x.node is not None:
                g = g if record else g.data
                before = cotangents.get(x.node)
                cotangents[x.node] = g if before is None else before + g
        path, ends = route(order, trace.nodes), set(trace.nodes)
        found = pull(path, ends, cotangents, record=record)
        results = []
        for x, node in zip(trace.inputs, trace.nodes):
            c = found.get(node)
            results.append(zeros_like(x) if c is None else conjugate(as_tensor(c)))
    return trace.like_given(results)


@frees
def jvp(f: Callable[..., Any], primals: Sequence[Any], tangents: Sequence[Any]) -> tuple[Any, Any]:
    """The value of `f(*primals)` and its derivative along `tangents`, the tape read forwards.

    Args:
        f: a function of tensors to a tensor, or to nested lists, tuples and dicts of them.
        primals: a tuple or list of arguments: arrays, tensors, or nested structures of them.
        tangents: of the same structure and shapes.

    Returns:
        `(out, tangent)`, of the same structure.

    Raises:
        ValueError: if `tangents` does not fit `primals`; TypeError: as `vjp`.
    """
    if not isinstance(primals, (tuple, list)) or not isinstance(tangents, (tuple, list)):
        raise TypeError("jvp: primals and tangents are tuples or lists, one item per argument")
    trace = _Trace(f, primals, range(len(primals)))
    given = flatten_like(tangents, primals, "jvp: tangents")
    outs, unflatten = _outputs(trace, trace.out)
    seeds = [fit(t, x, "jvp: a tangent") for x, t in zip(trace.inputs, given, strict=True)]
    order, record = trace.reach([x.node for x in outs if x.node is not None], seeds)
    with enable_grad() if record else no_grad():
        known = {n: t if record else t.data for n, t in zip(trace.nodes, seeds, strict=True)}
        found = push(order, known, record=record)
        results = []
        taken = {id(t.data) for t in seeds}
        for x in outs:
            t = found.get(x.node) if x.node is not None else None
            t = as_tensor(zeros_like(x) if t is None else cast(t, x.dtype))
            if id(t.data) in taken or t.data.base is not None:  # a rule may return its tangent
                t = _own(t)
            taken.add(id(t.data))
            results.append(trace.array_like(t))
    values = [trace.array_like(trace.settle(x)) for x in outs]
    return unflatten(values), unflatten(results)


def tracing(name: str, f: Any, argnums: int | Sequence[int]) -> Callable[..., _Trace]:
    """A function (args, kwargs) that calls `f` on them, traced by its arguments `argnums`."""
    given = argnums if isinstance(argnums, Sequence) else (argnums,)
    numbers = tuple(map(operator.index, given))

    def traced(args: tuple, kwargs: dict[str, Any]) -> _Trace:
        if any(not -len(args) <= i < len(args) for i in numbers):
            raise ValueError(f"{name}: argnums={argnums}, but {len(args)} positional arguments")
        if len({i % len(args) for i in numbers}) < len(numbers):
            raise ValueError(f"{name}: argnums={argnums} names an argument twice")
        trace = _Trace(functools.partial(f, **kwargs) if kwargs else f, args, numbers)
        trace.name = getattr(f, "__name__", trace.name)
        return trace

    return traced


def value_and_grad(
    f: Callable[..., Any], argnums: int | Sequence[int] = 0, has_aux: bool = False
) -> Callable[..., Any]:
    """A function that gives the value of a scalar function `f` and its gradient.

    Args:
        f: returns a 0-d (or one-element) tensor; with `has_aux` a pair of that and anything.
        argnums: which positional arguments to differentiate: an integer, or several.

    Returns:
        A function of the same arguments that returns `(value, gradient)`, with `has_aux`
        `((value, aux), gradient)`. The gradient has the structure of the argument; with several
        `argnums` it is a tuple. For complex arguments it is the direction of steepest ascent.

    Raises:
        ValueError: if `f` returns no scalar; TypeError: if it returns no tensor, or an argument
            is not floating-point or complex.
    """
    several = isinstance(argnums, Sequence)
    traced = tracing("grad", f, argnums)

    @frees
    @functools.wraps(f)
    def value_and_gradient(*args: Any, **kwargs: Any) -> Any:
        trace = traced(args, kwargs)
        if has_aux and not (isinstance(trace.out, tuple) and len(trace.out) == 2):
            raise TypeError(f"grad: with has_aux, {trace.name} must return a pair (value, aux)")
        out, aux = trace.out if has_aux else (trace.out, None)
        (out,), _ = _outputs(trace, [out])
        if out.dtype.kind == "c":
            raise TypeError(f"grad: {trace.name} must return a real scalar, not {out.dtype}")
        gradient = trace.rebuild(_pull(trace, [out], [None], "grad"))
        value = trace.array_like(trace.settle(out))
        if has_aux:
            value = (value, map_tree(lambda x: trace.array_like(trace.settle(x)), aux))
        return value, tuple(gradient) if several else gradient[0]

    return value_and_gradient


def grad(
    f: Callable[..., Any], argnums: int | Sequence[int] = 0, has_aux: bool = False
) -> Callable[..., Any]:
    """A function that gives the gradient of a scalar function `f`.

    As `value_and_grad`, without the value; with `has_aux` it returns `(gradient, aux)`.
    """
    both = value_and_grad(f, argnums, has_aux)

    @functools.wraps(f)
    def gradient(*args: Any, **kwargs: Any) -> Any:
        value, result = both(*args, **kwargs)
        return (result, value[1]) if has_aux else result

    return gradient
