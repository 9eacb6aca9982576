"""P4: one bad slot blocks nothing and is left empty; a generator that always fails publishes nothing."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from refill_toys import SLOT, Faulty, Lazy, Steady, job_for

from lightning_diffaug.errors import ConfigurationError, GeneratorError
from lightning_diffaug.generators import pipeline_load
from lightning_diffaug.pool import SyntheticPool
from lightning_diffaug.refill.fill_slot import fill_slot
from lightning_diffaug.refill.filler import Filler
from lightning_diffaug.refill.status import STATUS, Reporter


class Parts:
    """A filler with its pool; `again` is the filler of a restarted process."""

    def __init__(self, generator: Any, root: Path, **changes: Any) -> None:
        self.job = job_for(generator, root, **changes)
        self.recipe = self.job.recipe(generator)
        self.pool: SyntheticPool = self.job.create_pool(generator, None)
        self.again()

    def again(self) -> Filler:
        self.reporter = Reporter(Path(self.job.run_dir) / STATUS)
        self.filler = Filler(self.recipe, self.pool, self.reporter, self.job.run_id, self.job.capacity)
        return self.filler

    def fill(self, slots: range) -> None:
        while self.filler.step(slots):
            pass


def test_fills_the_lowest_missing_slot_first_and_counts(tmp_path: Path) -> None:
    parts = Parts(Steady(), tmp_path)
    order = []
    while parts.filler.step(range(2, 6)):
        order.append([k for k in parts.pool.slots() if k not in order][-1])
    assert order == [2, 3, 4, 5] == parts.pool.slots()
    status = parts.reporter.status
    assert (status.slots, status.admitted, status.generated, status.rejected) == (4, 32, 32, 0)
    assert status.generator_seconds > 0
    assert parts.pool.claims() == {}


@pytest.mark.parametrize("bad", [[0], [3], [1, 2]])
def test_a_slot_that_always_fails_is_published_empty_with_its_reason(tmp_path: Path, bad: list[int]) -> None:
    parts = Parts(Faulty("raise", bad), tmp_path)
    try:
        parts.fill(range(4))
    except GeneratorError:  # two bad ones in a row look like a generator that fails: the restarted process goes on
        parts.again()
        parts.fill(range(4))
    for k in range(4):
        shard = parts.pool.read(k)
        assert shard.n == (0 if k in bad else SLOT)
        if k in bad:
            assert len(shard.rejected) == SLOT
            assert all("the toy is broken" in entry["reason"] for entry in shard.rejected)
    assert parts.pool.claims() == {}
    assert parts.reporter.status.trying is None


def test_a_bad_slot_is_tried_after_the_others(tmp_path: Path) -> None:
    parts = Parts(Faulty("raise", [0]), tmp_path)
    assert parts.filler.step(range(3))
    assert parts.pool.slots() == []
    assert parts.filler.step(range(3))
    assert parts.pool.slots() == [1]


def test_a_generator_that_always_raises_publishes_nothing_over_restarts(tmp_path: Path) -> None:
    parts = Parts(Faulty("raise"), tmp_path)
    for _ in range(8):
        with pytest.raises(GeneratorError, match="the toy is broken"):
            parts.fill(range(2))
        parts.again()
    assert parts.pool.slots() == []
    assert parts.reporter.status.generated == 0
    assert "the toy is broken" in parts.reporter.status.failure


def test_a_generator_that_breaks_for_good_leaves_no_slot_empty(tmp_path: Path) -> None:
    parts = Parts(Steady(), tmp_path)
    parts.fill(range(3))
    parts.recipe = parts.job.recipe(Faulty("raise"))
    for _ in range(5):
        parts.again()
        with pytest.raises(GeneratorError):
            parts.fill(range(5))
    assert parts.pool.slots() == [0, 1, 2]


def test_a_slot_over_which_the_process_was_killed_counts_as_failed(tmp_path: Path) -> None:
    parts = Parts(Steady(), tmp_path)
    for _ in range(3):
        parts.reporter.status.trying = 0  # what a killed process leaves in its status
        parts.reporter.write()
        parts.again()
    assert parts.filler.step(range(2))
    assert parts.pool.slots() == [1], "the others come first"
    parts.fill(range(2))
    assert parts.pool.read(0).n == 0
    assert "ended while" in parts.pool.read(0).rejected[0]["reason"]


def test_a_slot_made_again_is_bit_equal(tmp_path: Path) -> None:
    parts = Parts(Steady(), tmp_path)
    parts.fill(range(2))
    before = parts.pool.read(1)
    parts.pool.path(1).unlink()
    parts.again()
    parts.fill(range(2))
    assert parts.pool.read(1).content == before.content == fill_slot(1, parts.recipe).content


def test_a_slot_that_another_run_makes_is_left_to_it(tmp_path: Path) -> None:
    parts = Parts(Steady(), tmp_path)
    assert parts.pool.claim(0, "another")
    parts.fill(range(2))
    assert parts.pool.slots() == [1]
    parts.pool.release(0, "another")
    parts.fill(range(2))
    assert parts.pool.slots() == [0, 1]


def test_capacity_drops_the_oldest_beyond_it(tmp_path: Path) -> None:
    parts = Parts(Steady(), tmp_path, capacity=2)
    with_lease = parts.pool.lease("reader")
    with_lease.update(2, 4)
    parts.fill(range(2))
    parts.fill(range(2, 4))
    assert parts.pool.slots() == [2, 3]
    with_lease.close()


def test_what_a_generator_loads_shows_life_and_is_neither_a_slots_time_nor_work_to_rest_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline_load, "_BEAT_SECONDS", 0.1)
    generator = Lazy()
    parts = Parts(generator, tmp_path)
    generator.watched = str(Path(parts.job.run_dir) / STATUS)  # written again a second later, if at all
    parts.filler = Filler(parts.recipe, parts.pool, parts.reporter, parts.job.run_id, duty=0.1)
    parts.fill(range(0))
    assert generator.calls == [], "there is nothing to make"
    parts.fill(range(3))
    assert generator.calls == ["ready", "generate", "generate", "generate"]
    since = time.perf_counter() - generator.ready_at
    assert 0 < parts.reporter.status.generator_seconds < since
    assert 0 < sum(parts.pool.read(k).made["seconds"] for k in range(3)) < since
    assert since < 9 * generator.seconds, "a tenth of the time is the generator's, and loading is none of it"


@pytest.mark.parametrize(("how", "kind"), [("raise", GeneratorError), ("setting", ConfigurationError)])
def test_what_cannot_be_loaded_is_no_slots_fault(how: str, kind: type[Exception], tmp_path: Path) -> None:
    parts = Parts(Lazy(how=how), tmp_path)
    for _ in range(2):
        with pytest.raises(kind, match="the toy is broken" if how == "raise" else r"generator\.how"):
            parts.again().step(range(3))
    assert (parts.pool.slots(), parts.pool.claims(), parts.reporter.status.failures) == ([], {}, {})
