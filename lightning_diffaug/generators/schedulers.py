"""The schedulers of `diffusers` by short names, and the forward process that a fit learns to undo."""

from __future__ import annotations

import contextlib
import functools
import importlib
import math
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from lightning_diffaug.errors import ConfigurationError
from lightning_diffaug.generators.levels import Level

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

    @property
    def thresholds(self) -> bool:
        """Whether it knows dynamic thresholding."""
        return not self.sigma_space and self.predictions != (FLOW,)


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


def restart(scheduler: Any, num_inference_steps: int, device: torch.device, step: int) -> None:
    """Readies a scheduler to go on at a later (or earlier) step, without memory of the steps before."""
    set_timesteps(scheduler, num_inference_steps, device)
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(step)


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


def check_threshold(name: str, prediction_type: str, threshold: float) -> None:
    """Refuses a threshold that is no quantile, or that the scheduler does not know.

    Raises:
        ConfigurationError: See above.
    """
    if not (isinstance(threshold, (int, float)) and 0.0 < threshold < 1.0):
        raise ConfigurationError(
            f"threshold={threshold} is not in (0, 1): it is the quantile that dynamic thresholding draws back into "
            "range. Set generator.threshold to e.g. 0.995, or null."
        )
    if not _SCHEDULERS[name].thresholds or prediction_type == FLOW:
        able = ", ".join(other for other, known in _SCHEDULERS.items() if known.thresholds)
        raise ConfigurationError(
            f"scheduler={name!r} with prediction_type={prediction_type!r} knows no dynamic thresholding. Set "
            f"generator.threshold=null, or generator.scheduler to one of {able} (not with flow)."
        )


def make_scheduler(
    name: str,
    prediction_type: str,
    num_inference_steps: int = 10,
    clip: bool = True,
    threshold: float | None = None,
) -> Any:
    """Makes a scheduler of diffusers on the noise schedule of `ForwardProcess`.

    Args:
        name: One of `SCHEDULERS`.
        prediction_type: What the denoiser predicts, one of `PREDICTION_TYPES`.
        num_inference_steps: Steps it will be asked for (LCM skips through a finer schedule of at least that
            many).
        clip: Clip the predicted sample to [-1, 1] where the scheduler can; right for data, wrong for latents.
        threshold: Quantile of a predicted sample's absolute values that each step draws back into [-1, 1] where it is
            above 1 (dynamic thresholding, Saharia et al. 2022, section 2.3); None for none.

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
    if threshold is not None:
        check_threshold(name, prediction_type, threshold)
        # The largest value it may divide by; diffusers' default of 1 would only clip.
        settings |= {"thresholding": True, "dynamic_thresholding_ratio": threshold, "sample_max_value": 1e6}
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

    def snr(self, t: Tensor) -> Tensor:
        """Signal-to-noise ratio of timesteps (n,): the squared signal over the squared noise."""
        if self._scheduler is None:
            u = t / TRAIN_TIMESTEPS
            return ((1.0 - u) / u) ** 2
        signal: Tensor = self._scheduler.alphas_cumprod.to(t.device)[t]
        return signal / (1.0 - signal)

    def level(self, t: float) -> Level:
        """Noise level at a timestep in [-1, T), also between whole ones; at -1 there is no noise."""
        if self._scheduler is None:
            u = max(t, 0.0) / TRAIN_TIMESTEPS
            return Level(1.0 - u, u)
        # The angle is close to linear in t, from 0 without noise to a right angle.
        signal = self._scheduler.alphas_cumprod.double().sqrt()
        angles = torch.cat((torch.zeros(1, dtype=torch.float64), torch.arccos(signal)))
        below = min(max(math.floor(t), -1), TRAIN_TIMESTEPS - 2)
        angle = float(torch.lerp(angles[below + 1], angles[below + 2], t - below))
        return Level(math.cos(angle), math.sin(angle))

    def noise_in(self, prediction: Tensor, x_t: Tensor, level: Level) -> Tensor:
        """The noise that a prediction for x_t at a level says is in it."""
        if self.prediction_type == "epsilon":
            return prediction
        if self.prediction_type == "v_prediction":
            return level.noise * x_t + level.signal * prediction
        if self.prediction_type == FLOW:
            return x_t + level.signal * prediction
        return (x_t - level.signal * prediction) / level.noise
