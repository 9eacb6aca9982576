"""When and how the learner is asked, and how far plans follow what it says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from lightning_diffaug.conditions.feedback import METRICS
from lightning_diffaug.config_check import argument_types, check_value
from lightning_diffaug.errors import ConfigurationError


@dataclass(frozen=True)
class FeedbackSettings:
    """When and how the learner is asked, and how far plans follow what it says.

    Attributes:
        metric: By what classes are planned: ``"loss"`` (cross-entropy), ``"entropy"`` of the prediction, or ``"error"``
            (share of wrong predictions).
        strength: How far the classes' shares follow it, in [0, 1]: 0 not at all, 1 they are in proportion to it.
        every: Epochs between two measurements, at least 1. One whose plan would hold for no slot, because the next
            epoch asks for none that is new, is put off to the end of the next epoch.
        start: Epochs before the first measurement, at least 1.
        samples: Training samples that are looked at, the classes as evenly as they reach; None: all.
        hand_over: Whether the refill process gets the learner's weights.
        scores: How it is measured: a callable ``(module, batch) -> {"loss": (n,), …}``, the import path of a function,
            or a mapping with ``_target_`` that makes one. None: the module's method ``feedback_scores(batch)``, else by
            its logits, ``module(x)``.
    """

    metric: str = "loss"
    strength: float = 0.5
    every: int = 1
    start: int = 1
    samples: int | None = 4096
    hand_over: bool = False
    scores: Any = None

    def __post_init__(self) -> None:
        for name, hint in argument_types(type(self)).items():
            object.__setattr__(self, name, check_value(getattr(self, name), hint, f"feedback.{name}"))
        if self.metric not in METRICS:
            raise ConfigurationError(
                f"feedback.metric={self.metric!r} is none of {', '.join(METRICS)}: it is what makes a class hard. Set "
                "feedback.metric=loss."
            )
        if not 0.0 <= self.strength <= 1.0:
            raise ConfigurationError(
                f"feedback.strength={self.strength!r} is not in [0, 1]: it is how far the classes' shares follow what "
                "the learner finds hard. Set feedback.strength to e.g. 0.5."
            )
        for name in ("every", "start", "samples"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigurationError(f"feedback.{name}={value} is below 1. Set feedback.{name} to 1 or more.")

        scores = self.scores
        named = isinstance(scores, Mapping) and "_target_" in scores
        if not (scores is None or isinstance(scores, str) or named or callable(scores)):
            raise ConfigurationError(
                f"feedback.scores={scores!r} is neither the import path of a function nor {{_target_: …}} that makes "
                "one: it is called with (module, batch). Set feedback.scores=package.function, or to null."
            )

    @classmethod
    def of(cls, value: Mapping[str, Any] | FeedbackSettings | None) -> FeedbackSettings | None:
        """Settings from a mapping; None for none, and for one whose metric is null.

        Raises:
            ConfigurationError: A key is not known, or a value is out of bounds.
        """
        if value is None or isinstance(value, FeedbackSettings):
            return value
        known = [field.name for field in fields(cls)]
        if not isinstance(value, Mapping):
            raise ConfigurationError(
                f"data.feedback={value!r} is neither null nor a mapping of {', '.join(known)}. Set data.feedback to "
                "null, or to e.g. {metric: loss}."
            )
        unknown = [key for key in value if key not in known]
        if unknown:
            raise ConfigurationError(f"feedback.{unknown[0]} is not a setting; there are {', '.join(known)}.")
        if "metric" in value and value["metric"] is None:
            return None
        return cls(**value)

    def marked(self, epoch: int) -> bool:
        """Whether the calendar says that the learner is asked at the end of an epoch, from 0."""
        done = epoch + 1 - self.start
        return done >= 0 and done % self.every == 0
