"""Linear algebra beyond the table: errors, named results, repeated values, ranks, higher orders."""

import numpy as np
import pytest
from helpers import array, flat, host, leaf

import gpugrad as gg
from gpugrad import linalg
from gpugrad.testing import check_grads

on_cusolver = pytest.mark.parametrize("needs", ["cuSOLVER"])
each_kind = pytest.mark.parametrize("kind", ["float64", "complex128"])


def draw(*shape, kind="float64", seed=0):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal(shape)
    return x + 1j * rng.standard_normal(shape) if kind == "complex128" else x


def adjoint(x):
    return gg.conj(gg.matrix_transpose(x))


# ---- bad input

WRONG = {
    "inv": (linalg.inv, (2, 3)),
    "det": (linalg.det, (2, 3)),
    "slogdet": (linalg.slogdet, (3, 2)),
    "cholesky": (linalg.cholesky, (2, 2, 3)),
    "eigh": (linalg.eigh, (2, 3)),
    "eigvalsh": (linalg.eigvalsh, (2, 3)),
    "eig": (linalg.eig, (2, 3)),
    "eigvals": (linalg.eigvals, (2, 3)),
    "matrix_power": (lambda x: linalg.matrix_power(x, 2), (2, 3)),
    "solve": (lambda x: linalg.solve(x, x), (2, 3)),
    "svd": (linalg.svd, (3,)),
    "svdvals": (linalg.svdvals, (3,)),
    "qr": (linalg.qr, (3,)),
    "pinv": (linalg.pinv, (3,)),
    "matrix_rank": (linalg.matrix_rank, (3,)),
    "matrix_norm": (linalg.matrix_norm, (3,)),
    "lstsq": (lambda x: linalg.lstsq(x, x[0]), (2, 3)),
}


@pytest.mark.parametrize("requires_grad", [False, True])
@pytest.mark.parametrize("name", WRONG)
def test_shapes_that_are_no_matrices(name, requires_grad, device):
    f, shape = WRONG[name]
    x = leaf(np.ones(shape), requires_grad=requires_grad)
    with pytest.raises(np.linalg.LinAlgError, match=rf"^{name[:3]}\w*: .*\(.*\)"):
        f(x)


@pytest.mark.parametrize("name", "inv det eigh svd qr cholesky eig".split())
def test_half_precision_is_refused(name, device):
    x = leaf(np.eye(2), dtype="float16")
    with pytest.raises(TypeError, match=rf"^{name}: float16 is not supported: use .astype"):
        getattr(linalg, name)(x)


@pytest.mark.parametrize(
    ("message", "call"),
    [
        ("solve: there are 2 equations", lambda x: linalg.solve(x[:2], x)),
        ("qr: mode is 'reduced' or 'complete', not 'raw'", lambda x: linalg.qr(x, mode="raw")),
        ("matrix_norm: there is no norm 3", lambda x: linalg.matrix_norm(x, ord=3)),
        ("vector_norm: ord is a number", lambda x: linalg.vector_norm(x, ord="fro")),
        ("norm: one axis or two", lambda x: linalg.norm(x, axis=(0, 1, 1))),
        ("cross: vectors of length 3 are needed", lambda x: linalg.cross(x, x)),
        ("outer: two vectors are needed", lambda x: linalg.outer(x, x)),
        ("multi_dot: two or more", lambda x: linalg.multi_dot([x])),
        ("diagonal: at least two axes", lambda x: linalg.diagonal(x[0])),
        ("diagonal: at least two axes", lambda x: gg.trace(x[0])),
    ],
)
def test_what_cannot_be_meant(message, call, device):
    with pytest.raises(ValueError, match=message):
        call(leaf(np.ones((3, 2))))


def test_what_has_no_decomposition_is_refused_on_the_cpu():
    with gg.device("cpu"):
        singular = leaf(np.ones((2, 2)))
        for f in (linalg.inv, linalg.cholesky, lambda x: linalg.solve(x, x)):
            with pytest.raises(np.linalg.LinAlgError, match=r"Singular|positive definite"):
                f(singular - 1)


# ---- what is undetermined


