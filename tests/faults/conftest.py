from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from training_toys import RealModule, Recorder, trainer

from lightning_diffaug import DiffAugDataModule

Mixed = Callable[..., DiffAugDataModule]


@pytest.fixture
def mixed(tmp_path: Path) -> Mixed:
    """A mix of 24 real samples, of which half the draws are synthetic: 12 an epoch, from a window of 16."""

    def make(generator: Any, refill: dict[str, Any] | str | None = None, **changes: Any) -> DiffAugDataModule:
        manners = {"nice": 0, "max_restarts": 0, "backoff": 0.0, "hang_timeout": 30.0}
        settings: dict[str, Any] = {
            "generator": generator,
            "synthetic_fraction": 0.5,
            "refill": refill if isinstance(refill, str) else {**manners, **(refill or {})},
            "reuse": 1,
            "window": 16,
            "slot_size": 8,
            "return_source": True,
            "gates": {"blank": False, "copy": False, "duplicate": False},  # the toys make plain areas
            "wait_timeout": 60.0,
            "cache_dir": tmp_path / "cache",
        }
        return DiffAugDataModule(RealModule(), **{**settings, **changes})

    return make


@pytest.fixture
def train(tmp_path: Path) -> Callable[..., Recorder]:
    """Trains, and gives the model, which has recorded its batches."""

    def run(mix: DiffAugDataModule, epochs: int = 2, *callbacks: Any, model: Recorder | None = None) -> Recorder:
        model = model if model is not None else Recorder()
        trainer(tmp_path, epochs, callbacks=list(callbacks)).fit(model, mix)
        return model

    return run
