"""Where in the user's code a call comes from: the frames below it."""

from __future__ import annotations

import contextlib
import functools
import os
import sys
from collections.abc import Iterator
from types import CodeType, FrameType

# As code names its files, which on a path with ".." in it is not as `abspath` does.
package = os.path.dirname(sys._getframe().f_code.co_filename) + os.sep

# Files whose frames are not the user's, by how their names begin; those of the array libraries are
# added when these are loaded.
ours: tuple[str, ...] = (
    package,
    "<gpugrad.",
    *(str(module.__file__) for module in (contextlib, functools)),
)

# The code of the sweeps, in whose frames `node` is the one whose rules run.
sweeps: set[CodeType] = set()


def frames() -> Iterator[FrameType]:
    """The frames below the caller's, gpugrad's own and at last the innermost of the user's."""
    frame = sys._getframe(1)
    while frame.f_back is not None:
        frame = frame.f_back
        yield frame
        if not frame.f_code.co_filename.startswith(ours):
            return


def user() -> tuple[str, int]:
    """File and line of the user's code that the caller serves."""
    *_, frame = frames()
    return frame.f_code.co_filename, frame.f_lineno
