"""Learning representations by back-propagating errors, run again.

    python examples/rumelhart1986.py
    python examples/rumelhart1986.py --plot FOLDER

D. E. Rumelhart, G. E. Hinton, R. J. Williams, Nature 323 (1986) 533-536: its equations beside what
the tape computes, then its two tasks, for twenty seeds each. The networks of all seeds are trained
at once: their weights have one axis more, and their errors are added, so that each network has its
own gradient.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from mnist_data import need
from rumelhart1986_trees import PEOPLE, RELATIONS, facts

import gpugrad as gg


def place(x: np.ndarray) -> gg.Tensor:
    """An array on the default device."""
    return gg.asarray(x, device=gg.default_device())


# ---- the equations


def by_hand(y0: np.ndarray, w1: np.ndarray, w2: np.ndarray, d: np.ndarray) -> dict[str, Any]:
    """Equations (1) to (7) for two layers: c is a case, i a unit, j a unit above it."""
    x1 = np.einsum("ci,ji->cj", y0, w1)  # (1) x_j = sum_i y_i w_ji
    y1 = 1 / (1 + np.exp(-x1))  # (2) y_j = 1 / (1 + exp(-x_j))
    x2 = np.einsum("ci,ji->cj", y1, w2)
    y2 = 1 / (1 + np.exp(-x2))
    E = np.sum((y2 - d) ** 2) / 2  # (3) E = 1/2 sum_c sum_j (y_jc - d_jc)^2
    dy2 = y2 - d  # (4) dE/dy_j = y_j - d_j
    dx2 = dy2 * y2 * (1 - y2)  # (5) dE/dx_j = dE/dy_j y_j (1 - y_j)
    dw2 = np.einsum("cj,ci->ji", dx2, y1)  # (6) dE/dw_ji = dE/dx_j y_i
    dy1 = np.einsum("cj,ji->ci", dx2, w2)  # (7) dE/dy_i = sum_j dE/dx_j w_ji
    dx1 = dy1 * y1 * (1 - y1)  # and so on, one layer down
    dw1 = np.einsum("cj,ci->ji", dx1, y0)
    return {
        "x2": x2, "y2": y2, "E": E, "dy2": dy2, "dx2": dx2, "dw2": dw2,
        "dy1": dy1, "dx1": dx1, "dw1": dw1,
    }  # fmt: skip


def on_tape(y0: gg.Tensor, w1: gg.Tensor, w2: gg.Tensor, d: gg.Tensor) -> dict[str, Any]:
    """The same numbers from gpugrad: one `backward`, with a hook on what is between."""
    x1 = y0 @ w1.T
    y1 = gg.sigmoid(x1)
    x2 = y1 @ w2.T
    y2 = gg.sigmoid(x2)
    E = gg.sum((y2 - d) ** 2) / 2
    seen: dict[str, Any] = {"x2": x2, "y2": y2, "E": E}
    for name, tensor in [("dy2", y2), ("dx2", x2), ("dy1", y1), ("dx1", x1)]:
        tensor.register_hook(lambda gradient, name=name: seen.__setitem__(name, gradient))
    E.backward()
    return {k: v.get() for k, v in (seen | {"dw2": w2.grad, "dw1": w1.grad}).items()}


def equations() -> list[tuple[str, str, np.ndarray, np.ndarray]]:
    """Equation, formula, value by hand and value on the tape: a 3-2-2 network, four cases."""
    rng = np.random.default_rng(1986)
    y0, d = rng.integers(0, 2, (4, 3)).astype(float), rng.integers(0, 2, (4, 2)).astype(float)
    hand_w = [rng.uniform(-0.3, 0.3, shape) for shape in [(2, 3), (2, 2)]]
    tape_w = [gg.asarray(place(w), copy=True, requires_grad=True) for w in hand_w]

    hand, tape = by_hand(y0, *hand_w, d), on_tape(place(y0), *tape_w, place(d))
    rows = [
        (f"({number})", formula, hand[name], tape[name])
        for number, formula, name in [
            (1, "x_j = sum_i y_i w_ji", "x2"),
            (2, "y_j = 1 / (1 + exp(-x_j))", "y2"),
            (3, "E = 1/2 sum_c sum_j (y_jc - d_jc)^2", "E"),
            (4, "dE/dy_j = y_j - d_j", "dy2"),
            (5, "dE/dx_j = dE/dy_j y_j (1 - y_j)", "dx2"),
            (6, "dE/dw_ji = dE/dx_j y_i", "dw2"),
            (7, "dE/dy_i = sum_j dE/dx_j w_ji", "dy1"),
            (5, "the same, one layer down", "dx1"),
            (6, "the same, one layer down", "dw1"),
        ]
    ]
    # two weight changes: in the first one there is no change before it, which is equation (8)
    epsilon, alpha, change = 0.1, 0.9, [np.zeros_like(w) for w in hand_w]
    optimizer = gg.optim.SGD(tape_w, lr=epsilon, momentum=alpha)
    for number, formula in [
        (8, "change of w = -epsilon dE/dw"),
        (9, "... + alpha times the change before"),
    ]:
        gradients = by_hand(y0, *hand_w, d)
        change = [
            -epsilon * gradients[f"dw{layer}"] + alpha * before
            for layer, before in enumerate(change, 1)
        ]
        hand_w = [w + step for w, step in zip(hand_w, change, strict=True)]
        before = tape_w[0].get()
        optimizer.step()
        rows.append((f"({number})", formula, change[0], tape_w[0].get() - before))
        optimizer.zero_grad()
        on_tape(place(y0), *tape_w, place(d))
    return rows


# ---- networks


def draw(seeds: Sequence[int], bound: float, sizes: Sequence[tuple[int, int]]) -> list[gg.Tensor]:
    """Weights from [-bound, bound], of shape (seeds, inputs + 1, outputs) for each layer.

    The last row are the biases: weights from a unit that is always on.
    """
    drawn: list[list[np.ndarray]] = []
    for seed in seeds:
        rng = np.random.default_rng(seed)
        drawn.append([rng.uniform(-bound, bound, (i + 1, j)) for i, j in sizes])
    return [gg.asarray(place(np.stack(w)), requires_grad=True) for w in zip(*drawn, strict=True)]


def layer(y: gg.Tensor, w: gg.Tensor) -> gg.Tensor:
    """Equations (1) and (2) for a layer of each network; y has the shape (..., cases, inputs)."""
    return gg.sigmoid(y @ w[:, :-1] + w[:, -1:])


def train(
    error: Callable[[], gg.Tensor],
    weights: list[gg.Tensor],
    sweeps: int,
    epsilon: float,
    alpha: float,
    shrink: float = 0.0,
) -> None:
    """Change the weights after each sweep by equation (9), from rest, and then shrink each."""
    optimizer = gg.optim.SGD(weights, lr=epsilon, momentum=alpha)

    @gg.compile
    def sweep() -> None:
        error().backward()
        optimizer.step()
        optimizer.zero_grad()
        with gg.no_grad():
            for w in weights if shrink else ():
                w *= 1 - shrink

    for _ in range(sweeps):
        sweep()


# ---- symmetry


class Symmetry(NamedTuple):
    """What became of each network.

    `needed` has the sweeps after which all 64 outputs were on the right side of 0.5, 0 where that
    never was; `hidden` (seeds, 7, 2) and `output` (seeds, 3, 1) the weights at the end.
    """

    needed: np.ndarray
    hidden: np.ndarray
    output: np.ndarray
    error: np.ndarray

    def ratios(self) -> np.ndarray:
        """Of the weights on one side of the first hidden unit, the least is 1: (seeds, 3)."""
        sides = np.sort(np.abs(self.hidden[:, :3, 0]), axis=1)
        return sides / sides[:, :1]

    def lopsided(self) -> np.ndarray:
        """How far from equal and opposite about the middle: 0 is exactly so."""
        w = self.hidden[:, :6]
        return np.abs(w + w[:, ::-1]).max((1, 2)) / np.abs(w).max((1, 2))


def symmetry(seeds: Sequence[int], sweeps: int = 30_000) -> Symmetry:
    """Is a pattern of six bits its own mirror image? Two hidden units, all 64 patterns."""
    patterns = (np.arange(64)[:, None] >> np.arange(6) & 1).astype(float)
    mirrored = np.all(patterns == patterns[:, ::-1], axis=1, keepdims=True)
    x, d = place(patterns), place(mirrored.astype(float))
    hidden, output = draw(seeds, 0.3, [(6, 2), (2, 1)])
    unlearned, needed = (place(np.full(len(seeds), float(i))) for i in (1, 0))

    def error() -> gg.Tensor:
        y = layer(layer(x, hidden), output)
        worst = gg.max(gg.abs(y.detach() - d), axis=(1, 2))
        unlearned[...] = unlearned * (worst >= 0.5)  # 0, and for good, once all are right
        needed[...] = needed + unlearned
        return gg.sum((y - d) ** 2) / 2

    train(error, [hidden, output], sweeps, epsilon=0.1, alpha=0.9)
    with gg.no_grad():
        final = gg.sum((layer(layer(x, hidden), output) - d) ** 2, axis=(1, 2)) / 2
    counted = np.where(unlearned.get() == 1, 0, needed.get()).astype(int)
    return Symmetry(counted, hidden.get(), output.get(), final.get())


# ---- family trees


class Families(NamedTuple):
    """What became of each network.

    `right` says by three measures which of the facts it answers rightly, (seeds, 104): all outputs
    beyond 0.8 or 0.2, on the right side of 0.5, or the right ones the largest. `held_out` (seeds,
    4) has the numbers of the facts it was not trained on, `people` (seeds, 24, 6) the weights from
    the people, `size` the sum of the squares of all weights.
    """

    right: dict[str, np.ndarray]
    held_out: np.ndarray
    people: np.ndarray
    error: np.ndarray
    size: np.ndarray

    def new(self, measure: str) -> np.ndarray:
        """Which of the four facts that it was not trained on are right: (seeds, 4)."""
        return np.take_along_axis(self.right[measure], self.held_out, axis=1)

    def learned(self, measure: str) -> np.ndarray:
        """How many of the other 100 facts are right: (seeds,)."""
        return self.right[measure].sum(1) - self.new(measure).sum(1)


def families(
    seeds: Sequence[int],
    start: float = 0.3,
    epsilons: tuple[float, float] = (0.05, 0.1),
    shrink: float = 0.002,
    sweeps: int = 9000,
    to_the_end: bool = False,
) -> Families:
    """24 people into 6 units and 12 relations into 6 units, these into 12, then 6, then 24 people.

    The error of an output is what it lacks to 0.8 where it should be on, or what it has above 0.2.
    With `to_the_end` it is what it lacks to 1 or 0, and nothing once it is beyond 0.8 or 0.2.
    """
    everything = facts()
    person, relation, answers = (
        np.array([[float(name in chosen) for name in names] for chosen in column])
        for names, column in [
            (PEOPLE, [{fact.person} for fact in everything]),
            (RELATIONS, [{fact.relation} for fact in everything]),
            (PEOPLE, [fact.answers for fact in everything]),
        ]
    )
    order = np.stack([np.random.default_rng([seed, 104]).permutation(104) for seed in seeds])
    held_out, kept = order[:, :4], order[:, 4:]
    weights = draw(seeds, start, [(24, 6), (12, 6), (12, 12), (12, 6), (6, 24)])

    def net(person: gg.Tensor, relation: gg.Tensor) -> gg.Tensor:
        of_person, of_relation, *above = weights
        y = gg.concat([layer(person, of_person), layer(relation, of_relation)], axis=-1)
        for w in above:
            y = layer(y, w)
        return y

    inputs, on = [place(person[kept]), place(relation[kept])], place(answers[kept] == 1)

    def error() -> gg.Tensor:
        y = net(*inputs)
        if to_the_end:
            miss = gg.where(on, gg.where(y < 0.8, y - 1, 0.0), gg.where(y > 0.2, y, 0.0))
        else:
            miss = gg.where(on, gg.minimum(y - 0.8, 0.0), gg.maximum(y - 0.2, 0.0))
        return gg.sum(miss**2, axis=(1, 2)) / 2

    for epsilon, alpha, count in [(epsilons[0], 0.5, 20), (epsilons[1], 0.9, sweeps - 20)]:
        train(lambda: gg.sum(error()), weights, count, epsilon, alpha, shrink)

    with gg.no_grad():
        y, left = net(place(person), place(relation)).get(), error().get()
    least = np.where(answers == 1, y, np.inf).min(axis=-1)  # of the outputs that should be on
    most = np.where(answers == 1, -np.inf, y).max(axis=-1)  # and of the others
    right = {
        "0.8/0.2": (least > 0.8) & (most < 0.2),
        "0.5": (least > 0.5) & (most < 0.5),
        "largest": least > most,
    }
    arrays = [w.get() for w in weights]
    size = sum((w**2).sum((1, 2)) for w in arrays)
    return Families(right, held_out, arrays[0][:, :-1], left, size)


# ---- what is printed

PRINTED = (0.005, 0.01)  # epsilon in the paper: for 20 sweeps, then for the others
SETTINGS: list[tuple[str, dict[str, Any]]] = [
    ("as printed, weights from 0.3", {"sweeps": 1500, "epsilons": PRINTED}),
    ("as printed, weights from 1", {"sweeps": 1500, "epsilons": PRINTED, "start": 1.0}),
    ("... and no shrinking", {"sweeps": 1500, "epsilons": PRINTED, "start": 1.0, "shrink": 0.0}),
    ("epsilon times 10, from 1", {"sweeps": 1500, "start": 1.0}),
    ("... and errors to 1 and 0", {"sweeps": 1500, "start": 1.0, "to_the_end": True}),
    ("epsilon times 10, from 0.3", {"sweeps": 1500}),
    ("... and 9,000 sweeps", {}),
]


def print_equations() -> None:
    print(f"{'equation':44}{'by hand':>20}{'gpugrad':>20}  difference")
    for number, formula, hand, tape in equations():
        gap = np.max(np.abs(hand - tape))
        first = [float(np.ravel(x)[0]) for x in (hand, tape)]
        print(f"{number} {formula:40}{first[0]:20.15f}{first[1]:20.15f}  {gap:.0e}")
        assert gap < 1e-12, f"equation {number} and the tape differ by {gap:.0e}"


def print_symmetry(seeds: Sequence[int]) -> Symmetry:
    found = symmetry(seeds)
    print("\nsymmetry: seed, sweeps until all 64 are right, ratio of the weights, asymmetry")
    for seed, needed, ratio, gap in zip(
        seeds, found.needed, found.ratios(), found.lopsided(), strict=True
    ):
        text = " : ".join(f"{x:.2f}" for x in ratio)
        print(f"{seed:4} {needed:7,}   {text}   {gap:.4f}" if needed else f"{seed:4}   never")
    done = np.sort(found.needed[found.needed > 0])
    print(f"{done.size} of {len(seeds)} learned it; the paper's network needed 1,425 sweeps")
    if done.size:
        print(f"from {done[0]:,} to {done[-1]:,} sweeps, median {np.median(done):,.0f}")
    return found


def print_families(seeds: Sequence[int]) -> Families:
    print(
        "\nfamily trees                sum of        right of 100:       of 4 new:  networks with\n"
        "                               w^2      E  0.8/0.2    0.5   0.5   largest  0 1 2 3 4 new"
    )
    for name, options in SETTINGS:
        run = families(seeds, **options)
        new = run.new("0.5").sum(1)
        print(
            f"{name:28}{run.size.mean():6,.0f}{run.error.mean():7.2f}"
            f"{run.learned('0.8/0.2').mean():9.1f}{run.learned('0.5').mean():7.1f}"
            f"{new.mean():6.2f}{run.new('largest').sum(1).mean():10.2f}"
            f"  {' '.join(map(str, np.bincount(new, minlength=5)))}"
        )
    answers = [(fact.relation, fact.answers) for fact in facts()]
    shared = np.array([answers.count(answer) > 1 for answer in answers])[run.held_out]
    right = run.new("0.5")
    print(
        f"last line: {right[shared].sum()} of {shared.sum()} new facts are right whose answer "
        f"somebody else has too, {right[~shared].sum()} of {(~shared).sum()} of the others"
    )
    return run


def main(argv: Sequence[str] | None = None) -> None:
    """Run all three with the arguments `argv`, by default those of the command line."""
    parser = argparse.ArgumentParser(description="Rumelhart, Hinton and Williams 1986, run again.")
    parser.add_argument("--seeds", type=int, default=20, help="networks of each task (%(default)s)")
    parser.add_argument("--plot", type=Path, metavar="FOLDER", help="two pictures, as SVG")
    args = parser.parse_args(argv)
    if args.seeds < 1:
        parser.error("--seeds: one at least")
    plot = need("rumelhart1986_plot") if args.plot else None
    print_equations()
    mirror = print_symmetry(range(args.seeds))
    trees = print_families(range(args.seeds))
    if plot:
        args.plot.mkdir(parents=True, exist_ok=True)
        plot.symmetry(args.plot / "rumelhart1986_symmetry.svg", mirror)
        plot.families(args.plot / "rumelhart1986_families.svg", trees)
        print(f"pictures: {args.plot}")


if __name__ == "__main__":
    main()
