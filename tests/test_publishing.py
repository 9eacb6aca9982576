from __future__ import annotations

import os
from pathlib import Path

import pytest

from lightning_diffaug.pool.process import machine_id
from lightning_diffaug.publishing import published, remove_dead


def test_a_folder_appears_when_it_is_whole_and_the_second_adopts_the_first(tmp_path: Path) -> None:
    folder = tmp_path / "made" / "here"
    with published(folder, ".part-") as first, published(folder, ".part-") as second:
        (first / "file").write_text("first")
        (second / "file").write_text("second")
        assert not folder.exists()
    assert (folder / "file").read_text() == "second", "the inner block ended first"
    assert list(folder.parent.iterdir()) == [folder]


def test_what_is_there_and_not_whole_is_no_winner(tmp_path: Path) -> None:
    folder = tmp_path / "here"
    (folder / "odd").mkdir(parents=True)

    def again() -> None:
        with published(folder, ".part-", lambda found: (found / "record").exists()) as part:
            (part / "record").touch()

    with pytest.raises(OSError, match="not empty"):
        again()
    assert [path.name for path in folder.iterdir()] == ["odd"]
    assert list(tmp_path.iterdir()) == [folder]


def test_others_may_read_it_as_far_as_the_user_lets_them(tmp_path: Path) -> None:
    (tmp_path / "usual").mkdir()
    with published(tmp_path / "here", ".part-"):
        pass
    assert (tmp_path / "here").stat().st_mode == (tmp_path / "usual").stat().st_mode


def test_an_error_leaves_nothing(tmp_path: Path) -> None:
    def interrupted() -> None:
        with published(tmp_path / "here", ".part-") as part:
            (part / "file").write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert list(tmp_path.iterdir()) == []


def test_only_what_dead_processes_of_this_machine_left_is_removed(tmp_path: Path) -> None:
    dead = f".part-{machine_id()}-{2**22 + 1}-x"  # above every process id
    kept = [f".part-{machine_id()}-{os.getpid()}-x", ".part-othermachine-1-x", ".part-odd", "here"]
    for name in (dead, *kept):
        (tmp_path / name).mkdir()
    remove_dead(tmp_path, ".part-")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(kept)
