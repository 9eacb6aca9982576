"""``diffaug report``: writes the report of a sweep again, or one report that compares several."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

COMMAND = "report"
SEVERAL = "report"
"""Folder of a report on several sweeps: no name that a sweep's folder has by default."""


def add_parser(commands: Any) -> None:
    """Adds the command to those of ``diffaug``."""
    parser = commands.add_parser(COMMAND, help="write the report of a sweep again, or compare several sweeps")
    parser.add_argument("folders", type=Path, nargs="+", metavar="FOLDER", help="folder of a sweep (multirun/…)")
    parser.add_argument(
        "--out", type=Path, help=f"folder to write to; by default ablation/ in the sweep's, of several {SEVERAL}/ here"
    )
    parser.add_argument("--metric", help="such as acc_balanced, miou or lower:loss; by default that of the sweep")
    parser.add_argument("--arm", help="the arm that comparison.md compares to each other one, beside the judged one")
    parser.set_defaults(what=COMMAND)


def report(asked: argparse.Namespace) -> int:
    """Reads the sweeps, writes and prints.

    Returns:
        0; 1 where there is nothing to report or a setting is wrong.
    """
    # imported here: other commands need none of it
    from lightning_diffaug.ablation.report import ARM, PAGE, write_reports
    from lightning_diffaug.ablation.runs import REPORT_FOLDER
    from lightning_diffaug.errors import ConfigurationError

    folders = list(dict.fromkeys(folder.absolute() for folder in asked.folders))
    for folder in folders:
        if not folder.is_dir():
            print(
                f"{folder} is no folder, so there is no sweep to report. Name one such as multirun/…", file=sys.stderr
            )
            return 1
    target = asked.out or (folders[0] / REPORT_FOLDER if len(folders) == 1 else Path.cwd() / SEVERAL)
    try:
        found = write_reports(folders, target, asked.arm or ARM, asked.metric, needed=True, named=asked.arm is not None)
    except ConfigurationError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{found.text}\nwritten to {found.folder / PAGE}")
    return 0
