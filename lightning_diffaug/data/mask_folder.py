"""A user's own images with class masks: pairs of files of one name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torchvision.datasets.folder import IMG_EXTENSIONS

from lightning_diffaug.data.box_files import COCO, FOLDER, objects_of
from lightning_diffaug.data.mask_files import Pair
from lightning_diffaug.data.parts import folder_parts, shown_files
from lightning_diffaug.errors import ConfigurationError

LAYOUT = f"""Expected is either
  <root>/train/images/<name>.png + <root>/train/masks/<name>.png   <root>/val/…   <root>/test/…   (val may be absent)
or one folder that is split by ratio (real.split)
  <root>/images/<name>.png + <root>/masks/<name>.png
A mask is a png, bmp or tif of the image's size whose grey or palette values are class numbers: 0 background, then 1,
2, … Boxes, if you have them, lie beside images/: {FOLDER}/<name>.xml (Pascal VOC) or {COCO} (COCO)."""


def folder_pairs(root: Path, split: Sequence[float], split_seed: int) -> dict[str, list[Pair]]:
    """The pairs of each part of a folder.

    Args:
        root: The folder, see `LAYOUT`.
        split: Shares of training, validation and test when there is one folder.
        split_seed: Which pairs go where.

    Raises:
        ConfigurationError: The folder has another layout, or a file is missing.
    """
    return folder_parts(root, _pairs, LAYOUT, split, split_seed)


def _pairs(folder: Path) -> list[Pair]:
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
    objects = objects_of(folder, images)
    return [Pair(images[name], masks[name], objects.get(name)) for name in sorted(images)]


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
