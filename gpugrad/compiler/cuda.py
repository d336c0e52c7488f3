"""Programs on a CUDA device: generated kernels, cuBLAS, and all of it as one CUDA graph."""

from __future__ import annotations

import functools
import math
import threading
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import replace
from sys import getrefcount
from typing import Any, NamedTuple

import numpy as np

from .. import backends, fusion, modes, symbols
from ..backends import Backend
from ..cuda.graph import CaptureError, Graph
from ..cuda.kernels import LONGEST_DIRECT
from ..cuda.source import source_of
from ..tape import Leaf
from .emit import Emitter, Names, described, is_view, parts_of, text_of
from .passes import CUDA, is_elementwise, optimise
from .program import Fused, Input, Instruction, Program, Value, perform

_MOST_BYTES = 4000  # of arrays: parameters of a kernel have 4096 on old GPUs, and in CUDA 12.0


class Runner:
    """A program whose values are all on one CUDA device.

    Called with the arrays of all inputs of the program it was made of, in order, it stores the
    updates in them and gives the arrays of the outputs, which are the caller's.

    The first call runs the function that `source` shows, and so compiles the kernels. The second
    captures it as a CUDA graph, if it can be; from then on a call is a launch. Random numbers are
    drawn before the launch. Inputs that come with the call are read where they are as long as they
    stay there; the first time one does not, a buffer for it takes part in a new capture, and it
    is copied there before each launch. Outputs are copied for the caller, but for gradients that
    nobody holds beside the leaf: these are the graph's own.

    Args:
        arrays: of the inputs; those of later calls have the same shapes and dtypes.
        leaves: number of an output -> the leaf whose `.grad` it will be.

    Attributes:
        program: as it was optimised.
        source: the text of what is run.
        captured: whether calls are launches of a CUDA graph by now.
        reason: why they will not be; "" as long as they are or may be.
        kernels: how many generated kernels a call launches, beside the functions of libraries.
        memory: bytes of the buffers.
    """

    def __init__(
        self, program: Program, arrays: Sequence[Any], leaves: Mapping[int, Leaf] | None = None
    ) -> None:
        first = program.inputs[0].value if program.inputs else program.instructions[0].results[0]
        self._device = first.device
        self._backend = backend = backends.backend_of_kind(self._device.kind)
        # constants are looked at
        with modes.transfers(), backend.guard(waits=True), backend.scope(self._device):
            self._build(program, arrays, leaves or {})

    def _build(self, program: Program, arrays: Sequence[Any], leaves: Mapping[int, Leaf]) -> None:
        self.program = optimised = optimise(program, CUDA)
        self.captured = False
        self.reason = _hindrance(optimised)
        self._lock = threading.Lock()
        self._graph: Graph | None = None
        self._is_stale = True  # whether it is to be captured (again)
        # of the last call; at first the one whose work may be using what the buffers were before
        self._stream: Any = self._backend.xp.cuda.get_current_stream()
        self._done: Any = None  # the event of its end, where no other thread can name the stream
        self._held: list[Any] = []  # what the graph reads in place of what comes with a call
        self._fixed: list[bool] = []  # whether that is the caller's own array
        self._seen: list[tuple] | None = None  # where what came with the last call was
        used = {x.value for x in optimised.inputs}
        written = {value for value, _ in optimised.updates}
        self._given = [
            i
            for i, x in enumerate(program.inputs)
            if x.kind in ("argument", "gradient") and x.value in used
        ]
        self._values = [program.inputs[i].value for i in self._given]
        self._written = [k for k, x in enumerate(self._values) if x in written]
        self._draws: list[Instruction] = []
        if not any(x.operands() for x in optimised.instructions if x.function == "draw"):
            optimised, self._draws = _without_draws(optimised)
            self._values += [x.result for x in self._draws]
        names = Names(optimised)
        examples = {given.value: x for given, x in zip(program.inputs, arrays, strict=True)}
        emitter = _Emitter(_as_loops(optimised), examples, names, self._backend)
        outputs = emitter.written()
        self._copies = _Copies(self._backend, optimised.outputs)
        given = ", ".join(names[x] for x in self._values)
        lines = [*emitter.header(), *emitter.lines, f"return [{', '.join(outputs)}]"]
        drawn = "".join(f"# {names[x.result]} = {x.args[1]}{x.args[2:]}\n" for x in self._draws)
        self.source = f"{drawn}def step({given}):\n" + "".join(f"    {x}\n" for x in lines)
        self._scope = emitter.scope
        exec(compile(self.source, "<gpugrad.step>", "exec"), self._scope)
        self._function = self._scope.pop("step")  # its globals must not hold it
        self.kernels, self.memory = emitter.kernels, emitter.allocated
        # number of an output -> its name, and the leaf it is the gradient of
        self._lent = {i: (outputs[i], leaf) for i, leaf in leaves.items() if i in emitter.lent}
        self._idle: dict[int, int] = {}  # references to it when nobody holds it
        self._mark_end()

    @property
    def launches(self) -> int | None:
        """How many kernels a launch of the graph runs; None without one, or if CUDA is mute."""
        return None if self._graph is None else self._graph.kernels

    def __call__(self, arrays: Sequence[Any]) -> list[Any]:
        with self._lock, self._backend.scope(self._device):
            given = [arrays[i] for i in self._given]
            given += [perform(None, "draw", x.args, x.options) for x in self._draws]
            is_ready = self._is_ready(given)
            # before anything is stored, as there may be no memory
            room = self._copies.room(self._lent if is_ready else ())
            found = self._launched(given) if is_ready else self._function(*given)
            self._seen = [_place(x) for x in given]
            results = self._copies.fill(room, found)
            self._mark_end()
            return results

    # ---- as a graph

    def _launched(self, given: list[Any]) -> list[Any]:
        copy = self._backend.xp.copyto
        for k, (fixed, held) in enumerate(zip(self._fixed, self._held)):
            if not fixed:
                copy(held, given[k])
        assert self._graph is not None
        self._graph.launch()
        for k in self._written:
            if not self._fixed[k]:
                copy(given[k], self._held[k])
        return self._graph.results

    def _is_ready(self, given: list[Any]) -> bool:
        """See to it that a graph is there that can be launched; whether it is."""
        stream = self._backend.xp.cuda.get_current_stream()
        for i in [i for i in self._lent if self._is_held(i)]:
            name = self._lent[i][0]
            self._scope[name] = self._backend.xp.empty_like(self._scope[name])
            self._is_stale = True
            del self._lent[i]
        if stream.is_capturing():  # for the caller, to whose graph this call belongs then
            return False
        # what the last call queued elsewhere uses the buffers that this one writes
        if self._done is not None:
            stream.wait_event(self._done)
        elif stream.ptr != self._stream.ptr:
            stream.wait_event(self._stream.record())
        self._stream = stream
        if self.reason or self._seen is None:
            return False
        if self._graph is None:
            self._fixed = [_place(x) == place for x, place in zip(given, self._seen)]
            self._fixed[len(self._given) :] = [False] * len(self._draws)
        for k, held in enumerate(self._held):
            if self._fixed[k] and _place(given[k]) != _place(held):
                self._fixed[k], self._is_stale = False, True
        return not self._is_stale or self._capture(given)

    def _mark_end(self) -> None:
        """Each thread's default stream has one and the same address, and is another."""
        cuda, stream = self._backend.xp.cuda, self._stream
        is_own = stream.ptr == cuda.runtime.streamPerThread
        if is_own and not stream.is_capturing():
            self._done = stream.record()
        elif not is_own:
            self._done = None

    def _capture(self, given: list[Any]) -> bool:
        held = [
            # with the order of axes that kernels are compiled for and products were made of
            x if fixed else self._backend.xp.empty_like(x)
            for x, fixed in zip(given, self._fixed)
        ]
        self._held, self._graph, self._is_stale = held, None, False
        try:
            work = functools.partial(self._function, *held)
            self._graph = self._backend.capture(self._device, work)
        except CaptureError as error:
            self.reason = str(error)
        self.captured = self._graph is not None
        self._idle = {i: getrefcount(self._scope[name]) for i, (name, _) in self._lent.items()}
        return self.captured

    def _is_held(self, i: int) -> bool:
        """Whether somebody beside the leaf holds an output that is lent."""
        if i not in self._idle:  # it never was
            return False
        name, leaf = self._lent[i]
        gradient = leaf.grad
        count = getrefcount(self._scope[name]) - self._idle[i]
        if gradient is None or gradient.data is not self._scope[name]:
            return count > 0
        return count > 1 or getrefcount(leaf.grad) > 3  # the leaf, the variable, the call


