"""The report of a sweep: tables as CSV, and the comparison of its arms."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lightning_diffaug.ablation.comparison import comparison
from lightning_diffaug.ablation.runs import REPORT_FOLDER, Sweep, read_sweep
from lightning_diffaug.ablation.summary import summarise, write_failures, write_runs, write_summary


@dataclass(frozen=True)
class Report:
    """What was found and written.

    Attributes:
        folder: Where it was written.
        sweep: What was read.
        text: The comparison, as in ``comparison.md``.
    """

    folder: Path
    sweep: Sweep
    text: str


def write_report(folder: Path, arm: str = "mixed") -> Report:
    """Writes ``runs.csv``, ``summary.csv``, ``comparison.md``, and ``failed.csv`` where runs failed.

    Args:
        folder: The sweep's folder; the files go to ``ablation/`` in it.
        arm: The arm that is compared to each other one: a unique name (``mixed-0.25``), or one without the fraction,
            which may stand for several. The first arm of the sweep where there is none of that name.
    """
    sweep = read_sweep(folder)
    arms = summarise(sweep.runs)
    text = comparison(sweep, arms, arm)
    target = folder / REPORT_FOLDER
    target.mkdir(parents=True, exist_ok=True)
    write_runs(sweep.runs, target / "runs.csv")
    write_summary(arms, target / "summary.csv")
    write_failures(sweep.failures, target / "failed.csv")
    (target / "comparison.md").write_text(text, encoding="utf-8")
    return Report(target, sweep, text)
