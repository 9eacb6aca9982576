"""Between two noises, or two samples and their noises."""

from __future__ import annotations

import torch
from torch import Tensor


def slerp(first: Tensor, second: Tensor, weight: Tensor | float) -> Tensor:
    """Spherical interpolation of each pair of samples (Shoemake 1985; White 2016 for noises).

    Between two normal noises a straight line passes where no noise is: its middle has a norm √½ as large.

    Args:
        first: (n, *shape), the result at weight 0.
        second: (n, *shape), the result at weight 1.
        weight: In [0, 1]: one, or (n,).

    Returns:
        (n, *shape); the norm goes evenly from the first's to the second's. Where the two point the same way, the
        straight line.
    """
    w = torch.as_tensor(weight, dtype=first.dtype, device=first.device).expand(len(first))
    w = w.view(-1, *[1] * (first.ndim - 1))
    a, b = first.flatten(1), second.flatten(1)
    norm_a, norm_b = a.norm(dim=1).view_as(w.flatten()), b.norm(dim=1)
    cosine = ((a * b).sum(1) / (norm_a * norm_b).clamp_min(1e-12)).clamp(-1.0, 1.0)
    angle, norm_a, norm_b = (v.view_as(w) for v in (torch.arccos(cosine), norm_a, norm_b))
    sine = torch.sin(angle)
    straight = sine < 1e-4
    sine = torch.where(straight, 1.0, sine)
    direction = torch.sin((1 - w) * angle) / sine * first / norm_a.clamp_min(1e-12)
    direction = direction + torch.sin(w * angle) / sine * second / norm_b.clamp_min(1e-12)
    return torch.where(straight, torch.lerp(first, second, w), direction * torch.lerp(norm_a, norm_b, w))
