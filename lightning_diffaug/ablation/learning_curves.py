"""Validation scores while the runs of an arm trained, from what Lightning's CSV logger wrote."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from lightning_diffaug.ablation.runs import Run
from lightning_diffaug.ablation.statistics import Estimate, t_interval

FILE = Path("csv") / "metrics.csv"


def learning_curve(runs: Sequence[Run], key: str) -> list[tuple[float, Estimate]]:
    """Mean and interval over an arm's runs at the steps that all of them have.

    Args:
        runs: Of one arm; those without ``csv/metrics.csv`` do not count.
        key: Column, such as ``val/acc_balanced``.

    Returns:
        (optimiser steps done, score), ascending; [] where there is nothing.
    """
    found = [curve for run in runs if (curve := _read(run.path / FILE, key, run.steps))]
    common = set.intersection(*map(set, found)) if found else set()
    return [(step, t_interval([curve[step] for curve in found])) for step in sorted(common)]


def _read(path: Path, key: str, steps: float) -> dict[float, float]:
    """The score by steps done. A row says the index of its step, from 0; one from after the run, their number."""
    if not path.is_file():
        return {}
    found = {}
    with path.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            if row.get(key) and row.get("step"):
                found[min(float(row["step"]) + 1, steps)] = float(row[key])
    return found
