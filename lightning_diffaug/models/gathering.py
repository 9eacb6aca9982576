"""What the ranks of a run found, together."""

from __future__ import annotations

from lightning.pytorch import LightningModule
from torch import Tensor


def of_all_ranks(module: LightningModule, values: Tensor) -> Tensor:
    """The rows (n, …) of all ranks, one rank after the other, on every rank; each has as many."""
    gathered = module.all_gather(values)
    assert isinstance(gathered, Tensor)
    return gathered.reshape(-1, *values.shape[1:])
