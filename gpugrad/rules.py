"""The kinds of operation, and the one place where a call becomes a node on the tape.

A derivative rule is a function of a tangent or cotangent `t` and of what it needs besides. The
names of its parameters say what is kept for the sweep, read once when the rule is declared: an
argument by its name, `out`, `shape` (of the argument the rule belongs to), or an option of the
operation such as `axis`. Rules are written in gpugrad's own functions, which take raw arrays and
Tensors alike, so derivatives of derivatives come by themselves.
"""

from __future__ import annotations

import contextlib
import functools
import operator
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from . import backends
from .backends import Namespace
from .tape import Node, recording
from .tensor import Tensor
from .views import link

if TYPE_CHECKING:
    from .watching import Watchers

Rule = Callable[..., Any]
F = TypeVar("F", bound=Callable[..., Any])

NUMBERS = frozenset({int, float, complex, bool})
_SCALARS = (*NUMBERS, np.generic)

# Names of the array functions that are elementwise: those behind the operations declared so.
elementwise_functions: set[str] = set()


def align(operands: Iterable[Any]) -> tuple[Any, ...] | None:
    """Operands of which some are batches as arrays of one type; None if there is nothing to do.

    Asked only where types differ. `batching.py` puts in the function that does it.
    """
    return None


# Asks for the watchers of the context, who see a call as (name, operands, function that makes it);
# `watching.py` puts it in while there are any.
watch: Callable[[], Watchers | None] | None = None


class Argument:
    """What the tape must know of one array argument of an operation.

    Attributes:
        names: what is kept, by name.
        select: a function (*arrays, *options, out) -> kept: the value itself if it is one, else
            a tuple.
        vjp, jvp: the rules, functions of (t, kept); None where there is no derivative.
    """

    __slots__ = ("index", "jvp", "names", "select", "vjp")

    def __init__(
        self,
        op: str,
        index: int,
        arrays: tuple[str, ...],
        options: tuple[str, ...],
        vjp: Rule | None,
        jvp: Rule | None,
    ) -> None:
        known = (*arrays, *options, "out")
        self.index = index
        self.names = list(dict.fromkeys(_names_of(vjp) + _names_of(jvp)))
        if unknown := set(self.names) - {*known, "shape"}:
            raise TypeError(f"{op}: a rule asks for {unknown}, there are {known} and shape")
        values = [f"{arrays[index]}.shape" if n == "shape" else n for n in self.names]
        kept = values[0] if len(values) == 1 else f"({', '.join(values)})"
        # plain code, compiled once: it runs on every recorded call
        self.select = _compiled(f"lambda {', '.join(known)}: {kept}")
        self.vjp = _of_kept(vjp, self.names)
        self.jvp = _of_kept(jvp, self.names)

    def map(self, f: Callable[[str, Any], Any], kept: Any) -> Any:
        """`kept` with `f(name, value)` in place of each value."""
        if len(self.names) == 1:
            return f(self.names[0], kept)
        return tuple(map(f, self.names, kept))


class Op:
    """An operation with derivatives: its public name and its array arguments.

    Attributes:
        call: the function itself, (*arrays, **options), where there is one that computes from raw
            arrays what a node stands for; else None. `options` are their names.
    """

    __slots__ = ("arguments", "array_names", "call", "name", "options")

    def __init__(
        self,
        name: str,
        arrays: tuple[str, ...],
        options: tuple[str, ...],
        vjps: Iterable[Rule | None],
        jvps: Iterable[Rule | None],
    ) -> None:
        self.name = name
        self.array_names = arrays
        self.options = options
        self.call: Callable[..., Any] | None = None
        self.arguments = [
            Argument(name, i, arrays, options, vjp, jvp)
            for i, (vjp, jvp) in enumerate(zip(vjps, jvps, strict=True))
        ]

    def edges(self, arrays: Any, nodes: Any, options: tuple, out: Any) -> tuple:
        """The edges of a call, one to every argument that requires a gradient."""
        edges = []
        for node, argument in zip(nodes, self.arguments):
            if node is not None:
                if argument.vjp is None:
                    raise NotImplementedError(
                        f"{self.name}: no derivative with respect to argument {argument.index} "
                        "is known; use .detach() on it if none is wanted"
                    )
                edges.append((node, argument, argument.select(*arrays, *options, out)))
        return tuple(edges)

    def finish(self, arrays: Any, nodes: Any, options: tuple, out: Any) -> Any:
        """The result of a call, on the tape."""
        edges = self.edges(arrays, nodes, options, out)
        return Tensor(out, Node(self, edges, out.shape, out.dtype))

    def again(self, node: Node, out: Any) -> Any:
        """The result on the tape once more."""
        return Tensor(out, node)

    def wrap(self, node: Node) -> tuple:
        """The edges of `node` with what they keep as Tensors on the tape again.

        An input is wrapped with its own node; the output with `node`.
        """
        nodes: dict[str, Node | None] = dict.fromkeys(self.array_names)
        for parent, argument, _ in node.edges:
            nodes[self.array_names[argument.index]] = parent

        def wrapped(name: str, value: Any) -> Any:
            if name == "out":
                return self.again(node, value)
            return Tensor(value, nodes[name]) if name in nodes and _is_array(value) else value

        return tuple((edge[0], edge[1], edge[1].map(wrapped, edge[2])) for edge in node.edges)


