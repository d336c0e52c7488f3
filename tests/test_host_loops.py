"""Fused loops compiled for the CPU, against NumPy."""

import itertools
import math
import os
import stat
import subprocess
import sys
import textwrap
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from test_kernels import units_of

from gpugrad import backends, twins
from gpugrad.compiler import host, host_source
from gpugrad.compiler.loops import Loop, Operand
from gpugrad.symbols import DEVICE_FUNCTIONS, Symbol, variable, write

xp = backends._by_type[Symbol].xp
bfloat16 = np.dtype(ml_dtypes.bfloat16)

REALS = [np.dtype(x) for x in ("float16", bfloat16, "float32", "float64")]
COMPLEX = [np.dtype(x) for x in ("complex64", "complex128")]
WHOLE = [np.dtype(f"{kind}{bits}") for kind in ("int", "uint") for bits in (8, 16, 32, 64)]


@pytest.fixture(autouse=True)
def folder(monkeypatch, tmp_path):
    """A folder of libraries of its own for every test."""
    assert host.compiler(), "the tests need a C++ compiler: g++ or clang++"
    monkeypatch.setenv("GPUGRAD_CACHE_DIR", str(tmp_path / "libraries"))
    return tmp_path / "libraries"


class Case:
    """A loop by hand: its arrays, and what NumPy makes of them.

    Args:
        f: the results by name, of arrays or symbols given by name.
        inputs: arrays by name, which are broadcast.
        sums: result -> axes.
        out: arrays to write results to, by name.
    """

    def __init__(self, f, inputs, sums=(), out=(), name="loop"):
        self.f, self.inputs, self.sums = f, inputs, dict(sums)
        shape = np.broadcast_shapes(*(x.shape for x in inputs.values()))
        symbols = f(xp, **{k: variable(k, x.dtype) for k, x in inputs.items()})
        operands = {
            k: Operand(x.dtype, np.broadcast_to(x, shape).strides) for k, x in inputs.items()
        }
        self.outputs, results = {}, {}
        for k, symbol in symbols.items():
            axes = self.sums.get(k, ())
            kept = [n for a, n in enumerate(shape) if a not in axes or k not in self.sums]
            array = dict(out).get(k)
            if array is None:
                array = np.empty(kept, symbol.dtype)
            steps = iter(array.strides)
            strides = tuple(0 if a in axes else next(steps) for a in range(len(shape)))
            self.outputs[k], results[k] = array, Operand(array.dtype, strides)
        text = write({k: (symbols[k], x.dtype) for k, x in results.items()})
        self.loop = Loop(name, shape, operands, results, self.sums, text)

    @property
    def arrays(self):
        return [*self.inputs.values(), *self.outputs.values()]

    def expected(self):
        with np.errstate(all="ignore"):
            results = self.f(np, **self.inputs)
        shape = self.loop.shape
        for k, x in results.items():
            full = np.broadcast_to(x, shape)
            if k in self.sums:
                wide = full.astype(full.dtype.char.upper() if full.dtype.kind == "c" else "g")
                if full.dtype.kind in "iu":
                    wide = full
                with np.errstate(all="ignore"):
                    full = wide.sum(self.sums[k], dtype=wide.dtype)
            results[k] = np.asarray(full).astype(self.outputs[k].dtype)
        return results


def run(*cases, threads=1):
    """Builds the loops of all cases as one library and calls each."""
    library = host.build([case.loop for case in cases], threads=threads)
    for i, case in enumerate(cases):
        library.bind(i, case.arrays)()
    return library


def assert_equal(case):
    for k, wanted in case.expected().items():
        got = case.outputs[k]
        np.testing.assert_array_equal(got.astype("g") if got.dtype.kind in "fV" else got, wanted)
        if wanted.dtype.kind == "f":
            np.testing.assert_array_equal(np.signbit(got[got == 0]), np.signbit(wanted[got == 0]))


def numbers(shape, dtype, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=shape) * 4
    if dtype.kind == "c":
        x = x + 1j * rng.normal(size=shape)
    return x.astype(dtype) if dtype.kind != "u" else np.abs(x).astype(dtype)


