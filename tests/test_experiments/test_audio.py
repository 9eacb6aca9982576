"""A brief run of ``experiment=audio``: a folder of tones, a fit of a few steps, the mix, and what the run leaves."""

from __future__ import annotations

import json
import wave
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra

from lightning_diffaug.experiment import run
from lightning_diffaug.listening import write_wav
from lightning_diffaug.paths import config_dir

pytest.importorskip("soundfile")


def _tones(root: Path) -> Path:
    """Low and high tones of three speakers a part, each of a pitch of its own."""
    time = torch.arange(3200) / 8000
    for part, speakers in (("train", range(8)), ("val", range(8, 10)), ("test", range(10, 16))):
        for name, frequency in (("low", 300.0), ("high", 1500.0)):
            (root / part / name).mkdir(parents=True)
            for speaker in speakers:
                sound = 0.7 * torch.sin(2 * torch.pi * frequency * (1 + 0.02 * speaker) * time) * torch.exp(-8 * time)
                write_wav(root / part / name / f"{speaker}.wav", sound, 8000)
    return root


def test_a_run_mixes_sounds_that_were_made_of_spectrograms(tmp_path: Path) -> None:
    GlobalHydra.instance().clear()
    brief = [
        "refill=sync", "trainer.max_epochs=3", "+trainer.enable_progress_bar=false", "logger=none", "real.batch_size=8",
        "generator.fit.steps=30", "generator.num_inference_steps=4", "data.window=32", "data.slot_size=16",
        "generator.fit.denoiser_args={patch: 1, width: 32, depth: 1}", "model.width=8",
        "real.mels=16", "+generator.codecs.audio.iterations=8",
    ]  # fmt: skip
    where = [f"paths.output_dir={tmp_path / 'run'}", f"paths.cache_dir={tmp_path / 'cache'}"]
    data = [f"real.root={_tones(tmp_path / 'sounds')}", "real.seconds=0.4"]
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        config = compose("train", ["experiment=audio", *brief, *where, *data])
    figures = run(config, brief=True)
    assert figures["mix/achieved_fraction"] == pytest.approx(0.5, abs=0.02)
    assert figures["pool/admitted"] >= 32
    assert figures["test/acc_trivial"] == figures["val/acc_trivial"] == 0.5
    assert 0.0 <= figures["test/acc"] <= 1.0
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["test/acc"] == figures["test/acc"]
    assert (tmp_path / "run" / "samples.png").stat().st_size > 1000
    sounds = sorted((tmp_path / "run" / "samples").iterdir())
    assert [path.name for path in sounds] == ["high.wav", "low.wav"]
    with wave.open(str(sounds[0])) as file:
        assert (file.getframerate(), file.getnframes()) == (8000, 3200)
