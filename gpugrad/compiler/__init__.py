"""Compiled steps: `gpugrad.compile`."""