class ElementwiseOp(Op):
    """An operation whose Jacobian is diagonal, but for broadcasting."""

    __slots__ = ()


class ManyOp(Op):
    """An operation on a list of arrays: one pair of rules serves every item.

    The rules name `index` (which item) first, and may name `arrays` (all of them), `shapes`, `out`
    and options.
    """

    __slots__ = ()

    def __init__(self, name: str, options: tuple[str, ...], vjp: Rule, jvp: Rule) -> None:
        super().__init__(name, ("index", "arrays", "shapes"), options, (vjp,), (jvp,))

    def edges(self, arrays: Any, nodes: Any, options: tuple, out: Any) -> tuple:
        (argument,) = self.arguments
        shapes = [x.shape for x in arrays]
        return tuple(
            (node, argument, argument.select(i, arrays, shapes, *options, out))
            for i, node in enumerate(nodes)
            if node is not None
        )

    def wrap(self, node: Node) -> tuple:
        parents = {kept[0]: parent for parent, _, kept in node.edges}

        def wrapped(name: str, value: Any) -> Any:
            if name == "arrays":
                return tuple(Tensor(x, parents.get(i)) for i, x in enumerate(value))
            return Tensor(value, node) if name == "out" else value

        return tuple((edge[0], edge[1], edge[1].map(wrapped, edge[2])) for edge in node.edges)


class SeveralOp(Op):
    """An operation with several results: one node with the rules, and on it a `Part` per result."""

    __slots__ = ()

    def finish(self, arrays: Any, nodes: Any, options: tuple, out: Any) -> Any:
        return self.again(Node(self, self.edges(arrays, nodes, options, out), (), None), out)

    def again(self, node: Node, out: Any) -> Any:
        """The results on the tape; one of integers or booleans is off it."""
        return tuple(
            Tensor(
                x,
                None
                if x.dtype.kind in "biu"
                else Node(part, ((node, part, None),), x.shape, x.dtype),
            )
            for x, part in zip(out, _parts(self.name, len(out)), strict=True)
        )


class Parts(tuple):
    """Cotangents (or tangents) of all results of one operation; None for a result without."""

    __slots__ = ()

    # what a sweep asks of a cotangent
    shape = ()
    dtype = None
    base = None

    def __add__(self, other: Any) -> Parts:
        return Parts(
            b if a is None else a if b is None else a + b for a, b in zip(self, other, strict=True)
        )


class Part:
    """One result of several: an operation on their node, and its own argument."""

    __slots__ = ("count", "index", "name")

    def __init__(self, name: str, index: int, count: int) -> None:
        self.name = name
        self.index = index
        self.count = count

    def vjp(self, t: Any, kept: None) -> Parts:
        return Parts(t if i == self.index else None for i in range(self.count))

    def jvp(self, t: Parts, kept: None) -> Any:
        return t[self.index]

    def wrap(self, node: Node) -> tuple:
        return node.edges


@functools.cache
def _parts(name: str, count: int) -> list[Part]:
    return [Part(name, i, count) for i in range(count)]


def _is_array(value: Any) -> bool:
    return backends.find_backend(type(value)) is not None


@functools.cache
def _code(text: str) -> Any:
    return compile(text, "<gpugrad.rules>", "eval")


