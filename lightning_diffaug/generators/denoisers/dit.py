"""A diffusion transformer over samples of any shape."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
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
from lightning_diffaug.generators.denoisers.unet import padding
from lightning_diffaug.generators.protocol import Condition

_MOST_TOKENS = 256
"""Tokens up to which the patch is chosen small: attention costs their square."""


class DiTDenoiser(nn.Module):
    """A transformer over patches (DiT, Peebles & Xie 2023), conditioned through its normalisation.

    Made of the blocks of diffusers that PixArt-α uses (Chen et al. 2024): one modulation for all blocks, each with an
    offset of its own, and cross-attention for ``cross`` conditions. `DiTTransformer2DModel` knows classes and square
    images only. Class, labels and vectors are added to the embedding of the time; ``concat`` becomes channels.

    Args:
        shape: (C, *size) of one sample, with any number of spatial axes, or (P, d): a set of points.
        conditions: What it is told, of any kind.
        patch: Length of a patch along each axis; None: 2, or more where there would be over 256 tokens. Sizes that it
            does not divide are padded inside and cropped again.
        width: Of a token.
        depth: Number of blocks.
        heads: Attention heads; must divide the width.
        points: Whether (P, d) is a set of P points without order, each a token; None: where d ≤ 4 < P.

    Raises:
        ConfigurationError: An argument does not fit the samples.
    """

    kinds = KINDS

    @classmethod
    def check(
        cls,
        shape: tuple[int, ...],
        conditions: Conditions,
        patch: int | None = None,
        width: int = 128,
        depth: int = 4,
        heads: int = 4,
        points: bool | None = None,
    ) -> None:
        """Refuses what `__init__` does, and builds nothing."""
        points = are_points(shape) if points is None else points
        kinds = tuple(kind for kind in KINDS if kind != "concat") if points else KINDS
        check_kinds("dit" + " of points" * points, conditions, kinds)
        _check_sizes(shape, patch, width, depth, heads, points)

    def __init__(
        self,
        shape: tuple[int, ...],
        conditions: Conditions,
        patch: int | None = None,
        width: int = 128,
        depth: int = 4,
        heads: int = 4,
        points: bool | None = None,
    ) -> None:
        super().__init__()
        self.check(shape, conditions, patch, width, depth, heads, points)
        self._points = are_points(shape) if points is None else points
        from diffusers.models.attention import BasicTransformerBlock  # takes seconds
        from diffusers.models.embeddings import TimestepEmbedding, Timesteps

        self.shape, self.conditions = shape, conditions
        size = () if self._points else shape[1:]
        self._patch = patch or _patch(size)
        self._pad = padding(size, self._patch)
        self._grid = tuple(-(-length // self._patch) for length in size)
        into = shape[1] if self._points else (shape[0] + further_channels(conditions)) * self._patch ** len(size)
        out = shape[1] if self._points else shape[0] * self._patch ** len(size)
        tokens = 0 if self._points else math.prod(self._grid)
        self.inwards = nn.Linear(into, width)
        # As large as the tokens themselves: a place that hardly shows is learnt late.
        self.places = nn.Parameter(torch.randn(tokens, width))
        self.time_frequencies = Timesteps(width, flip_sin_to_cos=True, downscale_freq_shift=0)
        self.time = TimestepEmbedding(width, width)
        told = of_kind(conditions, "class", "labels", "vector")
        self.embedding = ConditionEmbedding(told, width) if told else None
        attended = of_kind(conditions, "cross")
        self.tokens = ConditionTokens(attended, width) if attended else None
        self.modulation = nn.Linear(width, 6 * width)
        self.blocks = nn.ModuleList(
            BasicTransformerBlock(
                width, heads, width // heads, cross_attention_dim=width if attended else None,
                activation_fn="gelu-approximate", attention_bias=True, norm_type="ada_norm_single",
                norm_elementwise_affine=False, norm_eps=1e-6,
            )
            for _ in range(depth)
        )  # fmt: skip
        self.norm = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
        self.last_modulation = nn.Linear(width, 2 * width)
        self.outwards = nn.Linear(width, out)
        for layer in (self.outwards, self.last_modulation):  # it begins by predicting nothing
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, x_t: Tensor, t: Tensor, condition: Condition) -> Tensor:
        """See `Denoiser`."""
        tokens = self.inwards(self._patches(x_t, condition))
        if not self._points:
            tokens = tokens + self.places
        frequencies = self.time_frequencies(t.expand(len(x_t)).to(torch.float32))
        told = self.time(frequencies.to(tokens.dtype))
        if self.embedding is not None:
            told = told + self.embedding(condition)
        told = functional.silu(told)
        modulation, attended = self.modulation(told), None if self.tokens is None else self.tokens(condition)
        for block in self.blocks:
            tokens = block(tokens, encoder_hidden_states=attended, timestep=modulation)
        shift, scale = self.last_modulation(told)[:, None].chunk(2, dim=-1)
        return self._joined(self.outwards(self.norm(tokens) * (1 + scale) + shift))

    def _patches(self, x: Tensor, condition: Condition) -> Tensor:
        """(n, C, *size) → (n, tokens, values in a patch)."""
        if self._points:
            return x
        x = with_channels(x, self.conditions, condition)
        if any(self._pad):
            x = functional.pad(x, self._pad)
        axes = len(self._grid)
        split = x.reshape(len(x), x.shape[1], *(part for cells in self._grid for part in (cells, self._patch)))
        order = (0, *range(2, 2 + 2 * axes, 2), 1, *range(3, 3 + 2 * axes, 2))
        return split.permute(order).reshape(len(x), math.prod(self._grid), -1)

    def _joined(self, tokens: Tensor) -> Tensor:
        """The inverse of `_patches`, cropped."""
        if self._points:
            return tokens
        axes = len(self._grid)
        split = tokens.reshape(len(tokens), *self._grid, self.shape[0], *(self._patch,) * axes)
        order = (0, 1 + axes, *(axis for i in range(axes) for axis in (1 + i, 2 + axes + i)))
        whole = split.permute(order).reshape(len(tokens), self.shape[0], *(cells * self._patch for cells in self._grid))
        for axis, length in enumerate(self.shape[1:], start=2):
            whole = whole.narrow(axis, 0, length)
        return whole

    def null(self, condition: Condition) -> Condition | None:
        """See `Denoiser`."""
        return null_condition(self.conditions, condition)


def are_points(shape: Sequence[int]) -> bool:
    """Whether a shape is that of a set of points in space, not of a sequence with many channels."""
    return len(shape) == 2 and shape[1] <= 4 < shape[0]


def _patch(size: Sequence[int]) -> int:
    patch = 2
    while math.prod(-(-length // patch) for length in size) > _MOST_TOKENS:
        patch *= 2
    return patch


def _check_sizes(shape: Sequence[int], patch: int | None, width: int, depth: int, heads: int, points: bool) -> None:
    if not shape or min(shape) < 1 or (points and len(shape) != 2):
        raise ConfigurationError(
            f"samples of shape {tuple(shape)} cannot be cut into tokens"
            + (": points=true is for sets of points (P, d)" if points else "")
            + ". Set generator.fit.denoiser_args.points=null, or data.fields to tensors of at least one axis."
        )
    for name, value in (("patch", 1 if patch is None else patch), ("width", width), ("depth", depth), ("heads", heads)):
        if type(value) is not int or value < 1:
            raise ConfigurationError(
                f"{name}={value!r} is not a whole number from 1. Set generator.fit.denoiser_args.{name}."
            )
    if width % heads or width % 2:
        raise ConfigurationError(
            f"width={width} is odd, or heads={heads} do not divide it. Set generator.fit.denoiser_args to e.g. "
            "{width: 128, heads: 4}."
        )
