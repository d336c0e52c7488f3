"""Where the time goes, operation by operation: `profile`."""

from __future__ import annotations

import os
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self

import numpy as np

from . import backends, watching
from .batches import BatchedArray
from .custom import _GATHERING
from .rules import Part, raw
from .tape import Node, arrays_in, owner_of
from .tensor import Tensor
from .trees import flatten
from .watching import Call, Seen, Watcher

_clock = time.perf_counter_ns
_PHASES = {"vjp": "backward", "jvp": "tangent"}


class Row(NamedTuple):
    """What `profile` tells of the calls of one operation from one line.

    Attributes:
        op: its name; of an optimiser such as "SGD.step".
        phase: "forward"; "backward", a step of a reverse sweep; "tangent", one of a forward sweep;
            "update", of an optimiser; "in backward" and "in tangent", a call that a sweep makes: of
            a checkpointed function that is run again, of a hook, or of a rule that is recorded.
        calls: how many.
        host: seconds of the host, without those of calls inside.
        device: seconds of the device, likewise; None where it has no clock of its own.
        bytes: read and written.
        peak: the most bytes in use during a call, above what was in use when the block began
            (below it the number is negative); None without `memory=True`.
        where: file and line of the forward call; None if that was not seen.
        scope: names of the scopes around it, outermost first.
    """

    op: str
    phase: str
    calls: int
    host: float
    device: float | None
    bytes: int
    peak: int | None
    where: tuple[str, int] | None
    scope: tuple[str, ...]


class Slice:
    """One operation at work, or a whole sweep.

    Attributes:
        op, phase, where, scope: as in `Row`; `op` is "" for a whole sweep.
        outer: the slice inside which it is.
        thread: number of the thread.
        start, stop: nanoseconds on the host; `stop` is 0 until it is over.
        inner: nanoseconds of slices inside.
        given, made: dtype and shape of what was read and written.
        bytes: of both.
        node: serial number of the node that was made or worked on; 0 without one.
        device: where; None for a whole sweep.
        stream, work: address of the stream, and (start, stop) on the host's clock of the device's
            work; None where that is not measured.
        own: nanoseconds of that work without that of slices inside.
        used, peak: bytes in use at the end, and at most; None if they are not watched.
    """

    __slots__ = (
        "bytes", "device", "given", "inner", "made", "node", "op", "outer", "own", "peak", "phase",
        "scope", "span", "start", "stop", "stream", "thread", "used", "where", "work",
    )  # fmt: skip

    def __init__(
        self, op: str, phase: str, where: tuple[str, int] | None, scope: tuple[str, ...]
    ) -> None:
        self.op, self.phase, self.where, self.scope = op, phase, where, scope
        self.thread = threading.get_ident()
        self.outer: Slice | None = None
        self.start = self.stop = self.inner = self.own = 0
        self.bytes = self.node = self.stream = 0
        self.used: int | None = None
        self.peak: int | None = None
        self.given: list[tuple[Any, tuple[int, ...]]] = []
        self.made: list[tuple[Any, tuple[int, ...]]] = []
        self.device: backends.Device | None = None
        self.span: Any = None
        self.work: tuple[int, int] | None = None

    @property
    def name(self) -> str:
        """For people."""
        if not self.op:
            return f"{self.phase} sweep"
        return self.op if self.phase in ("forward", "update") else f"{self.op} {self.phase}"

    def count(self, given: list[Any], made: list[Any], in_place: bool = False) -> None:
        """Note the arrays that were read and written; a view moves nothing."""
        self.given = [(x.dtype, x.shape) for x in given]
        self.made = [(x.dtype, x.shape) for x in made]
        owners = set() if in_place else {id(owner_of(x)) for x in given}
        fresh = [x for x in made if id(owner_of(x)) not in owners]
        if fresh:
            read = {id(x): x for x in given}.values()
            self.bytes = sum(x.size * x.dtype.itemsize for x in (*read, *fresh))


class _Meter:
    """What is in use on a device, and the most of it during slices, which may be nested.

    What is allocated between `hold` and `go` is the profile's own, and does not count.
    """

    def __init__(self, read: Callable[[], tuple[int, int]]) -> None:
        self._read = read
        self._base, _ = read()  # in use when the block began, and the profile's own
        self._held = self._base
        self._open: list[Slice] = []

    def hold(self) -> None:
        self._held, peak = self._read()
        for item in self._open:
            item.peak = max(item.peak or 0, peak - self._base)

    def go(self) -> None:
        used, _ = self._read()
        self._base += used - self._held

    def begin(self, item: Slice) -> None:
        item.peak = self._held - self._base
        self._open.append(item)

    def end(self, item: Slice) -> None:
        item.used = self._held - self._base
        self._open.remove(item)


