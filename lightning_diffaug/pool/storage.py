"""A folder in which files appear whole or not at all, whoever is killed and however many write."""

from __future__ import annotations

import contextlib
import errno
import os
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

from safetensors import SafetensorError

from lightning_diffaug.errors import PoolError
from lightning_diffaug.pool.process import machine_id, surely_dead

_TEMP_PREFIX = ".tmp-"
_FOREIGN_TEMP_AGE = 24 * 3600.0
"""Seconds after which a temporary file of a machine whose processes cannot be seen counts as left behind."""

_CAUSES = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "the file is larger than this file system or process may write",
    errno.EROFS: "the file system is read-only",
    errno.EACCES: "this user may not write there",
    errno.EPERM: "this user may not write there",
    errno.ENOTDIR: "a file stands where a folder is needed",
    errno.EEXIST: "a file stands where a folder is needed",
    errno.EIO: "the device reports an input/output error",
}
_NO_HARD_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EMLINK, errno.ENOSYS}


class Folder:
    """Files that are published in one atomic step; names are relative paths with ``/``.

    Every file is written under a temporary name in its own folder, synced, and only then linked to its name,
    so that a reader sees all of it or nothing, after a crash of the writer or of the machine as well.

    Raises:
        PoolError: From each writing method when the folder cannot be written (full disk, no permission, …).
    """

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self.root = Path(root)

    def path(self, name: str) -> Path:
        """The path of the file ``name``, whether it exists or not."""
        return self.root / name

    def create(self, sub: str = "") -> None:
        """Makes the folder (and its parents), or its subfolder ``sub``, if absent."""
        with self._explained(sub or "the folder"):
            self.path(sub).mkdir(parents=True, exist_ok=True)

    def put_if_absent(self, name: str, write: Callable[[Path], object], *, durable: bool = True) -> bool:
        """Publishes a file unless one of that name exists.

        Args:
            name: Where the file appears.
            write: Writes the whole content to the temporary path that it is given.
            durable: Sync to disk before publishing. False is for caches that are verified before they are
                used again.

        Returns:
            True when this call created the file, False when it was there (also when another writer was
            faster).
        """
        target = self.path(name)
        if os.path.lexists(target):
            return False
        with self._explained(name), self._temporary(target) as temp:
            write(temp)
            if durable:
                _sync(temp)
            created = _link_if_absent(temp, target)
            if durable:
                _sync(target.parent)
        return created

    def put_bytes_if_absent(self, name: str, data: bytes, *, durable: bool = True) -> bool:
        """`put_if_absent` of ``data``."""
        return self.put_if_absent(name, lambda path: path.write_bytes(data), durable=durable)

    def replace_bytes(self, name: str, data: bytes) -> None:
        """Publishes ``data`` in place of a file of that name: atomic, not synced (meant for heartbeats)."""
        target = self.path(name)
        with self._explained(name), self._temporary(target) as temp:
            temp.write_bytes(data)
            temp.replace(target)

    def list(self, sub: str = "") -> list[str]:
        """Names (without ``sub``) of the published regular files in the subfolder, sorted; [] without it."""
        try:
            with os.scandir(self.path(sub)) as entries:
                return sorted(e.name for e in entries if not e.name.startswith(_TEMP_PREFIX) and e.is_file())
        except (FileNotFoundError, NotADirectoryError):
            return []

    def remove(self, name: str) -> bool:
        """Removes a file; False when it was gone already."""
        with self._explained(name):
            try:
                self.path(name).unlink()
            except (FileNotFoundError, NotADirectoryError):
                return False
        return True

    def set_aside(self, name: str, inode: int | None = None) -> Path | None:
        """Moves a file into the subfolder ``damaged`` under a new unique name.

        Args:
            name: The file.
            inode: Moves only the file with this inode: not a good one that has taken its place meanwhile.

        Returns:
            Where it is now; None when it was gone (or replaced) already.
        """
        source = self.path(name)
        target = self.root / "damaged" / f"{source.stem}-{time.time_ns():x}{source.suffix}"
        with self._explained(name):
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                if inode is not None and source.stat().st_ino != inode:
                    return None
                source.rename(target)
            except FileNotFoundError:
                return None
        return target

    def clean(self, *subs: str) -> int:
        """Removes temporary files of writers that are dead, in the given subfolders; returns how many."""
        removed = 0
        for sub in subs or ("",):
            for temp in self.path(sub).glob(f"{_TEMP_PREFIX}*"):
                if _left_behind(temp):
                    with contextlib.suppress(OSError):  # gone already, or a folder that we may only read
                        temp.unlink()
                        removed += 1
        return removed

    @contextlib.contextmanager
    def _temporary(self, target: Path) -> Iterator[Path]:
        target.parent.mkdir(parents=True, exist_ok=True)
        temp = target.parent / f"{_TEMP_PREFIX}{machine_id()}-{os.getpid()}-{uuid.uuid4().hex[:12]}"
        try:
            yield temp
        finally:
            with contextlib.suppress(OSError):  # the first error is the one that matters
                temp.unlink()

    @contextlib.contextmanager
    def _explained(self, name: str) -> Iterator[None]:
        try:
            yield
        except (OSError, SafetensorError) as error:
            number = error.errno if isinstance(error, OSError) else None
            cause = _CAUSES.get(number or 0, str(error))
            raise PoolError(
                f"{self.root}: cannot write {name}: {cause}. Nothing was published, what is already there is "
                f"intact. Make room or grant access there, or set paths.cache_dir to another folder."
            ) from error


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        # Some network file systems refuse to sync a folder; the file itself is on disk then.
        if not (path.is_dir() and error.errno in (errno.EINVAL, errno.ENOTSUP, errno.EBADF)):
            raise
    finally:
        os.close(handle)


def _link_if_absent(temp: Path, target: Path) -> bool:
    try:
        os.link(temp, target)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in _NO_HARD_LINKS:
            raise
        # No hard links here. Two writers may both pass this test, but either file is whole, and of equal
        # content.
        if os.path.lexists(target):
            return False
        temp.rename(target)
    return True


def _left_behind(temp: Path) -> bool:
    machine, _, rest = temp.name[len(_TEMP_PREFIX) :].partition("-")
    pid = rest.partition("-")[0]
    if pid.isdigit() and surely_dead(machine, int(pid)):
        return True
    try:
        return time.time() - temp.stat().st_mtime > _FOREIGN_TEMP_AGE
    except OSError:
        return False
