"""The window's slots, gathered once per node into a few segments that batches are read from."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from lightning_diffaug.errors import DamagedShardError, PoolError, PoolFormatError
from lightning_diffaug.pool.container import check_file
from lightning_diffaug.pool.pool import SyntheticPool
from lightning_diffaug.pool.segment import Segment, open_segment, write_segment
from lightning_diffaug.pool.shard import Shard, ShardSummary
from lightning_diffaug.pool.storage import Folder

_log = logging.getLogger(__name__)
SEGMENT_ROWS = 4096
"""Rows that a segment has at least, where the window has them."""
_MAKING_ATTEMPTS = 3
_OWN_NAME = re.compile(r"\d{9,}-\d{9,}(-[0-9a-f]{8})?(-[0-9a-f]+)?\.safetensors")  # the last part: set aside


class UnavailableSlotsError(DamagedShardError, FileNotFoundError):
    """Slots of a window that cannot be gathered now; they have to be made (again).

    Attributes:
        damaged: Slots whose file was damaged, with the reason; the files are set aside.
        missing: Slots that are not published.
    """

    def __init__(self, damaged: dict[int, str], missing: Sequence[int]) -> None:
        self.damaged = dict(damaged)
        self.missing = tuple(missing)
        super().__init__(
            "the window is not complete: "
            + "; ".join(
                [f"slots {list(self.missing)} are not published"] * bool(self.missing)
                + [f"slots {list(self.damaged)} are damaged ({'; '.join(self.damaged.values())})"] * bool(self.damaged)
            )
            + ". Have them made (again), or decide by data.when_short."
        )


class EpochCache:
    """Segments in a folder of their own, on a disk of the node.

    Several processes of the node may gather into one folder; whichever is first publishes, the others use its
    file.

    Args:
        folder: A folder for this cache alone; it is made when needed and removed by `close`.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self._folder = Folder(folder)
        self._verified: dict[str, int] = {}  # name -> inode of the file that this process has verified
        self._sizes: dict[tuple[str, int], ShardSummary] = {}

    @property
    def folder(self) -> Path:
        """Where the cache is."""
        return self._folder.root

    def gather(self, pool: SyntheticPool, slots: Sequence[int]) -> list[Segment]:
        """Copies slots, each verified, into segments of together just these slots in this order.

        A segment that is there and good is used again, so that a window that moves on costs only its ends.

        Args:
            pool: Where the slots are.
            slots: Which, ascending.

        Raises:
            UnavailableSlotsError: (a DamagedShardError and a FileNotFoundError) Some slots are damaged or
                missing. All have been tried, and the error names all of them.
            PoolError: The cache's folder cannot be written, or slots disagree in their fields.
        """
        if sorted(set(slots)) != list(slots):
            raise ValueError(f"slots={list(slots)} are not ascending: the order of rows must not depend on the caller")
        trouble = _Trouble(pool)
        counts = {k: self._size(trouble, k) for k in slots}
        segments = []
        for piece in _cut(slots, {k: size.n if size else 0 for k, size in counts.items()}, pool.header.slot_size):
            sizes = {k: size for k in piece if (size := counts[k]) is not None}
            segment = self._existing(pool, piece)
            if segment is None:  # not by its truth: a segment of 0 rows is one
                segment = self._made(trouble, piece, sizes)
            if segment is not None:
                segments.append(segment)
                # Kept only now: before it is verified, a header may say anything.
                self._sizes.update({(pool.fingerprint, k): size for k, size in sizes.items()})
        trouble.check()
        return segments

    def prune(self, keep: Iterable[Segment]) -> list[Path]:
        """Removes the segments that are not in ``keep``; returns which. A mapped one stays readable."""
        names = {segment.path.name for segment in keep}
        removed = []
        for name in self._folder.list():
            if _OWN_NAME.fullmatch(name) and name not in names and self._folder.remove(name):
                self._verified.pop(name, None)
                removed.append(self._folder.path(name))
        return removed

    def close(self) -> None:
        """Removes the cache's files and its folder, unless it holds files of others; may be called again."""
        if not self._folder.root.is_dir():
            return
        self._folder.clean("")
        for sub in ("damaged/", ""):
            for name in self._folder.list(sub):
                if _OWN_NAME.fullmatch(name):
                    with contextlib.suppress(PoolError):
                        self._folder.remove(sub + name)
            try:
                self._folder.path(sub).rmdir()
            except FileNotFoundError:
                pass
            except OSError as error:
                _log.warning("%s is not removed: %s", self._folder.path(sub), error.strerror)
        self._verified.clear()

    def _size(self, trouble: _Trouble, k: int) -> ShardSummary | None:
        key = (trouble.pool.fingerprint, k)
        if key not in self._sizes:
            return trouble.summary(k)
        return self._sizes[key]

    def _existing(self, pool: SyntheticPool, slots: Sequence[int]) -> Segment | None:
        name = _name(slots)
        path = self._folder.path(name)
        try:
            inode = path.stat().st_ino
            if self._verified.get(name) != inode:
                check_file(path)
            segment = open_segment(path)
            if (segment.pool, segment.slots) != (pool.fingerprint, tuple(slots)):
                raise DamagedShardError("it is of another pool or other slots")
        except FileNotFoundError:
            return None
        except (DamagedShardError, PoolFormatError) as error:
            moved = self._folder.set_aside(name)
            _log.warning("Segment %s is damaged (%s): set aside as %s, and made again.", path, error, moved)
            return None
        self._verified[name] = inode
        return segment

    def _made(self, trouble: _Trouble, slots: Sequence[int], sizes: dict[int, ShardSummary]) -> Segment | None:
        pool, name = trouble.pool, _name(slots)
        if len(sizes) < len(slots):
            trouble.try_all(sizes)
            return None
        path = self._folder.path(name)
        for _ in range(_MAKING_ATTEMPTS):
            try:
                # Not synced: it is verified before another process uses it.
                created = self._folder.put_if_absent(
                    name, lambda temp: write_segment(temp, pool.fingerprint, sizes, trouble.read), durable=False
                )
            except (DamagedShardError, FileNotFoundError):
                trouble.try_all(sizes)
                return None
            if created:
                self._verified[name] = path.stat().st_ino
                return open_segment(path)
            segment = self._existing(pool, slots)  # another process was faster
            if segment is not None:
                return segment
        raise PoolError(
            f"segment {path} was damaged or removed {_MAKING_ATTEMPTS} times as soon as it was there, so the window "
            "cannot be read. Let nothing else write to that folder, or set paths.cache_dir to another disk."
        )


