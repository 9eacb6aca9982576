"""Accuracy on each class with intervals over seeds and test samples, from the predictions that runs kept."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lightning_diffaug.ablation.runs import CLASSES, Run
from lightning_diffaug.ablation.statistics import MIN_FOR_INTERVAL, Estimate
from lightning_diffaug.models.predictions import read_predictions

Array = npt.NDArray[np.float64]
_LEVEL = 0.95


@dataclass(frozen=True)
class _Scored:
    """Which test samples a run had right: 0 or 1, in the order of the test set."""

    seed: int
    names: tuple[str, ...]
    target: npt.NDArray[np.int64]
    right: Array


def class_accuracies(runs: Sequence[Run], seed: int = 0, resamples: int = 1000) -> dict[str, Estimate]:
    """Accuracy on each class over an arm's runs, with a 95% bootstrap interval.

    Seeds and test samples are both drawn again (Owen 2007, the pigeonhole bootstrap): the interval is for other seeds
    and another test set. It is somewhat too wide rather than too narrow in the samples, and too narrow with few seeds.

    Args:
        runs: Of one arm, with ``predictions.safetensors`` and ``classes.json`` in their folders.
        seed: Of the resampling: equal ones give equal intervals.
        resamples: How many.

    Returns:
        By class name, in the order of the classes, those with test samples; {} where no run kept predictions of
        classes, or runs differ in their test sets. ``n`` counts runs; no interval with fewer than three.
    """
    return _estimates([s for run in runs if (s := _scored(run)) is not None], seed, resamples)


def class_differences(
    first: Sequence[Run], second: Sequence[Run], seed: int = 0, resamples: int = 1000
) -> dict[str, Estimate]:
    """Accuracy on each class of one arm minus another, paired by seed and by test sample; see `class_accuracies`."""
    others = {s.seed: s for run in second if (s := _scored(run)) is not None}
    pairs = [(s, others[s.seed]) for run in first if (s := _scored(run)) is not None and s.seed in others]
    if any(a.names != b.names or not np.array_equal(a.target, b.target) for a, b in pairs):
        return {}
    return _estimates([_Scored(a.seed, a.names, a.target, a.right - b.right) for a, b in pairs], seed, resamples)


def _scored(run: Run) -> _Scored | None:
    kept = read_predictions(run.path)
    logits, target = kept.get("test_logits"), kept.get("test_target")
    if logits is None or target is None or logits.ndim != 2 or target.ndim != 1:
        return None
    path = run.path / CLASSES
    names = json.loads(path.read_text(encoding="utf-8"))["names"] if path.exists() else range(logits.shape[1])
    right = (logits.argmax(dim=1) == target).numpy().astype(np.float64)
    return _Scored(run.seed, tuple(map(str, names)), target.numpy().astype(np.int64), right)


def _estimates(scored: Sequence[_Scored], seed: int, resamples: int) -> dict[str, Estimate]:
    if not scored:
        return {}
    names, target = scored[0].names, scored[0].target
    if any(s.names != names or not np.array_equal(s.target, target) for s in scored):
        return {}
    right = np.stack([s.right for s in scored])
    rng = np.random.default_rng(seed)
    classes = [c for c in range(len(names)) if (target == c).any()]
    return {names[c]: _interval(right[:, target == c], rng, resamples) for c in classes}


def _interval(right: Array, rng: np.random.Generator, resamples: int) -> Estimate:
    """Of ``(seeds, samples)``."""
    n, samples = right.shape
    if n < MIN_FOR_INTERVAL:
        return Estimate(n, float(right.mean()))
    seeds = rng.multinomial(n, np.full(n, 1 / n), resamples) / n
    of_samples = rng.multinomial(samples, np.full(samples, 1 / samples), resamples) / samples
    means = ((seeds @ right) * of_samples).sum(axis=1)
    low, high = np.quantile(means, [(1 - _LEVEL) / 2, (1 + _LEVEL) / 2])
    return Estimate(n, float(right.mean()), float(low), float(high))
