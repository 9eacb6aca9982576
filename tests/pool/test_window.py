from __future__ import annotations

import math
from fractions import Fraction

import pytest

from lightning_diffaug.errors import ConfigurationError
from lightning_diffaug.pool import capacity_slots, first_slot, newest_window, window_slots


def test_window_moves_by_draws_over_reuse() -> None:
    # 425 draws an epoch, a quarter synthetic, reuse 2, slots of 8: 53.125 new samples an epoch.
    draws = Fraction(425, 4)
    firsts = [first_slot(draws * epoch, 2, 8) for epoch in range(100)]
    assert firsts == [math.floor(epoch * 53.125 / 8) for epoch in range(100)]


def test_every_run_starts_at_slot_0_and_a_frozen_pool_stays_there() -> None:
    assert first_slot(0, 8, 64) == 0
    assert first_slot(10**12, math.inf, 64) == 0


def test_first_slot_is_exact_where_floats_are_not() -> None:
    # 0.1 + 0.2 style rounding must not move a window by one slot: 1.1 is eleven tenths.
    assert first_slot(11 * 64, 1.1, 64) == 10
    assert first_slot(Fraction(11 * 64) - Fraction(1, 10**9), 1.1, 64) == 9
    huge = 10**18 + 1
    assert first_slot(huge * 64 - 1, 1, 64) == huge - 1


def test_window_is_whole_slots() -> None:
    assert window_slots(3, 1024, 64) == range(3, 19)
    assert window_slots(0, 1025, 64) == range(17)
    assert window_slots(5, 1, 64) == range(5, 6)


@pytest.mark.parametrize("reuse", [0, 0.99, -1, math.nan, -math.inf, True, "8", None])
def test_reuse_below_1_is_refused_with_its_key(reuse: float) -> None:
    with pytest.raises(ConfigurationError, match=r"reuse=.*data\.reuse"):
        first_slot(0, reuse, 64)


@pytest.mark.parametrize("window", [0, -1, 1.5, True])
def test_window_below_1_is_refused_with_its_key(window: int) -> None:
    with pytest.raises(ConfigurationError, match=r"window=.*data\.window"):
        window_slots(0, window, 64)


def test_slot_size_below_1_is_refused_with_its_key() -> None:
    with pytest.raises(ConfigurationError, match=r"slot_size=0.*data\.slot_size"):
        first_slot(0, 8, 0)


def test_negative_positions_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="synthetic_before=-1"):
        first_slot(-1, 8, 64)
    with pytest.raises(ConfigurationError, match="first=-1"):
        window_slots(-1, 8, 64)


def test_capacity_below_the_window_is_refused_with_its_key() -> None:
    with pytest.raises(ConfigurationError, match=r"capacity=1023 is below data.window=1024.*data\.capacity"):
        capacity_slots(1023, 1024, 64)


def test_capacity_always_holds_one_window() -> None:
    assert capacity_slots(None, 1024, 64) is None
    assert capacity_slots(2048, 1024, 64) == 32
    assert capacity_slots(100, 100, 64) == 2  # a window of 100 samples is two slots


@pytest.mark.parametrize(
    ("there", "size", "found"),
    [
        ([], 1, None),
        ([4], 1, [4]),
        ([0, 1, 2], 3, [0, 1, 2]),
        ([0, 1, 2, 3, 5, 6], 3, [1, 2, 3]),
        ([0, 1, 2, 5, 6, 7], 3, [5, 6, 7]),
        ([0, 2, 4, 6], 2, None),
        ([0, 1], 3, None),
    ],
)
def test_the_newest_window_is_the_last_complete_run(there: list[int], size: int, found: list[int] | None) -> None:
    assert newest_window(there, size) == found
