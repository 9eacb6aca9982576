"""What the learner says of the training data: planner, generator and gates may follow it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

METRICS = ("loss", "entropy", "error")
CRITERIA = ("entropy", "loss")
"""Those by which single samples are hard to a learner: how unsure it is, and how wrong."""


class Learner(Protocol):
    """A learner's network as it was at some time, in eval mode; a `torch.nn.Module`."""

    columns: Tensor
    """The logit that stands for each class, int64 (C,)."""

    def __call__(self, x: Tensor) -> Tensor:
        """Logits (n, K) of inputs as training has them, float32 (n, *shape)."""
        ...

    def inputs(self, samples: Mapping[str, Tensor]) -> Tensor:
        """What training would have as input: of samples by field, float32 (n, *shape) in [-1, 1].

        Values are rounded as the pool stores them; the gradient is that of the conversion without the rounding.
        """
        ...

    def to(self, device: Any) -> Any:
        """Moves it to a device; returns it."""
        ...


@dataclass(frozen=True)
class Feedback:
    """What a learner said at some time; it holds for the slots from `from_slot` on, until the next.

    Attributes:
        from_slot: The first slot that follows it.
        classes: Metric (one of `METRICS`) → mean over the training samples of each class, (C,); NaN for a class of
            which none was seen. Loss and entropy are in nats, error is a share.
        samples: Metric → float32 (n,), one value for each row of the training snapshot; NaN where it was not seen.
        learner: Loads the learner's network as it was then. None where its weights were not handed over.
        metric: The one by which classes are planned.
        strength: How far plans follow it, in [0, 1]; see `followed`.
    """

    from_slot: int
    classes: Mapping[str, Sequence[float]] = field(default_factory=dict)
    samples: Mapping[str, Tensor] = field(default_factory=dict)
    learner: Callable[[], Learner] | None = None
    metric: str = "loss"
    strength: float = 0.0


def follow(parts: Sequence[Any], feedback: Feedback | None) -> None:
    """Tells those of the parts that have a method ``follow``."""
    for part in parts:
        if callable(getattr(part, "follow", None)):
            part.follow(feedback)


def followed(shares: Sequence[float], feedback: Feedback | None) -> list[float]:
    """Shares of classes, moved towards those that the learner finds hard.

    ``(1 − strength) · share + strength · score``, where the scores are the metric's class means, scaled so that the
    classes have together what they have without feedback. A class of share 0 gets nothing, and one of which the learner
    saw no sample keeps its share.

    Args:
        shares: Of each class, non-negative, of any sum above 0.
        feedback: What the learner said; None: the shares stay.

    Returns:
        Shares; of sum 1 where they were moved.
    """
    values = [] if feedback is None else list(feedback.classes.get(feedback.metric, ()))
    if feedback is None or feedback.strength == 0 or len(values) != len(shares):
        return list(shares)
    base = [float(share) / sum(shares) for share in shares]
    seen = [c for c, value in enumerate(values) if base[c] > 0 and math.isfinite(value)]
    scores = {c: max(values[c], 0.0) for c in seen}
    total, mass = sum(scores.values()), sum(base[c] for c in seen)
    if total <= 0:
        return list(shares)
    for c in seen:
        base[c] = (1 - feedback.strength) * base[c] + feedback.strength * mass * scores[c] / total
    return base


def scores_of(logits: Tensor, target: Tensor) -> dict[str, Tensor]:
    """What `METRICS` are of each sample.

    Args:
        logits: (n, K), of any floating dtype.
        target: The right logit of each, int64 (n,).

    Returns:
        ``loss``: cross-entropy; ``entropy``: of the predicted distribution, both in nats; ``error``: 0 or 1. Each
        float32 (n,).
    """
    log_p = F.log_softmax(logits.float(), dim=1)
    return {
        "loss": -log_p.gather(1, target[:, None])[:, 0],
        "entropy": torch.special.entr(log_p.exp()).sum(1),
        "error": (log_p.argmax(1) != target).float(),
    }
