"""Where the objects of an image are: files in the formats of Pascal VOC and COCO."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.datasets import VOCDetection

from lightning_diffaug.data.parts import shown_files
from lightning_diffaug.errors import ConfigurationError

FOLDER = "boxes"
COCO = "boxes.json"
_REMEDY = "Repair it, or take it out of the folder that real.root names: then boxes are made of the masks."
_OUTSIDE = 0.02  # of a side, and a pixel: annotators round
_WRONG = (OSError, LookupError, AttributeError, TypeError, ValueError, ArithmeticError, RecursionError)


@dataclass(frozen=True)
class Box:
    """An object.

    Attributes:
        corners: Left, top, right, bottom in pixels of the whole image; they end behind the last pixel.
        called: Its class, by the words or numbers that the file has for it.
    """

    corners: tuple[float, float, float, float]
    called: tuple[str, ...]


@dataclass(frozen=True)
class Objects:
    """The objects of an image.

    Attributes:
        boxes: Of each.
        path: The file that says so.
        size: Width and height of the image as that file has them; None: it does not say.
        remedy: What to do where they do not fit the image.
    """

    boxes: tuple[Box, ...]
    path: Path
    size: tuple[int, int] | None = None
    remedy: str = _REMEDY

    def fitted(
        self, image: Path, width: int, height: int, size: int, names: Sequence[str]
    ) -> tuple[tv_tensors.BoundingBoxes, Tensor]:
        """Boxes (n, 4), XYXY, and labels int64 (n,) in the central square of the image at another size.

        What the square does not show, to a pixel, is left out.

        Args:
            image: The image, for errors.
            width: Its width, upright.
            height: Its height.
            size: Of the square.
            names: Of the classes of the masks, background first.

        Raises:
            ConfigurationError: The boxes are of another image, or a class is none of `names`.
        """
        if self.size not in (None, (width, height)):
            raise self._elsewhere(f"says that {image} is {self.size[0]} by {self.size[1]} pixels", width, height)
        for left, top, right, bottom in (box.corners for box in self.boxes):
            room_x, room_y = (_OUTSIDE * side + 1 for side in (width, height))
            if left < -room_x or top < -room_y or right > width + room_x or bottom > height + room_y:
                where = f"has a box from ({left:g}, {top:g}) to ({right:g}, {bottom:g}) in {image}"
                raise self._elsewhere(where, width, height)
        side = min(width, height)
        corner = torch.tensor([(width - side) / 2, (height - side) / 2]).repeat(2)
        corners = torch.tensor([box.corners for box in self.boxes], dtype=torch.float32).reshape(-1, 4)
        inside = ((corners - corner) * (size / side)).clamp(0, size)
        labels = torch.tensor([self._number(box, names) for box in self.boxes], dtype=torch.int64)
        seen = to_be_seen(inside)
        return tv_tensors.BoundingBoxes(inside[seen], format="XYXY", canvas_size=(size, size)), labels[seen]

    def _number(self, box: Box, names: Sequence[str]) -> int:
        """The class, as masks number it."""
        found = next((list(names).index(word) for word in box.called if word in names), 0)
        if not found:
            raise ConfigurationError(
                f"{self.path} has a box of the class {box.called[0]!r}, which is none of the masks' classes "
                f"{list(names[1:])}, so what it shows is not known. Correct it, or name the classes of the masks as "
                "the boxes do in real.classes, background first."
            )
        return found

    def _elsewhere(self, what: str, width: int, height: int) -> ConfigurationError:
        return ConfigurationError(
            f"{self.path} {what}, which is, upright, {width} by {height}, and boxes have to be in its pixels. "
            f"{self.remedy}"
        )


def to_be_seen(boxes: Tensor) -> Tensor:
    """Which boxes (n, 4), XYXY in pixels, are at least a pixel wide and high: bool (n,)."""
    return (boxes[:, 2:] - boxes[:, :2] >= 1).all(1)


def objects_of(folder: Path, images: Mapping[str, Path]) -> dict[str, Objects]:
    """The objects of each image in a folder; {} where no file says them.

    Args:
        folder: What holds ``boxes/`` (files as `voc_objects` reads) or ``boxes.json`` (as `coco_objects`).
        images: Name without ending → image.

    Raises:
        ConfigurationError: A file cannot be read, lacks an image's objects, or names an image that is not there.
    """
    told, other = folder / FOLDER, folder / COCO
    if told.is_dir() and other.is_file():
        raise ConfigurationError(
            f"{told} and {other} both say where objects are, so which is right is not known. Take one out."
        )
    if told.is_dir():
        files = {path.stem: path for path in shown_files(told.iterdir(), (".xml",))}
        found, what = {name: voc_objects(path) for name, path in files.items()}, "a file without objects"
    elif other.is_file():
        told = other
        found, what = coco_objects(told), "an image without annotations"
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


def voc_objects(path: Path, remedy: str = _REMEDY) -> Objects:
    """The objects in a file of Pascal VOC (Everingham et al. 2010), whose corners are pixels counted from 1.

    Args:
        path: The file.
        remedy: What to do where it cannot be used.

    Raises:
        ConfigurationError: It is no such file.
    """
    try:
        told = VOCDetection.parse_voc_xml(ElementTree.parse(path).getroot())["annotation"]
        boxes = tuple(_voc_box(one) for one in told.get("object", []))
        return Objects(boxes, path, _size(told.get("size") or {}), remedy)
    except (*_WRONG, ElementTree.ParseError) as error:
        raise _unusable(path, error, "Pascal VOC's annotation > object > name, bndbox > xmin …", remedy) from error


def coco_objects(path: Path) -> dict[str, Objects]:
    """Image without ending → objects, of a file of COCO (Lin et al. 2014); crowds (``iscrowd``) are left out.

    Raises:
        ConfigurationError: It is no such file.
    """
    expected = "COCO's images, annotations (image_id, category_id, bbox), categories"
    at = ""
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        names = {one["id"]: str(one["name"]) for one in told["categories"]}
        images = {one["id"]: Path(one["file_name"]).stem for one in told["images"]}
        sizes = {images[one["id"]]: _size(one) for one in told["images"]}
        found: dict[str, list[Box]] = {name: [] for name in images.values()}
        if len(found) < len(images):
            raise ValueError("two of its images have one name, in other folders or with other endings")
        for number, one in enumerate(told["annotations"]):
            at = f" in annotations[{number}]"
            if one.get("iscrowd"):
                continue
            left, top, width, height = (float(value) for value in one["bbox"])
            kind = one["category_id"]
            box = _box((left, top, left + width, top + height), (names[kind], str(kind)))
            found[images[one["image_id"]]].append(box)
    except _WRONG as error:
        raise _unusable(path, error, expected, _REMEDY, at) from error
    return {name: Objects(tuple(boxes), path, sizes[name]) for name, boxes in found.items()}


def _size(told: Mapping[str, Any]) -> tuple[int, int] | None:
    """Width and height, where both are said; some tools write 0."""
    width, height = (int(float(told.get(side) or 0)) for side in ("width", "height"))
    return (width, height) if width and height else None


def _voc_box(one: Mapping[str, Any]) -> Box:
    left, top, right, bottom = (float(one["bndbox"][side]) for side in ("xmin", "ymin", "xmax", "ymax"))
    return _box((left - 1, top - 1, right, bottom), (str(one["name"]),))


def _box(corners: tuple[float, float, float, float], called: tuple[str, ...]) -> Box:
    left, top, right, bottom = corners
    if not (left < right and top < bottom):
        raise ValueError(f"a box of {called[0]!r} from ({left:g}, {top:g}) to ({right:g}, {bottom:g}) has no area")
    return Box(corners, called)


def _unusable(path: Path, error: Exception, expected: str, remedy: str, at: str = "") -> ConfigurationError:
    return ConfigurationError(
        f"{path} cannot be used ({type(error).__name__}: {error}{at}); expected is {expected}. {remedy}"
    )