class profile(Watcher):
    """Times and memory of every operation, forward and backward: `with profile() as p: ...`.

    Afterwards `print(p)` shows a table by operation, `p.table("line")` and `p.table("scope")` by
    others, and `p.rows` are their data. `p.trace("file.json")` writes a file for
    https://ui.perfetto.dev and chrome://tracing. Seen are the operations on tensors of this thread
    or task, the steps of sweeps, and the updates of optimisers; a compiled function is one call. A
    profile that is entered again goes on; as a decorator, `@p`, it gathers all calls of a
    function. Profiles nest, and each sees what is inside. An exception closes it.

    **Time.** Times are without those of operations inside, so they add up. On a GPU that of the
    host is what it takes to queue the work. That of the device is between two events, before the
    work and after it: where the host is the slower one, waits for it are in there. Nothing waits
    for the device inside the block; at its end there is one wait, in which the events are read,
    inside of `no_transfers` too. A stream that is being captured gets no events. On the CPU there
    is the time of the host alone. What is no operation on tensors shows in the time of the
    block only.

    **Bytes.** Each array among operands, and what a rule has kept, is read once; each result, or
    cotangent, is written once; a view moves nothing. Not counted is what operations make on the
    way, and what a compiled function closes over.

    **Memory**, with `memory=True`, is exact at every allocation (of CuPy's asynchronous pool, which
    tells of none, between operations only). On a GPU it is that of CuPy's pool, by this thread. On
    the CPU it is what Python's tracemalloc counts: all that the process allocates in the block,
    arrays and Python's own objects; so watch one thread at a time.

    **Names.** On a GPU each operation is an NVTX range, for Nsight Systems.

    Inside the block a call, or a step of a sweep, costs some 12 us more, and for the events of a
    CUDA device some 20 more (measured on an emulated one). That is not in its own times, but in
    those of what is around it, such as a checkpoint. `memory=True` adds about 100 us on the CPU, as
    tracemalloc makes Python slower, and 10 of them are in the times: much for small arrays, nothing
    for large ones. A call is remembered in 1 KiB, without its arrays. Outside of the block there is
    no cost.

    Args:
        memory: watch the memory too.

    Attributes:
        seconds: the host's time of the block, or of all of them.
    """

    def __init__(self, *, memory: bool = False) -> None:
        super().__init__()
        self.seconds = 0.0
        self._memory = memory
        self._slices: list[Slice] = []
        # per thread the slices that are open: a context may be copied to another one
        self._open: defaultdict[int, list[Slice]] = defaultdict(list)
        self._unread = 0  # how many slices were there when the block began
        self._begun = 0
        # the outermost profile around that watches memory, whose meters serve all; None for itself
        self._gauges: profile | None = None
        self._meters: dict[backends.Device, _Meter] = {}
        self._stack = ExitStack()
        self._known: dict[tuple, tuple] = {}

    def _recreate_cm(self) -> Self:
        return self

    def __enter__(self) -> Self:
        if self._tokens:
            raise RuntimeError("profile: its block is on already; nest another profile in it")
        if self._memory:
            around = [x for x in watching.active() if isinstance(x, profile) and x._memory]
            self._gauges = around[0] if around else None
            self._meter(backends.default_device())
        self._unread = len(self._slices)
        super().__enter__()
        self._begun = _clock()
        return self

    def __exit__(self, *exc: Any) -> None:
        self.seconds += (_clock() - self._begun) / 1e9
        super().__exit__(*exc)
        for items in list(self._open.values()):
            while items:  # an exception holds the sweep that it left
                self._end(items[-1])
        self._meters.clear()
        self._stack.close()
        try:
            self._read()
        except Exception:
            if exc[0] is None:  # else it is the device's trouble that the block has ended with
                raise

    # ---- what is seen

    def called(self, call: Call, run: Callable[[], Any]) -> Any:
        if not self._tokens:  # a task that has outlived the block
            return run()
        self._hold()
        outer = self._open[threading.get_ident()]
        within = outer[-1].phase if outer else "" if call.swept is None else "backward"
        item = self._slice(call.name, f"in {within}" if within else "forward", call)
        given = list(_arrays(call.operands))
        self._begin(item, _device(given))
        try:
            out = run()
        finally:
            self._end(item)
        item.count(given, list(_arrays((out,))))
        item.node = _made_by(out)
        del given  # or it would go after the call
        self._go()
        return out

    def updated(self, call: Call, run: Callable[[], Any]) -> Any:
        if not self._tokens:
            return run()
        self._hold()
        item = self._slice(call.name, "update", call)
        made, others = (list(_arrays(x)) for x in call.operands)
        given = [*made, *others]
        self._begin(item, _device(given))
        try:
            out = run()
        finally:
            self._end(item)
        item.count(given, made, in_place=True)
        del given, made, others
        self._go()
        return out

    def swept(self, kind: str, nodes: Iterator[Node], found: dict[Node, Any]) -> Iterator[Node]:
        if not self._tokens:
            yield from nodes
            return
        backwards = kind == "vjp"
        self._hold()
        whole = Slice("", _PHASES[kind], None, ())
        self._begin(whole, None)
        try:
            for node in nodes:
                # a backward step is one that a cotangent has come to; a forward one makes a tangent
                if (node in found) != backwards or node.op is None or _is_inner(node):
                    yield node
                    continue
                self._hold()
                parents = dict.fromkeys(edge[0] for edge in node.edges)
                sources = (node,) if backwards else parents
                given = list(_arrays(found.get(x) for x in sources))
                item = self._slice(node.op.name, whole.phase, getattr(node, "note", None))
                item.node = node.serial
                self._begin(item, _device(given))
                try:
                    yield node
                finally:
                    self._end(item)
                reached = [edge for edge in node.edges if edge[0] in found]
                given += _arrays(arrays_in(edge[2] for edge in reached))  # what was kept
                results = parents if backwards else (node,)
                item.count(given, list(_arrays(found.get(x) for x in results)))
                del parents, sources, given, reached, results  # the next step may free some
                self._go()
        finally:
            self._end(whole)

    def _slice(self, op: str, phase: str, seen: Call | Seen | None) -> Slice:
        if seen is None:
            return Slice(op, phase, None, ())
        # one tuple for each place: those of the call are not the profile's own memory
        where, scope = (self._known.setdefault(x, x) for x in (seen.where, seen.scope))
        return Slice(op, phase, where, scope)

    def _begin(self, item: Slice, device: backends.Device | None) -> None:
        items = self._open[item.thread]
        if items:
            item.outer = items[-1]
        items.append(item)
        self._slices.append(item)
        if device is not None:
            item.device = device
            if self._memory:
                self._meter(device).begin(item)
            backend = backends.backend_of_kind(device.kind)
            item.span = backend.span(device, item.name)
        self._go()
        item.start = _clock()

    def _end(self, item: Slice) -> None:
        if item.stop:  # a sweep that an exception has left, and that the end of the block closed
            return
        item.stop = _clock()
        self._hold()
        self._open[item.thread].remove(item)
        if item.outer is not None:
            item.outer.inner += item.stop - item.start
        if item.span is not None:
            item.span.close()
        if self._memory and item.device is not None:
            self._meter(item.device).end(item)

    def _hold(self) -> None:
        for meter in (self._gauges or self)._meters.values():
            meter.hold()

    def _go(self) -> None:
        for meter in (self._gauges or self)._meters.values():
            meter.go()

    def _meter(self, device: backends.Device) -> _Meter:
        owner = self._gauges or self
        if device not in owner._meters:
            gauge = backends.backend_of_kind(device.kind).gauge(device)
            owner._meters[device] = _Meter(owner._stack.enter_context(gauge))
        return owner._meters[device]

    def _read(self) -> None:
        """Ask the devices for the times of what was done since the block began."""
        spans: dict[backends.Device, list[Slice]] = {}
        for item in self._slices[self._unread :]:
            if item.span is not None and item.device is not None:
                spans.setdefault(item.device, []).append(item)
        for device, items in spans.items():
            backend = backends.backend_of_kind(device.kind)
            works = backend.read_spans(device, [item.span for item in items])
            for item, work in zip(items, works, strict=True):
                item.work, item.stream, item.span = work, item.span.stream.ptr, None
        for item in self._slices[self._unread :]:
            if item.work is not None:
                busy = item.work[1] - item.work[0]
                item.own += busy
                queue = (item.device, item.stream)
                outer = item.outer
                while outer is not None and (
                    outer.work is None or (outer.device, outer.stream) != queue
                ):
                    outer = outer.outer  # a whole sweep, say
                if outer is not None:
                    outer.own -= busy

    # ---- what is told

    @property
    def slices(self) -> list[Slice]:
        """All that was seen, in the order in which it began.

        Raises:
            RuntimeError: inside the block.
        """
        if self._tokens:
            raise RuntimeError("profile: its block is still on; look at it afterwards")
        return self._slices

    @property
    def rows(self) -> list[Row]:
        """One row per operation, phase, line and scope, the longest time first."""
        groups: dict[tuple, list[Slice]] = {}
        for item in self.slices:
            if item.op:
                groups.setdefault((item.op, item.phase, item.where, item.scope), []).append(item)
        rows = []
        for (op, phase, where, scope), items in groups.items():
            host = sum(x.stop - x.start - x.inner for x in items) / 1e9
            works = [x.own for x in items if x.work is not None]
            device = sum(works) / 1e9 if works else None
            moved = sum(x.bytes for x in items)
            peak = max((x.peak for x in items if x.peak is not None), default=None)
            rows.append(Row(op, phase, len(items), host, device, moved, peak, where, scope))
        return sorted(rows, key=_time, reverse=True)

    def table(self, by: Literal["op", "line", "scope"] = "op") -> str:
        """The rows, gathered by operation, by line or by scope, each phase by itself.

        Raises:
            ValueError: for another `by`.
        """
        heads = ["op", "line", "scope"]
        if by not in heads:
            raise ValueError(f"profile: by is 'op', 'line' or 'scope', not {by!r}")
        first = heads.index(by)
        others = [i for i in range(3) if i != first]
        rows = self.rows
        groups: dict[tuple[str, str], list[Row]] = {}
        for row in rows:
            groups.setdefault((_names(row)[first], row.phase), []).append(row)
        order = sorted(groups, key=lambda key: sum(map(_time, groups[key])), reverse=True)
        cells = [[by, "phase", *_NUMBERS, *(heads[i] for i in others)]]
        for key in order:
            names = list(zip(*map(_names, groups[key]), strict=True))
            cells.append([*key, *_numbers(groups[key]), *(_joined(names[i]) for i in others)])
        total = f"of {1e3 * self.seconds:.3f} ms in the block"
        cells.append(["total", "", *_numbers(rows), "", ""])
        *lines, last = _aligned(cells)
        return "\n".join([*lines, f"{last}  {total}"])

    def __str__(self) -> str:
        return self.table()

    def trace(self, path: str | os.PathLike[str]) -> None:
        """Write a file in Chrome's trace event format, for Perfetto and chrome://tracing.

        There is a lane per thread of the host, with sweeps and scopes around the operations in
        them, and one per stream of a device; arrows lead from a forward operation to its backward
        step, and a track shows the memory in use, if it was watched.
        """
        from .traces import trace

        Path(path).write_text(trace(self.slices), encoding="utf-8")


