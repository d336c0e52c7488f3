"""`elementwise_kernel`: the user's own CUDA text as a differentiable operation.

A kernel is an elementwise operation like those of `ops/`; what it runs depends on the array it is
given: the CUDA text on a GPU, its twin on the CPU. The derivative in each argument is again a
kernel, made when it is first asked for, so derivatives of every order come by themselves.

A derivative that is derived is one sweep over the twin, *forwards*: there `where` selects tangents,
after all else, so that what is not finite on the branch that was not chosen does no harm.
"""

from __future__ import annotations

import functools
import keyword
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from . import backends, rules
from .batches import BatchedArray
from .ops.creation import ones_like, zeros_like
from .ops.dtypes import astype
from .ops.manipulation import broadcast_to
from .rules import NUMBERS, ElementwiseOp, as_array
from .sweeps import as_tensor, pull, push, route
from .symbols import NotElementwise, Symbol, variable, write
from .tape import Leaf, enable_grad, now, reach
from .tensor import Tensor
from .transforms import _enter
from .twins import working_dtypes

_SCALARS = (*NUMBERS, np.generic)


def elementwise_kernel(
    in_params: str,
    out_params: str,
    operation: str,
    name: str = "kernel",
    *,
    derivative: Mapping[str, str | None] | Sequence[str | None] | None = None,
    twin: Callable[..., Any] | None = None,
    preamble: str = "",
) -> Callable[..., Any]:
    """A CUDA kernel of the user's, element by element, as a differentiable operation.

        spring = gg.elementwise_kernel("T x, T k", "T y", "y = 0.5 * k * x * x", "spring")
        gg.grad(lambda x: gg.sum(spring(x, 3.0)))(x)

    On a GPU the text runs as it is, in one launch, and so does each derivative. On the CPU the twin
    runs. There halves compute in float32 throughout (on the GPU where the text has `float q`), and
    a literal without the suffix f, a double in CUDA, is a weak number. The result takes
    `check_grads`, `vmap` and derivatives of every order.

    Args:
        in_params, out_params: parameters as CuPy's ElementwiseKernel has them: a type, which is
            one letter (arrays of one letter have one dtype) or the name of a dtype, and a name; of
            results there is one. Arguments broadcast; Python numbers take the dtype of the arrays.
        operation: CUDA statements that give the result its value.
        name: of the kernel, an identifier.
        derivative: for each input the partial derivative of the result in it: a CUDA expression of
            the inputs and the result. By name or in order; None for an input that has none, and
            whose gradient raises. For complex numbers the function must be holomorphic in that
            input. What a mapping leaves out is derived.
        twin: the same function of the same arguments in gpugrad's functions. It may be left out
            where `operation` is plain: arithmetic, comparisons, `?:`, `if`, local variables, casts
            and standard mathematical functions. The derived twin is then the `twin` of the result.
        preamble: CUDA text before the kernel, such as functions that it calls.

    Returns:
        A function of arrays, tensors and numbers, of which one is an array.

    Raises:
        ValueError: for a parameter list or a name that is none, and for text that is not plain
            where twin and derivative are missing, naming the word that was not understood.
    """
    from .cuda_expressions import NotPlain, function, is_name, parameters

    inputs, outputs = parameters(in_params), parameters(out_params)
    if not is_name(name):
        raise ValueError(f"elementwise_kernel: {name!r} is no name of a kernel")
    if len(outputs) != 1 or not inputs:
        raise ValueError(
            f"elementwise_kernel: {name} has {len(inputs)} inputs and {len(outputs)} results; it "
            "takes one input or more, and one result: declare a kernel per result"
        )
    names = [p.name for p in (*inputs, *outputs)]
    if len(set(names)) < len(names):
        raise ValueError(f"elementwise_kernel: {name} has two parameters of one name: {names}")
    texts = _texts(name, [p.name for p in inputs], derivative)
    reason = ""
    if twin is None:
        try:
            twin = function(name, inputs, outputs[0], operation)
        except NotPlain as error:
            reason = str(error)
    partials: list[Any] = []
    for p in inputs:
        if p.name in texts:
            partials.append(texts[p.name])
        elif p.dtype is not None and p.dtype.kind in "biu":
            partials.append(None)
        elif twin is not None:
            partials.append(_DERIVED)
        else:
            raise ValueError(
                f"elementwise_kernel: {name}: {reason}, so its derivative in {p.name!r} cannot be "
                "derived from the text: give derivative=, an expression per input, or twin=, the "
                "same in gpugrad's functions; for what is not elementwise there is "
                "gpugrad.custom_vjp"
            )
    kernel = _Kernel(
        name,
        inputs,
        outputs[0],
        partials,
        formula=twin,
        text=operation,
        preamble=preamble,
        reason=reason,
    )

    def call(*args: Any) -> Any:
        return kernel(*args)

    call.__name__ = call.__qualname__ = name
    listed = ", ".join(p.name for p in inputs)
    call.__doc__ = f"{operation.strip()}\n\nElementwise; arguments ({listed}) broadcast."
    call.twin = twin  # type: ignore[attr-defined]
    call.op = kernel.op  # type: ignore[attr-defined]
    return call


