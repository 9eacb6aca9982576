"""How images look: what their frequencies hold, and how sharp they are."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from lightning_diffaug.errors import ConfigurationError

_BATCH = 256
_FLOOR = 1e-10  # of power: images without any detail have a level too


def radial_power(images: Tensor, weights: Tensor | None = None) -> Tensor:
    """Mean power of images at each frequency, whatever its direction.

    Args:
        images: float32 (n, C, H, W), at least 4×4; their mean is taken off.
        weights: Share of each image, (n,), of sum 1; None: all alike.

    Returns:
        float64 (min(H, W) // 2,): power at 1, 2, … periods along the shorter side.

    Raises:
        ConfigurationError: They are no such images, or not finite.
    """
    _check(images)
    height, width = images.shape[-2:]
    shorter = min(height, width)
    vertical, horizontal = torch.fft.fftfreq(height)[:, None], torch.fft.fftfreq(width)[None, :]
    ring = ((vertical.square() + horizontal.square()).sqrt() * shorter).round().long().flatten()
    highest = shorter // 2
    kept = (ring >= 1) & (ring <= highest)
    ring = ring[kept] - 1
    total = torch.zeros(highest, dtype=torch.float64)
    for part, share in _batches(images, weights):
        power = torch.fft.fft2(part.double(), norm="ortho").abs().square().mean(1)
        total.index_add_(0, ring, (share @ power.flatten(1))[kept])
    return total / torch.bincount(ring, minlength=highest)


def spectrum_distance(first: Tensor, second: Tensor) -> float:
    """Root mean square difference of two profiles of `radial_power`, in decibels: each frequency counts alike."""
    levels = [10.0 * power.clamp(min=_FLOOR).log10() for power in (first, second)]
    return float((levels[0] - levels[1]).square().mean().sqrt())


def sharpness(images: Tensor, weights: Tensor | None = None) -> float:
    """Mean over images of the variance of their Laplacian (Pech-Pacheco et al. 2000), borders left out.

    Args:
        images: float32 (n, C, H, W), at least 4×4.
        weights: Share of each image, (n,), of sum 1; None: all alike.

    Raises:
        ConfigurationError: They are no such images, or not finite.
    """
    _check(images)
    total = 0.0
    for part, share in _batches(images, weights):
        x = part.double()
        inner = x[..., 1:-1, 1:-1]
        sides = x[..., :-2, 1:-1] + x[..., 2:, 1:-1] + x[..., 1:-1, :-2] + x[..., 1:-1, 2:]
        total += float(share @ (sides - 4.0 * inner).flatten(2).var(2).mean(1))
    return total


def _batches(images: Tensor, weights: Tensor | None) -> Iterator[tuple[Tensor, Tensor]]:
    """Images with their shares, some at a time."""
    n = len(images)
    shares = torch.full((n,), 1.0 / n, dtype=torch.float64) if weights is None else weights.double() / weights.sum()
    return zip(torch.split(images, _BATCH), torch.split(shares, _BATCH), strict=True)


def _check(images: Tensor) -> None:
    if images.ndim != 4 or min(images.shape[-2:]) < 4 or not len(images):
        raise ConfigurationError(
            f"spectrum and sharpness are of images (n, C, H, W) of at least 4 by 4, and samples have the shape "
            f"{tuple(images.shape)}. Leave these figures out."
        )
    if not bool(images.isfinite().all()):
        raise ConfigurationError("some images are NaN or infinite, so they have no spectrum: look at the samples.")
