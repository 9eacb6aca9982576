from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from torch.utils.data import DataLoader

from lightning_diffaug.errors import ConfigurationError
from lightning_diffaug.models import CloudCompletion
from lightning_diffaug.points import chamfer_distance, mean_cloud


def _planes(n: int, seed: int) -> list[dict[str, Any]]:
    """Sloping planes, seen at a few points; the class is whether they rise along x."""
    rng = torch.Generator().manual_seed(seed)
    samples: list[dict[str, Any]] = []
    for _ in range(n):
        slope = torch.rand(2, generator=rng) * 2 - 1
        points = torch.rand(48, 2, generator=rng) * 2 - 1
        cloud = torch.cat([points, points @ slope[:, None]], 1)
        samples.append({"cloud": cloud[:40], "scan": cloud[40:], "label": int(slope[0] > 0)})
    return samples


@pytest.mark.parametrize("classes", [0, 2])
def test_it_learns_what_a_mean_cannot_say(classes: int, tmp_path: Path) -> None:
    torch.manual_seed(0)
    train, test = _planes(64, 0), _planes(32, 1)
    mean = mean_cloud(torch.stack([sample["cloud"] for sample in train]), 40)
    model = CloudCompletion(mean.tolist(), classes, width=32, depth=1, label_weight=0.1, lr=1e-2)
    trainer = Trainer(
        max_epochs=40, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, default_root_dir=tmp_path,
    )  # fmt: skip
    trainer.fit(model, DataLoader(train, 16, shuffle=True), DataLoader(test, 32))
    assert "val/chamfer" in trainer.callback_metrics
    (figures,) = trainer.test(model, DataLoader(test, 32), verbose=False)
    assert figures["test/chamfer"] < 0.8 * figures["test/chamfer_trivial"]
    if classes:
        assert figures["test/acc"] > 0.85
        counts = torch.bincount(torch.tensor([sample["label"] for sample in test]))
        assert figures["test/acc_trivial"] == pytest.approx(float(counts.max()) / 32)
    else:
        assert "test/acc" not in figures


def test_its_figures_are_of_all_samples_however_they_are_batched(tmp_path: Path) -> None:
    test = _planes(10, 2)
    clouds, scans = (torch.stack([sample[name] for sample in test]) for name in ("cloud", "scan"))
    model = CloudCompletion(clouds[0].tolist(), 2).eval()
    trainer = Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, default_root_dir=tmp_path)
    (figures,) = trainer.test(model, DataLoader(test, 4), verbose=False)
    mean = chamfer_distance(clouds[:1].expand(10, -1, -1), clouds).mean().item()
    assert figures["test/chamfer"] == pytest.approx(mean, rel=1e-4)  # it begins as the mean
    trivial = min(mean, chamfer_distance(scans, clouds).mean().item())
    assert figures["test/chamfer_trivial"] == pytest.approx(trivial, rel=1e-4)


def test_order_and_number_of_the_scans_points_do_not_matter() -> None:
    torch.manual_seed(0)
    model = CloudCompletion(torch.rand(12, 3).tolist()).eval()
    torch.nn.init.normal_(model.move.weight)
    scan = torch.rand(2, 7, 3)
    torch.testing.assert_close(model(scan), model(scan.flip(1)))
    assert model(scan[:, :3]).shape == (2, 12, 3)
    assert not torch.allclose(model(scan), model(scan + 0.5))


@pytest.mark.parametrize(
    ("wrong", "key"),
    [
        ({"mean_cloud": [[0.0, 1.0]]}, "mean_cloud"), ({"width": 30}, "heads"), ({"lr": 0.0}, "lr"),
        ({"depth": 0}, "depth"),
    ],
)  # fmt: skip
def test_settings_out_of_range_name_their_key(wrong: dict[str, Any], key: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"model\.{key}"):
        CloudCompletion(**{"mean_cloud": [[0.0, 0.0, 0.0]], **wrong})