def test_arithmetic_has_numpys_bits():
    cases = []
    for dtype in REALS[2:]:
        a, b = (numbers((5, 37), dtype, seed) for seed in (1, 2))
        cases.append(Case(lambda xp, a, b: {"y": a * b - a / b, "z": a * a + b}, {"a": a, "b": b}))
    for dtype in WHOLE:
        a, b = (numbers((5, 37), dtype, seed) for seed in (1, 2))
        cases.append(Case(lambda xp, a, b: {"y": a * b - a, "z": a < b}, {"a": a, "b": b}))
    run(*cases)
    for case in cases:
        assert_equal(case)


@pytest.mark.parametrize("dtype", [np.dtype(np.float16), bfloat16], ids=str)
def test_two_byte_numbers_are_computed_in_float(dtype):
    every = np.arange(1 << 16, dtype=np.uint16).view(dtype)
    out = np.empty_like(every)
    case = Case(
        lambda xp, x: {"y": x * 1.5 + 0.25, "whole": x.astype(np.float32)},
        {"x": every},
        out={"y": out},
    )
    run(case)
    with np.errstate(all="ignore"):
        wide = every.astype(np.float32)
        expected = (wide * np.float32(1.5) + np.float32(0.25)).astype(dtype).astype(np.float32)
    np.testing.assert_array_equal(out.astype(np.float32), expected)
    np.testing.assert_array_equal(case.outputs["whole"], wide)


@pytest.mark.parametrize("dtype", [np.dtype(np.float16), bfloat16], ids=str)
def test_two_byte_numbers_are_rounded_to_nearest_even(dtype):
    whole = np.arange(0x10000, dtype=np.uint32).astype(np.uint16).view(dtype).astype(np.float32)
    whole = np.unique(whole[np.isfinite(whole)])
    between = (whole[:-1] / 2 + whole[1:] / 2).astype(np.float32)
    x = np.concatenate([between, np.nextafter(between, -np.inf), np.nextafter(between, np.inf)])
    x = np.concatenate([x, specials(np.float32)])
    case = Case(lambda xp, x: {"y": -x}, {"x": x}, out={"y": np.empty(x.shape, dtype)})
    run(case)
    with np.errstate(all="ignore"):
        expected = (-x).astype(dtype)
    np.testing.assert_array_equal(case.outputs["y"].astype("f"), expected.astype("f"))
    zero = expected == 0
    np.testing.assert_array_equal(np.signbit(case.outputs["y"][zero]), np.signbit(expected[zero]))


def test_bools():
    a, b = np.array([False, False, True, True]), np.array([False, True, False, True])
    case = Case(
        lambda xp, a, b: {
            "both": a & b,
            "either": a | b,
            "not_": xp.logical_not(a),
            "chosen": xp.where(a, 1.0, -1.0) * b,
        },
        {"a": a, "b": b},
    )
    run(case)
    assert_equal(case)


SPECIALS = [0.0, 1.0, 0.3, 2.5, 30.0, 90.0, 800.0, 1e30, np.inf, np.nan]
FUNCTIONS = """acos acosh asin asinh atan atanh cbrt ceil cos cosh exp exp2 expm1 fabs floor
isfinite isinf isnan log log10 log1p log2 rint signbit sin sinh sqrt tan tanh trunc""".split()
BINARY_FUNCTIONS = "atan2 copysign fmax fmin fmod hypot nextafter power".split()


def specials(dtype):
    x = np.array([*SPECIALS, 1e38, np.finfo(dtype).tiny, np.finfo(dtype).tiny / 8]).astype(dtype)
    x = np.concatenate([x, -x])
    return np.concatenate([x, np.resize(x, 75)])  # in vectors and in what is left over


@pytest.mark.parametrize("dtype", REALS[2:], ids=str)
def test_functions_at_special_values(dtype):
    x = specials(dtype)
    a, b = (np.ascontiguousarray(z) for z in np.meshgrid(x, x))
    cases = [Case(lambda xp, x, f=f: {"y": getattr(xp, f)(x)}, {"x": x}) for f in FUNCTIONS] + [
        Case(lambda xp, a, b, f=f: {"y": getattr(xp, f)(a, b)}, {"a": a, "b": b})
        for f in BINARY_FUNCTIONS
    ]
    run(*cases)
    for f, case in zip(FUNCTIONS + BINARY_FUNCTIONS, cases, strict=True):
        got, (wanted,) = case.outputs["y"], case.expected().values()
        if got.dtype == bool:
            np.testing.assert_array_equal(got, wanted, f)
            continue
        assert_near(got, wanted, f)
        zero = (wanted == 0) & (f not in ("fmax", "fmin"))  # of 0 and -0 either is right
        np.testing.assert_array_equal(np.signbit(got[zero]), np.signbit(wanted[zero]), f)


