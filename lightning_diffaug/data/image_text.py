"""Images with captions: a set by name, the user's own folder, or scikit-learn's digits, captioned by measurement."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.datasets.folder import IMG_EXTENSIONS

from lightning_diffaug.data.aligned import AlignedDataModule, AlignedDataset, AlignedSplits, Sample
from lightning_diffaug.data.caption_files import NAMES, Pair, find_captions, read_captioned
from lightning_diffaug.data.caption_sets import SETS, read_set
from lightning_diffaug.data.captioned_digits import caption, levels
from lightning_diffaug.data.hub import located
from lightning_diffaug.data.image_files import ImageFiles, probe
from lightning_diffaug.data.parts import all_parts, check_split, folder_parts
from lightning_diffaug.data.selection import stratified_split
from lightning_diffaug.errors import ConfigurationError
from lightning_diffaug.spec import CAPTION, IMAGE
from lightning_diffaug.words import vocabulary

log = logging.getLogger(__name__)

DEFAULT_SIZE = 32
DIGITS_SPLIT = (0.6, 0.15, 0.25)
LAYOUT = f"""Expected is either
  <root>/train/*.png + <root>/train/captions.csv   <root>/val/…   <root>/test/…   (val may be absent)
or one folder that is split by ratio (real.split)
  <root>/*.png + <root>/captions.csv
captions.csv has the columns file_name (relative to it) and caption; it may also be one of {", ".join(NAMES[1:])}."""


class ImageTextDataModule(AlignedDataModule):
    """Pairs of an image and a caption; samples are ``{"image": uint8 (C, H, W), "caption": str}``.

    Without `root`: the digits, split by class 60 / 15 / 25, each with one caption of `captioned_digits`. Of validation
    and test images that measure alike in everything that a caption says, one is kept, so that each caption is true of
    one image of its gallery.

    With `root`: see `LAYOUT`; with `name` too: see `caption_sets.SETS`. Images are divided, not captions: those of one
    image stay together. In training an image is a sample with each of its captions, in validation and test with its
    first.

    Args:
        root: The folder, or a data set of the Hugging Face hub, see `hub.located`; None: the digits.
        size: Height and width in pixels that every image is cropped and resized to; None: the native size, at most 32.
        split: Shares of training, validation and test when there is one folder, or nothing that divides the set; of the
            first two when there is a test part and none for validation.
        split_seed: Which images go where; apart from `seed`, so that seeds share one test set.
        name: ``"coco_captions"`` (Chen et al. 2015), ``"flickr8k"`` (Hodosh et al. 2013) or ``"flickr30k"`` (Young et
            al. 2014), whose files are in `root`; None: a folder of your own, or the digits.
        columns: Of a data set of the hub: image and caption → its column; None: found by type and name.
        **settings: See `AlignedDataModule`.

    Raises:
        ConfigurationError: The name is unknown, or without `root`; the folder is missing or has another layout; a file
            is missing, or no image; a line of captions says nothing of use.
    """

    few_shots = 300

    def __init__(
        self,
        root: str | Path | None = None,
        size: int | None = None,
        split: Sequence[float] = (0.7, 0.1, 0.2),
        split_seed: int = 0,
        name: str | None = None,
        columns: Mapping[str, str] | None = None,
        **settings: Any,
    ) -> None:
        super().__init__(**settings)
        if size is not None and size < 4:
            raise ConfigurationError(f"real.size={size} is below 4 pixels. Set real.size to 4 or more, or null")
        check_split(split)
        if name is not None and name not in SETS:
            raise ConfigurationError(
                f"real.name={name!r} is unknown. Set real.name to one of {', '.join(SETS)}, or to null for a folder of "
                "your own"
            )
        if name is not None and root is None:
            raise ConfigurationError(
                f"real.name={name} is read from files, and real.root says no folder. Set real.root to the one that "
                f"holds them.\n{SETS[name].layout}"
            )
        self.root, self.hub = located(root, ("image", "caption"), columns, name)
        self.size = size
        self.split = tuple(split)
        self.split_seed = split_seed
        self.name = name

    def load(self) -> AlignedSplits:
        """Reads the digits, or finds the files and divides them; those of training are decoded by `kept`."""
        if self.root is None:
            return captioned_digits()
        parts = self._parts(self.root)
        native, channels = probe([path for path, _ in parts["train"]])
        size = min(native, DEFAULT_SIZE) if self.size is None else self.size
        if self.size is None:
            log.info(
                "%s: images of %d pixels (shorter side, median) are used at %d; see real.size", self.root, native, size
            )

        def dataset(pairs: Sequence[Pair]) -> AlignedDataset:
            return _dataset(ImageFiles([path for path, _ in pairs], size, channels), [text for _, text in pairs])

        val, test = (_decoded(dataset(_first(parts[part]))) for part in ("val", "test"))
        return AlignedSplits(dataset(parts["train"]), val, test)

    def kept(self, train: AlignedDataset) -> AlignedDataset:
        """See `AlignedDataModule.kept`; images that are not kept are not decoded."""
        return _decoded(super().kept(train))

    def conversion(self, sample: Sample) -> Sample:
        """The image as float32 in [0, 1]; the caption stays text."""
        return {**sample, IMAGE: sample[IMAGE].as_subclass(Tensor).to(torch.float32) / 255.0}

    def model_facts(self) -> dict[str, Any]:
        """Channels of an image, and the words of the training captions."""
        train = self.splits.train
        return {
            "in_channels": int(train.fields[IMAGE].shape[1]),
            "vocabulary": vocabulary(train.fields[CAPTION]),
        }

    def picture(self, fields: Mapping[str, Any]) -> Tensor | None:
        """The image."""
        image = fields.get(IMAGE)
        return None if image is None else image.to(torch.float32) / 255.0

    def _parts(self, root: Path) -> dict[str, list[Pair]]:
        def image(pair: Pair) -> Path:  # whose captions stay together
            return pair[0]

        if self.name is not None:
            given = read_set(self.name, root)
            return all_parts(root, given, SETS[self.name].layout, self.split, self.split_seed, unit=image)
        return folder_parts(root, lambda folder: _pairs(folder, root), LAYOUT, self.split, self.split_seed, unit=image)


def captioned_digits() -> AlignedSplits:
    """The 1,797 digits with a caption each; see `ImageTextDataModule`."""
    from sklearn.datasets import load_digits  # slow to import, and only needed here

    digits = load_digits()
    images = torch.from_numpy(digits.images * 255 / 16).round().to(torch.uint8).unsqueeze(1)
    shown = np.column_stack([digits.target, levels(images.to(torch.float32) / 255).numpy()])
    texts = [caption(int(row[0]), row[1:].tolist(), number) for number, row in enumerate(shown)]
    whole = _dataset(images, texts)
    train, val, test = stratified_split(digits.target.tolist(), DIGITS_SPLIT)

    def distinct(part: Sequence[int]) -> list[int]:
        _, first = np.unique(shown[part], axis=0, return_index=True)
        return [part[i] for i in sorted(first)]

    return AlignedSplits(whole.select(train), whole.select(distinct(val)), whole.select(distinct(test)))


def _dataset(images: Tensor | ImageFiles, texts: Sequence[str]) -> AlignedDataset:
    return AlignedDataset({IMAGE: images, CAPTION: list(texts)}, wrap={IMAGE: tv_tensors.Image})


def _decoded(part: AlignedDataset) -> AlignedDataset:
    """The images of a part in memory, each file read once however many captions it has."""
    files = part.fields[IMAGE]
    if not isinstance(files, ImageFiles):
        return part
    number = {path: i for i, path in enumerate(dict.fromkeys(files.paths))}
    images = ImageFiles(list(number), files.size, files.channels).read()
    return _dataset(images[torch.tensor([number[path] for path in files.paths])], part.fields[CAPTION])


def _pairs(folder: Path, root: Path) -> list[Pair]:
    """The images of a folder with their captions, which its own file says, or that of the root; [] of an empty one."""
    path = find_captions(folder) or find_captions(root)
    if path is None:
        if not _holds_images(folder):
            return []
        raise ConfigurationError(
            f"{folder} has no file of captions, so nothing says what its images show. Add captions.csv there, or set "
            f"real.root to a folder of this layout.\n{LAYOUT}"
        )
    found, base = [], path.parent
    for entry in read_captioned(path):
        parts = PurePosixPath(entry.image.replace("\\", "/")).parts
        if base != folder and parts[0] != folder.name:
            continue
        image = base.joinpath(*parts)
        if not image.is_file():
            raise ConfigurationError(
                f"{path}, line {entry.line}, names the image {entry.image!r}, and there is no file {image}. Add it, or "
                f"take the line out; file_name is relative to the file of captions.\n{LAYOUT}"
            )
        found.append((image, entry.caption))
    if not found and _holds_images(folder):
        raise ConfigurationError(
            f"{path} has no caption of an image in {folder}. Write file_name as {folder.name}/…, or put a captions.csv "
            f"into {folder}.\n{LAYOUT}"
        )
    return found


def _holds_images(folder: Path) -> bool:
    return any(path.suffix.lower() in IMG_EXTENSIONS and not path.name.startswith(".") for path in folder.rglob("*"))


def _first(pairs: Sequence[Pair]) -> list[Pair]:
    """Each image with its first caption."""
    return list({path: (path, text) for path, text in reversed(pairs)}.values())[::-1]
