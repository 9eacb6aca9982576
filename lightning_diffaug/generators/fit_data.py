"""What a fit is fed: draws of real samples, and the part of them that is kept aside to judge it by."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from lightning_diffaug.errors import ConfigurationError
from lightning_diffaug.generators.fit_settings import FitSettings
from lightning_diffaug.generators.protocol import LABEL

if TYPE_CHECKING:
    from lightning_diffaug.snapshot import Snapshot

Batch = tuple[Tensor, dict[str, Any]]
"""Clean samples (n, *shape) in [-1, 1], and n entries of each condition."""

Conditions = Callable[[Tensor], Mapping[str, Any]]
"""Row numbers, int64 (n,) → n entries of each condition."""

_LEAST_OF_A_CLASS = 5
_LEAST_HELD_OUT = 256
"""Noised samples that a held-out loss is taken over: fewer samples are noised more than once each."""


class ClassBalancedDraws:
    """Draws sample indices with weights ∝ (1 / class count)^b, with replacement, at any number of samples.

    First the class is drawn, then a sample in it: a draw costs no pass over the samples, and there is no
    limit on their number (`torch.multinomial` has one at 2^24).

    Args:
        labels: int64 (n,) class indices; None is one class.
        n: Number of samples.
        balance: The exponent b in [0, 1].
        rows: int64 (m,) the samples that may be drawn; None: all.
    """

    def __init__(self, labels: Tensor | None, n: int, balance: float, rows: Tensor | None = None) -> None:
        labels = torch.zeros(n, dtype=torch.int64) if labels is None else labels
        labels = labels if rows is None else labels[rows]
        order = torch.argsort(labels, stable=True)
        self._order = order if rows is None else rows[order]
        self._counts = torch.bincount(labels)
        self._offsets = self._counts.cumsum(0) - self._counts
        weights = self._counts.double().pow(1.0 - balance)
        self._class_weights = torch.where(self._counts > 0, weights, 0.0)

    def __call__(self, size: int, rng: torch.Generator) -> Tensor:
        """Indices of `size` samples, int64."""
        classes = torch.multinomial(self._class_weights, size, replacement=True, generator=rng)
        # float64: a float32 in [0, 1) cannot address more than 2^24 samples of one class.
        u = torch.rand(size, generator=rng, dtype=torch.float64)
        return self._order[self._offsets[classes] + (u * self._counts[classes]).long()]


def kept_aside(labels: Tensor | None, n: int, share: float, seed: int) -> tuple[Tensor, Tensor]:
    """Splits samples, class by class, into those that are fitted and those that the fit is judged by.

    Args:
        labels: int64 (n,) class indices; None is one class.
        n: Number of samples.
        share: Share of each class that is kept aside, in (0, 0.5]: at least one sample of a class that has five, none
            of a smaller one, which would lose too much.
        seed: Of the choice.

    Returns:
        Rows that are fitted, and rows that are kept aside; int64, ascending.

    Raises:
        ConfigurationError: No class has five samples.
    """
    labels = torch.zeros(n, dtype=torch.int64) if labels is None else labels
    rng = torch.Generator().manual_seed(seed)
    aside = torch.zeros(n, dtype=torch.bool)
    for index in torch.bincount(labels).nonzero().flatten().tolist():
        rows = (labels == index).nonzero().flatten()
        count = max(1, round(share * len(rows))) if len(rows) >= _LEAST_OF_A_CLASS else 0
        aside[rows[torch.randperm(len(rows), generator=rng)[:count]]] = True
    if not aside.any():
        raise ConfigurationError(
            f"hold_out={share} keeps nothing aside: no class has {_LEAST_OF_A_CLASS} real training samples. Set "
            "generator.fit.hold_out=0 and generator.fit.patience=null, or give more data (real.shots)."
        )
    return (~aside).nonzero().flatten(), aside.nonzero().flatten()


class FitBatches:
    """The batches of a fit, one a step, as an iterable that can be resumed.

    Args:
        snapshot: The real training data.
        names: Fields that are joined along their channels.
        conditions: Row numbers → condition.
        draws: Chooses the rows.
        settings: Number of steps and batch size.
        rng: Of the draws; goes into a checkpoint.
    """

    def __init__(
        self,
        snapshot: Snapshot,
        names: Sequence[str],
        conditions: Conditions,
        draws: ClassBalancedDraws,
        settings: FitSettings,
        rng: torch.Generator,
    ) -> None:
        self._snapshot = snapshot
        self._names = names
        self._conditions = conditions
        self._draws = draws
        self._settings = settings
        self._rng = rng

    def __len__(self) -> int:
        return self._settings.steps

    def __iter__(self) -> Iterator[Batch]:
        while True:  # whoever counts the steps stops
            yield read(self._snapshot, self._names, self._conditions, self._draws(self._settings.batch_size, self._rng))

    def state_dict(self) -> dict[str, Any]:
        """Where the draws are."""
        return {"rng": self._rng.get_state()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on there."""
        self._rng.set_state(state["rng"].cpu())


class HeldOutBatches:
    """The samples that are kept aside, in the same batches each time.

    Args:
        snapshot: The real training data.
        names: Fields that are joined along their channels.
        conditions: Row numbers → condition.
        rows: int64 (m,) what is kept aside.
        batch_size: Samples in a batch.
    """

    def __init__(
        self, snapshot: Snapshot, names: Sequence[str], conditions: Conditions, rows: Tensor, batch_size: int
    ) -> None:
        self._read = (snapshot, names, conditions)
        self._batches = torch.split(rows.repeat(-(-_LEAST_HELD_OUT // len(rows))), batch_size)

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[Batch]:
        for rows in self._batches:
            yield read(*self._read, rows)


def labels_of(snapshot: Snapshot) -> Conditions:
    """The class labels as the only condition; none where the data have no labels."""
    labels = snapshot.labels

    def conditions(rows: Tensor) -> dict[str, Any]:
        return {} if labels is None else {LABEL: labels[rows]}

    return conditions


def read(snapshot: Snapshot, names: Sequence[str], conditions: Conditions, rows: Tensor) -> Batch:
    """Samples of a snapshot, fields joined along their channels, and their conditions."""
    return torch.cat([snapshot.unit(name, rows) for name in names], dim=1), dict(conditions(rows))