def test_exponentials_are_right_to_one_unit():
    x = np.concatenate([np.linspace(a, -a, 400_001) for a in (-110, -1, -1e-4)]).astype("f")
    case = Case(lambda xp, x: {"y": xp.exp(x)}, {"x": x})
    run(case)
    with np.errstate(over="ignore", under="ignore"):
        exact = np.exp(x.astype(float))
        wanted = exact.astype("f")
    got, finite = case.outputs["y"], np.isfinite(wanted)
    np.testing.assert_array_equal(got[~finite], np.inf)
    error = np.abs(got[finite] - exact[finite]) / np.spacing(wanted[finite])
    assert error.max() < 1.1


def assert_near(got, wanted, message="", units=4):
    info = np.finfo(wanted.dtype)
    np.testing.assert_allclose(
        got, wanted, units * info.eps, 8 * info.smallest_subnormal, err_msg=message
    )


def test_complex_functions():
    a = numbers((4, 9), np.dtype(np.complex128))
    case = Case(
        lambda xp, a: {
            "e": xp.exp(a),
            "s": xp.sqrt(a),
            "m": xp.abs(a),
            "c": xp.conj(a) * a,
            "t": xp.tanh(a),
            "q": (a + 1) / a,
        },
        {"a": a},
    )
    run(case)
    for k, wanted in case.expected().items():
        np.testing.assert_allclose(case.outputs[k], wanted, 1e-14)


def test_complex_products_and_quotients_are_numpys_at_infinities():
    values = [0, 1, -2j, complex(np.inf, 1), complex(np.nan, 0)]
    a, b = (np.ascontiguousarray(x) for x in np.meshgrid(values, values))
    case = Case(lambda xp, a, b: {"p": a * b}, {"a": a, "b": b})
    run(case)
    np.testing.assert_array_equal(case.outputs["p"], case.expected()["p"])


def test_large_complex_numbers_are_divided_without_overflow():
    a = np.array([1e200 + 1e200j, 1e-200 - 3e-200j])
    case = Case(lambda xp, a, b: {"q": a / b}, {"a": a, "b": a * (1 + 1j)})
    run(case)
    np.testing.assert_allclose(case.outputs["q"], case.expected()["q"], 1e-14)


@pytest.mark.parametrize("dtype", REALS[2:], ids=str)
def test_every_device_function(dtype):
    x = np.linspace(0.05, 0.95, 37).astype(dtype)
    g = np.linspace(0.5, 3, 37).astype(dtype)
    cases = {}
    for name, function in DEVICE_FUNCTIONS.items():
        args = {"g": g, "x": x} if function.arity == 2 else {"x": x}

        def f(xp, name=name, **args):
            return {"y": getattr(xp.special, name)(*args.values())}

        cases[name] = Case(f, args)
    run(*cases.values())
    special = backends.backend_of_kind("cpu").xp.special
    for name, case in cases.items():
        twin = getattr(np, name, None) or getattr(special, name, None) or getattr(twins, name)
        assert_near_sum(case.outputs["y"], twin(*case.inputs.values()), name, units_of(dtype))


def assert_near_sum(got, wanted, name, units):
    eps = np.finfo(wanted.dtype).eps
    np.testing.assert_allclose(got, wanted, units * eps, units * eps, err_msg=name)


# ---- shapes and strides


def views(dtype):
    base = numbers((6, 5, 8), dtype)
    yield {"a": base, "b": base[:, :1]}
    yield {"a": base, "b": base[0, 0]}
    yield {"a": base.T, "b": base.T.copy()}
    yield {"a": base[::-1, ::2, ::-3], "b": base[:, :3, :3].copy()}
    yield {"a": base.transpose(1, 0, 2), "b": base[:5, :1, :1]}
    yield {"a": base[0, 0, 0, ...], "b": base[1, 1, 1, ...]}
    yield {"a": base[:1, 0], "b": base[:, :1, :1]}
    yield {"a": base[:0], "b": base[:1]}
    yield {"a": base[:, :0], "b": base[:, :1]}
    yield {"a": numbers((3, 37, 41), dtype).T, "b": numbers((41, 37, 3), dtype)}
    yield {"a": numbers((2, 3, 2, 3, 2), dtype), "b": numbers((3, 1, 3, 1), dtype)}
    yield {"a": numbers((2, 3, 4, 3, 2), dtype).transpose(4, 0, 3, 1, 2), "b": base[0, 0, 0, ...]}


