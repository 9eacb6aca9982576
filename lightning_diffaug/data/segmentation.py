"""Images with class masks: composed of real digits and photographs, or a user's own folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from typing_extensions import Unpack

from lightning_diffaug.data.aligned import AlignedDataModule, AlignedSettings, AlignedSplits, Sample
from lightning_diffaug.data.base import at_least
from lightning_diffaug.data.digit_scenes import CLASS_NAMES, digit_scenes
from lightning_diffaug.data.mask_folder import mask_splits
from lightning_diffaug.data.parts import check_split
from lightning_diffaug.errors import ConfigurationError

_GOLDEN = 0.618034


class SegmentationDataModule(AlignedDataModule):
    """Images with class masks.

    A raw sample is a dict: ``image`` uint8 (C, H, W) and ``mask`` int64 (H, W), the class of each pixel, both as
    tv_tensors, so that transforms of torchvision v2 move them together.

    Args:
        root: Folder of pairs, see `mask_folder.LAYOUT`; None: scenes of real digits on real photographs.
        size: Height and width of an image of the folder; None: the native size, at most 32.
        classes: Names of the folder's classes, background first; None: ``0`` … the highest of the training masks.
        split: Shares of training, validation and test of a folder without such subfolders.
        split_seed: Of that split.
        **settings: See `AlignedDataModule`.

    Raises:
        ConfigurationError: A setting is out of range, or the folder has another layout (`setup`).
    """

    few_shots = 60

    def __init__(
        self,
        root: str | Path | None = None,
        size: int | None = None,
        classes: Sequence[str] | None = None,
        split: Sequence[float] = (0.7, 0.1, 0.2),
        split_seed: int = 0,
        **settings: Unpack[AlignedSettings],
    ) -> None:
        super().__init__(**settings)
        at_least("size", size, 8, "height and width of an image in pixels")
        check_split(split)
        if classes is not None and (len(classes) < 2 or len(set(classes)) < len(classes)):
            raise ConfigurationError(
                f"real.classes={list(classes)} are not two or more different names, background first. Set real.classes "
                "to e.g. [background,road,car], or to null."
            )
        if root is None and (size is not None or classes is not None):
            raise ConfigurationError(
                "real.size and real.classes are of a folder, and the composed scenes have theirs. Set both to null, or "
                "real.root to your own images and masks."
            )
        self.root = None if root is None else Path(root).expanduser()
        self.size = size
        self.split = tuple(split)
        self.split_seed = split_seed
        self._names = None if classes is None else [str(name) for name in classes]

    def load(self) -> AlignedSplits:
        """Composes the scenes, or reads the folder."""
        if self.root is None:
            self._names = list(CLASS_NAMES)
            return digit_scenes()
        told = None if self._names is None else len(self._names)
        splits, number = mask_splits(self.root, self.size, told, self.split, self.split_seed)
        self._names = self._names or [str(i) for i in range(number)]
        return splits

    def conversion(self, sample: Sample) -> Sample:
        """Images as float32 in [0, 1]."""
        return {**sample, "image": torch.as_tensor(sample["image"]).as_subclass(Tensor).to(torch.float32) / 255}

    @property
    def mask_classes(self) -> list[str]:
        """Names of the classes of pixels, background first."""
        if self._names is None:
            self.setup()
        assert self._names is not None
        return self._names

    def model_facts(self) -> dict[str, Any]:
        """Classes of pixels and channels of an image."""
        return {
            "num_classes": len(self.mask_classes),
            "class_names": self.mask_classes,
            "in_channels": int(self.splits.train.fields["image"].shape[1]),
        }

    def picture(self, fields: Mapping[str, Any]) -> Tensor:
        """The image, and its mask in colours to the right of it."""
        image, mask = fields["image"], fields["mask"]
        colours = _colours(len(self.mask_classes))[mask.reshape(mask.shape[-2:]).long()]
        shown = (image.float() / 255).expand(3, -1, -1)
        return torch.cat((shown, colours.movedim(-1, 0)), dim=-1)


def _colours(classes: int) -> Tensor:
    """RGB in [0, 1], (classes, 3): black, then hues far from one another."""
    from matplotlib.colors import hsv_to_rgb  # slow to import, and only drawing needs it

    hues = [[(i * _GOLDEN) % 1.0, 0.75, 0.95] for i in range(classes)]
    colours = torch.tensor(hsv_to_rgb(hues), dtype=torch.float32)
    colours[0] = 0.0
    return colours
