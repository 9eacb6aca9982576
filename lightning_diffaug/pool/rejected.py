"""Rejected samples, kept beside a pool's slots for a look. Nothing that trains reads them."""

from __future__ import annotations

import contextlib

from lightning_diffaug.errors import DamagedShardError
from lightning_diffaug.pool.shard import FILE_NAME, Shard, file_of, read_shard, write_shard
from lightning_diffaug.pool.storage import Folder

FOLDER = "rejected"
MOST_FILES = 64
"""Slots whose rejected samples are kept; those of the lowest slots go first."""


class Rejected:
    """The rejected samples of a pool, a file for each slot. Its rows say why each was rejected (``reason``).

    Args:
        folder: The pool's.
        pool: The pool's fingerprint.
    """

    def __init__(self, folder: Folder, pool: str) -> None:
        self._folder = folder
        self._pool = pool

    def slots(self) -> list[int]:
        """Slots of which rejected samples are kept, ascending."""
        return sorted(int(match[1]) for name in self._folder.list(FOLDER) if (match := FILE_NAME.fullmatch(name)))

    def put(self, slot: int, shard: Shard) -> None:
        """Keeps the samples that were rejected in the making of a slot, unless some of it are kept already.

        Raises:
            PoolError: The folder cannot be written.
        """
        self._folder.put_if_absent(_file(slot), lambda path: write_shard(path, shard, self._tags(slot)), durable=False)
        for oldest in self.slots()[:-MOST_FILES]:
            self._folder.remove(_file(oldest))

    def read(self) -> list[Shard]:
        """All that are kept, by slot; damaged files are passed over."""
        found = []
        for slot in self.slots():
            with contextlib.suppress(DamagedShardError, FileNotFoundError):
                found.append(read_shard(self._folder.path(_file(slot)), self._tags(slot)))
        return found

    def _tags(self, slot: int) -> dict[str, str]:
        # Not those of a slot: a file that is moved among the slots is taken for a damaged one.
        return {"pool": self._pool, "slot": f"{FOLDER} {slot}"}


def _file(slot: int) -> str:
    return f"{FOLDER}/{file_of(slot)}"
