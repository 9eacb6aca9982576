"""``python train.py generator=remote``: from a server's replies to a trained model."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from images_server import Server, serving

ROOT = Path(__file__).parents[2]
KEY = "sk-Very/Secret+0123"


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as started:
        yield started


def train(root: Path, *overrides: str) -> subprocess.CompletedProcess[str]:
    """A short training in a process of its own."""
    command = [
        sys.executable, str(ROOT / "train.py"), "generator=remote", "data.window=32", "data.slot_size=16",
        "trainer.max_epochs=1", "++trainer.enable_progress_bar=false", "++trainer.enable_checkpointing=false",
        "~callbacks.checkpoint", "logger=none", "refill.nice=0", "refill.ahead=0", f"hydra.run.dir={root / 'run'}",
        f"paths.cache_dir={root / 'cache'}", *overrides,
    ]  # fmt: skip
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "IMAGES_KEY": KEY}
    return subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, timeout=200)


def test_a_run_trains_on_the_servers_pictures_and_keeps_its_key_to_itself(server: Server, tmp_path: Path) -> None:
    ended = train(
        tmp_path, f"generator.url={server.url}", "generator.api_key_env=IMAGES_KEY", "generator.model=toy",
        "+generator.extra.num_inference_steps=4", "data.planner=uniform",
        "gates.blank=false", "gates.duplicate=false",  # pictures of one colour
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    figures = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert figures["pool/admitted"] >= 32
    assert figures["mix/achieved_fraction"] == pytest.approx(0.25, abs=0.01)
    assert {asked.headers["Authorization"] for asked in server.asked} == {f"Bearer {KEY}"}
    bodies = [asked.body for asked in server.asked]
    assert len({body["seed"] for body in bodies}) == len(bodies)
    assert {(body["model"], body["num_inference_steps"]) for body in bodies} == {("toy", 4)}
    assert {body["prompt"] for body in bodies} == {f"a photo of a {digit}" for digit in range(10)}
    assert KEY not in ended.stdout + ended.stderr
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert files
    assert not [path for path in files if KEY.encode() in path.read_bytes()]
