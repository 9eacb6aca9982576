"""A slot's content is a pure function of the recipe and its number; rejection never shifts the quotas."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from refill_toys import SPEC, Faulty, Steady, drawn
from torch import Tensor

from lightning_diffaug.conditions import QuotaPlanner
from lightning_diffaug.errors import ConfigurationError, GeneratorError
from lightning_diffaug.gates import Finite, InRange
from lightning_diffaug.randomness import untouched_rng
from lightning_diffaug.refill.fill_slot import empty_slot, fill_slot
from lightning_diffaug.refill.recipe import Recipe, row_seed
from lightning_diffaug.spec import FieldSpec, SampleSpec


def _recipe(generator: Any = drawn, **changes: Any) -> Recipe:
    plain: dict[str, Any] = {
        "planner": QuotaPlanner([2, 1, 1]),
        "generator": generator,
        "gates": (Finite(), InRange()),
        "spec": SPEC,
        "slot_size": 8,
        "attempts": 3,
    }
    return Recipe(**{**plain, **changes})


class Flaky:
    """NaN for the rows that `bad` says, by (row number in the slot, attempt)."""

    def __init__(self, bad: Any, slot: int = 5) -> None:
        self.bad = bad
        self.where = {row_seed(0, slot, row, a): (row, a) for row in range(8) for a in range(8)}
        self.asked: list[tuple[int, int, int]] = []

    def generate(self, condition: Mapping[str, Any], seeds: Sequence[int]) -> Tensor:
        made = drawn(condition, seeds)
        for i, seed in enumerate(seeds):
            row, attempt = self.where[seed]
            self.asked.append((row, attempt, int(condition["label"][i])))
            if self.bad(row, attempt):
                made[i, 0, 0, 0] = float("nan")
        return made


def test_content_is_a_pure_function_of_recipe_and_slot() -> None:
    first, again = fill_slot(5, _recipe()), fill_slot(5, _recipe())
    assert first.content == again.content
    assert all(torch.equal(first.fields[name], again.fields[name]) for name in ("image", "label"))
    others = [fill_slot(6, _recipe()), fill_slot(5, _recipe(pool_seed=1))]
    assert len({first.content, *(shard.content for shard in others)}) == 3


def test_rejection_never_shifts_a_rows_condition() -> None:
    flaky = Flaky(lambda row, attempt: attempt < row % 3)
    shard, plan = fill_slot(5, _recipe(flaky)), QuotaPlanner([2, 1, 1]).plan(5, 8)["label"]
    assert all(label == plan[row] for row, _, label in flaky.asked)
    assert shard.fields["label"].tolist() == plan.tolist()
    assert [row["attempt"] for row in shard.rows] == [row % 3 for row in range(8)]
    # A row that was never rejected is what it would be without the others' rejections.
    untroubled = fill_slot(5, _recipe())
    for row in (0, 3, 6):
        assert torch.equal(shard.fields["image"][row], untroubled.fields["image"][row])


def test_rows_that_used_up_their_attempts_are_left_out_with_their_reason() -> None:
    shard = fill_slot(5, _recipe(Flaky(lambda row, attempt: row in (2, 7))))
    assert [row["row"] for row in shard.rows] == [0, 1, 3, 4, 5, 6]
    assert shard.rejected == [{"row": 2, "reason": "finite"}, {"row": 7, "reason": "finite"}]
    assert shard.made["rejections"] == {"finite": 6}
    assert shard.made["generated"] == 8 + 2 + 2
    assert shard.n + len(shard.rejected) == 8


def test_provenance_names_seed_attempt_and_condition() -> None:
    shard = fill_slot(5, _recipe(Flaky(lambda row, attempt: attempt == 0 and row == 1)))
    assert shard.rows[1] == {
        "row": 1,
        "attempt": 1,
        "seed": row_seed(0, 5, 1, 1),
        "label": int(shard.fields["label"][1]),
    }


@pytest.mark.parametrize(
    ("made", "reason"),
    [
        (lambda c, s: drawn(c, s)[:, :, :2], "shape: 'image' is (8, 1, 2, 4) in place of (8, 1, 4, 4)"),
        (lambda c, s: drawn(c, s)[:-1], "shape: 'image' is (7, 1, 4, 4) in place of (8, 1, 4, 4)"),
        (lambda c, s: {"picture": drawn(c, s)}, "shape: no tensor 'image'"),
        (lambda c, s: {"image": drawn(c, s).numpy()}, "shape: no tensor 'image'"),
        (lambda c, s: None, "shape: a NoneType in place of tensors"),
        (lambda c, s: drawn(c, s) * float("nan"), "finite"),
        (lambda c, s: drawn(c, s) * 255 + 100, "range"),
    ],
)
def test_what_is_no_sample_is_counted_under_its_reason(made: Any, reason: str) -> None:
    shard = fill_slot(0, _recipe(made))
    assert shard.n == 0
    assert shard.fields["image"].shape == (0, 1, 4, 4)
    assert shard.fields["image"].dtype == torch.uint8
    assert shard.fields["label"].dtype == torch.int64
    assert [entry["reason"] for entry in shard.rejected] == [reason] * 8
    assert shard.made["rejections"] == {reason: 24}


def test_values_are_scaled_to_the_raw_range_and_rounded() -> None:
    values = torch.tensor([-1.0, -0.5, 0.0, 1.0, 1.02, -1.02, 0.0039, 0.0])
    shard = fill_slot(0, _recipe(lambda c, s: values.reshape(8, 1, 1, 1).expand(8, 1, 4, 4)))
    assert shard.fields["image"][:, 0, 0, 0].tolist() == [0, 64, 128, 255, 255, 0, 128, 128]


def test_several_fields_and_data_without_labels() -> None:
    sound = FieldSpec("sound", "s", "tensor", "float32", (5,), -3.0, 3.0)
    spec = SampleSpec((SPEC.fields[0], sound))
    shard = fill_slot(
        0,
        _recipe(
            lambda c, s: {"image": drawn(c, s), "sound": torch.full((len(s), 5), 0.5)},
            spec=spec,
            planner=QuotaPlanner(None),
        ),
    )
    assert set(shard.fields) == {"image", "sound"}
    assert torch.allclose(shard.fields["sound"], torch.tensor(1.5))


@pytest.mark.parametrize("how", ["raise", "exit"])
def test_a_generator_that_raises_is_an_error_of_the_generator(how: str) -> None:
    with pytest.raises(GeneratorError, match=r"ValueError: the toy is broken|SystemExit: 7"):
        fill_slot(0, _recipe(Faulty(how)))


class Plans:
    def __init__(self, plan: Any) -> None:
        self.made = plan

    def plan(self, slot: int, rows: int) -> Any:
        return self.made


@pytest.mark.parametrize("plan", [{}, {"label": torch.zeros(7, dtype=torch.int64)}, {"label": None}, None])
def test_a_planner_without_a_plan_is_named(plan: Any) -> None:
    with pytest.raises(GeneratorError, match="planner"):
        fill_slot(0, _recipe(planner=Plans(plan)))


class Refusing:
    name = "refusing"

    def plan(self, slot: int, rows: int) -> Any:
        raise ConfigurationError("Set data.planner to another one.")

    def __call__(self, samples: Mapping[str, Tensor], condition: Mapping[str, Any]) -> Tensor:
        raise ConfigurationError("Set data.gates to others.")


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"generator": Faulty("setting")}, "generator.how"),
        ({"planner": Refusing()}, "data.planner"),
        ({"gates": (Refusing(),)}, "data.gates"),
    ],
)
def test_a_setting_that_shows_to_be_wrong_only_when_samples_are_made_is_the_users_to_change(
    changes: dict[str, Any], key: str
) -> None:
    with pytest.raises(ConfigurationError, match=f"Set {re.escape(key)}"):
        fill_slot(0, _recipe(**changes))


def test_a_plan_may_hold_prompts_and_lists() -> None:
    plan = {"label": [i % 3 for i in range(8)], "prompt": [f"p{i}" for i in range(8)], "start": torch.zeros(8, 2)}
    shard = fill_slot(0, _recipe(planner=Plans(plan)))
    assert shard.fields["label"].tolist() == plan["label"]
    assert [row["prompt"] for row in shard.rows] == plan["prompt"]
    assert "start" not in shard.rows[0], "provenance is plain"


def test_an_empty_slot_names_every_row_and_its_reason() -> None:
    shard = empty_slot(_recipe(), "it fails")
    assert shard.n == 0
    assert shard.rejected == [{"row": row, "reason": "it fails"} for row in range(8)]
    assert {name: tuple(value.shape) for name, value in shard.fields.items()} == {"image": (0, 1, 4, 4), "label": (0,)}


def test_seeds_differ_over_all_that_names_a_row() -> None:
    seeds = [row_seed(*place) for place in np.ndindex(3, 40, 64, 4)]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_global_random_states_are_untouched_where_the_trainer_fills() -> None:
    states = random.getstate(), np.random.get_state()[1].copy(), torch.get_rng_state()
    with untouched_rng():
        fill_slot(0, _recipe(Steady()))
    assert random.getstate() == states[0]
    assert (np.random.get_state()[1] == states[1]).all()
    assert torch.equal(torch.get_rng_state(), states[2])


def test_quotas_over_many_slots_hold_whatever_is_rejected() -> None:
    def flaky(condition: Mapping[str, Any], seeds: Sequence[int]) -> Tensor:
        made = drawn(condition, seeds)
        made[torch.tensor(seeds) % 3 == 0] = float("nan")
        return made

    recipe = _recipe(flaky, attempts=12)
    labels = Counter(int(label) for slot in range(40) for label in fill_slot(slot, recipe).fields["label"])
    assert sum(labels.values()) == 320
    assert [labels[c] for c in range(3)] == pytest.approx([160, 80, 80], abs=2)


class GivenMasks:
    """A plan with a float mask in each row, one of them out of the range that was found."""

    def plan(self, slot: int, rows: int) -> dict[str, Any]:
        mask = torch.arange(rows * 4, dtype=torch.float32).view(rows, 2, 2) / 10 + slot
        return {"label": torch.arange(rows) % 3, "mask": mask}


def _with_mask() -> SampleSpec:
    return SampleSpec((*SPEC.fields, FieldSpec("mask", "2", "tensor", "float32", (2, 2), 0.0, 2.0)))


def test_a_field_that_is_given_is_stored_exactly_beside_what_was_made_of_it() -> None:
    seen: list[torch.Tensor] = []

    def generator(condition: Mapping[str, Any], seeds: Sequence[int]) -> dict[str, Tensor]:
        seen.append(condition["mask"].clone())
        return {"image": drawn(condition, seeds)}

    class Sees:
        name = "sees"

        def __call__(self, samples: Mapping[str, Tensor], condition: Mapping[str, Any]) -> Tensor:
            assert -1.0 <= float(samples["mask"].min()) <= float(samples["mask"].max()) <= 1.0
            return torch.ones(len(samples["mask"]), dtype=torch.bool)

    shard = fill_slot(0, _recipe(generator, planner=GivenMasks(), spec=_with_mask(), gates=(InRange(), Sees())))
    assert shard.n == 8
    assert float(shard.fields["mask"].max()) > 2.0  # a real value is what it is, whatever range was found
    assert torch.equal(shard.fields["mask"], seen[0])
    bare = fill_slot(0, _recipe(drawn, planner=GivenMasks(), spec=_with_mask()))
    assert torch.equal(bare.fields["image"], shard.fields["image"])  # a bare tensor is the field that is not given


def test_what_is_given_in_another_form_is_not_stored() -> None:
    class Planner:
        def plan(self, slot: int, rows: int) -> dict[str, Any]:
            return {"label": torch.arange(rows) % 3, "mask": torch.zeros(rows, 4, 4)}

    made = _recipe(lambda condition, seeds: {"image": drawn(condition, seeds)}, planner=Planner(), spec=_with_mask())
    shard = fill_slot(0, made)
    assert shard.n == 0
    assert shard.rejected[0]["reason"] == "shape: no tensor 'mask'"
