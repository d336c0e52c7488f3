"""Random tensors, drawn on the device they live on.

Parameters are numbers, arrays or tensors that broadcast. A sample from a continuous distribution is
a differentiable function of them and of noise that does not depend on them (reparameterisation:
Kingma and Welling 2014; of the shape of a gamma distribution and what is made of it by implicit
differentiation: Figurnov, Mohamed and Mnih 2018). Integer samples carry no gradient.

`shape` is that of the result, by default that of the parameters broadcast together. A float dtype
that is not given is that of the parameters, float64 for numbers. NumPy's and CuPy's generators
differ, so a seed gives the same numbers on the same kind of device only.

Raised are a ValueError for numbers out of range and for shapes that do not fit, a TypeError for a
dtype that is not floating-point. Parameters in arrays are not looked at (that would wait for the
device): one out of range gives NaN, or the array library's own error.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import math
import operator
import os
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from . import backends
from .ops.activations import sigmoid, softmax
from .ops.creation import asarray, zeros_like
from .ops.dtypes import astype, is_inexact
from .ops.elementwise import clip, exp, isfinite, log, log1p, maximum, sqrt, tan, where
from .ops.indexing import take
from .ops.linalg import matmul
from .ops.manipulation import as_shape
from .ops.reductions import argmax
from .rules import hindered, xp
from .tensor import Tensor

__all__ = [
    "Generator",
    "bernoulli",
    "beta",
    "binomial",
    "categorical",
    "cauchy",
    "choice",
    "default_generator",
    "dirichlet",
    "exponential",
    "gamma",
    "gumbel",
    "integers",
    "laplace",
    "log_normal",
    "logistic",
    "multivariate_normal",
    "normal",
    "permutation",
    "poisson",
    "rayleigh",
    "seed",
    "student_t",
    "truncated_normal",
    "uniform",
    "weibull",
]

Shape = int | Sequence[int] | None


class Generator:
    """A stream of random tensors on one device.

    Args:
        seed: a non-negative integer, or None for a seed from the operating system.
        device: where the tensors are made; None for the default device.
    """

    def __init__(
        self, seed: int | None = None, device: str | backends.Device | None = None
    ) -> None:
        self.device = backends.default_device() if device is None else backends.device(device)
        self._backend = backends.backend_of_kind(self.device.kind)
        self._seed = _fresh_seed() if seed is None else seed
        self._restart()
        _living.add(self)

    def _restart(self) -> None:
        self._state = self._backend.generator(self._seed, self.device)

    def _draw(self, name: str, *args: Any) -> Tensor:
        try:
            with self._backend.scope(self.device):
                return Tensor(getattr(self._state, name)(*args), None)
        except backends.hindrances as error:
            raise hindered(f"random.{name}", f"on {self.device}", error) from None

    def _values(self, name: str, x: Any) -> Any:
        """A parameter for the array library: a number, or an array that is on this device."""
        if isinstance(x, (int, float)):
            return x
        value = asarray(x) if isinstance(x, Tensor) else asarray(x, device=self.device)
        if value.device != self.device:
            raise ValueError(
                f"{name}: a parameter on {value.device}, the generator is on {self.device}; "
                "move it with .to(device)"
            )
        return value.data

    def _noise(
        self, name: str, kind: str, shape: Shape, dtype: Any, *parameters: Any
    ) -> tuple[Tensor, np.dtype]:
        """Standard noise of the shape of the result, and the dtype of the result."""
        dtype, working = _dtypes_of(name, dtype, *parameters)
        shape = _shape_of(name, shape, *map(_dims, parameters))
        return getattr(self, kind)(shape, working), dtype

    def _normal(self, shape: tuple[int, ...], dtype: np.dtype) -> Tensor:
        return self._draw("normal", shape, dtype)

    def _open(self, shape: tuple[int, ...], dtype: np.dtype) -> Tensor:
        """Uniform in (0, 1), without the ends."""
        return maximum(self._draw("uniform", shape, dtype), float(np.finfo(dtype).eps) / 4)

    def _exponential(self, shape: tuple[int, ...], dtype: np.dtype) -> Tensor:
        return -log1p(-self._open(shape, dtype))

    def _gamma(self, name: str, a: Any, shape: tuple[int, ...], dtype: np.dtype) -> Tensor:
        from .ops.special import gamma_sample

        sample = self._draw("gamma", self._values(name, a), shape, dtype)
        return gamma_sample(a, sample) if isinstance(a, Tensor) else sample

    def _log_gamma(self, name: str, a: Any, shape: tuple[int, ...], dtype: np.dtype) -> Tensor:
        """The logarithm of a gamma variate, also where that is below the smallest number.

        Of shape a it is one of shape a + 1 times u**(1 / a) (Marsaglia and Tsang 2000, section 6).
        """
        return log(self._gamma(name, a + 1, shape, dtype)) + log(self._open(shape, dtype)) / a

    # ---- the normal distribution and its kin

    def normal(
        self, shape: Shape = None, *, loc: Any = 0.0, scale: Any = 1.0, dtype: Any = None
    ) -> Tensor:
        """Normal numbers of mean `loc` and standard deviation `scale`."""
        _check("normal", scale=(scale, 0))
        z, dtype = self._noise("normal", "_normal", shape, dtype, loc, scale)
        return _moved(z, loc, scale, dtype)

    def log_normal(
        self, mean: Any = 0.0, sigma: Any = 1.0, shape: Shape = None, *, dtype: Any = None
    ) -> Tensor:
        """e to the power of normal numbers of mean `mean` and standard deviation `sigma`."""
        _check("log_normal", sigma=(sigma, 0))
        z, dtype = self._noise("log_normal", "_normal", shape, dtype, mean, sigma)
        return astype(exp(mean + sigma * z), dtype, copy=False)

    def truncated_normal(
        self,
        low: Any,
        high: Any,
        shape: Shape = None,
        *,
        loc: Any = 0.0,
        scale: Any = 1.0,
        dtype: Any = None,
    ) -> Tensor:
        """Normal numbers of mean `loc` and standard deviation `scale` that lie in [low, high].

        By the inverse distribution function in float64, which reaches 37 standard deviations.
        """
        from .ops.special import ndtr, ndtri

        _check("truncated_normal", scale=(scale, 0))
        if _is_number(low) and _is_number(high) and not low < high:
            raise ValueError(f"truncated_normal: low={low} is not below high={high}")
        u, dtype = self._noise("truncated_normal", "_open", shape, dtype, low, high, loc, scale)
        u = astype(u, np.float64, copy=False)
        a, b = (_standardised(bound, loc, scale, u) for bound in (low, high))
        # in the left tail, where the distribution function keeps its digits
        mirrored = a > 0
        a, b = where(mirrored, -b, a), where(mirrored, -a, b)
        x = ndtri(ndtr(a) + u * (ndtr(b) - ndtr(a)))
        x = loc + scale * where(mirrored, -x, x)
        return clip(astype(x, dtype, copy=False), _bound(low, dtype), _bound(high, dtype))

    def student_t(
        self,
        df: Any,
        loc: Any = 0.0,
        scale: Any = 1.0,
        shape: Shape = None,
        *,
        dtype: Any = None,
    ) -> Tensor:
        """Student's t distribution with `df` degrees of freedom, moved and scaled."""
        _check("student_t", df=(df, None), scale=(scale, 0))
        z, dtype = self._noise("student_t", "_normal", shape, dtype, df, loc, scale)
        half = 0.5 * df
        gamma = self._gamma("student_t", half, z.shape, z.dtype)
        return _moved(z * sqrt(half / gamma), loc, scale, dtype)

    def multivariate_normal(
        self, mean: Any, scale_tril: Any, shape: Shape = None, *, dtype: Any = None
    ) -> Tensor:
        """Vectors mean + scale_tril @ z of standard normal z.

        Args:
            mean: shape (..., n).
            scale_tril: shape (..., n, n), the Cholesky factor of the covariance matrix.
            shape: of the vectors; the result has shape (*shape, n).
        """
        mean, scale_tril = (self._array("multivariate_normal", x) for x in (mean, scale_tril))
        n = mean.shape[-1] if mean.ndim else 0
        if scale_tril.shape[-2:] != (n, n):
            raise ValueError(
                "multivariate_normal: the shapes (..., n) and (..., n, n) are needed, "
                f"got {mean.shape} and {scale_tril.shape}"
            )
        dtype, working = _dtypes_of("multivariate_normal", dtype, mean, scale_tril)
        batch = _shape_of("multivariate_normal", shape, mean.shape[:-1], scale_tril.shape[:-2])
        z = self._normal((*batch, n, 1), working)
        return astype(mean + matmul(scale_tril, z)[..., 0], dtype, copy=False)

    # ---- other continuous distributions

    def uniform(
        self, low: Any = 0.0, high: Any = 1.0, shape: Shape = None, *, dtype: Any = None
    ) -> Tensor:
        """Numbers uniform in [low, high); rounding to `dtype` may give `high` itself."""
        if _is_number(low) and _is_number(high) and not low <= high:
            raise ValueError(f"uniform: low={low} is above high={high}")
        u, dtype = self._noise("uniform", "_uniform", shape, dtype, low, high)
        return astype(u * (high - low) + low, dtype, copy=False)

    def _uniform(self, shape: tuple[int, ...], dtype: np.dtype) -> Tensor:
        return self._draw("uniform", shape, dtype)

    def exponential(self, scale: Any = 1.0, shape: Shape = None, *, dtype: Any = None) -> Tensor:
        """The exponential distribution of mean `scale`."""
        _check("exponential", scale=(scale, 0))
        e, dtype = self._noise("exponential", "_exponential", shape, dtype, scale)
        return astype(scale * e, dtype, copy=False)

    def laplace(
        self, loc: Any = 0.0, scale: Any = 1.0, shape: Shape = None, *, dtype: Any = None
    ) -> Tensor:
        """The Laplace distribution around `loc`."""
        _check("laplace", scale=(scale, 0))
        e, dtype = self._noise("laplace", "_exponential", shape, dtype, loc, scale)
        return _moved(e - self._exponential(e.shape, e.dtype), loc, scale, dtype)

    def gumbel(
        self, loc: Any = 0.0, scale: Any = 1.0, shape: Shape = None, *, dtype: Any = None
    ) -> Tensor:
        """The Gumbel distribution of maxima of mode `loc`."""
        _check("gumbel", scale=(scale, 0))
        e, dtype = self._noise("gumbel", "_exponential", shape, dtype, loc, scale)
        return _moved(-log(e), loc, scale, dtype)

    def logistic(
        self, loc: Any = 0.0, scale: Any = 1.0, shape: Shape = None, *, dtype: Any = None
    ) -> Tensor:
        """The logistic distribution around `loc`."""
        _check("logistic", scale=(scale, 0))
        u, dtype = self._noise("logistic", "_open", shape, dtype, loc, scale)
        return _moved(log(u) - log1p(-u), loc, scale, dtype)

    def cauchy(
        self, loc: Any = 0.0, scale: Any = 1.0, shape: Shape = None, *, dtype: Any = None
    ) -> Tensor:
        """The Cauchy distribution around `loc`."""
        _check("cauchy", scale=(scale, 0))
        u, dtype = self._noise("cauchy", "_open", shape, dtype, loc, scale)
        return _moved(tan(math.pi * (u - 0.5)), loc, scale, dtype)

    def weibull(
        self, a: Any, scale: Any = 1.0, shape: Shape = None, *, dtype: Any = None
    ) -> Tensor:
        """The Weibull distribution of shape parameter `a`."""
        _check("weibull", a=(a, None), scale=(scale, 0))
        e, dtype = self._noise("weibull", "_exponential", shape, dtype, a, scale)
        return astype(scale * e ** (1 / a), dtype, copy=False)

    def rayleigh(self, scale: Any = 1.0, shape: Shape = None, *, dtype: Any = None) -> Tensor:
        """The Rayleigh distribution of mode `scale`."""
        _check("rayleigh", scale=(scale, 0))
        e, dtype = self._noise("rayleigh", "_exponential", shape, dtype, scale)
        return astype(scale * sqrt(2 * e), dtype, copy=False)

    def gamma(self, a: Any, scale: Any = 1.0, shape: Shape = None, *, dtype: Any = None) -> Tensor:
        """The gamma distribution of shape parameter `a` and mean a * scale."""
        _check("gamma", a=(a, None), scale=(scale, 0))
        dtype, working = _dtypes_of("gamma", dtype, a, scale)
        where_to = _shape_of("gamma", shape, _dims(a), _dims(scale))
        return astype(scale * self._gamma("gamma", a, where_to, working), dtype, copy=False)

    def beta(self, a: Any, b: Any, shape: Shape = None, *, dtype: Any = None) -> Tensor:
        """The beta distribution of mean a / (a + b)."""
        _check("beta", a=(a, None), b=(b, None))
        dtype, working = _dtypes_of("beta", dtype, a, b)
        where_to = _shape_of("beta", shape, _dims(a), _dims(b))
        logs = [self._log_gamma("beta", x, where_to, working) for x in (a, b)]
        return astype(sigmoid(logs[0] - logs[1]), dtype, copy=False)

    def dirichlet(self, alpha: Any, shape: Shape = None, *, dtype: Any = None) -> Tensor:
        """Vectors of positive numbers whose sum is 1.

        Args:
            alpha: the concentrations, shape (..., n).
            shape: of the vectors; the result has shape (*shape, n).
        """
        alpha = self._array("dirichlet", alpha)
        if not alpha.ndim:
            raise ValueError("dirichlet: alpha needs an axis of concentrations")
        dtype, working = _dtypes_of("dirichlet", dtype, alpha)
        batch = _shape_of("dirichlet", shape, alpha.shape[:-1])
        logs = self._log_gamma("dirichlet", alpha, (*batch, alpha.shape[-1]), working)
        return astype(softmax(logs, axis=-1), dtype, copy=False)

    # ---- integers

    def integers(
        self, low: int, high: int, shape: int | Sequence[int] = (), *, dtype: Any = "int64"
    ) -> Tensor:
        """Integers uniform in [low, high)."""
        if not low < high:
            raise ValueError(f"integers: the range [{low}, {high}) is empty")
        return self._draw("integers", low, high, _lengths("integers", shape), np.dtype(dtype))

    def permutation(self, n: int) -> Tensor:
        """The integers from 0 to n - 1 in random order, int64."""
        return self._draw("permutation", n)

    def bernoulli(self, p: Any, shape: Shape = None, *, dtype: Any = "int64") -> Tensor:
        """1 with probability `p`, else 0."""
        _check("bernoulli", p=(p, 0, 1))
        p = self._values("bernoulli", p)
        u = self._draw("uniform", _shape_of("bernoulli", shape, _dims(p)), np.dtype(float))
        return astype(u < p, np.dtype(dtype))

    def binomial(self, n: Any, p: Any, shape: Shape = None) -> Tensor:
        """How many of `n` trials of probability `p` succeed, int64."""
        _check("binomial", n=(n, 0), p=(p, 0, 1))
        n, p = (self._values("binomial", x) for x in (n, p))
        return self._draw("binomial", n, p, _shape_of("binomial", shape, _dims(n), _dims(p)))

    def poisson(self, lam: Any = 1.0, shape: Shape = None) -> Tensor:
        """The Poisson distribution of mean `lam`, int64."""
        _check("poisson", lam=(lam, 0))
        lam = self._values("poisson", lam)
        return self._draw("poisson", lam, _shape_of("poisson", shape, _dims(lam)))

    def categorical(self, logits: Any, shape: Shape = None) -> Tensor:
        """Classes with the probabilities softmax(logits) over the last axis, int64.

        By the Gumbel-max trick (Gumbel 1954).

        Args:
            logits: shape (..., classes), logarithms of weights.
            shape: of the result; logits.shape[:-1] where None.
        """
        logits = self._array("categorical", logits).detach()
        if not logits.ndim or not logits.shape[-1]:
            raise ValueError(f"categorical: there are no classes in the shape {logits.shape}")
        batch = _shape_of("categorical", shape, logits.shape[:-1])
        noise = -log(self._exponential((*batch, logits.shape[-1]), np.dtype(float)))
        return argmax(logits + noise, axis=-1)

    def choice(
        self, a: Any, shape: int | Sequence[int] = (), *, replace: bool = True, p: Any = None
    ) -> Tensor:
        """Entries of `a` along its first axis, or integers below `a`.

        Args:
            a: a tensor or an array, or the number of integers to choose from.
            replace: whether an entry may be chosen again.
            p: the weight of every entry; equal where None.

        Without `replace` and with weights by the largest of perturbed logarithms, which is the
        same as to draw one after the other (Efraimidis and Spirakis 2006).
        """
        shape = _lengths("choice", shape)
        n = a if isinstance(a, int) else len(a)
        count = math.prod(shape)
        if n < 1 and count:
            raise ValueError("choice: there is nothing to choose from")
        if not replace and count > n:
            raise ValueError(f"choice: {count} of {n} without replacement")
        if p is not None:
            p = self._array("choice", p).detach()
            if p.shape != (n,):
                raise ValueError(f"choice: the weights have shape {p.shape} where ({n},) is needed")
        index = self._chosen(n, count, replace, p).reshape(shape)
        return index if isinstance(a, int) else take(self._array("choice", a), index, axis=0)

    def _chosen(self, n: int, count: int, replace: bool, p: Any) -> Tensor:
        if p is None:
            return self.integers(0, n, count) if replace else self.permutation(n)[:count]
        if not replace:
            e = self._exponential((n,), np.dtype(float))
            keys = where(p > 0, e / where(p > 0, p, 1), math.inf).data
            return Tensor(xp(keys).argsort(keys)[:count], None)
        sums = xp(p.data).cumsum(astype(p, np.float64, copy=False).data)
        u = self._draw("uniform", (count,), np.dtype(float)) * sums[-1]
        found = xp(sums).searchsorted(sums[:-1], u.data, side="right")
        return Tensor(found, None)

    def _array(self, name: str, x: Any) -> Tensor:
        self._values(name, x)
        return x if isinstance(x, Tensor) else asarray(x, device=self.device)


