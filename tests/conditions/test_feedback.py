"""Feedback from the learner moves the plan, in whole and predictable ways."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from lightning_diffaug.conditions import QuotaPlanner
from lightning_diffaug.conditions.feedback import Feedback, followed, scores_of


def _said(values: list[float], strength: float = 0.5, **more: Any) -> Feedback:
    return Feedback(0, {"loss": values}, strength=strength, **more)


def test_shares_move_by_the_strength_towards_what_is_hard() -> None:
    assert followed([1, 1], _said([3.0, 1.0], 0.5)) == pytest.approx([0.625, 0.375])
    assert followed([1, 1], _said([3.0, 1.0], 1.0)) == pytest.approx([0.75, 0.25])
    assert followed([1, 1], _said([3.0, 1.0], 0.0)) == [1, 1]


def test_a_class_that_is_not_to_be_made_is_not_made_however_hard() -> None:
    assert followed([0, 1, 1], _said([100.0, 1.0, 3.0], 1.0)) == pytest.approx([0, 0.25, 0.75])


def test_a_class_of_which_nothing_was_seen_keeps_its_share() -> None:
    assert followed([0.5, 0.3, 0.2], _said([math.nan, 0.0, 1.0], 1.0)) == pytest.approx([0.5, 0.0, 0.5])


@pytest.mark.parametrize("values", [[0.0, 0.0], [math.nan, math.nan]])
def test_shares_stay_where_nothing_is_hard_or_nothing_was_seen(values: list[float]) -> None:
    assert followed([0.7, 0.3], _said(values)) == [0.7, 0.3]


def test_the_planner_follows_the_metric_that_is_named_and_only_as_long_as_it_is_told() -> None:
    planner = QuotaPlanner([1, 1, 1, 1])
    before = planner.plan(3, 40)["label"]
    planner.follow(Feedback(0, {"loss": [0, 0, 0, 1.0], "error": [1.0, 0, 0, 0]}, metric="error", strength=1.0))
    assert torch.equal(planner.plan(3, 40)["label"], torch.zeros(40, dtype=torch.int64))
    planner.follow(None)
    assert torch.equal(planner.plan(3, 40)["label"], before)


def test_data_without_labels_have_no_quotas_to_move() -> None:
    planner = QuotaPlanner(None)
    planner.follow(_said([1.0]))
    assert planner.plan(0, 4) == {}


def test_scores_are_those_of_the_library() -> None:
    logits, target = torch.randn(6, 4, generator=torch.Generator().manual_seed(0)) * 3, torch.arange(6) % 4
    scores = scores_of(logits, target)
    assert torch.allclose(scores["loss"], F.cross_entropy(logits, target, reduction="none"))
    assert torch.allclose(scores["entropy"], torch.distributions.Categorical(logits=logits).entropy())
    assert torch.equal(scores["error"], (logits.argmax(1) != target).float())


def test_scores_of_what_is_not_finite_are_not_finite() -> None:
    scores = scores_of(torch.tensor([[math.nan, 0.0]]), torch.tensor([0]))
    assert not scores["loss"].isfinite().any()
    assert not scores["entropy"].isfinite().any()
