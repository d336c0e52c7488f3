"""Rows of the table: discrete Fourier transforms."""

from __future__ import annotations

from ..rows import FLOATING, NUMERIC, REAL, case, signed

_HALVED = ("irfft", "irfftn", "irfft2", "hfft")  # inputs of n//2 + 1 coefficients
_OF_REALS = ("rfft", "rfftn", "rfft2", "ihfft")


def _dtypes(name: str) -> str:
    return REAL if name in _OF_REALS else FLOATING


ROWS = [
    *(
        case(f"fft.{name}", signed(*shape), dtypes=_dtypes(name), needs="cuFFT", **options)
        for name in ("fft", "ifft", "rfft", "irfft", "hfft", "ihfft")
        for shape, options in [
            ((4,), {}),
            ((5,), {"norm": "ortho"}),
            ((2, 3), {"axis": 0, "norm": "forward"}),
            ((3, 2), {"axis": 0, "n": 5}),
            ((3, 2), {"axis": -2, "n": 6, "norm": "forward"}),
            ((2, 5), {"n": 3, "norm": "backward"}),
            ((2, 5), {"n": 2, "norm": "ortho"}),
            ((3,), {"n": 1}),
            ((1,), {"n": 2}),
            ((0, 2), {}),
        ]
        if shape[-1] > 1 or name not in _HALVED or "n" in options
    ),
    *(
        case(f"fft.{name}", signed(*shape), dtypes=_dtypes(name), needs="cuFFT", **options)
        for name in ("fftn", "ifftn", "rfftn", "irfftn")
        for shape, options in [
            ((2, 3, 2), {}),
            ((3, 2), {"norm": "ortho"}),
            ((2, 3, 2), {"axes": (0, 2), "norm": "forward"}),
            ((2, 3, 2), {"axes": (2, 0, 1), "s": (3, 2, 4), "norm": "ortho"}),
            ((4, 3), {"axes": (-1, 0), "s": (5, 3)}),
            ((4, 3), {"axes": (0, 1), "s": (-1, 2)}),
            ((2, 3), {"axes": (1,)}),
        ]
    ),
    *(
        case(f"fft.{name}", signed(*shape), dtypes=_dtypes(name), needs="cuFFT", **options)
        for name in ("fft2", "ifft2", "rfft2", "irfft2")
        for shape, options in [
            ((2, 3, 2), {}),
            ((3, 2, 2), {"axes": (1, 0), "s": (3, 4), "norm": "forward"}),
        ]
    ),
    case("fft.fft", signed(4), dtypes="q", needs="cuFFT", order=0),
    *(
        case(f"fft.{name}", signed(2, 5), dtypes=NUMERIC, **options)
        for name in ("fftshift", "ifftshift")
        for options in [{}, {"axes": 1}, {"axes": (0, -1)}]
    ),
]
