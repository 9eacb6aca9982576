"""What a run of a sweep leaves when it fails, so that the sweep and its report go on."""

from __future__ import annotations

import json
import traceback
from collections.abc import Sequence
from pathlib import Path

FAILED = "failed.json"


def write_failed(folder: Path, error: BaseException, overrides: Sequence[str]) -> Path:
    """Writes ``failed.json``: ``error`` (its type and text), ``overrides``, ``traceback``.

    Args:
        folder: The run's folder.
        error: What it raised.
        overrides: Its overrides on the command line.

    Returns:
        The file.
    """
    folder.mkdir(parents=True, exist_ok=True)
    said = {
        "error": f"{type(error).__name__}: {error}",
        "overrides": list(overrides),
        "traceback": "".join(traceback.format_exception(error)),
    }
    path = folder / FAILED
    path.write_text(json.dumps(said, indent=1) + "\n", encoding="utf-8")
    return path
