"""Progress of what may take long, said only where it does."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeVar

from lightning_diffaug.bars import bar

_SHOW_AFTER = 5.0  # seconds

T = TypeVar("T")


def followed(items: Iterable[T], what: str, unit: str, total: int) -> Iterator[T]:
    """The items, with a bar on the console once they take longer than a few seconds.

    Args:
        items: What is gone through.
        what: What is being done.
        unit: Of an item.
        total: Number of items.
    """
    yield from bar(what, unit, total, iterable=items, delay=_SHOW_AFTER, leave=False)
