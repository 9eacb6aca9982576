"""Writers that are killed at any instant lose at most what they were writing."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from lightning_diffaug.pool import EpochCache, PoolHeader, Shard, SyntheticPool

MakeShard = Callable[..., Shard]
Forked = Callable[[Callable[[], object]], int]

pytestmark = pytest.mark.faults


def test_kill_9_of_two_writers_never_shows_a_partial_slot(
    tmp_path: Path, header: PoolHeader, make_shard: MakeShard, forked: Forked
) -> None:
    def write() -> None:
        pool = SyntheticPool.open(tmp_path)
        for k in range(10**6):
            if pool.claim(k, f"writer {os.getpid()}"):
                pool.publish(k, make_shard(k, shape=(3, 64, 64)))
                pool.release(k, f"writer {os.getpid()}")

    pool = SyntheticPool.create(tmp_path, header)
    delays, kills = random.Random(0), 0
    while kills < 48 or len(pool.slots()) <= 24:  # of two writers each time; a slow disk needs more of them
        kills += 2
        pids = [forked(write) for _ in range(2)]
        time.sleep(delays.uniform(0.01, 0.12))
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        for pid in pids:
            os.waitpid(pid, 0)

    pool = SyntheticPool.open(tmp_path)
    slots = pool.slots()
    assert pool.verify() == {}
    assert all(pool.read(k).content == make_shard(k, shape=(3, 64, 64)).content for k in random.sample(slots, 10))
    assert not list(tmp_path.rglob(".tmp-*")), "what the dead left was removed when the pool was opened"
    # Slots that died in the making are free at once: nothing has to be waited for.
    assert pool.claims() == {}
    missing = set(range(slots[-1])) - set(slots)
    assert len(missing) <= 2
    assert all(pool.claim(k, "next") for k in missing)


def test_processes_that_publish_one_slot_together_agree(
    pool: SyntheticPool, make_shard: MakeShard, forked: Forked, tmp_path: Path
) -> None:
    def publish() -> None:
        while not (tmp_path / "go").exists():
            pass
        for k in range(20):
            if pool.publish(k, make_shard(k, writer=os.getpid())):
                (tmp_path / f"won-{k}-{os.getpid()}").touch()

    pids = [forked(publish) for _ in range(3)]
    (tmp_path / "go").touch()
    assert [os.waitpid(pid, 0)[1] for pid in pids] == [0] * 3
    for k in range(20):
        (winner,) = tmp_path.glob(f"won-{k}-*")
        shard = pool.read(k)
        assert shard.made["writer"] == int(winner.name.split("-")[-1])
        assert shard.content == make_shard(k).content
    assert not list(tmp_path.rglob(".tmp-*"))


def test_kill_9_of_a_gatherer_never_shows_a_partial_segment(
    pool: SyntheticPool, tmp_path: Path, make_shard: MakeShard, forked: Forked
) -> None:
    for k in range(6):
        pool.publish(k, make_shard(k, shape=(3, 64, 64)))

    def gather() -> None:
        while True:
            cache = EpochCache(tmp_path / "cache")
            for first in range(4):
                cache.gather(pool, range(first, first + 3))
            cache.prune([])

    delays = random.Random(1)
    for _ in range(12):
        pid = forked(gather)
        time.sleep(delays.uniform(0.005, 0.06))
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        for first in range(4):
            (segment,) = EpochCache(tmp_path / "cache").gather(pool, range(first, first + 3))
            assert len(segment) == 24
    EpochCache(tmp_path / "cache").close()
    assert not (tmp_path / "cache").exists()
