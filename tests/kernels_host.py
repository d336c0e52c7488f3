"""The text of kernels/*.cuh compiled by the host's C++ compiler, called on NumPy arrays."""

import ctypes
import itertools
import shutil
import subprocess

import numpy as np

from gpugrad.cuda.source import source_of
from gpugrad.symbols import DEVICE_FUNCTIONS

COMPILER = shutil.which("g++") or shutil.which("c++") or shutil.which("clang++")


def _names(file, arity):
    return [name for name, f in DEVICE_FUNCTIONS.items() if f == (file, arity)]


UNARY, BINARY = _names("activations", 1), _names("activations", 2)
SPECIAL_UNARY, SPECIAL_BINARY = _names("special", 1), _names("special", 2)
CHOICE, DIVISION = _names("choice", 2), _names("division", 2)
TYPES = ("float", "double", "float16", "bfloat16")

# stand-ins for CuPy's two-byte types: converted to and from float, rounded to nearest even
HALVES = r"""
#include <math.h>
#include <stdint.h>
#include <string.h>
#define __device__

// the first thread of a warp whose others have found nothing
struct { unsigned x; } constexpr threadIdx = {0};
inline unsigned long long __shfl_xor_sync(unsigned, unsigned long long, int) { return 0; }
inline void atomicMax(unsigned long long *place, unsigned long long value) {
  if (*place < value) *place = value;
}

struct float16 {
  uint16_t bits;
  explicit float16(float x) {
    const float a = fabsf(x);
    int exponent;
    frexpf(a, &exponent);
    if (isnan(x)) bits = 0x7e00;
    else if (a >= 65520.0f) bits = 0x7c00;
    else if (a < 0x1p-14f) bits = (uint16_t)nearbyintf(a * 0x1p24f);
    else bits = (uint16_t)(((exponent + 13) << 10) + (int)nearbyintf(ldexpf(a, 11 - exponent)));
    if (signbit(x)) bits |= 0x8000;
  }
  operator float() const {
    const int exponent = bits >> 10 & 31, digits = bits & 1023;
    const float a = exponent == 31 ? (digits ? NAN : INFINITY)
                  : exponent == 0 ? ldexpf((float)digits, -24)
                  : ldexpf((float)(digits + 1024), exponent - 25);
    return bits & 0x8000 ? -a : a;
  }
};

struct bfloat16 {
  uint16_t bits;
  explicit bfloat16(float x) {
    uint32_t wide;
    memcpy(&wide, &x, 4);
    bits = isnan(x) ? 0x7fc0 : (uint16_t)((wide + 0x7fff + (wide >> 16 & 1)) >> 16);
  }
  operator float() const {
    const uint32_t wide = (uint32_t)bits << 16;
    float x;
    memcpy(&x, &wide, 4);
    return x;
  }
};
"""

# as a GPU goes about it: partial sums of every `stride`-th entry, then these combined
SOFTMAX = r"""
template <class T> gpugrad::exp_sum<T> sum_of(const T *x, long n, long stride) {
  gpugrad::exp_sum<T> total;
  for (long first = 0; first < stride; ++first) {
    gpugrad::exp_sum<T> part;
    for (long i = first; i < n; i += stride) part = gpugrad::add(part, gpugrad::exp_sum<T>(x[i]));
    total = gpugrad::add(total, part);
  }
  return total;
}
template <class T>
void rows(const T *x, const long long *labels, const T *g, long n, long m, long stride,
          T *log_sum, T *softmax, T *log_softmax, T *loss, T *slope) {
  for (long r = 0; r < n; ++r, x += m) {
    const auto sum = sum_of(x, m, stride);
    const long long label = gpugrad::wrapped(labels[r], m);
    log_sum[r] = static_cast<T>(gpugrad::log_of(sum));
    loss[r] = gpugrad::cross_entropy(x[label], sum.top, sum.total);
    for (long i = 0; i < m; ++i) {
      *softmax++ = gpugrad::softmax(x[i], sum.top, sum.total);
      *log_softmax++ = gpugrad::log_softmax(x[i], sum.top, sum.total);
      *slope++ = gpugrad::cross_entropy_grad(g[r], x[i], sum.top, sum.total, i == label);
    }
  }
}
"""


PATCHES = r"""
template <class T>
void patches(const T *x, T *y, long n, const long long *d, bool back) {
  const gpugrad::window<int> rows{(int)d[2], (int)d[3], (int)d[4], (int)d[5], (int)d[6], (int)d[7]};
  const gpugrad::window<long long> columns{d[8], d[9], d[10], d[11], d[12], d[13]};
  const gpugrad::window<int> narrow{(int)d[8], (int)d[9], (int)d[10],
                                    (int)d[11], (int)d[12], (int)d[13]};
  const gpugrad::window<long long> wide_rows{d[2], d[3], d[4], d[5], d[6], d[7]};
  for (long i = 0; i < n; ++i)  // the odd ones with indices of 64 bits
    if (i % 2)
      y[i] = back ? gpugrad::patch_sum<T>(x, (long long)i, d[0], d[1], wide_rows, columns)
                  : gpugrad::patch_entry<T>(x, (long long)i, d[0], d[1], wide_rows, columns);
    else
      y[i] = back ? gpugrad::patch_sum<T>(x, (int)i, (int)d[0], (int)d[1], rows, narrow)
                  : gpugrad::patch_entry<T>(x, (int)i, (int)d[0], (int)d[1], rows, narrow);
}
"""