def _compiled(text: str, **scope: Any) -> Any:
    """The function that `text` says; texts recur, and compiling them takes most of an import."""
    return eval(_code(text), scope)


def _names_of(rule: Rule | None) -> list[str]:
    return _positional(rule)[1:] if rule else []


def _positional(f: Any) -> list[str]:
    return list(f.__code__.co_varnames[: f.__code__.co_argcount])


def _of_kept(rule: Rule | None, names: list[str]) -> Rule | None:
    """`rule` as a function of (t, kept), where kept has what `names` say."""
    own = _names_of(rule)
    if rule is None or len(own) == len(names) == 1:
        return rule
    given = ["kept" if len(names) == 1 else f"kept[{names.index(n)}]" for n in own]
    return _compiled(f"lambda t, kept: rule({', '.join(['t', *given])})", rule=rule)


# ---- array functions


class Dispatch(dict[type, Callable[..., Any]]):
    """Array type -> the function `name` (or `special.name`) of its library; asked once per type."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __missing__(self, array_type: type) -> Callable[..., Any]:
        try:
            library = namespace_of[array_type]
        except TypeError as error:
            raise TypeError(f"{self.name}: {error}") from None
        function = operator.attrgetter(self.name)(library)
        self[array_type] = function
        return function


class _NamespaceOf(dict[type, Namespace]):
    """Array type -> the functions of its library."""

    def __missing__(self, array_type: type) -> Namespace:
        library = backends.backend_of_type(array_type).functions(array_type)
        self[array_type] = library
        return library


namespace_of = _NamespaceOf()


def xp(array: Any) -> Namespace:
    """The functions of the library of a raw array."""
    return namespace_of[type(array)]


def raw(x: Any) -> Any:
    """The array of a Tensor; an array as it is."""
    return x.data if type(x) is Tensor else x


# ---- from a call to a node


def _apply(
    name: str,
    op: Op | None,
    function: Callable[..., Any],
    operands: tuple,
    kwargs: dict[str, Any],
    bind: Callable[..., tuple],
    args: tuple = (),
) -> Any:
    """Call `function` on the arrays of `operands`, of which one is a Tensor, as are the results."""
    if watch is not None and (watchers := watch()) is not None:
        run = functools.partial(_apply, name, op, function, operands, kwargs, bind, args)
        return watchers(name, operands, run, args, kwargs)
    arrays = []
    nodes = []
    for x in operands:
        if type(x) is Tensor:
            arrays.append(x.data)
            nodes.append(x.node)
        else:
            _check_operand(name, x)
            arrays.append(x)
            nodes.append(None)
    aligned = _in_one_library(name, operands, arrays)
    if aligned is not None:
        return _apply(name, op, function, aligned, kwargs, bind, args)
    try:
        if backends.following_devices is None:
            out = function(*arrays, *args, **kwargs)
        else:
            with backends.following_devices() as follow:
                follow(next(x for x in arrays if type(x) not in NUMBERS))
                out = function(*arrays, *args, **kwargs)
    except (TypeError, ValueError, IndexError) as error:
        raise refusal(name, operands, error) from None
    except backends.hindrances as error:
        raise refusal(name, operands, error) from None
    if type(out) is tuple:
        out = tuple(map(as_array, out))
        if op is None or not any(nodes) or not recording():
            return tuple(Tensor(x, None) for x in out)
    else:
        out = as_array(out)
        if op is None or not any(nodes) or out.dtype.kind in "biu" or not recording():
            return Tensor(out, None)
    return op.finish(arrays, nodes, bind(*args, **kwargs), out)


def as_array(out: Any) -> Any:
    """A result of NumPy's, which gives a number where an array without axes is meant."""
    return np.asarray(out) if isinstance(out, np.generic) else out


