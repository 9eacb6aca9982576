"""A user's own folder of sounds, one folder per class, and which files are for training."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path

from lightning_diffaug.data.parts import class_files, folder_parts
from lightning_diffaug.data.sound_files import EXTENSIONS
from lightning_diffaug.errors import ConfigurationError

LAYOUT = """Expected are WAV, FLAC, Ogg or MP3 files, either
  <root>/train/<class>/*.wav   <root>/val/<class>/*.wav   <root>/test/<class>/*.wav   (val may be absent)
or one folder that is split by ratio (real.split), whole speakers or sources at a time (real.group)
  <root>/<class>/*.wav"""
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
        ``train``, ``val`` and ``test``.

    Raises:
        ConfigurationError: The folder is missing or has another layout, or `group` does not match a file.
    """
    return folder_parts(
        root, lambda folder: class_files(folder, EXTENSIONS), LAYOUT, split, split_seed,
        unit=None if group is None else _source(group), label=lambda file: file[1],
    )  # fmt: skip


def _source(group: str) -> Callable[[tuple[Path, str]], str]:
    """Who or what a file is of, see `find_parts`."""
    try:
        expression = re.compile(group)
    except re.error as error:
        raise ConfigurationError(
            f"real.group={group!r} is no regular expression ({error}). Set real.group to e.g. '^([a-z]+)_'."
        ) from None

    def of(file: tuple[Path, str]) -> str:
        match = expression.search(file[0].name)
        if match is None:
            raise ConfigurationError(
                f"real.group={group!r} matches nothing in the name of {file[0]}, so it is unknown what may not be told "
                "apart from it. Set real.group to an expression that finds the speaker or source in every file's name, "
                "or to null."
            )
        return match.group(1) if expression.groups else match.group()

    return of
