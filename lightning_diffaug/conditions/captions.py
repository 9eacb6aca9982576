"""Texts of the user: lists of them, and files of captions by class or by training sample."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lightning_diffaug.errors import ConfigurationError

PROMPT = "prompt"
"""Key of a condition that holds the prompts themselves, n texts; it goes before the class."""

NEGATIVE_PROMPT = "negative_prompt"
"""Key of a condition with what to avoid under guidance, n texts; "" leaves it to the generator's own setting."""

Texts = str | Sequence[str]


@dataclass(frozen=True)
class Captions:
    """What a file of captions holds.

    Attributes:
        of_all: Captions of samples of any class.
        by_class: Class → its captions.
        by_sample: Row of the training data → its captions.
        lines: Class → the line of the file that names it first, where it has lines.
    """

    of_all: list[str] = field(default_factory=list)
    by_class: dict[str, list[str]] = field(default_factory=dict)
    by_sample: dict[int, list[str]] = field(default_factory=dict)
    lines: dict[str, int] = field(default_factory=dict, compare=False)


def texts(given: object, key: str) -> str | list[str]:
    """A text, or a list of texts, checked.

    Args:
        given: The setting.
        key: Its name.

    Raises:
        ConfigurationError: One of them is empty or no text, or there is none.
    """
    listed = list(given) if isinstance(given, (list, tuple)) else [given]
    found = [text for text in listed if isinstance(text, str) and text.strip()]
    if not found or len(found) < len(listed):
        raise ConfigurationError(
            f'{key}={given!r} is no text (or list of texts). Set {key} to e.g. "a photo of a {{label}}".'
        )
    return given if isinstance(given, str) else found


def listed(given: object, key: str) -> list[str]:
    """`texts` as a list."""
    found = texts(given, key)
    return [found] if isinstance(found, str) else found


def read_captions(path: str | Path, key: str) -> Captions:
    """Captions of a file.

    Args:
        path: ``.csv`` with a column ``caption``, and ``label`` (the class) or ``index`` (row of the training data);
            ``.jsonl`` of objects with such keys, whose caption may be a list; ``.json``: a list of such objects or of
            captions, or class → captions; ``.txt``: one caption a line. ``{label}`` in a caption stands for the class.
            UTF-8, with or without a byte order mark.
        key: The setting that names it, for errors.

    Raises:
        ConfigurationError: It cannot be read, or holds no captions.
    """
    path = Path(path).expanduser()
    found = Captions()
    try:
        text = path.read_text(encoding="utf-8-sig")
        for label, index, given, line in _entries(path.suffix, text):
            captions = listed(given, "caption")
            if index is not None:
                found.by_sample.setdefault(_row(index), []).extend(captions)
            elif label is not None:
                found.by_class.setdefault(str(label), []).extend(captions)
                if line is not None:
                    found.lines.setdefault(str(label), line)
            else:
                found.of_all.extend(captions)
        kinds = [kind for kind in (found.of_all, found.by_class, found.by_sample) if kind]
        if len(kinds) != 1:
            raise ValueError("captions of classes, of samples and of all are mixed" if kinds else "it holds none")
    except (OSError, ValueError, csv.Error, ConfigurationError) as error:
        raise ConfigurationError(
            f"captions={str(path)!r} cannot be used ({type(error).__name__}: {error}). Set {key} to a .csv file with "
            "columns caption and label or index, a .jsonl file of such objects, a .json file of {class: [captions]}, "
            "or a .txt file with a caption a line; or to null."
        ) from error
    return found


def _entries(suffix: str, text: str) -> Iterator[tuple[Any, Any, Any, int | None]]:
    """Class, row, caption(s) and line of each entry of a file; None for what it does not say."""
    if suffix == ".txt":
        yield from ((None, None, line.strip(), None) for line in text.splitlines() if line.strip())
    elif suffix == ".csv":
        rows = csv.DictReader(io.StringIO(text))
        _check_columns(rows.fieldnames or ())
        yield from ((*_entry(row), rows.line_num) for row in rows)
    elif suffix == ".jsonl":
        lines = enumerate(text.splitlines(), start=1)
        yield from ((*_entry(json.loads(line)), number) for number, line in lines if line.strip())
    elif suffix == ".json":
        given = json.loads(text)
        if isinstance(given, Mapping):
            yield from ((label, None, captions, None) for label, captions in given.items())
        elif isinstance(given, list):
            entries = (_entry(one) if isinstance(one, Mapping) else (None, None, one) for one in given)
            yield from ((*entry, None) for entry in entries)
        else:
            raise ValueError("it holds neither a mapping nor a list")
    else:
        raise ValueError("it ends in none of .csv, .jsonl, .json, .txt")


def _check_columns(columns: Sequence[str]) -> None:
    """Refuses a table of which nothing says whose captions it holds: they would be everybody's."""
    if columns and ("caption" not in columns or not {"label", "index"} & set(columns)):
        raise ValueError(f"its columns are {', '.join(columns)}; needed are caption, and label or index")


def _entry(given: Any) -> tuple[Any, Any, Any]:
    if not isinstance(given, Mapping):
        raise ValueError(f"{given!r} is no object with a caption")
    label, index = given.get("label"), given.get("index")
    if "caption" not in given or (label is None and index is None):
        raise ValueError(f"{dict(given)} does not have what is needed: caption, and label or index")
    return label, index, given["caption"]


def _row(index: Any) -> int:
    row = int(str(index))
    if row < 0:
        raise ValueError(f"index {row} is below 0")
    return row
