"""The two networks of a small class-conditional GAN, for images of any size up to `LARGEST` pixels."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm

LARGEST = 64
_SMALLEST = 4


def resolutions(height: int, width: int) -> list[tuple[int, int]]:
    """Sizes from the image's down to the first whose longest side is at most 4, each half of the one before."""
    sizes = [(height, width)]
    while max(sizes[-1]) > _SMALLEST:
        sizes.append(((sizes[-1][0] + 1) // 2, (sizes[-1][1] + 1) // 2))
    return sizes


class _Scaled(nn.Module):
    """A normalisation whose scale and shift come of the latent numbers and the class."""

    def __init__(self, channels: int, told: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(min(8, channels // 4), channels, affine=False)
        self.how = nn.Linear(told, 2 * channels)

    def forward(self, x: Tensor, told: Tensor) -> Tensor:
        scale, shift = self.how(told)[:, :, None, None].chunk(2, dim=1)
        return F.leaky_relu(self.norm(x) * (1.0 + scale) + shift, 0.2)


class GanNetwork(nn.Module):
    """Latent numbers and a class → an image: upsampling blocks of two convolutions.

    Args:
        shape: (C, H, W) of an image.
        classes: Number of classes.
        latent: Latent numbers.
        width: Channels at the size of the image.
    """

    def __init__(self, shape: tuple[int, int, int], classes: int, latent: int, width: int) -> None:
        super().__init__()
        self.sizes = resolutions(*shape[1:])[::-1]
        self.latent = latent
        widths = [2 * width] * (len(self.sizes) - 1) + [width]
        self.embedding = nn.Embedding(classes, latent)
        self.first = nn.Linear(2 * latent, widths[0] * self.sizes[0][0] * self.sizes[0][1])
        self.convolutions = nn.ModuleList(
            nn.Conv2d(before, after, 3, padding=1) for before, after in pairwise([widths[0], *widths])
        )
        self.scaled = nn.ModuleList(_Scaled(channels, 2 * latent) for channels in widths)
        self.last = nn.Conv2d(width, shape[0], 3, padding=1)

    def forward(self, z: Tensor, label: Tensor) -> Tensor:
        """Images in [-1, 1], (n, C, H, W), of ``z`` (n, latent) and ``label`` int64 (n,)."""
        told = torch.cat((z, self.embedding(label)), dim=1)
        x = self.first(told).unflatten(1, (-1, *self.sizes[0]))
        for size, convolution, scaled in zip(self.sizes, self.convolutions, self.scaled, strict=True):
            x = x if x.shape[2:] == size else F.interpolate(x, size=size, mode="nearest")
            x = scaled(convolution(x), told)
        return torch.tanh(self.last(x))


class Discriminator(nn.Module):
    """An image and a class → how real it looks: spectral norm and a projection of the class (Miyato & Koyama 2018).

    Args:
        shape: (C, H, W) of an image.
        classes: Number of classes.
        width: Channels at the size of the image.
    """

    def __init__(self, shape: tuple[int, int, int], classes: int, width: int) -> None:
        super().__init__()
        widths = [shape[0], width, *[2 * width] * (len(resolutions(*shape[1:])))]
        self.convolutions = nn.ModuleList(
            spectral_norm(nn.Conv2d(before, after, 3, padding=1)) for before, after in pairwise(widths)
        )
        self.score = spectral_norm(nn.Linear(2 * width, 1))
        self.embedding = spectral_norm(nn.Embedding(classes, 2 * width))

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        """Scores (n,)."""
        for index, convolution in enumerate(self.convolutions):
            x = F.leaky_relu(convolution(x), 0.2)
            if index < len(self.convolutions) - 2:
                x = F.avg_pool2d(x, 2, ceil_mode=True)
        x = x.sum((2, 3))
        scores: Tensor = self.score(x).squeeze(1) + (x * self.embedding(label)).sum(1)
        return scores
