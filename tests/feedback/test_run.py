"""Feedback moves the plan, reproducibly, on training data alone, and never stops training."""

from __future__ import annotations

import logging
import os
import random
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from feedback_toys import CLASSES, EACH, HARD, Learner, Real, Rows, fitted, mixed, own_pool, plans_in
from lightning.pytorch import Callback
from training_toys import same, trainer, unnamed

from lightning_diffaug.errors import ConfigurationError
from lightning_diffaug.pool import SyntheticPool
from lightning_diffaug.pool.private import KEPT_SECONDS

EPOCHS, BATCHES = 4, 6


def _labels(pool: SyntheticPool, slots: list[int]) -> torch.Tensor:
    rows = torch.cat([pool.read(k).fields["label"] for k in slots])
    return torch.bincount(rows, minlength=CLASSES) / len(rows)


def _mixed(cache: Path, **settings: Any) -> Any:
    """Slots are made in this process, which spares the start of another."""
    return mixed(cache, **{"generator": unnamed(Rows()), **settings})


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Learner]:
    root = tmp_path_factory.mktemp("uninterrupted")
    return root, fitted(_mixed(root), root)


def test_later_slots_hold_more_of_the_classes_that_the_learner_is_bad_at(
    uninterrupted: tuple[Path, Learner], tmp_path: Path
) -> None:
    """With a refill process, which reads the plans from disk; and it is the same run as without."""
    learner = fitted(mixed(tmp_path), tmp_path)
    pool, plans = SyntheticPool.open(own_pool(tmp_path)), plans_in(tmp_path).all()
    before, after = [k for k in pool.slots() if k < plans[0].from_slot], pool.slots()[-2:]
    assert after[0] >= plans[0].from_slot == before[-1] + 1
    unfinished = plans[-1].from_slot - 1 - pool.slots()[-1]
    assert unfinished in (0, 1), "the first that nobody had begun; the run may end while one is made"
    assert _labels(pool, before).tolist() == [0.25] * CLASSES
    assert _labels(pool, after)[list(HARD)].sum() > 0.8
    figures = learner.trainer.callback_metrics
    assert figures["feedback/loss_class_1"] > figures["feedback/loss"] > figures["feedback/loss_class_0"]
    assert same(learner.seen["train"], uninterrupted[1].seen["train"])


def test_two_runs_of_one_seed_are_the_same_sample_for_sample(
    uninterrupted: tuple[Path, Learner], tmp_path: Path
) -> None:
    again = fitted(_mixed(tmp_path), tmp_path)
    assert len(again.seen["train"]) == EPOCHS * BATCHES
    assert same(again.seen["train"], uninterrupted[1].seen["train"])
    assert own_pool(tmp_path).name != own_pool(uninterrupted[0]).name, "each has a pool of its own"
    without = fitted(_mixed(tmp_path / "without", feedback=None), tmp_path)
    assert not same(without.seen["train"], again.seen["train"]), "feedback has an effect"


@pytest.mark.parametrize("strength", [0.0, 0.5, 1.0])
def test_the_strength_says_how_far_the_plan_follows(strength: float, tmp_path: Path) -> None:
    fitted(_mixed(tmp_path, feedback={"strength": strength}), tmp_path, 3)
    pool = SyntheticPool.open(own_pool(tmp_path))
    losses = np.array(plans_in(tmp_path).at(pool.slots()[-1]).content["classes"]["loss"])  # type: ignore[union-attr]
    shares = (1 - strength) / CLASSES + strength * losses / losses.sum()
    assert _labels(pool, pool.slots()[-1:]).numpy() == pytest.approx(shares, abs=1 / 16 + 1e-9)


class SaveAndStop(Callback):
    """Saves a checkpoint in a hook after so many steps; the first run then goes on for an epoch, and is interrupted."""

    def __init__(self, hook: str, steps: int, path: Path) -> None:
        self._steps, self._path = steps, path
        setattr(self, hook, self._save)

    def _save(self, trainer: Any, *_: Any) -> None:
        if trainer.global_step == self._steps:
            trainer.save_checkpoint(self._path)

    def on_train_batch_start(self, trainer: Any, *_: Any) -> None:
        if trainer.global_step == self._steps + BATCHES:
            raise InterruptedError


