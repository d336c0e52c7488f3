"""CUDA text of one element -> a Python function in gpugrad's own functions, its twin.

What is understood is plain arithmetic: declarations of local variables, assignments, `if`, the
operators of C, casts, and the standard mathematical functions, also with the suffix f of float.
Values follow C where it matters: 1 / 2 is 0, (x > 0) + (x > 1) may be 2, max and min pass over a
NaN. A literal without the suffix f is a weak number here, where CUDA would compute in double.
"""

from __future__ import annotations

import keyword
import math
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from .ops import elementwise, special
from .ops.dtypes import astype
from .protocols import ufuncs
from .rules import raw
from .symbols import Symbol


class NotPlain(ValueError):
    """Text that is not understood; the message names the word."""


class Parameter(NamedTuple):
    """A parameter of a kernel: its type, a capital letter or the name of a dtype, and its name."""

    type: str
    name: str

    @property
    def dtype(self) -> np.dtype | None:
        """The dtype, None for a letter."""
        return None if len(self.type) == 1 else np.dtype(self.type)

    def __str__(self) -> str:
        return f"{self.type} {self.name}"


_RESERVED = frozenset(
    "alignas alignof and and_eq asm auto bitand bitor bool break case catch char class compl "
    "const constexpr continue decltype default delete do double else enum explicit export "
    "extern false float for friend goto if inline int long main mutable namespace new "
    "noexcept not not_eq nullptr operator or or_eq private protected public register return "
    "short signed sizeof static struct switch template this throw true try typedef typeid "
    "typename union unsigned using virtual void volatile while xor xor_eq".split()
)


def is_name(word: str) -> bool:
    """Whether C++ takes `word` as the name of something new."""
    return word.isidentifier() and word.isascii() and word not in _RESERVED


def parameters(text: str) -> list[Parameter]:
    """The parameters in a list such as "T x, float32 a"."""
    found = []
    for item in filter(None, map(str.strip, text.split(","))):
        words = item.split()
        if "raw" in words:
            raise ValueError(
                f"{item!r}: a raw parameter is read at any index, so that the kernel is not "
                "elementwise; use gpugrad.custom_vjp"
            )
        if len(words) != 2 or not is_name(words[1]) or words[1] == "i":
            raise ValueError(f"{item!r} is no parameter: a type and a name are, such as 'T x'")
        parameter = Parameter(*words)
        try:
            parameter.dtype  # noqa: B018
        except TypeError:
            raise ValueError(f"{item!r}: a type is one letter, or the name of a dtype") from None
        found.append(parameter)
    return found


# ---- words

_COMMENT = re.compile(r"//[^\n]*|/\*.*?\*/", re.DOTALL)
_WORD = re.compile(
    r"""\s*(?:
    (?P<number>0[xX][0-9a-fA-F]+[uUlL]*
       |(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?[fFuUlL]*)
    |(?P<name>[A-Za-z_]\w*)
    |(?P<sign>\+\+|--|<<|>>|->|::|[-+*/%<>=!&|^]=|&&|\|\||[-+*/%<>=!&|^~?:;,.(){}\[\]\#"'])
    )""",
    re.VERBOSE,
)


def _words(text: str) -> Iterator[tuple[str, str]]:
    text = _COMMENT.sub(" ", text).rstrip()
    at = 0
    while at < len(text):
        match = _WORD.match(text, at)
        if match is None:
            raise NotPlain(f"{text[at:].strip()[:1]!r} is not understood")
        at = match.end()
        kind = match.lastgroup or ""
        yield kind, match[kind]


def names_in(text: str) -> set[str]:
    """The identifiers in a piece of CUDA text."""
    return set(re.findall(r"(?<![\w.])[A-Za-z_]\w*", _COMMENT.sub(" ", text)))


