"""Gradient descent: each parameter is updated in place, by one kernel."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from .rules import hindered, xp
from .tape import mark_changed
from .tensor import Tensor


class _Optimizer:
    def __init__(self, params: Iterable[Tensor], lr: float) -> None:
        self.params = list(params)
        self.lr = lr
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

    @property
    def lr(self) -> float:
        """The learning rate."""
        return self._lr

    @lr.setter
    def lr(self, value: float) -> None:
        if not 0 <= value < math.inf:
            raise ValueError(f"{type(self).__name__}: lr={value} is not in [0, inf)")
        self._lr = value

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


def _zeros_for(p: Tensor) -> Any:
    """The state of an optimiser for `p`: float32 for halves, where a running mean would stall."""
    dtype = "float32" if p.dtype.itemsize == 2 else p.dtype
    return xp(p.data).zeros_like(p.data, dtype=dtype)


class SGD(_Optimizer):
    """Gradient descent with momentum: v = momentum * v + grad; p = p - lr * v.

    Rumelhart, Hinton and Williams 1986, eq. (9), with the learning rate outside of the velocity.

    Args:
        params: leaves that require a gradient.
        lr: the learning rate; may be set between steps.
        momentum: 0 keeps no velocity.
    """

    def __init__(self, params: Iterable[Tensor], lr: float, momentum: float = 0.0) -> None:
        super().__init__(params, lr)
        if not 0 <= momentum < 1:
            raise ValueError(f"SGD: momentum={momentum} is not in [0, 1)")
        self.momentum = momentum
        self._velocities = [_zeros_for(p) if momentum else None for p in self.params]

    def step(self) -> None:
        lr, momentum = self.lr, self.momentum
        for i, x, g in self._updates():
            xp(x).sgd_step(x, self._velocities[i], g, lr, momentum)
            mark_changed(x)


class Adam(_Optimizer):
    """Adam (Kingma and Ba 2015, algorithm 1).

    Args:
        params: leaves that require a gradient.
        lr: the step size; may be set between steps.
        betas: decay of the running means of the gradient and of its square.
        eps: added to the square root in the denominator.
    """

    def __init__(
        self,
        params: Iterable[Tensor],
        lr: float = 1e-3,
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
        self.betas = betas
        self.eps = eps
        self._moments = [(_zeros_for(p), _zeros_for(p)) for p in self.params]
        self._steps = [0] * len(self.params)

    def step(self) -> None:
        for i, x, g in self._updates():
            m, v = self._moments[i]
            t = self._steps[i] + 1
            xp(x).adam_step(x, m, v, g, self.lr, *self.betas, self.eps, t)
            self._steps[i] = t
            mark_changed(x)
