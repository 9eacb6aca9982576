"""A cloud of points as a small picture."""

from __future__ import annotations

import math

import torch
from torch import Tensor

_SIZE = 48
_ELEVATION = math.radians(35)
_AZIMUTH = math.radians(30)
_REACH = 1.3  # of the picture's edge, in the unit of the points
_SCAN = (1.0, 0.55, 0.1)


def oblique(cloud: Tensor, scan: Tensor | None = None, size: int = _SIZE) -> Tensor:
    """A cloud seen from an oblique angle, as by a camera far away: near points hide far ones, high ones are bright.

    Args:
        cloud: float (P, 3), about within the unit ball.
        scan: float (S, 3) of the same scene; its points are orange and hide all others. None: none.
        size: Height and width in pixels.

    Returns:
        float32 (3, size, size) in [0, 1]; the background is black.
    """
    cloud = cloud.to(torch.float32)
    heights = cloud[:, 2]
    low, high = float(heights.min()), float(heights.max())
    grey = 0.3 + 0.7 * (heights - low) / max(high - low, 1e-6)
    picture = torch.zeros(3, size, size)
    _dots(picture, cloud, grey[:, None].expand(-1, 3), size)
    if scan is not None:
        _dots(picture, scan.to(torch.float32), torch.tensor(_SCAN).expand(len(scan), -1), size)
    return picture


def _dots(picture: Tensor, points: Tensor, colours: Tensor, size: int) -> None:
    """Draws points of 2 by 2 pixels, the far ones first."""
    x, y, z = points.unbind(1)
    right = x * math.cos(_AZIMUTH) - y * math.sin(_AZIMUTH)
    away = x * math.sin(_AZIMUTH) + y * math.cos(_AZIMUTH)
    up = away * math.sin(_ELEVATION) + z * math.cos(_ELEVATION)
    depth = away * math.cos(_ELEVATION) - z * math.sin(_ELEVATION)
    column = ((right / _REACH + 1) / 2 * (size - 1)).round().long()
    row = ((1 - up / _REACH) / 2 * (size - 1)).round().long()
    for i in depth.argsort(descending=True).tolist():
        r, c = int(row[i]), int(column[i])
        if 0 <= r < size and 0 <= c < size:
            picture[:, r : r + 2, c : c + 2] = colours[i][:, None, None]
