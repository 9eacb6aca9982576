"""Sweeps that are judged by another metric than one of classification: a distance, an error in seconds, a share."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from omegaconf import OmegaConf
from scipy import stats

from lightning_diffaug.ablation.best_fraction import best_fractions
from lightning_diffaug.ablation.findings import find
from lightning_diffaug.ablation.metric import chosen_metric, metric_of
from lightning_diffaug.ablation.numbers import as_difference, in_units
from lightning_diffaug.ablation.report import write_report
from lightning_diffaug.ablation.runs import read_sweep
from lightning_diffaug.ablation.statistics import Difference, Estimate
from lightning_diffaug.ablation.summary import summarise
from lightning_diffaug.errors import ConfigurationError

Means = Mapping[float, float]


def _sweep(folder: Path, name: str, means: Means, noise: float, seeds: int = 5, **more: float) -> Path:
    """A plain multirun over fractions and seeds, of a task without classes: no classes.json, no predictions."""
    rng = np.random.default_rng(0)
    of_seed = rng.normal(0, noise, seeds)
    for number, (fraction, seed) in enumerate((f, s) for f in means for s in range(seeds)):
        run = folder / str(number)
        (run / ".hydra").mkdir(parents=True)
        overrides = ["experiment=own", f"data.synthetic_fraction={fraction}", f"seed={seed}"]
        OmegaConf.save(OmegaConf.create(overrides), run / ".hydra" / "overrides.yaml")
        config = {"seed": seed, "arm_name": None, "data": {"synthetic_fraction": fraction}}
        OmegaConf.save(OmegaConf.create(config), run / "config.yaml")
        value = means[fraction] + of_seed[seed]
        figures = {f"{part}/{name}": value + rng.normal(0, noise / 4) for part in ("val", "test")}
        figures |= {"train/steps": 600.0, "test/evaluations": 1.0, "mix/requested_fraction": fraction}
        figures |= {f"test/{key.replace('__', '/')}": given for key, given in more.items()}
        figures |= {"cost/fit_seconds": 40.0 * (fraction > 0), "cost/generator_seconds": 5.0 * (fraction > 0)}
        (run / "metrics.json").write_text(json.dumps(figures))
    return folder


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize(
    ("name", "means", "noise", "kind", "said"),
    [
        ("chamfer", {0.0: 0.02, 0.5: 0.015}, 0.0004, "helps", "Synthetic data help by 0.00"),
        ("chamfer", {0.0: 0.015, 0.5: 0.02}, 0.0004, "harms", "Synthetic data harm"),
        ("chamfer", {0.0: 0.02, 0.5: 0.02}, 0.0004, "no_evidence", "No evidence"),
        ("sync_error", {0.0: 0.08, 0.5: 0.05}, 0.002, "helps", " s at fraction 0.5 (synchronisation error, lower is"),
        ("miou", {0.0: 0.5, 0.5: 0.6}, 0.01, "helps", "points at fraction 0.5 (mean IoU; as scored"),
        ("miou", {0.0: 0.6, 0.5: 0.5}, 0.01, "harms", "Synthetic data harm"),
    ],
)
def test_what_is_planted_is_found_whichever_way_the_metric_goes(
    tmp_path: Path, name: str, means: Means, noise: float, kind: str, said: str
) -> None:
    (found,) = find(summarise(read_sweep(_sweep(tmp_path, name, means, noise)).runs))
    assert found.metric.name == name
    assert found.verdict.kind == kind, found.verdict.sentence
    assert said in found.verdict.sentence
    assert "corrected;" not in found.verdict.sentence


@pytest.mark.parametrize("sign", [1, -1])
def test_the_best_fraction_is_where_the_metric_is_best(tmp_path: Path, sign: int) -> None:
    means = {f: 0.5 - sign * 0.8 * f * (1 - f) for f in (0.0, 0.25, 0.5, 0.75, 1.0)}
    arms = summarise(read_sweep(_sweep(tmp_path, "own", means, 0.002)).runs)
    (found,) = best_fractions(arms, metric_of("lower:own" if sign > 0 else "higher:own"))
    assert found.best == pytest.approx(0.5, abs=0.05)
    assert dict(zip(found.fractions, found.means, strict=True))[0.5] == pytest.approx(means[0.5], abs=0.01)


def test_of_several_fractions_the_one_of_least_distance_on_validation_is_judged(tmp_path: Path) -> None:
    arms = summarise(read_sweep(_sweep(tmp_path, "chamfer", {0.0: 0.02, 0.25: 0.012, 0.5: 0.016}, 0.0004)).runs)
    (found,) = find(arms)
    assert found.verdict.fraction == 0.25
    assert "a fit that only falls and then rises is lowest at 0.25" in found.best[0].sentence
    gain = next(c for c in found.costs if c.arm == found.verdict.arm).gain
    if gain is not None:
        assert gain.mean == pytest.approx(0.008, abs=0.001)


def test_a_report_of_a_distance_recomputes_from_its_runs(tmp_path: Path) -> None:
    sweep = _sweep(tmp_path / "sweep", "chamfer", {0.0: 0.02, 0.5: 0.015}, 0.0004, chamfer_trivial=0.03)
    report = write_report(sweep)
    runs, summary = _rows(report.folder / "runs.csv"), _rows(report.folder / "summary.csv")
    for row in summary:
        values = [float(run["test/chamfer"]) for run in runs if run["arm"] == row["arm"]]
        low, high = stats.t.interval(0.95, len(values) - 1, np.mean(values), stats.sem(values))
        found = [float(row[key]) for key in ("mean", "ci95_low", "ci95_high")]
        assert found == pytest.approx([np.mean(values), low, high])
        assert row["metric"] == "test/chamfer"
        assert row["chamfer_mean"] == row["mean"]
    text = (report.folder / "report.html").read_text(encoding="utf-8")
    assert "chamfer distance (lower is better)" in text
    assert "(test/chamfer_trivial): 0.0300" in text
    assert "trivial: chance or a mean" in text
    for absent in ("Classes</h3>", "class prior corrected", "chamfer distance, %", "With a modality missing", "points"):
        assert absent not in text, absent
    assert (report.folder / "score_against_fraction.svg").is_file()
    assert not (report.folder / "accuracy_against_fraction.svg").exists()
    assert "chamfer distance (lower is better)" in report.text


def test_scores_without_a_modality_have_a_table(tmp_path: Path) -> None:
    more: dict[str, Any] = {
        "acc": 0.9,
        "acc_without_audio": 0.6,
        "acc_without_video": 0.7,
        "sync_error_without_video": 0.25,
    }
    config_of = _sweep(tmp_path / "sweep", "sync_error", {0.0: 0.08, 0.5: 0.05}, 0.002, **more)
    report = write_report(config_of, metric="sync_error")
    text = (report.folder / "report.html").read_text(encoding="utf-8")
    part = text[text.index("With a modality missing") :]
    part = part[: part.index("</section>")]
    assert [name in part for name in ("without audio", "without video", "60.0 ± 0.0", "70.0 ± 0.0")] == [True] * 4
    assert part.index("synchronisation error, s (lower is better)") < part.index("accuracy, %")
    assert "### With a modality missing: accuracy" in report.text
    (row, _) = _rows(report.folder / "summary.csv")
    assert (row["mean"], row["metric"]) == ("0.9", "test/acc")


def test_a_corrected_score_stands_behind_its_own_alone(tmp_path: Path) -> None:
    corrected = {"acc_balanced_corrected": 0.8, "acc_corrected": 0.7}
    sweep = _sweep(tmp_path / "sweep", "sync_error", {0.0: 0.08, 0.5: 0.05}, 0.002, acc=0.9, **corrected)
    heading = next(line for line in write_report(sweep).text.splitlines() if line.startswith("| arm "))
    assert heading.count("the same, prior corrected") == 1


def test_models_with_and_without_modality_dropout_stand_in_one_table(tmp_path: Path) -> None:
    sweep = _sweep(tmp_path / "sweep", "acc", {0.0: 0.9}, 0.01, seeds=6, acc_without_audio=0.6)
    for number in range(6):
        path = sweep / str(number) / ".hydra" / "overrides.yaml"
        OmegaConf.save([*OmegaConf.load(path), f"model.modality_dropout={0.3 * (number % 2)}"], path)
    text = write_report(sweep).text
    part = text[text.index("### With a modality missing") :]
    assert part.count("### With a modality missing") == 1
    assert all(f"(model.modality_dropout={rate})" in part for rate in ("0.0", "0.3"))


def test_the_arm_judged_is_held_against_real_data_with_its_own_modality_dropout(tmp_path: Path) -> None:
    sweep = _sweep(tmp_path / "sweep", "acc", {0.0: 0.8, 0.5: 0.8}, 0.001)
    for number in range(10, 20):  # the same again with another dropout, which is worth ten points
        old, new = (sweep / str(n) for n in (number - 10, number))
        shutil.copytree(old, new)
        for run, rate in ((old, 0.0), (new, 0.3)):
            path = run / ".hydra" / "overrides.yaml"
            OmegaConf.save([*OmegaConf.load(path), f"model.modality_dropout={rate}"], path)
        figures = json.loads((new / "metrics.json").read_text())
        better = {key: value + 0.1 if key.endswith("/acc") else value for key, value in figures.items()}
        (new / "metrics.json").write_text(json.dumps(better))
    (found,) = find(summarise(read_sweep(sweep).runs))
    assert found.verdict.arm == "mixed-0.5 (model.modality_dropout=0.3)"
    assert found.verdict.real_only == "real (model.modality_dropout=0.3)"


def test_the_metric_of_the_task_is_the_default_and_another_one_says_its_direction(tmp_path: Path) -> None:
    runs = read_sweep(_sweep(tmp_path, "recall_at_1", {0.0: 0.2, 0.5: 0.3}, 0.01)).runs
    assert chosen_metric(runs).name == "recall_at_1"
    own = metric_of("lower:loss")
    assert (own.key("val"), own.lower, own.share) == ("val/loss", True, False)
    for refused in ("loss", "sideways:loss", "lower:"):
        with pytest.raises(ConfigurationError, match=r"ablation\.metric=.*lower:<name>"):
            metric_of(refused)
    with pytest.raises(ConfigurationError, match="chamfer distance is better when it is lower"):
        metric_of("higher:chamfer")


def test_numbers_that_are_no_share_have_as_many_digits_as_their_interval_has() -> None:
    assert in_units(Estimate(5, 0.006314, 0.005894, 0.006734)) == "0.00631 ± 0.00042"
    assert in_units(Estimate(5, 6.314e-6, 5.894e-6, 6.734e-6)) == "(6.31 ± 0.42)e-06"
    assert in_units(Estimate(1, 0.0123456)) == "0.0123"
    assert in_units(None) == "n/a"
    assert in_units(Estimate(5, 0.028, 0.028 - 3e-18, 0.028 + 3e-18)) == "0.028 ± 0"
    assert as_difference(Difference(5, -0.031, -0.034, -0.028), metric_of("sync_error")) == "-0.0310 ± 0.0030 s"
    assert as_difference(Difference(5, 0.021, 0.012, 0.030), metric_of("miou")) == "+2.1 ± 0.9 points"


def test_tables_of_every_way_of_a_metric_are_parsed(tmp_path: Path) -> None:
    kinds: Sequence[str] = ("map", "recall_at_5")
    for name in kinds:
        report = write_report(_sweep(tmp_path / name, name, {0.0: 0.2, 0.5: 0.3}, 0.01, seeds=3))
        assert metric_of(name).heading in (report.folder / "report.html").read_text(encoding="utf-8")
