"""Settings of a distillation, checked at the door."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from lightning_diffaug.errors import ConfigurationError

DISTILL_VERSION = 1
"""Raised with every change that makes other weights from the same settings; part of the student's fingerprint."""

PREDICTIONS = ("v_prediction", "sample")
"""Prediction types that can be distilled: at the first step there is no signal, where the noise says nothing."""

_STEPS = (1, 2, 4, 8)


@dataclass(frozen=True)
class DistillSettings:
    """How a fitted denoiser is distilled to few steps. All but `samples` is part of the student's fingerprint.

    Attributes:
        steps: Steps that the student samples with: 1, 2, 4 or 8.
        teacher_steps: Steps that the first student halves: `steps` times 2, 4, 8, …
        fit_steps: Optimiser steps of each halving.
        lr: Peak learning rate of each halving.
        samples: Samples of each kind that the loss in fidelity is measured on, at the end of the fit; 0: it is not.
            It changes no weight, so a student that is found stays as it was measured.

    Raises:
        ConfigurationError: A value is out of its range.
    """

    steps: int = 4
    teacher_steps: int = 16
    fit_steps: int = 200
    lr: float = 1e-3
    samples: int = 500

    def __post_init__(self) -> None:
        if self.steps not in _STEPS or isinstance(self.steps, bool):
            raise ConfigurationError(
                f"distill.steps={self.steps!r} is none of {_STEPS}: each distillation halves the number of steps. Set "
                "generator.distill.steps to one of them."
            )
        if self.teacher_steps not in [self.steps * 2**k for k in range(1, 8)]:
            raise ConfigurationError(
                f"distill.teacher_steps={self.teacher_steps!r} is not distill.steps={self.steps} times 2, 4, 8, … "
                f"(up to 128): each distillation halves it. Set generator.distill.teacher_steps to e.g. "
                f"{4 * self.steps}."
            )
        for name, least in (("fit_steps", 1), ("samples", 0)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise ConfigurationError(
                    f"distill.{name}={value!r} is no whole number from {least}. Set generator.distill.{name} to one."
                )
        if isinstance(self.lr, bool) or not isinstance(self.lr, (int, float)) or not 0.0 < self.lr <= 1.0:
            raise ConfigurationError(
                f"distill.lr={self.lr!r} is not in (0, 1]: it is the peak learning rate. Set generator.distill.lr."
            )
        object.__setattr__(self, "lr", float(self.lr))

    @classmethod
    def of(cls, values: Mapping[str, Any] | DistillSettings | None) -> DistillSettings:
        """Settings from plain values, the rest being defaults.

        Raises:
            ConfigurationError: A key is unknown or a value out of its range.
        """
        if isinstance(values, DistillSettings):
            return values
        known = [field.name for field in fields(cls)]
        for key in values or {}:
            if key not in known:
                raise ConfigurationError(
                    f"generator.distill.{key} is unknown, so it would change nothing. There are {', '.join(known)}."
                )
        return cls(**(values or {}))

    @property
    def halvings(self) -> list[int]:
        """Steps of each student in turn, such as [8, 4]."""
        steps = [self.teacher_steps // 2]
        while steps[-1] > self.steps:
            steps.append(steps[-1] // 2)
        return steps

    @property
    def total(self) -> int:
        """Optimiser steps of all halvings."""
        return len(self.halvings) * self.fit_steps

    def key(self) -> dict[str, Any]:
        """The values that the student's weights depend on, for a fingerprint."""
        return {name: value for name, value in self.to_json().items() if name != "samples"}

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)
