"""Which slots an epoch sees: pure arithmetic of the log's positions, never of a slot's content.

`reuse` is the number of times that a sample is drawn on average while it is in the window, the inverse view
of Reverb's samples per insert (Cassirer et al. 2021, arXiv 2102.04736): the window advances by draws / reuse
samples an epoch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction

from lightning_diffaug.errors import ConfigurationError


def first_slot(synthetic_before: int | Fraction, reuse: float, slot_size: int) -> int:
    """First slot of an epoch's window: ``floor(synthetic_before / (reuse · slot_size))``, exactly.

    Args:
        synthetic_before: Synthetic draws of all earlier epochs, over all ranks; ≥ 0.
        reuse: ≥ 1, or ``inf``, with which the window never moves.
        slot_size: Samples of a full slot; ≥ 1.

    Raises:
        ConfigurationError: An argument is out of its range.
    """
    check_reuse(reuse)
    _check_count("slot_size", slot_size)
    if synthetic_before < 0:
        raise ConfigurationError(
            f"synthetic_before={synthetic_before} is negative: it counts the draws of earlier epochs."
        )
    if math.isinf(reuse):
        return 0
    # str: 1.1 means eleven tenths here, not the nearest binary fraction.
    return math.floor(Fraction(synthetic_before) / (Fraction(str(reuse)) * slot_size))


def window_slots(first: int, window: int, slot_size: int) -> range:
    """The slots of a window of at least ``window`` samples: ``ceil(window / slot_size)`` from ``first`` on.

    Raises:
        ConfigurationError: An argument is out of its range.
    """
    _check_count("window", window)
    _check_count("slot_size", slot_size)
    if first < 0:
        raise ConfigurationError(f"first={first} is negative: slots are numbered from 0.")
    return range(first, first + -(-window // slot_size))


def newest_window(there: Sequence[int], size: int) -> list[int] | None:
    """The newest complete window: the last `size` consecutive slots among those that are there.

    Args:
        there: Published slots, ascending.
        size: Slots of a window, ≥ 1.

    Returns:
        Its slots; None where no `size` consecutive ones are there.
    """
    for stop in range(len(there), size - 1, -1):
        if there[stop - 1] - there[stop - size] == size - 1:
            return list(there[stop - size : stop])
    return None


def capacity_slots(capacity: int | None, window: int, slot_size: int) -> int | None:
    """How many slots a pool of ``capacity`` samples keeps; None: all.

    Raises:
        ConfigurationError: The capacity is below the window, so that no epoch could ever be complete.
    """
    needed = len(window_slots(0, window, slot_size))
    if capacity is None:
        return None
    if type(capacity) is not int or capacity < window:
        raise ConfigurationError(
            f"data.capacity={capacity} is below data.window={window}: the samples of one window would be dropped "
            f"before the epoch has read them. Set data.capacity to at least {needed * slot_size}, or null "
            f"for no limit, or lower data.window."
        )
    return max(needed, capacity // slot_size)


def check_reuse(reuse: float) -> None:
    """Raises `ConfigurationError` unless ``reuse`` is a number ≥ 1 or ``inf``."""
    if isinstance(reuse, bool) or not isinstance(reuse, (int, float)) or not reuse >= 1:
        raise ConfigurationError(
            f"data.reuse={reuse!r} is not a number ≥ 1: it is how often each synthetic sample is drawn before the "
            f"window leaves it. Set data.reuse to 1 (always fresh), 8, … or inf (a frozen pool)."
        )


def _check_count(name: str, value: int) -> None:
    if type(value) is not int or value < 1:
        raise ConfigurationError(
            f"data.{name}={value!r} is not a whole number ≥ 1: it counts samples. Set data.{name} to e.g. 64."
        )
