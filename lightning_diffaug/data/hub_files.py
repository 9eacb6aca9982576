"""Rows of a data set of Hugging Face as files of the layouts that the data modules read, each as it is stored."""

from __future__ import annotations

import io
import json
import logging
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from PIL import Image

from lightning_diffaug.data.progress import followed
from lightning_diffaug.data.sound_files import EXTENSIONS
from lightning_diffaug.errors import ConfigurationError

log = logging.getLogger(__name__)

_IMAGES = {
    "BMP": ".bmp",
    "JPEG": ".jpg",
    "MPO": ".jpg",
    "PNG": ".png",
    "PPM": ".ppm",
    "TIFF": ".tif",
    "WEBP": ".webp",
}
_SOUNDS = {b"RIFF": ".wav", b"fLaC": ".flac", b"OggS": ".ogg", b"FORM": ".aiff", b"ID3": ".mp3"}
_SOUNDS |= {bytes([0xFF, second]): ".mp3" for second in (0xFA, 0xFB, 0xF2, 0xF3, 0xE2, 0xE3)}  # without a tag
_RESERVED = {"con", "prn", "aux", "nul", *(f"{name}{i}" for name in ("com", "lpt") for i in range(10))}  # by Windows
_UNSAFE = re.compile(r'[\x00-\x1f\\/:*?"<>|]')
_LONGEST = 80  # bytes of a name

Stored = tuple[bytes, str]
"""What a file holds, and the name that it had, or ""."""


class SplitWriter:
    """Writes the splits of one data set; a class has one folder's name in all of them.

    Args:
        root: ``real.root``, for errors.
        columns: Of ``image`` or ``audio``, then of ``label``, ``mask`` or ``caption``.
        inside: Folders whose files rows may name in place of holding them.
    """

    def __init__(self, root: str, columns: Mapping[str, str], inside: Sequence[Path] = ()) -> None:
        self.root = root
        self.columns = dict(columns)
        self._inside = [folder.resolve() for folder in inside]
        self._folders: dict[str, str] = {}

    def write(self, split: Any, folder: Path) -> int:
        """Writes the rows that have both an image (or sound) and an answer, and returns how many.

        Args:
            split: A ``datasets.Dataset``.
            folder: Is made, unless there is nothing to write.

        Raises:
            ConfigurationError: A file is missing, or no image or sound of a known format.
        """
        folder.mkdir()
        medium, answer = self.columns
        captions: list[str] = []
        written = 0
        rows = followed(self._rows(split), f"writing {split.split}", "row", len(split))
        for number, (stored, value) in enumerate(rows):
            if stored is None or value is None:
                continue
            written += 1
            where = f"row {number} of its split {split.split}"
            name, ending = _file_name(stored, number), self._ending(medium, stored, where)
            path = _made(folder / self._place(answer, value)) / f"{name}{ending}"
            path.write_bytes(stored[0])
            if answer == "mask":
                mask = _made(folder / "masks") / f"{name}{self._ending(answer, value, where)}"
                mask.write_bytes(value[0])
            elif answer == "caption":
                captions.append(json.dumps({"file_name": path.name, "caption": value}) + "\n")
        if captions:
            (folder / "metadata.jsonl").write_text("".join(captions), encoding="utf-8")
        if not written:
            folder.rmdir()
        if written < len(split):
            log.warning(
                "real.root=%s: %d of the %d rows of its split %s lack %s, and are left out.",
                self.root, len(split) - written, len(split), split.split, " or ".join(self.columns.values()),
            )  # fmt: skip
        return written

    def _rows(self, split: Any) -> Iterator[tuple[Stored | None, Any]]:
        """Stored file and answer of each row; None where it has none."""
        (_, medium), (role, answer) = self.columns.items()
        chosen = split.select_columns([medium, answer])
        for column, feature in chosen.features.items():
            if hasattr(feature, "decode"):
                chosen = chosen.cast_column(column, type(feature)(decode=False))
        names = getattr(chosen.features[answer], "names", None)
        for row in chosen:
            value = row[answer]
            if role == "mask":
                value = self._stored(value)
            elif role == "caption":
                value = [text for text in (value if isinstance(value, list) else [value]) if text and text.strip()]
            elif names is not None:  # the hub writes -1 where a label is hidden
                value = None if value is None or value < 0 else names[value]
            elif value is not None:
                value = str(value).strip()
            yield self._stored(row[medium]), value or None

    def _stored(self, value: Mapping[str, Any] | None) -> Stored | None:
        if value is None or (value["bytes"] is None and value["path"] is None):
            return None
        name = value["path"] or ""
        if value["bytes"] is not None:
            return value["bytes"], name
        path = Path(name).resolve()
        if not any(path.is_relative_to(folder) for folder in self._inside):
            raise ConfigurationError(
                f"real.root={self.root} names the file {name}, which is none of its own, and is not read. Set "
                "real.root to a data set that holds its files."
            )
        try:
            return path.read_bytes(), name
        except OSError as error:
            raise ConfigurationError(
                f"real.root={self.root} names the file {name}, which cannot be read ({error}). Add it, or set "
                "real.root to another data set."
            ) from error

    def _place(self, answer: str, value: Any) -> str:
        if answer != "label":
            return "images" if answer == "mask" else ""
        if value not in self._folders:
            self._folders[value] = _folder_name(value, self._folders.values())
        return self._folders[value]

    def _ending(self, role: str, stored: Stored, where: str) -> str:
        if role == "audio":
            return self._sounds_ending(stored, where)
        try:
            with Image.open(io.BytesIO(stored[0])) as image:
                kind = str(image.format)
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            kind = f"unknown ({error})"
        if kind not in _IMAGES:
            raise ConfigurationError(
                f"real.root={self.root}: the {role} of {where} is of the format {kind}, and files are used as they "
                f"are stored. Set real.columns.{role} to another column, or real.root to another data set."
            )
        return _IMAGES[kind]

    def _sounds_ending(self, stored: Stored, where: str) -> str:
        known = next((ending for start, ending in _SOUNDS.items() if stored[0].startswith(start)), None)
        if known is None:
            raise ConfigurationError(
                f"real.root={self.root}: the audio of {where} is of no format that is known (wav, flac, ogg, aiff, "
                "mp3). Set real.columns.audio to another column, or real.root to another data set."
            )
        named = PurePosixPath(stored[1]).suffix.lower()
        return named if named in EXTENSIONS else known


def _made(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    return folder


def _file_name(stored: Stored, number: int) -> str:
    """The name that the file had, by which ``real.group`` may know its source, and the row's number."""
    stem = _safe(PurePosixPath(stored[1]).stem)
    return f"{stem}-{number:07}" if stem else f"{number:07}"


def _folder_name(value: str, taken: Collection[str]) -> str:
    """A class as the name of a folder, unlike the others also where case does not count."""
    # a class that is called like the training part would be taken for it
    name, lower = _safe(value) or "_", {"train", *(other.casefold() for other in taken)}
    while name.casefold() in lower:
        name += "_"
    return name


def _safe(name: str) -> str:
    cut = _UNSAFE.sub("_", name).encode()[:_LONGEST].decode(errors="ignore").strip(" .")
    return f"_{cut}" if cut.partition(".")[0].casefold() in _RESERVED else cut
