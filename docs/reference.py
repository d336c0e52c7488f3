"""The directive of the pages in `docs/reference/`: public names, with signature and docstring.

    ```{functions} gpugrad.ops.elementwise
    ```

    ```{functions} gpugrad
    grad
    jvp
    ```

The first form takes every public name of a module, after the text of the module if that is public
itself; the second the names that it lists. A public name that stands on no page is a warning, hence
an error of the build.
"""

from __future__ import annotations

import inspect
import re
from importlib import import_module
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective

from gpugrad.modes import Mode

MODULES = ["gpugrad"] + [
    f"gpugrad.{name}" for name in "fft linalg nn optim random special testing".split()
]


class Functions(SphinxDirective):
    """The entries of one module's names."""

    required_arguments = 1
    has_content = True

    def run(self) -> list[nodes.Node]:
        module = self.arguments[0]
        public = "gpugrad" if module.startswith("gpugrad.ops.") else module
        lines = []
        if not self.content and public == module:
            lines += [f".. automodule:: {module}", ""]
        for name in self.content or import_module(module).__all__:
            lines += entry(f"{public}.{name}")
        # docstrings are reStructuredText
        return self.parse_text_to_nodes("\n".join(["````{eval-rst}", *lines, "````"]))


def entry(name: str) -> list[str]:
    """The autodoc directive of a public name."""
    module, _, last = name.rpartition(".")
    value = getattr(import_module(module), last)
    if not getattr(value, "__module__", "").startswith("gpugrad"):  # a number, a dtype
        value = getattr(value, "__name__", value)
        return [f".. py:data:: {name}", f"   :value: {value}", ""]
    if inspect.isfunction(value):
        return [f".. autofunction:: {name}", ""]
    if issubclass(value, (BaseException, Mode)):  # whose members are not for users
        kind = "class" if issubclass(value, Mode) else "exception"
        return [f".. auto{kind}:: {name}", ""]
    options = ["members:", "exclude-members: function", "inherited-members: Module"]
    return [f".. autoclass:: {name}", *(f"   :{option}" for option in options), ""]


def public_names() -> set[str]:
    """Every name that the reference must have."""
    names = {f"{module}.{name}" for module in MODULES for name in import_module(module).__all__}
    return names - set(MODULES)


# Code in backticks, or something bold: both stay. Other signs mean themselves.
_KEPT = r"(`[^`]+`)(s?)|(\*\*[A-Z][^*`]+\*\*|\*[a-z]+\*)|([*|\\])"


def as_rest(app: Sphinx, what: str, name: str, x: Any, options: Any, lines: list[str]) -> None:
    """A docstring, plain text with code in backticks, made reStructuredText.

    Indented paragraphs that follow a line that is not are code.
    """

    def kept(match: re.Match[str]) -> str:
        code, plural, bold, sign = match.groups()
        return f"`{code}`" + (rf"\ {plural}" if plural else "") if code else bold or "\\" + sign

    text: list[str] = []
    code = False
    before = ""
    for block in "\n".join(lines).split("\n\n"):
        indented = block.startswith("    ")
        if indented and (code or (before and not before.startswith("    "))):
            text.append(block if code else "::\n\n" + block)
            code = True
        else:
            text.append(re.sub(_KEPT, kept, block))
            code = False
        before = block.rpartition("\n")[2]
    lines[:] = "\n\n".join(text).split("\n")


def check_complete(app: Sphinx, env: BuildEnvironment) -> None:
    """Warn of public names that no page has."""
    for name in sorted(public_names() - env.get_domain("py").objects.keys()):
        logging.getLogger(__name__).warning("%s: on no page of docs/reference", name)


def setup(app: Sphinx) -> dict[str, bool]:
    """Called by Sphinx."""
    app.add_directive("functions", Functions)
    app.connect("autodoc-process-docstring", as_rest, priority=100)  # before napoleon
    app.connect("env-check-consistency", check_complete)
    return {"parallel_read_safe": True}
