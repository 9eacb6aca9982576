"""The pool: an append-only log of numbered slots in a folder, for any number of writers and readers."""

from __future__ import annotations

import contextlib
import logging
import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from lightning_diffaug.errors import DamagedShardError, PoolError
from lightning_diffaug.pool.claims import Claim, Claims
from lightning_diffaug.pool.header import HEADER_FILE, PoolHeader
from lightning_diffaug.pool.lease import Lease, LeaseInfo, live_leases, remove_expired
from lightning_diffaug.pool.plans import PLANS, SCORERS
from lightning_diffaug.pool.rejected import FOLDER as _REJECTED
from lightning_diffaug.pool.rejected import Rejected
from lightning_diffaug.pool.shard import FILE_NAME, Shard, ShardSummary, file_of, read_shard, summarise, write_shard
from lightning_diffaug.pool.storage import Folder

_log = logging.getLogger(__name__)
_SLOTS = "slots"


@dataclass(frozen=True)
class PoolInfo:
    """What is in a pool, by the headers of its shards.

    Attributes:
        slots: Published slots.
        rows: Samples in them.
        rows_per_class: Samples by the value of the field ``label``; empty without labels.
        nbytes: Size of the slots' files.
        unreadable: Slots whose header is damaged, not counted above except in ``slots`` and ``nbytes``.
        generated: Samples made for them, rejected ones included.
        rejections: Rejected samples by reason, most first.
    """

    slots: int
    rows: int
    rows_per_class: dict[int, int] = field(default_factory=dict)
    nbytes: int = 0
    unreadable: tuple[int, ...] = ()
    generated: int = 0
    rejections: dict[str, int] = field(default_factory=dict)


