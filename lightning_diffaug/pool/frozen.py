"""A frozen window: what one epoch reads, the same on every rank and in every worker."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from lightning_diffaug.pool.segment import Segment


@dataclass(frozen=True)
class FrozenWindow:
    """What was decided at an epoch's first batch. Plain values: it is broadcast and goes into checkpoints.

    Attributes:
        slots: The slots that the epoch reads.
        available: For each class the share in [0, 1] of its synthetic draws that are synthetic; the rest are real.
        short: Why the window is not the one asked for, or "".
    """

    slots: list[int] = field(default_factory=list)
    available: list[float] = field(default_factory=list)
    short: str = ""


@dataclass(frozen=True, eq=False)
class WindowRows:
    """The rows of a frozen window, numbered 0 … n − 1.

    Attributes:
        paths: Files of the epoch cache.
        segment: Which file holds the row; int64 (n,).
        row: Row in that file; int64 (n,).
        slot: Slot that the row comes from; int64 (n,).
        by_class: Row numbers of each class, int64; one array of all where samples have no label.
    """

    paths: tuple[str, ...]
    segment: np.ndarray[Any, Any]
    row: np.ndarray[Any, Any]
    slot: np.ndarray[Any, Any]
    by_class: list[np.ndarray[Any, Any]]

    @classmethod
    def of(cls, segments: Sequence[Segment], num_classes: int, labelled: bool) -> WindowRows:
        """Numbers the rows of segments.

        Args:
            segments: The gathered window, in order.
            num_classes: Number of classes; 1 for unlabelled data.
            labelled: Whether the field ``label`` tells a row's class.
        """
        sizes = [len(segment.slot) for segment in segments]
        empty = np.empty(0, np.int64)
        slot = np.concatenate([empty, *(segment.slot.numpy() for segment in segments)])
        labels = np.zeros(sum(sizes), np.int64)
        if labelled and segments:
            labels = np.concatenate([segment.fields["label"].numpy() for segment in segments])
        return cls(
            paths=tuple(str(segment.path) for segment in segments),
            segment=np.repeat(np.arange(len(sizes)), sizes),
            row=np.concatenate([empty, *(np.arange(size) for size in sizes)]),
            slot=slot,
            by_class=[np.flatnonzero(labels == c) for c in range(num_classes)],
        )
