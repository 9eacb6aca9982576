"""Fitted generators on disk: made once for a training set and fit settings, checked, adopted by every later run."""

from __future__ import annotations

import contextlib
import inspect
import json
import logging
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from lightning_diffaug.errors import ConfigurationError, GeneratorError
from lightning_diffaug.hashing import file_sha256
from lightning_diffaug.pool import fingerprint
from lightning_diffaug.pool.claims import Claims
from lightning_diffaug.pool.storage import Folder
from lightning_diffaug.publishing import published, remove_dead
from lightning_diffaug.snapshot import Snapshot

log = logging.getLogger(__name__)

NO_SNAPSHOT = (
    "the generator is to be fitted, but there is no snapshot of the training data (an IterableDataset has no index). "
    "Give raw=<map-style dataset>, or a generator that needs no fit."
)
_RECORD = "fitted.json"
_PART = ".fit-"
_CHECKPOINT = ".resume-"
_CLAIM_SECONDS = 60.0
_ABANDONED_SECONDS = 30 * 24 * 3600.0
"""Age from which the checkpoint of a fit that nobody goes on with counts as left behind."""


def fitted_folder(cache_dir: Path, fit_fingerprint: str) -> Path:
    """Where a fitted generator lies."""
    return cache_dir / "generators" / fit_fingerprint


def _file_hashes(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != _RECORD)
    return {str(path.relative_to(folder)): file_sha256(path) for path in files}


def fitted_weights(folder: Path) -> str | None:
    """Hash of the fitted weights; None where the generator is not fitted (yet).

    Raises:
        GeneratorError: The folder holds something else than what was fitted.
    """
    try:
        record = json.loads((folder / _RECORD).read_text(encoding="utf-8"))
        hashes = dict(record["files"])
    except (FileNotFoundError, NotADirectoryError):
        if folder.is_dir() and any(folder.iterdir()) and not (folder / _RECORD).exists():
            raise GeneratorError(f"{folder} holds files and no {_RECORD}, so what was fitted is not whole") from None
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise GeneratorError(f"{folder / _RECORD} is damaged: {error}") from error
    if _file_hashes(folder) != hashes:
        raise GeneratorError(f"the fitted generator in {folder} was altered: its files do not have the hashes recorded")
    weights = {name: value for name, value in hashes.items() if name.endswith(".safetensors")}
    return fingerprint(weights or hashes)


def ensure_fitted(
    generator: Any,
    folder: Path,
    snapshot: Callable[[], Snapshot | None],
    progress: Callable[[int, int], None],
    owner: str,
) -> tuple[str, float]:
    """Fits the generator unless it is fitted already, loads it, and says what its weights are.

    The fit goes to a folder of its own, which is renamed when it is whole; who comes second adopts the winner's. A
    run that finds another one fitting waits for it, as long as that one makes progress. A generator whose ``fit`` takes
    ``checkpoint`` is given a file beside the folder, which survives a killed process.

    Args:
        generator: A generator with ``fit`` and ``load``.
        folder: Its `fitted_folder`.
        snapshot: Loads the training data.
        progress: Called with (step, total).
        owner: Name of the run.

    Returns:
        Hash of the weights, and the seconds of the fit; 0 where a fitted generator was found.

    Raises:
        GeneratorError: The fit failed.
        ConfigurationError: There are no training data to fit on.
        PoolError: The folder cannot be written.
    """
    try:
        weights = fitted_weights(folder)
    except GeneratorError as error:
        aside = folder.with_name(f"{folder.name}.damaged-{time.time_ns()}")
        with contextlib.suppress(FileNotFoundError):  # another run was faster
            folder.rename(aside)
        log.warning("%s; it was set aside as %s and is fitted again", error, aside.name)
        weights = None
    seconds = 0.0
    if weights is None:
        weights, seconds = _fit_or_wait(generator, folder, snapshot, progress, owner)
    generator.load(folder)
    return weights, seconds


