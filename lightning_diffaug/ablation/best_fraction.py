"""At which synthetic fraction validation scores are highest, and how sure that is."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class BestFraction:
    """The best fraction of one family of arms, by a quadratic fit of its validation scores.

    Seeds are resampled whole, each with its scores at all fractions; those with fewer are left out.

    Attributes:
        family: Its name, such as "mixed".
        key: The validation metric that it is by.
        fractions: Those of the sweep, ascending.
        means: Mean score at each over the common seeds.
        seeds: How many seeds have all fractions.
        reason: Why there is no estimate (fewer than three fractions or seeds); None where there is one.
        best: Where the fit is highest between the smallest and the largest fraction; None without an estimate, as are
            those that follow.
        median: Median of it over the bootstrap.
        low: Lower end of its 95% percentile interval.
        high: Upper end.
        unimodal: Where the isotonic fit that rises and then falls is highest: first and last fraction of its top.
        flat: The interval covers nearly the whole range: scores do not tell one fraction from another.
        curve: Points (fraction, score) of the fit, for a plot; () without an estimate.
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

    @property
    def sentence(self) -> str:
        """What is found, in words."""
        raise NotImplementedError
