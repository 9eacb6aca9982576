"""P3: the share asked for is the share achieved; where it cannot be, when_short decides, and it is counted and said."""

from __future__ import annotations

import logging
import random
import time
from collections import Counter
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, seed_everything
from torch import Tensor
from training_toys import Images, Noise, RealModule, Recorder, prefilled, trainer, unnamed

import lightning_diffaug.start
from lightning_diffaug import DiffAugDataModule
from lightning_diffaug.errors import ConfigurationError, ShortWindowError

STARVED: dict[str, Any] = {"generator": Noise(), "refill": "none"}


def _mixed(tmp_path: Path, real: Any = None, **settings: Any) -> DiffAugDataModule:
    defaults: dict[str, Any] = {
        "generator": unnamed(),
        "synthetic_fraction": 0.5,
        "refill": "sync",
        "reuse": 1,
        "window": 16,
        "slot_size": 8,
        "return_source": True,
        "cache_dir": tmp_path / "cache",
    }
    return DiffAugDataModule(RealModule() if real is None else real, **{**defaults, **settings})


def _train(mixed: DiffAugDataModule, tmp_path: Path, epochs: int = 2, **options: Any) -> list[Any]:
    model = Recorder()
    trainer(tmp_path, epochs, **options).fit(model, mixed)
    return model.seen["train"]


def _synthetic(batches: list[Any]) -> list[int]:
    return [int(batch[2]["is_synthetic"].sum()) for batch in batches]


def _slots(batches: list[Any]) -> set[int]:
    return {slot for batch in batches for slot in batch[2]["slot"].tolist()} - {-1}


@pytest.mark.parametrize("batch_size", [4, 5])
@pytest.mark.parametrize("fraction", [0.25, 0.3, 0.5, 0.7, 1, 1.0])
def test_share_is_exact_in_every_batch_and_over_epochs(fraction: float, batch_size: int, tmp_path: Path) -> None:
    mixed = _mixed(tmp_path, RealModule(batch_size=batch_size), synthetic_fraction=fraction)
    batches = _train(mixed, tmp_path, epochs=3)
    exact, drawn, synthetic = Fraction(str(fraction)), 0, 0
    for batch, count in zip(batches, _synthetic(batches), strict=True):
        assert abs(count - exact * len(batch[1])) < 1
        drawn, synthetic = drawn + len(batch[1]), synthetic + count
        assert synthetic == int(exact * drawn)  # the remainder is carried over batches and epochs
    assert drawn == 3 * 24
    figures = mixed.figures()
    assert figures["mix/requested_fraction"] == pytest.approx(fraction)
    assert figures["mix/achieved_fraction"] == pytest.approx(synthetic / drawn)
    assert figures["mix/short_epochs"] == 0


def test_drop_last_is_counted(tmp_path: Path) -> None:
    batches = _train(_mixed(tmp_path, RealModule(batch_size=5, drop_last=True), synthetic_fraction=0.3), tmp_path)
    assert len(batches) == 8
    assert sum(_synthetic(batches)) == 12  # .3 of the 40 draws that were made, not of 48


def test_share_by_draw_holds_in_the_mean_only(tmp_path: Path) -> None:
    batches = _train(_mixed(tmp_path, RealModule(Images(240)), exact=False), tmp_path)
    counts = _synthetic(batches)
    assert len(set(counts)) > 2
    assert 0.4 < sum(counts) / 480 < 0.6


