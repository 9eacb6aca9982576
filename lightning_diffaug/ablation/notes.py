"""What a reader of a report must know: what warns, and what only qualifies."""

from __future__ import annotations

import math
from collections.abc import Sequence

from lightning_diffaug.ablation.findings import Findings
from lightning_diffaug.ablation.runs import Run
from lightning_diffaug.ablation.statistics import MIN_FOR_INTERVAL

_WARNS = ("NOT ", "Fewer than", "fewer seeds", "more than once", "too few", "missing")
"""Words of a verdict's note that make it a warning."""


def warnings(findings: Findings) -> list[str]:
    """What takes weight from the verdict."""
    runs = findings.runs
    said = [note for note in findings.verdict.notes if any(word in note for word in _WARNS)]
    few = [arm.arm for arm in findings.arms if arm.runs < MIN_FOR_INTERVAL]
    if few and not any("Fewer than" in note for note in said):
        said.append(f"Fewer than {MIN_FOR_INTERVAL} seeds, so no interval and no conclusion: {', '.join(few)}.")
    if "NOT" in findings.equal and not any("NOT equal" in note or "NOT " in note for note in said):
        said.append(f"{findings.equal[0].upper()}{findings.equal[1:]}: who trains longer has an advantage.")
    short = sum(float(run.metrics.get("mix/short_epochs", 0.0)) > 0 for run in runs)
    if short:
        said.append(f"In {short} of {len(runs)} runs the pool was short in some epoch (mix/short_epochs in runs.csv).")
    return said


def notes(findings: Findings) -> list[str]:
    """What else is known about the runs."""
    warned = warnings(findings)
    said = [note for note in findings.verdict.notes if note not in warned]
    if findings.verdict.one_generator:
        said.append("All seeds of the arm judged share one generator; generator.seed varies it.")
    if not findings.verdict.notes:
        said += _of_the_test(findings.runs)
    return [*said, *_of_repetition(findings.runs)]


def _of_the_test(runs: Sequence[Run]) -> list[str]:
    evaluations = [run.metrics.get("test/evaluations") for run in runs]
    if runs and all(count == 1 for count in evaluations):
        return ["The real test set was scored once in each run (test/evaluations)."]
    return []


def _of_repetition(runs: Sequence[Run]) -> list[str]:
    """Whether the sweep gives the same figures again."""
    mixed = [run for run in runs if run.fraction > 0 and "data" in run.config]
    if not mixed:
        return []
    in_step = [run for run in mixed if _mode(run) in ("sync", "none")]
    frozen = [run for run in mixed if run not in in_step and _reuse(run) == math.inf]
    if len(in_step) == len(mixed):
        return ["Windows were made in step with training: on one machine the sweep gives the same figures again."]
    if len(in_step) + len(frozen) == len(mixed):
        return ["The pool was frozen before training: on one machine the sweep gives the same figures again."]
    return [
        "The pool was filled beside training, so what a window holds depends on the machine's speed: a repetition "
        "gives figures that differ a little (refill=sync: the same to the last digit)."
    ]


def _mode(run: Run) -> str:
    refill = run.config["data"].get("refill")
    return str(refill.get("mode", "local") if isinstance(refill, dict) else refill)


def _reuse(run: Run) -> float:
    try:
        return float(run.config["data"].get("reuse", 0))
    except (TypeError, ValueError):
        return 0.0
