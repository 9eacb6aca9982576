from __future__ import annotations

import logging
import os
import resource
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from lightning_diffaug.errors import DamagedShardError, PoolError
from lightning_diffaug.pool import (
    EpochCache,
    PoolHeader,
    Segment,
    Shard,
    SyntheticPool,
    UnavailableSlotsError,
)

MakeShard = Callable[..., Shard]
Forked = Callable[[Callable[[], object]], int]


@pytest.fixture(autouse=True)
def small_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    """Segments of at least 24 rows (3 slots of 8), so that few slots show what many do."""
    monkeypatch.setattr("lightning_diffaug.pool.epoch_cache.SEGMENT_ROWS", 24)


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[EpochCache]:
    cache = EpochCache(tmp_path / "cache")
    yield cache
    cache.close()


def fill(pool: SyntheticPool, slots: range, make_shard: MakeShard, **options: int) -> None:
    for k in slots:
        pool.publish(k, make_shard(k, **options))


def damage(path: Path, at: int = -1) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 0xFF
    path.write_bytes(data)


def assert_holds(segments: list[Segment], pool: SyntheticPool, slots: list[int]) -> None:
    shards = [pool.read(k) for k in slots]
    for name in ("image", "label"):
        want = torch.cat([shard.fields[name] for shard in shards])
        assert torch.equal(torch.cat([segment.fields[name] for segment in segments]), want)
        assert torch.equal(torch.cat([s.take(torch.arange(len(s)))[name] for s in segments]), want)
    assert [k for s in segments for k in s.slots] == slots
    assert torch.cat([s.slot for s in segments]).tolist() == [
        k for k, x in zip(slots, shards, strict=True) for _ in x.rows
    ]
    assert torch.cat([s.row for s in segments]).tolist() == [i for x in shards for i in range(x.n)]
    texts = [text for s in segments for text in s.strings(range(len(s)))["prompt"]]
    assert texts == [text for x in shards for text in x.strings["prompt"]]


@pytest.mark.parametrize("slots", [range(1), range(2), range(3, 20), range(5, 8)])
def test_segments_hold_just_the_windows_rows_in_order(
    pool: SyntheticPool, cache: EpochCache, make_shard: MakeShard, slots: range
) -> None:
    fill(pool, range(25), make_shard)
    assert_holds(cache.gather(pool, slots), pool, list(slots))


def test_segments_are_few_and_large(pool: SyntheticPool, cache: EpochCache, make_shard: MakeShard) -> None:
    fill(pool, range(40), make_shard, n=5)
    for first in range(8):
        segments = cache.gather(pool, range(first, first + 30))
        assert all(len(segment) >= 24 for segment in segments)
        assert len(segments) >= 2
    assert len(cache.gather(pool, range(2))) == 1, "a window below the size is one segment"


def test_a_window_that_moves_on_keeps_its_inner_segments(
    pool: SyntheticPool, cache: EpochCache, make_shard: MakeShard
) -> None:
    fill(pool, range(40), make_shard)
    before = {s.path.name: s.path.stat().st_ino for s in cache.gather(pool, range(1, 31))}
    after = {s.path.name: s.path.stat().st_ino for s in cache.gather(pool, range(2, 32))}
    kept = before.keys() & after.keys()
    assert len(kept) >= len(after) - 2
    assert all(before[name] == after[name] for name in kept)


def test_slots_without_rows_block_nothing(pool: SyntheticPool, cache: EpochCache, make_shard: MakeShard) -> None:
    fill(pool, range(0, 8, 2), make_shard)
    for k in range(1, 8, 2):
        pool.publish(k, Shard({}, rejected=[{"reason": "all rejected"}]))
    segments = cache.gather(pool, range(8))
    assert [k for s in segments for k in s.slots] == list(range(8))
    assert torch.cat([s.slot for s in segments]).unique().tolist() == [0, 2, 4, 6]
    assert_holds(cache.gather(pool, range(0, 8, 2)), pool, [0, 2, 4, 6])


def test_a_window_of_empty_slots_has_no_rows(pool: SyntheticPool, cache: EpochCache) -> None:
    for k in range(2):
        pool.publish(k, Shard({}, rejected=[{"reason": "all rejected"}]))
    assert [len(segment) for segment in cache.gather(pool, range(2))] == [0]
    assert cache.gather(pool, []) == []


def test_a_window_with_holes_is_not_taken_for_one_without(
    pool: SyntheticPool, cache: EpochCache, make_shard: MakeShard
) -> None:
    fill(pool, range(6), make_shard)
    for slots in ([0, 1, 2, 3, 4, 5], [0, 1, 3, 4, 5], [0, 2, 3, 4, 5], [0, 5]):
        assert_holds(cache.gather(pool, slots), pool, slots)


def test_slots_out_of_order_are_refused(pool: SyntheticPool, cache: EpochCache) -> None:
    for slots in ([1, 0], [0, 0]):
        with pytest.raises(ValueError, match="ascending"):
            cache.gather(pool, slots)


