"""A small classifier of samples of any shape, with calibrated probabilities, and its settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from lightning_diffaug.errors import ConfigurationError
from lightning_diffaug.gates.checks import as_set

CLASSIFIER_VERSION = 1
"""Part of the fit's fingerprint; raised with any change of the network or of how it is fitted."""


@dataclass(frozen=True)
class ClassifierSettings:
    """How the classifier is fitted. Every value is part of the fit's fingerprint.

    Attributes:
        steps: Optimiser steps.
        batch_size: Real samples a step, all classes alike.
        lr: Peak learning rate of AdamW, with a linear warm-up and a cosine.
        weight_decay: Of AdamW.
        width: Channels of the first layer.
        size: Longest side that images are averaged down to before it looks at them.
        augment_p: Probability of the affine augmentation of images (±15°, ±1 pixel, ±10 %); 0 is off.
        hold_out: Share of each class of the training samples that calibrates the probabilities instead of being fitted;
            0 leaves them as they are.
        seed: Of the first weights and all draws.

    Raises:
        ConfigurationError: A value is out of its range.
    """

    steps: int = 400
    batch_size: int = 64
    lr: float = 1e-2
    weight_decay: float = 1e-2
    width: int = 32
    size: int = 32
    augment_p: float = 0.8
    hold_out: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        ranges: dict[str, tuple[float, float]] = {
            "steps": (3, 10**7), "batch_size": (2, 10**5), "lr": (1e-9, 10.0), "weight_decay": (0.0, 10.0),
            "width": (1, 4096), "size": (4, 4096), "augment_p": (0.0, 1.0), "hold_out": (0.0, 0.5),
            "seed": (0, 2**63 - 1),
        }  # fmt: skip
        for name, (low, high) in ranges.items():
            value, whole = getattr(self, name), isinstance(getattr(type(self), name), int)
            number = isinstance(value, int if whole else (int, float)) and not isinstance(value, bool)
            if not number or not low <= value <= high:
                kind = "whole number" if whole else "number"
                raise ConfigurationError(
                    f"gates.class.fit.{name}={value!r} of the gates' classifier is no {kind} from {low:g} to {high:g}. "
                    f"Set {as_set('class', fit={name: getattr(type(self), name)})}."
                )

    @classmethod
    def of(cls, values: Mapping[str, Any] | None) -> ClassifierSettings:
        """The settings of a mapping.

        Raises:
            ConfigurationError: A name is unknown, or a value out of its range.
        """
        values = dict(values or {})
        known = asdict(cls())
        if unknown := [name for name in values if name not in known]:
            raise ConfigurationError(
                f"gates.class.fit.{unknown[0]} is no setting of the gates' classifier, which has {', '.join(known)}. "
                f"Set e.g. {as_set('class', fit={'steps': 800})}."
            )
        return cls(**values)


class Classifier(nn.Module):
    """Samples float32 (n, *shape) in [-1, 1] → calibrated logits (n, classes).

    Args:
        shape: Of one sample: (C, H, W), (C, L), (C, D, H, W) or (d,).
        classes: Number of classes.
        width: Channels of the first layer.
        size: Longest side that images and volumes are averaged down to.
    """

    def __init__(self, shape: tuple[int, ...], classes: int, width: int, size: int) -> None:
        super().__init__()
        self.size = size
        *body, self.head = _layers(shape, classes, width)
        self.body = nn.Sequential(*body)
        self.register_buffer("temperature", torch.ones(()))
        self.temperature: Tensor

    def seen(self, x: Tensor) -> Tensor:
        """What it looks at: large images averaged down."""
        longest = max(x.shape[2:], default=0)
        if x.ndim < 4 or longest <= self.size:
            return x
        smaller = [max(1, round(length * self.size / longest)) for length in x.shape[2:]]
        return functional.interpolate(x, size=smaller, mode="area")

    def features(self, x: Tensor) -> Tensor:
        """What the last layer sees, float32 (n, d)."""
        found: Tensor = self.body(self.seen(x))
        return found

    def forward(self, x: Tensor) -> Tensor:
        """Logits, divided by the temperature."""
        logits: Tensor = self.head(self.features(x))
        return logits / self.temperature


def _layers(shape: tuple[int, ...], classes: int, width: int) -> list[nn.Module]:
    if len(shape) == 3:
        from lightning_diffaug.models.classifier import small_cnn  # torchmetrics; only this gate needs it

        return list(small_cnn(shape[0], classes, width))
    if len(shape) == 1:
        hidden = 4 * width
        return [
            nn.Linear(shape[0], hidden), nn.BatchNorm1d(hidden), nn.ReLU(), nn.Linear(hidden, hidden),
            nn.BatchNorm1d(hidden), nn.ReLU(), nn.Linear(hidden, classes),
        ]  # fmt: skip
    if len(shape) == 2:
        return _convolutions(shape[0], classes, width, nn.Conv1d, nn.BatchNorm1d, nn.MaxPool1d, (9, 4), 8)
    if len(shape) == 4:
        return _convolutions(shape[0], classes, width, nn.Conv3d, nn.BatchNorm3d, nn.MaxPool3d, (3, 2), 2)
    raise ConfigurationError(
        f"gates.class knows no classifier for samples of shape {shape}. Give your own, "
        f"{as_set('class', model='package.module.Class')}, or set gates.class=false."
    )


def _convolutions(
    channels: int, classes: int, width: int, convolution: Any, norm: Any, pool: Any, form: tuple[int, int], last: int
) -> list[nn.Module]:
    """Three convolutions, pooled twice, for sequences and volumes; `form` is kernel and pooling."""
    kernel, step = form
    layers: list[nn.Module] = []
    for inputs, outputs in ((channels, width), (width, 2 * width), (2 * width, 2 * width)):
        layers += [convolution(inputs, outputs, kernel, padding=kernel // 2, bias=False), norm(outputs), nn.ReLU()]
        layers.append(pool(step, ceil_mode=True))
    one_dim = convolution is nn.Conv1d
    layers[-1] = nn.AdaptiveAvgPool1d(last) if one_dim else nn.AdaptiveAvgPool3d(last)
    cells = last if one_dim else last**3
    return [*layers, nn.Flatten(), nn.Linear(2 * width * cells, classes)]
