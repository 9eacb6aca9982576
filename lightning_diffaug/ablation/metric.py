"""The metric that a sweep is judged by, and the keys of its scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lightning_diffaug.ablation.runs import Run
from lightning_diffaug.errors import ConfigurationError

CORRECTED = "_corrected"
TITLES = {
    "acc": "accuracy",
    "acc_balanced": "balanced accuracy",
    "acc_rare": "rare classes' accuracy",
    "auroc": "macro AUROC",
}
IMBALANCED = 1.5
"""Times the smallest class's training samples from which classes count as imbalanced."""


@dataclass(frozen=True)
class Metric:
    """What a sweep is judged by; a share of 1, and more is better.

    Attributes:
        name: ``acc``, ``acc_balanced``, ``acc_rare`` or ``auroc``.
        title: In words, such as "balanced accuracy".
        reason: Why this one, as a clause: "asked for by ablation.metric".
    """

    name: str
    title: str
    reason: str

    @property
    def needs_correction(self) -> bool:
        """Whether a shift of the class prior moves it."""
        return self.name != "auroc"

    def key(self, part: str, corrected: bool = False) -> str:
        """Key in ``metrics.json``.

        Args:
            part: "test" or "val".
            corrected: With the class prior corrected; for a metric that needs none the key is the same.
        """
        return f"{part}/{self.name}{CORRECTED if corrected and self.needs_correction else ''}"


def chosen_metric(runs: Sequence[Run], asked: str | None = None) -> Metric:
    """The metric asked for; by default balanced accuracy where classes are imbalanced, else accuracy.

    Args:
        runs: All runs of the sweep.
        asked: ``ablation.metric``; None: what the runs' own configurations ask for, else the default.

    Raises:
        ConfigurationError: It asks for something else.
    """
    asked = asked or next((str(found) for run in runs if (found := _asked_by(run))), None)
    if asked is not None:
        if asked not in TITLES:
            raise ConfigurationError(
                f"ablation.metric={asked} is no metric that a sweep can be judged by. Set ablation.metric to "
                f"{', '.join(TITLES)}, or to null: balanced accuracy where classes are imbalanced, else accuracy."
            )
        return Metric(asked, TITLES[asked], "asked for by ablation.metric")
    counts = [run.train_counts for run in runs if run.train_counts]
    imbalanced = any(max(c) > IMBALANCED * min(c) for c in counts)
    if imbalanced or (not counts and any(run.rare for run in runs)):
        return Metric("acc_balanced", TITLES["acc_balanced"], "the default where classes are imbalanced")
    return Metric("acc", TITLES["acc"], "the default where classes are balanced")


def _asked_by(run: Run) -> object:
    return (run.config.get("ablation") or {}).get("metric")
