from __future__ import annotations

import dataclasses
import json
import logging
import os
import pickle
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from lightning_diffaug.errors import ConfigurationError, DamagedShardError, PoolError, PoolFormatError
from lightning_diffaug.pool import PoolHeader, Shard, SyntheticPool

MakeShard = Callable[..., Shard]
Forked = Callable[[Callable[[], object]], int]


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 0xFF
    path.write_bytes(data)


def test_a_published_slot_is_read_as_it_was_made(pool: SyntheticPool, make_shard: MakeShard) -> None:
    assert not pool.has(42)
    assert pool.publish(42, make_shard(42))
    assert pool.path(42) == pool.folder / "slots" / "000000042.safetensors"
    assert pool.has(42)
    assert pool.slots() == [42]
    assert pool.read(42).content == make_shard(42).content


def test_a_second_publication_is_harmless(pool: SyntheticPool, make_shard: MakeShard) -> None:
    pool.publish(0, make_shard(0, seconds=1))
    assert not pool.publish(0, make_shard(0, seconds=2))
    assert pool.read(0).made == {"seconds": 1}


def test_slots_are_numbers_not_names(pool: SyntheticPool, make_shard: MakeShard) -> None:
    for k in (10, 2, 10**9, 10**11):
        pool.publish(k, make_shard(0))
    assert pool.slots() == [2, 10, 10**9, 10**11]
    assert SyntheticPool.open(pool.folder).read(10**11).n == 8


def test_a_slot_that_is_not_there_is_not_found(pool: SyntheticPool) -> None:
    with pytest.raises(FileNotFoundError):
        pool.read(0)
    with pytest.raises(PoolError, match="numbered from 0"):
        pool.read(-1)


def test_more_rows_than_a_slot_holds_are_refused(pool: SyntheticPool, make_shard: MakeShard) -> None:
    with pytest.raises(PoolError, match=r"9 rows but slot_size=8.*data\.slot_size"):
        pool.publish(0, make_shard(0, n=9))


def test_create_adopts_the_same_pool(pool: SyntheticPool, header: PoolHeader, make_shard: MakeShard) -> None:
    pool.publish(1, make_shard(1))
    again = SyntheticPool.create(pool.folder, header)
    assert again.slots() == [1]
    assert again.header == header == SyntheticPool.open(pool.folder).header


def test_processes_that_create_together_share_one_pool(
    tmp_path: Path, header: PoolHeader, make_shard: MakeShard, forked: Forked
) -> None:
    def work() -> None:
        SyntheticPool.create(tmp_path / "p", header).publish(os.getpid(), make_shard(0))

    pids = [forked(work) for _ in range(6)]
    assert [os.waitpid(pid, 0)[1] for pid in pids] == [0] * 6
    assert SyntheticPool.open(tmp_path / "p").slots() == sorted(pids)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (
            {"fingerprint": "e" * 24, "parts": {"seed": 1, "model": {"steps": 10}}},
            "parts.seed is 0, wanted 1",
        ),
        ({"slot_size": 16}, "slot_size is 8, wanted 16"),
        ({"spec": {}}, "spec is "),
    ],
)
def test_a_folder_with_other_samples_is_never_adopted(
    pool: SyntheticPool, header: PoolHeader, change: dict[str, object], text: str
) -> None:
    with pytest.raises(PoolError, match=text) as caught:
        SyntheticPool.create(pool.folder, dataclasses.replace(header, **change))  # type: ignore[arg-type]
    assert "paths.cache_dir" in str(caught.value)
    assert SyntheticPool.open(pool.folder).header == header


