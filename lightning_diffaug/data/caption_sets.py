"""COCO Captions, Flickr8k and Flickr30k as pairs of image file and caption, in the layouts they are handed out in."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torchvision.datasets import Flickr30k

from lightning_diffaug.data.caption_files import Pair, read_captioned
from lightning_diffaug.data.parts import PARTS, shown_folders
from lightning_diffaug.errors import ConfigurationError

log = logging.getLogger(__name__)

Parts = dict[str, list[Pair]]

_KARPATHY = {"train": "train", "restval": "train", "val": "val", "test": "test"}
_YEARS = ("2017", "2014")
_TABLE = "captions.txt"


@dataclass(frozen=True)
class CaptionSet:
    """How the files of a set are called.

    Attributes:
        split_file: The split of Karpathy & Fei-Fei (2015) with its captions, which is read where it is there.
        read: Reads the set's own files where it is not: the pairs of each part that these tell apart.
        layout: What is expected, for errors.
        images: What the folder of images may be called; () where the split file says it.
        captions: The file of captions.
        lists: Part → the file that names its images.
    """

    split_file: str
    read: Callable[[CaptionSet, Path], Parts]
    layout: str
    images: Sequence[str] = ()
    captions: str = ""
    lists: Mapping[str, str] = field(default_factory=dict)


def read_set(name: str, root: Path) -> Parts:
    """The pairs of a set, captions of an image in their order.

    Args:
        name: One of `SETS` (``real.name``).
        root: The folder that holds its files, each in it or in a folder in it (``real.root``).

    Returns:
        Part → pairs: train and test, and val where there is one; train alone where nothing divides the set.

    Raises:
        ConfigurationError: A file is missing or damaged, or says what cannot be.
    """
    chosen = SETS[name]
    if not root.is_dir():
        raise ConfigurationError(
            f"real.root={root} is not a folder, so {name} cannot be read. Set real.root to the folder that holds its "
            f"files.\n{chosen.layout}"
        )
    split_file = _found(root, [chosen.split_file])
    parts = chosen.read(chosen, root) if split_file is None else _karpathy(chosen, root, split_file)
    of: dict[Path, str] = {}
    for part, pairs in parts.items():
        for path in dict.fromkeys(path for path, _ in pairs):
            if of.setdefault(path, part) != part:
                raise ConfigurationError(
                    f"real.root={root} says that {path.name} is of {of[path]} and of {part}, so that a test would be "
                    f"of what was trained on. Take it out of one.\n{chosen.layout}"
                )
    if absent := [path for path in of if not path.is_file()]:
        raise ConfigurationError(
            f"real.root={root} lacks {len(absent)} of the {len(of)} images that have captions, such as {absent[0]}, "
            f"so {name} is incomplete. Add them, or set real.root to a folder that holds them all.\n{chosen.layout}"
        )
    return parts


def _karpathy(chosen: CaptionSet, root: Path, path: Path) -> Parts:
    parts: Parts = {part: [] for part in PARTS}
    folders: dict[str, Path] = {}
    content = _json(path)
    try:
        for image in content["images"]:
            # COCO's file says the folder of each image, the others are of one folder
            names = (image["filepath"],) if not chosen.images else chosen.images
            if names[0] not in folders:
                folders[names[0]] = _present(chosen, root, names)
            file = folders[names[0]] / image["filename"]
            told = parts[_KARPATHY[image["split"]]]
            told.extend((file, text) for entry in image["sentences"] if (text := _tidy(entry["raw"])))
    except (KeyError, TypeError, AttributeError) as error:
        raise _unusable(path, f"an image lacks its filename, split or sentences ({error!r})") from error
    if empty := [part for part in PARTS if not parts[part]]:
        raise _unusable(path, f"it has no captions of the part {' and '.join(empty)}")
    return parts


def _coco(chosen: CaptionSet, root: Path) -> Parts:
    # annotations of both years often lie together, with the images of one
    whole = (year for year in _YEARS if _found(root, [f"train{year}"]) and _found(root, [_annotations("train", year)]))
    year = next(whole, _YEARS[0])
    # The captions of COCO's test part are not public.
    return {part: _coco_part(chosen, root, of, year) for part, of in (("train", "train"), ("test", "val"))}


def _annotations(part: str, year: str) -> str:
    return f"captions_{part}{year}.json"


def _coco_part(chosen: CaptionSet, root: Path, part: str, year: str) -> list[Pair]:
    # torchvision's CocoCaptions wants pycocotools, an optional package, for what is plain JSON.
    path = _present(chosen, root, [_annotations(part, year)])
    folder = _present(chosen, root, [f"{part}{year}"])
    content = _json(path)
    try:
        files = {image["id"]: folder / image["file_name"] for image in content["images"]}
        told = [(entry["image_id"], _tidy(entry["caption"])) for entry in content["annotations"]]
        unknown = [image for image, _ in told if image not in files]
    except (KeyError, TypeError, AttributeError) as error:
        raise _unusable(path, f"an image or an annotation lacks what COCO's have ({error!r})") from error
    if unknown:
        raise _unusable(path, f"{len(unknown)} annotations are of an image it does not list, such as {unknown[0]}")
    if not any(text for _, text in told):
        raise _unusable(path, "it holds no captions")
    return [(files[image], text) for image, text in told if text]


def _flickr(chosen: CaptionSet, root: Path) -> Parts:
    path = _present(chosen, root, [chosen.captions, _TABLE])
    folder = _present(chosen, root, chosen.images)
    if path.name == _TABLE:
        pairs = [(folder / entry.image, entry.caption) for entry in read_captioned(path)]
    else:
        pairs = _token_file(path, folder)
    listed = chosen.lists if path.name != _TABLE or any(_found(root, [name]) for name in chosen.lists.values()) else {}
    if not listed:
        log.info("%s: no file says which images are of which part, so real.split divides them.", root)
        return {"train": pairs}
    captions: dict[Path, list[Pair]] = {}
    for pair in pairs:
        captions.setdefault(pair[0], []).append(pair)
    parts: Parts = {}
    for part, name in listed.items():
        file = _present(chosen, root, [name])
        images = [folder / line.strip() for line in _text(file).splitlines() if line.strip()]
        if silent := [image.name for image in images if image not in captions]:
            raise _unusable(file, f"{len(silent)} of its images have no caption in {path}, such as {silent[0]}")
        if not images:
            raise _unusable(file, "it names no image")
        parts[part] = [pair for image in images for pair in captions[image]]
    return parts


def _token_file(path: Path, folder: Path) -> list[Pair]:
    # Flickr8k's file has the same lines; torchvision's Flickr8k parses a web page that is not handed out with it.
    try:
        captions = Flickr30k(str(folder), str(path)).annotations
    except (OSError, ValueError) as error:
        lines = _text(path).splitlines()
        wrong = next((number for number, line in enumerate(lines, 1) if line.strip().count("\t") != 1), 0)
        raise _unusable(path, f"line {wrong} is not image.jpg#number, a tab and a caption ({error})") from error
    if not captions:
        raise _unusable(path, "it holds no captions")
    return [(folder / image, _tidy(text)) for image, texts in captions.items() for text in texts]


def _found(root: Path, names: Sequence[str]) -> Path | None:
    """The first of some names that is in a folder, or in a folder in it."""
    folders = [root, *shown_folders(root)]
    return next((path for name in names for folder in folders if (path := folder / name).exists()), None)


def _present(chosen: CaptionSet, root: Path, names: Sequence[str]) -> Path:
    path = _found(root, names)
    if path is None:
        raise ConfigurationError(
            f"real.root={root} lacks {' or '.join(names)} (searched: the folder and those in "
            f"it). Nothing downloads it: put it there, or set real.root to the folder that holds it.\n{chosen.layout}"
        )
    return path


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise _unusable(path, str(error)) from error


def _json(path: Path) -> Any:
    try:
        return json.loads(_text(path))
    except ValueError as error:
        raise _unusable(path, f"it is no JSON, or was cut short ({error})") from error


def _tidy(caption: str) -> str:
    return " ".join(caption.split())


def _unusable(path: Path, why: str) -> ConfigurationError:
    return ConfigurationError(
        f"{path} cannot be used: {why}. Put the file there as it was published, or set real.root to another folder"
    )


SETS = {
    "coco_captions": CaptionSet(
        "dataset_coco.json",
        _coco,
        """Expected is one of
  <root>/train2017/*.jpg  <root>/val2017/*.jpg  <root>/annotations/captions_train2017.json and captions_val2017.json
  the same of 2014
  <root>/train2014/*.jpg  <root>/val2014/*.jpg  <root>/dataset_coco.json (Karpathy's split; used where it is there)""",
    ),
    "flickr8k": CaptionSet(
        "dataset_flickr8k.json",
        _flickr,
        """Expected is a folder of images, <root>/Flicker8k_Dataset, Flickr8k_Dataset or Images, with one of
  <root>/dataset_flickr8k.json (Karpathy's split; used where it is there)
  <root>/Flickr8k.token.txt and Flickr_8k.trainImages.txt, Flickr_8k.devImages.txt, Flickr_8k.testImages.txt
  <root>/captions.txt (columns image and caption), which real.split divides""",
        ("Flicker8k_Dataset", "Flickr8k_Dataset", "Images"),
        "Flickr8k.token.txt",
        {
            "train": "Flickr_8k.trainImages.txt",
            "val": "Flickr_8k.devImages.txt",
            "test": "Flickr_8k.testImages.txt",
        },
    ),
    "flickr30k": CaptionSet(
        "dataset_flickr30k.json",
        _flickr,
        """Expected is a folder of images, <root>/flickr30k-images, flickr30k_images or Images, with one of
  <root>/dataset_flickr30k.json (Karpathy's split; used where it is there)
  <root>/results_20130124.token, or captions.txt (columns image and caption), which real.split divides""",
        ("flickr30k-images", "flickr30k_images", "Images"),
        "results_20130124.token",
    ),
}
