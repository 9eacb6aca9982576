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
_CLASSIFICATION = tuple(TITLES)
_PRIORS = ("acc", "acc_balanced", "acc_rare")
IMBALANCED = 1.5
"""Times the smallest class's training samples from which classes count as imbalanced."""
HIGHER, LOWER = "higher", "lower"


@dataclass(frozen=True)
class Kind:
    """What is known of a metric of another task than classification.

    Attributes:
        title: In words.
        lower: Less is better.
        share: A share of 1, written in per cent.
        unit: Of one that is no share; "" without one.
    """

    title: str
    lower: bool = False
    share: bool = True
    unit: str = ""


OTHERS = {
    "miou": Kind("mean IoU"),
    "map": Kind("mean average precision"),
    "recall_at_1": Kind("recall at 1"),
    "recall_at_5": Kind("recall at 5"),
    "recall_at_10": Kind("recall at 10"),
    "chamfer": Kind("chamfer distance", lower=True, share=False),
    "sync_error": Kind("synchronisation error", lower=True, share=False, unit="s"),
}
"""Metrics of segmentation, retrieval, point clouds and audio with video."""


@dataclass(frozen=True)
class Metric:
    """What a sweep is judged by.

    Attributes:
        name: Such as ``acc_balanced`` or ``chamfer``: the key in ``metrics.json`` without its part.
        title: In words, such as "balanced accuracy".
        reason: Why this one, as a clause: "asked for by ablation.metric".
        lower: Less is better.
        share: A share of 1, written in per cent; else a number as it is.
        unit: Of one that is no share; "" without one.
    """

    name: str
    title: str
    reason: str
    lower: bool = False
    share: bool = True
    unit: str = ""

    @property
    def classification(self) -> bool:
        """Whether it is of class predictions as a whole: an accuracy, or AUROC."""
        return self.name in _CLASSIFICATION

    @property
    def needs_correction(self) -> bool:
        """Whether a shift of the class prior moves it, which can be corrected."""
        return self.name in _PRIORS

    @property
    def heading(self) -> str:
        """Title with the unit and, where less is better, the direction."""
        unit = "%" if self.share else self.unit
        return f"{self.title}{', ' if unit else ''}{unit}{' (lower is better)' if self.lower else ''}"

    @property
    def difference_unit(self) -> str:
        """Of differences, for a heading: ", points", ", s", or "" where there is none."""
        unit = "points" if self.share else self.unit
        return f", {unit}" if unit else ""

    def key(self, part: str, corrected: bool = False) -> str:
        """Key in ``metrics.json``.

        Args:
            part: "test" or "val".
            corrected: With the class prior corrected; for a metric that needs none the key is the same.
        """
        return f"{part}/{self.name}{CORRECTED if corrected and self.needs_correction else ''}"


def metric_of(name: str, reason: str = "") -> Metric:
    """A metric by its name, or by ``higher:<name>`` or ``lower:<name>``, which says what is better.

    Raises:
        ConfigurationError: It is not known, or is known to be the other way round.
    """
    direction, _, plain = name.rpartition(":")
    if direction not in ("", HIGHER, LOWER):
        raise _refused(name)
    known = Kind(TITLES[plain]) if plain in TITLES else OTHERS.get(plain)
    if known is None and (not direction or not plain):
        raise _refused(name)
    if known is None:
        known = Kind(plain.replace("_", " "), lower=direction == LOWER, share=False)
    elif direction and known.lower != (direction == LOWER):
        right = LOWER if known.lower else HIGHER
        raise ConfigurationError(
            f"ablation.metric={name}: {known.title} is better when it is {right}, so the verdict would be turned "
            f"round. Set ablation.metric to {plain}."
        )
    return Metric(plain, known.title, reason, known.lower, known.share, known.unit)


def _refused(name: str) -> ConfigurationError:
    return ConfigurationError(
        f"ablation.metric={name} is no metric that a sweep can be judged by: which way is better is not known. Set "
        f"ablation.metric to {', '.join(TITLES)}, {', '.join(OTHERS)}, to higher:<name> or lower:<name> for another "
        "one of metrics.json, or to null: that of the task, for classes balanced accuracy where they are imbalanced, "
        "else accuracy."
    )


def chosen_metric(runs: Sequence[Run], asked: str | None = None) -> Metric:
    """The metric asked for; by default that of the task, for classes balanced accuracy where they are imbalanced.

    Args:
        runs: All runs of the sweep.
        asked: ``ablation.metric``; None: what the runs' own configurations ask for, else the default.

    Raises:
        ConfigurationError: It asks for something else.
    """
    asked = asked or next((str(found) for run in runs if (found := _asked_by(run))), None)
    if asked is not None:
        return metric_of(asked, "asked for by ablation.metric")
    logged = {key for run in runs for key in run.metrics}
    if "test/acc" not in logged and not any(f"test/{name}" in logged for name in TITLES):
        found = next((name for name in OTHERS if f"test/{name}" in logged), None)
        if found is not None:
            return metric_of(found, "that of the task")
    counts = [run.train_counts for run in runs if run.train_counts]
    imbalanced = any(max(c) > IMBALANCED * min(c) for c in counts)
    plain = "test/acc" in logged and "test/acc_balanced" not in logged
    if not plain and (imbalanced or (not counts and any(run.rare for run in runs))):
        return metric_of("acc_balanced", "the default where classes are imbalanced")
    return metric_of("acc", "the default where classes are balanced" if not (plain and imbalanced) else "the default")


def _asked_by(run: Run) -> object:
    return (run.config.get("ablation") or {}).get("metric")
