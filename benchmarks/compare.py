"""Measure gpugrad beside other ways to a gradient, in one process.

    python benchmarks/compare.py [--device cuda] [--json FILE] ...

Before anything is timed, every library must come to the same values and gradients.
"""

from __future__ import annotations

import argparse
import gc
import importlib
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import report
from report import Topic

LIBRARIES = ("gpugrad", "numpy", "torch", "jax", "autograd", "mygrad")
TOPICS = ("chain", "long-chain", "mnist", "sigmoid", "import", "memory")


@dataclass(frozen=True)
class Scale:
    """How large the tasks are, and how long they are measured."""

    rounds: int = 11
    block: float = 0.1  # seconds that a timed block should take
    rest: float = 0.1  # seconds before a block: the threads of the library before stop spinning
    processes: int = 3  # rounds of what takes a process of its own and hardly varies
    long_chains: tuple[int, ...] = (10_000, 100_000)
    batches: tuple[int, ...] = (32, 128, 1024)
    sigmoid: int = 4 << 20
    depth: int = 50
    width: int = 256


QUICK = Scale(
    rounds=2,
    block=0.0,
    rest=0.0,
    processes=2,
    long_chains=(100, 1000),
    batches=(32,),
    sigmoid=1024,
    depth=3,
    width=8,
)

# The variants whose memory is measured; those without allocation have it all beforehand.
MEMORY = ("by hand", "gpugrad", "torch eager", "jax.jit", "jax", "autograd", "mygrad")


class Failed(Exception):
    """A library could not do its task, or came to another result."""


@dataclass
class Entry:
    """One row of a timed topic: a variant on its inputs; its time is divided by `per`."""

    label: str
    variant: Any
    inputs: Any
    per: int = 1
    job: Any = None