@pytest.mark.parametrize(
    ("schedule", "by_epoch"),
    [
        ({"name": "linear", "start": 0.5, "end": 0.0, "epochs": 2}, [12, 6, 0]),
        ({"name": "piecewise", "values": {0: 0.25, 2: 0.75}}, [6, 6, 18]),
        ({"name": "stop_after", "value": 0.5, "epoch": 1}, [12, 0, 0]),
        ({"name": "cosine", "start": 1.0, "end": 0.0, "epochs": 2}, [24, 12, 0]),
    ],
)
def test_share_follows_a_schedule(schedule: dict[str, Any], by_epoch: list[int], tmp_path: Path) -> None:
    mixed = _mixed(tmp_path, synthetic_fraction=schedule)
    counts = _synthetic(_train(mixed, tmp_path, epochs=3))
    assert [sum(counts[e * 6 : (e + 1) * 6]) for e in range(3)] == by_epoch
    figures = mixed.figures()
    assert figures["mix/achieved_fraction"] == pytest.approx(sum(by_epoch) / 72)
    assert figures["mix/requested_fraction"] == pytest.approx(sum(by_epoch) / 72)


def test_append_gives_every_real_sample_once_and_synthetic_ones_on_top(tmp_path: Path) -> None:
    batches = _train(_mixed(tmp_path, synthetic_fraction=0.25, mode="append"), tmp_path, epochs=2)
    assert len(batches) == 2 * 8  # 24 / (1 - .25) = 32 draws
    for epoch in (batches[:8], batches[8:]):
        real = Counter(i for batch in epoch for i in batch[2]["real_index"].tolist() if i >= 0)
        assert real == Counter(range(24))
        assert _synthetic(epoch) == [1] * 8


@pytest.mark.parametrize("fraction", [1, {"name": "linear", "start": 0.5, "end": 0, "epochs": 3}])
def test_append_refuses_what_has_no_length(fraction: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"data\.(mode|synthetic_fraction)"):
        _mixed(tmp_path, synthetic_fraction=fraction, mode="append")


def test_reuse_is_the_mean_number_of_uses(tmp_path: Path) -> None:
    """With reuse=2 the windows move on by half of what is drawn."""
    mixed = _mixed(tmp_path, RealModule(Images(64)), reuse=2, window=16, slot_size=8)
    batches = _train(mixed, tmp_path, epochs=8)
    uses = Counter(
        (slot, row)
        for batch in batches
        for slot, row in zip(batch[2]["slot"].tolist(), batch[2]["row"].tolist(), strict=True)
        if slot >= 2 and slot < 14  # those that the first and the last windows do not cut short
    )
    assert sum(uses.values()) / len(uses) == pytest.approx(2, abs=0.2)


# Starved pools: two slots a window (0, 1), (1, 2), (3, 4) …, and some of them are missing ------------


def test_starved_reuse_takes_the_last_complete_window(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(lightning_diffaug.start, "NoRefill", prefilled([0, 1]))
    mixed = _mixed(tmp_path, when_short="reuse", **STARVED)
    with caplog.at_level(logging.WARNING):
        batches = _train(mixed, tmp_path)
    assert _slots(batches[:6]) == _slots(batches[6:]) == {0, 1}
    assert _synthetic(batches) == [2] * 12  # the share is kept
    figures = mixed.figures()
    assert figures["mix/short_epochs"] == 1
    assert figures["mix/achieved_fraction"] == 0.5
    assert "when_short=reuse" in caplog.text
    assert "slots are missing" in caplog.text


def test_starved_reuse_in_the_first_window_takes_what_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lightning_diffaug.start, "NoRefill", prefilled([1]))
    mixed = _mixed(tmp_path, when_short="reuse", **STARVED)
    batches = _train(mixed, tmp_path, epochs=1)
    assert _slots(batches) == {1}
    assert _synthetic(batches) == [2] * 6
    assert mixed.figures()["mix/short_epochs"] == 1


def test_starved_real_draws_real_samples_of_the_same_class(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(lightning_diffaug.start, "NoRefill", prefilled([0]))
    mixed = _mixed(tmp_path, when_short="real", balance="classes", **STARVED)
    with caplog.at_level(logging.WARNING):
        batches = _train(mixed, tmp_path, epochs=1)
    assert sum(_synthetic(batches)) == 6  # half of the window is there, so half of the 12
    labels = Counter(label for batch in batches for label in batch[1].tolist())
    assert labels == {0: 8, 1: 8, 2: 8}  # as with a whole pool
    figures = mixed.figures()
    assert (figures["mix/requested_fraction"], figures["mix/achieved_fraction"]) == (0.5, 0.25)
    assert figures["mix/short_epochs"] == 1
    assert "when_short=real" in caplog.text


def test_starved_error_raises_and_says_what_to_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lightning_diffaug.start, "NoRefill", prefilled([0, 1]))
    with pytest.raises(ShortWindowError, match=r"1 of the window's 2 slots(.|\n)*data\.when_short=error"):
        _train(_mixed(tmp_path, when_short="error", **STARVED), tmp_path)


