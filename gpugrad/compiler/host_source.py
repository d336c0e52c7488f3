"""Fused loops as C++ for the CPU: the statements of the GPU, in loops that a compiler vectorises.

Shapes and strides are numbers in the text. Axes are ordered and joined, so that the innermost loop
is long and goes through memory in steps of one element where it can. A long loop is cut along one
axis into parts, which threads share. The cuts depend on the shape alone, and sums of parts are
added up in order: results do not depend on the number of threads.

Sums of two-byte and four-byte numbers are made in double, those of double with what each addition
lost beside them, those of integers in their own type.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from ..cuda.source import source_of
from ..symbols import working_type
from .loops import Loop, Operand

_PART = 8192  # elements of one part, so that what it touches stays in a core's own cache
# Elements from which on threads pay. Alone on the machine they would from a quarter of it on, but
# they share the cores with the threads of NumPy's products and with other processes.
_LARGE = 1 << 18
_CELLS = 4096  # running sums of one part, at most where that can be had
_BLOCK = 256  # numbers of a row added up in plain double
_TILE = 16  # elements of a row at a time, where an operand lies the other way round

# What the text of kernels/*.cuh needs on the host. glibc has vector forms of C's functions, which
# its headers declare for -ffast-math only: to be exact in infinities and NaN is no hindrance.
_HEAD = r"""
#include <cmath>
#include <cstdint>
#include <cstring>
// a loop with a call in it is not vectorised
#ifdef __GNUC__
#define __device__ __attribute__((always_inline))
#else
#define __device__
#endif

#if defined(__x86_64__) && defined(__GLIBC__) && defined(__GNUC__) && !defined(__clang__)
#if __GLIBC_PREREQ(2, 35)
#define VECTOR __attribute__((simd("notinbranch")))
#define UNARY(F) VECTOR float F##f(float) noexcept; VECTOR double F(double) noexcept;
#define BINARY(F) \
  VECTOR float F##f(float, float) noexcept; VECTOR double F(double, double) noexcept;
extern "C" {
UNARY(acos) UNARY(acosh) UNARY(asin) UNARY(asinh) UNARY(atan) UNARY(atanh) UNARY(cbrt) UNARY(cos)
UNARY(cosh) UNARY(erf) UNARY(erfc) UNARY(exp) UNARY(exp2) UNARY(expm1) UNARY(log) UNARY(log10)
UNARY(log1p) UNARY(log2) UNARY(sin) UNARY(sinh) UNARY(tan) UNARY(tanh)
BINARY(atan2) BINARY(hypot) BINARY(pow)
}
#endif
#endif

