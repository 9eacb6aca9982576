from __future__ import annotations

from pathlib import Path

import pytest
import torch

from lightning_diffaug.cli import main
from lightning_diffaug.pool import PoolHeader, Shard, SyntheticPool, fingerprint


@pytest.fixture
def pool(tmp_path: Path) -> SyntheticPool:
    parts = {"class_names": ["cat", "dog"]}
    pool = SyntheticPool.create(tmp_path / "pool", PoolHeader(fingerprint(parts), parts, 4, {}))
    for k in range(3):
        images = torch.full((4, 1, 8, 8), 80 * k, dtype=torch.uint8)
        pool.publish(k, Shard({"image": images, "label": torch.tensor([0, 0, 0, 1])}, {}, [{}] * 4, [], {}))
    return pool


def test_info_counts_classes_by_name(pool: SyntheticPool, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["pool", "info", str(pool.folder)]) == 0
    text = capsys.readouterr().out
    for part in ("samples 12", "cat: 9", "dog: 3"):
        assert part in text


def test_verify_finds_a_flipped_byte_and_moves_nothing(pool: SyntheticPool, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["pool", "verify", str(pool.folder)]) == 0
    data = bytearray(pool.path(1).read_bytes())
    data[-5] ^= 1
    pool.path(1).write_bytes(data)
    assert main(["pool", "verify", str(pool.folder)]) == 1
    assert "slot 1" in capsys.readouterr().err
    assert pool.slots() == [0, 1, 2]


def test_grid_draws_the_pool(pool: SyntheticPool, tmp_path: Path) -> None:
    assert main(["pool", "grid", str(pool.folder), "--out", str(tmp_path / "grid.png")]) == 0
    assert (tmp_path / "grid.png").stat().st_size > 1000


@pytest.mark.parametrize("name", ["nowhere/grid.png", "grid.txt"])
def test_a_grid_that_cannot_be_written_is_said_in_one_line(
    name: str, pool: SyntheticPool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["pool", "grid", str(pool.folder), "--out", str(tmp_path / name)]) == 1
    said = capsys.readouterr().err
    assert f"--out {tmp_path / name} cannot be written" in said
    assert said.count("\n") == 1


@pytest.mark.parametrize("what", ["info", "verify", "grid"])
def test_a_folder_that_is_no_pool_is_said_in_one_line(
    what: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["pool", what, str(tmp_path)]) == 1
    assert "holds no pool" in capsys.readouterr().err
