"""A denoiser whose exact answer is known, for tests of the denoising loop."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lightning_diffaug.generators.schedulers import make_scheduler

CHAIN = make_scheduler("ddpm", "epsilon").alphas_cumprod.double()
LOG_SIGMA = (0.5 * (torch.log1p(-CHAIN) - CHAIN.log())).numpy()


class GaussianDenoiser:
    """The exact denoiser of data drawn from N(mean of the class, std²): what any network can at best become."""

    def __init__(self, prediction_type: str, means: Tensor, std: float = 0.0) -> None:
        self.prediction_type, self.means, self.std = prediction_type, means, std
        self.calls: list[int] = []

    def null(self, condition: Mapping[str, Any]) -> Mapping[str, Any]:
        return {"label": torch.full_like(condition["label"], len(self.means) - 1)}

    def level(self, t: Tensor) -> tuple[float, float]:
        """What there is of the sample and of noise at a timestep."""
        if self.prediction_type == "flow":
            u = float(t) / 1000
            return 1 - u, u
        sigma = float(np.exp(np.interp(float(t), np.arange(1000), LOG_SIGMA)))
        a = (1 + sigma**2) ** -0.5
        return a, a * sigma

    def prediction(self, x_0: Tensor, x_t: Tensor, a: float, s: float) -> Tensor:
        """What is predicted of x_t, if x_0 is the sample in it."""
        noise = (x_t - a * x_0) / s
        return {"sample": x_0, "epsilon": noise, "v_prediction": a * noise - s * x_0, "flow": noise - x_0}[
            self.prediction_type
        ]

    def __call__(self, x_t: Tensor, t: Tensor, condition: Mapping[str, Any]) -> Tensor:
        self.calls.append(len(x_t))
        mean = self.means[condition["label"]]
        a, s = self.level(t)
        gain = a * self.std**2 / (a**2 * self.std**2 + s**2)
        return self.prediction(mean + gain * (x_t - a * mean), x_t, a, s)


MEANS = torch.tensor([[[0.5, -0.5, 0.1]], [[-0.25, 0.75, 0.0]], [[0.0, 0.0, 0.0]]])  # two classes and null
LABELS = {"label": torch.tensor([0, 1, 0, 1])}