def _place(x: Any) -> tuple:
    return x.data.ptr, x.strides


def _hindrance(program: Program) -> str:
    """Why a program cannot be captured, as far as it shows before it runs."""
    if modes.checks_bounds():
        return "check_bounds() waits for the device"
    for step in program.instructions:
        if step.function == "draw" and step.operands():
            return f"{step.args[1]} random numbers are drawn with parameters that are computed"
        if _transforms(step):
            return f"{step.function} may work in memory of cuFFT's plans, which CuPy may free"
    return ""


def _transforms(step: Instruction) -> bool:
    """Whether cuFFT may run, in memory of plans that CuPy keeps for a while."""
    if step.function == "convolve":
        return min(x.size for x in step.operands()) > LONGEST_DIRECT
    return step.function in ("fftn", "ifftn", "irfftn", "rfftn")


def _without_draws(program: Program) -> tuple[Program, list[Instruction]]:
    """The program with what is drawn as inputs, and the draws."""
    draws = [x for x in program.instructions if x.function == "draw"]
    rest = tuple(x for x in program.instructions if x.function != "draw")
    drawn = tuple(Input(x.result, "draw", x) for x in draws)
    return replace(program, inputs=(*program.inputs, *drawn), instructions=rest), draws


def _as_loops(program: Program) -> Program:
    """With elementwise instructions that stand alone as loops too."""
    return program.with_instructions(
        Fused(
            "fused",
            tuple(dict.fromkeys(step.operands())),
            {},
            step.results,
            True,
            step.note,
            shape=step.result.shape,
            body=(step,),
        )
        if not isinstance(step, Fused) and not is_view(step) and is_elementwise(step)
        else step
        for step in program.instructions
    )


