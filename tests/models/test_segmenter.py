"""The learner of masks: it learns to tell two classes, and its figures are those of the confusion counted by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from torch import Tensor
from torch.utils.data import DataLoader

from lightning_diffaug.errors import ConfigurationError
from lightning_diffaug.models import SegmentationModel

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*does not have many workers", "ignore:.*smaller than the logging interval", "ignore:.*no `val_dataloader`"
)


def scenes(n: int, seed: int) -> list[dict[str, Any]]:
    """A bright square is class 1, a dark one class 2."""
    rng = torch.Generator().manual_seed(seed)
    found = []
    for i in range(n):
        image, mask = torch.full((1, 16, 16), 0.5), torch.zeros(16, 16, dtype=torch.int64)
        y, x = torch.randint(0, 9, (2,), generator=rng).tolist()
        image[:, y : y + 7, x : x + 7] = 1.0 if i % 2 else 0.0
        mask[y : y + 7, x : x + 7] = 1 if i % 2 else 2
        found.append({"image": image, "mask": mask})
    return found


def trainer(epochs: int = 1) -> Trainer:
    return Trainer(
        max_epochs=epochs, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False,
    )  # fmt: skip


def test_it_finds_squares_and_their_boxes() -> None:
    pytest.importorskip("pycocotools")
    torch.manual_seed(0)
    model, runner = SegmentationModel(3, ["nothing", "bright", "dark"], width=8), trainer(25)
    runner.fit(model, DataLoader(scenes(32, 0), batch_size=16, shuffle=True))
    (figures,) = runner.test(model, DataLoader(scenes(16, 1), batch_size=8), verbose=False)
    assert figures["test/miou"] > 0.8
    assert figures["test/map"] > 0.5
    assert figures["test/miou_trivial"] == pytest.approx((256 - 49) / 256 / 3)
    of_classes = [figures[f"test/iou_{name}"] for name in ("nothing", "bright", "dark")]
    assert figures["test/miou"] == pytest.approx(sum(of_classes) / 3)


class Told(SegmentationModel):
    """Sees what the image says: its values are the classes."""

    def forward(self, image: Tensor) -> Tensor:
        return torch.nn.functional.one_hot(image[:, 0].long(), 3).movedim(-1, 1).float() * 10


def test_figures_are_counted_over_all_pixels_and_only_of_classes_that_there_are() -> None:
    pytest.importorskip("pycocotools")
    mask = torch.zeros(1, 8, 8, dtype=torch.int64)
    mask[0, :4, :4] = 1
    seen = mask.float()
    seen[0, :4, 2:4] = 0.0  # half of it is missed
    batch = {"image": seen, "mask": mask[0]}
    (figures,) = trainer().test(Told(3), DataLoader([batch, batch], batch_size=1), verbose=False)
    assert figures["test/miou"] == pytest.approx((8 / 16 + 48 / 56) / 2)
    assert figures["test/miou_trivial"] == pytest.approx(48 / 64 / 2)
    assert "test/iou_2" not in figures
    assert figures["test/map"] == pytest.approx(0.1, abs=0.01)  # a box of half the size: right at IoU 0.5 alone


def test_void_pixels_count_for_nothing_and_boxes_of_the_batch_are_the_right_ones(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("pycocotools")
    mask = torch.zeros(1, 8, 8, dtype=torch.int64)
    mask[0, :4, :4] = 1
    seen = mask.float()
    mask[0, :, 6:] = -100
    seen[0, :, 6:] = 2.0  # whatever it finds there
    batch = {
        "image": seen[None], "mask": mask, "boxes": [torch.tensor([[0.0, 0.0, 4.0, 2.0], [0.0, 2.0, 4.0, 4.0]])],
        "labels": [torch.tensor([1, 1])],
    }  # fmt: skip
    (figures,) = trainer().test(Told(3), DataLoader([batch], batch_size=None), verbose=False)
    assert figures["test/miou"] == 1.0
    assert figures["test/miou_trivial"] == pytest.approx(32 / 48 / 2)
    assert 0 < figures["test/map"] < 0.2, "one box around both, and IoU 0.5 is right alone"
    model = Told(3)
    monkeypatch.setattr(model, "log", lambda *_, **__: None)  # it has no trainer
    wrong = seen.clone()
    wrong[0, 7, 7] = 1.0
    losses = [float(model.training_step({**batch, "image": one[None]}, 0)) for one in (seen, wrong)]
    assert losses[0] == losses[1]
    nothing = {**batch, "image": seen[None], "mask": torch.full_like(mask, -100)}
    assert float(model.training_step(nothing, 0)) == 0.0


def test_without_an_object_there_is_no_precision() -> None:
    pytest.importorskip("pycocotools")
    batch = {"image": torch.zeros(1, 1, 8, 8), "mask": torch.zeros(1, 8, 8, dtype=torch.int64)}
    (figures,) = trainer().test(Told(3), DataLoader([batch], batch_size=None), verbose=False)
    assert "test/map" not in figures


def test_an_object_that_is_found_up_to_its_void_edge_is_found() -> None:
    pytest.importorskip("pycocotools")
    mask = torch.zeros(1, 12, 12, dtype=torch.int64)
    mask[0, 2:9, 2:9] = -100
    mask[0, 3:8, 3:8] = 1
    seen = torch.zeros(1, 1, 12, 12)
    seen[0, 0, 2:9, 2:9] = 1.0
    (figures,) = trainer().test(Told(3), DataLoader([{"image": seen, "mask": mask}], batch_size=None), verbose=False)
    assert (figures["test/miou"], figures["test/map"]) == (1.0, pytest.approx(1.0))


def test_settings_out_of_range_are_refused() -> None:
    for wrong in ({"num_classes": 1}, {"num_classes": 2, "class_names": ["a"]}, {"num_classes": 2, "lr": 0.0}):
        with pytest.raises(ConfigurationError, match=r"model\."):
            SegmentationModel(**wrong)