def _texts(name: str, inputs: list[str], derivative: Any) -> dict[str, str | None]:
    """The derivatives that are given, by the name of the input."""
    if derivative is None:
        return {}
    if isinstance(derivative, str) or not isinstance(derivative, (Mapping, Sequence)):
        raise TypeError(
            f"elementwise_kernel: the derivative of {name} is a mapping from the name of an input "
            f"to an expression, or a tuple of expressions, not {type(derivative).__name__}"
        )
    if not isinstance(derivative, Mapping):
        if len(derivative) != len(inputs):
            raise ValueError(
                f"elementwise_kernel: {name} has {len(inputs)} inputs and {len(derivative)} "
                "derivatives"
            )
        derivative = dict(zip(inputs, derivative, strict=True))
    if unknown := set(derivative) - set(inputs):
        raise ValueError(
            f"elementwise_kernel: {name} has no input {', '.join(sorted(unknown))}; its inputs are "
            f"{', '.join(inputs)}"
        )
    return dict(derivative)


# how a derivative comes about, where it is not given as text
_DERIVED = object()  # from the twin
_LINEAR = object()  # the kernel is linear in this argument, its first: itself

_PROMOTED = ""  # in place of a type: the dtype to which those of all arguments are promoted


class _Kernel:
    """An elementwise operation given by CUDA text, by a Python formula, or by both.

    Attributes:
        partials: per input how its derivative comes about: a text, `_DERIVED`, `_LINEAR`, None.
        formula: computes the result on raw arrays and Tensors alike; None if that is not known.
        text: CUDA statements; None if they are to be made of the formula.
        reason: why there is no formula.
    """

    def __init__(
        self,
        name: str,
        inputs: Sequence[Any],
        output: Any,
        partials: Sequence[Any],
        *,
        formula: Callable[..., Any] | None,
        text: str | None,
        preamble: str = "",
        reason: str = "",
    ) -> None:
        from .cuda_expressions import names_in

        self.name, self.inputs, self.output = name, tuple(inputs), output
        self.formula, self.text, self.preamble = formula, text, preamble
        self.reason = reason
        # a kernel that asks for the index of its element must see every example by itself
        self.separate = text is not None and "i" in names_in(text)
        self._partials = tuple(partials)
        self._functions = _Functions(self)
        arrays = tuple(_safe_names([p.name for p in inputs]))
        listed = ", ".join(arrays)
        # under the names that a generated kernel has
        self._spelled = rules._compiled(f"lambda {listed}: rule_({listed})", rule_=self._written)
        self._spelled.__name__ = name
        vjps, jvps = (
            [self._rule(i, arrays, backwards) for i in range(len(inputs))]
            for backwards in (True, False)
        )
        self.op = ElementwiseOp(name, arrays, (), vjps, jvps)

    def __call__(self, *operands: Any) -> Any:
        if len(operands) != len(self.inputs):
            listed = ", ".join(p.name for p in self.inputs)
            raise TypeError(
                f"{self.name}: takes {len(self.inputs)} arguments ({listed}), got {len(operands)}"
            )
        for x in operands:
            if type(x) is Tensor:
                return rules._apply(self.name, self.op, self._on_arrays, operands, {}, tuple)
        return self._on_arrays(*operands)

    def _on_arrays(self, *arrays: Any) -> Any:
        types = [type(x) for x in arrays if type(x) not in NUMBERS]
        if not types:
            raise TypeError(f"{self.name}: of numbers alone; one argument must be an array")
        # an array scalar beside an array is no more than a number
        library = next((t for t in types if not issubclass(t, np.generic)), types[0])
        return self._functions[library](*arrays)

    # -- derivatives

    def _rule(self, i: int, arrays: Sequence[str], backwards: bool) -> Callable[..., Any] | None:
        if self._partials[i] is None:
            return None
        kept, with_result = self._kept(i)
        names = ", ".join(["t", *(arrays[k] for k in kept), *(["out"] if with_result else [])])
        make = functools.cache(functools.partial(self._partial, i))

        def rule(*given: Any) -> Any:
            # for complex numbers the two sweeps differ, and a derivative is linear as of real ones
            is_complex = any(map(_is_complex, given))
            if self._partials[i] is _LINEAR and not (is_complex and self.text is None):
                return self(*given)
            return make(backwards and is_complex)(*given)

        return rules._compiled(f"lambda {names}: rule_({names})", rule_=rule)

    def _kept(self, i: int) -> tuple[list[int], bool]:
        """The inputs that the derivative in input `i` takes, and whether it takes the result."""
        from .cuda_expressions import names_in

        everything = list(range(len(self.inputs)))
        text = self._partials[i]
        if text is _LINEAR:
            return everything[1:], False
        if text is _DERIVED:
            return self._needed(i) if self.text is not None else everything, False
        words = names_in(text)
        mixed = self.inputs[i].type != self.output.type  # then it takes both, for their dtypes
        with_result = self.output.name in words or mixed
        if self.formula is not None and self._parsed(i, everything, with_result) is None:
            return everything, with_result
        kept = {k for k, p in enumerate(self.inputs) if p.name in words or (mixed and k == i)}
        letters = {self.output.type} | {self.inputs[k].type for k in kept}
        for k, p in enumerate(self.inputs):  # which say what a letter in the text is
            if p.type in words and p.type not in letters:
                letters.add(p.type)
                kept.add(k)
        return sorted(kept), with_result

    def _needed(self, i: int) -> list[int]:
        """The inputs that the derivative in input `i`, run on symbols, has in it."""
        assert self.formula is not None
        mixed = self.inputs[i].type != self.output.type
        needed = {i} if mixed else set()
        for letter in (np.float64, np.complex128):
            symbols = [variable(f"x{k}", p.dtype or letter) for k, p in enumerate(self.inputs)]
            t = variable("t", np.result_type(letter, self.inputs[i].dtype or letter))
            for backwards in (True, False):
                try:
                    out = _derivative(self.formula, i, backwards, t, *symbols)
                    used = write({"y": (out, out.dtype)}).variables
                except Exception:  # whatever a twin may do on what is no array: all are kept
                    return list(range(len(self.inputs)))
                needed |= {k for k in range(len(self.inputs)) if f"x{k}" in used}
        return sorted(needed)

    def _named(self, i: int, kept: Sequence[int], with_result: bool) -> tuple[Any, list[Any], str]:
        """The parameters of the derivative in input `i`: its tangent, the rest, and its result."""
        from .cuda_expressions import Parameter

        taken = {p.name for p in (*self.inputs, self.output)}
        types = {p.type for p in (*self.inputs, self.output)}
        letter = next(c for c in "UVWXYZABCDEFGHIJKLMNOPQRST" if c not in types)
        same = self.inputs[i].type == self.output.type
        t = Parameter(self.output.type if same else letter, _unused("t", taken))
        rest = [self.inputs[k] for k in kept] + ([self.output] if with_result else [])
        return t, rest, _unused(f"d{self.inputs[i].name}", {*taken, t.name})

    def _parsed(self, i: int, kept: Sequence[int], with_result: bool) -> Any:
        """The given derivative in input `i` as a Python function; None if it is not plain."""
        from .cuda_expressions import NotPlain, Parameter, function

        t, rest, d = self._named(i, kept, with_result)
        text = _slope(d, t, self._partials[i])
        try:
            return function(f"{self.name}_{d}", [t, *rest], Parameter(t.type, d), text)
        except NotPlain:
            return None

    def _partial(self, i: int, backwards: bool) -> _Kernel:
        """The kernel t * d result / d input `i`."""
        from .cuda_expressions import Parameter

        kept, with_result = self._kept(i)
        t, rest, d = self._named(i, kept, with_result)
        own, whole = self.inputs[i], self.output
        if own.type == whole.type:
            type_ = t.type
        elif own.dtype is None or whole.dtype is None:
            type_ = _PROMOTED
        else:
            type_ = np.result_type(own.dtype, whole.dtype).name
        result = Parameter(type_, d)
        name = f"{self.name}_{d}"
        derived = None
        if self.formula is not None:
            derived = _derived(self.formula, i, backwards, kept, len(self.inputs))
        partial = self._partials[i]
        if partial in (_DERIVED, _LINEAR):
            every = [_LINEAR, *[_DERIVED] * len(rest)]
            return _Kernel(name, [t, *rest], result, every, formula=derived, text=None)
        formula = self._parsed(i, kept, with_result) or derived
        others = [None if formula is None else _DERIVED] * len(rest)
        return _Kernel(
            name,
            [t, *rest],
            result,
            [_LINEAR, *others],
            formula=formula,
            text=_slope(d, t, partial),
            preamble=self.preamble,
            reason=self.reason,
        )

    # -- what runs on arrays

    def on(self, library: type) -> Callable[..., Any]:
        """The function of raw arrays of a library."""
        backend = backends.backend_of_type(library)
        if backend.runs_kernels and self.text is not None:
            promoting = self.output.type == _PROMOTED
            return self._promoting(backend) if promoting else self._compiled(backend, self.output)
        if library is Symbol:
            return self._written
        if self.formula is None:
            return self._refuse
        return self._generated if backend.runs_kernels else self._computed

    def _compiled(self, backend: Any, result: Any) -> Any:
        inputs = ", ".join(map(str, self.inputs))
        return backend.elementwise_kernel(inputs, str(result), self.text, self.name, self.preamble)

    def _promoting(self, backend: Any) -> Callable[..., Any]:
        @functools.cache
        def kernel(dtype: Any) -> Any:
            return self._compiled(backend, f"{dtype.name} {self.output.name}")

        def call(*args: Any) -> Any:
            return kernel(np.result_type(*(x.dtype for x in args if hasattr(x, "dtype"))))(*args)

        return call

    def _refuse(self, *args: Any) -> Any:
        raise TypeError(
            f"{self.name}: {self.reason}, so there is no twin to run on the CPU, or to take this "
            "derivative of: give elementwise_kernel one, twin="
        )

    def _written(self, *args: Any) -> Any:
        """The formula, of symbols; a derivative that is given as text stays that text."""
        stated = self.text is not None and self._partials[0] is _LINEAR
        if stated or self.formula is None:
            raise NotElementwise(f"{self.name} has a text of its own")
        try:
            return self._computed(*args)
        except Exception as error:  # whatever a twin may do on what is no array
            raise NotElementwise(f"{self.name}: {error}") from error

    def _generated(self, *args: Any) -> Any:
        """The formula as one generated kernel, where it can be one."""
        out = None if backends.fusion is None else backends.fusion.called(self._spelled, args)
        return self._computed(*args) if out is None else out

    def _computed(self, *args: Any) -> Any:
        """The formula, of raw arrays of any library."""
        arrays = [x for x in args if not isinstance(x, _SCALARS)]
        if not arrays:
            args = tuple(map(as_array, args))
            arrays = [x for x in args if type(x) not in NUMBERS]
        libraries = {type(x) for x in arrays}
        if len({backends.backend_of_type(t) for t in libraries}) > 1:
            raise TypeError("arrays of two libraries do not mix: move one with .to(device)")
        types = self._types(args)
        on_host = isinstance(arrays[0], np.ndarray)
        pairs = zip(args, self.inputs, strict=True)
        given = [self._prepared(x, p, types, on_host) for x, p in pairs]
        assert self.formula is not None
        with np.errstate(all="ignore"):
            out = self.formula(*given)
            out = rules.raw(out)
            if self.output.type == _PROMOTED:
                dtype = np.result_type(*(x.dtype for x in args if hasattr(x, "dtype")))
            else:
                dtype = self.output.dtype or types[self.output.type]
            shape = np.broadcast_shapes(*(x.shape for x in arrays))
            if type(out) in NUMBERS:
                out = zeros_like(arrays[0], dtype=dtype) + out
            out = out if out.dtype == dtype else as_array(astype(as_array(out), dtype))
        if out.shape != shape:
            out = broadcast_to(out, shape)
        if isinstance(out, (np.generic, Symbol)):
            return as_array(out)
        shares = out.base is not None or any(out is x for x in arrays)
        return out.copy() if shares else out

    def _types(self, args: tuple) -> dict[str, Any]:
        """What each letter stands for, by the rules of CuPy's ElementwiseKernel."""
        types: dict[str, Any] = {}
        named: dict[str, str] = {}
        for x, p in zip(args, self.inputs, strict=True):
            if isinstance(x, _SCALARS):
                continue
            wanted = p.dtype or types.setdefault(p.type, x.dtype)
            if x.dtype != wanted and type(x) is not Symbol:  # which may be one of a number
                other = f"{named[p.type]} is {wanted}" if p.type in named else f"{wanted} is wanted"
                raise TypeError(
                    f"{self.name}: {p.name} is {x.dtype} where {other} (parameter '{p}'); cast it "
                    "with gpugrad.astype"
                )
            named.setdefault(p.type, p.name)
        for x, p in zip(args, self.inputs, strict=True):
            if isinstance(x, np.generic):
                types.setdefault(p.type, x.dtype)
        for p in (*self.inputs, self.output):
            if len(p.type) == 1 and p.type not in types:
                raise TypeError(f"{self.name}: no array says which dtype {p.type} is, of '{p}'")
        return types

    def _prepared(self, x: Any, p: Any, types: dict[str, Any], on_host: bool) -> Any:
        dtype = p.dtype or types[p.type]
        if isinstance(x, np.generic):
            x = np.asarray(x, dtype) if on_host else x.item()
        if type(x) is Symbol:
            return x.astype(working_dtypes(dtype)[0] if dtype.kind in "fV" else dtype)
        if type(x) in NUMBERS:  # of the kind that the parameter has, and weak
            if dtype.kind in "biu":
                return bool(x) if dtype.kind == "b" else int(x)
            if dtype.itemsize == 2:
                return float(np.asarray(x, dtype))
            return x if isinstance(x, complex) else float(x)
        if dtype.kind in "fV":
            return x.astype(working_dtypes(dtype)[0], copy=False)
        return x


