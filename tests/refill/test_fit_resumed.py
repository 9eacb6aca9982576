"""A refill process that is killed in the midst of a fit: the next one goes on there, and ends with the same weights."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from recorded_fit import RecordedFit
from refill_toys import Fitted, job_for, snapshot, status, until, worker

from lightning_diffaug.errors import GeneratorError
from lightning_diffaug.pool.claims import Claims
from lightning_diffaug.pool.storage import Folder
from lightning_diffaug.refill.fitted import ensure_fitted, fitted_folder, remove_unfinished
from lightning_diffaug.snapshot import Snapshot

NAME = "0123456789abcdef"


class Counting(Fitted):
    """Goes on from the number in its checkpoint."""

    def __init__(self, breaks: BaseException | None = None) -> None:
        super().__init__()
        self.breaks = breaks
        self.begun = -1

    def fit(
        self,
        snapshot: Snapshot,
        folder: Path,
        progress: Callable[[int, int], None],
        checkpoint: Path | None = None,
    ) -> None:
        assert checkpoint is not None
        assert folder not in checkpoint.parents
        self.begun = int(checkpoint.read_text()) if checkpoint.exists() else 0
        checkpoint.write_text("7")
        if self.breaks is not None:
            raise self.breaks
        super().fit(snapshot, folder, progress)


def _ensure(generator: Any, root: Path) -> None:
    folder = fitted_folder(root, NAME)
    folder.parent.mkdir(parents=True, exist_ok=True)
    ensure_fitted(generator, folder, snapshot, lambda *_: None, "run")


def _files(root: Path) -> list[str]:
    return sorted(path.name for path in (root / "generators").iterdir() if path.name != "claims")


def test_a_checkpoint_outlives_an_interruption_and_goes_when_the_fit_is_done(tmp_path: Path) -> None:
    with pytest.raises(MemoryError):
        _ensure(Counting(MemoryError()), tmp_path)
    remove_unfinished(tmp_path)
    assert len(_files(tmp_path)) == 1
    second = Counting()
    _ensure(second, tmp_path)
    assert second.begun == 7
    assert _files(tmp_path) == [NAME]


def test_a_fit_that_cannot_succeed_leaves_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(GeneratorError):
        _ensure(Counting(GeneratorError("the loss is not finite")), tmp_path)
    assert _files(tmp_path) == []


class _EndedEarly(RecordedFit):
    """Its process ends when the fit is done and nothing is kept yet."""

    def fit(
        self,
        snapshot: Snapshot,
        folder: Path,
        progress: Callable[[int, int], None],
        checkpoint: Path | None = None,
    ) -> None:
        super().fit(snapshot, folder, progress, checkpoint)
        raise MemoryError


def test_what_was_fitted_is_not_lost_before_it_is_on_disk(tmp_path: Path) -> None:
    fit = {"steps": 5, "batch_size": 4, "channels": [8, 8], "checkpoint_every": 0.0}
    settings = {"diary": str(tmp_path / "diary"), "num_inference_steps": 1, "fit": fit, "device": "cpu"}
    with pytest.raises(MemoryError):
        _ensure(_EndedEarly(**settings), tmp_path)
    _ensure(RecordedFit(**settings), tmp_path)
    assert (tmp_path / "diary").read_text().split() == ["1", "5"]
    assert _files(tmp_path) == [NAME]


def test_what_is_left_of_a_checkpoint_goes_when_nobody_goes_on_from_it(tmp_path: Path) -> None:
    _ensure(Counting(), tmp_path)
    generators, done, young, old, live = tmp_path / "generators", NAME, "a" * 16, "b" * 16, "c" * 16
    names = [
        *(f".resume-{done}{end}" for end in ("", ".tmp-x", ".damaged-1")),
        *(f".resume-{young}{end}" for end in ("", ".tmp-x", ".damaged-1")),
        *(f".resume-{old}{end}" for end in ("", ".damaged-1")),
        *(f".resume-{live}{end}" for end in ("", ".tmp-x")),
        ".resume-notes",
    ]
    for name in names:
        (generators / name).write_text("state")
        if name.startswith((f".resume-{old}", f".resume-{live}", ".resume-notes")):
            os.utime(generators / name, (time.time() - 40 * 86400,) * 2)
    assert Claims(Folder(generators), 60.0).take(int(live, 16), "a run that fits")
    remove_unfinished(tmp_path)
    kept = [f".resume-{young}", f".resume-{young}.damaged-1", f".resume-{live}", f".resume-{live}.tmp-x"]
    assert _files(tmp_path) == sorted([NAME, *kept, ".resume-notes"])


@pytest.mark.faults
def test_a_killed_refill_process_goes_on_with_its_fit(tmp_path: Path) -> None:
    fit = {"steps": 30, "batch_size": 4, "channels": [8, 8], "checkpoint_every": 0.0}
    generator = RecordedFit(str(tmp_path / "diary"), num_inference_steps=1, fit=fit)
    (tmp_path / "whole").mkdir()
    generator.fit(snapshot(), tmp_path / "whole", lambda *_: None)  # here, so that the forked workers import nothing
    job = job_for(generator, tmp_path)
    folder = fitted_folder(tmp_path, job.fit_fingerprint(generator) or "")
    with worker(job) as pid:
        until(lambda: status(job).step >= 8)
        os.kill(pid, signal.SIGKILL)
    assert not folder.exists()
    with worker(job):
        until(lambda: status(job).pool)
    begun = [int(line) for line in (tmp_path / "diary").read_text().split()]
    assert begun[:2] == [1, 1]
    assert begun[2] >= 8
    weights = [sha256((each / "denoiser.safetensors").read_bytes()) for each in (tmp_path / "whole", folder)]
    assert weights[0].digest() == weights[1].digest()
    assert not list(folder.parent.glob(".resume-*"))