def test_starved_wait_waits_for_what_comes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lightning_diffaug.start, "NoRefill", prefilled([0, 1], late=[2], late_seconds=0.4))
    mixed = _mixed(tmp_path, when_short="wait", **STARVED)
    batches = _train(mixed, tmp_path)
    assert _slots(batches[6:]) == {1, 2}
    figures = mixed.figures()
    assert figures["mix/short_epochs"] == 0
    assert figures["train/wait_seconds"] > 0.4


def test_starved_wait_has_an_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(lightning_diffaug.start, "NoRefill", prefilled([0, 1], late=[2], late_seconds=60))
    mixed = _mixed(tmp_path, when_short="wait", wait_timeout=0.3, **STARVED)
    started = time.monotonic()
    with caplog.at_level(logging.WARNING):
        batches = _train(mixed, tmp_path)
    assert time.monotonic() - started < 20
    assert _slots(batches[6:]) == {0, 1}  # then as reuse
    assert mixed.figures()["mix/short_epochs"] == 1
    assert "when_short=wait" in caplog.text


def test_only_the_first_window_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The slot of the second window comes late: by default training goes on with the first."""
    late = prefilled([0], late=[1, 2], late_seconds=0.4)
    monkeypatch.setattr(lightning_diffaug.start, "NoRefill", late)
    monkeypatch.setattr(late, "_publish", _publish_one_only(late._publish))
    mixed = _mixed(tmp_path, when_short="reuse", **STARVED)
    batches = _train(mixed, tmp_path)
    assert _slots(batches[:6]) == _slots(batches[6:]) == {0, 1}
    assert 0.4 < mixed.figures()["train/wait_seconds"] < 5


def _publish_one_only(publish: Any) -> Any:
    return lambda self, slots: publish(self, [slot for slot in slots if slot < 2])


@pytest.mark.parametrize("when_short", ["reuse", "real", "wait"])
def test_an_empty_pool_trains_on_real_samples_alone(
    when_short: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(lightning_diffaug.start, "NoRefill", prefilled([]))
    mixed = _mixed(tmp_path, when_short=when_short, **STARVED)
    with caplog.at_level(logging.WARNING):
        batches = _train(mixed, tmp_path)
    assert len(batches) == 12
    assert _synthetic(batches) == [0] * 12
    figures = mixed.figures()
    assert (figures["mix/requested_fraction"], figures["mix/achieved_fraction"]) == (0.5, 0)
    assert figures["mix/short_epochs"] == 2
    assert f"when_short={when_short}" in caplog.text


@pytest.mark.parametrize("when_short", ["reuse", "real"])
def test_a_class_without_a_row_is_drawn_from_real_samples_of_it(
    when_short: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    planner = {"0": 0.5, "1": 0.5}
    mixed = _mixed(tmp_path, planner=planner, when_short=when_short, balance="classes")
    with caplog.at_level(logging.WARNING):
        batches = _train(mixed, tmp_path, epochs=1)
    drawn = [
        (label, synthetic)
        for batch in batches
        for label, synthetic in zip(batch[1].tolist(), batch[2]["is_synthetic"].tolist(), strict=True)
    ]
    assert Counter(drawn) == {(0, False): 4, (0, True): 4, (1, False): 4, (1, True): 4, (2, False): 8}
    figures = mixed.figures()
    assert figures["mix/short_epochs"] == 1
    assert figures["mix/synthetic_fraction_class_2"] == 0
    assert figures["mix/synthetic_fraction_class_0"] == 0.5
    assert "no sample of 1 of the classes" in caplog.text


def test_a_class_without_a_row_is_an_error_if_asked_for(tmp_path: Path) -> None:
    mixed = _mixed(tmp_path, planner={"0": 1.0}, when_short="error")
    with pytest.raises(ShortWindowError, match=r"no sample of 2 of the classes"):
        _train(mixed, tmp_path, epochs=1)


def test_figures_are_logged_every_epoch(tmp_path: Path) -> None:
    class Logged(Callback):
        def __init__(self) -> None:
            self.metrics: list[dict[str, float]] = []

        def on_train_epoch_start(self, trainer: Any, *_: Any) -> None:
            self.metrics.append({k: float(v) for k, v in trainer.callback_metrics.items()})

        def on_train_end(self, trainer: Any, *_: Any) -> None:
            self.metrics.append({k: float(v) for k, v in trainer.callback_metrics.items()})

    logged = Logged()
    mixed = _mixed(tmp_path)
    _train(mixed, tmp_path, callbacks=[logged])
    assert len(logged.metrics) == 3
    assert logged.metrics[1]["mix/achieved_fraction"] == 0.5
    assert logged.metrics[2].keys() >= mixed.figures().keys()


# The real side of a comparison -------------------------------------------------------------------------


class Weighted(Recorder):
    """With a layer whose initial weights are random, and dropout in each step."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(4, 4)
        self.first = self.layer.weight.detach().clone()
        self.noise: list[Tensor] = []

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        self.noise.append(torch.nn.functional.dropout(torch.ones(8)))
        return super().training_step(batch, batch_idx) + 0 * self.layer.weight.sum()


