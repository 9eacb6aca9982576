from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from training_toys import Images, Noise, RealModule, Recorder, prefilled, trainer

import lightning_diffaug.start
from lightning_diffaug import DiffAugDataModule
from lightning_diffaug.pictures import draw_grid, draw_samples


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


def test_a_text_stands_below_its_image(tmp_path: Path) -> None:
    def shown(text: str) -> np.ndarray[Any, Any]:
        white = [(torch.ones(1, 8, 8), text), (torch.ones(1, 8, 8), "")]
        path = draw_grid([("", (("", white),))], tmp_path / "grid.png", per_part=2)
        return np.asarray(Image.open(path).convert("L"))

    without, some, long = shown(""), shown("seven"), shown("seven " * 100)
    assert without.shape == some.shape == long.shape
    assert (without < 128).sum() == 0 < (some < 128).sum() < (long < 128).sum()
    rows, columns = np.nonzero(some < 128)
    height, width = some.shape
    assert rows.min() > height / 2
    assert columns.max() < width / 2
    assert (shown("from $5_{ to $10") < 128).sum() > 0, "no formula"


class Counted(Images):
    """Says which of its samples are read."""

    def __init__(self, n: int) -> None:
        super().__init__(n)
        self.read: set[int] = set()

    def __getitem__(self, index: int) -> Any:
        self.read.add(index)
        return super().__getitem__(index)


Trained = Callable[..., tuple[DiffAugDataModule, Counted]]


@pytest.fixture
def trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Trained:
    """Makes a fit with a pool that is there, and with data that are too many to be copied."""
    monkeypatch.setattr(lightning_diffaug.start, "NoRefill", prefilled([0, 1]))

    def fit(fraction: float = 0.5) -> tuple[DiffAugDataModule, Counted]:
        train = Counted(90)
        mixed = DiffAugDataModule(
            RealModule(train), Noise(), fraction, refill="none", balance="classes", window=32, slot_size=16,
            cache_dir=tmp_path / "cache", snapshot_limit=1,
        )  # fmt: skip
        trainer(tmp_path, limit_train_batches=1).fit(Recorder(), mixed)
        train.read.clear()
        return mixed, train

    return fit


def test_a_picture_reads_a_few_samples_of_each_class_and_copies_no_data(trained: Trained, tmp_path: Path) -> None:
    mixed, train = trained()
    path = draw_samples(mixed, tmp_path / "samples.png")
    assert path is not None
    assert path.is_file()
    assert train.read == set(range(18)), "six of each of three classes"


def test_without_a_pool_no_sample_is_read(trained: Trained, tmp_path: Path) -> None:
    mixed, train = trained(fraction=0.0)
    assert draw_samples(mixed, tmp_path / "samples.png") is None
    assert not train.read


def test_a_picture_shows_what_of_the_window_is_still_whole(
    trained: Trained, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    mixed, _ = trained()
    pool = mixed.pool
    assert pool is not None
    damaged, whole = mixed.window_slots
    pool.path(damaged).write_bytes(b"no shard")
    assert draw_samples(mixed, tmp_path / "samples.png") is not None
    pool.path(whole).unlink()
    assert draw_samples(mixed, tmp_path / "none.png") is None
    assert "is not drawn" not in caplog.text, "there is nothing to draw"


def _gone(dataset: Any, index: int) -> Any:
    raise OSError("the drive is gone")


@pytest.mark.parametrize("how", ["dataset", "disk"])
def test_a_picture_that_cannot_be_drawn_is_a_warning(
    how: str,
    trained: Trained,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    mixed, _ = trained()
    if how == "dataset":
        monkeypatch.setattr(Counted, "__getitem__", _gone)
    folder = tmp_path if how == "dataset" else tmp_path / "gone"
    assert draw_samples(mixed, folder / "samples.png") is None
    (said,) = [record for record in caplog.records if "is not drawn" in record.getMessage()]
    assert said.levelno == logging.WARNING
    assert ("the drive is gone" if how == "dataset" else "gone") in said.getMessage()
