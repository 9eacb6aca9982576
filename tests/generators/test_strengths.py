"""Rows of different strengths in one call: each is what it would be alone, and goes as far as its own strength."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from lightning_diffaug.conditions import RealGuidedPlanner
from lightning_diffaug.errors import ConfigurationError, GeneratorError
from lightning_diffaug.generators import DiffusionGenerator
from lightning_diffaug.refill.fill_slot import fill_slot
from lightning_diffaug.refill.recipe import Recipe
from lightning_diffaug.snapshot import Snapshot

Loaded = Callable[..., DiffusionGenerator]
N = 24
MIXED = torch.tensor([0.0, 0.2, 0.25, 0.5, 0.52, 0.8, 0.97, 1.0] * 3, dtype=torch.float64)


@pytest.fixture(scope="module")
def asked(digits: Snapshot) -> dict[str, Tensor]:
    """Digits to start from, each with a class of its own to become."""
    rows = torch.arange(N)
    start, other = digits.unit("image", rows), digits.unit("image", rows + N)
    was = digits.raw("label", rows)
    mask = torch.zeros(N, 1, 8, 8)
    mask[..., :4] = 1
    return {
        "label": (was + 3) % 10, "start": start, "start_label": was, "other": other,
        "weight": torch.full((N,), 0.4), "mask": mask,
    }  # fmt: skip


def _made(generator: DiffusionGenerator, asked: dict[str, Any], rows: Any = range(N)) -> Tensor:
    chosen = torch.tensor(list(rows))
    return generator.generate({name: value[chosen] for name, value in asked.items()}, list(rows))["image"]


def _rms(difference: Tensor) -> Tensor:
    return difference.flatten(1).pow(2).mean(1).sqrt()


SAMPLED: list[dict[str, Any]] = [
    {},
    {"scheduler": "ddim", "eta": 0.5},
    {"scheduler": "heun"},
    {"scheduler": "ddpm"},
    {"stop_at": 0.1},
    {"source": "edit", "inversion_steps": 4},
    {"source": "interpolate", "inversion_steps": 4},
]


@pytest.mark.parametrize("settings", SAMPLED)
def test_each_row_is_what_a_run_at_its_strength_makes_of_it(
    settings: dict[str, Any], loaded: Loaded, asked: dict[str, Tensor]
) -> None:
    strengths = MIXED.clamp_min(0.2) if "stop_at" in settings else MIXED
    settings = {"source": "image", **settings}
    low = 0.2 if "stop_at" in settings else 0.0
    condition = asked if settings["source"] != "interpolate" else {**asked, "label": asked["start_label"]}
    condition = {name: value for name, value in condition.items() if name != "mask"}
    together = _made(loaded(strength={"low": low, "high": 1.0}, **settings), {**condition, "strength": strengths})
    for strength in strengths.unique().tolist():
        rows = (strengths == strength).nonzero().flatten().tolist()
        alone = _made(loaded(strength=strength, **settings), condition, rows)
        assert torch.allclose(together[rows], alone, atol=1e-4), strength


def test_a_row_does_not_depend_on_the_strengths_beside_it(loaded: Loaded, asked: dict[str, Tensor]) -> None:
    condition = {**asked, "strength": MIXED}
    generator = loaded(strength=[0.0, 1.0])
    together = _made(generator, condition)
    for rows in ([5], [3, 0, 7], range(N - 1, -1, -1), range(4, 20)):
        assert torch.allclose(_made(generator, condition, rows), together[list(rows)], atol=1e-4)
    few = loaded(strength=[0.0, 1.0], batch_size=2)
    assert torch.allclose(_made(few, condition), together, atol=1e-4)
    assert torch.equal(_made(generator, condition), together)


def test_what_is_kept_is_kept_at_every_strength(loaded: Loaded, asked: dict[str, Tensor]) -> None:
    made = _made(loaded(strength=[0.0, 1.0], repaint=0.5), {**asked, "strength": MIXED})
    kept = asked["mask"] > 0.5
    assert torch.equal(made[kept], asked["start"][kept])
    new = ((made - asked["start"]) * ~kept)[MIXED > 0.5]
    assert bool((_rms(new) > 0.05).all())


def test_a_row_goes_further_from_its_start_with_its_strength(loaded: Loaded, asked: dict[str, Tensor]) -> None:
    made = _made(loaded(strength=[0.0, 1.0]), {**asked, "mask": torch.zeros(N, 1, 8, 8), "strength": MIXED})
    far = _rms(made - asked["start"]).view(3, 8).mean(0)
    assert float(far[0]) < 1e-6
    assert far[1] < far[3] < far[5] < far[7]


def test_a_planners_own_strengths_go_before_the_setting(loaded: Loaded, asked: dict[str, Tensor]) -> None:
    generator = loaded(strength=0.5)
    assert torch.equal(_made(generator, {**asked, "strength": torch.zeros(N)}), asked["start"])
    from_noise = loaded()
    assert torch.equal(_made(from_noise, {**asked, "strength": torch.zeros(N)}), _made(from_noise, asked))


@pytest.mark.parametrize("given", [None, torch.full((N - 1,), 0.5), torch.full((N,), 1.5)])
def test_rows_without_a_strength_are_refused(loaded: Loaded, asked: dict[str, Tensor], given: Tensor | None) -> None:
    condition = asked if given is None else {**asked, "strength": given}
    with pytest.raises(GeneratorError, match=r"'strength'.*generator\.strength"):
        loaded(strength=[0.2, 0.8]).generate(condition, range(N))


def test_slots_are_filled_at_the_strengths_that_provenance_names(loaded: Loaded, digits: Snapshot) -> None:
    generator = loaded(strength=[0.1, 0.9])
    assert generator.source == "image"
    planner = RealGuidedPlanner([1.0] * 10, generator.source, strength=generator.strength, pairs="cross")
    planner.bind(digits)
    shard = fill_slot(2, Recipe(planner, generator, (), digits.spec, slot_size=60))
    strength = torch.tensor([row["strength"] for row in shard.rows])
    assert {row["strength"] for row in shard.rows} == {0.1, 0.9}
    start = digits.unit("image", torch.tensor([row["source_index"] for row in shard.rows]))
    far = _rms(digits.spec["image"].to_unit(shard.fields["image"]) - start)
    assert far[strength < 0.5].max() < far[strength > 0.5].min()
    assert all(row["start_label"] != row["label"] for row in shard.rows)


def test_a_class_is_reached_from_another_with_strength(
    loaded: Loaded, digits: Snapshot, agreement: Callable[[Tensor, Tensor], float]
) -> None:
    """Diff-Mix's premise, and why its label follows from the strength."""
    shares = []
    for strength in (0.3, 0.6, 0.9):
        generator = loaded(strength=strength)
        planner = RealGuidedPlanner([1.0] * 10, "image", strength=strength, pairs="cross")
        planner.bind(digits)
        plan = planner.plan(0, 100)
        made = generator.generate(plan, range(100))["image"]
        shares.append((agreement(made, plan["label"]), agreement(made, plan["start_label"])))
    to, still = zip(*shares, strict=True)
    assert to[0] < to[1] < to[2]
    assert still[0] > still[1] > still[2]
    assert still[0] > 0.8 > 0.1 > to[0]
    assert to[2] > 0.6 > 0.2 > still[2]