def refusal(name: str, operands: Iterable[Any], error: Exception) -> Exception:
    """`error` told in full: the operation, shapes, dtypes and devices, and the mend."""
    values = [x.data if isinstance(x, Tensor) else x for x in operands]
    arrays = [x for x in values if getattr(x, "shape", None) is not None and _is_array(x)]
    described = ", ".join(
        f"{x.dtype} {x.shape} on {backends.device_of(x)}"
        if any(x is a for a in arrays)
        else type(x).__name__
        for x in values
    )
    places = {str(backends.device_of(x)) for x in arrays if not isinstance(x, np.generic)}
    if len(places) > 1:
        kind: type[Exception] = (
            ValueError if all(isinstance(x, Tensor) for x in operands) else TypeError
        )
        return kind(
            f"{name}: operands on different devices ({described}); "
            "move one with .to(device) or gpugrad.asarray(..., device=...)"
        )
    if isinstance(error, backends.hindrances):
        return hindered(name, f"operands: {described}", error)
    kinds = (np.exceptions.AxisError, np.linalg.LinAlgError, ValueError, IndexError, TypeError)
    for candidate in kinds:
        if isinstance(error, candidate):
            return candidate(f"{name}: {error} (operands: {described})")
    return error


def hindered(name: str, where: str, error: Exception) -> Exception:
    """One of `backends.hindrances`, as gpugrad's own exception that names the operation."""
    if isinstance(error, MemoryError):
        forget(error)
        return backends.OutOfMemoryError(f"{name}: {error} ({where})")
    return backends.TransferError(f"{name}: {error} ({where})")


def forget(error: BaseException) -> None:
    """Let go of what the frames that `error` passed held, also while somebody holds the error."""
    pending: BaseException | None = error
    while pending is not None:
        step = pending.__traceback__
        while step is not None:
            with contextlib.suppress(RuntimeError):  # of a frame that still runs
                step.tb_frame.clear()
            step = step.tb_next
        pending = pending.__context__


def frees(f: F) -> F:
    """Declare that `f`, where memory runs out, lets go of all that it and what it calls made."""

    @functools.wraps(f)
    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            return f(*args, **kwargs)
        except MemoryError as error:
            forget(error)
            raise

    return call  # type: ignore[return-value]


def _in_one_library(
    name: str, operands: tuple[Any, ...], arrays: list[Any]
) -> tuple[Any, ...] | None:
    """Refuse arrays of two libraries, which one of them might convert in silence.

    Of a library and batches of its arrays: all operands as batches.
    """
    types = set(map(type, arrays))
    if len(types) > 1:
        libraries = {backends.find_backend(t) for t in types if not issubclass(t, np.generic)}
        if len(libraries - {None}) > 1:
            aligned = align(operands)
            if aligned is None:
                raise refusal(name, operands, TypeError())
            return aligned
    return None


def _check_operand(name: str, x: Any) -> None:
    if type(x) not in NUMBERS and not _is_array(x):
        raise TypeError(
            f"{name}: expected a Tensor, an array or a number, got {type(x).__name__}; "
            "make it one with gpugrad.asarray(...)"
        )


def check_arrays(name: str, *values: Any) -> None:
    """Raise a TypeError unless all `values` are Tensors or arrays."""
    for x in values:
        if type(x) is not Tensor and not _is_array(x):
            raise TypeError(
                f"{name}: expected a Tensor or an array, got {type(x).__name__}; "
                "make it one with gpugrad.asarray(...)"
            )


def elementwise(
    name: str,
    *rules: Rule | None,
    doc: str,
    arrays: tuple[str, ...] | None = None,
    function: str | None = None,
) -> Callable[..., Any]:
    """Declare an elementwise operation: one rule per array argument, in order.

    The Jacobian is diagonal, hence its own transpose: one formula `t * d out / d x` serves the
    vjp and the jvp. `None` is the rule of an argument without a derivative; an operation with
    such rules only (a comparison, integer arithmetic) is never recorded. The array function is
    the one of that name in the array's library.

    Args:
        arrays: names of the arguments; `x` for one, `a, b` for two.
        doc: one line that says what it computes.
        function: name of the array function, where it is another one.
    """
    elementwise_functions.add(function or name)
    if arrays is None:
        arrays = ("x",) if len(rules) == 1 else ("a", "b")
    op = ElementwiseOp(name, arrays, (), rules, rules)
    differentiable = any(rule is not None for rule in rules)
    make = {1: _unary, 2: _binary}.get(len(rules), _nary)
    call = make(op, Dispatch(function or name), differentiable)
    call.__name__ = call.__qualname__ = name
    call.__doc__ = f"{doc}\n\nElementwise; arguments ({', '.join(arrays)}) broadcast."
    call.op = op if differentiable else None
    op.call = call
    return call


