"""What the denoising loop, the fit and the sampler need of a network."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from torch import Tensor, nn

from lightning_diffaug.generators.denoisers.conditioning import Conditions
from lightning_diffaug.generators.protocol import Condition


class Denoiser(Protocol):
    """What the denoising loop needs of a network."""

    def __call__(self, x_t: Tensor, t: Tensor, condition: Condition) -> Tensor:
        """Predicts noise, velocity or sample.

        Args:
            x_t: (n, *shape) noisy samples.
            t: Timestep in [0, 1000), a scalar or (n,).
            condition: n entries for each name.

        Returns:
            (n, *shape) prediction.
        """
        ...

    def null(self, condition: Condition) -> Condition | None:
        """The same keys with nothing asked for; None if the denoiser knows no such condition."""
        ...


class FittedDenoiser(Denoiser, Protocol):
    """A denoiser that says what it is: a module with these attributes.

    Attributes:
        shape: Of one sample, as it is denoised.
        conditions: What it is told.
    """

    shape: tuple[int, ...]
    conditions: Conditions

    def parameters(self) -> Iterator[nn.Parameter]:
        """Its weights."""
        ...
