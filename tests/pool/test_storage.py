from __future__ import annotations

import errno
import os
import resource
import stat
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from lightning_diffaug.errors import PoolError
from lightning_diffaug.pool.process import machine_id, surely_dead
from lightning_diffaug.pool.storage import Folder

Forked = Callable[[Callable[[], object]], int]


def names(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def test_the_first_writer_wins_and_the_second_is_told(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    assert folder.put_bytes_if_absent("a/x", b"first")
    assert not folder.put_bytes_if_absent("a/x", b"second")
    assert (tmp_path / "a/x").read_bytes() == b"first"
    assert names(tmp_path) == ["a/x"]


def test_a_writer_that_loses_the_race_at_the_last_step_changes_nothing(tmp_path: Path) -> None:
    folder = Folder(tmp_path)

    def slow(path: Path) -> None:
        path.write_bytes(b"slow")
        assert folder.put_bytes_if_absent("x", b"fast")

    assert not folder.put_if_absent("x", slow)
    assert (tmp_path / "x").read_bytes() == b"fast"
    assert names(tmp_path) == ["x"]


def test_nothing_appears_before_the_whole_is_written(tmp_path: Path) -> None:
    folder = Folder(tmp_path)

    def write(path: Path) -> None:
        path.write_bytes(b"half")
        assert folder.list() == []
        assert not (tmp_path / "x").exists()
        path.write_bytes(b"whole")

    folder.put_if_absent("x", write)
    assert folder.list() == ["x"]


@pytest.mark.parametrize("error", [ValueError("bad"), KeyboardInterrupt()])
def test_a_writer_that_raises_leaves_nothing(tmp_path: Path, error: BaseException) -> None:
    def write(path: Path) -> None:
        path.write_bytes(b"half")
        raise error

    with pytest.raises(type(error)):
        Folder(tmp_path).put_if_absent("x", write)
    assert names(tmp_path) == []


def test_replace_is_atomic_and_leaves_no_temporary_file(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    for data in (b"1", b"22"):
        folder.replace_bytes("leases/r.json", data)
    assert (tmp_path / "leases/r.json").read_bytes() == b"22"
    assert names(tmp_path) == ["leases/r.json"]


def test_a_full_disk_is_an_error_that_names_folder_and_key(tmp_path: Path, forked: Forked) -> None:
    # A limit on the file size gives a real failing write(2), as a full disk does.
    def write() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
        folder = Folder(tmp_path)
        folder.put_bytes_if_absent("small", b"x")
        with pytest.raises(PoolError) as caught:
            folder.put_bytes_if_absent("large", bytes(100_000))
        assert str(tmp_path) in str(caught.value)
        assert "paths.cache_dir" in str(caught.value)
        assert "larger than" in str(caught.value)

    assert os.waitpid(forked(write), 0)[1] == 0
    assert names(tmp_path) == ["small"]


@pytest.mark.parametrize(
    ("number", "cause"),
    [
        (errno.ENOSPC, "disk is full"),
        (errno.EROFS, "read-only"),
        (errno.EACCES, "may not write"),
        (errno.EDQUOT, "quota"),
    ],
)
def test_a_failing_link_is_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, cause: str) -> None:
    def fail(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "link", fail)
    with pytest.raises(PoolError, match=cause):
        Folder(tmp_path).put_bytes_if_absent("x", b"data")
    assert names(tmp_path) == []


def test_a_file_in_place_of_the_folder_is_explained(tmp_path: Path) -> None:
    (tmp_path / "pool").write_text("mine")
    with pytest.raises(PoolError, match=r"a file stands where a folder is needed.*paths\.cache_dir"):
        Folder(tmp_path / "pool").put_bytes_if_absent("slots/x", b"data")
    assert (tmp_path / "pool").read_text() == "mine"


@pytest.mark.parametrize("number", [errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK])
def test_file_systems_without_hard_links_publish_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def fail(*_: object) -> None:
        raise OSError(number, "no links here")

    monkeypatch.setattr(os, "link", fail)
    folder = Folder(tmp_path)
    assert folder.put_bytes_if_absent("x", b"first")
    assert not folder.put_bytes_if_absent("x", b"second")
    assert (tmp_path / "x").read_bytes() == b"first"
    assert names(tmp_path) == ["x"]


def test_the_file_is_synced_before_it_is_linked_and_its_folder_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []
    fsync, link = os.fsync, os.link

    def traced_fsync(handle: int) -> None:
        steps.append("folder" if stat.S_ISDIR(os.fstat(handle).st_mode) else "file")
        fsync(handle)

    def traced_link(source: Path, target: Path) -> None:
        steps.append("link")
        link(source, target)

    monkeypatch.setattr(os, "fsync", traced_fsync)
    monkeypatch.setattr(os, "link", traced_link)
    Folder(tmp_path).put_bytes_if_absent("x", b"data")
    assert steps == ["file", "link", "folder"]


def test_temporary_files_of_dead_writers_are_removed_and_those_of_live_ones_kept(
    tmp_path: Path, forked: Forked
) -> None:
    folder = Folder(tmp_path)

    def die(path: Path) -> None:
        path.write_bytes(b"half")
        os._exit(9)

    pid = forked(lambda: folder.put_if_absent("x", die))
    os.waitpid(pid, 0)
    assert len(names(tmp_path)) == 1
    mine = tmp_path / f".tmp-{machine_id()}-{os.getpid()}-abc"
    other_machine = tmp_path / f".tmp-000000000000-{pid}-abc"
    for temp in (mine, other_machine):
        temp.write_bytes(b"in the making")
    assert folder.clean("") == 1
    assert mine.exists()
    assert other_machine.exists()
    os.utime(other_machine, (0, time.time() - 2 * 24 * 3600))
    assert folder.clean("") == 1
    assert mine.exists()


def test_set_aside_never_overwrites_and_spares_a_file_made_again(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    for _ in range(3):
        folder.put_bytes_if_absent("slots/x.bin", b"bad")
        assert folder.set_aside("slots/x.bin") is not None
    assert len(folder.list("damaged")) == 3
    assert folder.set_aside("slots/x.bin") is None
    folder.put_bytes_if_absent("slots/x.bin", b"good")
    inode = (tmp_path / "slots/x.bin").stat().st_ino
    assert folder.set_aside("slots/x.bin", inode=inode + 1) is None
    assert folder.list("slots") == ["x.bin"]


def test_list_and_remove_take_absence_calmly(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "absent")
    assert folder.list() == folder.list("slots") == []
    assert not folder.remove("slots/x")
    folder.create("slots/sub")
    assert folder.list("slots") == []


def test_liveness_is_only_claimed_where_it_can_be_known(forked: Forked) -> None:
    pid = forked(lambda: None)
    os.waitpid(pid, 0)
    assert surely_dead(machine_id(), pid)
    assert not surely_dead(machine_id(), os.getpid())
    assert not surely_dead("another", pid)
    assert not surely_dead(machine_id(), 0)
