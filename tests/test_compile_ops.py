"""Every row of the table of operations, compiled: value and cotangents against the eager ones."""

import contextlib

import numpy as np
import pytest
from helpers import flat, host

import gpugrad as gg
from gpugrad.compiler import cpu
from gpugrad.compiler import host as host_loops
from gpugrad.compiler.compiled import Interpreter
from gpugrad.compiler.recording import record
from gpugrad.testing.rows import Domain
from gpugrad.testing.table import ROWS
from gpugrad.trees import flatten

NAMES = sorted({row.name for row in ROWS})


@pytest.fixture
def without_compiler(monkeypatch):
    """Fused loops run by NumPy on the CPU: to compile each would take a quarter of an hour."""
    monkeypatch.setattr(host_loops, "_command", tuple)


def drawn(row, dtype, seed):
    rng = np.random.default_rng(seed)
    return [x.draw(rng, dtype) if isinstance(x, Domain) else x for x in row.args]


def on_device(args):
    return [gg.asarray(x, device=gg.backends.default_device()) for x in args]


def with_cotangents(row, dtype):
    """The function of a row with its cotangents at ones, where it has a derivative."""

    def f(*args):
        if not row.order or dtype.kind not in "fc":
            return row.function(*args)
        g, primals = row.of_differentiable(list(args))
        out, pullback = gg.vjp(g, *primals)
        leaves, unflatten = flatten(out)
        ones = [gg.ones_like(x) if x.dtype.kind in "fc" else x for x in leaves]
        return out, pullback(unflatten(ones))

    return f


def depends_on_values(row, args):
    """Whether the shapes of results depend on what is in the arguments."""

    def shapes(arrays):
        return [getattr(x, "shape", None) for x in flat(row.function(*on_device(arrays)))]

    first = shapes(args)
    for change in (np.zeros_like, np.ones_like, lambda x: np.arange(x.size).reshape(x.shape)):
        try:
            if shapes([change(x).astype(x.dtype) for x in args]) != first:
                return True
        except (ValueError, IndexError, np.linalg.LinAlgError):
            continue
    return False


@pytest.mark.usefixtures("without_compiler")
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("name", NAMES)
def test_every_row(name):
    """On the CPU; test_compile_cuda.py does the same on a GPU, by graphs."""
    with gg.device("cpu"):
        check_every_row(name)


def check_every_row(name):
    refused, recorded = [], 0
    for row in ROWS:
        if row.name != name:
            continue
        for dtype in map(np.dtype, row.dtypes):
            f = with_cotangents(row, dtype)
            compiled = gg.compile(f)
            first, second = (drawn(row, dtype, seed) for seed in (0, 1))
            try:
                outcomes = [(compiled(*on_device(x)), f(*on_device(x))) for x in (first, second)]
            except gg.CompileError as error:
                refused.append((depends_on_values(row, first), str(error)))
                continue
            recorded += 1
            assert len(compiled.steps) == 1, (row, dtype)
            for got, expected in outcomes:
                assert_close(got, expected, (row, dtype))
    for depends, message in refused:
        assert "shape depends on values" in message
        # of an empty array, say, no values show it; the function then is refused altogether
        assert depends or (not recorded and any(x for x, _ in refused)), message


def assert_close(got, expected, what):
    got, expected = flat(got), flat(expected)
    assert list(map(type, got)) == list(map(type, expected)), what
    for x, y in zip(map(host, got), map(host, expected), strict=True):
        assert (x.shape, x.dtype) == (y.shape, y.dtype), what
        rtol = 1e3 * np.finfo(x.dtype).eps if x.dtype.kind in "fc" else 0
        np.testing.assert_allclose(x, y, rtol=rtol, atol=rtol, err_msg=str(what))


# ---- loops as machine code: those of many rows are compiled together

PARTS = 8


class Gathered(Exception):
    """The loops are known; nothing is to be run yet."""


class Share:
    """Some loops of a library, from a number on."""

    def __init__(self, library, first):
        self._library = library
        self._first = first

    def bind_run(self, calls):
        return self._library.bind_run([(self._first + i, arrays) for i, arrays in calls])


def programs_of(rows):
    """(row, dtype, program, arrays of its inputs) of all that can be compiled."""
    for row in rows:
        for dtype in map(np.dtype, row.dtypes):
            if dtype.char == "d" or (dtype.char == "f" and row.broadcasts):
                args = [gg.asarray(x, device="cpu") for x in drawn(row, dtype, 0)]
                try:
                    found = record(with_cotangents(row, dtype), args, lambda x: (x, {}))
                except gg.CompileError:
                    continue  # of values depends what shapes its results have
                yield row, dtype, found[0].program, found[2]


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("part", range(PARTS))
def test_rows_in_machine_code(part, monkeypatch):
    cases = list(programs_of(ROWS[part::PARTS]))
    loops, firsts = [], []

    def gather(found):
        loops.extend(found)
        raise Gathered

    for _, _, program, arrays in cases:
        firsts.append(len(loops))
        monkeypatch.setattr(host_loops, "build", gather)
        with contextlib.suppress(Gathered):
            cpu.Runner(program, arrays, loops="c++")
    monkeypatch.undo()
    library = host_loops.build([x._replace(name=f"loop_{i}") for i, x in enumerate(loops)])
    for (row, dtype, program, arrays), first in zip(cases, firsts, strict=True):
        monkeypatch.setattr(host_loops, "build", lambda _, first=first: Share(library, first))
        runner = cpu.Runner(program, arrays, loops="c++")
        for args in (None, drawn(row, dtype, 1)):
            given = list(arrays)
            for i, x in enumerate(program.inputs):
                if args is not None and x.kind == "argument":
                    given[i] = args[x.source].astype(arrays[i].dtype)
            for x, y in zip(runner(given), Interpreter(program)(given), strict=True):
                assert_close(gg.asarray(x), gg.asarray(y), (row, dtype))
