"""The site of the documentation: `make docs` builds it into build/docs."""

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]

import gpugrad as gg  # noqa: E402

project = "gpugrad"
author = "The gpugrad developers"
copyright = "the gpugrad developers"
version = release = gg.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "reference",  # beside this file
]
nitpicky = True
nitpick_ignore = [("py:exc", "numpy.linalg.LinAlgError")]

html_theme = "furo"
html_title = f"gpugrad {version}"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = False
pygments_style = "friendly"
pygments_dark_style = "monokai"

myst_heading_anchors = 3  # links to headings, as GitHub makes them

# docstrings: single backticks are code; types are told in words under "Args"
default_role = "code"
autodoc_typehints = "none"
autodoc_member_order = "groupwise"
toc_object_entries_show_parents = "hide"
napoleon_numpy_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True
