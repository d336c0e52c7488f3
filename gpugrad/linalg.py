"""Linear algebra: array API standard 2025.12, linear algebra functions and linalg extension.

With NumPy's `norm`, `lstsq` and `multi_dot`.

**Gauge.** The vectors of `eigh`, `eig` and `svd` are determined up to a sign, complex ones up to a
phase. A derivative of a function that does not depend on the choice (of |v|**2, of the projector v
v^H, of a matrix put together again from distinct values) is right. For one that does, tangents are
those that do not turn: v^H dv is real, for `svd` with u and v turned by opposite angles.

**Repeated values.** Two eigenvalues (singular values) count as equal where they differ by no more
than 4 * sqrt(n) * eps times the largest. The vectors of equal values are determined up to a
rotation of the space that they span; between them 0 is taken for the infinite 1 / (w_j - w_i). So
the derivatives are finite, and right for functions of the values alone, and for those that do not
change under such a rotation whatever the values: the projector onto the whole space, the polar
factor u @ vh. **They lack a part** for a function like `v @ diag(f(w)) @ v^H`, which does not
change only because the values are equal: at a tie the cotangents of its vectors cancel, and do not
say how they would differ beside it. Its derivative misses the entries between vectors of equal
values; write it without the vectors (by products, `inv`, `solve`, `matrix_power`, `pinv`,
`cholesky`), or keep the values apart.
"""

from .ops.decompositions import (
    cholesky,
    det,
    eig,
    eigh,
    eigvals,
    eigvalsh,
    inv,
    lstsq,
    matrix_norm,
    matrix_power,
    matrix_rank,
    norm,
    pinv,
    qr,
    slogdet,
    solve,
    svd,
    svdvals,
)
from .ops.linalg import linalg_cross as cross
from .ops.linalg import linalg_diagonal as diagonal
from .ops.linalg import linalg_outer as outer
from .ops.linalg import linalg_trace as trace
from .ops.linalg import matmul, multi_dot, tensordot, vecdot, vector_norm
from .ops.manipulation import matrix_transpose

__all__ = [
    "cholesky",
    "cross",
    "det",
    "diagonal",
    "eig",
    "eigh",
    "eigvals",
    "eigvalsh",
    "inv",
    "lstsq",
    "matmul",
    "matrix_norm",
    "matrix_power",
    "matrix_rank",
    "matrix_transpose",
    "multi_dot",
    "norm",
    "outer",
    "pinv",
    "qr",
    "slogdet",
    "solve",
    "svd",
    "svdvals",
    "tensordot",
    "trace",
    "vecdot",
    "vector_norm",
]
