"""Reads what the runs of a sweep wrote, and names the arm of each."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from lightning_diffaug.ablation.failed import FAILED
from lightning_diffaug.paths import natural

METRICS = "metrics.json"
CONFIG = "config.yaml"
CLASSES = "classes.json"
JOBS = "jobs.json"
REPORT_FOLDER = "ablation"
NOT_RUN = "has not been run"
"""How the reason begins of a run that the sweep lists and did not start."""
_OF_A_RUN = {METRICS, CONFIG, FAILED}
# These say which seed, or are part of the arm's name already.
_NOT_EXTRA = ("seed", "arm", "arm_name")
_FRACTION = "data.synthetic_fraction"
# Overrides with these first parts make another task, not another arm of one; augmentation and loss are the arm's.
_OF_THE_TASK = ("real", "model", "trainer", "threads")
OF_THE_ARM = (
    "real.augment",
    "model.modality_dropout",
    "model.mixing",
    "model.remix",
    "model.loss",
    "model.logit_adjustment_tau",
)
BASELINE, CONTROL, OTHER_GENERATOR, SYNTHETIC = "baseline", "control", "other_generator", "synthetic"
ROLES = (BASELINE, CONTROL, OTHER_GENERATOR, SYNTHETIC)


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
        role: One of `ROLES`: "baseline" has no generator, "control" fills the same slots without one,
            "other_generator" is a generator to compare with, "synthetic" is what the sweep judges.
        equal: What is equal in all arms: "steps", "epochs" or "wall_clock".
        config: Its resolved ``config.yaml``.
        path: Its folder, absolute.
        train_counts: Real training samples of each class, as in its ``classes.json``.
        family: The arm without its fraction: arms of one family differ in the fraction alone.
        task: Overrides that make another task of it, such as ``real.shots=5``: arms of two tasks are not compared.
    """

    folder: str
    name: str
    arm: str
    seed: int
    fraction: float
    metrics: Mapping[str, float]
    rare: tuple[str, ...] = ()
    role: str = SYNTHETIC
    equal: str = "steps"
    config: Mapping[str, Any] = field(default_factory=dict)
    path: Path = Path()
    train_counts: tuple[int, ...] = ()
    family: str = ""
    task: str = ""

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
    path: Path
    folder: str
    overrides: dict[str, str]
    config: Mapping[str, Any]
    metrics: Mapping[str, float]
    rare: tuple[str, ...]
    train_counts: tuple[int, ...]

    @property
    def asked(self) -> Any:
        """The synthetic fraction asked for: a number, or a schedule's settings."""
        return self.config["data"]["synthetic_fraction"]

    @property
    def constant(self) -> bool:
        """Whether the fraction asked for is one number."""
        return isinstance(self.asked, (int, float))

    @property
    def fraction(self) -> float:
        """The synthetic fraction asked for; of a schedule the mean over all draws."""
        return float(self.asked) if self.constant else float(self.metrics["mix/requested_fraction"])

    @property
    def given_name(self) -> str | None:
        """Its arm's name, where it has one."""
        name = self.config.get("arm_name") or self.overrides.get("arm")
        return None if name is None else str(name)

    @property
    def own(self) -> tuple[str, ...]:
        """Overrides that are part of the arm's name."""
        return tuple(self.ablation.get("own") or ())

    @property
    def ablation(self) -> Mapping[str, Any]:
        """Its settings as an arm."""
        return self.config.get("ablation") or {}


def read_sweep(folder: Path) -> Sweep:
    """Reads the folders of a sweep's runs.

    Args:
        folder: The sweep's folder.

    Returns:
        The runs that have figures, and the others, each with the reason.
    """
    jobs: list[_Job] = []
    failures: list[Failure] = []
    for job_folder in _listed(folder) or _job_folders(folder):
        name = str(job_folder.relative_to(folder))
        if not job_folder.is_dir():
            failures.append(Failure(name, (), f"{NOT_RUN}: the sweep was stopped before it"))
            continue
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


def _listed(folder: Path) -> list[Path]:
    """The folders that ``jobs.json`` lists, in its order; [] where there is none."""
    path = folder / JOBS
    if not path.is_file():
        return []
    listed = json.loads(path.read_text(encoding="utf-8"))["folders"]
    return [folder / name for name in listed]


