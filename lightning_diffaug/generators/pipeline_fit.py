"""What adapting a pipeline to the real training data has in common: settings, draws, and the latent diffusion loss."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from lightning_diffaug.errors import ConfigurationError, GeneratorError
from lightning_diffaug.generators.fit import ClassBalancedDraws
from lightning_diffaug.generators.pipeline_call import resized
from lightning_diffaug.generators.pipeline_parts import native_size
from lightning_diffaug.generators.pipeline_settings import pixels
from lightning_diffaug.generators.remote_prompts import Prompts

if TYPE_CHECKING:
    from lightning_diffaug.generators.fit_checkpoint import FitCheckpoint
    from lightning_diffaug.snapshot import Snapshot

_WARMUP = 0.1


@dataclass(frozen=True)
class AdaptSettings:
    """How a pipeline is adapted.

    Attributes:
        steps: Optimiser steps.
        batch_size: Real samples a step.
        lr: Peak learning rate (AdamW): warm-up over the first tenth, then a cosine to 0.
        grad_clip: Largest norm of a gradient.
        class_balance: 0: samples are drawn as the data are; 1: all classes alike.
        rank: Of a LoRA adapter.
        prior_weight: Weight of the model's own samples in the loss, so that it does not forget the rest (prior
            preservation of DreamBooth, Ruiz et al. 2023, eq. 2); LoRA only. 0: none.
        prior_samples: How many of them.
        prior_prompt: What they are of.
        checkpoint_every: Seconds between checkpoints, from which an interrupted fit goes on; None: no checkpoints. The
            only value that is not part of the fingerprint, as it changes no weight.
    """

    steps: int = 500
    batch_size: int = 4
    lr: float = 1e-3
    grad_clip: float = 1.0
    class_balance: float = 1.0
    rank: int = 8
    prior_weight: float = 0.0
    prior_samples: int = 32
    prior_prompt: str = "a photo"
    checkpoint_every: float | None = 30.0

    @classmethod
    def of(cls, given: Mapping[str, Any] | None, default: AdaptSettings, known: Sequence[str]) -> AdaptSettings:
        """Settings from a mapping; what it lacks is as in `default`.

        Args:
            given: Name → value.
            default: Of the method.
            known: Names that have a meaning for the method.

        Raises:
            ConfigurationError: A key is unknown, or a value is out of its range.
        """
        if unknown := [key for key in given or {} if key not in known]:
            raise ConfigurationError(f"generator.fit.{unknown[0]} is not a setting; there are {', '.join(known)}.")
        settings = replace(default, **dict(given or {}))
        for name in ("steps", "batch_size", "rank", "prior_samples"):
            value = getattr(settings, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ConfigurationError(f"fit.{name}={value!r} is no whole number from 1. Set generator.fit.{name}.")
        limits = (("lr", 10.0), ("grad_clip", math.inf), ("class_balance", 1.0), ("prior_weight", math.inf))
        for name, most in (*limits, ("checkpoint_every", math.inf)):
            value = getattr(settings, name)
            if value is None and name == "checkpoint_every":
                continue
            positive = name in ("lr", "grad_clip")
            if (
                isinstance(value, bool)
                or not isinstance(value, (int, float))
                or not 0 <= value <= most
                or (positive and value == 0)
            ):
                raise ConfigurationError(
                    f"fit.{name}={value!r} is not between 0 and {most:g}. Set generator.fit.{name} to e.g. "
                    f"{getattr(default, name) or 1}."
                )
        return settings

    def to_json(self) -> dict[str, Any]:
        """The settings as plain values."""
        return asdict(self)


class RealBatches:
    """Draws pictures of the real training data for a pipeline, and the prompts that go with them.

    Args:
        snapshot: The real training data.
        prompts: The prompts of the classes.
        size: Height and width of the pictures.
        settings: Batch size and class balance.
        rng: Of the draws.
    """

    def __init__(
        self, snapshot: Snapshot, prompts: Prompts, size: tuple[int, int], settings: AdaptSettings, rng: torch.Generator
    ) -> None:
        self._snapshot = snapshot
        self._name = snapshot.spec.continuous[0].name
        self._prompts = prompts
        self._size = size
        self._batch = settings.batch_size
        self._rng = rng
        self._draws = ClassBalancedDraws(snapshot.labels, len(snapshot), settings.class_balance)

    def draw(self) -> tuple[Tensor, list[str]]:
        """Pictures (n, 3, *size) in [-1, 1], and a prompt for each."""
        rows = self._draws(self._batch, self._rng)
        samples = self._snapshot.unit(self._name, rows)
        colour = samples[:, :3] if samples.shape[1] >= 3 else samples[:, :1].expand(-1, 3, -1, -1)
        seeds = torch.randint(2**31, (len(rows),), generator=self._rng).tolist()
        labels, names = self._snapshot.labels, self._snapshot.class_names
        of = [names[int(label)] for label in labels[rows]] if labels is not None else [""] * len(rows)
        return resized(colour, self._size), [self._prompts.of(name, seed) for name, seed in zip(of, seeds, strict=True)]


class LatentLoss:
    """Mean squared error of what the UNet predicts for noised latents (Rombach et al. 2022, eq. 2).

    Args:
        pipe: A pipeline with a UNet and one text encoder, on its device.
        rng: Of timesteps and noise.
    """

    def __init__(self, pipe: Any, rng: torch.Generator) -> None:
        from diffusers import DDPMScheduler

        self._pipe = pipe
        self._rng = rng
        self._process = DDPMScheduler.from_config(pipe.scheduler.config)

    def __call__(self, pictures: Tensor, states: Tensor) -> Tensor:
        """The loss, for pictures (n, 3, H, W) in [-1, 1] and the text encoder's states (n, tokens, width)."""
        vae, unet, process = self._pipe.vae, self._pipe.unet, self._process
        with torch.no_grad():
            x_0 = vae.encode(pictures.to(unet.device)).latent_dist.mean * vae.config.scaling_factor
        noise = torch.randn(x_0.shape, generator=self._rng).to(x_0)
        t = torch.randint(process.config.num_train_timesteps, (len(x_0),), generator=self._rng).to(x_0.device)
        predicted = unet(process.add_noise(x_0, noise, t), t, encoder_hidden_states=states).sample
        kind = process.config.prediction_type
        target = noise if kind == "epsilon" else x_0 if kind == "sample" else process.get_velocity(x_0, noise, t)
        return functional.mse_loss(predicted.float(), target.float())


