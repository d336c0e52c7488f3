"""Elementwise functions: array API standard 2025.12, section "Element-wise Functions".

One line each: the name, and per argument the derivative rule. At the points where a function has
no derivative, the rule gives the limit where it exists, else the subgradient of smallest norm, and
ties share evenly: maximum(a, b) is I[a > b], with a half each at a == b. A rule selects with
`where`, never with a product, so that an infinity on the other branch does no harm.
"""

from __future__ import annotations

import cmath
import math
from typing import Any

from ..rules import check_arrays, elementwise
from ..views import changes
from .creation import zeros_like

__all__ = [
    "abs",
    "acos",
    "acosh",
    "add",
    "asin",
    "asinh",
    "atan",
    "atan2",
    "atanh",
    "bitwise_and",
    "bitwise_invert",
    "bitwise_left_shift",
    "bitwise_or",
    "bitwise_right_shift",
    "bitwise_xor",
    "ceil",
    "clip",
    "conj",
    "copysign",
    "cos",
    "cosh",
    "divide",
    "equal",
    "exp",
    "expm1",
    "floor",
    "floor_divide",
    "greater",
    "greater_equal",
    "hypot",
    "imag",
    "isfinite",
    "isinf",
    "isnan",
    "less",
    "less_equal",
    "log",
    "log1p",
    "log2",
    "log10",
    "logaddexp",
    "logical_and",
    "logical_not",
    "logical_or",
    "logical_xor",
    "maximum",
    "minimum",
    "multiply",
    "negative",
    "nextafter",
    "not_equal",
    "positive",
    "pow",
    "real",
    "reciprocal",
    "remainder",
    "round",
    "sign",
    "signbit",
    "sin",
    "sinh",
    "sqrt",
    "square",
    "subtract",
    "tan",
    "tanh",
    "trunc",
    "where",
]


def _zero(t: Any) -> Any:
    """The derivative of a piecewise constant function."""
    return zeros_like(t)


where = elementwise(
    "where",
    None,
    lambda t, condition: where(condition, t, 0),
    lambda t, condition: where(condition, 0, t),
    arrays=("condition", "a", "b"),
    doc="`a` where `condition` holds, else `b`.",
)

# ---- comparison and logic: no derivative

equal = elementwise("equal", None, None, doc="a == b.")
not_equal = elementwise("not_equal", None, None, doc="a != b.")
less = elementwise("less", None, None, doc="a < b.")
less_equal = elementwise("less_equal", None, None, doc="a <= b.")
greater = elementwise("greater", None, None, doc="a > b.")
greater_equal = elementwise("greater_equal", None, None, doc="a >= b.")
isfinite = elementwise("isfinite", None, doc="Neither infinite nor NaN.")
isinf = elementwise("isinf", None, doc="Positive or negative infinity.")
isnan = elementwise("isnan", None, doc="NaN.")
signbit = elementwise("signbit", None, doc="The sign bit is set, also of -0.0.")
logical_and = elementwise("logical_and", None, None, doc="a and b.")
logical_or = elementwise("logical_or", None, None, doc="a or b.")
logical_xor = elementwise("logical_xor", None, None, doc="Either a or b, not both.")
logical_not = elementwise("logical_not", None, doc="not x.")
bitwise_and = elementwise("bitwise_and", None, None, doc="a & b of integers or booleans.")
bitwise_or = elementwise("bitwise_or", None, None, doc="a | b of integers or booleans.")
bitwise_xor = elementwise("bitwise_xor", None, None, doc="a ^ b of integers or booleans.")
bitwise_invert = elementwise("bitwise_invert", None, doc="~x of integers or booleans.")
bitwise_left_shift = elementwise("bitwise_left_shift", None, None, doc="a << b of integers.")
bitwise_right_shift = elementwise("bitwise_right_shift", None, None, doc="a >> b of integers.")

# ---- arithmetic