namespace gpugrad {
using namespace std;

// C's, in a form that is no call
inline float fmax(float a, float b) { return a >= b || b != b ? a : b; }
inline double fmax(double a, double b) { return a >= b || b != b ? a : b; }
inline float fmin(float a, float b) { return a <= b || b != b ? a : b; }
inline double fmin(double a, double b) { return a <= b || b != b ? a : b; }

inline uint32_t bits_of(float x) {
  uint32_t bits;
  memcpy(&bits, &x, 4);
  return bits;
}
inline float float_of(uint32_t bits) {
  float x;
  memcpy(&x, &bits, 4);
  return x;
}

// exp in float, which most activations are made of, to one unit: x = n log 2 + r, and a polynomial
// in r with the least error. Faster than a call, and in vectors wherever there are such.
#if defined(__FMA__) || defined(__aarch64__)
inline float exp(float x_) {
  const float x = x_ < -104.0f ? -104.0f : x_ > 89.0f ? 89.0f : x_;
  const float shifted = fma(x, 1.44269504f, 12582912.0f), n = shifted - 12582912.0f;
  const float r = fma(n, 1.90465421e-9f, fma(n, -0.693147182f, x));
  float q = fma(r, 0.00138146966f, 0.00836871658f);
  q = fma(r, q, 0.0416683853f);
  q = fma(r, q, 0.166665211f);
  q = fma(r, q, 0.49999994f);
  const float p = fma(r * r, q, r) + 1.0f;
  // times 2^n, as two factors: one alone may be too large or too small
  const int32_t k = (int32_t)(bits_of(shifted) - 0x4b400000), first = k >> 1, second = k - first;
  return p * float_of((uint32_t)(first + 127) << 23) * float_of((uint32_t)(second + 127) << 23);
}
inline double exp(double x) { return std::exp(x); }
#endif

// zeros; without the standard's header, which takes the compiler longer than most loops
template <class T> struct zeros {
  T *const first;
  explicit zeros(long n) : first(new T[n]()) {}
  zeros(const zeros &) = delete;
  ~zeros() { delete[] first; }
  operator T *() const { return first; }
};

// adds x to a sum in two numbers, the second for what the first has lost
inline void add_to(double &high, double &low, double x) {
  const double sum = high + x, part = sum - high;
  low += (high - (sum - part)) + (x - part);
  high = sum;
}
// infinities and NaN are in the first; the second is NaN then
inline double total(double high, double low) { return fabs(low) < INFINITY ? high + low : high; }
"""

_HALVES = r"""
// Two-byte numbers, rounded to nearest even; without branches, which would not be vectorised.
inline uint16_t to_float16(float x) {
  const uint32_t whole = bits_of(x), a = whole & 0x7fffffff;
  const uint32_t normal = ((a + 0xfff + (a >> 13 & 1)) >> 13) - (112 << 10);
  const uint32_t small = bits_of(float_of(a) + 0.5f) - 0x3f000000;  // the sum rounds to 2^-24
  const uint32_t large = a > 0x7f800000 ? 0x7e00 : 0x7c00;
  const uint32_t rounded = a < 0x38800000 ? small : normal;
  return (uint16_t)((whole >> 16 & 0x8000) | (a >= 0x477ff000 ? large : rounded));
}
inline float from_float16(uint16_t bits) {
  const uint32_t a = (uint32_t)(bits & 0x7fff) << 13, sign = (uint32_t)(bits & 0x8000) << 16;
  const uint32_t scaled = bits_of(float_of(a) * 0x1p112f);  // of subnormal numbers, too
  return float_of(sign | scaled | (a >= 0x0f800000 ? 0x7f800000 : 0));
}
inline uint16_t to_bfloat16(float x) {
  const uint32_t whole = bits_of(x);
  return (uint16_t)(x != x ? 0x7fc0 : (whole + 0x7fff + (whole >> 16 & 1)) >> 16);
}
inline float from_bfloat16(uint16_t bits) { return float_of((uint32_t)bits << 16); }
"""

# One call for several loops: a call from Python costs more than a small loop.
_TAIL = r"""
struct call { void (*function)(char *const *, int); char *const *arrays; const int *threads; };

extern "C" void gpugrad_run(const call *calls) {
  for (; calls->function; ++calls) calls->function(calls->arrays, *calls->threads);
}
"""


def source(loops: Sequence[Loop]) -> str:
    """The text of a library of these loops.

    Raises:
        ValueError: if strides are no multiples of the size of an element.
    """
    operands = [x for loop in loops for x in (*loop.inputs.values(), *loop.outputs.values())]
    files = sorted({file for loop in loops for file in loop.text.files} - {"common"})
    lines = [_HEAD]
    if any(x.dtype.kind == "c" for x in operands) or any(
        "complex<" in line
        for loop in loops
        for line in (*loop.text.locals, *loop.text.values.values())
    ):
        lines.insert(0, "#include <complex>")
    if any(_half(x.dtype) for x in operands):
        lines.append(_HALVES)
    lines.append("}  // namespace gpugrad\n")
    lines.append(source_of("common", *files))
    lines.append("namespace gpugrad {\n")
    for i, loop in enumerate(loops):
        lines += [*_Writer(loop, f"{loop.name}_{i}").function(), ""]
    lines.append(_TAIL)
    names = ", ".join(f"gpugrad::{loop.name}_{i}" for i, loop in enumerate(loops))
    lines.append(
        "}  // namespace gpugrad\n\n"
        f'extern "C" {{ void (*gpugrad_loops[])(char *const *, int) = {{{names}}}; }}\n'
    )
    return "\n".join(lines)


def _half(dtype: np.dtype) -> str:
    """The name of a two-byte floating-point type; empty for others."""
    return {"f": "float16", "V": "bfloat16"}.get(dtype.kind, "") if dtype.itemsize == 2 else ""


def _memory_type(dtype: np.dtype) -> str:
    """The type of the numbers in memory, of which a complex one is two."""
    if _half(dtype):
        return "uint16_t"
    return working_type(dtype.type(0).real.dtype if dtype.kind == "c" else dtype)


def _numbers(dtype: np.dtype) -> int:
    return 2 if dtype.kind == "c" else 1


def _loaded(dtype: np.dtype, array: str, index: str) -> str:
    """An element. A struct as a whole would not be loaded in vectors."""
    if dtype.kind == "c":
        return f"{working_type(dtype)}({array}[{index}], {array}[{index} + 1])"
    return f"from_{half}({array}[{index}])" if (half := _half(dtype)) else f"{array}[{index}]"


def _stored(dtype: np.dtype, array: str, index: str, value: str) -> list[str]:
    """The statements that write an element."""
    if dtype.kind == "c":
        return [
            f"const {working_type(dtype)} {array}_value = {value};",
            f"{array}[{index}] = real({array}_value);",
            f"{array}[{index} + 1] = imag({array}_value);",
        ]
    half = _half(dtype)
    return [f"{array}[{index}] = {f'to_{half}({value})' if half else value};"]


class _Space(NamedTuple):
    """The axes of a loop, outermost first, joined; at least one.

