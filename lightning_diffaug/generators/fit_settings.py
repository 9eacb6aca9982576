"""Settings of a fit, checked at the door."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from lightning_diffaug.errors import ConfigurationError
from lightning_diffaug.generators.denoisers import check_channels, check_denoiser
from lightning_diffaug.generators.schedulers import check_prediction_type


@dataclass(frozen=True)
class FitSettings:
    """How a denoiser is fitted. Every value but one is part of the fit's fingerprint.

    Attributes:
        steps: Optimiser steps.
        batch_size: Real samples a step.
        lr: Peak learning rate of AdamW.
        warmup_steps: Linear warm-up; then a cosine down to `lr_final` × `lr`.
        lr_final: Last learning rate as a share of the peak.
        weight_decay: Of AdamW.
        grad_clip: Largest norm of the gradient.
        ema: Decay of the moving average of the weights, which is what is kept.
        condition_dropout: Share of the samples that are fitted without their condition (for guidance).
        class_balance: Exponent b: a sample is drawn with a weight ∝ (1 / its class's count)^b. 0 follows the
            data, 1 draws all classes alike.
        prediction_type: ``"v_prediction"``, ``"epsilon"``, ``"sample"`` or ``"flow"``.
        denoiser: The network: ``"unet"`` (images), ``"unet_cross"`` (images, with cross-attention), ``"dit"`` (a
            transformer, samples of any shape), ``"unet1d"`` (sequences), or the import path of an nn.Module of your own
            (`OwnDenoiser`). ``"auto"``: the one that suits samples and conditions.
        denoiser_args: Further arguments of its constructor, by name; None: none.
        channels: Width of each resolution of a UNet; None chooses by the size of the samples.
        layers_per_block: Residual layers of a UNet for each resolution.
        attention: Self-attention of ``unet`` at the lowest resolution; None: from 12 pixels up.
        augment_p: Probability of the affine augmentation inside the fit; 0 is off.
        augment_degrees: Largest rotation.
        augment_pixels: Largest translation, in pixels.
        augment_scale: Largest relative change of size.
        augment_as: ``"fitted"``: augmented samples are fitted like others, and made. ``"condition"``: the denoiser is
            told how a sample was augmented, and asked for plain ones (Karras et al. 2022, appendix F.1).
        min_snr: The γ of min-SNR weighting of the loss over timesteps (Hang et al. 2023; 5 there); None: all alike.
        hold_out: Share of the real training samples, of each class, that the fit is judged by instead of fitted; 0
            judges nothing. The weights with the lowest loss on it are kept.
        patience: Checks without a lower loss after which the fit stops early; None: never.
        check_every: Steps between checks; the last step is checked too.
        precision: ``"32-true"``, ``"bf16-mixed"``, or ``"auto"``: the latter on a CUDA device that has it.
        checkpoint_every: Seconds between checkpoints, from which an interrupted fit goes on; None: no checkpoints. The
            only value that is not part of the fingerprint, as it changes no weight.

    Raises:
        ConfigurationError: A value is out of its range, or has no effect with the others.
    """

    steps: int = 500
    batch_size: int = 64
    lr: float = 3e-3
    warmup_steps: int = 30
    lr_final: float = 0.05
    weight_decay: float = 1e-2
    grad_clip: float = 1.0
    ema: float = 0.99
    condition_dropout: float = 0.1
    class_balance: float = 0.5
    prediction_type: str = "v_prediction"
    denoiser: str = "auto"
    denoiser_args: Mapping[str, Any] | None = None
    channels: tuple[int, ...] | None = None
    layers_per_block: int = 1
    attention: bool | None = None
    augment_p: float = 0.8
    augment_degrees: float = 15.0
    augment_pixels: float = 1.0
    augment_scale: float = 0.1
    augment_as: str = "fitted"
    min_snr: float | None = None
    hold_out: float = 0.0
    patience: int | None = None
    check_every: int = 50
    precision: str = "auto"
    checkpoint_every: float | None = 30.0

    def __post_init__(self) -> None:
        if self.channels is not None:
            # fails where the settings are read, not minutes later in the process that fits
            object.__setattr__(self, "channels", check_channels(self.channels))
        if not self.denoiser_args and isinstance(self.denoiser_args, Mapping):
            object.__setattr__(self, "denoiser_args", None)  # one fingerprint
        if not isinstance(self.denoiser_args, Mapping | None):
            raise ConfigurationError(
                f"denoiser_args={self.denoiser_args!r} is no mapping of names to values. Set "
                "generator.fit.denoiser_args to e.g. {width: 128}, or null."
            )
        check_denoiser(self.denoiser, self.denoiser_arguments())
        check_prediction_type(self.prediction_type)
        for name, low, high, meaning in _RANGES:
            value, default = getattr(self, name), getattr(FitSettings, name)
            if value is None and name in _OPTIONAL:
                continue
            whole = isinstance(default, int) or name == "patience"
            kinds = (int,) if whole else (int, float)
            if isinstance(value, bool) or not isinstance(value, kinds) or not low <= value <= high:
                raise ConfigurationError(
                    f"fit.{name}={value!r} is not {'a whole number ' if whole else ''}in [{low}, {high}]: it "
                    f"is {meaning}. Set generator.fit.{name} to such a value, such as the default "
                    f"{'null' if default is None else default}."
                )
            if not whole:  # 1 and 1.0 are the same fit, so they must have the same fingerprint
                object.__setattr__(self, name, float(value))
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise ConfigurationError(
                    f"fit.{name}={getattr(self, name)!r} is unknown. Set generator.fit.{name} to one of "
                    f"{', '.join(choices)}."
                )
        if self.patience is not None and self.hold_out == 0.0:
            raise ConfigurationError(
                f"fit.patience={self.patience} has no effect: nothing is kept aside to judge the fit by. Set "
                "generator.fit.hold_out to e.g. 0.1, or generator.fit.patience=null."
            )

    @classmethod
    def of(cls, values: Mapping[str, Any] | FitSettings | None) -> FitSettings:
        """Settings from plain values, the rest being defaults.

        Raises:
            ConfigurationError: A key is unknown or a value out of its range.
        """
        if isinstance(values, FitSettings):
            return values
        known = [f.name for f in fields(cls)]
        values = dict(values or {})
        for key in values:
            if key not in known:
                raise ConfigurationError(
                    f"generator.fit.{key} is unknown, so it would change nothing. Set generator.fit.<key> "
                    f"with one of: {', '.join(known)}."
                )
        return cls(**values)

    def denoiser_arguments(self) -> dict[str, Any]:
        """What the denoiser is made with; what is left at its default is the denoiser's affair."""
        channels = None if self.channels is None else list(self.channels)
        own = {"channels": channels, "layers_per_block": self.layers_per_block, "attention": self.attention}
        return {name: v for name, v in own.items() if v != getattr(FitSettings, name)} | dict(self.denoiser_args or {})

    def to_json(self) -> dict[str, Any]:
        """Plain values for a JSON file."""
        return {**asdict(self), "channels": None if self.channels is None else list(self.channels)}

    def key(self) -> dict[str, Any]:
        """The values that the fitted weights depend on, for a fingerprint."""
        unused = {"checkpoint_every", *(("check_every",) if self.hold_out == 0.0 else ())}
        key = {name: value for name, value in self.to_json().items() if name not in unused}
        if self.augment_p == 0.0:  # as if they were not set
            of_augment = ("augment_degrees", "augment_pixels", "augment_scale", "augment_as")
            key |= {name: getattr(FitSettings, name) for name in of_augment}
        return key

    @property
    def augment_told(self) -> bool:
        """Whether the denoiser is told how a sample was augmented."""
        return self.augment_as == "condition" and self.augment_p > 0.0


def learning_rate(step: int, settings: FitSettings) -> float:
    """Learning rate of a step as a share of the peak: linear warm-up, then a cosine down to `lr_final`."""
    warmup = min(settings.warmup_steps, settings.steps // 2)
    if step < warmup:
        return (step + 1) / warmup
    done = (step - warmup) / max(1, settings.steps - 1 - warmup)
    return settings.lr_final + (1.0 - settings.lr_final) * 0.5 * (1.0 + math.cos(math.pi * min(1.0, done)))


_OPTIONAL = ("min_snr", "patience", "checkpoint_every")
_CHOICES = {"augment_as": ("fitted", "condition"), "precision": ("auto", "32-true", "bf16-mixed")}


_RANGES: tuple[tuple[str, float, float, str], ...] = (
    ("steps", 1, 10**8, "the number of optimiser steps"),
    ("batch_size", 1, 10**6, "the number of real samples a step"),
    ("lr", 0.0, 1.0, "the peak learning rate"),
    ("warmup_steps", 0, 10**8, "the number of steps of linear warm-up"),
    ("lr_final", 0.0, 1.0, "the last learning rate as a share of the peak"),
    ("weight_decay", 0.0, 10.0, "AdamW's weight decay"),
    ("grad_clip", 1e-9, 1e9, "the largest norm of the gradient"),  # finite: it goes into the fingerprint
    ("ema", 0.0, 1.0, "the decay of the averaged weights"),
    ("condition_dropout", 0.0, 1.0, "the share of samples fitted without their condition"),
    ("class_balance", 0.0, 1.0, "how far the draws level the classes"),
    ("layers_per_block", 1, 16, "the number of residual layers for each resolution"),
    ("augment_p", 0.0, 1.0, "the probability of augmentation inside the fit"),
    ("augment_degrees", 0.0, 180.0, "the largest rotation in degrees"),
    ("augment_pixels", 0.0, 10**4, "the largest translation in pixels"),
    ("augment_scale", 0.0, 0.9, "the largest relative change of size"),
    ("min_snr", 1e-6, 1e9, "the signal-to-noise ratio above which timesteps weigh less, or null"),
    ("hold_out", 0.0, 0.5, "the share of the real training samples that the fit is judged by"),
    ("patience", 1, 10**6, "the number of checks without a lower loss before the fit stops, or null"),
    ("check_every", 1, 10**8, "the number of steps between checks"),
    ("checkpoint_every", 0.0, 1e9, "the number of seconds between checkpoints, or null"),
)
