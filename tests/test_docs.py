"""The code on the pages of the documentation runs, and prints what they say."""

import contextlib
import functools
import importlib.util
import io
import re
from importlib import import_module
from pathlib import Path

import pytest

import gpugrad as gg

DOCS = Path(__file__).parents[1] / "docs"
FENCE = re.compile(r"^(`{3,})([^\n`]*)\n(.*?)^\1$", re.DOTALL | re.MULTILINE)
MODULES = "gpugrad fft linalg nn optim random special testing".split()


def blocks(page):
    """(language, text, line) of every block of a page."""
    text = page.read_text()
    return [(m[2], m[3], text[: m.start(3)].count("\n")) for m in FENCE.finditer(text)]


def runs(page):
    """Whether a page has code, and the libraries it is about are there."""
    code = "\n".join(text for language, text, _ in blocks(page) if language == "python")
    imported = set(re.findall(r"^(?:import|from) (\w+)", code, re.MULTILINE)) - {"cupy"}
    return bool(code) and all(map(importlib.util.find_spec, imported))


@pytest.mark.parametrize(
    "page", sorted(filter(runs, DOCS.rglob("*.md"))), ids=lambda page: page.stem
)
def test_the_code_of_a_page(page, device):
    """In order, in one namespace; blocks that import CuPy run on a CUDA device only.

    What a block prints is the block of language "output" that follows.
    """
    scope = {"__name__": page.stem}
    found = blocks(page)
    for (language, text, line), (following, expected, _) in zip(found, [*found[1:], ("", "", 0)]):
        if language != "python" or ("import cupy" in text and device.kind != "cuda"):
            continue
        code = compile("\n" * line + text, str(page), "exec")  # lines as on the page
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            exec(code, scope)
        shown = printed.getvalue().replace(str(device), "cpu")
        assert shown == (expected if following == "output" else ""), f"{page.name}, line {line}"


def test_every_block_is_of_a_known_kind():
    """So that none is missed above."""
    found = {language for page in DOCS.rglob("*.md") for language, _, _ in blocks(page)}
    kinds = {"cuda", "output", "python", "sh", "{toctree}"}
    assert {x for x in found if not x.startswith("{functions} ")} <= kinds


def test_kernels_that_are_shown():
    """As they stand in the package."""
    pages = DOCS.rglob("*.md")
    shown = [text for page in pages for kind, text, _ in blocks(page) if kind == "cuda"]
    kernels = "".join(path.read_text() for path in DOCS.parent.glob("kernels/*.cuh"))
    assert shown
    assert all(text in kernels for text in shown)


def test_names_in_the_text_exist():
    for page in DOCS.rglob("*.md"):
        for name in re.findall(r"\bgg\.(\w+(?:\.\w+)*)", page.read_text()):
            functools.reduce(getattr, name.split("."), gg)


def test_every_public_name_is_in_the_reference():
    there = set()
    for page in (DOCS / "reference").glob("*.md"):
        for language, text, _ in blocks(page):
            if language.startswith("{functions} "):
                module = language.split()[1]
                names = text.split() or import_module(module).__all__
                there |= {(re.sub(r"\.ops\..*", "", module), name) for name in names}
    modules = ["gpugrad", *(f"gpugrad.{name}" for name in MODULES[1:])]
    public = {(m, name) for m in modules for name in import_module(m).__all__}
    assert public - {("gpugrad", name) for name in MODULES} <= there
