"""What trainer and refill process tell each other is whole, whoever is killed."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from lightning_diffaug.errors import PoolError
from lightning_diffaug.refill.status import Need, Reporter, Status


def test_status_and_need_survive_the_file(tmp_path: Path) -> None:
    status = Status("fill", 3, 20, 64, 60, {"finite": 4}, 1, 0.5, 2.0, "it broke", "/pool", 7, {"7": ["why"]})
    status.write(tmp_path / "status.json")
    assert Status.read(tmp_path / "status.json") == status
    Need(2, 9).write(tmp_path)
    assert Need.read(tmp_path) == Need(2, 9)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["need.json", "status.json"]
    assert json.loads((tmp_path / "need.json").read_text()) == {"first": 2, "stop": 9}


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"unknown": 1}', b"\xff\xfe", b"\x80\x04N."])
def test_a_file_that_is_not_ours_counts_as_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "status.json").write_bytes(content)
    (tmp_path / "need.json").write_bytes(content)
    assert Status.read(tmp_path / "status.json") == Status()
    assert Need.read(tmp_path) == Need()


def test_the_reporter_writes_rarely_but_the_first_steps_of_a_fit_at_once(tmp_path: Path) -> None:
    reporter = Reporter(tmp_path / "status.json")
    written = []
    for step in range(1, 31):
        reporter.fit_progress(step, 30)
        written.append(Status.read(tmp_path / "status.json").step)
    assert {1, 10, 30} <= set(written)
    assert len(set(written)) < 15
    before = (tmp_path / "status.json").stat().st_mtime_ns
    reporter.beat()
    assert (tmp_path / "status.json").stat().st_mtime_ns == before
    time.sleep(1.05)
    reporter.beat()
    assert (tmp_path / "status.json").stat().st_mtime_ns > before


def test_a_restarted_reporter_counts_on(tmp_path: Path) -> None:
    Status(generated=64, slots=1).write(tmp_path / "status.json")
    assert Reporter(tmp_path / "status.json").status.generated == 64


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(PoolError, match=r"paths\.cache_dir"):
        Need(0, 1).write(tmp_path / "file")
