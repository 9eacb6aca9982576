"""Batches of real and pooled samples in one structure. Workers get indices only; everything else they had at start."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from lightning_diffaug.adapter import SampleAdapter
from lightning_diffaug.pool import Segment, open_segment
from lightning_diffaug.randomness import seeded
from lightning_diffaug.soft_labels import SoftLabels, Unused
from lightning_diffaug.wrapping import SampleTransform


@dataclass(frozen=True)
class BatchIndex:
    """What one batch consists of, in the batch's order.

    Attributes:
        real: Index in the real training data, -1 for a synthetic draw; int64 (n,).
        segment: Number in `segments` of the synthetic draw's segment, -1 for a real one; int64 (n,).
        row: Row in the segment, -1 for a real draw; int64 (n,).
        segments: Files of the epoch cache that the window consists of.
        seed: Seed of the batch's random transforms.
    """

    real: np.ndarray[Any, Any]
    segment: np.ndarray[Any, Any]
    row: np.ndarray[Any, Any]
    segments: tuple[str, ...]
    seed: int

    def __len__(self) -> int:
        return len(self.real)


@dataclass(frozen=True)
class Drawn:
    """Pooled samples of a batch with where they come from."""

    samples: list[Any]
    positions: np.ndarray[Any, Any]
    segment: Segment
    rows: np.ndarray[Any, Any]


def with_source(batch: Any, source: dict[str, Tensor]) -> Any:
    """The batch with `source` added.

    A dict gains the key ``"source"``, a tuple or list a last element; anything else becomes ``(batch, source)``.
    """
    if isinstance(batch, dict):
        return {**batch, "source": source}
    if isinstance(batch, (tuple, list)) and not hasattr(batch, "_fields"):
        return type(batch)([*batch, source])
    return (batch, source)


class MixedDataset(Dataset[Any]):
    """Maps a `BatchIndex` to a collated batch.

    Args:
        real: The real training data with their transform, or None where real samples come from a stream.
        adapter: Turns pooled rows into samples of the user's structure.
        synthetic_transform: Applied to each pooled sample; None for none.
        collate_fn: Makes the batch, as the wrapped loader's does.
        return_source: Adds ``is_synthetic`` (bool (n,)), ``slot``, ``row`` and ``real_index`` (int64 (n,), -1 where
            there is none) to the batch.
        soft_labels: Makes probabilities of labels; None: labels are the user's own.
    """

    def __init__(
        self,
        real: Dataset[Any] | None,
        adapter: SampleAdapter,
        synthetic_transform: Callable[[Any], Any] | None,
        collate_fn: Callable[[list[Any]], Any],
        return_source: bool,
        soft_labels: SoftLabels | None = None,
    ) -> None:
        self._real = real
        self._adapter = adapter
        self._changes = synthetic_transform.leaf_changes if isinstance(synthetic_transform, SampleTransform) else None
        self._transform = synthetic_transform if self._changes is None else None
        self._collate = collate_fn
        self._return_source = return_source
        self._soft_labels = soft_labels
        self._unused = Unused()

    def __getitem__(self, index: BatchIndex) -> Any:
        """Collates the samples that `index` names.

        Random transforms draw from the batch's own seed, whatever the worker: that is what makes a resumed run equal
        to an uninterrupted one. The global random states are left as they were.
        """
        with seeded(index.seed):
            return self.assemble(index, self._real_samples(index.real[index.real >= 0].tolist()))

    def assemble(self, index: BatchIndex, real_samples: Sequence[Any]) -> Any:
        """Collates given real samples, in order, with the pooled ones that `index` names."""
        samples: list[Any] = [None] * len(index)
        positions = np.flatnonzero(index.real >= 0)
        if self._soft_labels is not None:
            real_samples = self._soft_labels.of_real(real_samples)
        for position, sample in zip(positions.tolist(), real_samples, strict=True):
            samples[position] = sample
        drawn = [self._draw(index, number) for number in np.unique(index.segment[index.segment >= 0]).tolist()]
        for part in drawn:
            for position, sample in zip(part.positions.tolist(), part.samples, strict=True):
                samples[position] = sample
        batch = self._collate(samples)
        return with_source(batch, _source(index, drawn)) if self._return_source else batch

    def _real_samples(self, indices: list[int]) -> list[Any]:
        if not indices:
            return []
        if self._real is None:
            raise RuntimeError("real samples of a stream are handed to assemble()")
        fetch = getattr(self._real, "__getitems__", None)
        return list(fetch(indices)) if callable(fetch) else [self._real[i] for i in indices]

    def _draw(self, index: BatchIndex, number: int) -> Drawn:
        segment = open_segment(index.segments[number])
        positions = np.flatnonzero(index.segment == number)
        rows = index.row[positions]
        fields = segment.take(rows)
        samples = self._adapter.samples(
            fields, lambda: segment.origin(rows), self._changes, lambda: segment.strings(rows)
        )
        if self._transform is not None:
            samples = [self._transform(sample) for sample in samples]
        if self._soft_labels is not None:
            samples = self._soft_labels.of_synthetic(samples, fields)
        else:
            self._unused.say(fields)
        return Drawn(samples, positions, segment, rows)


def _source(index: BatchIndex, drawn: Sequence[Drawn]) -> dict[str, Tensor]:
    slot = torch.full((len(index),), -1, dtype=torch.int64)
    row = slot.clone()
    for part in drawn:
        at, origin = torch.from_numpy(part.positions), part.segment.origin(part.rows)
        slot[at], row[at] = torch.tensor(origin, dtype=torch.int64).unbind(1)
    return {
        "is_synthetic": slot >= 0,
        "slot": slot,
        "row": row,
        "real_index": torch.from_numpy(index.real.copy()),
    }
