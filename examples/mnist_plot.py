"""The picture of a training run: curves, confusion matrix, worst mistakes."""

from __future__ import annotations

from typing import Any, BinaryIO

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

BLUE, ORANGE, GREY = "#2a6f97", "#d1602b", "#6c757d"
STYLE = {
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": GREY,
    "axes.grid": True,
    "grid.color": "#e5e8eb",
    "legend.frameon": False,
}


def plot(file: BinaryIO, history: list[Any], data: Any, scores: np.ndarray) -> None:
    """Write a PNG.

    Args:
        file: open for writing bytes.
        history: an `Epoch` for each epoch.
        data: the `Dataset`; its test images are shown.
        scores: what the network gives each class for the test images, (n, 10), from 0 to 1.
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(13.5, 5.8), layout="constrained")
        figure.get_layout_engine().set(w_pad=0.1, h_pad=0.1)
        left, middle, right = figure.subfigures(1, 3, width_ratios=(4.3, 5.3, 3.6))
        _curves(left, history)
        _confusion(middle.subplots(), data.test_labels, scores.argmax(axis=1))
        _mistakes(right, data, scores)
        figure.savefig(file, format="png", dpi=130)


def _curves(figure: Any, history: list[Any]) -> None:
    epochs = range(1, len(history) + 1)
    marker = "o" if len(history) == 1 else None
    loss, accuracy = figure.subplots(2, 1, sharex=True)
    loss.plot(epochs, [e.loss for e in history], color=BLUE, marker=marker, label="training")
    loss.plot(epochs, [e.test_loss for e in history], color=ORANGE, marker=marker, label="test")
    loss.set(title="Loss", yscale="log")
    loss.legend()
    accuracy.plot(epochs, [e.accuracy for e in history], color=ORANGE, marker=marker)
    accuracy.set(title=f"Test accuracy: {history[-1].accuracy:.2%} at the end", xlabel="epoch")
    accuracy.yaxis.set_major_formatter(PercentFormatter(1))
    accuracy.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))


def _confusion(axes: Any, labels: np.ndarray, predicted: np.ndarray) -> None:
    counts = np.zeros((10, 10), int)
    np.add.at(counts, (labels, predicted), 1)
    mistakes = np.where(np.eye(10, dtype=bool), 0, counts)
    axes.imshow(mistakes, cmap="Oranges", vmax=max(1, 1.4 * mistakes.max()))
    for (row, column), count in np.ndenumerate(counts):
        if row == column:
            axes.text(column, row, count, ha="center", va="center", color=BLUE, weight="bold")
        elif count:
            axes.text(column, row, count, ha="center", va="center")
    axes.set(
        title=f"Confusion: {mistakes.sum():,} of {len(labels):,} wrong",
        xlabel="read as",
        ylabel="digit",
        xticks=range(10),
        yticks=range(10),
    )
    axes.grid(False)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)


def _mistakes(figure: Any, data: Any, scores: np.ndarray) -> None:
    """The wrong answers given with the most confidence over the right one."""
    rows = np.arange(len(scores))
    predicted, labels = scores.argmax(axis=1), data.test_labels
    margin = scores[rows, predicted] - scores[rows, labels]
    worst = np.argsort(-margin, kind="stable")[:12]
    figure.suptitle("The worst mistakes", x=0.02, ha="left", fontsize=10, fontweight="bold")
    for axes, i in zip(figure.subplots(4, 3).flat, worst, strict=False):
        axes.set_axis_off()
        if margin[i] > 0:
            axes.imshow(data.test_images[i], cmap="gray_r", vmin=0, vmax=data.white)
            axes.set_title(
                f"{labels[i]} read as {predicted[i]}\n{scores[i, predicted[i]]:.1%}",
                loc="center",
                fontsize=8.5,
                fontweight="normal",
            )
