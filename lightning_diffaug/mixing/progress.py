"""What was drawn so far, over epochs and resumes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from fractions import Fraction
from typing import Any

import numpy as np

from lightning_diffaug.errors import ConfigurationError
from lightning_diffaug.mixing.plan import Made


@dataclass
class MixProgress:
    """Counts over all ranks. Plain values, so that they travel in a checkpoint.

    Attributes:
        draws: Draws made.
        requested: Synthetic draws that the fraction asked for (real-valued).
        real_by_class: Real draws of each class.
        synthetic_by_class: Synthetic draws of each class.
        offered_by_class: Pooled samples of each class that the windows held so far.
        seen_slots: Slots 0 … seen_slots − 1 are counted in `offered_by_class`.
        short_epochs: Epochs whose window was not the one asked for.
    """

    draws: int = 0
    requested: float = 0.0
    real_by_class: list[int] = field(default_factory=list)
    synthetic_by_class: list[int] = field(default_factory=list)
    offered_by_class: list[int] = field(default_factory=list)
    seen_slots: int = 0
    short_epochs: int = 0

    @classmethod
    def empty(cls, num_classes: int) -> MixProgress:
        """Nothing drawn yet."""
        return cls(
            real_by_class=[0] * num_classes,
            synthetic_by_class=[0] * num_classes,
            offered_by_class=[0] * num_classes,
        )

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> MixProgress:
        """The inverse of `state`."""
        return cls(**state)

    def state(self) -> dict[str, Any]:
        """Plain values for a checkpoint."""
        return asdict(self)

    def plus(self, made: Made, fraction: Fraction) -> MixProgress:
        """These counts and the draws of (a part of) one more epoch.

        Raises:
            ConfigurationError: These counts, out of a checkpoint, are of other classes.
        """
        return MixProgress(
            draws=self.draws + made.draws,
            requested=self.requested + float(fraction * made.draws),
            real_by_class=_sum(self.real_by_class, made.real_by_class),
            synthetic_by_class=_sum(self.synthetic_by_class, made.synthetic_by_class),
            offered_by_class=self.offered_by_class,
            seen_slots=self.seen_slots,
            short_epochs=self.short_epochs,
        )

    def offer(self, slot: np.ndarray[Any, Any], by_class: Sequence[np.ndarray[Any, Any]]) -> None:
        """Counts the rows of slots that no window held before.

        Raises:
            ConfigurationError: These counts, out of a checkpoint, are of other classes.
        """
        new = [int((slot[rows] >= self.seen_slots).sum()) for rows in by_class]
        self.offered_by_class = _sum(self.offered_by_class, new)
        self.seen_slots = max([self.seen_slots, *(int(k) + 1 for k in slot[-1:])])

    @property
    def synthetic(self) -> int:
        """Synthetic draws made."""
        return sum(self.synthetic_by_class)

    @property
    def requested_fraction(self) -> float:
        """Mean of the share asked for over all draws made."""
        return self.requested / self.draws if self.draws else 0.0

    @property
    def achieved_fraction(self) -> float:
        """Share of all draws made that is synthetic."""
        return self.synthetic / self.draws if self.draws else 0.0

    @property
    def reuse(self) -> float:
        """Mean uses of the pooled samples that the windows held so far."""
        return self.synthetic / max(sum(self.offered_by_class), 1)

    @property
    def reuse_by_class(self) -> list[float]:
        """The same for each class; 0 where no window held any."""
        pairs = zip(self.synthetic_by_class, self.offered_by_class, strict=True)
        return [drawn / max(offered, 1) for drawn, offered in pairs]


def _sum(first: Sequence[int], second: Sequence[int] | np.ndarray[Any, Any]) -> list[int]:
    if len(first) != len(second):
        raise ConfigurationError(
            f"the checkpoint counts draws of {len(first)} classes, and the training data have {len(second)}, so it "
            "cannot be gone on from. Resume with the data set that it was made with (real.root, labels), or start anew "
            "without ckpt_path."
        )
    return [int(a) + int(b) for a, b in zip(first, second, strict=True)]
