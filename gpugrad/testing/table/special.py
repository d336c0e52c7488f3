"""Rows of the table: special functions."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import numpy as np

import gpugrad as gg

from ...ops import special
from ...twins import working_dtypes
from ..rows import Domain, Row, case, entrywise, fraction, inside, positive, signed

ORDERS = np.array([[0, 1, 2], [3, 1, 0]])
TRIALS = np.array([[2, 4, 3], [7, 2, 5]])
SHAPES = np.array([[0.5, 1.0, 2.5], [4.0, 1.5, 9.0]])
OTHERS = np.array([[3.0, 0.75, 2.0], [1.0, 5.5, 2.5]])


def _scipys(name: str) -> Callable[..., Any]:
    """SciPy's function of that name in float64, with the dtype of gpugrad's result."""

    def reference(*args: Any, **options: Any) -> Any:
        function = getattr(importlib.import_module("scipy.special"), name)
        floats = [isinstance(x, np.ndarray) and x.dtype.kind != "i" for x in args]
        wide = [x.astype(float) if f else x for x, f in zip(args, floats, strict=True)]
        with np.errstate(all="ignore"):
            out = np.asarray(function(*wide, **options))
            return out.astype(working_dtypes(np.result_type(*args))[1])

    return reference


def _row(name: str, *args: Any, order: int = 2, rtol: float = 200, dtypes: str = "fd") -> Row:
    """A row of values away from infinities, where SciPy's functions and CuPy's differ."""
    domains = [x if isinstance(x, np.ndarray) else x(2, 3) for x in args]
    return case(
        f"special.{name}",
        *domains,
        reference=_scipys(name),
        order=order,
        rtol=rtol,
        dtypes=dtypes,
    )


def _above_2(*shape: int) -> Domain:
    return Domain(shape, 2.1, 4.0, False)


def _pseudo_huber(delta: Any, r: Any) -> np.ndarray:
    out = _scipys("pseudo_huber")(delta, r)
    return np.where(np.isposinf(delta) & np.isinf(r), np.array(np.inf, out.dtype), out)


def _softmax(x: np.ndarray, axis: Any) -> np.ndarray:
    e = np.exp(x)
    return e / e.sum(axis=axis, keepdims=True)


ROWS = [
    # ---- right at all special values on both devices
    *(
        entrywise(f"special.{name}", domain, reference=_scipys(name), rtol=200)
        for domain, names in [
            (signed, "erf erfc erfcx ndtr log_ndtr sinc cbrt exp2 exp10"),
            (fraction, "logit entr ndtri"),
        ]
        for name in names.split()
    ),
    *(
        entrywise(f"special.{name}", positive, positive, reference=_scipys(name), rtol=200)
        for name in "xlogy xlog1py rel_entr kl_div huber".split()
    ),
    entrywise("special.pseudo_huber", positive, positive, reference=_pseudo_huber, rtol=200),
    # ---- of one argument
    *(
        _row(name, domain)
        for domain, names in [
            (signed, "cosm1 exprel sindg cosdg tandg cotdg gammasgn rgamma"),
            (signed, "i0 i0e i1 i1e j0 j1"),
            (positive, "y0 y1 k0 k0e k1 k1e exp1 expi gamma gammaln loggamma psi spence"),
            (inside, "erfinv ellipk ellipe"),
            (fraction, "erfcinv ellipkm1"),
        ]
        for name in names.split()
    ),
    # ---- of two
    *(_row(name, ORDERS, positive) for name in ("polygamma", "expn", "yn")),
    _row("zeta", OTHERS + 1, positive),
    *(_row(name, positive, positive) for name in ("beta", "betaln", "poch")),
    _row("binom", _above_2, positive),
    *(_row(name, positive, signed) for name in ("boxcox", "boxcox1p")),
    *(_row(name, positive, positive) for name in ("inv_boxcox", "inv_boxcox1p")),
    *(_row(name, SHAPES, positive) for name in ("gammainc", "gammaincc", "chdtr", "chdtrc")),
    *(_row(name, SHAPES, fraction) for name in ("gammaincinv", "gammainccinv", "chdtri")),
    # once in the shape: its second derivative is not known
    *(
        _row(name, positive, domain, order=1)
        for domain, names in [
            (positive, "gammainc gammaincc chdtr chdtrc"),
            (fraction, "gammaincinv gammainccinv chdtri"),
        ]
        for name in names.split()
    ),
    *(_row(name, ORDERS, positive) for name in ("pdtr", "pdtrc")),
    _row("pdtri", ORDERS, fraction),
    _row("stdtr", SHAPES, signed),
    _row("stdtrit", SHAPES, fraction),
    case(
        "gamma_slope",
        SHAPES,
        positive(2, 3),
        function=special.gamma_slope,
        reference=lambda a, z: _difference_of_quantiles(a, z).astype(np.result_type(a, z)),
        rtol=1e7,
        dtypes="fd",
    ),
    # ---- of three
    *(_row(name, SHAPES, OTHERS, fraction) for name in ("betainc", "betaincc", "betaincinv")),
    *(_row(name, ORDERS, TRIALS, fraction) for name in ("bdtr", "bdtrc", "bdtri")),
    *(_row(name, ORDERS, TRIALS, fraction) for name in ("nbdtr", "nbdtrc", "nbdtri")),
    *(_row(name, SHAPES, OTHERS, positive) for name in ("fdtr", "fdtrc")),
    _row("fdtri", SHAPES, OTHERS, fraction, rtol=1e11),
    *(_row(name, positive, SHAPES, positive) for name in ("gdtr", "gdtrc")),
    *(_row(name, positive, positive, positive, order=1) for name in ("gdtr", "gdtrc")),
    _row("lpmv", ORDERS, TRIALS, inside),
    _row("radian", signed, signed, signed),
    # ---- others
    case(
        "special.multigammaln",
        _above_2(2, 3),
        function=lambda a: gg.special.multigammaln(a, 3),
        reference=lambda a: _scipys("multigammaln")(a, d=3),
        dtypes="fd",
    ),
    *(
        case(f"special.{name}", signed(2, 3, 2), axis=axis, reference=reference, dtypes="fd")
        for name, reference in [
            ("softmax", _softmax),
            ("log_softmax", lambda x, axis: np.log(_softmax(x, axis))),
        ]
        for axis in (None, 1, (0, 2))
    ),
]


def _difference_of_quantiles(a: np.ndarray, z: np.ndarray) -> np.ndarray:
    """A central difference in float64."""
    scipys = importlib.import_module("scipy.special")
    z, h = z.astype(float), 1e-4
    p, q = scipys.gammainc(a, z), scipys.gammaincc(a, z)

    def at(s: float) -> Any:
        upper = scipys.gammainccinv(a + s, q)
        return np.where(p < q, scipys.gammaincinv(a + s, p), upper)

    return (8 * (at(h) - at(-h)) - (at(2 * h) - at(-2 * h))) / (12 * h)
