"""Settings of a fit, checked at the door."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from lightning_diffaug.errors import ConfigurationError
from lightning_diffaug.generators.denoisers import check_channels
from lightning_diffaug.generators.schedulers import check_prediction_type


@dataclass(frozen=True)
class FitSettings:
    """How a denoiser is fitted. Every value is part of the fit's fingerprint.

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
        channels: Width of each resolution of the UNet; None chooses by the size of the samples.
        layers_per_block: Residual layers for each resolution.
        attention: Self-attention at the lowest resolution; None: from 12 pixels up.
        augment_p: Probability of the affine augmentation inside the fit; 0 is off.
        augment_degrees: Largest rotation.
        augment_pixels: Largest translation, in pixels.
        augment_scale: Largest relative change of size.

    Raises:
        ConfigurationError: A value is out of its range.
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
    channels: tuple[int, ...] | None = None
    layers_per_block: int = 1
    attention: bool | None = None
    augment_p: float = 0.8
    augment_degrees: float = 15.0
    augment_pixels: float = 1.0
    augment_scale: float = 0.1

    def __post_init__(self) -> None:
        if self.channels is not None:
            # fails where the settings are read, not minutes later in the process that fits
            object.__setattr__(self, "channels", check_channels(self.channels))
        check_prediction_type(self.prediction_type)
        for name, low, high, meaning in _RANGES:
            value = getattr(self, name)
            whole = isinstance(getattr(FitSettings, name), int)
            kinds = (int,) if whole else (int, float)
            if isinstance(value, bool) or not isinstance(value, kinds) or not low <= value <= high:
                raise ConfigurationError(
                    f"fit.{name}={value!r} is not {'a whole number ' if whole else ''}in [{low}, {high}]: it "
                    f"is {meaning}. Set generator.fit.{name} to such a value, such as the default "
                    f"{getattr(FitSettings, name)}."
                )
            if not whole:  # 1 and 1.0 are the same fit, so they must have the same fingerprint
                object.__setattr__(self, name, float(value))

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

    def to_json(self) -> dict[str, Any]:
        """Plain values for a JSON file."""
        return {**asdict(self), "channels": None if self.channels is None else list(self.channels)}


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
)
