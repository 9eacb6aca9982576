"""Quotas by a rule: what lacks is filled, temperature flattens, and what is no rule is refused with its key."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from lightning_diffaug.conditions.quotas import FloatArray, is_rule, rule_quotas
from lightning_diffaug.errors import ConfigurationError
from lightning_diffaug.mixing import class_shares

COUNTS = np.array([80.0, 5.0, 20.0, 0.0])
NAMES = ("cat", "fill", "dog", "none")


def _quotas(rule: Mapping[Any, Any], counts: FloatArray = COUNTS) -> list[float]:
    quotas = rule_quotas(rule, counts, lambda given, key: class_shares(given, counts, NAMES, key))
    assert math.isclose(quotas.sum(), 1.0)
    return [float(quota) for quota in quotas]


def test_filling_gives_each_class_what_it_lacks_and_those_above_the_target_none() -> None:
    assert _quotas({"fill": 25}) == [0.0, 20 / 25, 5 / 25, 0.0]
    assert _quotas({"fill": 100}) == pytest.approx([20 / 195, 95 / 195, 80 / 195, 0.0])


def test_temperature_flattens_the_classes_of_the_data() -> None:
    assert _quotas({"temperature": 1}) == pytest.approx([80 / 105, 5 / 105, 20 / 105, 0.0])
    assert _quotas({"temperature": 2}) == pytest.approx([4 / 7, 1 / 7, 2 / 7, 0.0])  # roots 1 : 1/4 : 1/2
    for spelling in (math.inf, "inf", ".inf", "1e400"):
        assert _quotas({"temperature": spelling}) == pytest.approx([1 / 3, 1 / 3, 1 / 3, 0.0])
    sharp = _quotas({"temperature": 1e-3})
    assert sharp == pytest.approx([1.0, 0.0, 0.0, 0.0])


def test_a_part_of_any_rule_is_shared_equally_by_the_classes_that_there_are() -> None:
    assert _quotas({"fill": 25, "uniform": 0.3}) == pytest.approx([0.1, 0.7 * 0.8 + 0.1, 0.7 * 0.2 + 0.1, 0.0])
    assert _quotas({"temperature": 2, "uniform": 1}) == pytest.approx([1 / 3] * 3 + [0.0])


def test_a_class_that_is_called_like_a_rule_is_reached_through_shares() -> None:
    assert not is_rule({"cat": 0.5, "dog": 0.5})
    assert is_rule({"fill": 1.0})
    assert _quotas({"shares": {"fill": 3, "cat": 1}}) == [0.25, 0.75, 0.0, 0.0]
    assert _quotas({"shares": {"fill": 1}, "uniform": 0.3}) == pytest.approx([0.1, 0.8, 0.1, 0.0])


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ({"fill": 5}, "data.planner.fill=5: no class lacks anything, the smallest has 5 real samples"),
        ({"fill": 0}, "data.planner.fill=0 is no number above 0"),
        ({"fill": "many"}, "data.planner.fill='many' is no number above 0"),
        ({"fill": True}, "data.planner.fill=True is no number above 0"),
        ({"fill": math.inf}, "data.planner.fill=inf is no number above 0"),
        ({"temperature": 0}, "data.planner.temperature=0 is not in (0, inf]"),
        ({"temperature": -1}, "data.planner.temperature=-1 is not in (0, inf]"),
        ({"temperature": math.nan}, "data.planner.temperature=nan is not in (0, inf]"),
        ({"fill": 100, "uniform": 1.5}, "data.planner.uniform=1.5 is not in [0, 1]"),
        ({"fill": 100, "temperature": 2}, "fill and temperature: one is needed"),
        ({"uniform": 0.1}, "has no rule: one is needed"),
        ({"fill": 100, "cat": 0.5}, "data.planner.cat stands beside fill"),
        ({"shares": {"bird": 1}}, "data.planner.shares names the class 'bird'"),
        ({"shares": {"cat": -1}}, "data.planner.shares.cat=-1 is not a share"),
        ({"shares": 3}, "data.planner.shares=3 is no mapping"),
    ],
)
def test_what_is_no_rule_is_refused_with_its_key(rule: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(said)):
        _quotas(rule)
