"""What a sweep chooses on validation data: an arm of a kind, the deciding score, the arms to compare with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lightning_diffaug.ablation.metric import Metric
from lightning_diffaug.ablation.runs import BASELINE, CONTROL, SYNTHETIC
from lightning_diffaug.ablation.statistics import MIN_FOR_INTERVAL, SAME
from lightning_diffaug.ablation.summary import ArmSummary

REAL_ONLY = ("real_only", "real")
"""Names of the arm of real data alone; the first that there is."""


EQUAL_TIME = ", equal time"
"""How names of arms end that trained for the time of the best synthetic arm."""


@dataclass(frozen=True)
class Note:
    """What to know when reading a verdict.

    Attributes:
        text: A sentence or two.
        warns: Whether it takes weight from the verdict, beside which it then stands.
    """

    text: str
    warns: bool = False


@dataclass(frozen=True)
class Choice:
    """The arm that is best on validation data.

    Attributes:
        arm: The arm; None where there is none, or validation scores are missing.
        notes: What to know about it.
    """

    arm: ArmSummary | None
    notes: tuple[Note, ...] = ()


def is_corrected(arms: Sequence[ArmSummary], metric: Metric) -> bool:
    """Whether all arms have the score with the class prior corrected, of all seeds, or the metric needs no correction.

    Scores with and without are never compared to one another, so one arm without it leaves all to the raw score.
    """
    return not lacking_correction(arms, metric)


def lacking_correction(arms: Sequence[ArmSummary], metric: Metric) -> list[str]:
    """Names of the arms that lack a corrected score where they have the raw one."""

    def lacks(arm: ArmSummary, part: str) -> bool:
        raw, corrected = (arm.values.get(metric.key(part, c), {}) for c in (False, True))
        return bool(raw.keys() - corrected.keys())

    return [arm.arm for arm in arms if lacks(arm, "test") or lacks(arm, "val")]


def synthetic(arms: Sequence[ArmSummary]) -> list[ArmSummary]:
    """The arms that are judged."""
    return [arm for arm in arms if arm.role == SYNTHETIC and arm.fraction > 0]


def without_generator(arms: Sequence[ArmSummary]) -> list[ArmSummary]:
    """The arms of real data as they are, those of fraction 0 among them."""
    return [arm for arm in arms if arm.role == BASELINE or (arm.role == SYNTHETIC and arm.fraction == 0)]


def real_only(arms: Sequence[ArmSummary], beside: ArmSummary | None = None) -> ArmSummary | None:
    """The arm of real data alone; of several that of an arm's own settings, or that which had equal time."""
    own = None if beside is None else own_zero(arms, beside)
    if own is not None and own.name in REAL_ONLY:
        return own
    alone = without_generator(arms)
    found = next((arm for name in REAL_ONLY for arm in alone if arm.name == name), None)
    if found is None:
        return None
    # where wall-clock time is equal, the one that had it
    return next((a for a in alone if a.equal == "wall_clock" and a.name == f"{found.arm}{EQUAL_TIME}"), found)


def own_zero(arms: Sequence[ArmSummary], arm: ArmSummary) -> ArmSummary | None:
    """The arm of the same family at fraction 0: the same settings without synthetic data."""
    return next((a for a in without_generator(arms) if a.family == arm.family and a.fraction == 0), None)


def control_of(arms: Sequence[ArmSummary], arm: ArmSummary, key: str, lower: bool = False) -> Choice:
    """The control arm to compare with: of the same fraction where there is one; of several the best on validation."""
    controls = [a for a in arms if a.role == CONTROL]
    same = [a for a in controls if abs(a.fraction - arm.fraction) < SAME]
    chosen = best_on_validation(same or controls, key, lower)
    if chosen.arm is None and controls:
        note = Note("There are control arms, and none could be chosen on validation data.", warns=True)
        return Choice(None, (*chosen.notes, note))
    if chosen.arm is not None and not same:
        note = Note(f"The control, {chosen.arm.arm}, fills another fraction of the slots than {arm.arm}.", warns=True)
        return Choice(chosen.arm, (*chosen.notes, note))
    return chosen


def best_on_validation(arms: Sequence[ArmSummary], key: str, lower: bool = False) -> Choice:
    """The arm with the best mean score on validation data over the seeds that all have.

    Test scores are not looked at. Of two that are equal the one with less synthetic data counts, then the first.

    Args:
        arms: Of one kind. Of a single one no score is needed.
        key: Of the validation score.
        lower: Less is better.

    Returns:
        The arm. Arms with fewer than three seeds are left out where others have more, and that is noted.
    """
    if len(arms) <= 1:
        return Choice(arms[0] if arms else None)
    missing = [arm.arm for arm in arms if not arm.values.get(key)]
    if missing:
        return Choice(None, (Note(f"{key} is missing in {', '.join(missing)}.", warns=True),))
    notes = []
    enough = [arm for arm in arms if len(arm.values[key]) >= MIN_FOR_INTERVAL]
    if enough and len(enough) < len(arms):
        few = [arm.arm for arm in arms if arm not in enough]
        text = f"Left out of the choice, with fewer than {MIN_FOR_INTERVAL} seeds: {', '.join(few)}."
        notes.append(Note(text, warns=True))
    candidates = enough or list(arms)
    common = set.intersection(*(set(arm.values[key]) for arm in candidates))
    if len(common) < min(MIN_FOR_INTERVAL, *(len(arm.values[key]) for arm in candidates)):
        names = ", ".join(arm.arm for arm in candidates)
        text = f"Chosen by means over different seeds, as few are common to all of {names}."
        notes.append(Note(text, warns=True))
        common = set()
    ranked = sorted(candidates, key=lambda arm: arm.fraction)
    best = ranked[0]
    for arm in ranked[1:]:
        gain = mean_over(arm, key, common) - mean_over(best, key, common)
        if (-gain if lower else gain) > SAME:
            best = arm
    return Choice(best, tuple(notes))


def mean_over(arm: ArmSummary, key: str, seeds: set[int]) -> float:
    """Mean of a metric over some seeds; over all of the arm's where there are none."""
    values = arm.values[key]
    return float(np.mean([values[seed] for seed in sorted(seeds or values)]))


def is_zero_better(zero: ArmSummary | None, arm: ArmSummary, key: str, lower: bool = False) -> bool:
    """Whether the arm without synthetic data is at least as good on validation data, over the seeds that both have."""
    if zero is None:
        return False
    common = zero.values.get(key, {}).keys() & arm.values.get(key, {}).keys()
    if not common:
        return False
    gain = mean_over(zero, key, common) - mean_over(arm, key, common)
    return (-gain if lower else gain) >= -SAME