    Attributes:
        sizes: of the axes.
        strides: operand -> in elements, one per axis.
    """

    sizes: list[int]
    strides: dict[str, list[int]]


def _space(loop: Loop) -> _Space:
    operands = loop.inputs | loop.outputs
    strides: dict[str, list[int]] = {name: [] for name in operands}
    axes = [axis for axis, n in enumerate(loop.shape) if n != 1]
    for name, x in operands.items():
        if any(x.strides[axis] % x.dtype.itemsize for axis in axes):
            raise ValueError(
                f"{loop.name}: {name} has strides {x.strides}, which are no multiples of "
                f"{x.dtype.itemsize}, the size of its elements: copy it first"
            )
    steps = {k: [s // x.dtype.itemsize for s in x.strides] for k, x in operands.items()}
    # innermost is the axis along which most operands are contiguous, or not needed again; of the
    # others those are further out along which the steps are large
    axes.sort(key=lambda axis: -sum(abs(s[axis]) for s in steps.values()))
    if axes:
        inner = min(
            reversed(axes), key=lambda axis: sum(min(abs(s[axis]), 8) for s in steps.values())
        )
        axes.remove(inner)
        axes.append(inner)
    sizes: list[int] = []
    for axis in axes:
        n = loop.shape[axis]
        if sizes and all(strides[k][-1] == n * steps[k][axis] for k in operands):
            sizes[-1] *= n
            for k in operands:
                strides[k][-1] = steps[k][axis]
        else:
            sizes.append(n)
            for k in operands:
                strides[k].append(steps[k][axis])
    if not sizes:
        return _Space([1], {k: [0 if k in loop.sums else 1] for k in operands})
    return _Space(sizes, strides)


class _Sum(NamedTuple):
    """A sum of real numbers: an output, or the real or imaginary part of one.

