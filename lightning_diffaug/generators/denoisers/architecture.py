"""Denoisers by name: the architecture as plain values, which travel with the weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from lightning_diffaug.errors import ConfigurationError
from lightning_diffaug.generators.denoisers.conditioning import Conditions, ConditionSpec
from lightning_diffaug.generators.denoisers.unet import UNetDenoiser

DENOISERS: dict[str, type[nn.Module]] = {"unet": UNetDenoiser}
"""Name → class, made as ``cls(shape, conditions, **args)``."""


@dataclass(frozen=True)
class Architecture:
    """All that a denoiser is made of, but its weights.

    Attributes:
        name: One of `DENOISERS`.
        shape: Of one sample, as it is denoised.
        conditions: What it is told, in order.
        args: Further constructor arguments, plain values.
    """

    name: str
    shape: tuple[int, ...]
    conditions: Conditions
    args: Mapping[str, Any] = field(default_factory=dict)

    def build(self) -> nn.Module:
        """The network, its initial weights drawn from the global random state.

        Raises:
            ConfigurationError: It does not suit the samples or their conditions.
        """
        try:
            return DENOISERS[self.name](self.shape, self.conditions, **self.args)
        except TypeError as error:
            raise ConfigurationError(
                f"the denoiser {self.name} cannot be made with {dict(self.args)}: {error}. Correct "
                "generator.fit.denoiser_args."
            ) from error

    def to_json(self) -> dict[str, Any]:
        """Plain values for a JSON file; conditions as a list, whose order matters."""
        return {
            "name": self.name,
            "shape": list(self.shape),
            "conditions": [[name, spec.to_json()] for name, spec in self.conditions.items()],
            "args": dict(self.args),
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Architecture:
        """The inverse of `to_json`."""
        conditions = {name: ConditionSpec.from_json(spec) for name, spec in values["conditions"]}
        return cls(values["name"], tuple(values["shape"]), conditions, dict(values["args"]))
