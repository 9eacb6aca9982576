"""The learning rate of the demo's learners over a run."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch.optim.lr_scheduler import LambdaLR

WARM_UP = 0.1  # share of the steps in which the learning rate rises


def warmed_up_adamw(module: LightningModule, lr: float, weight_decay: float) -> OptimizerLRScheduler:
    """AdamW under `warm_up_cosine` over the whole run, as ``configure_optimizers`` returns it.

    Args:
        module: The learner, attached to its Trainer.
        lr: Highest learning rate.
        weight_decay: AdamW's.
    """
    optimizer = torch.optim.AdamW(module.parameters(), lr=lr, weight_decay=weight_decay)
    factor = warm_up_cosine(int(module.trainer.estimated_stepping_batches))
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": LambdaLR(optimizer, factor), "interval": "step"}}


def warm_up_cosine(steps: int) -> Callable[[int], float]:
    """Share of the highest learning rate at each step, for `LambdaLR`: a linear warm-up, then a cosine to 0.

    Not OneCycleLR: that raises past its last step, as when a run is resumed with more epochs.

    Args:
        steps: Of the whole run.
    """

    def factor(step: int) -> float:
        done = min(step / steps, 1.0)
        if done < WARM_UP:
            return max(done / WARM_UP, 0.01)
        return 0.5 * (1 + math.cos(math.pi * (done - WARM_UP) / (1 - WARM_UP)))

    return factor
