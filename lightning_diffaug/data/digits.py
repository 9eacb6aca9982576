"""scikit-learn's handwritten digits: real data that needs no download."""

from __future__ import annotations

import torch
from typing_extensions import Unpack

from lightning_diffaug.data.base import RealDataModule, RealSettings
from lightning_diffaug.data.dataset import ImageDataset
from lightning_diffaug.data.selection import stratified_split
from lightning_diffaug.data.split_module import Splits


class DigitsDataModule(RealDataModule):
    """1,797 digits of 8×8 grey levels (Alpaydin & Kaynak 1998), split 60 / 15 / 25 by class.

    The 17 grey levels 0..16 are stored as uint8, round(level · 255 / 16): distinct levels stay distinct, so
    nothing is lost, and the pool keeps one byte a pixel.

    Args:
        **settings: see `RealDataModule`.
    """

    SPLIT = (0.6, 0.15, 0.25)

    def __init__(self, **settings: Unpack[RealSettings]) -> None:
        super().__init__(**settings)

    def load(self) -> Splits[ImageDataset]:
        """Reads the digits from scikit-learn's package."""
        from sklearn.datasets import load_digits  # slow to import, and only needed here

        digits = load_digits()
        levels = torch.from_numpy(digits.images)
        images = (levels * 255 / 16).round().to(torch.uint8).unsqueeze(1)
        whole = ImageDataset(images, digits.target.tolist(), [str(name) for name in digits.target_names])
        train, val, test = (whole.select(part) for part in stratified_split(whole.targets, self.SPLIT))
        return Splits(train, val, test)
