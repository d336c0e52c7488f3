"""`compile(f, check=True)`: the replayed and the eager step side by side."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import backends, random
from ..tape import Leaf
from ..tensor import Tensor
from ..trees import flatten
from .recorder import CompileError

if TYPE_CHECKING:
    from .compiled import Step


def checked(
    step: Step, f: Callable[..., Any], arrays: list[Any], args: tuple, kwargs: dict[str, Any]
) -> Any:
    """The result of `f`, after a replay from the same state was compared with it.

    Raises:
        CompileError: naming the first thing that differs; the state is that after `f`.
    """
    if step.runner is None:
        return f(*args, **kwargs)
    state = _State(step, arrays, args, kwargs)
    got = _arrays_of(step.finish(step.runner(arrays), arrays, args, kwargs), "the result")
    replayed = [*got, *state.now()]
    state.restore()
    wanted = f(*args, **kwargs)
    eager = [*_arrays_of(wanted, "the result"), *state.now()]
    if [name for name, _ in replayed] != [name for name, _ in eager]:
        raise CompileError(
            f"gpugrad.compile: {_described(f)} returns another structure than it did"
        )
    for (name, a), (_, b) in zip(replayed, eager, strict=True):
        if (difference := _difference(a, b)) is not None:
            raise CompileError(
                f"gpugrad.compile: {name} of {_described(f)} is not what it is without: "
                f"{difference}. Something that it depends on has changed and is no part of its "
                "signature: give it as an argument"
            )
    return wanted


def _described(f: Any) -> str:
    return getattr(f, "__qualname__", type(f).__name__)


class _State:
    """What a step may change: its inputs' arrays, gradients and random generators."""

    def __init__(self, step: Step, arrays: list[Any], args: tuple, kwargs: dict[str, Any]) -> None:
        assert step.program is not None
        assert step.recording is not None
        recording = step.recording
        leaves, _ = flatten((args, kwargs))
        nodes = [t.node for ref, _, _ in recording.tensors if (t := ref()) is not None]
        nodes += [x.node for x in leaves if isinstance(x, Tensor)]
        nodes += [sink.leaf for sink, _ in (*recording.first_gradients, *recording.gradients)]
        self._leaves = list(dict.fromkeys(x for x in nodes if isinstance(x, Leaf)))
        self._names = {
            id(t.node): step.names.get(given.value)
            for given in step.program.inputs
            for ref, array, _ in recording.tensors
            if given.source is array and (t := ref()) is not None
        }
        self._arrays = [
            (step.names.get(given.value), array)
            for given, array in zip(step.program.inputs, arrays, strict=True)
            if given.kind != "constant"
        ]
        self._saved = [array.copy() for _, array in self._arrays]
        self._grads = [leaf.grad for leaf in self._leaves]
        self._random = random.states()[0]

    def now(self) -> list[tuple[str, Any]]:
        """Copies of all of it, by name."""
        found: list[tuple[str, Any]] = [
            (name or f"an array of shape {array.shape}", array.copy())
            for name, array in self._arrays
        ]
        for leaf in self._leaves:
            name = self._names.get(id(leaf)) or f"a leaf of shape {leaf.shape}"
            grad = leaf.grad
            found.append((f"{name}.grad", None if grad is None else grad.data.copy()))
        for generator in self._random:
            if generator.device.kind != "cpu":  # cuRAND does not tell
                continue
            found.append(
                (f"a random generator on {generator.device}", str(generator._state.get_state()))
            )
        return found

    def restore(self) -> None:
        """As it was at the beginning."""
        for (_, array), saved in zip(self._arrays, self._saved, strict=True):
            if getattr(array.flags, "writeable", True):
                array[...] = saved
        for leaf, grad in zip(self._leaves, self._grads, strict=True):
            leaf.grad = grad
        for generator, state in self._random.items():
            generator._state.set_state(state)


def _arrays_of(result: Any, name: str) -> list[tuple[str, Any]]:
    found, _ = flatten(result)
    names = [name] if len(found) == 1 else [f"{name} [{i}]" for i in range(len(found))]
    arrays = [x.data if isinstance(x, Tensor) else x for x in found]
    return [
        (name, x.copy() if backends.find_backend(type(x)) is not None else x)
        for name, x in zip(names, arrays, strict=True)
    ]


def _difference(a: Any, b: Any) -> str | None:
    """How `a` differs from `b` beyond rounding; None if it does not."""
    of_array = [backends.find_backend(type(x)) is not None for x in (a, b)]
    if not all(of_array):
        same = not any(of_array) and (a is b or a == b or (a != a and b != b))
        return None if same else f"{_short(a)} instead of {_short(b)}"
    if (a.shape, a.dtype) != (b.shape, b.dtype):
        return f"{_short(a)} instead of {_short(b)}"
    a, b = (np.asarray(backends.backend_of(x).to_host(x)) for x in (a, b))
    if a.dtype.kind not in "fcV":
        return None if np.array_equal(a, b) else f"{np.count_nonzero(a != b)} entries differ"
    wide = np.result_type(a.dtype, np.float64) if a.dtype.kind != "V" else np.dtype(float)
    x, y = a.astype(wide), b.astype(wide)
    finite = np.isfinite(x) & np.isfinite(y)
    if not np.array_equal(x[~finite], y[~finite], equal_nan=True):
        return "infinities or NaNs differ"
    # halves that are no dtype of NumPy's have the fewest digits: 8 bits
    epsilon = np.finfo(a.dtype).eps if a.dtype.kind in "fc" else 2.0**-7
    error = np.abs(x[finite] - y[finite]).max(initial=0.0)
    largest = np.abs(y[finite]).max(initial=0.0)
    if error <= np.sqrt(epsilon) * largest + 64 * epsilon:
        return None
    return f"the largest error is {error:.3g}, the largest entry {largest:.3g}"


def _short(x: Any) -> str:
    shape = getattr(x, "shape", None)
    return repr(x) if shape is None else f"{x.dtype} {shape}"
