"""What the learner says of the training data: planner, generator and gates may follow it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn


@dataclass(frozen=True)
class Feedback:
    """What a learner said at some time; it holds for the slots from `from_slot` on, until the next.

    Attributes:
        from_slot: The first slot that follows it.
        classes: Metric (``loss``, ``entropy``, ``error``) → mean over the training samples of each class, (C,); NaN
            for a class of which none was seen.
        samples: Metric → float32 (n,), one value for each row of the training snapshot; NaN where it was not seen.
        learner: Loads the learner's network as it was then, in eval mode: float32 (n, *shape) as training has it →
            logits (n, C). None where its weights were not handed over.
    """

    from_slot: int
    classes: Mapping[str, Sequence[float]] = field(default_factory=dict)
    samples: Mapping[str, Tensor] = field(default_factory=dict)
    learner: Callable[[], nn.Module] | None = None


def follow(parts: Sequence[Any], feedback: Feedback | None) -> None:
    """Tells those of the parts that have a method ``follow``."""
    for part in parts:
        if callable(getattr(part, "follow", None)):
            part.follow(feedback)
