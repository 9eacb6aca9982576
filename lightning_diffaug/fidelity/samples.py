"""What is compared: samples with their classes and captions, and how parts of them are drawn alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_diffaug.errors import ConfigurationError


@dataclass(frozen=True, eq=False)
class Samples:
    """Samples of one kind.

    Attributes:
        values: float32 (n, *shape) in [-1, 1].
        labels: Class indices, int64 (n,); None without one class a sample.
        captions: n texts; None without.

    Raises:
        ConfigurationError: The parts differ in length, or labels are no class indices.
    """

    values: Tensor
    labels: Tensor | None = None
    captions: Sequence[str] | None = None

    def __post_init__(self) -> None:
        lengths = {len(part) for part in (self.values, self.labels, self.captions) if part is not None}
        if len(lengths) > 1:
            raise ConfigurationError(
                f"samples, labels and captions have {sorted(lengths)} entries: give one of each for every sample."
            )
        if self.labels is not None and (self.labels.ndim != 1 or self.labels.is_floating_point()):
            raise ConfigurationError(
                f"labels have the shape {tuple(self.labels.shape)} and are {self.labels.dtype}: class indices, int64 "
                "(n,), are needed. Leave labels out where a sample has several."
            )

    def __len__(self) -> int:
        return len(self.values)

    def take(self, rows: Tensor) -> Samples:
        """The samples of these rows, int64 (m,)."""
        captions = None if self.captions is None else [self.captions[i] for i in rows.tolist()]
        return Samples(self.values[rows], None if self.labels is None else self.labels[rows], captions)

    def at_most(self, n: int, seed: int) -> Samples:
        """So many of them, drawn at random; all where there are no more."""
        return self if len(self) <= n else self.take(_shuffled(len(self), seed)[:n].sort().values)

    def plus(self, other: Samples) -> Samples:
        """These and others; captions are left out."""
        both = self.labels is not None and other.labels is not None
        labels = torch.cat((self.labels, other.labels)) if both else None  # type: ignore[arg-type]
        return Samples(torch.cat((self.values, other.values)), labels)


def halves(samples: Samples, seed: int) -> tuple[Samples, Samples]:
    """Two halves, drawn at random, each class halved; what is over goes to the first."""
    order = _shuffled(len(samples), seed)
    if samples.labels is None:
        return samples.take(order[::2]), samples.take(order[1::2])
    labels = samples.labels[order]
    parts = [order[labels == label] for label in torch.unique(labels).tolist()]
    return samples.take(torch.cat([part[::2] for part in parts])), samples.take(torch.cat([p[1::2] for p in parts]))


def drawn_alike(first: Samples, second: Samples, most: int, seed: int) -> tuple[Samples, Samples]:
    """Equally many of both, of every class where both have labels: what differs is then no matter of class shares.

    Args:
        first: Some samples.
        second: Others.
        most: How many of each at most; above, every class keeps its share.
        seed: Of the draw.

    Raises:
        ConfigurationError: No class is in both.
    """
    if first.labels is None or second.labels is None:
        n = min(len(first), len(second), most)
        return first.take(_shuffled(len(first), seed)[:n]), second.take(_shuffled(len(second), seed)[:n])
    classes = 1 + int(torch.cat((first.labels, second.labels)).max()) if len(first) + len(second) else 0
    counts = torch.minimum(*(torch.bincount(one, minlength=classes) for one in (first.labels, second.labels)))
    total = int(counts.sum())
    if not total:
        raise ConfigurationError(
            "no class has both synthetic and real samples that could be compared: look at the labels, or leave them "
            "out of both."
        )
    if total > most:
        counts = counts * most // total
    return _of_classes(first, counts, seed), _of_classes(second, counts, seed)


def weights_alike(samples: Samples, other: Samples) -> Tensor | None:
    """Shares of samples by which their classes are as frequent as others' are, float64 (n,) of sum 1.

    Returns:
        None where they are so already, where one has no labels, or where they have no class in common. Samples of a
        class that the others do not have count nothing.
    """
    if samples.labels is None or other.labels is None:
        return None
    classes = 1 + int(torch.cat((samples.labels, other.labels)).max())
    own, wanted = (torch.bincount(one, minlength=classes).double() for one in (samples.labels, other.labels))
    wanted = torch.where(own > 0, wanted, 0.0)
    if not wanted.any() or torch.allclose(own / own.sum(), wanted / wanted.sum(), rtol=1e-9, atol=0.0):
        return None
    weights = (wanted / own)[samples.labels]
    return weights / weights.sum()


def _of_classes(samples: Samples, counts: Tensor, seed: int) -> Samples:
    assert samples.labels is not None
    order = _shuffled(len(samples), seed)
    labels = samples.labels[order]
    return samples.take(torch.cat([order[labels == c][:n] for c, n in enumerate(counts.tolist())]))


def _shuffled(n: int, seed: int) -> Tensor:
    return torch.randperm(n, generator=torch.Generator().manual_seed(seed))
