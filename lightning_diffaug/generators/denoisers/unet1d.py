"""The 1-D UNet of diffusers, for sequences."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
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

_SHORTEST = 4
"""Length of the lowest resolution: its reflecting borders need more than 3."""
_HEAD = 32
"""`diffusers` gives each attention head so many channels."""


class UNet1DDenoiser(nn.Module):
    """`diffusers.UNet1DModel` for sequences (C, L): a signal, a motion, a time series.

    That model adds nothing to the embedding of its time, so class, labels and vectors reach it as the time does: as
    constant channels. Lengths that the resolutions do not divide are padded inside and cropped again.

    Args:
        shape: (C, L) of one sample.
        conditions: What it is told.
        channels: Width of each resolution, multiples of 32; every further one halves the length. None: by the length.
        layers_per_block: Residual layers for each resolution.

    Raises:
        ConfigurationError: The samples are no sequences (C, L), a width does not fit, or a condition is of a kind that
            it cannot be told.
    """

    kinds = ("class", "labels", "vector", "concat")

    @classmethod
    def check(
        cls, shape: tuple[int, ...], conditions: Conditions, channels: Sequence[int] | None = None, **args: Any
    ) -> None:
        """Refuses what `__init__` does, and builds nothing."""
        check_kinds("unet1d", conditions, cls.kinds)
        if len(shape) != 2 or min(shape) < 1:
            raise ConfigurationError(
                f"samples of shape {shape} are not sequences (C, L), and the denoiser unet1d denoises only those. Set "
                "generator.fit.denoiser=auto."
            )
        if channels is not None and (
            len(channels) < 2 or any(type(width) is not int or width < _HEAD or width % _HEAD for width in channels)
        ):
            raise ConfigurationError(
                f"channels={list(channels)} must be two or more multiples of {_HEAD} (attention heads), one for each "
                "resolution. Set generator.fit.channels to e.g. [32, 64]."
            )

    def __init__(
        self,
        shape: tuple[int, ...],
        conditions: Conditions,
        channels: Sequence[int] | None = None,
        layers_per_block: int = 1,
    ) -> None:
        super().__init__()
        self.check(shape, conditions, channels)
        if channels is None:
            channels = (32, 32, 64, 64)[: 2 if shape[1] < 64 else 3 if shape[1] < 256 else 4]
        from diffusers.models.unets.unet_1d import UNet1DModel  # takes seconds

        self.shape, self.conditions = shape, conditions
        multiple = 2 ** len(channels)  # the middle block halves once more
        padded = max(-(-shape[1] // multiple), _SHORTEST) * multiple
        self._pad = (0, padded - shape[1])
        told, width, middle = of_kind(conditions, "class", "labels", "vector"), channels[0], len(channels) - 2
        self.embedding = ConditionEmbedding(told, width) if told else None
        self.unet = UNet1DModel(
            sample_size=padded,
            in_channels=shape[0] + further_channels(conditions) + (width if told else 0),
            out_channels=shape[0],
            extra_in_channels=width,  # the time's
            time_embedding_type="positional",
            down_block_types=("DownBlock1DNoSkip", *("DownBlock1D",) * middle, "AttnDownBlock1D"),
            up_block_types=("AttnUpBlock1D", *("UpBlock1D",) * middle, "UpBlock1DNoSkip"),
            block_out_channels=tuple(channels),
            layers_per_block=layers_per_block,
        )

    def forward(self, x_t: Tensor, t: Tensor, condition: Condition) -> Tensor:
        """See `Denoiser`."""
        x_t = with_channels(x_t, self.conditions, condition)
        if self.embedding is not None:
            told = self.embedding(condition)[..., None].expand(-1, -1, x_t.shape[-1])
            x_t = torch.cat((x_t, told), dim=1)
        if self._pad[1]:
            x_t = functional.pad(x_t, self._pad, mode="replicate")
        prediction = self.unet(x_t, t, return_dict=False)[0]
        return cast(Tensor, prediction[..., : self.shape[1]])

    def null(self, condition: Condition) -> Condition | None:
        """See `Denoiser`."""
        return null_condition(self.conditions, condition)