@pytest.mark.parametrize("dtype", [REALS[0], *REALS[2:], COMPLEX[0], WHOLE[2]], ids=str)
def test_strides(dtype):
    cases = [Case(lambda xp, a, b: {"y": a + b, "z": a - b}, x) for x in views(dtype)]
    run(*cases)
    for case in cases:
        assert_equal(case)


def test_outputs_may_have_any_strides():
    a = numbers((6, 8), np.dtype(float))
    space = np.zeros((16, 6))
    case = Case(
        lambda xp, a: {"y": a * 2, "z": a * 3},
        {"a": a},
        out={"y": space[::-2].T, "z": np.zeros((8, 6)).T},
    )
    run(case)
    assert_equal(case)
    assert not space[::2].any()


def test_an_output_may_be_the_memory_of_an_input():
    a, b = numbers((300, 7), np.dtype(float)), numbers(7, np.dtype(float))
    wanted = a * b + a, a - b
    case = Case(lambda xp, a, b: {"y": a * b + a, "z": a - b}, {"a": a, "b": b}, out={"y": a})
    run(case)
    np.testing.assert_array_equal(a, wanted[0])
    np.testing.assert_array_equal(case.outputs["z"], wanted[1])


def test_one_input_twice_and_one_not_used():
    x = numbers(20, np.dtype(np.float32))
    case = Case(lambda xp, a, b, c: {"y": a + b}, {"a": x, "b": x, "c": x})
    run(case)
    assert_equal(case)


def test_strides_that_split_elements_are_refused():
    x = np.zeros(8, [("a", "i1"), ("b", "f8")])["b"]
    with pytest.raises(ValueError, match="multiples of 8"):
        host.build([Case(lambda xp, x: {"y": x + x}, {"x": x}).loop])


# ---- sums


def subsets(ndim):
    return [c for n in range(ndim + 1) for c in itertools.combinations(range(ndim), n)]


@pytest.mark.parametrize("dtype", [*REALS, *COMPLEX, WHOLE[3], WHOLE[7]], ids=str)
def test_sums_over_every_set_of_axes(dtype):
    cases = []
    for shape in [(7,), (5, 37), (3, 4, 5), (1, 6, 1)]:
        for order in [slice(None), slice(None, None, -1)]:
            a = numbers(shape, dtype)[order]
            a = a.transpose(range(len(shape))[order])
            sums = {f"s{''.join(map(str, axes))}_": axes for axes in subsets(len(shape))}
            out = {
                k: np.empty([n for i, n in enumerate(a.shape) if i not in axes], dtype)
                for k, axes in sums.items()
            }

            def f(xp, a, sums=sums):
                return {"y": a + a} | dict.fromkeys(sums, a * a)

            cases.append(Case(f, {"a": a}, sums, out | {"y": np.empty(a.shape, dtype)}))
    run(*cases)
    for case in cases:
        exact = case.inputs["a"].astype("G" if dtype.kind == "c" else "g")
        for k, axes in case.sums.items():
            got = case.outputs[k]
            if dtype.kind in "iu":
                wanted = (case.inputs["a"] ** 2).sum(axes, dtype=dtype)
                np.testing.assert_array_equal(got, wanted)
                continue
            eps = {2: 2.0**-7}.get(dtype.itemsize) or np.finfo(dtype).eps
            wanted = (exact * exact).sum(axes)
            size = np.abs(exact * exact).sum(axes).astype(float)
            assert (np.abs(got.astype(wanted.dtype) - wanted) <= 2 * eps * size).all()


def test_sums_of_nothing_are_zero():
    a = np.empty((3, 0, 2))
    sums = {"all_": (0, 1, 2), "some": (1,), "none": (0,), "last": (1, 2)}
    out = {
        k: np.full([n for i, n in enumerate(a.shape) if i not in axes], 7.0)
        for k, axes in sums.items()
    }
    case = Case(lambda xp, a: dict.fromkeys(sums, a * a) | {"y": a}, {"a": a}, sums, out)
    run(case)
    assert_equal(case)


def errors(x, got):
    exact = math.fsum(x)
    return abs(float(got) - exact), np.spacing(x.dtype.type(abs(exact)))


