"""The functions of the kernels in decimal arithmetic, and a yardstick for their errors."""

from decimal import Decimal, localcontext
from functools import cache

import numpy as np

DIGITS = 60  # the series of erf loses 20 of them
PI = Decimal(
    "3.14159265358979323846264338327950288419716939937510582097494459230781640628620899862"
)


def _sigmoid(x):
    e = (-abs(x)).exp()
    return (1 if x >= 0 else e) / (1 + e)


def _slope(x):
    e = (-abs(x)).exp()
    return e / (1 + e) ** 2


def _log1p(x):
    return (1 + x).ln() if x > Decimal("1e-20") else x - x * x / 2


def _softplus(x):
    return max(x, Decimal(0)) + _log1p((-abs(x)).exp())


def _erfc_far(z):
    """For z >= 2, by the continued fraction."""
    tail = z
    for n in range(200, 0, -1):
        tail = z + Decimal(n) / 2 / tail
    return (-z * z).exp() / tail / PI.sqrt()


def _erf(x):
    if abs(x) >= 2:
        return (1 - _erfc_far(abs(x))).copy_sign(x)
    term = total = x
    for n in range(1, 120):
        term *= -x * x / n
        total += term / (2 * n + 1)
    return 2 * total / PI.sqrt()


def _normal_cdf(x):
    z = -x / Decimal(2).sqrt()
    return (_erfc_far(z) if z >= 2 else 1 - _erf(z)) / 2


def _normal_pdf(x):
    return (-x * x / 2).exp() / (2 * PI).sqrt()


FUNCTIONS = {
    "sigmoid": _sigmoid,
    "softplus": _softplus,
    "log_sigmoid": lambda x: -_softplus(-x),
    "silu": lambda x: x * _sigmoid(x),
    "gelu": lambda x: x * _normal_cdf(x),
    "erf": _erf,
    "relu": lambda x: max(x, Decimal(0)),
    "sigmoid_grad": _slope,
    "tanh_grad": lambda x: 4 * _slope(2 * x),
    "silu_grad": lambda x: _sigmoid(x) * (1 + x * _sigmoid(-x)),
    "gelu_grad": lambda x: _normal_cdf(x) + x * _normal_pdf(x),
    "relu_grad": lambda x: Decimal(int(x > 0)),
}


@cache
def exact(name, x):
    """A function at a finite float, right to 30 digits at least."""
    with localcontext(prec=DIGITS):
        return FUNCTIONS[name](Decimal(x))


def limits(dtype):
    """The spacing at 1, the smallest normal and the largest finite number of a dtype."""
    if dtype.kind == "f":
        info = np.finfo(dtype)
    else:
        import ml_dtypes

        info = ml_dtypes.finfo(dtype)
    return float(info.eps), float(info.tiny), float(info.max)


def ulps(values, references, dtype, floor=0.0):
    """The errors of `values` in units of the last place of `references`, or of `floor`.

    Where the reference is out of the normal range, the error is left out.
    """
    eps, tiny, largest = limits(dtype)
    errors = []
    for value, reference in zip(values.astype(float).tolist(), references, strict=True):
        if tiny <= abs(reference) <= largest:
            scale = np.frexp(max(abs(float(reference)), floor))[1] - 1
            errors.append(abs(Decimal(value) - reference) / Decimal(eps * 2.0**scale))
    return float(max(errors))