def _unary(op: Op, functions: Dispatch, differentiable: bool) -> Any:
    (argument,) = op.arguments
    select = argument.select

    def call(x: Any, /) -> Any:
        if type(x) is not Tensor:
            return functions[type(x)](x)
        if watch is not None and (watchers := watch()) is not None:
            return watchers(op.name, (x,), functools.partial(call, x))
        array = x.data
        try:
            out = functions[type(array)](array)
        except (TypeError, ValueError) as error:
            raise refusal(op.name, (x,), error) from None
        except backends.hindrances as error:
            raise refusal(op.name, (x,), error) from None
        if type(out) is not type(array):
            out = np.asarray(out)
        node = x.node
        if node is None or not differentiable or not recording():
            return Tensor(out, None)
        edges = ((node, argument, select(array, out)),)
        return Tensor(out, Node(op, edges, out.shape, out.dtype))

    return call


def _binary(op: Op, functions: Dispatch, differentiable: bool) -> Any:
    argument_a, argument_b = op.arguments
    select_a, select_b = argument_a.select, argument_b.select
    whole = all(argument.vjp for argument in op.arguments)

    def call(a: Any, b: Any, /) -> Any:
        if type(a) is Tensor:
            x, m = a.data, a.node
            library = type(x)
            if type(b) is Tensor:
                y, n = b.data, b.node
            else:
                _check_operand(op.name, b)
                y, n = b, None
        elif type(b) is Tensor:
            _check_operand(op.name, a)
            x, m, y, n = a, None, b.data, b.node
            library = type(y)
        else:
            try:
                return functions[type(b) if type(a) in NUMBERS else type(a)](a, b)
            except TypeError:
                if not isinstance(a, np.generic) or isinstance(b, _SCALARS):
                    raise
                return functions[type(b)](a, b)
        if watch is not None and (watchers := watch()) is not None:
            return watchers(op.name, (a, b), functools.partial(call, a, b))
        try:
            out = functions[library](x, y)
        except (TypeError, ValueError) as error:
            if (aligned := align((a, b))) is not None:
                return call(*aligned)
            raise refusal(op.name, (a, b), error) from None
        except backends.hindrances as error:
            raise refusal(op.name, (a, b), error) from None
        if type(out) is not library:
            out = np.asarray(out)
        if (m is None and n is None) or not differentiable or not recording():
            return Tensor(out, None)
        if not whole:
            return op.finish((x, y), (m, n), (), out)
        if n is None:
            edges: tuple = ((m, argument_a, select_a(x, y, out)),)
        elif m is None:
            edges = ((n, argument_b, select_b(x, y, out)),)
        else:
            edges = (
                (m, argument_a, select_a(x, y, out)),
                (n, argument_b, select_b(x, y, out)),
            )
        return Tensor(out, Node(op, edges, out.shape, out.dtype))

    return call


def _nary(op: Op, functions: Dispatch, differentiable: bool) -> Any:
    listed = ", ".join(op.array_names)

    def function(*arrays: Any) -> Any:
        library = next(type(x) for x in arrays if type(x) not in NUMBERS)
        if issubclass(library, np.generic):  # beside an array no more than a number
            others = (type(x) for x in arrays if not isinstance(x, _SCALARS))
            library = next(others, library)
        return functions[library](*arrays)

    def call(operands: tuple) -> Any:
        for x in operands:
            if type(x) is Tensor:
                recorded = op if differentiable else None
                return _apply(op.name, recorded, function, operands, {}, tuple)
        return function(*operands)

    return _compiled(f"lambda {listed}, /: call(({listed}))", call=call, __name__=__name__)


def fused(f: F) -> F:
    """Declare a part of a rule that is an elementwise expression: on a GPU it is one kernel.

    (The rules of elementwise operations are so without being declared.)
    """

    @functools.wraps(f)
    def call(*args: Any) -> Any:
        fusion = backends.fusion
        out = None if fusion is None else fusion.called(f, args)
        return f(*args) if out is None else out

    return call  # type: ignore[return-value]


def linear(transpose: Rule, *, views: bool = False) -> Callable[[F], F]:
    """Declare an operation that is linear in its first array: its jvp is itself.

    The decorated function computes on raw arrays. Its positional-only parameters are the arrays,
    the others are options.

    Args:
        views: it chooses and arranges elements of its one array, and may give a view of it.
    """

    def declare(f: F) -> F:
        arrays, options = _parameters(f)

        def make(call: Any) -> Op:
            jvp = _application(call, arrays, options, 0)
            others = [None] * (len(arrays) - 1)
            return Op(_public(f), arrays, options, (transpose, *others), (jvp, *others))

        return _function(f, make, views)

    return declare