@pytest.mark.parametrize("dtype", REALS[2:], ids=str)
def test_sums_of_many_numbers_are_no_less_exact_than_numpys(dtype):
    rng = np.random.default_rng(0)
    x = rng.uniform(0.1, 1, 300_001).astype(dtype)
    column = x[:300_000].reshape(-1, 2)
    cases = [
        Case(lambda xp, x: {"y": x}, {"x": x}, {"y": (0,)}),
        Case(lambda xp, x: {"y": x}, {"x": column}, {"y": (0,)}),
        Case(lambda xp, x: {"y": x}, {"x": column.T}, {"y": (1,)}),
    ]
    run(*cases)
    for case, one in zip(cases, [(x,), column.T, column.T], strict=True):
        for given, got in zip(one, np.atleast_1d(case.outputs["y"]), strict=True):
            error, unit = errors(given, got)
            assert error <= 2 * unit


def test_sums_keep_infinities_and_nan():
    rows = np.zeros((4, 600))
    rows[1, 300], rows[2, [5, 550]], rows[3, 7] = np.inf, (np.inf, -np.inf), np.nan
    huge = np.full((1, 600), 1e308)
    cases = [
        Case(lambda xp, x: {"y": x}, {"x": x}, {"y": (axis,)})
        for x in (rows, rows.astype(np.float32), huge)
        for x, axis in ((x, 1), (np.ascontiguousarray(x.T), 0))
    ]
    run(*cases)
    for case in cases:
        wanted = [0, np.inf, np.nan, np.nan] if case.outputs["y"].size == 4 else [np.inf]
        np.testing.assert_array_equal(case.outputs["y"], wanted)


def large():
    """Loops that are cut into parts that threads share, of every form."""
    assert host_source._LARGE <= 631 * 443
    for dtype in (np.float32, np.float64, np.complex64):
        a = numbers((631, 443), np.dtype(dtype))
        b = numbers((1, 443), np.dtype(dtype))
        for sums in [
            {"r": (0, 1)},
            {"r": (0,), "s": (0, 1)},
            {"r": (0,), "s": (1,)},
            {"r": (1,)},
            {},
        ]:
            names = ["y", *sums]
            yield Case(
                lambda xp, a, b, names=names: dict.fromkeys(names, a * b + a),
                {"a": a, "b": b},
                sums,
            )
    for sums in [{}, {"r": (1,)}, {"r": (0,)}]:  # operands that lie the other way round
        a, b = numbers((631, 443), np.dtype(float)), numbers((443, 631), np.dtype(float), 1).T

        def f(xp, a, b, names=("y", *sums)):
            return dict.fromkeys(names, a * b)

        yield Case(f, {"a": a, "b": b}, sums)
    x = numbers((300_003,), np.dtype(np.float32))
    yield Case(lambda xp, x: {"y": x, "z": xp.exp(x)}, {"x": x}, {"y": (0,)})
    x = numbers((3, 100_001), np.dtype(np.float32))
    yield Case(lambda xp, x: {"y": x, "z": x * 2}, {"x": x}, {"y": (0,)})
    yield Case(lambda xp, x: {"y": x, "z": x * 2}, {"x": x}, {"y": (1,)})
    x = numbers((100_001, 3), np.dtype(np.float64))
    yield Case(lambda xp, x: {"y": x, "z": x * 2}, {"x": x}, {"y": (0,)})
    yield Case(lambda xp, x: {"y": x, "z": x * 2}, {"x": x}, {"y": (1,)})


def test_results_do_not_depend_on_the_number_of_threads():
    first = list(large())
    run(*first)
    for threads in (2, 3):
        again = list(large())
        run(*again, threads=threads)
        for one, other in zip(first, again, strict=True):
            for k, x in one.outputs.items():
                assert x.tobytes() == other.outputs[k].tobytes()
    for case in first:
        for k, wanted in case.expected().items():
            got = case.outputs[k]
            tolerance = 1e-5 if got.dtype.char in "fF" else 1e-13
            np.testing.assert_allclose(got, wanted, tolerance, 10 * tolerance)


# ---- calls


def test_loops_that_follow_each_other_are_one_call():
    x = numbers(16, np.dtype(float))
    first = Case(lambda xp, x: {"y": x * 2}, {"x": x})
    second = Case(lambda xp, y: {"z": y + 1}, {"y": first.outputs["y"]})
    library = host.build([first.loop, second.loop])
    assert len(library) == 2
    run = library.bind_run([(0, first.arrays), (1, second.arrays), (0, first.arrays)])
    for _ in range(2):
        x += 1
        run()
        np.testing.assert_array_equal(second.outputs["z"], x * 2 + 1)
    library.bind_run([])()


