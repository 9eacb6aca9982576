from __future__ import annotations

import csv
import json
from collections.abc import Callable
from dataclasses import replace
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from omegaconf import OmegaConf
from scipy import stats
from written_sweep import Arm, write_sweep

from lightning_diffaug.ablation.failed import write_failed
from lightning_diffaug.ablation.numbers import p_value
from lightning_diffaug.ablation.report import write_report, write_reports
from lightning_diffaug.ablation.summary import summarise
from lightning_diffaug.ablation.verdict import judge_each

WriteRun = Callable[..., Path]
METRICS = ("acc", "acc_balanced", "acc_rare", "auroc")
ARMS = {"oversampling": 0, "classical": 0, "mixed": 0.25}


@pytest.fixture
def sweep(tmp_path: Path, write_run: WriteRun) -> Path:
    """Three arms, five seeds."""
    rng = np.random.default_rng(0)
    number = 0
    for arm, fraction in ARMS.items():
        for seed in range(5):
            figures = {key: float(rng.uniform(0.8, 1.0)) for key in METRICS}
            write_run(number, seed, fraction, arm, [f"arm={arm}", f"seed={seed}"], loss=0.1, **figures)
            number += 1
    return tmp_path / "sweep"


def _rows(path: Path) -> list[dict[str, Any]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def _column(rows: list[dict[str, Any]], arm: str, key: str) -> list[float]:
    of_arm = sorted((row for row in rows if row["arm"] == arm), key=lambda row: int(row["seed"]))
    return [float(row[key]) for row in of_arm]


def test_runs_csv_has_one_row_a_run_with_the_columns_promised(sweep: Path) -> None:
    rows = _rows(write_report(sweep).folder / "runs.csv")
    assert len(rows) == 15
    promised = "arm,seed,fraction,test/acc,test/acc_balanced,test/acc_rare,test/auroc,steps,generator_seconds"
    assert list(rows[0])[:9] == promised.split(",")
    assert (rows[-1]["arm"], rows[-1]["seed"], rows[-1]["fraction"], rows[-1]["steps"]) == (
        "mixed-0.25", "4", "0.25", "630.0",
    )  # fmt: skip


def test_summary_csv_agrees_with_scipy_on_the_rows_of_runs_csv(sweep: Path) -> None:
    folder = write_report(sweep).folder
    runs, summary = _rows(folder / "runs.csv"), _rows(folder / "summary.csv")
    promised = "arm,fraction,seeds,mean,ci95_low,ci95_high,steps,generator_seconds"
    assert list(summary[0])[:8] == promised.split(",")
    assert [row["arm"] for row in summary] == ["oversampling", "classical", "mixed-0.25"]
    for row in summary:
        assert int(row["seeds"]) == 5
        for metric in METRICS:
            values = _column(runs, row["arm"], f"test/{metric}")
            prefix = "" if metric == "acc" else f"{metric}_"
            low, high = stats.ttest_1samp(values, 0).confidence_interval(0.95)
            assert float(row[prefix + "mean"]) == pytest.approx(np.mean(values), rel=1e-12)
            assert float(row[prefix + "ci95_low"]) == pytest.approx(low, rel=1e-12)
            assert float(row[prefix + "ci95_high"]) == pytest.approx(high, rel=1e-12)


def _table(text: str, head: str) -> dict[str, list[str]]:
    """Rows of the Markdown table whose first heading is `head`, by their first cell."""
    lines = text.splitlines()
    first = next(i for i, line in enumerate(lines) if line.startswith(f"| {head} "))
    table = takewhile(lambda line: line.startswith("|"), lines[first:])
    cells = [[cell.strip() for cell in line.strip("| ").split("|")] for line in table]
    return {row[0]: row[1:] for row in cells[2:]}


def test_comparison_gives_paired_differences_in_percentage_points(sweep: Path) -> None:
    report = write_report(sweep)
    assert (report.folder / "comparison.md").read_text() == report.text
    runs = _rows(report.folder / "runs.csv")
    shown = _table(report.text, "mixed-0.25 minus")
    assert list(shown) == ["oversampling", "classical"]
    for other, cells in shown.items():
        assert cells[0] == "5"
        for metric, digits, cell in zip(METRICS, (1, 1, 1, 2), cells[1:5], strict=True):
            mixed, arm = (_column(runs, name, f"test/{metric}") for name in ("mixed-0.25", other))
            test = stats.ttest_rel(mixed, arm)
            low, high = test.confidence_interval(0.95)
            mean = 100 * (np.mean(mixed) - np.mean(arm))
            assert cell == f"{mean:+.{digits}f} ± {100 * (high - low) / 2:.{digits}f}"


def test_comparison_shows_means_in_per_cent_with_their_interval(sweep: Path) -> None:
    report = write_report(sweep)
    values = _column(_rows(report.folder / "runs.csv"), "classical", "test/acc")
    low, high = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    cell = _table(report.text, "arm")["classical"][2]
    assert cell == f"{100 * np.mean(values):.1f} ± {100 * (high - low) / 2:.1f}"
    assert "Equal in all arms: optimiser steps (630)" in report.text


@pytest.mark.parametrize(
    ("arm", "minus"),
    [
        ("classical", ["classical", "mixed-0.25"]),
        ("mixed-0.25", ["mixed-0.25"]),
        ("no such arm", ["oversampling", "mixed-0.25"]),
    ],
)
def test_the_arm_that_is_compared_can_be_chosen_beside_the_judged_one(arm: str, minus: list[str], sweep: Path) -> None:
    text = write_report(sweep, arm).text
    assert [name for name in ("oversampling", "classical", "mixed-0.25") if f"| {name} minus " in text] == minus


def test_every_fraction_of_the_chosen_arm_is_compared(tmp_path: Path, write_run: WriteRun) -> None:
    for number, fraction in enumerate((0, 0.5, 1)):
        write_run(number, fraction=fraction, acc_balanced=0.9)
    text = write_report(tmp_path / "sweep").text
    assert list(_table(text, "mixed-0.5 minus")) == list(_table(text, "mixed-1 minus")) == ["real"]


def test_fewer_than_three_seeds_have_no_interval_and_that_is_said(tmp_path: Path, write_run: WriteRun) -> None:
    for seed in range(2):
        write_run(seed, seed=seed, acc=0.5 + seed / 10)
    report = write_report(tmp_path / "sweep")
    (row,) = _rows(report.folder / "summary.csv")
    assert (row["mean"], row["ci95_low"], row["ci95_high"]) == ("0.55", "", "")
    assert "Fewer than 3 seeds" in report.text
    assert not any("±" in cell for cell in _table(report.text, "arm")["mixed-0.25"])


def test_unequal_steps_and_short_epochs_are_said(tmp_path: Path, write_run: WriteRun) -> None:
    write_run(0, fraction=0)
    short = write_run(1, fraction=0.5)
    text = (short / "metrics.json").read_text()
    (short / "metrics.json").write_text(text.replace("630.0", "900.0").replace("{", '{"mix/short_epochs": 2.0, ', 1))
    report = write_report(tmp_path / "sweep").text
    assert "NOT equal (630 to 900)" in report
    assert "In 1 of 2 runs the pool was short" in report


def test_a_run_with_less_synthetic_data_than_its_arm_says_is_named(tmp_path: Path, write_run: WriteRun) -> None:
    for seed, achieved in enumerate((0.5, 0.495, 0.0)):
        path = write_run(seed, seed=seed, fraction=0.5, acc=0.9) / "metrics.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"mix/achieved_fraction": achieved}))
    report = write_report(tmp_path / "sweep").text
    assert "a smaller synthetic fraction than asked for" in report
    assert "hide what it does: mixed-0.5 (seed 2: 0 of 0.5). The generator" in report


def test_failed_runs_are_listed_and_the_others_reported(sweep: Path) -> None:
    write_failed(sweep / "14", RuntimeError("out of\nmemory"), ["arm=mixed", "seed=4"])
    report = write_report(sweep)
    assert "1 run failed" in report.text
    assert "- 14 (arm=mixed seed=4): RuntimeError: out of memory" in report.text
    assert _table(report.text, "mixed-0.25 minus")["classical"][0] == "4"
    assert [row["folder"] for row in _rows(report.folder / "failed.csv")] == ["14"]
    assert len(_rows(report.folder / "runs.csv")) == 14


def test_failures_of_an_earlier_report_are_not_shown_again(sweep: Path) -> None:
    write_failed(sweep / "14", RuntimeError("killed"), [])
    assert (write_report(sweep).folder / "failed.csv").exists()
    (sweep / "14" / "failed.json").unlink()
    report = write_report(sweep)
    assert not (report.folder / "failed.csv").exists()
    assert len(_rows(report.folder / "runs.csv")) == 15


def test_metrics_that_a_task_lacks_leave_their_fields_empty(tmp_path: Path, write_run: WriteRun) -> None:
    for seed in range(3):
        write_run(seed, seed=seed, miou=0.5)
    report = write_report(tmp_path / "sweep")
    (row,) = _rows(report.folder / "summary.csv")
    assert (row["mean"], row["acc_balanced_mean"], row["miou_mean"]) == ("0.5", "", "0.5")
    assert row["metric"] == "test/miou"
    assert "balanced accuracy" not in report.text


def test_each_class_that_is_rare_in_every_run_has_its_own_figures(tmp_path: Path, write_run: WriteRun) -> None:
    rng = np.random.default_rng(0)
    for number, (arm, seed) in enumerate((arm, seed) for arm in ("classical", "mixed") for seed in range(3)):
        figures = {f"acc_class_{name}": float(rng.uniform(0.8, 1.0)) for name in "0123"}
        write_run(number, seed, ARMS[arm], arm, [f"arm={arm}"], rare=["1", "2", "3"][seed % 2 :], **figures)
    report = write_report(tmp_path / "sweep")
    runs, summary = _rows(report.folder / "runs.csv"), _rows(report.folder / "summary.csv")
    general, each = report.text.split("### Accuracy on each rare class")
    assert "class 2" not in general
    heads = [cell.strip() for cell in each.splitlines()[4].strip("| ").split("|")]
    assert heads == ["arm", "fraction", "seeds", "class 2, %", "class 3, %"], "class 1 is rare in some runs alone"
    means, differences = _table(each, "arm"), _table(each, "mixed-0.25 minus")
    for place, name in enumerate("23"):
        key = f"test/acc_class_{name}"
        mixed, classical = _column(runs, "mixed-0.25", key), _column(runs, "classical", key)
        low, high = stats.ttest_1samp(mixed, 0).confidence_interval(0.95)
        assert means["mixed-0.25"][2 + place] == f"{100 * np.mean(mixed):.1f} ± {50 * (high - low):.1f}"
        assert float(summary[1][f"acc_class_{name}_mean"]) == pytest.approx(np.mean(mixed))
        low, high = stats.ttest_rel(mixed, classical).confidence_interval(0.95)
        found = differences["classical"][1 + place]
        assert found == f"{100 * (np.mean(mixed) - np.mean(classical)):+.1f} ± {50 * (high - low):.1f}"


def test_without_rare_classes_that_all_runs_share_there_are_no_such_tables(tmp_path: Path, write_run: WriteRun) -> None:
    write_run(0, seed=0, rare=["1"], acc_class_1=0.5, acc_class_2=0.5)
    write_run(1, seed=1, rare=["2"], acc_class_1=0.5, acc_class_2=0.5)
    assert "rare class" not in write_report(tmp_path / "sweep").text


def test_corrected_scores_have_columns_and_the_p_value_of_the_corrected_metric(
    tmp_path: Path, write_run: WriteRun
) -> None:
    rng = np.random.default_rng(0)
    number = 0
    for arm, fraction in ARMS.items():
        for seed in range(4):
            keys = ("acc_balanced", "acc_balanced_corrected", "acc_class_1_corrected", "evaluations")
            figures = {key: float(rng.uniform(0.8, 1.0)) for key in keys}
            folder = write_run(number, seed, fraction, arm, [f"arm={arm}"], rare=["1"], **figures)
            metrics = json.loads((folder / "metrics.json").read_text())
            metrics |= {f"val/{key}": metrics[f"test/{key}"] for key in keys[:2]}
            (folder / "metrics.json").write_text(json.dumps(metrics))
            (folder / "classes.json").write_text('{"names": ["0", "1"], "train_counts": [80, 5], "rare": ["1"]}')
            number += 1
    report = write_report(tmp_path / "sweep")
    runs, summary = _rows(report.folder / "runs.csv"), _rows(report.folder / "summary.csv")
    key = "test/acc_balanced_corrected"
    assert float(summary[0]["acc_balanced_corrected_mean"]) == pytest.approx(
        np.mean(_column(runs, "oversampling", key))
    )
    assert "acc_class_1_corrected_mean" in summary[0]
    assert not any(column.startswith(("evaluations", "val", "cost", "train")) for column in summary[0])
    (verdict,) = judge_each(summarise(report.sweep.runs))
    test = stats.ttest_rel(*(_column(runs, arm, key) for arm in ("mixed-0.25", str(verdict.best_baseline))))
    shown = _table(report.text, "mixed-0.25 minus")
    said = {arm: cells[-1] for arm, cells in shown.items()}
    assert said.pop(str(verdict.best_baseline)) == p_value(float(test.pvalue)), "of one synthetic arm"
    assert set(said.values()) == {"n/a"}, "the verdict does not measure by it"
    assert "p is of balanced accuracy, class prior corrected" in report.text


def test_the_comparison_begins_with_the_verdict(sweep: Path) -> None:
    assert write_report(sweep).text.startswith("# Comparison\n\nNot judged: val/acc is missing")


SOME = [Arm("real_only", 0.80), Arm("classical", 0.84), *(Arm("mixed", 0.87, f, "synthetic") for f in (0.25, 0.5))]


def test_text_and_page_have_the_same_p_values(tmp_path: Path) -> None:
    report = write_report(write_sweep(tmp_path / "sweep", SOME, noise=0.02))
    page = (report.folder / "report.html").read_text(encoding="utf-8").replace("\u00a0", " ")
    (verdict,) = judge_each(summarise(report.sweep.runs))
    for arm in ("mixed-0.25", "mixed-0.5"):
        for reference in ("real_only", "classical"):
            found = verdict.comparison(arm, reference)
            assert found is not None
            said = p_value(found.p_holm)
            assert _table(report.text, f"{arm} minus")[reference][-1] == said
            assert f"p {said} (Holm)".replace("<", "&lt;") in page


def test_tasks_are_compared_apart_each_by_its_own_metric(tmp_path: Path) -> None:
    folders = []
    for shots in (5, 10):
        arms = [replace(arm, overrides=(f"real.shots={shots}",)) for arm in SOME]
        folders.append(write_sweep(tmp_path / str(shots), arms, seeds=3, config={"real": {"shots": shots}}))
    for path in folders[1].glob("*/classes.json"):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"train_counts": [10] * 10, "rare": []}))
    text = write_reports(folders, tmp_path / "report").text
    few, many = (part.split("\n", 1) for part in text.split("\n## ")[1:])
    assert (few[0], many[0]) == ("5", "10")
    assert "10/" not in few[1]
    assert "5/" not in many[1].replace("0.25", "").replace("0.5", "")
    assert "accuracy, %" not in few[1].replace("balanced accuracy, %", "").replace("classes' accuracy, %", "")
    assert "| accuracy, % | the same, prior corrected, % |" in many[1]
    assert "p is of accuracy, class prior corrected" in many[1]


