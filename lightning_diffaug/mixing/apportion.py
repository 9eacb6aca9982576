"""Dividing a total among classes: water-filling, proportions under a limit, whole numbers."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

FloatArray: TypeAlias = npt.NDArray[np.float64]
IntArray: TypeAlias = npt.NDArray[np.int64]

_TIE_DIGITS = 6  # Remainders closer than this are ties; the float error of a target of 10⁷ is 10⁻⁹.


def water_fill(n: FloatArray, total: float, cap: FloatArray) -> FloatArray:
    """Water-filling: S_c = min(max(L − n_c, 0), cap_c) for the level L at which they sum to ``total``."""
    part = cap > 0
    lower, upper = n[part], (n + cap)[part]
    # Σ S_c is piecewise linear in L, with kinks where a class starts (n_c) and stops (n_c + cap_c) to fill.
    kinks = np.unique(np.concatenate([lower, upper[np.isfinite(upper)]]))
    starts, stops = np.sort(lower), np.sort(upper)
    started = np.concatenate([[0.0], np.cumsum(starts)])
    stopped = np.concatenate([[0.0], np.cumsum(stops[np.isfinite(stops)])])
    i, j = np.searchsorted(starts, kinks, "right"), np.searchsorted(stops, kinks, "right")
    volume = (i * kinks - started[i]) - (j * kinks - stopped[j])
    at = int(np.searchsorted(volume, total, "right")) - 1
    filling = max(int(i[at] - j[at]), 1)
    level = kinks[at] + (total - volume[at]) / filling
    filled: FloatArray = np.clip(level - n, 0.0, cap)
    return filled


def fill_deficit(n: FloatArray, total: float, cap: FloatArray, unbounded_weight: FloatArray) -> FloatArray:
    """Fills the classes that lack up to the largest one, then all in proportion to their room."""
    top = n.max()
    to_top = np.minimum(np.maximum(top - n, 0.0), cap)
    if total <= to_top.sum():
        return water_fill(n, total, cap)
    room = cap - to_top if np.isfinite(cap).all() else unbounded_weight
    filled: FloatArray = to_top + (total - to_top.sum()) * room / room.sum()
    return filled


def proportional(weights: FloatArray, total: float, limit: FloatArray) -> FloatArray:
    """min(λ · w_c, limit_c) for the λ at which they sum to ``total``."""
    result, open_ = np.zeros_like(weights), weights > 0
    while open_.any():
        scaled = weights * (total - result[~open_].sum()) / weights[open_].sum()
        over = open_ & (scaled > limit)
        if not over.any():
            return np.where(open_, scaled, result)
        result = np.where(over, limit, result)
        open_ &= ~over
    return result


def largest_remainder(
    targets: npt.ArrayLike, total: int, order: npt.ArrayLike, upper: npt.ArrayLike | None = None
) -> IntArray:
    """Whole numbers in the proportions of ``targets`` that sum to ``total`` (Hamilton's method).

    Args:
        targets: Non-negative reals, (C,); scaled to ``total``.
        total: The sum to reach.
        order: A permutation of the classes that breaks ties, earlier ones first; keyed by the epoch, it keeps
            rounding from favouring one class for ever.
        upper: The most that each class may get, (C,), integers.

    Raises:
        ValueError: If no such numbers exist.
    """
    t = np.asarray(targets, np.float64)
    limit = np.full(t.shape, total, np.int64) if upper is None else np.asarray(upper, np.int64)
    if total < 0 or (t < 0).any() or (total > 0 and t.sum() <= 0) or int(limit.sum()) < total:
        raise ValueError(f"targets {t} cannot be rounded to a sum of {total} within {limit}")
    if total == 0:
        return np.zeros(t.shape, np.int64)
    exact = proportional(t, total, limit.astype(np.float64))
    whole: IntArray = np.floor(exact).astype(np.int64)
    rank = np.empty(t.size, np.int64)
    rank[np.asarray(order, np.int64)] = np.arange(t.size)
    while (missing := total - int(whole.sum())) > 0:
        # A second round only where an upper bound holds something back.
        remainder = np.round(exact - whole, _TIE_DIGITS)
        first = np.lexsort((rank, -remainder))
        whole[first[whole[first] < limit[first]][:missing]] += 1
    return whole
