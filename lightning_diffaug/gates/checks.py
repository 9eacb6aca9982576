"""Arguments of gates, checked at the door, and how errors say that they are set."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from lightning_diffaug.errors import ConfigurationError
from lightning_diffaug.gates.nearest import compared_field
from lightning_diffaug.spec import SampleSpec


def as_set(gate: str, **arguments: Any) -> str:
    """Arguments as they are given on a command line and in YAML: ``gates.copy={ratio: 0.33}``.

    A gate is a mapping or true, so that ``gates.copy.ratio=0.33`` reaches nothing.
    """
    return f"gates.{gate}={_written(arguments)}"


def _written(value: Any) -> str:
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{key}: {_written(item)}' for key, item in value.items())}}}"
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def check_number(
    value: Any, gate: str, key: str, what: str, example: float, low: float, high: float = math.inf
) -> float:
    """A number of a range, checked; a whole one where the example is.

    Args:
        value: The argument.
        gate: Name of the gate.
        key: Name of the argument.
        what: What it says, for the error.
        example: A value that is right.
        low: Least value.
        high: Highest value; inf: any that is finite.

    Raises:
        ConfigurationError: It is none.
    """
    whole = isinstance(example, int)
    number = isinstance(value, int if whole else (int, float)) and not isinstance(value, bool)
    if not number or not low <= value <= high or not math.isfinite(value):
        kind = "whole number" if whole else "number"
        limits = f"from {low:g}" + (f" to {high:g}" if math.isfinite(high) else "")
        raise ConfigurationError(
            f"gates.{gate}.{key}={value!r} is no {kind} {limits}: it is {what}. Set {as_set(gate, **{key: example})}."
        )
    return value  # type: ignore[no-any-return]


def check_ratio(ratio: Any, gate: str, key: str = "ratio") -> float:
    """A distance ratio, checked.

    Raises:
        ConfigurationError: It is not in (0, 1).
    """
    if isinstance(ratio, bool) or not isinstance(ratio, (int, float)) or not 0 < ratio < 1:
        raise ConfigurationError(
            f"gates.{gate}.{key}={ratio} is not between 0 and 1: it is how near a sample may come, as a share of the "
            f"distance between real neighbours. Set {as_set(gate, **{key: 0.33})}."
        )
    return float(ratio)


def check_moves(shift: Any, mirror: Any, gate: str) -> None:
    """What copies are seen through, checked.

    Raises:
        ConfigurationError: `shift` is no whole number from 0, or `mirror` neither true nor false.
    """
    check_number(shift, gate, "shift", "the movement in pixels that is seen through", 1, 0)
    if not isinstance(mirror, bool):
        raise ConfigurationError(
            f"gates.{gate}.mirror={mirror!r} is neither true nor false: it is whether mirrored copies are seen "
            f"through. Set {as_set(gate, mirror=True)}."
        )


def check_field(spec: SampleSpec, gate: str, field: str | None) -> None:
    """The field that a gate looks at.

    Raises:
        ConfigurationError: No generator makes a field of that name.
    """
    names = [one.name for one in spec.continuous]
    if field is not None and field not in names:
        raise ConfigurationError(
            f"gates.{gate}.field={field!r} is no field that a generator makes of these data; there are "
            f"{', '.join(names)}. Name one of them, or leave it out."
        )


def check_image(spec: SampleSpec, gate: str, field: str | None) -> None:
    """As `check_field`, and the field holds images of one or three channels.

    Raises:
        ConfigurationError: It does not.
    """
    check_field(spec, gate, field)
    name = compared_field(spec, field) if spec.continuous else None
    shape = () if name is None else tuple(spec[name].shape)
    if len(shape) != 3 or shape[0] not in (1, 3):
        raise ConfigurationError(
            f"gates.{gate} looks at images of one or three channels, and the field {name!r} has the shape {shape}. "
            f"Name one in gates.{gate}.field, or set gates.{gate}=false."
        )
