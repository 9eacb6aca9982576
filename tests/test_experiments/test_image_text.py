"""A brief run of ``experiment=image_text``: captioned images, a fit of a few steps, the mix, its figures."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from PIL import Image

from lightning_diffaug import SyntheticPool
from lightning_diffaug.data.image_text import captioned_digits
from lightning_diffaug.experiment import run
from lightning_diffaug.paths import config_dir


def _folder(root: Path) -> Path:
    splits = captioned_digits()
    for part, data, n in (("train", splits.train, 48), ("val", splits.val, 12), ("test", splits.test, 40)):
        (root / part).mkdir(parents=True)
        lines = ["file_name,caption"]
        for i in range(n):
            Image.fromarray(data.fields["image"][i, 0].numpy()).save(root / part / f"{i}.png")
            lines.append(f'{i}.png,"{data.fields["caption"][i]}"')
        (root / part / "captions.csv").write_text("\n".join(lines), encoding="utf-8")
    return root


def test_a_run_mixes_pairs_whose_image_was_made_after_a_real_caption(tmp_path: Path) -> None:
    GlobalHydra.instance().clear()
    root = _folder(tmp_path / "pairs")
    brief = [
        "refill=sync", "trainer.max_epochs=2", "+trainer.enable_progress_bar=false", "logger=none", "real.shots=null",
        "real.batch_size=16", "generator.fit.steps=20", "generator.num_inference_steps=3", "data.window=32",
        "data.slot_size=16", "generator.fit.denoiser_args={patch: 2, width: 32, depth: 1}", "model.width=8",
        "gates={copy: false, duplicate: false}", "data.text={captions: real}",
    ]  # fmt: skip
    where = [f"paths.output_dir={tmp_path / 'run'}", f"paths.cache_dir={tmp_path / 'cache'}", f"real.root={root}"]
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        config = compose("train", ["experiment=image_text", *brief, *where])
    figures = run(config, brief=True)
    assert figures["mix/achieved_fraction"] == pytest.approx(0.5, abs=0.02)
    assert figures["test/recall_at_1_trivial"] == pytest.approx(1 / 40)
    assert figures["val/recall_at_1_trivial"] == pytest.approx(1 / 12)
    assert 0.0 <= figures["test/recall_at_1"] <= figures["test/recall_at_5"] <= 1.0
    written = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert written["test/recall_at_1"] == figures["test/recall_at_1"]
    assert (tmp_path / "run" / "samples.png").stat().st_size > 500
    (folder,) = (tmp_path / "cache" / "pools").iterdir()
    captions = set(captioned_digits().train.fields["caption"][:48])
    assert captions >= _captions(folder), "the caption of a made image is a real one"


def _captions(folder: Path) -> set[str]:
    pool = SyntheticPool.open(folder)
    return {text for slot in pool.slots() for text in pool.read(slot).strings["caption"]}
