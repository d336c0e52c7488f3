"""The table of coverage: nothing public without a derivative or a reason, and docs/coverage.md."""

from pathlib import Path

import numpy as np
import pytest

import gpugrad as gg
from gpugrad.rules import elementwise
from gpugrad.testing import coverage, points, rows

PAGE = Path(__file__).parent.parent / "docs" / "coverage.md"


@pytest.fixture(scope="module")
def entries():
    return list(coverage.coverage([gg.device("cpu")]))


def test_every_public_function_has_a_derivative_or_a_reason(entries):
    assert coverage.problems(entries) == []
    assert {"sin", "matmul", "nn.cross_entropy"} <= {e.name for e in entries}


def test_the_page_is_what_is_found(entries):
    """All columns but those of CUDA, which this machine may lack."""

    def cells(text):
        table = [line.split(" | ") for line in text.splitlines() if line.startswith("| ")]
        return [(*row[:6], row[-1]) for row in table]

    assert cells(PAGE.read_text()) == cells(coverage.as_markdown(entries))


def test_special_points_are_of_public_functions():
    names = {point.name for point in points.POINTS}
    assert names - coverage.public_functions().keys() == {"x[key]"}


def test_a_wrong_or_missing_derivative_is_seen(monkeypatch):
    wrong = elementwise("wrong", lambda t, x: t * x, doc="", function="sin")

    def silent(x):
        return gg.sin(gg.rules.raw(x))

    functions = {
        "wrong": (wrong, "GradientError"),
        "silent": (silent, "TypeError"),
        "broken": (lambda x: x.nothing, "AttributeError"),
        "constant": (None, "neither a derivative"),
    }
    table = [
        rows.case(name, rows.signed(2), function=f, reference=f, dtypes="d")
        for name, (f, _) in functions.items()
        if f
    ]
    table.append(rows.case("constant", np.ones(2), function=gg.sin, reference=np.sin, order=0))
    monkeypatch.setattr(coverage, "ROWS", table)
    monkeypatch.setattr(coverage, "public_functions", lambda: functions)
    found = coverage.problems(list(coverage.coverage([gg.device("cpu")])))
    for name, (_, problem) in functions.items():
        assert any(x.startswith(f"{name}: {problem}") for x in found), (name, found)
