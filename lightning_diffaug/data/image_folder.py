"""A user's own folder of images, one folder per class."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor
from torchvision.datasets.folder import IMG_EXTENSIONS
from typing_extensions import Unpack

from lightning_diffaug.data.base import RealDataModule, RealSettings
from lightning_diffaug.data.dataset import ImageDataset, LazyImages
from lightning_diffaug.data.hub import located
from lightning_diffaug.data.image_files import ImageFiles, probe
from lightning_diffaug.data.parts import check_split, class_files, class_names, folder_parts
from lightning_diffaug.data.split_module import Splits
from lightning_diffaug.errors import ConfigurationError

log = logging.getLogger(__name__)

LAYOUT = """Expected is either
  <root>/train/<class>/*.png   <root>/val/<class>/*.png   <root>/test/<class>/*.png   (val may be absent)
or one folder that is split by ratio (real.split)
  <root>/<class>/*.png"""
DEFAULT_SIZE = 32


class ImageFolderDataModule(RealDataModule):
    """Images in ``root/train/<class>/``, ``root/val/…``, ``root/test/…``, or in one folder, split by ratio.

    Classes are the sorted names of the training folders. Without a ``val`` folder, validation is split off
    the training part; a split depends on the files' names and `split_seed` only. Test images are never taken
    from elsewhere when there is a ``train`` folder.

    Args:
        root: the folder, or a data set of the Hugging Face hub, see `hub.located`.
        size: height and width in pixels that every image is cropped and resized to; None: the native size,
            at most 32.
        split: shares of training, validation and test when there is one folder.
        split_seed: which images go where; apart from `seed`, so that seeds share one test set.
        memory_limit_mb: decoded images are kept in memory up to this many MB in all, beyond it each is
            decoded again when it is asked for.
        columns: of a data set of the hub: what is read (image, label) → its column; None: found by type and name.
        **settings: see `RealDataModule`.

    Raises:
        ConfigurationError: the folder is missing, has another layout, or holds a file that is no image.
    """

    def __init__(
        self,
        root: str | Path,
        size: int | None = None,
        split: Sequence[float] = (0.7, 0.1, 0.2),
        split_seed: int = 0,
        memory_limit_mb: int = 1024,
        columns: Mapping[str, str] | None = None,
        **settings: Unpack[RealSettings],
    ) -> None:
        super().__init__(**settings)
        if size is not None and size < 4:
            raise ConfigurationError(f"real.size={size} is below 4 pixels. Set real.size to 4 or more, or null")
        check_split(split)
        self.root, self.hub = located(root, ("image", "label"), columns)
        self.size = size
        self.split = tuple(split)
        self.split_seed = split_seed
        self.memory_limit_mb = memory_limit_mb

    def load(self) -> Splits[ImageDataset]:
        """Finds the files, divides them and decodes them as far as memory allows."""
        parts = folder_parts(
            self.root, lambda folder: class_files(folder, IMG_EXTENSIONS), LAYOUT, self.split, self.split_seed,
            label=lambda file: file[1],
        )  # fmt: skip
        classes = class_names(self.root, parts, lambda file: file[1], LAYOUT, least=2)
        native, channels = probe([path for path, _ in parts["train"]])
        size = min(native, DEFAULT_SIZE) if self.size is None else self.size
        if self.size is None:
            log.info(
                "%s: images of %d pixels (shorter side, median) are used at %d x %d; see real.size",
                self.root,
                native,
                size,
                size,
            )
        in_memory = sum(map(len, parts.values())) * channels * size**2 <= self.memory_limit_mb * 2**20

        def dataset(files: Sequence[tuple[Path, str]]) -> ImageDataset:
            lazy = ImageFiles([path for path, _ in files], size, channels)
            images: Tensor | LazyImages = lazy.read() if in_memory else lazy
            return ImageDataset(images, [classes.index(name) for _, name in files], classes)

        return Splits(dataset(parts["train"]), dataset(parts["val"]), dataset(parts["test"]))
