"""MixSampler: which sample comes next. A pure function of the settings, the epoch and the frozen window."""

from __future__ import annotations

import hashlib
import struct
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from lightning_diffaug.errors import ConfigurationError
from lightning_diffaug.mixing.allocation import (
    Allocation,
    Balance,
    Mode,
    Targets,
    check_mode,
    epoch_draws,
    targets,
)
from lightning_diffaug.mixing.dataset import BatchIndex
from lightning_diffaug.mixing.plan import EpochPlan
from lightning_diffaug.mixing.schedule import Schedule, carried_draws
from lightning_diffaug.pool import check_reuse, fingerprint, first_slot, window_slots
from lightning_diffaug.pool.frozen import WindowRows


@dataclass(frozen=True)
class MixSettings:
    """How real and synthetic samples are mixed; each as `DiffAugDataModule` says.

    Attributes:
        fraction: Share of synthetic draws, by epoch.
        mode: ``"replace"`` or ``"append"``.
        balance: ``"none"`` or ``"classes"``.
        allocation: ``"as_real"``, ``"deficit"`` or shares by class.
        max_class_share: Largest synthetic share of a class's draws under ``"deficit"``.
        exact: Whether each batch has its share to the rounding; else each draw decides by itself.
        reuse: Uses of a pooled sample before the window leaves it.
        window: Samples that an epoch sees.
        slot_size: Samples a slot.
        seed: Seed of every order.
    """

    fraction: Schedule
    mode: Mode = "replace"
    balance: Balance = "none"
    allocation: Allocation = "as_real"
    max_class_share: float = 0.75
    exact: bool = True
    reuse: float = 8.0
    window: int = 1024
    slot_size: int = 64
    seed: int = 0

    def __post_init__(self) -> None:
        check_reuse(self.reuse)
        if isinstance(self.seed, bool) or not isinstance(self.seed, int) or self.seed < 0:
            raise ConfigurationError(
                f"data.seed={self.seed!r} is not a whole number from 0: it names the orders of the mix. Set data.seed "
                "(or seed) to e.g. 0."
            )
        check_mode(self.fraction, self.mode)
        # a wrong word is refused before any data are read; shares by class are looked at with the classes at hand
        allocation = "as_real" if isinstance(self.allocation, Mapping) else self.allocation
        targets([1, 1], self.fraction(0), self.mode, self.balance, allocation, self.max_class_share)


