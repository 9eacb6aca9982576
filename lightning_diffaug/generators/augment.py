"""Random affine augmentation of a batch, each sample with its own parameters from a given random generator.

torchvision's transforms draw one set of parameters for a whole batch, from the global random state.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True)
class RandomAffine:
    """Rotation, translation and scaling about the centre; edges are continued outwards.

    Attributes:
        p: Probability that a sample is transformed at all.
        degrees: Largest rotation, either way.
        pixels: Largest translation along each axis, in pixels, either way.
        scale: Largest relative change of size, either way.
    """

    p: float = 0.8
    degrees: float = 15.0
    pixels: float = 1.0
    scale: float = 0.1

    def __call__(self, x: Tensor, rng: torch.Generator) -> Tensor:
        """Transforms ``x`` (n, C, H, W) float32 in [-1, 1]; `rng` is a CPU generator."""
        if self.p == 0.0 or not len(x):
            return x
        n, _, height, width = x.shape
        # One draw for all samples, so that changing p does not change the parameters of the others.
        u = torch.rand(n, 5, generator=rng)
        active = u[:, 0] < self.p
        angle, shift_x, shift_y, size = (2.0 * u[:, 1:] - 1.0).unbind(1)
        angle = angle * math.radians(self.degrees)
        zoom = 1.0 + size * self.scale
        cos, sin = torch.cos(angle) / zoom, torch.sin(angle) / zoom
        # affine_grid works in units of half a side: rotations of oblong images need the ratio of the sides.
        ratio = height / width
        theta = torch.stack(
            (
                torch.stack((cos, -sin * ratio, shift_x * self.pixels * 2 / width), 1),
                torch.stack((sin / ratio, cos, shift_y * self.pixels * 2 / height), 1),
            ),
            1,
        ).to(x.device)
        grid = functional.affine_grid(theta, list(x.shape), align_corners=False)
        # Bilinear interpolation blurs small images, and the denoiser would learn the blur. Bicubic overshoots.
        moved = functional.grid_sample(x, grid, mode="bicubic", padding_mode="border", align_corners=False)
        moved = moved.clamp(-1.0, 1.0)
        return torch.where(active.to(x.device)[:, None, None, None], moved, x)
