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
from lightning_diffaug.data.box_files import Box
from lightning_diffaug.data.image_files import ImageFiles, probe
from lightning_diffaug.errors import ConfigurationError

log = logging.getLogger(__name__)

DEFAULT_SIZE = 32
IGNORED = -100
"""What a void pixel is in a batch: torch's losses leave it out, and no class can be it."""

_LIKELY_VOID = 255
_OUTSIDE = 0.02  # of a side, and a pixel: annotators round

_LOSSLESS = (".png", ".bmp", ".tif", ".tiff", ".pgm", ".ppm")
_LOSSY = {"JPEG", "WEBP", "jpeg", "tiff_jpeg", "webp"}  # formats, and compressions of a tif
_NUMBERS = frozenset({"1", "L", "P", "I", "I;16", "I;16B", "I;16L", "I;16N"})


@dataclass(frozen=True)
class Pair:
    """An image, its mask, and its objects; None: nothing says where they are."""

    image: Path
    mask: Path
    boxes: tuple[Box, ...] | None = None


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
    masks = {part: [_mask(pair, pixels, meaning, layout) for pair in pairs] for part, pairs in parts.items()}
    highest = max(mask.high for mask in masks["train"])
    if highest < 1:
        raise ConfigurationError(
            f"real.root={root}: the training masks hold no class but 0, so there is nothing to segment. Set real.root "
            f"to other data.\n{layout}"
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
            fitted = [_boxes(pair, mask, pixels, names) for pair, mask in zip(pairs, read, strict=True)]
            fields["boxes"], fields["labels"] = [boxes for boxes, _ in fitted], [labels for _, labels in fitted]
            all_boxes, kept = sum(len(pair.boxes or ()) for pair in pairs), sum(map(len, fields["labels"]))
            if kept < all_boxes:
                log.info(
                    "%s: %d of the %d boxes in %s are left out: the central square does not show them, or they are "
                    "below a pixel at real.size=%d.", root, all_boxes - kept, all_boxes, part, pixels,
                )  # fmt: skip
        return AlignedDataset(fields, wrap={"image": tv_tensors.Image, "mask": tv_tensors.Mask})

    with_boxes = {part: all(pair.boxes is not None for pair in pairs) for part, pairs in parts.items()}
    if len(set(with_boxes.values())) > 1:
        log.warning(
            "real.root=%s has boxes in %s alone: elsewhere they are made of the masks, and objects that touch are one.",
            root, " and ".join(part for part in parts if with_boxes[part]),
        )  # fmt: skip
    return AlignedSplits(dataset("train"), dataset("val"), dataset("test")), names


def _mask(pair: Pair, size: int, meaning: Meaning, layout: str) -> _Mask:
    """Reads one mask and reduces it at once: thousands of whole ones would fill the memory."""
    try:
        with Image.open(pair.mask) as file:
            mode, values, kind = file.mode, np.asarray(file), {file.format, file.info.get("compression")}
        with Image.open(pair.image) as file:
            width, height = ImageOps.exif_transpose(file).size
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
    fitted = _resized(numbers, size)
    if not (fitted != IGNORED).any():
        raise ConfigurationError(
            f"{pair.mask} is void (real.void={meaning.void}) in all of its central square, which is what is used, so "
            "nothing can be learned from it. Take it and its image out, or set real.void to another value."
        )
    known = numbers[shown]
    return _Mask(fitted, int(known.min()), int(known.max()), width, height)


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


def _boxes(pair: Pair, mask: _Mask, size: int, names: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Boxes (n, 4) and labels (n,) in the central square at its size; what it cuts off, to a pixel, is left out."""
    side = min(mask.width, mask.height)
    corner = torch.tensor([(mask.width - side) / 2, (mask.height - side) / 2]).repeat(2)
    found = pair.boxes or ()
    for box in found:
        _check_inside(box, mask, pair.image)
    corners = torch.tensor([box.corners for box in found], dtype=torch.float32).reshape(-1, 4)
    inside = ((corners - corner) * (size / side)).clamp(0, size)
    labels = torch.tensor([box.number(names) for box in found], dtype=torch.int64)
    seen = (inside[:, 2:] - inside[:, :2] >= 1).all(1)
    return tv_tensors.BoundingBoxes(inside[seen], format="XYXY", canvas_size=(size, size)), labels[seen]


def _check_inside(box: Box, mask: _Mask, image: Path) -> None:
    left, top, right, bottom = box.corners
    room_x, room_y = (_OUTSIDE * side + 1 for side in (mask.width, mask.height))
    if left < -room_x or top < -room_y or right > mask.width + room_x or bottom > mask.height + room_y:
        raise ConfigurationError(
            f"{box.path} has a box from ({left:g}, {top:g}) to ({right:g}, {bottom:g}), and {image} is, upright, "
            f"{mask.width} by {mask.height} pixels: they do not belong together. Give the boxes in pixels of the "
            f"image, or take {box.path.name} out: then boxes are made of the masks."
        )
