"""What all real data sets share: few-shot selection, transforms and loaders."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

import torch
from torch import Tensor
from torchvision.transforms import v2

from lightning_diffaug.data.dataset import ImageDataset
from lightning_diffaug.data.selection import few_shot, minority_classes, resolve_rare
from lightning_diffaug.data.split_module import SplitDataModule, Transform
from lightning_diffaug.errors import ConfigurationError

log = logging.getLogger(__name__)


class RealSettings(TypedDict, total=False):
    """Arguments that every real data set takes; see `RealDataModule`."""

    batch_size: int
    num_workers: int
    shots: int | None
    rare_classes: int | Sequence[int | str]
    rare_shots: int | None
    seed: int
    augment: Transform | None


class RealDataModule(SplitDataModule[ImageDataset]):
    """Real, labelled images; a subclass only says how they are loaded.

    Batches are ``(x, y)``: x float32 ``(n, C, H, W)`` in [0, 1], y int64 ``(n,)``. The split is fixed;
    `seed` decides which classes are rare and which training images are kept. Everything about the data is
    known after `setup`; an attribute that is read before runs it.

    Args:
        batch_size: images per batch (of one rank).
        num_workers: worker processes per loader.
        shots: labelled training images kept per class; None keeps all.
        rare_classes: how many classes are made rare (drawn by `seed`), or a list of indices or names.
        rare_shots: training images kept of each rare class; None leaves them as many as the others.
        seed: seed of the selection.
        augment: random transform of the raw uint8 training image, before `conversion`; None: none.

    Raises:
        ConfigurationError: a setting is out of range (here), or does not fit the data (`setup`).
    """

    def __init__(
        self,
        *,
        batch_size: int = 64,
        num_workers: int = 0,
        shots: int | None = None,
        rare_classes: int | Sequence[int | str] = 0,
        rare_shots: int | None = None,
        seed: int = 0,
        augment: Transform | None = None,
    ) -> None:
        super().__init__()
        at_least("batch_size", batch_size, 1, "how many images a batch holds")
        at_least("num_workers", num_workers, 0, "how many processes load batches")
        at_least("shots", shots, 1, "how many training images are kept per class (null: all)")
        at_least("rare_shots", rare_shots, 1, "how many training images a rare class keeps (null: as `shots`)")
        at_least("seed", seed, 0, "the seed of the few-shot selection")
        if isinstance(rare_classes, int) and rare_classes > 0 and rare_shots is None:
            raise ConfigurationError(
                f"real.rare_classes={rare_classes} without rare_shots: the drawn classes would not be rare. "
                "Set real.rare_shots to how many images each keeps, or real.rare_classes=0"
            )
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.shots = shots
        self.rare_shots = rare_shots
        self.seed = seed
        self.augment = augment
        self.conversion: Transform = v2.ToDtype(torch.float32, scale=True)
        self._requested_rare = rare_classes
        self._rare: list[int] = []

    def kept(self, train: ImageDataset) -> ImageDataset:
        """At most `shots` images of each class, fewer of the rare ones."""
        rare = resolve_rare(self._requested_rare, train.classes, self.seed)
        most = max(Counter(train.targets).values(), default=0)
        if self.shots is not None and self.shots > most:
            log.warning("real.shots=%d is more than there is: no class has more than %d images.", self.shots, most)
        chosen = train.select(few_shot(train.targets, len(train.classes), self.shots, rare, self.rare_shots, self.seed))
        self._rare = rare or minority_classes(_counts(chosen))
        return chosen

    def model_facts(self) -> dict[str, Any]:
        """Arguments of the model that only the data know."""
        return {
            "num_classes": self.num_classes,
            "in_channels": self.in_channels,
            "class_counts": self.class_counts,
            "rare_classes": self.rare_classes,
            "class_names": self.class_names,
        }

    def picture(self, fields: Mapping[str, Any]) -> Tensor | None:
        """How a raw sample is drawn: its image in [0, 1]; None: not at all.

        Args:
            fields: Its tensors by the names that ``data.fields`` gives them.
        """
        image = fields.get("image")
        return None if image is None else shown(image)

    @property
    def eval_transform(self) -> Transform:
        """`conversion` alone."""
        return self.conversion

    @property
    def class_counts(self) -> list[int]:
        """Training images per class, after the selection."""
        return _counts(self.splits.train)

    @property
    def rare_classes(self) -> list[int]:
        """Indices of the rare classes: those asked for, else those below half the median count."""
        self.splits  # noqa: B018 (sets `_rare`)
        return list(self._rare)

    @property
    def in_channels(self) -> int:
        """Channels of an image."""
        return int(self.splits.train.images[0].shape[0])

    @property
    def image_size(self) -> int:
        """Height and width of an image in pixels (images are square)."""
        return int(self.splits.train.images[0].shape[-1])


def _counts(images: ImageDataset) -> list[int]:
    return torch.bincount(torch.tensor(images.targets), minlength=len(images.classes)).tolist()


def at_least(key: str, value: int | None, least: int, meaning: str) -> None:
    """Refuses a setting below `least`; None is no setting."""
    if value is not None and value < least:
        raise ConfigurationError(
            f"real.{key}={value} is below {least}: it is {meaning}. Set real.{key} to {least} or more"
        )


def shown(image: Tensor) -> Tensor:
    """A raw image (C, H, W), uint8 or float in [0, 1], as float32 in [0, 1]."""
    return image.to(torch.float32) / 255 if image.dtype == torch.uint8 else image.to(torch.float32).clamp(0.0, 1.0)
