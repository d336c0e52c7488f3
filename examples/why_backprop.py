"""Why back-propagation: one gradient with it and without, counted and timed.

    python examples/why_backprop.py

A network for handwritten digits, with 784 inputs, 100 hidden units and 10 outputs, has 79,510
parameters. Without back-propagation each is nudged in turn, dC/dw = [C(w + h) - C(w)] / h, and
every nudge takes a pass through the network. A text that explains back-propagation estimates 123
hours for an epoch of that, over 60,000 images. Here a sample of the parameters is nudged, and the
time extrapolated to all of them. The images are noise: the time does not depend on what they show.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from statistics import median

import numpy as np

import gpugrad as gg

SIZES = 784, 100, 10
EPOCH = 60_000  # images
ESTIMATE = 123 * 3600  # seconds
H = 1e-6

Data = tuple[gg.Tensor, gg.Tensor]  # images (n, 784), targets (n, 10)
Place = tuple[gg.Tensor, int]  # an array of parameters, the number of one in it


def multiplications(sizes: Sequence[int]) -> tuple[int, int]:
    """Of a weight with a value, for one image: in a pass forwards; in one forwards and one back.

    On the way back a weight is met twice: for its own derivative, and for that of its input. The
    first layer's inputs are the image, whose derivative nobody wants.
    """
    forwards = sum(m * n for m, n in pairwise(sizes))
    return forwards, 3 * forwards - sizes[0] * sizes[1]


def parameters(rng: np.random.Generator) -> list[gg.Tensor]:
    """Weights (m, n) and biases (n,) of each layer, small and random."""
    shapes = [shape for m, n in pairwise(SIZES) for shape in ((m, n), (n,))]
    device = gg.default_device()
    values = (rng.normal(0, 0.05, shape) for shape in shapes)
    return [gg.asarray(x, device=device, requires_grad=True) for x in values]


def cost(params: list[gg.Tensor], images: gg.Tensor, targets: gg.Tensor) -> gg.Tensor:
    """The mean squared error."""
    x = images
    for weights, biases in zip(params[::2], params[1::2], strict=True):
        x = gg.sigmoid(x @ weights + biases)
    return gg.nn.mean_squared_error(x, targets)


def finite_differences(params: list[gg.Tensor], data: Data, places: list[Place]) -> list[float]:
    """dC/dw of the parameters in `places`: a pass for each, and one for all."""
    found = []
    with gg.no_grad():
        before = float(cost(params, *data))
        for parameter, k in places:
            w = gg.reshape(parameter, (-1,))  # a view
            old = w[k]
            w[k] = old + H
            found.append((float(cost(params, *data)) - before) / H)
            w[k] = old
    return found


def backward(params: list[gg.Tensor], data: Data) -> None:
    """dC/dw of all parameters, into `.grad`: one pass forwards and one backwards."""
    for p in params:
        p.grad = None
    cost(params, *data).backward()
    float(params[0].grad[0, 0])  # waits for the device


def seconds(f: Callable, repeats: int) -> float:
    """The median time of `f()`, after a first call to warm up."""
    times = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        f()
        times.append(time.perf_counter() - start)
    return median(times[1:])


def spell(t: float) -> str:
    """A time with its unit: 1.2 ms, 3.4 s, 5.6 hours."""
    for unit, length in (("hours", 3600), ("minutes", 60), ("s", 1), ("ms", 1e-3)):
        if t >= length:
            return f"{t / length:.3g} {unit}"
    return f"{t * 1e6:.3g} us"


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="One gradient with and without back-propagation.")
    add = parser.add_argument
    add("--images", type=int, default=1000, help="of a batch (%(default)s)")
    add("--sample", type=int, default=200, help="parameters to nudge (%(default)s)")
    args = parser.parse_args(argv)

    rng = np.random.default_rng(0)
    params = parameters(rng)
    device = params[0].device
    images = gg.asarray(rng.uniform(0, 1, (args.images, SIZES[0])), device=device)
    targets = gg.asarray(np.eye(10)[rng.integers(0, 10, args.images)], device=device)
    all_places = [(p, k) for p in params for k in range(p.size)]
    which = np.sort(rng.choice(len(all_places), args.sample, replace=False))
    places = [all_places[i] for i in which]

    passes = len(all_places) + 1
    forwards, both = multiplications(SIZES)
    print(f"{'-'.join(map(str, SIZES))}: {len(all_places):,} parameters, float64, on {device}")
    print("\nmultiplications for one image")
    print(f"  a pass forwards                   {forwards:14,}")
    print(f"  gradient, back-propagation        {both:14,}   {both / forwards:.2f} passes")
    print(f"  gradient, finite differences      {forwards * passes:14,}   {passes:,} passes")
    pace = ESTIMATE / passes / EPOCH
    print(f"\nthe estimate: {passes:,} passes for each of {EPOCH:,} images in 123 hours are")
    print(f"  {spell(pace)} each, {forwards / pace / 1e9:.2f} billion multiplications per second")

    for size in (1, args.images):
        data = images[:size, :], targets[:size, :]
        nudged = finite_differences(params, data, places)
        backward(params, data)
        tape = np.concatenate([p.grad.get().ravel() for p in params])[which]
        gap = np.abs(nudged - tape).max() / np.abs(tape).max()
        assert gap < 1e-5

        sample = seconds(lambda: finite_differences(params, data, places), 5)  # noqa: B023
        slow = sample / (args.sample + 1) * passes
        fast = seconds(lambda: backward(params, data), 51)  # noqa: B023
        epoch = EPOCH / size
        title = f"measured, {size:,} image{'s' * (size > 1)} at a time"
        print(f"\n{title:32}{'one gradient':>14}{'one epoch':>14}")
        print(f"  {'finite differences':30}{spell(slow):>14}{spell(slow * epoch):>14}")
        print(f"  {'back-propagation':30}{spell(fast):>14}{spell(fast * epoch):>14}")
        print(f"  {slow / fast:,.0f} times as fast; a sample of {args.sample} nudges took", end=" ")
        print(f"{spell(slow / passes)} each;\n  both agree to {gap:.0e} of the largest derivative")


if __name__ == "__main__":
    main()
