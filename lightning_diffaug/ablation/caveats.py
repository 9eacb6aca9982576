"""What to know when reading a verdict: what was not compared, not equal, not corrected or not independent."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from lightning_diffaug.ablation.choice import lacking_correction
from lightning_diffaug.ablation.ruling import Facts, points
from lightning_diffaug.ablation.runs import Run
from lightning_diffaug.ablation.statistics import MIN_FOR_INTERVAL
from lightning_diffaug.ablation.summary import ArmSummary

EQUAL = {
    "steps": "Equal in all arms: optimiser steps",
    "epochs": "Equal in all arms: epochs, not optimiser steps",
    "wall_clock": "Equal in all arms: wall-clock time, not optimiser steps",
    "mixed": "Arms are NOT equal in one thing: some have equal steps, others equal epochs or wall-clock time",
}
_EVALUATIONS = "test/evaluations"
_TIME = ("train/seconds", "cost/fit_seconds", "cost/generator_seconds")
_SHORT = 0.8
"""Of the other's time: machines are not so even that less says anything."""
# Of a run's `real` settings: what the generator is not fitted to.
_NOT_FITTED = ("augment", "batch_size", "num_workers")


def caveats(facts: Facts, arms: Sequence[ArmSummary], key: str) -> tuple[str, ...]:
    """Sentences about a verdict.

    Args:
        facts: What it rests on.
        arms: All of the task.
        key: The validation metric that chose.
    """
    return (*_choice(facts, arms, key), *_correction(facts, arms), *_references(facts), *_equality(facts, arms))


def shares_generator(arm: ArmSummary) -> bool:
    """Whether an arm's runs, two or more, share one generator: its settings and the data that it is fitted to."""
    known = [run.config for run in arm.runs_of if run.config.get("generator")]
    if len(known) < max(2, len(arm.runs_of)):
        return False
    return len({_fit_of(config) for config in known}) == 1


def _fit_of(config: Any) -> str:
    real = config.get("real") or {}
    fitted = {name: value for name, value in real.items() if name not in _NOT_FITTED}
    return json.dumps([config["generator"], fitted], sort_keys=True, default=str)


def _choice(f: Facts, arms: Sequence[ArmSummary], key: str) -> Iterator[str]:
    seeds = len(f.arm.values.get(key, {}))
    if seeds:
        yield (
            f"Arms were chosen by {key}, on real validation data alone (mean over {seeds} seed{_s(seeds)}); "
            "differences are on real test data."
        )
    else:
        yield f"{key} is missing; there was one arm of a kind, so none had to be chosen."
    runs = [run for arm in arms for run in arm.runs_of]
    often = [run for run in runs if _evaluations(run) > 1]
    if often:
        yield (
            f"The test set was scored more than once in {len(often)} of {len(runs)} runs (such as {often[0].folder}): "
            "who chose by it flatters its figures."
        )
    unknown = sum(_EVALUATIONS not in run.metrics for run in runs)
    if runs and not often and not unknown:
        yield "The real test set was scored once in each run (test/evaluations)."
    elif unknown:
        yield f"How often the test set was scored is not recorded in {unknown} of {len(runs)} runs."


def _evaluations(run: Run) -> float:
    return float(run.metrics.get(_EVALUATIONS, 1.0))


def _correction(f: Facts, arms: Sequence[ArmSummary]) -> Iterator[str]:
    if not f.metric.needs_correction:
        return
    if not f.corrected:
        lacking = lacking_correction(arms, f.metric)
        yield (
            "No correction of the class prior was made: corrected scores are missing in "
            f"{_some(lacking)}. A gain may be no more than a shift of the prior."
        )
    elif f.to_best.raw is not None:
        yield f"Scores as they are, class prior not corrected: {points(f.to_best.raw)} against {f.best.arm}."
    if f.to_best.auroc is not None:
        yield f"Macro AUROC, which no class prior moves: {points(f.to_best.auroc)} against {f.best.arm}."


def _references(f: Facts) -> Iterator[str]:
    if f.real is None:
        yield "There is no arm of real data alone (real_only)."
    elif f.beside is not None and not f.beside.enough:
        yield f"There are too few seeds in common with {f.real.arm} to compare with it."
    if f.only:
        yield f"{f.best.arm} is the only arm without a generator: a stronger one may do as well as synthetic data."
    if f.control is None:
        yield (
            "No control arm: that a gain comes of what the generator shows, and not of filling the same slots with "
            "anything, was not tested."
        )
    elif f.to_control is None or not f.to_control.enough:
        yield f"There are too few seeds in common with {f.control.arm}, the control, to compare with it."


def beside_time(f: Facts) -> str:
    """The comparison at equal wall-clock time, a sentence; it says where that time was not reached."""
    assert f.timed is not None
    assert f.to_timed is not None
    had, took = _seconds(f.timed, ("train/seconds",)), _seconds(f.arm, _TIME)
    short = had is not None and took is not None and had < _SHORT * took
    time = f"With {had:.0f} of the {took:.0f} seconds" if short else "With the same wall-clock time"
    return (
        f"{time}, the generator's fit and work counted, {f.timed.arm} trains {f.timed.steps:.10g} steps: "
        f"{f.arm.arm} minus it is {points(f.to_timed.deciding)}."
    )


def _seconds(arm: ArmSummary, keys: Sequence[str]) -> float | None:
    """Sum of some costs, means over the runs; None where one is missing."""
    if not all(key in arm.estimates for key in keys):
        return None
    return sum(arm.estimates[key].mean for key in keys)


def _equality(f: Facts, arms: Sequence[ArmSummary]) -> Iterator[str]:
    if f.to_timed is not None:
        yield beside_time(f)
    alike = [arm for arm in arms if arm.equal == f.arm.equal]
    others = [arm.arm for arm in arms if arm.equal != f.arm.equal and (f.timed is None or arm.arm != f.timed.arm)]
    if others:
        yield f"Trained by another rule (epochs, steps or time) than {f.arm.arm}, and not judged: {_some(others)}."
    ends = sorted(arm.steps for arm in alike)
    if f.arm.equal != "steps" or ends[0] == ends[-1]:
        yield f"{EQUAL.get(f.arm.equal, EQUAL['mixed'])}."
    else:
        yield f"Optimiser steps are NOT equal ({ends[0]:.10g} to {ends[-1]:.10g}): who trains longer has an advantage."
    most = max(arm.runs for arm in arms)
    fewer = [f"{arm.arm} ({arm.runs} of {most})" for arm in arms if arm.runs < most]
    if fewer:
        yield f"Arms with fewer seeds: {_some(fewer)}. Differences are over the seeds that both arms have."
    few = [arm.arm for arm in arms if arm.runs < MIN_FOR_INTERVAL]
    if few:
        yield f"Fewer than {MIN_FOR_INTERVAL} seeds, so no interval: {_some(few)}."


def _some(names: Sequence[str], most: int = 6) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _s(count: int) -> str:
    return "" if count == 1 else "s"
