"""Nested lists, tuples and dicts of arrays, taken apart and put together again."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any


def flatten(tree: Any) -> tuple[list[Any], Callable[[list[Any]], Any]]:
    """The leaves of `tree` in order, and a function that puts other leaves in their places.

    Lists, tuples (named ones too) and dicts are branches; anything else is a leaf.
    """
    leaves: list[Any] = []
    rebuild = _walk(tree, leaves)

    def unflatten(new: list[Any]) -> Any:
        if len(new) != len(leaves):
            raise ValueError(f"the structure has {len(leaves)} leaves, got {len(new)}")
        return rebuild(iter(new))

    return leaves, unflatten


def _walk(tree: Any, leaves: list[Any]) -> Callable[[Any], Any]:
    if isinstance(tree, dict):
        parts = {key: _walk(value, leaves) for key, value in tree.items()}

        def remake(new: Any) -> Any:
            made = copy.copy(tree)  # of the same kind, with its other attributes
            made.update((key, part(new)) for key, part in parts.items())
            return made

        return remake
    if isinstance(tree, (list, tuple)):
        branches = [_walk(value, leaves) for value in tree]
        make = getattr(type(tree), "_make", type(tree))
        return lambda new: make([part(new) for part in branches])
    leaves.append(tree)
    return next


def flatten_like(tree: Any, like: Any, name: str) -> list[Any]:
    """The leaves of `tree` in the order of those of `like`.

    Raises:
        ValueError: if the structures differ, saying where.
    """
    branches = (dict, list, tuple)
    if isinstance(like, dict):
        if not isinstance(tree, dict) or tree.keys() != like.keys():
            raise ValueError(f"{name}: a dict with the keys {list(like)} is needed")
        return [x for k in like for x in flatten_like(tree[k], like[k], f"{name}[{k!r}]")]
    if isinstance(like, (list, tuple)):
        if not isinstance(tree, (list, tuple)) or len(tree) != len(like):
            raise ValueError(f"{name}: a {type(like).__name__} of {len(like)} items is needed")
        pairs = enumerate(zip(tree, like, strict=True))
        return [x for i, (a, b) in pairs for x in flatten_like(a, b, f"{name}[{i}]")]
    if isinstance(tree, branches):
        raise ValueError(f"{name}: one array is needed, got a {type(tree).__name__}")
    return [tree]


def map_tree(f: Callable[[Any], Any], tree: Any) -> Any:
    """`tree` with `f` applied to every leaf."""
    leaves, unflatten = flatten(tree)
    return unflatten([f(leaf) for leaf in leaves])