# ---- kernels


class _Part(NamedTuple):
    """A loop in a kernel, maybe beside others.

    Attributes:
        name: of a kernel that is this loop alone.
        shape: of the loop.
        given, made: the names of inputs and outputs in the text, and what they are. Outputs have
            the loop's shape and are C-contiguous.
    """

    name: str
    shape: tuple[int, ...]
    given: list[tuple[str, Value]]
    made: list[tuple[str, Value]]
    text: symbols.Text

    @property
    def bytes(self) -> int:
        """What its arrays take of the parameters of a kernel, at most."""
        shapes = [x.shape for _, x in (*self.given, *self.made)]
        return sum(_bytes(max(len(x), len(self.shape))) for x in shapes)


def _bytes(ndim: int) -> int:
    """What an array takes of a kernel's parameters: address and size, and a length and a stride."""
    return 16 + 16 * ndim


class _Kernel(NamedTuple):
    """A kernel on arrays some of which are to be broadcast."""

    kernel: Callable[..., Any]
    shapes: tuple[tuple[int, ...] | None, ...]
    options: Mapping[str, Any]
    broadcast: Callable[..., Any]

    def __call__(self, *arrays: Any) -> None:
        spread = [
            x if shape is None else self.broadcast(x, shape)
            for x, shape in zip(arrays, self.shapes, strict=True)
        ]
        self.kernel(*spread, **self.options)


