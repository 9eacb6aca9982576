"""Progress bars on standard error, as this package shows them."""

from __future__ import annotations

import sys
from typing import Any

from tqdm import tqdm


def bar(what: str, unit: str, total: int, **more: Any) -> Any:
    """A bar of tqdm that a terminal sees move, and of which a log file has few lines.

    Args:
        what: What is being done.
        unit: Of a step.
        total: Number of steps.
        **more: Further arguments of ``tqdm``.
    """
    interval = 0.2 if sys.stderr.isatty() else 10.0
    return tqdm(desc=what, unit=unit, total=total, mininterval=interval, maxinterval=interval, file=sys.stderr, **more)
