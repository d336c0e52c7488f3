"""Drawings of the tape: what was computed as boxes, values one way, gradients the other."""
