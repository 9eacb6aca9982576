"""torchvision's data sets of images with class masks, by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from torchvision.datasets import OxfordIIITPet, VOCSegmentation

from lightning_diffaug.data.box_files import voc_boxes
from lightning_diffaug.data.mask_files import IGNORED, Meaning, Pair
from lightning_diffaug.data.parts import all_parts
from lightning_diffaug.errors import ConfigurationError

_VOC = (
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable",
    "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip


@dataclass(frozen=True)
class MaskSet:
    """A data set.

    Attributes:
        meaning: Of the values in its mask files.
        parts: Our part → torchvision's. Without ``val`` it is split off the training part.
        read: ``(root, torchvision's part, download)`` → its pairs, each with what it is stratified by, or None.
        where: The folder below the root.
    """

    meaning: Meaning
    parts: Mapping[str, str]
    read: Callable[[Path, str, bool], list[tuple[Pair, int | None]]]
    where: str


def fetch(name: str, root: Path) -> None:
    """Downloads a data set by torchvision, checked by its hashes, unless it is there."""
    chosen = SETS[name]
    for part in chosen.parts.values():
        try:
            chosen.read(root, part, False)
        except (OSError, RuntimeError):
            chosen.read(root, part, True)


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
    try:
        read = {part: chosen.read(root, theirs, False) for part, theirs in chosen.parts.items()}
    except (OSError, RuntimeError) as error:
        raise ConfigurationError(
            f"real.root={root} does not hold {name} ({error}): searched was {root / chosen.where}. Set real.download="
            "true to fetch it, or real.root to the folder that holds it."
        ) from error
    where = f"Expected is {root / chosen.where} as torchvision writes it."
    parts = all_parts(root, read, where, split, split_seed, label=lambda one: one[1])
    return {part: [pair for pair, _ in pairs] for part, pairs in parts.items()}


def _pets(root: Path, part: str, download: bool) -> list[tuple[Pair, int | None]]:
    found = OxfordIIITPet(root, part, "segmentation", download=download)
    pairs = (Pair(image, mask) for image, mask in zip(found._images, found._segs, strict=True))
    return list(zip(pairs, found._labels, strict=True))  # of breeds


def _voc(year: str, root: Path, part: str, download: bool) -> list[tuple[Pair, int | None]]:
    found = VOCSegmentation(root, year, part, download)
    images = [Path(path) for path in found.images]
    boxes = [voc_boxes(path.parents[1] / "Annotations" / f"{path.stem}.xml") for path in images]
    return [(Pair(*one), None) for one in zip(images, map(Path, found.masks), boxes, strict=True)]


SETS: dict[str, MaskSet] = {
    # a trimap: 1 is the animal, 2 what is behind it, 3 the edge, of no class
    "oxford_iiit_pet": MaskSet(
        Meaning(("background", "pet"), 3, {2: 0, 1: 1}),
        {"train": "trainval", "test": "test"},
        _pets,
        "oxford-iiit-pet",
    ),
    "voc2007": MaskSet(
        Meaning(_VOC, IGNORED),
        {"train": "train", "val": "val", "test": "test"},
        partial(_voc, "2007"),
        "VOCdevkit/VOC2007",
    ),
    # its test part is not public, and what it has for validation is the test here
    "voc2012": MaskSet(
        Meaning(_VOC, IGNORED), {"train": "train", "test": "val"}, partial(_voc, "2012"), "VOCdevkit/VOC2012"
    ),
}
"""Parkhi et al. 2012 (7,349 images); Everingham et al. 2010 (632 and 2,913 images with masks)."""
