"""Gates against what is plainly wrong: values that are not finite, values out of range."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lightning_diffaug.gates.checks import check_number


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
class NotBlank:
    """Rejects rows that show nothing: every field is nearly constant.

    Args:
        contrast: Least difference between the highest and the lowest value of some field, of 2 (from -1 to 1).

    Raises:
        ConfigurationError: It is not in [0, 2].
    """

    contrast: float = 0.05
    name: str = "blank"

    def __post_init__(self) -> None:
        what = "the least difference between a sample's highest and lowest value"
        check_number(self.contrast, "blank", "contrast", what, 0.05, 0, 2)

    def __call__(self, samples: Mapping[str, Tensor], condition: Mapping[str, Any]) -> Tensor:
        """Bool (n,): some field of the row is not constant."""
        rows = [value for value in map(_rows, samples.values()) if value.shape[1] > 1]
        if not rows:  # single numbers are never anything else
            return torch.ones(len(next(iter(samples.values()))), dtype=torch.bool)
        return torch.stack([value.amax(1) - value.amin(1) >= self.contrast for value in rows]).any(0)


@dataclass(frozen=True)
class InRange:
    """Rejects rows with a value outside [-1, 1] by more than `tolerance` (a generator that scales otherwise).

    Raises:
        ConfigurationError: It is below 0.
    """

    tolerance: float = 0.05
    name: str = "range"

    def __post_init__(self) -> None:
        check_number(self.tolerance, "range", "tolerance", "how far outside [-1, 1] a value may be", 0.05, 0)

    def __call__(self, samples: Mapping[str, Tensor], condition: Mapping[str, Any]) -> Tensor:
        """Bool (n,): every value of the row is in [-1 - tolerance, 1 + tolerance]."""
        bound = 1.0 + self.tolerance
        return torch.stack([(_rows(value).abs() <= bound).all(1) for value in samples.values()]).all(0)
