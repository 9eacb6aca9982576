"""A user's own folder of sounds, one folder per class, and which files are for training."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from pathlib import Path

from lightning_diffaug.data.selection import grouped_split, stratified_split
from lightning_diffaug.data.sound_files import EXTENSIONS
from lightning_diffaug.errors import ConfigurationError

log = logging.getLogger(__name__)

LAYOUT = """Expected are WAV, FLAC, Ogg or MP3 files, either
  <root>/train/<class>/*.wav   <root>/val/<class>/*.wav   <root>/test/<class>/*.wav   (val may be absent)
or one folder that is split by ratio (real.split), whole speakers or sources at a time (real.group)
  <root>/<class>/*.wav"""
PARTS = ("train", "val", "test")
_VAL = ("val", "valid", "validation")

Files = list[tuple[Path, str]]
"""Paths with their classes."""


def find_parts(root: Path, split: Sequence[float], split_seed: int, group: str | None) -> dict[str, Files]:
    """Files of the three parts, with their classes.

    Args:
        root: The folder.
        split: Shares of training, validation and test, where there is one folder.
        split_seed: Which files, or groups, go where.
        group: Regular expression that finds in a file's name who or what it is of (its first group, or all that it
            matches): files of one such source stay together. None: each file may go anywhere.

    Returns:
        ``train``, ``val`` and ``test``; every class is in ``train``.

    Raises:
        ConfigurationError: The folder is missing or has another layout, or `group` does not match a file.
    """
    if not root.is_dir():
        raise ConfigurationError(
            f"real.root={root} is not a folder, so there is no data. Set real.root to your sounds.\n{LAYOUT}"
        )
    if not (root / "train").is_dir():
        whole = _files(root)
        _at_least_two(whole, root)
        return _checked(_divided(whole, PARTS, split, split_seed, group), root)
    parts = {"train": _files(root / "train"), "test": _files(root / "test")}
    _at_least_two(parts["train"], root / "train")
    if not parts["test"]:
        raise ConfigurationError(
            f"real.root={root} has train/ but no test/ with sounds: without sounds of their own the final figures "
            "would mean nothing. Add it, or set real.root to the train folder itself, which is then split by ratio.\n"
            f"{LAYOUT}"
        )
    val: Files = next((found for name in _VAL if (found := _files(root / name))), [])
    if not val:
        share = split[1] / (split[0] + split[1])
        log.info("%s has no val/: %.0f %% of train/ are set aside for validation.", root, 100 * share)
        parts |= _divided(parts["train"], PARTS[:2], (1 - share, share), split_seed, group)
    else:
        parts["val"] = val
    return _checked(parts, root)


def groups_of(files: Files, group: str) -> list[str]:
    """Who or what each file is of, see `find_parts`."""
    try:
        expression = re.compile(group)
    except re.error as error:
        raise ConfigurationError(
            f"real.group={group!r} is no regular expression ({error}). Set real.group to e.g. '^([a-z]+)_'."
        ) from None
    found = []
    for path, _ in files:
        match = expression.search(path.name)
        if match is None:
            raise ConfigurationError(
                f"real.group={group!r} matches nothing in the name of {path}, so it is unknown what may not be told "
                "apart from it. Set real.group to an expression that finds the speaker or source in every file's name, "
                "or to null."
            )
        found.append(match.group(1) if expression.groups else match.group())
    return found


def _divided(
    files: Files, names: Sequence[str], shares: Sequence[float], seed: int, group: str | None
) -> dict[str, Files]:
    if group is None:
        classes = sorted({name for _, name in files})
        indices = stratified_split([classes.index(name) for _, name in files], shares, seed, classes)
    else:
        indices = grouped_split(groups_of(files, group), shares, seed)
    return {part: [files[i] for i in chosen] for part, chosen in zip(names, indices, strict=True)}


def _files(folder: Path) -> Files:
    """Sounds below each class folder, sorted; hidden ones are left out."""
    if not folder.is_dir():
        return []
    classes = [found for found in sorted(folder.iterdir()) if found.is_dir() and not found.name.startswith(".")]
    return [
        (path, found.name)
        for found in classes
        for path in sorted(found.rglob("*"))
        if path.suffix.lower() in EXTENSIONS and not path.name.startswith(".") and path.is_file()
    ]


def _at_least_two(files: Files, folder: Path) -> None:
    if len(classes := sorted({name for _, name in files})) < 2:
        raise ConfigurationError(
            f"{folder} holds sounds of {len(classes)} class folder(s), but at least 2 are needed. Set real.root to a "
            f"folder of this layout.\n{LAYOUT}"
        )


def _checked(parts: dict[str, Files], root: Path) -> dict[str, Files]:
    known = {name for _, name in parts["train"]}
    for part in PARTS[1:]:
        if unknown := sorted({name for _, name in parts[part]} - known):
            raise ConfigurationError(
                f"real.root={root}: {part} holds the classes {unknown}, which train lacks: they could never be right. "
                "Add training sounds of them or take them out; where real.group keeps sources together, set "
                f"real.split_seed or real.split to other values.\n{LAYOUT}"
            )
    return parts
