"""Pairs across classes and strengths of rows: where they start, how far they are noised, what they are then."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch

from lightning_diffaug.conditions import RealGuidedPlanner
from lightning_diffaug.conditions.pairs import soft_label
from lightning_diffaug.conditions.real_guided_settings import RealGuided
from lightning_diffaug.conditions.strength import Strengths
from lightning_diffaug.errors import ConfigurationError
from lightning_diffaug.naming import build, name_of
from lightning_diffaug.snapshot import Snapshot
from lightning_diffaug.spec import FieldSpec, SampleSpec

ROWS = 1500
COUNTS = (5, 10, 85)
LABELS = torch.repeat_interleave(torch.arange(3), torch.tensor(COUNTS))


def _data(labels: torch.Tensor = LABELS) -> Snapshot:
    """Sample i has the value i everywhere, and a mask of the value 2 i."""
    n = len(labels)
    image = torch.arange(n, dtype=torch.uint8).view(n, 1, 1, 1).expand(n, 1, 2, 2).contiguous()
    fields = [
        FieldSpec("image", "0", "tensor", "uint8", (1, 2, 2), 0.0, 255.0),
        FieldSpec("mask", "1", "tensor", "uint8", (1, 2, 2), 0.0, 255.0),
        FieldSpec("label", "2", "scalar", "int64", (), 0.0, 0.0),
    ]
    columns = {"image": image, "mask": 2 * image, "label": labels}
    return Snapshot(SampleSpec(tuple(fields)), columns, ["a", "b", "c"], [0, 1, 2])


def _plan(shares: Sequence[float] | None = (1, 1, 1), slot: int = 0, data: Any = None, **settings: Any) -> Any:
    planner = RealGuidedPlanner(shares, **{"given": ["mask"], "strength": 0.5, **settings})
    planner.bind(_data() if data is None else data)
    return planner.plan(slot, ROWS)


def _share(plan: Any, c: int, of: int) -> float:
    """Of the rows of class `of`, the share that starts from class c."""
    return float((plan["start_label"][plan["label"] == of] == c).float().mean())


# Pairs --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("source", ["image", "edit"])
def test_a_cross_class_row_starts_from_another_class_and_is_given_of_its_own(source: str) -> None:
    plan = _plan(source=source, pairs="cross")
    at = ((plan["start"][:, 0, 0, 0] + 1) * 127.5).round().long()
    assert torch.equal(at, plan["source_index"])
    assert torch.equal(plan["start_label"], LABELS[plan["source_index"]])
    assert bool((plan["start_label"] != plan["label"]).all())
    assert torch.equal(LABELS[plan["given_index"]], plan["label"])
    assert torch.equal(plan["mask"][:, 0, 0, 0].long(), 2 * plan["given_index"])


def test_common_classes_are_started_from_by_their_samples_or_all_alike() -> None:
    common, alike = (_plan(pairs="cross", cross=cross) for cross in ("common", "any"))
    assert _share(common, 2, of=0) == pytest.approx(85 / 95, abs=0.05)
    assert _share(alike, 2, of=0) == pytest.approx(0.5, abs=0.1)
    assert _share(common, 1, of=2) == pytest.approx(10 / 15, abs=0.06)


def test_a_row_of_all_pairs_may_start_from_its_own_class() -> None:
    common, alike = (_plan(pairs="all", cross=cross) for cross in ("common", "any"))
    assert _share(common, 2, of=2) == pytest.approx(0.85, abs=0.08)
    assert _share(alike, 2, of=2) == pytest.approx(1 / 3, abs=0.1)


def test_within_a_class_there_is_no_other_class() -> None:
    plan = _plan()
    assert "start_label" not in plan
    assert torch.equal(LABELS[plan["source_index"]], plan["label"])


def test_a_class_without_samples_can_be_reached_from_others() -> None:
    data = _data(torch.tensor([0] * 4 + [1] * 4))
    assert 2 in _plan(data=data, pairs="cross", given=[])["label"]
    assert 2 not in _plan(data=data, pairs="cross")["label"]  # there is no mask of that class


# Strength -----------------------------------------------------------------------------------------------


def test_rows_have_the_strengths_of_a_list_each_as_often() -> None:
    values = [0.25, 0.5, 0.75, 1.0]
    strength = _plan(strength=values)["strength"]
    assert strength.dtype == torch.float64
    counts = [int((strength == value).sum()) for value in values]
    assert sum(counts) == ROWS
    assert min(counts) > 300


def test_rows_have_any_strength_of_a_range() -> None:
    strength = _plan(strength={"low": 0.25, "high": 0.75})["strength"]
    assert 0.25 <= float(strength.min()) < 0.27
    assert 0.73 < float(strength.max()) < 0.75
    assert float(strength.mean()) == pytest.approx(0.5, abs=0.03)
    assert not torch.equal(strength, _plan(slot=1, strength={"low": 0.25, "high": 0.75})["strength"])


@pytest.mark.parametrize("strength", [0.5, 1, [0.5], [0.5, 0.5], {"low": 0.5, "high": 0.5}, None])
def test_one_strength_for_all_is_no_condition(strength: Any) -> None:
    assert "strength" not in _plan(strength=strength)


def test_what_means_the_same_has_one_name() -> None:
    assert [Strengths.of(s).plain for s in (1, [1.0], {"low": 1, "high": 1.0})] == [1.0, 1.0, 1.0]
    assert Strengths.of([1, 0.5]).plain == [1.0, 0.5]
    assert Strengths.of({"low": 0, "high": 1}).plain == {"low": 0.0, "high": 1.0}


@pytest.mark.parametrize(
    "strength", [1.5, -0.1, True, "0.5", [], [0.5, 2], {"low": 0.6, "high": 0.4}, {"low": 0.1}, float("nan"), None]
)
def test_a_strength_out_of_range_is_refused_with_the_key(strength: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"generator\.strength"):
        Strengths.of(strength)


# Labels -------------------------------------------------------------------------------------------------


def test_a_soft_label_follows_from_the_strength() -> None:
    plan = _plan(pairs="cross", gamma=0.5, strength=[0.25, 0.64, 1.0])
    soft = plan["soft_label"]
    assert soft.dtype == torch.float32
    assert soft.shape == (ROWS, 3)
    torch.testing.assert_close(soft.sum(1), torch.ones(ROWS))
    rows = torch.arange(ROWS)
    torch.testing.assert_close(soft[rows, plan["label"]].double(), plan["strength"].sqrt())
    torch.testing.assert_close(soft[rows, plan["start_label"]].double(), 1 - plan["strength"].sqrt())


def test_the_exponent_is_a_setting_and_without_it_labels_are_hard() -> None:
    end = torch.arange(ROWS), _plan(pairs="cross")["label"]
    for gamma in (0.25, 1.0):
        assert float(_plan(pairs="cross", gamma=gamma)["soft_label"][end].mean()) == pytest.approx(0.5**gamma)
    assert "soft_label" not in _plan(pairs="cross")


def test_a_pair_of_one_class_is_of_that_class() -> None:
    soft = soft_label(torch.tensor([1, 1]), torch.tensor([1, 0]), torch.tensor([0.3, 0.3]), 1.0, 3)
    torch.testing.assert_close(soft, torch.tensor([[0.0, 1.0, 0.0], [0.7, 0.3, 0.0]]))


# Settings -----------------------------------------------------------------------------------------------


def test_pairs_and_strengths_are_part_of_the_planners_name() -> None:
    settings: dict[str, Any] = {"pairs": "cross", "cross": "any", "gamma": 0.5, "strength": {"low": 0.1, "high": 0.9}}
    planner = RealGuidedPlanner([1, 1, 2], **settings)
    again = build(name_of(planner, "planner"))
    for one in (planner, again):
        one.bind(_data())
    first, second = planner.plan(3, ROWS), again.plan(3, ROWS)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    names = [name_of(RealGuidedPlanner([1, 1, 2], **{**settings, **other})) for other in OTHERS]
    assert len({str(name) for name in [name_of(planner), *names]}) == len(names) + 1


OTHERS: list[dict[str, Any]] = [
    {"pairs": "all"}, {"cross": "common"}, {"gamma": 1.0}, {"gamma": None}, {"strength": 0.5},
]  # fmt: skip


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        ({"pairs": "left"}, "data.real_guided.pairs"),
        ({"cross": "left"}, "data.real_guided.cross"),
        ({"gamma": 0}, "data.real_guided.gamma"),
        ({"gamma": math.inf}, "data.real_guided.gamma"),
        ({"gamma": True}, "data.real_guided.gamma"),
        ({"gamma": 0.5}, "data.real_guided.pairs=cross"),
        ({"gamma": 0.5, "pairs": "cross", "repaint": 0.5}, "generator.repaint=null"),
        ({"gamma": 0.5, "pairs": "cross", "strength": None}, "data.real_guided.gamma=null"),
        ({"pairs": "cross", "source": "interpolate"}, "generator.source=image"),
        ({"pairs": "all", "source": "noise"}, "data.real_guided.pairs=null"),
        ({"pairs": "intra", "source": "edit"}, "data.real_guided.pairs=null"),
        ({"pairs": "cross", "shares": None}, "data.real_guided.pairs=null"),
    ],
)
def test_settings_that_do_not_go_together_are_refused_with_the_key(settings: dict[str, Any], key: str) -> None:
    with pytest.raises(ConfigurationError, match=key.replace(".", r"\.")):
        RealGuidedPlanner(**{"shares": [1, 1], "strength": 0.5, **settings})


def test_settings_are_taken_from_a_mapping_of_known_keys() -> None:
    assert RealGuided.of({"choose": "uniform", "gamma": 1}) == RealGuided(gamma=1)
    assert RealGuided.of(None) == RealGuided()
    with pytest.raises(ConfigurationError, match=r"data\.real_guided\.chose is no setting.*choose"):
        RealGuided.of({"chose": "uniform"})
    with pytest.raises(ConfigurationError, match=r"data\.real_guided\.choose"):
        RealGuided.of("least_augmented")
