"""The planner's quotas are exact over any run of slots, and a pure function of the slot's number."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lightning_diffaug.conditions import QuotaPlanner, take
from lightning_diffaug.errors import ConfigurationError


def _counts(planner: QuotaPlanner, slots: range, rows: int, classes: int) -> np.ndarray:
    labels = torch.cat([planner.plan(slot, rows)["label"] for slot in slots])
    return np.bincount(labels.numpy(), minlength=classes)


@pytest.mark.parametrize("shares", [[1, 1, 1], [0.7, 0.2, 0.1], [5, 0, 1, 1e-3], [1], list(range(1, 11))])
@pytest.mark.parametrize("rows", [1, 7, 64])
def test_quotas_are_exact_in_any_run_of_slots(shares: list[float], rows: int) -> None:
    planner, exact = QuotaPlanner(shares), np.array(shares) / sum(shares)
    for first, n in [(0, 1), (0, 3), (5, 16), (1000, 40), (10**6, 200)]:
        off = _counts(planner, range(first, first + n), rows, len(shares)) - exact * rows * n
        # A slot rounds by less than a row at either end of a class; a run of slots by the discrepancy of the
        # golden-ratio sequence, which grows with the logarithm of its length.
        assert np.abs(off).max() < (1 if n == 1 else 2 + 1.5 * np.log(n))


def test_a_class_of_share_0_is_never_made_and_a_rare_one_is() -> None:
    counts = _counts(QuotaPlanner([1.0, 0.0, 0.004]), range(64), 64, 3)
    assert counts[1] == 0
    assert abs(counts[2] - 64 * 64 * 0.004 / 1.004) < 2


def test_the_last_class_gets_no_more_by_rounding_of_the_cumulated_shares() -> None:
    shares = [0.1] * 10 + [0.0]
    assert _counts(QuotaPlanner(shares), range(200), 64, 11)[10] == 0


def test_a_plan_follows_from_the_slots_number_alone() -> None:
    planner, again = QuotaPlanner([3, 1]), QuotaPlanner([0.75, 0.25])
    plans = [planner.plan(slot, 16)["label"] for slot in range(20)]
    assert all(torch.equal(again.plan(slot, 16)["label"], plans[slot]) for slot in reversed(range(20)))
    assert plans[0].dtype == torch.int64


def test_data_without_labels_have_no_condition() -> None:
    assert QuotaPlanner(None).plan(3, 8) == {}


@pytest.mark.parametrize("shares", [[0.0, 0.0], [1.0, -0.5], [float("nan"), 1.0], [float("inf"), 1.0], []])
def test_impossible_quotas_are_refused_with_the_key(shares: list[float]) -> None:
    with pytest.raises(ConfigurationError, match=r"data\.planner"):
        QuotaPlanner(shares)


def test_take_selects_rows_of_tensors_and_lists() -> None:
    part = take({"label": torch.tensor([4, 5, 6]), "prompt": ["x", "y", "z"]}, [2, 0])
    assert part["label"].tolist() == [6, 4]
    assert part["prompt"] == ["z", "x"]
