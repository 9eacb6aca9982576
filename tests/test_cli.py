from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lightning_diffaug.cli import main
from lightning_diffaug.paths import config_dir, default_cache_dir
from lightning_diffaug.pool import PoolHeader, Shard, SyntheticPool, fingerprint
from lightning_diffaug.spec import FieldSpec, SampleSpec

SPEC = SampleSpec((FieldSpec("image", "0", "tensor", "uint8", (1, 8, 8), 0.0, 255.0, "chw"),))


@pytest.fixture
def pool(tmp_path: Path) -> SyntheticPool:
    parts = {"class_names": ["cat", "dog"]}
    pool = SyntheticPool.create(tmp_path / "pool", PoolHeader(fingerprint(parts), parts, 4, {"fields": SPEC.to_json()}))
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


def test_grid_draws_samples_without_a_class_with_their_captions_newest_first(tmp_path: Path) -> None:
    field = FieldSpec("image", "0", "tensor", "float32", (1, 8, 8), -1.0, 1.0, "chw")
    spec = SampleSpec((field, FieldSpec("caption", "1", "str", "str", (), 0.0, 0.0)))
    pool = SyntheticPool.create(tmp_path / "pool", PoolHeader(fingerprint({}), {}, 24, {"fields": spec.to_json()}))
    out = tmp_path / "grid.png"

    def dark(caption: str, levels: list[float]) -> float:
        for k, level in enumerate(levels, len(pool.slots())):
            strings = {"caption": [caption] * 24}
            pool.publish(k, Shard({"image": torch.full((24, 1, 8, 8), level)}, strings, [{}] * 24, [], {}))
        assert main(["pool", "grid", str(pool.folder), "--out", str(out)]) == 0
        return float((np.asarray(Image.open(out).convert("L")) < 100).mean())

    pool.publish(0, Shard({"image": torch.zeros(0, 1, 8, 8)}, {"caption": []}, [], [], {}))
    assert main(["pool", "grid", str(pool.folder), "--out", str(out)]) == 1, "slots may be empty"
    without = dark("", [0.0, 1.0, 1.0])  # 48 are drawn, and -1 is black
    assert without < 0.001  # the heading
    assert 0.001 < dark("seven, upright", [1.0, 1.0]) < 0.1
    assert dark("", [-1.0, -1.0]) > 0.3


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


def test_a_run_that_is_interrupted_says_how_to_go_on_and_that_goes_on(tmp_path: Path) -> None:
    def start(folder: str, *overrides: str) -> subprocess.Popen[str]:
        command = [
            sys.executable, str(config_dir().parent / "train.py"), "data.synthetic_fraction=0", "model.width=8",
            "real.shots=5", "logger=none", "callbacks.checkpoint.every_n_epochs=1",
            f"hydra.run.dir={tmp_path / folder}",
        ]  # fmt: skip
        return subprocess.Popen([*command, *overrides], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    first = start("first", "trainer.max_epochs=100000")
    last = tmp_path / "first" / "checkpoints" / "last.ckpt"
    while first.poll() is None and not last.exists():
        time.sleep(0.05)
    first.send_signal(signal.SIGINT)
    said, _ = first.communicate(timeout=60)
    assert first.returncode == 130, said
    kept = f"what the generator made is kept in {default_cache_dir()}."
    assert f"Stopped. The same command with ckpt_path={last} goes on from there; {kept}" in " ".join(said.split())
    epochs = torch.load(last, weights_only=True)["epoch"] + 1
    second = start("second", f"ckpt_path={last}", f"trainer.max_epochs={epochs + 1}")
    said, _ = second.communicate(timeout=120)
    assert second.returncode == 0, said
    assert json.loads((tmp_path / "second" / "metrics.json").read_text())["train/steps"] > epochs
