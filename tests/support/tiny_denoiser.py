"""A small network of a user's own that can be fitted in a moment, and data of one picture."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from lightning_diffaug.snapshot import Snapshot
from lightning_diffaug.spec import FieldSpec, SampleSpec


class TinyDenoiser(nn.Module):
    """Two linear layers over pixels, time, label and numbers.

    Args:
        pixels: Values of a sample.
        classes: Number of classes; index `classes` is the null class.
        numbers: Numbers that it is told beside, under "augment".
    """

    def __init__(self, pixels: int, classes: int = 0, numbers: int = 0, width: int = 96) -> None:
        super().__init__()
        self.classes = classes
        self.label = nn.Embedding(classes + 1, 8)
        self.inside = nn.Linear(pixels + 2 + 8 + numbers, width)
        self.outside = nn.Linear(width, pixels)
        self.numbers = numbers

    def forward(self, x_t: Tensor, t: Tensor, condition: Mapping[str, Any]) -> Tensor:
        angle = (t.expand(len(x_t)).float() / 1000 * torch.pi / 2)[:, None]
        label = condition.get("label", torch.full((len(x_t),), self.classes))
        parts = [x_t.flatten(1), angle.cos(), angle.sin(), self.label(label)]
        if self.numbers:
            parts.append(condition["augment"])
        inside = nn.functional.silu(self.inside(torch.cat(parts, 1)))
        return self.outside(inside).view_as(x_t)

    def null(self, condition: Mapping[str, Any]) -> dict[str, Any] | None:
        if "label" not in condition:
            return None
        return {**condition, "label": torch.full_like(condition["label"], self.classes)}


def pictures(images: Tensor, labels: Tensor | None = None) -> Snapshot:
    """A snapshot of float images (n, C, H, W) in [0, 1]."""
    fields = {"image": images}
    spec = [FieldSpec("image", "image", "tensor", "float32", tuple(images.shape[1:]), 0.0, 1.0)]
    names = [] if labels is None else [str(c) for c in range(int(labels.max()) + 1)]
    if labels is not None:
        fields["label"] = labels
        spec.append(FieldSpec("label", "label", "scalar", "int64", (), 0.0, 0.0))
    return Snapshot(SampleSpec(tuple(spec)), fields, names, list(range(len(names))))