@pytest.mark.parametrize(
    ("hook", "steps"),
    [("on_train_batch_end", 8), ("on_train_batch_end", 12), ("on_train_epoch_end", 12), ("on_validation_end", 12)],
)
def test_resumed_equals_uninterrupted(
    hook: str, steps: int, uninterrupted: tuple[Path, Learner], tmp_path: Path
) -> None:
    checkpoint = tmp_path / "interrupted.ckpt"
    options: dict[str, Any] = {}
    if hook == "on_validation_end":
        options = {"limit_val_batches": 1}

    class Validated(Real):
        def val_dataloader(self) -> Any:
            return super(Real, self).val_dataloader() if hook == "on_validation_end" else super().val_dataloader()

    def fit(**more: Any) -> Learner:
        learner = Learner()
        torch.manual_seed(0)
        ckpt = more.pop("ckpt_path", None)
        settings = {"limit_val_batches": 0, **options, **more}
        data = _mixed(tmp_path, real=Validated())
        trainer(tmp_path, EPOCHS, **settings).fit(learner, data, ckpt_path=ckpt, weights_only=True)
        return learner

    with pytest.raises(InterruptedError):
        fit(callbacks=[SaveAndStop(hook, steps, checkpoint)])
    again = fit(ckpt_path=checkpoint)
    assert same(again.seen["train"], uninterrupted[1].seen["train"][steps:])
    assert [p.content["classes"] for p in plans_in(tmp_path).all()] == [
        p.content["classes"] for p in plans_in(uninterrupted[0]).all()
    ]
    assert own_pool(tmp_path), "the resumed run found its pool again: there is one"


def test_asking_the_learner_leaves_no_trace(tmp_path: Path) -> None:
    """Random states, modes, buffers, logged figures and weights are as without it."""

    class Watch(Callback):
        def __init__(self) -> None:
            self.states: list[Any] = []

        def on_train_epoch_start(self, trainer: Any, module: Any) -> None:
            if trainer.current_epoch == 0:
                module.dropout.eval()  # a part that is frozen stays so
            modes = [part.training for part in module.modules()]
            state = [torch.get_rng_state(), torch.tensor(random.getstate()[1]), torch.tensor(modes)]
            state += [torch.tensor(np.random.get_state()[1].astype(np.int64))]
            self.states.append([*state, module.asked.clone(), module.scale.detach().clone()])

    def run(cache: Path, feedback: Any) -> tuple[list[Any], Any]:
        watch, learner = Watch(), Learner()
        random.seed(0), np.random.seed(0)
        # without strength the samples are the same, so that nothing but the asking differs
        fitted(_mixed(cache, feedback=feedback), tmp_path, 3, learner, callbacks=[watch])
        return watch.states, learner.trainer.callback_metrics

    asked, figures = run(tmp_path / "asked", {"strength": 0.0})
    alone, plain = run(tmp_path / "alone", None)
    assert len(plans_in(tmp_path / "asked").all()) == 3
    assert len(asked) == 3
    assert same(asked, alone)
    assert {key for key in figures if not key.startswith("feedback/")} == set(plain)
    assert figures["train/loss"] == plain["train/loss"]


def test_the_learner_is_asked_about_raw_training_samples_in_eval_mode(tmp_path: Path) -> None:
    """No augmentation, no dropout: what it says is what its last weights say of the samples as they are converted."""
    data = _mixed(tmp_path)
    learner = fitted(data, tmp_path, 1)
    plan = plans_in(tmp_path).of_epoch(0)
    assert plan is not None
    patterns = Real().train
    images = torch.stack([Real.eval_transform(patterns_raw) for patterns_raw in _raw(patterns)])
    learner.eval()
    with torch.no_grad():
        wanted = torch.nn.functional.cross_entropy(learner(images), torch.tensor(patterns.targets), reduction="none")
    assert torch.allclose(plans_in(tmp_path).samples(plan)["loss"], wanted, atol=1e-5)


def _raw(dataset: Any) -> list[torch.Tensor]:
    dataset.transform = None
    return [dataset[i][0] for i in range(len(dataset))]


