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

from .tape import owner_of, recording
from .tensor import Tensor

F = TypeVar("F", bound=Callable[..., Any])


def viewing(f: F, *, chooses: bool = True) -> F:
    """Declare that results of `f` may be views of its first argument.

    Args:
        chooses: it chooses and arranges elements; False where it changes them too (a real part),
            and a recorded write through the view is refused.
    """

    @functools.wraps(f)
    def call(x: Any, /, *args: Any, **options: Any) -> Any:
        out = f(x, *args, **options)
        if type(out) is Tensor and type(x) is Tensor and owner_of(out.data) is owner_of(x.data):
            if chooses and (recording() or x.node is None):
                _link(out, x, _again(f, args, options))
            else:  # what was taken off the tape does not keep that tape alive
                out.view = (None, f)
        return out

    return call  # type: ignore[return-value]


def _again(f: Any, args: tuple, options: dict[str, Any]) -> Callable[[Any], Any]:
    return lambda x: f(x, *args, **options)


def _link(view: Tensor, parent: Tensor, again: Callable[[Any], Any]) -> None:
    view.view = (parent, again)
    try:
        known = parent.views
    except AttributeError:
        parent.views = [weakref.ref(view)]
        return
    if len(known) & (len(known) - 1) == 0:  # now and then, so that the dead do not pile up
        known[:] = [reference for reference in known if reference() is not None]
    known.append(weakref.ref(view))


def ancestry(x: Tensor) -> tuple[Tensor | None, list[Callable[[Any], Any]]]:
    """The Tensor that `x` is in the end a view of, and the steps from it to `x`.

    None in place of that Tensor where a step cannot be repeated.
    """
    steps = []
    root: Tensor | None = x
    while root is not None and (step := getattr(root, "view", None)) is not None:
        root = step[0]
        steps.append(step[1])
    return root, steps[::-1]


def replace(x: Tensor, new: Tensor) -> None:
    """Give `x`, which is no view, and its views the value and the place on the tape of `new`."""
    x.data, x.node = new.data, new.node
    pending = [x]
    while pending:
        parent = pending.pop()
        for view in _views_of(parent):
            again = view.view[1](parent)
            view.data, view.node = again.data, again.node
            pending.append(view)


def _views_of(x: Tensor) -> Iterator[Tensor]:
    for reference in list(getattr(x, "views", ())):
        view = reference()
        if view is not None and getattr(view, "view", (None,))[0] is x:
            yield view
