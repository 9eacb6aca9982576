"""The schedulers of `diffusers` by short names, and the forward process that a fit learns to undo."""

from __future__ import annotations

import contextlib
import functools
import importlib
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from lightning_diffaug.errors import ConfigurationError

TRAIN_TIMESTEPS = 1000
"""Length T of the diffusion that is fitted; model timesteps lie in [0, T)."""

DIFFUSION = ("epsilon", "v_prediction", "sample")
FLOW = "flow"
PREDICTION_TYPES = (*DIFFUSION, FLOW)


@dataclass(frozen=True)
class _Named:
    """A scheduler class of diffusers and what it needs beyond the fitted noise schedule."""

    module: str
    cls: str
    predictions: tuple[str, ...] = DIFFUSION
    flow: dict[str, Any] = field(default_factory=dict)
    sigma_space: bool = False


_FLOW_SIGMAS = {"use_flow_sigmas": True, "prediction_type": "flow_prediction"}
_SCHEDULERS: dict[str, _Named] = {
    "ddpm": _Named("ddpm", "DDPMScheduler"),
    "ddim": _Named("ddim", "DDIMScheduler"),
    "dpmsolver++": _Named("dpmsolver_multistep", "DPMSolverMultistepScheduler", PREDICTION_TYPES, _FLOW_SIGMAS),
    "unipc": _Named("unipc_multistep", "UniPCMultistepScheduler", PREDICTION_TYPES, _FLOW_SIGMAS),
    "heun": _Named("heun_discrete", "HeunDiscreteScheduler", sigma_space=True),
    "euler": _Named("euler_discrete", "EulerDiscreteScheduler", sigma_space=True),
    "flow_euler": _Named("flow_match_euler_discrete", "FlowMatchEulerDiscreteScheduler", (FLOW,)),
    "lcm": _Named("lcm", "LCMScheduler"),
}
SCHEDULERS = tuple(_SCHEDULERS)
"""Names that `make_scheduler` knows."""


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Hides a deprecation between numpy 2 and torch that schedulers of diffusers run into."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "__array__ implementation doesn't accept a copy", DeprecationWarning)
        yield


def set_timesteps(scheduler: Any, num_inference_steps: int, device: torch.device) -> Tensor:
    """Readies a scheduler for a run of so many steps.

    Returns:
        The timesteps, one for each call of the denoiser.

    Raises:
        ConfigurationError: More steps are asked for than there are timesteps.
    """
    longest = scheduler.config.num_train_timesteps
    if num_inference_steps > longest:
        raise ConfigurationError(
            f"num_inference_steps={num_inference_steps} is more than the {longest} timesteps of "
            f"{type(scheduler).__name__}. Set generator.num_inference_steps to {longest} or fewer."
        )
    with _quiet():
        scheduler.set_timesteps(num_inference_steps, device=device)
    timesteps: Tensor = scheduler.timesteps
    return timesteps


def check_prediction_type(prediction_type: str) -> None:
    """Refuses an unknown prediction type.

    Raises:
        ConfigurationError: It is none of `PREDICTION_TYPES`.
    """
    if prediction_type not in PREDICTION_TYPES:
        raise ConfigurationError(
            f"prediction_type={prediction_type!r} is unknown: it says what the denoiser learns to predict. "
            f"Set generator.fit.prediction_type to one of {', '.join(PREDICTION_TYPES)}."
        )


def check_scheduler(name: str, prediction_type: str) -> None:
    """Refuses a scheduler that does not exist or cannot use what the denoiser predicts.

    Raises:
        ConfigurationError: The name is unknown, or does not go with the prediction type.
    """
    if name not in _SCHEDULERS:
        raise ConfigurationError(
            f"scheduler={name!r} is unknown: it names the solver of the reverse process. "
            f"Set generator.scheduler to one of {', '.join(SCHEDULERS)}."
        )
    if prediction_type not in _SCHEDULERS[name].predictions:
        fitting = [other for other, known in _SCHEDULERS.items() if prediction_type in known.predictions]
        raise ConfigurationError(
            f"scheduler={name!r} cannot use a denoiser that predicts {prediction_type!r}: it needs "
            f"{' or '.join(_SCHEDULERS[name].predictions)}. Set generator.scheduler to one of "
            f"{', '.join(fitting)}, or generator.fit.prediction_type (which fits anew)."
        )


