"""Accuracy on each class with intervals over seeds and test samples, from the predictions that runs kept."""

from __future__ import annotations

from collections.abc import Sequence

from lightning_diffaug.ablation.runs import Run
from lightning_diffaug.ablation.statistics import Estimate


def class_accuracies(runs: Sequence[Run], seed: int = 0, resamples: int = 1000) -> dict[str, Estimate]:
    """Accuracy on each class over an arm's runs, with a 95% bootstrap interval.

    Args:
        runs: Of one arm, with ``predictions.safetensors`` and ``classes.json`` in their folders.
        seed: Of the resampling.
        resamples: How many.

    Returns:
        By class name, in the order of the classes; {} where no run kept its predictions. No interval with fewer than
        three runs.
    """
    raise NotImplementedError


def class_differences(
    first: Sequence[Run], second: Sequence[Run], seed: int = 0, resamples: int = 1000
) -> dict[str, Estimate]:
    """Accuracy on each class of one arm minus another, paired by seed and by test sample; see `class_accuracies`."""
    raise NotImplementedError
