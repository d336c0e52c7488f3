"""What a function closes over, and the code that looks whether it is as it was.

A recording depends on all that its function reads. Tensors are found while it is recorded; Python
values leave no trace in a program, so they are looked for where a function names them: in the
cells of its closure, its defaults, the globals it names, the attributes of modules (`nn.Module`)
and those named in its code of other objects.
"""

from __future__ import annotations

import dis
import functools
import types
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from .. import backends
from ..nn import Module
from ..tensor import Tensor

_PLAIN = (bool, int, float, complex, str, bytes, type(None))
_FUNCTIONS = (types.FunctionType, types.BuiltinFunctionType, type)
_LONGEST = 64  # containers of more items are known by their identity alone


ABSENT = object()


class Watched(NamedTuple):
    """A value that a function may read.

    Attributes:
        name: for messages, such as "net.layers[0].weight".
        holder: the cell, dict or list that it is in; of a list the whole content is the value.
        key: in the dict; None for a cell or list.
        value: what it was; `ABSENT` if it was not there.
    """

    name: str
    holder: Any
    key: Any
    value: Any

    def is_unchanged(self) -> bool:
        """Whether it is what it was."""
        if isinstance(self.holder, list):
            return same_items(self.holder, self.value)
        if not isinstance(self.holder, types.CellType):
            return same(self.holder.get(self.key, ABSENT), self.value)
        try:
            return same(self.holder.cell_contents, self.value)
        except ValueError:  # it is empty
            return False


def is_plain(x: Any) -> bool:
    """Whether `x` is a constant that is known by its type and value."""
    kind = type(x)
    return kind in _PLAIN or (kind is tuple and all(map(is_plain, x))) or isinstance(x, np.generic)


def constant_key(x: Any) -> Any:
    """What two plain constants have in common only if they are the same to a program.

    True is not 1, 1 is not 1.0, -0.0 is not 0.0, and NaN is itself.
    """
    if isinstance(x, tuple):
        return (type(x), *map(constant_key, x))
    if isinstance(x, np.generic):
        return type(x), x.dtype, x.tobytes()
    return type(x), repr(x) if isinstance(x, (float, complex)) else x


def same(a: Any, b: Any) -> bool:
    """Whether two values are the same to a program: one object, or equal constants."""
    if a is b:
        return True
    if type(a) is not type(b) or not is_plain(a):
        return False
    return bool(constant_key(a) == constant_key(b))


def same_items(a: list[Any], b: list[Any]) -> bool:
    """Whether two lists have the same items."""
    return len(a) == len(b) and all(map(same, a, b))


def unwrapped(f: Any) -> Any:
    """The Python function that is called in the end when `f` is; `f` itself if there is none."""
    while True:
        if isinstance(f, functools.partial):
            f = f.func
        elif isinstance(f, types.MethodType):
            f = f.__func__
        elif isinstance(f, types.FunctionType):
            return f
        else:
            call = type(f).__call__ if callable(f) else None
            return call if isinstance(call, types.FunctionType) else f


def watch(f: Any, given: dict[str, Any]) -> list[Watched]:
    """What `f` may read, objects among its arguments (`given`) included."""
    names: set[str] = set()
    while True:  # each walk finds more functions, by the names that those before have found
        count, walk = len(names), _Walk(names)
        walk.function(f, "")
        for name, x in given.items():
            walk.inside(name, x)
        if len(names) == count:
            return walk.found


