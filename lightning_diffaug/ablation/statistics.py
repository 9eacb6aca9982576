"""Means over seeds, their intervals, and differences paired by seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

#: With fewer values an interval says next to nothing (t = 12.7 at two), so none is given.
MIN_FOR_INTERVAL = 3


@dataclass(frozen=True)
class Estimate:
    """A mean and its interval.

    Attributes:
        n: Values that it is of.
        mean: Their mean.
        low: Lower end of the interval; None with fewer than `MIN_FOR_INTERVAL` values.
        high: Upper end, or None.
    """

    n: int
    mean: float
    low: float | None = None
    high: float | None = None

    @property
    def half_width(self) -> float | None:
        """Half the interval's width (it is symmetric), or None."""
        return None if self.low is None or self.high is None else (self.high - self.low) / 2


def t_interval(values: Sequence[float], confidence: float = 0.95) -> Estimate:
    """Mean with its two-sided Student t-interval, mean ± t(n − 1) · s / √n.

    Args:
        values: One of each seed, at least one.
        confidence: Coverage in (0, 1).

    Returns:
        The mean; the interval is not cut off at the ends of a metric's range, and has no width where all values agree.

    Raises:
        ValueError: There are no values.
    """
    if not values:
        raise ValueError("a mean needs at least one value")
    n, mean = len(values), float(np.mean(values))
    if n < MIN_FOR_INTERVAL:
        return Estimate(n, mean)
    half = float(stats.t.ppf((1 + confidence) / 2, n - 1) * stats.sem(values))
    return Estimate(n, mean, mean - half, mean + half)


def paired_difference(
    first: Mapping[int, float], second: Mapping[int, float], confidence: float = 0.95
) -> Estimate | None:
    """Mean of ``first − second`` over the seeds that both have, with the t-interval of the paired differences.

    Seeds that differ draw other training images, which moves all arms alike; pairing takes that out.

    Args:
        first: Value of each seed.
        second: Likewise.
        confidence: Coverage in (0, 1).

    Returns:
        The difference (n counts pairs); None without a common seed.
    """
    common = sorted(first.keys() & second.keys())
    return t_interval([first[seed] - second[seed] for seed in common], confidence) if common else None
