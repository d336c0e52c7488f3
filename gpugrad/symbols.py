"""Elementwise expressions: written down by running array code on symbols, printed as CUDA text.

A `Symbol` is an array without values: functions and operators of gpugrad that compute element by
element take it as they take any array, and give the symbol of what they would compute. So a
derivative rule, run on symbols, becomes one expression, whatever functions it calls. Dtypes follow
NumPy's rules; two-byte types are computed in float, as in all kernels.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from . import backends
from .backends import Backend, Device, Namespace
from .rules import NUMBERS


class NotElementwise(AttributeError):
    """What was asked of a symbol is no elementwise operation that has a text."""


class Symbol:
    """An array of which only is known how its elements are computed.

    Attributes:
        function: name of the array function; "variable" and "constant" for what has no operands.
        operands: symbols and Python numbers; the name of a variable, the value of a constant.
        loops: the dtypes in which the function takes its operands.
        dtype: of the result.
    """

    __slots__ = ("dtype", "function", "loops", "operands")

    # what the tape asks of an array: the symbol stands for one element
    shape = ()
    ndim = 0
    size = 1
    base = None
    __array_ufunc__ = None  # NumPy's operators leave it to those below

    def __init__(self, function: str, operands: tuple, loops: tuple, dtype: Any) -> None:
        self.function = function
        self.operands = operands
        self.loops = loops
        self.dtype = np.dtype(dtype)

    def __getattr__(self, name: str) -> Any:
        raise NotElementwise(f"{name}: not of one element alone")

    def _refuse(self, *_: Any) -> Any:
        raise NotElementwise("a value is asked for")

    __bool__ = __float__ = __int__ = __complex__ = __index__ = _refuse
    __iter__ = __len__ = __getitem__ = _refuse
    __hash__ = object.__hash__

    def astype(self, dtype: Any, copy: bool = True) -> Symbol:
        """The value as `dtype`; of a complex number as a real one the real part."""
        return self if dtype == self.dtype else Symbol("astype", (self,), (self.dtype,), dtype)

    def __pos__(self) -> Symbol:
        return self

    def __invert__(self) -> Symbol:
        if self.dtype.kind != "b":
            raise NotElementwise("the bits of an integer")
        return _apply("logical_not", self)


def variable(name: str, dtype: Any) -> Symbol:
    """The symbol of an argument."""
    return Symbol("variable", (name,), (), dtype)


# ---- the text of every function

# how tightly the outermost operator of a text binds, as in C
_CHOICE, _OR, _XOR, _AND, _EQUAL, _ORDER, _SUM, _PRODUCT, _SIGN, _ATOM = range(10)

_OPERATORS = {
    "add": ("{} + {}", _SUM),
    "subtract": ("{} - {}", _SUM),
    "multiply": ("{} * {}", _PRODUCT),
    "divide": ("{} / {}", _PRODUCT),
    "negative": ("-{}", _SIGN),
    "less": ("{} < {}", _ORDER),
    "less_equal": ("{} <= {}", _ORDER),
    "greater": ("{} > {}", _ORDER),
    "greater_equal": ("{} >= {}", _ORDER),
    "equal": ("{} == {}", _EQUAL),
    "not_equal": ("{} != {}", _EQUAL),
    "bitwise_and": ("{} & {}", _AND),
    "bitwise_xor": ("{} ^ {}", _XOR),
    "bitwise_or": ("{} | {}", _OR),
    "logical_not": ("!{}", _SIGN),
    "where": ("{} ? {} : {}", _CHOICE),
}
# kinds of dtypes for which C++ has none of these operators, or one that gives something else
_NOT_OF = {
    **dict.fromkeys(("less", "less_equal", "greater", "greater_equal"), "c"),
    "add": "b",  # where 1 + 1 is 1
    "logical_not": "c",
}
_REAL_CALLS = {
    **{
        name: name for name in "ceil cbrt copysign erf erfc exp2 expm1 floor fmax fmin fmod".split()
    },
    **{name: name for name in "hypot isfinite isinf isnan log1p log2 nextafter signbit".split()},
    **{name: name for name in "fabs rint trunc".split()},
    "abs": "fabs",
    "atan2": "atan2",
    "power": "pow",  # which of complex numbers has NaN for 0**0
}
_CALLS = {
    **{name: name for name in "acos acosh asin asinh atan atanh cos cosh exp log log10".split()},
    **{name: name for name in "sin sinh sqrt tan tanh".split()},
}
_COMPLEX_CALLS = {"abs": "abs", "conj": "conj"}


class DeviceFunction(NamedTuple):
    """A function of kernels/<file>.cuh, of real numbers of one dtype and to it."""

    file: str
    arity: int


DEVICE_FUNCTIONS = {
    name: DeviceFunction(file, arity)
    for file, arity, names in (
        ("activations", 1, "erf gelu log_sigmoid relu sigmoid silu softplus"),
        ("activations", 2, "gelu_grad relu_grad sigmoid_grad silu_grad tanh_grad"),
        ("choice", 1, "sign"),
        ("choice", 2, "maximum minimum"),
        ("division", 2, "floor_divide remainder"),
        ("special", 1, "digamma ellipe entr erfcx exprel i0 i0e i1 i1e k0 k0e k1 k1e log_ndtr"),
        ("special", 1, "logit ndtr ndtri rgamma sinc spence"),
        ("special", 2, "gamma_slope huber kl_div pseudo_huber rel_entr xlog1py xlogy"),
    )
    for name in names.split()
}
# the files that each file needs before it
_BEFORE = {"special": ("activations",)}


def files_of(names: Iterable[str]) -> tuple[str, ...]:
    """The files of kernels/ that device functions of these names need, in order."""
    wanted = {DEVICE_FUNCTIONS[name].file for name in names if name in DEVICE_FUNCTIONS}
    wanted = wanted.union(*(_BEFORE.get(file, ()) for file in wanted))
    return ("common", *sorted(wanted)) if wanted else ()


def _template(function: str, loops: tuple) -> tuple[str, int] | None:
    """The text of a function of operands of these dtypes, and how tightly it binds."""
    is_complex = loops[-1].kind == "c"
    places = ", ".join(["{}"] * len(loops))
    if function in _OPERATORS:
        return None if loops[0].kind in _NOT_OF.get(function, "") else _OPERATORS[function]
    if loops[-1].kind in "biu":  # C's functions are of floating-point numbers
        return None
    if call := (_CALLS | (_COMPLEX_CALLS if is_complex else _REAL_CALLS)).get(function):
        return f"{call}({places})", _ATOM
    if function in DEVICE_FUNCTIONS and not is_complex:
        return f"gpugrad::{function}({places})", _ATOM
    return None


# ---- array functions of symbols


def _loops(function: str, operands: tuple) -> tuple[tuple, np.dtype]:
    """The dtypes of a function's operands and of its result."""
    if function == "where":
        _, a, b = operands
        dtype = np.result_type(*(x.dtype if type(x) is Symbol else x for x in (a, b)))
        return (np.dtype(bool), dtype, dtype), dtype
    given = tuple(x.dtype if type(x) is Symbol else type(x) for x in operands)
    ufunc = getattr(np, function, None)
    if isinstance(ufunc, np.ufunc) and ufunc.nout == 1:
        *loops, dtype = ufunc.resolve_dtypes((*given, None))
        return tuple(loops), dtype
    dtype = np.result_type(*(x.dtype if type(x) is Symbol else x for x in operands))
    dtype = np.dtype(np.float64) if dtype.kind in "biu" else dtype
    return (dtype,) * len(operands), dtype


