"""From a program to Python that runs it: calls with `out=`, in memory that is planned beforehand.

Every value has its place. Most are buffers, arrays that stay from call to call; values that are
not needed at the same time share one. A view of what stays is made once. What comes with a call
(arguments), and what functions without `out=` give, are variables of the function that is written.
"""

from __future__ import annotations

import keyword
import math
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from .. import symbols
from ..tape import owner_of
from .loops import Loop, Operand
from .passes import VIEWS, as_symbol, numbers_of
from .program import WRITES, Fused, Instruction, Program, Value, map_values, perform

# the names stand in C++ too, where symbols.write calls what it computes first v0, v1, ...
_WORDS = (
    "alignas alignof and_eq asm auto bitand bitor bool case catch char char16_t char32_t compl "
    "const const_cast constexpr decltype default delete do double dynamic_cast enum explicit "
    "export extern false float friend goto inline int long mutable namespace new noexcept not_eq "
    "nullptr operator or_eq private protected public register reinterpret_cast short signed "
    "sizeof static static_assert static_cast struct switch template this thread_local throw true "
    "typedef typeid typename union unsigned using virtual void volatile wchar_t xor xor_eq "
    # what the text of loops calls or is called by, on some machine
    "abs acos acosh add_to asin asinh atan atan2 atanh bfloat16 cbrt ceil complex complex64 "
    "complex128 conj copysign cos cosh erf erfc exp exp2 expm1 fabs float16 float32 float64 floor "
    "fma fmax fmin fmod gpugrad hypot i imag isfinite isinf isnan log log10 log1p log2 max min n "
    "nextafter pow real rint signbit sin sinh sqrt std tan tanh total trunc "
    "BINARY EOF INFINITY NAN NULL UNARY VECTOR "
    # what the function that is written is called, and uses
    "array slice step"
).split()
_LOCAL = re.compile(r"v\d+|loops_\d+")
_MACRO = re.compile(r"_.*|(M|FP|U?INT\w*|HUGE|MATH)_\w+")
_REDUCTIONS = {"sum": "add", "prod": "multiply", "max": "maximum", "min": "minimum"}
_INTO = ("cumsum", "cumprod", "concatenate")  # which can put their result somewhere, in NumPy
_ALIGNMENT = 64  # bytes, of buffers: a line of the cache, and the widest vector


class Names:
    """Short names for values: those that the user has for them, or w0 for a captured array, ..."""

    def __init__(self, program: Program) -> None:
        self._names: dict[Value, str] = {}
        self._taken = {*keyword.kwlist, *_WORDS}
        kinds = {"captured": "w", "constant": "c", "gradient": "g", "argument": "x", "draw": "r"}
        for value, name in program.names.items():
            self._names[value] = self.free(re.sub(r"\W+", "_", name, flags=re.A).strip("_"))
        for value, kind, _ in program.inputs:
            if value not in self._names:
                self._number(value, kinds[kind])

    def __getitem__(self, value: Value) -> str:
        if value not in self._names:
            self._number(value, "t")
        return self._names[value]

    def call(self, value: Value, name: str) -> None:
        """Give `value` a name like `name`, if it has none."""
        if value not in self._names:
            self._names[value] = self.free(name)

    def renew(self, value: Value) -> str:
        """Give `value` another name from now on."""
        self._names[value] = self.free(self[value])
        return self._names[value]

    def free(self, name: str) -> str:
        """`name`, or one like it that nothing has yet."""
        if not name.isidentifier() or _MACRO.fullmatch(name):
            name = f"x{name}"
        while name in self._taken or _LOCAL.fullmatch(name):
            name += "_"
        self._taken.add(name)
        return name

    def _number(self, value: Value, letter: str) -> None:
        n = 0
        while f"{letter}{n}" in self._taken:
            n += 1
        self._names[value] = self.free(f"{letter}{n}")


def text_of(
    step: Fused, names: Names | Mapping[Value, str], numbers: Mapping[Value, Any]
) -> symbols.Text:
    """The statements of a loop.

    Raises:
        symbols.NotElementwise: if a number in it has no text.
    """
    made: dict[Value, symbols.Symbol] = {}

    def find(value: Value) -> symbols.Symbol:
        if value not in made:
            if value in numbers:
                constant = (numbers[value],)
                made[value] = symbols.Symbol("constant", constant, (), value.dtype)
            else:
                made[value] = symbols.variable(names[value], value.dtype)
        return made[value]

    for part in step.body:
        is_sum = part.result in step.sums
        made[part.result] = find(part.args[0]) if is_sum else as_symbol(part, find)
    return symbols.write({names[x]: (made[x], x.dtype) for x in step.results})


