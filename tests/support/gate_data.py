"""Digits as a training snapshot, others of them as honest samples, and a gate of a user's own."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import torch
from sklearn.datasets import load_digits
from torch import Tensor

from lightning_diffaug.snapshot import Snapshot
from lightning_diffaug.spec import FieldSpec, SampleSpec

CLASSES = tuple(str(c) for c in range(10))
IMAGE = FieldSpec("image", "0", "tensor", "uint8", (1, 8, 8), 0.0, 255.0, "chw")
LABEL = FieldSpec("label", "1", "scalar", "int64", (), 0.0, 0.0)


@cache
def digits() -> tuple[Tensor, Tensor]:
    """All digits, uint8 (n, 1, 8, 8), and their classes."""
    data = load_digits()
    return torch.from_numpy(data.images * 255 / 16).round().to(torch.uint8).unsqueeze(1), torch.from_numpy(data.target)


def training(n: int = 600) -> Snapshot:
    """The first n digits."""
    images, labels = digits()
    return Snapshot(
        SampleSpec((IMAGE, LABEL)), {"image": images[:n], "label": labels[:n].long()}, CLASSES, tuple(range(10))
    )


def honest(first: int = 1000, n: int = 400) -> tuple[Tensor, Tensor]:
    """Digits that are not in the training: float32 (n, 1, 8, 8) in [-1, 1], and their classes."""
    images, labels = digits()
    return IMAGE.to_unit(images[first : first + n]), labels[first : first + n].long()


def unlabelled(fields: dict[str, Tensor], low: float = -1.0, high: float = 1.0) -> Snapshot:
    """A snapshot of float fields."""
    specs = [
        FieldSpec(name, str(i), "tensor", "float32", tuple(value.shape[1:]), low, high)
        for i, (name, value) in enumerate(fields.items())
    ]
    return Snapshot(SampleSpec(tuple(specs)), fields)


class Mine:
    """A gate of a user's own: passes samples whose mean is at least `least`."""

    name = "mine"

    def __init__(self, least: float = -1.0) -> None:
        self.least = least

    def __call__(self, samples: Mapping[str, Tensor], condition: Mapping[str, Any]) -> Tensor:
        return samples["image"].flatten(1).mean(1) >= self.least
