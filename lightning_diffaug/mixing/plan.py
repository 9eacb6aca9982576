"""Which sample comes at which position of an epoch: a pure function, the same on every rank.

Global position p = t·W + r is draw t of rank r, so positions are disjoint over ranks. Every random order is
keyed by the seed, the epoch, what it is for, and the class, and is read from its front: what one class or
fraction takes never shifts what another gets.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from lightning_diffaug.mixing.allocation import Targets
from lightning_diffaug.mixing.apportion import IntArray, largest_remainder
from lightning_diffaug.mixing.order import Keys, RealOrder, Stream
from lightning_diffaug.mixing.schedule import as_fraction

BoolArray: TypeAlias = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class RankDraws:
    """One rank's consecutive draws: equally long int64 arrays, as of ``EpochPlan``."""

    real_index: IntArray
    window_row: IntArray
    cls: IntArray


@dataclass(frozen=True)
class Made:
    """What the first draws of all ranks were: totals, and per class (C,), where C = 1 for unlabelled data."""

    draws: int
    synthetic: int
    real_by_class: IntArray
    synthetic_by_class: IntArray


@dataclass(frozen=True, eq=False)
class EpochPlan:
    """All draws of one epoch.

    Attributes:
        world_size: W, the number of ranks.
        draws: D, draws per rank.
        real_index: Index of the real sample at each position, −1 where synthetic; int64 (W·D,).
        window_row: Row of the window at each position, −1 where real; int64 (W·D,).
        cls: Class at each position, −1 where unlabelled; int64 (W·D,).
        planned: Synthetic draws S_c that the fraction asks for, per class; int64 (C,).
        substituted: How many of these are real because the window lacks them; int64 (C,).
    """

    world_size: int
    draws: int
    real_index: IntArray
    window_row: IntArray
    cls: IntArray
    planned: IntArray
    substituted: IntArray

    @classmethod
    def build(
        cls,
        *,
        seed: int,
        epoch: int,
        draws: int,
        fraction: Any,
        targets: Targets,
        members: Sequence[npt.ArrayLike],
        window_rows: Sequence[npt.ArrayLike],
        world_size: int = 1,
        carried: Fraction | int = 0,
        available: npt.ArrayLike | None = None,
        shuffle: bool = True,
        exact: bool = True,
    ) -> EpochPlan:
        """Plans an epoch.

        Args:
            seed: Of all orders, any int.
            epoch: 0, 1, …
            draws: D, draws per rank, with ``drop_last`` already counted.
            fraction: f of this epoch, in [0, 1]; with ``mode=append`` the exact one of ``epoch_draws``.
            targets: Draws per class, in any scale.
            members: Indices of the real samples of each class; one array of all for unlabelled data.
            window_rows: Rows of the window of each class: 0, 1, … in all.
            world_size: W.
            carried: F = Σ f_i · D_i over the epochs before this one (``carried_draws``).
            available: Share in [0, 1] of each class's synthetic draws that the window can serve, (C,); the
                others become real draws of the class at the same position. 1 by default; 0 where a class has
                no row.
            shuffle: Whether real samples come in random order; else in that of the data, anew each epoch.
            exact: Whether each batch has its share to the rounding, else each draw is synthetic with
                probability f.

        Raises:
            ValueError: If the inputs contradict each other.
        """
        f = as_fraction(fraction)
        own = [np.asarray(m, np.int64) for m in members]
        rows = [np.asarray(r, np.int64) for r in window_rows]
        share = _available(available, rows)
        _check(targets, own, rows, world_size, draws)
        keys, total = Keys(seed, epoch), world_size * draws
        real = RealOrder(keys, own, shuffle, targets.labelled)

        # How many: of which kind each position is, then of which class.
        if exact:
            flags = _exact_flags(f, carried, world_size, draws)
        else:
            flags = keys.rng(Stream.BY_DRAW).random(total) < float(f)
        at_real, at_synthetic = np.flatnonzero(~flags), np.flatnonzero(flags)
        ties = keys.rng(Stream.ROUNDING).permutation(len(own))
        both: IntArray | None = None
        if targets.real_per_class:
            both = largest_remainder(targets.real + targets.synthetic, total, ties)
        planned = largest_remainder(targets.synthetic, at_synthetic.size, ties, both)
        served, substituted = _served(planned, share)

        # Which: draws are listed class by class, then spread over the epoch.
        if both is None:
            drawn, further = real.of_all(at_real.size, substituted)
            drawn_classes = real.class_of[drawn]
        else:
            count = both - planned
            streams = [real.of_class(c, k) for c, k in enumerate((count + substituted).tolist())]
            drawn = np.concatenate([stream[:k] for stream, k in zip(streams, count, strict=True)])
            spread = keys.spread(Stream.REAL_SPREAD, count, jitter=shuffle)
            drawn, drawn_classes = drawn[spread], np.repeat(np.arange(len(own)), count)[spread]
            further = [stream[k:] for stream, k in zip(streams, count, strict=True)]
        made = [keys.cycles(Stream.WINDOW, rows[c], k, c) for c, k in enumerate((planned - substituted).tolist())]
        spread = keys.spread(Stream.SYNTHETIC_SPREAD, planned)
        window_row, real_index, classes = (np.full(total, -1, np.int64) for _ in range(3))
        window_row[at_synthetic] = _listed(served, made)[spread]
        real_index[at_synthetic] = _listed(~served, further)[spread]
        real_index[at_real] = drawn
        if targets.labelled:
            classes[at_synthetic] = np.repeat(np.arange(len(own)), planned)[spread]
            classes[at_real] = drawn_classes
        return cls(world_size, draws, real_index, window_row, classes, planned, substituted)

    def rank_slice(self, rank: int, start: int, stop: int) -> RankDraws:
        """Draws ``start`` to ``stop`` (exclusive) of a rank, as views: O(1)."""
        if not (0 <= rank < self.world_size and 0 <= start <= stop <= self.draws):
            raise ValueError(
                f"rank {rank}, draws {start}:{stop} are not within {self.world_size} ranks of {self.draws}"
            )
        part = slice(start * self.world_size + rank, stop * self.world_size, self.world_size)
        return RankDraws(self.real_index[part], self.window_row[part], self.cls[part])

    def made(self, stop: int, start: int = 0) -> Made:
        """What draws ``start`` to ``stop`` (exclusive) of every rank are."""
        if not 0 <= start <= stop <= self.draws:
            raise ValueError(f"draws {start}:{stop} are not within the {self.draws} draws of a rank")
        part = slice(start * self.world_size, stop * self.world_size)
        # Unlabelled positions (−1) count as class 0, the only one there is.
        classes, synthetic = np.maximum(self.cls[part], 0), self.window_row[part] >= 0
        by_class = np.bincount(classes, minlength=self.planned.size)
        synthetic_by_class = np.bincount(classes[synthetic], minlength=self.planned.size)
        return Made(classes.size, int(synthetic.sum()), by_class - synthetic_by_class, synthetic_by_class)


