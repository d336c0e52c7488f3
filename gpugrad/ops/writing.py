"""Writing into tensors: `x[key] = value` and `x += y`, on the tape and off it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .. import backends
from ..rules import _check_operand, general, placed, raw, refusal, xp
from ..tape import mark_changed, recording
from ..tensor import Tensor
from ..views import ancestry, follow, replace
from .creation import zeros_like
from .dtypes import astype
from .elementwise import where
from .indexing import _may_repeat, _raw_key, getitem
from .manipulation import reshape


def _zero(t: Any) -> Any:
    return xp(raw(t)).zeros((), t.dtype)


def _value_vjp(t: Any, key: tuple, stays: Any) -> Any:
    t = getitem(t, key)
    return t if stays is None else where(stays, t, 0)


@general(
    (lambda t, key: _setitem(t, _zero(t), key=key, stays=None), _value_vjp),
    (
        lambda t, key: _setitem(t, _zero(t), key=key, stays=None),
        lambda t, x, key, stays: _setitem(zeros_like(x), t, key=key, stays=stays),
    ),
)
def _setitem(x: Any, value: Any, /, *, key: tuple, stays: Any) -> Any:
    """A copy of `x` with `value` at `key`, and of values at the same place the one that stays."""
    out = xp(x).copy(x)  # an array, also of what NumPy's arithmetic has made a number
    if stays is None:
        out[key] = value
    else:
        values = xp(x).zeros(stays.shape, x.dtype)
        values[...] = value
        out[key] = 0
        xp(x).add_at(out, key, xp(x).where(stays, values, _zero(x)))
    return out


def _staying(x: Any, key: tuple) -> Any:
    """Per value written at `key` whether it stays; None where no element is named twice."""
    if not _may_repeat(key):
        return None
    numbers = xp(x).zeros(x.shape, np.int64)
    own = numbers[key]
    own = xp(x).arange(own.size).reshape(own.shape)
    xp(x).setitem(numbers, key, own)
    return numbers[key] == own


def _is_recorded(x: Tensor, value: Any, name: str) -> bool:
    """Whether a write of `value` into `x` goes on the tape.

    Raises:
        RuntimeError: if it cannot, for the gradient would be lost.
    """
    if not recording():
        return False
    root, _ = ancestry(x)
    nodes = [t.node for t in (x, value, root) if isinstance(t, Tensor) and t.node is not None]
    if not nodes:
        return False
    if root is None:
        raise _unreachable(name)
    if root.node is not None and root.node.op is None:
        raise RuntimeError(
            f"{name}: a leaf that requires a gradient is not changed in place, the gradient would "
            "be lost; change a copy (x = x.copy()), or write it inside gpugrad.no_grad()"
        )
    return True


def _unreachable(name: str) -> RuntimeError:
    return RuntimeError(
        f"{name}: a view that was made inside no_grad, or of a real or imaginary part, is not "
        "written on the tape or inside vmap; write the tensor itself, or a copy"
    )


def _check_value(x: Tensor, value: Any) -> None:
    if not isinstance(value, Tensor):
        _check_operand("setitem", value)
    dtype = getattr(value, "dtype", None)
    if dtype is not None and not np.can_cast(dtype, x.dtype, "same_kind"):
        raise TypeError(f"setitem: {dtype} does not go into {x.dtype}: use .astype")
    array = raw(value)
    number = isinstance(array, (int, float, complex, np.generic))
    if not number and backends.device_of(array) != x.device:  # CuPy would take some in silence
        raise refusal("setitem", (x, value), TypeError())


@placed
def setitem(self: Tensor, key: Any, value: Any) -> None:
    """`x[key] = value`, also for the tensors that `x` is a view of, and for their views.

    Off the tape, and inside `no_grad`, it is written into the memory they share. On the tape it is
    recorded: `x` and the others get new memory, for the old may be kept for a derivative; so it
    costs a copy. Arrays outside that share the old memory are not written then.

    Args:
        key: as in `x[key]`; of several values for one element one stays, the last on the CPU
            and inside `deterministic`.
        value: a Tensor, array or number that broadcasts to `x[key]`, of a kind that fits the dtype.

    Raises:
        RuntimeError: for a leaf that requires a gradient.
        ValueError, IndexError, TypeError: if key or value do not fit.
    """
    _check_value(self, value)
    index = _raw_key(key, self.data, "setitem")
    # of an array that all examples of a batch share there may have to be one for each afterwards
    if _is_recorded(self, value, "setitem") or getattr(self.data, "batched", None) is False:
        _record(self, index, value)
        return
    try:
        xp(self.data).setitem(self.data, index, raw(value))
    except (TypeError, ValueError, IndexError) as error:
        cause: Any = error.__cause__ or error  # NumPy hides why something is no number
        raise refusal("setitem", (self, value), cause) from None
    except backends.hindrances as error:
        raise refusal("setitem", (self, value), error) from None
    mark_changed(self.data)


def _record(x: Tensor, key: tuple, value: Any) -> None:
    strides = getattr(x.data, "strides", ())
    if any(n > 1 and s == 0 for n, s in zip(x.shape, strides)):
        raise ValueError(
            "setitem: elements that a broadcast repeated are not written; write a copy"
        )
    try:
        there = xp(x.data).getitem(x.data, key)
    except (TypeError, ValueError, IndexError) as error:
        raise refusal("setitem", (x, value), error) from None
    if isinstance(value, Tensor):
        if value.ndim > there.ndim:  # NumPy lets axes of length 1 go
            value = reshape(value, value.shape[value.ndim - there.ndim :])
        value = astype(value, x.dtype, copy=False)
    stays = _staying(x.data, key)
    root, steps = ancestry(x)
    if root is None:
        raise _unreachable("setitem")
    if steps:
        backend = backends.backend_of(root.data)
        with backend.scope(root.device):
            numbers = backend.xp.arange(root.size).reshape(root.shape)
        there = follow(numbers, steps)[key]
        new = _setitem(reshape(root, (-1,)), value, key=(there,), stays=stays)
        new = reshape(new, root.shape)
    else:
        new = _setitem(root, value, key=key, stays=stays)
    replace(root, new)


def in_place(op: Callable[[Any, Any], Any]) -> Callable[[Tensor, Any], Tensor]:
    """The in-place operator of `op`."""

    def method(self: Tensor, other: Any) -> Tensor:
        recorded = _is_recorded(self, other, op.__name__)
        new = op(self, other)
        if recorded and not hasattr(self, "view") and new.shape == self.shape:
            _check_value(self, new)
            replace(self, astype(new, self.dtype, copy=False))
        else:
            setitem(self, ..., new)
        return self

    return method
