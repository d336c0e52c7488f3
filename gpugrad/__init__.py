"""gpugrad: automatic differentiation for NumPy and CuPy arrays.

The namespace is that of the array API standard 2025.12: `gpugrad.sin`, `gpugrad.matmul`, ... on
`Tensor`s; `grad`, `value_and_grad`, `vjp` and `jvp` differentiate functions of them, and
`Tensor.backward` gathers gradients on the leaves of a computation.
"""

from __future__ import annotations

from . import fft, linalg, nn, ops, optim, random, special, testing
from . import protocols as _protocols  # noqa: F401  (gives Tensor NumPy's own calls)
from .backends import Device, DeviceError, default_device, device, devices, set_default_device
from .ops.activations import *
from .ops.creation import *
from .ops.dtypes import *
from .ops.elementwise import *
from .ops.indexing import *
from .ops.linalg import *
from .ops.manipulation import *
from .ops.reductions import *
from .tape import enable_grad, no_grad
from .tensor import Tensor
from .transforms import grad, jvp, value_and_grad, vjp

__version__ = "0.1.0"

e = 2.718281828459045
inf = float("inf")
nan = float("nan")
newaxis = None
pi = 3.141592653589793

__all__ = [
    "Device",
    "DeviceError",
    "Tensor",
    "default_device",
    "device",
    "devices",
    "e",
    "enable_grad",
    "fft",
    "grad",
    "inf",
    "jvp",
    "linalg",
    "nan",
    "newaxis",
    "nn",
    "no_grad",
    "optim",
    "pi",
    "random",
    "set_default_device",
    "special",
    "testing",
    "value_and_grad",
    "vjp",
]
__all__ += ops.activations.__all__
__all__ += ops.creation.__all__
__all__ += ops.dtypes.__all__
__all__ += ops.elementwise.__all__
__all__ += ops.indexing.__all__
__all__ += ops.linalg.__all__
__all__ += ops.manipulation.__all__
__all__ += ops.reductions.__all__
