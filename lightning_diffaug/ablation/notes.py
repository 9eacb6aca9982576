"""What to know of a sweep's runs, whatever the verdict: what was equal, how many there are, whether they repeat."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence

from lightning_diffaug.ablation.choice import EQUAL_TIME, Note, synthetic
from lightning_diffaug.ablation.metric import Metric
from lightning_diffaug.ablation.runs import NOT_RUN, Failure, Run
from lightning_diffaug.ablation.statistics import MIN_FOR_INTERVAL
from lightning_diffaug.ablation.summary import ArmSummary, diverged
from lightning_diffaug.figures import ACHIEVED, ASKED, TOLERANCE

_EVALUATIONS = "test/evaluations"
_FIT_TOO = ("train/seconds", "cost/fit_seconds", "cost/generator_seconds")
_SHORT = 0.8
"""Of the other's time: machines are not so even that less says anything."""


def of_runs(arms: Sequence[ArmSummary], metric: Metric) -> tuple[Note, ...]:
    """Notes on the runs of one task.

    Args:
        arms: All of the task, at least one.
        metric: What it is judged by.
    """
    runs = [run for arm in arms for run in arm.runs_of]
    return (
        *_lost(arms, runs), *_seeds(arms, metric.key("test")), *_others(arms), *_less_synthetic(arms),
        *_short_epochs(runs), *_of_the_test(runs), *_of_repetition(arms, runs),
    )  # fmt: skip


def of_failures(runs: Sequence[Run], failures: Sequence[Failure]) -> tuple[Note, ...]:
    """Warnings of what a sweep has not.

    Args:
        runs: All that came to their end.
        failures: The others.
    """
    notes = []
    waiting = [f for f in failures if f.error.startswith(NOT_RUN)]
    if waiting:
        has = "has" if len(waiting) == 1 else "have"
        text = f"The sweep is not complete: {_runs(len(waiting))} of {_some(_arms_of(waiting))} {has} not been run."
        notes.append(Note(text, warns=True))
    there = {_arm_in(run.folder) or run.name for run in runs}
    gone = [arm for arm in _arms_of([f for f in failures if f not in waiting]) if arm not in there]
    if gone:
        notes.append(Note(f"Left out, as none of their runs came to its end: {_some(gone)}.", warns=True))
    return tuple(notes)


def unfinished(failures: Sequence[Failure]) -> str:
    """How many runs failed or were not run, such as "1 run failed, 3 runs were not run"."""
    waiting = sum(f.error.startswith(NOT_RUN) for f in failures)
    counts = ((len(failures) - waiting, "failed"), (waiting, f"{'was' if waiting == 1 else 'were'} not run"))
    return ", ".join(f"{_runs(count)} {what}" for count, what in counts if count)


def equality(arms: Sequence[ArmSummary], one: ArmSummary | None = None) -> Note:
    """What all arms have in common that train by the rule of one: the arm judged, else the first synthetic one."""
    one = one or next(iter(synthetic(arms)), arms[0])
    alike = [arm for arm in arms if arm.equal == one.equal]
    subject = "all arms" if len(alike) == len(arms) else "all other arms"
    if one.equal == "wall_clock":
        return _of_time(alike, one)
    if one.equal == "epochs":
        return Note(f"Equal in {subject}: epochs, not optimiser steps.")
    if one.equal != "steps":
        text = "Arms are NOT equal in one thing: some have equal steps, others equal epochs or wall-clock time."
        return Note(text, warns=True)
    steps = steps_of(alike)
    if " " in steps:
        return Note(f"Optimiser steps are NOT equal ({steps}): who trains longer has an advantage.", warns=True)
    return Note(f"Equal in {subject}: optimiser steps ({steps}).")


def steps_of(arms: Sequence[ArmSummary]) -> str:
    """Optimiser steps of the arms' runs, such as "600", or "600 to 900"."""
    steps = sorted({run.steps for arm in arms for run in arm.runs_of})
    return f"{steps[0]:.10g}" if len(steps) == 1 else f"{steps[0]:.10g} to {steps[-1]:.10g}"


def times(timed: ArmSummary, arm: ArmSummary) -> tuple[float, float] | None:
    """Seconds that an arm trained, and those of another with its generator's; None where both are as good as equal."""
    had, took = _seconds(timed, ("train/seconds",)), _seconds(arm, _FIT_TOO)
    return (had, took) if had is not None and took is not None and had < _SHORT * took else None


def _of_time(alike: Sequence[ArmSummary], one: ArmSummary) -> Note:
    timed = [arm for arm in alike if arm.name.endswith(EQUAL_TIME)]
    rest = [arm for arm in alike if arm not in timed]
    if not timed:
        return Note("Arms are NOT equal in wall-clock time: none was trained for that of the best synthetic arm.", True)
    text = f'Arms named "…{EQUAL_TIME}" were given the wall-clock time of the best synthetic arm'
    short = [f"{arm.arm} had {t[0]:.0f} of {t[1]:.0f} seconds" for arm in timed if (t := times(arm, one)) is not None]
    if short:
        text += f", within ablation.equal_time_limit times their steps ({'; '.join(short)})"
    return Note(f"{text}. The others trained {steps_of(rest)} steps.", warns=bool(short))


def _seconds(arm: ArmSummary, keys: Sequence[str]) -> float | None:
    """Sum of some costs, means over the runs; None where one is missing."""
    if not all(key in arm.estimates for key in keys):
        return None
    return sum(arm.estimates[key].mean for key in keys)