_TYPES = {
    "bool": "bool",
    "char": "int8",
    "short": "int16",
    "int": "int32",
    "unsigned": "uint32",
    "long": "int64",
    "size_t": "uint64",
    "ptrdiff_t": "int64",
    "float16": "float16",
    "float": "float32",
    "double": "float64",
    **{f"{u}int{n}_t": f"{u}int{n}" for u in ("", "u") for n in (8, 16, 32, 64)},
}
_INTEGER_WORDS = frozenset("unsigned signed char short int long".split())


# ---- functions of values: arrays, Tensors, symbols, and Python numbers for literals


def _is_number(x: Any) -> bool:
    return isinstance(x, (bool, int, float, complex)) and not isinstance(x, np.generic)


def _is_whole(x: Any) -> bool:
    return isinstance(x, int) if _is_number(x) else x.dtype.kind in "biu"


def _of_numbers(f: Callable[..., Any]) -> Callable[..., Any]:
    """f, also of Python numbers alone."""

    def call(*args: Any) -> Any:
        if not all(map(_is_number, args)):
            return f(*args)
        with np.errstate(all="ignore"):
            return np.asarray(f(*(np.asarray(x, np.result_type(x, 1.0)) for x in args))).item()

    return call


def _divide(a: Any, b: Any) -> Any:
    """a / b, of integers rounded towards zero."""
    if not (_is_whole(a) and _is_whole(b)):
        return _of_numbers(elementwise.divide)(a, b)
    if _is_number(a) and _is_number(b):
        return int(a / b) if b else 0
    if any(type(raw(x)) is Symbol for x in (a, b)):  # whose integers have no remainder in CUDA text
        a = astype(a, np.float64) if not _is_number(a) else float(a)
        return astype(elementwise.trunc(a / b), np.int64)
    return (a - ufuncs.fmod(a, b)) // b


def _power(a: Any, b: Any) -> Any:
    if _is_whole(a) and _is_whole(b):
        a = float(a) if _is_number(a) else astype(a, np.float64)
    return elementwise.pow(a, b)


def _choose(condition: Any, a: Any, b: Any) -> Any:
    if isinstance(condition, bool):
        return a if condition else b
    return elementwise.where(condition, a, b)


def _integer(x: Any) -> Any:
    """A truth value as C computes with it."""
    return int(x) if isinstance(x, bool) else astype(x, np.int32)


def _working(dtype: np.dtype) -> np.dtype:
    """Two-byte floats are computed in float32."""
    small = dtype.itemsize == 2 and dtype.kind in "fV"
    return np.dtype(np.float32) if small else dtype


def _dtype_of(*values: Any) -> np.dtype:
    """The dtype of the arrays among `values`."""
    dtypes = [x.dtype for x in values if not _is_number(x)]
    return _working(np.result_type(*(dtypes or map(type, values))))


def _cast(x: Any, dtype: Any) -> Any:
    """x converted to `dtype` as C does, towards zero; a number stays a weak one."""
    dtype = _working(np.dtype(dtype))
    if _is_number(x):
        kind = {"b": bool, "i": int, "u": int, "c": complex}.get(dtype.kind, float)
        return kind(x) if not isinstance(x, complex) else x
    if dtype.kind == "b":
        return x if x.dtype == dtype else x != 0
    return x if x.dtype == dtype else astype(x, dtype)


def _round(x: Any) -> Any:
    """The nearest integer, halves away from zero."""
    whole = elementwise.trunc(x)
    step = elementwise.where(elementwise.abs(x - whole) >= 0.5, elementwise.sign(x), 0)
    return whole + step


def _fdim(a: Any, b: Any) -> Any:
    return elementwise.where(a <= b, 0, a - b)


def _norm(z: Any) -> Any:
    x, y = elementwise.real(z), elementwise.imag(z)
    return x * x + y * y


class _Function(NamedTuple):
    name: str  # in the Python text
    arity: int
    kind: str  # "float", "bool", or "" for that of the arguments
    call: Callable[..., Any]


