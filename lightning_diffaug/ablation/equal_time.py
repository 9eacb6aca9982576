"""Arms without a generator that train as long as the best synthetic arm took, with its fit and generation."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

from lightning_diffaug.ablation.choice import EQUAL_TIME, without_generator
from lightning_diffaug.ablation.grid import Job, as_override
from lightning_diffaug.ablation.runs import BASELINE, Run, read_sweep
from lightning_diffaug.ablation.summary import ArmSummary, summarise
from lightning_diffaug.ablation.verdict import judge_each

log = logging.getLogger(__name__)

_WALL_CLOCK = "wall_clock"


def equal_time_jobs(
    folder: Path, every: Sequence[Job], folders: Mapping[Job, str], settings: Mapping[str, Any]
) -> list[Job]:
    """Further jobs for arms that have no generator to wait for.

    The time of an arm is the median over its seeds of its training, of the making of the samples that it used and of
    its generator's fit, whichever run paid for them. Which arms: with ``equal=wall_clock`` all without a generator,
    else the best of them on validation data.

    Args:
        folder: The sweep's folder, in which the jobs have run.
        every: The jobs so far.
        folders: Their folders, relative to it.
        settings: ``ablation``.
    """
    found: list[Job] = []
    arms = summarise(read_sweep(folder).runs)
    for verdict in judge_each(arms, settings["metric"]):
        best = next((arm for arm in arms if arm.arm == verdict.arm), None)
        if best is None or verdict.best_baseline is None:
            continue
        of_task = [arm for arm in without_generator(arms) if arm.task == verdict.task]
        for arm in of_task:
            if settings["equal"] == _WALL_CLOCK or arm.arm == verdict.best_baseline:
                found += _longer(arm, best, every, folders, float(settings["equal_time_limit"]))
    return found


def _longer(
    arm: ArmSummary, best: ArmSummary, every: Sequence[Job], folders: Mapping[Job, str], limit: float
) -> list[Job]:
    time, own = _seconds(best.runs_of), _seconds(arm.runs_of)
    if not time or not own:
        return []
    factor = min(max(time / own, 1.0), limit)
    if factor == limit:
        log.warning(
            "%s would train %.0f times as many steps in the time of %s; it gets ablation.equal_time_limit=%g times.",
            arm.arm, time / own, best.arm, limit,
        )  # fmt: skip
    name = f"{arm.arm}{EQUAL_TIME}"
    steps = round(median(run.steps for run in arm.runs_of) * factor)
    sets = {
        "trainer.max_epochs": "-1",
        "++trainer.max_steps": str(steps),
        "ablation.equal": _WALL_CLOCK,
        "ablation.role": BASELINE,
        "arm_name": as_override(name),
    }
    keys = [key.lstrip("+") for key in sets]
    ours = {run.folder for run in arm.runs_of}
    return [
        replace(
            job,
            arm=name,
            overrides=(
                *(text for text in job.overrides if text.partition("=")[0] not in keys),
                *(f"{key}={value}" for key, value in sets.items()),
            ),
            own=(*job.own, *keys),
            ignores=job.ignores | set(keys),
        )
        for job in every
        if folders[job] in ours
    ]


def _seconds(runs: Sequence[Run]) -> float:
    """Median over runs; 0 where it is not known, as of samples whose pool went with the run."""
    keys = ("train/seconds", "cost/generator_seconds", "cost/fit_seconds")
    if not all(key in run.metrics for run in runs for key in keys):
        return 0.0
    return median(sum(float(run.metrics[key]) for key in keys) for run in runs)
