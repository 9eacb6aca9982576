"""Reads what the runs of a sweep wrote, and names the arm of each."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from lightning_diffaug.ablation.failed import FAILED

METRICS = "metrics.json"
CONFIG = "config.yaml"
CLASSES = "classes.json"
REPORT_FOLDER = "ablation"
_OF_A_RUN = {METRICS, CONFIG, FAILED}
# These say which seed, or are part of the arm's name already.
_NOT_EXTRA = ("seed", "arm", "arm_name")
_FRACTION = "data.synthetic_fraction"


@dataclass(frozen=True)
class Run:
    """A run that came to its end.

    Attributes:
        folder: Its folder, relative to the sweep's.
        name: Name without the fraction, such as ``mixed``.
        arm: Unique for its settings apart from the seed, such as ``mixed-0.25``.
        seed: Its seed.
        fraction: Synthetic fraction asked for (of a schedule: the mean over all draws).
        metrics: Its ``metrics.json``.
        rare: Names of the classes that are rare in its training data, as in its ``classes.json``.
    """

    folder: str
    name: str
    arm: str
    seed: int
    fraction: float
    metrics: Mapping[str, float]
    rare: tuple[str, ...] = ()

    @property
    def steps(self) -> float:
        """Optimiser steps."""
        return float(self.metrics.get("train/steps", 0.0))

    @property
    def generator_seconds(self) -> float:
        """Seconds that this run's refill spent on fit and generation; none where others had made all it needed."""
        return sum(float(self.metrics.get(f"generator/{key}", 0.0)) for key in ("fit_seconds", "seconds"))


@dataclass(frozen=True)
class Failure:
    """A run that did not come to its end.

    Attributes:
        folder: Its folder, relative to the sweep's.
        overrides: Its overrides.
        error: Why.
    """

    folder: str
    overrides: tuple[str, ...]
    error: str


@dataclass(frozen=True)
class Sweep:
    """All runs of a sweep, in the order of their folders."""

    runs: tuple[Run, ...]
    failures: tuple[Failure, ...]


@dataclass(frozen=True)
class _Job:
    folder: str
    overrides: dict[str, str]
    config: Mapping[str, Any]
    metrics: Mapping[str, float]
    rare: tuple[str, ...]


def read_sweep(folder: Path) -> Sweep:
    """Reads the folders of a sweep's runs.

    Args:
        folder: The sweep's folder.

    Returns:
        The runs that have figures, and the others, each with the reason.
    """
    jobs: list[_Job] = []
    failures: list[Failure] = []
    for job_folder in _job_folders(folder):
        name = str(job_folder.relative_to(folder))
        overrides = _overrides(job_folder)
        try:
            if (job_folder / FAILED).exists():
                said = json.loads((job_folder / FAILED).read_text(encoding="utf-8"))
                failures.append(Failure(name, tuple(said["overrides"]), str(said["error"])))
            else:
                jobs.append(_read_job(job_folder, name, overrides))
        except Exception as error:  # whatever a file holds, the other runs are reported
            failures.append(Failure(name, overrides, f"cannot be read: {type(error).__name__}: {error}"))
    return Sweep(_named(jobs), tuple(failures))


def _job_folders(folder: Path) -> list[Path]:
    found: list[Path] = []
    for path, below, files in os.walk(folder):
        below[:] = [name for name in below if name != REPORT_FOLDER]
        if Path(path) != folder and _OF_A_RUN & set(files):
            found.append(Path(path))
            below.clear()
    return sorted(found, key=_natural)


def _natural(path: Path) -> list[tuple[int, str]]:
    """Sorts 10 behind 9."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", str(path))]


def _overrides(folder: Path) -> tuple[str, ...]:
    path = folder / ".hydra" / "overrides.yaml"
    return tuple(str(line) for line in OmegaConf.load(path)) if path.exists() else ()


def _read_job(folder: Path, name: str, overrides: Sequence[str]) -> _Job:
    if not (folder / METRICS).exists():
        raise FileNotFoundError(f"it has no {METRICS}: it was stopped before its end")
    metrics = json.loads((folder / METRICS).read_text(encoding="utf-8"))
    config = OmegaConf.to_container(OmegaConf.load(folder / CONFIG))
    assert isinstance(config, dict)
    int(config["seed"])
    keys = dict(line.lstrip("+").partition("=")[::2] for line in overrides)
    return _Job(name, keys, {str(key): value for key, value in config.items()}, metrics, _rare(folder))


def _rare(folder: Path) -> tuple[str, ...]:
    path = folder / CLASSES
    return tuple(json.loads(path.read_text(encoding="utf-8"))["rare"]) if path.exists() else ()


def _named(jobs: Sequence[_Job]) -> tuple[Run, ...]:
    differing = _differing(job.overrides for job in jobs)
    return tuple(_run(job, differing) for job in jobs)


def _differing(overrides: Iterable[Mapping[str, str]]) -> list[str]:
    """Keys that have not the same value in all runs, in the order in which they come."""
    given = list(overrides)
    keys = dict.fromkeys(key for of_one in given for key in of_one)
    return [key for key in keys if key not in _NOT_EXTRA and len({of_one.get(key) for of_one in given}) > 1]


def _run(job: _Job, differing: Sequence[str]) -> Run:
    asked = job.config["data"]["synthetic_fraction"]
    constant = isinstance(asked, (int, float))
    fraction = float(asked) if constant else float(job.metrics["mix/requested_fraction"])
    name = job.config.get("arm_name") or job.overrides.get("arm") or ("mixed" if fraction > 0 else "real")
    arm = str(name)
    if fraction > 0:
        arm += f"-{fraction:.10g}" if constant else f"-{asked.get('name', 'schedule')}"
    # else runs with other settings would pass for further seeds of one arm
    extra = [key for key in differing if not (constant and key == _FRACTION) and key in job.overrides]
    if extra:
        arm += f" ({', '.join(f'{key}={job.overrides[key]}' for key in extra)})"
    return Run(job.folder, str(name), arm, int(job.config["seed"]), fraction, job.metrics, job.rare)
