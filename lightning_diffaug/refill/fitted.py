"""Fitted generators on disk: made once for a training set and fit settings, checked, adopted by every later run."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lightning_diffaug.errors import ConfigurationError, GeneratorError
from lightning_diffaug.pool import fingerprint
from lightning_diffaug.pool.claims import Claims
from lightning_diffaug.pool.storage import Folder
from lightning_diffaug.snapshot import Snapshot

log = logging.getLogger(__name__)

_RECORD = "fitted.json"
_CLAIM_SECONDS = 60.0


def fitted_folder(cache_dir: Path, fit_fingerprint: str) -> Path:
    """Where a fitted generator lies."""
    return cache_dir / "generators" / fit_fingerprint


def _file_hashes(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != _RECORD)
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def fitted_weights(folder: Path) -> str | None:
    """Hash of the fitted weights; None where the generator is not fitted (yet).

    Raises:
        GeneratorError: The folder holds something else than what was fitted.
    """
    try:
        record = json.loads((folder / _RECORD).read_text(encoding="utf-8"))
        hashes = dict(record["files"])
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise GeneratorError(f"{folder / _RECORD} is damaged: {error}") from error
    if _file_hashes(folder) != hashes:
        raise GeneratorError(f"the fitted generator in {folder} was altered: its files do not have the hashes recorded")
    weights = {name: value for name, value in hashes.items() if name.endswith(".safetensors")}
    return fingerprint(weights or hashes)


def fit_seconds(folder: Path) -> float:
    """How long the fit in this folder took, in seconds."""
    record = json.loads((folder / _RECORD).read_text(encoding="utf-8"))
    return float(record["seconds"])


def ensure_fitted(
    generator: Any,
    folder: Path,
    snapshot: Callable[[], Snapshot | None],
    progress: Callable[[int, int], None],
    owner: str,
) -> str:
    """Fits the generator unless it is fitted already, loads it, and says what its weights are.

    The fit goes to a folder of its own, which is renamed when it is whole; who comes second adopts the winner's. A
    run that finds another one fitting waits for it, as long as that one makes progress.

    Args:
        generator: A generator with ``fit`` and ``load``.
        folder: Its `fitted_folder`.
        snapshot: Loads the training data.
        progress: Called with (step, total).
        owner: Name of the run.

    Returns:
        Hash of the weights.

    Raises:
        GeneratorError: The fit failed.
        ConfigurationError: There are no training data to fit on.
    """
    try:
        weights = fitted_weights(folder)
    except GeneratorError as error:
        aside = folder.with_name(f"{folder.name}.damaged-{time.time_ns()}")
        folder.rename(aside)
        log.warning("%s; it was set aside as %s and is fitted again", error, aside.name)
        weights = None
    if weights is None:
        weights = _fit_or_wait(generator, folder, snapshot, progress, owner)
    generator.load(folder)
    return weights


def _fit_or_wait(
    generator: Any,
    folder: Path,
    snapshot: Callable[[], Snapshot | None],
    progress: Callable[[int, int], None],
    owner: str,
) -> str:
    claims = Claims(Folder(folder.parent / f".{folder.name}.fitting"), _CLAIM_SECONDS)
    while not claims.take(0, owner):
        progress(0, 0)  # another run fits it: this one lives and waits
        time.sleep(0.5)
        if (weights := fitted_weights(folder)) is not None:
            return weights
    renewed = time.monotonic()

    def renewing(step: int, total: int) -> None:
        nonlocal renewed
        progress(step, total)
        if time.monotonic() - renewed > _CLAIM_SECONDS / 10:
            claims.renew(0, owner)
            renewed = time.monotonic()

    try:
        data = snapshot()
        if data is None:
            raise ConfigurationError(
                "the generator is to be fitted, but there is no snapshot of the training data (an IterableDataset has no "
                "index). Give raw=<map-style dataset> or a generator that needs no fit."
            )
        if (weights := fitted_weights(folder)) is None:
            _fit(generator, folder, data, renewing)
            weights = fitted_weights(folder)
    finally:
        claims.release(0, owner)
    if weights is None:
        raise GeneratorError(f"the generator wrote nothing to {folder} when it was fitted: its fit(...) has to.")
    return weights


def _fit(generator: Any, folder: Path, snapshot: Snapshot, progress: Callable[[int, int], None]) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}-"))
    try:
        started = time.perf_counter()
        generator.fit(snapshot, part, progress)
        record = {"seconds": time.perf_counter() - started, "files": _file_hashes(part)}
        (part / _RECORD).write_text(json.dumps(record), encoding="utf-8")
        try:
            part.rename(folder)
        except OSError:
            if not (folder / _RECORD).exists():
                raise
    finally:
        shutil.rmtree(part, ignore_errors=True)
