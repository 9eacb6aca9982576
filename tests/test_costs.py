"""What samples cost counts for every run that used them, whoever made them; who finds all starts no process."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from refill_toys import SLOT, Fitted, Steady
from torch import Tensor
from training_toys import RealModule, Recorder, trainer, unnamed

from lightning_diffaug import DiffAugDataModule
from lightning_diffaug.refill import local


def _mixed(root: Path, generator: Any, **settings: Any) -> DiffAugDataModule:
    """24 real samples, 12 synthetic draws an epoch, each sample used once."""
    gates = {"blank": False, "copy": False, "duplicate": False}
    defaults: dict[str, Any] = {"synthetic_fraction": 0.5, "reuse": 1, "window": 2 * SLOT, "slot_size": SLOT}
    refill = {"mode": "sync", "nice": 0}
    return DiffAugDataModule(
        RealModule(), generator, refill=refill, gates=gates, cache_dir=root / "cache", **(defaults | settings)
    )


def _fit(root: Path, mix: DiffAugDataModule, epochs: int) -> dict[str, float]:
    trainer(root, epochs).fit(Recorder(), mix)
    return mix.figures() | mix.costs()


def test_a_run_that_finds_its_samples_starts_no_process_and_knows_what_they_cost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = _fit(tmp_path, _mixed(tmp_path, Fitted(str(tmp_path / "diary"))), 3)
    assert first["pool/generated"] == first["cost/samples"] + SLOT, "the next epoch's window was asked for too"
    assert 0 < first["cost/generator_seconds"] <= first["generator/seconds"]
    assert first["cost/fit_seconds"] == pytest.approx(first["generator/fit_seconds"], abs=0.05)

    def none(*_: Any, **__: Any) -> Any:
        raise AssertionError("a process is started")

    monkeypatch.setattr(local.subprocess, "Popen", none)
    again = _fit(tmp_path, _mixed(tmp_path, Fitted(str(tmp_path / "diary"))), 3)
    assert again["pool/generated"] == again["generator/seconds"] == again["generator/fit_seconds"] == 0
    assert {key: value for key, value in again.items() if key.startswith("cost/")} == {
        key: value for key, value in first.items() if key.startswith("cost/")
    }
    assert again["mix/achieved_fraction"] == 0.5
    shorter = _fit(tmp_path, _mixed(tmp_path, Fitted(str(tmp_path / "diary"))), 1)
    assert 0 < shorter["cost/generator_seconds"] < first["cost/generator_seconds"]
    assert shorter["cost/samples"] < first["cost/samples"]


def test_a_process_starts_when_a_later_window_is_not_there(tmp_path: Path) -> None:
    _fit(tmp_path, _mixed(tmp_path, Steady()), 1)
    longer = _fit(tmp_path, _mixed(tmp_path, Steady()), 4)
    assert longer["pool/generated"] > 0
    assert longer["mix/short_epochs"] == 0


class Counting(Steady):
    """Three passes of a network a sample."""

    network_passes = 0

    def generate(self, condition: Mapping[str, Any], seeds: Sequence[int]) -> Tensor:
        self.network_passes += 3 * len(seeds)
        return super().generate(condition, seeds)


def test_passes_are_counted_for_each_draw_that_was_trained_on(tmp_path: Path) -> None:
    found = _fit(tmp_path, _mixed(tmp_path, Counting(), synthetic_fraction=0.25, reuse=float("inf")), 2)
    # 16 samples, three passes each, for 48 draws
    assert found["cost/passes_per_sample"] == 1.0
    uncounted = _fit(tmp_path, _mixed(tmp_path, Steady()), 1)
    assert "cost/passes_per_sample" not in uncounted


def test_real_data_alone_cost_nothing_and_what_went_with_the_run_is_not_counted(tmp_path: Path) -> None:
    real = _fit(tmp_path, _mixed(tmp_path, Steady(), synthetic_fraction=0, balance="classes"), 1)
    assert {key: value for key, value in real.items() if key.startswith("cost/")} == {
        "cost/samples": 0.0, "cost/generator_seconds": 0.0, "cost/fit_seconds": 0.0, "cost/passes_per_sample": 0.0,
    }  # fmt: skip
    assert not [key for key in _fit(tmp_path, _mixed(tmp_path, unnamed()), 1) if key.startswith("cost/")]