def _exact_flags(f: Fraction, carried: Fraction | int, world_size: int, draws: int) -> BoolArray:
    """Draw t of rank r is synthetic iff ⌊F + f·(t+1) + r/W⌋ > ⌊F + f·t + r/W⌋.

    The phase r/W makes the total over ranks exact too: Σ_r ⌊x + r/W⌋ = ⌊W·x⌋ (Hermite's identity).
    """
    start = Fraction(carried) % 1
    q = math.lcm(start.denominator, f.denominator, world_size)
    # Only the fractional part of F is kept, so int64 nearly always holds it; Python's integers always do.
    dtype = np.int64 if q * (draws + 2) < 2**63 else object
    base = int(start * q) + np.arange(world_size, dtype=dtype) * (q // world_size)
    count = (np.arange(draws + 1, dtype=dtype)[:, None] * int(f * q) + base) // q
    flags: BoolArray = (np.diff(count, axis=0) > 0).ravel()
    return flags


def _available(available: npt.ArrayLike | None, rows: list[IntArray]) -> npt.NDArray[np.float64]:
    share = np.ones(len(rows)) if available is None else np.asarray(available, np.float64)
    if share.shape != (len(rows),) or not ((share >= 0) & (share <= 1)).all():
        raise ValueError(f"available={share} is not one share in [0, 1] for each of {len(rows)} classes")
    return np.where([r.size > 0 for r in rows], share, 0.0)


def _served(planned: IntArray, share: npt.NDArray[np.float64]) -> tuple[BoolArray, IntArray]:
    """Which synthetic draws (listed by class) the window serves, and how many of each class it does not."""
    served = [_every(int(k), a) for k, a in zip(planned, share, strict=True)]
    return np.concatenate(served), np.array([s.size - s.sum() for s in served], np.int64)


def _listed(where: BoolArray, values: list[IntArray]) -> IntArray:
    """The values of all classes where they belong, −1 elsewhere."""
    result = np.full(where.size, -1, np.int64)
    result[where] = np.concatenate(values)
    return result


def _every(length: int, share: float) -> BoolArray:
    """round(share · length) flags of ``length`` set, evenly."""
    steps = np.floor(np.arange(length + 1) * share + 0.5)
    flags: BoolArray = np.diff(steps) > 0
    return flags


def _check(
    targets: Targets,
    members: list[IntArray],
    rows: list[IntArray],
    world_size: int,
    draws: int,
) -> None:
    num_classes = targets.real.size
    if not len(members) == len(rows) == targets.synthetic.size == num_classes:
        raise ValueError(
            f"members of {len(members)} classes, window rows of {len(rows)} and targets of {num_classes} do not match"
        )
    if not targets.labelled and num_classes != 1:
        raise ValueError(f"unlabelled data has one pseudo-class, not {num_classes}")
    if world_size < 1 or draws < 0:
        raise ValueError(f"world_size={world_size}, draws={draws} are not an epoch")
    if not any(m.size for m in members):
        raise ValueError("no class has a real sample")
    for c, own in enumerate(members):
        if own.size == 0 and (targets.real[c] > 0 or targets.synthetic[c] > 0):
            raise ValueError(f"class {c} has targets but no real sample")
