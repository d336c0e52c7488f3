"""examples/README.md: its links, and what it says that the examples print."""

import importlib
import re
from pathlib import Path

import pytest

import gpugrad as gg

EXAMPLES = Path(__file__).parents[1] / "examples"
PAGE = (EXAMPLES / "README.md").read_text()


def anchor(heading):
    """What GitHub makes of a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def test_links_lead_somewhere():
    anchors = {anchor(heading) for heading in re.findall(r"^## (.*)$", PAGE, re.MULTILINE)}
    links = re.findall(r"\]\(([^)]*)\)", PAGE)
    assert links
    for link in links:
        if link.startswith("#"):
            assert link[1:] in anchors
        else:
            assert (EXAMPLES / link).is_file(), link


def test_every_example_has_a_section_and_a_place_in_the_table():
    headings = re.findall(r"^## `(\w+\.py)`", PAGE, re.MULTILINE)
    assert headings == re.findall(r"^\| \[`(\w+\.py)`\]", PAGE, re.MULTILINE)
    runnable = [f.name for f in EXAMPLES.glob("*.py") if "__main__" in f.read_text()]
    assert sorted(headings) == sorted(runnable)


def test_every_picture_is_shown_and_small():
    for file in (EXAMPLES / "pictures").iterdir():
        assert f"(pictures/{file.name})" in PAGE
        assert file.stat().st_size < 100_000


@pytest.mark.parametrize("name", ["two_two_one", "boxes"])
def test_output_that_is_shown(name, capsys, monkeypatch):
    monkeypatch.syspath_prepend(EXAMPLES)
    (shown,) = re.findall(rf"```\n\$ python examples/{name}.py\n(.*?)```", PAGE, re.DOTALL)
    with gg.device("cpu"):
        importlib.import_module(name).main([])
    printed = capsys.readouterr().out.splitlines()
    for line in shown.splitlines():
        assert line == "..." or line in printed
