"""Real digits in three parts that have nothing in common."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from lightning_diffaug.fidelity import Samples


@pytest.fixture(scope="session")
def digits() -> dict[str, Samples]:
    """``train`` (997), ``val`` (400) and ``test`` (400), in [-1, 1], with labels."""
    data = load_digits()
    order = torch.randperm(1797, generator=torch.Generator().manual_seed(0))
    images = torch.from_numpy(data.images).float()[order, None] / 8 - 1
    labels = torch.from_numpy(data.target.astype(np.int64))[order]
    ends = {"train": slice(0, 997), "val": slice(997, 1397), "test": slice(1397, 1797)}
    return {part: Samples(images[rows], labels[rows]) for part, rows in ends.items()}
