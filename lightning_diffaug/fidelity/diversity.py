"""How much variety a set of samples has."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize

from lightning_diffaug.fidelity.pairs import blocks, centred, checked, squared_distances

LARGEST = 2048
"""Rows or dimensions, whichever are fewer, of which eigenvalues are computed; above, rows are drawn."""


def vendi_rows(n: int, d: int) -> int:
    """Of how many rows of a matrix (n, d) the Vendi score is computed."""
    return n if min(n, d) <= LARGEST else LARGEST


def vendi_score(features: Tensor, seed: int = 0) -> float:
    """Vendi score (Friedman & Dieng 2023): the effective number of different samples, from 1 to n.

    The exponential of the entropy of the eigenvalues of the cosine similarities over n. They are those of the
    (d, d) matrix of second moments too, so the smaller of the two is taken; where both are above `LARGEST`, so many
    rows are drawn.

    Args:
        features: (n, d).
        seed: Of that draw.

    Raises:
        ConfigurationError: A feature is not finite.
    """
    x = checked(features, "the samples")
    n, d = x.shape
    if (kept := vendi_rows(n, d)) < n:
        x = x[torch.randperm(n, generator=torch.Generator().manual_seed(seed))[:kept]]
    unit = normalize(x.double(), dim=1)
    gram = unit.T @ unit if d < len(unit) else unit @ unit.T
    shares = torch.linalg.eigvalsh(gram / len(unit)).clamp(min=0.0)
    return float(torch.special.entr(shares).sum().exp())


def distance_within_classes(features: Tensor, labels: Tensor | None) -> float | None:
    """Mean Euclidean distance of two samples of a class, averaged over the classes that have two.

    Args:
        features: (n, d).
        labels: Class indices, int64 (n,); None: all are of one class.

    Returns:
        None where no class has two samples.

    Raises:
        ConfigurationError: A feature is not finite.
    """
    x = checked(features, "the samples")
    labels = torch.zeros(len(x), dtype=torch.int64) if labels is None else labels
    means = []
    for label in torch.unique(labels).tolist():
        (of_class,) = centred(x[labels == label])
        n, total = len(of_class), 0.0
        if n < 2:
            continue
        for rows in blocks(n, n):
            part = squared_distances(of_class[rows], of_class)
            part[torch.arange(len(part)), torch.arange(rows.start, rows.stop)] = 0.0
            total += float(part.sqrt_().sum())
        means.append(total / (n * (n - 1)))
    return sum(means) / len(means) if means else None