def _apply(function: str, *operands: Any, **options: Any) -> Symbol:
    if options or any(
        type(x) is not Symbol and type(x) not in (int, float, complex, bool) for x in operands
    ):
        raise NotElementwise(f"{function}: not of symbols and numbers alone")
    try:
        loops, dtype = _loops(function, operands)
    except TypeError as error:
        raise NotElementwise(str(error)) from None
    if _template(function, loops) is None:
        raise NotElementwise(f"{function} has no text")
    return Symbol(function, operands, loops, dtype)


def _full_like(x: Symbol, value: Any, dtype: Any = None) -> Symbol:
    if type(value) not in NUMBERS:
        raise NotElementwise("a constant is a number")
    return Symbol("constant", (value,), (), x.dtype if dtype is None else dtype)


class _Functions(Namespace):
    def __init__(self) -> None:
        self.special = self
        self.full_like = _full_like
        self.ones_like = functools.partial(_full_like, value=1)
        self.real = lambda x: x.astype(x.dtype.type(0).real.dtype)
        self.positive = self.copy = lambda x: x
        self.square = lambda x: x * x
        self.reciprocal = lambda x: 1 / x

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        function = functools.partial(_apply, name)
        setattr(self, name, function)
        return function


class _Symbols(Backend):
    """Symbols as the arrays of one more library."""

    kind = "symbol"
    array_type = Symbol
    array_types = (Symbol,)
    xp = _Functions()

    def device_of(self, array: Any) -> Device:
        return Device("cpu")


