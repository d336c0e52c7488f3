"""Measure the Jacobian of tanh(W x), and of a second such layer, beside other ways to it.

    python benchmarks/jacobian.py [--size 1000] [--device cuda] [--threads 2] [--rounds 11]

gpugrad's Jacobian, the same by one sweep per row, `torch.func.jacrev` and `jax.jacrev` (compiled)
where they are installed; all in float32. Before anything is timed all must agree with the product
of matrices by hand. How it is timed: README.md.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import compare
import report


@dataclass
class Job:
    """One way to the Jacobian, on its own arrays, and how its result reaches the host."""

    run: Callable[[], Any]
    get: Callable[[Any], Any]


def gpugrad_job(weights: Sequence[Any], x: Any, device: str) -> Job:
    import gpugrad as gg

    ws, point = [gg.asarray(w, device=device) for w in weights], gg.asarray(x, device=device)
    jacobian = gg.jacobian(lambda x: _layers(gg.tanh, gg.matmul, ws, x))
    return Job(lambda: jacobian(point), lambda out: out.get())


def sweeps_job(weights: Sequence[Any], x: Any, device: str) -> Job:
    import gpugrad as gg

    ws, point = [gg.asarray(w, device=device) for w in weights], gg.asarray(x, device=device)
    units = list(gg.eye(x.size, dtype=x.dtype, device=device))

    def run() -> Any:
        _, pullback = gg.vjp(lambda x: _layers(gg.tanh, gg.matmul, ws, x), point)
        return gg.stack([pullback(unit)[0] for unit in units])

    return Job(run, lambda out: out.get())


def torch_job(weights: Sequence[Any], x: Any, device: str) -> Job:
    import torch

    ws, point = [torch.tensor(w, device=device) for w in weights], torch.tensor(x, device=device)
    jacobian = torch.func.jacrev(lambda x: _layers(torch.tanh, torch.matmul, ws, x))
    return Job(lambda: jacobian(point), lambda out: out.cpu().numpy())


def jax_job(weights: Sequence[Any], x: Any, device: str) -> Job:
    import jax
    import jax.numpy as jnp
    import numpy as np

    jacobian = jax.jit(jax.jacrev(lambda x, ws: _layers(jnp.tanh, jnp.matmul, ws, x)))
    ws, point = [jnp.asarray(w) for w in weights], jnp.asarray(x)
    return Job(lambda: jacobian(point, ws).block_until_ready(), np.asarray)


JOBS = {
    "gpugrad": ("gpugrad", gpugrad_job),
    "gpugrad, a sweep per row": ("gpugrad", sweeps_job),
    "torch.func.jacrev": ("torch", torch_job),
    "jax.jit(jax.jacrev)": ("jax", jax_job),
}


def _layers(tanh: Any, matmul: Any, weights: Sequence[Any], x: Any) -> Any:
    for w in weights:
        x = tanh(matmul(w, x))
    return x


def by_hand(weights: Sequence[Any], x: Any) -> Any:
    import numpy as np

    x, total = x.astype(float), np.eye(x.size)
    for w in weights:
        x = np.tanh(w @ x)
        total = (1 - x**2)[:, None] * (w @ total)
    return total


def topic(size: int, layers: int, device: str, libraries: Sequence[str]) -> Any:
    """The topic and its entries, checked.

    Raises:
        compare.Failed: if a Jacobian is wrong.
    """
    import numpy as np

    rng = np.random.default_rng(0)
    weights = [
        (rng.standard_normal((size, size)) / size**0.5).astype("float32") for _ in range(layers)
    ]
    x = rng.standard_normal(size).astype("float32")
    right = by_hand(weights, x)
    entries = []
    for label, (library, make) in JOBS.items():
        if library in libraries:
            job = make(weights, x, device)
            got = job.get(job.run())
            if got.shape != right.shape or np.abs(got - right).max() > 1e-4 * np.abs(right).max():
                raise compare.Failed(f"{label}: the Jacobian is wrong")
            entries.append(compare.Entry(label, None, None, job=job))
    name = f"jacobian-{layers}"
    title = f"{size:,} x {size:,} Jacobian of {layers} layer(s) tanh(W x), float32"
    return report.Topic(name, title, "µs"), entries


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--size", type=int, default=1000)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=compare.Scale.rounds)
    parser.add_argument("--quick", action="store_true", help="tiny sizes: a test of this script")
    args = parser.parse_args(argv)
    os.environ.update(compare.settings(args.device, args.threads))
    scale = compare.QUICK if args.quick else compare.Scale(rounds=args.rounds)
    size = 8 if args.quick else args.size
    try:
        libraries, missing = compare.available(["gpugrad", "torch", "jax"], args.device)
        print(report.header(report.machine(args.device, args.threads, libraries), missing))
        for layers in (1, 2):
            timed, entries = topic(size, layers, args.device, libraries)
            compare.measure(timed, entries, scale, compare.waiter(args.device))
            print(f"\n{timed.table()}", flush=True)
    except compare.Failed as error:
        print(f"jacobian.py: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