add = elementwise("add", lambda t: t, lambda t: t, doc="a + b.")
subtract = elementwise("subtract", lambda t: t, lambda t: -t, doc="a - b.")
multiply = elementwise("multiply", lambda t, b: t * b, lambda t, a: t * a, doc="a * b.")
divide = elementwise("divide", lambda t, b: t / b, lambda t, b, out: -t * out / b, doc="a / b.")
negative = elementwise("negative", lambda t: -t, doc="-x.")
positive = elementwise("positive", lambda t: t, doc="+x.")
reciprocal = elementwise("reciprocal", lambda t, out: -t * out * out, doc="1 / x.")
square = elementwise("square", lambda t, x: t * (x + x), doc="x * x.")
sqrt = elementwise("sqrt", lambda t, out: t * 0.5 / out, doc="Square root.")
pow = elementwise(
    "pow",
    lambda t, a, b: t * (b * a ** _one_less(b)),
    lambda t, a, out: t * (out * _log_of_base(a, out)),
    doc="a ** b; a ValueError for integers to negative integer powers.",
    function="power",
)
floor_divide = elementwise(
    "floor_divide", _zero, _zero, doc="floor(a / b); a / b where one is infinite."
)
remainder = elementwise(
    "remainder",
    lambda t: t,
    lambda t, a, b: -t * floor_divide(a, b),
    doc="a - b * floor(a / b): has the sign of b.",
)
hypot = elementwise(
    "hypot",
    lambda t, a, out: t * (a / where(out == 0, 1, out)),
    lambda t, b, out: t * (b / where(out == 0, 1, out)),
    doc="sqrt(a*a + b*b) without overflow; derivative 0 at (0, 0).",
)


def _one_less(b: Any) -> Any:
    """b - 1, but 1 for b = 0: then `b * a ** _one_less(b)` is 0 also at a = 0."""
    if isinstance(b, (int, float, complex)):
        return b - 1 if b else 1
    return where(b == 0, 1, b - 1)


def _log_of_base(a: Any, out: Any) -> Any:
    """log(a), but 0 for a = 0: then `out * _log_of_base(a, out)` is 0 also at a = b = 0."""
    if not isinstance(a, (int, float, complex)):
        return log(where(a == 0, 1, a))
    if a == 0:
        return 0.0
    if isinstance(a, complex) or out.dtype.kind == "c":
        return cmath.log(a)
    return math.log(a) if a > 0 else math.nan


# ---- exponentials and logarithms

exp = elementwise("exp", lambda t, out: t * out, doc="e ** x.")
expm1 = elementwise("expm1", lambda t, x: t * exp(x), doc="e ** x - 1, accurate near 0.")
log = elementwise("log", lambda t, x: t / x, doc="Natural logarithm.")
log1p = elementwise("log1p", lambda t, x: t / (x + 1), doc="log(1 + x), accurate near 0.")
log2 = elementwise("log2", lambda t, x: t / (x * math.log(2)), doc="Logarithm to base 2.")
log10 = elementwise("log10", lambda t, x: t / (x * math.log(10)), doc="Logarithm to base 10.")
logaddexp = elementwise(
    "logaddexp",
    lambda t, a, b: t * _share(a, b),
    lambda t, a, b: t * _share(b, a),
    doc="log(e**a + e**b) without overflow.",
)

# ---- trigonometric and hyperbolic

sin = elementwise("sin", lambda t, x: t * cos(x), doc="Sine of radians.")
cos = elementwise("cos", lambda t, x: -t * sin(x), doc="Cosine of radians.")
tan = elementwise("tan", lambda t, out: t * (out * out + 1), doc="Tangent of radians.")
asin = elementwise("asin", lambda t, x: t / sqrt((1 - x) * (1 + x)), doc="Inverse sine, radians.")
acos = elementwise(
    "acos", lambda t, x: -t / sqrt((1 - x) * (1 + x)), doc="Inverse cosine, radians."
)
atan = elementwise("atan", lambda t, x: _atan_rule(t, x), doc="Inverse tangent, radians.")
atan2 = elementwise(
    "atan2",
    lambda t, a, b: t * (b / _norm(a, b) / _norm(a, b)),
    lambda t, a, b: -t * (a / _norm(a, b) / _norm(a, b)),
    doc="Angle of the point (b, a) in radians; derivative 0 at (0, 0).",
)
sinh = elementwise("sinh", lambda t, x: t * cosh(x), doc="Hyperbolic sine.")
cosh = elementwise("cosh", lambda t, x: t * sinh(x), doc="Hyperbolic cosine.")
tanh = elementwise("tanh", lambda t, x: _tanh_rule(t, x), doc="Hyperbolic tangent.")
asinh = elementwise("asinh", lambda t, x: t / _norm_1(x), doc="Inverse hyperbolic sine.")
acosh = elementwise(
    "acosh", lambda t, x: t / (sqrt(x - 1) * sqrt(x + 1)), doc="Inverse hyperbolic cosine."
)
atanh = elementwise(
    "atanh", lambda t, x: t / ((1 - x) * (1 + x)), doc="Inverse hyperbolic tangent."
)
tanh_grad = elementwise(
    "tanh_grad",
    lambda t, x: tanh_grad(t, x),
    lambda t, g, x: tanh(x) * tanh_grad(-2 * (t * g), x),
    arrays=("g", "x"),
    doc="g / cosh(x)**2, right in both tails.",
)