class _Copies:
    """New arrays with the elements of others, all by one kernel or a few."""

    def __init__(self, backend: Backend, values: Sequence[Value]) -> None:
        self._xp = backend.xp
        self._values = values
        self._backend = backend
        self._kernels: dict[tuple[int, ...], _Made] = {}

    def _kernel(self, places: tuple[int, ...]) -> _Made:
        if places not in self._kernels:
            text = symbols.Text([], {"y0": "x0"}, frozenset(["x0"]), (), 0)
            # each a value of its own: an array may be wanted twice
            like = [self._values[k] for k in places]
            own = [Value((x.size,), x.dtype, x.device) for x in like]
            parts = [_Part("gpugrad_copy", x.shape, [("x0", x)], [("y0", x)], text) for x in own]
            self._kernels[places] = _kernel_of(self._backend, parts)
        return self._kernels[places]

    def room(self, as_they_are: Container[int]) -> dict[int, Any]:
        """Memory for copies of the arrays, but for those numbered `as_they_are`."""
        return {
            k: self._xp.empty(x.shape, x.dtype)
            for k, x in enumerate(self._values)
            if k not in as_they_are
        }

    def fill(self, room: Mapping[int, Any], arrays: Sequence[Any]) -> list[Any]:
        """The arrays, copied where there is room."""
        full = [k for k, x in room.items() if x.size]
        step = _MOST_BYTES // max((2 * _bytes(x.ndim) for x in room.values()), default=1)
        for start in range(0, len(full), step):
            some = full[start : start + step]
            made = self._kernel(tuple(some))
            made.kernel(*(arrays[k] for k in some), *(room[k] for k in some), size=made.size)
        return [room.get(k, x) for k, x in enumerate(arrays)]


