"""Brief runs of ``experiment=image_text_captions`` and ``image_text_varied``: whose captions and images are made."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra

from lightning_diffaug.data.image_text import captioned_digits
from lightning_diffaug.experiment import run
from lightning_diffaug.paths import config_dir
from lightning_diffaug.pool import SyntheticPool

BRIEF = (
    "refill=sync", "trainer.max_epochs=2", "+trainer.enable_progress_bar=false", "logger=none", "real.shots=48",
    "real.batch_size=16", "data.window=32", "data.slot_size=16", "model.width=8",
)  # fmt: skip


def _run(root: Path, name: str, *overrides: str) -> tuple[dict[str, float], list[Any]]:
    """Its figures, and the slots of its pool."""
    GlobalHydra.instance().clear()
    where = [f"paths.output_dir={root / 'run'}", f"paths.cache_dir={root / 'cache'}"]
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        config = compose("train", [f"experiment={name}", *BRIEF, *where, *overrides])
    run(config, brief=True)
    (folder,) = (root / "cache" / "pools").iterdir()
    pool = SyntheticPool.open(folder)
    return json.loads((root / "run" / "metrics.json").read_text()), [pool.read(slot) for slot in pool.slots()]


def test_new_captions_are_made_for_real_images(tmp_path: Path) -> None:
    figures, slots = _run(tmp_path, "image_text_captions", "generator.steps=20", "generator.width=16")
    assert figures["mix/achieved_fraction"] == pytest.approx(0.5, abs=0.02)
    assert 0.0 <= figures["test/recall_at_1"] <= figures["test/recall_at_5"] <= 1.0
    assert "pool/near_copies_train" not in figures, "the images are real ones: nothing can be said of copies"
    real = captioned_digits().train
    images = {image.numpy().tobytes() for image in real.fields["image"]}
    made = [pair for slot in slots for pair in zip(slot.fields["image"], slot.strings["caption"], strict=True)]
    assert len(made) >= 32
    assert all(image.numpy().tobytes() in images for image, _ in made)
    assert len({text for _, text in made} - set(real.fields["caption"])) > 16


def test_captions_are_varied_and_images_are_made_to_match(tmp_path: Path) -> None:
    brief = [
        "generator.fit.steps=10", "generator.num_inference_steps=2",
        "generator.fit.denoiser_args={patch: 2, width: 32, depth: 1}",
    ]  # fmt: skip
    figures, slots = _run(tmp_path, "image_text_varied", *brief)
    assert figures["mix/achieved_fraction"] == pytest.approx(0.5, abs=0.02)
    assert 0.0 <= figures["test/recall_at_1"] <= figures["test/recall_at_5"] <= 1.0
    real = captioned_digits().train
    images = {image.numpy().tobytes() for image in real.fields["image"]}
    assert not any(image.numpy().tobytes() in images for slot in slots for image in slot.fields["image"])
    captions = [text for slot in slots for text in slot.strings["caption"]]
    assert len(set(captions)) > 24
    assert any("leaning" in text for text in captions)
    assert not set(captions) <= set(real.fields["caption"])
