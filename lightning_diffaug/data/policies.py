"""Automatic augmentation policies of torchvision, for images of any number of channels and down to a few pixels."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torchvision import tv_tensors
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import AutoAugment, AutoAugmentPolicy, RandAugment, RandomChoice, TrivialAugmentWide

from lightning_diffaug.errors import ConfigurationError

_BILINEAR = InterpolationMode.BILINEAR  # nearest, torchvision's default, breaks strokes of one pixel
_BINS = 31
_POLICIES = {policy.value: policy for policy in AutoAugmentPolicy}


class AnyChannels(nn.Module):
    """Lets a transform of grey and RGB images take tensors of any number of channels.

    Other numbers go through it as grey images side by side, with the same operation and magnitude for all of them.

    Args:
        transform: Of one image; draws from torch's global random state.
    """

    def __init__(self, transform: nn.Module) -> None:
        super().__init__()
        self.transform = transform

    def forward(self, image: Any) -> Any:
        """A changed image of the same type, dtype, shape and range; tensors are ``(C, H, W)``."""
        if not isinstance(image, Tensor) or image.shape[-3] in (1, 3):
            return self.transform(image)
        grey = self.transform(image.as_subclass(Tensor).unsqueeze(-3)).squeeze(-3)
        return tv_tensors.wrap(grey, like=image) if isinstance(image, tv_tensors.TVTensor) else grey


def randaugment(num_ops: int = 2, magnitude: int = 9) -> nn.Module:
    """RandAugment (Cubuk et al. 2020): some operations in turn, each of the same magnitude.

    Translations are at most 45% of a side, whatever the size of the image.

    Args:
        num_ops: Operations that an image goes through.
        magnitude: Of each, in 0..30.

    Returns:
        A transform of one uint8 or float image, tensor or PIL.

    Raises:
        ConfigurationError: A value is out of its range.
    """
    if num_ops < 1 or not 0 <= magnitude < _BINS:
        raise ConfigurationError(
            f"real.augment: num_ops={num_ops}, magnitude={magnitude}: an image goes through 1 operation or more, of a "
            f"magnitude in 0..{_BINS - 1}. Set real.augment.num_ops and real.augment.magnitude so"
        )
    return AnyChannels(RandAugment(num_ops, magnitude, _BINS, interpolation=_BILINEAR))


def trivialaugment(wide: bool = False) -> nn.Module:
    """TrivialAugment (Müller & Hutter 2021): one operation of a random magnitude.

    Args:
        wide: Whether magnitudes are from the wide space of the paper (rotations up to 135°), whose translations are up
            to 32 *pixels*: an image below 64 pixels can be moved out of sight, one of 8 nearly always is. Else they are
            from RandAugment's space, the paper's other one, with translations up to 45% of a side.

    Returns:
        A transform of one uint8 or float image, tensor or PIL.
    """
    if wide:
        return AnyChannels(TrivialAugmentWide(_BINS, interpolation=_BILINEAR))
    # one operation of RandAugment at each of its magnitudes is TrivialAugment in that space
    return AnyChannels(RandomChoice([RandAugment(1, level, _BINS, interpolation=_BILINEAR) for level in range(_BINS)]))


def autoaugment(policy: str = "svhn") -> nn.Module:
    """AutoAugment (Cubuk et al. 2019): pairs of operations that were found for a data set.

    Translations are at most 45% of a side, whatever the size of the image.

    Args:
        policy: The data set: ``"svhn"`` (digits), ``"cifar10"`` or ``"imagenet"`` (objects).

    Returns:
        A transform of one uint8 or float image, tensor or PIL.

    Raises:
        ConfigurationError: There is no such policy.
    """
    if policy not in _POLICIES:
        raise ConfigurationError(
            f"real.augment.policy={policy!r} is unknown: it is the data set that the policy was found for. Set "
            f"real.augment.policy to one of {', '.join(_POLICIES)}"
        )
    return AnyChannels(AutoAugment(_POLICIES[policy], interpolation=_BILINEAR))
