from __future__ import annotations

from pathlib import Path

import pytest
from training_toys import RealModule, Recorder, trainer, unnamed

from lightning_diffaug import DiffAugDataModule, callbacks


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