def _device(given: list[Any]) -> backends.Device:
    """Where work with `given` is done; by default for a step that closes over all it works with."""
    return backends.device_of(given[0]) if given else backends.default_device()


def _is_inner(node: Node) -> bool:
    """Whether it only hands on what a node beside it computes."""
    return isinstance(node.op, Part) or node.op is _GATHERING


def _arrays(tree: Iterable[Any]) -> Iterator[Any]:
    """The raw arrays in nested lists, tuples, dicts and Tensors; of a batch its values."""
    for x in tree:
        x = raw(x)
        if isinstance(x, (tuple, list)):
            yield from _arrays(x)
        elif isinstance(x, dict):
            yield from _arrays(x.values())
        elif not isinstance(x, np.generic) and backends.find_backend(type(x)) is not None:
            while isinstance(x, BatchedArray):
                x = x.values
            yield x


def _made_by(out: Any) -> int:
    """The serial number of the node that has computed `out`; 0 if it is off the tape."""
    for x in flatten(out)[0]:
        node = x.node if isinstance(x, Tensor) else None
        if node is not None:
            while isinstance(node.op, Part) and node.edges:
                node = node.edges[0][0]
            return node.serial
    return 0


def _time(row: Row) -> float:
    return row.host if row.device is None else row.device


def _names(row: Row) -> tuple[str, str, str]:
    """Its operation, line and scope."""
    where = "" if row.where is None else f"{os.path.basename(row.where[0])}:{row.where[1]}"
    return row.op, where, " > ".join(row.scope)


