"""What libraries that speak the array API standard make of a Tensor.

SciPy, scikit-learn, array-api-extra and einops know nothing of gpugrad; given a Tensor, they call
the functions of its namespace. Each case below is one of their functions. Where the result is on
the tape, its gradient is checked against finite differences; where a function leaves the standard
(it converts to NumPy inside), it raises: no gradient is lost in silence.

    python examples/libraries.py           prints the table of docs/libraries.md
    python examples/libraries.py PCA       only the cases with PCA in their name, with tracebacks
"""

from __future__ import annotations

import importlib.metadata
import os
import sys
import traceback
import warnings
from collections.abc import Callable
from typing import Any

os.environ["SCIPY_ARRAY_API"] = "1"  # read when SciPy is imported

import array_api_extra as xpx
import einops
import einops.array_api
import numpy as np
import sklearn
from scipy import differentiate, integrate, optimize, signal, special, stats
from scipy.optimize import elementwise
from scipy.spatial.transform import RigidTransform, Rotation
from sklearn import metrics, preprocessing
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import Ridge
from sklearn.metrics import pairwise
from sklearn.mixture import GaussianMixture

import gpugrad as gg
import gpugrad.einops  # for plain einops
from gpugrad.trees import flatten

sklearn.set_config(array_api_dispatch=True)

HEAD = """\
# What libraries that speak the array API standard make of a Tensor

Most take other arrays than NumPy's only if told to, and else raise that a gradient would be lost:

- SciPy: the environment has `SCIPY_ARRAY_API=1` before SciPy is imported (its ufuncs, as
  `scipy.special.erf`, need nothing);
- scikit-learn: `sklearn.set_config(array_api_dispatch=True)`, and SciPy's setting;
- plain einops: `import gpugrad.einops` (`einops.array_api` needs nothing).

Made by `examples/libraries.py`; a gradient that is kept is checked against finite differences."""

rng = np.random.default_rng(0)
X = rng.uniform(0.5, 1.5, (6, 4))
Y = rng.uniform(0.5, 1.5, 6)
LABELS = np.array([0, 1, 0, 1, 1, 0])


def as_(x: Any, constant: np.ndarray) -> Any:
    """`constant` as an array of the kind of `x`."""
    return gg.asarray(constant) if isinstance(x, gg.Tensor) else constant


def root_of_cube(x: Any) -> Any:
    bracket = as_(x, np.zeros((6, 4))), as_(x, np.full((6, 4), 3.0))
    return elementwise.find_root(lambda y, a: y**3 - a, bracket, args=(x,)).x


def mixture(x: Any) -> Any:
    start = {
        "weights_init": as_(x, np.array([0.5, 0.5])),
        "means_init": as_(x, X[:2]),
        "precisions_init": as_(x, np.stack([4 * np.eye(4)] * 2)),
    }
    return (
        GaussianMixture(2, tol=0.5, reg_covar=0.1, init_params="random_from_data", **start)
        .fit(x)
        .means_
    )


