"""How figures are written: in sentences, in Markdown, on plots and in the page."""

from __future__ import annotations

from lightning_diffaug.ablation.differences import Comparison
from lightning_diffaug.ablation.markup import Cell
from lightning_diffaug.ablation.statistics import Difference, Estimate

NONE = "n/a"


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


def p_value(p: float | None) -> str:
    """Such as "0.012" or "< 0.001"."""
    if p is None:
        return NONE
    return "< 0.001" if p < 0.001 else f"{p:.3f}" if p < 0.1 else f"{p:.2f}"


# -- cells of the page's tables


def per_cent(estimate: Estimate | None, digits: int = 1, strong: bool = False) -> Cell:
    """A share of 1 in per cent, ± half its interval."""
    text = in_per_cent(estimate, digits)
    return Cell(text) if estimate is None else Cell(text, value=estimate.mean, strong=strong)


def points(difference: Difference | None, small: str = "") -> Cell:
    """A difference in percentage points with its interval."""
    text = in_per_cent(difference, sign="+")
    if difference is None:
        return Cell(text)
    return Cell(text, small, difference.mean, strong=difference.above or difference.below)


def compared(comparison: Comparison | None) -> Cell:
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
    return points(difference, ", ".join(part.replace(" ", "\u00a0") for part in said))


def amount(value: float | None, digits: int = 1) -> Cell:
    """A figure of a cost."""
    return Cell(NONE) if value is None else Cell(f"{value:,.{digits}f}", value=value)
