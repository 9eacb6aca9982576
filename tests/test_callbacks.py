from __future__ import annotations

from pathlib import Path

import pytest
from training_toys import Noise, RealModule, Recorder, prefilled, trainer, unnamed

import lightning_diffaug.start
from lightning_diffaug import DiffAugDataModule, callbacks, run


@pytest.mark.parametrize("limit", [2, 3])
def test_figures_of_many_classes_are_kept_and_not_logged(
    limit: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(callbacks, "MANY_CLASSES", limit)
    mixed = DiffAugDataModule(RealModule(), unnamed(), refill="sync", slot_size=8, window=8, cache_dir=tmp_path)
    run = trainer(tmp_path)
    run.fit(Recorder(), mixed)
    logged = {key for key in run.callback_metrics if key.startswith("mix/")}
    known = {key for key in mixed.figures() if key.startswith("mix/")}
    assert len([key for key in known if "_class_" in key]) == 9
    assert logged == (known if limit == 3 else {key for key in known if "_class_" not in key})


@pytest.mark.parametrize(("slots", "said"), [([0, 1, 2, 3], 1), ([0], 0)], ids=["whole", "short"])
def test_many_uses_of_a_class_are_said_unless_the_pool_was_short(
    slots: list[int], said: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(run, "_MANY_USES", 0.001)
    monkeypatch.setattr(lightning_diffaug.start, "NoRefill", prefilled(slots))
    settings = {"slot_size": 8, "window": 16, "reuse": 1.0, "cache_dir": tmp_path}
    mixed = DiffAugDataModule(RealModule(), Noise(), refill="none", **settings)
    trainer(tmp_path).fit(Recorder(), mixed)
    figures = mixed.figures()
    assert (figures["mix/short_epochs"] > 0) == (not said)
    assert figures["mix/reuse"] > 0
    assert sum("few rows in the window" in record.getMessage() for record in caplog.records) == said
