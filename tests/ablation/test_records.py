from __future__ import annotations

import csv
import json
import logging
from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from written_sweep import Arm, write_sweep

from lightning_diffaug.ablation.drawings import of_classes
from lightning_diffaug.ablation.fidelity_records import fidelity_of
from lightning_diffaug.ablation.findings import find
from lightning_diffaug.ablation.learning_curves import learning_curve
from lightning_diffaug.ablation.markup import data, element, table
from lightning_diffaug.ablation.runs import read_sweep
from lightning_diffaug.ablation.summary import ArmSummary, summarise

ARM = Arm("mixed", 0.9, 0.25, "synthetic")


def _arms(folder: Path, *arms: Arm, seeds: int = 3, config: object = None) -> list[ArmSummary]:
    return summarise(read_sweep(write_sweep(folder / "sweep", arms or (ARM,), seeds, config=config)).runs)


def test_a_learning_curve_is_the_mean_over_runs_at_steps_done(tmp_path: Path) -> None:
    (arm,) = _arms(tmp_path)
    written = []
    for run in arm.runs_of:
        with (run.path / "csv" / "metrics.csv").open(newline="") as file:
            written.append([float(row["val/acc"]) for row in csv.DictReader(file) if row["val/acc"]])
    curve = learning_curve(arm.runs_of, "val/acc")
    assert [step for step, _ in curve][-1] == 600
    for (_, found), values in zip(curve, np.array(written).T, strict=True):
        assert found.mean == pytest.approx(values.mean())
        assert found.low == pytest.approx(stats.ttest_1samp(values, 0).confidence_interval(0.95).low)


def test_a_score_after_the_run_is_one_at_its_last_step(tmp_path: Path) -> None:
    (arm,) = _arms(tmp_path, seeds=1)
    with (arm.runs_of[0].path / "csv" / "metrics.csv").open("a") as file:
        file.write("9,600,,0.5,0.5\n")
    step, last = learning_curve(arm.runs_of, "val/acc")[-1]
    assert (step, last.mean) == (600, 0.5)
    assert learning_curve(arm.runs_of, "val/other") == []


def test_fidelity_is_the_mean_over_runs(tmp_path: Path) -> None:
    (arm,) = _arms(tmp_path)
    found = fidelity_of(arm)
    assert found is not None
    said = [json.loads((run.path / "fidelity.json").read_text()) for run in arm.runs_of]
    values = [one["figures"]["fidelity/frechet"] for one in said]
    assert found.measured["frechet"].value.mean == pytest.approx(np.mean(values))
    assert found.measured["frechet"].real is not None
    assert found.measured["frechet"].real.mean == 1.2
    assert len(found.per_class) == 10
    assert any("no weights are given" in line for line in found.about)


def test_a_record_that_cannot_be_read_is_left_out_and_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (arm,) = _arms(tmp_path, seeds=1)
    (arm.runs_of[0].path / "fidelity.json").write_text("[]")
    with caplog.at_level(logging.WARNING):
        assert fidelity_of(arm) is None
    assert "left out of the report" in caplog.text


def test_a_class_whose_name_ends_like_a_corrected_figure_is_a_class(tmp_path: Path) -> None:
    figures = {"test/acc_class_odd_corrected": 0.5, "test/acc_class_odd_corrected_corrected": 0.6}
    (arm,) = _arms(tmp_path, Arm("mixed", 0.9, 0.25, "synthetic", metrics=figures), seeds=1)
    prefix = "test/acc_class_"
    assert set(of_classes(arm, prefix)) == {*"0123456789", "odd_corrected"}
    assert of_classes(arm, prefix, corrected=True)["odd_corrected"].mean == 0.6


@pytest.mark.parametrize(
    ("data_settings", "said"),
    [
        ({"refill": {"mode": "sync"}}, "made in step with training"),
        ({"refill": {"mode": "local"}, "reuse": float("inf")}, "frozen before training"),
        ({"refill": {"mode": "local"}, "reuse": 8}, "depends on the machine's speed"),
    ],
)
def test_whether_a_sweep_can_be_repeated_is_said(tmp_path: Path, data_settings: object, said: str) -> None:
    arms = _arms(tmp_path, Arm("real_only", 0.8), ARM, config={"data": data_settings})
    (findings,) = find(arms)
    assert any(said in note for note in findings.notes)
    assert not any("measured seconds" in note for note in findings.notes)


def test_arms_of_equal_time_are_no_part_of_what_can_be_repeated(tmp_path: Path) -> None:
    (findings,) = find(_arms(tmp_path, Arm("real_only", 0.8), Arm("real_only, equal time", 0.8), ARM))
    assert any("same figures again, but for arms of equal time" in note for note in findings.notes)


def test_text_and_attributes_are_escaped_and_data_end_no_element() -> None:
    assert element("a", "<&>", title='"x"').text == '<a title="&quot;x&quot;">&lt;&amp;&gt;</a>'
    assert "<i>" not in table(["<i>"], [["<i>", "<i>"]], "<i>").text
    text = data("x", {"a": ["</script><!--", float("nan"), float("inf"), 1.5]}).text
    assert text.count("</script>") == 1
    assert "<!--" not in text
    assert json.loads(text[text.index(">") + 1 : -len("</script>")]) == {"a": ["</script><!--", None, None, 1.5]}
