"""The denoising loop, written once, over tensors of any shape.

Every generator with a denoiser of its own samples through `sample`: images, spectrograms, point clouds and
latents differ in the shape and in the denoiser only.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from lightning_diffaug.errors import ConfigurationError
from lightning_diffaug.generators.codec import Codec
from lightning_diffaug.generators.controls import Controls
from lightning_diffaug.generators.denoisers import Denoiser
from lightning_diffaug.generators.learner_guidance import LearnerGuidance
from lightning_diffaug.generators.levels import noise_levels
from lightning_diffaug.generators.protocol import Condition
from lightning_diffaug.generators.schedulers import TRAIN_TIMESTEPS, restart, set_timesteps

SAMPLER_VERSION = 2
"""Raised with every change of this module that changes a sample: it is part of a pool's fingerprint."""

OnStep = Callable[[int, int, Tensor], None]
"""Called as ``on_step(step, total, x)`` after each call of the denoiser."""


def seeded(seeds: Sequence[int]) -> list[torch.Generator]:
    """One CPU random generator for each sample, so that a sample does not depend on its batch or device."""
    return [torch.Generator().manual_seed(int(seed)) for seed in seeds]


def noise_like(shape: Sequence[int], rngs: Sequence[torch.Generator]) -> Tensor:
    """Standard normal float32 noise (n, *shape) on the CPU, row i from ``rngs[i]``."""
    noise = torch.empty(len(rngs), *shape)
    for row, rng in zip(noise, rngs, strict=True):
        row.normal_(generator=rng)
    return noise


def guided(
    denoiser: Denoiser,
    x: Tensor,
    t: Tensor,
    condition: Condition,
    scale: float,
    negative: Condition | None = None,
    rescale: float = 0.0,
) -> Tensor:
    """Classifier-free guidance, ``null + scale (cond - null)`` (Ho & Salimans 2022, eq. 6), as one batch.

    A scale of 1, or a denoiser that knows neither a null condition nor is given a negative one, costs one plain call.

    Args:
        denoiser: The network.
        x: (n, *shape) noisy samples.
        t: Their timestep.
        condition: What is asked for.
        scale: Guidance scale.
        negative: What is to be avoided: takes the place of the null condition (a negative prompt); other names of
            `condition` are kept as they are.
        rescale: Share of the way back to the standard deviation of the conditional prediction (Lin et al. 2023, eq. 15
            and 16).
    """
    against = None
    if scale != 1.0:
        against = denoiser.null(condition) if negative is None else {**condition, **negative}
    if against is None:
        return denoiser(x, t, condition)
    both = denoiser(torch.cat((x, x)), t, joined(condition, against))
    with_condition, without = both.chunk(2)
    prediction = torch.lerp(without, with_condition, scale)
    if rescale == 0.0:
        return prediction
    dims = tuple(range(1, x.ndim))
    ratio = with_condition.std(dims, keepdim=True) / prediction.std(dims, keepdim=True).clamp_min(1e-12)
    return torch.lerp(prediction, prediction * ratio, rescale)


def joined(first: Condition, second: Condition) -> dict[str, Any]:
    """The batches of two conditions with the same keys, one behind the other."""
    return {
        name: torch.cat((value, second[name])) if isinstance(value, Tensor) else [*value, *second[name]]
        for name, value in first.items()
    }


def _to(condition: Condition, device: torch.device) -> dict[str, Any]:
    return {name: value.to(device) if isinstance(value, Tensor) else value for name, value in condition.items()}


def _passes(first: int, stop: int, jump: int, rounds: int) -> Iterator[tuple[int, int, bool]]:
    """``range(first, stop)`` in blocks ``(begin, end)``, each so many times; and whether it is run again."""
    for begin in range(first, stop, jump):
        for again in range(rounds):
            yield begin, min(begin + jump, stop), again > 0