def test_all_damaged_and_missing_slots_are_named_at_once(
    pool: SyntheticPool, cache: EpochCache, make_shard: MakeShard
) -> None:
    fill(pool, range(20), make_shard)
    damage(pool.path(2))
    damage(pool.path(7), at=12)  # the header, which the counts are taken from
    damage(pool.path(8))
    damage(pool.path(15))
    for k in (4, 18):
        pool.path(k).unlink()
    with pytest.raises(
        UnavailableSlotsError, match=r"slots \[4, 18\] are not published; slots \[2, 7, 8, 15\]"
    ) as caught:
        cache.gather(pool, range(20))
    assert list(caught.value.damaged) == [2, 7, 8, 15]
    assert caught.value.missing == (4, 18)
    assert isinstance(caught.value, DamagedShardError)
    assert isinstance(caught.value, FileNotFoundError)
    for k in (2, 4, 7, 8, 15, 18):
        assert pool.publish(k, make_shard(k))
    assert_holds(cache.gather(pool, range(20)), pool, list(range(20)))


def test_damage_at_any_region_never_reaches_a_segment(
    pool: SyntheticPool, tmp_path: Path, make_shard: MakeShard
) -> None:
    size = 0
    for attempt in range(40):
        pool.publish(0, make_shard(0))
        size = size or pool.path(0).stat().st_size
        damage(pool.path(0), at=attempt * size // 40)
        with pytest.raises(UnavailableSlotsError):
            EpochCache(tmp_path / f"c{attempt}").gather(pool, [0])


@pytest.mark.parametrize("claimed", [b"0", b"3", b"9"])
def test_a_header_with_a_wrong_count_neither_hides_a_slot_nor_sticks(
    pool: SyntheticPool, cache: EpochCache, make_shard: MakeShard, claimed: bytes
) -> None:
    fill(pool, range(3), make_shard)
    data = pool.path(1).read_bytes()
    assert data.count(b'"n":"8"') == 1
    pool.path(1).write_bytes(data.replace(b'"n":"8"', b'"n":"' + claimed + b'"'))
    with pytest.raises(UnavailableSlotsError) as caught:
        cache.gather(pool, range(3))
    assert list(caught.value.damaged) == [1]
    pool.publish(1, make_shard(1))
    assert_holds(cache.gather(pool, range(3)), pool, [0, 1, 2])


def test_a_damaged_segment_is_set_aside_and_made_again(
    pool: SyntheticPool, tmp_path: Path, make_shard: MakeShard, caplog: pytest.LogCaptureFixture
) -> None:
    fill(pool, range(3), make_shard)
    (segment,) = EpochCache(tmp_path / "c").gather(pool, range(3))
    for at in (0, 9, 200, -1):
        damage(segment.path, at)
        cache = EpochCache(tmp_path / "c")  # a run that was restarted
        with caplog.at_level(logging.WARNING):
            assert_holds(cache.gather(pool, range(3)), pool, [0, 1, 2])
        assert "damaged" in caplog.text
        caplog.clear()
    assert len(list((tmp_path / "c" / "damaged").iterdir())) == 4
    segment.path.write_bytes(b"")
    assert_holds(EpochCache(tmp_path / "c").gather(pool, range(3)), pool, [0, 1, 2])


def test_a_segment_replaced_behind_our_back_is_verified_again(
    pool: SyntheticPool, cache: EpochCache, make_shard: MakeShard, caplog: pytest.LogCaptureFixture
) -> None:
    fill(pool, range(3), make_shard)
    (segment,) = cache.gather(pool, range(3))
    data = bytearray(segment.path.read_bytes())
    data[-1] ^= 1
    new = segment.path.with_suffix(".new")
    new.write_bytes(data)
    new.replace(segment.path)
    with caplog.at_level(logging.WARNING):
        assert_holds(cache.gather(pool, range(3)), pool, [0, 1, 2])
    assert "damaged" in caplog.text


def test_the_segments_of_another_pool_are_not_used(
    pool: SyntheticPool, cache: EpochCache, tmp_path: Path, make_shard: MakeShard
) -> None:
    other = SyntheticPool.create(tmp_path / "other", PoolHeader("0" * 24, {}, 8, {}))
    for k in range(3):
        pool.publish(k, make_shard(k))
        other.publish(k, make_shard(100 + k))
    cache.gather(pool, range(3))
    assert_holds(cache.gather(other, range(3)), other, [0, 1, 2])


def test_a_gathered_window_outlives_its_slots(pool: SyntheticPool, cache: EpochCache, make_shard: MakeShard) -> None:
    fill(pool, range(3), make_shard)
    cache.gather(pool, range(3))
    assert pool.drop_beyond(0) == [0, 1, 2]
    (segment,) = cache.gather(pool, range(3))
    assert torch.equal(segment.fields["image"][8:16], make_shard(1).fields["image"])


def test_slots_that_do_not_fit_together_are_named(
    pool: SyntheticPool, cache: EpochCache, make_shard: MakeShard
) -> None:
    pool.publish(0, make_shard(0))
    pool.publish(1, make_shard(1, shape=(3, 4, 4)))
    with pytest.raises(PoolError, match=r"slot 1 holds .*but slot 0 holds"):
        cache.gather(pool, range(2))
    assert not list((cache.folder).glob("*"))


def test_processes_of_a_node_share_the_segments(
    pool: SyntheticPool, tmp_path: Path, make_shard: MakeShard, forked: Forked
) -> None:
    fill(pool, range(12), make_shard)

    def work() -> None:
        assert_holds(EpochCache(tmp_path / "c").gather(pool, range(12)), pool, list(range(12)))

    pids = [forked(work) for _ in range(6)]
    assert [os.waitpid(pid, 0)[1] for pid in pids] == [0] * 6
    names = sorted(p.name for p in (tmp_path / "c").iterdir())
    assert len(names) == 4
    assert not any(name.startswith(".tmp") for name in names)


def test_a_full_disk_is_an_error_that_names_the_folder(
    pool: SyntheticPool, tmp_path: Path, make_shard: MakeShard, forked: Forked
) -> None:
    fill(pool, range(3), make_shard)

    def work() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (500, 500))
        with pytest.raises(PoolError, match=r"paths\.cache_dir"):
            EpochCache(tmp_path / "c").gather(pool, range(3))

    assert os.waitpid(forked(work), 0)[1] == 0
    assert not list((tmp_path / "c").iterdir())


