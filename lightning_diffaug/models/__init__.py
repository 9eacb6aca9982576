"""The demo's LightningModules."""

from lightning_diffaug.models.classifier import ImageClassifier
from lightning_diffaug.models.completion import CloudCompletion
from lightning_diffaug.models.dual_encoder import DualEncoder
from lightning_diffaug.models.segmenter import SegmentationModel
from lightning_diffaug.models.streams import StreamsModel

__all__ = ["CloudCompletion", "DualEncoder", "ImageClassifier", "SegmentationModel", "StreamsModel"]