def _fit_or_wait(
    generator: Any,
    folder: Path,
    snapshot: Callable[[], Snapshot | None],
    progress: Callable[[int, int], None],
    owner: str,
) -> tuple[str, float]:
    claims, number = Claims(Folder(folder.parent), _CLAIM_SECONDS), int(folder.name, 16)
    while not claims.take(number, owner):
        progress(0, 0)  # another run fits it: this one lives and waits
        time.sleep(0.5)
        if (weights := fitted_weights(folder)) is not None:
            return weights, 0.0
    renewed = time.monotonic()

    def renewing(step: int, total: int) -> None:
        nonlocal renewed
        progress(step, total)
        if time.monotonic() - renewed > _CLAIM_SECONDS / 10:
            claims.renew(number, owner)
            renewed = time.monotonic()

    try:
        if (weights := fitted_weights(folder)) is not None:
            return weights, 0.0
        data = snapshot()
        if data is None:
            raise ConfigurationError(NO_SNAPSHOT)
        _fit(generator, folder, data, renewing)
        if (weights := fitted_weights(folder)) is None:
            raise GeneratorError(f"the fitted generator is not in {folder}, where it was just put.")
        return weights, fit_seconds(folder)
    finally:
        claims.release(number, owner)


def fit_seconds(folder: Path) -> float:
    """Seconds that the fit of a fitted generator took, whoever fitted it."""
    record = json.loads((folder / _RECORD).read_text(encoding="utf-8"))
    return float(record["seconds"])


def _fit(generator: Any, folder: Path, snapshot: Snapshot, progress: Callable[[int, int], None]) -> None:
    checkpoint = folder.with_name(f"{_CHECKPOINT}{folder.name}")
    resumable = {"checkpoint": checkpoint} if "checkpoint" in inspect.signature(generator.fit).parameters else {}
    with published(folder, _PART, lambda found: (found / _RECORD).exists()) as part:
        started = time.perf_counter()
        try:
            generator.fit(snapshot, part, progress, **resumable)
        except (GeneratorError, ConfigurationError):  # going on would end there again
            _drop(_kept_of(checkpoint))
            raise
        record = {"seconds": time.perf_counter() - started, "files": _file_hashes(part)}
        if not record["files"]:
            raise GeneratorError(
                f"fit(snapshot, folder, progress) of {type(generator).__name__} wrote no file to folder."
            )
        (part / _RECORD).write_text(json.dumps(record), encoding="utf-8")
    _drop(_kept_of(checkpoint))


def _kept_of(checkpoint: Path) -> list[Path]:
    """A checkpoint, and what its writers left beside it: set aside, or half written."""
    return [checkpoint, *checkpoint.parent.glob(f"{checkpoint.name}.*")]


def _drop(files: Iterable[Path]) -> None:
    for file in files:
        with contextlib.suppress(OSError):  # gone already, or a folder that we may only read
            file.unlink()


def remove_unfinished(cache_dir: Path) -> None:
    """Removes what nobody goes on with.

    That is: folders of fits whose process was killed on this machine; checkpoints of fits that are done, or that were
    left for a month; and what killed writers of checkpoints left half written.
    """
    generators = cache_dir / "generators"
    remove_dead(generators, _PART)
    claims = Claims(Folder(generators), _CLAIM_SECONDS)
    _drop(file for file in generators.glob(f"{_CHECKPOINT}*") if _is_abandoned(file, claims))


def _is_abandoned(file: Path, claims: Claims) -> bool:
    """Whether nobody will go on from a checkpoint, or from what was set aside or half written beside it."""
    name, _, more = file.name.removeprefix(_CHECKPOINT).partition(".")
    try:
        number, age = int(name, 16), time.time() - file.stat().st_mtime
    except (ValueError, OSError):  # foreign, or gone
        return False
    if (file.with_name(name) / _RECORD).exists():
        return True
    claim = claims.get(number)
    if claim is not None and claim.age <= _CLAIM_SECONDS:
        return False
    return ".tmp-" in f".{more}" or age > _ABANDONED_SECONDS
