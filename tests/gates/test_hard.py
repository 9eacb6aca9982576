"""The gate for deliberate practice: what it follows, what it refuses, how it is named."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor

from lightning_diffaug.conditions.feedback import Feedback
from lightning_diffaug.errors import ConfigurationError
from lightning_diffaug.gates import Verdict, ranking
from lightning_diffaug.gates.choice import chosen_gates
from lightning_diffaug.gates.hard import Hard
from lightning_diffaug.naming import build, name_of


class Sure:
    """Says class 1 with the logit that is a sample's first value; class 0 has logit 0."""

    columns = torch.tensor([0, 1])

    def __call__(self, x: Tensor) -> Tensor:
        return torch.stack([torch.zeros(len(x)), x], dim=1)

    def inputs(self, samples: Mapping[str, Tensor]) -> Tensor:
        return samples["image"].flatten(1)[:, 0]

    def to(self, device: Any) -> Any:
        return self


LOGITS = torch.tensor([-4.0, 0.1, 2.0, torch.nan])
SAMPLES = {"image": LOGITS[:, None, None].expand(4, 1, 2)}
ONES = {"label": torch.ones(4, dtype=torch.int64)}


def _said(losses: list[float]) -> Feedback:
    return Feedback(0, samples={"loss": torch.tensor(losses)}, learner=Sure)


def test_without_a_learner_every_sample_passes_and_nothing_is_ranked() -> None:
    gate = Hard()
    for feedback in (None, Feedback(0)):
        gate.follow(feedback)
        passed = gate(SAMPLES, ONES)
        assert isinstance(passed, Tensor)
        assert passed.all()
        assert ranking([gate]) is None
    gate.follow(_said([1.0]))
    assert ranking([gate]) is gate
    assert gate.candidates == 4
    gate.follow(None)
    assert ranking([gate]) is None


@pytest.mark.parametrize(("criterion", "order"), [("entropy", [3, 0, 2, 1]), ("loss", [3, 2, 1, 0])])
def test_the_rank_is_what_the_criterion_says(criterion: str, order: list[int]) -> None:
    gate = Hard(criterion=criterion)
    gate.follow(_said([1.0]))
    assert gate.rank(SAMPLES, ONES).argsort().tolist() == order  # what is not finite comes last of all


def test_a_candidate_is_implausible_above_the_quantile_of_real_losses() -> None:
    """Losses of the candidates: 4.02, 0.64, 0.13; the bound lies between."""
    gate = Hard(plausible=0.5)
    gate.follow(_said([0.1, 0.7, 9.0, float("nan")]))
    verdict = gate(SAMPLES, ONES)
    assert isinstance(verdict, Verdict)
    assert verdict.passed.tolist()[:3] == [False, True, True]
    assert verdict.scores["learner_loss"][:3].tolist() == pytest.approx([4.018, 0.644, 0.127], abs=1e-3)
    free = Hard(plausible=None)
    free.follow(_said([0.1, 0.7, 9.0]))
    assert free(SAMPLES, ONES).passed.all()  # type: ignore[union-attr]


def test_a_learner_that_fits_its_data_leaves_candidates_of_even_odds_plausible() -> None:
    """Losses of the candidates: 4.02, 0.64, 0.13."""
    gate = Hard()
    gate.follow(_said([0.001, 0.002, 0.006]))
    verdict = gate(SAMPLES, ONES)
    assert isinstance(verdict, Verdict)
    assert verdict.passed.tolist()[:3] == [False, True, True]


def test_a_failed_try_to_get_the_learner_is_tried_again_and_not_ranked_by_the_one_before() -> None:
    gate, fails = Hard(), [True, True, False]

    def learner() -> Sure:
        if fails.pop(0):
            raise OSError("no memory")
        return Sure()

    gate.follow(_said([1.0]))
    said = Feedback(4, samples={"loss": torch.tensor([9.0])}, learner=learner)
    for _ in range(2):
        with pytest.raises(OSError, match="no memory"):
            gate.follow(said)
    gate.follow(said)
    verdict = gate(SAMPLES, ONES)
    assert isinstance(verdict, Verdict)
    assert verdict.passed.tolist()[:3] == [True, True, True], "the bound is the later one's"


def test_it_is_named_by_its_settings_whatever_it_follows() -> None:
    gate = Hard(3, "loss", None)
    gate.follow(_said([1.0]))
    again = build(name_of(gate, "gates"))
    assert again.config() == gate.config() == {"candidates": 3, "criterion": "loss", "plausible": None}


def test_it_is_off_by_default_and_last_where_it_is_on() -> None:
    assert not any(isinstance(gate, Hard) for gate in chosen_gates(None))
    gates = chosen_gates({"hard": {"candidates": 2}})
    assert isinstance(gates[-1], Hard)


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        ({"candidates": 1}, "gates.hard.candidates"),
        ({"candidates": 2.5}, "gates.hard.candidates"),
        ({"criterion": "error"}, "gates.hard.criterion"),
        ({"plausible": 0}, "gates.hard.plausible"),
        ({"plausible": True}, "gates.hard.plausible"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any], key: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"{key}=.*Set gates\.hard=\{{{key.rpartition('.')[2]}: "):
        Hard(**settings)


def test_data_without_labels_are_refused() -> None:
    gate = Hard()
    gate.follow(_said([1.0]))
    with pytest.raises(ConfigurationError, match=r"gates\.hard=false"):
        gate(SAMPLES, {})
