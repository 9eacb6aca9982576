"""A sweep's folder as its runs leave it, with scores that a test chooses instead of trained ones."""

from __future__ import annotations

import csv
import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import OmegaConf
from safetensors.numpy import save_file

from lightning_diffaug.fidelity.result import Fidelity, Figure
from lightning_diffaug.pictures import draw_grid
from lightning_diffaug.report import write_classes

CLASSES = tuple("0123456789")
COUNTS = (80, 5, 80, 5, 80, 5, 80, 5, 80, 5)
RARE = tuple(c for c, count in enumerate(COUNTS) if count == 5)
_STEPS = 600.0


@dataclass(frozen=True)
class Arm:
    """An arm to write.

    Attributes:
        name: Its name.
        score: Mean of its scores.
        fraction: Synthetic fraction.
        role: As in `Run`.
        shift: What its uncorrected scores have above the corrected ones.
        overrides: Further ones of its runs.
        metrics: Further figures, or others.
    """

    name: str
    score: float
    fraction: float = 0.0
    role: str = "baseline"
    shift: float = 0.0
    overrides: Sequence[str] = ()
    metrics: Mapping[str, float] = field(default_factory=dict)


def many_arms() -> list[Arm]:
    """Twenty arms of every role."""
    baselines = ("real_only", "oversampling", "classical", "classical_mixup", "mixup", "cutmix", "remix")
    baselines += ("logit_adjusted", "randaugment", "trivialaugment", "autoaugment")
    arms = [Arm(name, 0.84 + 0.006 * number, shift=-0.02) for number, name in enumerate(baselines)]
    fractions = (0, 0.1, 0.25, 0.5, 0.75, 1)
    arms += [Arm("mixed", 0.90 + 0.1 * f * (1 - f) - 0.04 * f, f, "synthetic") for f in fractions]
    arms += [Arm("control", 0.87, 0.25, "control", 0.01), Arm("gan", 0.86, 0.25, "other_generator")]
    return [*arms, Arm("classical_synthetic", 0.91, 0.25, "synthetic")]


def write_sweep(
    folder: Path, arms: Sequence[Arm], seeds: int = 5, noise: float = 0.006, samples: bool = True, config: Any = None
) -> Path:
    """Writes the runs of each arm with each seed.

    Args:
        folder: The sweep's.
        arms: What to write.
        seeds: How many.
        noise: Standard deviation of scores between runs of one seed; seeds differ by as much again.
        samples: Whether runs with a generator have a picture of samples and figures of fidelity.
        config: Merged into each run's ``config.yaml``.
    """
    rng = np.random.default_rng(0)
    of_seed = rng.normal(0, noise, seeds)
    number = 0
    for arm in arms:
        for seed in range(seeds):
            corrected = float(np.clip(arm.score + of_seed[seed] + rng.normal(0, noise), 0, 1))
            write_run(folder / str(number), arm, seed, corrected, rng, samples, config)
            number += 1
    OmegaConf.save(
        OmegaConf.create({"hydra": {"overrides": {"task": ["experiment=ablation"]}}}), folder / "multirun.yaml"
    )
    return folder


def write_run(
    folder: Path, arm: Arm, seed: int, corrected: float, rng: np.random.Generator, samples: bool, config: Any
) -> None:
    (folder / ".hydra").mkdir(parents=True)
    overrides = [f"arm={arm.name}", f"seed={seed}", f"data.synthetic_fraction={arm.fraction}", *arm.overrides]
    OmegaConf.save(OmegaConf.create(overrides), folder / ".hydra" / "overrides.yaml")
    settings = {
        "seed": seed,
        "arm_name": arm.name,
        "ablation": {"metric": None, "equal": "steps", "role": arm.role},
        "data": {"synthetic_fraction": arm.fraction, "reuse": 8, "refill": {"mode": "sync"}},
        "real": {"_target_": "lightning_diffaug.data.DigitsDataModule", "shots": 80, "seed": seed},
        "generator": {"seed": 0},
        "model": {"_target_": "lightning_diffaug.models.ImageClassifier", "width": 32},
        "trainer": {"max_epochs": 90},
    }
    OmegaConf.save(OmegaConf.merge(settings, config or {}), folder / "config.yaml")
    write_classes(CLASSES, COUNTS, RARE, folder)
    (folder / "metrics.json").write_text(json.dumps(_figures(arm, corrected, rng)))
    _write_predictions(folder, corrected + arm.shift, rng)
    _write_curve(folder, corrected + arm.shift, rng)
    if samples and arm.fraction > 0:
        (folder / "samples.png").write_bytes(_picture())
        _fidelity(rng).write(folder / "fidelity.json")


