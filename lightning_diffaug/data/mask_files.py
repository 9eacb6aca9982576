"""Images with their class masks, and boxes where there are any, as tensors of one size."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor
from torchvision import tv_tensors

from lightning_diffaug.data.aligned import AlignedDataset, AlignedSplits
from lightning_diffaug.data.box_files import Objects
from lightning_diffaug.data.image_files import ImageFiles, probe, upright_size
from lightning_diffaug.data.progress import followed
from lightning_diffaug.errors import ConfigurationError

log = logging.getLogger(__name__)

DEFAULT_SIZE = 32
IGNORED = -100
"""What a void pixel is in a batch: torch's losses leave it out, and no class can be it."""

_LIKELY_VOID = 255

_LOSSLESS = (".png", ".bmp", ".tif", ".tiff", ".pgm", ".ppm")
_LOSSY = {"JPEG", "WEBP", "jpeg", "tiff_jpeg", "webp"}  # formats, and compressions of a tif
_NUMBERS = frozenset({"1", "L", "P", "I", "I;16", "I;16B", "I;16L", "I;16N"})


@dataclass(frozen=True)
class Pair:
    """An image, its mask, and its objects; None: nothing says where they are."""

    image: Path
    mask: Path
    objects: Objects | None = None


@dataclass(frozen=True)
class Meaning:
    """What the values of mask files say.

    Attributes:
        classes: Names of the classes, background first; None: ``0`` … the highest of the training masks.
        void: The value of pixels that are of no class; None: there are none.
        numbers: Value → class, of files that do not hold class numbers.
    """

    classes: Sequence[str] | None = None
    void: int | None = None
    numbers: Mapping[int, int] | None = None


@dataclass(frozen=True)
class _Mask:
    """A mask at the size that is used (void is `IGNORED`), the classes of the whole file, and the image's size."""

    values: Tensor
    low: int
    high: int
    width: int
    height: int


def read_pairs(
    parts: Mapping[str, Sequence[Pair]], root: Path, size: int | None, meaning: Meaning, layout: str
) -> tuple[AlignedSplits, list[str]]:
    """The pairs of each part, in memory, and the names of the classes.

    A sample's ``mask`` is int64 (size, size), void pixels as one class more; with boxes, there are ``boxes``
    (tv_tensors.BoundingBoxes (n, 4), XYXY in pixels of the image as it is used) and ``labels`` (int64 (n,)) too.

    Args:
        parts: ``train``, ``val`` and ``test``.
        root: The folder (``real.root``), for errors.
        size: Height and width that pairs are cropped (to the central square) and resized to; None: the native size,
            at most 32.
        meaning: Of the values in the files.
        layout: What is expected, for errors.

    Raises:
        ConfigurationError: A file cannot be used, or does not fit the others.
    """
    native, channels = probe([pair.image for pair in parts["train"]])
    pixels = min(native, DEFAULT_SIZE) if size is None else size
    if size is None:
        log.info("%s: images of %d pixels (shorter side, median) are used at %d; see real.size", root, native, pixels)
    masks = {
        part: [_mask(pair, pixels, meaning, layout) for pair in followed(pairs, "reading masks", "mask", len(pairs))]
        for part, pairs in parts.items()
    }
    highest = max(mask.high for mask in masks["train"])
    if highest < 1:
        raise ConfigurationError(
            f"real.root={root}: the training masks hold no class but 0, so there is nothing to segment. Set real.root "
            f"to other data.\n{layout}"
        )
    if meaning.void is not None and meaning.numbers is None and meaning.void <= highest:
        raise ConfigurationError(
            f"real.void={meaning.void} is among the class numbers, which go up to {highest} in the training masks of "
            f"real.root={root}: a class would be missing. Number the classes without gaps and void above them."
        )
    names = [str(i) for i in range(highest + 1)] if meaning.classes is None else [str(name) for name in meaning.classes]
    for part, pairs in parts.items():
        for pair, mask in zip(pairs, masks[part], strict=True):
            _check_classes(pair.mask, mask, len(names), root, told=meaning.classes is not None)

    def dataset(part: str) -> AlignedDataset:
        pairs, read = parts[part], masks[part]
        stacked = torch.stack([mask.values for mask in read])
        fields: dict[str, Any] = {
            "image": ImageFiles([pair.image for pair in pairs], pixels, channels).read(),
            "mask": stacked.masked_fill(stacked == IGNORED, len(names)),
        }
        if with_boxes[part]:
            fields |= _boxes(pairs, read, pixels, names, root, part)
        return AlignedDataset(fields, wrap={"image": tv_tensors.Image, "mask": tv_tensors.Mask})

    with_boxes = {part: all(pair.objects is not None for pair in pairs) for part, pairs in parts.items()}
    if len(set(with_boxes.values())) > 1:
        log.warning(
            "real.root=%s has boxes in %s alone: elsewhere they are made of the masks, and objects that touch are one.",
            root, " and ".join(part for part in parts if with_boxes[part]),
        )  # fmt: skip
    return AlignedSplits(dataset("train"), dataset("val"), dataset("test")), names


