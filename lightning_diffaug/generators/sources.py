"""Where samples start: noise, noised real samples, inverted ones, or between two of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from lightning_diffaug.errors import ConfigurationError, GeneratorError
from lightning_diffaug.generators.controls import SOURCES, Controls
from lightning_diffaug.generators.denoisers import Denoiser
from lightning_diffaug.generators.interpolation import slerp
from lightning_diffaug.generators.inversion import DETERMINISTIC, invert
from lightning_diffaug.generators.protocol import Condition
from lightning_diffaug.generators.schedulers import ForwardProcess, set_timesteps

INVERTED = ("interpolate", "edit")
"""Sources that invert real samples."""


def check_source(source: str, scheduler: str, controls: Controls, repaint: float | None, inversion_steps: int) -> None:
    """Refuses a source that does not exist or that does not go with the other settings.

    Raises:
        ConfigurationError: See above.
    """
    if source not in SOURCES:
        raise ConfigurationError(
            f"source={source!r} is unknown: it says where samples start. Set generator.source to one of auto, "
            f"{', '.join(SOURCES)}."
        )
    if source == "noise" and (controls.strength < 1.0 or repaint is not None):
        raise ConfigurationError(
            f"source=noise starts from no real sample, but strength={controls.strength} and repaint={repaint} vary "
            "one. Set generator.source=image, or generator.strength=1 and generator.repaint=null."
        )
    if repaint is not None and not (isinstance(repaint, (int, float)) and 0.0 < repaint < 1.0):
        raise ConfigurationError(
            f"repaint={repaint} is not in (0, 1): it is the share of a real sample's area that is made anew. Set "
            "generator.repaint to e.g. 0.5, or null."
        )
    if repaint is not None and source == "interpolate":
        raise ConfigurationError(
            "source=interpolate has no single real sample of which repaint could keep a part. Set "
            "generator.repaint=null, or generator.source=image."
        )
    if source in INVERTED and (scheduler not in DETERMINISTIC or controls.eta > 0.0):
        raise ConfigurationError(
            f"source={source} needs a deterministic solver to come back from a real sample's noise, and "
            f"scheduler={scheduler!r} with eta={controls.eta} is none. Set generator.scheduler to one of "
            f"{', '.join(DETERMINISTIC)}, and generator.eta=0."
        )
    if isinstance(inversion_steps, bool) or not isinstance(inversion_steps, int) or not 1 <= inversion_steps <= 999:
        raise ConfigurationError(
            f"inversion_steps={inversion_steps} is not a whole number in 1..999: it is the number of steps from a real "
            "sample to its noise. Set generator.inversion_steps to e.g. 20."
        )


def renamed(condition: Condition, prefix: str) -> dict[str, Any]:
    """The entries with this prefix, without it: ``start_label`` → ``label``."""
    return {name.removeprefix(prefix): value for name, value in condition.items() if name.startswith(prefix)}


def real_samples(condition: Condition, key: str, fields: Mapping[str, int], shape: tuple[int, ...]) -> Tensor:
    """Real samples of a condition, fields joined along their channels, checked.

    Raises:
        GeneratorError: They are missing or have another shape.
    """
    if key not in condition:
        raise GeneratorError(
            f"the condition has {sorted(condition)} and no {key!r}: this generator starts from real samples. Set "
            "generator.source=noise and generator.strength=1, or give a planner whose plan holds them."
        )
    given = condition[key]
    samples = torch.cat([given[name] for name in fields], dim=1) if isinstance(given, Mapping) else given
    if tuple(samples.shape) != shape:
        raise GeneratorError(
            f"condition[{key!r}] has shape {tuple(samples.shape)}; needed is {shape}, one real sample for each seed."
        )
    return torch.as_tensor(samples, dtype=torch.float32)


def first_timestep(scheduler: Any, controls: Controls, device: torch.device) -> float | None:
    """Timestep at which a run begins; None where it runs no step (strength 0)."""
    timesteps = set_timesteps(scheduler, controls.num_inference_steps, device)
    first = controls.steps()[0] * scheduler.order
    return float(timesteps[first]) if first < len(timesteps) and controls.strength > 0.0 else None


def between(
    denoiser: Denoiser,
    process: ForwardProcess,
    pair: tuple[Tensor, Tensor],
    weight: Tensor,
    condition: Condition,
    until: float | None,
    steps: int,
) -> tuple[Tensor, Tensor]:
    """What lies between two samples of one condition: the start and the noise of a run.

    The samples are mixed along a straight line and their inverted noises along a great circle, so that at each weight
    the mixture is at the noise level at which the run begins, and the ends are the samples themselves (Song et al.
    2021, section 5.3; Wang & Golland 2023, "Interpolating between Images with Diffusion Models").
    """
    first, second = pair
    w = weight.to(first.device, torch.float32).view(-1, *[1] * (first.ndim - 1))
    start = torch.lerp(first, second, w)
    if until is None:
        return start, torch.zeros_like(start)
    noises = [invert(denoiser, process, samples, condition, until, steps) for samples in pair]
    return start, slerp(noises[0], noises[1], w.flatten())
