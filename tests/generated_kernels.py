"""The generated kernels without a GPU: as a listing, and compiled by the host's C++ compiler.

    PYTHONPATH=. python tests/generated_kernels.py > tests/generated_kernels.txt

writes the listing: the derivatives of all elementwise operations in float32, and some in others.
"""

import contextlib
import ctypes
import subprocess
import sys

import numpy as np
from kernels_host import COMPILER, HALVES

import gpugrad as gg
from gpugrad import backends
from gpugrad.cuda.source import source_of
from gpugrad.fusion import Fusion
from gpugrad.symbols import working_type
from gpugrad.testing.table import ROWS

ENTRYWISE = [row for row in ROWS if row.broadcasts and row.order]

# what the listing shows besides float32
SHOWN = {
    "float16": ("divide", "sigmoid", "sqrt"),
    "float64": ("sin", "tanh", "pow"),
    "complex64": ("abs", "divide", "exp", "sqrt"),
}


@contextlib.contextmanager
def fused_by(backend):
    """Derivatives of NumPy arrays are made of kernels of `backend`; as they stand for None."""
    fusion = backends.fusion
    backends.fusion = backend and Fusion(backend)
    try:
        yield
    finally:
        backends.fusion = fusion


def derivatives(row, args):
    """The gradients and the tangent of a row of the table, as arrays."""
    f, args = row.of_differentiable(args)
    with np.errstate(all="ignore"):
        out, pullback = gg.vjp(f, *args)
        g = np.linspace(0.5, 1.5, out.size).reshape(out.shape).astype(out.dtype)
        t = [np.linspace(1.5, 0.5, x.size).reshape(x.shape).astype(x.dtype) for x in args]
        return [*pullback(g), gg.jvp(f, args, t)[1]]


class Recorder:
    """A backend that notes the kernels asked of it; they compute zeros."""

    array_type = np.ndarray

    def __init__(self):
        self.kernels = {}

    def kernel(self, kernel):
        self.kernels[signature(kernel)] = kernel

        def call(*arrays, **axes):
            full = np.zeros(np.broadcast_shapes(*map(np.shape, arrays)))
            made = [full.astype(dtype) for dtype in kernel.outputs.values()]
            if kernel.summed:
                return made[0].sum(**axes)
            return made if len(made) > 1 else made[0]

        return call


def signature(kernel):
    inputs, outputs = (
        ", ".join(f"{dtype.name} {name}" for name, dtype in dtypes.items())
        for dtypes in (kernel.inputs, kernel.outputs)
    )
    return f"{kernel.name}{'_sum' if kernel.summed else ''}({inputs}) -> {outputs}"


def listing():
    """The text of the kernels that the table of operations asks for."""
    recorder = Recorder()
    with fused_by(recorder):
        for row in ENTRYWISE:
            derivatives(row, row.draw(np.float32))
        for dtype, names in SHOWN.items():
            for row in ENTRYWISE:
                if row.name in names:
                    derivatives(row, row.draw(dtype))
        x = np.linspace(1, 2, 6, dtype=np.float32).reshape(2, 3)
        for other in (x[0], x[:, :1]):  # sums over axes that were broadcast
            for f in (gg.multiply, gg.divide, gg.atan2):
                gg.vjp(f, x, other)[1](x)
    blocks = []
    for head, kernel in sorted(recorder.kernels.items()):
        lines = [kernel.text.expression] if kernel.summed else kernel.text.statements.split("\n")
        files = "".join(f'\n    #include "{file}.cuh"' for file in kernel.text.files)
        blocks.append("\n    ".join([head + files, *lines]) + "\n")
    return "\n".join(blocks)


class Host:
    """A backend whose kernels are compiled for the host, all at once."""

    array_type = np.ndarray

    def __init__(self, kernels, folder):
        self._names = {head: f"kernel_{i}" for i, head in enumerate(kernels)}
        files = sorted({file for k in kernels.values() for file in k.text.files} - {"common"})
        lines = [
            HALVES,
            "#include <complex>",
            "using namespace std;",
            source_of("common", *files),
            'extern "C" {',
        ]
        for head, kernel in kernels.items():
            lines += self._function(self._names[head], kernel)
        source, library = folder / "generated.cpp", folder / "generated.so"
        source.write_text("\n".join([*lines, "}"]))
        options = ["-std=c++17", "-O1", "-ffp-contract=off", "-shared", "-fPIC", "-w"]
        subprocess.run([COMPILER, *options, str(source), "-o", str(library)], check=True)
        self._library = ctypes.CDLL(str(library))

    def _function(self, name, kernel):
        arrays = kernel.inputs | kernel.outputs
        yield f"void {name}({', '.join(f'void *{array}_' for array in arrays)}, long size) {{"
        yield "  for (long k = 0; k < size; ++k) {"
        for array, dtype in arrays.items():
            type_ = "float16" if dtype == np.float16 else working_type(dtype)
            const = "const " if array in kernel.inputs else ""
            yield f"    {const}{type_} &{array} = (({type_} *){array}_)[k];"
        for line in kernel.text.locals:
            yield f"    {line}"
        for output, dtype in kernel.outputs.items():
            value = kernel.text.values[output]
            yield f"    {output} = {f'float16({value})' if dtype == np.float16 else value};"
        yield "  }"
        yield "}"

    def kernel(self, kernel):
        function = getattr(self._library, self._names[signature(kernel)])

        def call(*arrays, **axes):
            shape = np.broadcast_shapes(*map(np.shape, arrays))
            given = [
                np.ascontiguousarray(np.broadcast_to(np.asarray(x, dtype), shape))
                for x, dtype in zip(arrays, kernel.inputs.values(), strict=True)
            ]
            made = [np.empty(shape, dtype) for dtype in kernel.outputs.values()]
            pointers = [ctypes.c_void_p(x.ctypes.data) for x in (*given, *made)]
            function(*pointers, ctypes.c_long(made[0].size))
            if kernel.summed:
                return np.asarray(made[0].sum(**axes))
            return made if len(made) > 1 else made[0]

        return call


if __name__ == "__main__":
    sys.stdout.write(listing())