def described(text: symbols.Text, sums: Mapping[str, tuple[int, ...]]) -> Iterator[str]:
    """What a loop computes, for people: a result that others use is called by its name."""
    results = {x: name for name, x in reversed(text.values.items()) if name not in sums}

    def said(expression: str) -> str:
        named = re.sub(r"\bv\d+\b", lambda m: results.get(m[0], m[0]), expression)
        return named.replace("gpugrad::", "")

    for line in text.locals:
        parts = re.fullmatch(r"const (.+?) (v\d+) = (.*);", line)
        assert parts is not None
        kind, name, expression = parts.groups()
        yield f"{results.get(name, f'{kind} {name}')} = {said(expression)}"
    for result, expression in text.values.items():
        if result in sums:
            axes = ", ".join(map(str, sums[result]))
            over = f"axes {axes}" if len(sums[result]) > 1 else f"axis {axes}"
            yield f"{result} = sum over {over} of {said(expression)}"
        elif results[expression] != result or not _LOCAL.fullmatch(expression):
            yield f"{result} = {said(expression)}"


def with_text(program: Program, numbers: Mapping[Value, Any]) -> Program:
    """With loops that have no text, for a number in them, as single instructions again."""
    steps: list[Instruction] = []
    for step in program.instructions:
        if isinstance(step, Fused):
            values = dict.fromkeys([*step.args, *step.results])
            try:
                text_of(step, {x: f"x{k}" for k, x in enumerate(values)}, numbers)
            except symbols.NotElementwise:
                steps += parts_of(step)
                continue
        steps.append(step)
    return program.with_instructions(steps)


def is_view(step: Instruction) -> bool:
    """Whether the result shares the memory of its first argument, or may."""
    if step.function == "getitem":
        key = step.args[1] if isinstance(step.args[1], tuple) else (step.args[1],)
        return all(x is None or x is ... or isinstance(x, (int, np.integer, slice)) for x in key)
    return step.function in VIEWS or step.function in ("real", "imag")


def updates_last(program: Program) -> Program:
    """With what only updates need at the end: all else, which may fail, comes before."""
    needed = set(program.outputs)
    early = []
    for step in reversed(program.instructions):
        if not isinstance(step, Fused) or needed.intersection(step.results):
            early.append(step)
            needed.update(step.operands())
    kept = set(map(id, early))
    late = [step for step in program.instructions if id(step) not in kept]
    return program.with_instructions([*early[::-1], *late])