def test_few_samples_are_drawn_evenly_over_classes(tmp_path: Path) -> None:
    fitted(_mixed(tmp_path, feedback={"samples": 8}), tmp_path, 2)
    plans = plans_in(tmp_path)
    seen = [torch.isfinite(plans.samples(plan)["loss"]) for plan in plans.all()]
    for mask in seen:
        labels = torch.arange(CLASSES * EACH)[mask] % CLASSES
        assert torch.bincount(labels, minlength=CLASSES).tolist() == [2] * CLASSES
    assert not torch.equal(*seen), "other samples at another epoch"


@pytest.mark.parametrize(("settings", "epochs"), [({"every": 2}, [0, 2]), ({"start": 3}, [2, 3]), ({}, [0, 1, 2, 3])])
def test_the_calendar_says_when_the_learner_is_asked(
    settings: dict[str, Any], epochs: list[int], tmp_path: Path
) -> None:
    fitted(_mixed(tmp_path, feedback=settings), tmp_path)
    assert [plan.epoch for plan in plans_in(tmp_path).all()] == epochs


def test_a_plan_that_no_new_slot_would_follow_is_put_off(tmp_path: Path) -> None:
    """At a fifth of the pace the window moves at few epochs' ends: plans are of these, each with slots of its own."""
    fitted(_mixed(tmp_path, reuse=4), tmp_path, 6)
    plans, pool = plans_in(tmp_path).all(), SyntheticPool.open(own_pool(tmp_path))
    starts = [plan.from_slot for plan in plans]
    assert 1 <= len(plans) < 6
    assert sorted(set(starts)) == starts
    assert set(starts[:-1]) <= set(pool.slots())


class Own(Learner):
    """Says itself what it finds hard: class 2."""

    def feedback_scores(self, batch: Any) -> dict[str, torch.Tensor]:
        self.log("never/logged", 1.0)
        return {"error": (batch[1] == 2).float()}


def class_zero(module: Any, batch: Any) -> dict[str, torch.Tensor]:
    """What the settings may name."""
    return {"error": (batch[1] == 0).float()}


@pytest.mark.parametrize(
    ("learner", "scores", "hard"), [(Own, None, 2), (Learner, class_zero, 0)], ids=["method", "setting"]
)
def test_what_is_hard_may_be_said_by_the_module_or_by_a_function(
    learner: Any, scores: Any, hard: int, tmp_path: Path
) -> None:
    feedback = {"metric": "error", "strength": 1.0, "scores": scores}
    made = fitted(_mixed(tmp_path, feedback=feedback), tmp_path, 3, learner())
    pool = SyntheticPool.open(own_pool(tmp_path))
    assert _labels(pool, pool.slots()[-1:])[hard] == 1.0
    assert "never/logged" not in made.trainer.callback_metrics