def test_a_bound_call_keeps_its_arrays():
    x, y = np.arange(1e5), np.zeros(100_000)
    case = Case(lambda xp, x: {"y": x * 2}, {"x": x}, out={"y": y})
    call = host.build([case.loop]).bind(0, [x, y])
    counts = sys.getrefcount(x), sys.getrefcount(y)
    del case
    call()
    np.testing.assert_array_equal(y, x * 2)
    del call
    assert (sys.getrefcount(x), sys.getrefcount(y)) < counts


def test_a_bound_call_may_get_other_addresses():
    x, y, z = np.arange(5.0), np.zeros(5), np.zeros(5)
    case = Case(lambda xp, x: {"y": x * 2}, {"x": x}, out={"y": y})
    call = host.build([case.loop]).bind(0, case.arrays)
    call.pointers[0][1] = z.ctypes.data
    call()
    np.testing.assert_array_equal(z, x * 2)
    assert not y.any()


def test_a_loop_takes_addresses():
    x, y = np.arange(5.0), np.zeros(5)
    library = host.build([Case(lambda xp, x: {"y": x * 2}, {"x": x}).loop])
    library[0](x.ctypes.data, y.ctypes.data)
    np.testing.assert_array_equal(y, x * 2)
    with pytest.raises(ValueError, match="takes 2 addresses, not 1"):
        library[0](x.ctypes.data)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ([np.zeros((3, 4))], "takes 2 arrays"),
        ([np.zeros((3, 4), "f"), np.zeros((3, 4))], "x is float32, not float64"),
        ([np.zeros((3, 3)), np.zeros((3, 4))], "x has shape"),
        ([np.zeros((3, 4)), np.zeros((4, 3))[:, ::-1]], "y has shape"),
        ([np.zeros((3, 4)), np.broadcast_to(0.0, (3, 4))], "cannot be written"),
        ([np.zeros(97, "u1")[1:].view(float).reshape(3, 4), np.zeros((3, 4))], "not aligned"),
    ],
)
def test_other_arrays_are_refused(arrays, message):
    case = Case(lambda xp, x: {"y": x * 2}, {"x": np.zeros((3, 4))})
    library = host.build([case.loop])
    with pytest.raises(ValueError, match=message):
        library.bind(0, arrays)


# ---- the compiler and the folder of libraries


@pytest.fixture
def compilations(monkeypatch):
    """What the compiler was asked to make."""
    made = []
    compile_ = host._compile

    def counted(text, *args):
        made.append(text)
        return compile_(text, *args)

    monkeypatch.setattr(host, "_compile", counted)
    return made


def doubled(library=None):
    case = Case(lambda xp, x: {"y": x * 2}, {"x": np.arange(6.0)})
    library = run(case)
    assert_equal(case)
    return library


def test_a_library_is_compiled_once(folder, compilations):
    assert doubled().source == doubled().source == compilations[0]
    assert len(compilations) == 1
    assert len(list(folder.iterdir())) == 1


