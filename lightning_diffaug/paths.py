"""Where things lie: the user's cache folder, and the configuration of the package; and the order of numbered files."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path


def default_cache_dir() -> Path:
    """The user's cache folder for fitted generators and pools (``LIGHTNING_DIFFAUG_CACHE`` names another)."""
    if named := os.environ.get("LIGHTNING_DIFFAUG_CACHE"):
        return Path(named).expanduser()
    if sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    elif sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local"))
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "lightning_diffaug"


def config_dir() -> Path:
    """The folder ``conf``: inside the package in a wheel, beside it in a checkout."""
    package = Path(__file__).resolve().parent
    inside = package / "conf"
    return inside if inside.is_dir() else package.parent / "conf"


def natural(path: Path) -> list[tuple[int, str]]:
    """A key that sorts 10 behind 9."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", str(path))]
