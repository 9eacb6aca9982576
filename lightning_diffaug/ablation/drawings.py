"""Which arms a report's plots show, and what is written on them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.figure import Figure

from lightning_diffaug.ablation.canvas import (
    BEST_BASELINE,
    FAMILIES,
    GREY,
    JUDGED,
    REAL_ONLY,
    STYLES,
    Style,
    Texts,
    Value,
)
from lightning_diffaug.ablation.findings import Findings, shown_role
from lightning_diffaug.ablation.learning_curves import learning_curve
from lightning_diffaug.ablation.metric import CORRECTED, Metric, metric_of
from lightning_diffaug.ablation.numbers import as_score
from lightning_diffaug.ablation.per_class import class_accuracies
from lightning_diffaug.ablation.plots import Level, Line, OfClasses, Row, against_fraction, by_class, curves, dots
from lightning_diffaug.ablation.runs import CONTROL, OTHER_GENERATOR, SYNTHETIC
from lightning_diffaug.ablation.statistics import MIN_FOR_INTERVAL, Estimate
from lightning_diffaug.ablation.summary import ArmSummary

NAMES = ("accuracy_against_fraction", "score_against_fraction", "arms", "rare_classes", "per_class", "learning_curves")
"""Of all plots there can be."""
MANY_CLASSES = 24
"""A plot of more classes shows those with the fewest training samples."""
_TRIVIAL = Style(GREY, "", (0, (1, 3)))
_INTERVAL = "mean and 95% t-interval"


@dataclass(frozen=True)
class Drawing:
    """A plot of a report.

    Attributes:
        name: Of its files, and of the element in the page.
        label: What it shows, in one sentence.
        figure: The plot.
    """

    name: str
    label: str
    figure: Figure


def draw(findings: Findings) -> list[Drawing]:
    """All plots for which there are figures."""
    metric = findings.metric
    key, rare = findings.score_key, findings.rare_key
    made = [
        _fractions(findings, f"{'accuracy' if metric.classification else 'score'}_against_fraction", key, metric),
        _dots(findings, "arms", key, metric.key("test"), metric),
    ]
    if rare is not None and rare != key:
        shown = metric_of("acc_rare")
        plot = _fractions(findings, "rare_classes", rare, shown)
        made.append(plot or _dots(findings, "rare_classes", rare, "test/acc_rare", shown))
    return [one for one in (*made, _classes(findings), _curves(findings)) if one is not None]


def _value(estimate: Estimate) -> Value:
    return Value(estimate.mean, estimate.low, estimate.high)


def _notes(findings: Findings, arms: Sequence[ArmSummary], *more: str, interval: str = _INTERVAL) -> str:
    """What is equal, how many seeds, and what the intervals are; the same on every plot."""
    counts = sorted({arm.runs for arm in arms})
    seeds = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    words = "seed" if counts == [1] else "seeds"
    interval = interval if counts[-1] >= MIN_FOR_INTERVAL else "too few for an interval"
    return " · ".join([findings.equal, f"{seeds} {words}, {interval}", *more])


def _corrected(key: str) -> str:
    return "class prior corrected" if key.endswith("_corrected") else "as scored"


def _fractions(findings: Findings, name: str, key: str, metric: Metric) -> Drawing | None:
    score = metric.title
    arms = [arm for arm in findings.alike if key in arm.estimates]
    families = [family for family in findings.families if any(arm in arms and arm.fraction > 0 for arm in family)]
    if not any(len({arm.fraction for arm in family}) > 1 for family in families):
        return None
    lines = []
    free = {SYNTHETIC: list(FAMILIES), CONTROL: [STYLES[CONTROL]], OTHER_GENERATOR: [STYLES[OTHER_GENERATOR]]}
    for family in families:
        styles = free.get(next(arm for arm in family if arm.fraction > 0).role)
        if styles:
            here = sorted((arm for arm in family if arm in arms), key=lambda arm: arm.fraction)
            points = [(arm.fraction, _value(arm.estimates[key])) for arm in here]
            lines.append(Line(here[0].family or here[0].name, points, styles.pop(0)))
    levels = [
        Level(f"{said}: {arm.arm} ({as_score(arm.estimates[key], metric)})", _value(arm.estimates[key]), style)
        for said, arm, style in (
            ("best without a generator on validation", findings.best_baseline, BEST_BASELINE),
            ("real only", findings.real_only, REAL_ONLY),
        )
        if arm is not None and key in arm.estimates
    ]
    if len(levels) == 2 and findings.best_baseline is findings.real_only:
        levels = levels[:1]
    if metric is findings.metric and findings.trivial is not None:
        trivial = findings.trivial
        levels.append(Level(f"trivial: chance or a mean ({as_score(trivial, metric)})", _value(trivial), _TRIVIAL))
    more = [_corrected(key)]
    if len(families) > len(lines):
        more.append(f"{len(families) - len(lines)} more kinds of arms are in the table")
    title = f"{score[0].upper()}{score[1:]} on real test data"
    texts = Texts(title, _notes(findings, arms, *more), metric.heading, metric.share, metric.lower)
    label = f"{score} on real test data against the synthetic fraction"
    return Drawing(name, label, against_fraction(lines, levels, texts))


def _dots(findings: Findings, name: str, key: str, raw: str, metric: Metric) -> Drawing | None:
    score = metric.title
    arms = [arm for arm in findings.arms if key in arm.estimates]
    if not arms:
        return None
    rows = [
        Row(
            arm.arm,
            _value(arm.estimates[key]),
            shown_role(arm),
            _value(arm.estimates[raw]) if raw != key and raw in arm.estimates else None,
        )
        for arm in arms
    ]
    others = [arm.arm for arm in arms if arm not in findings.alike]
    more = [f"trained by another rule: {', '.join(others)}"] if others else []
    title = f"Every arm: {score} on real test data"
    texts = Texts(title, _notes(findings, arms, *more), metric.heading, metric.share, metric.lower)
    label = f"{score} of every arm, from the best to the worst"
    return Drawing(name, label, dots(rows, texts, _corrected(key), _corrected(raw)))


def _few(findings: Findings) -> list[tuple[ArmSummary, Style]]:
    """The arms that matter most, each with its style; none twice."""
    pairs = (
        (findings.judged, JUDGED),
        (findings.best_baseline, BEST_BASELINE),
        (findings.real_only, REAL_ONLY),
        (findings.control, STYLES[CONTROL]),
    )
    found = {arm.arm: (arm, style) for arm, style in reversed(pairs) if arm is not None}
    if len(found) > 1:
        return list(reversed(found.values()))
    return list(zip(findings.arms, FAMILIES, strict=False))  # nothing could be chosen


def _classes(findings: Findings) -> Drawing | None:
    few = _few(findings)
    sampled = {arm.arm: class_accuracies(arm.runs_of) for arm, _ in few}
    whole = all(sampled.values())
    found = [(arm, sampled[arm.arm] if whole else of_classes(arm, "test/acc_class_"), style) for arm, style in few]
    found = [one for one in found if one[1]]
    if not found:
        return None
    counts = findings.class_counts
    names = list(dict.fromkeys(name for _, values, _ in found for name in values))
    names.sort(key=lambda name: counts.get(name, (0, 0))[0])
    shown = names[:MANY_CLASSES]
    labels = [f"{name} ({as_range(counts[name])})" if name in counts else name for name in shown]
    arms = [
        OfClasses(arm.arm, [_value(values[name]) if name in values else None for name in shown], style)
        for arm, values, style in found
    ]
    more = ["as scored"]
    if counts:
        varies = any(low < high for low, high in counts.values())
        more.append(f"in brackets: real training samples{', fewest-most over seeds' if varies else ''}")
    if len(names) > len(shown):
        more.append(f"the {len(shown)} classes of {len(names)} with the fewest of them")
    interval = "mean and 95% bootstrap interval over seeds and test samples" if whole else _INTERVAL
    notes = _notes(findings, [arm for arm, _, _ in found], *more, interval=interval)
    texts = Texts("Accuracy on each class of real test data", notes, "accuracy, %")
    return Drawing("per_class", "accuracy on each class", by_class(labels, arms, texts))


def of_classes(arm: ArmSummary, prefix: str, corrected: bool = False) -> dict[str, Estimate]:
    """An arm's figures of single classes by their names, those that begin with a prefix such as ``test/acc_class_``."""
    every = {key.removeprefix(prefix): e for key, e in arm.estimates.items() if key.startswith(prefix)}
    # a class may be named "x_corrected" itself: what has a corrected figure of its own is a class
    plain = {
        name: e for name, e in every.items() if not (name.endswith(CORRECTED) and name[: -len(CORRECTED)] in every)
    }
    return {name: every[name + CORRECTED] for name in plain if name + CORRECTED in every} if corrected else plain


def as_range(counts: tuple[int, int]) -> str:
    """Fewest and most, or the one number that both are."""
    return f"{counts[0]}" if counts[0] == counts[1] else f"{counts[0]}-{counts[1]}"


def _curves(findings: Findings) -> Drawing | None:
    for metric in (findings.metric, metric_of("acc")):
        key, score = metric.key("val"), metric.title
        arms = [(arm, learning_curve(arm.runs_of, key), style) for arm, style in _few(findings)]
        lines = [Line(arm.arm, [(step, _value(e)) for step, e in curve], style) for arm, curve, style in arms if curve]
        if lines:
            notes = _notes(findings, [arm for arm, curve, _ in arms if curve], "as scored")
            title = f"Learning curves: {score} on real validation data"
            texts = Texts(title, notes, metric.heading, metric.share, metric.lower)
            return Drawing("learning_curves", f"{score} on validation data while training", curves(lines, texts))
    return None
