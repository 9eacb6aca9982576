"""A run of the demo: what it leaves on the console and in its folder, and how it ends over a wrong setting."""

from __future__ import annotations

import json
import logging
import sys
import warnings
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf

from lightning_diffaug.cli import train
from lightning_diffaug.errors import ConfigurationError
from lightning_diffaug.experiment import _quiet, build, run
from lightning_diffaug.paths import config_dir


def _config(root: Path, *overrides: str) -> DictConfig:
    """One epoch with a pool that nobody fills: the quickest run that has one."""
    GlobalHydra.instance().clear()
    settings = ["refill=none", "trainer.max_epochs=1", "+trainer.enable_progress_bar=false", "logger=none"]
    files = [f"paths.output_dir={root}", f"paths.cache_dir={root / 'cache'}"]
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        config = compose("train", [*settings, *files, *overrides])
    OmegaConf.update(config, "generator", {"_target_": "training_toys.Noise", "shape": [1, 8, 8]}, merge=False)
    return config


def test_a_run_says_what_it_did_and_a_finished_one_that_nothing_was_left(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    figures = run(_config(tmp_path / "first"))
    table = capsys.readouterr().out
    (pool,) = (tmp_path / "first" / "cache" / "pools").iterdir()
    assert f"(diffaug pool info): {pool}\n" in table
    assert str(pool) in caplog.text
    row = next(line for line in table.splitlines() if line.startswith("synthetic fraction achieved"))
    assert "0.0000" in row
    assert "not what was asked for" in row
    assert "nothing was left" not in caplog.text
    audited = {"pool/audited", "pool/near_duplicates", *(f"pool/near_copies_{of}" for of in ("train", "val", "test"))}
    assert {key: figures[key] for key in audited} == dict.fromkeys(audited, 0.0), "nothing was drawn from the pool"
    assert figures["gates/contamination"] == 0
    assert "near-copies of test samples" in table
    assert "gates.contamination was on" not in table

    checkpoint = tmp_path / "first" / "checkpoints" / "last.ckpt"
    again = run(_config(tmp_path / "second", f"ckpt_path={checkpoint}"))
    assert "nothing was left to train" in caplog.text
    assert "trainer.max_epochs=1" in caplog.text
    assert again["mix/requested_fraction"] == pytest.approx(figures["mix/requested_fraction"])
    with pytest.raises(ConfigurationError, match=r"(?s)ckpt_path=.*last\.ckpt is of another model.*size mismatch"):
        run(_config(tmp_path / "third", f"ckpt_path={checkpoint}", "model.width=12", "trainer.max_epochs=2"))
    classes = json.loads((tmp_path / "first" / "classes.json").read_text())
    assert classes["names"] == [str(digit) for digit in range(10)]
    assert [classes["names"][c] for c, count in enumerate(classes["train_counts"]) if count == 5] == classes["rare"]
    assert len(classes["rare"]) == 5
    written = json.loads((tmp_path / "second" / "metrics.json").read_text())
    assert written["train/steps"] == figures["train/steps"] > 0
    assert written["mix/requested_fraction"] > 0


def test_a_wrong_setting_ends_in_one_line_and_a_traceback_is_for_those_who_ask(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    GlobalHydra.instance().clear()
    quiet = ["hydra/job_logging=none", "hydra/hydra_logging=none"]
    monkeypatch.setattr(sys, "argv", ["train.py", f"hydra.run.dir={tmp_path}", *quiet, "model.lr=abc"])
    with pytest.raises(SystemExit) as ended:
        train()
    assert ended.value.code == 1
    said = capsys.readouterr()
    assert said.err == "ConfigurationError: model.lr=abc is not a number. Set model.lr to such a value.\n"
    assert "Traceback" not in said.out
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    GlobalHydra.instance().clear()
    with pytest.raises(ConfigurationError, match=r"model\.lr"):
        train()


def test_only_noise_is_kept_off_the_console_and_only_during_a_run(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    source = logging.getLogger("lightning.pytorch.utilities.rank_zero")
    noise = "The 'train_dataloader' does not have many workers which may be a bottleneck."
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        with _quiet():
            warnings.warn(noise, stacklevel=1)
            warnings.warn("something is wrong", stacklevel=1)
            source.info("💡 Tip: install another product")
            source.info("GPU available: False")
        assert [str(warning.message) for warning in said] == ["something is wrong"]
        assert [record.getMessage() for record in caplog.records] == ["GPU available: False"]
        warnings.warn(noise, stacklevel=1)
        source.info("💡 Tip: install another product")
    assert len(said) == len(caplog.records) == 2


@pytest.mark.parametrize(
    ("override", "text"),
    [("ckpt_path=nowhere.ckpt", "ckpt_path=nowhere.ckpt does not exist"), ("+data.foo=1", "data.foo is no setting")],
)
def test_what_is_not_there_is_named_by_its_key_before_anything_runs(override: str, text: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=text):
        build(_config(tmp_path, override))
    assert not (tmp_path / "cache").exists()


def test_a_run_whose_gate_read_validation_and_test_data_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(_config(tmp_path, "gates.contamination=true"))
    written = json.loads((tmp_path / "metrics.json").read_text())
    assert written["gates/contamination"] == 1
    assert "gates.contamination was on: validation and test images had a say" in capsys.readouterr().out
