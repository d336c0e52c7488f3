"""Checks of derivatives against numerical ones, and the table of operations they are run on."""

from .check import GradientError, check_grads

__all__ = ["GradientError", "check_grads"]
