"""The user's own network as a denoiser."""

from __future__ import annotations

from typing import Any, cast

from torch import Tensor, nn

from lightning_diffaug.generators.denoisers.conditioning import Conditions, null_condition
from lightning_diffaug.generators.protocol import Condition


class OwnDenoiser(nn.Module):
    """Wraps a network of the user's, given by the import path of its class.

    The class is made as ``cls(shape, conditions, **denoiser_args)`` and called as ``forward(x_t, t, condition)``. A
    method ``null(condition)`` of its own replaces the null condition of zeros and null classes. In full:

        class Mlp(nn.Module):  # in my_project/denoisers.py; generator.fit.denoiser=my_project.denoisers.Mlp
            def __init__(self, shape, conditions, width=256):
                super().__init__()
                values, classes = math.prod(shape), conditions["label"].classes
                self.told = nn.Embedding(classes + 1, width)  # the last is the null class
                self.into, self.out = nn.Linear(values + 1, width), nn.Linear(width, values)

            def forward(self, x_t, t, condition):  # x_t (n, *shape), t in [0, 1000) of shape () or (n,)
                time = t.expand(len(x_t))[:, None] / 1000
                hidden = self.into(torch.cat((x_t.flatten(1), time), 1)) + self.told(condition["label"])
                return self.out(functional.silu(hidden)).view_as(x_t)

    Args:
        network: The user's network.
        shape: Of one sample.
        conditions: What it is told.
    """

    def __init__(self, network: nn.Module, shape: tuple[int, ...], conditions: Conditions) -> None:
        super().__init__()
        self.network = network
        self.shape, self.conditions = shape, conditions

    def forward(self, x_t: Tensor, t: Tensor, condition: Condition) -> Tensor:
        """See `Denoiser`."""
        return cast(Tensor, self.network(x_t, t, condition))

    def null(self, condition: Condition) -> Condition | None:
        """See `Denoiser`."""
        own: Any = getattr(self.network, "null", None)
        return null_condition(self.conditions, condition) if own is None else cast("Condition | None", own(condition))
