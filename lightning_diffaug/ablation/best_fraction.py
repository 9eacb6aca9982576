"""At which synthetic fraction validation scores are highest, and how sure that is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import special
from sklearn.isotonic import isotonic_regression

from lightning_diffaug.ablation.choice import is_corrected, synthetic, without_generator
from lightning_diffaug.ablation.metric import Metric
from lightning_diffaug.ablation.statistics import MIN_FOR_INTERVAL, SAME
from lightning_diffaug.ablation.summary import ArmSummary

Array = npt.NDArray[np.float64]
MIN_FRACTIONS = 3
"""A parabola goes through any two points."""
_GRID = 201
_MOST = 0.75
_SHOWN = 41


@dataclass(frozen=True)
class BestFraction:
    """The best fraction of one family of arms, by a quadratic fit of its validation scores.

    Seeds are resampled whole, each with its scores at all fractions; those with fewer are left out. Deviations are
    widened for few seeds, of which a plain bootstrap is too narrow.

    Attributes:
        family: Its name, such as "mixed".
        key: The validation metric that it is by.
        fractions: Those of the sweep, ascending.
        means: Mean score at each over the common seeds; () where there is none.
        seeds: How many seeds have all fractions.
        reason: Why there is no estimate (fewer than three fractions or seeds); None where there is one.
        best: Where the fit is best between the smallest and the largest fraction; None without an estimate, as are
            those that follow.
        median: Median of it over the bootstrap.
        low: Lower end of its 95% percentile interval.
        high: Upper end.
        unimodal: Where the isotonic fit that rises and then falls is highest: first and last fraction of its top.
        flat: The interval covers most of the range (three quarters): scores do not tell one fraction from another.
        curve: Points (fraction, score) of the fit, for a plot; () without an estimate.
        lower: Less is better: the best is where the fit is lowest.
    """

    family: str
    key: str
    fractions: tuple[float, ...]
    means: tuple[float, ...]
    seeds: int
    reason: str | None = None
    best: float | None = None
    median: float | None = None
    low: float | None = None
    high: float | None = None
    unimodal: tuple[float, float] | None = None
    flat: bool = False
    curve: tuple[tuple[float, float], ...] = ()
    lower: bool = False

    @property
    def sentence(self) -> str:
        """What is found, in words."""
        if self.reason is not None or self.best is None or self.low is None or self.high is None:
            return f"{self.family}: no estimate of the best fraction, {self.reason}."
        between = f"{self.low:.2g} to {self.high:.2g}"
        if self.flat:
            return (
                f"{self.family}: validation data do not tell which fraction is best (95% interval of the quadratic "
                f"fit's optimum {between}, most of the range; {self.seeds} seeds). {self._of_those_run}"
            )
        said = (
            f"{self.family}: a quadratic fit to the validation scores of all fractions is best at {self.best:.2g} "
            f"(95% interval {between}, {self.seeds} seeds)"
        )
        if self.unimodal is not None and not (self.low <= self.unimodal[1] and self.unimodal[0] <= self.high):
            first, last = (f"{x:.2g}" for x in self.unimodal)
            at = first if first == last else f"{first} to {last}"
            shape = "falls and then rises is lowest" if self.lower else "rises and then falls is highest"
            said += f"; a fit that only {shape} at {at}: a parabola does not fit well"
        return f"{said}. {self._of_those_run}"

    @property
    def _of_those_run(self) -> str:
        """The best mean itself, which is what a verdict goes by; of two that are equal the smaller fraction counts."""
        sign = -1.0 if self.lower else 1.0
        top = max(sign * mean for mean in self.means)
        at = next(x for x, mean in zip(self.fractions, self.means, strict=True) if sign * mean >= top - SAME)
        return f"Of the fractions that were run, {at:.4g} has the best mean."


def best_fractions(
    arms: Sequence[ArmSummary], metric: Metric, seed: int = 0, resamples: int = 2000
) -> list[BestFraction]:
    """The best fraction of each family of synthetic arms that has more than one, fraction 0 included.

    Args:
        arms: Of one task.
        metric: See `chosen_metric`; its validation score with the class prior corrected counts, where all arms have it.
        seed: Of the bootstrap.
        resamples: How many.
    """
    scored = [arm for arm in arms if arm.values.get(metric.key("test"))]
    key = metric.key("val", is_corrected(scored, metric))
    found = []
    for family in dict.fromkeys(arm.family for arm in synthetic(arms)):
        members = [arm for arm in (*synthetic(arms), *without_generator(arms)) if arm.family == family]
        members = sorted({arm.fraction: arm for arm in members}.values(), key=lambda arm: arm.fraction)
        if len(members) > 1:
            found.append(_best(family, members, key, seed, resamples, -1.0 if metric.lower else 1.0))
    return found


def _best(family: str, arms: Sequence[ArmSummary], key: str, seed: int, resamples: int, sign: float) -> BestFraction:
    common = sorted(set.intersection(*(set(arm.values.get(key, {})) for arm in arms)))
    # where less is better scores are turned round, so that the best is always a top
    scores = np.array([[sign * arm.values[key][s] for arm in arms] for s in common]).reshape(len(common), len(arms))
    fractions = np.array([arm.fraction for arm in arms])
    means = tuple(float(sign * x) for x in scores.mean(axis=0)) if common else ()
    found = BestFraction(family, key, tuple(map(float, fractions)), means, len(common), lower=sign < 0)
    if len(arms) < MIN_FRACTIONS:
        return replace(found, reason=f"as there are {len(arms)} fractions, and it takes {MIN_FRACTIONS}")
    if len(common) < MIN_FOR_INTERVAL:
        return replace(
            found, reason=f"as {len(common)} seeds have {key} at all fractions, and it takes {MIN_FOR_INTERVAL}"
        )
    grid = np.linspace(fractions[0], fractions[-1], _GRID)
    fit = np.vander(grid, 3) @ np.linalg.pinv(np.vander(fractions, 3))
    rng = np.random.default_rng(seed)
    weights = rng.multinomial(len(common), np.full(len(common), 1 / len(common)), resamples) / len(common)
    of_means = fit @ scores.mean(axis=0)
    first, last = _tops(of_means + _widened(len(common)) * (weights @ scores @ fit.T - of_means), grid)
    start, end = (float(x[0]) for x in _tops(of_means[None], grid))
    low, high = float(np.quantile(first, 0.025)), float(np.quantile(last, 0.975))
    shown = np.linspace(0, _GRID - 1, _SHOWN).round().astype(int)
    return replace(
        found,
        best=(start + end) / 2,
        median=float(np.median((first + last) / 2)),
        low=low,
        high=high,
        unimodal=_unimodal_top(fractions, scores.mean(axis=0)),
        flat=bool(high - low >= _MOST * (fractions[-1] - fractions[0])),
        curve=tuple((float(grid[i]), float(sign * of_means[i])) for i in shown),
    )


def _widened(n: int) -> float:
    """By how much bootstrap deviations of n values are too small (Hesterberg 2015): their variance, and t for z."""
    return float(np.sqrt(n / (n - 1)) * special.stdtrit(n - 1, 0.975) / special.ndtri(0.975))


def _tops(curves: Array, grid: Array) -> tuple[Array, Array]:
    """First and last place where each curve ``(n, grid)`` is highest: far apart for one that is level."""
    top = curves >= curves.max(axis=1, keepdims=True) - SAME
    return grid[top.argmax(axis=1)], grid[::-1][top[:, ::-1].argmax(axis=1)]


def _unimodal_top(fractions: Array, means: Array) -> tuple[float, float]:
    """Where the least-squares fit that rises up to a fraction and falls behind it is highest."""
    fits: list[Any] = []
    for peak in range(1, len(means) + 1):
        rising = isotonic_regression(means[:peak])
        falling = isotonic_regression(means[peak:], increasing=False) if peak < len(means) else means[:0]
        fits.append(np.concatenate([rising, falling]))
    best = min(fits, key=lambda fit: float(((fit - means) ** 2).sum()))
    top = np.flatnonzero(best >= best.max() - SAME)
    return float(fractions[top[0]]), float(fractions[top[-1]])
