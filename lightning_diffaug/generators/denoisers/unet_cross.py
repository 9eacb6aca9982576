"""The UNet of diffusers that attends to tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from torch import Tensor, nn
from torch.nn import functional

from lightning_diffaug.errors import ConfigurationError
from lightning_diffaug.generators.denoisers.conditioning import (
    KINDS,
    ConditionEmbedding,
    Conditions,
    ConditionTokens,
    check_kinds,
    further_channels,
    null_condition,
    of_kind,
    with_channels,
)
from lightning_diffaug.generators.denoisers.unet import NORM_GROUPS, image_widths, padding
from lightning_diffaug.generators.protocol import Condition

_ATTENDED = 16
"""Pixels up to which a resolution attends to the tokens: above, it costs more than it says."""


class UNetCrossDenoiser(nn.Module):
    """`diffusers.UNet2DConditionModel`: ``cross`` conditions by cross-attention, all others as in `UNetDenoiser`.

    Args:
        shape: (C, H, W) of one sample.
        conditions: What it is told, at least one of them as ``cross``.
        channels: Width of each resolution; every further one halves height and width. None: by the size.
        layers_per_block: Residual and attention layers for each resolution.
        heads: Attention heads; must divide the widths.

    Raises:
        ConfigurationError: The samples are no images (C, H, W), a width does not fit, or there is nothing to attend to.
    """

    kinds = KINDS

    @classmethod
    def check(
        cls,
        shape: tuple[int, ...],
        conditions: Conditions,
        channels: Sequence[int] | None = None,
        heads: int = 4,
        **args: Any,
    ) -> None:
        """Refuses what `__init__` does, and builds nothing."""
        check_kinds("unet_cross", conditions, cls.kinds)
        if not of_kind(conditions, "cross"):
            raise ConfigurationError(
                "the denoiser unet_cross attends to conditions of kind cross, and there is none. Set "
                "generator.fit.denoiser=unet, or generator.conditions to {<field>: cross}."
            )
        widths = image_widths(shape, channels)
        if any(width % heads for width in widths):
            raise ConfigurationError(
                f"heads={heads} do not divide the widths {list(widths)}. Set generator.fit.denoiser_args.heads to a "
                "divisor of them."
            )

    def __init__(
        self,
        shape: tuple[int, ...],
        conditions: Conditions,
        channels: Sequence[int] | None = None,
        layers_per_block: int = 1,
        heads: int = 4,
    ) -> None:
        super().__init__()
        self.check(shape, conditions, channels, heads=heads)
        widths = image_widths(shape, channels)
        from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel  # takes seconds

        self.shape, self.conditions = shape, conditions
        levels = len(widths)
        self._pad = padding(shape[1:], 2 ** (levels - 1))
        attends = [max(shape[1:]) / 2**level <= _ATTENDED for level in range(levels)]
        told = of_kind(conditions, "class", "labels", "vector")
        self.unet = UNet2DConditionModel(
            sample_size=(shape[1] + self._pad[3], shape[2] + self._pad[1]),
            in_channels=shape[0] + further_channels(conditions),
            out_channels=shape[0],
            block_out_channels=widths,
            layers_per_block=layers_per_block,
            down_block_types=tuple("CrossAttnDownBlock2D" if here else "DownBlock2D" for here in attends),
            up_block_types=tuple("CrossAttnUpBlock2D" if here else "UpBlock2D" for here in reversed(attends)),
            cross_attention_dim=widths[-1],
            attention_head_dim=heads,  # the number of heads, whatever its name
            norm_num_groups=NORM_GROUPS,
            class_embed_type="identity" if told else None,
        )
        self.tokens = ConditionTokens(conditions, widths[-1])
        self.embedding = ConditionEmbedding(told, 4 * widths[0]) if told else None

    def forward(self, x_t: Tensor, t: Tensor, condition: Condition) -> Tensor:
        """See `Denoiser`."""
        x_t = with_channels(x_t, self.conditions, condition)
        if any(self._pad):
            x_t = functional.pad(x_t, self._pad, mode="replicate")
        told = None if self.embedding is None else self.embedding(condition)
        prediction = self.unet(x_t, t, self.tokens(condition), class_labels=told, return_dict=False)[0]
        return cast(Tensor, prediction[..., : self.shape[1], : self.shape[2]])

    def null(self, condition: Condition) -> Condition | None:
        """See `Denoiser`."""
        return null_condition(self.conditions, condition)
