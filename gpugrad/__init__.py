"""gpugrad: automatic differentiation for NumPy and CuPy arrays.

The namespace is that of the array API standard 2025.12: `gpugrad.sin`, `gpugrad.matmul`, ... on
`Tensor`s; `grad`, `value_and_grad`, `vjp` and `jvp` differentiate functions of them, and
`Tensor.backward` gathers gradients on the leaves of a computation.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from . import ops
from . import protocols as _protocols  # noqa: F401  (gives Tensor NumPy's own calls)
from .backends import (
    Device,
    DeviceError,
    OutOfMemoryError,
    TransferError,
    default_device,
    device,
    devices,
    memory,
    set_default_device,
)
from .batching import vmap
from .custom import checkpoint, custom_vjp
from .jacobians import hessian, hvp, jacobian
from .modes import check_bounds, deterministic, no_transfers
from .ops.activations import *
from .ops.creation import *
from .ops.dtypes import *
from .ops.elementwise import *
from .ops.indexing import *
from .ops.inspection import *
from .ops.linalg import *
from .ops.manipulation import *
from .ops.reductions import *
from .ops.searching import *
from .ops.sets import *
from .ops.signal import *
from .ops.sorting import *
from .ops.statistics import *
from .tape import enable_grad, no_grad
from .tensor import STANDARDS, Tensor
from .transforms import grad, jvp, value_and_grad, vjp

if TYPE_CHECKING:
    from . import fft, linalg, nn, optim, random, special, testing
    from .anomaly import AnomalyError, detect_anomaly
    from .compiler.compiled import CompileWarning, compile
    from .compiler.recorder import CompileError
    from .custom_kernels import elementwise_kernel
    from .drawing.drawing import draw
    from .profiling import profile
    from .watching import keep_values, name_scope

__version__ = "0.1.0"
__array_api_version__ = STANDARDS[-1]

e = 2.718281828459045
inf = float("inf")
nan = float("nan")
newaxis = None
pi = 3.141592653589793

__all__ = [
    "AnomalyError",
    "CompileError",
    "CompileWarning",
    "Device",
    "DeviceError",
    "OutOfMemoryError",
    "Tensor",
    "TransferError",
    "check_bounds",
    "checkpoint",
    "compile",
    "custom_vjp",
    "default_device",
    "detect_anomaly",
    "deterministic",
    "device",
    "devices",
    "draw",
    "e",
    "elementwise_kernel",
    "enable_grad",
    "fft",
    "grad",
    "hessian",
    "hvp",
    "inf",
    "jacobian",
    "jvp",
    "keep_values",
    "linalg",
    "memory",
    "name_scope",
    "nan",
    "newaxis",
    "nn",
    "no_grad",
    "no_transfers",
    "optim",
    "pi",
    "profile",
    "random",
    "set_default_device",
    "special",
    "testing",
    "value_and_grad",
    "vjp",
    "vmap",
]
__all__ += ops.activations.__all__
__all__ += ops.creation.__all__
__all__ += ops.dtypes.__all__
__all__ += ops.elementwise.__all__
__all__ += ops.indexing.__all__
__all__ += ops.inspection.__all__
__all__ += ops.linalg.__all__
__all__ += ops.manipulation.__all__
__all__ += ops.reductions.__all__
__all__ += ops.searching.__all__
__all__ += ops.sets.__all__
__all__ += ops.sorting.__all__
__all__ += ops.signal.__all__
__all__ += ops.statistics.__all__


_LAZY = frozenset("fft linalg nn optim random special testing".split())
_LAZY_NAMES = {
    "AnomalyError": ".anomaly",
    "CompileError": ".compiler.recorder",
    "CompileWarning": ".compiler.compiled",
    "compile": ".compiler.compiled",
    "detect_anomaly": ".anomaly",
    "draw": ".drawing.drawing",
    "elementwise_kernel": ".custom_kernels",
    "keep_values": ".watching",
    "name_scope": ".watching",
    "profile": ".profiling",
}


def __getattr__(name: str) -> Any:
    # read when first asked for: their three hundred functions would take a third of an import
    if name in _LAZY:
        return importlib.import_module(f".{name}", __name__)
    if name in _LAZY_NAMES:
        value = getattr(importlib.import_module(_LAZY_NAMES[name], __name__), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
