"""``diffaug fidelity`` measures a pool with the real data that belong to it, or says that there are none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

from lightning_diffaug.cli import main
from lightning_diffaug.fidelity import Fidelity, Samples
from lightning_diffaug.fidelity.pooled import field_of, pooled_samples
from lightning_diffaug.paths import config_dir
from lightning_diffaug.pool import PoolHeader, Shard, SyntheticPool, fingerprint
from lightning_diffaug.snapshot import Snapshot
from lightning_diffaug.spec import FieldSpec, SampleSpec

SPEC = SampleSpec(
    (
        FieldSpec("image", "0", "tensor", "uint8", (1, 8, 8), 0.0, 255.0, "chw"),
        FieldSpec("label", "1", "scalar", "int64", (), 0.0, 0.0),
    )
)
QUICK = ("--features", "pixels", "--classifier-steps", "20")
NAMES = tuple(map(str, range(10)))


def _levels(samples: Samples) -> dict[str, torch.Tensor]:
    assert samples.labels is not None
    return {"image": SPEC["image"].from_unit(samples.values), "label": samples.labels}


def _pool(cache: Path, samples: Samples, named: str | None, prompts: bool = False) -> SyntheticPool:
    parts = {"class_names": list(NAMES), "planner": {"snapshot": None}, "gates": [{"snapshot": named}]}
    name = fingerprint(parts)
    pool = SyntheticPool.create(cache / "pools" / name, PoolHeader(name, parts, 16, {"fields": SPEC.to_json()}))
    fields = _levels(samples)
    for k in range(len(samples) // 16):
        rows = slice(16 * k, 16 * k + 16)
        provenance = [{"prompt": f"slot {k}"} if prompts else {}] * 16
        pool.publish(k, Shard({key: value[rows] for key, value in fields.items()}, {}, provenance, [], {}))
    return pool


@pytest.fixture
def snapshot(digits: dict[str, Samples]) -> Snapshot:
    return Snapshot(SPEC, _levels(digits["train"]), NAMES, range(10))


@pytest.fixture
def pool(tmp_path: Path, digits: dict[str, Samples], snapshot: Snapshot) -> SyntheticPool:
    snapshot.save(tmp_path / "snapshots")
    return _pool(tmp_path, digits["test"].take(torch.arange(160)), snapshot.hash)


def test_a_pool_is_measured_against_the_training_snapshot_that_it_names(
    pool: SyntheticPool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "new" / "fidelity.json"
    command = ["fidelity", str(pool.folder), *QUICK, "--samples", "100", "--out", str(out)]
    assert main(command) == 0
    text = capsys.readouterr().out
    for part in ("Fréchet distance", "one half of the training data against the other", str(out)):
        assert part in text
    found = Fidelity.read(out)
    assert found.about["training_samples"] == 997
    assert found.measured["frechet"].samples <= 100
    assert json.loads(out.read_text())["figures"] == found.figures()

    assert main(["fidelity", str(out.parent)]) == 0, "a folder with a record is shown"
    assert capsys.readouterr().out.rstrip() == found.table()


def test_without_the_snapshot_it_says_what_to_give(
    pool: SyntheticPool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    next((tmp_path / "snapshots").iterdir()).unlink()
    assert main(["fidelity", str(pool.folder)]) == 1
    assert "Give --real" in capsys.readouterr().err


def test_a_pool_that_names_no_snapshot_takes_one_that_is_given(
    digits: dict[str, Samples], snapshot: Snapshot, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pool = _pool(tmp_path, digits["test"].take(torch.arange(64)), None)
    snapshot.save(tmp_path / "snapshots")
    assert main(["fidelity", str(pool.folder)]) == 1
    assert "names no training snapshot" in capsys.readouterr().err
    command = ["fidelity", str(pool.folder), *QUICK, "--real"]
    assert main([*command, str(snapshot.save(tmp_path / "snapshots"))]) == 0
    other = FieldSpec("image", "0", "tensor", "uint8", (3, 4, 4), 0.0, 255.0)
    wrong = Snapshot(SampleSpec((other,)), {"image": torch.zeros(3, 3, 4, 4, dtype=torch.uint8)})
    capsys.readouterr()
    assert main([*command, str(wrong.save(tmp_path / "other"))]) == 1
    assert "shape (1, 8, 8)" in capsys.readouterr().err


def test_a_runs_folder_gives_training_and_validation_data(
    digits: dict[str, Samples], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        cfg = compose("train", ["real.shots=null", "real.rare_classes=0", f"paths.output_dir={tmp_path}"])
    OmegaConf.save(OmegaConf.create(OmegaConf.to_container(cfg, resolve=True)), tmp_path / "config.yaml")
    pool = _pool(tmp_path, digits["test"].take(torch.arange(160)), None)
    assert main(["fidelity", str(pool.folder), "--real", str(tmp_path), *QUICK]) == 0
    assert "training data against validation data" in capsys.readouterr().out
    (tmp_path / "config.yaml").write_text("real: {_target_: no.such.Thing}\ndata: {}\n")
    assert main(["fidelity", str(pool.folder), "--real", str(tmp_path)]) == 1
    assert "cannot be made again" in capsys.readouterr().err


def test_a_folder_without_anything_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fidelity", str(tmp_path)]) == 1
    assert "no record of what a distillation lost" in capsys.readouterr().err
    assert main(["fidelity", str(tmp_path / "none")]) == 1
    assert f"{tmp_path / 'none'} does not exist" in capsys.readouterr().err


def test_samples_are_spread_over_the_slots_with_classes_and_prompts(digits: dict[str, Samples], tmp_path: Path) -> None:
    pool = _pool(tmp_path, digits["test"].take(torch.arange(160)), None, prompts=True)
    found = pooled_samples(pool, pool.slots(), field_of(pool), 40)
    assert len(found) == 40
    assert found.labels is not None
    slots = {int(text.removeprefix("slot ")) for text in found.captions or ()}
    assert min(slots) == 0
    assert max(slots) >= 8, "not the oldest alone"
    pool.path(0).unlink()
    assert len(pooled_samples(pool, range(10), field_of(pool), 1000)) == 144, "dropped slots are passed over"
