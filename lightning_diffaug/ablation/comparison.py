"""The comparison of a sweep's arms as Markdown: means, paired differences, and what to know when reading them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lightning_diffaug.ablation.choice import is_corrected
from lightning_diffaug.ablation.metric import CORRECTED, chosen_metric
from lightning_diffaug.ablation.runs import BASELINE, Sweep
from lightning_diffaug.ablation.statistics import MIN_FOR_INTERVAL, Estimate, holm, paired_difference
from lightning_diffaug.ablation.summary import ArmSummary
from lightning_diffaug.ablation.verdict import judge_each


@dataclass(frozen=True)
class Column:
    """A metric as it is shown, in per cent.

    Attributes:
        key: Its key in ``metrics.json``; a share of 1.
        title: Heading.
        digits: Behind the point.
    """

    key: str
    title: str
    digits: int = 1

    def mean(self, estimate: Estimate | None) -> str:
        """Mean ± half the interval."""
        return self._shown(estimate, "")

    def difference(self, estimate: Estimate | None) -> str:
        """The same with its sign."""
        return self._shown(estimate, "+")

    def _shown(self, estimate: Estimate | None, sign: str) -> str:
        if estimate is None:
            return "n/a"
        text = f"{100 * estimate.mean:{sign}.{self.digits}f}"
        half = estimate.half_width
        return text if half is None else f"{text} ± {100 * half:.{self.digits}f}"


COLUMNS = (
    Column("test/acc_balanced", "balanced accuracy"),
    Column(f"test/acc_balanced{CORRECTED}", "the same, prior corrected"),
    Column("test/acc_rare", "rare classes' accuracy"),
    Column(f"test/acc_rare{CORRECTED}", "the same, prior corrected"),
    Column("test/auroc", "macro AUROC", 2),
)
MANY_RARE = 12
"""With more rare classes their single figures are in ``summary.csv`` alone: a table so wide is not read."""


def rare_columns(sweep: Sweep) -> list[Column]:
    """A column for the accuracy on each class that is rare in all runs; none above `MANY_RARE` of them."""
    every = [set(run.rare) for run in sweep.runs]
    names = [name for name in sweep.runs[0].rare if all(name in rare for rare in every)] if every else []
    return [Column(f"test/acc_class_{name}", f"class {name}") for name in names] if len(names) <= MANY_RARE else []


def chosen_arms(arms: Sequence[ArmSummary], arm: str) -> list[ArmSummary]:
    """The arms that are compared to all others.

    Args:
        arms: All arms.
        arm: A unique name (``mixed-0.25``), or one without the fraction, which may stand for several.

    Returns:
        Those arms; the first arm where there is none of that name, or no other.
    """
    chosen = [a for a in arms if arm in (a.arm, a.name)]
    return chosen if 0 < len(chosen) < len(arms) else list(arms[:1])


def comparison(sweep: Sweep, arms: Sequence[ArmSummary], arm: str, asked: str | None = None) -> str:
    """The comparison as Markdown.

    Args:
        sweep: All runs.
        arms: Their arms.
        arm: Which arm is compared to each other one; see `chosen_arms`.
        asked: ``ablation.metric``; see `chosen_metric`.
    """
    parts = ["# Comparison"]
    if arms:
        columns = [c for c in COLUMNS if any(c.key in a.estimates for a in arms)]
        parts += _verdicts(arms, asked)
        parts += [_means(arms, columns), *_differences(arms, columns, arm, asked)]
        rare = [c for c in rare_columns(sweep) if any(c.key in a.estimates for a in arms)]
        if rare:
            parts += [
                "## Accuracy on each rare class",
                _means(arms, rare, costs=False),
                *_differences(arms, rare, arm, asked),
            ]
        parts.append(_notes(sweep, arms))
    if sweep.failures:
        parts.append(_failures(sweep))
    return "\n\n".join(parts) + "\n"


def _verdicts(arms: Sequence[ArmSummary], asked: str | None) -> list[str]:
    found = judge_each(arms, asked)
    return [f"{verdict.task}: {verdict.sentence}" if len(found) > 1 else verdict.sentence for verdict in found]


def _means(arms: Sequence[ArmSummary], columns: Sequence[Column], costs: bool = True) -> str:
    heads = ["arm", "fraction", "seeds", *(f"{c.title}, %" for c in columns)]
    heads += ["steps", "generator seconds"] if costs else []
    rows = [
        [
            f"{a.arm}",
            f"{a.fraction:.4g}",
            f"{a.runs}",
            *(c.mean(a.estimates.get(c.key)) for c in columns),
            *([f"{a.steps:.10g}", f"{a.generator_seconds:.1f}"] if costs else []),
        ]
        for a in arms
    ]
    return "On real test data after the last step, mean ± half the 95% t-interval over seeds:\n\n" + _table(heads, rows)


def _differences(arms: Sequence[ArmSummary], columns: Sequence[Column], arm: str, asked: str | None) -> list[str]:
    chosen = chosen_arms(arms, arm)
    others = [a for a in arms if a not in chosen]
    metric = chosen_metric([run for a in arms for run in a.runs_of], asked)
    key = metric.key("test", is_corrected(arms, metric))
    parts = []
    for one in chosen if others else ():
        rows = []
        for other in others:
            found = [paired_difference(one.values.get(c.key, {}), other.values.get(c.key, {})) for c in columns]
            pairs = max((e.n for e in found if e is not None), default=0)
            shown = [c.difference(e) for c, e in zip(columns, found, strict=True)]
            rows.append([other.arm, f"{pairs}", *shown])
        heads = [f"{one.arm} minus", "pairs", *(f"{c.title}, points" for c in columns)]
        about = f"{one.arm} against each other arm, paired by seed, in percentage points with the 95% t-interval"
        place = next((i for i, c in enumerate(columns) if c.key == key), None)
        if place is not None:
            ps = holm([_p(one, other, key) for other in others])
            rows = [[*row, "n/a" if p is None else f"{p:.3f}"] for row, p in zip(rows, ps, strict=True)]
            heads.append("p")
            shifted = ", class prior corrected" if key.endswith(CORRECTED) else ""
            about += f"; p is of {metric.title}{shifted} (paired t-test, Holm-corrected over the rows)"
        parts.append(f"{about}:\n\n" + _table(heads, rows))
    return parts


def _p(one: ArmSummary, other: ArmSummary, key: str) -> float | None:
    found = paired_difference(one.values.get(key, {}), other.values.get(key, {}))
    return found.p if found is not None else None


def _notes(sweep: Sweep, arms: Sequence[ArmSummary]) -> str:
    rule = next((run.equal for run in sweep.runs if run.role != BASELINE), None)
    timed = sorted({run.arm for run in sweep.runs if rule not in (None, run.equal)})
    steps = sorted({run.steps for run in sweep.runs if run.arm not in timed})
    notes = [
        f"Optimiser steps are equal: {steps[0]:.10g} in every run{' but those named next' if timed else ''}."
        if len(steps) == 1
        else f"Optimiser steps are NOT equal ({steps[0]:.10g} to {steps[-1]:.10g}): who trains longer has an advantage."
    ]
    if timed:
        notes.append(f"Trained by another rule, beside the others: {', '.join(timed)}.")
    few = [a.arm for a in arms if a.runs < MIN_FOR_INTERVAL]
    if few:
        notes.append(f"Fewer than {MIN_FOR_INTERVAL} seeds, so no interval and no conclusion: {', '.join(few)}.")
    short = sum(float(run.metrics.get("mix/short_epochs", 0.0)) > 0 for run in sweep.runs)
    if short:
        notes.append(
            f"In {short} of {len(sweep.runs)} runs the pool was short in some epoch (mix/short_epochs in runs.csv)."
        )
    notes.append(
        "Generator seconds (fit and generation): mean over the arm's runs; one that finds all in the cache spends none."
    )
    return "\n".join(f"- {note}" for note in notes)


def _failures(sweep: Sweep) -> str:
    count = len(sweep.failures)
    lines = [f"{count} run{'s' if count > 1 else ''} failed, and {'are' if count > 1 else 'is'} in no figure above:\n"]
    lines += [f"- {f.folder} ({' '.join(f.overrides)}): {' '.join(f.error.split())}" for f in sweep.failures]
    return "\n".join(lines)


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table that is aligned as plain text too: names to the left, numbers to the right."""
    widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]

    def line(cells: Sequence[str]) -> str:
        rest = [cell.rjust(width) for cell, width in zip(cells[1:], widths[1:], strict=True)]
        return "| " + " | ".join([cells[0].ljust(widths[0]), *rest]) + " |"

    rule = [":" + "-" * (widths[0] - 1), *("-" * (width - 1) + ":" for width in widths[1:])]
    return "\n".join([line(heads), line(rule), *map(line, rows)])
