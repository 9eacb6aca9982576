"""The map-style image dataset that every real data set becomes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor
from torch.utils.data import Dataset


@runtime_checkable
class LazyImages(Protocol):
    """Images that are read when they are asked for: ``images[i]`` is uint8 ``(C, H, W)``."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Tensor: ...

    def select(self, indices: Sequence[int]) -> LazyImages:
        """The images at `indices`, in that order."""


class ImageDataset(Dataset[tuple[Any, int]]):
    """Labelled images in memory or on disk.

    With ``transform = None`` a sample is raw: ``(uint8 tensor (C, H, W) in 0..255, class index)``.

    Attributes:
        images: uint8 tensor ``(n, C, H, W)``, or images that are read lazily.
        targets: class index of each image.
        classes: class names; ``targets`` index into it.
        transform: callable on one image, or None.
    """

    def __init__(
        self,
        images: Tensor | LazyImages,
        targets: Sequence[int],
        classes: Sequence[str],
        transform: Callable[[Any], Any] | None = None,
    ) -> None:
        if len(images) != len(targets):
            raise ValueError(f"{len(images)} images but {len(targets)} targets")
        self.images = images
        self.targets = [int(target) for target in targets]
        self.classes = list(classes)
        self.transform = transform

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        image: Any = self.images[index]
        if self.transform is not None:
            image = self.transform(image)
        return image, self.targets[index]

    def select(self, indices: Sequence[int]) -> ImageDataset:
        """The samples at ``indices``, in that order, with the same classes and transform."""
        images: Tensor | LazyImages
        if isinstance(self.images, Tensor):
            images = self.images.index_select(0, torch.as_tensor(indices, dtype=torch.long))
        else:
            images = self.images.select(indices)
        return ImageDataset(images, [self.targets[i] for i in indices], self.classes, self.transform)