# the threads one after another, `step` apart, which has no factor in common with their number
SCATTER = r"""
template <class T>
void add_in_order(const gpugrad::wide<T> *heads_in, const T *values, const long long *index,
                  const long long *order, const long long *d, T *array, gpugrad::wide<T> *heads,
                  long long *head_index) {
  const long long threads = d[0], step = d[1], m = d[2], n = d[3], after = d[4], chunk = d[5];
  for (long long k = 0; k < threads; ++k) {
    const long long i = (k * step % threads + threads) % threads;
    if (heads_in)
      gpugrad::add_in_order<T, gpugrad::wide<T>>(i, heads_in, index, order, m, n, after, chunk,
                                                 array, heads, head_index);
    else
      gpugrad::add_in_order<T, gpugrad::wide<T>>(i, values, index, order, m, n, after, chunk, array,
                                                 heads, head_index);
  }
}
template <class T>
void write_last(const T *values, const long long *index, const long long *last, const long long *d,
                T *array) {
  const long long threads = d[0], step = d[1], m = d[2], n = d[3], after = d[4];
  for (long long k = 0; k < threads; ++k) {
    const long long i = (k * step % threads + threads) % threads;
    gpugrad::write_last(i, values, index, last, m, n, after, array);
  }
}
"""


RANGES = r"""
template <class T> struct Array {
  const T *x;
  long n;
  long size() const { return n; }
  const T &operator[](long i) const { return x[i]; }
};
template <class T> void note_range(const T *x, long n, unsigned long long *row) {
  for (long i = 0; i < 3; ++i) gpugrad::note_range(Array<T>{x, n}, i, 3, row);
}
"""


def _each_type():
    for t in TYPES:
        yield (
            f"void note_range_{t}(const {t} *x, long n, unsigned long long *row) "
            "{ note_range(x, n, row); }"
        )
        yield (
            f"void add_in_order_{t}(const void *heads, const {t} *values, const long long *index, "
            f"const long long *order, const long long *d, {t} *array, void *out, long long *places)"
            f" {{ using S = gpugrad::wide<{t}>; add_in_order((const S *)heads, values, index, "
            "order, d, array, (S *)out, places); }"
        )
        yield (
            f"void write_last_{t}(const {t} *values, const long long *index, const long long *last,"
            f" const long long *d, {t} *array) {{ write_last(values, index, last, d, array); }}"
        )
        yield (
            f"void patches_{t}(const {t} *x, {t} *y, long n, const long long *d, int back) "
            "{ patches(x, y, n, d, back); }"
        )
        yield (
            f"void convolved_{t}(const {t} *a, const {t} *b, {t} *y, long m, long n) "
            "{ for (long k = 0; k < m + n - 1; ++k) "
            f"y[k] = gpugrad::convolved<{t}>(a, b, k, m, n); }}"
        )
        for name in (*UNARY, *SPECIAL_UNARY, "sign"):
            yield (
                f"void {name}_{t}(const {t} *x, {t} *y, long n) "
                f"{{ for (long i = 0; i < n; ++i) y[i] = gpugrad::{name}(x[i]); }}"
            )
        for name in BINARY + CHOICE + DIVISION + SPECIAL_BINARY:
            yield (
                f"void {name}_{t}(const {t} *g, const {t} *x, {t} *y, long n) "
                f"{{ for (long i = 0; i < n; ++i) y[i] = gpugrad::{name}(g[i], x[i]); }}"
            )
        yield (
            f"void rows_{t}(const {t} *x, const long long *labels, const {t} *g, long n, long m, "
            f"long stride, {t} *a, {t} *b, {t} *c, {t} *d, {t} *e) "
            "{ rows(x, labels, g, n, m, stride, a, b, c, d, e); }"
        )
        yield (
            f"void sgd_{t}({t} *p, const {t} *g, long n, double lr) "
            "{ for (long i = 0; i < n; ++i) gpugrad::sgd_step(p[i], g[i], lr); }"
        )
    for t, s in itertools.chain(zip(TYPES, TYPES), [("float16", "float"), ("bfloat16", "float")]):
        yield (
            f"void momentum_{t}_{s}({t} *p, {s} *v, const {t} *g, long n, double lr, double mu) "
            "{ for (long i = 0; i < n; ++i) gpugrad::sgd_step(p[i], v[i], g[i], lr, mu); }"
        )
        yield (
            f"void adam_{t}_{s}({t} *p, {s} *m, {s} *v, const {t} *g, long n, double lr, "
            "double rate1, double rate2, double eps, double power1, double power2) "
            "{ for (long i = 0; i < n; ++i) gpugrad::adam_step("
            "p[i], m[i], v[i], g[i], lr, rate1, rate2, eps, power1, power2); }"
        )


