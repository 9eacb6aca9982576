"""What a denoiser is told: specifications, null values, checks."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch

from lightning_diffaug.errors import ConfigurationError, GeneratorError
from lightning_diffaug.generators.denoisers import ConditionSpec, check_condition, null_condition

ALL = {
    "label": ConditionSpec("class", classes=3),
    "tags": ConditionSpec("labels", (4,)),
    "text": ConditionSpec("vector", (5,)),
    "mask": ConditionSpec("concat", (1, 8, 8)),
    "points": ConditionSpec("cross", (6, 3)),
    "augment": ConditionSpec("vector", (2,), auxiliary=True),
}


def _condition(n: int) -> dict[str, Any]:
    return {
        "label": torch.arange(n) % 3,
        "tags": torch.ones(n, 4),
        "text": torch.ones(n, 5),
        "mask": torch.ones(n, 1, 8, 8),
        "points": torch.ones(n, 6, 3),
        "augment": torch.ones(n, 2),
    }


def test_the_null_condition_asks_for_nothing_and_leaves_what_is_auxiliary() -> None:
    null = null_condition(ALL, _condition(2))
    assert null is not None
    assert null["label"].tolist() == [3, 3]
    assert null["label"].dtype == torch.int64
    for name in ("tags", "text", "mask", "points"):
        assert torch.equal(null[name], torch.zeros_like(_condition(2)[name]))
    assert torch.equal(null["augment"], torch.ones(2, 2))


def test_where_nothing_can_be_asked_for_there_is_no_null_condition() -> None:
    assert null_condition({}, {}) is None
    assert null_condition({"augment": ALL["augment"]}, _condition(2)) is None


def test_only_what_the_denoiser_uses_is_kept_of_a_condition_and_what_is_auxiliary_is_filled_in() -> None:
    given = {name: value for name, value in _condition(2).items() if name != "augment"}
    checked = check_condition(ALL, {**given, "label": [0, 1], "prompt": ["a", "b"]}, 2)
    assert list(checked) == list(ALL)
    assert checked["label"].dtype == torch.int64
    assert torch.equal(checked["augment"], torch.zeros(2, 2))


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("label", None, "no 'label'.*3 classes"),
        ("label", [0, 1, 2], "shape"),
        ("label", [0, 3], r"0\.\.2"),
        ("label", [-1, 0], r"0\.\.2"),
        ("text", None, r"no 'text'.*\(n, 5\)"),
        ("text", torch.ones(2, 4), r"shape \(2, 4\); needed is \(2, 5\)"),
        ("mask", torch.ones(3, 1, 8, 8), r"needed is \(2, 1, 8, 8\)"),
        ("points", torch.full((2, 6, 3), torch.nan), "not finite"),
    ],
)
def test_a_condition_that_does_not_fit_is_refused(name: str, value: Any, text: str) -> None:
    given = {**_condition(2), name: value}
    if value is None:
        del given[name]
    with pytest.raises(GeneratorError, match=text):
        check_condition(ALL, given, 2)


@pytest.mark.parametrize(
    ("kind", "shape", "classes"),
    [
        ("text", (5,), 0),
        ("class", (), 0),
        ("class", (2,), 3),
        ("vector", (5,), 3),
        ("vector", (5, 2), 0),
        ("labels", (), 0),
        ("concat", (4,), 0),
        ("cross", (4,), 0),
    ],
)
def test_an_impossible_condition_is_refused_with_the_key(kind: str, shape: tuple[int, ...], classes: int) -> None:
    with pytest.raises(ConfigurationError, match=r"generator\.conditions"):
        ConditionSpec(kind, shape, classes)


def test_a_specification_survives_json() -> None:
    for spec in ALL.values():
        assert ConditionSpec.from_json(json.loads(json.dumps(spec.to_json()))) == spec
