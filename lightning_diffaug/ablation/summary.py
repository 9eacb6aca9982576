"""Tables of a sweep: one row a run, one row an arm."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lightning_diffaug.ablation.runs import CLASSES, SYNTHETIC, Failure, Run
from lightning_diffaug.ablation.statistics import Estimate, t_interval

#: The metric whose columns have no prefix.
MAIN = "test/acc"
_PARTS = ("test/", "val/", "cost/", "train/")
_NO_SCORES = ("test/evaluations",)
_SCORED = ("test/", "val/")
_LOSS = "test/loss"
_FIRST = ("test/acc", "test/acc_balanced", "test/acc_rare", "test/auroc")


@dataclass(frozen=True)
class ArmSummary:
    """An arm over its seeds.

    Attributes:
        arm: Its unique name.
        name: Its name without the fraction.
        fraction: Synthetic fraction asked for.
        values: Of each metric ``test/…``, ``val/…``, ``cost/…`` and ``train/…`` the value by seed; what is no finite
            number (a score without samples) is left out, and so is every score of a run that diverged.
        estimates: Each such metric's mean and interval.
        runs: How many runs it has.
        steps: Optimiser steps, mean over the runs.
        generator_seconds: Seconds of fit and generation, mean over the runs.
        role: What it is in the comparison; see `Run.role`.
        equal: What is equal in all arms: "steps", "epochs" or "wall_clock"; "mixed" where its runs disagree.
        family: Arms of one family differ in the fraction alone; see `Run.family`.
        task: Arms of different tasks are not compared; see `Run.task`.
        runs_of: Its runs.
    """

    arm: str
    name: str
    fraction: float
    values: Mapping[str, Mapping[int, float]]
    estimates: Mapping[str, Estimate]
    runs: int
    steps: float
    generator_seconds: float
    role: str = SYNTHETIC
    equal: str = "steps"
    family: str = ""
    task: str = ""
    runs_of: tuple[Run, ...] = ()


def summarise(runs: Sequence[Run]) -> list[ArmSummary]:
    """Puts the runs of each arm together, in the order in which the arms come.

    Args:
        runs: All runs of a sweep. Of two with one arm and one seed the last counts: they are not independent.
    """
    latest = {(run.arm, run.seed): run for run in runs}.values()
    return [_summary([run for run in latest if run.arm == arm]) for arm in dict.fromkeys(run.arm for run in runs)]


def _summary(runs: Sequence[Run]) -> ArmSummary:
    metrics = dict.fromkeys(key for run in runs for key in run.metrics if key.startswith(_PARTS))
    values = {key: _finite(runs, key) for key in metrics}
    values = {key: of_seeds for key, of_seeds in values.items() if of_seeds}
    equal = {run.equal for run in runs}
    return ArmSummary(
        arm=runs[0].arm,
        name=runs[0].name,
        fraction=float(np.mean([run.fraction for run in runs])),
        values=values,
        estimates={key: t_interval(list(of_seeds.values())) for key, of_seeds in values.items()},
        runs=len(runs),
        steps=float(np.mean([run.steps for run in runs])),
        generator_seconds=float(np.mean([run.generator_seconds for run in runs])),
        role=runs[0].role,
        equal=equal.pop() if len(equal) == 1 else "mixed",
        family=runs[0].family,
        task=runs[0].task,
        runs_of=tuple(runs),
    )


def diverged(run: Run) -> bool:
    """Whether a run's loss on test data is no finite number: what its predictions fell to is no score."""
    return not math.isfinite(float(run.metrics.get(_LOSS, 0.0)))


def class_counts(run: Run) -> dict[str, int]:
    """Real training samples of each class by its name, as in the run's ``classes.json``; {} where it wrote none."""
    path = run.path / CLASSES
    if not path.is_file():
        return {}
    said = json.loads(path.read_text(encoding="utf-8"))
    return dict(zip(map(str, said["names"]), map(int, said["train_counts"]), strict=False))


def _finite(runs: Sequence[Run], key: str) -> dict[int, float]:
    counted = [run for run in runs if key in run.metrics and not (key.startswith(_SCORED) and diverged(run))]
    found = {run.seed: float(run.metrics[key]) for run in counted}
    return {seed: value for seed, value in found.items() if math.isfinite(value)}


def write_runs(runs: Sequence[Run], path: Path) -> None:
    """Writes one row a run: arm, seed, fraction, the test's main figures, costs, folder, then all other figures."""
    others = sorted({key for run in runs for key in run.metrics} - set(_FIRST))
    columns = ["arm", "seed", "fraction", *_FIRST, "steps", "generator_seconds", "folder", *others]
    rows = [
        {
            **run.metrics,
            "arm": run.arm,
            "seed": run.seed,
            "fraction": run.fraction,
            "steps": run.steps,
            "generator_seconds": run.generator_seconds,
            "folder": run.folder,
        }
        for run in runs
    ]
    _write(path, columns, rows)


def write_summary(arms: Sequence[ArmSummary], path: Path, judged: Mapping[str, str] | None = None) -> None:
    """Writes one row an arm, with its scores on test data.

    ``mean``, ``ci95_low`` and ``ci95_high`` are of ``test/acc`` as a share of 1; those of ``test/<metric>`` are
    prefixed with ``<metric>_``. Fields are empty where there is no value, or no interval (fewer than three seeds).
    ``steps`` and ``generator_seconds`` are means over the arm's runs. Where a sweep is judged by another metric than
    one of classification, a last column ``metric`` says what ``mean`` is of: ``test/acc`` where an arm has it, else
    what it is judged by.

    Args:
        arms: All of the sweep.
        path: The file.
        judged: Task → the test metric that it is judged by, where that is none of classification.
    """
    judged = judged or {}
    main = {arm.arm: MAIN if MAIN in arm.estimates else judged.get(arm.task, MAIN) for arm in arms}
    found = {key for arm in arms for key in arm.estimates if key.startswith("test/") and key not in _NO_SCORES}
    metrics = dict.fromkeys([*_FIRST, *sorted(found)])
    prefixes = {key: "" if key == MAIN else key.removeprefix("test/") + "_" for key in metrics}
    rows = []
    for arm in arms:
        row: dict[str, Any] = {"arm": arm.arm, "fraction": arm.fraction, "seeds": arm.runs}
        row |= {"steps": arm.steps, "generator_seconds": arm.generator_seconds}
        for key in metrics.keys() & arm.estimates.keys():
            estimate = arm.estimates[key]
            for column, value in zip(_INTERVAL, (estimate.mean, estimate.low, estimate.high), strict=True):
                row[prefixes[key] + column] = value
                if key == main[arm.arm]:
                    row[column] = value
        if judged:
            row["metric"] = main[arm.arm]
        rows.append(row)
    others = [prefix + column for prefix in prefixes.values() if prefix for column in _INTERVAL]
    others += ["metric"] if judged else []
    _write(path, ["arm", "fraction", "seeds", *_INTERVAL, "steps", "generator_seconds", *others], rows)


_INTERVAL = ("mean", "ci95_low", "ci95_high")


def write_failures(failures: Sequence[Failure], path: Path) -> None:
    """Writes one row a failed run; no file where there is none."""
    if not failures:
        path.unlink(missing_ok=True)
        return
    rows = [{"folder": f.folder, "overrides": " ".join(f.overrides), "error": f.error} for f in failures]
    _write(path, ["folder", "overrides", "error"], rows)


def _write(path: Path, columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, columns, restval="")
        table.writeheader()
        table.writerows(rows)
