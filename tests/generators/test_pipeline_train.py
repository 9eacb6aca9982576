"""``python train.py generator=pipeline``: from a local folder to a model trained on its pictures."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import tiny_pipeline as tiny
from tiny_pipeline import tiny_pipeline  # noqa: F401 - a fixture

from lightning_diffaug.pool import SyntheticPool

ROOT = Path(__file__).parents[2]
WORDS = "{" + ",".join(f"{name}:{word}" for name, word in tiny.WORDS_OF.items()) + "}"


def train(root: Path, *overrides: str) -> subprocess.CompletedProcess[str]:
    """A short training in a process of its own."""
    command = [
        sys.executable, str(ROOT / "train.py"), "data.window=32", "data.slot_size=16", "data.planner=uniform",
        "trainer.max_epochs=1", "+trainer.enable_progress_bar=false", "+trainer.enable_checkpointing=false",
        "~callbacks.checkpoint", "logger=none", "refill.nice=0", "refill.ahead=0", f"hydra.run.dir={root / 'run'}",
        f"paths.cache_dir={root / 'cache'}", "generator.num_inference_steps=3", f"generator.names={WORDS}", *overrides,
    ]  # fmt: skip
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    return subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, timeout=280)


def test_a_run_trains_on_a_pipelines_pictures(tiny_pipeline: Path, tmp_path: Path) -> None:  # noqa: F811
    ended = train(tmp_path, "generator=pipeline", f"generator.model={tiny_pipeline}")
    assert ended.returncode == 0, ended.stderr
    figures = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert figures["pool/admitted"] >= 32
    assert figures["mix/achieved_fraction"] == pytest.approx(0.25, abs=0.01)
    (folder,) = (tmp_path / "cache" / "pools").iterdir()
    shard = SyntheticPool.open(folder).read(0)
    assert shard.fields["image"].shape == (16, 1, 8, 8)
    assert len(set(shard.fields["image"].flatten(1).float().mean(1).tolist())) == 16
