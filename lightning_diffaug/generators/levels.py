"""Noise levels: how much of the sample and how much noise there is at a step of the reverse process."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Level:
    """Noise level of a step: a sample there is ``signal * x_0 + noise * eps``, in its scheduler's own scaling."""

    signal: float
    noise: float

    def noised(self, x_0: Tensor, eps: Tensor) -> Tensor:
        """Clean samples at this level."""
        return self.signal * x_0 + self.noise * eps

    def noised_from(self, less: Level, x: Tensor, eps: Tensor) -> Tensor:
        """Samples of a less noisy level, noised further to this one by fresh noise."""
        kept = self.signal / less.signal
        added = math.sqrt(max(self.noise**2 - (kept * less.noise) ** 2, 0.0))
        return kept * x + added * eps


def noise_levels(scheduler: Any, timesteps: Tensor) -> list[Level]:
    """Noise level before each call of the denoiser, and after the last.

    Asked of the scheduler itself, by noising a one and a zero, so that any scaling is met.

    Args:
        scheduler: A scheduler whose timesteps were just set.
        timesteps: All of them.
    """
    one, zero = torch.ones(len(timesteps)), torch.zeros(len(timesteps))
    if hasattr(scheduler, "scale_noise"):
        signal, noise = scheduler.scale_noise(one, timesteps, zero), scheduler.scale_noise(zero, timesteps, one)
    else:
        signal, noise = scheduler.add_noise(one, zero, timesteps), scheduler.add_noise(zero, one, timesteps)
    return [Level(*pair) for pair in zip(signal.tolist(), noise.tolist(), strict=True)] + [Level(1.0, 0.0)]