def _pointer(x):
    assert x.flags.c_contiguous
    return ctypes.c_void_p(x.ctypes.data)


def _c_name(dtype):
    return {"float32": "float", "float64": "double"}.get(dtype.name, dtype.name)


class HostKernels:
    """The kernels as functions on contiguous NumPy arrays of one shape."""

    def __init__(self, folder):
        text = "\n".join(
            [
                HALVES,
                source_of(
                    "common",
                    "activations",
                    "choice",
                    "division",
                    "softmax",
                    "optimizers",
                    "patches",
                    "ranges",
                    "scatter",
                    "special",
                ),
                SOFTMAX,
                PATCHES,
                SCATTER,
                RANGES,
                'extern "C" {',
                *_each_type(),
                "}",
            ]
        )
        source, library = folder / "kernels.cpp", folder / "kernels.so"
        source.write_text(text)
        checks = ["-Wall", "-Wextra", "-Werror"]
        options = ["-std=c++17", "-O1", "-ffp-contract=off", "-shared", "-fPIC", *checks]
        subprocess.run([COMPILER, *options, str(source), "-o", str(library)], check=True)
        self._library = ctypes.CDLL(str(library))

    def elementwise(self, name, *arrays):
        out = np.empty_like(arrays[0])
        f = getattr(self._library, f"{name}_{_c_name(out.dtype)}")
        f(*map(_pointer, arrays), _pointer(out), ctypes.c_long(out.size))
        return out

    def rows(self, x, labels, g, stride):
        """logsumexp, softmax, log_softmax, cross_entropy and its gradient of each row of x."""
        row, full = np.empty_like(g), np.empty_like(x)
        outs = [row, full, full.copy(), row.copy(), full.copy()]
        getattr(self._library, f"rows_{_c_name(x.dtype)}")(
            *map(_pointer, (x, labels, g)),
            *map(ctypes.c_long, (*x.shape, stride)),
            *map(_pointer, outs),
        )
        return outs

    def patches(self, x, shape, images, channels, windows, back):
        """The patches of x, or with `back` the images that they add up to: an array of `shape`."""
        out = np.empty(shape, x.dtype)
        numbers = np.array([images, channels, *windows[0], *windows[1]], np.int64)
        f = getattr(self._library, f"patches_{_c_name(x.dtype)}")
        f(_pointer(x), _pointer(out), ctypes.c_long(out.size), _pointer(numbers), int(back))
        return out

    def convolved(self, a, b):
        """The full convolution of two vectors."""
        out = np.empty(a.size + b.size - 1, a.dtype)
        f = getattr(self._library, f"convolved_{_c_name(a.dtype)}")
        f(*map(_pointer, (a, b, out)), ctypes.c_long(a.size), ctypes.c_long(b.size))
        return out

    def add_in_order(self, array, index, values, chunk, step):
        """array[:, index] += values, for arrays of three axes and threads in another order."""
        f = getattr(self._library, f"add_in_order_{_c_name(array.dtype)}")
        (before, n, after), m = array.shape, index.size
        order = np.argsort(index, kind="stable")
        heads = None
        while True:
            chunks = -(-m // chunk)
            work = np.float32 if array.itemsize == 2 else array.dtype
            out, places = np.full((before, chunks, after), np.nan, work), np.empty(chunks, int)
            numbers = np.array([before * m * after, step, m, n, after, chunk])
            f(
                heads if heads is None else _pointer(heads),
                *map(_pointer, (values, index, order, numbers, array, out, places)),
            )
            if chunks == 1:
                return
            heads, index, order, m = out, places, np.arange(chunks), chunks

    def write_last(self, array, index, values, step):
        """array[:, index] = values, likewise."""
        last = np.full(array.shape[1], -1)
        np.maximum.at(last, index, np.arange(index.size))
        numbers = np.array([values.size, step, index.size, *array.shape[1:]])
        f = getattr(self._library, f"write_last_{_c_name(array.dtype)}")
        f(*map(_pointer, (values, index, last, numbers, array)))

    def ranges(self, x):
        """The row that `note_range` makes of the entries of x."""
        row = np.zeros(3, np.uint64)
        f = getattr(self._library, f"note_range_{_c_name(x.dtype)}")
        f(_pointer(x), ctypes.c_long(x.size), _pointer(row))
        return row

    def update(self, name, arrays, settings):
        types = dict.fromkeys(_c_name(a.dtype) for a in arrays[:-1])
        if name == "sgd" or len(types) == 2:
            suffix = "_".join(types)
        else:
            suffix = "_".join([*types, *types])
        getattr(self._library, f"{name}_{suffix}")(
            *map(_pointer, arrays),
            ctypes.c_long(arrays[0].size),
            *map(ctypes.c_double, settings),
        )
