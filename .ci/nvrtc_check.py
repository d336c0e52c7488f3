"""Compile recorded CUDA programs to machine code with NVRTC, no GPU needed.

    python .ci/nvrtc_check.py FOLDER [ARCH ...]

FOLDER holds one JSON file per program: `src`, the compiler's `options` and the `names` of the
template instances wanted. Each program is compiled for every ARCH (80 and 90 unless told). Prints
the registers used; exits 1 if a program fails, if registers spill, or if there is no program.
"""

from __future__ import annotations

import json
import os
import re
import sys
import time
from collections import defaultdict
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from cupy.cuda import nvrtc

KERNEL = re.compile(
    r"Compiling entry function '(?P<name>\w+)'"
    r".*?(?P<stored>\d+) bytes spill stores, (?P<loaded>\d+) bytes spill loads"
    r".*?Used (?P<registers>\d+) registers",
    re.DOTALL,
)


class Kernel(NamedTuple):
    name: str
    arch: str
    registers: int
    spilled: int  # bytes stored and loaded again


class Result(NamedTuple):
    kernels: list[Kernel]
    error: str  # the compiler's log if it failed
    seconds: float


def compile_program(job: tuple[Path, str]) -> Result:
    """Compile one program for one architecture."""
    path, arch = job
    program = json.loads(path.read_text())
    options = [o for o in program["options"] if not o.startswith(("-arch", "--gpu-architecture"))]
    options += [f"-arch=sm_{arch}", "--ptxas-options=-v", "--pch"]
    start = time.perf_counter()
    handle = nvrtc.createProgram(program["src"], path.stem + ".cu", (), ())
    try:
        for name in program["names"]:
            nvrtc.addNameExpression(handle, name)
        error = ""
        try:
            nvrtc.compileProgram(handle, options)
        except nvrtc.NVRTCError as failure:
            error = f"{path.name}, sm_{arch}: {failure}\n{nvrtc.getProgramLog(handle)}"
        kernels = [
            Kernel(k["name"], arch, int(k["registers"]), int(k["stored"]) + int(k["loaded"]))
            for k in KERNEL.finditer(nvrtc.getProgramLog(handle))
        ]
    finally:
        nvrtc.destroyProgram(handle)
    if not kernels and not error:
        error = f"{path.name}, sm_{arch}: no kernel in the compiler's log"
    return Result(kernels, error, time.perf_counter() - start)


def family(kernel: Kernel) -> str:
    """The name the table shows: one for all that CuPy itself brings."""
    return kernel.name if kernel.name.startswith("gpugrad_") else "(CuPy's own)"


def print_table(kernels: list[Kernel], archs: list[str]) -> None:
    """One line per family: how many kernels, the most registers of one, bytes spilled by all."""
    families = defaultdict(list)
    for kernel in kernels:
        families[family(kernel)].append(kernel)
    width = max(map(len, families), default=0)
    columns = "".join(f"{'sm_' + arch:>8}" for arch in archs)
    print(f"{'kernel':{width}} {'compiled':>9}{columns} {'spilled':>8}   (sm_: most registers)")
    for name, members in sorted(families.items()):
        most = [max((k.registers for k in members if k.arch == arch), default=0) for arch in archs]
        registers = "".join(f"{value:>8}" for value in most)
        print(f"{name:{width}} {len(members):>9}{registers} {sum(k.spilled for k in members):>8}")


def main(folder: str, *archs: str) -> int:
    """The exit status: 0 if everything compiled without a spill."""
    start = time.perf_counter()
    programs = sorted(Path(folder).glob("*.json"))
    wanted = list(archs) or ["80", "90"]
    jobs = [(path, arch) for arch in wanted for path in programs]  # --pch: headers per target
    with TemporaryDirectory() as scratch:  # for precompiled headers: the workers leave them
        os.environ["TMPDIR"] = scratch
        with get_context("spawn").Pool(len(os.sched_getaffinity(0))) as pool:
            results = pool.map(compile_program, jobs, chunksize=16)
    kernels = [kernel for result in results for kernel in result.kernels]
    errors = [result.error for result in results if result.error]
    spills = [kernel for kernel in kernels if kernel.spilled]
    print_table(kernels, wanted)
    for error in errors:
        print(error)
    for kernel in spills:
        print(f"{kernel.name}, sm_{kernel.arch}: {kernel.spilled} bytes spilled")
    print(
        f"{len(programs)} programs for sm_{', sm_'.join(wanted)}: {len(errors)} errors, "
        f"{len(spills)} kernels spill; {time.perf_counter() - start:.0f} s, the slowest program "
        f"{max((result.seconds for result in results), default=0):.1f} s"
    )
    return 1 if errors or spills or not programs else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