class _Trouble:
    """What is wrong with the slots of one gather."""

    def __init__(self, pool: SyntheticPool) -> None:
        self.pool = pool
        self._damaged: dict[int, str] = {}
        self._missing: set[int] = set()

    def summary(self, k: int) -> ShardSummary | None:
        try:
            return self.pool.summary(k)
        except DamagedShardError:
            self.try_all([k])
        except FileNotFoundError:
            self._missing.add(k)
        return None

    def read(self, k: int) -> Shard:
        try:
            return self.pool.read(k)
        except DamagedShardError as error:
            self._damaged[k] = str(error)
            raise
        except FileNotFoundError:
            self._missing.add(k)
            raise

    def try_all(self, slots: Iterable[int]) -> None:
        for k in slots:
            if k not in self._damaged and k not in self._missing:
                with contextlib.suppress(DamagedShardError, FileNotFoundError):
                    self.read(k)

    def check(self) -> None:
        if self._damaged or self._missing:
            raise UnavailableSlotsError(dict(sorted(self._damaged.items())), sorted(self._missing))


def _cut(slots: Sequence[int], counts: dict[int, int], slot_size: int) -> list[list[int]]:
    # Cuts lie at multiples of a fixed number of slots, wherever the window starts: its inner segments stay as
    # it moves.
    grid = -(-SEGMENT_ROWS // slot_size)
    pieces: list[list[int]] = []
    open_rows = SEGMENT_ROWS
    previous: int | None = None
    for k in slots:
        if k // grid != previous and open_rows >= SEGMENT_ROWS:
            pieces.append([])
            open_rows = 0
        previous = k // grid
        pieces[-1].append(k)
        open_rows += counts[k]
    if len(pieces) > 1 and open_rows < SEGMENT_ROWS:
        tail = pieces.pop()
        pieces[-1] += tail
    return pieces


def _name(slots: Sequence[int]) -> str:
    first, last = slots[0], slots[-1]
    holes = "" if len(slots) == last - first + 1 else "-" + hashlib.sha256(repr(list(slots)).encode()).hexdigest()[:8]
    return f"{first:09d}-{last:09d}{holes}.safetensors"
