"""How figures are written in a report."""

from __future__ import annotations

from lightning_diffaug.ablation.differences import Comparison
from lightning_diffaug.ablation.markup import Cell
from lightning_diffaug.ablation.statistics import Difference, Estimate

NONE = "n/a"


def per_cent(estimate: Estimate | None, digits: int = 1, strong: bool = False) -> Cell:
    """A share of 1 in per cent, ± half its interval."""
    if estimate is None:
        return Cell(NONE)
    half = estimate.half_width
    text = f"{100 * estimate.mean:.{digits}f}" + ("" if half is None else f" ± {100 * half:.{digits}f}")
    return Cell(text, value=estimate.mean, strong=strong)


def points(difference: Difference | None, small: str = "") -> Cell:
    """A difference in percentage points with its interval."""
    if difference is None:
        return Cell(NONE)
    half = difference.half_width
    text = f"{_no_zero(100 * difference.mean):+.1f}" + ("" if half is None else f" ± {100 * half:.1f}")
    return Cell(text, small, difference.mean, strong=difference.above or difference.below)


def compared(comparison: Comparison | None) -> Cell:
    """The deciding difference, and below it its p-value, effect size and pairs."""
    if comparison is None or comparison.deciding is None:
        return Cell(NONE)
    difference = comparison.deciding
    said = []
    if comparison.p_holm is not None:
        said.append(f"p\u00a0{p_value(comparison.p_holm)}\u00a0(Holm)")
    elif difference.p is not None:
        said.append(f"p\u00a0{p_value(difference.p)}\u00a0(alone)")
    if difference.effect is not None:
        said.append(f"d\u00a0{_no_zero(difference.effect):.1f}")
    return points(difference, ", ".join([*said, f"n\u00a0{difference.n}"]))


def _no_zero(value: float) -> float:
    """Rounded to what is shown, without the sign of a zero."""
    return round(value, 1) + 0.0


def p_value(p: float) -> str:
    """A p-value."""
    return "<\u00a00.001" if p < 0.001 else f"{p:.3f}" if p < 0.1 else f"{p:.2f}"


def amount(value: float | None, digits: int = 1) -> Cell:
    """A figure of a cost."""
    return Cell(NONE) if value is None else Cell(f"{value:,.{digits}f}", value=value)