class _Emitter(Emitter):
    """Writes calls of kernels.

    Loops that do not need each other, whatever their shapes, are parts of one kernel: its index
    runs through one after the other. They are queued until something needs them.

    Attributes:
        kernels: how many generated kernels the lines launch.
    """

    def __init__(
        self, program: Program, arrays: Mapping[Value, Any], names: Names, backend: Backend
    ) -> None:
        self.kernels = 0
        self._backend = backend
        self._queue: list[_Part] = []
        self._later: list[Any] = []  # memory that is free when the queue has run
        self._variables: dict[Value, dict[str, None]] = {}  # of no place; and of views
        self._gone: list[str] = []  # those that are not needed when the queue has run
        super().__init__(program, arrays, names, backend.xp)
        for function, call in (("matmul", _matmul), ("einsum", _einsum)):
            self._calls[function] = name = names.free(function)
            self.scope[name] = functools.partial(call, backend)

    def _store(self) -> None:
        self._flush()
        super()._store()

    def _output(self, i: int, value: Value) -> str:
        return self._kept.get(value, self.names[value])

    def _memory(self, nbytes: int) -> Any:
        self.allocated += nbytes
        return self._xp.empty(max(nbytes, 1), dtype=np.uint8)

    def _write(self, step: Instruction, i: int) -> None:
        # what does not need the queue runs before it, so that more loops come together there
        made = {x for part in self._queue for _, x in part.made}
        is_part = isinstance(step, Fused) and not step.sums
        if not is_part and any(self.root(x) in made for x in step.operands()):
            self._flush()
        super()._write(step, i)
        for x in step.results:
            if x not in self.places:
                self._variables.setdefault(self.root(x), {})[self.names[x]] = None

    def _release(self, step: Instruction, i: int) -> None:
        free, self._free = self._free, self._later
        super()._release(step, i)
        self._free, self._later = free, self._free
        used = (*step.operands(), *step.results)
        self._delete(x for x in used if self._last_use.get(self.root(x), -1) <= i)
        if not self._queue:
            self._reuse()

    def _reuse(self) -> None:
        self._free += self._later
        self._later = []
        if self._gone:
            self._line(f"del {', '.join(self._gone)}")
            self._gone = []

    def _delete(self, values: Iterable[Value]) -> None:
        """Let go of variables: what they hold is memory of the graph's pool."""
        for x in values:
            self._gone += self._variables.pop(self.root(x), ())

    def _is_ufunc(self, step: Instruction) -> bool:
        return False

    def _reduction(self, step: Instruction) -> None:
        self._other(step)

    # -- loops

    def _loop(self, step: Fused, i: int) -> None:
        # not by the names of the program: equal loops share a kernel
        names = {x: f"x{k}" for k, x in enumerate(step.args)}
        names |= {x: f"y{k}" for k, x in enumerate(step.results)}
        try:
            shown = text_of(step, self.names, self._numbers)
            text = text_of(step, names, self._numbers)
        except symbols.NotElementwise:
            parts = list(parts_of(step))
            for single in parts:
                self._write(single, i)
            inner = {x for single in parts for x in single.results}.difference(step.results)
            self._delete(inner)
            return
        given = [(names[x], x) for x in step.args if names[x] in text.variables]
        self._take_over(step, i)
        for value in step.results:
            self._out(value)
        made = [(names[x], x) for x in step.results]
        part = _Part(_name(step.body), step.shape, given, made, text)
        if step.sums:
            self._comment(step, shown)
            self._sum(part, step.sums[step.result])
            return
        if not self._fits(part):
            self._flush()
        self._comment(step, shown)
        self._queue.append(part)

    def _comment(self, step: Fused, text: symbols.Text) -> None:
        for line in described(text, {self.names[x]: axes for x, axes in step.sums.items()}):
            self._note(line)

    def _sum(self, part: _Part, axes: tuple[int, ...]) -> None:
        ((name, value),) = part.made
        inputs = {k: x.dtype for k, x in part.given}
        kernel = _summing(
            self._backend,
            fusion.Kernel(part.name, inputs, {name: value.dtype}, part.text, value.dtype),
        )
        kernel = functools.partial(_sum_into, kernel)
        options = {"axis": axes, "keepdims": len(value.shape) == len(part.shape)}
        shapes = [part.shape if x.shape != part.shape else None for _, x in part.given]
        arrays = [*(x for _, x in part.given), value]
        self._launch(f"{part.name}_sum", kernel, arrays, [*shapes, None], options)

    def _launch(
        self,
        name: str,
        kernel: Callable[..., Any],
        arrays: Sequence[Value],
        shapes: Sequence[tuple[int, ...] | None],
        options: Mapping[str, Any],
    ) -> None:
        name = self.names.free(name.removeprefix("gpugrad_"))
        self.scope[name] = _Kernel(kernel, tuple(shapes), options, self._xp.broadcast_to)
        self.kernels += 1
        self._line(f"{name}({', '.join(self.names[x] for x in arrays)})")

    def _fits(self, part: _Part) -> bool:
        """Whether a part can run beside those of the queue, in any order."""
        read, written, count = [], [], part.bytes
        for other in self._queue:
            read += [self.places[x] for _, x in other.given if x in self.places]
            written += [self.places[x] for _, x in other.made]
            count += other.bytes
        needs = [self.places[x] for _, x in part.given if x in self.places]
        makes = [self.places[x] for _, x in part.made]
        if count > _MOST_BYTES:
            return False
        return not (_overlap(makes, [*read, *written]) or _overlap(needs, written))

    def _flush(self) -> None:
        """Write the call of one kernel for all of the queue."""
        parts, self._queue = [x for x in self._queue if math.prod(x.shape)], []
        if parts:
            made = _kernel_of(self._backend, parts)
            values = [*(x for x, _ in made.given), *(x for part in parts for _, x in part.made)]
            shapes = [shape for _, shape in made.given]
            shapes += [None] * (len(values) - len(shapes))
            self._launch(made.name, made.kernel, values, shapes, {"size": made.size})
        self._reuse()


