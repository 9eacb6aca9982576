"""What is wrong with a run is said where it starts, before anything is made or fitted."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor
from training_toys import Noise, RealModule

from lightning_diffaug import DiffAugDataModule, DiffusionGenerator
from lightning_diffaug.errors import ConfigurationError


class Placed(Noise):
    """Has the setting of most generators; its samples do not depend on it."""

    def __init__(self, device: str = "auto") -> None:
        super().__init__()
        self.device = device

    def generate(self, condition: Mapping[str, Any], seeds: Sequence[int]) -> Tensor:
        return super().generate(condition, seeds)


def _started(generator: Any, root: Path, **settings: Any) -> DiffAugDataModule:
    mixed = DiffAugDataModule(RealModule(), generator, slot_size=8, window=16, cache_dir=root, **settings)
    try:
        mixed.train_dataloader()
    finally:
        mixed.close()
    return mixed


@pytest.mark.parametrize("device", ["cuda", "cuda:7", "mps", "gpu", "meta"])
@pytest.mark.parametrize("kind", [Placed, DiffusionGenerator])
def test_a_device_that_is_not_there_is_refused_at_the_door(kind: Any, device: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=rf"generator\.device={device}"):
        _started(kind(device=device), tmp_path)
    assert not (tmp_path / "generators").exists()


def test_a_device_that_is_there_or_not_needed_is_fine(tmp_path: Path) -> None:
    for device in ("auto", "cpu", "cpu:0"):
        _started(Placed(device), tmp_path)
    _started({"_target_": "training_toys.Noise"}, tmp_path)
    _started(Placed("cuda"), tmp_path, refill="none")  # the pool made elsewhere is used here


@pytest.mark.parametrize(("window", "said"), [(16, ""), (10, "data.window=10 is no multiple of data.slot_size=8")])
def test_a_window_that_is_rounded_up_is_said(
    window: int, said: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    mixed = DiffAugDataModule(RealModule(), Noise(), slot_size=8, window=window, cache_dir=tmp_path)
    mixed.train_dataloader()
    mixed.close()
    assert said in caplog.text
    assert ("sees 16 samples" in caplog.text) == bool(said)
