"""Arguments of alignment gates, checked."""

from __future__ import annotations

import math
from typing import Any

from lightning_diffaug.errors import ConfigurationError
from lightning_diffaug.gates.checks import as_set, check_number


def check_threshold(
    value: Any, gate: str, what: str, example: float, low: float = -math.inf, high: float = math.inf
) -> float | None:
    """A threshold, or None where it follows from the real pairs.

    Raises:
        ConfigurationError: It is no number of its range.
    """
    number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    if value is not None and not (number and low <= value <= high):
        within = f" from {low:g} to {high:g}" if math.isfinite(high) else f" from {low:g}" if low > -math.inf else ""
        raise ConfigurationError(
            f"gates.{gate}.threshold={value!r} is no number{within}: it is {what}. Set "
            f"{as_set(gate, threshold=example)}, or it to null, by which it follows from the real pairs."
        )
    return None if value is None else float(value)


def check_quantile(value: Any, gate: str, example: float) -> float:
    """A quantile of what is found of real pairs.

    Raises:
        ConfigurationError: It is not in [0, 1].
    """
    return check_number(value, gate, "quantile", "of what real pairs reach, from which others pass", example, 0, 1)
