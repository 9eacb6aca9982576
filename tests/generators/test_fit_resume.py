"""A fit that is interrupted goes on, and ends as if it had not been; whatever lies where its checkpoint should be."""

from __future__ import annotations

import os
import pickle
import signal
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_denoiser import TinyDenoiser, pictures
from torch import Tensor

from lightning_diffaug.generators import DiffusionGenerator
from lightning_diffaug.generators.fit import Fitted, fit_denoiser
from lightning_diffaug.generators.fit_checkpoint import FitCheckpoint
from lightning_diffaug.generators.fit_settings import FitSettings
from lightning_diffaug.snapshot import Snapshot

STEPS = 24


def _data() -> Snapshot:
    rng = torch.Generator().manual_seed(0)
    return pictures(torch.rand(60, 1, 4, 4, generator=rng), torch.arange(60) % 3)


class _Fit:
    """The same fit each time, which writes down what it reported."""

    def __init__(self, pause: Callable[[int], None] = lambda step: None, **settings: Any) -> None:
        plain = {"steps": STEPS, "batch_size": 8, "lr": 0.01, "ema": 0.9, "checkpoint_every": 0.0}
        self.settings = FitSettings(**{**plain, **settings})
        self.pause = pause
        self.steps: list[int] = []

    def __call__(self, checkpoint: Path | None = None, stop_at: int | None = None, **more: Any) -> Fitted:
        def progress(step: int, total: int) -> None:
            if self.steps[-1:] != [step]:  # a check tells of its step again
                self.steps.append(step)
            self.pause(step)
            if step == stop_at:
                raise InterruptedError

        self.steps.clear()
        return fit_denoiser(
            lambda: TinyDenoiser(16, 3), _data(), ["image"], self.settings, more.pop("seed", 0), torch.device("cpu"),
            progress, checkpoint=checkpoint, **more,
        )  # fmt: skip


def _weights(fitted: Fitted) -> Tensor:
    return torch.cat([value.flatten() for value in fitted.denoiser.state_dict().values()])


def _left(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize(
    "judged",
    [
        {},
        {"hold_out": 0.2, "check_every": 4, "patience": 3, "min_snr": 5.0},
        {"hold_out": 0.2, "check_every": 7},  # the last step is checked besides
    ],
)
@pytest.mark.parametrize("stop_at", [2, 5, 8, STEPS])
def test_an_interrupted_fit_ends_with_the_same_weights(tmp_path: Path, stop_at: int, judged: dict[str, Any]) -> None:
    fit, file = _Fit(**judged), tmp_path / "fit.ckpt"
    whole = fit()
    assert fit.steps == list(range(1, len(fit.steps) + 1))
    steps = len(fit.steps)
    assert stop_at <= steps, "it stops early before that"
    with pytest.raises(InterruptedError):
        fit(file, stop_at)
    assert _left(tmp_path) == ["fit.ckpt"]
    resumed = fit(file)
    # Told before the step's checkpoint is written, so it is made again; where a check is due, none is written.
    assert fit.steps[0] in (stop_at, stop_at - 1)
    assert fit.steps[-1] == steps
    assert torch.equal(_weights(resumed), _weights(whole))
    assert resumed.losses == whole.losses
    again = fit(file)
    assert fit.steps[-1] == steps
    assert fit.steps[0] > 1, "what was fitted is not lost before it is on disk"
    assert torch.equal(_weights(again), _weights(whole))


def test_no_check_is_lost_by_an_interruption_in_its_step(tmp_path: Path) -> None:
    """A fit that learns nothing is best at its first check, and stops at the second."""
    fit = _Fit(hold_out=0.2, check_every=4, patience=1, lr=0.0)
    whole = fit()
    assert len(whole.losses) == 8
    with pytest.raises(InterruptedError):
        fit(tmp_path / "fit.ckpt", 5)
    resumed = fit(tmp_path / "fit.ckpt")
    assert resumed.losses == whole.losses
    assert torch.equal(_weights(resumed), _weights(whole))


def test_without_an_interval_there_is_no_checkpoint_and_a_long_one_writes_none(tmp_path: Path) -> None:
    for every in (None, 1000.0):
        with pytest.raises(InterruptedError):
            _Fit(checkpoint_every=every)(tmp_path / "fit.ckpt", 10)
        assert _left(tmp_path) == []


@pytest.mark.faults
def test_a_fit_killed_by_kill_9_ends_with_the_same_weights(tmp_path: Path) -> None:
    file, steps = tmp_path / "fit.ckpt", 150
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # about the threads of torch
        pid = os.fork()
    if pid == 0:
        try:
            # Slow, so that it is killed in its midst, and it never ends.
            _Fit(steps=steps, pause=lambda step: time.sleep(0.02 if step < 120 else 600))(file)
        finally:
            os._exit(1)
    deadline = time.monotonic() + 60
    while not file.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.5)
    os.kill(pid, signal.SIGKILL)  # wherever it is, also in the midst of writing
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
    fit = _Fit(steps=steps)
    resumed = fit(file)
    assert 1 < fit.steps[0] < steps
    assert fit.steps[-1] == steps
    assert torch.equal(_weights(resumed), _weights(fit()))
    assert len(resumed.losses) == steps


