"""How figures are written: in sentences, in Markdown, on plots and in the page."""

from __future__ import annotations

import math

from lightning_diffaug.ablation.differences import Comparison
from lightning_diffaug.ablation.markup import Cell
from lightning_diffaug.ablation.metric import Metric
from lightning_diffaug.ablation.statistics import Difference, Estimate

NONE = "n/a"
_ROUNDING = 1e-9
"""Of a mean: an interval so narrow is that of equal values."""


def rounded(value: float, digits: int, sign: str = "") -> str:
    """A number with so many digits behind the point, and no sign before a zero that has none."""
    return f"{round(value, digits) + 0.0:{sign}.{digits}f}"


def in_per_cent(estimate: Estimate | None, digits: int = 1, sign: str = "") -> str:
    """A share of 1 as per cent, such as "90.1 ± 0.5", with half its interval where it has one.

    Args:
        estimate: A mean, or a difference; None: there is none.
        digits: Behind the point.
        sign: "+" for a difference.
    """
    if estimate is None:
        return NONE
    half = estimate.half_width
    text = rounded(100 * estimate.mean, digits, sign)
    return text if half is None else f"{text} ± {rounded(100 * half, digits)}"


def in_points(difference: Difference | None, sign: str = "+") -> str:
    """A difference in percentage points, such as "+2.1 ± 0.9 points"; one below a tenth with two digits."""
    if difference is None:
        return "not known (no common seed)"
    digits = 1 if abs(difference.mean) >= 0.001 or difference.mean == 0 else 2
    return f"{in_per_cent(difference, digits, sign)} points"


def in_units(estimate: Estimate | None, sign: str = "") -> str:
    """A number that is no share, such as "0.00631 ± 0.00042": two digits of half its interval, or three of its own."""
    if estimate is None:
        return NONE
    half, mean = estimate.half_width, estimate.mean
    if half is not None and half <= _ROUNDING * abs(mean):
        return f"{mean:{sign}.3g} ± 0"
    digits = 1 if half else 2
    size = half or abs(mean)
    if not size or not math.isfinite(size):
        return f"{mean:{sign}.3g}"
    power = math.floor(math.log10(max(abs(mean), size)))
    places = max(digits - math.floor(math.log10(size)), 0)
    if -4 <= power < 6:
        text = rounded(mean, places, sign)
        return text if half is None else f"{text} ± {rounded(half, places)}"
    places = max(places + power, 0)
    text = rounded(mean / 10.0**power, places, sign)
    return f"{text}e{power:+03d}" if half is None else f"({text} ± {rounded(half / 10.0**power, places)})e{power:+03d}"


def as_score(estimate: Estimate | None, metric: Metric, digits: int = 1, sign: str = "") -> str:
    """A metric's value or difference without its unit: a share in per cent, else as it is."""
    return in_per_cent(estimate, digits, sign) if metric.share else in_units(estimate, sign)


def as_difference(difference: Difference | None, metric: Metric, sign: str = "+") -> str:
    """A difference of a metric with its unit, such as "+2.1 ± 0.9 points" or "-0.012 ± 0.003 s"."""
    if metric.share or difference is None:
        return in_points(difference, sign)
    return f"{in_units(difference, sign)} {metric.unit}".rstrip()


def p_value(p: float | None) -> str:
    """Such as "0.012" or "< 0.001"."""
    if p is None:
        return NONE
    return "< 0.001" if p < 0.001 else f"{p:.3f}" if p < 0.1 else f"{p:.2f}"


# -- cells of the page's tables


def per_cent(estimate: Estimate | None, digits: int = 1, strong: bool = False, metric: Metric | None = None) -> Cell:
    """A share of 1 in per cent, or a metric that is none as it is, ± half its interval."""
    text = in_per_cent(estimate, digits) if metric is None else as_score(estimate, metric, digits)
    return Cell(text) if estimate is None else Cell(text, value=estimate.mean, strong=strong)


def points(difference: Difference | None, small: str = "", metric: Metric | None = None) -> Cell:
    """A difference in percentage points, or of a metric that is no share as it is, with its interval."""
    text = in_per_cent(difference, sign="+") if metric is None else as_score(difference, metric, sign="+")
    if difference is None:
        return Cell(text)
    return Cell(text, small, difference.mean, strong=difference.above or difference.below)


def compared(comparison: Comparison | None, metric: Metric | None = None) -> Cell:
    """The deciding difference, and below it its p-value, effect size and pairs."""
    if comparison is None or comparison.deciding is None:
        return Cell(NONE)
    difference = comparison.deciding
    said = []
    if comparison.p_holm is not None:
        said.append(f"p {p_value(comparison.p_holm)} (Holm)")
    elif difference.p is not None:
        said.append(f"p {p_value(difference.p)} (alone)")
    if difference.effect is not None:
        said.append(f"d {rounded(difference.effect, 1)}")
    said.append(f"n {difference.n}")
    return points(difference, ", ".join(part.replace(" ", "\u00a0") for part in said), metric)


def amount(value: float | None, digits: int = 1) -> Cell:
    """A figure of a cost."""
    return Cell(NONE) if value is None else Cell(f"{value:,.{digits}f}", value=value)
