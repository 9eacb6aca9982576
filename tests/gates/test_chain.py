"""Gates name the reason of each rejection; a later gate sees only what the earlier ones let pass."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor

from lightning_diffaug.errors import GeneratorError
from lightning_diffaug.gates import Finite, InRange, judge


class Positive:
    name = "positive"

    def __init__(self) -> None:
        self.seen: list[list[float]] = []
        self.labels: list[list[int]] = []

    def __call__(self, samples: Mapping[str, Tensor], condition: Mapping[str, Any]) -> Tensor:
        self.seen.append(samples["x"][:, 0].tolist())
        self.labels.append(condition["label"].tolist())
        return samples["x"][:, 0] > 0


class Returns:
    name = "odd"

    def __init__(self, verdict: Any) -> None:
        self.verdict = verdict

    def __call__(self, samples: Mapping[str, Tensor], condition: Mapping[str, Any]) -> Any:
        if isinstance(self.verdict, Exception):
            raise self.verdict
        return self.verdict


def test_each_rejection_has_the_name_of_the_first_gate_that_rejects() -> None:
    x = torch.tensor([[0.5], [float("nan")], [-0.5], [3.0], [float("inf")], [0.1]])
    last = Positive()
    verdict = judge({"x": x}, {"label": torch.arange(6)}, (Finite(), InRange(), last), 6)
    assert [one.reason for one in verdict] == [None, "finite", "positive", "range", "finite", None]
    assert last.seen == [pytest.approx([0.5, -0.5, 0.1])]
    assert last.labels == [[0, 2, 5]]


def test_a_gate_is_not_asked_when_nothing_is_left() -> None:
    gate = Positive()
    verdict = judge({"x": torch.full((2, 1), torch.nan)}, {}, (Finite(), gate), 2)
    assert [one.reason for one in verdict] == ["finite", "finite"]
    assert gate.seen == []


def test_finite_and_range_look_at_every_field_and_every_value() -> None:
    good = torch.zeros(3, 2, 2)
    bad = good.clone()
    bad[1, 0, 1] = torch.nan
    far = good.clone()
    far[2, 1, 1] = -1.2
    assert Finite()({"a": good, "b": bad}, {}).tolist() == [True, False, True]
    assert InRange()({"a": good, "b": far}, {}).tolist() == [True, True, False]
    assert InRange(tolerance=0.3)({"a": far}, {}).all()


@pytest.mark.parametrize(
    "verdict", [torch.tensor([True]), torch.tensor([0.5, 0.1]), None, torch.ones(2, 1, dtype=torch.bool), OSError("x")]
)
def test_a_gate_that_raises_or_returns_no_verdict_is_named(verdict: Any) -> None:
    with pytest.raises(GeneratorError, match="odd"):
        judge({"x": torch.zeros(2, 1)}, {}, (Returns(verdict),), 2)
