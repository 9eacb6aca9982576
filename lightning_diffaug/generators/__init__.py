"""How a sample is made: the protocol, the denoising loop, and a diffusion model fitted on the user's data."""

from lightning_diffaug.generators.diffusion import DiffusionGenerator
from lightning_diffaug.generators.loop import SAMPLER_VERSION
from lightning_diffaug.generators.protocol import LABEL, START, Condition, Fittable, Generator
from lightning_diffaug.generators.schedulers import SCHEDULERS
from lightning_diffaug.generators.weights import weights_hash

__all__ = [
    "LABEL",
    "SAMPLER_VERSION",
    "SCHEDULERS",
    "START",
    "Condition",
    "DiffusionGenerator",
    "Fittable",
    "Generator",
    "weights_hash",
]