def sample(
    denoiser: Denoiser,
    scheduler: Any,
    shape: Sequence[int],
    condition: Condition,
    seeds: Sequence[int],
    controls: Controls,
    start: Tensor | None = None,
    mask: Tensor | None = None,
    noise: Tensor | None = None,
    negative: Condition | None = None,
    codec: Codec | None = None,
    device: torch.device | str = "cpu",
    on_step: OnStep | None = None,
    guide: LearnerGuidance | None = None,
) -> Tensor:
    """Denoises from noise, or from noised real samples, to one sample for each seed.

    Args:
        denoiser: Maps (x_t, t, condition) to its prediction; already on `device` and in eval mode.
        scheduler: A scheduler of diffusers with the denoiser's prediction type and noise schedule.
        shape: Shape of one sample (of one latent where a codec is given, as for `start`, `mask` and `noise`).
        condition: n entries for each name.
        seeds: n seeds. All noise of a sample comes from its own seed, whatever else is in the batch.
        controls: How the reverse process is run.
        start: (n, *shape) real samples to vary, noised to ``controls.strength``; None starts from pure noise.
        mask: (n, *shape) or broadcastable to it, 1 (or True) where `start` is kept exactly, 0 where it is made anew
            (RePaint): after each step the kept part is put back at the step's noise level.
        noise: (n, *shape) to start with in place of that of the seeds, such as the inverted noise of real samples.
        negative: What is to be avoided; see `guided`.
        codec: Decodes what was denoised; None where samples are denoised as they are.
        device: Where the loop runs.
        on_step: Told about each step.
        guide: The learner that samples are guided by, or None.

    Returns:
        (n, *shape) float32 in [-1, 1] on the CPU (decoded, with a codec); a sample whose denoising diverged is NaN
        throughout.

    Raises:
        ConfigurationError: ``controls.strength`` is below 1 or a mask is given without a start, or eta is given to
            another solver than DDIM.
    """
    if start is None and (controls.strength < 1.0 or mask is not None):
        raise ConfigurationError(
            f"strength={controls.strength} varies real samples, and a mask keeps parts of them, but the condition "
            "brings none to start from. Set generator.strength to 1.0, or give the condition 'start'."
        )
    accepted = inspect.signature(scheduler.step).parameters
    if controls.eta > 0.0 and "eta" not in accepted:
        raise ConfigurationError(
            f"eta={controls.eta} is for DDIM, not for {type(scheduler).__name__}. Set generator.scheduler=ddim, or "
            "generator.eta=0."
        )
    device = torch.device(device)
    if not seeds:
        return torch.empty(0, *shape) if codec is None else codec.decode(torch.empty(0, *shape))
    with torch.inference_mode() if guide is None else torch.no_grad():  # what was made in the former has no gradient
        rngs = seeded(seeds)
        inverted = noise is not None
        noise = (noise_like(shape, rngs) if noise is None else noise).to(device, torch.float32)
        condition = _to(condition, device)
        negative = None if negative is None else _to(negative, device)
        timesteps = set_timesteps(scheduler, controls.num_inference_steps, device)
        levels = noise_levels(scheduler, timesteps)
        # Solvers of second order call the denoiser more than once a step: count calls.
        first, stop = (min(step * scheduler.order, len(timesteps)) for step in controls.steps())
        if start is not None:
            start = start.to(device, torch.float32)
        if start is None or (controls.strength == 1.0 and not inverted):
            x = noise * getattr(scheduler, "init_noise_sigma", 1.0)
        else:
            x = levels[first].noised(start, noise)
        if first:
            restart(scheduler, controls.num_inference_steps, device, first)
        kept = None if mask is None else mask.to(device) > 0.5
        # Only some steps are stochastic, and only those take generators.
        extra: dict[str, Any] = {"generator": rngs} if "generator" in accepted else {}
        if controls.eta > 0.0:
            extra["eta"] = controls.eta
        if "use_clipped_model_output" in accepted:  # else DDIM goes on with noise that contradicts a clipped sample
            extra["use_clipped_model_output"] = True
        jump, rounds = (stop, 1) if kept is None else (controls.jump * scheduler.order, controls.resample)
        for begin, end, again in _passes(first, stop, max(jump, 1), rounds):
            if again:
                x = levels[begin].noised_from(levels[end], x, noise_like(shape, rngs).to(device))
                restart(scheduler, controls.num_inference_steps, device, begin)
            for step in range(begin, end):
                t = timesteps[step]
                model_input = scheduler.scale_model_input(x, t) if hasattr(scheduler, "scale_model_input") else x
                scale = controls.guidance_at(float(t) / TRAIN_TIMESTEPS)

                def predict(given: Tensor, t: Tensor = t, scale: float = scale) -> Tensor:
                    return guided(denoiser, given, t, condition, scale, negative, controls.guidance_rescale)

                if guide is None:
                    prediction = predict(model_input)
                else:
                    prediction, x = guide(predict, x, model_input, levels[step], condition)
                x = scheduler.step(prediction, t, x, return_dict=False, **extra)[0]
                if kept is not None and start is not None:
                    fresh = noise_like(shape, rngs).to(device)
                    x = torch.where(kept, levels[step + 1].noised(start, fresh), x)
                if on_step is not None:
                    on_step(step - first, stop - first, x)
        x = x / levels[stop].signal
        if kept is not None and start is not None:
            x = torch.where(kept, start, x)
        x = (x if codec is None else codec.decode(x)).to("cpu", torch.float32)
        # clamp would make a plausible 1.0 of an infinity, and a gate can only reject what it sees.
        finite = torch.isfinite(x).flatten(1).all(1).view(-1, *[1] * (x.ndim - 1))
        x = torch.where(finite, x.clamp(-1.0, 1.0), torch.nan)
    return x.clone()  # an ordinary tensor, not one of inference mode