# ---- settings


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line, checked before anything is imported or run."""

    def positive(text: str, least: int = 1) -> int:
        number = int(text) if text.isdecimal() else 0
        if number < least:
            raise argparse.ArgumentTypeError(f"{text!r} is no whole number of at least {least}")
        return number

    def several(known: Sequence[str]) -> Callable[[str], list[str]]:
        def parse(text: str) -> list[str]:
            names = text.split(",")
            if unknown := [name for name in names if name not in known]:
                raise argparse.ArgumentTypeError(
                    f"unknown: {', '.join(map(repr, unknown))} (known: {', '.join(known)})"
                )
            return [name for name in known if name in names]

        return parse

    def writable(text: str) -> Path:
        path = Path(text)
        if path.is_dir() or not os.access(path if path.exists() else path.parent, os.W_OK):
            raise argparse.ArgumentTypeError(f"cannot write {text!r}")
        return path

    parser = argparse.ArgumentParser(
        description="Measure gpugrad beside other ways to a gradient; see benchmarks/README.md."
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument(
        "--threads", type=positive, default=2, help="for every library (default: %(default)s)"
    )
    parser.add_argument(
        "--rounds",
        type=lambda text: positive(text, 2),
        help=f"how often each row is measured (default: {Scale.rounds})",
    )
    parser.add_argument(
        "--topics",
        type=several(TOPICS),
        metavar="A,B",
        help=f"some of {', '.join(TOPICS)} (default: all that the device has)",
    )
    parser.add_argument(
        "--libraries",
        type=several(LIBRARIES),
        default=list(LIBRARIES),
        metavar="A,B",
        help=f"some of {', '.join(LIBRARIES)}; gpugrad is always there",
    )
    parser.add_argument(
        "--torch-compile", action="store_true", help="torch.compile too: slow to start"
    )
    parser.add_argument("--json", type=writable, metavar="FILE", help="write the results there too")
    parser.add_argument("--quick", action="store_true", help="tiny sizes: a test of this script")
    args = parser.parse_args(argv)
    elsewhere = []
    if args.device != "cpu":
        elsewhere.append("import")
    elif platform.libc_ver()[0] != "glibc":
        elsewhere.append("memory")  # reads /proc and calls malloc_trim
    if args.topics is None:
        args.topics = [name for name in TOPICS if name not in elsewhere]
    elif wrong := [name for name in args.topics if name in elsewhere]:
        parser.error(f"argument --topics: {', '.join(wrong)}: not measured on this device")
    return args


def settings(device: str, threads: int) -> dict[str, str]:
    """Environment variables that hold all libraries to one device and number of threads."""
    pools = [f"{name}_NUM_THREADS" for name in ("OMP", "OPENBLAS", "MKL", "BLIS")]
    return {
        **dict.fromkeys([*pools, "VECLIB_MAXIMUM_THREADS", "PJRT_NPROC"], str(threads)),
        "GPUGRAD_DEVICE": device,
        "JAX_PLATFORMS": device,
        "JAX_DEFAULT_MATMUL_PRECISION": "highest",  # float32 as everywhere else, not TF32
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",  # leave the others some of the GPU's memory
    }


def available(wanted: Sequence[str], device: str) -> tuple[list[str], dict[str, str]]:
    """The libraries that can take part, and why the others cannot.

    Raises:
        Failed: if gpugrad cannot use the device.
    """
    import tasks

    import gpugrad as gg

    try:
        gg.device(device)
    except gg.DeviceError as error:
        raise Failed(f"--device {device}: {error}") from None
    missing = {}
    for library in LIBRARIES:
        reason = "left out" if library not in wanted else tasks.unavailable(library, device)
        if reason is not None and library != "gpugrad":
            missing[library] = reason
    return [name for name in LIBRARIES if name not in missing], missing


# ---- the topics


def timed_topics(
    names: Sequence[str], scale: Scale, variants: Sequence[Any]
) -> list[tuple[Topic, list[Entry]]]:
    """The topics that are timed in this process, with their rows."""
    import tasks

    def rows(task: str, inputs: Any) -> list[Entry]:
        return [Entry(v.label, v, inputs) for v in variants if v.task == task]

    topics = []
    if "chain" in names:
        title = "ten multiplications of 4x4 arrays and a sum, forward and backward"
        topics.append((Topic("chain", title, "µs"), rows(tasks.CHAIN, tasks.chain(10, 0.5))))
    if "long-chain" in names:
        title = "a long chain of multiplications with gpugrad, forward and backward"
        (gpugrad,) = (v for v in variants if (v.task, v.library) == (tasks.CHAIN, "gpugrad"))
        entries = [
            Entry(f"{n:,} operations", gpugrad, tasks.chain(n, 0.0), per=n)
            for n in scale.long_chains
        ]
        topic = Topic("long-chain", title, "µs per operation", base=entries[0].label)
        topics.append((topic, entries))
    for batch in scale.batches if "mnist" in names else ():
        title = f"a training step of the 784-100-10 sigmoid network, batch {batch}"
        topic = Topic(f"mnist-{batch}", title, "µs")
        topics.append((topic, rows(tasks.NETWORK, tasks.mnist(batch))))
    if "sigmoid" in names:
        title = f"sigmoid of {scale.sigmoid:,} float32, forward and backward"
        topic = Topic("sigmoid", title, "µs")
        topics.append((topic, rows(tasks.SIGMOID, tasks.sigmoid(scale.sigmoid))))
    return topics


def build(topic: Topic, entries: Sequence[Entry], device: str) -> None:
    """Build the jobs of a topic and check what each of them comes to.

    Raises:
        Failed: if a value or a gradient is wrong.
    """
    import tasks

    inputs = right = None
    for entry in entries:
        if entry.inputs is not inputs:
            inputs = entry.inputs
            right = tasks.expected(entry.variant.task, inputs)
        entry.job = entry.variant.build(inputs, device)
        try:
            tasks.check(entry.label, tasks.outcome(inputs, entry.job), right)
        except tasks.Mismatch as error:
            raise Failed(f"{topic.name}: {error}") from None


# ---- measuring


def measure(
    topic: Topic, entries: Sequence[Entry], scale: Scale, wait: Callable[[Any], None]
) -> None:
    """Time the jobs of a topic in turn: A B C A B C ..."""
    gc.collect()
    gc.freeze()  # from here on a collection costs what the objects of a run make it cost
    turns = []
    for entry in entries:
        once = min(block(entry.job.run, 0.0, 1, wait) for _ in range(3))
        turns.append(max(1, int(scale.block / 10 / once)))
    for _ in range(scale.rounds):
        for entry, turn in zip(entries, turns, strict=True):
            time.sleep(scale.rest)
            seconds = block(entry.job.run, scale.block, turn, wait)
            topic.add(entry.label, 1e6 * seconds / entry.per)
    gc.unfreeze()


def block(run: Callable[[], Any], least: float, turn: int, wait: Callable[[Any], None]) -> float:
    """Seconds per run: the mean over `turn` runs, and as many again until `least` seconds passed.

    One run before is not timed. Only the last result of each turn is waited for.
    """
    wait(run())
    count = 0
    start = time.perf_counter()
    while True:
        for _ in range(turn - 1):
            run()
        wait(run())
        count += turn
        seconds = time.perf_counter() - start
        if seconds >= least:
            return seconds / count


def waiter(device: str) -> Callable[[Any], None]:
    """A function that waits until a result is there; on the CPU it is."""
    if device == "cpu":
        return lambda result: None
    synchronize = importlib.import_module("cupy").cuda.runtime.deviceSynchronize

    def wait(result: Any) -> None:
        if "jax" in sys.modules:  # which may not have handed all work to the device yet
            sys.modules["jax"].block_until_ready(result)
        synchronize()

    return wait


def python(*arguments: Any) -> float:
    """The number that a fresh Python prints.

    Raises:
        Failed: if that process fails.
    """
    done = subprocess.run(
        [sys.executable, *map(str, arguments)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise Failed(done.stderr.strip() or f"{arguments[0]}: exit status {done.returncode}")
    return float(done.stdout.split()[-1])


def measure_import(libraries: Sequence[str], rounds: int) -> Topic:
    """Time `import library` in fresh processes."""
    topic = Topic("import", "import of the library in a fresh process", "ms")
    code = "import time; t = time.perf_counter(); import {}; print(time.perf_counter() - t)"
    for i in range(rounds + 1):
        for library in libraries:
            seconds = python("-c", code.format(library))
            if i:  # the first one compiles to bytecode and fills the disk cache
                topic.add(library, 1e3 * seconds)
    return topic


def measure_memory(variants: Sequence[Any], device: str, scale: Scale) -> Topic:
    """The peak memory of one training step, by `memory.py` in fresh processes."""
    import tasks

    layers = f"{scale.depth} layers {scale.width}x{scale.width}, batch {scale.width}"
    topic = Topic("memory", f"peak memory of a training step, {layers}", "MiB")
    script = Path(__file__).with_name("memory.py")
    for _ in range(scale.processes):
        for v in variants:
            if (
                v.task == tasks.NETWORK
                and v.label in MEMORY
                and (device == "cpu" or v.library != "jax")
            ):
                peak = python(script, v.label, device, scale.depth, scale.width)
                topic.add(v.label, peak / 2**20)
    return topic


def run(args: argparse.Namespace) -> None:
    """Check, measure, report.

    Raises:
        Failed: if the device cannot be used or a library is wrong.
    """
    import tasks

    scale = QUICK if args.quick else Scale()
    if args.rounds:
        scale = replace(scale, rounds=args.rounds, processes=min(args.rounds, scale.processes))
    libraries, missing = available(args.libraries, args.device)
    where = report.machine(args.device, args.threads, libraries)
    print(report.header(where, missing))
    variants = [
        v
        for v in tasks.VARIANTS
        if v.library in libraries and (args.torch_compile or v.label != "torch.compile")
    ]

    timed = timed_topics(args.topics, scale, variants)
    for topic, entries in timed:
        build(topic, entries, args.device)
    print("The values and gradients of all agree.", flush=True)

    topics = []

    def add(topic: Topic) -> None:
        topics.append(topic)
        print(f"\n{topic.table()}", flush=True)

    if "import" in args.topics:
        add(measure_import(libraries, scale.rounds))
    if "memory" in args.topics:
        add(measure_memory(variants, args.device, scale))
    for topic, entries in timed:
        measure(topic, entries, scale, waiter(args.device))
        add(topic)
    goals = report.targets(topics) if args.device == "cpu" else []
    if goals:
        print(f"\n{report.verdicts(goals)}")
    if args.json:
        results = {
            "machine": where,
            "missing": missing,
            "topics": [topic.results() for topic in topics],
            "targets": goals,
        }
        text = json.dumps(results, indent=1, ensure_ascii=False, allow_nan=False)
        args.json.write_text(f"{text}\n", "utf-8")


def main(argv: Sequence[str] | None = None) -> int:
    args = arguments(argv)
    os.environ.update(settings(args.device, args.threads))
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # an import would compile every time
    try:
        run(args)
    except Failed as error:
        print(f"compare.py: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
