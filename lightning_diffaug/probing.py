"""Looking at a few samples of the user's data: whether two are equal, whether one index always gives the same."""

from __future__ import annotations

import functools
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset
from torchvision import tv_tensors

from lightning_diffaug.structure import leaves

_COUNTED = tuple(getattr(tv_tensors, name) for name in ("BoundingBoxes", "KeyPoints") if hasattr(tv_tensors, name))
PROBED = 4
"""Indices at which values are compared."""
_SEEDS = 8
"""Random states that each of them is read under: a flip of one image in two is missed once in 128 times."""


def spread(dataset: Dataset[Any], count: int = PROBED) -> list[int]:
    """At most `count` indices of a map-style dataset, evenly spread from its first to its last, ascending."""
    n = len(dataset)  # type: ignore[arg-type]
    found: list[int] = np.unique(np.linspace(0, n - 1, count).astype(int)).tolist()
    return found


def seeded(make: Callable[[], Any], seed: int) -> Any:
    """What `make` returns under one state of all global random generators (python, numpy, torch)."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    return make()


def signature(sample: Any) -> list[tuple[Any, ...]]:
    """Paths, types, shapes and dtypes of a sample's leaves: what two samples of one structure share.

    How many boxes or key points there are is no part of it, nor how long a list of theirs is, such as their labels.
    """
    found = leaves(sample)
    counts = {len(leaf) for leaf in found.values() if isinstance(leaf, _COUNTED)}

    def shape(leaf: Any) -> tuple[Any, ...]:
        sizes = tuple(getattr(leaf, "shape", ()))
        of_each = isinstance(leaf, _COUNTED) or (len(sizes) == 1 and sizes[0] in counts)
        return ("n", *sizes[1:]) if of_each else sizes

    return [(path, type(leaf), shape(leaf), str(getattr(leaf, "dtype", ""))) for path, leaf in found.items()]


def equal(first: Any, second: Any) -> bool:
    """Whether two samples have the same structure and values; NaN equals NaN.

    Leaves that are neither numbers, strings, arrays, tensors nor images are taken as equal.
    """
    if signature(first) != signature(second):
        return False
    return all(_equal(a, b) for a, b in zip(leaves(first).values(), leaves(second).values(), strict=True))


def _equal(first: Any, second: Any) -> bool:
    if isinstance(first, str):
        return bool(first == second)
    if getattr(first, "shape", None) != getattr(second, "shape", None):  # of boxes
        return False
    if isinstance(first, Tensor):
        x, y = first.detach().as_subclass(Tensor), second.detach().as_subclass(Tensor)
        return bool(((x == y) | ((x != x) & (y != y))).all())
    a, b = np.asarray(first), np.asarray(second)
    if a.dtype == object or b.dtype == object:
        return True
    return np.array_equal(a, b, equal_nan=bool(np.issubdtype(a.dtype, np.inexact)))


def varies(dataset: Dataset[Any]) -> bool:
    """Whether an index gives different samples under different random states; sets the global ones."""
    for i in spread(dataset):
        read = functools.partial(dataset.__getitem__, i)
        first = seeded(read, 0)
        if not all(equal(first, seeded(read, seed)) for seed in range(1, _SEEDS)):
            return True
    return False