def test_initial_weights_real_order_and_dropout_do_not_depend_on_the_fraction(tmp_path: Path) -> None:
    """The arms of a sweep start from the same weights and see the same real samples in the same order."""
    models, real_of_class = [], []
    for fraction in (0, 0.25):
        seed_everything(3, verbose=False)
        real = RealModule(Images(labels=[0] * 12 + [1] * 8 + [2] * 4))
        # no classes that lack samples: those of class 0 keep their relative order
        mixed = _mixed(tmp_path, real, synthetic_fraction=fraction, balance="classes", allocation="deficit")
        models.append(Weighted())
        trainer(tmp_path, 2).fit(models[-1], mixed)
        drawn: list[list[int]] = [[], [], []]
        for batch in models[-1].seen["train"][:6]:
            for index, label in zip(batch[2]["real_index"].tolist(), batch[1].tolist(), strict=True):
                if index >= 0:
                    drawn[label].append(index)
        real_of_class.append(drawn)
    assert torch.equal(models[0].first, models[1].first)
    assert all(torch.equal(a, b) for a, b in zip(models[0].noise, models[1].noise, strict=True))
    assert list(map(len, real_of_class[0])) == [8, 8, 8]
    assert list(map(len, real_of_class[1])) == [
        8,
        7,
        3,
    ]  # classes 1 and 2 lack 1 and 5 samples up to a level of 9
    for at_zero, at_quarter in zip(*real_of_class, strict=True):
        assert at_zero[: len(at_quarter)] == at_quarter


def test_starting_the_mix_leaves_the_global_random_states_alone(tmp_path: Path) -> None:
    def draw() -> tuple[float, float, float]:
        return random.random(), float(np.random.rand()), float(torch.rand(()))

    seed_everything(5, verbose=False)
    expected = draw()
    seed_everything(5, verbose=False)
    mixed = _mixed(tmp_path)
    mixed.prepare_data()
    mixed.setup("fit")
    loader = mixed.train_dataloader()
    assert draw() == expected  # probes, snapshot and the start of the refill
    seed_everything(5, verbose=False)
    assert mixed._run is not None
    index = next(mixed._run.begin()[1])  # the slots are made here
    loader.dataset[index]
    assert draw() == expected
    mixed.close()