class Broken(Learner):
    """Cannot be asked."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("not today")


@pytest.mark.parametrize(
    ("learner", "said"),
    [(lambda: Learner(nan=True), "not finite on any sample"), (Broken, "not today"), (Own, "said nothing of")],
    ids=["nan", "raises", "another metric"],
)
def test_a_learner_that_cannot_be_asked_leaves_plans_as_they_are_and_training_goes_on(
    learner: Any, said: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    made = fitted(_mixed(tmp_path), tmp_path, 3, learner())
    assert len(made.seen["train"]) == 3 * BATCHES
    assert plans_in(tmp_path).all() == []
    errors = [r.getMessage() for r in caplog.records if r.levelno == logging.ERROR and said in r.getMessage()]
    assert len(errors) == 1, "it is said once"
    pool = SyntheticPool.open(own_pool(tmp_path))
    assert _labels(pool, pool.slots()[-1:]).tolist() == [0.25] * CLASSES


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"refill": "none", "generator": Rows()}, "refill=none makes no slot"),
        ({"reuse": float("inf")}, "data.reuse=inf freezes the pool"),
        ({"gates": {"hard": True}}, "Set feedback=practice"),
        ({"gates": {"hard": True}, "feedback": None}, "Set feedback=practice"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(settings: dict[str, Any], text: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=text):
        fitted(_mixed(tmp_path, **settings), tmp_path, 1)
    assert not list((tmp_path / "pools").glob("*"))


@pytest.mark.parametrize(
    ("scores", "said"),
    [
        ("foo.bar", r"feedback\.scores: foo\.bar cannot be imported"),
        ({"_target_": "builtins.int"}, r"feedback\.scores=.* is a int, which cannot be called"),
    ],
)
def test_a_measure_that_is_none_is_said_with_its_key_before_training(scores: Any, said: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=said) as error:
        fitted(_mixed(tmp_path, feedback={"scores": scores}), tmp_path, 1)
    assert "refill=sync" not in str(error.value)


@pytest.mark.parametrize(
    ("settings", "times"),
    [({}, 0), ({"allocation": {"0": 1}}, 1), ({"allocation": {"0": 1}, "feedback": None}, 0)],
    ids=["all are drawn", "one is drawn", "without feedback"],
)
def test_a_window_of_classes_that_are_never_drawn_is_said_once(
    settings: dict[str, Any], times: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fitted(_mixed(tmp_path, planner="uniform", **settings), tmp_path, 2)
    assert caplog.text.count("75% of the window is of classes of which no synthetic sample is drawn") == times


@pytest.mark.parametrize("lost", [False, True])
def test_a_resume_without_its_plans_says_so(lost: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    checkpoint = tmp_path / "interrupted.ckpt"
    with pytest.raises(InterruptedError):
        fitted(
            _mixed(tmp_path), tmp_path, callbacks=[SaveAndStop("on_train_batch_end", 8, checkpoint)]
        )  # in the second epoch
    if lost:
        own_pool(tmp_path).rename(tmp_path / "elsewhere")
    resumed = fitted(_mixed(tmp_path), tmp_path, ckpt_path=checkpoint)
    assert len(resumed.seen["train"]) == EPOCHS * BATCHES - 8
    assert ("at the end of its epoch 0 is not in the cache folder" in caplog.text) == lost


def test_a_late_resume_finds_its_own_pool(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    checkpoint = tmp_path / "interrupted.ckpt"
    with pytest.raises(InterruptedError):
        fitted(_mixed(tmp_path), tmp_path, callbacks=[SaveAndStop("on_train_batch_end", 8, checkpoint)])
    pool, then = own_pool(tmp_path), time.time() - 2 * KEPT_SECONDS
    held = SyntheticPool.open(pool).slots()
    for path in [*pool.rglob("*"), pool]:
        os.utime(path, (then, then))
    times = {slot: (pool / "slots" / f"{slot:09d}.safetensors").stat().st_mtime for slot in held}
    fitted(_mixed(tmp_path), tmp_path, ckpt_path=checkpoint)
    kept = [slot for slot in held if (pool / "slots" / f"{slot:09d}.safetensors").stat().st_mtime == times[slot]]
    assert held
    assert kept == held, "none was made again"
    assert "is not in the cache folder" not in caplog.text


@pytest.mark.parametrize("first", [True, False], ids=["before any plan", "after a plan"])
def test_a_folder_of_plans_that_cannot_be_used_does_not_end_training(
    first: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Loop(Callback):
        def on_train_batch_end(self, *_: Any) -> None:
            plans = own_pool(tmp_path) / "plans"
            if plans.is_symlink() or (not first and not plans.exists()):
                return
            if plans.exists():
                plans.rename(plans.with_name("before"))
            plans.symlink_to(plans)

    learner = fitted(_mixed(tmp_path), tmp_path, callbacks=[Loop()])
    assert len(learner.seen["train"]) == EPOCHS * BATCHES
    said = [record for record in caplog.records if "the plans cannot be read or written" in record.getMessage()]
    assert len([record for record in said if record.levelno >= logging.ERROR]) == 1
    assert "The plans cannot be read (" in caplog.text, "the refill says it too"
    labels = _labels(SyntheticPool.open(own_pool(tmp_path)), SyntheticPool.open(own_pool(tmp_path)).slots()[-2:])
    assert (labels.tolist() == [0.25] * CLASSES) == first, "a plan that was read holds on"


def test_a_resume_whose_plans_cannot_be_read_goes_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    checkpoint = tmp_path / "interrupted.ckpt"
    with pytest.raises(InterruptedError):
        fitted(_mixed(tmp_path), tmp_path, callbacks=[SaveAndStop("on_train_batch_end", 8, checkpoint)])
    plans = own_pool(tmp_path) / "plans"
    plans.rename(plans.with_name("before"))
    plans.symlink_to(plans)
    resumed = fitted(_mixed(tmp_path), tmp_path, ckpt_path=checkpoint)
    assert len(resumed.seen["train"]) == EPOCHS * BATCHES - 8
    assert "the plans of the resumed run cannot be read" in caplog.text
