"""Planners: slot number → what its rows shall be. Pure functions, so any writer plans a slot alike."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from lightning_diffaug.conditions.feedback import Feedback, followed
from lightning_diffaug.errors import ConfigurationError

_GOLDEN = (5**0.5 - 1) / 2


class Planner(Protocol):
    """Decides what a slot holds.

    One that reads the real training data has a method ``bind(snapshot)``, called once before the first plan. One that
    heeds the learner has ``follow(feedback)``, called before each plan with what holds for its slot, or None.
    """

    def plan(self, slot: int, rows: int) -> dict[str, Any]:
        """The condition of each row of a slot: name → tensor (rows, …) or list of `rows` plain values."""
        ...


class QuotaPlanner:
    """Gives every class its share of the rows, in each slot to the rounding and over slots exactly.

    Slot k samples the classes systematically (one offset, equal steps through the cumulated shares); the offsets
    follow the golden-ratio sequence, whose mean over any run of slots is uniform.

    With feedback from the learner the shares are those of `feedback.followed`.

    Args:
        shares: Share of each class, non-negative, in class order (normalised to sum 1). None: data without labels,
            whose rows have no condition.

    Raises:
        ConfigurationError: A share is negative, or all are 0.
    """

    def __init__(self, shares: Sequence[float] | None) -> None:
        self.shares = None if shares is None else [float(share) for share in shares]
        total = sum(self.shares or [])
        if self.shares is not None and not (0 < total < math.inf and min(self.shares) >= 0):
            raise ConfigurationError(
                f"planner quotas {self.shares} do not say how often to make each class: shares are non-negative and "
                "at least one is above 0. Set data.planner to auto, uniform, as_real or {class: share}."
            )

        self._followed = self.shares

    def follow(self, feedback: Feedback | None) -> None:
        """Takes what the learner said, for the slots that are planned next."""
        if self.shares is not None:
            self._followed = followed(self.shares, feedback)

    def plan(self, slot: int, rows: int) -> dict[str, Tensor]:
        """Class labels of a slot.

        Args:
            slot: Slot number, from 0.
            rows: Rows in the slot.

        Returns:
            ``{"label": int64 (rows,)}`` with class indices; empty for data without labels.
        """
        if self._followed is None:
            return {}
        cumulated = np.cumsum(self._followed)
        cumulated /= cumulated[-1]  # just 1 at the end, so that a last class of share 0 gets nothing
        offset = (0.5 + slot * _GOLDEN) % 1.0
        labels = np.searchsorted(cumulated, (np.arange(rows) + offset) / rows, side="right")
        return {"label": torch.from_numpy(np.minimum(labels, len(cumulated) - 1).astype(np.int64))}


def take(condition: Mapping[str, Any], rows: Sequence[int]) -> dict[str, Any]:
    """The condition of some of the rows; a mapping (field → samples) is taken from inside."""
    index = torch.as_tensor(rows, dtype=torch.int64)

    def of(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {field: of(samples) for field, samples in value.items()}
        if isinstance(value, Tensor):
            return value.index_select(0, index.to(value.device))
        return [value[row] for row in rows]

    return {name: of(value) for name, value in condition.items()}
