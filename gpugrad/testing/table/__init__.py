"""The table of operations: one row per function, or per way of calling it.

The rows drive the tests of forward values, derivatives and backends, and the table of coverage. A
new operation needs one row in the file of its chapter.
"""

from ..rows import Row
from . import (
    activations,
    convolution,
    decompositions,
    elementwise,
    fft,
    indexing,
    linalg,
    manipulation,
    reductions,
    searching,
    sets,
    signal,
    sorting,
    special,
    statistics,
    ufuncs,
)

ROWS: list[Row] = [
    *elementwise.ROWS,
    *activations.ROWS,
    *reductions.ROWS,
    *linalg.ROWS,
    *decompositions.ROWS,
    *fft.ROWS,
    *signal.ROWS,
    *convolution.ROWS,
    *statistics.ROWS,
    *manipulation.ROWS,
    *indexing.ROWS,
    *sorting.ROWS,
    *searching.ROWS,
    *sets.ROWS,
    *special.ROWS,
    *ufuncs.ROWS,
]
