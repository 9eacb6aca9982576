"""What gates may do to a slot: measure, follow the learner, see what the slot holds, choose among candidates."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from refill_toys import SPEC, drawn
from torch import Tensor

from lightning_diffaug.conditions import QuotaPlanner
from lightning_diffaug.conditions.feedback import Feedback
from lightning_diffaug.errors import ConfigurationError, GeneratorError
from lightning_diffaug.gates import Finite, NotCopy, Verdict
from lightning_diffaug.generators.composed import ComposedGenerator
from lightning_diffaug.refill.fill_slot import fill_slot
from lightning_diffaug.refill.recipe import Recipe, row_seed
from lightning_diffaug.snapshot import Snapshot

ROWS = 8


def _recipe(*gates: Any, **changes: Any) -> Recipe:
    plain: dict[str, Any] = {
        "planner": QuotaPlanner([2, 1, 1]), "generator": drawn, "gates": gates, "spec": SPEC, "slot_size": ROWS,
        "attempts": 3,
    }  # fmt: skip
    return Recipe(**{**plain, **changes})


def _mean(x: Tensor) -> Tensor:
    return x.flatten(1).mean(1)


class Bright:
    """Passes samples whose mean, less their class's part, is at least `least`; says what it measured."""

    name = "bright"

    def __init__(self, least: float = 0.25) -> None:
        self.least = least

    def __call__(self, samples: Mapping[str, Tensor], condition: Mapping[str, Any]) -> Verdict:
        brightness = _mean(samples["image"]) + 0.5 * condition["label"]
        return Verdict(brightness >= self.least, {"brightness": brightness})


class Best:
    """The brightest of so many candidates."""

    name = "best"

    def __init__(self, candidates: int = 4) -> None:
        self.candidates = candidates

    def __call__(self, samples: Mapping[str, Tensor], condition: Mapping[str, Any]) -> Tensor:
        return torch.ones(len(samples["image"]), dtype=torch.bool)

    def rank(self, samples: Mapping[str, Tensor], condition: Mapping[str, Any]) -> Tensor:
        return _mean(samples["image"])


class Follows:
    name = "follows"

    def __init__(self) -> None:
        self.told: list[Feedback | None] = []

    def follow(self, feedback: Feedback | None) -> None:
        self.told.append(feedback)

    def plan(self, slot: int, rows: int) -> dict[str, Tensor]:
        return {"label": torch.arange(rows) % 3}

    def generate(self, condition: Mapping[str, Any], seeds: list[int]) -> Tensor:
        return drawn(condition, seeds)

    def __call__(self, samples: Mapping[str, Tensor], condition: Mapping[str, Any]) -> Tensor:
        return torch.ones(len(samples["image"]), dtype=torch.bool)


def _made(slot: int, row: int, attempt: int, label: int) -> Tensor:
    return drawn({"label": torch.tensor([label])}, [row_seed(0, slot, row, attempt)])


def test_what_gates_measured_of_an_admitted_sample_is_in_its_provenance() -> None:
    shard = fill_slot(3, _recipe(Finite(), Bright()))
    assert shard.made["rejections"]["bright"] > 0
    for i, row in enumerate(shard.rows):
        made = _made(3, row["row"], row["attempt"], int(shard.fields["label"][i]))
        assert row["scores"] == {"brightness": pytest.approx(float(_mean(made)) + 0.5 * row["label"], abs=1e-6)}
        assert row["scores"]["brightness"] >= 0.25


def test_a_gate_that_rejects_everything_is_the_reason_of_every_row() -> None:
    shard = fill_slot(3, _recipe(Bright(9.0)))
    assert shard.n == 0
    assert shard.rejected == [{"row": row, "reason": "bright"} for row in range(ROWS)]
    assert shard.made["rejections"] == {"bright": 3 * ROWS}


def test_of_a_rows_candidates_the_one_of_the_highest_rank_is_kept() -> None:
    shard = fill_slot(3, _recipe(Best(4)))
    assert shard.n == ROWS
    assert shard.made["generated"] == 4 * ROWS
    assert shard.made["rejections"] == {"best": 3 * ROWS}
    for i, row in enumerate(shard.rows):
        ranks = [float(_mean(_made(3, i, c, row["label"]))) for c in range(4)]
        assert row["attempt"] == max(range(4), key=lambda c: ranks[c])
        assert row["seed"] == row_seed(0, 3, i, row["attempt"])


def test_only_candidates_that_all_gates_let_pass_are_chosen_from() -> None:
    class Dim(Bright):
        name = "dim"

        def __call__(self, samples: Mapping[str, Tensor], condition: Mapping[str, Any]) -> Verdict:
            brightness = super().__call__(samples, condition).scores["brightness"]
            return Verdict(brightness < self.least, {})

    shard = fill_slot(3, _recipe(Best(4), Dim(), attempts=6))
    for i, row in enumerate(shard.rows):
        first = row["attempt"] // 4 * 4
        ranks = {c: float(_mean(_made(3, i, c, row["label"]))) for c in range(first, first + 4)}
        passed = {c: rank for c, rank in ranks.items() if rank + 0.5 * row["label"] < 0.25}
        assert row["attempt"] == max(passed, key=lambda c: passed[c])


