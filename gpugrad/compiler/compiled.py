"""`compile`: what a function computes is written down in its first call, and then replayed."""

from __future__ import annotations

import functools
import inspect
import threading
import types
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Generic, ParamSpec, TypeVar, overload

from .. import backends, batching, rules
from ..rules import as_array, hindered
from ..tape import Leaf, owner_of
from ..tensor import Tensor
from ..trees import flatten, map_tree
from . import cpu, cuda, recorder
from .checking import checked
from .guards import unwrapped
from .program import Program, map_values, perform
from .recorder import RecordedArray
from .recording import DerivedOutside, Recording, is_array, place_of, record, store
from .signature import Signature, names_of, write_bind, write_finish
from .summary import summary

P = ParamSpec("P")
R = TypeVar("R")


class CompileWarning(UserWarning):
    """A compiled function is called with ever new signatures; says what changes."""


# ---- execution


class Interpreter:
    """A program as a function: one call of the array library after the other.

    The specification of what emitters make of a program: given the arrays of `program.inputs`, in
    order, it returns those of `program.outputs`, which are the caller's, and stores the updates in
    the arrays of the inputs when all that may fail is done.
    """

    def __init__(self, program: Program) -> None:
        self.program = program
        self._numbers = {given.value: i for i, given in enumerate(program.inputs)}

    def __call__(self, arrays: Sequence[Any]) -> list[Any]:
        program = self.program
        known = dict(zip(self._numbers, arrays, strict=True))
        for step in program.instructions:
            args, options = map_values(known.__getitem__, (step.args, step.options))
            device = step.results[0].device
            backend = backends.backend_of_kind(device.kind)
            with backend.scope(device):
                out = perform(backend.xp, step.function, args, options)
            made = map(as_array, out if step.several else (out,))  # no numbers of NumPy's
            known.update(zip(step.results, made, strict=True))
        targets = [arrays[self._numbers[held]] for held, _ in program.updates]
        owners = set(map(id, map(owner_of, targets)))
        found = [known[value] for value in program.wanted()]
        # what shows the memory that is going to be written is what was there before
        found = [x.copy() if id(owner_of(x)) in owners else x for x in found]
        count = len(program.outputs)
        store(targets, found[count:])
        return found[:count]


def build(
    program: Program,
    arrays: Sequence[Any],
    leaves: Mapping[int, Leaf],
    loops: str | None = None,
) -> Callable[[Sequence[Any]], Sequence[Any]]:
    """What runs a program: as `Interpreter`, but for where results lie in memory.

    Args:
        arrays: of the inputs, as those of later calls are.
        leaves: number of an output -> the leaf whose `.grad` it will be.
        loops: what runs fused loops on the CPU.
    """
    devices = {given.value.device for given in program.inputs}
    devices |= {x.device for step in program.instructions for x in step.results}
    if {x.kind for x in devices} == {"cpu"}:
        return cpu.Runner(program, arrays, leaves, loops)
    if len(devices) == 1:
        return cuda.Runner(program, arrays, leaves)
    return Interpreter(program)


