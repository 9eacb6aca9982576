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


@pytest.mark.parametrize("gate", ["class", "caption", "safety", "copy"])
def test_a_device_of_a_gate_that_is_not_there_is_refused_at_the_door(gate: str, tmp_path: Path) -> None:
    model = {"copy": {"encoder": "gate_models.Sums"}}.get(gate, {"model": "gate_models.dark"})
    for device in ("tpu", "cuda:7"):
        with pytest.raises(ConfigurationError, match=rf"gates\.{gate}\.device={device} is .*gates\.{gate}\.device to"):
            _started(Noise(), tmp_path, gates={gate: {**model, "device": device}})


def test_arguments_of_gates_are_looked_at_with_the_data_before_anything_is_made(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"gates\.copy\.field='foo'"):
        _started(Noise(), tmp_path, gates={"copy": {"field": "foo"}})
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(("generator", "gates", "said"), [
    (DiffusionGenerator(), None, True),
    (DiffusionGenerator(), {"caption": {"model": "gate_models.reds"}}, False),
    (Noise(), None, False),  # of the user's own: it may read them
])  # fmt: skip
def test_prompts_that_nobody_reads_are_said_once(
    generator: Any, gates: Any, said: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    mixed = DiffAugDataModule(
        RealModule(), generator, slot_size=8, window=16, cache_dir=tmp_path, gates=gates, text="a {label}"
    )
    mixed.train_dataloader()
    mixed.close()
    assert caplog.text.count("data.text has no effect: DiffusionGenerator takes no prompts") == said


def test_a_learner_that_is_not_handed_over_is_said_with_the_key_that_asks_for_it(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"Set feedback=practice.*, or generator\.feedback_scale=0\."):
        _started(DiffusionGenerator(feedback_scale=0.1), tmp_path)
    with pytest.raises(ConfigurationError, match=r"Set feedback=practice.*, or gates\.hard=false\."):
        _started(Noise(), tmp_path, gates={"hard": True})


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
