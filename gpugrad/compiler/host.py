"""Fused loops as machine code for the CPU, made by the C++ compiler that is found.

Libraries are kept on disk, in the folder that the setting GPUGRAD_CACHE_DIR names, else in the
user's folder for such files. Nothing here raises warnings of floating point, as NumPy does.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .host_source import source
from .loops import Loop

# Exact in NaN, infinities and signed zeros, and without contraction to fused multiply-adds: sums,
# products, quotients and roots have NumPy's bits. Complex products and quotients are NumPy's, too:
# C's would look for infinities in those that are NaN, which keeps them from being vectorised.
_FLAGS = (
    *("-std=c++14", "-O3", "-shared", "-fPIC", "-w", "-ffp-contract=off"),
    *("-fno-math-errno", "-fno-trapping-math", "-fwrapv", "-fno-strict-aliasing"),
)
# the first that a compiler takes; without OpenMP there is one thread
_MORE_FLAGS = (
    ("-march=native", "-fopenmp", "-fcx-fortran-rules"),
    ("-march=native", "-fopenmp"),
    ("-march=native", "-fopenmp-simd"),
    (),
)


class CompilerError(RuntimeError):
    """There is no C++ compiler, or it refuses a source; the message has what it says."""


@functools.cache
def _command() -> tuple[str, ...]:
    """How the C++ compiler is called; empty if there is none."""
    if (setting := os.environ.get("GPUGRAD_CXX")) is not None:
        candidates = [setting]
    else:
        candidates = [os.environ.get("CXX", ""), "c++", "g++", "clang++"]
    for candidate in candidates:
        words = shlex.split(candidate)
        if words and (path := shutil.which(words[0])):
            return (path, *words[1:])
    return ()


def compiler() -> str | None:
    """The C++ compiler: the setting GPUGRAD_CXX, else CXX, else c++, g++ or clang++ on the path.

    None if there is none, as when GPUGRAD_CXX names nothing that can be found.
    """
    return " ".join(_command()) or None


@functools.cache
def _machine() -> str:
    """What machine code depends on besides its source: the compiler and the CPU."""
    version = subprocess.run([*_command(), "--version"], capture_output=True, text=True).stdout
    try:
        lines = Path("/proc/cpuinfo").read_text().split("\n\n")[0].split("\n")
        cpu = [
            line for line in lines if line.startswith(("model name", "flags", "Features", "CPU"))
        ]
    except OSError:
        cpu = [platform.node(), platform.processor()]
    return repr((_command(), version, _FLAGS, _MORE_FLAGS, sys.platform, platform.machine(), cpu))


def cache_folder() -> Path:
    """Where libraries are kept."""
    if setting := os.environ.get("GPUGRAD_CACHE_DIR"):
        return Path(setting)
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "gpugrad"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", Path.home())) / "gpugrad"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "gpugrad"


def default_threads() -> int:
    """OMP_NUM_THREADS, else the number of CPUs that the process may use."""
    setting = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    if setting.isdecimal() and int(setting) > 0:
        return int(setting)
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class _Threads:
    """Numbers of threads, for libraries to read: 1 in a process that was forked.

    There the threads of OpenMP are gone, and it would wait for them forever.
    """

    def __init__(self) -> None:
        self._numbers: dict[int, ctypes.c_int] = {}
        self._forked = False
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._after_fork)

    def number(self, threads: int) -> ctypes.c_int:
        return self._numbers.setdefault(threads, ctypes.c_int(1 if self._forked else threads))

    def _after_fork(self) -> None:
        self._forked = True
        for number in self._numbers.values():
            number.value = 1


_threads = _Threads()


def build(loops: Sequence[Loop], threads: int | None = None) -> Library:
    """The loops as machine code, from the folder of libraries if it is there.

    Args:
        loops: at least one.
        threads: for large loops; results do not depend on it. None: `default_threads()`. In a
            process that is forked later, there is one.

    Raises:
        CompilerError: if there is no compiler, or it refuses the text.
        ValueError: if strides are no multiples of the size of an element.
    """
    text = source(loops)
    if not _command():
        raise CompilerError(
            "no C++ compiler is found: install one, or name it in the setting GPUGRAD_CXX"
        )
    key = hashlib.sha256(f"{_machine()}\n{text}".encode()).hexdigest()[:32]
    library = _kept(key) or _compiled(text, key)
    return Library(loops, text, library, default_threads() if threads is None else threads)


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


def _kept(key: str) -> ctypes.CDLL | None:
    """The library of a key, from the folder; what is not what was once written there is left."""
    try:
        for path in cache_folder().glob(f"{key}-*.so"):
            if path.stem == f"{key}-{_digest(path.read_bytes())}":
                return _loaded(path)
    except OSError:
        pass
    return None


def _loaded(path: Path) -> ctypes.CDLL:
    """A library. Threads of OpenMP, which comes with the first one, sleep where they would spin.

    Spinning they hold the CPUs that NumPy's products wait for: the step of a network was thirty
    times slower.
    """
    setting = "OMP_WAIT_POLICY"  # read when OpenMP is loaded
    if setting in os.environ:
        return ctypes.CDLL(str(path))
    os.environ[setting] = "passive"
    try:
        return ctypes.CDLL(str(path))
    finally:
        del os.environ[setting]


def _compiled(text: str, key: str) -> ctypes.CDLL:
    with tempfile.TemporaryDirectory(prefix="gpugrad-", ignore_cleanup_errors=True) as name:
        made = Path(name) / "loops.so"
        library = _compile(text, Path(name) / "loops.cpp", made)
        data = made.read_bytes()
    path = cache_folder() / f"{key}-{_digest(data)}.so"
    part = path.with_suffix(f".{os.getpid()}")
    try:  # renamed in one go: another process sees all of it or nothing
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_bytes(data)
        os.replace(part, path)
    except OSError:  # a folder that cannot be written to: the library in use needs no file
        pass
    return library


def _compile(text: str, file: Path, made: Path) -> ctypes.CDLL:
    file.write_text(text)
    said = ""
    for more in _MORE_FLAGS:
        command = [*_command(), *_FLAGS, *more, str(file), "-o", str(made), "-lm"]
        result = subprocess.run(command, capture_output=True, text=True)
        error = result.stderr
        if result.returncode == 0:
            try:
                return _loaded(made)
            except OSError as why:  # a library of OpenMP's that is not there
                error = str(why)
        said = said or f"{shlex.join(command)}\n{error}"
    raise CompilerError(f"the C++ compiler refuses the text of fused loops:\n{said}")


class Library:
    """Loops as machine code. Calls let go of Python's lock.

    Attributes:
        loops: what it was made of.
        source: its text in C++.
    """

    def __init__(
        self, loops: Sequence[Loop], source: str, library: ctypes.CDLL, threads: int
    ) -> None:
        self.loops = tuple(loops)
        self.source = source
        self._threads = _threads.number(threads)
        self._functions = (ctypes.c_void_p * len(self.loops)).in_dll(library, "gpugrad_loops")
        self._run = library.gpugrad_run
        self._run.argtypes = (ctypes.c_void_p,)
        self._run.restype = None

    def __len__(self) -> int:
        return len(self.loops)

    def __getitem__(self, i: int) -> Callable[..., None]:
        """Loop i as a function of the addresses of its inputs, then its outputs."""
        loop = self.loops[i]
        count = len(loop.inputs) + len(loop.outputs)

        def call(*addresses: int) -> None:
            if len(addresses) != count:
                raise ValueError(f"{loop.name} takes {count} addresses, not {len(addresses)}")
            table = self._calls([(i, addresses)])
            self._run(ctypes.addressof(table[0]))

        return call

    def bind(self, i: int, arrays: Sequence[np.ndarray]) -> Bound:
        """Loop i of these arrays, inputs then outputs, as a function without arguments.

        It keeps the arrays, and reads and writes their memory at every call.

        Raises:
            ValueError: if an array has another dtype than the loop, or does not reach as far.
        """
        return self.bind_run([(i, arrays)])

    def bind_run(self, calls: Sequence[tuple[int, Sequence[np.ndarray]]]) -> Bound:
        """Loops one after the other, with the arrays of each, as one function; see `bind`."""
        for i, arrays in calls:
            _check(self.loops[i], arrays)
        table = self._calls([(i, [x.ctypes.data for x in arrays]) for i, arrays in calls])
        return Bound(self._run, table, calls)

    def _calls(self, calls: Sequence[tuple[int, Sequence[int]]]) -> list[Any]:
        """The table that the library's run reads; and the pointers that it points to."""
        pointers = [(ctypes.c_void_p * len(addresses))(*addresses) for _, addresses in calls]
        table = (ctypes.c_longlong * (3 * len(calls) + 1))()  # a function of 0 is the end
        for k, ((i, _), given) in enumerate(zip(calls, pointers)):
            table[3 * k : 3 * k + 3] = [
                self._functions[i] or 0,
                ctypes.addressof(given),
                ctypes.addressof(self._threads),
            ]
        return [table, *pointers]


