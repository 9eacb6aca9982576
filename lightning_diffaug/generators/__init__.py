"""How a sample is made: the protocol, the denoising loop, and a diffusion model fitted on the user's data."""

from lightning_diffaug.generators.codec import Codec, VaeCodec
from lightning_diffaug.generators.controls import SOURCES, Controls
from lightning_diffaug.generators.diffusion import DiffusionGenerator
from lightning_diffaug.generators.interpolation import slerp
from lightning_diffaug.generators.inversion import invert
from lightning_diffaug.generators.loop import SAMPLER_VERSION, sample
from lightning_diffaug.generators.protocol import LABEL, MASK, START, Condition, Fittable, Generator
from lightning_diffaug.generators.schedulers import SCHEDULERS
from lightning_diffaug.generators.weights import weights_hash

__all__ = [
    "LABEL",
    "MASK",
    "SAMPLER_VERSION",
    "SCHEDULERS",
    "SOURCES",
    "START",
    "Codec",
    "Condition",
    "Controls",
    "DiffusionGenerator",
    "Fittable",
    "Generator",
    "VaeCodec",
    "invert",
    "sample",
    "slerp",
    "weights_hash",
]
