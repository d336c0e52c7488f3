"""The kernels whose time is that of moving their bytes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import gpugrad as gg

from ..backends import backend_of_kind

COPY = "copy"
CROSS_ENTROPY = "cross_entropy, forward and backward"


def kernels(
    device: gg.Device, size: int, logits_shape: tuple[int, int]
) -> Iterator[tuple[str, int, Callable[[], Any]]]:
    """Name, bytes to move, and a function that runs the kernel on float32 arrays on `device`.

    Every array of `size` elements that goes in or comes out counts once. The bytes of cross-entropy
    are those of the logits, read forwards and again backwards, and of their gradient.
    """
    xp = backend_of_kind(device.kind).xp
    rng = gg.random.Generator(0, device=device)

    def array() -> Any:
        return rng.normal(size, dtype="float32").data

    x, g = array(), array()
    param, m, v, copied = (xp.zeros_like(x) for _ in range(4))
    rate, powers = (gg.full(s, 0.1, dtype="float64", device=device).data for s in ((), (2,)))
    calls: dict[str, tuple[int, Callable[[], Any]]] = {
        COPY: (2, lambda: xp.copyto(copied, x)),
        "sigmoid": (2, lambda: xp.sigmoid(x)),
        "sigmoid_grad": (3, lambda: xp.sigmoid_grad(g, x)),
        "gelu": (2, lambda: xp.gelu(x)),
        "gelu_grad": (3, lambda: xp.gelu_grad(g, x)),
        "sgd_step": (3, lambda: xp.sgd_step(param, None, g, rate, 0.0)),
        "sgd_step with momentum": (5, lambda: xp.sgd_step(param, m, g, rate, 0.9)),
        "adam_step": (7, lambda: xp.adam_step(param, m, v, g, rate, 0.9, 0.999, 1e-8, powers)),
        "softmax": (2, lambda: xp.softmax(x.reshape(-1, 1024), 1)),
    }
    for name, (arrays, call) in calls.items():
        yield name, arrays * x.nbytes, call
    values = rng.normal(logits_shape, dtype="float32")
    logits = gg.asarray(values, requires_grad=True, copy=False)
    labels = rng.integers(0, logits_shape[1], logits_shape[0])

    def cross_entropy() -> None:
        logits.grad = None
        gg.nn.cross_entropy(logits, labels).backward()

    yield CROSS_ENTROPY, 3 * logits.data.nbytes, cross_entropy
