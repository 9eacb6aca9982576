"""The denoising loop, written once, over tensors of any shape.

Every generator with a denoiser of its own samples through `sample`: images, spectrograms, point clouds and
latents differ in the shape and in the denoiser only.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from lightning_diffaug.errors import ConfigurationError
from lightning_diffaug.generators.denoisers import Denoiser
from lightning_diffaug.generators.protocol import Condition
from lightning_diffaug.generators.schedulers import set_timesteps

SAMPLER_VERSION = 1
"""Raised with every change of this module that changes a sample: it is part of a pool's fingerprint."""

OnStep = Callable[[int, int, Tensor], None]
"""Called as ``on_step(step, total, x)`` after each call of the denoiser."""


def check_sampling(num_inference_steps: int, guidance_scale: float, strength: float) -> None:
    """Checks the settings of a loop.

    Raises:
        ConfigurationError: A value is out of its range.
    """
    if not isinstance(num_inference_steps, int) or not 1 <= num_inference_steps <= 1000:
        raise ConfigurationError(
            f"num_inference_steps={num_inference_steps} is not a whole number in 1..1000: it is the number of "
            "solver steps from noise to a sample. Set generator.num_inference_steps to e.g. 10."
        )
    if not (math.isfinite(guidance_scale) and guidance_scale >= 0.0):
        raise ConfigurationError(
            f"guidance_scale={guidance_scale} is not a finite number ≥ 0: 1 is no guidance, more follows the "
            "condition more closely. Set generator.guidance_scale to e.g. 1.0."
        )
    if not 0.0 <= strength <= 1.0:
        raise ConfigurationError(
            f"strength={strength} is not in [0, 1]: it is how far a real start sample is noised, 1 forgets "
            "it. Set generator.strength to e.g. 0.6."
        )


def seeded(seeds: Sequence[int]) -> list[torch.Generator]:
    """One CPU random generator for each sample, so that a sample does not depend on its batch or device."""
    return [torch.Generator().manual_seed(int(seed)) for seed in seeds]


def noise_like(shape: Sequence[int], rngs: Sequence[torch.Generator]) -> Tensor:
    """Standard normal float32 noise (n, *shape) on the CPU, row i from ``rngs[i]``."""
    noise = torch.empty(len(rngs), *shape)
    for row, rng in zip(noise, rngs, strict=True):
        row.normal_(generator=rng)
    return noise


def guided(denoiser: Denoiser, x: Tensor, t: Tensor, condition: Condition, scale: float) -> Tensor:
    """Classifier-free guidance, ``null + scale (cond - null)`` (Ho & Salimans 2022, eq. 6), as one batch.

    A scale of 1, or a denoiser without a null condition, costs one plain call.
    """
    null = None if scale == 1.0 else denoiser.null(condition)
    if null is None:
        return denoiser(x, t, condition)
    both = denoiser(torch.cat((x, x)), t, joined(condition, null))
    with_condition, without = both.chunk(2)
    return torch.lerp(without, with_condition, scale)


def joined(first: Condition, second: Condition) -> dict[str, Any]:
    """The batches of two conditions with the same keys, one behind the other."""
    return {
        name: torch.cat((value, second[name])) if isinstance(value, Tensor) else [*value, *second[name]]
        for name, value in first.items()
    }


def first_step(num_inference_steps: int, strength: float) -> int:
    """Index of the first solver step that an SDEdit of this strength runs.

    The last ``round(num_inference_steps * strength)`` steps are run, at least one for any strength above 0.
    """
    if strength == 0.0:
        return num_inference_steps
    return num_inference_steps - max(1, math.floor(num_inference_steps * strength + 0.5))


def _noised_start(scheduler: Any, start: Tensor, noise: Tensor, t: Tensor) -> Tensor:
    """The start sample at the noise level of timestep t, in the scheduler's own scaling."""
    add = scheduler.scale_noise if hasattr(scheduler, "scale_noise") else None
    times = t.expand(len(start))
    noised: Tensor = add(start, times, noise) if add else scheduler.add_noise(start, noise, times)
    return noised


