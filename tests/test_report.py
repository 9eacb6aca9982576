from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lightning_diffaug.report import draw_grid, print_table, write_metrics


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
    }
    print_table(figures, tmp_path)
    text = capsys.readouterr().out
    assert "0.2500" in text
    assert "0.2490" in text
    assert "cat 0.500, dog 0.000" in text
    assert str(tmp_path) in text


@pytest.mark.parametrize("channels", [1, 3])
def test_the_grid_shows_each_image_at_its_place(channels: int, tmp_path: Path) -> None:
    dark, light = torch.zeros(2, channels, 8, 8), torch.ones(2, channels, 8, 8)
    path = draw_grid([("a", (("real", dark), ("synthetic", light)))], tmp_path / "grid.png", per_part=2)
    pixels = np.asarray(Image.open(path).convert("L"))
    left, right = pixels[:, : pixels.shape[1] // 2], pixels[:, pixels.shape[1] // 2 :]
    assert (left < 10).mean() > 10 * (right < 10).mean()


def test_a_class_without_images_leaves_its_row_empty(tmp_path: Path) -> None:
    none, some = torch.zeros(0, 1, 8, 8, dtype=torch.uint8), torch.zeros(3, 1, 8, 8, dtype=torch.uint8)
    rows = [("a", (("real", some), ("synthetic", none))), ("b", (("real", none), ("synthetic", some)))]
    assert draw_grid(rows, tmp_path / "grid.png").stat().st_size > 0


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