class MixSampler:
    """Plans epochs and reads batches off the plans.

    Args:
        settings: How to mix.
        members: Indices of the real samples of each class, int64; one array of all for data without labels.
        class_names: Class names; () for data without labels.
        batch_size: Samples a batch, of one rank.
        drop_last: Whether an incomplete last batch is dropped.
        shuffle: Whether real samples come in a shuffled order.
        world_size: Number of ranks.
        limit_batches: Batches that are drawn of each epoch, as the Trainer's `limit_train_batches`: a number of
            batches as an int, a share of them as a float. What is carried from epoch to epoch counts these alone.

    Raises:
        ConfigurationError: The settings do not fit the data.
    """

    def __init__(
        self,
        settings: MixSettings,
        members: Sequence[np.ndarray[Any, Any]],
        class_names: Sequence[str],
        batch_size: int,
        drop_last: bool,
        shuffle: bool,
        world_size: int = 1,
        limit_batches: int | float = 1.0,
    ) -> None:
        self.settings = settings
        self.labelled = bool(class_names)
        self.counts = np.array([len(part) for part in members])
        self._members = list(members)
        self._class_names = tuple(class_names)
        self._batch_size = batch_size
        self._shuffle = shuffle
        self.world_size = world_size
        total, _ = epoch_draws(int(self.counts.sum()), self.settings.fraction(0), settings.mode)
        self.draws = total // world_size // batch_size * batch_size if drop_last else -(-total // world_size)
        if self.draws == 0:
            raise ConfigurationError(
                f"an epoch of {total} draws on {world_size} ranks has no whole batch of {batch_size}, and drop_last "
                "drops the rest, so nothing would be trained on. Lower the batch size or set drop_last=False."
            )
        self._limit = limit_batches
        for fraction in settings.fraction.extremes:  # refuses what does not fit the data, now or in a later epoch
            self._targets(fraction)

    def __len__(self) -> int:
        """Batches an epoch, of one rank."""
        return -(-self.draws // self._batch_size)

    def fraction(self, epoch: int) -> Fraction:
        """The exact share of an epoch's draws that is to be synthetic."""
        settings = self.settings
        return epoch_draws(int(self.counts.sum()), settings.fraction(epoch), settings.mode)[1]

    def targets(self, epoch: int) -> Targets:
        """Draws of each class in an epoch, before rounding."""
        return self._targets(self.settings.fraction(epoch))

    def most_synthetic(self) -> Targets:
        """Draws of each class at the schedule's largest fraction, where what was asked for is hardest to have."""
        return self._targets(self.settings.fraction.extremes[1])

    def _targets(self, fraction: Fraction) -> Targets:
        settings = self.settings
        return targets(
            self.counts,
            fraction,
            settings.mode,
            settings.balance,
            settings.allocation,
            settings.max_class_share,
            class_names=self._class_names,
            labelled=self.labelled,
        )

    def carried(self, epoch: int) -> Fraction:
        """Synthetic draws that one rank was due before this epoch."""
        limit = self._limit
        drawn = self.drawn(limit if isinstance(limit, int) else int(len(self) * limit))
        if self.settings.mode == "append":
            return self.fraction(0) * epoch * drawn
        return carried_draws(self.settings.fraction, epoch, drawn)

    def slots(self, epoch: int) -> range:
        """The window's slots: it depends on no slot's content."""
        settings = self.settings
        first = first_slot(self.carried(epoch) * self.world_size, settings.reuse, settings.slot_size)
        return window_slots(first, settings.window, settings.slot_size)

    def entered(self, slot: int, epoch: int) -> int:
        """The first epoch, up to `epoch`, whose window reached as far as a slot; `epoch` where none did."""
        return min(bisect_right(range(epoch + 1), slot, key=lambda e: self.slots(e).stop), epoch)

    def plan(self, epoch: int, rows: WindowRows, available: Sequence[float]) -> EpochPlan:
        """All draws of an epoch.

        Args:
            epoch: From 0.
            rows: The rows of its window.
            available: Share of each class's synthetic draws that the window serves, (C,).
        """
        return EpochPlan.build(
            seed=self.settings.seed,
            epoch=epoch,
            draws=self.draws,
            fraction=self.fraction(epoch),
            targets=self.targets(epoch),
            members=self._members,
            window_rows=rows.by_class,
            world_size=self.world_size,
            carried=self.carried(epoch),
            available=available,
            shuffle=self._shuffle,
            exact=self.settings.exact,
        )

    def batches(self, plan: EpochPlan, rows: WindowRows, epoch: int, rank: int, start: int) -> Iterator[BatchIndex]:
        """The batches of a rank from number `start` on; reaching any of them costs the same.

        Args:
            plan: The epoch's plan.
            rows: The rows of its window.
            epoch: Its number.
            rank: Global rank.
            start: First batch, from 0.
        """
        for number in range(start, len(self)):
            first = number * self._batch_size
            part = plan.rank_slice(rank, first, min(first + self._batch_size, self.draws))
            synthetic = part.window_row >= 0
            segment = np.full(len(synthetic), -1)
            row = segment.copy()
            segment[synthetic] = rows.segment[part.window_row[synthetic]]
            row[synthetic] = rows.row[part.window_row[synthetic]]
            seed = batch_seed(self.settings.seed, epoch, rank, number)
            yield BatchIndex(part.real_index.copy(), segment, row, rows.paths, seed)

    def digest(self) -> str:
        """Hash of everything that decides which sample comes when, but the windows' content.

        Two samplers of the same digest plan the same. Fractions are compared over the first 1,000 epochs.
        """
        settings, fraction = self.settings, self.settings.fraction
        allocation = settings.allocation
        return fingerprint(
            {
                "fraction": [str(fraction(epoch)) for epoch in range(1 if fraction.is_constant else 1000)],
                "mode": settings.mode,
                "balance": settings.balance,
                "allocation": (
                    {str(key): str(value) for key, value in allocation.items()}
                    if isinstance(allocation, Mapping)
                    else allocation
                ),
                "max_class_share": float(settings.max_class_share),
                "exact": settings.exact,
                "reuse": str(float(settings.reuse)),  # as text: it may be inf
                "window": settings.window,
                "slot_size": settings.slot_size,
                "seed": int(settings.seed),
                "class_names": list(self._class_names),
                "class_counts": self.counts.tolist(),
                "batch_size": self._batch_size,
                "draws": self.draws,
                "limit_batches": str(self._limit),
                "shuffle": self._shuffle,
                "world_size": self.world_size,
            }
        )

    def drawn(self, batches: int) -> int:
        """Draws of one rank in its first `batches` batches."""
        return min(batches * self._batch_size, self.draws)


def batch_seed(seed: int, epoch: int, rank: int, batch: int) -> int:
    """Seed of the random transforms of one batch, in [0, 2^32)."""
    packed = struct.pack("<4q", seed, epoch, rank, batch)
    return int.from_bytes(hashlib.blake2b(packed, digest_size=4).digest(), "little")