class _Walk:
    def __init__(self, names: set[str]) -> None:
        self.found: list[Watched] = []
        self._names = names
        self._seen: dict[int, Any] = {}
        self._globals: Any = None

    def function(self, f: Any, prefix: str) -> None:
        """What a function, or a callable object, names."""
        if isinstance(f, functools.partial):
            for i, x in enumerate(f.args):
                self.inside(f"{prefix}argument {i}", x)
            for name, x in f.keywords.items():
                self.inside(prefix + name, x)
            self.function(f.func, prefix)
            return
        code_of = unwrapped(f)
        if not isinstance(code_of, types.FunctionType) or id(code_of) in self._seen:
            return
        self._seen[id(code_of)] = code_of
        self._globals = self._globals or code_of.__globals__
        found = set(_names(code_of.__code__))
        self._names |= {name for name, _ in found}
        names = {name for name, is_global in found if is_global}
        owner = f.__self__ if isinstance(f, types.MethodType) else f
        if owner is not f or not isinstance(f, types.FunctionType):
            self.inside("self", owner)
        cells = code_of.__closure__ or ()
        for name, cell in zip(code_of.__code__.co_freevars, cells, strict=True):
            try:
                value = cell.cell_contents
            except ValueError:  # not filled yet
                continue
            self.visit(prefix + name, cell, None, value)
        for name in sorted(names & code_of.__globals__.keys()):
            self.visit(prefix + name, code_of.__globals__, name, code_of.__globals__[name])
        for x in code_of.__defaults__ or ():
            self.inside(f"{prefix}a default", x)
        for name, x in (code_of.__kwdefaults__ or {}).items():
            self.visit(prefix + name, code_of.__kwdefaults__, name, x)

    def visit(self, name: str, holder: Any, key: Any, value: Any) -> None:
        """A value somewhere, and what it has inside."""
        self.found.append(Watched(name, holder, key, value))
        self.inside(name, value)

    def inside(self, name: str, value: Any) -> None:
        """What an object has inside that a function may read."""
        if is_plain(value) or id(value) in self._seen or isinstance(value, Tensor):
            return
        if backends.find_backend(type(value)) is not None:
            return
        if isinstance(value, types.FunctionType):
            # those of other files are taken as they are: they would lead through whole libraries
            if value.__globals__ is self._globals or "<locals>" in value.__qualname__:
                self.function(value, f"{name}: ")
            return
        self._seen[id(value)] = value
        if isinstance(value, (types.MethodType, functools.partial)):
            self.function(value, f"{name}: ")
        elif isinstance(value, types.ModuleType):
            self._attributes(name, value, only=(*_PLAIN, tuple, Tensor, Module))
        elif isinstance(value, (list, tuple)):
            if len(value) <= _LONGEST:
                if isinstance(value, list):
                    self.found.append(Watched(f"{name}[:]", value, None, list(value)))
                for i, x in enumerate(value):
                    self.inside(f"{name}[{i}]", x)
        elif isinstance(value, dict):
            if len(value) <= _LONGEST:
                for key, x in value.items():
                    self.visit(f"{name}[{key!r}]", value, key, x)
        elif isinstance(value, Module):
            for key, x in vars(value).items():
                self.visit(f"{name}.{key}", vars(value), key, x)
            self._class(name, value, vars(value))
        elif not isinstance(value, _FUNCTIONS):
            if callable(inner := getattr(value, "__dict__", {}).get("__wrapped__")):
                self.function(inner, f"{name}: ")
            self._attributes(name, value)
            self._class(name, value, getattr(value, "__dict__", {}))

    def _attributes(self, name: str, value: Any, only: tuple[type, ...] = (object,)) -> None:
        own = getattr(value, "__dict__", None)
        if type(own) is dict:
            for key in sorted(self._names & own.keys()):
                if isinstance(own[key], only):
                    self.visit(f"{name}.{key}", own, key, own[key])

    def _class(self, name: str, value: Any, own: Any) -> None:
        """What an object has from its class: constants, and what its methods name."""
        for key in sorted(self._names | {"__call__"}):
            owner = next((c for c in type(value).__mro__ if key in vars(c)), None)
            if owner is None or key in own:
                continue
            found = vars(owner)[key]
            if is_plain(found):
                self.found.append(Watched(f"{name}.{key}", vars(owner), key, found))
                if type(own) is dict:  # the object may get one of its own
                    self.found.append(Watched(f"{name}.{key}", own, key, ABSENT))
            elif isinstance(found, property):
                self.inside(f"{name}.{key}", found.fget)
            else:
                self.inside(f"{name}.{key}", getattr(found, "__wrapped__", found))


def _names(code: Any) -> Iterator[tuple[str, bool]]:
    """The names in a code, and whether they are those of globals (or of attributes)."""
    for step in dis.get_instructions(code):
        if step.opcode in dis.hasname:
            yield step.argval, step.opname in ("LOAD_GLOBAL", "LOAD_NAME")
    for x in code.co_consts:
        if isinstance(x, types.CodeType):
            yield from _names(x)


# ---- code


class Writer:
    """Lines of a Python function that is made, and the objects it names."""

    def __init__(self, head: str, like: Writer | None = None) -> None:
        self.lines = [head]
        self.known: dict[str, Any] = {} if like is None else like.known
        self._numbers: dict[int, str] = {} if like is None else like._numbers

    def name(self, x: Any) -> str:
        """A name for an object."""
        if id(x) not in self._numbers:
            self._numbers[id(x)] = f"k{len(self.known)}"
            self.known[self._numbers[id(x)]] = x
        return self._numbers[id(x)]

    def line(self, text: str, depth: int = 1) -> None:
        self.lines.append("    " * depth + text)

    def refuse_if(self, condition: str, depth: int = 1) -> None:
        self.line(f"if {condition}:", depth)
        self.line("return None", depth + 1)

    def made(self) -> Callable[..., Any]:
        """The function."""
        known = dict(self.known)
        exec(compile("\n".join(self.lines), "<gpugrad.compile>", "exec"), known)  # its own text
        # its globals must not hold it, or a recording would wait for the garbage collector
        return known.pop(self.lines[0].split()[1].partition("(")[0])


def write_watched(writer: Writer, watched: list[Watched]) -> None:
    """Write lines that return None if one of these has changed."""
    compare, compare_items = writer.name(same), writer.name(same_items)
    for x in watched:
        holder, value = writer.name(x.holder), writer.name(x.value)
        if isinstance(x.holder, list):
            numbers = writer.name([id(item) for item in x.value])
            other = f"list(map(id, {holder})) != {numbers}"
            writer.refuse_if(f"{other} and not {compare_items}({holder}, {value})", 2)
            continue
        is_cell = isinstance(x.holder, types.CellType)
        key = f"{writer.name(x.key)}, {writer.name(ABSENT)}"
        found = f"{holder}.cell_contents" if is_cell else f"{holder}.get({key})"
        if is_plain(x.value) and x.value is not None:
            writer.refuse_if(f"(x := {found}) is not {value} and not {compare}(x, {value})", 2)
        else:
            writer.refuse_if(f"{found} is not {value}", 2)