class _Made(NamedTuple):
    """The kernel of some loops.

    Attributes:
        given: its inputs, and the shape that each is to be broadcast to; after them come outputs.
        size: of all the loops together.
    """

    kernel: Callable[..., Any]
    name: str
    given: list[tuple[Value, tuple[int, ...] | None]]
    size: int


def _kernel_of(backend: Backend, parts: Sequence[_Part]) -> _Made:
    arrays: dict[tuple[Value, tuple[int, ...] | None], str] = {}
    text = _text(parts, arrays)
    outputs = [x for part in parts for _, x in part.made]
    names = list(dict.fromkeys(x.name for x in parts))
    name = "_and_".join([names[0], *(x.removeprefix("gpugrad_") for x in names[1:2])])
    kernel = _elementwise(
        backend,
        ", ".join(f"raw {x.dtype} {name}" for (x, _), name in arrays.items()),
        ", ".join(f"raw {x.dtype} b{k}" for k, x in enumerate(outputs)),
        text,
        name,
        tuple(dict.fromkeys(x for part in parts for x in part.text.files)),
    )
    return _Made(kernel, name, list(arrays), sum(math.prod(x.shape) for x in parts))


def _text(parts: Sequence[_Part], arrays: dict[tuple[Value, tuple[int, ...] | None], str]) -> str:
    """The text of the kernel that runs these loops.

    Args:
        arrays: filled: an input, and the shape it is broadcast to -> its name.
    """
    blocks, start, outputs = [], 0, 0
    for part in parts:
        size = math.prod(part.shape)
        offset = f" - {start}" if start else ""
        lines = [f"const {'int' if size < 2**31 else 'ptrdiff_t'} j = i{offset};"]
        for name, x in part.given:
            index = _index(x.shape, part.shape)
            key = (x, None if index else part.shape)
            array = arrays.setdefault(key, f"a{len(arrays)}")
            lines.append(f"const auto {name} = {array}[{index or 'j'}];")
        lines += part.text.locals
        for name, _ in part.made:
            lines.append(f"b{outputs}[j] = {part.text.values[name]};")
            outputs += 1
        start += size
        test = f"if (i < {start}) " if part is not parts[-1] else ""
        blocks.append("\n".join([f"{test}{{", *lines, "}"]))
    return " else ".join(blocks)


def _index(shape: tuple[int, ...], full: tuple[int, ...]) -> str | None:
    """Which entry of an array of `shape` goes with entry j of the loop; None: not so simple."""
    if math.prod(shape) == 1:
        return "0"
    shape = (1,) * (len(full) - len(shape)) + shape
    first = next(k for k, n in enumerate(shape) if n > 1)
    last = next(k for k, n in reversed([*enumerate(shape)]) if n > 1) + 1
    if shape[first:last] != full[first:last]:
        return None
    before, after = math.prod(full[:first]), math.prod(full[last:])
    index = "j" if after == 1 else f"j / {after}"
    if before == 1:
        return index
    return f"{index} % {math.prod(shape)}"


def _name(body: Sequence[Instruction]) -> str:
    """Of a kernel, from what it computes."""
    functions = dict.fromkeys(x.function.rpartition(".")[2] for x in body)
    shown = [x for x in functions if x not in ("astype", "broadcast_to", "sum")][:4]
    return "_".join(["gpugrad", *(shown or functions)])


@functools.cache
def _elementwise(
    backend: Backend, inputs: str, outputs: str, text: str, name: str, files: tuple[str, ...]
) -> Callable[..., Any]:
    return backend.elementwise_kernel(inputs, outputs, text, name, source_of(*files))


