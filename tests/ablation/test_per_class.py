from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from lightning_diffaug.ablation.per_class import class_accuracies, class_differences
from lightning_diffaug.ablation.runs import Run
from lightning_diffaug.report import write_classes

NAMES = ("cat", "dog", "owl")


def _run(folder: Path, seed: int, right: np.ndarray, target: np.ndarray, names: tuple[str, ...] = NAMES) -> Run:
    """A run that has the samples right that it is told."""
    folder.mkdir(parents=True)
    predicted = np.where(right, target, (target + 1) % len(names))
    logits = torch.nn.functional.one_hot(torch.from_numpy(predicted), len(names)).float()
    save_file({"test_logits": logits, "test_target": torch.from_numpy(target)}, folder / "predictions.safetensors")
    write_classes(names, [9] * len(names), [], folder)
    return Run(folder.name, "mixed", "mixed", seed, 0.0, {}, path=folder)


def _arm(folder: Path, chance: float, seeds: int = 5, each: int = 40, number: int = 0) -> list[Run]:
    rng = np.random.default_rng(number)
    target = np.repeat(np.arange(2), each)  # no owl in the test set
    return [_run(folder / str(s), s, rng.uniform(size=len(target)) < chance, target) for s in range(seeds)]


def test_accuracies_are_means_over_seeds_and_samples_within_their_interval(tmp_path: Path) -> None:
    runs = _arm(tmp_path, 0.8)
    found = class_accuracies(runs)
    assert list(found) == ["cat", "dog"], "classes with test samples"
    for estimate in found.values():
        assert estimate.n == 5
        assert estimate.low is not None
        assert estimate.high is not None
        assert estimate.low < estimate.mean < estimate.high
        assert estimate.mean == pytest.approx(0.8, abs=0.1)
    assert class_accuracies(runs) == found
    assert class_accuracies(runs, seed=1) != found


def test_the_interval_has_the_variance_of_seeds_and_of_samples(tmp_path: Path) -> None:
    """Samples that each run has right, or wrong, alike do not grow in number with the seeds."""
    target = np.zeros(50, int)
    right = np.arange(50) < 40
    found = class_accuracies([_run(tmp_path / str(s), s, right, target) for s in range(5)], resamples=4000)["cat"]
    assert found.half_width == pytest.approx(1.96 * np.sqrt(0.8 * 0.2 / 50), rel=0.1)
    apart = [_run(tmp_path / f"x{s}", s, np.full(50, s > 0), target) for s in range(5)]
    assert class_accuracies(apart, resamples=4000)["cat"].low == pytest.approx(0.4, abs=0.01), "4 of 5 seeds are right"


def test_differences_are_paired_by_seed_and_sample(tmp_path: Path) -> None:
    target = np.zeros(60, int)
    rng = np.random.default_rng(0)
    first, second = [], []
    for seed in range(5):
        right = rng.uniform(size=60) < 0.6
        second.append(_run(tmp_path / f"b{seed}", seed, right, target))
        first.append(_run(tmp_path / f"a{seed}", seed, right | (np.arange(60) < 12), target))
    found = class_differences(first, second[::-1])["cat"]
    expected = class_accuracies(first)["cat"].mean - class_accuracies(second)["cat"].mean
    assert found.mean == pytest.approx(expected)
    assert found.low is not None
    assert found.low > 0
    alone = class_accuracies(first)["cat"].half_width
    assert found.half_width is not None
    assert alone is not None
    assert found.half_width < alone
    assert class_differences(first[:2], second[2:]) == {}


def test_few_runs_have_no_interval(tmp_path: Path) -> None:
    assert class_accuracies(_arm(tmp_path, 0.5, seeds=2))["cat"].low is None


def test_runs_without_predictions_or_with_other_test_sets_have_none(tmp_path: Path) -> None:
    runs = _arm(tmp_path, 0.5)
    other = _run(tmp_path / "other", 9, np.ones(10, bool), np.zeros(10, int))
    assert class_accuracies([*runs, other]) == {}
    assert class_differences(runs, [Run("x", "x", "x", 0, 0.0, {}, path=tmp_path / "none")]) == {}
    assert class_accuracies([]) == {}
    (tmp_path / "0" / "predictions.safetensors").unlink()
    assert class_accuracies(runs)["cat"].n == 4
