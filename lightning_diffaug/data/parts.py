"""The parts of a user's folder: its own train, val and test, or one folder that is divided."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from lightning_diffaug.data.selection import check_shares, grouped_split, stratified_split
from lightning_diffaug.errors import ConfigurationError

log = logging.getLogger(__name__)

PARTS = ("train", "val", "test")
VAL_NAMES = ("val", "valid", "validation")
_LEAST = 2  # times as many samples as parts are the fewest that are divided

T = TypeVar("T")


def folder_parts(
    root: Path,
    read: Callable[[Path], Sequence[T]],
    layout: str,
    split: Sequence[float],
    seed: int = 0,
    unit: Callable[[T], Hashable] | None = None,
    label: Callable[[T], Hashable] | None = None,
) -> dict[str, list[T]]:
    """The samples of each part.

    Args:
        root: The folder (``real.root``): with ``train/`` and ``test/`` (and ``val/``, else it is split off the training
            part; of `VAL_NAMES` it is the first that holds something), or all in one.
        read: The samples below a folder, in a fixed order; [] where there are none. It says itself what is wrong.
        layout: What is expected, for errors.
        split: Shares of training, validation and test (``real.split``).
        seed: Of the division (``real.split_seed``).
        unit: What is not divided: samples of the same voice, image or place stay together. None: each is by itself.
        label: Class of a sample, of which each part gets its share; only without `unit`, and where none is None.

    Raises:
        ConfigurationError: The folder or a part is missing, or there is too little to divide.
    """
    check_split(split)
    if not root.is_dir():
        raise ConfigurationError(f"real.root={root} is not a folder, so there is no data. Set real.root.\n{layout}")
    if not (root / "train").is_dir():
        whole = read(root)
        if not whole:
            raise ConfigurationError(f"real.root={root} holds nothing that can be read. Set real.root.\n{layout}")
        return all_parts(root, {"train": whole}, layout, split, seed, unit, label)
    parts = {"train": list(read(root / "train"))}
    for part, names in (("val", VAL_NAMES), ("test", ("test",))):
        folders = [root / name for name in names if (root / name).is_dir()]
        parts[part] = next((found for folder in folders if (found := list(read(folder)))), [])
    if not parts["train"]:
        raise ConfigurationError(f"real.root={root}: train/ is empty, so there is nothing to train on.\n{layout}")
    if not parts["test"]:
        raise ConfigurationError(
            f"real.root={root} has train/ but no test/ (test/ is missing or empty): without samples of their own the "
            f"final figures would mean nothing. Add them, or put all into one folder, which is then divided.\n{layout}"
        )
    return all_parts(root, parts, layout, split, seed, unit, label)


def all_parts(
    root: Path,
    parts: Mapping[str, Sequence[T]],
    layout: str,
    split: Sequence[float],
    seed: int = 0,
    unit: Callable[[T], Hashable] | None = None,
    label: Callable[[T], Hashable] | None = None,
) -> dict[str, list[T]]:
    """The three parts, where some are given.

    Args:
        root: Where they are from (``real.root``).
        parts: Training part alone, which is divided by `split`; with a test part, validation is split off the training
            part unless there is one.
        layout: As of `folder_parts`, and so are the others.
        split: Shares of training, validation and test.
        seed: Of the division.
        unit: What is not divided.
        label: Class of a sample.

    Raises:
        ConfigurationError: There is too little to divide.
    """
    given = {name: list(samples) for name, samples in parts.items()}
    if given.get("val") and given.get("test"):
        return given
    shares = split
    if given.get("test"):
        share = split[1] / (split[0] + split[1])
        log.info("%s has no validation part: %.0f %% of the training part are set aside for it.", root, 100 * share)
        shares = (1 - share, share)
    train = given["train"]
    try:
        indices = _divided(train, shares, seed, unit, label)
    except ConfigurationError as error:
        raise ConfigurationError(f"{str(error).rstrip('.')}.\n{layout}") from None
    return given | {name: [train[i] for i in part] for name, part in zip(PARTS, indices, strict=False)}


def class_files(folder: Path, extensions: Collection[str]) -> list[tuple[Path, str]]:
    """Files below each class folder, with the class, sorted; hidden ones are left out.

    Args:
        folder: What holds a folder of each class.
        extensions: Endings of names, small letters.
    """
    if not folder.is_dir():
        return []
    return [(path, found.name) for found in shown_folders(folder) for path in shown_files(found.rglob("*"), extensions)]


def shown_folders(folder: Path) -> list[Path]:
    """The folders in one, sorted; hidden ones are left out."""
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def shown_files(paths: Iterable[Path], extensions: Collection[str]) -> list[Path]:
    """Those of some paths that are files with one of the endings (small letters), sorted; hidden ones are left out."""
    return sorted(
        path for path in paths if path.suffix.lower() in extensions and not path.name.startswith(".") and path.is_file()
    )


def class_names(
    root: Path, parts: Mapping[str, Sequence[T]], label: Callable[[T], str], layout: str, least: int = 1
) -> list[str]:
    """The classes of the training part, sorted.

    Args:
        root: The folder (``real.root``).
        parts: As of `folder_parts`.
        label: Class of a sample.
        layout: What is expected, for errors.
        least: So many are needed.

    Raises:
        ConfigurationError: There are fewer, or another part has a class that training lacks.
    """
    names = sorted({label(sample) for sample in parts["train"]})
    if len(names) < least:
        raise ConfigurationError(
            f"real.root={root} has {len(names)} class folder(s), and at least {least} classes are needed. Set "
            f"real.root to a folder of this layout.\n{layout}"
        )
    for part in PARTS[1:]:
        if unknown := sorted({label(sample) for sample in parts[part]} - set(names)):
            raise ConfigurationError(
                f"real.root={root}: {part} has the classes {unknown}, which train lacks: they could never be right. "
                "Add training samples of them or take them out; of one folder that is divided by sources, set "
                f"real.split_seed to another number.\n{layout}"
            )
    return names


def check_split(split: Sequence[float]) -> None:
    """Refuses shares of training, validation and test that are none.

    Raises:
        ConfigurationError: They are not three positive ones of sum 1.
    """
    check_shares(split, three=True)


def _divided(
    samples: Sequence[T],
    shares: Sequence[float],
    seed: int,
    unit: Callable[[T], Hashable] | None,
    label: Callable[[T], Hashable] | None,
) -> list[list[int]]:
    if unit is not None:
        return grouped_split([str(unit(sample)) for sample in samples], shares, seed)
    labels = [None if label is None else label(sample) for sample in samples]
    if None not in labels:
        classes = sorted({str(name) for name in labels})
        return stratified_split([classes.index(str(name)) for name in labels], shares, seed, classes)
    if len(samples) < _LEAST * len(shares):
        raise ConfigurationError(
            f"there are {len(samples)} samples in real.root, too few for {len(shares)} parts. Add some, or give each "
            "part a folder of its own"
        )
    return stratified_split([0] * len(samples), shares, seed)