def _job_folders(folder: Path) -> list[Path]:
    found: list[Path] = []
    for path, below, files in os.walk(folder):
        below[:] = [name for name in below if name != REPORT_FOLDER]
        if Path(path) != folder and _OF_A_RUN & set(files):
            found.append(Path(path))
            below.clear()
    return sorted(found, key=natural)


def _overrides(folder: Path) -> tuple[str, ...]:
    path = folder / ".hydra" / "overrides.yaml"
    if not path.exists():
        return ()
    lines = OmegaConf.to_container(OmegaConf.load(path))  # as they are: what they refer to is not in the list
    assert isinstance(lines, list)
    return tuple(map(str, lines))


def _read_job(folder: Path, name: str, overrides: Sequence[str]) -> _Job:
    if not (folder / METRICS).exists():
        raise FileNotFoundError(f"it has no {METRICS}: it was stopped before its end")
    metrics = json.loads((folder / METRICS).read_text(encoding="utf-8"))
    config = OmegaConf.to_container(OmegaConf.load(folder / CONFIG))
    assert isinstance(config, dict)
    int(config["seed"])
    keys = dict(line.lstrip("+").partition("=")[::2] for line in overrides)
    plain = {str(key): value for key, value in config.items()}
    rare, counts = _classes(folder)
    job = _Job(folder.absolute(), name, keys, plain, metrics, rare, counts)
    float(job.fraction)
    return job


def _classes(folder: Path) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Names of the rare classes, and all classes' training samples."""
    path = folder / CLASSES
    if not path.exists():
        return (), ()
    said = json.loads(path.read_text(encoding="utf-8"))
    return tuple(said["rare"]), tuple(map(int, said.get("train_counts", ())))


def _named(jobs: Sequence[_Job]) -> tuple[Run, ...]:
    differing = _differing(jobs)
    # an arm without a fraction in its name is one that has no other fractions beside it
    of_fractions = {job.given_name for job in jobs if job.fraction > 0} - {None}
    return tuple(_run(job, differing, job.given_name in of_fractions) for job in jobs)


def _differing(jobs: Sequence[_Job]) -> list[str]:
    """Keys of which the runs have several values, but for those runs whose name stands for the key; in order."""
    keys = dict.fromkeys(
        key for job in jobs for key in job.overrides if key not in _NOT_EXTRA and not key.startswith("ablation.")
    )
    return [key for key in keys if len({job.overrides.get(key) for job in jobs if key not in job.own}) > 1]


def _run(job: _Job, differing: Sequence[str], of_fractions: bool) -> Run:
    name = job.given_name or ("mixed" if job.fraction > 0 else "real")
    arm = name
    if job.fraction > 0 or of_fractions:
        arm += f"-{job.fraction:.10g}" if job.constant else f"-{_schedule(job)}"
    # else runs with other settings would pass for further seeds of one arm
    extra = [
        key
        for key in differing
        if not (job.constant and key == _FRACTION) and key in job.overrides and key not in job.own
    ]
    said = {key: f"{key}={job.overrides[key]}" for key in extra}
    behind = f" ({', '.join(said.values())})" if said else ""
    return Run(
        folder=job.folder,
        name=name,
        arm=arm + behind,
        seed=int(job.config["seed"]),
        fraction=job.fraction,
        metrics=job.metrics,
        rare=job.rare,
        role=str(job.ablation.get("role") or (SYNTHETIC if job.fraction > 0 else BASELINE)),
        equal=str(job.ablation.get("equal") or "steps"),
        config=job.config,
        path=job.path,
        train_counts=job.train_counts,
        family=(job.given_name or "mixed") + ("" if job.constant else f"-{_schedule(job)}") + behind,
        task=", ".join(text for key, text in said.items() if _makes_a_task(key)),
    )


def _schedule(job: _Job) -> str:
    return str(job.asked.get("name", "schedule"))


def _makes_a_task(key: str) -> bool:
    return key.split(".")[0] in _OF_THE_TASK and not key.startswith(OF_THE_ARM)