def _to(condition: Condition, device: torch.device) -> dict[str, Any]:
    return {name: value.to(device) if isinstance(value, Tensor) else value for name, value in condition.items()}


def sample(
    denoiser: Denoiser,
    scheduler: Any,
    shape: Sequence[int],
    condition: Condition,
    seeds: Sequence[int],
    num_inference_steps: int,
    guidance_scale: float = 1.0,
    start: Tensor | None = None,
    strength: float = 1.0,
    device: torch.device | str = "cpu",
    on_step: OnStep | None = None,
) -> Tensor:
    """Denoises from noise, or from noised real samples, to one sample for each seed.

    Args:
        denoiser: Maps (x_t, t, condition) to its prediction; already on `device` and in eval mode.
        scheduler: A scheduler of diffusers with the denoiser's prediction type and noise schedule.
        shape: Shape of one sample.
        condition: n entries for each name.
        seeds: n seeds. All noise of a sample comes from its own seed, whatever else is in the batch.
        num_inference_steps: Solver steps from pure noise (Heun calls the denoiser twice a step).
        guidance_scale: Weight of classifier-free guidance; 1 is none.
        start: (n, *shape) real samples in [-1, 1] to vary (SDEdit, Meng et al. 2022); None starts from pure
            noise.
        strength: How far `start` is noised: 0 returns it, 1 forgets it. Without `start` it must be 1.
        device: Where the loop runs.
        on_step: Told about each step.

    Returns:
        (n, *shape) float32 in [-1, 1] on the CPU; a sample whose denoising diverged is NaN throughout.

    Raises:
        ConfigurationError: A setting is out of its range, or `strength` is below 1 without a start.
    """
    check_sampling(num_inference_steps, guidance_scale, strength)
    if start is None and strength < 1.0:
        raise ConfigurationError(
            f"strength={strength} varies real samples, but the condition brings none to start from. "
            "Set generator.strength to 1.0, or give the condition 'start'."
        )
    device = torch.device(device)
    if not seeds:
        return torch.empty(0, *shape)
    with torch.inference_mode():
        rngs = seeded(seeds)
        noise = noise_like(shape, rngs).to(device)
        condition = _to(condition, device)
        timesteps = set_timesteps(scheduler, num_inference_steps, device)
        if start is None or strength == 1.0:
            x = noise * getattr(scheduler, "init_noise_sigma", 1.0)
        else:
            start = start.to(device, torch.float32)
            # Solvers of second order call the denoiser more than once a step: scale by calls per step.
            first = first_step(num_inference_steps, strength) * scheduler.order
            timesteps = timesteps[first:]
            x = start
            if len(timesteps):
                if hasattr(scheduler, "set_begin_index"):
                    scheduler.set_begin_index(first)
                x = _noised_start(scheduler, start, noise, timesteps[:1])
        # Only some steps are stochastic, and only those take generators.
        stochastic = "generator" in inspect.signature(scheduler.step).parameters
        extra = {"generator": rngs} if stochastic else {}
        for step, t in enumerate(timesteps):
            model_input = scheduler.scale_model_input(x, t) if hasattr(scheduler, "scale_model_input") else x
            prediction = guided(denoiser, model_input, t, condition, guidance_scale)
            x = scheduler.step(prediction, t, x, return_dict=False, **extra)[0]
            if on_step is not None:
                on_step(step, len(timesteps), x)
        x = x.to("cpu", torch.float32)
        # clamp would make a plausible 1.0 of an infinity, and a gate can only reject what it sees.
        finite = torch.isfinite(x).flatten(1).all(1).view(-1, *[1] * len(shape))
        x = torch.where(finite, x.clamp(-1.0, 1.0), torch.nan)
    return x.clone()  # an ordinary tensor, not one of inference mode
