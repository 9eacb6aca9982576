"""Guidance by the learner: samples are pushed to where it is unsure, or wrong (Askari Hemmat et al. 2024)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from lightning_diffaug.conditions.feedback import CRITERIA, Learner, scores_of
from lightning_diffaug.errors import ConfigurationError, GeneratorError
from lightning_diffaug.generators.codec import Codec
from lightning_diffaug.generators.levels import Level
from lightning_diffaug.generators.protocol import LABEL, Condition
from lightning_diffaug.generators.schedulers import FLOW

if TYPE_CHECKING:
    from lightning_diffaug.spec import SampleSpec


@dataclass(frozen=True)
class GuidanceSettings:
    """How strongly the learner guides, and to what.

    Attributes:
        feedback_scale: Length of the push in each step, as a share of the length of the noisy sample; 0 is none.
        feedback_criterion: What is to rise, one of `CRITERIA`: the entropy of the learner's prediction, or its loss on
            the class that was asked for.

    Raises:
        ConfigurationError: A value is out of its range; the text names the key.
    """

    feedback_scale: float = 0.0
    feedback_criterion: str = "entropy"

    def __post_init__(self) -> None:
        scale = self.feedback_scale
        if isinstance(scale, bool) or not isinstance(scale, (int, float)) or not 0.0 <= scale < math.inf:
            raise ConfigurationError(
                f"feedback_scale={scale!r} is not a finite number ≥ 0: it is how far the learner pushes a sample in "
                "each step, as a share of its length. Set generator.feedback_scale to e.g. 0.01, or 0 for none."
            )
        if self.feedback_criterion not in CRITERIA:
            raise ConfigurationError(
                f"feedback_criterion={self.feedback_criterion!r} is unknown: it is what the learner's guidance raises. "
                f"Set generator.feedback_criterion to one of {', '.join(CRITERIA)}."
            )
        object.__setattr__(self, "feedback_scale", float(scale))  # 0 and 0.0 are one fingerprint

    def key(self) -> dict[str, Any]:
        """For a fingerprint; {} where there is no guidance."""
        return dict(vars(self)) if self.feedback_scale else {}

    def check(self, spec: SampleSpec, conditions: Mapping[str, Any] | None) -> None:
        """Refuses a denoiser that is not told the class, which the learner is asked about.

        Args:
            spec: The fields of a sample.
            conditions: What the denoiser is told, by name; None: the class, where there are labels.

        Raises:
            ConfigurationError: See above.
        """
        if not self.feedback_scale or (LABEL in spec and (conditions is None or LABEL in conditions)):
            return
        raise ConfigurationError(
            f"feedback_scale={self.feedback_scale}: the learner tells classes apart, and the denoiser is not told the "
            "class. Set generator.conditions.label=class where the data have labels, or generator.feedback_scale=0."
        )


@dataclass(frozen=True)
class LearnerGuidance:
    """Adds to a noisy sample the gradient of what the learner says of the clean sample in it.

    ``x_t + scale |x_t| g / |g|`` with ``g = ∇_{x_t} C(f(x̂_0))`` (Askari Hemmat et al. 2024, "Feedback-guided Data
    Synthesis for Imbalanced Classification", arXiv 2310.00158), the gradient brought to the sample's length as in the
    authors' code. It differs from that in two points: the learner sees x̂_0, clipped to [-1, 1], where they mix it with
    x_t; and x̂_0 comes of the prediction that the step is made with, guided or not, so that it costs no further call.

    Attributes:
        learner: The network, on the device of the denoiser.
        settings: Scale and criterion.
        prediction_type: Of the denoiser.
        channels: Of each field of a sample, in the order in which they are joined.
        codec: From what is denoised to samples, or None.
    """

    learner: Learner
    settings: GuidanceSettings
    prediction_type: str
    channels: Mapping[str, int]
    codec: Codec | None = None

    def __call__(
        self, predict: Callable[[Tensor], Tensor], x: Tensor, model_input: Tensor, level: Level, condition: Condition
    ) -> tuple[Tensor, Tensor]:
        """The prediction for a step, and the sample that the step is made from.

        Args:
            predict: `model_input` → prediction of the denoiser.
            x: (n, *shape) noisy samples, in the scaling of their scheduler.
            model_input: The same in that of the denoiser.
            level: Their noise level, in that of the scheduler.
            condition: What is asked for; its ``label`` is.

        Raises:
            GeneratorError: There is no label.
        """
        if LABEL not in condition:
            raise GeneratorError("the condition has no 'label', which the learner's guidance needs.")
        with torch.enable_grad():
            given = model_input.detach().requires_grad_()
            prediction = predict(given)
            clean = clean_sample(prediction, given, level, self.prediction_type)
            samples = clean if self.codec is None else self.codec.decode(clean)
            (gradient,) = torch.autograd.grad(self.value(samples, condition[LABEL]).sum(), given)
        dims = tuple(range(1, x.ndim))
        length = gradient.square().sum(dims, keepdim=True).sqrt()
        push = gradient / (length + 1e-8) * x.square().sum(dims, keepdim=True).sqrt()
        return prediction.detach(), x + self.settings.feedback_scale * push

    def value(self, samples: Tensor, label: Tensor) -> Tensor:
        """What is to rise: the criterion, (n,), of samples (n, *shape), fields joined, of classes int64 (n,)."""
        parts = torch.split(samples.clamp(-1.0, 1.0), list(self.channels.values()), dim=1)
        logits = self.learner(self.learner.inputs(dict(zip(self.channels, parts, strict=True))))
        return scores_of(logits, self.learner.columns[label])[self.settings.feedback_criterion]


def clean_sample(prediction: Tensor, model_input: Tensor, level: Level, prediction_type: str) -> Tensor:
    """The clean sample that a denoiser sees in a noisy one.

    Args:
        prediction: What it predicts.
        model_input: What it was given.
        level: Noise level, in the scaling of any scheduler.
        prediction_type: What it predicts; ``"flow"`` is of ``(1 - u) x_0 + u eps``, all else of unit variance.
    """
    if prediction_type == "sample":
        return prediction
    if prediction_type == FLOW:
        return model_input - level.noise * prediction
    norm = math.hypot(level.signal, level.noise)
    signal, noise = level.signal / norm, level.noise / norm
    if prediction_type == "v_prediction":
        return signal * model_input - noise * prediction
    return (model_input - noise * prediction) / signal
