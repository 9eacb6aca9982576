"""Runs of a sweep whose effects are known, in memory."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from lightning_diffaug.ablation.runs import Run


@dataclass(frozen=True)
class Planted:
    """An arm: what it gains on a base of 0.85, in shares of 1."""

    name: str
    gain: float = 0.0
    corrected: float | None = None  # gain with the class prior corrected; None: the same
    fraction: float = 0.0
    role: str = "baseline"
    seeds: Iterable[int] = range(5)
    noise: float = 0.004
    steps: float = 630.0
    equal: str = "steps"
    config: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    val_gain: float | None = None  # None: as on test data
    without: Sequence[str] = ()  # keys that are missing


def mixed(fraction: float, gain: float = 0.0, corrected: float | None = None, **more: Any) -> Planted:
    return Planted("mixed", gain, corrected, fraction, "synthetic" if fraction else "baseline", **more)


def planted_runs(arms: Sequence[Planted], number: int = 0, metric: str = "acc_balanced") -> list[Run]:
    """The runs; each seed's training set moves all arms alike, and each score has noise of its own."""
    rng = np.random.default_rng(number)
    of_seeds = rng.normal(0, 0.02, 100)
    fractions = {arm.name for arm in arms if arm.fraction > 0}
    runs = []
    for arm in arms:
        name = f"{arm.name}-{arm.fraction:g}" if arm.name in fractions else arm.name
        for seed in arm.seeds:
            figures = {"train/steps": arm.steps, "test/evaluations": 1.0, **arm.metrics}
            for part in ("val", "test"):
                gains = {"": arm.gain, "_corrected": arm.gain if arm.corrected is None else arm.corrected}
                if part == "val" and arm.val_gain is not None:
                    gains = dict.fromkeys(gains, arm.val_gain)
                own = rng.normal(0, arm.noise)  # the two scores are of the same predictions
                for suffix, gain in gains.items():
                    value = 0.85 + of_seeds[seed] + gain + own + rng.normal(0, arm.noise / 2)
                    figures[f"{part}/{metric}{suffix}"] = float(value)
            figures = {key: value for key, value in figures.items() if key not in arm.without}
            run = Run(f"{name}/seed-{seed}", arm.name, name, seed, arm.fraction, figures)
            about = {"role": arm.role, "equal": arm.equal, "config": arm.config, "family": arm.name}
            runs.append(replace(run, train_counts=(80, 5), **about))
    return runs
