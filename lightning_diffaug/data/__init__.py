"""Real data sets as LightningDataModules, and classical augmentation."""

from lightning_diffaug.data.augment import SmallAffine, classical
from lightning_diffaug.data.base import RealDataModule, Splits
from lightning_diffaug.data.dataset import ImageDataset
from lightning_diffaug.data.digits import DigitsDataModule

__all__ = [
    "DigitsDataModule",
    "ImageDataset",
    "RealDataModule",
    "SmallAffine",
    "Splits",
    "classical",
]