@pytest.mark.parametrize("content", [b"", b"not a library", None])
def test_a_damaged_library_is_made_again(folder, compilations, content):
    doubled()
    (path,) = folder.iterdir()
    data = path.read_bytes()
    path.unlink()  # the library in use stays as it is
    path.write_bytes(data[: len(data) // 2] if content is None else content)
    doubled()
    doubled()
    assert len(compilations) == 2


def test_a_folder_that_cannot_be_written_to(monkeypatch, tmp_path, compilations):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("GPUGRAD_CACHE_DIR", str(tmp_path / "file"))
    doubled()
    read_only = tmp_path / "read-only"
    read_only.mkdir()
    read_only.chmod(stat.S_IRUSR | stat.S_IXUSR)
    monkeypatch.setenv("GPUGRAD_CACHE_DIR", str(read_only))
    doubled()
    assert len(compilations) == 2


def test_where_libraries_are_kept(monkeypatch):
    monkeypatch.delenv("GPUGRAD_CACHE_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    monkeypatch.setattr(sys, "platform", "linux")
    assert host.cache_folder() == Path("/somewhere/gpugrad")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "home", lambda: Path("/me"))
    assert host.cache_folder() == Path("/me/.cache/gpugrad")
    monkeypatch.setattr(sys, "platform", "darwin")
    assert host.cache_folder() == Path("/me/Library/Caches/gpugrad")


def test_several_processes_at_once(folder):
    program = textwrap.dedent("""
        import sys
        sys.path.insert(0, "tests")
        from test_host_loops import doubled
        doubled()
    """)
    command = [sys.executable, "-W", "error", "-c", program]
    root = Path(__file__).parent.parent
    processes = [subprocess.Popen(command, cwd=root) for _ in range(3)]
    assert [p.wait() for p in processes] == [0, 0, 0]
    assert {path.suffix for path in folder.iterdir()} == {".so"}


def test_a_forked_process_has_one_thread():
    program = textwrap.dedent("""
        import os, sys
        sys.path.insert(0, "tests")
        from test_host_loops import large, run
        case = list(large())[0]
        library = run(case, threads=2)
        call = library.bind(0, case.arrays)
        if not (child := os.fork()):
            call()
            run(case, threads=3)
            os._exit(7)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
        call()
    """)
    command = [sys.executable, "-c", program]
    root = Path(__file__).parent.parent
    subprocess.run(command, cwd=root, check=True, timeout=100)


def test_threads_that_wait_sleep():
    """GNU's OpenMP says what it has read when it is loaded."""
    program = textwrap.dedent("""
        import os, sys
        sys.path.insert(0, "tests")
        from test_host_loops import large, run
        run(*large())
        assert "OMP_WAIT_POLICY" not in os.environ
    """)
    env = {k: v for k, v in os.environ.items() if k not in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")}
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=Path(__file__).parent.parent,
        env={**env, "OMP_DISPLAY_ENV": "verbose"},
        check=True,
        capture_output=True,
        text=True,
        timeout=100,
    )
    if "GOMP_SPINCOUNT" in done.stderr:
        assert "GOMP_SPINCOUNT = '0'" in done.stderr


@pytest.fixture
def fresh():
    """The compiler is looked for anew, inside the test and after it."""
    host._command.cache_clear()
    host._machine.cache_clear()
    yield
    host._command.cache_clear()
    host._machine.cache_clear()


def test_without_a_compiler(monkeypatch, fresh):
    monkeypatch.setenv("GPUGRAD_CXX", "no-such-compiler")
    assert host.compiler() is None
    with pytest.raises(host.CompilerError, match="no C\\+\\+ compiler is found"):
        doubled()


def test_the_compiler_is_named_by_settings(monkeypatch, fresh, tmp_path):
    script = tmp_path / "my-compiler"
    script.write_text(f'#!/bin/sh\necho called >> {tmp_path}/calls\nexec {host.compiler()} "$@"\n')
    script.chmod(0o755)
    host._command.cache_clear()
    monkeypatch.setenv("GPUGRAD_CXX", f"{script} -DSOME_OPTION")
    assert host.compiler() == f"{script} -DSOME_OPTION"
    doubled()
    assert (tmp_path / "calls").read_text() == "called\n" * 2
    host._command.cache_clear()
    monkeypatch.delenv("GPUGRAD_CXX")
    monkeypatch.setenv("CXX", str(script))
    assert host.compiler() == str(script)


def test_a_compiler_without_openmp(monkeypatch, fresh, tmp_path):
    script = tmp_path / "plain-compiler"
    script.write_text(
        "#!/bin/sh\n"
        'for word in "$@"; do case $word in -fopenmp*|-fcx*) exit 1;; esac; done\n'
        f'exec {host.compiler()} "$@"\n'
    )
    script.chmod(0o755)
    host._command.cache_clear()
    monkeypatch.setenv("GPUGRAD_CXX", str(script))
    cases = list(large())[:5]
    run(*cases, threads=2)
    for case in cases:
        for k, wanted in case.expected().items():
            np.testing.assert_allclose(case.outputs[k], wanted, 1e-5, 1e-4)


def test_what_the_compiler_says_is_in_the_error(compilations):
    case = Case(lambda xp, x: {"y": x * 2}, {"x": np.arange(6.0)})
    text = case.loop.text._replace(values={"y": "no_such_function(x)"})
    with pytest.raises(host.CompilerError, match="no_such_function"):
        host.build([case.loop._replace(text=text)])


def test_the_number_of_threads(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3,2")
    assert host.default_threads() == 3
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert host.default_threads() >= 1