@on_cusolver
@pytest.mark.parametrize(
    ("f", "mend"),
    [
        (lambda x: linalg.svd(x), "full_matrices=False"),
        (lambda x: linalg.svd(x.mT), "full_matrices=False"),
        (lambda x: linalg.qr(x, mode="complete"), "mode='reduced'"),
    ],
)
def test_vectors_that_fill_a_basis_have_no_derivative(f, mend, needs, device):
    x = leaf(draw(3, 2))
    with pytest.raises(NotImplementedError, match=rf"shape.*{mend}"):
        f(x)
    for out in (f(x.detach()), f(x.data)):
        first, last = host(out[0]), host(out[-1])
        np.testing.assert_allclose(first @ first.T, np.eye(len(first)), atol=1e-14)
        assert len(flat(out)) == 2 or len(last) == len(last.T)


# ---- results


@on_cusolver
def test_results_have_names(needs, device):
    x = leaf(draw(3, 3))
    for f, fields in [
        (linalg.eigh, ("eigenvalues", "eigenvectors")),
        (linalg.eig, ("eigenvalues", "eigenvectors")),
        (linalg.qr, ("Q", "R")),
        (linalg.slogdet, ("sign", "logabsdet")),
        (linalg.svd, ("U", "S", "Vh")),
    ]:
        for out in (f(x), f(x.data)):
            assert out._fields == fields
            assert all(out[i] is getattr(out, name) for i, name in enumerate(fields))


@on_cusolver
@each_kind
@pytest.mark.parametrize(
    ("f", "count"),
    [
        (lambda x: linalg.eigh(x + adjoint(x)), 2),
        (linalg.eig, 2),
        (lambda x: linalg.qr(x[:, :3]), 2),
        (linalg.slogdet, 2),
        (lambda x: linalg.svd(x[:, :3], full_matrices=False), 3),
        (lambda x: linalg.svd(x[:3], full_matrices=False), 3),
    ],
    ids=["eigh", "eig", "qr", "slogdet", "tall svd", "wide svd"],
)
def test_one_result_alone(f, count, kind, needs, device):
    """A cotangent of one result only; absolute values, for the phases are not determined."""
    x = array(draw(4, 4, kind=kind))
    for i in range(count):
        size = gg.real if f is linalg.slogdet else gg.abs
        check_grads(lambda x, i=i, size=size: size(f(x)[i]), [x], order=2)


@on_cusolver
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_eigenvalues_of_real_matrices_are_complex(dtype, needs, device):
    x = leaf([[2, 1], [1, 2]], dtype=dtype)
    values = [linalg.eigvals(x), linalg.eigvals(x.detach()), *linalg.eig(x), *linalg.eig(x.data)]
    assert {np.dtype(y.dtype) for y in values} == {np.result_type(dtype, "complex64")}


@on_cusolver
def test_tolerances_may_be_arrays(needs, device):
    x = leaf(np.stack([np.diag([1, 1e-3]), np.diag([1, 1e-6])]))
    rtol = gg.asarray(array([1e-2, 1e-9]))
    for given in (rtol, rtol.data):
        assert host(linalg.matrix_rank(x, rtol=given)).tolist() == [1, 2]
        out = host(linalg.pinv(x, rtol=given))
        np.testing.assert_allclose(out, [np.diag([1, 0]), np.diag([1, 1e6])], atol=1e-9)
    assert host(linalg.matrix_rank(x)).tolist() == [2, 2]


def test_multi_dot_takes_the_cheapest_order(device, monkeypatch):
    shapes = []
    matmul = gg.ops.linalg.matmul

    def counting(a, b):
        shapes.append((a.shape, b.shape))
        return matmul(a, b)

    monkeypatch.setattr(gg.ops.linalg, "matmul", counting)
    linalg.multi_dot([gg.ones((10, 100)), gg.ones((100, 5)), gg.ones((5, 50))])
    assert shapes == [((10, 100), (100, 5)), ((10, 5), (5, 50))]


@on_cusolver
def test_equations_without_unknowns_or_right_sides(needs, device):
    assert linalg.solve(gg.zeros((3, 0, 0)), gg.zeros((0, 2))).shape == (3, 0, 2)
    assert linalg.solve(gg.eye(2), gg.zeros((3, 2, 0))).shape == (3, 2, 0)


# ---- repeated values


def spread(values, kind, seed=0):
    """A Hermitian matrix with these eigenvalues."""
    n = len(values)
    q, _ = np.linalg.qr(draw(n, n, kind=kind, seed=seed))
    return q * np.asarray(values) @ q.conj().T


