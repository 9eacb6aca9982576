"""The demo's LightningModules."""

from lightning_diffaug.models.classifier import ImageClassifier
from lightning_diffaug.models.dual_encoder import DualEncoder

__all__ = ["DualEncoder", "ImageClassifier"]
