"""Random affine augmentation of a batch, each sample with its own parameters from a given random generator.

Images are resampled; sets of points turn about z and change their size.

torchvision's transforms draw one set of parameters for a whole batch, from the global random state.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from lightning_diffaug.errors import ConfigurationError

AUGMENT = "augment"
"""Key of the condition that says how a sample was augmented: float32 ``(n, PARAMETERS)``, 0 for not at all."""

PARAMETERS = 5
"""Values that describe what was done to a sample, see `RandomAffine.described`."""


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
        return self.moved(x, *self.drawn(len(x), rng))

    def drawn(self, n: int, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draws for n samples whether each is transformed, bool (n,), and how, float32 (n, 4) in [-1, 1].

        The columns are rotation, translation along x and y, and size, as shares of the largest.
        """
        # One draw for all samples, so that changing p does not change the parameters of the others.
        u = torch.rand(n, 5, generator=rng)
        return u[:, 0] < self.p, 2.0 * u[:, 1:] - 1.0

    def moved(self, x: Tensor, active: Tensor, how: Tensor, size: tuple[int, int] | None = None) -> Tensor:
        """Transforms ``x`` as `drawn` says.

        Args:
            x: (n, C, H, W) samples, or maps that belong to them.
            active: bool (n,).
            how: float32 (n, 4).
            size: Height and width of the samples, where ``x`` are maps of another size; None: those of ``x``.

        Raises:
            ConfigurationError: The samples are no images.
        """
        check_images(tuple(x.shape[1:]))
        height, width = size or (x.shape[2], x.shape[3])
        angle, shift_x, shift_y, growth = how.unbind(1)
        angle = angle * math.radians(self.degrees)
        zoom = 1.0 + growth * self.scale
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
        # Bicubic would be sharper on small images; on validation data of eight seeds it was no better.
        moved = functional.grid_sample(x, grid, mode="bilinear", padding_mode="border", align_corners=False)
        return torch.where(active.to(x.device)[:, None, None, None], moved, x)

    def moved_points(self, points: Tensor, active: Tensor, how: Tensor) -> Tensor:
        """Turns and scales points about the origin; x and y turn, and nothing is translated.

        Args:
            points: (n, P, d), x and y first, with the origin where the scene has it.
            active: bool (n,).
            how: float32 (n, 4), see `drawn`.
        """
        angle, growth = how[:, 0] * math.radians(self.degrees), how[:, 3]
        cos, sin = torch.cos(angle), torch.sin(angle)
        turn = torch.eye(points.shape[2]).repeat(len(points), 1, 1)
        turn[:, :2, :2] = torch.stack((torch.stack((cos, sin), 1), torch.stack((-sin, cos), 1)), 1)
        turn = turn * (1.0 + growth * self.scale)[:, None, None]
        return torch.where(active.to(points.device)[:, None, None], points @ turn.to(points.device), points)

    def described(self, active: Tensor, how: Tensor) -> Tensor:
        """What was done to each sample, for a denoiser that is told (Karras et al. 2022, appendix F.1).

        Returns:
            float32 (n, `PARAMETERS`): cos − 1 and sin of the rotation, which has no jump at half a turn, in units of
            the largest angle up to one radian; translation along x and y and size as shares of the largest. 0 is
            nothing done.
        """
        angle, *rest = how.unbind(1)
        angle = angle * math.radians(self.degrees)
        unit = min(math.radians(self.degrees), 1.0) or 1.0
        columns = [(torch.cos(angle) - 1.0) / unit, torch.sin(angle) / unit, *rest]
        return torch.where(active[:, None], torch.stack(columns, 1), 0.0)


def are_points(shape: tuple[int, ...]) -> bool:
    """Whether samples are sets of points in the plane or in space, (P, 2) or (P, 3)."""
    return len(shape) == 2 and shape[1] in (2, 3) and shape[0] > 4


def check_augmented(shape: tuple[int, ...], low: float, high: float) -> None:
    """Refuses samples that cannot be augmented: neither images nor points about the origin.

    Args:
        shape: Of a sample.
        low: Lower end of the range that is scaled to [-1, 1].
        high: Its upper end.

    Raises:
        ConfigurationError: See above.
    """
    if not are_points(shape):
        check_images(shape)
    elif abs(low + high) > 1e-6 * (high - low):
        raise ConfigurationError(
            f"points in the range [{low:g}, {high:g}] would turn about its middle, which is not the origin, in the "
            "augmentation inside the fit. Set data.image_range to a range about 0, such as {cloud: [-1, 1]}, or "
            "generator.fit.augment_p=0."
        )


def check_images(shape: tuple[int, ...]) -> None:
    """Refuses samples that cannot be augmented.

    Raises:
        ConfigurationError: They are no images.
    """
    if len(shape) != 3:
        raise ConfigurationError(
            f"samples of shape {shape} are not images (C, H, W), and the augmentation inside the fit rotates, shifts "
            "and scales images (and sets of points). Set generator.fit.augment_p=0."
        )