@pytest.mark.parametrize("how", ["flipped", "truncated", "empty", "seed", "settings", "pickled", "key"])
def test_a_checkpoint_that_cannot_be_used_is_set_aside_with_a_word(
    tmp_path: Path, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    fit, file = _Fit(), tmp_path / "fit.ckpt"
    with pytest.raises(InterruptedError):
        fit(file, 5)
    data = bytearray(file.read_bytes())
    if how == "flipped":
        data[len(data) // 2] ^= 1
    elif how == "truncated":
        data = data[:-100]
    elif how == "empty":
        data = bytearray()
    elif how == "pickled":
        data = bytearray(pickle.dumps({"os": "system"}))
    file.write_bytes(data)
    if how == "settings":
        fit = _Fit(lr=0.02)
    seed = int(how == "seed")
    resumed = fit(file, seed=seed, key={"denoiser": "another"} if how == "key" else None)
    assert fit.steps[0] == 1
    assert torch.equal(_weights(resumed), _weights(fit(seed=seed)))
    assert "set aside" in caplog.text
    aside = _left(tmp_path)
    assert len(aside) == 2, "nothing is deleted"
    assert aside[1].startswith("fit.ckpt.damaged-")
    assert (tmp_path / aside[1]).read_bytes() == bytes(data)


def test_a_generator_does_not_go_on_with_the_fit_of_other_conditions(tmp_path: Path) -> None:
    """Their networks have the same weights, by name and shape."""
    steps: list[int] = []

    def progress(step: int, total: int) -> None:
        steps.append(step)
        if step == 3 and len(steps) == 3:
            raise InterruptedError

    def fit(factor: int) -> None:
        conditions = {"coarse": {"of": "image", "how": "low_resolution", "factor": factor}}
        recipe = {"steps": 5, "batch_size": 4, "channels": [8, 8], "checkpoint_every": 0.0}
        generator = DiffusionGenerator(conditions=conditions, fit=recipe, device="cpu")
        generator.fit(_data(), tmp_path, progress, tmp_path / "fit.ckpt")

    with pytest.raises(InterruptedError):
        fit(2)
    assert (tmp_path / "fit.ckpt").exists()
    steps.append(0)
    fit(4)
    assert steps == [1, 2, 3, 0, 1, 2, 3, 4, 5]


def test_a_checkpoint_is_not_unpickled(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> Any:
            return Path.touch, (tmp_path / "executed",)

    checkpoint = FitCheckpoint(tmp_path / "fit.ckpt", {})
    checkpoint.save({"evil": Evil()})
    with pytest.raises(pickle.UnpicklingError):
        checkpoint.load()
    assert not (tmp_path / "executed").exists()


def test_a_disk_that_takes_no_checkpoint_does_not_end_the_fit(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    fit = _Fit()
    resumed = fit(tmp_path / "no such folder" / "fit.ckpt")
    assert torch.equal(_weights(resumed), _weights(fit()))
    assert "cannot be written" in caplog.text
