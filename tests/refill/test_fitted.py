"""Fitted generators: one fit for all runs, whole or not there, noticed when altered."""

from __future__ import annotations

import os
import signal
import time
import warnings
from pathlib import Path

import pytest
from refill_toys import Fitted, job_for, snapshot, status, until, worker

from lightning_diffaug.errors import ConfigurationError, GeneratorError
from lightning_diffaug.refill.fitted import ensure_fitted, fitted_folder, fitted_weights, remove_unfinished

NAME = "0123456789abcdef"


def _silent(step: int, total: int) -> None: ...


def _ensure(generator: Fitted, root: Path, owner: str = "run") -> tuple[str, float]:
    folder = fitted_folder(root, NAME)
    folder.parent.mkdir(parents=True, exist_ok=True)
    return ensure_fitted(generator, folder, snapshot, _silent, owner)


def _files(root: Path) -> list[str]:
    return sorted(path.name for path in (root / "generators").iterdir() if path.name != "claims")


def test_the_second_run_adopts_the_first_ones_fit(tmp_path: Path) -> None:
    diary = tmp_path / "diary"
    weights, seconds = _ensure(Fitted(str(diary), 0.1), tmp_path)
    second = Fitted(str(diary))
    assert _ensure(second, tmp_path, "other") == (weights, 0.0)
    assert seconds >= 0.1
    assert second.mean == pytest.approx(snapshot().unit("image").mean().item())
    assert len(diary.read_text().splitlines()) == 1
    assert _files(tmp_path) == [NAME]
    assert list((tmp_path / "generators" / "claims").iterdir()) == []


@pytest.mark.parametrize("how", ["flipped", "missing", "added", "record", "no record"])
def test_an_altered_generator_is_noticed_set_aside_and_fitted_again(
    tmp_path: Path, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    diary = tmp_path / "diary"
    first = _ensure(Fitted(str(diary)), tmp_path)[0]
    folder = fitted_folder(tmp_path, NAME)
    file = folder / "mean.safetensors"
    if how == "flipped":
        data = bytearray(file.read_bytes())
        data[-1] ^= 1
        file.write_bytes(data)
    elif how == "missing":
        file.unlink()
    elif how == "added":
        (folder / "pickled.pt").write_bytes(b"\x80\x04N.")
    elif how == "record":
        (folder / "fitted.json").write_text("{")
    else:
        (folder / "fitted.json").unlink()
    with pytest.raises(GeneratorError):
        fitted_weights(folder)
    assert _ensure(Fitted(str(diary)), tmp_path)[0] == first == fitted_weights(folder)
    assert len(diary.read_text().splitlines()) == 2
    assert "set aside" in caplog.text
    assert len([name for name in _files(tmp_path) if "damaged" in name]) == 1, "nothing is deleted"


def test_a_fit_that_raises_leaves_nothing_and_can_be_tried_again(tmp_path: Path) -> None:
    with pytest.raises(ArithmeticError):
        _ensure(Fitted(broken=True), tmp_path)
    assert _files(tmp_path) == []
    assert _ensure(Fitted(), tmp_path, "other")[0]


def test_a_fit_that_writes_nothing_is_an_error(tmp_path: Path) -> None:
    class Lazy(Fitted):
        def fit(self, *_: object) -> None: ...

    with pytest.raises(GeneratorError, match="wrote no file"):
        _ensure(Lazy(), tmp_path)
    assert _files(tmp_path) == []


def test_without_training_data_the_error_says_what_to_give(tmp_path: Path) -> None:
    folder = fitted_folder(tmp_path, NAME)
    folder.parent.mkdir(parents=True)
    with pytest.raises(ConfigurationError, match="raw="):
        ensure_fitted(Fitted(), folder, lambda: None, _silent, "run")


@pytest.mark.faults
def test_several_runs_at_once_fit_once(tmp_path: Path) -> None:
    diary = tmp_path / "diary"
    pids = []
    for i in range(3):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            pid = os.fork()
        if pid == 0:
            code = 1
            try:
                _ensure(Fitted(str(diary), 0.6), tmp_path, f"run {i}")
                code = 0
            finally:
                os._exit(code)
        pids.append(pid)
    assert [os.waitpid(pid, 0)[1] for pid in pids] == [0, 0, 0]
    assert len(diary.read_text().splitlines()) == 1
    assert _files(tmp_path) == [NAME]


@pytest.mark.faults
def test_a_fit_that_was_killed_is_done_by_the_next_at_once(tmp_path: Path) -> None:
    generator = Fitted(str(tmp_path / "diary"), 0.4)
    job = job_for(generator, tmp_path)
    with worker(job) as pid:
        until(lambda: status(job).step > 3)
        os.kill(pid, signal.SIGKILL)
    assert len(_files(tmp_path)) == 1, "half a fit"
    started = time.monotonic()
    with worker(job):
        until(lambda: status(job).pool)
    assert time.monotonic() - started < 20, "the dead one's claim is not waited for"
    remove_unfinished(tmp_path)
    assert _files(tmp_path) == [job.fit_fingerprint(generator)]
    assert not list((tmp_path / "generators").rglob(".fit-*"))


def test_the_unfinished_fit_of_a_live_process_is_left_alone(tmp_path: Path) -> None:
    from lightning_diffaug.pool.process import machine_id

    parts = [f".fit-{machine_id()}-{os.getpid()}-x", ".fit-othermachine-1-x", ".fit-odd"]
    for name in parts:
        (tmp_path / "generators" / name).mkdir(parents=True)
    remove_unfinished(tmp_path)
    assert _files(tmp_path) == sorted(parts)