backends._by_type[Symbol] = _Symbols()


def _operator(function: str, swap: bool = False) -> Any:
    def operate(self: Symbol, *other: Any) -> Any:
        return _apply(function, *other, self) if swap else _apply(function, self, *other)

    return operate


for _name, _function in {
    "add": "add",
    "sub": "subtract",
    "mul": "multiply",
    "truediv": "divide",
    "pow": "power",
    "floordiv": "floor_divide",
    "mod": "remainder",
    "and": "bitwise_and",
    "or": "bitwise_or",
    "xor": "bitwise_xor",
}.items():
    setattr(Symbol, f"__{_name}__", _operator(_function))
    setattr(Symbol, f"__r{_name}__", _operator(_function, swap=True))
for _name, _function in {
    "neg": "negative",
    "abs": "abs",
    "lt": "less",
    "le": "less_equal",
    "gt": "greater",
    "ge": "greater_equal",
    "eq": "equal",
    "ne": "not_equal",
}.items():
    setattr(Symbol, f"__{_name}__", _operator(_function))


# ---- from symbols to text

_TYPES = {
    np.dtype(name): text
    for name, text in {
        "bool": "bool",
        "int8": "signed char",
        "uint8": "unsigned char",
        "int16": "short",
        "uint16": "unsigned short",
        "int32": "int",
        "uint32": "unsigned int",
        "int64": "long long",
        "uint64": "unsigned long long",
        "float32": "float",
        "float64": "double",
        "complex64": "complex<float>",
        "complex128": "complex<double>",
    }.items()
}


def working_dtype(dtype: Any) -> np.dtype:
    """The dtype to compute with: float32 for the two-byte floating-point types, else itself."""
    is_half = dtype.itemsize == 2 and dtype.kind in "fV"
    return np.dtype(np.float32) if is_half else np.dtype(dtype)


def working_type(dtype: Any) -> str:
    """Its name in C++."""
    return _TYPES[working_dtype(dtype)]


class Text(NamedTuple):
    """Statements that compute results from arguments, one element each.

    Attributes:
        locals: `const float v0 = ...;` for what is used more than once, in order.
        values: name of a result -> its expression, in that result's dtype.
        variables: the names of those that it needs.
        files: of kernels/, whose device functions are called.
        operations: how many are computed.
    """

    locals: list[str]
    values: dict[str, str]
    variables: frozenset[str]
    files: tuple[str, ...]
    operations: int

    @property
    def statements(self) -> str:
        """All of it, with an assignment to each result."""
        return "\n".join([*self.locals, *(f"{k} = {v};" for k, v in self.values.items())])

    @property
    def expression(self) -> str:
        """All of it, of one result, as one expression."""
        (value,) = self.values.values()
        return f"[&] {{ {' '.join(self.locals)} return {value}; }}()" if self.locals else value


def write(results: Mapping[str, tuple[Symbol, Any]]) -> Text:
    """The text of some results, given with the dtype each is wanted in.

    Equal parts are computed once.

    Raises:
        NotElementwise: if a number in it is not finite or too large, so that it has no text.
    """
    printer = _Printer()
    wanted = {
        name: printer.shared(symbol.astype(dtype)) for name, (symbol, dtype) in results.items()
    }
    for symbol in wanted.values():
        printer.uses[symbol] = printer.uses.get(symbol, 0) + 1
    values = {name: printer.cast(symbol, symbol.dtype)[0] for name, symbol in wanted.items()}
    made = printer.made.values()
    variables = frozenset(s.operands[0] for s in made if s.function == "variable")
    operations = sum(s.function not in ("variable", "constant", "astype") for s in made)
    return Text(printer.lines, values, variables, files_of(s.function for s in made), operations)


