"""Real data sets as LightningDataModules, and classical augmentation."""

from lightning_diffaug.data.aligned import AlignedDataModule, AlignedDataset, AlignedSplits
from lightning_diffaug.data.audio import AudioDataModule
from lightning_diffaug.data.audio_video import AudioVideoDataModule
from lightning_diffaug.data.augment import SmallAffine, classical
from lightning_diffaug.data.base import RealDataModule
from lightning_diffaug.data.dataset import ImageDataset
from lightning_diffaug.data.digits import DigitsDataModule
from lightning_diffaug.data.image_folder import ImageFolderDataModule
from lightning_diffaug.data.image_text import ImageTextDataModule
from lightning_diffaug.data.mask_boxes import MaskBoxes
from lightning_diffaug.data.point_augment import CloudAugment, ScanOf
from lightning_diffaug.data.point_cloud import PointCloudDataModule
from lightning_diffaug.data.policies import autoaugment, randaugment, trivialaugment
from lightning_diffaug.data.segmentation import SegmentationDataModule
from lightning_diffaug.data.sound_augment import SoundAugment
from lightning_diffaug.data.split_module import Splits
from lightning_diffaug.data.torchvision_sets import TorchvisionDataModule

__all__ = [
    "AlignedDataModule",
    "AlignedDataset",
    "AlignedSplits",
    "AudioDataModule",
    "AudioVideoDataModule",
    "CloudAugment",
    "DigitsDataModule",
    "ImageDataset",
    "ImageFolderDataModule",
    "ImageTextDataModule",
    "MaskBoxes",
    "PointCloudDataModule",
    "RealDataModule",
    "ScanOf",
    "SegmentationDataModule",
    "SmallAffine",
    "SoundAugment",
    "Splits",
    "TorchvisionDataModule",
    "autoaugment",
    "classical",
    "randaugment",
    "trivialaugment",
]
