"""Special functions, under the names of `scipy.special`."""

from .ops.activations import log_softmax, softmax
from .ops.reductions import logsumexp

__all__ = ["log_softmax", "logsumexp", "softmax"]
