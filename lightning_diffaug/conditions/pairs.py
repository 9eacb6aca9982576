"""Pairs of what a row shall be and what it starts from: of its own class, or across classes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

PAIRS = ("intra", "cross", "all")
"""The class of a start: the row's own, any other, or any."""

CROSS = ("common", "any")
"""How classes of starts are weighted: by their real samples, or alike."""


class Starts:
    """The real samples that a row of a class may start from.

    Args:
        labels: Class index of each real sample, int64 (n,); or which of several labels it stands for, bool (n, C); or
            None.
        n: Real samples.
        classes: Number of classes; None: all samples are of one kind.
        pairs: One of `PAIRS`.
        cross: One of `CROSS`.
    """

    def __init__(self, labels: Tensor | None, n: int, classes: int | None, pairs: str, cross: str) -> None:
        everything = torch.arange(n)
        self.labels = labels
        self._pairs = pairs
        self._cross = cross
        self._members: list[Tensor] = [everything]
        if labels is not None and classes is not None:
            several = labels.ndim == 2
            self._members = [everything[labels[:, c] if several else labels == c] for c in range(classes)]

    def own(self, c: int) -> Tensor:
        """Rows of the class's own samples, int64 (n_c,)."""
        return self._members[c]

    def of(self, c: int) -> list[Tensor]:
        """Groups of rows to start from: each group is as likely, and each row in it. None is empty."""
        if self._pairs == "intra":
            groups: Sequence[Tensor] = [self._members[c]]
        else:
            groups = [rows for a, rows in enumerate(self._members) if self._pairs == "all" or a != c]
            groups = groups if self._cross == "any" else [torch.cat(list(groups))] if groups else []
        return [rows for rows in groups if len(rows)]


def soft_label(label: Tensor, start_label: Tensor, strength: Tensor, gamma: float, classes: int) -> Tensor:
    """What a sample is when one of class a was noised to strength s and denoised as class b.

    ``(1 - s^gamma) y_a + s^gamma y_b`` (Wang et al. 2024, "Enhance Image Classification via Inter-Class Image Mixup
    with Diffusion Model", Diff-Mix): at gamma below 1, which they find best, it goes to b early.

    Args:
        label: b, int64 (n,).
        start_label: a, int64 (n,).
        strength: s in [0, 1], (n,).
        gamma: Above 0.
        classes: Number of classes.

    Returns:
        float32 (n, classes), each row of sum 1.
    """
    to = strength.double().pow(gamma)[:, None]
    both = (functional.one_hot(of, classes) for of in (start_label, label))
    start, end = both
    return ((1.0 - to) * start + to * end).float()


def are_probabilities(value: object) -> bool:
    """Whether these are soft labels: float32 (n, C), of rows that sum to 1."""
    if not isinstance(value, Tensor) or value.dtype != torch.float32 or value.ndim != 2:
        return False
    return bool((value >= 0).all() and ((value.sum(1) - 1).abs() < 1e-3).all())