class SyntheticPool:
    """A pool on disk; make one with `create` or `open`.

    A slot is published whole, once, and never changed, so that readers need no lock. Files that are not the
    pool's own are left alone.

    Args:
        folder: Where it is.
        header: What it is.
        claim_timeout: Seconds after which a claim that was not renewed is ignored.
        lease_timeout: Seconds after which a lease that did not beat has ended.
    """

    def __init__(
        self, folder: Path, header: PoolHeader, *, claim_timeout: float = 60.0, lease_timeout: float = 600.0
    ) -> None:
        self.header = header
        self._folder = Folder(folder)
        self.rejected = Rejected(self._folder, header.fingerprint)
        """Samples that were rejected, where they are kept."""
        self._claims = Claims(self._folder, claim_timeout)
        self._lease_timeout = lease_timeout
        self._foreign: set[str] = set()
        self._slots_at = os.path.join(folder, _SLOTS, "")  # noqa: PTH118

    @classmethod
    def create(
        cls,
        folder: str | os.PathLike[str],
        header: PoolHeader,
        *,
        claim_timeout: float = 60.0,
        lease_timeout: float = 600.0,
    ) -> SyntheticPool:
        """Makes the pool, or opens the one that is there (another process may have been faster).

        Raises:
            PoolFormatError: The folder holds a pool of another format version, or a damaged header.
            PoolError: The folder cannot be written, or holds the pool of other settings.
        """
        files = Folder(folder)
        files.put_bytes_if_absent(HEADER_FILE, header.to_json())
        pool = cls.open(folder, claim_timeout=claim_timeout, lease_timeout=lease_timeout)
        pool.header.check_same(header, str(folder))
        return pool

    @classmethod
    def open(
        cls, folder: str | os.PathLike[str], *, claim_timeout: float = 60.0, lease_timeout: float = 600.0
    ) -> SyntheticPool:
        """Opens the pool in ``folder`` and removes what dead writers left there; a read-only folder will do.

        Raises:
            PoolFormatError: It is of another format version, or its header is damaged.
            PoolError: There is no pool.
        """
        path = Path(folder) / HEADER_FILE
        try:
            data = path.read_bytes()
        except OSError as error:
            raise PoolError(
                f"{folder} holds no pool that can be read ({HEADER_FILE}: {error.strerror}): there is nothing to "
                f"draw from. Start a run that fills it, or set paths.cache_dir to the folder that holds it."
            ) from error
        header = PoolHeader.from_json(data, str(path))
        pool = cls(Path(folder), header, claim_timeout=claim_timeout, lease_timeout=lease_timeout)
        pool._tidy()
        return pool

    @property
    def folder(self) -> Path:
        """Where the pool is."""
        return self._folder.root

    @property
    def fingerprint(self) -> str:
        """The pool's name."""
        return self.header.fingerprint

    # -- slots

    def slots(self) -> list[int]:
        """Numbers of the published slots, ascending."""
        found = []
        for name in self._folder.list(_SLOTS):
            match = FILE_NAME.fullmatch(name)
            if match is not None and name == _file(int(match[1])):
                found.append(int(match[1]))
            elif name not in self._foreign:
                self._foreign.add(name)
                _log.warning("%s is not a slot of this pool; it is left alone.", self.folder / _SLOTS / name)
        return sorted(found)

    def has(self, k: int) -> bool:
        """Whether slot ``k`` is published."""
        return os.path.isfile(self._slots_at + _file(k))  # noqa: PTH113 - a window asks hundreds of times an epoch

    def path(self, k: int) -> Path:
        """The file of slot ``k``, whether published or not."""
        return self._folder.path(_name(k))

    def publish(self, k: int, shard: Shard) -> bool:
        """Publishes slot ``k``; False when it was there already, which is harmless: its content is the same.

        Raises:
            PoolError: The folder cannot be written, or the shard is larger than a slot.
        """
        if shard.n > self.header.slot_size:
            raise PoolError(
                f"slot {k} has {shard.n} rows but slot_size={self.header.slot_size}: it was not stored. "
                f"Set data.slot_size, which names another pool."
            )
        created = self._folder.put_if_absent(_name(k), lambda path: write_shard(path, shard, self._tags(k)))
        if not created and self.path(k).is_dir():
            raise PoolError(f"{self.path(k)} is a folder, in the place of slot {k}: it cannot be stored. Move it away.")
        return created

    def read(self, k: int) -> Shard:
        """Slot ``k``, every byte verified.

        Raises:
            FileNotFoundError: The slot is not published (yet, or any more).
            DamagedShardError: Its file is damaged. It is in ``damaged/`` now and the slot can be published
                again.
            PoolFormatError: Its file is whole, but of another format version.
            PoolError: Its file cannot be read (permission, device, stale handle of a network drive).
        """
        try:
            with self.path(k).open("rb") as file:
                inode = os.fstat(file.fileno()).st_ino
                data = file.read()
        except FileNotFoundError:
            raise
        except OSError as error:
            raise PoolError(
                f"slot {k} of {self.folder} cannot be read: {error.strerror}. It is left as it is. "
                f"Check that folder, or set paths.cache_dir to another one."
            ) from error
        try:
            return read_shard(data, self._tags(k))
        except DamagedShardError as error:
            try:
                moved = self._folder.set_aside(_name(k), inode)
            except PoolError as not_moved:
                raise DamagedShardError(f"slot {k}: {error}. It could not be set aside: {not_moved}") from error
            if moved is not None:
                _log.warning(
                    "Slot %d of %s is damaged (%s): set aside as %s, to be made again.",
                    k,
                    self.folder,
                    error,
                    moved,
                )
            raise DamagedShardError(f"slot {k}: {error}") from error

    def summary(self, k: int) -> ShardSummary:
        """What the header of slot ``k`` says, not verified.

        Raises:
            FileNotFoundError: The slot is not published.
            DamagedShardError: The header cannot be read.
        """
        return summarise(self.path(k))

    # -- claims: who makes what

    def claim(self, k: int, owner: str) -> bool:
        """Says that ``owner`` makes slot ``k``; False when it is published or another live owner makes it."""
        return not self.has(k) and self._claims.take(k, owner)

    def beat(self, k: int, owner: str) -> bool:
        """Renews a claim; False when another owner has taken it over."""
        return self._claims.renew(k, owner)

    def release(self, k: int, owner: str) -> None:
        """Ends the claim, if it is (still) the owner's."""
        self._claims.release(k, owner)

    def claims(self) -> dict[int, Claim]:
        """Live claims by slot."""
        return self._claims.live()

    # -- leases: who needs what

    def lease(self, run_id: str) -> Lease:
        """Keeps slots for a run. Until its first `Lease.update` every slot is kept."""
        return Lease(self._folder, run_id)

    def live_leases(self) -> list[LeaseInfo]:
        """Runs that read this pool now."""
        return live_leases(self._folder, self._lease_timeout)

    def drop_beyond(self, capacity_slots: int) -> list[int]:
        """Removes the oldest slots beyond ``capacity_slots`` that no live run needs; returns which."""
        slots = self.slots()
        leases = self.live_leases()
        free = [k for k in slots if not any(lease.needs(k) for lease in leases)]
        excess = max(0, len(slots) - capacity_slots)
        return [k for k in free[:excess] if self._folder.remove(_name(k))]

    # -- the whole

    def info(self) -> PoolInfo:
        """Counts, from the headers (not verified, so fast)."""
        slots = self.slots()
        classes: Counter[int] = Counter()
        rejections: Counter[str] = Counter()
        rows = nbytes = generated = 0
        unreadable = []
        for k in slots:
            try:
                summary = self.summary(k)
            except FileNotFoundError:
                continue
            except DamagedShardError:
                unreadable.append(k)
                nbytes += self.path(k).stat().st_size
                continue
            rows += summary.n
            nbytes += summary.nbytes
            generated += int(summary.made.get("generated", 0))
            rejections.update(summary.made.get("rejections", {}))
            if summary.labels is not None:
                classes.update(int(label) for label in summary.labels)
        by_class, by_reason = dict(sorted(classes.items())), dict(rejections.most_common())
        return PoolInfo(len(slots), rows, by_class, nbytes, tuple(unreadable), generated, by_reason)

    def verify(self) -> dict[int, str]:
        """Reads every slot; the damaged ones with their reason. Nothing is moved."""
        damaged = {}
        for k in self.slots():
            with contextlib.suppress(FileNotFoundError):  # dropped meanwhile
                try:
                    read_shard(self.path(k), self._tags(k))
                except PoolError as error:
                    damaged[k] = str(error)
        return damaged

    def _tags(self, k: int) -> Mapping[str, str]:
        return {"pool": self.fingerprint, "slot": str(k)}

    def _tidy(self) -> None:
        self._folder.clean("", _SLOTS, _REJECTED, "claims", "leases", PLANS, SCORERS)
        self._claims.remove_stale()
        remove_expired(self._folder, 10 * self._lease_timeout)


def _file(k: int) -> str:
    if k < 0:
        raise PoolError(f"slot {k} does not exist: slots are numbered from 0.")
    return file_of(k)


def _name(k: int) -> str:
    return f"{_SLOTS}/{_file(k)}"
