"""Every row of the table of operations, compiled: value and cotangents against the eager ones."""

import numpy as np
import pytest
from helpers import flat, host

import gpugrad as gg
from gpugrad.compiler import host as host_loops
from gpugrad.testing.rows import Domain
from gpugrad.testing.table import ROWS
from gpugrad.trees import flatten

NAMES = sorted({row.name for row in ROWS})


@pytest.fixture(autouse=True)
def loops(monkeypatch):
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


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("name", NAMES)
def test_every_row(name, device):
    lacks = gg.backends.backend_of_kind(device.kind).about(device).lacks
    refused, recorded = [], 0
    for row in ROWS:
        if row.name != name or row.needs in lacks:
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
