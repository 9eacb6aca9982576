"""A generator whose samples are nearly all rejected is stopped, and the text says by which gate and what to change."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from refill_toys import SLOT, Faulty, Steady, drawn, job_for, watched
from torch import Tensor

from lightning_diffaug.errors import TooFewAcceptedError
from lightning_diffaug.refill.filler import Filler
from lightning_diffaug.refill.in_process import InProcessRefill
from lightning_diffaug.refill.local import LocalRefill
from lightning_diffaug.refill.status import STATUS, Reporter


class Rarely:
    """One sample in `every` is good, counted over all that it makes."""

    def __init__(self, every: int) -> None:
        self.every = every
        self.made = 0

    def generate(self, condition: Mapping[str, Any], seeds: Sequence[int]) -> Tensor:
        number = torch.arange(self.made, self.made + len(seeds))
        self.made += len(seeds)
        return drawn(condition, seeds) + 5.0 * (number % self.every != 0).view(-1, 1, 1, 1)


class Hardest:
    """Chooses the best of 40 candidates."""

    name = "hard"
    candidates = 40

    def __call__(self, samples: Mapping[str, Tensor], condition: Mapping[str, Any]) -> Tensor:
        return torch.ones(len(samples["image"]), dtype=torch.bool)

    def rank(self, samples: Mapping[str, Tensor], condition: Mapping[str, Any]) -> Tensor:
        return samples["image"].flatten(1).mean(1)


def _filler(root: Path, generator: Any, least: float, gates: Sequence[Any] = (), run_id: str = "run") -> Filler:
    job = job_for(generator, root, run_id=run_id)
    recipe = job.recipe(generator)
    recipe = dataclasses.replace(recipe, gates=(*recipe.gates, *gates))
    reporter = Reporter(Path(job.run_dir) / f"{run_id}-{STATUS}")
    return Filler(recipe, job.create_pool(generator, None), reporter, run_id, min_acceptance=least)


def _fill(filler: Filler, slots: range) -> list[int]:
    while filler.step(slots):
        pass
    return filler._pool.slots()


def test_filling_ends_after_four_slots_of_rejected_samples_and_names_the_gate_and_the_remedy(tmp_path: Path) -> None:
    filler = _filler(tmp_path, Faulty("nan"), 0.05)
    with pytest.raises(TooFewAcceptedError) as raised:
        _fill(filler, range(20))
    assert filler._pool.slots() == [0, 1, 2, 3]
    assert filler._pool.claims() == {}
    said = str(raised.value)
    assert f"of the {4 * 2 * SLOT} samples made for slots 0 to 3, 0 passed" in said
    assert f"finite {4 * 2 * SLOT} (100%)" in said
    assert "NaN" in said
    for key in ("refill.min_acceptance", "generator.fit.steps", "data.keep_rejected"):
        assert key in said

    # Another run, which finds the four, stops where this one did, before it makes any.
    other = _filler(tmp_path, Faulty("nan"), 0.05, run_id="other")
    with pytest.raises(TooFewAcceptedError):
        _fill(other, range(20))
    assert other._reporter.status.generated == 0
    assert other._pool.slots() == [0, 1, 2, 3]


@pytest.mark.parametrize(("least", "stops"), [(0.0, False), (0.05, False), (0.5, True)])
def test_the_bound_is_the_share_asked_for(least: float, stops: bool, tmp_path: Path) -> None:
    filler = _filler(tmp_path, Rarely(4), least)
    if stops:
        with pytest.raises(TooFewAcceptedError, match="range"):
            _fill(filler, range(8))
    assert filler._pool.slots() == [0, 1, 2, 3] if stops else _fill(filler, range(8)) == list(range(8))


def test_a_few_bad_slots_among_good_ones_stop_nothing(tmp_path: Path) -> None:
    assert _fill(_filler(tmp_path, Faulty("nan", [1, 2, 3, 6]), 0.05), range(9)) == list(range(9))


def test_what_lost_against_a_better_candidate_counts_as_accepted(tmp_path: Path) -> None:
    filler = _filler(tmp_path, Steady(), 0.05, [Hardest()])
    assert _fill(filler, range(6)) == list(range(6))
    status = filler._reporter.status
    assert status.admitted == 6 * SLOT
    assert status.rejections == {"hard": 39 * 6 * SLOT}, "under the bound, if these were rejections"


def test_the_trainers_own_process_gives_up_and_training_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    job = job_for(Faulty("nan"), tmp_path, min_acceptance=0.05)
    refill = InProcessRefill(dataclasses.replace(job, cache_dir=job.run_dir), Faulty("nan"), lambda: None)
    refill.need(0, 20)
    assert "refill.min_acceptance=0.05" in refill.gave_up
    assert refill.status.slots == 4
    refill.need(0, 30)
    assert refill.status.slots == 4
    assert caplog.text.count("Training goes on") == 1
    refill.close()


@pytest.mark.faults
def test_the_refill_process_is_not_started_again_and_training_goes_on(
    start: Callable[..., LocalRefill], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    refill = start(Faulty("nan"), max_restarts=5, backoff=0.0)
    refill.need(0, 20)
    watched(refill, lambda: refill.gave_up)
    assert "a restart would not help" in refill.gave_up
    assert "finite 64 (100%)" in refill.gave_up
    assert not refill.misconfigured, "it is no wrong setting: training goes on, also without a first window"
    assert refill.pool().slots() == [0, 1, 2, 3]  # type: ignore[union-attr]
    assert caplog.text.count("Training goes on") == 1
    assert "restart 1" not in caplog.text