def bilinear(transpose_a: Rule, transpose_b: Rule) -> Callable[[F], F]:
    """Declare an operation that is linear in each of its two arrays: its jvp is itself twice."""

    def declare(f: F) -> F:
        arrays, options = _parameters(f)

        def make(call: Any) -> Op:
            jvps = [_application(call, arrays, options, i) for i in (0, 1)]
            return Op(_public(f), arrays, options, (transpose_a, transpose_b), jvps)

        return _function(f, make)

    return declare


def reduction(weight: Rule) -> Callable[[F], F]:
    """Declare a reduction over `axis` with the partial derivatives `weight(x, ...)`.

    Both sweeps follow: the jvp is the sum of `t * weight` over `axis`, the vjp spreads `t` over
    the axis and multiplies. `weight` is a rule without a tangent; its names are kept.
    """
    names = _positional(weight)
    listed = ", ".join(dict.fromkeys([*names, "axis", "keepdims", "shape"]))
    applied = f"weight({', '.join(names)})"
    vjp = _compiled(
        f"lambda t, {listed}: spread(t, shape, axis, keepdims) * {applied}",
        weight=weight,
        spread=_spread,
    )
    jvp = _compiled(
        f"lambda t, {listed}: (t * {applied}).sum(axis=axis, keepdims=keepdims)", weight=weight
    )
    return general((vjp,), (jvp,))


def general(vjps: Iterable[Rule | None], jvps: Iterable[Rule | None]) -> Callable[[F], F]:
    """Declare an operation by one rule per array argument for each of the two sweeps."""

    def declare(f: F) -> F:
        arrays, options = _parameters(f)
        return _function(f, lambda call: Op(_public(f), arrays, options, vjps, jvps))

    return declare


def several(vjps: Iterable[Rule | None], jvps: Iterable[Rule | None]) -> Callable[[F], F]:
    """Declare an operation with several results, a tuple: one rule per array argument and sweep.

    In a rule `t` is a tuple with a cotangent per result, None where nothing is asked of it, and
    `out` is the tuple of results. A jvp returns a tuple of tangents, None for one that is zero.
    """

    def declare(f: F) -> F:
        arrays, options = _parameters(f)

        def tangents(rule: Rule) -> Rule:
            listed = ", ".join(_positional(rule))
            return _compiled(f"lambda {listed}: Parts(rule({listed}))", Parts=Parts, rule=rule)

        whole = [rule and tangents(rule) for rule in jvps]
        op = SeveralOp(_public(f), arrays, options, vjps, whole)
        bind = _binder(f)
        count = len(arrays)

        @functools.wraps(f)
        def call(*args: Any, **kwargs: Any) -> Any:
            operands = args[:count]
            for x in operands:
                if type(x) is Tensor:
                    return _apply(op.name, op, f, operands, kwargs, bind, args[count:])
            return f(*args, **kwargs)

        call.op = op  # type: ignore[attr-defined]
        return call  # type: ignore[return-value]

    return declare


def constant(f: F) -> F:
    """Declare a function without a derivative (integer or boolean result): never recorded."""
    return _function(f, lambda call: None)


def many(vjp: Rule, jvp: Rule) -> Callable[[F], F]:
    """Declare an operation on a list of arrays, its first argument; options by keyword only."""

    def declare(f: F) -> F:
        _, options = _parameters(f)
        op = ManyOp(_public(f), options, vjp, jvp)
        bind = _binder(f)

        def function(*arrays: Any, **kwargs: Any) -> Any:
            return f(arrays, **kwargs)

        @functools.wraps(f)
        def call(operands: Any, /, **kwargs: Any) -> Any:
            operands = tuple(operands)
            for x in operands:
                if type(x) is Tensor:
                    return _apply(op.name, op, function, operands, kwargs, bind)
            return f(operands, **kwargs)

        call.op = op  # type: ignore[attr-defined]
        return call  # type: ignore[return-value]

    return declare


@contextlib.contextmanager
def _following(x: Any) -> Iterator[None]:
    assert backends.following_devices is not None
    with backends.following_devices() as follow:
        follow(raw(x))
        yield


