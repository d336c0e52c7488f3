"""Discrete Fourier transforms: array API standard 2025.12, the fft extension."""

__all__: list[str] = []
