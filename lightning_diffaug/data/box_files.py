"""Where the objects of an image are: files in the formats of Pascal VOC and COCO."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from torchvision.datasets import VOCDetection

from lightning_diffaug.data.parts import shown_files
from lightning_diffaug.errors import ConfigurationError

FOLDER = "boxes"
COCO = "boxes.json"
_REMEDY = "Repair it, or take it out of the folder that real.root names: then boxes are made of the masks."
_WRONG = (OSError, LookupError, AttributeError, TypeError, ValueError, RecursionError)


@dataclass(frozen=True)
class Box:
    """An object.

    Attributes:
        corners: Left, top, right, bottom in pixels of the whole image; they end behind the last pixel.
        called: Its class, by the words or numbers that the file has for it.
        path: The file.
    """

    corners: tuple[float, float, float, float]
    called: tuple[str, ...]
    path: Path

    def number(self, names: Sequence[str]) -> int:
        """The class, as masks number it.

        Args:
            names: Of the classes of the masks, background first.

        Raises:
            ConfigurationError: It is none of them, or the background.
        """
        found = next((list(names).index(word) for word in self.called if word in names), 0)
        if not found:
            raise ConfigurationError(
                f"{self.path} has a box of the class {self.called[0]!r}, which is none of the masks' classes "
                f"{list(names[1:])}, so what it shows is not known. Correct it, or name the classes of the masks as "
                "the boxes do in real.classes, background first."
            )
        return found


def boxes_of(folder: Path, images: Mapping[str, Path]) -> dict[str, tuple[Box, ...]]:
    """The objects of each image in a folder; {} where no file says them.

    Args:
        folder: What holds ``boxes/`` (files as `voc_boxes` reads) or ``boxes.json`` (as `coco_boxes`).
        images: Name without ending → image.

    Raises:
        ConfigurationError: A file cannot be read, lacks an image's objects, or names an image that is not there.
    """
    told = folder / FOLDER
    if told.is_dir():
        files = {path.stem: path for path in shown_files(told.iterdir(), (".xml",))}
        found, what = {name: voc_boxes(path) for name, path in files.items()}, "a file without objects"
    elif (folder / COCO).is_file():
        told = folder / COCO
        found, what = coco_boxes(told), "an image without annotations"
    else:
        return {}
    for name in sorted(images.keys() ^ found.keys()):
        raise ConfigurationError(
            f"{told} names the image {name!r}, and there is none of that name in {folder / 'images'}. Take it out, or "
            "add the image."
            if name in found
            else f"{told} does not say where the objects of {images[name]} are, so boxes that a model finds there "
            f"would count as wrong. Add them (where it shows none, {what}), or take {told.name} out: then boxes are "
            "made of the masks."
        )
    return found


def voc_boxes(path: Path, remedy: str = _REMEDY) -> tuple[Box, ...]:
    """The objects in a file of Pascal VOC (Everingham et al. 2010), whose corners are pixels counted from 1.

    Args:
        path: The file.
        remedy: What to do where it cannot be used.

    Raises:
        ConfigurationError: It is no such file.
    """
    try:
        shown = VOCDetection.parse_voc_xml(ElementTree.parse(path).getroot())["annotation"].get("object", [])
        return tuple(_voc_box(one, path) for one in shown)
    except (*_WRONG, ElementTree.ParseError) as error:
        raise _unusable(path, error, "Pascal VOC's annotation > object > name, bndbox > xmin …", remedy) from error


def coco_boxes(path: Path) -> dict[str, tuple[Box, ...]]:
    """Image without ending → objects, of a file of COCO (Lin et al. 2014); crowds (``iscrowd``) are left out.

    Raises:
        ConfigurationError: It is no such file.
    """
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        names = {one["id"]: str(one["name"]) for one in told["categories"]}
        images = {one["id"]: Path(one["file_name"]).stem for one in told["images"]}
        found: dict[str, list[Box]] = {name: [] for name in images.values()}
        if len(found) < len(images):
            raise ValueError("two of its images have one name, in other folders or with other endings")
        for one in told["annotations"]:
            if one.get("iscrowd"):
                continue
            left, top, width, height = (float(value) for value in one["bbox"])
            corners = (left, top, left + width, top + height)
            number = one["category_id"]
            found[images[one["image_id"]]].append(_box(corners, (names[number], str(number)), path))
    except _WRONG as error:
        expected = "COCO's images, annotations (image_id, category_id, bbox), categories"
        raise _unusable(path, error, expected, _REMEDY) from error
    return {name: tuple(boxes) for name, boxes in found.items()}


def _voc_box(one: Mapping[str, Any], path: Path) -> Box:
    left, top, right, bottom = (float(one["bndbox"][side]) for side in ("xmin", "ymin", "xmax", "ymax"))
    return _box((left - 1, top - 1, right, bottom), (str(one["name"]),), path)


def _box(corners: tuple[float, float, float, float], called: tuple[str, ...], path: Path) -> Box:
    left, top, right, bottom = corners
    if not (left < right and top < bottom):
        raise ValueError(f"a box of {called[0]!r} from ({left:g}, {top:g}) to ({right:g}, {bottom:g}) has no area")
    return Box(corners, called, path)


def _unusable(path: Path, error: Exception, expected: str, remedy: str) -> ConfigurationError:
    return ConfigurationError(
        f"{path} cannot be used ({type(error).__name__}: {error}); expected is {expected}. {remedy}"
    )
