"""What a function closes over, and the code that looks whether it is as it was.

A recording depends on all that its function reads. Tensors are found while it is recorded; Python
values leave no trace in a program, so they are looked for where a function names them: in the
cells of its closure, its defaults, the globals it names, the attributes of modules (`nn.Module`)
and those named in its code of other objects.
"""

from __future__ import annotations

import dis
import functools
import os
import pickle
import random as python_random
import sys
import sysconfig
import types
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from .. import backends, places
from ..nn import Module
from ..tensor import Tensor

_PLAIN = (bool, int, float, complex, str, bytes, type(None))
_FUNCTIONS = (
    types.FunctionType,
    types.BuiltinFunctionType,
    types.WrapperDescriptorType,
    types.MethodWrapperType,
    types.MethodDescriptorType,
    type,
)
_LONGEST = 64  # what is inside of the items of longer containers is not looked at
_LONGEST_KNOWN = 4096  # longer containers are known by their identity alone
# what has items that may change, views of dicts included
ITEMS: tuple[type, ...] = (list, set, deque, type({}.keys()), type({}.values()))
# methods that are called without their name, but hardly in a step
_RARE = frozenset(
    "__copy__ __deepcopy__ __del__ __getstate__ __hash__ __init__ __init_subclass__ __new__ "
    "__reduce__ __repr__ __set_name__ __setstate__ __str__".split()
)
_LIBRARIES = (
    places.package,
    sysconfig.get_path("stdlib") + os.sep,
    "<frozen",
)
_INSTALLED = (f"{os.sep}site-packages{os.sep}", f"{os.sep}dist-packages{os.sep}")


_GENERATORS = (np.random.Generator, np.random.RandomState, python_random.Random)
ABSENT = object()


class Watched(NamedTuple):
    """A value that a function may read.

    Attributes:
        name: for messages, such as "net.layers[0].weight".
        holder: the cell or dict that it is in; the descriptor of a slot; of a list, set, deque or
            view of a dict it is this, and the value is a list of the items.
        key: in the dict; the object that has the slot; else None.
        value: what it was; `ABSENT` if it was not there.
    """

    name: str
    holder: Any
    key: Any
    value: Any

    def is_unchanged(self) -> bool:
        """Whether it is what it was."""
        if isinstance(self.holder, ITEMS):
            return same_items(self.holder, self.value)
        return same(self.now(), self.value)

    def now(self) -> Any:
        """What it is now; `ABSENT` if it is not there. Of items the list of them."""
        if isinstance(self.holder, ITEMS):
            return [*self.holder]  # type: ignore[misc]
        try:
            if isinstance(self.holder, types.CellType):
                return self.holder.cell_contents
            if isinstance(self.holder, types.MemberDescriptorType):
                return self.holder.__get__(self.key)
        except (AttributeError, ValueError):  # it is empty
            return ABSENT
        return self.holder.get(self.key, ABSENT)

    def put_back(self) -> None:
        """Make it what it was, where that can be done."""
        if isinstance(self.holder, types.CellType):
            self.holder.cell_contents = self.value
        elif isinstance(self.holder, types.MemberDescriptorType):
            self.holder.__set__(self.key, self.value)
        elif isinstance(self.holder, dict):
            self.holder[self.key] = self.value
        elif isinstance(self.holder, (list, deque)):
            self.holder.clear()
            self.holder.extend(self.value)


class Stream(NamedTuple):
    """A random generator of NumPy or Python that a function may draw from, and where it was."""

    name: str
    generator: Any
    state: Any

    @classmethod
    def of(cls, name: str, generator: Any) -> Stream:
        made = cls(name, generator, None)
        return made._replace(state=made.now())

    def now(self) -> Any:
        """Where it is."""
        if isinstance(self.generator, np.random.Generator):
            return self.generator.bit_generator.state
        if isinstance(self.generator, np.random.RandomState):
            return self.generator.get_state()
        return self.generator.getstate()

    def is_unchanged(self) -> bool:
        """Whether nothing was drawn."""
        return pickle.dumps(self.state) == pickle.dumps(self.now())

    def put_back(self) -> None:
        """Make it what it was."""
        if isinstance(self.generator, np.random.Generator):
            self.generator.bit_generator.state = self.state
        elif isinstance(self.generator, np.random.RandomState):
            self.generator.set_state(self.state)
        else:
            self.generator.setstate(self.state)


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


