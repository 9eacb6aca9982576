"""A user's own images with class masks: pairs of files of one name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor
from torchvision import tv_tensors
from torchvision.datasets.folder import IMG_EXTENSIONS

from lightning_diffaug.data.aligned import AlignedDataset, AlignedSplits
from lightning_diffaug.data.image_files import ImageFiles, probe
from lightning_diffaug.data.parts import folder_parts, shown_files
from lightning_diffaug.errors import ConfigurationError

LAYOUT = """Expected is either
  <root>/train/images/<name>.png + <root>/train/masks/<name>.png   <root>/val/…   <root>/test/…   (val may be absent)
or one folder that is split by ratio (real.split)
  <root>/images/<name>.png + <root>/masks/<name>.png
A mask is a png, bmp or tif of the image's size whose grey or palette values are class numbers: 0 background, then 1,
2, …"""
DEFAULT_SIZE = 32
IGNORED = 255
_LOSSLESS = (".png", ".bmp", ".tif", ".tiff", ".pgm", ".ppm")
_LOSSY = {"JPEG", "WEBP", "jpeg", "tiff_jpeg", "webp"}  # formats, and compressions of a tif
_NUMBERS = frozenset({"1", "L", "P", "I", "I;16", "I;16B", "I;16L", "I;16N"})


@dataclass(frozen=True)
class _Pair:
    image: Path
    mask: Path


@dataclass(frozen=True)
class _Mask:
    """A mask at the size that is used, and the classes of the whole file."""

    values: Tensor
    low: int
    high: int


def mask_splits(
    root: Path, size: int | None, classes: int | None, split: Sequence[float], split_seed: int
) -> tuple[AlignedSplits, int]:
    """The pairs of a folder, in memory, and the number of classes.

    Args:
        root: The folder, see `LAYOUT`.
        size: Height and width that pairs are cropped (to the central square) and resized to; None: the native size,
            at most 32.
        classes: Their number; None: of the training masks.
        split: Shares of training, validation and test when there is one folder.
        split_seed: Which pairs go where.

    Raises:
        ConfigurationError: The folder has another layout, or a file is missing or does not fit.
    """
    parts = folder_parts(root, _pairs, LAYOUT, split, split_seed)
    native, channels = probe([pair.image for pair in parts["train"]])
    pixels = min(native, DEFAULT_SIZE) if size is None else size
    masks = {part: [_mask(pair, pixels) for pair in pairs] for part, pairs in parts.items()}
    number = max(mask.high for mask in masks["train"]) + 1 if classes is None else classes
    if number < 2:
        raise ConfigurationError(
            f"real.root={root}: the training masks hold no class but 0, so there is nothing to segment. Set real.root "
            f"to other data.\n{LAYOUT}"
        )
    for part, pairs in parts.items():
        for pair, mask in zip(pairs, masks[part], strict=True):
            _check_classes(pair.mask, mask, number, root, told=classes is not None)

    def dataset(part: str) -> AlignedDataset:
        fields = {
            "image": ImageFiles([pair.image for pair in parts[part]], pixels, channels).read(),
            "mask": torch.stack([mask.values for mask in masks[part]]),
        }
        return AlignedDataset(fields, wrap={"image": tv_tensors.Image, "mask": tv_tensors.Mask})

    return AlignedSplits(dataset("train"), dataset("val"), dataset("test")), number


def _pairs(folder: Path) -> list[_Pair]:
    """Images and masks of one folder, by name."""
    images, masks = _files(folder / "images"), _files(folder / "masks")
    for name, image in images.items():
        if name not in masks:
            raise ConfigurationError(
                f"{image} has no mask {folder / 'masks' / name}.png, so it cannot be learned from. Add it, take the "
                f"image out, or set real.root to another folder.\n{LAYOUT}"
            )
    for name, mask in masks.items():
        if name not in images:
            raise ConfigurationError(
                f"{mask} is the mask of no image in {folder / 'images'}. Add the image, take the mask out, or set "
                f"real.root to another folder.\n{LAYOUT}"
            )
    return [_Pair(images[name], masks[name]) for name in sorted(images)]


def _files(folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        return {}
    found: dict[str, Path] = {}
    for path in shown_files(folder.iterdir(), IMG_EXTENSIONS):
        if path.stem in found:
            raise ConfigurationError(
                f"{path} and {found[path.stem].name} have one name, so which belongs to the mask cannot be told. "
                f"Rename one, or set real.root to another folder.\n{LAYOUT}"
            )
        found[path.stem] = path
    return found


def _mask(pair: _Pair, size: int) -> _Mask:
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
    _check_lossless(pair.mask, kind)
    if mode not in _NUMBERS:
        raise ConfigurationError(
            f"{pair.mask} has colours (mode {mode}) in place of class numbers. Save masks with one grey or palette "
            f"value a pixel, or set real.root to another folder.\n{LAYOUT}"
        )
    if values.shape != (height, width):
        raise ConfigurationError(
            f"{pair.mask} is {values.shape[1]} by {values.shape[0]} pixels and {pair.image.name} {width} by {height}: "
            "they do not belong together. Give both one size, or set real.root to another folder."
        )
    return _Mask(_resized(values, size), int(values.min()), int(values.max()))


def _check_lossless(path: Path, kind: set[str | None]) -> None:
    """Refuses a lossy file by its name, and by what it is: `kind` are its format and compression."""
    lossy = [name for name in sorted(map(str, kind)) if name in _LOSSY]
    if path.suffix.lower() in _LOSSLESS and not lossy:
        return
    raise ConfigurationError(
        f"{path} is a mask in a format that can change values ({(*lossy, path.suffix[1:])[0]}), so that pixels at "
        "edges would be of classes that are not there. Save the masks anew as png, from the class numbers and not from "
        f"this file, or set real.root to another folder.\n{LAYOUT}"
    )


def _check_classes(path: Path, mask: _Mask, number: int, root: Path, told: bool) -> None:
    low, high = mask.low, mask.high
    if low >= 0 and high < number and high != IGNORED:
        return
    wrong = high if high >= number or high == IGNORED else low
    why = (
        "the value 255. Where it marks the object (masks of 0 and 255), save it as 1; where it marks pixels to be "
        "ignored, which a generator cannot make, give them a class, such as 0"
        if wrong == IGNORED
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
