"""Images made after real masks, from the data set to the batch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from sklearn.datasets import load_digits
from torch import Tensor
from torch.utils.data import Dataset

from lightning_diffaug import DiffAugDataModule
from lightning_diffaug.generators import DiffusionGenerator


class MaskedDigits(Dataset[Any]):
    """Digits, each with its foreground as a mask."""

    def __init__(self) -> None:
        data = load_digits()
        self.images = torch.from_numpy(data.images / 16).float()[:, None]
        self.masks = (self.images > 0.5).to(torch.uint8)
        self.targets = data.target.tolist()

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, i: int) -> dict[str, Any]:
        return {"image": self.images[i], "mask": self.masks[i], "label": self.targets[i]}


def test_synthetic_images_come_with_the_real_masks_that_they_were_made_after(tmp_path: Path) -> None:
    data = MaskedDigits()
    generator = DiffusionGenerator(
        conditions={"mask": "concat", "label": "class"},
        num_inference_steps=5,
        fit={"steps": 100, "batch_size": 32, "channels": [16, 16], "lr": 5e-3},
    )
    mixed = DiffAugDataModule(
        data, generator, 0.5, fields={"image": "image", "mask": "mask", "label": "label"}, refill="sync",
        batch_size=64, window=128, return_source=True, cache_dir=tmp_path,
    )  # fmt: skip
    try:
        batches = iter(mixed.train_dataloader())
        batch = next(batches)
        assert mixed.pool is not None
        shard = mixed.pool.read(0)
    finally:
        mixed.close()
    made = batch["source"]["is_synthetic"]
    images, masks, labels = (batch[name][made] for name in ("image", "mask", "label"))
    assert len(images) == 32
    assert (masks.dtype, labels.dtype) == (torch.uint8, torch.int64)

    def agreement(masks: Tensor) -> float:
        return float(((images > 0.5) == (masks > 0)).float().mean())

    real = data.masks.flatten(1)
    for mask, label in zip(masks.flatten(1), labels.tolist(), strict=True):  # one of a real digit of that class
        assert any(data.targets[i] == label for i in (real == mask).all(1).nonzero().flatten().tolist())
    assert agreement(masks) > 0.9
    assert agreement(masks) > agreement(masks.roll(1, 0)) + 0.1
    for i, row in enumerate(shard.rows):  # provenance says which digit the mask is of
        assert torch.equal(shard.fields["mask"][i], data.masks[row["source_index"]])
        assert data.targets[row["source_index"]] == int(shard.fields["label"][i])
        assert not torch.equal(shard.fields["image"][i], data.images[row["source_index"]])
