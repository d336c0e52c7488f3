"""What the pictures of the examples have in common."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mnist_data

BLUE, ORANGE, GREY = "#2a6f97", "#d1602b", "#6c757d"


@contextmanager
def figure(path: Path, width: float, height: float, columns: int = 1) -> Iterator[Any]:
    """Axes side by side in a figure of `width` by `height` inches, which is written in the end.

    The format is what `path` ends with. An SVG has the same bytes each time.
    """
    matplotlib = mnist_data.need("matplotlib")
    from matplotlib.figure import Figure
    from mnist_plot import STYLE

    with matplotlib.rc_context(STYLE | {"svg.hashsalt": path.stem}):
        figure = Figure(figsize=(width, height), layout="constrained")
        figure.get_layout_engine().set(w_pad=0.08, h_pad=0.06)
        yield figure.subplots(1, columns)
        path.parent.mkdir(parents=True, exist_ok=True)
        metadata = {"Date": None} if path.suffix == ".svg" else None
        figure.savefig(path, dpi=130, metadata=metadata)
    print(f"picture: {path}")


def save_drawing(drawing: Any, path: Path) -> None:
    """What `gg.draw` returns: as .mmd, which GitHub shows, and as .svg where there is Graphviz."""
    path.parent.mkdir(parents=True, exist_ok=True)
    for suffix in (".mmd", ".svg"):
        try:
            drawing.save(path.with_suffix(suffix))
            print(f"drawing: {path.with_suffix(suffix)}")
        except (ImportError, RuntimeError) as error:
            print(f"no drawing {path.with_suffix(suffix)}: {error}")
