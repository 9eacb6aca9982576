"""Settings of a GAN's fit, checked at the door."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from lightning_diffaug.errors import ConfigurationError


@dataclass(frozen=True)
class GanSettings:
    """How a GAN is fitted. Every value is part of the fit's fingerprint.

    Attributes:
        steps: Steps, each of one update of the discriminator and one of the generator.
        batch_size: Real samples a step, and as many made ones.
        lr: Highest learning rate of both networks (Adam); it falls to 0 along a cosine in the last half.
        width: Channels of the networks at the size of the images; twice as many below.
        latent: Numbers that a sample is made from.
        ema: Decay of the moving average of the generator's weights, which is what is kept.
        diversity: Weight of the term that drives samples of one class apart (Mao et al. 2019), against mode collapse.
        class_balance: Exponent b: a sample is drawn with a weight ∝ (1 / its class's count)^b. 0 follows the data, 1
            draws all classes alike.
        augment_p: Probability of the affine augmentation of what the discriminator sees, real or made; 0 is off.
        augment_degrees: Largest rotation.
        augment_pixels: Largest translation, in pixels.
        augment_scale: Largest relative change of size.

    Raises:
        ConfigurationError: A value is out of its range.
    """

    steps: int = 500
    batch_size: int = 64
    lr: float = 2e-3
    width: int = 32
    latent: int = 32
    ema: float = 0.99
    diversity: float = 0.1
    class_balance: float = 0.5
    augment_p: float = 0.8
    augment_degrees: float = 15.0
    augment_pixels: float = 1.0
    augment_scale: float = 0.1

    def __post_init__(self) -> None:
        for name, (low, high) in _RANGES.items():
            value, whole = getattr(self, name), isinstance(getattr(GanSettings, name), int)
            number = isinstance(value, int if whole else (int, float)) and not isinstance(value, bool)
            if not number or not low <= value <= high:
                raise ConfigurationError(
                    f"fit.{name}={value!r} is no {'whole ' if whole else ''}number from {low:g} to {high:g}. Set "
                    f"generator.fit.{name} to one, such as the default {getattr(GanSettings, name)}."
                )
            if not whole:  # 1 and 1.0 are the same fit, so they must have the same fingerprint
                object.__setattr__(self, name, float(value))

    @classmethod
    def of(cls, values: Mapping[str, Any] | GanSettings | None) -> GanSettings:
        """Settings from plain values, the rest being defaults.

        Raises:
            ConfigurationError: A key is unknown or a value out of its range.
        """
        if isinstance(values, GanSettings):
            return values
        known = [field.name for field in fields(cls)]
        for key in values or {}:
            if key not in known:
                raise ConfigurationError(
                    f"generator.fit.{key} is unknown, so it would change nothing. Set generator.fit.<key> with one of: "
                    f"{', '.join(known)}."
                )
        return cls(**(values or {}))

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


_RANGES: dict[str, tuple[float, float]] = {
    "steps": (1, 10**8),
    "batch_size": (1, 10**6),
    "lr": (0.0, 1.0),
    "width": (4, 4096),
    "latent": (1, 4096),
    "ema": (0.0, 1.0),
    "diversity": (0.0, 100.0),
    "class_balance": (0.0, 1.0),
    "augment_p": (0.0, 1.0),
    "augment_degrees": (0.0, 180.0),
    "augment_pixels": (0.0, 10**4),
    "augment_scale": (0.0, 0.9),
}
