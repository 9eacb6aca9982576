"""The synthetic fraction as a function of the epoch."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from fractions import Fraction
from typing import Any, Protocol, TypeAlias, runtime_checkable

from lightning_diffaug.errors import ConfigurationError

KEY = "data.synthetic_fraction"
RESOLUTION = 10**9  # Of a fraction. One grid for all ramps keeps the denominator of a carried sum small.

Number: TypeAlias = int | float | Fraction | str


@runtime_checkable
class Schedule(Protocol):
    """Maps an epoch (0, 1, …) to the share of its draws that is synthetic, exactly, in [0, 1]."""

    @property
    def is_constant(self) -> bool:
        """Whether every epoch has the same fraction."""
        ...

    @property
    def extremes(self) -> tuple[Fraction, Fraction]:
        """The smallest and the largest fraction of any epoch, so that settings can be checked before the first."""
        ...

    def __call__(self, epoch: int) -> Fraction:
        """The fraction of this epoch."""
        ...


def as_fraction(value: Any, name: str = "value") -> Fraction:
    """The number as the user wrote it, exact: 0.1 becomes 1/10, and "1/3" is understood.

    Args:
        value: An int, float, NumPy number, Fraction, or a string such as "0.25" or "1/3", in [0, 1].
        name: What it is called in the error.

    Returns:
        The nearest fraction with a denominator of at most 10⁹.

    Raises:
        ConfigurationError: If it is not a number in [0, 1].
    """
    if isinstance(value, Fraction):
        exact = value
    else:
        try:
            if isinstance(value, bool):
                raise ValueError("a bool is not a share")
            exact = Fraction(str(value))
        except (ValueError, ZeroDivisionError) as error:
            raise ConfigurationError(
                f"{KEY}: {name}={value!r} is not a finite number: it is the share of each batch that is "
                f"synthetic. Set {KEY} to a number from 0 to 1."
            ) from error
    if not 0 <= exact <= 1:
        raise ConfigurationError(
            f"{KEY}: {name}={value} is not in [0, 1]: it is the share of each batch that is synthetic. "
            f"Set {KEY} to a number from 0 (real only) to 1 (synthetic only)."
        )
    return exact.limit_denominator(RESOLUTION)


def _as_epoch(value: Any, name: str, least: int) -> int:
    """A whole number of epochs, also where Hydra hands it over as a string or a float."""
    try:
        number = int(value)
        if isinstance(value, bool) or number != float(value) or number < least:
            raise ValueError
    except (TypeError, ValueError, OverflowError) as error:
        raise ConfigurationError(
            f"{KEY}: {name}={value!r} is not a whole number of at least {least}: it counts epochs. "
            f"Change {name} in {KEY}."
        ) from error
    return number


def _extremes(*values: Number) -> tuple[Fraction, Fraction]:
    exact = [as_fraction(value) for value in values]
    return min(exact), max(exact)


@dataclass(frozen=True)
class Constant:
    """The same fraction in every epoch."""

    value: Number

    def __post_init__(self) -> None:
        as_fraction(self.value)

    @property
    def is_constant(self) -> bool:
        """Always."""
        return True

    @property
    def extremes(self) -> tuple[Fraction, Fraction]:
        """The value, twice."""
        return _extremes(self.value)

    def __call__(self, epoch: int) -> Fraction:
        """The fraction of this epoch."""
        return as_fraction(self.value)


@dataclass(frozen=True)
class _Ramp:
    """From ``start`` in epoch 0 to ``end`` in epoch ``epochs``, then ``end``; never beyond the two."""

    start: Number
    end: Number
    epochs: int

    def __post_init__(self) -> None:
        as_fraction(self.start, "start"), as_fraction(self.end, "end")
        object.__setattr__(self, "epochs", _as_epoch(self.epochs, "epochs", 1))

    @property
    def is_constant(self) -> bool:
        """Whether it ends where it starts."""
        return as_fraction(self.start) == as_fraction(self.end)

    @property
    def extremes(self) -> tuple[Fraction, Fraction]:
        """Its two ends."""
        return _extremes(self.start, self.end)

    def _at(self, progress: Fraction | float) -> Fraction:
        start, end = as_fraction(self.start), as_fraction(self.end)
        if progress >= 1:
            return end
        return Fraction(round((start + (end - start) * Fraction(progress)) * RESOLUTION), RESOLUTION)


@dataclass(frozen=True)
class Linear(_Ramp):
    """From ``start`` in epoch 0 in equal steps to ``end`` in epoch ``epochs``, then ``end``."""

    def __call__(self, epoch: int) -> Fraction:
        """The fraction of this epoch."""
        return self._at(Fraction(epoch, self.epochs))


@dataclass(frozen=True)
class Cosine(_Ramp):
    """From ``start`` in epoch 0 along half a cosine to ``end`` in epoch ``epochs``, then ``end``."""

    def __call__(self, epoch: int) -> Fraction:
        """The fraction of this epoch."""
        return self._at((1 - math.cos(math.pi * min(epoch / self.epochs, 1.0))) / 2)


@dataclass(frozen=True)
class Piecewise:
    """Steps: each value holds from its epoch on until the next one; epoch 0 must be among them."""

    values: Mapping[int, Number]

    def __post_init__(self) -> None:
        if not isinstance(self.values, Mapping):
            raise ConfigurationError(
                f"{KEY}: values={self.values!r} is not a mapping from epochs to fractions. "
                f"Set {KEY}.values to one such as {{0: 0.5, 10: 0.25}}."
            )
        steps = {_as_epoch(epoch, "values", 0): value for epoch, value in self.values.items()}
        for epoch, value in steps.items():
            as_fraction(value, f"values[{epoch}]")
        if 0 not in steps:
            raise ConfigurationError(
                f"{KEY}: values={dict(self.values)} has no entry for epoch 0, so the first epochs have no "
                f"fraction. Add `0: …` to {KEY}.values."
            )
        object.__setattr__(self, "values", dict(sorted(steps.items())))

    @property
    def is_constant(self) -> bool:
        """Whether all values are equal."""
        return len({as_fraction(value) for value in self.values.values()}) == 1

    @property
    def extremes(self) -> tuple[Fraction, Fraction]:
        """Of the values."""
        return _extremes(*self.values.values())

    def __call__(self, epoch: int) -> Fraction:
        """The fraction of this epoch."""
        return as_fraction(self.values[max(first for first in self.values if first <= epoch)])


@dataclass(frozen=True)
class StopAfter:
    """``value`` in the first ``epoch`` epochs, real only from then on."""

    value: Number
    epoch: int

    def __post_init__(self) -> None:
        as_fraction(self.value)
        object.__setattr__(self, "epoch", _as_epoch(self.epoch, "epoch", 0))

    @property
    def is_constant(self) -> bool:
        """Whether it is 0 from the start."""
        return self.epoch == 0 or as_fraction(self.value) == 0

    @property
    def extremes(self) -> tuple[Fraction, Fraction]:
        """0 and the value, where any epoch has it."""
        return Fraction(0), self(0)

    def __call__(self, epoch: int) -> Fraction:
        """The fraction of this epoch."""
        return as_fraction(self.value) if epoch < self.epoch else Fraction(0)


SCHEDULES: dict[str, Callable[..., Schedule]] = {
    "constant": Constant,
    "linear": Linear,
    "cosine": Cosine,
    "piecewise": Piecewise,
    "stop_after": StopAfter,
}


def as_schedule(value: Any) -> Schedule:
    """What the user set as ``synthetic_fraction``, as a schedule.

    Args:
        value: A number in [0, 1] (0 and 1 as ints too), a schedule, or a mapping such as
            ``{"name": "linear", "start": 0.5, "end": 0, "epochs": 20}``.

    Raises:
        ConfigurationError: If it is none of these, or a number in it is not in [0, 1].
    """
    if isinstance(value, Schedule) and not isinstance(value, type):
        return value
    if not isinstance(value, Mapping):
        return Constant(as_fraction(value))
    settings = dict(value)
    name = settings.pop("name", None)
    if str(name) not in SCHEDULES:
        raise ConfigurationError(f"{KEY}.name={name!r} is unknown. Set it to one of {', '.join(SCHEDULES)}.")
    schedule = SCHEDULES[str(name)]
    known = [field.name for field in fields(schedule)]  # type: ignore[arg-type]
    if set(settings) != set(known):
        raise ConfigurationError(
            f"{KEY}: the schedule {name!r} takes {', '.join(known)}, but was given "
            f"{', '.join(map(str, settings)) or 'nothing'}. Set {KEY}.{{{','.join(known)}}}."
        )
    return schedule(**settings)


def carried_draws(schedule: Schedule, epoch: int, draws: int) -> Fraction:
    """Synthetic draws that one rank was due in the epochs before this one, F = Σ_{i<e} f_i · D.

    Args:
        schedule: The fraction of each epoch.
        epoch: The epoch e that is about to begin.
        draws: D, one rank's draws in every epoch.
    """
    if schedule.is_constant:
        return schedule(0) * epoch * draws
    return sum((schedule(before) for before in range(epoch)), Fraction(0)) * draws
