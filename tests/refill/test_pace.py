"""`refill.duty` is the share of the time in which a generator computes, and changes no sample."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import psutil
import pytest
from refill_toys import Spinning, job_for, need, status, until, worker

from lightning_diffaug.pool import SyntheticPool
from lightning_diffaug.refill.filler import Filler
from lightning_diffaug.refill.pace import Pace
from lightning_diffaug.refill.status import STATUS, Reporter


class Clock:
    """Time that passes only when somebody works or sleeps; `late` is how much too long each sleep is."""

    def __init__(self, late: float = 0.0) -> None:
        self.now = 0.0
        self.late = late
        self.naps: list[float] = []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.naps.append(seconds)
        self.now += seconds + self.late


@pytest.mark.parametrize("duty", [1.0, 0.9, 0.5, 0.1])
@pytest.mark.parametrize("late", [0.0, 0.03])
def test_work_takes_its_share_of_the_time_also_where_sleeps_are_too_long(duty: float, late: float) -> None:
    clock = Clock(late)
    pace = Pace(duty, clock, clock.sleep)
    worked = 0.0
    for step in range(200):
        clock.now += 0.013
        worked += 0.013
        pace.settle(lambda: None) if step % 10 == 9 else pace.breathe(lambda: None)
    assert worked / clock.now == pytest.approx(duty, rel=0.1)
    assert pace.rested == pytest.approx(clock.now - worked)


def test_a_rest_shows_life_all_the_time_and_is_bounded_within_a_pass() -> None:
    clock, beats = Clock(), []
    pace = Pace(0.1, clock, clock.sleep)
    clock.now += 2.0
    pace.breathe(lambda: beats.append(clock.now))
    assert clock.now == pytest.approx(2.0 + 5.0), "who works may have a deadline: no more than 5 s of the 18"
    pace.settle(lambda: beats.append(clock.now))
    assert clock.now == pytest.approx(20.0), "the rest of it, after the pass"
    assert max(clock.naps) <= 0.1
    assert len(beats) == len(clock.naps) >= 180


def test_idle_time_is_no_work() -> None:
    clock = Clock()
    pace = Pace(0.5, clock, clock.sleep)
    clock.now += 100.0
    pace.start()
    clock.now += 1.0
    pace.settle(lambda: None)
    assert clock.now == pytest.approx(102.0)


def test_a_thread_that_only_shows_life_takes_no_work_off_the_clock() -> None:
    clock = Clock()
    pace = Pace(0.5, clock, clock.sleep)
    clock.now += 1.0
    helper = threading.Thread(target=pace.breathe, args=(lambda: None,))
    helper.start()
    helper.join()
    assert clock.now == 1.0
    pace.settle(lambda: None)
    assert clock.now == pytest.approx(2.0)


@pytest.mark.parametrize("tells", [True, False], ids=["tells how far it is", "is silent within a pass"])
def test_the_measured_share_is_the_duty_and_slots_are_bit_equal(tmp_path: Path, tells: bool) -> None:
    contents: dict[float, list[str]] = {}
    for duty in (1.0, 0.25):
        generator = Spinning()
        job = job_for(generator, tmp_path / str(duty))
        pool, reporter = job.create_pool(generator, None), Reporter(Path(job.run_dir) / STATUS)
        recipe = job.recipe(generator if tells else generator.generate)
        filler = Filler(recipe, pool, reporter, job.run_id, duty=duty)
        started = time.perf_counter()
        while filler.step(range(5)):
            pass
        share = generator.busy / (time.perf_counter() - started)
        assert (generator.rested > generator.busy) == (tells and duty < 1.0), "it rests between steps where it can"
        assert 0.6 * duty < share < 1.2 * duty + 0.05, f"asked for {duty}"
        assert reporter.status.generator_seconds < 3 * generator.busy, "a rest is no work of the generator"
        shards = [pool.read(k) for k in pool.slots()]
        assert sum(shard.made["seconds"] for shard in shards) < 3 * generator.busy
        contents[duty] = [shard.content for shard in shards]
    assert contents[1.0] == contents[0.25]
    assert len(contents[1.0]) == 5


def test_the_refill_process_keeps_to_the_duty_and_shows_life_while_it_rests(tmp_path: Path) -> None:
    job = job_for(Spinning(0.2), tmp_path, duty=0.1)
    need(job, 2)
    with worker(job) as pid:
        pool = until(lambda: status(job).pool and SyntheticPool.open(status(job).pool))
        until(lambda: pool.has(0))
        process, path = psutil.Process(pid), Path(job.run_dir) / STATUS
        before, started, stamps = process.cpu_times(), time.monotonic(), set()
        while not pool.has(1):
            assert time.monotonic() - started < 60
            stamps.add(path.stat().st_mtime_ns)
            time.sleep(0.05)
        now = process.cpu_times()
        used = now.user + now.system - before.user - before.system
        assert used / (time.monotonic() - started) < 0.3
        assert len(stamps) >= 2