    Attributes:
        name: of the running sums.
        term: what is added.
        type: of the running sums.
        exact: what an addition lost is kept, in numbers of their own.
        cells: the number of running sums of one part.
        steps: from one to the next, per axis; 0 along summed axes.
        local: they are one part's alone, which also writes the results; else parts are added up.
    """

    name: str
    term: str
    type: str
    exact: bool
    cells: int
    steps: list[int]
    local: bool

    @property
    def arrays(self) -> list[str]:
        """The names of the arrays of running sums."""
        return [f"{self.name}_high", f"{self.name}_low"] if self.exact else [f"{self.name}_sums"]

    def value(self, cell: str) -> str:
        """The sum of a cell."""
        if self.exact:
            return f"total({self.name}_high[{cell}], {self.name}_low[{cell}])"
        return f"{self.arrays[0]}[{cell}]"

    def add(self, cell: str, x: str) -> str:
        """The statement that adds x to a cell."""
        if self.exact:
            return f"add_to({self.name}_high[{cell}], {self.name}_low[{cell}], {x});"
        return f"{self.arrays[0]}[{cell}] += {x};"


def _affine(terms: Sequence[tuple[str, int]]) -> str:
    """The text of a sum of indices times steps."""
    text = " + ".join(f"{i} * {s}" if s != 1 else i for i, s in terms if s)
    return text or "0"


class _Writer:
    """Writes the function of one loop."""

    def __init__(self, loop: Loop, name: str) -> None:
        self.loop = loop
        self.name = name
        self.empty = 0 in loop.shape
        if self.empty:  # sums are of a space with no more than the axes that they keep
            return
        self.sizes, self.strides = _space(loop)
        self.inner = len(self.sizes) - 1
        self.stored = [k for k in loop.outputs if k not in loop.sums]
        self.split, self.length = self._split()
        self.parts = -(-self.sizes[self.split] // self.length)
        self.sums = {k: self._sums(k) for k in loop.sums}
        self.tiled = self._tiled()

    def _kept(self, name: str, axis: int) -> bool:
        """Whether a sum is kept along an axis."""
        return self.strides[name][axis] != 0

    def _split(self) -> tuple[int, int]:
        """The axis along which the space is cut into parts, and how long they are."""
        axes = range(len(self.sizes))
        kept = [a for a in axes if all(self._kept(k, a) for k in self.loop.sums)]
        long = [a for a in kept if self.sizes[a] >= 64]
        split = long[0] if long else max(kept or axes, key=lambda a: self.sizes[a])
        if not long and self.loop.sums:
            split = max(axes, key=lambda a: self.sizes[a])
        n = self.sizes[split]
        if math.prod(self.sizes) < _LARGE:
            return split, n
        length = max(1, _PART * n // math.prod(self.sizes))
        for k in self.loop.sums:
            if self._kept(k, split):
                cells = math.prod(m for a, m in enumerate(self.sizes) if self._kept(k, a)) // n
                length = max(1, min(length, _CELLS // cells))
            else:  # every part has running sums for all
                length = max(length, -(-n // 64))
        if split == self.inner:
            length = max(512, length // 64 * 64)
        return split, min(length, n)

    def _tiled(self) -> int | None:
        """The axis along which the next rows use the cache lines of a row's elements; or None.

