"""How far real samples are noised: one strength for all, any in a range, or one of a list."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lightning_diffaug.errors import ConfigurationError

STRENGTH = "strength"
"""Key of a row's strength in a condition: float64 (n,)."""


@dataclass(frozen=True)
class Strengths:
    """The strengths that rows are made at.

    Attributes:
        values: The list, each of its values as likely; or the ends of the range.
        is_range: Whether `values` are the ends of a range, all of which is as likely.
    """

    values: tuple[float, ...]
    is_range: bool = False

    @classmethod
    def of(cls, given: Any) -> Strengths:
        """From a number, a list of numbers (DA-Fusion, Trabucco et al. 2024: .25, .5, .75, 1), or ``{low:, high:}``.

        Raises:
            ConfigurationError: It is none of them, or not in [0, 1].
        """
        if isinstance(given, Strengths):
            return given
        values: tuple[Any, ...] = (given,)
        is_range = isinstance(given, Mapping)
        if isinstance(given, Mapping):
            values = tuple(given.get(end) for end in ("low", "high")) if set(given) == {"low", "high"} else ()
        elif isinstance(given, Sequence) and not isinstance(given, str):
            values = tuple(given)
        if not values or not all(map(_is_share, values)) or (is_range and values[0] > values[1]):
            raise ConfigurationError(
                f"strength={given!r} is not in [0, 1], a list of such numbers, or {{low: …, high: …}} with low ≤ high: "
                "it is how far a real start sample is noised, 1 forgets it. Set generator.strength to e.g. 0.6, "
                "[0.25, 0.5, 0.75, 1.0] or {low: 0.25, high: 1.0}."
            )
        floats = tuple(float(value) for value in values)
        return cls(floats[:1]) if len(set(floats)) == 1 else cls(floats, is_range)

    @property
    def low(self) -> float:
        """The lowest."""
        return min(self.values)

    @property
    def high(self) -> float:
        """The highest."""
        return max(self.values)

    @property
    def varies(self) -> bool:
        """Whether each row has its own."""
        return len(self.values) > 1

    def at(self, u: float) -> float:
        """A row's strength.

        Args:
            u: Uniform in [0, 1).
        """
        if self.is_range:
            return self.low + u * (self.high - self.low)
        return self.values[int(u * len(self.values))]

    @property
    def plain(self) -> Any:
        """The setting as plain values; what means the same looks the same."""
        if not self.varies:
            return self.values[0]
        return {"low": self.low, "high": self.high} if self.is_range else list(self.values)


def _is_share(value: Any) -> bool:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return number and math.isfinite(value) and 0.0 <= value <= 1.0
