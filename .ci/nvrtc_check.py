"""Compile recorded CUDA programs to machine code with NVRTC, no GPU needed.

    python .ci/nvrtc_check.py FOLDER [ARCH ...]

FOLDER holds one JSON file per program: `src`, the compiler's `options` and the `names` of the
template instances wanted. Each program is compiled for every ARCH (80, 90 and 100 unless told).
Prints the registers used; exits 1 if a program fails, if registers spill, or if there is none.

Programs are compiled several at a time, each in a namespace of its own after the headers that
they share; that takes half the time. A unit that does not compile is halved, down to the program
at fault.

Of CuPy's own programs that differ in nothing but the layout of their arrays, the one with the most
axes is compiled: what a layout changes is CuPy's, and our kernels are compiled in every one.
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

TOGETHER = 32  # programs in one unit; more of them gain nothing

INCLUDE = re.compile(r"^[ \t]*#[ \t]*include\b.*$", re.MULTILINE)
DEFINE = re.compile(r"^[ \t]*#[ \t]*define[ \t]+(\w+)", re.MULTILINE)
ENTRY = re.compile(r"(__global__\s+(?:void\s+|__launch_bounds__\s*\([^)]*\)\s*)*)(\w+)(?=\s*\()")
LAYOUT = re.compile(r"(\bCArray<[^;{}]*?), \d+, [01], [01]>|(\bCIndexer)<\d+, [01]>")
AXES = re.compile(r"\bCIndexer<(\d+)")
KERNEL = re.compile(
    r"Compiling entry function '(?P<name>\w+)'"
    r".*?(?P<stored>\d+) bytes spill stores, (?P<loaded>\d+) bytes spill loads"
    r".*?Used (?P<registers>\d+) registers",
    re.DOTALL,
)


class Program(NamedTuple):
    file: str
    source: str
    options: tuple[str, ...]  # without the architecture
    names: tuple[str, ...]

    @classmethod
    def read(cls, path: Path) -> Program:
        found = json.loads(path.read_text())
        given = found["options"]
        options = [o for o in given if not o.startswith(("-arch", "--gpu-architecture"))]
        return cls(path.name, found["src"], tuple(options), tuple(found["names"]))

    @property
    def shared(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """What programs that are compiled together have in common: headers and options."""
        return tuple(line.strip() for line in INCLUDE.findall(self.source)), self.options


class Kernel(NamedTuple):
    name: str
    arch: str
    registers: int
    spilled: int  # bytes stored and loaded again


class Result(NamedTuple):
    kernels: list[Kernel]
    errors: list[str]  # the compiler's log of each program that failed


def joined(programs: list[Program]) -> str:
    """One source with all the programs; their kernels are named NAME__0, NAME__1, ..."""
    text = list(programs[0].shared[0])
    for number, program in enumerate(programs):
        body = ENTRY.sub(rf"\1\2__{number}", INCLUDE.sub("", program.source))
        text.append(f"namespace program_{number} {{\n{body}\n}}")
        text += [f"#undef {name}" for name in dict.fromkeys(DEFINE.findall(body))]
    return "\n".join(text)


def compile_source(
    source: str, options: tuple[str, ...], names: tuple[str, ...], arch: str
) -> tuple[list[Kernel], str]:
    """The kernels, and the compiler's log if it failed."""
    handle = nvrtc.createProgram(source, "program.cu", (), ())
    try:
        for name in names:
            nvrtc.addNameExpression(handle, name)
        try:
            flags = [*options, f"-arch=sm_{arch}", "--ptxas-options=-v", "--pch"]
            nvrtc.compileProgram(handle, flags)
        except nvrtc.NVRTCError as failure:
            return [], f"{failure}\n{nvrtc.getProgramLog(handle)}"
        log = nvrtc.getProgramLog(handle)
    finally:
        nvrtc.destroyProgram(handle)
    kernels = [
        Kernel(
            re.sub(r"__\d+$", "", k["name"]),
            arch,
            int(k["registers"]),
            int(k["stored"]) + int(k["loaded"]),
        )
        for k in KERNEL.finditer(log)
    ]
    return kernels, ""


def compile_unit(job: tuple[list[Program], str]) -> Result:
    """Compile programs that share headers and options for one architecture."""
    programs, arch = job
    alone = len(programs) == 1
    source = programs[0].source if alone else joined(programs)
    kernels, error = compile_source(source, programs[0].options, programs[0].names, arch)
    if not error and len(kernels) >= len(programs):
        return Result(kernels, [])
    if alone:
        message = error or "no kernel in the compiler's log"
        return Result(kernels, [f"{programs[0].file}, sm_{arch}: {message}"])
    middle = len(programs) // 2
    first, second = (compile_unit((part, arch)) for part in (programs[:middle], programs[middle:]))
    return Result(first.kernels + second.kernels, first.errors + second.errors)


def distinct(programs: list[Program]) -> list[Program]:
    """All but those of CuPy's own that another one stands for."""
    found: dict[tuple[str, ...], Program] = {}
    for program in sorted(programs, key=axes_of, reverse=True):
        text = LAYOUT.sub(r"\1\2>", program.source) if cupys_own(program) else program.source
        found.setdefault((text, *program.options, *program.names), program)
    return list(found.values())


def cupys_own(program: Program) -> bool:
    entries = [name for _, name in ENTRY.findall(program.source)]
    return all(name.startswith("cupy") for name in entries) and "gpugrad" not in program.source


def axes_of(program: Program) -> list[int]:
    return sorted(map(int, AXES.findall(program.source)), reverse=True)


def units_of(programs: list[Program]) -> list[list[Program]]:
    """Programs to be compiled together; one with template instances is by itself."""
    groups = defaultdict(list)
    for program in programs:
        groups[program.file if program.names else program.shared].append(program)
    return [
        group[start : start + TOGETHER]
        for group in groups.values()
        for start in range(0, len(group), TOGETHER)
    ]


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
    programs = [Program.read(path) for path in sorted(Path(folder).glob("*.json"))]
    wanted = list(archs) or ["80", "90", "100"]
    kept = distinct(programs)
    units = sorted(units_of(kept), key=lambda unit: -len(joined(unit)))  # the longest work first
    jobs = [(unit, arch) for arch in wanted for unit in units]  # --pch: headers per target
    with TemporaryDirectory() as scratch:  # for precompiled headers: the workers leave them
        os.environ["TMPDIR"] = scratch
        with get_context("spawn").Pool(len(os.sched_getaffinity(0))) as pool:
            results = list(pool.imap_unordered(compile_unit, jobs))
    kernels = [kernel for result in results for kernel in result.kernels]
    errors = [error for result in results for error in result.errors]
    spills = [kernel for kernel in kernels if kernel.spilled]
    print_table(kernels, wanted)
    for error in errors:
        print(error)
    for kernel in spills:
        print(f"{kernel.name}, sm_{kernel.arch}: {kernel.spilled} bytes spilled")
    print(
        f"{len(programs)} programs, {len(kept)} of them compiled in {len(units)} units "
        f"for sm_{', sm_'.join(wanted)}: "
        f"{len(kernels)} kernels, {len(errors)} errors, {len(spills)} kernels spill; "
        f"{time.perf_counter() - start:.0f} s"
    )
    return 1 if errors or spills or not programs else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
