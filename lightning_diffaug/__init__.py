"""Synthetic samples from a diffusion model as ordinary training data in PyTorch Lightning."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lightning_diffaug.datamodule import DiffAugDataModule
    from lightning_diffaug.generators import DiffusionGenerator
    from lightning_diffaug.pool import SyntheticPool

__version__ = "0.1.0"
__all__ = ["DiffAugDataModule", "DiffusionGenerator", "SyntheticPool", "__version__"]

_HOMES = {"DiffAugDataModule": "datamodule", "DiffusionGenerator": "generators", "SyntheticPool": "pool"}


def __getattr__(name: str) -> Any:
    # lazily, so that a refill process does not import Lightning
    if name in _HOMES:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
