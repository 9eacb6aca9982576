"""Denoisers: networks that map (x_t, t, condition) to a prediction."""

from lightning_diffaug.generators.denoisers.architecture import (
    DENOISERS,
    Architecture,
    check_denoiser,
    source_of_denoiser,
)
from lightning_diffaug.generators.denoisers.base import Denoiser, FittedDenoiser
from lightning_diffaug.generators.denoisers.conditioning import (
    KINDS,
    Conditions,
    ConditionSpec,
    check_condition,
    class_condition,
    null_condition,
)
from lightning_diffaug.generators.denoisers.unet import UNetDenoiser, check_channels

__all__ = [
    "DENOISERS",
    "KINDS",
    "Architecture",
    "ConditionSpec",
    "Conditions",
    "Denoiser",
    "FittedDenoiser",
    "UNetDenoiser",
    "check_channels",
    "check_condition",
    "check_denoiser",
    "class_condition",
    "null_condition",
    "source_of_denoiser",
]
