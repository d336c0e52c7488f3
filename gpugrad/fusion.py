"""One kernel per derivative: the rules of elementwise operations as generated kernels.

Where a backend makes kernels, the sweeps do not call the rules of an elementwise operation but ask
here. The rules are run once on symbols (`symbols.py`), and what they say becomes one kernel for all
arguments of a node, kept for every combination of dtypes. A rule that is no
elementwise expression, or is a single call anyway, is called as it stands.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from .backends import Backend
from .rules import NUMBERS, Argument, ElementwiseOp
from .symbols import NotElementwise, Symbol, Text, variable, working_dtype, write
from .tape import Node

# A sum of many entries to few is faster by itself: libraries have reductions of one array that use
# the whole device, where that of a generated kernel has one block of threads for a few results.
_FEW, _MANY = 1024, 65536


class Kernel(NamedTuple):
    """What a backend needs to make a kernel.

    Attributes:
        name: of the kernel.
        inputs: name -> dtype; a Python number may be given for any of them.
        outputs: name -> dtype.
        text: statements in CUDA C++, from the inputs to the outputs, element by element.
        summed: the dtype in which the one output is summed over axes, which are given with the
            call; None if it is not. The text is in this dtype then.
    """

    name: str
    inputs: Mapping[str, Any]
    outputs: Mapping[str, Any]
    text: Text
    summed: Any = None


class _Made:
    """In place of an edge's `Argument`: what the edge keeps is the cotangent, already computed."""

    def vjp(self, t: Any, kept: Any) -> Any:
        return kept


_MADE = _Made()


class Fusion:
    """Fused derivatives on the arrays of one backend."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._array_type: Any = backend.array_type
        self._kernels: dict[tuple, Any] = {}  # all that was made, by what it is for
        self._simple: set[tuple] = set()  # (argument, dtype) whose rule is a single call

    def pulled(self, node: Node, g: Any, useful: Collection[Node]) -> Sequence[tuple]:
        """The edges of `node` to `useful` nodes, with what kernels made of `g` in them."""
        op, edges = node.op, node.edges
        if type(op) is not ElementwiseOp or type(g) is not self._array_type:
            return edges
        first = edges[0]
        if len(edges) == 1 and first[0].shape == g.shape and (first[1], g.dtype) in self._simple:
            return edges
        edges = [edge for edge in edges if edge[0] in useful]
        values = self._values(edges)
        if values is None:
            return edges
        wanted = tuple(_Wanted.of(argument, parent, g) for parent, argument, _ in edges)
        key = (g.dtype, wanted, *map(_dtype, values.values()))
        plan = self._kernels.get(key)
        if plan is None:
            plan = self._kernels[key] = self._plan(op, wanted, g.dtype, values)
        for places, names, kernel in plan:
            axes = _axes(edges[places[0]][0].shape, g.shape) if wanted[places[0]].summed else {}
            made = kernel(g, *(values[name] for name in names), **axes)
            for place, c in zip(places, made if len(places) > 1 else (made,)):
                edges[place] = (edges[place][0], _MADE, c)
        return edges

    def pushed(self, node: Node, tangents: Mapping[Node, Any]) -> Any:
        """The tangent of `node` from its parents'; None: the rules are to be called."""
        op = node.op
        if type(op) is not ElementwiseOp:
            return None
        edges = [edge for edge in node.edges if edge[0] in tangents]
        given = [tangents[parent] for parent, _, _ in edges]
        if not edges or any(type(t) is not self._array_type for t in given):
            return None
        values = self._values(edges)
        if values is None:
            return None
        arguments = tuple(argument for _, argument, _ in edges)
        dtypes = tuple(t.dtype for t in given)
        key = (arguments, dtypes, node.dtype, *map(_dtype, values.values()))
        kernel = self._kernels.get(key)
        if kernel is None:
            kernel = self._kernels[key] = self._push_kernel(
                op, arguments, dtypes, node.dtype, values
            )
        return kernel[1](*given, *(values[name] for name in kernel[0])) if kernel else None

    def called(self, f: Any, args: Sequence[Any]) -> Any:
        """`f(*args)` by one kernel; None: `f` is to be called."""
        if {type(x) for x in args} - NUMBERS != {self._array_type}:
            return None
        key = (f, *map(_dtype, args))
        kernel = self._kernels.get(key)
        if kernel is None:
            kernel = self._kernels[key] = self._function_kernel(f, args)
        return kernel[0](*args) if kernel else None

    def _values(self, edges: Sequence[tuple]) -> dict[str, Any] | None:
        """All that the edges of one node keep, by name; None if something else than arrays."""
        values: dict[str, Any] = {}
        for _, argument, kept in edges:
            values.update(zip(argument.names, (kept,) if len(argument.names) == 1 else kept))
        for value in values.values():
            if type(value) is not self._array_type and type(value) not in NUMBERS:
                return None
        return values

    def _plan(self, op: Any, wanted: Sequence[_Wanted], t: Any, values: Any) -> list[tuple]:
        """The kernels of a vjp: (places of its results among the edges, inputs, kernel)."""
        results = {}
        for place, want in enumerate(wanted):
            try:
                result = run_rule(want.argument, variable("t", t), _variables(values, t))
            except NotElementwise:
                continue
            if result.function not in ("variable", "constant"):
                results[place] = result
        together = [place for place in results if not wanted[place].summed]
        plan = []
        for places in (together, *([place] for place in results if wanted[place].summed)):
            named = {
                f"d{_argument(op, wanted[i].argument)}": (
                    results[i],
                    results[i].dtype if wanted[i].dtype is None else wanted[i].dtype,
                )
                for i in places
            }
            summed = bool(places) and wanted[places[0]].summed
            name = _name(op, "vjp", named)
            kernel = self._kernel(name, {"t": t}, _inputs(values, t), named, summed)
            if kernel:
                plan.append((places, *kernel))
        if len(wanted) == 1 and not plan and not wanted[0].summed:
            self._simple.add((wanted[0].argument, t))
        return plan

    def _push_kernel(
        self, op: ElementwiseOp, arguments: Any, dtypes: Any, dtype: Any, values: Any
    ) -> tuple:
        names = [f"d{_argument(op, argument)}" for argument in arguments]
        total: Any = None
        try:
            for name, argument, t in zip(names, arguments, dtypes):
                kept = _variables(values, dtype)
                term = run_rule(argument, variable(name, t), kept, forwards=True)
                total = term if total is None else total + term
        except NotElementwise:
            return ()
        given = dict(zip(names, dtypes))
        result = {"dresult": (total, dtype)}
        return self._kernel(_name(op, "jvp", names), given, _inputs(values, dtype), result)

    def _function_kernel(self, f: Any, args: Sequence[Any]) -> tuple:
        dtype = np.result_type(*(x.dtype for x in args if type(x) is self._array_type))
        values = dict(zip(f.__code__.co_varnames, args))
        try:
            result = f(*_variables(values, dtype).values())
        except NotElementwise:
            return ()
        name, given = f"gpugrad_{f.__name__.strip('_')}", _inputs(values, dtype)
        return self._kernel(name, given, {}, {"result": (result, dtype)})[-1:]

    def _kernel(
        self,
        name: str,
        given: Mapping[str, Any],
        others: Mapping[str, Any],
        results: Mapping[str, tuple[Symbol, Any]],
        summed: bool = False,
    ) -> tuple:
        """(the others that it needs, the kernel of given and these); () if it does not pay.

        Args:
            given, others: inputs and their dtypes.
            results: name -> expression, and the dtype it is wanted in.
        """
        outputs = {k: dtype for k, (_, dtype) in results.items()}
        sum_dtype = None
        if summed:
            ((key, (result, dtype)),) = results.items()
            # a sum is not less exact than what it is of; of a complex one the real part may do
            sum_dtype = real_dtype(result.dtype) if dtype.kind != "c" else result.dtype
            results = {key: (result, sum_dtype)}
        try:
            text = write(results)
        except NotElementwise:  # a number that is not finite
            return ()
        if text.operations < (1 if summed else 2):
            return ()
        names = [name for name in others if _as_input(name) in text.variables]
        inputs = {_as_input(k): dtype for k, dtype in (*given.items(), *others.items())}
        inputs = {k: dtype for k, dtype in inputs.items() if k in given or k in text.variables}
        return names, self._backend.kernel(Kernel(name, inputs, outputs, text, sum_dtype))


