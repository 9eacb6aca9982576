"""Means over seeds, their intervals, and differences paired by seed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special, stats

#: With fewer values an interval says next to nothing (t = 12.7 at two), so none is given.
MIN_FOR_INTERVAL = 3
#: Values that differ by less are equal: figures are shares of 1, and what is below is rounding.
SAME = 1e-12


@dataclass(frozen=True)
class Estimate:
    """A mean (or another statistic) and its interval.

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
        """Half the interval's width, or None; a t-interval is mean ± it, that of a bootstrap need not be."""
        return None if self.low is None or self.high is None else (self.high - self.low) / 2


@dataclass(frozen=True)
class Difference(Estimate):
    """The mean of differences paired by seed, its t-interval, and the test of whether it is 0.

    Attributes:
        p: Two-sided p-value of the paired t-test; None with fewer than `MIN_FOR_INTERVAL` pairs. Where all differences
            are one value other than 0, which the t-test takes for certainty, that of the exact test of signs, 2 · 2⁻ⁿ.
        effect: Standardised mean difference d_z (mean by standard deviation of the differences) with Hedges'
            correction for small n; None with fewer pairs, and where the differences do not vary.
    """

    p: float | None = None
    effect: float | None = None

    @property
    def negated(self) -> Difference:
        """The same difference the other way round."""
        low, high = (None if end is None else -end for end in (self.high, self.low))
        return Difference(self.n, -self.mean, low, high, self.p, None if self.effect is None else -self.effect)

    @property
    def above(self) -> bool:
        """Whether the interval is above 0."""
        return self.low is not None and self.low > 0

    @property
    def below(self) -> bool:
        """Whether the interval is below 0."""
        return self.high is not None and self.high < 0


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
    # scipy.special, as scipy.stats takes a hundred times as long for the same figures
    half = float(special.stdtrit(n - 1, (1 + confidence) / 2)) * float(np.std(values, ddof=1)) / n**0.5
    return Estimate(n, mean, mean - half, mean + half)


def paired_difference(
    first: Mapping[int, float], second: Mapping[int, float], confidence: float = 0.95
) -> Difference | None:
    """Mean of ``first − second`` over the seeds that both have, with the paired t-test and its interval.

    Seeds that differ draw other training images, which moves all arms alike; pairing takes that out.

    Args:
        first: Value of each seed.
        second: Likewise.
        confidence: Coverage in (0, 1).

    Returns:
        The difference (n counts pairs); None without a common seed.
    """
    common = sorted(first.keys() & second.keys())
    if not common:
        return None
    values = np.array([first[seed] - second[seed] for seed in common])
    found = t_interval(values.tolist(), confidence)
    n = len(values)
    if n < MIN_FOR_INTERVAL:
        return Difference(n, found.mean)
    if np.ptp(values) < SAME:
        p = 1.0 if abs(found.mean) < SAME else 2 * 0.5**n
        return Difference(n, found.mean, found.mean, found.mean, p)
    standardised = found.mean / float(values.std(ddof=1))
    p = 2 * float(special.stdtr(n - 1, -abs(standardised) * n**0.5))
    return Difference(n, found.mean, found.low, found.high, p, standardised * _hedges(n - 1))


def _hedges(freedom: int) -> float:
    """Hedges' (1981) correction J of a standardised difference's bias, exact; below 1."""
    return float(np.exp(special.gammaln(freedom / 2) - special.gammaln((freedom - 1) / 2)) / np.sqrt(freedom / 2))


def holm(ps: Sequence[float | None]) -> list[float | None]:
    """P-values adjusted by Holm's step-down method: rejecting those below α errs in any with probability α at most.

    Args:
        ps: Of one family of tests; None where there was none, which does not count.

    Returns:
        In the same order, at most 1; None stays.
    """
    order = sorted((p, i) for i, p in enumerate(ps) if p is not None)
    adjusted: list[float | None] = [None] * len(ps)
    highest = 0.0
    for rank, (p, i) in enumerate(order):
        highest = max(highest, min((len(order) - rank) * p, 1.0))
        adjusted[i] = highest
    return adjusted


def bootstrap_interval(
    values: Sequence[float],
    statistic: Callable[..., float] = np.mean,
    confidence: float = 0.95,
    seed: int = 0,
    resamples: int = 2000,
) -> Estimate:
    """A statistic with its bias-corrected and accelerated bootstrap interval (Efron 1987).

    For statistics that no t-interval fits. Of a handful of values it is too narrow: five seeds cover about 85%.

    Args:
        values: Independent values, at least one.
        statistic: Of the values; takes ``axis``.
        confidence: Coverage in (0, 1).
        seed: Of the resampling: equal ones give equal intervals.
        resamples: How many.

    Returns:
        The statistic as ``mean``; no interval with fewer than `MIN_FOR_INTERVAL` values, none of width where all agree.

    Raises:
        ValueError: There are no values.
    """
    if not values:
        raise ValueError("a statistic needs at least one value")
    data = np.asarray(values, float)
    found = float(statistic(data, axis=0))
    if len(data) < MIN_FOR_INTERVAL:
        return Estimate(len(data), found)
    if np.ptp(data) < SAME:
        return Estimate(len(data), found, found, found)
    rng = np.random.default_rng(seed)
    interval = stats.bootstrap(
        (data,), statistic, n_resamples=resamples, confidence_level=confidence, method="BCa", random_state=rng
    ).confidence_interval
    return Estimate(len(data), found, float(interval.low), float(interval.high))