def _functions() -> dict[str, _Function]:
    found: dict[str, _Function] = {}

    def add(name: str, f: Callable[..., Any], arity: int = 1, kind: str = "float") -> None:
        found[name] = _Function(name, arity, kind, _of_numbers(f))

    for name in (
        "exp expm1 log log2 log10 log1p sqrt sin cos tan asin acos atan sinh cosh tanh asinh acosh "
        "atanh floor ceil trunc"
    ).split():
        add(name, getattr(elementwise, name))
    for name in "erf erfc erfcx erfinv erfcinv exp10 j0 j1 y0 y1".split():
        add(name, getattr(special, name))
    for name in "cbrt exp2 rint".split():
        add(name, getattr(ufuncs, name))
    for name, f in {
        "lgamma": special.gammaln,
        "tgamma": special.gamma,
        "normcdf": special.ndtr,
        "normcdfinv": special.ndtri,
        "cyl_bessel_i0": special.i0,
        "cyl_bessel_i1": special.i1,
        "nearbyint": ufuncs.rint,
        "round": _round,
        "rsqrt": lambda x: 1 / elementwise.sqrt(x),
        "rcbrt": lambda x: 1 / ufuncs.cbrt(x),
        "norm": _norm,
        "arg": lambda z: elementwise.atan2(elementwise.imag(z), elementwise.real(z)),
        "real": elementwise.real,
        "imag": elementwise.imag,
    }.items():
        add(name, f)
    binary: dict[str, Callable[..., Any]] = {
        "atan2": elementwise.atan2,
        "copysign": elementwise.copysign,
        "fdim": _fdim,
        "fmod": ufuncs.fmod,
        "hypot": elementwise.hypot,
        "rhypot": lambda a, b: 1 / elementwise.hypot(a, b),
        "pow": _power,
    }
    for name, f in binary.items():
        add(name, f, 2)
    for name in "isnan isinf isfinite signbit".split():
        add(name, getattr(elementwise, name), 1, "bool")
    add("fma", lambda a, b, c: a * b + c, 3)
    for name, f, arity in (
        ("abs", elementwise.abs, 1),
        ("conj", elementwise.conj, 1),
        ("fmax", ufuncs.fmax, 2),
        ("fmin", ufuncs.fmin, 2),
    ):
        add(name, f, arity, "")
    found |= {"fabs": found["abs"], "max": found["fmax"], "min": found["fmin"]}
    floats = {f"{n}f": f for n, f in found.items() if n not in ("max", "min", "abs", "norm", "arg")}
    fast = "exp exp10 log log2 log10 sin cos tan pow".split()
    return found | floats | {f"__{n}f": found[n] for n in fast}


_FUNCTIONS = _functions()
_CONSTANTS = {
    "true": True,
    "false": False,
    "M_PI": math.pi,
    "M_PI_2": math.pi / 2,
    "M_PI_4": math.pi / 4,
    "M_1_PI": 1 / math.pi,
    "M_2_PI": 2 / math.pi,
    "M_2_SQRTPI": 2 / math.sqrt(math.pi),
    "M_SQRT2": math.sqrt(2),
    "M_SQRT1_2": math.sqrt(0.5),
    "M_E": math.e,
    "M_LN2": math.log(2),
    "M_LN10": math.log(10),
    "M_LOG2E": 1 / math.log(2),
    "M_LOG10E": 1 / math.log(10),
    "INFINITY": math.inf,
    "NAN": math.nan,
}
_SCOPE: dict[str, Any] = {
    **{f.name: f.call for f in _FUNCTIONS.values()},
    "cast": _cast,
    "choose": _choose,
    "divide": _divide,
    "dtype_of": _dtype_of,
    "inf": math.inf,
    "integer": _integer,
    "nan": math.nan,
}


# ---- from the text to a function


