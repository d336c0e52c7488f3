"""Peak memory of one training step, measured in a process of its own.

    python -m gpugrad.command.memory LABEL DEVICE DEPTH WIDTH

prints, for the variant LABEL of the network task, the bytes that the second step takes at its
height above what is held between two steps (libraries, data, parameters); the first step compiles
and warms up. On the CPU that is resident memory, after the allocator has given back what is free;
on a CUDA device what the library's allocator has handed out.
"""

from __future__ import annotations

import ctypes
import gc
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .. import backends
from . import tasks


def host_peak(run: Callable[[], Any]) -> int:
    """Growth of the resident memory of this process during `run`, in bytes (Linux, glibc)."""
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    before = _status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew: proc(5)
    run()
    return _status("VmHWM") - before


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(name))


def torch_peak(run: Callable[[], Any]) -> int:
    """Growth of what PyTorch's CUDA allocator has handed out during `run`, in bytes."""
    import torch

    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    run()
    return torch.cuda.max_memory_allocated() - before


def main(label: str, device: str, depth: int, width: int) -> int:
    """The bytes for the variant `label`.

    Raises:
        Mismatch: if its loss or gradients are wrong.
    """
    variant = next(v for v in tasks.VARIANTS if (v.task, v.label) == (tasks.NETWORK, label))
    reason = tasks.unavailable(variant.library, device)
    if reason is not None:
        sys.exit(f"{label}: {variant.library} {reason}")
    inputs = tasks.deep(depth, width)
    job = variant.build(inputs, device)
    job.run()
    gc.collect()
    if device == "cpu":
        found = host_peak(job.run)
    elif variant.library == "torch":
        found = torch_peak(job.run)
    else:
        where = backends.device(device)
        found = backends.backend_of_kind(where.kind).peak(where, job.run)
    right = tasks.expected(tasks.NETWORK, inputs)
    tasks.check(
        f"{label}, deep network", tasks.outcome(inputs, variant.build(inputs, device)), right
    )
    return found


if __name__ == "__main__":
    try:
        print(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])))
    except tasks.Mismatch as error:
        sys.exit(str(error))