def _tanh_rule(t: Any, x: Any) -> Any:
    if x.dtype.kind == "c":
        return t * (1 - square(tanh(x)))
    return tanh_grad(t, x)


def _atan_rule(t: Any, x: Any) -> Any:
    if x.dtype.kind == "c":
        return t / (x * x + 1)
    return t / _norm_1(x) / _norm_1(x)


def _norm_1(x: Any) -> Any:
    """sqrt(x*x + 1), without overflow for real x."""
    return sqrt(x * x + 1) if x.dtype.kind == "c" else hypot(x, 1)


def _norm(a: Any, b: Any) -> Any:
    """sqrt(a*a + b*b) without overflow, but 1 at the origin."""
    norm = hypot(a, b)
    return where(norm == 0, 1, norm)


# ---- rounding: derivative zero

floor = elementwise("floor", _zero, doc="Largest integer not above x.")
ceil = elementwise("ceil", _zero, doc="Smallest integer not below x.")
trunc = elementwise("trunc", _zero, doc="The integer part of x.")
round = elementwise("round", _zero, doc="The nearest integer, halves to even.")

# ---- sign and order

_abs = elementwise("abs", lambda t, x: t * conj(sign(x)), doc="|x|; derivative 0 at 0.")
_sign = elementwise("sign", _zero, doc="-1, 0 or 1.")
copysign = elementwise(
    "copysign",
    lambda t, a, out: t * (sign(a) * sign(out)),
    _zero,
    doc="|a| with the sign of b.",
)
nextafter = elementwise("nextafter", lambda t: t, _zero, doc="The float after a towards b.")
maximum = elementwise(
    "maximum",
    lambda t, a, b: where(a == b, t * 0.5, where((a > b) | isnan(a), t, 0)),
    lambda t, a, b: where(a == b, t * 0.5, where((b > a) | isnan(b), t, 0)),
    doc="The larger; NaN if either is. A tie shares the derivative evenly.",
)
minimum = elementwise(
    "minimum",
    lambda t, a, b: where(a == b, t * 0.5, where((a < b) | isnan(a), t, 0)),
    lambda t, a, b: where(a == b, t * 0.5, where((b < a) | isnan(b), t, 0)),
    doc="The smaller; NaN if either is. A tie shares the derivative evenly.",
)
_at_least = elementwise(
    "clip",
    lambda t, x, low: where(x < low, 0, t),
    lambda t, x, low: where(x < low, t, 0),
    arrays=("x", "low"),
    doc="x, but at least low.",
    function="maximum",
)
_at_most = elementwise(
    "clip",
    lambda t, x, high: where(x > high, 0, t),
    lambda t, x, high: where(x > high, t, 0),
    arrays=("x", "high"),
    doc="x, but at most high.",
    function="minimum",
)


def clip(x: Any, /, min: Any = None, max: Any = None) -> Any:
    """`x` limited to [min, max]; NaN where one of the three is.

    At a bound the derivative goes to `x`; where min > max the result is max.

    Args:
        min, max: None, a number, or an array that broadcasts with `x`.
    """
    if min is not None:
        x = _at_least(x, min)
    if max is not None:
        x = _at_most(x, max)
    return +x if min is None and max is None else x


def sign(x: Any, /) -> Any:
    """-1, 0 or 1, with derivative 0; for complex x, x / |x| and 0 at 0.

    Elementwise. Array API standard 2025.12.
    """
    check_arrays("sign", x)
    if x.dtype.kind != "c":
        return _sign(x)
    size = _abs(x)
    return where(size == 0, 0, x / where(size == 0, 1, size))


def abs(x: Any, /) -> Any:
    """|x|, with derivative 0 at 0; real also for complex x.

    Elementwise. Array API standard 2025.12.
    """
    return _abs(x)


# ---- complex numbers: the sweeps keep the real part where a value is real

_conj = elementwise("conj", lambda t: conj(t), doc="Complex conjugate.")
real = changes(elementwise("real", lambda t: t, doc="Real part."))
imag = changes(elementwise("imag", lambda t: t * -1j, doc="Imaginary part."))


def conj(x: Any, /) -> Any:
    """Complex conjugate; a real `x` comes back as it is.

    Elementwise. Array API standard 2025.12.
    """
    check_arrays("conj", x)
    return _conj(x) if x.dtype.kind == "c" else x


def _share(a: Any, b: Any) -> Any:
    """e**a / (e**a + e**b), also where both are the same infinity."""
    from .activations import sigmoid

    same = a == b
    return sigmoid(where(same, 0, a) - where(same, 0, b))
