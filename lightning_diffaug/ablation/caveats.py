"""What to know when reading a verdict: how was chosen, what was not compared, not corrected or not independent."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from lightning_diffaug.ablation.choice import Note, lacking_correction
from lightning_diffaug.ablation.notes import times
from lightning_diffaug.ablation.numbers import as_difference, in_points
from lightning_diffaug.ablation.ruling import HELPS, Facts
from lightning_diffaug.ablation.summary import ArmSummary

# Of a run's `real` settings: what the generator is not fitted to.
_NOT_FITTED = ("augment", "batch_size", "num_workers")


def caveats(facts: Facts, arms: Sequence[ArmSummary], key: str, kind: str) -> tuple[Note, ...]:
    """Notes on a verdict.

    Args:
        facts: What it rests on.
        arms: All of the task.
        key: The validation metric that chose.
        kind: Of the verdict.
    """
    return (*_choice(facts, key), *_correction(facts, arms), *_references(facts, kind), *_beside(facts, kind))


def shares_generator(arm: ArmSummary) -> bool:
    """Whether an arm's runs, two or more, share one generator: its settings and the data that it is fitted to."""
    known = [run.config for run in arm.runs_of if run.config.get("generator")]
    if len(known) < max(2, len(arm.runs_of)):
        return False
    return len({fitted_to(config) for config in known}) == 1


def fitted_to(config: Any) -> str:
    """Names a generator's settings and the data that it is fitted to, of a run's resolved configuration."""
    real = config.get("real") or {}
    shots = real.get("shots", "unknown")
    every = shots is None or (shots == "auto" and real.get("root") is not None)
    whole = every and not real.get("rare_classes") and real.get("voices") is None
    left_out = (*_NOT_FITTED, "seed") if whole else _NOT_FITTED  # the seed draws a part of the data, or nothing
    fitted = {name: value for name, value in real.items() if name not in left_out}
    return json.dumps([config["generator"], fitted], sort_keys=True, default=str)


def _choice(f: Facts, key: str) -> Iterator[Note]:
    seeds = len(f.arm.values.get(key, {}))
    if seeds:
        yield Note(
            f"Arms were chosen by {key}, on real validation data alone (mean over {seeds} "
            f"seed{'' if seeds == 1 else 's'}); differences are on real test data."
        )
    else:
        yield Note(f"{key} is missing; there was one arm of a kind, so none had to be chosen.")


def _correction(f: Facts, arms: Sequence[ArmSummary]) -> Iterator[Note]:
    if not f.metric.needs_correction:
        return
    if not f.corrected:
        lacking = lacking_correction(arms, f.metric)
        text = f"No correction of the class prior was made: corrected scores are missing in {', '.join(lacking)}. "
        yield Note(text + "A gain may be no more than a shift of the prior.", warns=True)
    elif f.to_best.raw is not None:
        raw = in_points(f.to_best.raw)
        yield Note(f"Scores as they are, class prior not corrected: {raw} against {f.best.arm}.")
    if f.to_best.auroc is not None:
        yield Note(f"Macro AUROC, which no class prior moves: {in_points(f.to_best.auroc)} against {f.best.arm}.")


def _references(f: Facts, kind: str) -> Iterator[Note]:
    if f.real is None:
        yield Note("There is no arm of real data alone (real_only).")
    elif f.beside is not None and not f.beside.enough:
        yield Note(f"There are too few seeds in common with {f.real.arm} to compare with it.", warns=True)
    if f.only:
        yield Note(
            f"{f.best.arm} is the only arm without a generator: a stronger one may do as well as synthetic data."
        )
    if f.control is None:
        text = (
            "No control arm: that a gain comes of what the generator shows, and not of filling the same slots with "
            "anything, was not tested."
        )
        yield Note(text, warns=kind == HELPS)
    elif f.to_control is None or not f.to_control.enough:
        text = f"There are too few seeds in common with {f.control.arm}, the control, to compare with it."
        yield Note(text, warns=True)


def _beside(f: Facts, kind: str) -> Iterator[Note]:
    if f.to_timed is not None and kind != HELPS:  # else the verdict's sentence says it
        yield Note(beside_time(f))


def beside_time(f: Facts) -> str:
    """The comparison at equal wall-clock time, a sentence; it says where that time was not reached."""
    assert f.timed is not None
    assert f.to_timed is not None
    time, short = "With the same wall-clock time", times(f.timed, f.arm)
    if short is not None:
        time = f"With {short[0]:.0f} of the {short[1]:.0f} seconds (ablation.equal_time_limit)"
    return (
        f"{time}, the generator's fit and work counted, {f.timed.arm} trains {f.timed.steps:.10g} steps: "
        f"{f.arm.arm} minus it is {as_difference(f.to_timed.deciding, f.metric)}."
    )
