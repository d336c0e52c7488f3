"""Gradient descent: each parameter is updated in place, by one kernel."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from . import backends, rules
from .rules import hindered, xp
from .tape import mark_changed
from .tensor import Tensor

__all__ = ["SGD", "Adam"]


class _Optimizer:
    def __init__(self, params: Iterable[Tensor], lr: float | Tensor) -> None:
        self.params = list(params)
        if not self.params:
            raise ValueError(f"{type(self).__name__}: no parameters")
        if len(set(map(id, self.params))) < len(self.params):
            raise ValueError(f"{type(self).__name__}: a parameter is given twice")
        for i, p in enumerate(self.params):
            if not (isinstance(p, Tensor) and p.requires_grad and p.is_leaf):
                raise ValueError(
                    f"{type(self).__name__}: parameter {i} is no leaf that requires a gradient"
                )
        self._room = max(_room(p.data) for p in self.params)
        self._places: dict[backends.Device, list[int]] = {}  # numbers of the parameters there
        for i, p in enumerate(self.params):
            self._places.setdefault(p.device, []).append(i)
        self._rates: list[Any] = [None] * len(self.params)  # one array per device
        for there in self._places.values():
            rate = _filled(self.params[there[0]], 0, ())
            for i in there:
                self._rates[i] = rate
        self.lr = lr

    @property
    def lr(self) -> float | Tensor:
        """The learning rate.

        A number, or a Tensor where it has been set to one: a copy of the value, in float64. That
        Tensor has shape () and a real dtype, and its value is neither read nor checked: a GPU need
        not be waited for.
        """
        if self._lr is None:
            functions = xp(self.params[0].data)
            return Tensor(functions.copy(self._rates[0]), None)
        return self._lr

    @lr.setter
    def lr(self, value: float | Tensor) -> None:
        name = type(self).__name__
        if isinstance(value, Tensor):
            if value.shape:
                raise ValueError(f"{name}: lr is a Tensor of shape {value.shape}, it must be ()")
            if value.dtype.kind in "bc":
                raise TypeError(f"{name}: lr is a Tensor of {value.dtype}, a real one is needed")
            number, given = None, value.detach()
            values = [
                (given if given.device == device else given.to(device)).data
                for device in self._places
            ]
        else:
            if not 0 <= value < math.inf:
                raise ValueError(f"{name}: lr={value} is not in [0, inf)")
            number = float(value)
            values = [number] * len(self._places)
        for (first, *_), x in zip(self._places.values(), values, strict=True):
            xp(self.params[first].data).setitem(self._rates[first], ..., x)
        self._lr = number

    def zero_grad(self) -> None:
        """Forget the gradients of all parameters."""
        for p in self.params:
            if p.requires_grad:
                p.grad = None

    def step(self) -> None:
        """Update every parameter that has a gradient.

        Raises:
            ValueError: if one of them is read-only; OutOfMemoryError: if there is no memory for
                what the update computes on the way. Nothing has been changed then.
        """
        if rules.watch is not None and (watchers := rules.watch()) is not None:
            given = [i for i, p in enumerate(self.params) if p.grad is not None]
            written = [x for i in given for x in self._state(i)]
            gradients = [self.params[i].grad for i in given]
            name = f"{type(self).__name__}.step"
            return watchers.update(name, written, gradients, self._step)
        self._step()

    def _step(self) -> None:
        raise NotImplementedError

    def _state(self, i: int) -> tuple[Any, ...]:
        """The arrays of parameter number `i`, its own and those that the optimiser keeps."""
        raise NotImplementedError

    def _updates(self) -> list[tuple[int, Any, Any]]:
        """Number, array and gradient of every parameter to update; none of these can fail."""
        updates = []
        for i, p in enumerate(self.params):
            if (g := p.grad) is not None:
                x = p.data
                if type(x) is np.ndarray and not x.flags.writeable:
                    raise ValueError(f"{type(self).__name__}: parameter {i} is read-only")
                updates.append((i, x, g.data))
        try:
            np.empty(self._room, np.uint8)
        except MemoryError as error:
            raise hindered(f"{type(self).__name__}.step", "on cpu", error) from None
        return updates


def _room(x: Any) -> int:
    """The bytes that an update of `x` takes on the way; on a GPU a kernel does it all in place."""
    if type(x) is not np.ndarray:
        return 0
    return x.nbytes if x.itemsize > 2 else 10 * x.nbytes  # of halves five arrays of float32


def _filled(p: Tensor, value: float, shape: tuple[int, ...]) -> Any:
    """A float64 array where `p` is."""
    with backends.backend_of(p.data).scope(p.device):
        return xp(p.data).full(shape, value, dtype="float64")


def _fixed(name: str, what: str) -> Any:
    """A setting that stays: a step that has been recorded has its value."""

    def get(self: _Optimizer) -> Any:
        return getattr(self, f"_{name}")

    def refuse(self: _Optimizer, value: Any) -> None:
        kind = type(self).__name__
        raise AttributeError(f"{kind}: {name} is fixed; make a new {kind} with {name}={value}")

    return property(get, refuse, doc=what)


def _zeros_for(p: Tensor) -> Any:
    """The state of an optimiser for `p`: float32 for halves, where a running mean would stall."""
    dtype = "float32" if p.dtype.itemsize == 2 else p.dtype
    return xp(p.data).zeros_like(p.data, dtype=dtype)


class SGD(_Optimizer):
    """Gradient descent with momentum: v = momentum * v + grad; p = p - lr * v.

    Rumelhart, Hinton and Williams 1986, eq. (9), with the learning rate outside of the velocity.

    Args:
        params: leaves that require a gradient.
        lr: the learning rate, a number or a Tensor of shape (); may be set between steps.
        momentum: 0 keeps no velocity.
    """

    momentum = _fixed("momentum", "The decay of the velocity.")

    def __init__(self, params: Iterable[Tensor], lr: float | Tensor, momentum: float = 0.0) -> None:
        super().__init__(params, lr)
        if not 0 <= momentum < 1:
            raise ValueError(f"SGD: momentum={momentum} is not in [0, 1)")
        self._momentum = momentum
        self._velocities = [_zeros_for(p) if momentum else None for p in self.params]

    def _state(self, i: int) -> tuple[Any, ...]:
        x, v = self.params[i].data, self._velocities[i]
        return (x,) if v is None else (x, v)

    def _step(self) -> None:
        rates, velocities, momentum = self._rates, self._velocities, self._momentum
        for i, x, g in self._updates():
            xp(x).sgd_step(x, velocities[i], g, rates[i], momentum)
            mark_changed(x)


class Adam(_Optimizer):
    """Adam (Kingma and Ba 2015, algorithm 1).

    Args:
        params: leaves that require a gradient.
        lr: the step size, a number or a Tensor of shape (); may be set between steps.
        betas: decay of the running means of the gradient and of its square.
        eps: added to the square root in the denominator.
    """

    betas = _fixed("betas", "The decay of the running means of the gradient and of its square.")
    eps = _fixed("eps", "What is added to the square root in the denominator.")

    def __init__(
        self,
        params: Iterable[Tensor],
        lr: float | Tensor = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
    ) -> None:
        super().__init__(params, lr)
        if not all(0 <= beta < 1 for beta in betas):
            raise ValueError(f"Adam: betas={betas} are not in [0, 1)")
        if not eps >= 0:
            raise ValueError(f"Adam: eps={eps} is negative")
        for i, p in enumerate(self.params):
            if p.dtype.kind == "c":
                raise TypeError(f"Adam: parameter {i} is {p.dtype}, only real ones are supported")
        self._betas = betas
        self._eps = eps
        self._moments = [(_zeros_for(p), _zeros_for(p)) for p in self.params]
        # per device the number of a parameter there, and (beta1**t, beta2**t) and (beta1, beta2)
        # with a row per parameter
        self._tables: list[tuple[int, Any, Any]] = []
        self._rows = [(0, 0)] * len(self.params)  # table and row
        for table, there in enumerate(self._places.values()):
            p, shape = self.params[there[0]], (len(there), 2)
            decays = _filled(p, betas[1], shape)
            xp(p.data).setitem(decays, (slice(None), 0), betas[0])
            self._tables.append((there[0], _filled(p, 1, shape), decays))
            for row, i in enumerate(there):
                self._rows[i] = table, row

    def _state(self, i: int) -> tuple[Any, ...]:
        return (self.params[i].data, *self._moments[i])

    def _step(self) -> None:
        updates = self._updates()
        self._count(updates)
        (beta1, beta2), eps = self._betas, self._eps
        for i, x, g in updates:
            (m, v), (table, row), functions = self._moments[i], self._rows[i], xp(x)
            powers = functions.getitem(self._tables[table][1], row)
            functions.adam_step(x, m, v, g, self._rates[i], beta1, beta2, eps, powers)
            mark_changed(x)

    @np.errstate(under="ignore")
    def _count(self, updates: list[tuple[int, Any, Any]]) -> None:
        """One more step for these parameters: one multiplication per device if it is for all."""
        if len(updates) == len(self.params):
            for first, powers, decays in self._tables:
                # the namespace is a parameter's, as of every change of the state: it is the
                # parameter that shows whether the step is being recorded
                xp(updates[first][1]).multiply(powers, decays, out=powers)
            return
        counted = []
        for i, x, _ in updates:
            table, row = self._rows[i]
            _, powers, decays = self._tables[table]
            functions = xp(x)
            pair, betas = (functions.getitem(a, row) for a in (powers, decays))
            counted.append((functions, powers, row, functions.multiply(pair, betas)))
        for functions, powers, row, pair in counted:
            functions.setitem(powers, row, pair)
