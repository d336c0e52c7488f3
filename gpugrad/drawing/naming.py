"""Names for what is drawn: those of the variables that hold it."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator, Mapping
from types import FrameType
from typing import Any

from .. import backends
from ..tape import Node
from ..tensor import Tensor


class Names:
    """Tensors, arrays and parameters by the names under which `frame` knows them.

    Args:
        given: names that win: name -> Tensor, array or Module.
        frame: of the function that asked; its variables, then its module's.
    """

    def __init__(self, given: Mapping[str, Any] | None, frame: FrameType | None) -> None:
        self._nodes: dict[Node, str] = {}
        self._arrays: dict[int, str] = {}
        spaces: list[Mapping[str, Any]] = [given or {}]
        if frame is not None:
            spaces += [_variables(frame), frame.f_globals]
        for space in spaces:
            public = {k: v for k, v in space.items() if not str(k).startswith("_")}
            for name, value in public.items():
                self._add(str(name), value)
            self._add_modules(public)
            for name, value in public.items():
                for key, item in _items(value):
                    self._add(f"{name}[{key!r}]", item)

    def _add(self, name: str, value: Any) -> None:
        if isinstance(value, Tensor):
            if value.node is not None:
                self._nodes.setdefault(value.node, name)
            else:
                self._arrays.setdefault(id(value.data), name)
        elif backends.find_backend(type(value)) is not None:
            self._arrays.setdefault(id(value), name)

    def _add_modules(self, space: Mapping[str, Any]) -> None:
        """Parameters by their dotted names, in front of which stands the module's if need be."""
        nn = sys.modules.get("gpugrad.nn")
        if nn is None:
            return
        every = [
            (full, item)
            for name, value in space.items()
            for full, item in ((name, value), *((f"{name}[{k!r}]", x) for k, x in _items(value)))
        ]
        found = {
            name: list(value.named_parameters())
            for name, value in every
            if isinstance(value, nn.Module)
        }
        largest = sorted(found, key=lambda name: -len(found[name]))
        seen: set[Node] = set()
        outer = []
        for name in largest:
            nodes = {p.node for _, p in found[name] if p.node is not None}
            if nodes - seen:
                outer.append(name)
                seen |= nodes
        for name in outer:
            for full, parameter in found[name]:
                self._add(full if len(outer) == 1 else f"{name}.{full}", parameter)

    def of_node(self, node: Node | None) -> str | None:
        return None if node is None else self._nodes.get(node)

    def of_array(self, array: Any) -> str | None:
        return self._arrays.get(id(array))


def _variables(frame: FrameType) -> dict[str, Any]:
    variables = frame.f_locals
    found = dict(variables)
    function = frame.f_code.co_flags & inspect.CO_OPTIMIZED
    if function and type(variables) is dict and sys.getrefcount(variables) <= 3:
        # before Python 3.13 a copy that the frame keeps, and with it tapes that are dropped
        variables.clear()
    return found


def _items(value: Any) -> Iterator[tuple[Any, Any]]:
    """What a list, tuple or dict holds, if it is not a long one."""
    if isinstance(value, (list, tuple)) and len(value) <= 1000:
        yield from enumerate(value)
    elif type(value) is dict and len(value) <= 1000:
        yield from value.items()
