"""Checkpoints of a fit: one file, replaced in one step, that is either whole and of the same fit, or not used."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import logging
import os
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

log = logging.getLogger(__name__)

_DIGEST = 32


def _digest(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


class FitCheckpoint:
    """A fit's state on disk.

    The file starts with the hash of what fit it belongs to and the hash of the rest, as `torch.save` notices no
    flipped byte. Nothing in it is unpickled beyond tensors and plain values.

    Args:
        path: The file. Two processes that write it both leave a whole one.
        key: What the state depends on, as plain values; the versions of torch and Lightning are added.
    """

    def __init__(self, path: Path, key: Mapping[str, Any]) -> None:
        from importlib.metadata import version

        self.path = path
        versions = {name: version(name) for name in ("torch", "lightning")}
        self._owner = _digest(json.dumps({**key, "versions": versions}, sort_keys=True).encode())
        self._warned = False

    def save(self, state: Mapping[str, Any]) -> None:
        """Replaces the file. Where it cannot be written (a full disk), the last one stays, and that is said once."""
        try:
            self._replace(state)
        except OSError as error:  # the fit itself needs none
            if not self._warned:
                log.warning("the checkpoint %s of the fit cannot be written: %s", self.path, error)
            self._warned = True

    def _replace(self, state: Mapping[str, Any]) -> None:
        buffer = io.BytesIO()
        torch.save(dict(state), buffer)
        data = buffer.getvalue()
        handle, name = tempfile.mkstemp(dir=self.path.parent, prefix=f"{self.path.name}.tmp-")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(self._owner + _digest(data) + data)
                file.flush()
                os.fsync(file.fileno())
            Path(name).replace(self.path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise

    def load(self, map_location: Any = None) -> dict[str, Any] | None:
        """The state last saved; None where there is none.

        A damaged file, and one of another fit, is set aside with a word.
        """
        try:
            data = self.path.read_bytes()
        except FileNotFoundError:
            return None
        owner, digest, body = data[:_DIGEST], data[_DIGEST : 2 * _DIGEST], data[2 * _DIGEST :]
        if digest != _digest(body):
            self._set_aside("is damaged")
            return None
        if owner != self._owner:
            self._set_aside("belongs to another fit or to other versions of torch and Lightning")
            return None
        state: dict[str, Any] = torch.load(io.BytesIO(body), map_location=map_location, weights_only=True)
        return state

    def remove(self) -> None:
        """Removes the file, and what a killed writer left."""
        self.path.unlink(missing_ok=True)
        for left in self.path.parent.glob(f"{self.path.name}.tmp-*"):
            with contextlib.suppress(OSError):
                left.unlink()

    def _set_aside(self, why: str) -> None:
        aside = self.path.with_name(f"{self.path.name}.damaged-{time.time_ns()}")
        with contextlib.suppress(FileNotFoundError):
            self.path.rename(aside)
        log.warning("the checkpoint %s %s; it was set aside as %s, the fit starts anew", self.path, why, aside.name)