class _Functions(dict[type, Callable[..., Any]]):
    """Array type -> what runs on arrays of that type; made once per type."""

    def __init__(self, kernel: _Kernel) -> None:
        self._kernel = kernel

    def __missing__(self, array_type: type) -> Callable[..., Any]:
        function: Callable[..., Any]
        if issubclass(array_type, BatchedArray):
            library = array_type.xp
            run = library.one_by_one if self._kernel.separate else library._elementwise
            function = functools.partial(run, self[array_type.inner])
        else:
            function = self._kernel.on(array_type)
        self[array_type] = function
        return function


def _is_complex(x: Any) -> bool:
    return isinstance(x, complex) if type(x) in NUMBERS else x.dtype.kind == "c"


def _safe_names(names: list[str]) -> list[str]:
    """Names for parameters of rules and of generated kernels, where some have a meaning."""
    reserved = {"t", "out", "shape", "n", "i", "result", "rule_", "kernel_", "dresult"}
    reserved |= {f"d{name}" for name in names}
    taken = reserved.union(names)
    safe = []
    for name in names:
        if name in reserved or keyword.iskeyword(name) or re.fullmatch(r"v\d+", name):
            name = _unused(f"{name}_0", taken)
            taken |= {name, f"d{name}"}
        safe.append(name)
    return safe


