"""Brief runs of ``experiment=audio_video``: on the composed clips, and on one's own as the docs' command names them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from PIL import Image

from lightning_diffaug.experiment import run
from lightning_diffaug.paths import config_dir
from lightning_diffaug.pool import SyntheticPool

soundfile = pytest.importorskip("soundfile")
BRIEF = (
    "refill=sync", "logger=none", "trainer.max_epochs=2", "+trainer.enable_progress_bar=false", "real.batch_size=8",
    "generator.fit.steps=4", "generator.fit.batch_size=4", "generator.fit.denoiser_args={width: 16, depth: 1}",
    "generator.num_inference_steps=2", "generator.codecs.audio.iterations=2", "data.window=16", "data.slot_size=16",
    "data.gates=[]", "model.width=8",
)  # fmt: skip


def _run(root: Path, *overrides: str) -> tuple[dict[str, float], SyntheticPool]:
    GlobalHydra.instance().clear()
    where = [f"paths.output_dir={root / 'run'}", f"paths.cache_dir={root / 'cache'}"]
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        config = compose("train", ["experiment=audio_video", *BRIEF, *where, *overrides])
    run(config, brief=True)
    (folder,) = (root / "cache" / "pools").iterdir()
    return json.loads((root / "run" / "metrics.json").read_text()), SyntheticPool.open(folder)


def _clips(root: Path, classes: bool) -> Path:
    """A flash of each clip's own time at 25 frames a second, and a tone with it; as ffmpeg numbers frames."""
    rng = np.random.RandomState(0)
    for part, count in (("train", 8), ("val", 2), ("test", 4)):
        for i in range(count):
            folder = Path(root, part, *(("low", "high")[i % 2],) if classes else (), f"clip{i}")
            folder.mkdir(parents=True)
            at, sound = rng.randint(10, 30), 0.01 * rng.randn(32000)
            sound[at * 640 :][:6400] += 0.5 * np.sin(np.arange(6400) * (0.2 if i % 2 else 0.1))
            soundfile.write(folder / "sound.wav", sound, 16000)
            for frame in range(50):
                level = 200 if at <= frame < at + 10 else 20
                Image.fromarray(np.full((8, 8), level, np.uint8)).save(folder / f"{frame + 1}.png")
    return root


def test_composed_clips_are_made_jointly_with_their_sound(tmp_path: Path) -> None:
    pytest.importorskip("espeakng_loader")
    figures, pool = _run(tmp_path)
    assert figures["mix/achieved_fraction"] == pytest.approx(0.5, abs=0.02)
    assert figures["test/acc_trivial"] == pytest.approx(0.1)
    assert 0 < figures["test/sync_error"] < 0.5
    made = pool.read(0).fields
    assert (made["video"].shape, made["audio"].shape) == ((16, 32, 1, 8, 8), (16, 1, 16000))
    assert (tmp_path / "run" / "samples.png").stat().st_size > 500


@pytest.mark.parametrize("classes", [True, False])
def test_ones_own_clips_of_another_frame_rate_with_and_without_classes(tmp_path: Path, classes: bool) -> None:
    root = _clips(tmp_path / "clips", classes)
    figures, pool = _run(tmp_path, f"real.root={root}", "real.frame_rate=25", "real.seconds=2")
    assert figures["mix/achieved_fraction"] == pytest.approx(0.5, abs=0.02)
    assert figures["test/sync_error_trivial"] > 0.2
    assert ("test/acc" in figures) == classes
    made = pool.read(0).fields
    assert (made["video"].shape, made["audio"].shape) == ((16, 50, 1, 8, 8), (16, 1, 16000))
    assert made["label"].unique().tolist() == ([0, 1] if classes else [0])
