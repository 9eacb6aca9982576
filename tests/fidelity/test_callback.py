"""After the test, the samples that a run was trained on are measured, and nothing else of the run changes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from audit_toys import Module, Repeats, written
from training_toys import Recorder, prefilled, trainer

import lightning_diffaug.start
from lightning_diffaug import DiffAugDataModule
from lightning_diffaug.errors import ConfigurationError
from lightning_diffaug.fidelity import Fidelity, FidelityReport, fidelity_figures, measure_run

QUICK: dict[str, Any] = {"classifier": {"steps": 20}}
Mixed = Callable[..., DiffAugDataModule]


@pytest.fixture
def mixed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Mixed:
    """A mix whose pool has four slots of 16 samples, half of them copies of training images."""
    monkeypatch.setattr(lightning_diffaug.start, "NoRefill", prefilled([0, 1, 2, 3]))

    def make(fraction: float = 0.5) -> DiffAugDataModule:
        path = written(Module(), tmp_path / "images.safetensors")
        return DiffAugDataModule(
            Module(), Repeats(path, ["train", "fresh"]), fraction, gates={"copy": False, "duplicate": False},
            cache_dir=tmp_path / "cache", refill="none", window=64, slot_size=16, reuse=float("inf"),
        )  # fmt: skip

    return make


def _tested(tmp_path: Path, mix: DiffAugDataModule, *callbacks: Any) -> tuple[dict[str, float], Any]:
    fit = trainer(tmp_path, 1, limit_val_batches=0, callbacks=list(callbacks))
    model = Recorder()
    fit.fit(model, mix)
    (figures,) = fit.test(model, mix, verbose=False)
    return dict(figures), model


def test_the_report_is_written_and_logged_with_the_tests_figures(mixed: Mixed, tmp_path: Path) -> None:
    mix = mixed()
    figures, _ = _tested(tmp_path, mix, FidelityReport(str(tmp_path / "run"), **QUICK))
    found = Fidelity.read(tmp_path / "run" / "fidelity.json")
    assert found.about["level"] == "training data against validation data"
    assert found.about["synthetic_samples"] == 64
    assert {key: value for key, value in figures.items() if key.startswith("fidelity/")} == pytest.approx(
        found.figures(), rel=1e-5
    )
    assert found.measured["authenticity"].value < 0.8, "half of them are copies"
    assert fidelity_figures(mix, QUICK) == found.figures()


def test_it_changes_nothing_of_the_run(mixed: Mixed, tmp_path: Path) -> None:
    with_report, first = _tested(tmp_path, mixed(), FidelityReport(str(tmp_path), **QUICK))
    without, second = _tested(tmp_path, mixed())
    assert {key: value for key, value in with_report.items() if "fidelity" not in key} == without
    for one, other in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(one, other)


def test_nothing_of_validation_data_is_read_before_the_end_of_training(mixed: Mixed, tmp_path: Path) -> None:
    mix = mixed()
    fit = trainer(tmp_path, 1, limit_val_batches=0, callbacks=[FidelityReport(str(tmp_path), **QUICK)])
    fit.fit(Recorder(), mix)
    assert mix.real.parts["val"].read == []


def test_a_run_that_drew_nothing_has_no_figures_and_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    mix = DiffAugDataModule(Module(), synthetic_fraction=0, cache_dir=tmp_path)
    figures, _ = _tested(tmp_path, mix, FidelityReport(str(tmp_path / "run"), **QUICK))
    assert not [key for key in figures if "fidelity" in key]
    assert "drew nothing from a pool" in caplog.text
    assert not (tmp_path / "run").exists()
    assert fidelity_figures(mix) == {}
    with pytest.raises(ConfigurationError, match="drew nothing"):
        measure_run(mix)


def test_validation_data_that_cannot_be_read_leave_halves(
    mixed: Mixed, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    mix = mixed()
    _tested(tmp_path, mix)
    mix.real.val_dataloader = lambda: 3  # type: ignore[method-assign]
    found = measure_run(mix, QUICK)
    assert found.about["level"] == "one half of the training data against the other"
    assert "no torch DataLoader" in caplog.text


def test_a_setting_that_is_none_is_refused_before_anything_runs() -> None:
    with pytest.raises(ConfigurationError, match="feature is no setting of fidelity"):
        FidelityReport(feature="class")


def test_other_data_are_left_alone(tmp_path: Path) -> None:
    real = Module()
    report = FidelityReport(str(tmp_path / "run"))
    fit = trainer(tmp_path, 1, callbacks=[report])
    fit.test(Recorder(), real, verbose=False)
    assert not (tmp_path / "run").exists()
