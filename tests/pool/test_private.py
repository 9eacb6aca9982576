"""Pools that are one run's own go when nobody has used them for a month, and nothing else goes."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from lightning_diffaug.pool import PoolHeader, SyntheticPool
from lightning_diffaug.pool.plans import Plans
from lightning_diffaug.pool.private import KEPT_SECONDS, remove_left_behind


def _pool(root: Path, private: str | None, name: str = "aa") -> SyntheticPool:
    header = PoolHeader(name, {"private": private}, 4, {})
    pool = SyntheticPool.create(root / "pools" / name, header)
    (pool.folder / "slots").mkdir()
    (pool.folder / "slots" / "000000003.safetensors").write_bytes(b"x")
    pool.claim(7, "someone")
    pool.release(7, "someone")
    plans = Plans(pool.folder)
    plans.write(4, 0, {}, {}, plans.put_scorer({}, {"a": "b"}))
    return pool


def _age(folder: Path, seconds: float) -> None:
    then = time.time() - seconds
    for path in [*folder.rglob("*"), folder]:
        os.utime(path, (then, then))


def test_a_private_pool_goes_a_month_after_its_last_use(tmp_path: Path) -> None:
    pool = _pool(tmp_path, "run")
    _age(pool.folder, KEPT_SECONDS - 3600)
    assert remove_left_behind(tmp_path / "pools") == []
    _age(pool.folder, KEPT_SECONDS + 3600)
    assert remove_left_behind(tmp_path / "pools") == [pool.folder]
    assert not pool.folder.exists()


def test_the_pool_of_the_run_that_goes_on_stays_however_old(tmp_path: Path) -> None:
    own, other = _pool(tmp_path, "run"), _pool(tmp_path, "another", "bb")
    for pool in (own, other):
        _age(pool.folder, 10 * KEPT_SECONDS)
    assert remove_left_behind(tmp_path / "pools", keep="run") == [other.folder]
    assert own.has(3)


def test_a_shared_pool_stays_however_old(tmp_path: Path) -> None:
    pool = _pool(tmp_path, None)
    _age(pool.folder, 10 * KEPT_SECONDS)
    assert remove_left_behind(tmp_path / "pools") == []
    assert pool.has(3)


@pytest.mark.parametrize("sub", ["slots", "plans", "scorers"])
def test_one_new_file_shows_use(sub: str, tmp_path: Path) -> None:
    pool = _pool(tmp_path, "run")
    _age(pool.folder, 2 * KEPT_SECONDS)
    (pool.folder / sub / "000000099.safetensors").write_bytes(b"x")
    assert remove_left_behind(tmp_path / "pools") == []


def test_a_pool_that_is_read_stays(tmp_path: Path) -> None:
    pool = _pool(tmp_path, "run")
    pool.lease("run")
    _age(pool.folder, 2 * KEPT_SECONDS)
    assert remove_left_behind(tmp_path / "pools") == []


def test_files_of_others_stay(tmp_path: Path) -> None:
    pool = _pool(tmp_path, "run")
    mine = [pool.folder / "notes.txt", pool.folder / "slots" / "figure.png"]
    for path in mine:
        path.write_text("mine")
    _age(pool.folder, 2 * KEPT_SECONDS)
    other = tmp_path / "pools" / "other"
    other.mkdir()
    (other / "pool.json").write_text("{}")
    _age(other, 2 * KEPT_SECONDS)
    assert remove_left_behind(tmp_path / "pools") == [pool.folder]
    assert all(path.read_text() == "mine" for path in mine)
    assert not (pool.folder / "plans").exists()
    assert (other / "pool.json").exists()
    assert remove_left_behind(tmp_path / "nowhere") == []