def _slope(d: str, t: Any, partial: str) -> str:
    """The statement of a derivative; a comment at the end of `partial` ends with its line."""
    return f"{d} = {t.name} * ({partial}\n)" if "//" in partial else f"{d} = {t.name} * ({partial})"


def _unused(name: str, taken: set[str]) -> str:
    while name in taken:
        name += "_"
    return name


# ---- derivatives of a formula


def _derived(
    formula: Callable[..., Any], i: int, backwards: bool, kept: Sequence[int], count: int
) -> Callable[..., Any]:
    """The derivative in argument `i`, as a function of `t` and those arguments that it needs."""

    def derivative(t: Any, *args: Any) -> Any:
        given = dict(zip(kept, args))
        others = ones_like(t) if len(given) < count else None
        return _derivative(formula, i, backwards, t, *(given.get(k, others) for k in range(count)))

    return derivative


def _derivative(formula: Callable[..., Any], i: int, backwards: bool, t: Any, *args: Any) -> Any:
    """t * d formula(*args) / d args[i], of raw arrays, symbols and Tensors.

    Of complex numbers, where the two sweeps differ, in the direction that is asked for.
    """
    recorded = any(isinstance(x, Tensor) for x in (t, *args))
    given = [x if type(x) in NUMBERS else as_tensor(x) for x in (t, *args)]
    arrays = [x for x in given if type(x) not in NUMBERS]
    shape = np.broadcast_shapes(*(x.shape for x in arrays))
    t, x = (v if v.shape == shape else broadcast_to(v, shape) for v in (given[0], given[1 + i]))
    start = now()
    with enable_grad():
        inside = Tensor(x.data, Leaf(x.shape, x.dtype)) if x.node is None else _enter(x)
        place: Any = inside.node
        out = formula(*given[1 : 1 + i], inside, *given[2 + i :])
        if not isinstance(out, Tensor) or out.node is None:
            return zeros_like(t if recorded else t.data)
        order, _ = reach((out.node,), start)
        t = t if recorded else t.data
        if backwards and any(v.dtype.kind == "c" for v in (*arrays, out)):
            path = route(order, (place,))
            swept = pull(path, {place}, {out.node: t}, record=recorded)
            found = swept.get(place)
        else:
            found = push(order, {place: t}, record=recorded).get(out.node)
    return zeros_like(t) if found is None else found
