from __future__ import annotations

import csv
from pathlib import Path

import pytest
from written_sweep import Arm, write_sweep

from lightning_diffaug.cli import main

ARMS = [Arm("real_only", 0.8), Arm("classical", 0.84), Arm("mixed", 0.9, 0.25, "synthetic")]


def _arms(path: Path) -> list[str]:
    with path.open(newline="") as file:
        return [row["arm"] for row in csv.DictReader(file)]


def test_a_report_is_written_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sweep = write_sweep(tmp_path / "sweep", ARMS, seeds=3)
    assert main(["report", str(sweep)]) == 0
    assert (sweep / "ablation" / "report.html").exists()
    assert _arms(sweep / "ablation" / "summary.csv") == ["real_only", "classical", "mixed-0.25"]
    said = capsys.readouterr().out
    assert "Synthetic data help" in said
    assert f"written to {sweep / 'ablation' / 'report.html'}" in said


def test_several_sweeps_are_compared_in_one_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b"):
        write_sweep(tmp_path / name, ARMS, seeds=3)
    assert main(["report", "a", "b"]) == 0
    assert (tmp_path / "report" / "report.html").exists()
    assert main(["report", "a", "b", "--out", "both"]) == 0
    assert _arms(tmp_path / "both" / "summary.csv")[::3] == ["a/real_only", "b/real_only"]
    text = (tmp_path / "both" / "report.html").read_text(encoding="utf-8")
    assert "a and b" in text
    assert "b/<wbr>classical" in text
    assert not (tmp_path / "a" / "ablation").exists()


def test_a_metric_can_be_chosen(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sweep = write_sweep(tmp_path / "sweep", ARMS, seeds=3)
    assert main(["report", str(sweep), "--metric", "auroc"]) == 0
    assert "macro AUROC, which no class prior moves" in capsys.readouterr().out
    assert main(["report", str(sweep), "--metric", "f1"]) == 1
    assert "ablation.metric=f1 is no metric" in capsys.readouterr().err


def test_an_arm_that_is_not_there_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sweep = write_sweep(tmp_path / "sweep", ARMS, seeds=3)
    assert main(["report", str(sweep), "--arm", "classical"]) == 0
    assert main(["report", str(sweep), "--arm", "foo"]) == 1
    assert "Set --arm to one of real_only, classical, mixed-0.25" in capsys.readouterr().err


def test_what_is_no_sweep_is_said_and_nothing_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(tmp_path / "nowhere")]) == 1
    assert "is no folder" in capsys.readouterr().err
    assert main(["report", str(tmp_path)]) == 1
    assert "There is no run in" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
