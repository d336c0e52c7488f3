"""A derivative is a limit; gradient descent follows it downhill.

    python examples/gradient_descent.py
    python examples/gradient_descent.py --plot FOLDER

A line w x + b is fitted to twelve points. First dL/dw of the mean squared error L as the texts
define it, [L(w + h) - L(w)] / h for smaller and smaller h, beside the exact one; then
w := w - rate dL/dw, and the same for b, until both are those of the normal equations.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import figures
import numpy as np

import gpugrad as gg

X = np.linspace(0, 3, 12)
Y = 2 * X + 1 + np.random.default_rng(0).normal(0, 0.5, 12)
START = (0.5, 3.0)
STEPS = [10.0**-k for k in range(1, 16)]
SHOWN = (0, 1, 2, 3, 5, 10, 20, 50, 100, 200)


def parabola(w: Any, b: Any, dtype: Any = gg.float64) -> gg.Tensor:
    """Mean squared error of the line: a parabola in w and b."""
    x, y = (gg.asarray(data.astype(dtype), device=gg.default_device()) for data in (X, Y))
    return gg.mean((w * x + b - y) ** 2)


def curve(w: Any, b: Any, dtype: Any = gg.float64) -> gg.Tensor:
    """The same with a sigmoid on top, for y between 0 and 1: no parabola."""
    x, y = (gg.asarray(data.astype(dtype), device=gg.default_device()) for data in (X, Y / 8))
    return gg.mean((gg.sigmoid(w * x + b) - y) ** 2)


def forward(f: Callable, w: gg.Tensor, h: float) -> float:
    """[f(w + h) - f(w)] / h, in the precision of `w`."""
    return float((f(w + h) - f(w)) / h)


def central(f: Callable, w: gg.Tensor, h: float) -> float:
    """[f(w + h) - f(w - h)] / 2h, in the precision of `w`."""
    return float((f(w + h) - f(w - h)) / (2 * h))


def errors(loss: Callable, w: float, b: float) -> tuple[float, dict[tuple[str, str], list[float]]]:
    """Exact d loss/dw, and the relative error of both differences for each of `STEPS`."""
    exact = float(gg.grad(loss)(gg.asarray(w, dtype=gg.float64), b))
    found = {}
    for dtype in (gg.float32, gg.float64):
        at = gg.asarray(w, dtype=dtype)
        for rule in (forward, central):
            values = [rule(lambda w: loss(w, b, dtype), at, h) for h in STEPS]  # noqa: B023
            found[rule.__name__, dtype.__name__] = [abs(v / exact - 1) for v in values]
    return exact, found


def descend(rate: float, steps: int) -> np.ndarray:
    """(w, b) at the start and after each of `steps` steps, of shape (steps + 1, 2)."""
    gradient = gg.grad(parabola, argnums=(0, 1))
    w, b = (gg.asarray(x, dtype=gg.float64) for x in START)
    path = [START]
    for _ in range(steps):
        dw, db = gradient(w, b)
        w, b = w - rate * dw, b - rate * db
        path.append((float(w), float(b)))
    return np.asarray(path)


def solution() -> np.ndarray:
    """(w, b) where the gradient is zero: the normal equations A^T A (w, b) = A^T y."""
    a = np.column_stack([X, np.ones_like(X)])
    return np.linalg.solve(a.T @ a, a.T @ Y)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Derivatives as limits, and gradient descent.")
    parser.add_argument("--plot", type=Path, metavar="FOLDER", help="two pictures, as SVG")
    folder = parser.parse_args(argv).plot
    limit(folder)
    descent(folder)


def limit(folder: Path | None) -> None:
    exact, found = errors(parabola, 0.5, 0.5)
    print(f"dL/dw at w = b = 0.5 is {exact:.10f} by gpugrad; relative error of differences:")
    print(f"  {'':8}{'float32':^22}  {'float64':^22}")
    print(f"  {'h':8}{'forward':>11}{'central':>11}  {'forward':>11}{'central':>11}")
    for h, (one, two, three, four) in zip(STEPS, zip(*found.values()), strict=True):
        print(f"  {h:<8.0e}{one:11.0e}{two:11.0e}  {three:11.0e}{four:11.0e}")
    print("  From the top the forward error falls with h: what the definition's limit takes away.")
    print("  Then it rises as 1/h: L(w + h) and L(w) agree in more and more of their digits, and")
    print("  only the rest is left of their difference. In float32, w + h is w from 1e-8 on.")
    print("  A central difference of a parabola is exact: of it there is only the second part.")
    if folder:
        plot_limits(folder / "derivative_as_limit.svg", [found, errors(curve, 0.5, 0.5)[1]])


def descent(folder: Path | None) -> None:
    best = solution()
    at = gg.asarray(best, device=gg.default_device())
    flat, steep = np.linalg.eigvalsh(gg.hessian(lambda p: parabola(p[0], p[1]))(at).get())
    rate = 1 / steep
    path = descend(rate, SHOWN[-1])
    distance = np.linalg.norm(path - best, axis=1)
    print(f"\nw := w - {rate:.3f} dL/dw, b := b - {rate:.3f} dL/db")
    print(f"  {'step':>4}{'w':>11}{'b':>11}{'L':>11}   distance to the solution")
    for i in SHOWN:
        w, b = path[i].tolist()
        print(f"  {i:4}{w:11.6f}{b:11.6f}{float(parabola(w, b)):11.6f}   {distance[i]:.1e}")
    print(f"  normal equations: w = {best[0]:.6f}, b = {best[1]:.6f}")
    print(f"  The loss curves by {flat:.2f} along its valley and by {steep:.2f} across it:")
    print(f"  the rate is 1/{steep:.2f}, and above 2/{steep:.2f} = {2 * rate:.3f} it would climb.")
    if folder:
        paths = {factor * rate: descend(factor * rate, 30) for factor in (0.1, 1, 1.7)}
        plot_path(folder / "gradient_descent.svg", paths, best)


def plot_limits(file: Path, found: list[dict]) -> None:
    """The errors over h, on logarithmic axes: of the parabola, and of the curve."""
    with figures.figure(file, 9, 3.8, 2) as axes:
        titles = ("L: a parabola in w", "With a sigmoid on top: no parabola")
        for ax, errors, title in zip(axes, found, titles, strict=True):
            for (rule, dtype), values in errors.items():
                colour = figures.ORANGE if dtype == "float32" else figures.BLUE
                line = "o-" if rule == "forward" else "s--"
                shown = np.maximum(values, 1e-16)
                ax.loglog(STEPS, shown, line, color=colour, ms=4, lw=1.2, label=f"{rule}, {dtype}")
            ax.set(title=title, xlabel="step h", xlim=(3e-1, 3e-16), ylim=(3e-17, 30))
            ax.text(3e-5, 1.5e-6, "∝ h", ha="right", va="top")
            ax.text(1e-11, 1e-6, "∝ 1/h", va="top")
        axes[1].text(1e-3, 1e-8, "∝ h²", ha="right")
        axes[0].set_ylabel("relative error of dL/dw")
        axes[1].legend(loc="lower left")


def plot_path(file: Path, paths: dict[float, np.ndarray], best: np.ndarray) -> None:
    """The ways of three rates down the contours of the loss."""
    with figures.figure(file, 9, 3.4, 3) as axes:
        w, b = np.meshgrid(np.linspace(0, 3.4, 80), np.linspace(0, 3.4, 80))
        loss = np.mean((w[..., None] * X + b[..., None] - Y) ** 2, axis=-1)
        levels = loss.min() + np.geomspace(0.01, 20, 10)
        for ax, (rate, path) in zip(axes, paths.items(), strict=True):
            ax.contour(w, b, loss, levels, colors=figures.GREY, linewidths=0.6, alpha=0.7)
            ax.plot(*path.T, "o-", color=figures.BLUE, ms=3, lw=1)
            ax.plot(*best, "*", color=figures.ORANGE, ms=11)
            ax.set(title=f"rate {rate:.3f}, {len(path) - 1} steps", xlabel="w", aspect="equal")
            ax.label_outer()
        axes[0].set_ylabel("b")


if __name__ == "__main__":
    main()