def test_another_format_version_is_refused_and_left_as_it_is(
    tmp_path: Path, header: PoolHeader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lightning_diffaug.pool.header.FORMAT_VERSION", 99)
    SyntheticPool.create(tmp_path, header)
    before = (tmp_path / "pool.json").read_bytes()
    monkeypatch.undo()
    for attempt in (lambda: SyntheticPool.open(tmp_path), lambda: SyntheticPool.create(tmp_path, header)):
        with pytest.raises(PoolFormatError, match=r"version 99.*paths\.cache_dir"):
            attempt()
    assert (tmp_path / "pool.json").read_bytes() == before


@pytest.mark.parametrize("text", ["", "{}", "[]", "3", "null", '{"checksum": 1', '{"checksum": 1}', '{"version": 1}'])
def test_a_damaged_header_is_refused(tmp_path: Path, header: PoolHeader, text: str) -> None:
    (tmp_path / "pool.json").write_text(text)
    for attempt in (lambda: SyntheticPool.open(tmp_path), lambda: SyntheticPool.create(tmp_path, header)):
        with pytest.raises(PoolFormatError, match="pool"):
            attempt()


def test_a_header_altered_by_hand_is_refused(pool: SyntheticPool) -> None:
    path = pool.folder / "pool.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "slot_size": 9}))
    with pytest.raises(PoolFormatError, match="altered"):
        SyntheticPool.open(pool.folder)


def test_a_folder_without_a_pool_says_so(tmp_path: Path) -> None:
    with pytest.raises(PoolError, match=r"holds no pool.*paths\.cache_dir"):
        SyntheticPool.open(tmp_path / "absent")


def test_a_header_takes_plain_values_only(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"parts\.model="):
        PoolHeader("a", {"model": tmp_path}, 8, {})
    with pytest.raises(ConfigurationError, match=r"data\.slot_size"):
        PoolHeader("a", {}, 0, {})


@pytest.fixture
def wait(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Moves the clock on, without sleeping: a busy machine changes nothing."""
    passed = [0.0]
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() + passed[0])

    def move(seconds: float) -> None:
        passed[0] += seconds

    return move


# -- damage


def test_a_damaged_slot_is_set_aside_said_once_and_made_again(
    pool: SyntheticPool, make_shard: MakeShard, caplog: pytest.LogCaptureFixture
) -> None:
    pool.publish(3, make_shard(3))
    flip(pool.path(3), -1)
    bad = pool.path(3).read_bytes()
    with caplog.at_level(logging.WARNING), pytest.raises(DamagedShardError, match=r"slot 3: .*checksum"):
        pool.read(3)
    assert len(caplog.records) == 1
    assert not pool.has(3)
    with pytest.raises(FileNotFoundError):
        pool.read(3)
    assert [p.read_bytes() for p in (pool.folder / "damaged").iterdir()] == [bad]
    assert pool.publish(3, make_shard(3))
    assert pool.read(3).content == make_shard(3).content


def test_a_slot_file_under_another_number_or_from_another_pool_is_damage(
    pool: SyntheticPool, tmp_path: Path, header: PoolHeader, make_shard: MakeShard
) -> None:
    pool.publish(1, make_shard(1))
    shutil.copy(pool.path(1), pool.path(2))
    other = SyntheticPool.create(tmp_path / "other", dataclasses.replace(header, fingerprint="0" * 24))
    other.publish(3, make_shard(3))
    shutil.copy(other.path(3), pool.path(3))
    for k in (2, 3):
        with pytest.raises(DamagedShardError, match="was written for"):
            pool.read(k)
    assert pool.slots() == [1]


def test_damage_that_cannot_be_set_aside_is_still_not_read(pool: SyntheticPool, make_shard: MakeShard) -> None:
    pool.publish(0, make_shard(0))
    flip(pool.path(0), 100)
    (pool.folder / "damaged").write_text("a file in the way")
    with pytest.raises(DamagedShardError, match="could not be set aside"):
        pool.read(0)


def test_a_slot_of_another_format_version_is_left_where_it_is(
    pool: SyntheticPool, make_shard: MakeShard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lightning_diffaug.pool.shard.FORMAT_VERSION", 99)
    pool.publish(0, make_shard(0))
    monkeypatch.undo()
    with pytest.raises(PoolFormatError, match="version 99"):
        pool.read(0)
    assert pool.has(0)


def test_verify_names_the_damaged_slots_and_moves_nothing(pool: SyntheticPool, make_shard: MakeShard) -> None:
    for k in range(5):
        pool.publish(k, make_shard(k))
    flip(pool.path(1), 0)
    flip(pool.path(2), 300)
    os.truncate(pool.path(4), 50)
    damaged = pool.verify()
    assert list(damaged) == [1, 2, 4]
    assert "ends after 50 bytes" in damaged[4]
    assert pool.slots() == [0, 1, 2, 3, 4]


def test_foreign_files_are_ignored_with_a_word_and_never_touched(
    pool: SyntheticPool, header: PoolHeader, make_shard: MakeShard, caplog: pytest.LogCaptureFixture
) -> None:
    pool.publish(0, make_shard(0))
    mine = [
        "notes.txt",
        "slots/holiday.jpg",
        "slots/1.safetensors",
        "slots/0000000001.safetensors",
        "claims/x",
        "leases/y.json",
    ]
    for name in mine:
        (pool.folder / name).parent.mkdir(exist_ok=True)
        (pool.folder / name).write_text("mine")
    (pool.folder / "slots" / "000000007.safetensors").mkdir()
    with caplog.at_level(logging.WARNING):
        again = SyntheticPool.create(pool.folder, header)
        assert again.slots() == again.slots() == [0]
        assert again.info().slots == 1
        assert not again.verify()
        assert again.drop_beyond(1) == []
        assert again.claims() == {}
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 3
    assert any("holiday.jpg" in text for text in said)
    assert all((pool.folder / name).read_text() == "mine" for name in mine)
    with pytest.raises(PoolError, match="is a folder, in the place of slot 7"):
        again.publish(7, make_shard(7))


# -- counts


def test_info_counts_rows_classes_and_bytes(pool: SyntheticPool, make_shard: MakeShard) -> None:
    for k in range(3):
        pool.publish(k, make_shard(k, n=8 - k))
    pool.publish(3, Shard({}, rejected=[{"reason": "all rejected"}]))
    info = pool.info()
    labels = torch.cat([make_shard(k, n=8 - k).fields["label"] for k in range(3)])
    assert (info.slots, info.rows) == (4, 21)
    assert info.rows_per_class == {c: int((labels == c).sum()) for c in range(3)}
    assert info.nbytes == sum(pool.path(k).stat().st_size for k in range(4))
    flip(pool.path(1), 20)
    os.truncate(pool.path(2), 5)
    assert pool.info().unreadable == (1, 2)


def test_a_pool_without_labels_has_no_classes(pool: SyntheticPool) -> None:
    pool.publish(0, Shard({"points": torch.zeros(2, 5, 3)}, rows=[{}, {}]))
    assert pool.info().rows_per_class == {}


# -- claims


def test_a_claim_keeps_others_off_until_it_is_released(pool: SyntheticPool) -> None:
    assert pool.claim(0, "a")
    assert pool.claim(0, "a")
    assert not pool.claim(0, "b")
    assert {k: c.owner for k, c in pool.claims().items()} == {0: "a"}
    pool.release(0, "b")
    assert not pool.claim(0, "b")
    pool.release(0, "a")
    pool.release(0, "a")
    assert pool.claims() == {}
    assert pool.claim(0, "b")


def test_a_published_slot_needs_no_claim(pool: SyntheticPool, make_shard: MakeShard) -> None:
    pool.publish(0, make_shard(0))
    assert not pool.claim(0, "a")


def test_a_stale_claim_is_taken_over_and_a_renewed_one_is_not(
    tmp_path: Path, header: PoolHeader, wait: Callable[[float], None]
) -> None:
    pool = SyntheticPool.create(tmp_path, header, claim_timeout=300)
    assert pool.claim(0, "slow")
    assert pool.claim(1, "alive")
    wait(200)
    assert pool.beat(1, "alive")
    wait(200)
    assert list(pool.claims()) == [1]
    assert pool.claim(0, "next")
    assert not pool.claim(1, "next")
    assert not pool.beat(0, "slow")
    pool.release(0, "slow")
    assert pool.claims()[0].owner == "next"


def test_the_claim_of_a_dead_process_counts_for_nothing_at_once(pool: SyntheticPool, forked: Forked) -> None:
    os.waitpid(forked(lambda: pool.claim(0, "killed")), 0)
    assert (pool.folder / "claims" / "0.claim").exists()
    assert pool.claims() == {}
    assert pool.claim(0, "restarted")


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b'{"owner": 3}', b"\xff"])
def test_a_claim_that_cannot_be_read_is_ignored(pool: SyntheticPool, data: bytes) -> None:
    pool.claim(0, "a")
    (pool.folder / "claims" / "0.claim").write_bytes(data)
    assert pool.claims() == {}
    assert pool.claim(0, "b")
    assert pool.claims()[0].owner == "b"


def test_claims_and_leases_from_a_clock_far_ahead_do_not_last_until_then(
    pool: SyntheticPool, wait: Callable[[float], None]
) -> None:
    wait(10**6)
    pool.claim(0, "ahead")
    pool.lease("ahead")
    wait(-(10**6))
    assert pool.claims() == {}
    assert pool.live_leases() == []


def test_one_of_many_claimers_wins(pool: SyntheticPool, forked: Forked, tmp_path: Path) -> None:
    def claim() -> None:
        if pool.claim(0, str(os.getpid())):
            (tmp_path / f"won-{os.getpid()}").touch()
        (tmp_path / f"tried-{os.getpid()}").touch()
        while not (tmp_path / "end").exists():  # a claim ends with its process
            time.sleep(0.01)

    pids = [forked(claim) for _ in range(8)]
    while len(list(tmp_path.glob("tried-*"))) < len(pids):
        time.sleep(0.01)
    (tmp_path / "end").touch()
    assert [os.waitpid(pid, 0)[1] for pid in pids] == [0] * 8
    assert len(list(tmp_path.glob("won-*"))) == 1


# -- leases and capacity


def test_slots_beyond_the_capacity_are_dropped_oldest_first(pool: SyntheticPool, make_shard: MakeShard) -> None:
    for k in range(6):
        pool.publish(k, make_shard(k))
    assert pool.drop_beyond(6) == []
    assert pool.drop_beyond(4) == [0, 1]
    assert pool.slots() == [2, 3, 4, 5]


def test_a_slot_that_a_live_run_needs_is_never_dropped(pool: SyntheticPool, make_shard: MakeShard) -> None:
    for k in range(8):
        pool.publish(k, make_shard(k))
    first, second = pool.lease("a"), pool.lease("b/2:ü")
    assert pool.drop_beyond(0) == [], "a run that has not said what it needs may need everything"
    first.update(0, 2)
    second.update(4, 6)
    assert {lease.run_id: lease.window for lease in pool.live_leases()} == {
        "a": range(2),
        "b/2:ü": range(4, 6),
    }
    assert pool.drop_beyond(2) == [2, 3, 6, 7]
    first.close()
    first.close()
    assert pool.drop_beyond(2) == [0, 1]
    assert pool.slots() == [4, 5]


def test_the_lease_of_a_dead_process_expires_at_once_and_a_silent_one_by_age(
    tmp_path: Path,
    header: PoolHeader,
    make_shard: MakeShard,
    forked: Forked,
    wait: Callable[[float], None],
) -> None:
    pool = SyntheticPool.create(tmp_path, header, lease_timeout=300)
    pool.publish(0, make_shard(0))
    os.waitpid(forked(lambda: pool.lease("killed").update(0, 1)), 0)
    assert list((tmp_path / "leases").iterdir())
    assert pool.live_leases() == []
    silent, alive = pool.lease("silent"), pool.lease("alive")
    silent.update(0, 1)
    wait(200)
    alive.beat()
    wait(200)
    assert [lease.run_id for lease in pool.live_leases()] == ["alive"]
    alive.close()
    assert pool.drop_beyond(0) == [0]


def test_a_lease_that_cannot_be_written_is_said_once_and_stops_nothing(
    pool: SyntheticPool, caplog: pytest.LogCaptureFixture
) -> None:
    (pool.folder / "leases").write_text("a file in the way")
    with caplog.at_level(logging.WARNING):
        lease = pool.lease("a")
        lease.update(0, 4)
        lease.beat()
        lease.close()
    assert len(caplog.records) == 1
    assert pool.live_leases() == []


# -- the whole


def test_a_pool_can_be_sent_to_another_process(pool: SyntheticPool, make_shard: MakeShard) -> None:
    pool.publish(0, make_shard(0))
    assert pickle.loads(pickle.dumps(pool)).read(0).n == 8


def test_a_folder_that_may_only_be_read_is_enough_to_read(
    pool: SyntheticPool, make_shard: MakeShard, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool.publish(0, make_shard(0))
    (pool.folder / "slots" / ".tmp-000000000000-1-left").write_text("")
    os.utime(pool.folder / "slots" / ".tmp-000000000000-1-left", (0, 0))

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    for name in ("link", "mkdir", "unlink", "rename", "replace"):
        monkeypatch.setattr(os, name, refuse)
    reader = SyntheticPool.open(pool.folder)
    assert reader.read(0).n == 8
    assert reader.info().rows == 8
    reader.lease("reader").update(0, 1)
    with pytest.raises(PoolError, match="may not write"):
        reader.publish(1, make_shard(1))
