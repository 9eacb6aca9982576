"""A real sweep on the command line: three fractions, and one that no run can have."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


def _train(folder: Path, cache: Path, *overrides: str) -> subprocess.CompletedProcess[str]:
    """``python train.py`` with little of everything."""
    command = [
        sys.executable, str(ROOT / "train.py"), *overrides,
        "trainer.max_epochs=2", "+trainer.enable_progress_bar=false", "+trainer.enable_checkpointing=false",
        "~callbacks.checkpoint", "logger=none", "generator.fit.steps=20", "+generator.fit.channels=[8]",
        "data.window=64", "refill.nice=0",
        f"hydra.run.dir={folder}", f"hydra.sweep.dir={folder}", f"paths.cache_dir={cache}",
    ]  # fmt: skip
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, cwd=cache.parent, env=environment, capture_output=True, text=True, timeout=290)


@dataclass(frozen=True)
class Done:
    """What a sweep left."""

    folder: Path
    cache: Path
    ended: subprocess.CompletedProcess[str]

    def rows(self, name: str) -> list[dict[str, Any]]:
        with (self.folder / "ablation" / name).open(newline="") as file:
            return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Done:
    root = tmp_path_factory.mktemp("sweep")
    ended = _train(root / "sweep", root / "cache", "-m", "data.synthetic_fraction=0,0.5,2,1")
    return Done(root / "sweep", root / "cache", ended)


def test_a_sweep_of_fractions_shares_one_fitted_generator_and_one_pool(sweep: Done) -> None:
    assert sweep.ended.returncode == 0, sweep.ended.stderr
    assert len(list((sweep.cache / "generators").glob("*/fitted.json"))) == 1
    assert len(list((sweep.cache / "pools").glob("*/pool.json"))) == 1
    fits = [float(row["generator/fit_seconds"]) > 0 for row in sweep.rows("runs.csv")]
    assert fits == [False, True, False]


def test_a_sweep_writes_its_tables_and_prints_the_comparison(sweep: Done) -> None:
    runs, summary = sweep.rows("runs.csv"), sweep.rows("summary.csv")
    assert [row["arm"] for row in runs] == [row["arm"] for row in summary] == ["real", "mixed-0.5", "mixed-1"]
    assert [float(row["fraction"]) for row in runs] == [0, 0.5, 1]
    assert {row["steps"] for row in runs} == {"14.0"}
    for row, number in zip(runs, (0, 1, 3), strict=True):
        metrics = json.loads((sweep.folder / str(number) / "metrics.json").read_text())
        for key in ("test/acc", "test/acc_balanced", "test/acc_rare", "test/auroc"):
            assert float(row[key]) == metrics[key]
        spent = metrics["generator/fit_seconds"] + metrics["generator/seconds"]
        assert float(row["generator_seconds"]) == pytest.approx(spent)
    text = (sweep.folder / "ablation" / "comparison.md").read_text()
    assert text in sweep.ended.stdout
    assert "mixed-0.5 minus" in text


def test_a_failing_run_takes_neither_the_sweep_nor_its_report_down(sweep: Done) -> None:
    failed = json.loads((sweep.folder / "2" / "failed.json").read_text())
    assert "data.synthetic_fraction" in failed["error"]
    assert "data.synthetic_fraction=2" in failed["overrides"]
    assert (sweep.folder / "3" / "metrics.json").exists(), "the run behind it"
    assert [row["folder"] for row in sweep.rows("failed.csv")] == ["2"]
    assert "the sweep goes on" in sweep.ended.stdout
    assert "1 run failed" in sweep.ended.stdout


def test_a_single_run_raises(tmp_path: Path) -> None:
    ended = _train(tmp_path / "run", tmp_path / "cache", "data.synthetic_fraction=2")
    assert ended.returncode != 0
    assert "ConfigurationError" in ended.stderr
    assert "data.synthetic_fraction" in ended.stderr
    assert not (tmp_path / "run" / "failed.json").exists()
    assert not (tmp_path / "cache").exists(), "nothing ran"


def test_a_wrong_key_ends_a_sweep_before_anything_runs(tmp_path: Path) -> None:
    ended = _train(tmp_path / "sweep", tmp_path / "cache", "-m", "data.synthetic_fractoin=0,0.5")
    assert ended.returncode != 0
    assert "data.synthetic_fractoin" in ended.stderr
    assert not (tmp_path / "sweep" / "0").exists()
    assert not (tmp_path / "cache").exists(), "nothing ran"
