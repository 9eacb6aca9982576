"""What the runs of an arm measured of their samples' fidelity, as means over runs."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from lightning_diffaug.ablation.statistics import Estimate, t_interval
from lightning_diffaug.ablation.summary import ArmSummary
from lightning_diffaug.errors import ConfigurationError
from lightning_diffaug.fidelity.result import FILE, Fidelity, Figure

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Measured:
    """A figure over an arm's runs.

    Attributes:
        value: Of the synthetic samples.
        real: The same of real ones; None where no run has it.
        samples: Synthetic samples that it is of in each run: fewest and most.
        standard_error: Of `value` within a run, mean over runs; None where no run has it.
        real_standard_error: The same of `real`.
    """

    value: Estimate
    real: Estimate | None
    samples: tuple[int, int]
    standard_error: float | None = None
    real_standard_error: float | None = None


@dataclass(frozen=True)
class ArmFidelity:
    """An arm's samples.

    Attributes:
        measured: Figures by name.
        per_class: Class → its own.
        about: What to know of them, a sentence each.
    """

    measured: Mapping[str, Measured]
    per_class: Mapping[str, Mapping[str, Measured]] = field(default_factory=dict)
    about: tuple[str, ...] = ()


def fidelity_of(arm: ArmSummary) -> ArmFidelity | None:
    """What an arm's runs measured; None where none has a ``fidelity.json`` that can be read."""
    found: list[Fidelity] = []
    unread: list[str] = []
    for run in arm.runs_of:
        path = run.path / FILE
        try:
            if path.is_file():
                found.append(Fidelity.read(path))
        except ConfigurationError as error:
            unread.append(f"{path} ({error})")
    if unread:
        log.warning(
            "%d records of fidelity of %s are left out of the report, such as %s", len(unread), arm.arm, unread[0]
        )
    if not found:
        return None
    classes = dict.fromkeys(name for one in found for name in one.per_class)
    per_class = {c: _over_runs([one.per_class[c] for one in found if c in one.per_class]) for c in classes}
    return ArmFidelity(_over_runs([one.measured for one in found]), per_class, tuple(_about(found)))


def _over_runs(records: Sequence[Mapping[str, Figure]]) -> dict[str, Measured]:
    names = dict.fromkeys(name for record in records for name in record)
    made = {name: _measured([record[name] for record in records if name in record]) for name in names}
    return {name: one for name, one in made.items() if one is not None}


def _measured(figures: Sequence[Figure]) -> Measured | None:
    value = _estimate(one.value for one in figures)
    if value is None:
        return None
    counts = [one.samples for one in figures]
    errors = [
        None if found is None else found.mean
        for found in (
            _estimate(one.standard_error for one in figures),
            _estimate(one.real_standard_error for one in figures),
        )
    ]
    return Measured(value, _estimate(one.real for one in figures), (min(counts), max(counts)), *errors)


def _estimate(values: Iterable[float | None]) -> Estimate | None:
    finite = [value for value in values if value is not None and math.isfinite(value)]
    return t_interval(finite) if finite else None


def _about(records: Sequence[Fidelity]) -> list[str]:
    said = dict.fromkeys(f"Real: {one.about['level']}." for one in records if one.about.get("level"))
    said |= dict.fromkeys(f"Features: {one.about['features']}." for one in records if one.about.get("features"))
    said |= dict.fromkeys(
        f"A class with fewer than {one.about['least_per_class']} samples of a kind is not measured alone."
        for one in records
        if one.about.get("classes_too_small")
    )
    said |= dict.fromkeys(f"Without {name}: {why}" for one in records for name, why in one.absent.items())
    return list(said)
