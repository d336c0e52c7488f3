"""Linear algebra: array API standard 2025.12, linear algebra functions and linalg extension."""

from .ops.linalg import matmul, tensordot, vecdot
from .ops.manipulation import matrix_transpose

__all__ = ["matmul", "matrix_transpose", "tensordot", "vecdot"]
