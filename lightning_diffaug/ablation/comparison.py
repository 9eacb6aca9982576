"""The comparison of a sweep's arms as Markdown: means, paired differences, and what to know when reading them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lightning_diffaug.ablation.findings import Findings
from lightning_diffaug.ablation.metric import CORRECTED, OTHERS, Metric, metric_of
from lightning_diffaug.ablation.modalities import missing_modalities
from lightning_diffaug.ablation.notes import unfinished
from lightning_diffaug.ablation.numbers import as_score, in_per_cent, p_value
from lightning_diffaug.ablation.runs import Sweep
from lightning_diffaug.ablation.statistics import Estimate, paired_difference
from lightning_diffaug.ablation.summary import ArmSummary

_SECONDS = (
    "Generator seconds (fit and generation): mean over the arm's runs; one that finds all in the cache spends none."
)


@dataclass(frozen=True)
class Column:
    """A metric as it is shown.

    Attributes:
        key: Its key in ``metrics.json``.
        title: Heading.
        digits: Behind the point, of a share.
        metric: What says how it is written; None: a share of 1, in per cent.
    """

    key: str
    title: str
    digits: int = 1
    metric: Metric | None = None

    @property
    def heading(self) -> str:
        """Title with the unit."""
        return f"{self.title}, %" if self.metric is None else self.metric.heading.replace(self.metric.title, self.title)

    @property
    def difference_heading(self) -> str:
        """Title with the unit of differences."""
        return f"{self.title}{', points' if self.metric is None else self.metric.difference_unit}"

    def shown(self, estimate: Estimate | None, sign: str = "") -> str:
        """A value, or a difference, without its unit."""
        if self.metric is None:
            return in_per_cent(estimate, self.digits, sign)
        return as_score(estimate, self.metric, self.digits, sign)


COLUMNS = (
    Column("test/acc_balanced", "balanced accuracy"),
    Column(f"test/acc_balanced{CORRECTED}", "the same, prior corrected"),
    Column("test/acc_rare", "rare classes' accuracy"),
    Column(f"test/acc_rare{CORRECTED}", "the same, prior corrected"),
    Column("test/auroc", "macro AUROC", 2),
)
ACCURACY = (
    Column("test/acc", "accuracy"),
    Column(f"test/acc{CORRECTED}", "the same, prior corrected"),
)
"""Before those, where accuracy decides."""
MANY_RARE = 12
"""With more rare classes their single figures are in ``summary.csv`` alone: a table so wide is not read."""


def columns_of(findings: Findings) -> list[Column]:
    """Those for which there are figures, that which decides among them; none is corrected that is not there itself."""
    metric = findings.metric
    own: tuple[Column, ...] = ACCURACY if metric.name == "acc" else ()
    if not metric.classification:
        others = [metric_of(name) for name in OTHERS if name != metric.name]
        own = (*(Column(m.key("test"), m.title, metric=m) for m in (metric, *others)), *ACCURACY)
    known = {key for arm in findings.arms for key in arm.estimates}
    return [c for c in (*own, *COLUMNS) if {c.key, c.key.removesuffix(CORRECTED)} <= known]


def rare_columns(findings: Findings) -> list[Column]:
    """A column for the accuracy on each class that is rare in all runs; none above `MANY_RARE` of them."""
    every = [run.rare for run in findings.runs]
    names = [name for name in every[0] if all(name in rare for rare in every)]
    columns = [Column(f"test/acc_class_{name}", f"class {name}") for name in names] if len(names) <= MANY_RARE else []
    return [c for c in columns if any(c.key in a.estimates for a in findings.arms)]


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


def comparison(sweep: Sweep, tasks: Sequence[Findings], arm: str) -> str:
    """The comparison as Markdown, task by task.

    Args:
        sweep: All runs.
        tasks: What they say; see `find`.
        arm: Which arm is compared to each other one; see `chosen_arms`.
    """
    parts = ["# Comparison"]
    for findings in tasks:
        if len(tasks) > 1:
            parts.append(f"## {findings.verdict.task or 'The rest'}")
        parts += _task(findings, arm)
    if sweep.failures:
        parts.append(_failures(sweep))
    return "\n\n".join(parts) + "\n"


def _task(findings: Findings, arm: str) -> list[str]:
    columns, rare = columns_of(findings), rare_columns(findings)
    parts = [findings.verdict.sentence]
    if findings.warnings:
        parts.append(_bullets([f"Warning: {text}" for text in findings.warnings]))
    parts += [_means(findings.arms, columns), *_differences(findings, columns, arm)]
    if findings.trivial is not None:
        value = as_score(findings.trivial, findings.metric)
        parts.append(f"Trivial, what chance or a mean predictor reaches: {findings.metric.heading}: {value}.")
    for missing in missing_modalities(findings.arms, findings.metric):
        names = ["all modalities", *(f"without {name}" for name in missing.modalities)]
        shown = [Column(key, name, metric=missing.metric) for key, name in zip(missing.keys, names, strict=True)]
        title = f"### With a modality missing: {missing.metric.title}"
        parts += [title, _means(findings.arms, shown, costs=False)]
    if rare:
        parts += [
            "### Accuracy on each rare class",
            _means(findings.arms, rare, costs=False),
            *_differences(findings, rare, arm),
        ]
    return [*parts, _bullets([*findings.notes, _SECONDS])]


def _means(arms: Sequence[ArmSummary], columns: Sequence[Column], costs: bool = True) -> str:
    heads = ["arm", "fraction", "seeds", *(c.heading for c in columns)]
    heads += ["steps", "generator seconds"] if costs else []
    rows = [
        [
            f"{a.arm}",
            f"{a.fraction:.4g}",
            f"{a.runs}",
            *(c.shown(a.estimates.get(c.key)) for c in columns),
            *([f"{a.steps:.10g}", f"{a.generator_seconds:.1f}"] if costs else []),
        ]
        for a in arms
    ]
    return "On real test data after the last step, mean ± half the 95% t-interval over seeds:\n\n" + _table(heads, rows)


def _differences(findings: Findings, columns: Sequence[Column], arm: str) -> list[str]:
    chosen = chosen_arms(findings.arms, arm)
    others = [a for a in findings.arms if a not in chosen]
    if others and findings.judged is not None and findings.judged not in chosen:
        chosen = [*chosen, findings.judged]  # what the verdict is of
    tested = any(c.key == findings.score_key for c in columns)
    units = "in percentage points" if all(c.metric is None or c.metric.share for c in columns) else "in their units"
    parts = []
    for one in chosen if others else ():
        rows, ps = [], []
        for other in (a for a in others if a is not one):
            found = [paired_difference(one.values.get(c.key, {}), other.values.get(c.key, {})) for c in columns]
            pairs = max((e.n for e in found if e is not None), default=0)
            shown = [c.shown(e, "+") for c, e in zip(columns, found, strict=True)]
            rows.append([other.arm, f"{pairs}", *shown])
            compared = findings.verdict.comparison(one.arm, other.arm)
            ps.append(compared.p_holm if compared is not None else None)
        heads = [f"{one.arm} minus", "pairs", *(c.difference_heading for c in columns)]
        about = f"{one.arm} against each other arm, paired by seed, {units} with the 95% t-interval"
        if tested and any(p is not None for p in ps):
            rows = [[*row, p_value(p)] for row, p in zip(rows, ps, strict=True)]
            heads.append("p")
            shifted = ", class prior corrected" if findings.score_key.endswith(CORRECTED) else ""
            about += (
                f"; p is of {findings.metric.title}{shifted} (paired t-test, Holm-corrected over all synthetic arms), "
                "against the arms that the verdict measures by"
            )
        parts.append(f"{about}:\n\n" + _table(heads, rows))
    return parts


def _failures(sweep: Sweep) -> str:
    lines = [f"In no figure above: {unfinished(sweep.failures)}.\n"]
    lines += [f"- {f.folder} ({' '.join(f.overrides)}): {' '.join(f.error.split())}" for f in sweep.failures]
    return "\n".join(lines)


def _bullets(lines: Sequence[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table that is aligned as plain text too: names to the left, numbers to the right."""
    widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]

    def line(cells: Sequence[str]) -> str:
        rest = [cell.rjust(width) for cell, width in zip(cells[1:], widths[1:], strict=True)]
        return "| " + " | ".join([cells[0].ljust(widths[0]), *rest]) + " |"

    rule = [":" + "-" * (widths[0] - 1), *("-" * (width - 1) + ":" for width in widths[1:])]
    return "\n".join([line(heads), line(rule), *map(line, rows)])
