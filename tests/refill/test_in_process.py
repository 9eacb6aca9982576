"""``refill=none`` and the trainer's own process: P4 holds there too, and the trainer's state is left as it was."""

from __future__ import annotations

import dataclasses
import logging
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from refill_toys import SLOT, Faulty, Fitted, Steady, job_for, snapshot, status

from lightning_diffaug.errors import ConfigurationError
from lightning_diffaug.refill.fill_slot import fill_slot
from lightning_diffaug.refill.in_process import InProcessRefill, NoRefill


def _refill(generator: Any, root: Path, data: Any = snapshot) -> InProcessRefill:
    job = job_for(generator, root)
    return InProcessRefill(dataclasses.replace(job, cache_dir=job.run_dir), generator, data)


def test_makes_what_is_needed_at_once_and_nothing_else(tmp_path: Path) -> None:
    refill = _refill(Steady(), tmp_path)
    refill.need(2, 5)
    pool = refill.pool()
    assert pool is not None
    assert pool.slots() == [2, 3, 4]
    assert (refill.status.generated, refill.status.slots) == (3 * SLOT, 3)
    refill.close()
    refill.close()
    assert not list((tmp_path / "runs").iterdir())


@pytest.mark.parametrize("generator", [Steady(), Fitted()], ids=["filling", "fitting"])
def test_the_trainers_random_states_and_threads_are_as_they_were(generator: Any, tmp_path: Path) -> None:
    torch.set_num_threads(2)
    random.seed(5), np.random.seed(5), torch.manual_seed(5)
    states = random.getstate(), np.random.get_state()[1].copy(), torch.get_rng_state()
    refill = _refill(generator, tmp_path)
    refill.need(0, 2)
    refill.close()
    assert random.getstate() == states[0]
    assert (np.random.get_state()[1] == states[1]).all()
    assert torch.equal(torch.get_rng_state(), states[2])
    assert torch.get_num_threads() == 2


def test_one_bad_slot_blocks_nothing(tmp_path: Path) -> None:
    refill = _refill(Faulty("raise", [1]), tmp_path)
    refill.need(0, 4)
    pool = refill.pool()
    assert pool is not None
    assert refill.gave_up == ""
    assert [pool.read(k).n for k in range(4)] == [SLOT, 0, SLOT, SLOT]


@pytest.mark.parametrize("how", ["raise", "exit"])
def test_a_generator_that_always_fails_is_given_up_and_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, how: str
) -> None:
    refill = _refill(Faulty(how), tmp_path)
    for _ in range(3):
        refill.need(0, 3)
    assert "the generator raised" in refill.gave_up
    assert refill.pool().slots() == []  # type: ignore[union-attr]
    said = [record for record in caplog.records if "Training goes on" in record.getMessage()]
    assert len(said) == 1
    assert said[0].levelno == logging.ERROR


def test_a_live_generator_is_fitted_first_and_a_fit_that_fails_is_given_up(tmp_path: Path) -> None:
    generator = Fitted()
    refill = _refill(generator, tmp_path / "good")
    refill.need(0, 1)
    assert generator.mean != 0
    assert refill.status.fit_seconds > 0
    assert refill.pool().slots() == [0]  # type: ignore[union-attr]
    broken = _refill(Fitted(broken=True), tmp_path / "bad")
    broken.need(0, 1)
    assert "the loss is not finite" in broken.gave_up
    assert broken.pool().slots() == []  # type: ignore[union-attr]


def test_a_fit_without_training_data_says_what_to_give(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="raw="):
        _refill(Fitted(), tmp_path, lambda: None).need(0, 1)


def test_no_refill_uses_what_is_there(tmp_path: Path) -> None:
    job = job_for(Steady(), tmp_path)
    pool = job.create_pool(Steady(), None)
    pool.publish(0, fill_slot(0, job.recipe(Steady())))
    refill = NoRefill(job, Steady())
    refill.need(0, 4)
    refill.poll()
    assert refill.pool().slots() == [0]  # type: ignore[union-attr]
    assert refill.status.generated == 0
    assert "refill=none" in refill.gave_up
    refill.close()
    assert not Path(job.run_dir).exists()
    assert status(job).slots == 0


def test_no_refill_of_a_generator_that_is_not_fitted_says_what_to_do(tmp_path: Path) -> None:
    refill = NoRefill(job_for(Fitted(), tmp_path), Fitted())
    assert refill.pool() is None
    assert "refill=local" in refill.gave_up


def test_a_setting_that_only_the_fit_can_judge_is_the_users_to_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fit(*arguments: Any) -> None:
        raise ConfigurationError("Set generator.fit.steps to another one.")

    monkeypatch.setattr(Fitted, "fit", fit)
    with pytest.raises(ConfigurationError, match=r"generator\.fit\.steps"):
        _refill(Fitted(), tmp_path).need(0, 1)


def test_a_setting_that_only_sampling_finds_wrong_ends_training_before_its_first_slot_and_not_later(
    tmp_path: Path,
) -> None:
    with pytest.raises(ConfigurationError, match=r"generator\.how"):
        _refill(Faulty("setting"), tmp_path / "first").need(0, 1)
    later = _refill(Faulty("setting", [1]), tmp_path / "later")
    later.need(0, 1)
    later.need(0, 2)
    assert "generator.how" in later.gave_up
    assert later.status.slots == 1
