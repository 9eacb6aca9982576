"""The report of a sweep, or of several: tables as CSV, the comparison as text, plots, and all of it as one page."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from omegaconf import OmegaConf

from lightning_diffaug.ablation.comparison import comparison
from lightning_diffaug.ablation.drawings import NAMES, draw
from lightning_diffaug.ablation.findings import find
from lightning_diffaug.ablation.html import Page, command_of, page
from lightning_diffaug.ablation.merging import read_sweeps, short_names
from lightning_diffaug.ablation.runs import JOBS, REPORT_FOLDER, Sweep
from lightning_diffaug.ablation.summary import summarise, write_failures, write_runs, write_summary
from lightning_diffaug.ablation.svg import save
from lightning_diffaug.errors import ConfigurationError

PAGE = "report.html"
ARM = "mixed"
"""What ``comparison.md`` compares to each other arm, where no other is asked for."""


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


def write_report(folder: Path, arm: str = ARM, metric: str | None = None) -> Report:
    """Writes a sweep's report to ``ablation/`` in its folder; see `write_reports`.

    Args:
        folder: The sweep's folder.
        arm: The arm that ``comparison.md`` compares to each other one: a unique name (``mixed-0.25``), or one without
            the fraction, which may stand for several. The first arm of the sweep where there is none of that name.
        metric: ``ablation.metric``; None: that of the runs' configuration, or the default.
    """
    return write_reports([folder], folder / REPORT_FOLDER, arm, metric)


def write_reports(
    folders: Sequence[Path],
    target: Path,
    arm: str = ARM,
    metric: str | None = None,
    needed: bool = False,
    named: bool = False,
) -> Report:
    """Writes ``runs.csv``, ``summary.csv``, ``comparison.md``, plots, ``report.html``; ``failed.csv`` if runs failed.

    Args:
        folders: Sweeps; the arms of several are compared where they are of one task.
        target: The folder to write to.
        arm: See `write_report`.
        metric: See `write_report`.
        needed: Whether there has to be something to report.
        named: Whether there has to be such an arm.

    Raises:
        ConfigurationError: There is no such metric or arm, or nothing of what is needed.
    """
    sweep = read_sweeps(folders)
    if needed and not sweep.runs and not sweep.failures:
        raise ConfigurationError(
            f"There is no run in {', '.join(map(str, folders))}: nothing is written. Name the folder of a sweep, which "
            "has those of its runs in it."
        )
    arms = summarise(sweep.runs)
    if named and not any(arm in (one.arm, one.name) for one in arms):
        known = ", ".join(dict.fromkeys(one.arm for one in arms))
        raise ConfigurationError(
            f"no arm is named {arm}, so nothing can be compared to it. Set --arm to one of {known}."
        )
    tasks = find(arms, metric, sweep.failures)
    text = comparison(sweep, tasks, arm)
    target.mkdir(parents=True, exist_ok=True)
    write_runs(sweep.runs, target / "runs.csv")
    judged = {f.verdict.task: f.metric.key("test") for f in tasks if not f.metric.classification}
    write_summary(arms, target / "summary.csv", judged)
    write_failures(sweep.failures, target / "failed.csv")
    (target / "comparison.md").write_text(text, encoding="utf-8")
    drawn = [(findings, draw(findings)) for findings in tasks]
    _remove_plots(target)
    for number, (_, drawings) in enumerate(drawn, 1):
        for drawing in drawings:
            save(drawing.figure, target, drawing.name if number == 1 else f"{drawing.name}-{number}")
    about = Page(" and ".join(short_names(folders)), sweep, drawn, folders, [_command(folder) for folder in folders])
    tables = [(target / name).read_text(encoding="utf-8") for name in ("runs.csv", "summary.csv")]
    part = target / f".{PAGE}"
    part.write_text(page(about, *tables), encoding="utf-8")
    part.replace(target / PAGE)
    return Report(target, sweep, text)


def _remove_plots(target: Path) -> None:
    """Those of an earlier report: what it showed may not be there any more."""
    for name in NAMES:
        for ending in ("svg", "png"):
            for path in (target / f"{name}.{ending}", *target.glob(f"{name}-[0-9]*.{ending}")):
                path.unlink(missing_ok=True)


def _command(folder: Path) -> str:
    """How a sweep was started; "" where that is not known."""
    try:
        if (folder / JOBS).is_file():
            return command_of(json.loads((folder / JOBS).read_text(encoding="utf-8"))["overrides"])
        asked = OmegaConf.select(OmegaConf.load(folder / "multirun.yaml"), "hydra.overrides.task")
        return command_of([str(line) for line in asked])
    except Exception:  # written by another version, or not at all: the report does without it
        return ""
