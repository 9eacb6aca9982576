"""Image files of any size and mode as square uint8 tensors of one size and mode."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import median

import numpy as np
import torch
from PIL import ExifTags, Image, ImageOps
from torch import Tensor

from lightning_diffaug.data.progress import followed
from lightning_diffaug.errors import ConfigurationError

_GREY_MODES = frozenset({"1", "L", "LA", "La", "I", "F", "I;16", "I;16B", "I;16L", "I;16N"})
_ON_ITS_SIDE = (5, 6, 7, 8)  # values of the tag Orientation
_DEEP_MODES = frozenset({"I", "I;16", "I;16B", "I;16L", "I;16N"})


class ImageFiles:
    """Decodes an image file each time it is asked for.

    The image is turned upright (EXIF), cropped to its central square and resized, bilinear with
    antialiasing. 16-bit grey is scaled to 8 bits; transparency is dropped.

    Args:
        paths: the files.
        size: height and width of every image in pixels.
        channels: 1 (grey) or 3 (RGB).
    """

    def __init__(self, paths: Sequence[Path], size: int, channels: int) -> None:
        self.paths = list(paths)
        self.size = size
        self.channels = channels

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int, /) -> Tensor:
        path = self.paths[index]
        try:
            with Image.open(path) as file:
                upright = _eight_bit(ImageOps.exif_transpose(file))
                image = upright.convert("L" if self.channels == 1 else "RGB")
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise ConfigurationError(
                f"{path} cannot be read as an image ({error}), so the data set is incomplete. Repair the "
                "file or take it out of the folder that real.root names"
            ) from error
        fitted = ImageOps.fit(image, (self.size, self.size), Image.Resampling.BILINEAR)
        pixels = torch.from_numpy(np.array(fitted, dtype=np.uint8))
        return pixels.unsqueeze(0) if self.channels == 1 else pixels.permute(2, 0, 1).contiguous()

    def select(self, indices: Sequence[int]) -> ImageFiles:
        """The files at `indices`, in that order."""
        return ImageFiles([self.paths[i] for i in indices], self.size, self.channels)

    def read(self) -> Tensor:
        """All images at once: uint8 ``(n, C, size, size)``."""
        images = torch.empty(len(self), self.channels, self.size, self.size, dtype=torch.uint8)
        for index in followed(range(len(self)), "reading images", "image", len(self)):
            images[index] = self[index]
        return images


def upright_size(image: Image.Image) -> tuple[int, int]:
    """Width and height of an opened image once it is upright (EXIF), from its header where the format allows."""
    turned = image.getexif().get(ExifTags.Base.Orientation, 1) in _ON_ITS_SIDE
    return (image.height, image.width) if turned else (image.width, image.height)


def _eight_bit(image: Image.Image) -> Image.Image:
    if image.mode not in _DEEP_MODES:
        return image
    # Pillow would clip at 255 instead of scaling.
    values = np.asarray(image).astype(np.float64)
    return Image.fromarray((values.clip(0, 65535) / 257).round().astype(np.uint8))


def probe(paths: Sequence[Path], most: int = 1000) -> tuple[int, int]:
    """Native size and channels of a set of files, from the headers of up to `most` of them.

    Returns:
        The median of the shorter sides in pixels, and 1 if all are grey, else 3.

    Raises:
        ConfigurationError: a file is no image.
    """
    sides: list[int] = []
    grey = True
    for path in list(paths)[:: -(-len(paths) // most)]:
        try:
            with Image.open(path) as file:
                sides.append(min(file.size))
                grey = grey and file.mode in _GREY_MODES
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise ConfigurationError(
                f"{path} is no image that can be read ({error}). Repair the file or take it out of the "
                "folder that real.root names"
            ) from error
    return int(median(sides)), 1 if grey else 3
