"""Special functions, under the names of `scipy.special`.

Some are gpugrad's own; the others need SciPy on the CPU: `pip install "gpugrad[scipy]"`.
"""

from .ops import special as _special
from .ops.special import *

__all__ = _special.__all__.copy()