class Bound(functools.partial):
    """Loops with their arrays, called without arguments.

    A partial object costs less to call than a function in Python.

    Attributes:
        pointers: per loop, the addresses of its arrays, which may be changed: nothing is checked.
    """

    pointers: list[Any]
    _kept: tuple

    def __new__(cls, run: Any, table: list[Any], calls: Sequence[Any]) -> Bound:
        self = super().__new__(cls, run, ctypes.c_void_p(ctypes.addressof(table[0])))
        self.pointers = table[1:]
        self._kept = table, calls  # else the memory at the addresses would be given back
        return self


def _check(loop: Loop, arrays: Sequence[np.ndarray]) -> None:
    operands = loop.inputs | loop.outputs
    if len(arrays) != len(operands):
        raise ValueError(f"{loop.name} takes {len(operands)} arrays, not {len(arrays)}")
    for x, (name, operand) in zip(arrays, operands.items()):
        if x.dtype != operand.dtype:
            raise ValueError(f"{loop.name}: {name} is {x.dtype}, not {operand.dtype}")
        if not x.flags.aligned:
            raise ValueError(f"{loop.name}: {name} is not aligned to its elements: copy it first")
        if name in loop.outputs and not x.flags.writeable:
            raise ValueError(f"{loop.name}: {name} is an output, but cannot be written to")
        if 0 in loop.shape:
            continue
        reach = [s * (n - 1) for s, n in zip(operand.strides, loop.shape, strict=True)]
        low, high = np.lib.array_utils.byte_bounds(x)
        first = x.ctypes.data
        if (
            first + sum(r for r in reach if r < 0) < low
            or first + sum(r for r in reach if r > 0) + x.itemsize > high
        ):
            raise ValueError(
                f"{loop.name}: {name} has shape {x.shape} and strides {x.strides}, but the loop of "
                f"shape {loop.shape} reads or writes it with strides {operand.strides}"
            )
