"""Boxes that follow from a mask: around each connected region of a class."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.ops import masks_to_boxes

from lightning_diffaug.errors import ConfigurationError


@dataclass(frozen=True)
class Regions:
    """Connected regions of a mask.

    Attributes:
        boxes: float32 (n, 4), XYXY in pixels; they end behind the last pixel.
        labels: int64 (n,), the class of each.
        masks: bool (n, H, W).
    """

    boxes: Tensor
    labels: Tensor
    masks: Tensor


def mask_regions(mask: Tensor, least: int = 4, void: int | None = None) -> Regions:
    """Each connected region of each class but 0, largest first; pixels that touch by a corner are connected.

    Args:
        mask: Class numbers (H, W) or (1, H, W).
        least: Pixels of a region; smaller ones are left out.
        void: Number of the pixels that are of no class; None: there are none.
    """
    from scipy.ndimage import label  # slow to import

    numbers = mask.as_subclass(Tensor).reshape(mask.shape[-2:]).cpu()
    found: list[tuple[int, Tensor]] = []
    shown = numbers > 0 if void is None else (numbers > 0) & (numbers != void)
    for value in torch.unique(numbers[shown]).tolist():
        parts, count = label((numbers == value).numpy(), structure=[[1, 1, 1]] * 3)
        regions = torch.from_numpy(parts)
        found += [(int(value), regions == i + 1) for i in range(count)]
    found = [(value, region) for value, region in found if int(region.sum()) >= least]
    found.sort(key=lambda one: -int(one[1].sum()))
    masks = torch.stack([region for _, region in found]) if found else torch.zeros(0, *numbers.shape, dtype=torch.bool)
    boxes = masks_to_boxes(masks).to(torch.float32) + torch.tensor([0.0, 0.0, 1.0, 1.0])
    return Regions(boxes.reshape(-1, 4), torch.tensor([value for value, _ in found], dtype=torch.int64), masks)


class MaskBoxes:
    """The boxes of a made mask, for ``data.fill`` of samples that hold boxes.

    Args:
        mask: Name of the mask's field.
        least: Pixels of a region; smaller ones get no box.
        what: ``boxes``: tv_tensors.BoundingBoxes (n, 4), XYXY; ``labels``: int64 (n,), their classes.
        void: Number of the mask's pixels that are of no class; None: there are none.

    Raises:
        ConfigurationError: `what` is neither.
    """

    def __init__(self, mask: str = "mask", least: int = 4, what: str = "boxes", void: int | None = None) -> None:
        if what not in ("boxes", "labels"):
            raise ConfigurationError(f"MaskBoxes(what={what!r}) is unknown. Set what to boxes or labels.")
        self.mask, self.least, self.what, self.void = mask, least, what, void

    def __call__(self, fields: Mapping[str, Any]) -> Tensor:
        """What `what` says, of ``fields[mask]``."""
        if self.mask not in fields:
            raise ConfigurationError(
                f"boxes of made samples follow from the field {self.mask!r}, and there are {', '.join(fields)}. Call "
                f"the mask {self.mask!r} in data.fields, or give data.fill.{self.what} a MaskBoxes of its name."
            )
        mask = fields[self.mask]
        regions = mask_regions(mask, self.least, self.void)
        if self.what == "labels":
            return regions.labels
        boxes: Tensor = tv_tensors.BoundingBoxes(regions.boxes, format="XYXY", canvas_size=tuple(mask.shape[-2:]))
        return boxes