def make_scheduler(name: str, prediction_type: str, num_inference_steps: int = 10, clip: bool = True) -> Any:
    """Makes a scheduler of diffusers on the noise schedule of `ForwardProcess`.

    Args:
        name: One of `SCHEDULERS`.
        prediction_type: What the denoiser predicts, one of `PREDICTION_TYPES`.
        num_inference_steps: Steps it will be asked for (LCM skips through a finer schedule of at least that
            many).
        clip: Clip the predicted sample to [-1, 1] where the scheduler can; right for data, wrong for latents.

    Returns:
        A scheduler, timesteps not yet set.

    Raises:
        ConfigurationError: See `check_scheduler`.
    """
    check_scheduler(name, prediction_type)
    known = _SCHEDULERS[name]
    cls = getattr(importlib.import_module(f"diffusers.schedulers.scheduling_{known.module}"), known.cls)
    if name == "flow_euler":
        return cls(num_train_timesteps=TRAIN_TIMESTEPS)
    settings: dict[str, Any] = {
        "num_train_timesteps": TRAIN_TIMESTEPS,
        "beta_schedule": "squaredcos_cap_v2",
        "prediction_type": prediction_type,
        # Starts at the last timestep, where the noise really starts (Lin et al. 2023, "Common Diffusion Noise
        # Schedules and Sample Steps are Flawed").
        "timestep_spacing": "trailing",
    }
    if known.sigma_space:
        betas = _betas_up_to_sigma_max()
        settings |= {"num_train_timesteps": len(betas), "trained_betas": betas}
    if prediction_type == FLOW:
        settings |= known.flow
    if name in ("ddpm", "ddim", "heun", "lcm"):
        settings["clip_sample"] = clip
    if name == "lcm":
        settings["original_inference_steps"] = max(50, num_inference_steps)
    with _quiet():
        return cls(**settings)


@functools.cache
def _betas_up_to_sigma_max() -> list[float]:
    """The squared-cosine chain up to a sigma of 80 (Karras et al. 2022, table 1).

    The whole chain ends at sigma = 2e4: a solver in sigma space would spend its first steps on nothing but
    noise.
    """
    from diffusers.schedulers.scheduling_ddpm import DDPMScheduler

    whole = DDPMScheduler(num_train_timesteps=TRAIN_TIMESTEPS, beta_schedule="squaredcos_cap_v2")
    sigma = ((1.0 - whole.alphas_cumprod) / whole.alphas_cumprod).sqrt()
    betas: list[float] = whole.betas[sigma <= 80.0].tolist()
    return betas


class ForwardProcess:
    """Adds noise to samples, and says what a denoiser has to predict.

    Diffusion: ``x_t = a_t x_0 + s_t eps`` with the squared-cosine schedule (Nichol & Dhariwal 2021, eq. 17)
        and the
    targets eps, ``v = a_t eps - s_t x_0`` (Salimans & Ho 2022, appendix D) or x_0. Flow: ``x_t = (1 - u) x_0
    + u eps``, ``u = t / T``, with the target ``eps - x_0`` (Lipman et al. 2023; Liu et al. 2023).

    Args:
        prediction_type: One of `PREDICTION_TYPES`.

    Raises:
        ConfigurationError: The prediction type is unknown.
    """

    def __init__(self, prediction_type: str) -> None:
        check_prediction_type(prediction_type)
        self.prediction_type = prediction_type
        self._scheduler = None if prediction_type == FLOW else make_scheduler("ddpm", prediction_type)

    def timesteps(self, n: int, rng: torch.Generator) -> Tensor:
        """Draws n timesteps that are uniform in [0, T) and stratified: one in each n-th of the range.

        Low-discrepancy times lower the variance of the loss (Kingma et al. 2021, "Variational Diffusion
        Models", appendix I.1).

        Returns:
            (n,) int64 for diffusion, float32 for flow.
        """
        u = (torch.arange(n) + torch.rand(1, generator=rng)) / n
        if self._scheduler is None:
            return u * TRAIN_TIMESTEPS
        return (u * TRAIN_TIMESTEPS).long().clamp_(max=TRAIN_TIMESTEPS - 1)

    def noised(self, x_0: Tensor, noise: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """x_t and the target of the prediction, from `x_0` and normal `noise` (n, …) and t (n,)."""
        if self._scheduler is None:
            u = (t / TRAIN_TIMESTEPS).view(-1, *[1] * (x_0.ndim - 1))
            return torch.lerp(x_0, noise, u), noise - x_0
        x_t = self._scheduler.add_noise(x_0, noise, t)
        if self.prediction_type == "sample":
            return x_t, x_0
        return x_t, noise if self.prediction_type == "epsilon" else self._scheduler.get_velocity(x_0, noise, t)
