"""Feedback moves the plan, reproducibly, on training data alone, and never stops training."""

from __future__ import annotations

from pathlib import Path

import torch
from feedback_toys import CLASSES, HARD, fitted, mixed, own_pool, plans_in
from training_toys import same

from lightning_diffaug.pool import SyntheticPool


def _labels(pool: SyntheticPool, slots: list[int]) -> torch.Tensor:
    rows = torch.cat([pool.read(k).fields["label"] for k in slots])
    return torch.bincount(rows, minlength=CLASSES) / len(rows)


def test_later_slots_hold_more_of_the_classes_that_the_learner_is_bad_at(tmp_path: Path) -> None:
    learner = fitted(mixed(tmp_path), tmp_path)
    pool, plans = SyntheticPool.open(own_pool(tmp_path)), plans_in(tmp_path).all()
    before, after = [k for k in pool.slots() if k < plans[0].from_slot], pool.slots()[-2:]
    assert after[0] >= plans[0].from_slot > before[-1]
    first, last = _labels(pool, before), _labels(pool, after)
    assert first.tolist() == [0.25] * CLASSES
    assert last[list(HARD)].sum() > 0.8
    assert learner.trainer.callback_metrics["feedback/loss_class_1"] > learner.trainer.callback_metrics["feedback/loss"]


def test_two_runs_of_one_seed_are_the_same_sample_for_sample(tmp_path: Path) -> None:
    first = fitted(mixed(tmp_path / "one"), tmp_path)
    second = fitted(mixed(tmp_path / "two"), tmp_path)
    assert same(first.seen["train"], second.seen["train"])
    assert own_pool(tmp_path / "one").name != own_pool(tmp_path / "two").name, "each has a pool of its own"
