"""Codecs: samples to latents and back, so that a denoiser can work in a smaller space (Rombach et al. 2022)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from lightning_diffaug.errors import ConfigurationError
from lightning_diffaug.generators.pipeline_model import identity


class Codec(Protocol):
    """What a latent denoiser needs around it. Pure functions of their arguments."""

    def encode(self, x: Tensor) -> Tensor:
        """Latents (n, *latent shape) of about unit variance of samples (n, *shape) in [-1, 1]."""
        ...

    def decode(self, z: Tensor) -> Tensor:
        """Samples (n, *shape), about in [-1, 1], of latents (n, *latent shape)."""
        ...


class VaeCodec:
    """An `AutoencoderKL` of diffusers as a codec; its own ``scaling_factor`` and ``shift_factor`` are used.

    Args:
        vae: The autoencoder, in eval mode.
        scale: Further factor of the latents, where ``scaling_factor`` does not bring them to unit variance.
    """

    def __init__(self, vae: Any, scale: float = 1.0) -> None:
        self.vae = vae
        self._scale = float(vae.config.scaling_factor or 1.0) * scale
        self._shift = float(getattr(vae.config, "shift_factor", None) or 0.0)

    @classmethod
    def load(cls, folder: Path, device: torch.device | str = "cpu", scale: float = 1.0) -> VaeCodec:
        """Loads an autoencoder that was saved with ``save_pretrained`` (safetensors; nothing is downloaded).

        Raises:
            ConfigurationError: The folder holds none.
        """
        check_codec(str(folder))
        from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL  # takes seconds

        try:
            with torch.random.fork_rng(devices=[]):  # initial weights are drawn, then overwritten
                vae = AutoencoderKL.from_pretrained(
                    str(folder), local_files_only=True, use_safetensors=True, low_cpu_mem_usage=False
                )
        except (OSError, ValueError, KeyError, RuntimeError, TypeError) as error:
            raise ConfigurationError(
                f"codec={str(folder)!r} holds no diffusers AutoencoderKL that can be loaded ({error}). Save it anew "
                "with vae.save_pretrained(...), or set generator.codec=null."
            ) from error
        return cls(vae.to(device).eval().requires_grad_(False), scale)

    def encode(self, x: Tensor) -> Tensor:
        """The mean of the latents' distribution, so that encoding is deterministic."""
        with torch.inference_mode():
            latents: Tensor = (self.vae.encode(x.to(self.vae.device)).latent_dist.mean - self._shift) * self._scale
        return latents.clone()

    def decode(self, z: Tensor) -> Tensor:
        """See `Codec`; with gradients where `z` has them."""
        with torch.inference_mode(not z.requires_grad):
            samples: Tensor = self.vae.decode(z.to(self.vae.device) / self._scale + self._shift).sample
        return samples.clone()


def check_codec(folder: str) -> None:
    """Refuses a folder without an autoencoder.

    Raises:
        ConfigurationError: See above.
    """
    path = Path(folder)
    if not (path / "config.json").is_file() or not any(path.glob("*.safetensors")):
        raise ConfigurationError(
            f"codec={folder!r} is no folder with config.json and safetensors: it holds the autoencoder in whose latent "
            "space the denoiser works. Set generator.codec to the folder that vae.save_pretrained(...) of a diffusers "
            "AutoencoderKL wrote, or to null."
        )


def latent_shape(folder: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Shape of the latents of samples, from an autoencoder's config alone.

    Args:
        folder: See `check_codec`.
        shape: Of one sample.

    Raises:
        ConfigurationError: The samples are no images, or not of the channels that it encodes.
    """
    check_codec(folder)
    config = json.loads((Path(folder) / "config.json").read_text(encoding="utf-8"))
    channels = config.get("in_channels", 3)
    if len(shape) != 3 or shape[0] != channels:
        raise ConfigurationError(
            f"codec={folder!r} encodes images ({channels}, H, W), and the samples have the shape {shape}. Set "
            "generator.codec to an autoencoder that was trained on such samples, or to null."
        )
    halvings = len(config.get("block_out_channels", (64,))) - 1
    return (config.get("latent_channels", 4), *(length >> halvings for length in shape[1:]))


def codec_hash(folder: Path) -> str:
    """Hash of the files that are read of a codec's model, those of a tokenizer among them, for fingerprints."""
    return str(identity(str(Path(folder).absolute()), None, "generator.codec")["sha256"])