@cache
def _picture() -> bytes:
    images = torch.from_numpy(np.random.default_rng(0).random((3, 1, 8, 8), np.float32))
    rows = [(name, (("real", images), ("synthetic", images))) for name in CLASSES]
    with tempfile.TemporaryDirectory() as folder:
        return draw_grid(rows, Path(folder) / "samples.png", per_part=3).read_bytes()


def _fidelity(rng: np.random.Generator) -> Fidelity:
    def figures() -> dict[str, Figure]:
        return {
            "frechet": Figure(3.1 + float(rng.normal(0, 0.1)), 1.2, 500, 250, 250),
            "kid": Figure(0.02, 0.001, 500, 250, 250, standard_error=0.002),
            "precision": Figure(0.8 + float(rng.normal(0, 0.01)), 0.9, 500, 250, 250),
            "vendi": Figure(20.0 + float(rng.normal(0, 1)), 24.0, 500, 250),
        }

    about = {"level": "validation images against half of the training images", "features": "a classifier, 64 numbers"}
    return Fidelity(figures(), {"lpips": "no weights are given"}, {name: figures() for name in CLASSES}, about)


def _figures(arm: Arm, corrected: float, rng: np.random.Generator) -> dict[str, float]:
    figures: dict[str, float] = {"test/evaluations": 1.0, "train/steps": _STEPS, "mix/requested_fraction": arm.fraction}
    for part in ("val", "test"):
        score = corrected + (0.0 if part == "test" else float(rng.normal(0, 0.002)))
        figures |= _scores(part, score, arm.shift)
        figures[f"{part}/auroc"] = 1 - (1 - score) / 5
    generated = arm.fraction > 0
    figures |= {
        "train/seconds": 20 + float(rng.random()),
        "train/wait_seconds": 3.0 * generated,
        "cost/samples": 2000.0 * arm.fraction,
        "cost/generator_seconds": 12.0 * arm.fraction,
        "cost/fit_seconds": 40.0 * generated,
        "cost/passes_per_sample": 2.5 * arm.fraction,
        "generator/seconds": 12.0 * arm.fraction,
        "generator/fit_seconds": 0.0,
        "mix/short_epochs": 0.0,
    }
    return {**figures, **arm.metrics}


def _scores(part: str, score: float, shift: float) -> dict[str, float]:
    rare, common = score - 0.05, score + 0.05
    figures = {}
    for suffix, change in (("", shift), ("_corrected", 0.0)):
        figures |= {
            f"{part}/acc{suffix}": score + change,
            f"{part}/acc_balanced{suffix}": score + change,
            f"{part}/acc_rare{suffix}": rare + change,
        }
        if part == "test":
            for c, name in enumerate(CLASSES):
                figures[f"test/acc_class_{name}{suffix}"] = min((rare if c in RARE else common) + change, 1.0)
    return figures


def _write_predictions(folder: Path, score: float, rng: np.random.Generator) -> None:
    tensors = {}
    for part, n in (("val", 200), ("test", 300)):
        target = np.arange(n) % len(CLASSES)
        right = rng.random(n) < score
        said = np.where(right, target, (target + 1 + rng.integers(0, 9, n)) % len(CLASSES))
        tensors[f"{part}_target"] = target.astype(np.int64)
        tensors[f"{part}_logits"] = (4 * np.eye(len(CLASSES))[said] + rng.normal(0, 1, (n, 10))).astype(np.float32)
    save_file(tensors, folder / "predictions.safetensors")


def _write_curve(folder: Path, score: float, rng: np.random.Generator) -> None:
    (folder / "csv").mkdir()
    with (folder / "csv" / "metrics.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, ["epoch", "step", "train/loss", "val/acc", "val/acc_balanced"], restval="")
        table.writeheader()
        for epoch in range(9, 90, 10):
            step = int((epoch + 1) * _STEPS / 90)
            now = score - 0.6 * float(np.exp(-step / 120)) + float(rng.normal(0, 0.01))
            table.writerow({"epoch": epoch, "step": step - 1, "train/loss": 1 - now})
            table.writerow({"epoch": epoch, "step": step - 1, "val/acc": now, "val/acc_balanced": now})