Function = Callable[[Any], Any]
CASES: dict[str, Function] = {
    # ---- SciPy
    "scipy.stats.skew": lambda x: stats.skew(x, axis=-1),
    "scipy.stats.kurtosis": lambda x: stats.kurtosis(x, axis=-1),
    "scipy.stats.zscore": lambda x: stats.zscore(x, axis=-1),
    "scipy.stats.zmap": lambda x: stats.zmap(x, x * x, axis=-1),
    "scipy.stats.gmean": lambda x: stats.gmean(x, axis=-1),
    "scipy.stats.hmean": lambda x: stats.hmean(x, axis=-1),
    "scipy.stats.pmean": lambda x: stats.pmean(x, 3, axis=-1),
    "scipy.stats.sem": lambda x: stats.sem(x, axis=-1),
    "scipy.stats.variation": lambda x: stats.variation(x, axis=-1),
    "scipy.stats.moment": lambda x: stats.moment(x, order=3, axis=-1),
    "scipy.stats.kstat": lambda x: stats.kstat(x, 3, axis=-1),
    "scipy.stats.lmoment": lambda x: stats.lmoment(x, axis=-1),
    "scipy.stats.tmean": lambda x: stats.tmean(x, limits=(0.6, 1.3)),
    "scipy.stats.tvar": lambda x: stats.tvar(x, limits=(0.6, 1.3)),
    "scipy.stats.circmean": lambda x: stats.circmean(x, axis=-1),
    "scipy.stats.circstd": lambda x: stats.circstd(x, axis=-1),
    "scipy.stats.entropy": lambda x: stats.entropy(x, axis=-1),
    "scipy.stats.differential_entropy": lambda x: stats.differential_entropy(
        x, window_length=1, axis=-1
    ),
    "scipy.stats.median_abs_deviation": lambda x: stats.median_abs_deviation(x, axis=-1),
    "scipy.stats.iqr": lambda x: stats.iqr(x, axis=-1),
    "scipy.stats.quantile": lambda x: stats.quantile(x, 0.3, axis=-1),
    "scipy.stats.trim_mean": lambda x: stats.trim_mean(x, 0.2, axis=-1),
    "scipy.stats.gstd": lambda x: stats.gstd(x, axis=-1),
    "scipy.stats.boxcox_llf": lambda x: stats.boxcox_llf(0.5, x, axis=-1),
    "scipy.stats.pearsonr": lambda x: stats.pearsonr(x[0], x[1]).statistic,
    "scipy.stats.pearsonr: p": lambda x: stats.pearsonr(x[0], x[1]).pvalue,
    "scipy.stats.spearmanr": lambda x: stats.spearmanr(x[0], x[1]).statistic,
    "scipy.stats.ttest_1samp": lambda x: stats.ttest_1samp(x, 0.9, axis=-1).statistic,
    "scipy.stats.ttest_1samp: p": lambda x: stats.ttest_1samp(x, 0.9, axis=-1).pvalue,
    "scipy.stats.ttest_ind": lambda x: stats.ttest_ind(x[:3], x[3:], axis=None).pvalue,
    "scipy.stats.skewtest: p": lambda x: stats.skewtest(gg_repeat(x), axis=None).pvalue,
    "scipy.stats.jarque_bera: p": lambda x: stats.jarque_bera(x, axis=-1).pvalue,
    "scipy.stats.chisquare: p": lambda x: stats.chisquare(x, sum_check=False, axis=-1).pvalue,
    "scipy.stats.combine_pvalues": lambda x: stats.combine_pvalues(x[0] / 2).pvalue,
    "scipy.stats.directional_stats": lambda x: stats.directional_stats(x).mean_direction,
    "scipy.stats.bootstrap": lambda x: (
        stats.bootstrap(
            (x,), lambda y, axis: y.mean(axis), n_resamples=9, rng=0
        ).confidence_interval.low
    ),
    "scipy.stats.Normal.pdf": lambda x: stats.Normal(mu=x, sigma=x).pdf(x * x),
    "scipy.signal.fftconvolve": lambda x: signal.fftconvolve(x[0], x[1]),
    "scipy.signal.oaconvolve": lambda x: signal.oaconvolve(x[0], x[1]),
    "scipy.signal.convolve": lambda x: signal.convolve(x[0], x[1]),
    "scipy.signal.correlate": lambda x: signal.correlate(x[0], x[1]),
    "scipy.signal.resample": lambda x: signal.resample(x, 7, axis=-1),
    "scipy.signal.hilbert": lambda x: abs(signal.hilbert(x)),
    "scipy.signal.detrend": lambda x: signal.detrend(x),
    "scipy.signal.lfilter": lambda x: signal.lfilter(as_(x, Y[:2]), as_(x, Y[2:4]), x),
    "scipy.signal.freqz": lambda x: abs(signal.freqz(x[0], worN=4)[1]),
    "scipy.integrate.trapezoid": lambda x: integrate.trapezoid(x, x=as_(x, Y[:4]).cumsum()),
    "scipy.integrate.cumulative_trapezoid": lambda x: integrate.cumulative_trapezoid(x),
    "scipy.integrate.simpson": lambda x: integrate.simpson(x),
    "scipy.integrate.cumulative_simpson": lambda x: integrate.cumulative_simpson(x),
    "scipy.integrate.tanhsinh": lambda x: (
        integrate.tanhsinh(
            lambda t, a: t * a, as_(x, np.zeros((6, 4))), as_(x, np.ones((6, 4))), args=(x,)
        ).integral
    ),
    "scipy.optimize.elementwise.find_root": root_of_cube,
    "scipy.optimize.rosen": lambda x: optimize.rosen(x[0]),
    "scipy.optimize.rosen_der": lambda x: optimize.rosen_der(x[0]),
    "scipy.differentiate.derivative": lambda x: differentiate.derivative(lambda t: t**3, x).df,
    "scipy.special.gammaln": lambda x: special.gammaln(x),
    "scipy.special.erf": lambda x: special.erf(x),
    "scipy.special.expit": lambda x: special.expit(x),
    "scipy.special.ndtr": lambda x: special.ndtr(x),
    "scipy.special.ndtri": lambda x: special.ndtri(x / 2),
    "scipy.special.xlogy": lambda x: special.xlogy(x, x),
    "scipy.special.logsumexp": lambda x: special.logsumexp(x, axis=-1),
    "scipy.special.softmax": lambda x: special.softmax(x, axis=-1),
    "scipy.special.betainc": lambda x: special.betainc(as_(x, Y[:4]), 2.0, x / 2),
    "scipy Rotation.from_rotvec.as_matrix": lambda x: Rotation.from_rotvec(x[:, :3]).as_matrix(),
    "scipy Rotation.from_quat.apply": lambda x: Rotation.from_quat(x).apply(x[:, :3]),
    "scipy Rotation.from_matrix.as_quat": lambda x: Rotation.from_matrix(
        Rotation.from_quat(x).as_matrix()
    ).as_quat(canonical=True),
    "scipy Rotation.as_rotvec": lambda x: Rotation.from_quat(x).as_rotvec(),
    "scipy Rotation.as_euler": lambda x: Rotation.from_rotvec(x[:, :3]).as_euler("xyz"),
    "scipy Rotation.from_euler": lambda x: Rotation.from_euler("zyx", x[:, :3]).as_matrix(),
    "scipy Rotation.as_mrp": lambda x: Rotation.from_quat(x).as_mrp(),
    "scipy Rotation.as_davenport": lambda x: Rotation.from_quat(x).as_davenport(
        as_(x, np.eye(3)), "extrinsic"
    ),
    "scipy Rotation.inv": lambda x: Rotation.from_quat(x).inv().as_matrix(),
    "scipy Rotation *": lambda x: (
        Rotation.from_quat(x[:3]) * Rotation.from_quat(x[3:])
    ).as_matrix(),
    "scipy Rotation **": lambda x: (Rotation.from_quat(x) ** 0.3).as_matrix(),
    "scipy Rotation.magnitude": lambda x: Rotation.from_quat(x).magnitude(),
    "scipy Rotation.approx_equal": lambda x: Rotation.from_quat(x).approx_equal(
        Rotation.from_quat(x * 2)
    ),
    "scipy Rotation.mean": lambda x: Rotation.from_quat(x).mean().as_matrix(),
    "scipy Rotation.reduce": lambda x: Rotation.from_quat(x).reduce().as_matrix(),
    "scipy Rotation.align_vectors": lambda x: Rotation.align_vectors(x[:, :3], as_(x, X[:, 1:]))[
        0
    ].as_matrix(),
    "scipy RigidTransform.apply": lambda x: RigidTransform.from_components(
        x[:, :3], Rotation.from_quat(x)
    ).apply(x[:, 1:]),
    "scipy RigidTransform.inv": lambda x: (
        RigidTransform.from_components(x[:, :3], Rotation.from_quat(x)).inv().as_matrix()
    ),
    # ---- scikit-learn
    "sklearn Ridge.fit": lambda x: Ridge(solver="svd").fit(x, as_(x, Y)).coef_,
    "sklearn Ridge.predict": lambda x: (
        Ridge(solver="svd").fit(as_(x, X[::-1] * 2), as_(x, Y)).predict(x)
    ),
    "sklearn PCA.fit": lambda x: PCA(n_components=2, svd_solver="full").fit(x).explained_variance_,
    "sklearn PCA.fit_transform": lambda x: abs(
        PCA(n_components=2, svd_solver="full").fit_transform(x)
    ),
    "sklearn PCA.fit, covariance_eigh": lambda x: (
        PCA(n_components=2, svd_solver="covariance_eigh").fit(x).explained_variance_
    ),
    "sklearn GaussianMixture.fit": mixture,
    "sklearn LinearDiscriminantAnalysis.fit": lambda x: (
        LinearDiscriminantAnalysis().fit(x, as_(x, LABELS)).decision_function(as_(x, X + 0.1))
    ),
    "sklearn MinMaxScaler": lambda x: preprocessing.MinMaxScaler().fit_transform(x),
    "sklearn MaxAbsScaler": lambda x: preprocessing.MaxAbsScaler().fit_transform(x),
    "sklearn StandardScaler": lambda x: preprocessing.StandardScaler().fit_transform(x),
    "sklearn Normalizer": lambda x: preprocessing.Normalizer().fit_transform(x),
    "sklearn PolynomialFeatures": lambda x: preprocessing.PolynomialFeatures(2).fit_transform(x),
    "sklearn KernelCenterer": lambda x: preprocessing.KernelCenterer().fit_transform(x @ x.T),
    "sklearn rbf_kernel": lambda x: pairwise.rbf_kernel(x),
    "sklearn linear_kernel": lambda x: pairwise.linear_kernel(x),
    "sklearn polynomial_kernel": lambda x: pairwise.polynomial_kernel(x),
    "sklearn sigmoid_kernel": lambda x: pairwise.sigmoid_kernel(x),
    "sklearn cosine_similarity": lambda x: pairwise.cosine_similarity(x),
    "sklearn additive_chi2_kernel": lambda x: pairwise.additive_chi2_kernel(x, x * x),
    "sklearn euclidean_distances": lambda x: pairwise.euclidean_distances(x, x + 1),
    "sklearn laplacian_kernel": lambda x: pairwise.laplacian_kernel(x, x * x),
    "sklearn manhattan_distances": lambda x: pairwise.manhattan_distances(x, x * x),
    "sklearn mean_squared_error": lambda x: metrics.mean_squared_error(as_(x, Y), x[:, 0]),
    "sklearn r2_score": lambda x: metrics.r2_score(as_(x, Y), x[:, 0]),
    "sklearn log_loss": lambda x: metrics.log_loss(as_(x, LABELS), x[:, 0] / 2),
    # ---- array-api-extra
    "xpx.at.set": lambda x: xpx.at(x * 1)[0].set(x[1]),
    "xpx.at.add": lambda x: xpx.at(x * 1)[1:, 0].add(x[0, 0]),
    "xpx.apply_where": lambda x: xpx.apply_where(x > 1, x, lambda v: v**2, lambda v: v),
    "xpx.cov": lambda x: xpx.cov(x.T),
    "xpx.create_diagonal": lambda x: xpx.create_diagonal(x),
    "xpx.kron": lambda x: xpx.kron(x, x),
    "xpx.pad": lambda x: xpx.pad(x, 1),
    "xpx.sinc": lambda x: xpx.sinc(x),
    "xpx.nunique": lambda x: xpx.nunique(x),
    # ---- einops
    "einops.rearrange": lambda x: einops.rearrange(x, "(a b) c -> c b a", a=3),
    "einops.reduce": lambda x: einops.reduce(x, "(a b) c -> c b", "max", a=3),
    "einops.repeat": lambda x: einops.repeat(x, "a c -> a c 2"),
    "einops.einsum": lambda x: einops.einsum(x, x, "a b, a c -> b c"),
    "einops.pack": lambda x: einops.pack([x, x[:, 0]], "a *")[0],
    "einops.array_api.rearrange": lambda x: einops.array_api.rearrange(x, "(a b) c -> c b a", a=3),
    "einops.array_api.reduce": lambda x: einops.array_api.reduce(x, "(a b) c -> c b", "max", a=3),
    "einops.array_api.repeat": lambda x: einops.array_api.repeat(x, "a c -> a c 2"),
}


