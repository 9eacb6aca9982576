"""A small segmenter of images, fitted on the real pairs of image and mask."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from lightning_diffaug.gates.aligned.cross_fit import CrossFitted, Pair
from lightning_diffaug.gates.aligned.fields import class_count, class_numbers
from lightning_diffaug.generators.augment import RandomAffine
from lightning_diffaug.segmentation_network import SmallFCN
from lightning_diffaug.spec import FieldSpec

_LARGE = 16  # sides from which features have half the resolution


class Segmenter(SmallFCN):
    """Images float32 (n, C, H, W) in [-1, 1] → logits (n, classes, h, w).

    Args:
        channels: Of an image.
        classes: Of a mask, background included.
        width: Channels of the first layer.
        size: Longest side that images are averaged down to; h and w are what is left.
        mask: `FieldSpec` of the masks.
    """

    def __init__(self, channels: int, classes: int, width: int, size: int, mask: FieldSpec) -> None:
        super().__init__(channels, classes, width, 2 if min(size, *mask.shape[-2:]) >= _LARGE else 1)
        self.size, self.classes, self.mask = size, classes, mask

    def seen(self, image: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """What is looked at: images averaged down, and class numbers, int64 (n, h, w)."""
        numbers = class_numbers(mask, self.mask)
        height, width = image.shape[2:]
        longest = max(height, width)
        if longest > self.size:
            smaller = [max(1, round(length * self.size / longest)) for length in (height, width)]
            image = functional.interpolate(image, size=smaller, mode="area")
        if numbers.shape[1:] != image.shape[2:]:
            resized = functional.interpolate(numbers[:, None].float(), size=image.shape[2:], mode="nearest-exact")
            numbers = resized[:, 0].long()
        return image, numbers


class FittedSegmenter(CrossFitted):
    """Segmenters that are fitted on the real pairs; a pair is judged by the IoU of their prediction and its mask.

    Args:
        image: Field of images (C, H, W).
        mask: Field of masks.
        settings: `AlignedSettings` by name.
    """

    gate = "mask"

    def __init__(self, image: str, mask: str, settings: Mapping[str, Any] | None = None) -> None:
        super().__init__(image, mask, settings)
        self._augment = RandomAffine()

    def config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        said = super().config()
        return {"image": said["first"], "mask": said["second"], "settings": said["settings"]}

    def network(self, first: FieldSpec, second: FieldSpec) -> Segmenter:
        """See `CrossFitted`."""
        return Segmenter(first.shape[0], class_count(second), self.settings.width, self.settings.size, second)

    def loss(self, network: Segmenter, pair: Pair, rng: torch.Generator) -> Tensor:
        """Cross-entropy of image and mask, moved alike."""
        image, numbers = network.seen(*_tensors(pair))
        drawn = self._augment.drawn(len(image), rng)
        image = self._augment.moved(image, *drawn)
        channels = functional.one_hot(numbers, network.classes).movedim(-1, 1).float()
        target = self._augment.moved(channels, *drawn)
        return functional.cross_entropy(network(image), target)

    def judge(self, network: Segmenter, pair: Pair) -> Tensor:
        """See `CrossFitted`."""
        image, numbers = network.seen(*_tensors(pair))
        return mean_iou(network(image).argmax(1), numbers, network.classes)


def _tensors(pair: Pair) -> tuple[Tensor, Tensor]:
    image, mask = pair
    assert isinstance(image, Tensor)
    assert isinstance(mask, Tensor)
    return image, mask


def mean_iou(first: Tensor, second: Tensor, classes: int) -> Tensor:
    """Intersection over union of class numbers, the mean of the classes that either of the two shows.

    Args:
        first: int64 (n, H, W).
        second: Likewise.
        classes: Their number.

    Returns:
        float32 (n,) in [0, 1].
    """
    n = len(first)
    a, b = (one.flatten(1) + classes * torch.arange(n)[:, None] for one in (first, second))
    of_first, of_second, both = (
        torch.bincount(one.flatten(), minlength=n * classes).reshape(n, classes) for one in (a, b, a[a == b])
    )
    union = of_first + of_second - both
    shares: Tensor = both / union.clamp(min=1)
    return shares.sum(1) / (union > 0).sum(1)
