"""How a sample is made: the protocol, the denoising loop, and the generators that come with the library."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from lightning_diffaug.generators.codec import Codec, VaeCodec
from lightning_diffaug.generators.controls import SOURCES, Controls
from lightning_diffaug.generators.diffusion import DiffusionGenerator
from lightning_diffaug.generators.interpolation import slerp
from lightning_diffaug.generators.inversion import invert
from lightning_diffaug.generators.loop import SAMPLER_VERSION, sample
from lightning_diffaug.generators.protocol import (
    LABEL,
    MASK,
    START,
    Bindable,
    Condition,
    Fittable,
    Generator,
    Reporting,
)
from lightning_diffaug.generators.schedulers import SCHEDULERS
from lightning_diffaug.generators.weights import weights_hash

if TYPE_CHECKING:
    from lightning_diffaug.generators.captioner import Captioner
    from lightning_diffaug.generators.composed import ComposedGenerator
    from lightning_diffaug.generators.control import ControlGenerator
    from lightning_diffaug.generators.distilled import DistilledGenerator
    from lightning_diffaug.generators.fit_module import DenoiserFit
    from lightning_diffaug.generators.gan import GanGenerator
    from lightning_diffaug.generators.lora import LoraGenerator
    from lightning_diffaug.generators.pipeline import PipelineGenerator
    from lightning_diffaug.generators.remote import RemoteGenerator
    from lightning_diffaug.generators.textual_inversion import TextualInversionGenerator

__all__ = [
    "LABEL",
    "MASK",
    "SAMPLER_VERSION",
    "SCHEDULERS",
    "SOURCES",
    "START",
    "Bindable",
    "Captioner",
    "Codec",
    "ComposedGenerator",
    "Condition",
    "ControlGenerator",
    "Controls",
    "DenoiserFit",
    "DiffusionGenerator",
    "DistilledGenerator",
    "Fittable",
    "GanGenerator",
    "Generator",
    "LoraGenerator",
    "PipelineGenerator",
    "RemoteGenerator",
    "Reporting",
    "TextualInversionGenerator",
    "VaeCodec",
    "invert",
    "sample",
    "slerp",
    "weights_hash",
]

_HOMES = {
    "Captioner": "captioner",
    "ComposedGenerator": "composed",
    "ControlGenerator": "control",
    "DenoiserFit": "fit_module",
    "DistilledGenerator": "distilled",
    "GanGenerator": "gan",
    "LoraGenerator": "lora",
    "PipelineGenerator": "pipeline",
    "RemoteGenerator": "remote",
    "TextualInversionGenerator": "textual_inversion",
}


def __getattr__(name: str) -> Any:
    # lazily: a process imports the one generator that it uses
    if name in _HOMES:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
