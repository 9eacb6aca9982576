"""Small models of a user's own, which gates name by import path."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

SEEN: list[Tensor] = []
"""What `Quadrants` was given."""


class Quadrants(nn.Module):
    """Logits: the mean of each quadrant of images, times `scale` and a weight."""

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        self.scale = scale
        self.weight = nn.Parameter(torch.ones(4))

    def forward(self, x: Tensor) -> Tensor:
        SEEN.append(x)
        return functional.adaptive_avg_pool2d(x.mean(1, keepdim=True), 2).flatten(1) * self.scale * self.weight


class Sums(nn.Module):
    """Features: sums over rows, which no movement along them changes."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean((1, 3))


def reds(x: Tensor, texts: Sequence[str]) -> Tensor:
    """How well a text says whether an image is red."""
    red = x[:, 0].mean((1, 2)) - x[:, 2].mean((1, 2))
    return torch.stack([r if "red" in text else -r for r, text in zip(red, texts, strict=True)])


class Named:
    """`reds` for another word."""

    def __init__(self, word: str) -> None:
        self.word = word

    def __call__(self, x: Tensor, texts: Sequence[str]) -> Tensor:
        return reds(x, [text.replace(self.word, "red") for text in texts])


def dark(x: Tensor) -> Tensor:
    """Objects to dark images."""
    return x.flatten(1).mean(1) < 0


def darkness(x: Tensor) -> Tensor:
    """How dark images are, in [0, 1]."""
    return (1 - x.flatten(1).mean(1)) / 2


def twice(x: Tensor, texts: Sequence[str]) -> Tensor:
    """Two numbers an image, which no scorer returns."""
    return torch.zeros(len(x), 2)
