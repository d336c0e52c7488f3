"""Peak memory of one training step, measured in a process of its own.

    python -m gpugrad.command.memory LABEL DEVICE DEPTH WIDTH [DROPOUT]

prints, for the variant LABEL of the network task (with DROPOUT of the one that computes things
twice), the bytes that the second step takes at its
height above what is held between two steps (libraries, data, parameters); the first step compiles
and warms up. On the CPU that is resident memory, after the allocator has given back what is free;
on a CUDA device what the library's allocator has handed out.
"""

from __future__ import annotations

import ctypes
import gc
import sys
from collections.abc import Callable
from typing import Any

from ..backends import memory
from . import tasks


def growth(run: Callable[[], Any], device: str) -> int:
    """Growth of `gpugrad.memory` at the height of `run`, in bytes; on the CPU for glibc."""
    if device == "cpu":
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    before = memory(device, reset_peak=True).used
    run()
    return memory(device).peak - before


def torch_growth(run: Callable[[], Any]) -> int:
    """Growth of what PyTorch's CUDA allocator has handed out during `run`, in bytes."""
    import torch

    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    run()
    return torch.cuda.max_memory_allocated() - before


def main(label: str, device: str, depth: int, width: int, dropout: float | None = None) -> int:
    """The bytes for the variant `label`.

    Raises:
        Mismatch: if its loss or gradients are wrong.
    """
    inputs: Any = tasks.deep(depth, width)
    task = tasks.NETWORK
    if dropout is not None:
        inputs, task = tasks.Dropped(inputs, dropout), tasks.CHECKPOINT
    variant = next(v for v in tasks.VARIANTS if (v.task, v.label) == (task, label))
    reason = tasks.unavailable(variant.library, device)
    if reason is not None:
        sys.exit(f"{label}: {variant.library} {reason}")
    job = variant.build(inputs, device)
    job.run()
    gc.collect()
    on_gpu = variant.library == "torch" and device != "cpu"
    found = torch_growth(job.run) if on_gpu else growth(job.run, device)
    if dropout is not None:
        tasks.check_repeated(variant, inputs, job, device)
    else:
        right = tasks.expected(task, inputs)
        again = tasks.outcome(inputs, variant.build(inputs, device))
        tasks.check(f"{label}, deep network", again, right)
    return found


if __name__ == "__main__":
    label, device, depth, width, *dropout = sys.argv[1:]
    try:
        print(main(label, device, int(depth), int(width), *map(float, dropout)))
    except tasks.Mismatch as error:
        sys.exit(str(error))