@on_cusolver
@each_kind
def test_projector_onto_equal_eigenvectors(kind, needs, device):
    """Right although no single one of these vectors has a derivative."""
    x = spread([1, 1, 1, 2, 5], kind)

    def f(x):
        v = linalg.eigh(x + adjoint(x)).eigenvectors[:, :3]
        return v @ adjoint(v)

    check_grads(f, [array(x)], order=1)


@on_cusolver
@each_kind
def test_symmetric_functions_of_equal_eigenvalues(kind, needs, device):
    x = spread([1, 1, 2, 2], kind)

    def f(x):
        w = linalg.eigvalsh(x + adjoint(x))
        return [gg.sum(w), gg.sum(gg.exp(w)), gg.prod(w)]

    check_grads(f, [array(x)], order=1)
    check_grads(lambda x: gg.sum(linalg.svdvals(x) ** 2), [array(x)], order=1)


@on_cusolver
@each_kind
def test_polar_factor_at_equal_singular_values(kind, needs, device):
    """Turned together, u and v of equal values leave u @ vh as it is."""
    q, _ = np.linalg.qr(draw(4, 3, kind=kind))

    def f(x):
        u, _, vh = linalg.svd(x, full_matrices=False)
        return u @ vh

    check_grads(f, [array(2 * q)], order=1)


@on_cusolver
def test_close_eigenvalues_in_single_precision_are_no_ties(needs, device):
    x = draw(200, 200)
    x = x @ x.T / 200

    def f(x):
        w, v = linalg.eigh(x)
        return gg.sum(w * gg.sum(gg.abs(v) ** 3, axis=0))

    got = host(gg.grad(f)(array(x, "float32")))
    expected = host(gg.grad(f)(array(np.asarray(x, "float32"), "float64")))
    np.testing.assert_allclose(got, expected, atol=0.02 * np.abs(expected).max())


@on_cusolver
@each_kind
def test_derivatives_of_all_vectors_stay_finite(kind, needs, device):
    x = array(spread([0, 0, 1, 1, 1 + 1e-16], kind))
    for f in (linalg.eigh, linalg.svd):
        out, pullback = gg.vjp(lambda x, f=f: list(f(x)), x)
        (gradient,) = pullback([gg.ones_like(y) for y in out])
        assert np.isfinite(host(gradient)).all()


# ---- determinants of matrices of any rank


@on_cusolver
@each_kind
@pytest.mark.parametrize(("n", "rank"), [(1, 0), (2, 1), (2, 0), (3, 2), (3, 1), (3, 0), (4, 2)])
def test_det_has_two_derivatives_at_any_rank(n, rank, kind, needs, device):
    x = draw(n, rank, kind=kind) @ draw(rank, n, kind=kind, seed=1)
    check_grads(linalg.det, [array(x)], order=2)


@on_cusolver
@each_kind
def test_det_at_equal_singular_values(kind, needs, device):
    check_grads(linalg.det, [array(np.eye(3, dtype=kind))], order=3)


@on_cusolver
def test_det_of_large_and_small_values(needs, device):
    s = np.array([1e100] * 4 + [1e-100] * 4)
    gradient = gg.grad(linalg.det)(array(np.diag(s)))
    np.testing.assert_allclose(host(gradient), np.diag(1 / s), rtol=1e-12, atol=1e-112)
    h = gg.jvp(gg.grad(linalg.det), (array(np.diag(s)),), (array(np.diag(s)),))[1]
    np.testing.assert_allclose(host(h), 7 * np.diag(1 / s), rtol=1e-12, atol=1e-112)


# ---- third derivatives


@on_cusolver
@each_kind
@pytest.mark.parametrize("name", "det inv slogdet qr svdvals eigvals pinv".split())
def test_third_derivatives(name, kind, needs, device):
    f = getattr(linalg, name)

    def total(x):
        out = f(x)
        return gg.sum(gg.exp(out)) if name == "eigvals" else list(flat(out))

    check_grads(total, [array(draw(3, 3, kind=kind) + 3 * np.eye(3))], order=3)


@on_cusolver
@each_kind
def test_third_derivatives_of_hermitian_matrices(kind, needs, device):
    def f(x):
        x = x @ adjoint(x) + gg.asarray(array(np.diag([1.0, 2, 4])))
        w, v = linalg.eigh(x)
        return linalg.cholesky(x), w, gg.abs(v) ** 2

    check_grads(f, [array(draw(3, 3, kind=kind))], order=3)