class Step:
    """A program that was recorded, and what leads to it and from it.

    Attributes:
        program: what is computed.
        runner: what runs it (see `Interpreter`); None where `f` itself must run.
        bind: from (args, kwargs) to the arrays of the program's inputs; None if it was recorded for
            something else.
        finish: from outputs, inputs, args and kwargs to the result; sets gradients.
        described: what it was recorded for, in words, by name.
        checks: how many calls are still to be compared with `f` itself.
    """

    def __init__(
        self,
        recording: Recording | None,
        inputs: Sequence[Any],
        signature: Signature,
        checks: int,
        loops: str | None = None,
    ) -> None:
        signature.watch(recording)
        self.recording = recording
        self.checks = checks
        self.lock = threading.Lock()
        self.described = signature.described
        self.program: Program | None = None
        self.runner: Callable[[Sequence[Any]], Sequence[Any]] | None = None
        names = {}
        if recording is not None:
            names = names_of(recording, signature)
            self.program = replace(recording.program, names=names)
            leaves = {n: x.leaf for x, n in recording.gradients if n is not None and x.leaf}
            self.runner = build(self.program, inputs, leaves, loops)
            self.finish = write_finish(recording, signature)
            for sink, strides in recording.first_gradients:
                name = signature.leaf_name(sink)
                self.described[f"{name}.grad"] = "None" if strides is None else "not None"
        self.names = names
        self.bind = write_bind(recording, signature)

    @property
    def source(self) -> str:
        """The program as it is run; empty where each instruction is called by itself."""
        return getattr(self.runner, "source", "")

    def summary(self) -> str:
        """A table: operations, loops, bytes moved and memory, as recorded and as run."""
        if self.program is None:
            return ""
        return summary(self.program, getattr(self.runner, "program", self.program))


# ---- calls


class _Recordings:
    """The steps that were recorded of a function, or of a method of one instance."""

    def __init__(self, owner: int | None = None) -> None:
        self.owner = owner  # the id of the instance
        self.steps: list[Step] = []
        self.last: Step | None = None
        self.has_warned = False

    def __reduce__(self) -> Any:
        return _Recordings, ()  # a copy of an instance has recordings of its own


class Compiled(Generic[P, R]):
    """What `gpugrad.compile` gives: called as the function that it was made of.

    Attributes:
        steps: what was recorded so far.
        source: the text of what the last call ran.
    """

    _f: Any
    _checks: int
    _limit: int
    _loops: str | None
    _recordings: _Recordings

    def __init__(self, f: Callable[P, R], checks: int, limit: int, loops: str | None) -> None:
        functools.update_wrapper(self, f, updated=())
        self._f = f
        self._checks = checks
        self._limit = limit
        self._loops = loops
        self._recordings = _Recordings()

    @property
    def steps(self) -> list[Step]:
        """What was recorded so far, one per signature."""
        return list(self._recordings.steps)

    @property
    def source(self) -> str:
        """The program that ran last, as it is run; empty if there is none."""
        last = self._recordings.last
        return "" if last is None else last.source

    def summary(self) -> str:
        """What the passes made of the program that ran last; empty if there is none."""
        last = self._recordings.last
        return "" if last is None else last.summary()

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        """As a method: each instance has recordings of its own, which go with it."""
        if instance is None:
            return self
        own = getattr(instance, "__dict__", None)
        if type(own) is not dict:
            raise TypeError(
                f"gpugrad.compile: a {type(instance).__name__} has no __dict__ to keep the "
                "recordings of its methods in: leave out __slots__"
            )
        name = f"_compiled_{self._f.__name__}"
        found = own.get(name)
        if found is None or found.owner != id(instance):
            found = own[name] = _Recordings(id(instance))
        bound = object.__new__(Compiled)
        bound._f = bound.__wrapped__ = types.MethodType(self._f, instance)  # type: ignore
        bound._checks, bound._limit, bound._loops = self._checks, self._limit, self._loops
        bound._recordings = found
        return bound

    def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> R:
        if rules.watch is not None and (watchers := rules.watch()) is not None:
            if watchers.eager:
                return map_tree(as_array, self._f(*args, **kwargs))  # no numbers of NumPy's
            run = functools.partial(self, *args, **kwargs)
            name = getattr(self._f, "__name__", type(self._f).__name__)
            return watchers(f"compiled {name}", (args, kwargs), run)
        step = self._recordings.last
        if step is None or (arrays := step.bind(args, kwargs)) is None:
            return self._look(args, kwargs)
        return self._run(step, arrays, args, kwargs)

    def _run(self, step: Step, arrays: list[Any], args: tuple, kwargs: dict) -> Any:
        if step.checks:
            step.checks -= 1
            return checked(step, self._f, arrays, args, kwargs)
        if step.runner is None:
            return self._f(*args, **kwargs)
        try:
            with step.lock:  # a runner has buffers of its own
                outputs = step.runner(arrays)
        except backends.hindrances as error:
            raise hindered("compile", f"in {place_of(self._f)}nothing was changed", error) from None
        return step.finish(outputs, arrays, args, kwargs)

    def _look(self, args: tuple, kwargs: dict) -> Any:
        """A call that the last step was not recorded for."""
        recordings = self._recordings
        for step in recordings.steps:
            if (arrays := step.bind(args, kwargs)) is not None:
                recordings.last = step
                return self._run(step, arrays, args, kwargs)
        leaves, rebuild = flatten((args, kwargs))
        if recorder.current() is not None or batching.depth() or any(map(_is_derived, leaves)):
            return self._f(*args, **kwargs)
        for x in leaves:
            if isinstance(recorder.outside_data(x) if isinstance(x, Tensor) else x, RecordedArray):
                recorder.refuse_escaped()
        if len(recordings.steps) >= self._limit:
            self._warn(args, kwargs)
            return self._f(*args, **kwargs)
        signature = Signature(self._f, args, kwargs)
        made: list[Step] = []

        def prepare(recording: Recording, inputs: list[Any]) -> None:
            made.append(Step(recording, inputs, signature, self._checks, self._loops))

        try:
            _, outputs, inputs = record(self._f, leaves, rebuild, prepare)
        except DerivedOutside:
            recordings.last = Step(None, (), signature, 0)
            recordings.steps.append(recordings.last)
            return self._f(*args, **kwargs)
        (step,) = made
        recordings.last = step
        recordings.steps.append(step)
        return step.finish(outputs, inputs, args, kwargs)

    def _warn(self, args: tuple, kwargs: dict) -> None:
        if self._recordings.has_warned:
            return
        self._recordings.has_warned = True
        before = self._recordings.steps[-1].described
        now = Signature(self._f, args, kwargs).described
        changes = [
            f"{name}: {before.get(name, 'not there')}, then {now.get(name, 'not there')}"
            for name in {**before, **now}
            if before.get(name) != now.get(name) and not name.endswith(".grad")
        ]
        warnings.warn(
            f"gpugrad.compile: {place_of(self._f)}it has been recorded {self._limit} times (limit="
            f"{self._limit}), and runs itself for other signatures from now on. What changed last: "
            f"{'; '.join(changes) or 'a gradient, or the array of a tensor that it closes over'}. "
            "Give numbers that change as tensors of shape ().",
            CompileWarning,
            stacklevel=4,
        )