        Of a long row they would be gone until then.
        """
        if self.sizes[self.inner] <= 2 * _TILE:
            return None
        for axis in range(self.inner):
            for steps in self.strides.values():
                if 0 < abs(steps[axis]) < 8 <= abs(steps[self.inner]):
                    return axis
        return None

    def _sums(self, name: str) -> list[_Sum]:
        x, value = self.loop.outputs[name], self.loop.text.values[name]
        sizes = [self.length if a == self.split else n for a, n in enumerate(self.sizes)]
        steps, cells = [0] * len(sizes), 1
        for a in reversed(range(len(sizes))):
            if self._kept(name, a):
                steps[a], cells = cells, cells * sizes[a]
        local = self._kept(name, self.split) or self.parts == 1
        exact = x.dtype.itemsize == (16 if x.dtype.kind == "c" else 8) and x.dtype.kind in "fc"
        type_ = "double" if x.dtype.kind in "fcV" else working_type(x.dtype)
        if x.dtype.kind != "c":
            return [_Sum(f"_{name}", value, type_, exact, cells, steps, local)]
        return [
            _Sum(f"_{name}_{part}", f"{part}(_{name}_term)", type_, exact, cells, steps, local)
            for part in ("real", "imag")
        ]

    # -- text

    def function(self) -> Iterator[str]:
        yield f"// {self._signature()}"
        if self.empty:
            yield from self._zeros()
            return
        yield from self._part()
        yield f"static void {self.name}(char *const *_arrays, int _threads) {{"
        shared = [s for sums in self.sums.values() for s in sums if not s.local]
        for s in shared:
            for array in s.arrays:
                yield f"  const zeros<{s.type}> {array}({s.cells * self.parts});"
        more = "".join(f", {array}" for s in shared for array in s.arrays)
        call = f"{self.name}_part(_arrays, _part{more});"
        each = f"for (long _part = 0; _part < {self.parts}; ++_part)"
        if self.parts == 1:
            yield f"  {self.name}_part(_arrays, 0);"
        else:
            yield "  if (_threads > 1) {"
            yield f"    #pragma omp parallel for schedule(static) num_threads(_threads)"  # noqa: F541
            yield f"    {each} {call}"
            yield f"  }} else {each} {call}"
        yield from self._combined(shared)
        for name, sums in self.sums.items():
            if not sums[0].local:
                yield from self._results(name, whole=True)
        yield "}"

    def _signature(self) -> str:
        def said(names: dict[str, Operand]) -> str:
            return ", ".join(f"{x.dtype.name} {k}" for k, x in names.items())

        sums = "".join(f", {k} summed over {axes}" for k, axes in self.loop.sums.items())
        return f"{said(self.loop.inputs)} -> {said(self.loop.outputs)}: {self.loop.shape}{sums}"

    def _zeros(self) -> Iterator[str]:
        """All that is stored is empty; sums need not be."""
        yield f"static void {self.name}(char *const *_arrays, int) {{"
        for i, (name, x) in enumerate(self.loop.outputs.items(), len(self.loop.inputs)):
            axes = self.loop.sums.get(name, range(len(self.loop.shape)))
            kept = [a for a in range(len(self.loop.shape)) if a not in axes]
            if name not in self.loop.sums or any(self.loop.shape[a] == 0 for a in kept):
                continue
            for a in kept:
                yield f"  for (long _{a} = 0; _{a} < {self.loop.shape[a]}; ++_{a})"
            place = _affine([(f"_{a}", x.strides[a]) for a in kept])
            yield f"    memset(_arrays[{i}] + {place}, 0, {x.dtype.itemsize});"
        yield "}"

    def _bounds(self, axis: int) -> tuple[str, str]:
        if axis == self.split and self.parts > 1:
            return "_from", "_to"
        return "0", str(self.sizes[axis])

    def _each(self, axis: int) -> str:
        first, end = self._bounds(axis)
        return f"for (long _{axis} = {first}; _{axis} < {end}; ++_{axis})"

    def _part(self) -> Iterator[str]:
        shared = [s for sums in self.sums.values() for s in sums if not s.local]
        more = "".join(f", {s.type} *{array}_all" for s in shared for array in s.arrays)
        yield f"static void {self.name}_part(char *const *_arrays, long _part{more}) {{"
        if self.parts > 1:
            n = self.sizes[self.split]
            yield f"  const long _from = _part * {self.length};"
            yield f"  const long _to = _from + {self.length} < {n} ? _from + {self.length} : {n};"
        for sums in self.sums.values():
            for s in sums:
                for array in s.arrays:
                    yield from self._cells(s, array)
        depth = "  "
        for axis in range(self.inner):
            if axis == self.tiled:
                first, end = self._bounds(self.inner)
                yield f"{depth}for (long _tile = {first}; _tile < {end}; _tile += {_TILE})"
            yield f"{depth}{self._each(axis)} {{"
            depth += "  "
        for line in self._row():
            yield depth + line
        for axis in reversed(range(self.inner)):
            yield f"{'  ' * (axis + 1)}}}"
        for name, sums in self.sums.items():
            if sums[0].local:
                yield from self._results(name, whole=False)
        yield "}"

    def _cells(self, s: _Sum, array: str) -> Iterator[str]:
        """The running sums of a part, which are 0."""
        if not s.local:
            yield f"  {s.type} *const {array} = {array}_all + _part * {s.cells};"
        elif s.cells <= _CELLS:
            yield f"  {s.type} {array}[{s.cells}] = {{}};"
        else:
            yield f"  const zeros<{s.type}> {array}_zeros({s.cells});"
            yield f"  {s.type} *const {array} = {array}_zeros;"

    def _index(self, axis: int) -> str:
        """An index of running sums, which begin with the part."""
        return f"(_{axis} - _from)" if axis == self.split and self.parts > 1 else f"_{axis}"

    def _cell(self, s: _Sum, axes: Sequence[int]) -> str:
        return _affine([(self._index(a), s.steps[a]) for a in axes])

    def _place(self, name: str, x: Operand, axes: Sequence[int]) -> str:
        """Where an operand's element is, counted in the numbers in memory."""
        each = _numbers(x.dtype)
        return _affine([(f"_{a}", self.strides[name][a] * each) for a in axes])