def _fresh_seed() -> int:
    return int.from_bytes(os.urandom(8), "little") >> 1  # `secrets` takes 5 ms to import


def _dims(x: Any) -> tuple[int, ...]:
    return getattr(x, "shape", ())


def _is_number(x: Any) -> bool:
    return isinstance(x, (int, float))


def _check(name: str, **limits: tuple) -> None:
    """Refuse numbers outside [least, most], or not above 0 where `least` is None."""
    for parameter, (value, least, *most) in limits.items():
        if not _is_number(value):
            continue  # to look at an array would wait for its device
        if not (value > 0 if least is None else value >= least):
            raise ValueError(f"{name}: {parameter}={value} is out of range")
        if most and not value <= most[0]:
            raise ValueError(f"{name}: {parameter}={value} is out of range")


def _shape_of(name: str, shape: Shape, *parameters: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of the result, to which the parameters broadcast."""
    wanted = None if shape is None else _lengths(name, shape)
    try:
        common = np.broadcast_shapes(*parameters)
        if wanted is None or np.broadcast_shapes(common, wanted) == wanted:
            return common if wanted is None else wanted
    except ValueError:
        pass
    to = "" if wanted is None else f" to {wanted}"
    raise ValueError(f"{name}: parameters of shapes {parameters} do not broadcast{to}")


def _lengths(name: str, shape: int | Sequence[int]) -> tuple[int, ...]:
    try:
        wanted = tuple(map(operator.index, as_shape(shape)))
    except TypeError:
        raise TypeError(f"{name}: a shape is an integer or several, not {shape!r}") from None
    if any(n < 0 for n in wanted):
        raise ValueError(f"{name}: no length in a shape is negative, got {wanted}")
    return wanted


def _dtypes_of(name: str, dtype: Any, *parameters: Any) -> tuple[np.dtype, np.dtype]:
    """`dtype`, or that of the parameters; and the one to compute in."""
    if dtype is None:
        found = [x.dtype for x in parameters if hasattr(x, "dtype") and is_inexact(x.dtype)]
        dtype = np.result_type(*found) if found else np.float64
    dtype = np.dtype(dtype)
    if not is_inexact(dtype) or dtype.kind == "c":
        raise TypeError(f"{name}: the numbers are floating-point, not {dtype}")
    return dtype, np.dtype(np.float32) if dtype.itemsize == 2 else dtype


def _moved(x: Tensor, loc: Any, scale: Any, dtype: np.dtype) -> Tensor:
    return astype(loc + scale * x, dtype, copy=False)


def _standardised(bound: Any, loc: Any, scale: Any, like: Tensor) -> Tensor:
    """(bound - loc) / scale, but far out for an infinity, which depends on neither."""
    bound = bound + zeros_like(like)
    finite = isfinite(bound)
    inside = (where(finite, bound, 0) - loc) / scale
    return clip(where(finite, inside, where(bound > 0, 40, -40)), -40, 40)


def _bound(x: Any, dtype: np.dtype) -> Any:
    return x if _is_number(x) else astype(x, dtype, copy=False)


_living: weakref.WeakSet[Generator] = weakref.WeakSet()


def states() -> tuple[dict[Generator, Any], dict[backends.Device, Generator]]:
    """Every generator and where in its stream it is; and which are the module's own."""
    return {g: g._state.get_state() for g in list(_living)}, dict(_generators)


@contextlib.contextmanager
def replayed(saved: Any) -> Iterator[None]:
    """Inside it, generators draw again what they drew after `states` gave `saved`.

    One that was made later draws from its beginning.
    """
    then, own = saved
    now, own_now = states()
    try:
        _generators.update(own)
        for g in now:
            if g in then:
                g._state.set_state(then[g])
            else:
                g._restart()
        yield
    finally:
        _generators.clear()
        _generators.update(own_now)
        for g, state in now.items():
            g._state.set_state(state)


_seed: int | None = None
_generators: dict[backends.Device, Generator] = {}


def seed(seed: int) -> None:
    """Start the module's own generators afresh, one per device, each from `seed`.

    Raises:
        ValueError: if `seed` is negative.
    """
    global _seed
    if seed < 0:
        raise ValueError(f"seed: {seed} is negative")
    _seed = seed
    _generators.clear()


def default_generator(device: str | backends.Device | None = None) -> Generator:
    """The module's own generator for `device` (None: the default device)."""
    where = backends.default_device() if device is None else backends.device(device)
    if where not in _generators:
        _generators[where] = Generator(_seed, where)
    return _generators[where]


def _of_default(method: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """The method of the module's own generator for `device`, an option of its own."""

    @functools.wraps(method)
    def call(*args: Any, device: Any = None, **options: Any) -> Tensor:
        return method(default_generator(device), *args, **options)

    call.__qualname__ = method.__name__
    call.__doc__ = (
        f"{inspect.getdoc(method)}\n\nFrom the module's own generator for `device`; "
        "`gpugrad.random` says what parameters, shape and dtype are."
    )
    signature = inspect.signature(method)
    option = inspect.Parameter("device", inspect.Parameter.KEYWORD_ONLY, default=None)
    parameters = [*list(signature.parameters.values())[1:], option]
    call.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    return call


bernoulli = _of_default(Generator.bernoulli)
beta = _of_default(Generator.beta)
binomial = _of_default(Generator.binomial)
categorical = _of_default(Generator.categorical)
cauchy = _of_default(Generator.cauchy)
choice = _of_default(Generator.choice)
dirichlet = _of_default(Generator.dirichlet)
exponential = _of_default(Generator.exponential)
gamma = _of_default(Generator.gamma)
gumbel = _of_default(Generator.gumbel)
integers = _of_default(Generator.integers)
laplace = _of_default(Generator.laplace)
log_normal = _of_default(Generator.log_normal)
logistic = _of_default(Generator.logistic)
multivariate_normal = _of_default(Generator.multivariate_normal)
normal = _of_default(Generator.normal)
permutation = _of_default(Generator.permutation)
poisson = _of_default(Generator.poisson)
rayleigh = _of_default(Generator.rayleigh)
student_t = _of_default(Generator.student_t)
truncated_normal = _of_default(Generator.truncated_normal)
uniform = _of_default(Generator.uniform)
weibull = _of_default(Generator.weibull)
