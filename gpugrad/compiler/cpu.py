"""Programs on the CPU: NumPy, and loops in C++ where there is a compiler."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .. import backends
from . import host
from .emit import Emitter, Names
from .passes import HOST, optimise
from .program import Program, Value


class Runner:
    """A program on the CPU.

    Called with the arrays of all inputs of the program it was made of, in order, it stores the
    updates in them and gives the arrays of the outputs. Those are its own and computed anew by the
    next call, unless somebody then still holds them.

    Args:
        arrays: of the inputs; those of later calls have the same shapes, dtypes and strides.
        parameters: names of the arguments.

    Attributes:
        program: as it was optimised.
        source: the text of what is run.
    """

    def __init__(
        self, program: Program, arrays: Mapping[Value, Any], parameters: Sequence[str] = ()
    ) -> None:
        self.program = optimise(program, HOST)
        xp = backends.backend_of_kind("cpu").xp
        emitter = Emitter(self.program, arrays, Names(self.program, parameters), xp)
        outputs = emitter.written()
        self._scope = scope = emitter.scope
        self._runs: list[Any] = []
        library = host.build(emitter.loops) if emitter.loops else None
        for k, run in enumerate(emitter.runs):
            assert library is not None
            found = [
                (i, [emitter.places[x] if x in emitter.places else arrays[x] for x in values])
                for i, values in run
            ]
            bound = library.bind_run(found)
            slots: dict[Value, list[tuple[int, int]]] = {}
            for j, (_, values) in enumerate(run):
                for n, x in enumerate(values):
                    if x not in emitter.places:
                        slots.setdefault(x, []).append((j, n))
            scope[f"loops_{k}"] = _Pointed(bound, list(slots.values())) if slots else bound
            self._runs.append((bound, [arrays for _, arrays in found]))
        used = {x.value for x in self.program.inputs}
        self._given = [
            i
            for i, x in enumerate(program.inputs)
            if x.kind in ("argument", "gradient") and x.value in used
        ]
        names = [emitter.names[program.inputs[i].value] for i in self._given]
        lines = [*emitter.lines, f"return [{', '.join(outputs)}]"]
        self.source = f"def step({', '.join(names)}):\n" + "".join(f"    {x}\n" for x in lines)
        exec(compile(self.source, "<gpugrad.step>", "exec"), scope)
        self._function = scope["step"]
        self.memory = emitter.allocated

    def __call__(self, arrays: Sequence[Any]) -> list[Any]:
        return self._function(*[arrays[i] for i in self._given])


class _Pointed:
    """Loops some of whose arrays come with the call."""

    def __init__(self, bound: Any, slots: list[list[tuple[int, int]]]) -> None:
        self._bound = bound
        tables = bound.kept[0][1:]
        self._slots = [[(tables[j], n) for j, n in places] for places in slots]

    def __call__(self, *arrays: Any) -> None:
        for places, x in zip(self._slots, arrays):
            for table, n in places:
                table[n] = x.ctypes.data
        self._bound()