def same_items(a: Any, b: Any) -> bool:
    """Whether two collections have the same items, in the same order."""
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


def watch(f: Any, given: dict[str, Any]) -> tuple[list[Watched], list[Stream]]:
    """What `f` may read, objects among its arguments (`given`) included."""
    names: set[str] = set()
    asked: set[str] = set()
    while True:  # each walk finds more functions, by the names that those before have found
        count, walk = len(names) + len(asked), _Walk(names, asked)
        walk.function(f, "")
        for name, x in given.items():
            walk.inside(name, x)
        if len(names) + len(asked) == count:
            return walk.found, walk.streams


def _is_of_user(file: Any) -> bool:
    """Whether a file is none of gpugrad, Python or an installed package."""
    return (
        isinstance(file, str)
        and not file.startswith((*_LIBRARIES, "<gpugrad."))
        and not any(part in file for part in _INSTALLED)
    )


class _Walk:
    def __init__(self, names: set[str], asked: set[str]) -> None:
        self.found: list[Watched] = []
        self.streams: list[Stream] = []
        self._names = names
        self._asked = asked  # those that are asked for as strings
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
        if hasattr(code_of, "op") and not _is_of_user(code_of.__code__.co_filename):
            return  # an operation of gpugrad's: what it holds are tables of array functions
        self._seen[id(code_of)] = code_of
        self._globals = self._globals or code_of.__globals__
        found = set(_names(code_of.__code__))
        mine = {name for name, _ in found}
        self._names |= mine
        if "hasattr" in mine or "getattr" in mine:
            self._asked |= _strings(code_of.__code__)
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
        self._attributes(prefix + code_of.__name__, code_of)

    def visit(self, name: str, holder: Any, key: Any, value: Any) -> None:
        """A value somewhere, and what it has inside."""
        self.found.append(Watched(name, holder, key, value))
        self.inside(name, value)

    def inside(self, name: str, value: Any) -> None:
        """What an object has inside that a function may read."""
        if is_plain(value) or id(value) in self._seen:
            return
        if isinstance(value, Tensor):
            for hook in getattr(value.node, "hooks", None) or ():
                self.inside(f"a hook of {name}", hook)
            return
        if backends.find_backend(type(value)) is not None:
            return
        if isinstance(value, types.FunctionType):
            # those of libraries are taken as they are
            if (
                value.__globals__ is self._globals
                or "<locals>" in value.__qualname__
                or _is_of_user(value.__code__.co_filename)
            ):
                self.function(value, f"{name}: ")
            return
        self._seen[id(value)] = value
        if isinstance(value, (types.MethodType, functools.partial)):
            self.function(value, f"{name}: ")
        elif isinstance(value, types.ModuleType):
            is_mine = _is_of_user(getattr(value, "__file__", None))
            only = (object,) if is_mine else (*_PLAIN, tuple, Tensor, Module)
            self._attributes(name, value, only=only)
        elif isinstance(value, (list, tuple, set, deque)):
            if not isinstance(value, tuple):
                self._items(f"{name}[:]", value)
            if len(value) <= _LONGEST:
                for i, x in enumerate(value):
                    self.inside(f"{name}[{i}]", x)
        elif isinstance(value, dict):
            self._items(f"{name}.keys()", value.keys())
            if len(value) > _LONGEST:
                self._items(f"{name}.values()", value.values())
            else:
                for key, x in value.items():
                    self.visit(f"{name}[{key!r}]", value, key, x)
        elif isinstance(value, Module):
            for key, x in vars(value).items():
                self.visit(f"{name}.{key}", vars(value), key, x)
            self._class(name, value, vars(value))
        elif isinstance(value, _GENERATORS):
            self.streams.append(Stream.of(name, value))
        elif isinstance(value, type):
            if _is_of_user(getattr(sys.modules.get(value.__module__), "__file__", None)):
                self._of_class(name, value)
        elif not isinstance(value, _FUNCTIONS):
            if callable(inner := getattr(value, "__dict__", {}).get("__wrapped__")):
                self.function(inner, f"{name}: ")
            self._attributes(name, value)
            self._class(name, value, getattr(value, "__dict__", {}))

    def _items(self, name: str, value: Any) -> None:
        if len(value) <= _LONGEST_KNOWN:
            self.found.append(Watched(name, value, None, list(value)))

    def _attributes(self, name: str, value: Any, only: tuple[type, ...] = (object,)) -> None:
        own = getattr(value, "__dict__", None)
        if type(own) is dict:
            for key in sorted(self._names & own.keys()):
                if isinstance(own[key], only):
                    self.visit(f"{name}.{key}", own, key, own[key])

    def _of_class(self, name: str, value: type) -> None:
        """What a class has that is named, of those that it is made from too."""
        for owner in value.__mro__:
            for key in sorted(self._names & vars(owner).keys()):
                found = vars(owner)[key]
                if isinstance(found, (types.FunctionType, property, classmethod, staticmethod)):
                    self._method(f"{name}.{key}", found)
                elif not hasattr(type(found), "__get__"):
                    self.visit(f"{name}.{key}", vars(owner), key, found)

    def _class(self, name: str, value: Any, own: Any) -> None:
        """What an object has from its class: constants, slots, and what its methods name."""
        owners = [c for c in type(value).__mro__ if c is not object]
        if type(own) is dict:
            for key in sorted(self._asked - own.keys()):
                if not any(key in vars(c) for c in owners):
                    self.found.append(Watched(f"{name}.{key}", own, key, ABSENT))
        called = {
            k
            for c in owners
            for k, x in vars(c).items()
            if k.startswith("__") and isinstance(x, types.FunctionType)
        } - _RARE
        for key in sorted(self._names | called):
            having = [c for c in owners if key in vars(c)]
            if not having or key in own:
                continue
            found = vars(having[0])[key]
            if is_plain(found):
                if key in self._names:
                    self.found.append(Watched(f"{name}.{key}", vars(having[0]), key, found))
                    if type(own) is dict:  # the object may get one of its own
                        self.found.append(Watched(f"{name}.{key}", own, key, ABSENT))
            elif isinstance(found, types.GetSetDescriptorType):
                continue
            elif isinstance(found, types.MemberDescriptorType):
                try:
                    x = found.__get__(value)
                except AttributeError:  # not filled yet
                    continue
                self.visit(f"{name}.{key}", found, value, x)
            else:
                for c in having:  # those that super() leads to
                    self._method(f"{name}.{key}", vars(c)[key])

    def _method(self, name: str, found: Any) -> None:
        if isinstance(found, property):
            self.inside(name, found.fget)
        else:
            self.inside(name, getattr(found, "__wrapped__", found))


