"""P4: a generator that fails, hangs, dies or is slow neither hangs nor kills training; it is said."""

from __future__ import annotations

import logging
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch import Callback
from refill_toys import Faulty, FullDisk, Steady, function, watched
from training_toys import Recorder

from lightning_diffaug import DiffAugDataModule, SyntheticPool
from lightning_diffaug.errors import ConfigurationError
from lightning_diffaug.refill.local import LocalRefill

Mixed = Callable[..., DiffAugDataModule]
Train = Callable[..., Recorder]

pytestmark = pytest.mark.faults
BATCHES = 6


def _synthetic(model: Recorder) -> int:
    return sum(int(batch[2]["is_synthetic"].sum()) for batch in model.seen["train"])


def _refill(mix: DiffAugDataModule) -> LocalRefill:
    refill = mix._run._supply._refill  # type: ignore[union-attr]
    assert isinstance(refill, LocalRefill)
    return refill


@pytest.mark.parametrize(
    ("generator", "words"),
    [
        (Faulty("raise"), "ValueError: the toy is broken"),
        (Faulty("nan"), "every sample was rejected (finite"),
        (Faulty("shape"), "every sample was rejected (shape: 'image' is"),
        (Faulty("quit"), "exit code 7"),
        (Faulty("kill"), "signal SIGKILL"),
        (Faulty("sleep"), "showed no progress"),
        (FullDisk(), "full disk"),
    ],
    ids=["raises", "nan", "shapes", "exits", "killed", "hangs", "full disk"],
)
def test_training_goes_on_with_real_samples(
    generator: Any, words: str, mixed: Mixed, train: Train, caplog: pytest.LogCaptureFixture
) -> None:
    mix = mixed(generator, {"hang_timeout": 1.0} if words == "showed no progress" else {})
    model = train(mix)
    assert len(model.seen["train"]) == 2 * BATCHES
    assert _synthetic(model) == 0
    assert words in caplog.text
    assert caplog.text.count("the pool is short") == 1, "said once"
    figures = mix.figures()
    assert figures["mix/short_epochs"] == 2
    assert figures["mix/achieved_fraction"] == 0
    assert figures["mix/requested_fraction"] == 0.5


@pytest.mark.parametrize("refill", ["local", "sync"])
def test_a_window_without_any_row_is_real_samples_in_every_epoch(refill: str, mixed: Mixed, train: Train) -> None:
    # With reuse=inf all epochs have the same window, so its empty segment is used again.
    mix = mixed(Faulty("nan"), {"mode": refill}, reuse=float("inf"))
    model = train(mix, 3)
    assert len(model.seen["train"]) == 3 * BATCHES
    assert _synthetic(model) == 0
    assert mix.figures()["mix/short_epochs"] == 3


@pytest.mark.parametrize("refill", ["local", "sync"])
def test_one_bad_slot_changes_neither_share_nor_length(refill: str, mixed: Mixed, train: Train) -> None:
    # in the process beside training, or, for want of a name, in the trainer's own
    bad = Faulty("raise", [1])
    generator = bad if refill == "local" else (lambda condition, seeds: bad.generate(condition, seeds))
    mix = mixed(generator, {"mode": refill})
    model = train(mix)
    assert _synthetic(model) == BATCHES * 2 * 2
    assert mix.figures()["mix/achieved_fraction"] == 0.5
    slots = {int(k) for batch in model.seen["train"] for k in batch[2]["slot"]} - {-1}
    assert 1 not in slots
    assert 0 in slots


def test_a_slow_generator_is_waited_for_once_and_never_again(mixed: Mixed, train: Train) -> None:
    mix = mixed(Steady(0.5), {"ahead": 0}, reuse=1, window=8)
    began = time.monotonic()
    model = train(mix, 4)
    assert time.monotonic() - began < 60
    assert len(model.seen["train"]) == 4 * BATCHES
    assert _synthetic(model) == 4 * 12, "the last complete window is used again"


class Kill(Callback):
    """Kills the refill process at an epoch's end, again and again."""

    def __init__(self, mix: DiffAugDataModule, epochs: tuple[int, ...]) -> None:
        self.mix, self.epochs, self.killed = mix, epochs, list[int]()

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        refill = _refill(self.mix)
        if trainer.current_epoch in self.epochs:
            pid = watched(refill, lambda: refill.pid)
            os.kill(pid, signal.SIGKILL)
            self.killed.append(pid)
            watched(refill, lambda: refill.pid != pid)  # training is so short that it would end before it is seen


def test_kill_9_during_training_is_followed_by_a_restart(
    mixed: Mixed, train: Train, caplog: pytest.LogCaptureFixture
) -> None:
    mix = mixed(Steady(), {"max_restarts": 1, "ahead": 0}, window=8, when_short="wait")
    kill = Kill(mix, (0, 2))
    model = train(mix, 4, kill)
    assert len(kill.killed) == 2
    assert caplog.text.count("signal SIGKILL") == 2
    assert _synthetic(model) == 4 * 12
    assert mix.figures()["mix/short_epochs"] == 0, "the restarted process made what the windows need"
    pool = SyntheticPool.open(mix.pool.folder)  # type: ignore[union-attr]
    assert pool.verify() == {}


def test_a_process_that_dies_for_good_during_training_leaves_the_last_window(
    mixed: Mixed, train: Train, caplog: pytest.LogCaptureFixture
) -> None:
    mix = mixed(Steady(), {"max_restarts": 0, "ahead": 0}, window=8)
    model = train(mix, 5, Kill(mix, (0,)))
    assert _synthetic(model) == 5 * 12
    assert caplog.text.count("Training goes on") == 1
    assert mix.figures()["mix/short_epochs"] > 0
    assert mix.figures()["mix/achieved_fraction"] == 0.5


def _script_function(condition: Any, seeds: Any) -> Any:
    return function(condition, seeds)


_script_function.__module__ = "__main__"


@pytest.mark.parametrize(
    ("generator", "words"),
    [
        (lambda condition, seeds: function(condition, seeds), "lambda"),
        (_script_function, "the script that is running"),
        (Steady, "makes no samples"),
        (7, "makes no samples"),
        ({"_target_": "refill_toys.Absent"}, "refill_toys.Absent"),
    ],
    ids=["lambda", "in the script", "class", "number", "absent"],
)
def test_a_generator_that_cannot_cross_is_refused_before_anything_runs(
    generator: Any, words: str, mixed: Mixed, train: Train, tmp_path: Path
) -> None:
    with pytest.raises(ConfigurationError) as error:
        train(mixed(generator))
    assert words in str(error.value)
    assert "generator" in str(error.value)
    assert not list((tmp_path / "cache").rglob("*.json"))
    assert not list((tmp_path / "cache").glob("runs/*"))


@pytest.mark.parametrize(
    ("generator", "refill"),
    [
        (Steady(), "local"),
        ({"_target_": "refill_toys.Steady", "seconds": 0.0}, "local"),
        (function, "local"),
        (lambda condition, seeds: function(condition, seeds), "sync"),
    ],
    ids=["object", "path", "function", "lambda in process"],
)
def test_every_form_of_a_generator_works(generator: Any, refill: str, mixed: Mixed, train: Train) -> None:
    mix = mixed(generator, {"mode": refill})
    assert _synthetic(train(mix, 1)) == 12
    assert logging.getLogger("lightning_diffaug").level == logging.NOTSET