def gg_repeat(x: Any) -> Any:
    return gg.repeat(x, 2)


def outcome(f: Function) -> str:
    """What becomes of the gradient of `f` at X."""
    try:
        out = f(gg.asarray(X, requires_grad=True))
    except Exception as error:
        if len(sys.argv) > 1:
            traceback.print_exc()
        return f"raises {type(error).__name__}: {str(error).splitlines()[0].split(': ')[0]}"
    if not isinstance(out, (gg.Tensor, list, tuple)):
        return f"gives a Python {type(out).__name__}, off the tape"
    if all(x.requires_grad for x in flatten(out)[0]):
        try:
            gg.testing.check_grads(f, [X], order=1, tol=1e-5)
        except AssertionError as error:
            if "vjp against the jvp" in str(error) and "got np.float64(nan)" in str(error):
                return "nan: it makes nan or 0/0 inside, and replaces it afterwards"
            return f"WRONG: {error}"
        return "keeps the gradient"
    near = [gg.asarray(y).get() for h in (0, 1e-3) for y in flatten(f(X + h))[0]]
    if all(map(np.array_equal, near[: len(near) // 2], near[len(near) // 2 :])):
        return "constant"
    return "WRONG: the gradient is lost"


def main() -> int:
    warnings.simplefilter("ignore")
    names = ["scipy", "scikit-learn", "array-api-extra", "einops"]
    print(HEAD)
    print(", ".join(f"{name} {importlib.metadata.version(name)}" for name in names) + ".\n")
    print("| function | a tensor that requires a gradient |\n| --- | --- |")
    wrong = False
    for name, f in CASES.items():
        if all(word in name for word in sys.argv[1:]):
            result = outcome(f)
            wrong |= result.startswith("WRONG")
            print(f"| `{name}` | {result} |")
    return int(wrong)


if __name__ == "__main__":
    sys.exit(main())