class _Printer:
    def __init__(self) -> None:
        self.made: dict[tuple, Symbol] = {}  # what a symbol says -> the one symbol that says it
        self.known: dict[int, tuple[Symbol, Symbol]] = {}  # id -> (symbol, the shared one)
        self.uses: dict[Symbol, int] = {}
        self.names: dict[Symbol, str] = {}
        self.lines: list[str] = []

    def shared(self, symbol: Symbol) -> Symbol:
        """The symbol, with equal parts made one, and their uses counted."""
        if id(symbol) not in self.known:
            operands = tuple(self.shared(x) if type(x) is Symbol else x for x in symbol.operands)
            said = tuple(id(x) if type(x) is Symbol else (type(x), repr(x)) for x in operands)
            key = (symbol.function, said, symbol.loops, symbol.dtype)
            if key not in self.made:
                self.made[key] = Symbol(symbol.function, operands, symbol.loops, symbol.dtype)
                for x in operands:
                    if type(x) is Symbol:
                        self.uses[x] = self.uses.get(x, 0) + 1
            self.known[id(symbol)] = symbol, self.made[key]
        return self.known[id(symbol)][1]

    def cast(self, x: Any, dtype: Any) -> tuple[str, int]:
        """The text of an operand in the working type of `dtype`, and how tightly it binds."""
        target = working_type(dtype)
        if type(x) is not Symbol:
            return _literal(x, target)
        if x.function == "constant":
            return _literal(x.operands[0], target)
        text, binds = self.expression(x)
        if x.function == "variable" and x.dtype != working_dtype(x.dtype):
            text, binds = f"float({text})", _ATOM
        if working_type(x.dtype) == target:
            return text, binds
        if x.dtype.kind == "c" and dtype.kind != "c":
            if dtype.kind == "b":
                raise NotElementwise("the truth of a complex number")
            text, binds = f"real({text})", _ATOM
            if working_type(x.dtype) == f"complex<{target}>":
                return text, binds
        return f"{target}({text})" if " " not in target else f"({target})({text})", _ATOM

    def expression(self, x: Symbol) -> tuple[str, int]:
        if x.function == "variable":
            return x.operands[0], _ATOM
        if x in self.names:
            return self.names[x], _ATOM
        if x.function == "astype":
            text, binds = self.cast(x.operands[0], x.dtype)
        else:
            template, binds = _template(x.function, x.loops) or ("", 0)
            parts = []
            for i, (operand, loop) in enumerate(zip(x.operands, x.loops)):
                part, tightness = self.cast(operand, loop)
                # of equals, what stands on the left is computed first
                least = 0 if binds == _ATOM else binds + (i > 0 or binds in (_SIGN, _CHOICE))
                parts.append(part if tightness >= least else f"({part})")
            text = template.format(*parts)
            if x.dtype.kind in "iu" and x.dtype.itemsize < 4:  # C computes it in int
                text, binds = f"({working_type(x.dtype)})({text})", _ATOM
        if self.uses.get(x, 0) > 1:
            self.names[x] = f"v{len(self.names)}"
            self.lines.append(f"const {working_type(x.dtype)} {self.names[x]} = {text};")
            return self.names[x], _ATOM
        return text, binds


_LARGEST = {
    "float": float(np.finfo(np.float32).max),
    "double": float(np.finfo(np.float64).max),
}


def _literal(value: Any, target: str) -> tuple[str, int]:
    if target.startswith("complex"):
        part = target[8:-1]
        value = complex(value)
        return f"{target}({_literal(value.real, part)[0]}, {_literal(value.imag, part)[0]})", _ATOM
    if target == "bool":
        return str(bool(value)).lower(), _ATOM
    if not abs(value) <= _LARGEST.get(target, 2**63 - 1) or ("unsigned" in target and value < 0):
        raise NotElementwise(f"{value} has no text")
    if target in ("float", "double"):
        text = repr(float(value)) + ("f" if target == "float" else "")
    else:
        text = repr(int(value))
    return text, _SIGN if text.startswith("-") else _ATOM