def at(x: Any) -> contextlib.AbstractContextManager[None]:
    """Inside it the device of `x` is the current one."""
    return contextlib.nullcontext() if backends.following_devices is None else _following(x)


def placed(f: F) -> F:
    """Declare that `f` runs with the device of its first argument as the current one."""

    @functools.wraps(f)
    def call(x: Any, *args: Any, **kwargs: Any) -> Any:
        with at(x):
            return f(x, *args, **kwargs)

    return call  # type: ignore[return-value]


def _function(f: F, make: Callable[[Any], Op | None], views: bool = False) -> F:
    bind = _binder(f)
    name = _public(f)
    count = len(_parameters(f)[0])

    @functools.wraps(f)
    def call_one(x: Any, /, *args: Any, **kwargs: Any) -> Any:
        if type(x) is not Tensor:
            return f(x, *args, **kwargs)
        if watch is not None and (watchers := watch()) is not None:
            run = functools.partial(call_one, x, *args, **kwargs)
            return watchers(name, (x,), run, args, kwargs)
        array = x.data
        try:
            if backends.following_devices is None:
                out = f(array, *args, **kwargs)
            else:
                with backends.following_devices() as follow:
                    follow(array)
                    out = f(array, *args, **kwargs)
        except (TypeError, ValueError, IndexError) as error:
            raise refusal(name, (x,), error) from None
        except backends.hindrances as error:
            raise refusal(name, (x,), error) from None
        if type(out) is not type(array):
            out = as_array(out)
        node = x.node
        if node is None or op is None or out.dtype.kind in "biu" or not recording():
            result = Tensor(out, None)
        else:
            (argument,) = op.arguments
            edges = ((node, argument, argument.select(array, *bind(*args, **kwargs), out)),)
            result = Tensor(out, Node(op, edges, out.shape, out.dtype))
        if views and (out.base is not None or out is array):
            link(result, x, call_one, args, kwargs)
        return result

    @functools.wraps(f)
    def call_more(*args: Any, **kwargs: Any) -> Any:
        operands, rest = (args, ()) if len(args) == count else (args[:count], args[count:])
        for x in operands:
            if type(x) is Tensor:
                return _apply(name, op, f, operands, kwargs, bind, rest)
        return f(*args, **kwargs)

    call = call_one if count == 1 else call_more
    op = make(call)
    call.op = op  # type: ignore[attr-defined]
    if op is not None:
        op.call = call
    return call  # type: ignore[return-value]


def _public(f: Callable[..., Any]) -> str:
    """The name the user knows: `_reshape` computes for `reshape`."""
    return f.__name__.lstrip("_")


def _parameters(f: Any) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names of the arrays (positional-only parameters) and of the options of `f`."""
    code = f.__code__
    names = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
    return names[: code.co_posonlyargcount], names[code.co_posonlyargcount :]


def _binder(f: Any) -> Callable[..., tuple]:
    """A function that binds a call's options as `f` does and returns them as a tuple."""
    arrays, options = _parameters(f)
    positional = f.__code__.co_argcount - len(arrays)
    listed = [
        *options[:positional],
        *(["*"] if options[positional:] else []),
        *options[positional:],
    ]
    bind = _compiled(f"lambda {', '.join(listed)}: ({''.join(n + ', ' for n in options)})")
    bind.__defaults__, bind.__kwdefaults__ = f.__defaults__, f.__kwdefaults__
    return bind


def _application(call: Any, arrays: tuple[str, ...], options: tuple[str, ...], index: int) -> Rule:
    """The rule `call` itself, with the tangent in place of argument `index`."""
    names = [*(n for i, n in enumerate(arrays) if i != index), *options]
    given = [*("t" if i == index else n for i, n in enumerate(arrays))]
    given += [f"{n}={n}" for n in options]
    return _compiled(f"lambda {', '.join(['t', *names])}: call({', '.join(given)})", call=call)


def _spread(t: Any, shape: tuple[int, ...], axis: Any, keepdims: bool) -> Any:
    """A reduced `t` with its axes back as 1; multiplication with a weight broadcasts it."""
    if axis is None or keepdims or not shape:
        return t
    axes = {i % len(shape) for i in (axis if isinstance(axis, tuple) else (axis,))}
    return t.reshape(tuple(1 if i in axes else n for i, n in enumerate(shape)))
