"""The table of operations: one row per function, or per way of calling it.

The rows drive the tests of forward values, derivatives and backends in `test_ops.py`, and the test
for hidden transfers in `test_backends.py`. A new operation needs one row here.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

import gpugrad as gg
from gpugrad.ops import activations, elementwise, linalg

SPECIAL = [0.0, -0.0, 1.5, -2.5, 30.0, -30.0, 1e4, -1e4, np.inf, -np.inf, np.nan]


@dataclass(frozen=True)
class Domain:
    """Where the entries of an argument are drawn from: low < |x| < high."""

    shape: tuple[int, ...]
    low: float
    high: float
    signed: bool

    def draw(self, rng: np.random.Generator, dtype: Any) -> np.ndarray:
        """An array of the values nearest to those of float64 that `dtype` has."""
        dtype = np.dtype(dtype)
        if dtype.kind == "b":
            return rng.random(self.shape) < 0.5
        x = rng.uniform(self.low, self.high, self.shape)
        if dtype.kind == "c":
            x = x + 1j * rng.uniform(self.low, self.high, self.shape)
        if dtype.kind in "iu":
            x = np.ceil(x)
        if self.signed:
            x = x * rng.choice([-1, 1], self.shape)
        return np.asarray(x, dtype)


def signed(*shape: int) -> Domain:
    return Domain(shape, 0.2, 2.0, True)


def positive(*shape: int) -> Domain:
    return Domain(shape, 0.2, 2.0, False)


def inside(*shape: int) -> Domain:
    return Domain(shape, 0.1, 0.9, True)


def above_1(*shape: int) -> Domain:
    return Domain(shape, 1.2, 3.0, False)


@dataclass(frozen=True)
class Row:
    """One function, or one way of calling it.

    Attributes:
        name: the public name of the function.
        label: what tells the row from others of that name.
        function: on tensors or raw arrays.
        reference: the same on NumPy arrays.
        args: a `Domain` for each argument with a derivative, an array for each without.
        dtypes: characters of the dtypes that the drawn arguments may have.
        order: to which derivatives are checked; 0 for a function without.
        broadcasts: elementwise.
    """

    name: str
    label: str
    function: Callable[..., Any]
    reference: Callable[..., Any]
    args: tuple[Any, ...]
    dtypes: str
    order: int
    broadcasts: bool = False

    def __str__(self) -> str:
        return f"{self.name}({self.label})" if self.label else self.name

    def draw(self, dtype: Any) -> list[np.ndarray]:
        rng = np.random.default_rng(0)
        return [x.draw(rng, dtype) if isinstance(x, Domain) else x for x in self.args]

    def of_differentiable(self, args: list[Any]) -> tuple[Callable[..., Any], list[Any]]:
        """The function of the arguments that have a derivative, the others fixed; and these."""
        where = [i for i, x in enumerate(self.args) if isinstance(x, Domain)]

        def f(*values: Any) -> Any:
            filled = list(args)
            for i, value in zip(where, values, strict=True):
                filled[i] = value
            return self.function(*filled)

        f.__name__ = str(self)
        return f, [args[i] for i in where]


def entrywise(
    name: str,
    *args: Any,
    dtypes: str = "fd",
    order: int = 2,
    function: Callable[..., Any] | None = None,
    reference: Callable[..., Any] | None = None,
) -> Row:
    """A row of an elementwise function; `args` are kinds of `Domain`, or arrays of shape (2, 3)."""
    domains = tuple(x(2, 3) if callable(x) else x for x in args)
    function = function or getattr(gg, name)
    reference = reference or getattr(np, name)
    return Row(name, "", function, reference, domains, dtypes, order, broadcasts=True)


def case(
    name: str,
    *args: Any,
    dtypes: str = "fd",
    order: int = 2,
    function: Callable[..., Any] | None = None,
    reference: Callable[..., Any] | None = None,
    **options: Any,
) -> Row:
    """A row of another function, called with `options`."""
    shapes = ",".join(str(x.shape).replace(" ", "") for x in args)
    label = ", ".join([shapes, *(f"{k}={v}" for k, v in options.items())])
    functions = function or getattr(gg, name), reference or getattr(np, name)
    bound = (functools.partial(f, **options) for f in functions)
    return Row(name, label, *bound, args, dtypes, order)


def written(name: str, label: str, f: Callable[..., Any], *args: Any, dtypes: str = "fd") -> Row:
    """A row of an expression `f(library, *arrays)` that gpugrad and NumPy share."""
    bound = (functools.partial(f, library) for library in (gg, np))
    return Row(name, label, *bound, args, dtypes, 2)


# ---- references where NumPy has no such function: textbook formulas, computed in float64


def _in_float64(f: Callable[..., Any]) -> Callable[..., Any]:
    def reference(*args: Any, **options: Any) -> Any:
        wide = [x.astype(float) if x.dtype.kind == "f" else x for x in args]
        return np.asarray(f(*wide, **options)).astype(args[0].dtype)

    return reference


def _phi(x: np.ndarray) -> np.ndarray:
    """The normal distribution function."""
    return np.vectorize(lambda v: 0.5 * math.erfc(-v / math.sqrt(2)), otypes=[float])(x)


def _density(x: np.ndarray) -> np.ndarray:
    return np.exp(-x * x / 2) / math.sqrt(2 * math.pi)


def _logistic(x: np.ndarray) -> np.ndarray:
    return np.exp(-np.logaddexp(0, -x))


def _logistic_density(x: np.ndarray) -> np.ndarray:
    return np.exp(-np.logaddexp(0, x) - np.logaddexp(0, -x))


def _or_0_at_minus_infinity(f: Callable[..., Any]) -> Callable[..., Any]:
    return lambda x: np.where(x == -np.inf, -0.0, f(np.where(x == -np.inf, 0, x)))


def _softmax(x: np.ndarray, axis: int = -1) -> np.ndarray:
    return np.exp(x) / np.exp(x).sum(axis=axis, keepdims=True)


def _log_softmax(x: np.ndarray, axis: int = -1) -> np.ndarray:
    return np.log(_softmax(x, axis))


def _logsumexp(x: np.ndarray, axis: Any = None, keepdims: bool = False) -> np.ndarray:
    return np.log(np.exp(x).sum(axis=axis, keepdims=keepdims))


def _cross_entropy(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    return -_log_softmax(logits)[np.arange(len(labels)), labels]


def _cross_entropy_grad(g: np.ndarray, logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    return g[:, None] * (_softmax(logits) - np.eye(logits.shape[1])[labels])


def _cumulative(f: Callable[..., Any], initial: int) -> Callable[..., Any]:
    def reference(x: np.ndarray, axis: int = 0, include_initial: bool = False) -> np.ndarray:
        out = f(x, axis=axis)
        if not include_initial:
            return out
        return np.concatenate([np.full_like(out.take([0], axis), initial), out], axis=axis)

    return reference


MASK = np.array([[True, False, True], [False, False, True]])
LABELS = np.array([0, 2, 1])
INDICES = np.array([0, 0, -1, 1])
GRID = np.array([[0, 1, 1], [1, 1, 0], [0, 0, 0]])

REAL = "fd"
FLOATING = "fdFD"
NUMERIC = "qfdFD"
ANY = "?qfdFD"

ROWS = [
    # ---- arithmetic
    entrywise("add", signed, signed, dtypes=ANY),
    entrywise("subtract", signed, signed, dtypes=NUMERIC),
    entrywise("multiply", signed, signed, dtypes=ANY),
    entrywise("divide", signed, signed, dtypes=NUMERIC),
    entrywise("negative", signed, dtypes=NUMERIC),
    entrywise("positive", signed, dtypes=NUMERIC),
    entrywise("reciprocal", signed, dtypes=FLOATING),
    entrywise("square", signed, dtypes=NUMERIC),
    entrywise("sqrt", positive, dtypes=NUMERIC),
    entrywise("pow", positive, signed, dtypes=FLOATING),
    entrywise("floor_divide", signed, signed, dtypes="qfd"),
    entrywise("remainder", signed, signed, dtypes="qfd"),
    entrywise("hypot", signed, signed),
    # ---- exponentials and logarithms
    entrywise("exp", signed, dtypes=NUMERIC),
    entrywise("expm1", signed, dtypes=NUMERIC),
    entrywise("log", positive, dtypes=NUMERIC),
    entrywise("log1p", positive, dtypes=NUMERIC),
    entrywise("log2", positive, dtypes=NUMERIC),
    entrywise("log10", positive, dtypes=NUMERIC),
    entrywise("logaddexp", signed, signed),
    # ---- trigonometric and hyperbolic
    entrywise("sin", signed, dtypes=NUMERIC),
    entrywise("cos", signed, dtypes=NUMERIC),
    entrywise("tan", inside, dtypes=NUMERIC),
    entrywise("asin", inside, dtypes=FLOATING),
    entrywise("acos", inside, dtypes=FLOATING),
    entrywise("atan", signed, dtypes=NUMERIC),
    entrywise("atan2", signed, signed),
    entrywise("sinh", signed, dtypes=NUMERIC),
    entrywise("cosh", signed, dtypes=NUMERIC),
    entrywise("tanh", signed, dtypes=NUMERIC),
    entrywise("asinh", signed, dtypes=NUMERIC),
    entrywise("acosh", above_1, dtypes=NUMERIC),
    entrywise("atanh", inside, dtypes=FLOATING),
    # ---- rounding, sign and order
    entrywise("floor", signed),
    entrywise("ceil", signed),
    entrywise("trunc", signed),
    entrywise("round", signed),
    entrywise("abs", signed, dtypes=NUMERIC),
    entrywise("sign", signed, dtypes=NUMERIC),
    entrywise("copysign", signed, signed),
    entrywise("nextafter", signed, signed),
    entrywise("maximum", signed, signed, dtypes="?qfd"),
    entrywise("minimum", signed, signed, dtypes="?qfd"),
    entrywise("clip", signed, signed, signed, dtypes="qfd"),
    case("clip", signed(2, 3), min=-0.5, max=None),
    case("clip", signed(2, 3), min=None, max=0.5),
    case("clip", signed(2, 3), min=-0.5, max=1),
    entrywise("where", MASK, signed, signed, dtypes=ANY),
    # ---- complex numbers
    entrywise("conj", signed, dtypes=NUMERIC),
    entrywise("real", signed, dtypes=FLOATING),
    entrywise("imag", signed, dtypes="FD"),
    # ---- comparison, logic, bits: no derivative
    *(
        entrywise(name, signed, signed, dtypes="?qfd", order=0)
        for name in [
            *["equal", "not_equal", "less", "less_equal", "greater", "greater_equal"],
            *["logical_and", "logical_or", "logical_xor"],
        ]
    ),
    entrywise("logical_not", signed, dtypes="?qfd", order=0),
    entrywise("isfinite", signed, dtypes=NUMERIC, order=0),
    entrywise("isinf", signed, dtypes=FLOATING, order=0),
    entrywise("isnan", signed, dtypes=FLOATING, order=0),
    entrywise("signbit", signed, order=0),
    entrywise("bitwise_and", positive, positive, dtypes="?q", order=0),
    entrywise("bitwise_or", positive, positive, dtypes="?q", order=0),
    entrywise("bitwise_xor", positive, positive, dtypes="?q", order=0),
    entrywise("bitwise_invert", positive, dtypes="?q", order=0),
    entrywise("bitwise_left_shift", positive, positive, dtypes="q", order=0),
    entrywise("bitwise_right_shift", positive, positive, dtypes="q", order=0),
    # ---- activations
    *(
        entrywise(name, signed, reference=_in_float64(reference))
        for name, reference in [
            ("sigmoid", _logistic),
            ("softplus", lambda x: np.logaddexp(0, x)),
            ("log_sigmoid", lambda x: -np.logaddexp(0, -x)),
            ("silu", _or_0_at_minus_infinity(lambda x: x * _logistic(x))),
            ("gelu", _or_0_at_minus_infinity(lambda x: x * _phi(x))),
            ("relu", lambda x: np.maximum(x, 0)),
        ]
    ),
    *(
        case(
            name,
            signed(2, 3),
            signed(3),
            function=getattr(elementwise if name == "tanh_grad" else activations, name),
            reference=_in_float64(reference),
        )
        for name, reference in [
            ("tanh_grad", lambda g, x: 4 * g * _logistic_density(2 * x)),
            ("sigmoid_grad", lambda g, x: g * _logistic_density(x)),
            ("silu_grad", lambda g, x: g * (_logistic(x) + x * _logistic_density(x))),
            ("gelu_grad", lambda g, x: g * (_phi(x) + x * _density(x))),
            ("relu_grad", lambda g, x: g * (x > 0)),
        ]
    ),
    case("softmax", signed(2, 3), reference=_softmax),
    case("softmax", signed(2, 3), axis=0, reference=_softmax),
    case("log_softmax", signed(2, 3), reference=_log_softmax),
    case("log_softmax", signed(2, 3), axis=0, reference=_log_softmax),
    case("cross_entropy", signed(3, 4), LABELS, reference=_in_float64(_cross_entropy)),
    case(
        "cross_entropy_grad",
        signed(3),
        signed(3, 4),
        LABELS,
        function=activations.cross_entropy_grad,
        reference=_in_float64(_cross_entropy_grad),
    ),
    case(
        "nn.cross_entropy",
        signed(3, 4),
        LABELS,
        function=gg.nn.cross_entropy,
        reference=_in_float64(lambda logits, labels: _cross_entropy(logits, labels).mean()),
    ),
    case(
        "nn.mean_squared_error",
        signed(2, 3),
        signed(2, 3),
        function=gg.nn.mean_squared_error,
        reference=lambda a, b: np.mean((a - b) ** 2),
    ),
    *(
        case(
            "linear",
            signed(*shape),
            signed(3, 2),
            signed(2),
            function=linalg.linear,
            reference=lambda x, weight, bias: x @ weight + bias,
        )
        for shape in [(4, 3), (5, 4, 3), (3,)]
    ),
    # ---- reductions
    *(
        case(name, signed(2, 3, 2), dtypes=dtypes, **options)
        for name, dtypes in [
            ("sum", ANY),
            ("mean", NUMERIC),
            ("var", FLOATING),
            ("std", FLOATING),
            ("prod", ANY),
            ("max", "qfd"),
            ("min", "qfd"),
            ("logsumexp", REAL),
        ]
        for options in [
            {"axis": None},
            {"axis": 0},
            {"axis": -1, "keepdims": True},
            {"axis": (0, 2)},
            {"axis": (-1, 1), "keepdims": True},
            {"axis": None, "keepdims": True},
        ]
        for options in [options | ({"reference": _logsumexp} if name == "logsumexp" else {})]
    ),
    case("sum", signed(2, 3), dtype=np.dtype("float64")),
    case("prod", signed(2, 3), dtype=np.dtype("float64")),
    case("var", signed(2, 3), axis=1, correction=1),
    case("std", signed(2, 3), axis=1, correction=0.5),
    *(case(name, signed()) for name in ("sum", "mean", "prod", "max")),
    case("logsumexp", signed(), reference=_logsumexp),
    *(case(name, signed(0, 3), axis=0) for name in ("sum", "prod")),
    *(case(name, signed(0, 3), axis=1) for name in ("sum", "mean", "std", "prod", "max")),
    case("logsumexp", signed(0, 3), axis=1, reference=_logsumexp),
    *(
        case(name, signed(2, 3), dtypes=ANY, order=0, **options)
        for name in ("all", "any", "count_nonzero")
        for options in [{}, {"axis": 0}, {"axis": (0, 1), "keepdims": True}]
    ),
    *(
        case(name, signed(2, 3), dtypes="qfd", order=0, **options)
        for name in ("argmax", "argmin")
        for options in [{}, {"axis": 0}, {"axis": 1, "keepdims": True}]
    ),
    *(
        case(name, signed(*shape), dtypes=NUMERIC, reference=reference, **options)
        for name, reference in [
            ("cumulative_sum", _cumulative(np.cumsum, 0)),
            ("cumulative_prod", _cumulative(np.cumprod, 1)),
        ]
        for shape, options in [
            ((5,), {}),
            ((2, 3), {"axis": 0}),
            ((2, 3), {"axis": -1, "include_initial": True}),
            ((2, 0), {"axis": 1}),
        ]
    ),
    # ---- products of arrays
    *(
        case("matmul", signed(*a), signed(*b), dtypes=NUMERIC)
        for a, b in [
            ((3,), (3,)),
            ((2, 3), (3,)),
            ((3,), (3, 2)),
            ((2, 3), (3, 4)),
            ((5, 2, 3), (3, 4)),
            ((2, 3), (5, 3, 4)),
            ((1, 2, 3), (5, 3, 4)),
            ((3,), (5, 3, 4)),
            ((5, 2, 3), (3,)),
            ((2, 0), (0, 3)),
        ]
    ),
    case("tensordot", signed(2, 3, 4), signed(3, 4, 2), dtypes=NUMERIC),
    case("tensordot", signed(2, 3), signed(3, 2), axes=1),
    case("tensordot", signed(2), signed(3), axes=0),
    case("tensordot", signed(2, 3, 4), signed(3, 5, 2), axes=((1, 0), (0, -1))),
    case("vecdot", signed(2, 3), signed(3), dtypes=NUMERIC),
    case("vecdot", signed(3, 1, 2), signed(3, 4, 1), axis=0),
    *(
        written(
            "einsum",
            subscripts,
            lambda library, *xs, subscripts=subscripts: library.einsum(subscripts, *xs),
            *(signed(*shape) for shape in shapes),
            dtypes=FLOATING,
        )
        for subscripts, *shapes in [
            ("ij,jk->ik", (2, 3), (3, 4)),
            ("ij, kj", (2, 3), (4, 3)),
            ("ii->i", (3, 3)),
            ("ii", (3, 3)),
            ("ij->j", (2, 3)),
            ("ij->", (2, 3)),
            ("ij->ji", (2, 3)),
            ("...ij,jk", (5, 2, 3), (3, 2)),
            ("...i,...i->...", (2, 1, 3), (4, 3)),
            ("i,j,k->jk", (2,), (3,), (4,)),
            ("ij,ij->", (2, 3), (1, 3)),
            ("iij->ij", (2, 2, 3)),
            ("ii,i->i", (3, 3), (3,)),
        ]
    ),
    # ---- manipulation
    written("reshape", "-1", lambda m, x: m.reshape(x, (3, -1)), signed(2, 6), dtypes=ANY),
    written("reshape", "integer", lambda m, x: m.reshape(x, 6), signed(2, 3)),
    written("reshape", "0-d", lambda m, x: m.reshape(x, ()), signed(1, 1)),
    case("permute_dims", signed(2, 3, 4), axes=(2, 0, 1)),
    case("permute_dims", signed(2, 3, 4), axes=(-1, 0, 1)),
    case("matrix_transpose", signed(2, 3, 4)),
    written("moveaxis", "one", lambda m, x: m.moveaxis(x, 0, -1), signed(2, 3, 4)),
    written("moveaxis", "two", lambda m, x: m.moveaxis(x, (0, 1), (2, 0)), signed(2, 3, 4)),
    case("expand_dims", signed(2, 3), axis=-1),
    case("expand_dims", signed(2, 3), axis=(0, 2)),
    case("squeeze", signed(1, 3, 1), axis=0),
    case("squeeze", signed(1, 3, 1), axis=(0, -1)),
    case("broadcast_to", signed(3, 1), shape=(2, 3, 4)),
    case("broadcast_to", signed(), shape=(2, 2)),
    case("broadcast_to", signed(1, 3), shape=(0, 3)),
    case("broadcast_arrays", signed(3, 1), signed(2)),
    case("tril", signed(2, 3, 3), k=-1, dtypes="qfdFD"),
    case("triu", signed(3, 2), k=0, dtypes="qfdFD"),
    case("meshgrid", signed(2), signed(3), signed(4)),
    case("meshgrid", signed(2), signed(3), indexing="ij"),
    case("meshgrid", signed(2)),
    case("flip", signed(2, 3)),
    case("flip", signed(2, 3), axis=1),
    case("flip", signed(2, 3, 2), axis=(0, -1)),
    case("roll", signed(2, 3), shift=2),
    case("roll", signed(2, 3), shift=-1, axis=1),
    case("roll", signed(2, 3), shift=(1, 2), axis=(0, 1)),
    case("repeat", signed(2, 3), repeats=2),
    case("repeat", signed(2, 3), repeats=3, axis=-1),
    case("repeat", signed(3, 2), repeats=[1, 0, 2], axis=0),
    written("tile", "more axes", lambda m, x: m.tile(x, (2, 1, 3)), signed(2, 3)),
    written("tile", "fewer axes", lambda m, x: m.tile(x, (2,)), signed(2, 3)),
    *(
        written(
            "concat",
            f"axis={axis}",
            lambda m, *xs, axis=axis: m.concat(xs, axis=axis),
            *(signed(*shape) for shape in shapes),
            dtypes=ANY,
        )
        for axis, *shapes in [
            (0, (2, 3), (1, 3)),
            (-1, (2, 3), (2, 0), (2, 1)),
            (None, (2, 3), (2,)),
        ]
    ),
    written("stack", "axis=0", lambda m, *xs: m.stack(xs), signed(2, 3), signed(2, 3)),
    written("stack", "axis=-1", lambda m, *xs: m.stack(xs, axis=-1), signed(2), signed(2)),
    case("unstack", signed(2, 3), axis=1, reference=lambda x, axis: tuple(np.moveaxis(x, axis, 0))),
    *(
        written("astype", to, lambda m, x, to=to: x.astype(to), signed(2, 3), dtypes=dtypes)
        for to, dtypes in [("float32", "f"), ("float64", "fd"), ("complex128", FLOATING)]
    ),
    # ---- indexing
    written("getitem", "integer", lambda m, x: x[:, 1], signed(2, 3)),
    written("getitem", "slices", lambda m, x: x[1:, ::-2], signed(3, 4), dtypes=ANY),
    written("getitem", "...", lambda m, x: x[..., None, 0], signed(2, 3)),
    written("getitem", "None", lambda m, x: x[None, 1:3], signed(3, 4)),
    written("getitem", "empty slice", lambda m, x: x[2:2], signed(3, 2)),
    written("getitem", "()", lambda m, x: x[()], signed()),
    written("getitem", "list", lambda m, x: x[[2, 0, 0]], signed(3, 2)),
    written("getitem", "array", lambda m, x, i: x[i], signed(3, 2), INDICES, dtypes=ANY),
    written("getitem", "slice, array", lambda m, x, i: x[:, i], signed(2, 3), INDICES),
    written("getitem", "array, slice", lambda m, x, i: x[i, 1:], signed(2, 3), GRID),
    written("getitem", "array, None, integer", lambda m, x, i: x[i, None, 1], signed(2, 3), GRID),
    written("getitem", "arrays", lambda m, x, i, j: x[i, j], signed(2, 3), GRID, INDICES[:3]),
    written("getitem", "apart", lambda m, x, i, j: x[i, :, j], signed(2, 3, 2), GRID, INDICES[:3]),
    written("getitem", "mask", lambda m, x, i: x[i], signed(2, 3), MASK, dtypes=ANY),
    written("getitem", "slice, mask", lambda m, x, i: x[:, i], signed(2, 3), MASK[0]),
    written("getitem", "empty mask", lambda m, x, i: x[i], signed(2, 3), MASK & False),
    case("take", signed(3, 2), INDICES, dtypes=ANY),
    case("take", signed(3, 2), INDICES, axis=0),
    case("take", signed(2, 3), GRID, axis=-1),
    case("take_along_axis", signed(3, 3), GRID, axis=0),
    case("take_along_axis", signed(3, 3), GRID, axis=-1),
    case("take_along_axis", signed(3, 2), np.array([[1, 0, 1]]), axis=1),
    case("take_along_axis", signed(1, 2), np.array([[0, 1], [1, 1], [0, 0]]), axis=1),
]