def function(name: str, inputs: Sequence[Parameter], output: Parameter, text: str) -> Any:
    """The Python function of `inputs`, in order, that computes `output` as `text` says.

    It takes arrays of any library, Tensors, and Python numbers; its source is its `__doc__`.

    Raises:
        NotPlain: naming the word that is not understood.
    """
    parser = _Parser(inputs, output, text)
    source = parser.function(name)
    scope = dict(_SCOPE)
    exec(compile(source, f"<twin of {name}>", "exec"), scope)
    made = scope[_python_name(name)]
    made.__doc__ = source
    return made


class _Value(NamedTuple):
    """A piece of Python text.

    Attributes:
        kind: "bool", "int", "float", the letter of a type, or "mixed".
        binds: how tightly its outermost operator binds, as in Python.
        constant: it has no variable in it.
    """

    text: str
    kind: str
    binds: int
    constant: bool = False


class _Variable(NamedTuple):
    name: str | None  # in the Python text; None before it has a value
    type: str  # of a dtype, or a letter; "auto"
    kind: str
    is_input: bool = False
    is_output: bool = False


_COMPARE, _BIT_OR, _BIT_XOR, _BIT_AND, _SUM, _PRODUCT, _SIGN, _ATOM = range(8)
_COMPARISONS = (("==", "!="), ("<", ">", "<=", ">="))
_JOINED = {"float": 2, "int": 1, "bool": 0}


def _kind(type_: str) -> str:
    if len(type_) == 1:
        return type_
    return {"b": "bool", "i": "int", "u": "int"}.get(np.dtype(type_).kind, "float")


def _joined(*kinds: str) -> str:
    if len(set(kinds)) == 1:
        return kinds[0]
    if all(kind in _JOINED for kind in kinds):
        return max(kinds, key=lambda kind: _JOINED[kind])
    letters = {kind for kind in kinds if kind not in ("int", "bool")}
    if letters == {"float"}:
        return "float"
    return letters.pop() if len(letters) == 1 else "mixed"


def _python_name(name: str) -> str:
    return name + "_" if keyword.iskeyword(name) or name in _SCOPE else name


