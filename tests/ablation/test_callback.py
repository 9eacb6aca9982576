from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import pytest
from lightning.pytorch.utilities import rank_zero_only
from omegaconf import DictConfig, OmegaConf

from lightning_diffaug.ablation import SweepReport
from lightning_diffaug.ablation.failed import write_failed

WriteRun = Callable[..., Path]


def _config(folder: Path) -> DictConfig:
    return OmegaConf.create({"hydra": {"sweep": {"dir": str(folder)}}})


def test_the_report_is_written_and_printed(
    tmp_path: Path, write_run: WriteRun, capsys: pytest.CaptureFixture[str]
) -> None:
    write_run(0, acc=0.5)
    SweepReport().on_multirun_end(_config(tmp_path / "sweep"))
    folder = tmp_path / "sweep" / "ablation"
    written = {"runs.csv", "summary.csv", "comparison.md", "report.html", "arms.svg", "arms.png"}
    assert {path.name for path in folder.iterdir()} == written
    assert (folder / "comparison.md").read_text() in capsys.readouterr().out


def test_the_metric_is_that_of_this_sweep_not_of_runs_that_were_finished_before(
    tmp_path: Path, write_run: WriteRun
) -> None:
    for seed in range(2):
        write_run(seed, seed=seed, acc=0.5, auroc=0.7, config={"ablation": {"metric": "acc"}})
    config = _config(tmp_path / "sweep")
    SweepReport().on_multirun_end(OmegaConf.merge(config, {"ablation": {"metric": "auroc"}}))  # type: ignore[arg-type]
    assert "macro AUROC; asked for by" in (tmp_path / "sweep" / "ablation" / "report.html").read_text()


def test_a_report_that_cannot_be_written_is_logged_and_takes_no_sweep_down(
    tmp_path: Path, write_run: WriteRun, caplog: pytest.LogCaptureFixture
) -> None:
    write_run(0, acc=0.5)
    (tmp_path / "sweep" / "ablation").write_text("a file where the folder belongs")
    with caplog.at_level(logging.ERROR):
        SweepReport().on_multirun_end(_config(tmp_path / "sweep"))
    assert "could not be written" in caplog.text


def test_a_sweep_without_any_run_is_no_error(tmp_path: Path) -> None:
    SweepReport().on_multirun_end(_config(tmp_path / "sweep"))
    assert (tmp_path / "sweep" / "ablation" / "runs.csv").exists()


def test_a_sweep_in_which_every_run_failed_ends_with_an_error(tmp_path: Path) -> None:
    write_failed(tmp_path / "sweep" / "0", ValueError("wrong"), ["seed=0"])
    with pytest.raises(SystemExit, match=r"failed\.csv"):
        SweepReport().on_multirun_end(_config(tmp_path / "sweep"))
    assert "ValueError: wrong" in (tmp_path / "sweep" / "ablation" / "comparison.md").read_text()


def test_only_the_first_rank_reports(tmp_path: Path, write_run: WriteRun, monkeypatch: pytest.MonkeyPatch) -> None:
    write_run(0, acc=0.5)
    monkeypatch.setattr(rank_zero_only, "rank", 1, raising=False)
    SweepReport().on_multirun_end(_config(tmp_path / "sweep"))
    assert not (tmp_path / "sweep" / "ablation").exists()
