"""Samples poisoned by known shares: each gate catches what it is for, and hardly anything else."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from poisoned import HONEST, SHARES, Digits, PoisonedGenerator, Slot, alone, digits, fitted, ready, rejected, slots
from poisoned_digits import PoisonedDigits
from torch import Tensor

from lightning_diffaug import DiffAugDataModule, DiffusionGenerator
from lightning_diffaug.conditions import QuotaPlanner
from lightning_diffaug.data import DigitsDataModule
from lightning_diffaug.models import ImageClassifier
from lightning_diffaug.refill.fill_slot import fill_slot
from lightning_diffaug.refill.recipe import Recipe

STEPS = 150
TRAINING = [kind for kind in SHARES if kind.startswith("training")]
TEST = [kind for kind in SHARES if kind.startswith("test")]
CAUGHT_BY = {"finite": ["NaN"], "blank": ["blank"], "copy": TRAINING, "duplicate": ["twice in a slot"]}


@dataclass(frozen=True)
class Case:
    cache: Path
    data: Digits
    generator: DiffusionGenerator
    poisoned: list[Slot]
    honest: list[Slot]


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    torch.set_num_threads(1)
    data = digits()
    cache = tmp_path_factory.mktemp("cache")
    generator = fitted(data.train, cache, steps=STEPS)
    poisoned, honest = (slots(PoisonedGenerator(generator, data, shares), 16) for shares in (SHARES, {}))
    return Case(cache, data, generator, poisoned, honest)


def test_the_generator_is_poisoned_as_it_is_said(case: Case) -> None:
    kinds = Counter(kind for slot in case.poisoned for kind in slot.kinds)
    n = sum(kinds.values())
    assert {kind: kinds[kind] / n for kind in SHARES} == pytest.approx(SHARES, abs=0.04)
    assert sum(kinds[kind] for kind in TRAINING) / n == pytest.approx(0.3, abs=0.05)
    for slot in case.poisoned:
        for image, kind in zip(slot.samples["image"], slot.kinds, strict=True):
            assert bool(image.isnan().any()) == (kind == "NaN")
            assert kind == "NaN" or bool(image.max() == image.min()) == (kind == "blank")


@pytest.mark.parametrize("name", CAUGHT_BY)
def test_each_default_gate_alone_catches_what_it_is_for(name: str, case: Case) -> None:
    column = alone(name, case.data, case.cache)
    share = column(case.poisoned)
    for kind in CAUGHT_BY[name]:
        assert share[kind] >= 0.99, kind
    spared = {HONEST, "of another class", *TEST}
    assert max(share[kind] for kind in spared) <= 0.03, "it takes nothing for what it is not"
    assert column(case.honest)[HONEST] <= 0.01


def test_the_gate_of_class_catches_samples_of_another_class_at_a_price(case: Case) -> None:
    """Fitted on few images, it takes some of what is honest, and more the surer it has to be."""
    sure, surer = (alone("class", case.data, case.cache, confidence=p, fit={"steps": 200}) for p in (0.5, 0.9))
    share = sure(case.poisoned)
    assert share["of another class"] >= 0.9
    assert share["training image"] <= 0.02, "it was fitted on them"
    real = share["test image"]
    assert real <= 0.15, "real, never seen, and of the class that was asked for"
    price, higher = sure(case.honest)[HONEST], surer(case.honest)[HONEST]
    assert real < price < higher, "a fit so short makes samples that are often not of their class"


def test_the_gate_against_contamination_catches_test_images(case: Case) -> None:
    against = alone("contamination", case.data, case.cache)
    share = against(case.poisoned)
    assert min(share[kind] for kind in TEST) >= 0.99
    assert max(share[kind] for kind in ("of another class", *TRAINING)) <= 0.03, "training images are another gate's"
    assert against(case.honest)[HONEST] <= 0.01


def test_without_that_gate_the_test_images_in_the_pool_are_counted_after_training(case: Case, tmp_path: Path) -> None:
    real = DigitsDataModule(shots=80, rare_classes=5, rare_shots=5)
    generator = PoisonedDigits(str(case.cache), STEPS)
    mix = DiffAugDataModule(
        real, generator, 0.5, refill="sync", window=192, reuse=float("inf"), planner="uniform", cache_dir=tmp_path
    )
    learner = ImageClassifier(num_classes=10, width=4)
    trainer = Trainer(
        accelerator="cpu", max_epochs=1, limit_train_batches=2, limit_val_batches=0, logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(learner, mix)
    assert mix.pool is not None
    kinds = [generator.kind_of(row["seed"]) for slot in mix.window_slots for row in mix.pool.read(slot).rows]
    leaked = sum(kind in TEST for kind in kinds)
    figures = mix.audit()
    assert leaked > 20
    assert figures["pool/audited"] == len(kinds)
    assert 0.99 * leaked <= figures["pool/near_copies_test"] <= leaked + 0.01 * len(kinds)
    assert figures["pool/near_copies_train"] == 0
    assert figures["gates/contamination"] == 0


def test_the_defaults_let_nearly_every_honest_sample_in_and_all_that_is_plainly_wrong_out(case: Case) -> None:
    chain = ready(None, case.data, case.cache)
    assert rejected(case.honest, chain)[HONEST] <= 0.01
    share = rejected(case.poisoned, chain)
    assert share[HONEST] <= 0.03
    assert min(share[kind] for kinds in CAUGHT_BY.values() for kind in kinds) >= 0.99


def test_what_is_poisoned_does_not_enter_the_pool(case: Case) -> None:
    generator = PoisonedGenerator(case.generator, case.data)
    reasons: dict[str, Counter[str]] = {}

    def aside(row: dict[str, Any], fields: dict[str, Tensor]) -> None:
        reasons.setdefault(generator.kinds[row["seed"]], Counter())[row["reason"]] += 1

    recipe = Recipe(
        planner=QuotaPlanner([1.0] * 10),
        generator=generator,
        gates=tuple(ready(None, case.data, case.cache)),
        spec=case.data.train.spec,
        attempts=3,
    )
    shards = [fill_slot(slot, recipe, aside=aside) for slot in range(4)]
    pooled = Counter(generator.kinds[row["seed"]] for shard in shards for row in shard.rows)
    assert set(pooled) <= {HONEST, "of another class", *TEST}, "these need a gate that is not on by default"
    assert pooled[HONEST] > 40
    for name, kinds in CAUGHT_BY.items():
        for kind in kinds:
            assert reasons[kind][name] >= 0.7 * reasons[kind].total(), f"{kind} is counted under {dict(reasons[kind])}"
    assert sum(reasons.get(HONEST, Counter()).values()) <= 0.03 * pooled[HONEST]