class _Parser:
    def __init__(self, inputs: Sequence[Parameter], output: Parameter, text: str) -> None:
        self._inputs, self._output = inputs, output
        self._words = [*_words(text), ("end", "")]
        self._at = 0
        self._letters = {p.type for p in (*inputs, output) if len(p.type) == 1}
        self._taken = set(_SCOPE) | self._letters | {"work"}
        self._lines: list[str] = []
        self._declared = {p.name for p in (*inputs, output)}  # in the innermost block
        self._variables: dict[str, _Variable] = {}
        for p in inputs:
            self._variables[p.name] = _Variable(self._new(p.name), p.type, _kind(p.type), True)
        self._arguments = [str(self._variables[p.name].name) for p in inputs]
        self._variables[output.name] = _Variable(None, output.type, "", is_output=True)

    def function(self, name: str) -> str:
        while self._word[0] != "end":
            self._statement()
        result = self._variables[self._output.name].name
        if result is None:
            raise NotPlain(f"{self._output.name!r} is not given a value on every way")
        body = "\n".join(self._lines)
        heads = []
        for letter in sorted(self._letters):
            if re.search(rf"\b{letter}\b", body):
                typed = [a for a, p in zip(self._arguments, self._inputs) if p.type == letter]
                heads.append(f"{letter} = dtype_of({', '.join(typed or self._arguments)})")
        if re.search(r"\bwork\b", body):
            heads.append(f"work = dtype_of({', '.join(self._arguments)})")
        lines = "".join(f"    {line}\n" for line in (*heads, *self._lines, f"return {result}"))
        return f"def {_python_name(name)}({', '.join(self._arguments)}):\n{lines}"

    # -- words

    @property
    def _word(self) -> tuple[str, str]:
        return self._words[self._at]

    def _refuse(self) -> NotPlain:
        word = self._word[1]
        return NotPlain(f"{word!r} is not understood" if word else "the text ends too early")

    def _next(self) -> str:
        if self._word[0] == "end":
            raise self._refuse()
        self._at += 1
        return self._words[self._at - 1][1]

    def _sees(self, *signs: str) -> bool:
        kind, word = self._word
        return kind != "number" and word in signs

    def _takes(self, *signs: str) -> bool:
        if self._sees(*signs):
            self._at += 1
            return True
        return False

    def _expect(self, sign: str) -> None:
        if not self._takes(sign):
            raise self._refuse()

    def _new(self, name: str) -> str:
        """A name for the Python text that is not taken yet."""
        name = base = _python_name(name)
        count = 1
        while name in self._taken:
            name, count = f"{base}_{count}", count + 1
        self._taken.add(name)
        return name

    # -- types

    def _type(self) -> str | None:
        """The type that begins here: a letter, or the name of a dtype; None if none does."""
        start = self._at
        words: list[str] = []
        while self._word[0] == "name" and (not words or self._word[1] in _INTEGER_WORDS):
            word = self._word[1]
            if word not in _TYPES and word not in _INTEGER_WORDS and word not in self._letters:
                break
            words.append(self._next())
            if word not in _INTEGER_WORDS:
                break
        if not words:
            self._at = start
            return None
        if words[0] in self._letters:
            return words[0]
        if words[0] not in _INTEGER_WORDS:
            return _TYPES[words[0]]
        sizes = [w for w in words if w in ("char", "short", "long")]
        signed = _TYPES[sizes[0] if sizes else "int"]
        return f"u{signed}" if "unsigned" in words else signed

    # -- statements

    def _statement(self) -> None:
        if self._takes(";"):
            return
        if self._takes("{"):
            self._block()
        elif self._takes("if"):
            self._if()
        elif not self._declaration():
            self._assignment()

    def _block(self) -> None:
        outside, declared = dict(self._variables), self._declared
        self._declared = set()
        while not self._takes("}"):
            self._statement()
        own, self._declared = self._declared, declared
        self._variables = {
            name: variable if name in own else self._variables[name]
            for name, variable in outside.items()
        }

    def _if(self) -> None:
        self._expect("(")
        condition = self._named("condition", self._truth(self._expression()))
        self._expect(")")
        before = dict(self._variables)
        self._statement()
        yes, self._variables = self._variables, dict(before)
        if self._takes("else"):
            self._statement()
        no = self._variables
        self._variables = dict(before)
        for name, variable in before.items():
            a, b = yes[name], no[name]
            if a == b:
                self._variables[name] = a
            elif a.name is None or b.name is None:
                self._variables[name] = variable._replace(name=None)
            else:
                new = self._new(name)
                self._lines.append(f"{new} = choose({condition}, {a.name}, {b.name})")
                self._variables[name] = a._replace(name=new, kind=_joined(a.kind, b.kind))

    def _named(self, name: str, value: _Value) -> str:
        new = self._new(name)
        self._lines.append(f"{new} = {value.text}")
        return new

    def _declaration(self) -> bool:
        start = self._at
        is_const = self._takes("const")
        if self._takes("auto"):
            type_: str | None = "auto"
        else:
            type_ = self._type()
        is_const = self._takes("const") or is_const
        if type_ is None or self._word[0] != "name":
            if is_const:
                raise self._refuse()
            self._at = start
            return False
        while True:
            name = self._next()
            if not name.isidentifier():
                self._at -= 1
                raise self._refuse()
            if name in self._declared:
                raise NotPlain(f"{name!r} is declared twice")
            value = None
            if self._takes("="):
                value = self._expression()
            elif self._takes("("):
                value = self._expression()
                self._expect(")")
            self._declared.add(name)
            self._variables[name] = _Variable(None, type_, "")
            if value is not None:
                self._assign(name, value)
            elif type_ == "auto":
                raise self._refuse()
            if not self._takes(","):
                break
        self._end()
        return True

    def _end(self) -> None:
        if self._word[0] != "end" and not self._sees("}"):
            self._expect(";")

    def _assignment(self) -> None:
        kind, name = self._word
        if kind != "name" or name not in self._variables:
            raise self._refuse()
        self._at += 1
        if self._variables[name].is_input:
            raise NotPlain(f"{name!r} is an input, and not written")
        if self._takes("="):
            value = self._expression()
        else:
            operator = self._word[1]
            if operator not in ("+=", "-=", "*=", "/="):
                raise self._refuse()
            self._at += 1
            value = self._arithmetic(operator[0], self._read(name), self._expression())
        self._end()
        self._assign(name, value)

    def _assign(self, name: str, value: _Value) -> None:
        variable = self._variables[name]
        if not variable.is_output:  # which is cast when all is done, or where it is read
            value = self._cast(value, variable.type)
        new = self._named(name, value)
        self._variables[name] = variable._replace(name=new, kind=value.kind)

    def _read(self, name: str) -> _Value:
        variable = self._variables[name]
        if variable.name is None:
            raise NotPlain(f"{name!r} is read before it has a value")
        value = _Value(variable.name, variable.kind, _ATOM)
        return self._cast(value, variable.type) if variable.is_output else value

    def _cast(self, value: _Value, type_: str) -> _Value:
        if type_ == "auto" or (len(type_) == 1 and value.kind == type_):
            return value
        target = type_ if len(type_) == 1 else repr(type_)
        text = f"cast({value.text}, {target})"
        return _Value(text, _kind(type_), _ATOM, value.constant)

    # -- expressions, loosest operator first

    def _expression(self) -> _Value:
        condition = self._or()
        if not self._takes("?"):
            return condition
        a = self._expression()
        self._expect(":")
        b = self._expression()
        kind = _joined(a.kind, b.kind)
        text = f"choose({self._truth(condition).text}, {a.text}, {b.text})"
        if a.constant and b.constant and kind == "float":  # which else would be doubles
            text = f"cast({text}, work)"
        return _Value(text, kind, _ATOM)

    def _or(self) -> _Value:
        value = self._and()
        while self._takes("||"):
            value = self._logical("|", _BIT_OR, value, self._and())
        return value

    def _and(self) -> _Value:
        value = self._comparison(0)
        while self._takes("&&"):
            value = self._logical("&", _BIT_AND, value, self._comparison(0))
        return value

    def _logical(self, operator: str, binds: int, a: _Value, b: _Value) -> _Value:
        sides = (self._inside(self._truth(x), binds + 1) for x in (a, b))
        text = f" {operator} ".join(sides)
        return _Value(text, "bool", binds, a.constant and b.constant)

    def _comparison(self, level: int) -> _Value:
        if level == len(_COMPARISONS):
            return self._sum()
        value = self._comparison(level + 1)
        while self._sees(*_COMPARISONS[level]):
            sign = self._next()
            other = self._comparison(level + 1)
            if "bool" in (value.kind, other.kind):
                value, other = self._number(value), self._number(other)
            text = f"{self._inside(value, _SUM)} {sign} {self._inside(other, _SUM)}"
            value = _Value(text, "bool", _COMPARE, value.constant and other.constant)
        return value

    def _sum(self) -> _Value:
        value = self._product()
        while self._sees("+", "-"):
            sign = self._next()
            value = self._arithmetic(sign, value, self._product())
        return value

    def _product(self) -> _Value:
        value = self._sign()
        while self._sees("*", "/"):
            sign = self._next()
            value = self._arithmetic(sign, value, self._sign())
        return value

    def _arithmetic(self, sign: str, a: _Value, b: _Value) -> _Value:
        if a.kind == b.kind == "bool":  # of which NumPy makes a bool
            a, b = self._number(a), self._number(b)
        kind = _joined(a.kind, b.kind)
        constant = a.constant and b.constant
        if sign == "/":  # for Python an error if both are numbers, and the second is 0
            return _Value(f"divide({a.text}, {b.text})", kind, _ATOM, constant)
        binds = _SUM if sign in "+-" else _PRODUCT
        right = self._inside(b, binds + (sign == "-" or b.binds == binds))
        return _Value(f"{self._inside(a, binds)} {sign} {right}", kind, binds, constant)

    def _sign(self) -> _Value:
        if self._takes("-"):
            value = self._number(self._sign())
            return _Value(f"-{self._inside(value, _SIGN)}", value.kind, _SIGN, value.constant)
        if self._takes("+"):
            return self._number(self._sign())
        if self._takes("!"):
            value = self._truth(self._sign())
            text = f"{self._inside(value, _BIT_AND)} ^ True"
            return _Value(text, "bool", _BIT_XOR, value.constant)
        if self._sees("("):
            start = self._at
            self._at += 1
            type_ = self._type()
            if type_ is not None and self._takes(")"):
                return self._cast(self._sign(), type_)
            self._at = start
        return self._postfix()

    def _postfix(self) -> _Value:
        value = self._atom()
        while self._takes("."):
            name = self._next()
            if name not in ("real", "imag"):
                self._at -= 1
                raise self._refuse()
            self._expect("(")
            self._expect(")")
            value = _Value(f"{name}({value.text})", "float", _ATOM, value.constant)
        return value

    def _atom(self) -> _Value:
        kind, word = self._word
        if kind == "number":
            self._at += 1
            return _literal(word)
        if self._takes("("):
            value = self._expression()
            self._expect(")")
            return value
        if self._takes("::"):
            kind, word = self._word
        if kind != "name":
            raise self._refuse()
        if word == "static_cast":
            self._at += 1
            self._expect("<")
            type_ = self._type()
            if type_ is None:
                raise self._refuse()
            self._expect(">")
            return self._converted(type_)
        if word in self._variables:
            self._at += 1
            return self._read(word)
        if (type_ := self._type()) is not None:
            return self._converted(type_)
        if word in _CONSTANTS:
            self._at += 1
            number = _CONSTANTS[word]
            return _Value(repr(number), type(number).__name__, _ATOM, True)
        if word in _FUNCTIONS:
            return self._call(_FUNCTIONS[word])
        raise self._refuse()

    def _converted(self, type_: str) -> _Value:
        self._expect("(")
        value = self._expression()
        self._expect(")")
        return self._cast(value, type_)

    def _call(self, f: _Function) -> _Value:
        word = self._next()
        self._expect("(")
        args = [self._number(self._expression())]
        while self._takes(","):
            args.append(self._number(self._expression()))
        self._expect(")")
        if len(args) != f.arity:
            raise NotPlain(f"{word!r} takes {f.arity} arguments, not {len(args)}")
        kind = f.kind or _joined(*(x.kind for x in args))
        constant = all(x.constant for x in args)
        return _Value(f"{f.name}({', '.join(x.text for x in args)})", kind, _ATOM, constant)

    # -- pieces

    def _inside(self, value: _Value, binds: int) -> str:
        return value.text if value.binds >= binds else f"({value.text})"

    def _truth(self, value: _Value) -> _Value:
        if value.kind == "bool":
            return value
        return _Value(f"{self._inside(value, _SUM)} != 0", "bool", _COMPARE, value.constant)

    def _number(self, value: _Value) -> _Value:
        if value.kind != "bool":
            return value
        return _Value(f"integer({value.text})", "int", _ATOM, value.constant)


def _literal(word: str) -> _Value:
    if word[:2] in ("0x", "0X"):
        return _Value(str(int(word.rstrip("uUlL"), 16)), "int", _ATOM, True)
    bare = word.rstrip("fFuUlL")
    if bare.isdecimal() and word[len(bare) :].lower() in ("", "u", "l", "ul", "lu", "ll", "ull"):
        base = 8 if bare[0] == "0" and len(bare) > 1 else 10
        if base == 8 and set(bare) & set("89"):
            raise NotPlain(f"{word!r} is no number: 0 in front means octal")
        return _Value(str(int(bare, base)), "int", _ATOM, True)
    return _Value(repr(float(bare)), "float", _ATOM, True)
