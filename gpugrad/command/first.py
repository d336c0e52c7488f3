"""The time of a first call, measured in a process of its own.

    python -m gpugrad.command.first LABEL DEVICE BATCH

prints, for the variant LABEL of the network task, the seconds that it takes to build the training
step and to run it for the first time: to record or trace it, compile it and compute it. The library
has been imported and has run the same step uncompiled before.
"""

from __future__ import annotations

import sys
import time

import gpugrad as gg

from . import bench, tasks


def main(label: str, device: str, batch: int) -> float:
    """The seconds for the variant `label`."""
    inputs = tasks.mnist(batch)
    variants = {v.label: v for v in tasks.VARIANTS if v.task == tasks.NETWORK}
    reason = tasks.unavailable(variants[label].library, device)
    if reason is not None:
        sys.exit(f"{label}: {variants[label].library} {reason}")
    wait = bench.waiter(gg.device(device))
    wait(variants[tasks.UNCOMPILED[label]].build(inputs, device).run())
    start = time.perf_counter()
    wait(variants[label].build(inputs, device).run())
    return time.perf_counter() - start


if __name__ == "__main__":
    print(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
