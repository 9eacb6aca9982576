"""Denoisers: networks that map (x_t, t, condition) to a prediction."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from lightning_diffaug.errors import ConfigurationError, GeneratorError
from lightning_diffaug.generators.protocol import LABEL, Condition


class Denoiser(Protocol):
    """What the denoising loop needs of a network."""

    def __call__(self, x_t: Tensor, t: Tensor, condition: Condition) -> Tensor:
        """Predicts noise, velocity or sample.

        Args:
            x_t: (n, *shape) noisy samples.
            t: Timestep in [0, 1000), a scalar or (n,).
            condition: n entries for each name.

        Returns:
            (n, *shape) prediction.
        """
        ...

    def null(self, condition: Condition) -> Condition | None:
        """The same keys with nothing asked for; None if the denoiser knows no such condition."""
        ...


@dataclass(frozen=True)
class UNetConfig:
    """Architecture of a class-conditional UNet. Plain values: it travels with the weights.

    Attributes:
        shape: (C, H, W) of one sample.
        num_classes: Classes; 0 for a denoiser without condition.
        channels: Width of each resolution; every further one halves height and width.
        layers_per_block: Residual layers for each resolution.
        attention: Self-attention at the lowest resolution.
    """

    shape: tuple[int, int, int]
    num_classes: int
    channels: tuple[int, ...]
    layers_per_block: int = 1
    attention: bool = False

    @classmethod
    def for_data(
        cls,
        shape: tuple[int, ...],
        num_classes: int,
        channels: tuple[int, ...] | None = None,
        layers_per_block: int = 1,
        attention: bool | None = None,
    ) -> UNetConfig:
        """A sound architecture for samples of this shape; what is given is kept.

        Args:
            shape: (C, H, W).
            num_classes: Classes; 0 for none.
            channels: Width of each resolution; None chooses by the size.
            layers_per_block: Residual layers for each resolution.
            attention: None: from 12 pixels up.

        Raises:
            ConfigurationError: The samples are not (C, H, W), or a width does not fit.
        """
        if len(shape) != 3 or min(shape) < 1:
            raise ConfigurationError(
                f"samples of shape {shape} are not images (C, H, W), and the UNet denoises only those. "
                "Set generator to one that is made for this kind of data."
            )
        size = max(shape[1:])
        if channels is None:
            if size > 256:
                raise ConfigurationError(
                    f"samples are {shape[1]}x{shape[2]} pixels: a pixel-space UNet fitted from scratch is "
                    "practical up to 256. Set real.size to a smaller one (e.g. 64), or "
                    "generator.fit.channels to widths of your own."
                )
            # One more halving for each doubling of the size: the lowest resolution stays at 4 to 8 pixels.
            halvings = max(1, math.ceil(math.log2(size / 8)))
            channels = tuple(min(32 * (1 + level), 128) for level in range(halvings + 1)) if size > 10 else (32, 32)
        if not channels or any(not isinstance(width, int) or width < 8 or width % 8 for width in channels):
            raise ConfigurationError(
                f"channels={channels} must be multiples of 8 (groups of the normalisation), one for each "
                "resolution. Set generator.fit.channels to e.g. [32, 32]."
            )
        wide = size >= 12 if attention is None else attention
        return cls((shape[0], shape[1], shape[2]), num_classes, tuple(channels), layers_per_block, wide)

    def to_json(self) -> dict[str, Any]:
        """Plain values for a JSON file."""
        return {**asdict(self), "shape": list(self.shape), "channels": list(self.channels)}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> UNetConfig:
        """The inverse of `to_json`."""
        return cls(**{**values, "shape": tuple(values["shape"]), "channels": tuple(values["channels"])})


class UNetDenoiser(nn.Module):
    """`diffusers.UNet2DModel` with class labels; index ``num_classes`` is the null class.

    Heights and widths that the resolutions do not divide are padded inside and cropped again.

    Args:
        config: The architecture. The initial weights come from the global random state; fork it around.
    """

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        from diffusers.models.unets.unet_2d import UNet2DModel  # takes seconds, so only where it is used

        self.config = config
        levels = len(config.channels)
        _, height, width = config.shape
        multiple = 2 ** (levels - 1)
        self._pad = (-width % multiple, -height % multiple)
        self.unet = UNet2DModel(
            sample_size=(height + self._pad[1], width + self._pad[0]),
            in_channels=config.shape[0],
            out_channels=config.shape[0],
            block_out_channels=config.channels,
            layers_per_block=config.layers_per_block,
            down_block_types=("DownBlock2D",) * levels,
            up_block_types=("UpBlock2D",) * levels,
            add_attention=config.attention,
            norm_num_groups=8,
            num_class_embeds=config.num_classes + 1 if config.num_classes else None,
        )

    def forward(self, x_t: Tensor, t: Tensor, condition: Condition) -> Tensor:
        """See `Denoiser`; labels are int64 (n,) in 0..num_classes, the last being the null class."""
        right, bottom = self._pad
        if right or bottom:
            x_t = functional.pad(x_t, (0, right, 0, bottom), mode="replicate")
        label = condition[LABEL] if self.config.num_classes else None
        prediction = self.unet(x_t, t, class_labels=label, return_dict=False)[0]
        _, height, width = self.config.shape
        return cast(Tensor, prediction[..., :height, :width])

    def null(self, condition: Condition) -> Condition | None:
        """The null class for each sample, or None without classes."""
        if not self.config.num_classes:
            return None
        return {LABEL: torch.full_like(condition[LABEL], self.config.num_classes)}

    def check(self, condition: Condition, n: int) -> dict[str, Any]:
        """The part of a condition that this denoiser uses, checked.

        Raises:
            GeneratorError: The label is missing, has not n entries, or is no class.
        """
        classes = self.config.num_classes
        if not classes:
            return {}
        if LABEL not in condition:
            raise GeneratorError(
                f"the condition has {sorted(condition)} and no 'label', but this generator was fitted with "
                f"{classes} classes. Give condition['label'] as int64 class indices."
            )
        label = torch.as_tensor(condition[LABEL], dtype=torch.int64)
        if label.shape != (n,) or (n and not 0 <= int(label.min()) <= int(label.max()) < classes):
            raise GeneratorError(
                f"condition['label'] has shape {tuple(label.shape)} and values "
                f"{sorted(set(label.flatten().tolist()))[:20]}; needed are {n} class indices in "
                f"0..{classes - 1}, one for each seed."
            )
        return {LABEL: label}