    def _row(self) -> Iterator[str]:
        """The innermost loop, and what is before and after it."""
        loop, inner, outer = self.loop, self.inner, range(self.inner)
        operands = loop.inputs | {k: loop.outputs[k] for k in self.stored}
        numbers = {k: i for i, k in enumerate((*loop.inputs, *loop.outputs))}
        load = []
        for k, x in operands.items():
            if k in loop.inputs and k not in loop.text.variables:
                continue
            type_ = ("const " if k in loop.inputs else "") + _memory_type(x.dtype)
            place = self._place(k, x, outer)
            row = f"({type_} *)_arrays[{numbers[k]}]" + (f" + {place}" if place != "0" else "")
            yield f"{type_} *const _{k} = {row};"
            if k in loop.inputs:
                element = _loaded(x.dtype, f"_{k}", self._place(k, x, [inner]))
                statement = f"const {working_type(x.dtype)} {k} = {element};"
                if self.strides[k][inner] == 0:
                    yield statement
                else:
                    load.append(statement)
        sums = [s for sums in self.sums.values() for s in sums]
        along = [s for s in sums if s.steps[inner] == 0]  # one number per row
        first, end = self._bounds(inner)
        blocks = any(s.exact for s in along) and self.sizes[inner] > _BLOCK
        depth = "  " if blocks else ""
        if self.tiled is not None:
            yield f"const long _tile_end = _tile + {_TILE} < {end} ? _tile + {_TILE} : {end};"
            first, end = "_tile", "_tile_end"
        if blocks:
            yield f"for (long _first = {first}; _first < {end}; _first += {_BLOCK}) {{"
            yield f"  const long _end = _first + {_BLOCK} < {end} ? _first + {_BLOCK} : {end};"
            first, end = "_first", "_end"
        for s in along:
            yield f"{depth}{s.type} {s.name} = 0;"
        reduced = ", ".join(s.name for s in along)
        yield f"{depth}#pragma omp simd" + (f" reduction(+:{reduced})" if along else "")
        yield f"{depth}for (long _{inner} = {first}; _{inner} < {end}; ++_{inner}) {{"
        for line in (*load, *loop.text.locals, *self._statements()):
            yield f"{depth}  {line}"
        yield f"{depth}}}"
        for s in along:
            yield depth + s.add(self._cell(s, outer), s.name)
        if blocks:
            yield "}"

    def _statements(self) -> Iterator[str]:
        loop, inner = self.loop, self.inner
        for k in self.stored:
            x = loop.outputs[k]
            yield from _stored(x.dtype, f"_{k}", self._place(k, x, [inner]), loop.text.values[k])
        for k, sums in self.sums.items():
            if len(sums) == 2:
                type_ = working_type(loop.outputs[k].dtype)
                yield f"const {type_} _{k}_term = {loop.text.values[k]};"
            for s in sums:
                if s.steps[inner]:
                    yield s.add(self._cell(s, range(inner + 1)), s.term)
                else:
                    yield f"{s.name} += {s.term};"

    def _combined(self, shared: Sequence[_Sum]) -> Iterator[str]:
        """The running sums of all parts added to those of the first."""
        for s in shared:
            yield f"  for (long _k = {s.cells}; _k < {s.cells * self.parts}; ++_k) {{"
            yield f"    const long _cell = _k % {s.cells};"
            yield "    " + s.add("_cell", f"{s.arrays[0]}[_k]")
            if s.exact:
                yield f"    {s.arrays[1]}[_cell] += {s.arrays[1]}[_k];"
            yield "  }"

    def _results(self, name: str, whole: bool) -> Iterator[str]:
        """The loop that writes a sum's results."""
        x, sums = self.loop.outputs[name], self.sums[name]
        number = list(self.loop.outputs).index(name) + len(self.loop.inputs)
        axes = [a for a in range(len(self.sizes)) if self._kept(name, a)]
        for a in axes:
            first, end = ("0", str(self.sizes[a])) if whole else self._bounds(a)
            yield f"  for (long _{a} = {first}; _{a} < {end}; ++_{a})"
        cell = self._cell(sums[0], axes)
        part = working_type(x.dtype.type(0).real.dtype if len(sums) == 2 else x.dtype)
        value = ", ".join(f"({part})({s.value(cell)})" for s in sums)
        if len(sums) == 2:
            value = f"{working_type(x.dtype)}({value})"
        yield "  {"
        type_ = _memory_type(x.dtype)
        yield f"    {type_} *const _{name} = ({type_} *)_arrays[{number}];"
        for line in _stored(x.dtype, f"_{name}", self._place(name, x, axes), value):
            yield f"    {line}"
        yield "  }"
