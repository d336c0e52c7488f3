"""Views: which Tensors share memory, so that a recorded write reaches all of them.

A write off the tape goes into the memory that views share. A write on the tape must not: what was
there may be kept for a derivative. It makes a new array instead, and every Tensor that was a view
of the old one becomes the same view of the new one.
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from . import backends
from .tape import owner_of, recording
from .tensor import Tensor

F = TypeVar("F", bound=Callable[..., Any])


def link(view: Tensor, parent: Tensor, f: Callable[..., Any], args: tuple, options: dict) -> None:
    """Note that `view`, which is `f(parent, *args, **options)`, shares the memory of `parent`."""
    base, array = view.data.base, parent.data
    if base is not array and base is not array.base and owner_of(view.data) is not owner_of(array):
        return
    if parent.node is not None and not recording():
        view.view = _LOST  # what is off the tape keeps no tape alive
        return
    view.view = (parent, f, args, options)
    known = getattr(parent, "views", None)
    if known is None:
        parent.views = [weakref.ref(view)]
        return
    if len(known) & (len(known) - 1) == 0:  # now and then, so that the dead do not pile up
        known[:] = [reference for reference in known if reference() is not None]
    known.append(weakref.ref(view))


_LOST: tuple[None, None, tuple, dict] = (None, None, (), {})


def changes(f: F) -> F:
    """Declare that results of `f`, of one argument, may be views that are no choice of elements."""

    @functools.wraps(f)
    def call(x: Any, /) -> Any:
        out = f(x)
        if type(out) is Tensor and owner_of(out.data) is owner_of(x.data):
            out.view = _LOST
        return out

    return call  # type: ignore[return-value]


def ancestry(x: Tensor) -> tuple[Tensor | None, list[tuple]]:
    """The Tensor that `x` is in the end a view of, and the steps from it to `x`.

    None in place of that Tensor where a step cannot be repeated.
    """
    steps = []
    root: Tensor | None = x
    while root is not None and (step := getattr(root, "view", None)) is not None:
        root = step[0]
        steps.append(step[1:])
    return root, steps[::-1]


def follow(x: Any, steps: list[tuple]) -> Any:
    """The view of `x`, a Tensor or a raw array, that `steps` lead to."""
    for f, args, options in steps:
        x = f(x, *args, **options)
    return x


def replace(x: Tensor, new: Tensor) -> None:
    """Give `x`, which is no view, and its views the value and the place on the tape of `new`."""
    renewed = [(x, _laid_out(new, x.data))]
    for parent, made in renewed:  # grows; all are made before the first tensor is changed
        renewed += [(view, follow(made, [view.view[1:]])) for view in _views_of(parent)]
    for tensor, made in renewed:
        tensor.data, tensor.node = made.data, made.node


def _laid_out(new: Tensor, old: Any) -> Tensor:
    """`new` with its axes in memory in the order of `old`, on which it depends what is a view."""
    strides = [getattr(x, "strides", None) for x in (old, new.data)]
    if None in strides or strides[0] == strides[1]:
        return new
    data = backends.backend_of(old).xp.empty_like(old)
    if data.strides == new.data.strides:
        return new
    data[...] = new.data
    return Tensor(data, new.node)


def _views_of(x: Tensor) -> Iterator[Tensor]:
    for reference in getattr(x, "views", []).copy():  # `follow` adds to it
        view = reference()
        if view is not None and getattr(view, "view", _LOST)[0] is x:
            yield view
