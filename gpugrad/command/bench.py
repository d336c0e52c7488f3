"""Measure this machine: bandwidth of kernels, cost of an operation, training steps, memory.

Beside gpugrad, where they are installed: the array library by hand, PyTorch, JAX, HIPS autograd and
MyGrad, on the same data. Before anything is timed, every library must come to the same values and
gradients; exit status 1 if one does not.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import gpugrad as gg

from ..backends import backend_of_kind
from . import bandwidth, report, tasks
from .report import Bandwidth, Counts, Topic

NAME = "bench"
LIBRARIES = ("gpugrad", "numpy", "torch", "jax", "autograd", "mygrad")
TOPICS = (
    "kernels",
    *"chain long-chain mnist sigmoid loops jacobian checkpoint".split(),
    *"import memory compile counts".split(),
)


@dataclass(frozen=True)
class Scale:
    """How large the tasks are, and how long they are measured."""

    rounds: int = 11
    block: float = 0.1  # seconds that a timed block should take
    rest: float = 0.1  # seconds before a block: the threads of the library before stop spinning
    processes: int = 3  # rounds of what takes a process of its own and hardly varies
    kernels: int = 16 << 20
    logits: tuple[int, int] = (1024, 8192)
    long_chains: tuple[int, ...] = (10_000, 100_000)
    batches: tuple[int, ...] = (32, 128, 1024)
    sigmoid: int = 4 << 20
    loops: tuple[int, ...] = (4 << 10, 256 << 10, 16 << 20)
    operations: tuple[int, ...] = (2, 4, 8, 16)
    jacobian: int = 1000
    depth: int = 50
    width: int = 256


QUICK = Scale(
    rounds=2,
    block=0.0,
    rest=0.0,
    processes=2,
    kernels=1024,
    logits=(4, 32),
    long_chains=(100, 1000),
    batches=(32,),
    sigmoid=1024,
    loops=(64,),
    operations=(2, 16),
    jacobian=8,
    depth=3,
    width=8,
)
SCALES = {
    "cpu": Scale(),
    "cuda": Scale(kernels=64 << 20, logits=(8192, 32768), sigmoid=16 << 20),
}

# The variants whose memory is measured; those without allocation have it all beforehand.
MEMORY = ("by hand", "gpugrad", "torch eager", "jax.jit", "jax", "autograd", "mygrad")


# Where compilers keep what they made.
CACHES = (
    *("GPUGRAD_CACHE_DIR", "CUPY_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR"),
    "JAX_COMPILATION_CACHE_DIR",
)


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


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""

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

    parser.add_argument("--device", metavar="D", help="cpu, cuda, cuda:1 (default: gpugrad's)")
    parser.add_argument(
        "--threads", type=positive, metavar="N", help="for every library (default: each its own)"
    )
    parser.add_argument(
        "--rounds",
        type=lambda text: positive(text, 2),
        metavar="N",
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
    parser.add_argument("--quick", action="store_true", help="tiny sizes: a test of this command")
    parser.set_defaults(run=run)


def settings(device: gg.Device) -> dict[str, str]:
    """Environment variables that hold the libraries to a device."""
    return {
        "JAX_PLATFORMS": device.kind,
        "JAX_DEFAULT_MATMUL_PRECISION": "highest",  # float32 as everywhere else, not TF32
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",  # leave the others some of the GPU's memory
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",  # keep all, in the folder given
    }


def threads(count: int) -> dict[str, str]:
    """Environment variables that hold the libraries to a number of threads from their start on."""
    pools = [f"{name}_NUM_THREADS" for name in ("OMP", "OPENBLAS", "MKL", "BLIS")]
    return dict.fromkeys([*pools, "VECLIB_MAXIMUM_THREADS", "PJRT_NPROC"], str(count))


def available(wanted: Sequence[str], device: gg.Device) -> tuple[list[str], dict[str, str]]:
    """The libraries that can take part, and why the others cannot."""
    missing = {}
    for library in LIBRARIES:
        if library not in wanted:
            reason: str | None = "left out"
        elif library == "jax" and device.index:
            reason = "works on the first device"
        else:
            reason = tasks.unavailable(library, str(device))
        if reason is not None and library != "gpugrad":
            missing[library] = reason
    return [name for name in LIBRARIES if name not in missing], missing


def topics_of(device: gg.Device) -> list[str]:
    """The topics that can be measured on `device`."""
    elsewhere = []
    if device.kind != "cpu":
        elsewhere.append("import")
    if backend_of_kind(device.kind).about(device).emulated:
        # they take processes of their own, to which the emulation is unknown
        elsewhere += ["memory", "checkpoint", "compile"]
    elif device.kind == "cpu" and platform.libc_ver()[0] != "glibc":
        elsewhere += ["memory", "checkpoint"]  # read /proc and call malloc_trim
    return [name for name in TOPICS if name not in elsewhere]


# ---- the topics


def timed_topics(
    names: Sequence[str], scale: Scale, variants: Sequence[Any]
) -> list[tuple[Topic, list[Entry]]]:
    """The topics that are timed in this process, with their rows."""

    def rows(task: str, inputs: Any) -> list[Entry]:
        return [Entry(v.label, v, inputs) for v in variants if v.task == task]

    topics = []
    if "chain" in names:
        title = "ten multiplications of 4x4 arrays and a sum, forward and backward"
        topics.append((Topic("chain", title, "µs"), rows(tasks.CHAIN, tasks.chain(10, 0.5))))
    if "long-chain" in names:
        title = "a long chain of multiplications with gpugrad, forward and backward"
        gpugrad = next(v for v in variants if (v.task, v.library) == (tasks.CHAIN, "gpugrad"))
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
    for size in scale.loops if "loops" in names else ():
        for inputs in tasks.loops(size, scale.operations):
            title = f"{inputs.length} elementwise operations on {size:,} float32, forward"
            short = f"{size >> 20}Mi" if size >> 20 else f"{size >> 10}Ki" if size >> 10 else size
            topic = Topic(f"loops-{inputs.length}-{short}", title, "µs")
            topics.append((topic, rows(tasks.LOOP, inputs)))
    for count in (1, 2) if "jacobian" in names else ():
        shape = f"{scale.jacobian:,} x {scale.jacobian:,}"
        title = f"{shape} Jacobian of {count} layer(s) tanh(W x), float32"
        layers = tasks.layers(scale.jacobian, count)
        topics.append((Topic(f"jacobian-{count}", title, "µs"), rows(tasks.JACOBIAN, layers)))
    for network in dropped(scale) if "checkpoint" in names else ():
        topic = Topic(f"checkpoint{_suffix(network)}", f"time of {_gradient(network)}", "µs")
        topics.append((topic, rows(tasks.CHECKPOINT, network)))
    return topics


def dropped(scale: Scale) -> list[tasks.Dropped]:
    """The inputs of the topic "checkpoint"."""
    network = tasks.deep(scale.depth, scale.width)
    return [tasks.Dropped(network, dropout) for dropout in (0.0, 0.1)]


def _suffix(inputs: tasks.Dropped) -> str:
    return "-dropout" if inputs.dropout else ""


def _gradient(inputs: tasks.Dropped) -> str:
    width, count = len(inputs.network.x), len(inputs.network.parameters) // 2
    layers = f"{count} layers {width}x{width}, batch {width}, segments of {inputs.segment()}"
    return f"a gradient, {layers}{', dropout' if inputs.dropout else ''}"


def build(topic: Topic, entries: Sequence[Entry], device: str) -> None:
    """Build the jobs of a topic and check what each of them comes to.

    Raises:
        Failed: if a value or a gradient is wrong.
    """
    inputs: Any = None
    right: Any = None
    for entry in entries:
        repeated = isinstance(entry.inputs, tasks.Dropped)
        if entry.inputs is not inputs:
            inputs = entry.inputs
            right = None if repeated else tasks.expected(entry.variant.task, inputs)
        entry.job = entry.variant.build(inputs, device)
        try:
            if repeated:
                tasks.check_repeated(entry.variant, inputs, entry.job, device)
            else:
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


def waiter(device: gg.Device) -> Callable[[Any], None]:
    """A function that waits until a result is there; on the CPU it is."""
    if device.kind == "cpu":
        return lambda result: None
    backend = backend_of_kind(device.kind)

    def wait(result: Any) -> None:
        if "jax" in sys.modules:  # which may not have handed all work to the device yet
            sys.modules["jax"].block_until_ready(result)
        backend.synchronize(device)

    return wait


def measure_kernels(device: gg.Device, scale: Scale) -> Bandwidth:
    """Time the kernels in turn, by the clock of the device."""
    rows = list(bandwidth.kernels(device, scale.kernels, scale.logits))
    size = f"{scale.kernels:,} float32, cross-entropy {scale.logits[0]:,} x {scale.logits[1]:,}"
    topic = Bandwidth("kernels", f"kernels on {size}", "µs", bandwidth.COPY)
    topic.bytes = {label: size for label, size, _ in rows}
    backend = backend_of_kind(device.kind)

    def seconds(run: Callable[[], Any], turns: int) -> float:
        def work() -> None:
            for _ in range(turns):
                run()

        return backend.seconds(device, work) / turns

    turns = []
    for _, _, run in rows:
        once = min(seconds(run, 1) for _ in range(3))
        turns.append(max(1, int(scale.block / max(once, 1e-9))))
    for _ in range(scale.rounds):
        for (label, _, run), turn in zip(rows, turns, strict=True):
            run()
            topic.add(label, 1e6 * seconds(run, turn))
    return topic


def python(*arguments: Any, **settings: str) -> float:
    """The number that a fresh Python prints, with more environment variables.

    Raises:
        Failed: if that process fails.
    """
    env = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    done = subprocess.run(
        [sys.executable, *map(str, arguments)], capture_output=True, text=True, env=env | settings
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


def measure_memory(variants: Sequence[Any], device: gg.Device, scale: Scale) -> Topic:
    """The peak memory of one training step, by the module `memory` in fresh processes."""
    layers = f"{scale.depth} layers {scale.width}x{scale.width}, batch {scale.width}"
    topic = Topic("memory", f"peak memory of a training step, {layers}", "MiB")
    module = f"{__package__}.memory"
    for _ in range(scale.processes):
        for v in variants:
            if (
                v.task == tasks.NETWORK
                and v.label in MEMORY
                and (device.kind == "cpu" or v.library != "jax")
            ):
                peak = python("-m", module, v.label, device, scale.depth, scale.width)
                topic.add(v.label, peak / 2**20)
    return topic


def measure_checkpoints(
    variants: Sequence[Any], device: gg.Device, scale: Scale
) -> Iterator[Topic]:
    """The peak memory of a gradient, by the module `memory` in fresh processes."""
    module = f"{__package__}.memory"
    for inputs in dropped(scale):
        name, title = f"checkpoint-memory{_suffix(inputs)}", f"peak memory of {_gradient(inputs)}"
        topic = Topic(name, title, "MiB")
        for _ in range(scale.processes):
            for v in variants:
                if v.task == tasks.CHECKPOINT:
                    sizes = (scale.depth, scale.width, inputs.dropout)
                    peak = python("-m", module, v.label, device, *sizes)
                    topic.add(v.label, peak / 2**20)
        yield topic


def measure_first_calls(variants: Sequence[Any], device: gg.Device, scale: Scale) -> Topic:
    """The time of the first step of what compiles, by the module `first` in fresh processes."""
    batch = scale.batches[-1]
    title = f"building and first run of the training step 784-100-10, batch {batch}"
    topic = Topic("compile", title, "ms", base=f"{tasks.COMPILED}, empty cache")
    module = f"{__package__}.first"
    for _ in range(scale.processes):
        for v in variants:
            if v.task == tasks.NETWORK and v.label in tasks.UNCOMPILED:
                with tempfile.TemporaryDirectory() as folder:
                    caches = {name: os.path.join(folder, name) for name in CACHES}
                    for cache in ("empty", "full"):
                        seconds = python("-m", module, v.label, device, batch, **caches)
                        topic.add(f"{v.label}, {cache} cache", 1e3 * seconds)
    return topic


def counts(device: gg.Device, scale: Scale) -> Counts:
    """What compiled functions come to: no times."""
    inputs = {
        "chain": (tasks.CHAIN, tasks.chain(10, 0.5)),
        **{f"mnist-{batch}": (tasks.NETWORK, tasks.mnist(batch)) for batch in scale.batches},
        "sigmoid": (tasks.SIGMOID, tasks.sigmoid(scale.sigmoid)),
    }
    found = Counts("counts", "what a call of the compiled function comes to")
    for label, (task, given) in inputs.items():
        variant = next(v for v in tasks.VARIANTS if (v.task, v.label) == (task, tasks.COMPILED))
        run: Any = variant.build(given, str(device)).run
        # of the call that is captured as a CUDA graph; an emulated device counts the graph's too
        launches = backend_of_kind(device.kind).launches(device, run)
        found.add(label, run.steps[-1], launches)
    return found


def run(args: argparse.Namespace) -> int:
    """Check, measure, report; 1 if a library is wrong."""
    try:
        device = gg.device(args.device) if args.device else gg.default_device()
    except (ValueError, gg.DeviceError) as error:
        print(f"--device: {error}", file=sys.stderr)
        return 2
    topics = args.topics or topics_of(device)
    if wrong := [name for name in topics if name not in topics_of(device)]:
        print(f"--topics: {', '.join(wrong)}: not measured on this device", file=sys.stderr)
        return 2
    if args.threads and any(os.environ.get(k) != v for k, v in threads(args.threads).items()):
        env = os.environ | threads(args.threads)
        return subprocess.run([sys.executable, "-m", "gpugrad", *args.argv], env=env).returncode
    os.environ.update(settings(device))
    try:
        with device, backend_of_kind(device.kind).scope(device):
            measure_all(args, device, topics)
    except Failed as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    return 0


def measure_all(args: argparse.Namespace, device: gg.Device, names: Sequence[str]) -> None:
    """Measure the topics `names`, and print each as it is done.

    Raises:
        Failed: if a library is wrong.
    """
    emulated = backend_of_kind(device.kind).about(device).emulated
    scale = QUICK if args.quick or emulated else SCALES[device.kind]
    if args.rounds:
        scale = replace(scale, rounds=args.rounds, processes=min(args.rounds, scale.processes))
    libraries, missing = available(args.libraries, device)
    where = report.machine(device, args.threads, libraries)
    print(report.header(where, missing))
    if scale is QUICK or emulated:
        print("TINY SIZES: the times mean nothing")
    variants = [
        v
        for v in tasks.VARIANTS
        if v.library in libraries
        and v.kind in (None, device.kind)
        and (args.torch_compile or v.label != "torch.compile")
    ]

    timed = timed_topics(names, scale, variants)
    for topic, entries in timed:
        build(topic, entries, str(device))
    if timed:
        print("The values and gradients of all agree.", flush=True)

    topics: list[Topic | Counts] = []

    def add(topic: Topic | Counts) -> None:
        topics.append(topic)
        print(f"\n{topic.table()}", flush=True)

    if "import" in names:
        add(measure_import(libraries, scale.rounds))
    if "memory" in names:
        add(measure_memory(variants, device, scale))
    if "checkpoint" in names:
        for topic in measure_checkpoints(variants, device, scale):
            add(topic)
    if "compile" in names:
        add(measure_first_calls(variants, device, scale))
    if "counts" in names:
        add(counts(device, scale))
    if "kernels" in names:
        add(measure_kernels(device, scale))
    for topic, entries in timed:
        measure(topic, entries, scale, waiter(device))
        add(topic)
        for entry in entries:
            entry.job = None  # what it holds may be large
    goals = (
        []
        if emulated
        else report.targets(device.kind, [topic for topic in topics if isinstance(topic, Topic)])
    )
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
