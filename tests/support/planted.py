"""Generators of which it is known whether they help: what they hand out is planted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from lightning_diffaug.data import DigitsDataModule


class HeldBack:
    """Real digits of the class, from the training part, of which few-shot training sees only a few.

    Args:
        instead: Classes of which images are handed out whatever is asked for: they are mislabelled. (): the class's.
    """

    def __init__(self, instead: Sequence[int] = ()) -> None:
        self.instead = list(instead)

    @cached_property
    def _digits(self) -> tuple[Tensor, Tensor]:
        train = DigitsDataModule(shots=None, rare_classes=0).splits.train
        return torch.as_tensor(train.images).float() / 127.5 - 1, torch.tensor(train.targets)

    def generate(self, condition: Mapping[str, Any], seeds: Sequence[int]) -> Tensor:
        images, labels = self._digits
        made = []
        for label, seed in zip(condition["label"].tolist(), seeds, strict=True):
            rng = torch.Generator().manual_seed(seed)
            others = [c for c in self.instead if c != label] or [label]
            wanted = others[int(torch.randint(len(others), (), generator=rng))]
            rows = (labels == wanted).nonzero()[:, 0]
            made.append(images[rows[int(torch.randint(len(rows), (), generator=rng))]])
        return torch.stack(made)


class Noise:
    """Nothing but noise."""

    def generate(self, condition: Mapping[str, Any], seeds: Sequence[int]) -> Tensor:
        rngs = [torch.Generator().manual_seed(seed) for seed in seeds]
        return torch.stack([torch.rand(1, 8, 8, generator=rng) * 2 - 1 for rng in rngs])
