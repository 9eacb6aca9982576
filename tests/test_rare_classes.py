"""The rare classes' experiment: the pool holds what the plan says of the tail, and every rare class has a figure."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra

from lightning_diffaug.experiment import run
from lightning_diffaug.paths import config_dir
from lightning_diffaug.pool import SyntheticPool

RARE = ["1", "3", "5", "7", "9"]
SLOT = 30


@dataclass(frozen=True)
class Done:
    figures: dict[str, float]
    classes: dict[str, Any]
    pool: SyntheticPool


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Done:
    """One epoch of the mixed arm, with a short fit."""
    root = tmp_path_factory.mktemp("rare")
    GlobalHydra.instance().clear()
    little = ["trainer.max_epochs=1", "generator.fit.steps=60", "generator.fit.channels=[16]", "logger=none"]
    pool = ["refill=sync", "refill.nice=0", f"data.slot_size={SLOT}", f"data.window={5 * SLOT}"]
    files = [f"paths.output_dir={root}", f"paths.cache_dir={root / 'cache'}", "~callbacks.checkpoint"]
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        config = compose("train", ["experiment=rare_classes", "arm=mixed", *little, *pool, *files])
    figures = run(config)
    (folder,) = (root / "cache" / "pools").iterdir()
    return Done(figures, json.loads((root / "classes.json").read_text()), SyntheticPool.open(folder))


def test_the_pools_class_histogram_is_what_the_plan_says(done: Done) -> None:
    lacks = {name: 100 - count for name, count in zip(done.classes["names"], done.classes["train_counts"], strict=True)}
    assert lacks == {str(digit): 95 if str(digit) in RARE else 0 for digit in range(10)}
    slots = done.pool.slots()
    assert len(slots) >= 5
    held, left_out = Counter[str](), 0
    for slot in slots:
        shard = done.pool.read(slot)
        of_slot = Counter(done.classes["names"][label] for label in shard.fields["label"].tolist())
        assert set(of_slot) <= set(RARE)
        assert all(count <= SLOT / 5 for count in of_slot.values()), "equal shares of thirty rows"
        left_out += len(shard.rejected)
        held.update(of_slot)
    assert sum(held.values()) + left_out == SLOT * len(slots)
    assert left_out <= 0.02 * SLOT * len(slots)
    planned = SLOT * len(slots) * sum(lacks[name] for name in RARE[:1]) / sum(lacks.values())
    assert all(planned - left_out <= held[name] <= planned for name in RARE)


def test_a_run_has_a_figure_for_each_rare_class(done: Done) -> None:
    assert done.classes["rare"] == RARE
    of_each = [done.figures[f"test/acc_class_{name}"] for name in RARE]
    assert done.figures["test/acc_rare"] == pytest.approx(sum(of_each) / len(of_each))
    shares = {name: done.figures[f"mix/synthetic_fraction_class_{name}"] for name in done.classes["names"]}
    assert shares == pytest.approx({name: 0.5 if name in RARE else 0.0 for name in shares}, abs=0.03)


def test_arms_of_real_images_stand_beside_the_mixed_one_over_five_seeds() -> None:
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        config = compose("train", ["experiment=rare_classes"], return_hydra_config=True)
    params = config.hydra.sweeper.params
    assert {"oversampling", "classical", "mixed"} <= set(params.arm.split(","))
    assert params.seed == "range(5)"
    assert (config.real.shots, config.real.rare_shots) == (100, 5)
