"""The log says how old the window is and which classes it holds; after a resume as if nothing had happened."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch import Callback
from training_toys import Images, Noise, RealModule, Recorder, prefilled, trainer, unnamed

import lightning_diffaug.start
from lightning_diffaug import DiffAugDataModule, callbacks

AGES = ("window/share_age_0", "window/share_age_1_3", "window/share_age_4_plus")


class Logged(Callback):
    """Keeps what was logged of the window at each epoch's end."""

    def __init__(self) -> None:
        self.epochs: list[dict[str, float]] = []

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        self.epochs.append({k: float(v) for k, v in trainer.callback_metrics.items() if k.startswith("window/")})


def _mixed(root: Path, **settings: Any) -> DiffAugDataModule:
    # 12 synthetic draws an epoch: with reuse=3 the window of 4 slots moves on by 2.
    defaults: dict[str, Any] = {"synthetic_fraction": 0.5, "reuse": 3, "window": 8, "slot_size": 2}
    return DiffAugDataModule(
        RealModule(), unnamed(), refill="sync", gates=[], cache_dir=root / "cache", **(defaults | settings)
    )


def _train(root: Path, epochs: int, mix: DiffAugDataModule, **fit: Any) -> tuple[Logged, Any]:
    logged = Logged()
    run = trainer(root, epochs, callbacks=[logged])
    run.fit(Recorder(), mix, **fit)
    return logged, run


def test_ages_count_epochs_since_a_slot_entered_the_windows(tmp_path: Path) -> None:
    """12 draws an epoch, each sample used 3 times: the window of 4 slots of 2 samples moves by 2 slots an epoch."""
    logged, _ = _train(tmp_path, 4, _mixed(tmp_path))
    assert [tuple(epoch[key] for key in AGES) for epoch in logged.epochs] == [
        (1.0, 0.0, 0.0), (0.5, 0.5, 0.0), (0.5, 0.5, 0.0), (0.5, 0.5, 0.0),
    ]  # fmt: skip
    frozen, _ = _train(tmp_path, 6, _mixed(tmp_path, reuse=float("inf")))
    assert [[epoch[key] for key in AGES].index(1.0) for epoch in frozen.epochs] == [0, 1, 1, 1, 2, 2]


def test_shares_of_classes_are_those_of_the_windows_rows(tmp_path: Path) -> None:
    mix = _mixed(tmp_path, planner={"0": 2, "1": 1, "2": 1})
    logged, _ = _train(tmp_path, 1, mix)
    shares = {key: value for key, value in logged.epochs[0].items() if "class" in key}
    assert shares == pytest.approx(
        {"window/share_class_0": 0.5, "window/share_class_1": 0.25, "window/share_class_2": 0.25}
    )


def test_figures_of_the_window_are_the_same_after_a_resume(tmp_path: Path) -> None:
    whole, _ = _train(tmp_path / "whole", 5, _mixed(tmp_path / "whole", reuse=6))
    _, first = _train(tmp_path / "parts", 3, _mixed(tmp_path / "parts", reuse=6))
    first.save_checkpoint(tmp_path / "state.ckpt")
    second, _ = _train(
        tmp_path / "parts", 5, _mixed(tmp_path / "parts", reuse=6), ckpt_path=tmp_path / "state.ckpt", weights_only=True
    )
    assert second.epochs == whole.epochs[3:]
    assert whole.epochs[4]["window/share_age_1_3"] > 0, "else there would be nothing to remember"
    assert len(second.epochs) == 2


def test_a_window_that_stays_behind_grows_old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Four slots are all that there is, so the windows that the schedule asks for later are not there."""
    monkeypatch.setattr(lightning_diffaug.start, "NoRefill", prefilled([0, 1, 2, 3]))
    mix = DiffAugDataModule(
        RealModule(), Noise(), 0.5, refill="none", gates=[], window=8, slot_size=2, reuse=3, cache_dir=tmp_path
    )
    logged, _ = _train(tmp_path, 6, mix)
    assert [[epoch[key] for key in AGES].index(1.0) for epoch in logged.epochs] == [0, 1, 1, 1, 2, 2]


def test_without_a_window_all_shares_are_nought(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lightning_diffaug.start, "NoRefill", prefilled([]))
    mix = DiffAugDataModule(RealModule(), Noise(), refill="none", gates=[], cache_dir=tmp_path)
    logged, _ = _train(tmp_path, 1, mix)
    assert set(logged.epochs[0]) == {*AGES, *(f"window/share_class_{c}" for c in range(3))}
    assert set(logged.epochs[0].values()) == {0.0}
    never = DiffAugDataModule(RealModule(), synthetic_fraction=0, cache_dir=tmp_path)
    assert {key: never.figures()[key] for key in AGES} == dict.fromkeys(AGES, 0.0)


def test_many_classes_are_kept_and_not_logged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(callbacks, "MANY_CLASSES", 2)
    mix = _mixed(tmp_path)
    mix.real.train = Images(24)
    logged, _ = _train(tmp_path, 1, mix)
    assert set(logged.epochs[0]) == set(AGES)
    assert "window/share_class_0" in mix.figures()
