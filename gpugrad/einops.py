"""Plain `einops` on Tensors: `import gpugrad.einops` is all that is needed.

(`einops.array_api` takes Tensors without it.) einops finds its backends among the subclasses of
`AbstractBackend`, by the name of an imported package.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from einops._backends import AbstractBackend

from .ops import creation, dtypes, linalg, manipulation
from .tensor import Tensor


class GpugradBackend(AbstractBackend):
    """What einops asks of an array library, in gpugrad's functions."""

    framework_name = "gpugrad"

    def is_appropriate_type(self, tensor: Any) -> bool:
        return isinstance(tensor, Tensor)

    def from_numpy(self, x: np.ndarray) -> Tensor:
        return creation.asarray(x)

    def to_numpy(self, x: Tensor) -> np.ndarray:
        return x.numpy()

    def arange(self, start: int, stop: int) -> Tensor:
        return creation.arange(start, stop)

    def transpose(self, x: Tensor, axes: Any) -> Tensor:
        return manipulation.permute_dims(x, tuple(axes))

    def stack_on_zeroth_dimension(self, tensors: list[Tensor]) -> Tensor:
        return manipulation.stack(tensors)

    def add_axis(self, x: Tensor, new_position: int) -> Tensor:
        return manipulation.expand_dims(x, axis=new_position)

    def tile(self, x: Tensor, repeats: tuple[int, ...]) -> Tensor:
        return manipulation.tile(x, repeats)

    def concat(self, tensors: list[Tensor], axis: int) -> Tensor:
        return manipulation.concat(tensors, axis=axis)

    def is_float_type(self, x: Tensor) -> bool:
        return dtypes.is_inexact(x.dtype)

    def einsum(self, pattern: str, *x: Tensor) -> Tensor:
        return linalg.einsum(pattern, *x)