# Settings -----------------------------------------------------------------------------------------------


def test_strengths_name_the_pool_and_survive_their_plain_config() -> None:
    settings: list[Any] = [0.5, [0.5, 1.0], [0.25, 0.5, 0.75, 1.0], {"low": 0.5, "high": 1.0}]
    keys = [json.dumps(DiffusionGenerator(strength=s).sample_key(), sort_keys=True) for s in settings]
    assert len(set(keys)) == len(keys)
    for strength in settings:
        generator = DiffusionGenerator(strength=strength)
        again = DiffusionGenerator(**json.loads(json.dumps(generator.config())))
        assert again.sample_key() == generator.sample_key()
        assert again.strength == strength
    assert DiffusionGenerator(strength=[1, 1]).sample_key() == DiffusionGenerator().sample_key()


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        ({"strength": [0.5, 2.0]}, "generator.strength"),
        ({"strength": {"low": 0.8, "high": 0.2}}, "generator.strength"),
        ({"strength": [0.5, 1.0], "source": "noise"}, "generator.source=image"),
        ({"strength": [0.2, 1.0], "stop_at": 0.3}, "generator.stop_at"),
    ],
)
def test_strengths_that_cannot_be_are_refused_with_the_key(settings: dict[str, Any], key: str) -> None:
    with pytest.raises(ConfigurationError, match=key.replace(".", r"\.")):
        DiffusionGenerator(**settings)