def _is_derived(x: Any) -> bool:
    """Whether a derivative is taken of a call with `x` from outside, or `x` is a batch."""
    if isinstance(x, Tensor):
        return not x.is_leaf or hasattr(x.data, "level")
    return hasattr(x, "level") and is_array(x)


@overload
def compile(
    f: Callable[P, R], *, check: bool | int = False, limit: int = 8, loops: str | None = None
) -> Compiled[P, R]: ...


@overload
def compile(
    *, check: bool | int = False, limit: int = 8, loops: str | None = None
) -> Callable[[Callable[P, R]], Compiled[P, R]]: ...


def compile(
    f: Callable[..., Any] | None = None,
    *,
    check: bool | int = False,
    limit: int = 8,
    loops: str | None = None,
) -> Any:
    """`f`, whose array operations are written down in its first call and replayed in later ones.

        @gg.compile
        def step(x, labels):
            loss = gg.nn.cross_entropy(net(x), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            return loss

    The first call runs `f` once, as it is, and records every array operation on the way: those of
    derivatives, of optimisers, what is added to `.grad`, and draws of random numbers. Later calls
    run this program without the Python in between. Tensors that `f` closes over (parameters, the
    state of optimisers) are read where they are, and written when all else is computed. Random
    numbers are drawn anew in every call, from the same streams as without.

    A recording is for a signature; another one is recorded afresh. It is made of

    - the arguments, also in lists, tuples and dicts: of tensors and arrays the shape, dtype,
      device, strides, and whether they require a gradient; of other things the value, and its
      type. A number that changes from call to call is best given as a tensor of shape ();
    - what `f` closes over, as far as it can be seen: that its tensors have the memory they had;
      Python constants, functions and objects in its closure, defaults, the globals it names, the
      items of lists, dicts, sets and deques (up to 4,096), the attributes of `gg.nn.Module`s, and
      those attributes of other objects, classes and modules that its code names. Functions that it
      calls are looked at in the same way, but not those of gpugrad, Python and installed packages;
    - which leaves have a `.grad` when that is asked, the default device, and `no_grad`,
      `deterministic` and `check_bounds`.

    What `f` does to Python objects (a counter, a list, a file) happens while it is recorded and not
    again, but a flag (True, False or None) that it changes counts as what it was; lists and dicts
    among the arguments are copies inside. What a library other than gpugrad computes inside from
    something else than tensors stays what it was. Arguments that are NumPy arrays are no
    `numpy.ndarray` inside. Results that are views of arguments or parameters are copies.

    Where a derivative is taken from outside (the result is on the tape of an argument, as in
    `gg.grad(compiled)`), inside of `vmap`, and inside of another compiled function `f` itself runs.
    Exceptions of `f` pass through. When a call that is replayed raises (no memory), parameters,
    gradients and the state of optimisers are as before.

    Args:
        f: a function, a method, or anything that can be called. As a decorator in a class it makes
            methods with recordings of their own for each instance. It returns tensors, arrays and
            constants, also in lists, tuples and dicts.
        check: True, or a number: in the first 3, or so many, calls that are replayed with each
            signature `f` itself runs too, from the same state; the outcome is that of `f`. Results,
            gradients and everything written are compared: to a relative error, against the largest
            entry, of the square root of the epsilon of the dtype; integers exactly.
        limit: how many signatures are recorded; others run `f` itself, with one `CompileWarning`.
        loops: what runs fused loops on the CPU: "c++" (by the compiler that the setting GPUGRAD_CXX
            names, or that is found), or "numpy"; None for C++ where there is a compiler.

    Raises:
        TypeError: for a generator function or coroutine, and in a call for an argument that is
            neither an array nor hashable.
        ValueError: for other `loops`.
        CompileError: in a first call, for what a recording would get wrong: a branch on a value of
            a tensor, or anything else that looks at one (`float(x)`, `.item()`, `print(x)`, NumPy
            and DLPack); a copy between devices; a shape that depends on values (`nonzero`, a
            boolean mask); numbers from `numpy.random` or `random`, or a generator of these; a
            result whose tape would be lost; a tensor that is used and then replaced where it is
            closed over (`state = state + x`); an array whose bytes are swapped; a tensor from
            outside that is written on the tape or is computed on one; memory that is written and
            has two names. It says where and the mend; parameters, gradients, arguments and random
            streams (on the CPU) are as before. Also for a tensor made inside
            that is used after the call without being returned, and for a difference that `check`
            finds.
    """
    if f is None:
        return functools.partial(compile, check=check, limit=limit, loops=loops)
    if loops not in (None, "c++", "numpy"):
        raise ValueError(f'compile: loops is "c++" or "numpy", not {loops!r}')
    inner = unwrapped(f)
    if not callable(f):
        raise TypeError(f"compile: a {type(f).__name__} is not callable")
    if any(ask(inner) for ask in _RUN_LATER):
        name = getattr(f, "__name__", type(f).__name__)
        raise TypeError(
            f"{place_of(f)}{name} runs after it is called, bit by bit, so it cannot be recorded: "
            "compile the function of one step instead"
        )
    return Compiled(f, 3 if check is True else int(check), limit, loops)


_RUN_LATER = (
    inspect.isgeneratorfunction,
    inspect.iscoroutinefunction,
    inspect.isasyncgenfunction,
)
