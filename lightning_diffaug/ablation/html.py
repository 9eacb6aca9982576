"""``report.html``: one self-contained page with everything that a sweep says, and its data."""

from __future__ import annotations

import csv
import platform
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib import resources
from importlib.metadata import PackageNotFoundError, version
from io import StringIO
from pathlib import Path

from lightning_diffaug.ablation import sections
from lightning_diffaug.ablation.drawings import Drawing
from lightning_diffaug.ablation.findings import Findings
from lightning_diffaug.ablation.markup import (
    NOTHING,
    Cell,
    Content,
    Markup,
    breakable,
    bullets,
    data,
    element,
    escaped,
    joined,
    table,
)
from lightning_diffaug.ablation.notes import unfinished
from lightning_diffaug.ablation.runs import Sweep

_PACKAGES = ("lightning_diffaug", "lightning", "torch", "torchvision", "diffusers", "numpy", "scipy")


@dataclass(frozen=True)
class Page:
    """What the page is of.

    Attributes:
        title: Name of the sweep, or of several.
        sweep: All runs, and failures.
        tasks: What was found, task by task, each with its plots.
        folders: Where the sweeps are.
        commands: How each was started; "" where it is not known.
    """

    title: str
    sweep: Sweep
    tasks: Sequence[tuple[Findings, Sequence[Drawing]]]
    folders: Sequence[Path]
    commands: Sequence[str]


def page(about: Page, runs_csv: str, summary_csv: str) -> str:
    """The page as text.

    Args:
        about: What it is of.
        runs_csv: Content of ``runs.csv``, which it carries as data.
        summary_csv: Content of ``summary.csv``, likewise.
    """
    body = joined([_head(about), *_tasks(about), _failures(about.sweep), _how(about)])
    found = {
        "title": escaped(f"Do synthetic data help? {about.title}"),
        "style": _resource("page.css"),
        "body": body.text,
        "data": joined([data("runs", _rows(runs_csv)), data("summary", _rows(summary_csv))]).text,
        "script": _resource("page.js"),
    }
    before, *parts = _resource("page.html").split("<!--")  # in one pass: what is put in is not looked through again
    text = before
    for part in parts:
        name, _, after = part.partition("-->")
        text += found[name] + after
    return text


def _resource(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8").strip()


def _rows(text: str) -> list[dict[str, float | str | None]]:
    """Rows of a CSV text, numbers as numbers."""
    return [{key: _number(value) for key, value in row.items()} for row in csv.DictReader(StringIO(text, newline=""))]


def _number(text: str) -> float | str | None:
    if not text:
        return None
    try:
        return float(text)
    except ValueError:
        return text


def _head(about: Page) -> Markup:
    runs, failures = about.sweep.runs, about.sweep.failures
    seeds = sorted({run.seed for run in runs})
    said = [f"{len(runs)} run{'' if len(runs) == 1 else 's'}"]
    if failures:
        said.append(f"{unfinished(failures)} (listed below)")
    if seeds:
        said.append(f"seed{'' if len(seeds) == 1 else 's'} {', '.join(map(str, seeds))}")
    under = element("p", breakable(about.title), " · ", " · ".join(said), class_="under")
    parts = [element("h1", "Do synthetic data help?"), under]
    if not about.tasks:
        parts.append(element("div", element("p", "No run came to its end.", class_="sentence"), class_="verdict"))
    return joined([*parts, *(sections.verdict(findings) for findings, _ in about.tasks)])


def _tasks(about: Page) -> list[Markup]:
    shown = []
    for number, (findings, drawings) in enumerate(about.tasks):
        several = len(about.tasks) > 1
        title = element("h2", findings.verdict.task or "The rest") if several else NOTHING
        shown.append(joined([title, sections.details(findings, drawings, f"t{number}-")]))
    return shown


def _failures(sweep: Sweep) -> Markup:
    if not sweep.failures:
        return NOTHING
    title = f"In no figure above: {unfinished(sweep.failures)}"
    rows: list[list[Cell | Content]] = [
        [f.folder, " ".join(f.overrides), " ".join(f.error.split())] for f in sweep.failures
    ]
    return element("section", element("h3", title), table(["folder", "overrides", "error"], rows, text=True))


def _how(about: Page) -> Markup:
    lines: list[Content] = []
    for folder, command in zip(about.folders, about.commands, strict=True):
        if command:
            lines.append(element("code", command))
        lines.append(f"Read from {folder}")
    versions = ", ".join(f"{name} {number}" for name in _PACKAGES if (number := _version(name)))
    lines.append(
        f"Report written {datetime.now().astimezone():%Y-%m-%d %H:%M %Z} with {versions}, "
        f"Python {platform.python_version()}"
    )
    lines.append("All figures above are in this file as JSON (elements #runs and #summary).")
    buttons = joined(
        [
            element("button", f"Save {name}.csv", type="button", hidden="", data_table=name, data_file=f"{name}.csv")
            for name in ("summary", "runs")
        ]
    )
    return element("section", element("h3", "How it was made"), bullets(lines, "about"), element("p", buttons))


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def command_of(overrides: Sequence[str]) -> str:
    """The command line of a sweep."""
    return "python train.py -m " + " ".join(map(shlex.quote, overrides))