_sums: dict[tuple, Callable[..., Any]] = {}


def _summing(backend: Backend, kernel: fusion.Kernel) -> Callable[..., Any]:
    inputs, outputs = tuple(kernel.inputs.items()), tuple(kernel.outputs.items())
    key = (backend, kernel.name, inputs, outputs, kernel.text.expression, kernel.summed)
    if key not in _sums:
        _sums[key] = backend.kernel(kernel)
    return _sums[key]


def _sum_into(kernel: Callable[..., Any], *arrays: Any, **options: Any) -> None:
    """A reduction kernel's result in the last of the arrays, which is C-contiguous.

    Of one array by columns CuPy may make it by CUB, also by columns: the result it is given would
    have other strides from then on, and views of it would not.
    """
    *given, out = arrays
    if len(given) == 1 and given[0].flags.f_contiguous and out.ndim > 1:
        out[...] = kernel(*given, **options)
    else:
        kernel(*given, out, **options)


def _overlap(some: Sequence[Any], others: Sequence[Any]) -> bool:
    """Whether an array of `some` may share memory with one of `others`."""

    def ends(x: Any) -> tuple[int, int]:
        low = high = x.data.ptr
        for n, stride in zip(x.shape, x.strides):
            low, high = low + min(0, (n - 1) * stride), high + max(0, (n - 1) * stride)
        return low, high + x.itemsize

    pairs = [ends(x) for x in others if x.size]
    return any(a < d and c < b for a, b in (ends(x) for x in some if x.size) for c, d in pairs)


def _matmul(backend: Backend, a: Any, b: Any, out: Any) -> None:
    """By cuBLAS itself where it takes the arrays: that can be captured."""
    blas: Any = backend.blas
    if blas.supports(a, b, out):
        blas.matmul(a, b, out)
    else:
        out[...] = backend.xp.matmul(a, b)


def _einsum(backend: Backend, subscripts: str, *arrays: Any, **options: Any) -> Any:
    """That of the library, which cannot be captured where it makes products; these by `_matmul`."""
    letters = _letters(subscripts, *arrays) if len(arrays) == 2 else None
    if letters is None:
        return backend.xp.einsum(subscripts, *arrays, **options)
    left, right, result = letters
    a, b = arrays
    sizes = dict(zip(left + right, a.shape + b.shape))
    both = [x for x in result if x in left and x in right]
    rows, columns = ([x for x in result if x in one and x not in both] for one in (left, right))
    summed = [x for x in left if x in right and x not in result]

    def matrices(x: Any, given: str, *axes: Sequence[str]) -> Any:
        order = [given.index(k) for k in (*both, *axes[0], *axes[1])]
        shape = [sizes[k] for k in both] + [math.prod(sizes[k] for k in some) for some in axes]
        return x.transpose(order).reshape(shape)

    a, b = matrices(a, left, rows, summed), matrices(b, right, summed, columns)
    out = backend.xp.empty((*a.shape[:-1], b.shape[-1]), a.dtype)
    _matmul(backend, a, b, out)
    made = [*both, *rows, *columns]
    return out.reshape([sizes[k] for k in made]).transpose([made.index(k) for k in result])


def _letters(subscripts: str, a: Any, b: Any) -> tuple[str, str, str] | None:
    """The letters of both operands and the result, if it is a product of (stacks of) matrices."""
    given, _, result = subscripts.partition("->")
    left, right = given.split(",")
    sizes: dict[str, set[int]] = {}
    for letter, n in zip(left + right, a.shape + b.shape):
        sizes.setdefault(letter, set()).add(n)
    simple = (
        a.dtype == b.dtype
        and all(len(set(x)) == len(x) for x in (left, right, result))
        and all(len(x) == 1 for x in sizes.values())
        and set(left) ^ set(right) <= set(result)
        and set(left) & set(right) > set(left) & set(right) & set(result)
    )
    return (left, right, result) if simple else None