def test_a_candidate_that_is_not_chosen_makes_no_other_a_duplicate() -> None:
    class Pairs:
        """Compares samples; here it only says how many it is shown."""

        name = "pairs"

        def __init__(self) -> None:
            self.seen: list[int] = []

        def __call__(
            self,
            samples: Mapping[str, Tensor],
            condition: Mapping[str, Any],
            admitted: Mapping[str, Tensor] | None = None,
        ) -> Tensor:
            self.seen.append(len(samples["image"]))
            return torch.ones(len(samples["image"]), dtype=torch.bool)

    gate = Pairs()
    shard = fill_slot(3, _recipe(gate, Best(4)))
    assert gate.seen == [ROWS], "it sees the chosen ones alone, wherever it stands"
    assert shard.made["passed"] == 4 * ROWS


def test_only_one_gate_can_choose_among_candidates() -> None:
    with pytest.raises(ConfigurationError, match="candidates"):
        fill_slot(0, _recipe(Best(2), Best(3)))


def test_a_rank_that_raises_is_an_error_that_names_the_gate() -> None:
    class Broken(Best):
        def rank(self, samples: Mapping[str, Tensor], condition: Mapping[str, Any]) -> Tensor:
            raise ArithmeticError("no rank")

    with pytest.raises(GeneratorError, match=r"'best'.*no rank"):
        fill_slot(0, _recipe(Broken()))


def test_planner_generator_and_gates_are_told_before_each_slot_what_holds_for_it() -> None:
    planner, generator, gate, plans = Follows(), Follows(), Follows(), [Feedback(2), Feedback(5)]

    def feedback(slot: int) -> Feedback | None:
        return next((plan for plan in reversed(plans) if plan.from_slot <= slot), None)

    recipe = _recipe(gate, planner=planner, generator=generator, feedback=feedback)
    for slot in (0, 2, 4, 7, 3):
        fill_slot(slot, recipe)
    expected = [None, plans[0], plans[0], plans[1], plans[0]]
    assert planner.told == generator.told == gate.told == expected


def test_a_feedback_that_cannot_be_followed_is_an_error() -> None:
    class Broken(Follows):
        def follow(self, feedback: Feedback | None) -> None:
            raise KeyError("loss")

    with pytest.raises(GeneratorError, match="feedback"):
        fill_slot(0, _recipe(Broken()))


def test_a_gate_sees_what_the_slot_holds_already_in_order_of_rows() -> None:
    seen: list[Tensor | None] = []

    class Sees(Bright):
        def __call__(  # type: ignore[override]
            self,
            samples: Mapping[str, Tensor],
            condition: Mapping[str, Any],
            admitted: Mapping[str, Tensor] | None = None,
        ) -> Verdict:
            seen.append(None if admitted is None else admitted["image"])
            return super().__call__(samples, condition)

    shard = fill_slot(3, _recipe(Sees(0.24)))
    assert seen[0] is None
    first = [row for row in shard.rows if row["attempt"] == 0]
    assert 0 < len(first) < ROWS
    assert torch.equal(seen[1], torch.cat([_made(3, row["row"], 0, row["label"]) for row in first]))


def test_a_slots_content_does_not_depend_on_what_was_made_before() -> None:
    gen = torch.Generator().manual_seed(0)
    images = torch.randint(0, 255, (40, 1, 4, 4), dtype=torch.uint8, generator=gen)
    data = Snapshot(SPEC, {"image": images, "label": torch.arange(40) % 3}, ("a", "b", "c"), (0, 1, 2))

    def recipe() -> Recipe:
        copy = NotCopy(ratio=0.8)  # rejects many, and keeps distances once found
        copy.bind(data)
        return _recipe(copy, Bright(0.2), Best(2))

    one, other = recipe(), recipe()
    upwards = {slot: fill_slot(slot, one).content for slot in (0, 1, 2, 3)}
    downwards = {slot: fill_slot(slot, other).content for slot in (3, 2, 1, 0)}
    assert upwards == downwards
    assert fill_slot(2, one).content == upwards[2]
    assert "copy" in fill_slot(2, one).made["rejections"]


class Objecting:
    """A generator with a safety checker of its own, which objects to bright samples and blanks them."""

    objected: Tensor | None = None

    def generate(self, condition: Mapping[str, Any], seeds: list[int]) -> Tensor:
        made = drawn(condition, seeds)
        self.objected = _mean(made) + 0.5 * condition["label"] > 0.25
        made[self.objected] = float("nan")
        return made


def test_what_a_generators_own_safety_checker_objects_to_is_counted_as_that_and_no_gate_sees_it() -> None:
    seen: list[Tensor] = []

    class Sees(Bright):
        def __call__(self, samples: Mapping[str, Tensor], condition: Mapping[str, Any]) -> Verdict:
            seen.append(samples["image"])
            return super().__call__(samples, condition)

    shard = fill_slot(3, _recipe(Sees(-1.0), generator=Objecting(), attempts=1))
    expected = {
        row
        for row, label in enumerate(QuotaPlanner([2, 1, 1]).plan(3, ROWS)["label"].tolist())
        if float(_mean(_made(3, row, 0, label))) + 0.5 * label > 0.25
    }
    assert {one["row"] for one in shard.rejected} == expected
    assert 0 < len(expected) < ROWS
    assert shard.made["rejections"] == {"safety": len(expected)}
    assert seen[0].isfinite().all()
    composed = ComposedGenerator(Objecting(), kept_halves=[], fractal_weight=0.5)
    composed.bind(SPEC, ("a", "b", "c"))
    around = fill_slot(3, _recipe(Finite(), generator=composed, attempts=1))
    assert around.made["rejections"] == {"safety": len(expected)}
