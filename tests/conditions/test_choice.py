"""Which real samples are varied: each equally often, or those that are still learned; pure functions of their place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch

from lightning_diffaug.conditions import RealGuidedPlanner
from lightning_diffaug.conditions.choice import FLOOR, Choice
from lightning_diffaug.conditions.draws import permutation
from lightning_diffaug.conditions.feedback import Feedback
from lightning_diffaug.errors import ConfigurationError, GeneratorError
from lightning_diffaug.naming import build, name_of
from lightning_diffaug.snapshot import Snapshot
from lightning_diffaug.spec import FieldSpec, SampleSpec

ROWS = 20
COUNTS = (3, 7, 12)
LABELS = torch.repeat_interleave(torch.arange(3), torch.tensor(COUNTS))
N = len(LABELS)


def _data(labels: torch.Tensor | None = LABELS) -> Snapshot:
    image = torch.arange(N, dtype=torch.uint8).view(N, 1, 1, 1).expand(N, 1, 2, 2).contiguous()
    fields, columns = [FieldSpec("image", "0", "tensor", "uint8", (1, 2, 2), 0.0, 255.0)], {"image": image}
    if labels is None:
        return Snapshot(SampleSpec(tuple(fields)), columns)
    fields.append(FieldSpec("label", "1", "scalar", "int64", (), 0.0, 0.0))
    return Snapshot(SampleSpec(tuple(fields)), {**columns, "label": labels}, ["a", "b", "c"], [0, 1, 2])


def _planner(shares: Sequence[float] | None = (1, 1, 2), **settings: Any) -> RealGuidedPlanner:
    planner = RealGuidedPlanner(shares, **settings)
    planner.bind(_data() if shares is not None else _data(None))
    return planner


def _counts(planner: RealGuidedPlanner, slots: range) -> np.ndarray:
    chosen = torch.cat([planner.plan(slot, ROWS)["source_index"] for slot in slots])
    return np.bincount(chosen.numpy(), minlength=N)


# Least augmented ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("source", ["image", "interpolate", "noise"])
def test_each_sample_of_a_class_is_varied_equally_often(source: str) -> None:
    systematic, random = (_planner(choose=how, source=source) for how in ("least_augmented", "uniform"))
    for slots in (range(3), range(25), range(7, 40)):
        counts = np.split(_counts(systematic, slots), np.cumsum(COUNTS)[:-1])
        assert all(of.max() - of.min() <= (1 if slots.start == 0 else 2) for of in counts)
    assert np.ptp(_counts(random, range(25))[-12:]) > 3  # the other way does not


def test_each_sample_of_unlabelled_data_is_varied_equally_often() -> None:
    assert np.ptp(_counts(_planner(None, choose="least_augmented"), range(9))) <= 1


def test_each_class_and_each_sample_in_it_is_started_from_equally_often() -> None:
    settings = {"choose": "least_augmented", "pairs": "cross", "cross": "any"}
    counts = _counts(_planner((1, 0, 0), **settings), range(21))  # 420 rows of class 0
    assert not counts[:3].any()
    assert abs(counts[3:10].sum() - counts[10:].sum()) <= 1
    assert max(np.ptp(counts[3:10]), np.ptp(counts[10:])) <= 1
    common = _counts(_planner((1, 0, 0), **{**settings, "cross": "common"}), range(21))
    assert np.ptp(common[3:]) <= 1


def test_the_next_sample_follows_from_seed_slot_and_row_alone() -> None:
    """However slots are asked for: nothing is known of what was made."""
    settings = {"choose": "least_augmented", "pairs": "cross", "cross": "any"}
    in_order = _planner(**settings)
    plans = [in_order.plan(slot, ROWS)["source_index"] for slot in range(12)]
    again = _planner(**settings)
    for slot in (11, 3, 3, 7, 0):
        assert torch.equal(again.plan(slot, ROWS)["source_index"], plans[slot])
    assert not torch.equal(_planner(seed=1, **settings).plan(5, ROWS)["source_index"], plans[5])


def test_samples_come_in_another_order_each_time() -> None:
    chosen = torch.cat([_planner((0, 0, 1), choose="least_augmented").plan(s, 12)["source_index"] for s in range(3)])
    turns = chosen.view(3, 12)
    assert all(sorted(turn.tolist()) == list(range(10, 22)) for turn in turns)
    assert len({tuple(turn.tolist()) for turn in turns}) == 3


def test_a_permutation_is_the_same_everywhere() -> None:
    assert permutation(3, 1, 2, 8).tolist() == PERMUTATION
    counts = np.zeros((6, 6), int)
    for turn in range(600):
        counts[permutation(0, 0, turn, 6), np.arange(6)] += 1
    assert counts.min() > 60  # 100 each


PERMUTATION = [7, 4, 2, 3, 0, 6, 5, 1]


def test_where_quotas_follow_feedback_earlier_slots_are_counted_by_the_newest_and_the_promise_says_so() -> None:
    said = Feedback(2, classes={"loss": [0.0, 0.0, 1.0]}, strength=1.0)
    planner, late = (_planner((0, 1, 1), choose="least_augmented") for _ in range(2))
    assert np.ptp(_counts(planner, range(2))[10:]) <= 1
    planner.follow(said)
    late.follow(said)  # a slot follows from what it is planned by, and not from what the earlier ones were
    assert torch.equal(planner.plan(2, ROWS)["source_index"], late.plan(2, ROWS)["source_index"])
    before = _counts(_planner((0, 1, 1), choose="least_augmented"), range(2))[10:]
    assert np.ptp(before + _counts(planner, range(2, 3))[10:]) > 1
    assert "where these follow feedback" in " ".join(str(Choice.__doc__).split())


# Misclassified ------------------------------------------------------------------------------------------


def _feedback(loss: torch.Tensor, metric: str = "loss", from_slot: int = 0) -> Feedback:
    return Feedback(from_slot, samples={metric: loss})


@pytest.mark.parametrize("metric", ["loss", "error"])
def test_what_the_learner_gets_wrong_is_varied_in_proportion_and_the_rest_still_occurs(metric: str) -> None:
    loss = torch.zeros(N)
    loss[10], loss[11] = 1.0, 3.0
    planner = _planner((0, 0, 1), choose="misclassified")
    uniform = _counts(planner, range(100))[10:]
    assert uniform.max() < 2 * uniform.mean()  # no feedback yet
    planner.follow(_feedback(loss, metric))
    share = _counts(planner, range(100))[10:] / 2000
    assert share[0] == pytest.approx(0.25 * (1 - FLOOR) + FLOOR / 12, abs=0.04)
    assert share[1] == pytest.approx(0.75 * (1 - FLOOR) + FLOOR / 12, abs=0.04)
    assert (share[2:] > FLOOR / 12 / 3).all()
    planner.follow(None)
    assert (_counts(planner, range(100))[10:] == uniform).all()


def test_a_sample_of_unknown_loss_counts_as_the_mean() -> None:
    planner = _planner((0, 1, 0), choose="misclassified")
    loss = torch.full((N,), float("nan"))
    loss[3], loss[4] = 0.0, 4.0
    planner.follow(_feedback(loss))
    share = _counts(planner, range(100))[3:10] / 2000
    assert share[1] > 1.6 * share[2] > 4 * share[0] > 0
    planner.follow(_feedback(torch.full((N,), float("nan"))))  # nothing is known: as without
    assert np.ptp(_counts(planner, range(50))[3:10]) < 70


def test_a_class_that_is_learned_is_varied_uniformly() -> None:
    planner = _planner((0, 1, 0), choose="misclassified")
    planner.follow(_feedback(torch.zeros(N)))
    assert _counts(planner, range(50))[3:10].min() > 90


def test_feedback_of_other_data_is_refused() -> None:
    with pytest.raises(GeneratorError, match=r"\(3,\).*22.*data\.real_guided\.choose"):
        _planner(choose="misclassified").follow(_feedback(torch.ones(3)))


# Settings -----------------------------------------------------------------------------------------------


def test_a_choice_is_part_of_the_planners_name() -> None:
    planner = RealGuidedPlanner([1, 1, 2], choose="least_augmented", seed=2, pairs="cross", cross="any", strength=0.5)
    again = build(name_of(planner, "planner"))
    for one in (planner, again):
        one.bind(_data())
    assert torch.equal(planner.plan(4, ROWS)["source_index"], again.plan(4, ROWS)["source_index"])
    assert name_of(planner) != name_of(RealGuidedPlanner([1, 1, 2], seed=2, pairs="cross", cross="any", strength=0.5))


def test_an_unknown_choice_is_refused_with_the_key() -> None:
    with pytest.raises(ConfigurationError, match=r"least_augmented.*data\.real_guided\.choose"):
        RealGuidedPlanner([1], choose="most_beautiful")