def _interrupted(tmp_path: Path, *unread: str) -> Path:
    """A sweep of arms in folders as an ablation names them, those of some without what runs leave."""
    folder = tmp_path / "sweep"
    names = []
    for number, path in enumerate(sorted(write_sweep(folder, SOME, seeds=3).glob("*/metrics.json"))):
        arm = OmegaConf.load(path.parent / ".hydra" / "overrides.yaml")[0].partition("=")[2]
        name = f"{arm}.0123abcd/seed-{number}"
        (folder / name).parent.mkdir(exist_ok=True)
        path.parent.rename(folder / name)
        names.append(name)
    (folder / "jobs.json").write_text(json.dumps({"overrides": [], "folders": [*names, *unread]}))
    return folder


def test_a_sweep_that_was_stopped_says_beside_the_verdict_which_arms_are_not_whole(tmp_path: Path) -> None:
    report = write_report(_interrupted(tmp_path, "gan-0.5.01234567/seed-0", "gan-0.5.01234567/seed-1"))
    page = (report.folder / "report.html").read_text(encoding="utf-8")
    warning = "The sweep is not complete: 2 runs of gan-0.5 have not been run."
    sentence = next(line for line in report.text.splitlines() if "synthetic data" in line.lower())
    assert report.text.split(sentence)[1].startswith(f"\n\n- Warning: {warning}")
    assert warning in page.split('class="warnings"')[1].split("</ul>")[0]
    assert "In no figure above: 2 runs were not run" in report.text


def test_an_arm_whose_runs_all_failed_is_said_beside_the_verdict(tmp_path: Path) -> None:
    folder = _interrupted(tmp_path, "mixup.01234567/seed-0", "classical.0123abcd/seed-9")
    for name in ("mixup.01234567/seed-0", "classical.0123abcd/seed-9"):
        write_failed(folder / name, RuntimeError("gone"), ["arm=any"])
    text = write_report(folder).text
    assert "- Warning: Left out, as none of their runs came to its end: mixup." in text
    assert "not complete" not in text
    assert "In no figure above: 2 runs failed" in text
