"""Progress of what may take long, said only where it does."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm

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
    interval = 0.2 if sys.stderr.isatty() else 10.0  # a log file wants few lines
    yield from tqdm(
        items, desc=what, unit=unit, total=total, delay=_SHOW_AFTER, mininterval=interval, maxinterval=interval,
        leave=False, file=sys.stderr,
    )  # fmt: skip
