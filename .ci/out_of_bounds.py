"""Run a kernel that reads behind the end of its array, on the emulated device.

AddressSanitizer must stop it: if this script ends well, the sanitizer would find nothing in
gpugrad's kernels either.
"""

import os
import sys

sys.path.insert(0, os.environ["GPUGRAD_CUPY_EMU"])

import cupy_emu  # noqa: F401

# isort: split
import cupy

cupy.cuda.set_allocator(None)  # every array a block of its own
next_one = cupy.ElementwiseKernel("raw T x", "T y", "y = x[i + 1]", "out_of_bounds")
x = cupy.zeros(10, "float32")
next_one(x, cupy.empty_like(x))
