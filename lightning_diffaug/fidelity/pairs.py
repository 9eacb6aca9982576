"""Distances between the rows of two feature matrices, a block at a time: memory is bounded whatever their number."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from lightning_diffaug.errors import ConfigurationError

_BLOCK = 1 << 22  # pairs of rows at a time: 32 MB in float64


def checked(features: Tensor, whose: str) -> Tensor:
    """Features as a matrix (n, d), once they are known to be finite.

    Args:
        features: (n, …), of any floating dtype.
        whose: What they are of, for the error.

    Raises:
        ConfigurationError: There is no row, or a value is NaN or infinite.
    """
    matrix = features.detach().flatten(1) if features.ndim > 1 else features.detach()[:, None]
    if not len(matrix):
        raise ConfigurationError(f"there are no features of {whose} (0 rows), so nothing can be measured of them.")
    if wrong := int((~matrix.isfinite().all(1)).sum()):
        raise ConfigurationError(
            f"the features of {whose} are NaN or infinite in {wrong} of {len(matrix)} rows, and no distance to them "
            "means anything. Set features to a network whose output is finite, and look at the samples (the gate "
            "finite lets none of these in)."
        )
    return matrix


def blocks(rows: int, columns: int) -> Iterator[slice]:
    """Slices of the rows, so that a block of them against all columns is bounded."""
    size = max(1, _BLOCK // max(columns, 1))
    for first in range(0, rows, size):
        yield slice(first, min(first + size, rows))


def squared_distances(first: Tensor, second: Tensor) -> Tensor:
    """Squared Euclidean distances, (n, d) and (m, d) → float64 (n, m), at least 0."""
    a, b = first.double(), second.double()
    found = torch.addmm(b.square().sum(1)[None, :], a, b.T, alpha=-2.0)
    return found.add_(a.square().sum(1)[:, None]).clamp_(min=0.0)


def centred(first: Tensor, *others: Tensor) -> list[Tensor]:
    """The matrices in float64, moved so that the first has its mean at 0: distances stay, and lose no digits."""
    mean = first.double().mean(0)
    return [matrix.double() - mean for matrix in (first, *others)]


def neighbour_radii(x: Tensor, ks: Sequence[int]) -> list[Tensor]:
    """Squared distance of each row to its k-th nearest other row.

    Args:
        x: (n, d), n above each k.
        ks: Which neighbours, from 1.

    Returns:
        For each k: float64 (n,).
    """
    most, parts = max(ks), []
    for rows in blocks(len(x), len(x)):
        found = squared_distances(x[rows], x)
        found[torch.arange(len(found)), torch.arange(rows.start, rows.stop)] = torch.inf
        parts.append(found.topk(most, dim=1, largest=False).values)
    nearest = torch.cat(parts)
    return [nearest[:, k - 1].contiguous() for k in ks]