class _Wanted(NamedTuple):
    """What the sweep wants of an edge.

    Attributes:
        dtype: of the cotangent; None if it will be summed afterwards, and then cast.
        summed: the kernel sums it to the shape of the argument.
    """

    argument: Argument
    dtype: Any
    summed: bool

    @classmethod
    def of(cls, argument: Argument, parent: Node, g: Any) -> _Wanted:
        if parent.shape == g.shape:
            return cls(argument, parent.dtype, False)
        summed = math.prod(parent.shape) >= _FEW or g.size <= _MANY
        return cls(argument, parent.dtype if summed else None, summed)


def run_rule(
    argument: Argument, t: Symbol, variables: Mapping[str, Symbol], forwards: bool = False
) -> Symbol:
    """The rule of an argument as an expression of `t` and what it keeps.

    Raises:
        NotElementwise: if it is none.
    """
    rule = argument.jvp if forwards else argument.vjp
    if rule is None or not variables.keys() >= set(argument.names):
        raise NotElementwise("the rule needs more than elements")
    kept = [variables[name] for name in argument.names]
    result = rule(t, kept[0] if len(kept) == 1 else tuple(kept))
    if type(result) is not Symbol:
        raise NotElementwise("the rule gives no array")
    return result


def _variables(values: Mapping[str, Any], t: Any) -> dict[str, Symbol]:
    """A symbol for each of the arguments `values` of a kernel."""
    return {k: variable(_as_input(k), dtype) for k, dtype in _inputs(values, t).items()}


def _inputs(values: Mapping[str, Any], t: Any) -> dict[str, Any]:
    """The dtypes of kernel arguments; numbers are given in the working dtype of `t`."""
    number = working_dtype(t)
    return {k: number if type(x) in NUMBERS else x.dtype for k, x in values.items()}


def _dtype(value: Any) -> Any:
    return None if type(value) in NUMBERS else value.dtype


def _as_input(name: str) -> str:
    """As a parameter of a kernel, where n and i have a meaning of their own."""
    return f"{name}_" if name in ("n", "i") else name


def real_dtype(dtype: Any) -> Any:
    """The dtype of real parts."""
    return np.empty(0, dtype).real.dtype


def _argument(op: ElementwiseOp, argument: Argument) -> str:
    return op.array_names[argument.index]


def _name(op: ElementwiseOp, what: str, parts: Collection[str]) -> str:
    whole = len(parts) == len(op.array_names)
    return "_".join(["gpugrad", op.name.replace(".", "_"), what, *(() if whole else parts)])


def _axes(shape: tuple[int, ...], full: tuple[int, ...]) -> dict[str, Any]:
    """How to sum from shape `full` to `shape`, as options of a reduction."""
    new = len(full) - len(shape)
    ones = [i for i, n in enumerate(shape, new) if n == 1 and full[i] != 1]
    return {"axis": (*range(new), *ones), "keepdims": bool(ones)}
