"""Conditions that are made of the sample itself: pure functions of a field in [-1, 1]."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from lightning_diffaug.errors import ConfigurationError


def low_resolution(x: Tensor, factor: int) -> Tensor:
    """The means of blocks of ``factor`` values along each spatial axis.

    Args:
        x: (n, C, *size) with one to three spatial axes.
        factor: Length of a block.

    Returns:
        (n, C, *size / factor), rounded up.
    """
    size = [-(-length // factor) for length in x.shape[2:]]
    pool: Callable[..., Tensor] = (
        functional.adaptive_avg_pool1d, functional.adaptive_avg_pool2d, functional.adaptive_avg_pool3d
    )[len(size) - 1]  # fmt: skip
    return pool(x, size)


def edges(x: Tensor, factor: int) -> Tensor:
    """The edge map: magnitude of the gradient, by central differences, the strongest of the channels.

    Args:
        x: (n, C, *size) in [-1, 1].
        factor: Not used.

    Returns:
        (n, 1, *size) in [-1, 1]; -1 is no edge, 1 a change by the whole range within two values, or more.
    """
    axes = [axis for axis in range(2, x.ndim) if x.shape[axis] > 1]
    slopes = [torch.gradient(x, dim=axis)[0] for axis in axes]
    magnitude = torch.stack(slopes).square().sum(0).sqrt() if slopes else torch.zeros_like(x)
    return 2.0 * magnitude.amax(1, keepdim=True).clamp(max=1.0) - 1.0


DERIVED: dict[str, Callable[[Tensor, int], Tensor]] = {"low_resolution": low_resolution, "edges": edges}
"""How a condition is made of a field, by name."""


def derive(x: Tensor, how: str, factor: int) -> Tensor:
    """Makes a condition of a field.

    Args:
        x: (n, C, *size) in [-1, 1].
        how: One of `DERIVED`.
        factor: As that function says.

    Raises:
        ConfigurationError: The field has no spatial axes, or too many.
    """
    if not 3 <= x.ndim <= 5:
        raise ConfigurationError(
            f"{how} needs a field with one to three axes behind its channels, not samples of shape "
            f"{tuple(x.shape[1:])}. Set `of` in generator.conditions to another field."
        )
    return DERIVED[how](x, factor)


def check_derived(name: str, of: object, how: object, factor: object) -> None:
    """Refuses a derived condition that cannot be.

    Raises:
        ConfigurationError: See above.
    """
    if not isinstance(of, str) or how not in DERIVED:
        raise ConfigurationError(
            f"the condition {name!r} cannot be made: of={of!r} is the field that it is made of, how={how!r} is the "
            f"way, one of {', '.join(DERIVED)}. Set generator.conditions.{name} to e.g. "
            "{of: image, how: low_resolution, factor: 4}."
        )
    if type(factor) is not int or factor < 2:
        raise ConfigurationError(
            f"factor={factor!r} of the condition {name!r} is not a whole number from 2: it is how many values along "
            f"each axis become one. Set generator.conditions.{name}.factor to e.g. 4."
        )
