"""Gradients against PyTorch's, real and complex: the same convention."""

import numpy as np
import pytest
import torch

import gpugrad as gg

EYE = np.eye(3)


def adjoint(library, x):
    return library.conj(x.mT)


def hermitian(library, x):
    return x + adjoint(library, x)


def positive(library, x):
    return x @ adjoint(library, x) + library.asarray(EYE)


def eigh(library, x):
    w, v = library.linalg.eigh(hermitian(library, x))
    return w, library.abs(v), v[..., :1] @ adjoint(library, v[..., :1])


def eig(library, x):
    w, v = library.linalg.eig(x)
    return library.exp(w).sum(-1), library.abs(v).sum(-1)


def svd(library, x):
    u, s, vh = library.linalg.svd(x, full_matrices=False)
    return s, library.abs(u), library.abs(vh), u[..., :1] @ vh[..., :1, :], u @ vh


# name -> f(library, x) and shapes of x
CASES = {
    "inv": (lambda xp, x: xp.linalg.inv(x), [(3, 3), (2, 3, 3)]),
    "det": (lambda xp, x: xp.linalg.det(x), [(3, 3), (2, 3, 3)]),
    "slogdet": (lambda xp, x: tuple(xp.linalg.slogdet(x)), [(3, 3), (2, 3, 3)]),
    "solve": (lambda xp, x: xp.linalg.solve(x, x @ x), [(3, 3)]),
    "cholesky": (lambda xp, x: xp.linalg.cholesky(positive(xp, x)), [(3, 3), (2, 3, 3)]),
    "cholesky, upper": (lambda xp, x: xp.linalg.cholesky(positive(xp, x), upper=True), [(3, 3)]),
    "qr": (lambda xp, x: tuple(xp.linalg.qr(x)), [(3, 3), (4, 2), (2, 4, 3)]),
    "qr, wide: R": (lambda xp, x: xp.linalg.qr(x)[1], [(2, 4)]),
    "eigh": (eigh, [(3, 3), (2, 3, 3)]),
    "eigvalsh": (lambda xp, x: xp.linalg.eigvalsh(hermitian(xp, x)), [(3, 3)]),
    "eig": (eig, [(3, 3), (2, 3, 3)]),
    "eigvals": (lambda xp, x: xp.exp(xp.linalg.eigvals(x)).sum(-1), [(3, 3)]),
    "svd": (svd, [(3, 3), (4, 2), (2, 2, 3)]),
    "svdvals": (lambda xp, x: xp.linalg.svdvals(x), [(3, 3), (2, 4)]),
    "pinv": (lambda xp, x: xp.linalg.pinv(x), [(3, 3), (4, 2), (2, 2, 3)]),
    "matrix_power(5)": (lambda xp, x: xp.linalg.matrix_power(x, 5), [(3, 3)]),
    "matrix_power(-2)": (lambda xp, x: xp.linalg.matrix_power(x, -2), [(3, 3)]),
    **{
        f"matrix_norm({ord})": (
            lambda xp, x, ord=ord: xp.linalg.matrix_norm(x, ord=ord),
            [(3, 3), (2, 2, 3)],
        )
        for ord in ("fro", "nuc", 1, -1, 2, -2, np.inf, -np.inf)
    },
    **{
        f"vector_norm({ord})": (lambda xp, x, ord=ord: xp.linalg.vector_norm(x, ord=ord), [(2, 3)])
        for ord in (2, 1, 3.5, 0.5, -1, np.inf, -np.inf)
    },
}
ELEMENTWISE = """
abs acos acosh asin asinh atan atanh conj cos cosh exp expm1 imag log log10 log1p log2 negative
positive real reciprocal sign sin sinh sqrt square tan tanh
""".split()
REAL_ONLY = """
sigmoid special.digamma special.erf special.erfc special.erfcx special.erfinv special.expit
special.gammaln special.i0 special.i0e special.i1 special.i1e special.log_ndtr special.ndtr
special.ndtri special.entr special.sinc
""".split()


def named(library, name):
    """The function of that name; `sign` has another one in PyTorch for complex numbers."""
    for part in ("sgn" if name == "sign" and library is torch else name).split("."):
        library = getattr(library, part)
    return library


def small(xp, x):
    """Values inside the unit disc, where all of these functions are smooth."""
    return x * 0.2 + 0.4


CASES |= {
    **{
        name: (lambda xp, x, name=name: named(xp, name)(small(xp, x)), [(2, 3)])
        for name in [*ELEMENTWISE, *REAL_ONLY]
        if name not in ("acosh", "imag")
    },
    "acosh": (lambda xp, x: xp.acosh(small(xp, x) + 2), [(2, 3)]),
    "x * y": (lambda xp, x: x * xp.conj(x[0]) + x / (x[1] + 3), [(2, 3)]),
    "x ** y": (lambda xp, x: (small(xp, x) + 1) ** x[0], [(2, 3)]),
    "sum, mean, prod": (lambda xp, x: (x.sum(0), x.mean(-1), x.prod(-1)), [(2, 3)]),
    "var": (lambda xp, x: xp.var(x, axis=-1, correction=1), [(2, 3)]),
    "matmul": (lambda xp, x: x @ adjoint(xp, x), [(3, 3), (2, 2, 3)]),
    "vecdot": (lambda xp, x: xp.linalg.vecdot(x, x[0] * 2), [(2, 3)]),
    "einsum": (lambda xp, x: xp.einsum("ij,kj->ik", x, x), [(2, 3)]),
    "shapes": (lambda xp, x: xp.stack([x.T, x.reshape(3, 2)]) * xp.concat([x.T]), [(2, 3)]),
    "index": (lambda xp, x: (x[1:, ::2], x[[0, 0, 1]]), [(2, 3)]),
    "where": (lambda xp, x: xp.where(xp.abs(x) > 1, x, x * x), [(2, 3)]),
    "fft": (lambda xp, x: (xp.fft.fft(x, 4), xp.fft.ifft(x), xp.fft.fft2(x)), [(2, 3)]),
    "irfft": (lambda xp, x: (xp.fft.irfft(x, 5), xp.fft.hfft(x, 4)), [(2, 3)]),
}
PAIRS = [
    (name, shape, dtype)
    for name, (_, shapes) in CASES.items()
    for shape in shapes
    for dtype in (["float64"] if name in REAL_ONLY else ["float64", "complex128"])
]


def total(library, out, weights):
    """A real number that depends on every entry."""
    out = out if isinstance(out, tuple) else (out,)
    parts = [library.real(x * w).sum() for x, w in zip(out, weights)]
    return sum(parts[1:], parts[0])


@pytest.mark.parametrize(("name", "shape", "dtype"), PAIRS, ids=str)
def test_gradient_is_that_of_pytorch(name, shape, dtype):
    f = CASES[name][0]
    rng = np.random.default_rng(0)

    def draw(shape, dtype):
        x = rng.standard_normal(shape)
        return x + 1j * rng.standard_normal(shape) if np.dtype(dtype).kind == "c" else x

    x = draw(shape, dtype)
    with gg.device("cpu"):
        out = f(gg, gg.asarray(x))
        weights = [draw(y.shape, y.dtype) for y in (out if isinstance(out, tuple) else (out,))]
        got = gg.grad(lambda x: total(gg, f(gg, x), weights))(x)
    leaf = torch.tensor(x, requires_grad=True)
    total(torch, f(torch, leaf), list(map(torch.asarray, weights))).backward()
    np.testing.assert_allclose(got, leaf.grad.numpy(force=True), rtol=1e-9, atol=1e-10)
