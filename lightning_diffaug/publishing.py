"""Folders that appear at once and whole, or not at all."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from lightning_diffaug.pool.process import machine_id, surely_dead


@contextlib.contextmanager
def published(folder: Path, prefix: str, whole: Callable[[Path], bool] = Path.is_dir) -> Iterator[Path]:
    """A new folder beside `folder`, which becomes it when the block ends without an error.

    Where `folder` is there by then, it stays as it is: who comes second adopts the winner's.

    Args:
        folder: Where it goes.
        prefix: Of the new folder's name until then, by which `remove_dead` knows it.
        whole: Whether what is there is a winner's.

    Raises:
        OSError: It cannot be written, or something else is there.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    part = folder.parent / f"{prefix}{machine_id()}-{os.getpid()}-{secrets.token_hex(4)}"
    part.mkdir()  # not tempfile's, which nobody else may read
    try:
        yield part
        try:
            part.rename(folder)
        except OSError:
            if not whole(folder):
                raise
    finally:
        shutil.rmtree(part, ignore_errors=True)


def remove_dead(parent: Path, prefix: str) -> None:
    """Removes what `published` could not, as its process was killed on this machine."""
    for part in parent.glob(f"{prefix}*"):
        machine, pid = [*part.name.removeprefix(prefix).split("-"), ""][:2]
        if pid.isdigit() and surely_dead(machine, int(pid)):
            shutil.rmtree(part, ignore_errors=True)
