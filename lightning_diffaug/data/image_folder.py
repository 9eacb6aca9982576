"""A user's own folder of images, one folder per class."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor
from torchvision.datasets.folder import IMG_EXTENSIONS
from typing_extensions import Unpack

from lightning_diffaug.data.base import RealDataModule, RealSettings
from lightning_diffaug.data.dataset import ImageDataset, LazyImages
from lightning_diffaug.data.image_files import ImageFiles, probe
from lightning_diffaug.data.selection import stratified_split
from lightning_diffaug.data.split_module import Splits
from lightning_diffaug.errors import ConfigurationError

log = logging.getLogger(__name__)

LAYOUT = """Expected is either
  <root>/train/<class>/*.png   <root>/val/<class>/*.png   <root>/test/<class>/*.png   (val may be absent)
or one folder that is split by ratio (real.split)
  <root>/<class>/*.png"""
DEFAULT_SIZE = 32
VAL_NAMES = ("val", "valid", "validation")

ByClass = dict[str, list[Path]]


class ImageFolderDataModule(RealDataModule):
    """Images in ``root/train/<class>/``, ``root/val/…``, ``root/test/…``, or in one folder, split by ratio.

    Classes are the sorted names of the training folders. Without a ``val`` folder, validation is split off
    the training part; a split depends on the files' names and `split_seed` only. Test images are never taken
    from elsewhere when there is a ``train`` folder.

    Args:
        root: the folder.
        size: height and width in pixels that every image is cropped and resized to; None: the native size,
            at most 32.
        split: shares of training, validation and test when there is one folder.
        split_seed: which images go where; apart from `seed`, so that seeds share one test set.
        memory_limit_mb: decoded images are kept in memory up to this many MB in all, beyond it each is
            decoded again when it is asked for.
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
        **settings: Unpack[RealSettings],
    ) -> None:
        super().__init__(**settings)
        if size is not None and size < 4:
            raise ConfigurationError(f"real.size={size} is below 4 pixels. Set real.size to 4 or more, or null")
        if len(split) != 3:
            raise ConfigurationError(
                f"real.split={list(split)} does not hold three shares. Set real.split to e.g. [0.7,0.1,0.2] "
                "(training, validation, test)"
            )
        self.root = Path(root).expanduser()
        self.size = size
        self.split = tuple(split)
        self.split_seed = split_seed
        self.memory_limit_mb = memory_limit_mb

    def load(self) -> Splits[ImageDataset]:
        """Finds the files, divides them and decodes them as far as memory allows."""
        parts = self._parts()
        classes = sorted(parts["train"])
        files = [path for part in parts.values() for paths in part.values() for path in paths]
        native, channels = probe([path for paths in parts["train"].values() for path in paths])
        size = min(native, DEFAULT_SIZE) if self.size is None else self.size
        if self.size is None:
            log.info(
                "%s: images of %d pixels (shorter side, median) are used at %d x %d; see real.size",
                self.root,
                native,
                size,
                size,
            )
        in_memory = len(files) * channels * size**2 <= self.memory_limit_mb * 2**20

        def dataset(part: ByClass) -> ImageDataset:
            entries = [(path, classes.index(name)) for name in sorted(part) for path in part[name]]
            lazy = ImageFiles([path for path, _ in entries], size, channels)
            images: Tensor | LazyImages = lazy.read() if in_memory else lazy
            return ImageDataset(images, [label for _, label in entries], classes)

        return Splits(dataset(parts["train"]), dataset(parts["val"]), dataset(parts["test"]))

    def _parts(self) -> dict[str, ByClass]:
        """Paths by part and class."""
        if not self.root.is_dir():
            raise ConfigurationError(
                f"real.root={self.root} is not a folder, so there is no data. Set real.root to your images.\n{LAYOUT}"
            )
        train = self.root / "train"
        if not train.is_dir():
            whole = _by_class(self.root)
            if len(whole) < 2:
                raise ConfigurationError(
                    f"real.root={self.root} holds {len(whole)} folder(s) of images, but at least 2 classes "
                    f"are needed. Set real.root to a folder of this layout.\n{LAYOUT}"
                )
            return self._divide(whole, ("train", "val", "test"), self.split)
        test = _by_class(self.root / "test")
        if not test:
            raise ConfigurationError(
                f"real.root={self.root} has train/ but no test/ with images: without images of their own the "
                "final figures would mean nothing. Add it, or set real.root to the train folder itself, "
                f"which is then split by ratio.\n{LAYOUT}"
            )
        parts = {"train": _by_class(train), "test": test}
        if len(parts["train"]) < 2:
            raise ConfigurationError(
                f"{train} holds {len(parts['train'])} class folder(s) with images, but at least 2 are "
                f"needed. Set real.root to a folder of this layout.\n{LAYOUT}"
            )
        found = next((by_class for name in VAL_NAMES if (by_class := _by_class(self.root / name))), None)
        if found is None:
            share = self.split[1] / (self.split[0] + self.split[1])
            log.info("%s has no val/: %.0f %% of train/ are set aside for validation.", self.root, 100 * share)
            parts |= self._divide(parts["train"], ("train", "val"), (1 - share, share))
        else:
            parts["val"] = found
        for name in ("val", "test"):
            if unknown := sorted(set(parts[name]) - set(parts["train"])):
                raise ConfigurationError(
                    f"{self.root / name} holds the classes {unknown}, which train/ lacks: they could never "
                    f"be right. Rename them or take them out of real.root.\n{LAYOUT}"
                )
        return parts

    def _divide(self, whole: ByClass, names: Sequence[str], shares: Sequence[float]) -> dict[str, ByClass]:
        entries = [(path, name) for name in sorted(whole) for path in whole[name]]
        classes = sorted(whole)
        labels = [classes.index(name) for _, name in entries]
        parts: dict[str, ByClass] = {}
        for part, indices in zip(names, stratified_split(labels, shares, self.split_seed, classes), strict=True):
            parts[part] = {name: [] for name in classes}
            for index in indices:
                path, name = entries[index]
                parts[part][name].append(path)
        return parts


def _by_class(folder: Path) -> ByClass:
    """Image files below each class folder of `folder`, sorted; hidden and empty folders are left out."""
    if not folder.is_dir():
        return {}
    found: ByClass = {}
    for class_folder in sorted(folder.iterdir()):
        if not class_folder.is_dir() or class_folder.name.startswith("."):
            continue
        paths = [
            path
            for path in sorted(class_folder.rglob("*"))
            if path.suffix.lower() in IMG_EXTENSIONS and not path.name.startswith(".") and path.is_file()
        ]
        if paths:
            found[class_folder.name] = paths
    return found