class Emitter:
    """Writes the lines of a program.

    Attributes:
        lines: of the body of the function.
        scope: name -> array or function, of the names in the lines.
        places: value -> the array that it stays in.
        steps: what each of the loops is.
        runs: loops that are called together, each with the values of its inputs and outputs.
        lent: number of an output -> its buffer, which is the user's while somebody holds it.
        examples: arrays as they come with a call, of inputs and of views of them.
        sure: numbers of outputs that are computed when all that may fail is done.
    """

    def __init__(
        self, program: Program, arrays: Mapping[Value, Any], names: Names, xp: Any
    ) -> None:
        self._numbers = numbers_of(program)
        self.program = program = updates_last(with_text(program, self._numbers))
        self.names = names
        self.lines: list[str] = []
        self.scope: dict[str, Any] = {}
        self.places: dict[Value, Any] = {}
        self.loops: list[Loop] = []
        self.steps: list[Fused] = []
        self.runs: list[list[tuple[int, list[Value]]]] = []
        self.lent: dict[int, Any] = {}
        self.allocated = 0
        self._xp = xp
        self.examples = dict(arrays)
        self._calls: dict[str, str] = {}  # function -> its name in the scope
        self._free: list[Any] = []  # buffers whose value is not needed any more
        self._buffer_of: dict[Value, Any] = {}
        self._kept: dict[Value, str] = {}  # copies made before a write
        self._is_running = False  # whether the last line calls loops
        self._running = ""  # that line
        self._root: dict[Value, Value] = {}
        for value, kind, source in program.inputs:
            if kind in ("captured", "constant"):
                self._settle(value, source)
        self._last_use = self._find_last_uses()
        self._outputs = self._output_places()
        self.sure = self._sure_outputs()
        self._stored = dict(self._update_places())
        for held, value in program.updates:
            names.call(value, f"{names[held]}_new")

    # ---- what is known before

    def root(self, value: Value) -> Value:
        """The value whose memory it shares."""
        while value in self._root:
            value = self._root[value]
        return value

    def _find_last_uses(self) -> dict[Value, float]:
        last: dict[Value, float] = {}
        for i, step in enumerate(self.program.instructions):
            if is_view(step):
                self._root[step.result] = step.args[0]
            for value in step.operands():
                last[self.root(value)] = i
        for value in self.program.wanted():
            last[self.root(value)] = math.inf
        return last

    def _separate(self, value: Value) -> None:
        """Give `value` memory of its own, for as long as that which it shared was needed."""
        self._last_use[value] = self._last_use[self.root(value)]
        self._root.pop(value, None)

    def _output_places(self) -> dict[Value, int]:
        """The values that are computed into the memory of an output; the others are copied."""
        made = {x for s in self.program.instructions if not is_view(s) for x in s.results}
        made -= set(self._root.values())  # a view would stay where it was
        found: dict[Value, int] = {}
        for i, value in enumerate(self.program.outputs):
            if value in made and value not in found:
                found[value] = i
        return found

    def _sure_outputs(self) -> set[int]:
        done: set[Value] = set()
        for step in reversed(self.program.instructions):
            if not (isinstance(step, Fused) or is_view(step) or self._is_safe(step)):
                break
            done.update(step.results)
        return {i for value, i in self._outputs.items() if value in done}

    def _is_safe(self, step: Instruction) -> bool:
        return step.function == "matmul" or self._is_ufunc(step) or _is_reduction(step)

    def _update_places(self) -> Iterator[tuple[Value, Value]]:
        """(value, input) where the value can be computed into the memory of the input."""
        steps = self.program.instructions
        maker = {x: i for i, step in enumerate(steps) for x in step.results}
        fallible = max((i for i, step in enumerate(steps) if _may_fail(step)), default=-1)
        taken = set(self._outputs)
        for held, value in self.program.updates:
            i = maker.get(value, -1)
            array = self.places.get(held)
            if value in taken or i <= fallible or array is None or not array.flags.c_contiguous:
                continue
            if not getattr(array.flags, "aligned", True):  # which only NumPy has
                continue
            if (value.shape, value.dtype) != (held.shape, held.dtype):
                continue
            step = steps[i]
            if not isinstance(step, Fused) or value in step.sums or value.shape != step.shape:
                continue
            users = [
                k for k, s in enumerate(steps) if any(self.root(x) is held for x in s.operands())
            ]
            if any(k > i for k in users):
                continue
            if any(self.root(x) is held and x is not held for x in step.operands()):
                continue
            taken.add(value)
            yield value, held

    # ---- places

    def _settle(self, value: Value, array: Any) -> None:
        self.places[value] = array
        self.scope[self.names[value]] = array

    def _new(self, value: Value) -> Any:
        """A buffer for a value: of what is free the smallest that is large enough."""
        if value in self._outputs:
            array = self.lent[self._outputs[value]] = self._empty(value)
        elif value in self._stored:
            array = self.places[self._stored[value]]
        else:
            fitting = [x for x in self._free if value.nbytes <= x.nbytes <= 4 * value.nbytes + 4096]
            memory = min(fitting, key=lambda x: x.nbytes, default=None)
            if memory is None:
                memory = self._memory(value.nbytes)
            else:
                self._free = [x for x in self._free if x is not memory]
            self._buffer_of[value] = memory
            array = memory[: value.nbytes].view(value.dtype).reshape(value.shape)
        self._settle(value, array)
        return array

    def _memory(self, nbytes: int) -> Any:
        size = -(-nbytes // _ALIGNMENT) * _ALIGNMENT
        self.allocated += size
        raw = self._xp.empty(size + _ALIGNMENT, dtype=np.uint8)
        start = -_address(raw) % _ALIGNMENT
        return raw[start : start + size]

    def _empty(self, value: Value) -> Any:
        self.allocated += value.nbytes
        return self._xp.empty(value.shape, dtype=value.dtype)

    def _release(self, step: Instruction, i: int) -> None:
        """Give back the buffers of what step i was the last to need."""
        for value in dict.fromkeys(map(self.root, (*step.operands(), *step.results))):
            if self._last_use.get(value, -1) <= i and value in self._buffer_of:
                self._free.append(self._buffer_of.pop(value))

    def _take_over(self, step: Fused, i: int) -> None:
        """Let results stand where arguments stood that are not needed any more."""
        sized = [x for x in step.results if x not in step.sums and x not in self._outputs]
        for value in dict.fromkeys(step.args):
            if (
                value in self._buffer_of
                and self._last_use.get(value) == i
                and value.shape == step.shape
                and not any(self.root(x) is value for x in step.args if x is not value)
            ):
                for result in sized:
                    if result.dtype == value.dtype and result not in self._stored:
                        self._buffer_of[result] = self._buffer_of.pop(value)
                        self._settle(result, self.places[value])
                        sized.remove(result)
                        break

    # ---- lines

    def header(self) -> Iterator[str]:
        """What the inputs are, as comments."""
        kinds = {"argument": "", "captured": "", "gradient": ", from before"}
        held = {value for value, _ in self.program.updates}
        for value, kind, _ in self.program.inputs:
            if kind in kinds:
                what = f"{value.dtype} {value.shape}{kinds[kind]}"
                yield f"# {self.names[value]}: {what}{', updated' * (value in held)}"

    def written(self) -> tuple[str, ...]:
        """Write all; the names of the outputs."""
        before = ""
        written = {held for held, _ in self.program.updates}
        # what shows the memory that is going to be written is what was there before
        wanted = [*self.program.outputs, *(x for held, x in self.program.updates if x is not held)]
        old = {x for x in wanted if self.root(x) in written}
        for value in old & written:
            self._keep(value)
        for i, step in enumerate(self.program.instructions):
            heading = _heading(step)
            if heading != before and not is_view(step):
                self._note(heading)
                before = heading
            self._write(step, i)
            for value in old.intersection(step.results):
                self._keep(value)
            self._release(step, i)
        self._store()
        return tuple(self._output(i, value) for i, value in enumerate(self.program.outputs))

    def _store(self) -> None:
        for held, value in self.program.updates:
            # a loop that could not be written as one has left it elsewhere
            if value not in self.places or self.places[value] is not self.places.get(held):
                new = self._kept.get(value, self.names[value])
                self._line(f"{self._call('copyto')}({self.names[held]}, {new})")

    def _output(self, i: int, value: Value) -> str:
        is_new = value not in self.places and self._outputs.get(value) == i
        if i in self.lent or (is_new and value not in self._kept):
            return self.names[value]
        return f"{self._kept.get(value, self.names[value])}.copy()"

    def _keep(self, value: Value) -> None:
        self._kept[value] = self.names.free(f"{self.names[value]}_before")
        self._line(f"{self._kept[value]} = {self.names[value]}.copy()")

    def _line(self, text: str) -> None:
        self.lines.append(text)
        self._is_running = False

    def _note(self, text: str) -> None:
        self.lines.append(f"# {text}")

    def _write(self, step: Instruction, i: int) -> None:
        if isinstance(step, Fused):
            self._loop(step, i)
        elif is_view(step):
            self._view(step)
        elif step.function in WRITES:
            array, *rest = step.args
            self._out(step.result)
            name = self.names[step.result]
            self._line(f"{self._call('copyto')}({name}, {self._text(array)})")
            self._line(f"{self._call(step.function)}({name}, {self._texts(rest)})")
        elif step.function == "matmul" or self._is_ufunc(step):
            call = self._call(step.function)
            self._out(step.result)
            self._line(f"{call}({self._texts(step.args)}, out={self.names[step.result]})")
        elif step.function == "astype" and isinstance(step.args[0], Value):
            self._out(step.result)
            given = f"{self.names[step.result]}, {self._text(step.args[0])}"
            self._line(f"{self._call('copyto')}({given}, 'unsafe')")
        elif step.function in _INTO and step.result.device.kind == "cpu":
            self._out(step.result)
            options = {**step.options, "out": step.result}
            given = f"{self._texts(step.args)}{self._options(options)}"
            self._line(f"{self._call(step.function)}({given})")
        elif _is_reduction(step):
            self._reduction(step)
        else:
            self._other(step)

    def _out(self, value: Value) -> None:
        if value not in self.places:
            self._new(value)

    def _is_ufunc(self, step: Instruction) -> bool:
        f: Any = getattr(self._xp, step.function.rpartition(".")[2], None)
        is_own = "." not in step.function and isinstance(f, np.ufunc)
        return is_own and not step.several and not step.options and len(step.args) == f.nin

    def _view(self, step: Instruction) -> None:
        source = step.args[0]
        if source in self.places:
            args, options = map_values(self.places.__getitem__, (step.args, step.options))
            view = perform(self._xp, step.function, args, options)
            if owner_of(view) is owner_of(self.places[source]):
                self._settle(step.result, view)
                self._note(f"{self.names[step.result]} is {self._view_text(step)}")
                return
            self._separate(step.result)  # it was a copy: to be made in every call
        elif source in self.examples:
            args, options = map_values(self.examples.__getitem__, (step.args, step.options))
            view = perform(self._xp, step.function, args, options)
            if owner_of(view) is owner_of(self.examples[source]):
                self.examples[step.result] = view
        if step.function == "transpose" and len(step.args) == 1:
            self._line(f"{self.names[step.result]} = {self._view_text(step)}")
        else:
            self._other(step)

    def _view_text(self, step: Instruction) -> str:
        source, *rest = step.args
        name = self.names[source]
        if step.function == "transpose" and (not rest or rest[0] is None):
            return f"{name}.T"
        if step.function == "getitem":
            key = rest[0] if isinstance(rest[0], tuple) else (rest[0],)
            return f"{name}[{', '.join(map(_index_text, key))}]"
        return f"{step.function}({', '.join(map(str, (name, *rest)))})"

    def _reduction(self, step: Instruction) -> None:
        x, *rest = step.args
        options = dict(zip(("axis", "dtype", "keepdims"), rest)) | dict(step.options)
        ufunc = _REDUCTIONS[step.function]
        self._out(step.result)
        given = [self._text(x), self._text(options.get("axis")), self._text(options.get("dtype"))]
        given += [self.names[step.result], self._text(options.get("keepdims", False))]
        self._line(f"{self._call(f'{ufunc}.reduce')}({', '.join(given)})")

    def _other(self, step: Instruction) -> None:
        names = ", ".join(self.names[x] for x in step.results)
        if step.several and len(step.results) == 1:
            names += ","
        options = self._options(step.options)
        if step.function == "draw":
            given = self._texts(step.args[2:])
            self._line(f"{names} = {self._constant(_drawing(step), 'draw')}({given})")
        elif step.function == "kernel":
            kernel, *arrays = step.args
            name = self._constant(kernel, "kernel")
            self._line(f"{names} = {name}({self._texts(arrays)}{options})")
        elif step.function == "einsum" and len(step.operands()) == 1:  # which may be a view of it
            call = f"{self._call(step.function)}({self._texts(step.args)}{options})"
            self._line(f"{names} = {call}.copy()")
        else:
            self._line(f"{names} = {self._call(step.function)}({self._texts(step.args)}{options})")

    def _loop(self, step: Fused, i: int) -> None:
        text = text_of(step, self.names, self._numbers)
        given = [x for x in step.args if self.names[x] in text.variables]
        moved = [x for x in given if x not in self.places and x not in self.examples]
        for value in moved:
            self._fix(value)
        if moved:
            text = text_of(step, self.names, self._numbers)  # with their new names
        self._take_over(step, i)
        for value in step.results:
            self._out(value)
        axes = len(step.shape)
        inputs = {self.names[x]: self._operand(x, step.shape) for x in given}
        outputs = {}
        for value in step.results:
            strides = iter(_contiguous(value))
            summed = step.sums.get(value, ())
            kept = (
                [next(strides) if a not in summed else 0 for a in range(axes)]
                if (len(value.shape) + len(summed) == axes)
                else [0 if a in summed else s for a, s in enumerate(strides)]
            )
            outputs[self.names[value]] = Operand(value.dtype, tuple(kept))
        sums = {self.names[x]: axes for x, axes in step.sums.items()}
        name = f"loop_{len(self.loops)}"
        self.loops.append(Loop(name, step.shape, inputs, outputs, sums, text))
        self.steps.append(step)
        call = (len(self.loops) - 1, [*given, *step.results])
        for line in described(text, sums):
            self._note(line)
        self._run(call)

    def _run(self, call: tuple[int, list[Value]]) -> None:
        """A loop, in one call with those before it if nothing stands between."""
        if self._is_running:
            self.runs[-1].append(call)
            self.lines.remove(self._running)
        else:
            self.runs.append([call])
        dynamic = [x for _, values in self.runs[-1] for x in values if x not in self.places]
        given = ", ".join(self.names[x] for x in dict.fromkeys(dynamic))
        self._running = f"loops_{len(self.runs) - 1}({given})"
        self._line(self._running)
        self._is_running = True

    def _operand(self, value: Value, shape: tuple[int, ...]) -> Operand:
        array = self.places[value] if value in self.places else self.examples[value]
        spread = np.lib.stride_tricks.as_strided(
            np.empty(0, np.uint8), value.shape, _strides(array)
        )
        strides = np.broadcast_to(spread, shape).strides
        strides = tuple(0 if n == 1 else s for n, s in zip(shape, strides))
        return Operand(value.dtype, strides)

    def _fix(self, value: Value) -> None:
        """Copy a variable into a buffer."""
        variable = self.names[value]
        self.names.renew(value)
        self._separate(value)
        self._new(value)
        self._line(f"{self._call('copyto')}({self.names[value]}, {variable})")

    # ---- text

    def _call(self, function: str) -> str:
        if function not in self._calls:
            f: Any = self._xp
            for part in function.split("."):
                f = getattr(f, part)
            name = self.names.free(function.replace(".", "_"))
            self._calls[function] = name
            self.scope[name] = f
        return self._calls[function]

    def _constant(self, x: Any, name: str) -> str:
        name = self.names.free(f"{name}_{len(self.scope)}")
        self.scope[name] = x
        return name

    def _options(self, options: Mapping[str, Any]) -> str:
        said = {k: x for k, x in options.items() if k != "dtype" or x is not None}
        return "".join(f", {k}={self._text(x)}" for k, x in said.items())

    def _texts(self, args: Sequence[Any]) -> str:
        return ", ".join(map(self._text, args))

    def _text(self, x: Any) -> str:
        if isinstance(x, Value):
            return self.names[x]
        if x is None or x is ... or isinstance(x, (bool, int, str)):
            return "..." if x is ... else repr(x)
        if type(x) is float and math.isfinite(x):
            return repr(x)
        if type(x) is tuple:
            return f"({self._texts(x)}{',' * (len(x) == 1)})"
        if type(x) is list:
            return f"[{self._texts(x)}]"
        if type(x) is slice:
            return f"slice({self._texts((x.start, x.stop, x.step))})"
        return self._constant(x, "k")


def parts_of(step: Fused) -> Iterator[Instruction]:
    """The body with values of its own: of scalars, other loops have the same instructions."""
    own: dict[Value, Value] = {x: x for x in step.results}
    for part in step.body:
        for x in part.results:
            own.setdefault(x, Value(x.shape, x.dtype, x.device))
        part = part.with_operands(lambda x: own.get(x, x))
        yield replace(part, results=tuple(own[x] for x in part.results))


def _index_text(x: Any) -> str:
    if not isinstance(x, slice):
        return "..." if x is ... else str(x)
    ends = ["" if end is None else str(end) for end in (x.start, x.stop)]
    return ":".join(ends if x.step is None else [*ends, str(x.step)])


def _is_reduction(step: Instruction) -> bool:
    known = step.options.keys() <= {"axis", "dtype", "keepdims"} and len(step.args) <= 4
    return step.function in _REDUCTIONS and isinstance(step.args[0], Value) and known


def _may_fail(step: Instruction) -> bool:
    return not isinstance(step, Fused) and not is_view(step)


def _heading(step: Instruction) -> str:
    notes = [part.note for part in step.body] if isinstance(step, Fused) else [step.note]
    phases = dict.fromkeys(note.phase for note in notes)
    of = f" of {notes[0].operation}" if len(set(notes)) == 1 and notes[0].operation else ""
    places = dict.fromkeys((os.path.basename(note.file), note.line) for note in notes)
    lines: dict[str, list[str]] = {}
    for file, line in places:
        lines.setdefault(file, []).append(str(line))
    where = ", ".join(f"{file}:{','.join(numbers)}" for file, numbers in lines.items())
    return f"{' and '.join(phases)}{of} ({where})"


def _drawing(step: Instruction) -> Callable[..., Any]:
    generator, method, *_ = step.args

    def draw(*args: Any) -> Any:
        return perform(None, "draw", (generator, method, *args), {})

    return draw


def _strides(array: Any) -> tuple[int, ...]:
    return tuple(array.strides)


def _contiguous(value: Value) -> tuple[int, ...]:
    strides, step = [], value.dtype.itemsize
    for n in reversed(value.shape):
        strides.append(step)
        step *= n
    return tuple(strides[::-1])


def _address(array: Any) -> int:
    return array.ctypes.data
