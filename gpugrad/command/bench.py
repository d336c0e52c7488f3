"""Measure this machine."""

NAME = "bench"


def add_arguments(parser):
    pass
