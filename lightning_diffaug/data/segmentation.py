"""Images with class masks: composed of real digits and photographs, a set of torchvision, or a user's own folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import default_collate
from torchvision import tv_tensors
from typing_extensions import Unpack

from lightning_diffaug.config_check import check_value
from lightning_diffaug.data.aligned import AlignedDataModule, AlignedSettings, AlignedSplits, Sample
from lightning_diffaug.data.base import at_least
from lightning_diffaug.data.box_files import to_be_seen
from lightning_diffaug.data.digit_scenes import CLASS_NAMES, digit_scenes
from lightning_diffaug.data.hub import located
from lightning_diffaug.data.mask_boxes import MaskBoxes
from lightning_diffaug.data.mask_files import IGNORED, Meaning, read_pairs
from lightning_diffaug.data.mask_folder import LAYOUT, folder_pairs
from lightning_diffaug.data.mask_sets import SETS, fetch, set_pairs
from lightning_diffaug.data.parts import check_split
from lightning_diffaug.errors import ConfigurationError

_LISTED = ("boxes", "labels")
_GOLDEN = 0.618034


def batch_of(samples: Sequence[Sample]) -> Sample:
    """A batch of dicts; boxes and their labels, of which each image has its own number, are lists."""
    listed = [name for name in _LISTED if name in samples[0]]
    rest = [{name: value for name, value in sample.items() if name not in listed} for sample in samples]
    return {**default_collate(rest), **{name: [sample[name] for sample in samples] for name in listed}}


class SegmentationDataModule(AlignedDataModule):
    """Images with class masks, and boxes where the files have them.

    A raw sample is a dict: ``image`` uint8 (C, H, W) and ``mask`` int64 (H, W), the class of each pixel, as tv_tensors,
    so that transforms of torchvision v2 move them together. Void pixels are one class more in it, which a generator
    makes like any other, and -100 in a batch, which losses and metrics leave out. With boxes, it has ``boxes``
    (tv_tensors.BoundingBoxes (n, 4), XYXY) and ``labels`` (int64 (n,), their classes) too, which are lists in a batch;
    those of a made sample are around the regions of its mask.

    Args:
        root: Folder of pairs, see `mask_folder.LAYOUT`, or a data set of the Hugging Face hub, see `hub.located`; None:
            scenes of real digits on real photographs.
        size: Height and width of an image of the folder; None: the native size, at most 32.
        classes: Names of the folder's classes, background first; None: ``0`` … the highest of the training masks.
        split: Shares of training, validation and test of a folder without such subfolders.
        split_seed: Of that split.
        void: Value of the folder's mask files that marks pixels of no class, such as 255; None: there are none.
        name: Data set of torchvision that `root` holds, see `mask_sets.SETS`; None: none, it is a folder of pairs.
        download: Fetch the named data set where it is missing.
        columns: Of a data set of the hub: image and mask → its column; None: found by type and name.
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
        void: int | None = None,
        name: str | None = None,
        download: bool = False,
        columns: Mapping[str, str] | None = None,
        **settings: Unpack[AlignedSettings],
    ) -> None:
        super().__init__(**settings)
        at_least("size", size, 8, "height and width of an image in pixels")
        at_least(
            "void",
            check_value(void, int | None, "real.void"),
            1,
            "the value of pixels that are of no class, and 0 is the background",
        )
        check_split(split)
        if classes is not None and (len(classes) < 2 or len(set(classes)) < len(classes)):
            raise ConfigurationError(
                f"real.classes={list(classes)} are not two or more different names, background first. Set real.classes "
                "to e.g. [background,road,car], or to null."
            )
        if root is None and any(one is not None for one in (name, size, classes, void)):
            raise ConfigurationError(
                "real.name, real.size, real.classes and real.void are of a folder, and the composed scenes have "
                "theirs. Set them to null, or real.root to the folder of your images and masks."
            )
        if classes is not None and void is not None and void < len(classes):
            raise ConfigurationError(
                f"real.void={void} is the number of the class {classes[void]!r}. Set real.void to a value that marks "
                "pixels of no class, above the classes, or to null."
            )
        if name is not None and name not in SETS:
            raise ConfigurationError(
                f"real.name={name!r} is none of {', '.join(SETS)}. Set real.name to one of them, or to null for a "
                "folder of your own."
            )
        if name is not None and (classes is not None or void is not None):
            raise ConfigurationError(
                f"real.classes and real.void are known of real.name={name}. Set both to null, or real.name=null."
            )
        if download and name is None:
            raise ConfigurationError(
                f"real.download=true needs the name of a data set. Set real.name to one of {', '.join(SETS)}, or "
                "real.download=false."
            )
        self.root, self.hub = located(root, ("image", "mask"), columns, name)
        self.name = name
        self.download = download
        self.size = size
        self.split = tuple(split)
        self.split_seed = split_seed
        self._meaning = SETS[name].meaning if name is not None else Meaning(classes, void)
        self._names: list[str] | None = None

    def prepare_data(self) -> None:
        """Downloads the named data set where it is missing, if `download` is set, or what the hub has."""
        super().prepare_data()
        if self.download and self.name is not None and self.root is not None:
            fetch(self.name, self.root)

    def load(self) -> AlignedSplits:
        """Composes the scenes, or reads the folder."""
        if self.root is None:
            self._names = list(CLASS_NAMES)
            return digit_scenes()
        if self.name is None:
            parts = folder_pairs(self.root, self.split, self.split_seed)
        else:
            self.prepare_data()
            parts = set_pairs(self.name, self.root, self.split, self.split_seed)
        splits, self._names = read_pairs(parts, self.root, self.size, self._meaning, LAYOUT)
        return splits

    def conversion(self, sample: Sample) -> Sample:
        """Images as float32 in [0, 1], void as -100; boxes that were moved out of the picture are dropped."""
        sample = {**sample, "image": torch.as_tensor(sample["image"]).as_subclass(Tensor).to(torch.float32) / 255}
        if self._void is not None:
            mask = sample["mask"]
            sample["mask"] = tv_tensors.wrap(torch.where(mask == self._void, IGNORED, mask), like=mask)
        if "boxes" in sample:
            boxes = sample["boxes"]
            seen = to_be_seen(boxes)
            sample["boxes"], sample["labels"] = tv_tensors.wrap(boxes[seen], like=boxes), sample["labels"][seen]
        return sample

    @property
    def collate_fn(self) -> Callable[[list[Any]], Any]:
        """See `batch_of`."""
        return batch_of

    @property
    def mask_classes(self) -> list[str]:
        """Names of the classes of pixels, background first, without void."""
        if self._names is None:
            self.setup()
        assert self._names is not None
        return self._names

    @property
    def synthetic_fill(self) -> dict[str, Any]:
        """Boxes and labels of made samples, where the real ones have them."""
        if "boxes" not in self.splits.train.fields:
            return {}
        return {name: MaskBoxes(what=name, void=self._void) for name in _LISTED}

    @property
    def _void(self) -> int | None:
        """The number of void in a raw mask."""
        return None if self._meaning.void is None else len(self.mask_classes)

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
    """RGB in [0, 1], (classes + 1, 3): black, then hues far from one another; white for void."""
    from matplotlib.colors import hsv_to_rgb  # slow to import, and only drawing needs it

    hues = [[(i * _GOLDEN) % 1.0, 0.75, 0.95] for i in range(classes + 1)]
    colours = torch.tensor(hsv_to_rgb(hues), dtype=torch.float32)
    colours[0], colours[-1] = 0.0, 1.0
    return colours
