"""``experiment=point_cloud`` from the real data through fit, pool and training to the test metric, briefly."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig

from lightning_diffaug.data import PointCloudDataModule
from lightning_diffaug.errors import ConfigurationError
from lightning_diffaug.experiment import run
from lightning_diffaug.paths import config_dir
from lightning_diffaug.pool import SyntheticPool

BRIEF = (
    "refill=sync", "logger=none", "callbacks=default", "+trainer.enable_progress_bar=false", "trainer.max_epochs=2",
    "real.points=24", "real.scan_points=6", "real.batch_size=6", "data.window=16", "data.slot_size=16",
    "generator.num_inference_steps=2", "generator.fit.steps=4", "generator.fit.batch_size=4",
    "generator.fit.denoiser_args.width=16", "generator.fit.denoiser_args.depth=1", "model.width=16", "model.depth=1",
)  # fmt: skip


def _config(root: Path, *overrides: str) -> DictConfig:
    GlobalHydra.instance().clear()
    files = [f"paths.output_dir={root / 'run'}", f"paths.cache_dir={root / 'cache'}"]
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        return compose("train", ["experiment=point_cloud", *BRIEF, *files, *overrides])


def _pool(root: Path) -> SyntheticPool:
    (folder,) = (root / "cache" / "pools").iterdir()
    return SyntheticPool.open(folder)


def test_clouds_are_made_of_real_scans_and_the_test_is_on_real_clouds(tmp_path: Path) -> None:
    after_scans = ["+data.fields.scan=scan", "~data.fill.scan", "generator.conditions={scan: cross}"]
    figures = run(_config(tmp_path, "real.shots=4", *after_scans))
    written = json.loads((tmp_path / "run" / "metrics.json").read_text())
    for stage in ("val", "test"):
        assert 0 < written[f"{stage}/chamfer"] < 1
        assert 0 < written[f"{stage}/chamfer_trivial"] < 1
        assert 0 <= written[f"{stage}/acc"] <= 1
    assert figures["mix/achieved_fraction"] == 0.5
    assert (tmp_path / "run" / "samples.png").stat().st_size > 1000
    scans = PointCloudDataModule(points=24, scan_points=6, shots=4).splits.train.fields["scan"]
    made = _pool(tmp_path).read(0).fields
    apart = (made["scan"][:, None] - scans).abs().amax((2, 3)).amin(1)
    assert apart.shape == (16,)
    assert float(apart.max()) < 1e-6
    assert made["cloud"].shape == (16, 24, 3)


def _own(root: Path) -> str:
    for part, count in (("train", 6), ("val", 2), ("test", 3)):
        for name in ("car", "tree"):
            folder = root / "data" / part / name
            folder.mkdir(parents=True)
            for i in range(count):
                points = torch.randn(50, 3, generator=torch.Generator().manual_seed(i)).numpy()
                np.save(folder / f"{i}.npy", points)
    return f"real.root={root / 'data'}"


def test_clouds_of_ones_own_made_by_class_with_scans_made_of_them(tmp_path: Path) -> None:
    figures = run(_config(tmp_path, _own(tmp_path), "data.synthetic_fraction=0.25"))
    assert figures["test/chamfer"] > 0
    assert figures["mix/achieved_fraction"] == pytest.approx(0.25, abs=0.05)
    assert {"mix/reuse_class_car", "mix/reuse_class_tree"} <= set(figures)
    assert set(_pool(tmp_path).read(0).fields) == {"cloud", "label"}


def test_clouds_in_their_own_unit_need_their_range(tmp_path: Path) -> None:
    own = (_own(tmp_path), "real.normalise=null")
    with pytest.raises(ConfigurationError, match=r"'cloud' is within \[-1\.25, 1\.25\].*data\.image_range"):
        run(_config(tmp_path, *own))
    figures = run(_config(tmp_path, *own, "data.image_range.cloud=[-5,5]"))
    assert figures["test/chamfer"] > 0
