"""The UNet of diffusers for images, with class, labels, vectors and further channels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, cast

from torch import Tensor, nn
from torch.nn import functional

from lightning_diffaug.errors import ConfigurationError
from lightning_diffaug.generators.denoisers.conditioning import (
    ConditionEmbedding,
    Conditions,
    check_kinds,
    further_channels,
    null_condition,
    of_kind,
    with_channels,
)
from lightning_diffaug.generators.protocol import Condition

NORM_GROUPS = 8
"""Groups of the normalisation, which divide every width."""


def check_channels(channels: Any) -> tuple[int, ...]:
    """Widths of a UNet's resolutions, checked.

    Raises:
        ConfigurationError: They are no multiples of 8.
    """
    listed = isinstance(channels, Sequence) and not isinstance(channels, str)
    if not listed or not channels or any(type(width) is not int or width < 8 or width % 8 for width in channels):
        raise ConfigurationError(
            f"channels={channels} must be multiples of 8 (groups of the normalisation), one for each resolution. Set "
            "generator.fit.channels to e.g. [32, 32]."
        )
    return tuple(channels)


def image_widths(shape: tuple[int, ...], channels: Sequence[int] | None) -> tuple[int, ...]:
    """Widths of a UNet for images of this shape: those given, or what suits the size.

    Raises:
        ConfigurationError: The samples are no images, or too large ones, or a width does not fit.
    """
    if len(shape) != 3 or min(shape) < 1:
        raise ConfigurationError(
            f"samples of shape {shape} are not images (C, H, W), and the UNet denoises only those. Set "
            "generator.fit.denoiser=auto, or generator to one that is made for this kind of data."
        )
    if channels is not None:
        return check_channels(channels)
    size = max(shape[1:])
    if size > 256:
        raise ConfigurationError(
            f"samples are {shape[1]}x{shape[2]} pixels: a pixel-space UNet fitted from scratch is practical up to 256. "
            "Set real.size to a smaller one (e.g. 64), or generator.fit.channels to widths of your own."
        )
    # One more halving for each doubling of the size: the lowest resolution stays at 4 to 8 pixels.
    halvings = max(1, math.ceil(math.log2(size / 8)))
    return tuple(min(32 * (1 + level), 128) for level in range(halvings + 1)) if size > 10 else (32, 32)


def padding(size: Sequence[int], multiple: int) -> tuple[int, ...]:
    """What `functional.pad` needs so that each length becomes a multiple: zeros in front, the rest behind."""
    return tuple(amount for length in reversed(size) for amount in (0, -length % multiple))


class UNetDenoiser(nn.Module):
    """`diffusers.UNet2DModel` with class, labels, vectors (added to the time's embedding) and further channels.

    Heights and widths that the resolutions do not divide are padded inside and cropped again. The initial weights
    come from the global random state; fork it around.

    Args:
        shape: (C, H, W) of one sample.
        conditions: What it is told.
        channels: Width of each resolution; every further one halves height and width. None: by the size.
        layers_per_block: Residual layers for each resolution.
        attention: Self-attention at the lowest resolution; None: from 12 pixels up.

    Raises:
        ConfigurationError: The samples are no images (C, H, W), a width does not fit, or a condition is of a kind that
            it cannot be told.
    """

    kinds = ("class", "labels", "vector", "concat")

    @classmethod
    def check(
        cls, shape: tuple[int, ...], conditions: Conditions, channels: Sequence[int] | None = None, **args: Any
    ) -> None:
        """Refuses what `__init__` does, and builds nothing."""
        check_kinds("unet", conditions, cls.kinds)
        image_widths(shape, channels)

    def __init__(
        self,
        shape: tuple[int, ...],
        conditions: Conditions,
        channels: Sequence[int] | None = None,
        layers_per_block: int = 1,
        attention: bool | None = None,
    ) -> None:
        super().__init__()
        self.check(shape, conditions, channels)
        widths = image_widths(shape, channels)
        from diffusers.models.unets.unet_2d import UNet2DModel  # takes seconds, so only where it is used

        self.shape, self.conditions = shape, conditions
        levels = len(widths)
        self._pad = padding(shape[1:], 2 ** (levels - 1))
        told = of_kind(conditions, "class", "labels", "vector")
        # The class alone is embedded by the UNet itself.
        self._class = next((name for name, spec in told.items() if spec.kind == "class" and len(told) == 1), None)
        how: dict[str, Any] = {"class_embed_type": "identity"} if told else {}
        if self._class is not None:
            how = {"num_class_embeds": told[self._class].classes + 1}
        self.unet = UNet2DModel(
            sample_size=(shape[1] + self._pad[3], shape[2] + self._pad[1]),
            in_channels=shape[0] + further_channels(conditions),
            out_channels=shape[0],
            block_out_channels=widths,
            layers_per_block=layers_per_block,
            down_block_types=("DownBlock2D",) * levels,
            up_block_types=("UpBlock2D",) * levels,
            add_attention=max(shape[1:]) >= 12 if attention is None else attention,
            norm_num_groups=NORM_GROUPS,
            **how,
        )
        self.embedding = None if self._class is not None or not told else ConditionEmbedding(told, 4 * widths[0])

    def forward(self, x_t: Tensor, t: Tensor, condition: Condition) -> Tensor:
        """See `Denoiser`."""
        x_t = with_channels(x_t, self.conditions, condition)
        if any(self._pad):
            x_t = functional.pad(x_t, self._pad, mode="replicate")
        told = condition[self._class] if self._class is not None else None
        if self.embedding is not None:
            told = self.embedding(condition)
        prediction = self.unet(x_t, t, class_labels=told, return_dict=False)[0]
        return cast(Tensor, prediction[..., : self.shape[1], : self.shape[2]])

    def null(self, condition: Condition) -> Condition | None:
        """See `Denoiser`."""
        return null_condition(self.conditions, condition)
