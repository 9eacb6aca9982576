"""Gates against what is plainly wrong: values that are not finite, values out of range."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


def _rows(value: Tensor) -> Tensor:
    return value.reshape(len(value), -1)


@dataclass(frozen=True)
class Finite:
    """Rejects rows with a NaN or an infinity."""

    name: str = "finite"

    def __call__(self, samples: Mapping[str, Tensor], condition: Mapping[str, Any]) -> Tensor:
        """Bool (n,): every value of the row is finite."""
        return torch.stack([_rows(value).isfinite().all(1) for value in samples.values()]).all(0)


@dataclass(frozen=True)
class InRange:
    """Rejects rows with a value outside [-1, 1] by more than `tolerance` (a generator that scales otherwise)."""

    tolerance: float = 0.05
    name: str = "range"

    def __call__(self, samples: Mapping[str, Tensor], condition: Mapping[str, Any]) -> Tensor:
        """Bool (n,): every value of the row is in [-1 - tolerance, 1 + tolerance]."""
        bound = 1.0 + self.tolerance
        return torch.stack([(_rows(value).abs() <= bound).all(1) for value in samples.values()]).all(0)
