"""The table of operations: one row per function, or per way of calling it.

The rows drive the tests of forward values, derivatives and backends, and the table of coverage. A
new operation needs one row in the file of its chapter.
"""

from ..rows import Row
from . import activations, elementwise, indexing, linalg, manipulation, reductions, ufuncs

ROWS: list[Row] = [
    *elementwise.ROWS,
    *activations.ROWS,
    *reductions.ROWS,
    *linalg.ROWS,
    *manipulation.ROWS,
    *indexing.ROWS,
    *ufuncs.ROWS,
]
