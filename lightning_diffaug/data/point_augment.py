"""What makes further samples of a cloud and its scan: augmentation of both, and a scan of a made cloud."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lightning_diffaug.errors import ConfigurationError
from lightning_diffaug.points import SCANS, scanned
from lightning_diffaug.transforms import JointFlip3D, JointRotation3D


class CloudAugment(nn.Module):
    """Turns a cloud and its scan about z by one drawn angle, mirrors both or neither, and makes the scan inexact.

    Args:
        max_degrees: Largest angle, either way; in (0, 180].
        flip: Probability of a mirror image.
        jitter: Standard deviation of the noise of each coordinate of the scan, which is cut at three times as much.
        cloud: Path of the cloud.
        scan: Path of the scan.

    Raises:
        ConfigurationError: A value is out of range.
    """

    def __init__(
        self, max_degrees: float = 180.0, flip: float = 0.5, jitter: float = 0.01, cloud: str = "cloud",
        scan: str = "scan",
    ) -> None:  # fmt: skip
        super().__init__()
        if not 0 <= jitter < math.inf:
            raise ConfigurationError(
                f"jitter={jitter} is not a number from 0: it is the noise of a scan, in its unit. Set "
                "real.augment.jitter to e.g. 0.01."
            )
        both = (cloud, scan)
        self.rotation = JointRotation3D(points=both, max_degrees=max_degrees)
        self.flip = JointFlip3D(points=both, p=flip)
        self.jitter, self.scan = jitter, scan

    def forward(self, sample: Mapping[str, Any]) -> dict[str, Any]:
        """Another sample; the given one is left as it was."""
        moved = dict(self.flip(self.rotation(sample)))
        if self.jitter:
            scan = moved[self.scan]
            moved[self.scan] = scan + self.jitter * torch.randn_like(scan).clamp(-3, 3)
        return moved


class ScanOf:
    """A scan of a made cloud as the real ones are made, for ``data.fill``: of one cloud always the same.

    Args:
        points: Of the scan.
        how: One of `points.SCANS`.
        lines: How many lines.
        cloud: Name of the cloud's field.

    Raises:
        ConfigurationError: `how` is unknown.
    """

    def __init__(self, points: int = 24, how: str = "lines", lines: int = 3, cloud: str = "cloud") -> None:
        if how not in SCANS:
            raise ConfigurationError(f"how={how!r} is no way to scan. Set real.scan to one of {', '.join(SCANS)}.")
        self.points, self.how, self.lines, self.cloud = points, how, lines, cloud

    def __call__(self, fields: Mapping[str, Any]) -> Tensor:
        """float32 (points, 3) of ``fields[cloud]``, (P, 3)."""
        cloud = np.ascontiguousarray(fields[self.cloud].numpy())
        rng = np.random.RandomState(np.frombuffer(cloud.tobytes(), np.uint32)[:8])
        return torch.from_numpy(scanned(cloud, self.points, self.how, self.lines, rng))
