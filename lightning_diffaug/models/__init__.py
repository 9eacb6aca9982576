"""The demo's LightningModules."""

from lightning_diffaug.models.classifier import ImageClassifier

__all__ = ["ImageClassifier"]
