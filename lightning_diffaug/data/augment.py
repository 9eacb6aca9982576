"""Classical augmentation for small images."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from lightning_diffaug.errors import ConfigurationError


class SmallAffine(v2.Transform):  # type: ignore[misc]  # torchvision's classes are untyped
    """A small random rotation, translation and scaling, for each image with probability `p`.

    Unlike ``v2.RandomAffine`` the translation is in pixels, so one setting serves 8×8 and 32×32 images, and
    what is left of the image is filled with 0.

    Args:
        p: probability that an image is changed at all, in [0, 1].
        degrees: largest rotation to either side.
        pixels: largest translation along each axis, in pixels.
        scale: largest relative change of size, in [0, 1).

    Raises:
        ConfigurationError: a value is out of its range.
    """

    def __init__(self, p: float = 0.5, degrees: float = 15.0, pixels: float = 1.0, scale: float = 0.1) -> None:
        super().__init__()
        if not 0 <= p <= 1:
            raise ConfigurationError(
                f"real.augment.p={p} is not in [0, 1]: it is the probability that an image is augmented. "
                "Set real.augment.p to a probability"
            )
        if degrees < 0 or pixels < 0 or not 0 <= scale < 1:
            raise ConfigurationError(
                f"real.augment: degrees={degrees}, pixels={pixels}, scale={scale}: the largest changes of an image "
                "must be 0 or more, and scale below 1. Set real.augment.degrees, .pixels and .scale so"
            )
        self.p = p
        self.degrees = degrees
        self.pixels = pixels
        self.scale = scale

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Draws one change from torch's global random state, the same for all inputs of a sample."""
        apply, angle, dx, dy, zoom = torch.rand(5).tolist()
        return {
            "apply": apply < self.p,
            "angle": (2 * angle - 1) * self.degrees,
            "translate": [(2 * dx - 1) * self.pixels, (2 * dy - 1) * self.pixels],
            "scale": 1 + (2 * zoom - 1) * self.scale,
        }

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Applies the drawn change (bilinear; masks nearest)."""
        if not params["apply"]:
            return inpt
        return self._call_kernel(
            F.affine,
            inpt,
            angle=params["angle"],
            translate=params["translate"],
            scale=params["scale"],
            shear=[0.0, 0.0],
            interpolation=v2.InterpolationMode.BILINEAR,
        )


def classical(
    p: float = 0.5,
    degrees: float = 15.0,
    pixels: float = 1.0,
    scale: float = 0.1,
    horizontal_flip: bool = False,
) -> nn.Module:
    """Classical augmentation of one image of any size.

    Args:
        p: probability that an image is moved, in [0, 1].
        degrees: largest rotation to either side.
        pixels: largest translation along each axis, in pixels.
        scale: largest relative change of size, in [0, 1).
        horizontal_flip: also mirrors every second image. Off by default: a mirrored digit is no digit.

    Returns:
        A transform of uint8 or float tensors, tv_tensors and PIL images.
    """
    affine = SmallAffine(p, degrees, pixels, scale)
    transform: nn.Module = v2.Compose([v2.RandomHorizontalFlip(), affine]) if horizontal_flip else affine
    return transform
