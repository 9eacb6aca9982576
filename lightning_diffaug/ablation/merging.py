"""Several sweeps as one: their arms keep apart by the folder's name, those of one task are judged together."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from lightning_diffaug.ablation.runs import OF_THE_ARM, Failure, Run, Sweep, read_sweep
from lightning_diffaug.ablation.summary import class_counts

# What belongs to an arm, a seed or a machine makes no other task.
_NO_TASK = (*OF_THE_ARM, "real.seed", "real.num_workers", "real.download")


def read_sweeps(folders: Sequence[Path]) -> Sweep:
    """Reads sweeps as one.

    Args:
        folders: Of each. One is read as it is; of several, arms and runs have the folder's name before theirs, and runs
            on other real data or with another learner are another task.
    """
    sweeps = [read_sweep(folder) for folder in folders]
    if len(sweeps) == 1:
        return sweeps[0]
    names = short_names(folders)
    runs = [_renamed(run, name) for name, sweep in zip(names, sweeps, strict=True) for run in sweep.runs]
    failures = [
        Failure(f"{name}/{one.folder}", one.overrides, one.error)
        for name, sweep in zip(names, sweeps, strict=True)
        for one in sweep.failures
    ]
    return Sweep(tuple(_of_tasks(runs)), tuple(failures))


def short_names(folders: Sequence[Path]) -> list[str]:
    """As much of the end of each path as tells it from the others."""
    parts = [folder.absolute().parts for folder in folders]
    length = 1
    while len({part[-length:] for part in parts}) < len(set(parts)) and length < max(map(len, parts)):
        length += 1
    return ["/".join(part[-length:]).lstrip("/") for part in parts]


def _renamed(run: Run, sweep: str) -> Run:
    behind = f"{sweep}: {run.task}" if run.task else sweep
    return replace(
        run,
        folder=f"{sweep}/{run.folder}",
        arm=f"{sweep}/{run.arm}",
        family=f"{sweep}/{run.family}",
        task=behind,
    )


def _of_tasks(runs: Sequence[Run]) -> list[Run]:
    """Runs of several sweeps on the same data with the same learner are of one task."""
    settings: dict[str, str] = {}
    for run in runs:  # an arm may set some of it: the first of a sweep's task stands for it
        settings.setdefault(run.task, _task_of(run))
    alike: dict[str, list[str]] = {}
    for task, about in settings.items():
        alike.setdefault(about, []).append(task)
    if len(alike) == 1:
        return [replace(run, task="") for run in runs]
    return [replace(run, task=" + ".join(alike[settings[run.task]])) for run in runs]


def _task_of(run: Run) -> str:
    every = {
        f"{group}.{key}": value for group in ("real", "model") for key, value in (run.config.get(group) or {}).items()
    }
    kept = {key: value for key, value in every.items() if not key.startswith(_NO_TASK)}
    return json.dumps([kept, list(class_counts(run))], sort_keys=True, default=str)