def _others(arms: Sequence[ArmSummary]) -> Iterator[Note]:
    one = next(iter(synthetic(arms)), arms[0])
    others = [arm.arm for arm in arms if arm.equal != one.equal]
    if others:
        yield Note(f"Trained by another rule (epochs, steps or time), beside the others: {_some(others)}.")


def _lost(arms: Sequence[ArmSummary], runs: Sequence[Run]) -> Iterator[Note]:
    lost = [f"{arm.arm} (seed {run.seed})" for arm in arms for run in arm.runs_of if diverged(run)]
    if lost:
        yield Note(f"{len(lost)} of {_runs(len(runs))} diverged, and have no score: {_some(lost)}.", warns=True)


def _seeds(arms: Sequence[ArmSummary], key: str) -> Iterator[Note]:
    counts = {arm.arm: len(arm.values.get(key, ())) or arm.runs for arm in arms}
    most = max(counts.values())
    fewer = [f"{arm} ({count} of {most})" for arm, count in counts.items() if MIN_FOR_INTERVAL <= count < most]
    if fewer:
        text = f"Arms with fewer seeds: {_some(fewer)}. Differences are over the seeds that both arms have."
        yield Note(text, warns=True)
    few = [arm for arm, count in counts.items() if count < MIN_FOR_INTERVAL]
    if few:
        yield Note(f"Fewer than {MIN_FOR_INTERVAL} seeds, so no interval and no conclusion: {_some(few)}.", warns=True)


def _less_synthetic(arms: Sequence[ArmSummary]) -> Iterator[Note]:
    """Runs whose arm says more than they were trained on: what they show is not the arm's effect."""
    less = [
        f"{arm.arm} (seed {run.seed}: {got:.2g} of {asked:.2g})"
        for arm in arms
        for run in arm.runs_of
        if (asked := float(run.metrics.get(ASKED, 0.0))) - (got := float(run.metrics.get(ACHIEVED, asked))) > TOLERANCE
    ]
    if less:
        text = (
            f"Trained on a smaller synthetic fraction than asked for, so their scores understate or hide what it does: "
            f"{_some(less)}. The generator failed, was too slow, or gates rejected what it made (train.log in the "
            "run's folder says which); mend that, delete the folders of these runs, and start the sweep again."
        )
        yield Note(text, warns=True)


def _short_epochs(runs: Sequence[Run]) -> Iterator[Note]:
    short = sum(float(run.metrics.get("mix/short_epochs", 0.0)) > 0 for run in runs)
    if short:
        text = f"In {short} of {_runs(len(runs))} the pool was short in some epoch (mix/short_epochs in runs.csv)."
        yield Note(text, warns=True)


def _of_the_test(runs: Sequence[Run]) -> Iterator[Note]:
    often = [run for run in runs if float(run.metrics.get(_EVALUATIONS, 1.0)) > 1]
    unknown = sum(_EVALUATIONS not in run.metrics for run in runs)
    if often:
        text = (
            f"The test set was scored more than once in {len(often)} of {_runs(len(runs))} (such as "
            f"{often[0].folder}). Either a run was interrupted after its test and made again, which changes no figure, "
            "or one was scored again, and its figures are too good if anything was chosen by them."
        )
        yield Note(text, warns=True)
    if unknown:
        yield Note(f"How often the test set was scored is not recorded in {unknown} of {_runs(len(runs))}.")
    elif not often:
        yield Note("The real test set was scored once in each run (test/evaluations).")


def _of_repetition(arms: Sequence[ArmSummary], runs: Sequence[Run]) -> Iterator[Note]:
    """Whether the sweep gives the same figures again."""
    mixed = [run for run in runs if run.fraction > 0 and "data" in run.config]
    if not mixed:
        return
    again = "on one machine the sweep gives the same figures again"
    if any(arm.name.endswith(EQUAL_TIME) for arm in arms):
        again += ", but for arms of equal time, whose steps follow from measured seconds"
    in_step = [run for run in mixed if _mode(run) in ("sync", "none")]
    frozen = [run for run in mixed if run not in in_step and _reuse(run) == math.inf]
    if len(in_step) == len(mixed):
        yield Note(f"Windows were made in step with training: {again}.")
    elif len(in_step) + len(frozen) == len(mixed):
        yield Note(f"The pool was frozen before training: {again}.")
    else:
        yield Note(
            "The pool was filled beside training, so what a window holds depends on the machine's speed: a repetition "
            "gives figures that differ a little (refill=sync: the same to the last digit)."
        )


def _mode(run: Run) -> str:
    refill = run.config["data"].get("refill")
    return str(refill.get("mode", "local") if isinstance(refill, dict) else refill)


def _reuse(run: Run) -> float:
    try:
        return float(run.config["data"].get("reuse", 0))
    except (TypeError, ValueError):
        return 0.0


def _arms_of(failures: Sequence[Failure]) -> list[str]:
    """Their arms: by the folder, else by the override."""
    named = (dict(text.partition("=")[::2] for text in f.overrides).get("arm") or f.folder for f in failures)
    return list(dict.fromkeys(_arm_in(f.folder) or name for f, name in zip(failures, named, strict=True)))


def _arm_in(folder: str) -> str | None:
    """The arm in the name of a run's folder, ``<arm>.<hash of its settings>/seed-<n>``."""
    found = re.fullmatch(r"(.+)\.[0-9a-f]{8}/seed-.*", folder)
    return found[1] if found else None


def _runs(count: int) -> str:
    return "1 run" if count == 1 else f"{count} runs"


def _some(names: Sequence[str], most: int = 6) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