def test_prune_removes_what_no_epoch_needs_and_mapped_rows_stay_readable(
    pool: SyntheticPool, cache: EpochCache, make_shard: MakeShard
) -> None:
    fill(pool, range(12), make_shard)
    old = cache.gather(pool, range(6))
    new = cache.gather(pool, range(3, 12))
    (cache.folder / "mine.txt").write_text("mine")
    removed = cache.prune(new)
    assert {p.name for p in removed} == {s.path.name for s in old} - {s.path.name for s in new}
    assert old[0].take([0])["image"].shape == (1, 1, 4, 4)
    assert_holds(cache.gather(pool, range(3, 12)), pool, list(range(3, 12)))
    assert (cache.folder / "mine.txt").exists()


def test_close_leaves_nothing_behind(pool: SyntheticPool, tmp_path: Path, make_shard: MakeShard) -> None:
    fill(pool, range(6), make_shard)
    cache = EpochCache(tmp_path / "c")
    cache.close()
    (segment, *_) = cache.gather(pool, range(6))
    damage(segment.path)
    segment.path.with_name(".tmp-000000000000-1-x").touch()
    os.utime(segment.path.with_name(".tmp-000000000000-1-x"), (0, 0))
    again = EpochCache(tmp_path / "c")
    again.gather(pool, range(6))
    again.close()
    again.close()
    assert not (tmp_path / "c").exists()


def test_close_deletes_nothing_of_others(
    pool: SyntheticPool, tmp_path: Path, make_shard: MakeShard, caplog: pytest.LogCaptureFixture
) -> None:
    fill(pool, range(2), make_shard)
    cache = EpochCache(tmp_path / "c")
    cache.gather(pool, range(2))
    (tmp_path / "c" / "thesis.safetensors").write_text("mine")
    with caplog.at_level(logging.WARNING):
        cache.close()
    assert [p.name for p in (tmp_path / "c").iterdir()] == ["thesis.safetensors"]
    assert "is not removed" in caplog.text


def test_gathering_again_costs_no_reading(
    pool: SyntheticPool, cache: EpochCache, make_shard: MakeShard, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(pool, range(12), make_shard)
    cache.gather(pool, range(12))
    for k in range(12):
        pool.path(k).unlink()
    monkeypatch.setattr("lightning_diffaug.pool.epoch_cache.check_file", lambda _: pytest.fail("read again"))
    assert sum(len(segment) for segment in cache.gather(pool, range(12))) == 96


def test_a_window_of_which_every_row_was_rejected_is_gathered_again_and_again(
    pool: SyntheticPool, cache: EpochCache, make_shard: MakeShard
) -> None:
    fill(pool, range(2), make_shard, n=0)
    for _ in range(2):
        (segment,) = cache.gather(pool, range(2))
        assert (len(segment), segment.slots) == (0, (0, 1))


def test_a_segment_that_is_spoilt_whenever_it_is_there_is_an_error_and_no_endless_loop(
    pool: SyntheticPool, cache: EpochCache, make_shard: MakeShard, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(pool, range(1), make_shard)
    put = cache._folder.put_if_absent

    def spoilt(name: str, *args: Any, **options: Any) -> bool:
        """What another process does that is faster, on a failing disk."""
        put(name, *args, **options)
        damage(cache.folder / name)
        return False

    monkeypatch.setattr(cache._folder, "put_if_absent", spoilt)
    with pytest.raises(PoolError, match=r"paths\.cache_dir"):
        cache.gather(pool, range(1))
