"""The settings of the reverse process, checked once, at the door."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lightning_diffaug.errors import ConfigurationError

SOURCES = ("noise", "image", "interpolate", "edit")
"""Where a sample starts: noise, a noised real sample, between two real samples, or an inverted real sample."""


def _whole(value: Any, least: int, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def _number(value: Any, low: float, high: float) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and low <= value <= high


@dataclass(frozen=True)
class Controls:
    """How the reverse process is run. Times are shares of it: 1 is pure noise, 0 a clean sample.

    Attributes:
        num_inference_steps: Solver steps from time 1 to 0.
        guidance_scale: Weight of classifier-free guidance (Ho & Salimans 2022); 1 is none and costs nothing.
        guidance_interval: Times (low, high) between which guidance is applied; outside of it a step costs one plain
            call (Kynkäänniemi et al. 2024, "Applying Guidance in a Limited Interval").
        guidance_rescale: How far the standard deviation of a guided prediction is drawn back to that of the
            conditional one, in [0, 1], against over-exposure (Lin et al. 2023, eq. 15 and 16).
        strength: Time to which a real start sample is noised (SDEdit, Meng et al. 2022): 0 returns it, 1 forgets it.
        stop_at: Time at which the process is stopped, below `strength`. The sample is the noisy one of that time, in
            the scale of the data (``x_0 + sigma noise``): what is not resolved yet stays noise. The mean that the
            denoiser predicts there would be smooth, not noisy, and is what few `num_inference_steps` give anyway.
        eta: Share of DDPM's noise in each step of DDIM (Song et al. 2021, eq. 16); 0 is deterministic.
        resample: How often each block of `jump` steps is run when a mask is kept (RePaint, Lugmayr et al. 2022): more
            makes the new part agree better with the kept one, at as many times the cost.
        jump: Steps in such a block (RePaint's jump length).

    Raises:
        ConfigurationError: A value is out of its range; the text names the key.
    """

    num_inference_steps: int = 10
    guidance_scale: float = 1.0
    guidance_interval: Sequence[float] = (0.0, 1.0)
    guidance_rescale: float = 0.0
    strength: float = 1.0
    stop_at: float = 0.0
    eta: float = 0.0
    resample: int = 1
    jump: int = 1

    def __post_init__(self) -> None:
        if not _whole(self.num_inference_steps, 1, 1000):
            raise ConfigurationError(
                f"num_inference_steps={self.num_inference_steps} is not a whole number in 1..1000: it is the number of "
                "solver steps from noise to a sample. Set generator.num_inference_steps to e.g. 10."
            )
        if not (_number(self.guidance_scale, 0.0, math.inf) and math.isfinite(self.guidance_scale)):
            raise ConfigurationError(
                f"guidance_scale={self.guidance_scale} is not a finite number ≥ 0: 1 is no guidance, more follows the "
                "condition more closely. Set generator.guidance_scale to e.g. 1.0."
            )
        interval = self.guidance_interval
        if (
            isinstance(interval, str)
            or not isinstance(interval, Sequence)
            or len(interval) != 2
            or not all(_number(time, 0.0, 1.0) for time in interval)
            or interval[0] >= interval[1]
        ):
            raise ConfigurationError(
                f"guidance_interval={interval} is not [low, high] with 0 ≤ low < high ≤ 1: guidance is applied between "
                "these times (1: noise, 0: sample). Set generator.guidance_interval to e.g. [0.0, 1.0]."
            )
        if not _number(self.guidance_rescale, 0.0, 1.0):
            raise ConfigurationError(
                f"guidance_rescale={self.guidance_rescale} is not in [0, 1]: it is how far the contrast of a guided "
                "prediction is drawn back. Set generator.guidance_rescale to e.g. 0.0."
            )
        if not _number(self.strength, 0.0, 1.0):
            raise ConfigurationError(
                f"strength={self.strength} is not in [0, 1]: it is how far a real start sample is noised, 1 forgets "
                "it. Set generator.strength to e.g. 0.6."
            )
        if self.stop_at != 0.0 and not (_number(self.stop_at, 0.0, 1.0) and self.stop_at < self.strength):
            raise ConfigurationError(
                f"stop_at={self.stop_at} is not in [0, strength={self.strength}): the reverse process runs from "
                "strength down to it. Set generator.stop_at to e.g. 0.0."
            )
        if not _number(self.eta, 0.0, 1.0):
            raise ConfigurationError(
                f"eta={self.eta} is not in [0, 1]: it is the share of noise in each step of DDIM, 0 is deterministic. "
                "Set generator.eta to e.g. 0.0."
            )
        for name, value in (("resample", self.resample), ("jump", self.jump)):
            if not _whole(value, 1, 1000):
                raise ConfigurationError(
                    f"{name}={value} is not a whole number in 1..1000: each block of `jump` steps is run `resample` "
                    f"times where a mask is kept. Set generator.{name} to e.g. 1."
                )
        for name in ("guidance_scale", "guidance_rescale", "strength", "stop_at", "eta"):
            object.__setattr__(self, name, float(getattr(self, name)))  # 1 and 1.0 are one fingerprint
        object.__setattr__(self, "guidance_interval", tuple(float(time) for time in interval))

    def guidance_at(self, time: float) -> float:
        """Guidance scale at a time in [0, 1]."""
        low, high = self.guidance_interval
        return self.guidance_scale if low <= time <= high else 1.0

    def steps(self) -> tuple[int, int]:
        """The solver steps ``range(first, stop)`` that are run of ``range(num_inference_steps)``.

        At least one is run, except at strength 0.
        """
        total = self.num_inference_steps
        first = total - _share(total, self.strength)
        return first, max(total - _share(total, self.stop_at), min(first + 1, total))

    def key(self, source: str) -> dict[str, Any]:
        """The values that a sample depends on, for a fingerprint: what has no effect is as if it were not set.

        Args:
            source: Where samples start. Whatever starts from real samples may be given a mask.
        """
        idle = {"guidance_interval", "guidance_rescale"} if self.guidance_scale == 1.0 else set()
        if source == "noise":
            idle |= {"resample", "jump"}
        plain = Controls().to_json()
        return {name: plain[name] if name in idle else value for name, value in self.to_json().items()}

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {**dataclasses.asdict(self), "guidance_interval": list(self.guidance_interval)}


def _share(total: int, share: float) -> int:
    """The share of the steps, at least one for any above 0."""
    return 0 if share == 0.0 else max(1, math.floor(total * share + 0.5))
