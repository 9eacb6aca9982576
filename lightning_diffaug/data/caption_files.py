"""Files that say the captions of images: CSV and JSON lines, as ``imagefolder`` of Hugging Face datasets reads them."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning_diffaug.errors import ConfigurationError

Pair = tuple[Path, str]
"""An image file and a caption of it."""

NAMES = ("captions.csv", "captions.jsonl", "metadata.csv", "metadata.jsonl")
"""What such a file may be called; the first of these that is there is read."""

IMAGE_COLUMNS = ("file_name", "image", "filename", "file")
CAPTION_COLUMNS = ("caption", "text")


@dataclass(frozen=True)
class Captioned:
    """One line: an image, what is said of it, and where that stands."""

    image: str
    caption: str
    line: int


def find_captions(folder: Path) -> Path | None:
    """The file of captions in a folder; None where there is none."""
    return next((folder / name for name in NAMES if (folder / name).is_file()), None)


def read_captioned(path: Path) -> list[Captioned]:
    """Reads a file of captions; an image may have several.

    Args:
        path: ``.jsonl`` of objects (whose caption may be a list); any other is CSV with a header. The image is in the
            column ``file_name`` (or ``image``), the caption in ``caption`` (or ``text``). UTF-8, with or without a byte
            order mark.

    Raises:
        ConfigurationError: It cannot be read, lacks a column, or a line lacks its value; the text names file and line.
    """
    line = 0
    found: list[Captioned] = []
    try:
        for line, entry in _entries(path):
            image, captions = _value(entry, IMAGE_COLUMNS), _value(entry, CAPTION_COLUMNS)
            listed = captions if isinstance(captions, list) else [captions]
            if not isinstance(image, str) or not image.strip():
                raise ValueError(f"it names no image ({' or '.join(IMAGE_COLUMNS[:2])})")
            if not listed or any(not isinstance(text, str) or not text.strip() for text in listed):
                raise ValueError(f"{image} has no caption ({' or '.join(CAPTION_COLUMNS)})")
            found.extend(Captioned(image.strip(), " ".join(text.split()), line) for text in listed)
        if not found:
            raise ValueError("it holds no captions")
    except UnicodeDecodeError as error:
        raise _unusable(path, 0, f"it is not UTF-8: {error}") from error
    except ConfigurationError:
        raise
    except (OSError, ValueError, csv.Error) as error:
        raise _unusable(path, line, str(error)) from error
    return found


def _entries(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        if path.suffix.lower() != ".jsonl":
            rows = csv.DictReader(file, skipinitialspace=True)
            columns = [str(name) for name in rows.fieldnames or ()]
            if not (set(IMAGE_COLUMNS) & {*columns} and set(CAPTION_COLUMNS) & {*columns}):
                raise ValueError(f"its columns are {columns}; needed are file_name and caption, separated by commas")
            for row in rows:
                if None in row:
                    raise _unusable(
                        path, rows.line_num, "it has more values than the header; quote captions with commas"
                    )
                yield rows.line_num, row
            return
        for number, text in enumerate(file, 1):
            if not text.strip():
                continue
            try:
                entry = json.loads(text)
            except ValueError as error:
                raise _unusable(path, number, f"it is no JSON object: {error}") from error
            if not isinstance(entry, Mapping):
                raise _unusable(path, number, "it is no JSON object")
            yield number, entry


def _value(entry: Mapping[str, Any], columns: tuple[str, ...]) -> Any:
    return next((entry[name] for name in columns if entry.get(name) is not None), None)


def _unusable(path: Path, line: int, why: str) -> ConfigurationError:
    where = f"{path}, line {line}," if line else str(path)
    return ConfigurationError(
        f"{where} cannot be used: {why}. Repair it, or set real.root to a folder whose captions.csv has the columns "
        "file_name and caption (or captions.jsonl such objects)"
    )
