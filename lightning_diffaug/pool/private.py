"""Pools that are one run's own: how long they stay."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import time
from pathlib import Path

from lightning_diffaug.errors import PoolError
from lightning_diffaug.pool.header import HEADER_FILE, PoolHeader
from lightning_diffaug.pool.lease import live_leases
from lightning_diffaug.pool.plans import PLANS, SCORERS
from lightning_diffaug.pool.rejected import FOLDER as REJECTED
from lightning_diffaug.pool.shard import FILE_NAME
from lightning_diffaug.pool.storage import Folder

log = logging.getLogger(__name__)

KEPT_SECONDS = 30 * 24 * 3600.0
"""Age from which the own pool of a run that nobody goes on with counts as left behind."""
_LEASE_SECONDS = 600.0
_OWN = {
    "slots": FILE_NAME.pattern,
    "damaged": r".+-[0-9a-f]+\.(safetensors|json)",
    REJECTED: FILE_NAME.pattern,
    "claims": r"\d+\.claim",
    "leases": r".+\.json",
    PLANS: r"(\d{9,}\.json|[0-9a-f]{32}\.safetensors)",
    SCORERS: r"[0-9a-f]{32}\.safetensors",
}


def remove_left_behind(pools: Path, keep: str | None = None) -> list[Path]:
    """Removes the private pools that no run has touched for `KEPT_SECONDS`; returns which.

    Only a resume of its run can use such a pool. Files that are not the pool's own stay, and their folder with them.

    Args:
        pools: Folder of pools.
        keep: Name of the run that goes on, whose pool stays however old it is; None: a new one.
    """
    removed = []
    for folder in sorted(pools.iterdir()) if pools.is_dir() else []:
        with contextlib.suppress(OSError, PoolError):  # gone meanwhile, foreign, or not ours to remove
            if (
                _touched(folder) < time.time() - KEPT_SECONDS
                and _owner(folder) not in (None, keep)
                and not _is_read(folder)
            ):
                _remove(folder)
                removed.append(folder)
    if removed:
        log.info(
            "Removed %d pools with feedback that no run has used for %.0f days.",
            len(removed), KEPT_SECONDS / 86400,
        )  # fmt: skip
    return removed


def _owner(folder: Path) -> str | None:
    header = PoolHeader.from_json((folder / HEADER_FILE).read_bytes(), str(folder))
    owner = header.parts.get("private")
    return None if owner is None else str(owner)


def _is_read(folder: Path) -> bool:
    return bool(live_leases(Folder(folder), _LEASE_SECONDS))


def _touched(folder: Path) -> float:
    """When a file last came to the pool or went: a folder's time says it."""
    places = [folder, folder / HEADER_FILE, *(folder / sub for sub in _OWN)]
    return max(place.stat().st_mtime for place in places if place.exists())


def _remove(folder: Path) -> None:
    (folder / HEADER_FILE).unlink()  # first: what is left of it, should this be interrupted, is no pool
    for sub, pattern in _OWN.items():
        with contextlib.suppress(OSError), os.scandir(folder / sub) as entries:
            for entry in list(entries):
                if entry.is_file(follow_symlinks=False) and re.fullmatch(pattern, entry.name):
                    Path(entry.path).unlink()
        with contextlib.suppress(OSError):  # absent, or it holds what is not ours
            (folder / sub).rmdir()
    with contextlib.suppress(OSError):
        folder.rmdir()
