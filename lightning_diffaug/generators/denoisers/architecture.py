"""Denoisers by name: the architecture as plain values, which travel with the weights."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

from torch import nn

from lightning_diffaug.errors import ConfigurationError
from lightning_diffaug.generators.denoisers.conditioning import Conditions, ConditionSpec, of_kind, unknown_kind
from lightning_diffaug.generators.denoisers.dit import DiTDenoiser, are_points
from lightning_diffaug.generators.denoisers.own import OwnDenoiser
from lightning_diffaug.generators.denoisers.unet import UNetDenoiser
from lightning_diffaug.generators.denoisers.unet1d import UNet1DDenoiser
from lightning_diffaug.generators.denoisers.unet_cross import UNetCrossDenoiser

DENOISERS: dict[str, Any] = {
    "unet": UNetDenoiser,
    "unet_cross": UNetCrossDenoiser,
    "dit": DiTDenoiser,
    "unet1d": UNet1DDenoiser,
}
"""Name → class, made as ``cls(shape, conditions, **args)`` and checked, without being built, by ``cls.check``."""

AUTO = "auto"
_COMMON = {"channels", "layers_per_block", "attention"}
"""Arguments that may be set before it is known which denoiser suits the data."""


@dataclass(frozen=True)
class Architecture:
    """All that a denoiser is made of, but its weights.

    Attributes:
        name: One of `DENOISERS`, or the import path of a class of the user's (see `OwnDenoiser`).
        shape: Of one sample, as it is denoised.
        conditions: What it is told, in order.
        args: Further constructor arguments, plain values.
    """

    name: str
    shape: tuple[int, ...]
    conditions: Conditions
    args: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, name: str, shape: tuple[int, ...], conditions: Conditions, args: Mapping[str, Any]) -> Architecture:
        """The architecture of that name; ``"auto"`` takes the one that suits samples and conditions."""
        return cls(suited(shape, conditions) if name == AUTO else name, shape, conditions, args)

    def check(self) -> None:
        """Refuses what `build` does, and builds nothing; what suits a network of the user's is its own affair.

        Raises:
            ConfigurationError: See `build`.
        """
        check_arguments(self.name, self.args)
        if self.name in DENOISERS:
            DENOISERS[self.name].check(self.shape, self.conditions, **self.args)

    def build(self) -> nn.Module:
        """The network, its initial weights drawn from the global random state.

        Raises:
            ConfigurationError: It does not suit the samples or their conditions.
        """
        made = denoiser_class(self.name)
        check_arguments(self.name, self.args)
        network: nn.Module = made(self.shape, dict(self.conditions), **self.args)
        return network if self.name in DENOISERS else OwnDenoiser(network, self.shape, self.conditions)

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


def suited(shape: tuple[int, ...], conditions: Conditions) -> str:
    """The denoiser that suits samples of this shape: a UNet for images and for sequences, else the transformer."""
    attends = bool(of_kind(conditions, "cross"))
    if len(shape) == 3:
        return "unet_cross" if attends else "unet"
    return "unet1d" if len(shape) == 2 and not attends and not are_points(shape) else "dit"


def denoiser_class(name: str) -> Any:
    """The class of a denoiser.

    Raises:
        ConfigurationError: There is none of that name.
    """
    if name in DENOISERS:
        return DENOISERS[name]
    module, _, attribute = str(name).rpartition(".")
    try:
        found = getattr(import_module(module), attribute) if module else None
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigurationError(
            f"denoiser={name!r} cannot be imported ({error}), so there is no network to fit. Set "
            f"generator.fit.denoiser to {AUTO}, {', '.join(DENOISERS)}, or the import path of an nn.Module."
        ) from error
    if not (inspect.isclass(found) and issubclass(found, nn.Module)):
        raise ConfigurationError(
            f"denoiser={name!r} is no denoiser. Set generator.fit.denoiser to {AUTO}, {', '.join(DENOISERS)}, or the "
            "import path of an nn.Module."
        )
    return found


def check_denoiser(name: str, args: Mapping[str, Any], kinds: Mapping[str, str] | None = None) -> None:
    """Refuses a denoiser that cannot be, or cannot be told its conditions, before any data are known.

    Args:
        name: See `Architecture`, or ``"auto"``.
        args: Its arguments.
        kinds: Kind of each condition.

    Raises:
        ConfigurationError: See above.
    """
    if name == AUTO:
        if set(args) - _COMMON:
            raise ConfigurationError(
                f"denoiser_args={dict(args)} are for one denoiser, and denoiser=auto chooses by the data. Set "
                f"generator.fit.denoiser to one of {', '.join(DENOISERS)}."
            )
        return
    made = denoiser_class(name)
    check_arguments(name, args)
    known = made.kinds if name in DENOISERS else None  # what a class of the user's can be told is its own affair
    for field_name, kind in (kinds or {}).items():
        if known is not None and kind not in known:
            raise unknown_kind(name, field_name, kind, known)


def source_of_denoiser(name: str) -> list[Any]:
    """Name and, of a network of the user's, hash of its code: for the fingerprint of a fit."""
    from lightning_diffaug.naming import source_digest

    return [name, None if name in (AUTO, *DENOISERS) else source_digest({"_target_": name})]


def check_arguments(name: str, args: Mapping[str, Any]) -> None:
    """Refuses arguments that a denoiser's constructor does not have.

    Raises:
        ConfigurationError: See above.
    """
    parameters = inspect.signature(denoiser_class(name)).parameters
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return
    known = list(parameters)[2:]  # behind shape and conditions
    for key in args:
        if key not in known:
            raise ConfigurationError(
                f"the denoiser {name} has no argument {key!r}, so generator.fit.{key} (or denoiser_args.{key}) would "
                f"change nothing. Leave it out; generator.fit.denoiser_args may have: {', '.join(known)}."
            )
