"""torchvision's data sets of images with class masks, by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from torchvision.datasets import OxfordIIITPet, VOCSegmentation

from lightning_diffaug.data.box_files import voc_objects
from lightning_diffaug.data.mask_files import Meaning, Pair
from lightning_diffaug.data.parts import all_parts
from lightning_diffaug.data.torchvision_files import downloading
from lightning_diffaug.errors import ConfigurationError

_VOC = (
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable",
    "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip


@dataclass(frozen=True)
class Files:
    """The files of a pair, and what pairs are divided by, such as a breed."""

    image: Path
    mask: Path
    kind: int | None = None
    boxes: Path | None = None

    def pair(self, remedy: str) -> Pair:
        """The pair, with its boxes; see `voc_objects`."""
        return Pair(self.image, self.mask, None if self.boxes is None else voc_objects(self.boxes, remedy))


@dataclass(frozen=True)
class MaskSet:
    """A data set.

    Attributes:
        meaning: Of the values in its mask files.
        parts: Our part → torchvision's. Without ``val`` it is split off the training part.
        files: ``(root, torchvision's part, download)`` → the files of each of its pairs.
        where: The folder below the root.
    """

    meaning: Meaning
    parts: Mapping[str, str]
    files: Callable[[Path, str, bool], list[Files]]
    where: str


def fetch(name: str, root: Path) -> None:
    """Downloads a data set by torchvision, checked by its hashes, unless it is there as a whole."""
    chosen = SETS[name]
    for part in chosen.parts.values():
        try:
            whole = not _missing(chosen.files(root, part, False))
        except (OSError, RuntimeError):
            whole = False
        if not whole:
            with downloading(name, root):
                chosen.files(root, part, True)


def set_pairs(name: str, root: Path, split: Sequence[float], split_seed: int) -> dict[str, list[Pair]]:
    """The pairs of each part.

    Args:
        name: One of `SETS`.
        root: Where torchvision puts it, or would.
        split: Shares; where the set has no validation part, it is split off the training part by the first two.
        split_seed: Which pairs go where.

    Raises:
        ConfigurationError: It is not there, or incomplete.
    """
    chosen = SETS[name]
    where = root / chosen.where
    try:
        parts = {part: chosen.files(root, theirs, False) for part, theirs in chosen.parts.items()}
    except (OSError, RuntimeError) as error:
        raise ConfigurationError(
            f"real.root={root} does not hold {name} ({error}): searched was {where}. Set real.download=true to fetch "
            f"it, or real.root to the folder that holds it{_nearby(root, chosen.where)}."
        ) from error
    again = f"Remove {where} and set real.download=true to fetch it again, or set real.root to a whole one."
    every = [files for found in parts.values() for files in found]
    if missing := _missing(every):
        raise ConfigurationError(
            f"{where} lacks {len(missing)} files of {name}, such as {missing[0]}: it was not unpacked to its end. "
            f"{again}"
        )
    layout = f"Expected is {where} as torchvision writes it."
    divided = all_parts(root, parts, layout, split, split_seed, label=lambda files: files.kind)
    return {part: [files.pair(again) for files in found] for part, found in divided.items()}


def _nearby(root: Path, where: str) -> str:
    """A folder above that holds it: what was named may be a folder in it."""
    above = next((folder for folder in root.absolute().parents if (folder / where).is_dir()), None)
    return "" if above is None else f", such as {above}"


def _missing(found: Sequence[Files]) -> list[Path]:
    paths = (path for one in found for path in (one.image, one.mask, one.boxes) if path is not None)
    return [path for path in paths if not path.is_file()]


def _pets(root: Path, part: str, download: bool) -> list[Files]:
    found = OxfordIIITPet(root, part, "segmentation", download=download)
    return [Files(*one) for one in zip(found._images, found._segs, found._labels, strict=True)]


def _voc(year: str, root: Path, part: str, download: bool) -> list[Files]:
    found = VOCSegmentation(root, year, part, download)
    images, masks = ([Path(path) for path in paths] for paths in (found.images, found.masks))
    boxes = [path.parents[1] / "Annotations" / f"{path.stem}.xml" for path in images]
    return [Files(image, mask, None, box) for image, mask, box in zip(images, masks, boxes, strict=True)]


SETS: dict[str, MaskSet] = {
    # a trimap: 1 is the animal, 2 what is behind it, 3 the edge, of no class
    "oxford_iiit_pet": MaskSet(
        Meaning(("background", "pet"), 3, {2: 0, 1: 1}),
        {"train": "trainval", "test": "test"},
        _pets,
        "oxford-iiit-pet",
    ),
    "voc2007": MaskSet(
        Meaning(_VOC, 255),
        {"train": "train", "val": "val", "test": "test"},
        partial(_voc, "2007"),
        "VOCdevkit/VOC2007",
    ),
    # its test part is not public, and what it has for validation is the test here
    "voc2012": MaskSet(
        Meaning(_VOC, 255), {"train": "train", "test": "val"}, partial(_voc, "2012"), "VOCdevkit/VOC2012"
    ),
}
"""Parkhi et al. 2012 (7,349 images); Everingham et al. 2010 (632 and 2,913 images with masks)."""
