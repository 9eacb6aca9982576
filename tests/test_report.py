from __future__ import annotations

import json
from pathlib import Path

import pytest

from lightning_diffaug.report import print_table, write_metrics


def test_metrics_are_one_flat_object(tmp_path: Path) -> None:
    path = write_metrics({"b/c": 2.0, "a": 1.5}, tmp_path)
    assert json.loads(path.read_text()) == {"a": 1.5, "b/c": 2.0}
    assert path.name == "metrics.json"


def test_the_table_says_what_was_asked_and_achieved_in_all_and_per_class(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    figures = {
        "mix/requested_fraction": 0.25,
        "mix/achieved_fraction": 0.249,
        "mix/synthetic_fraction_class_cat": 0.5,
        "mix/synthetic_fraction_class_dog": 0.0,
        "mix/reuse": 2.5,
        "mix/reuse_class_big_cat": 14.0,
        "mix/reuse_class_dog": 1.0,
    }
    print_table(figures, tmp_path)
    text = capsys.readouterr().out
    assert "2.50 on average, 14.00 of class big_cat" in text
    assert "0.2500" in text
    assert "0.2490" in text
    assert "cat 0.500, dog 0.000" in text
    assert str(tmp_path) in text


@pytest.mark.parametrize(("achieved", "flagged"), [(0.2494, False), (0.2, True), (0.0, True)])
def test_a_fraction_that_is_not_the_one_asked_for_is_marked(
    achieved: float, flagged: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    print_table({"mix/requested_fraction": 0.25, "mix/achieved_fraction": achieved}, tmp_path)
    (row,) = [line for line in capsys.readouterr().out.splitlines() if f"{achieved:.4f}" in line]
    assert ("data.when_short" in row) == flagged


def test_shares_of_hundreds_of_classes_do_not_flood_the_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    print_table({f"mix/synthetic_fraction_class_{c}": 0.5 for c in range(300)}, tmp_path, tmp_path / "pool")
    text = capsys.readouterr().out
    assert len(text) < 400
    assert "300 classes are in metrics.json" in text
    assert str(tmp_path / "pool") in text
