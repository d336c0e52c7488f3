"""The commands of `python -m gpugrad`."""