def check_parts(there: Collection[str], pipeline: str, method: str) -> None:
    """Refuses pipelines whose loss is another one, by the names of their parts.

    Raises:
        ConfigurationError: It has no UNet, or more than one text encoder.
    """
    if not {"unet", "vae", "text_encoder", "tokenizer"} <= set(there) or "text_encoder_2" in there:
        raise ConfigurationError(
            f"{method} adapts models with a UNet and one text encoder (Stable Diffusion 1.x and 2.x), and this is a "
            f"{pipeline}. Set generator.model to such a model, or adapt it elsewhere and set generator.adapters or "
            "generator.embeddings."
        )


def check_adaptable(pipe: Any, method: str) -> None:
    """As `check_parts`, of a pipeline that is loaded.

    Raises:
        ConfigurationError: See there; or its UNet takes more than latents.
    """
    check_parts([name for name, part in pipe.components.items() if part is not None], type(pipe).__name__, method)
    if (channels := pipe.unet.config.in_channels) != pipe.vae.config.latent_channels:
        raise ConfigurationError(
            f"{method} adapts models that denoise latents alone, and this one's UNet takes {channels} channels (as "
            "inpainting models do). Set generator.model to the text-to-image model of its family."
        )


def token_ids(pipe: Any, prompts: Sequence[str]) -> Tensor:
    """Token ids of prompts, int64 (n, tokens), on the pipeline's device."""
    tokenizer = pipe.tokenizer
    given = tokenizer(
        list(prompts), padding="max_length", max_length=tokenizer.model_max_length, truncation=True, return_tensors="pt"
    )
    ids: Tensor = given.input_ids
    return ids.to(pipe.unet.device)


def picture_size(pipe: Any, size: Any) -> tuple[int, int]:
    """Height and width that a pipeline is adapted at: the generator's, or the model's own."""
    return pixels(size) or native_size(pipe)


def descend(
    parameters: Sequence[nn.Parameter],
    loss: Callable[[], Tensor],
    settings: AdaptSettings,
    progress: Callable[[int, int], None],
    rng: torch.Generator,
    checkpoint: FitCheckpoint | None = None,
) -> list[float]:
    """Minimises a loss, and returns its values.

    Args:
        parameters: What is learned.
        loss: Draws a batch and computes its loss.
        settings: Steps, rates, and how often the state is kept.
        progress: Called as ``progress(step, total)`` after each step.
        rng: Of every draw of `loss`.
        checkpoint: From which an interrupted descent goes on, as if it had not been; it stays.

    Raises:
        GeneratorError: The loss is not finite any more.
    """
    optimizer = torch.optim.AdamW(parameters, lr=settings.lr, weight_decay=0.0)
    warmup = max(1, round(_WARMUP * settings.steps))
    losses: list[float] = []
    if checkpoint is not None and (found := checkpoint.load()) is not None:
        for parameter, value in zip(parameters, found["parameters"], strict=True):
            parameter.data.copy_(value)
        optimizer.load_state_dict(found["optimizer"])
        rng.set_state(found["rng"])
        losses = found["losses"]
    saved = time.monotonic()
    for step in range(len(losses), settings.steps):
        done = max(0.0, (step + 1 - warmup) / max(1, settings.steps - warmup))
        rate = min(1.0, (step + 1) / warmup) * 0.5 * (1.0 + math.cos(math.pi * done))
        for group in optimizer.param_groups:
            group["lr"] = settings.lr * rate
        value = loss()
        optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(value)
        nn.utils.clip_grad_norm_(parameters, settings.grad_clip)
        optimizer.step()
        losses.append(float(value.detach()))
        if not math.isfinite(losses[-1]):
            raise GeneratorError(
                f"the loss of the generator's fit is {losses[-1]} at step {step + 1} of {settings.steps}. Lower "
                f"generator.fit.lr (now {settings.lr}), and check that the data are finite."
            )
        progress(step + 1, settings.steps)
        every = settings.checkpoint_every
        if checkpoint is not None and every is not None and time.monotonic() - saved >= every:
            learned = [parameter.detach().cpu() for parameter in parameters]
            state = {"parameters": learned, "optimizer": optimizer.state_dict(), "losses": losses}
            checkpoint.save(state | {"rng": rng.get_state()})
            saved = time.monotonic()
    return losses