def _joined(names: Iterable[str]) -> str:
    """The first name, and how many others there are."""
    first, *others = dict.fromkeys(filter(None, names)) or [""]
    return f"{first} +{len(others)}" if others else first


_NUMBERS = ("calls", "host ms", "device ms", "bytes", "peak")


def _numbers(rows: list[Row]) -> list[str]:
    """The columns of numbers; a column without any is empty."""
    works = [row.device for row in rows if row.device is not None]
    peaks = [row.peak for row in rows if row.peak is not None]
    return [
        str(sum(row.calls for row in rows)),
        f"{1e3 * sum(row.host for row in rows):.3f}",
        f"{1e3 * sum(works):.3f}" if works else "",
        _size(sum(row.bytes for row in rows)),
        _size(max(peaks)) if peaks else "",
    ]


def _size(count: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if abs(count) < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"


def _aligned(cells: list[list[str]]) -> list[str]:
    """The lines of a table, without the columns that are empty; numbers stand on the right."""
    columns = []
    for head, *column in zip(*cells, strict=True):
        if any(column):
            width = max(map(len, (head, *column)))
            on_right = head in _NUMBERS
            columns.append(
                [x.rjust(width) if on_right else x.ljust(width) for x in (head, *column)]
            )
    return ["  ".join(row).rstrip() for row in zip(*columns, strict=True)]
