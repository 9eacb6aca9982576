"""How the gates' small networks are fitted: AdamW under a one-cycle schedule, stopped where the loss is no number."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor, nn

from lightning_diffaug.errors import GeneratorError


class Descent(Protocol):
    """Settings of a fit."""

    @property
    def steps(self) -> int:
        """Optimiser steps."""
        ...

    @property
    def lr(self) -> float:
        """Peak learning rate."""
        ...

    @property
    def weight_decay(self) -> float:
        """Of AdamW."""
        ...


def descend(
    network: nn.Module,
    loss_of_step: Callable[[], Tensor],
    settings: Descent,
    what: str,
    key: str,
    progress: Callable[[int], None],
) -> None:
    """Fits a network, and leaves it in eval mode.

    Args:
        network: The network.
        loss_of_step: Draws a batch and gives its loss.
        settings: Steps, learning rate and weight decay.
        what: What the loss is of, for the error.
        key: The setting of the learning rate, for the error.
        progress: Told the number of each step that is done, from 1.

    Raises:
        GeneratorError: The loss is not finite any more.
    """
    optimizer = torch.optim.AdamW(network.parameters(), lr=settings.lr, weight_decay=settings.weight_decay)
    rise = max(0.1, 2 / settings.steps)  # a warm-up of one step divides by zero
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, settings.lr, total_steps=settings.steps, pct_start=rise, cycle_momentum=False
    )
    network.train()
    for step in range(1, settings.steps + 1):
        loss = loss_of_step()
        if not math.isfinite(float(loss.detach())):
            raise GeneratorError(
                f"the loss of {what} is {float(loss.detach())} at step {step}. Lower {key} (now {settings.lr}), and "
                "check that the data are finite."
            )
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
        progress(step)
    network.eval()
