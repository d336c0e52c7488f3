"""Fused loops: what one kernel computes, for whichever machine it is written."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ..symbols import Text


class Operand(NamedTuple):
    """An array as a loop sees it.

    Attributes:
        dtype: of its elements.
        strides: bytes from an element to the next, one per axis of the loop; 0 where the array is
            broadcast along the axis, or summed over it.
    """

    dtype: np.dtype
    strides: tuple[int, ...]


class Loop(NamedTuple):
    """Statements that are run for every index of a shape.

    An output may be the memory of an input with the same strides; otherwise outputs overlap
    nothing.

    Attributes:
        name: a C identifier.
        shape: of the iteration space.
        inputs: name in the text -> what it is. Names do not begin with an underscore.
        outputs: likewise; the order is that of the arguments, after the inputs.
        sums: output -> the axes that it is summed over; any other is stored for every index.
        text: one expression per output, in its dtype, and what they share.
    """

    name: str
    shape: tuple[int, ...]
    inputs: dict[str, Operand]
    outputs: dict[str, Operand]
    sums: dict[str, tuple[int, ...]]
    text: Text