def _names(code: Any) -> Iterator[tuple[str, bool]]:
    """The names in a code, and whether they are those of globals (or of attributes).

    Strings count as names: `getattr(x, "name")`.
    """
    for step in dis.get_instructions(code):
        if step.opcode in dis.hasname:
            yield step.argval, step.opname in ("LOAD_GLOBAL", "LOAD_NAME")
    for x in code.co_consts:
        if isinstance(x, types.CodeType):
            yield from _names(x)
    for x in _strings(code):
        yield x, False


def _strings(code: Any) -> set[str]:
    """The strings in a code that may be names."""
    return {x for x in code.co_consts if isinstance(x, str) and x.isidentifier()}


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
        if isinstance(x.holder, ITEMS):
            numbers = writer.name([id(item) for item in x.value])
            other = f"list(map(id, {holder})) != {numbers}"
            writer.refuse_if(f"{other} and not {compare_items}({holder}, {value})", 2)
            continue
        if isinstance(x.holder, types.CellType):
            found = f"{holder}.cell_contents"
        elif isinstance(x.holder, types.MemberDescriptorType):
            found = f"{holder}.__get__({writer.name(x.key)})"
        else:
            found = f"{holder}.get({writer.name(x.key)}, {writer.name(ABSENT)})"
        if is_plain(x.value) and x.value is not None:
            writer.refuse_if(f"(x := {found}) is not {value} and not {compare}(x, {value})", 2)
        else:
            writer.refuse_if(f"{found} is not {value}", 2)