def _boxes(
    pairs: Sequence[Pair], masks: Sequence[_Mask], size: int, names: Sequence[str], root: Path, part: str
) -> dict[str, list[Any]]:
    """Boxes and labels of each image of a part; those that are left out are said."""
    fitted = [
        pair.objects.fitted(pair.image, mask.width, mask.height, size, names)
        for pair, mask in zip(pairs, masks, strict=True)
        if pair.objects is not None
    ]
    told, kept = sum(len(pair.objects.boxes) for pair in pairs if pair.objects), sum(len(one) for _, one in fitted)
    if kept < told:
        log.warning(
            "%s: %d of the %d boxes in %s are left out, as at real.size=%d they are below a pixel, or the central "
            "square does not show them: neither training nor mean average precision knows of them. See real.size.",
            root, told - kept, told, part, size,
        )  # fmt: skip
    return {"boxes": [boxes for boxes, _ in fitted], "labels": [labels for _, labels in fitted]}


def _mask(pair: Pair, size: int, meaning: Meaning, layout: str) -> _Mask:
    """Reads one mask and reduces it at once: thousands of whole ones would fill the memory."""
    try:
        with Image.open(pair.mask) as file:
            mode, values, kind = file.mode, np.asarray(file), {file.format, file.info.get("compression")}
        with Image.open(pair.image) as file:
            width, height = upright_size(file)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ConfigurationError(
            f"{pair.mask} or its image cannot be read ({error}), so the data set is incomplete. Repair the file, take "
            "both out, or set real.root to another folder."
        ) from error
    _check_lossless(pair.mask, kind, layout)
    if mode not in _NUMBERS:
        raise ConfigurationError(
            f"{pair.mask} has colours (mode {mode}) in place of class numbers. Save masks with one grey or palette "
            f"value a pixel, or set real.root to another folder.\n{layout}"
        )
    if values.shape != (height, width):
        raise ConfigurationError(
            f"{pair.mask} is {values.shape[1]} by {values.shape[0]} pixels and {pair.image.name} {width} by {height}: "
            "they do not belong together. Give both one size, or set real.root to another folder."
        )
    numbers, shown = _class_numbers(values, pair.mask, meaning)
    known = numbers[shown] if shown.any() else np.zeros(1)  # all may be void
    return _Mask(_resized(numbers, size), int(known.min()), int(known.max()), width, height)


def _class_numbers(values: NDArray[Any], path: Path, meaning: Meaning) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Class numbers, void as `IGNORED`, and where they are not void."""
    shown = np.ones(values.shape, dtype=bool) if meaning.void is None else values != meaning.void
    if meaning.numbers is None:
        return np.where(shown, values.astype(np.int32), IGNORED) if meaning.void is not None else values, shown
    numbers = np.full(values.shape, IGNORED, dtype=np.int32)
    for value in np.unique(values[shown]).tolist():
        if value not in meaning.numbers:
            raise ConfigurationError(
                f"{path} holds the value {value}, and in this data set there are {sorted(meaning.numbers)}: the file "
                "is not of it. Replace it, or set real.root to another folder."
            )
        numbers[values == value] = meaning.numbers[value]
    return numbers, shown


def _check_lossless(path: Path, kind: set[str | None], layout: str) -> None:
    """Refuses a lossy file by its name, and by what it is: `kind` are its format and compression."""
    lossy = [name for name in sorted(map(str, kind)) if name in _LOSSY]
    if path.suffix.lower() in _LOSSLESS and not lossy:
        return
    raise ConfigurationError(
        f"{path} is a mask in a format that can change values ({(*lossy, path.suffix[1:])[0]}), so that pixels at "
        "edges would be of classes that are not there. Save the masks anew as png, from the class numbers and not from "
        f"this file, or set real.root to another folder.\n{layout}"
    )


def _check_classes(path: Path, mask: _Mask, number: int, root: Path, told: bool) -> None:
    low, high = mask.low, mask.high
    if low >= 0 and high < number and high != _LIKELY_VOID:
        return
    wrong = high if high >= number or high == _LIKELY_VOID else low
    why = (
        f"the value {wrong}. Where it marks the object (masks of 0 and {wrong}), save it as 1; where it marks pixels "
        f"that are of no class, set real.void={wrong}"
        if wrong == _LIKELY_VOID
        else f"the class {wrong}, and there are 0 … {number - 1} "
        + ("(real.classes)" if told else "in the training masks")
        + ": correct the mask, or name all classes in real.classes"
    )
    raise ConfigurationError(f"{path} of real.root={root} holds {why}.")


def _resized(mask: NDArray[Any], size: int) -> Tensor:
    """The central square at another size, each pixel the nearest one's class: the place that `ImageFiles` shows.

    int64 (size, size).
    """
    whole = Image.fromarray(mask.astype(np.int32))
    fitted = ImageOps.fit(whole, (size, size), Image.Resampling.NEAREST)
    return torch.from_numpy(np.array(fitted)).to(torch.int64)
