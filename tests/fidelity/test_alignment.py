"""Figures of pairs tell partners from others, beside the level of real pairs, and are there where it is asked for."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from aligned_pairs import FRAME_RATE, SAMPLE_RATE, captioned, clips, scenes, shuffled, snapshot_of, spec_of, terrain
from torch import Tensor

from lightning_diffaug import DiffAugDataModule
from lightning_diffaug.cli import main
from lightning_diffaug.data.aligned import AlignedDataModule, AlignedDataset, AlignedSplits
from lightning_diffaug.errors import ConfigurationError
from lightning_diffaug.fidelity import Fidelity, FidelitySettings, Samples, measure
from lightning_diffaug.fidelity.alignment import Paired, fields_of, gates_of
from lightning_diffaug.fidelity.of_run import real_pairs
from lightning_diffaug.fidelity.pooled import pooled_fields
from lightning_diffaug.fidelity.result import OF_PAIRS
from lightning_diffaug.pool import PoolHeader, Shard, SyntheticPool, fingerprint
from lightning_diffaug.real import RealTraining
from lightning_diffaug.snapshot import Snapshot

QUICK = {"steps": 45, "width": 8, "folds": 2}
PLAIN: dict[str, Any] = {"features": "pixels", "train_on_synthetic": False}


def _measured(
    pairs: Mapping[str, Any], training: Snapshot, made: Snapshot, held_out: Snapshot | None = None
) -> Fidelity:
    field = next(iter(training.spec.continuous)).name
    real, synthetic = (Samples(one.unit(field)) for one in (training, made))
    settings = {**PLAIN, "pairs": pairs}
    return measure(real, synthetic, None, (), settings, paired=Paired(training, made, held_out))


def test_masks_of_others_agree_less_than_real_ones_and_real_ones_as_real_ones() -> None:
    pairs = {"mask": {"fit": QUICK}}
    training, held_out = snapshot_of(scenes(90)), snapshot_of(scenes(80, 1))
    found = [
        _measured(pairs, training, snapshot_of(made), held_out).measured["mask_agreement"]
        for made in (scenes(100, 2), shuffled(scenes(100, 2), "mask"))
    ]
    assert found[0].real == found[1].real
    assert found[0].real is not None
    assert found[0].value == pytest.approx(found[0].real, abs=0.05)
    assert found[1].value < found[0].value - 0.2
    assert (found[0].samples, found[0].real_samples, found[0].reference) == (80, 80, 90)


def test_pairs_sound_and_scans_are_measured_in_their_units() -> None:
    data = {**terrain(60), **clips(60)}
    held_out = snapshot_of({**terrain(50, 1), **clips(50, 1)})
    pairs = {"sync": {"frame_rate": FRAME_RATE, "sample_rate": SAMPLE_RATE}, "chamfer": True}
    training = snapshot_of(data)
    good = _measured(pairs, training, snapshot_of(data), held_out).measured
    bad = _measured(pairs, training, snapshot_of(shuffled(shuffled(data, "audio"), "cloud")), held_out).measured
    assert good["sync_offset"].value < 0.03 > good["sync_offset"].real  # type: ignore[operator]
    assert bad["sync_offset"].value > 0.4
    assert good["scan_distance"].value < 1.0, "metres: a scan is some of its cloud"
    assert bad["scan_distance"].value > 10.0
    assert bad["sync_offset"].real == good["sync_offset"].real


def test_partners_score_above_others_where_they_belong_together() -> None:
    pairs = {"pair": {"fit": {"steps": 60, "folds": 2}}}
    training = snapshot_of(*captioned(0, 300))
    images, texts = captioned(600, 150)
    held_out = snapshot_of(*captioned(1000, 150))
    good = _measured(pairs, training, snapshot_of(images, texts), held_out).measured["pair_agreement"]
    other = shuffled({"t": texts}, "t")["t"]
    bad = _measured(pairs, training, snapshot_of(images, other), held_out).measured["pair_agreement"]
    assert good.value > 0.88
    assert good.real is not None
    assert good.real > 0.88
    assert 0.4 < bad.value < 0.62


def test_without_held_out_pairs_one_half_of_the_training_pairs_judges_the_other() -> None:
    training = snapshot_of(scenes(120))
    found = _measured({"mask": {"fit": QUICK}}, training, snapshot_of(scenes(100, 2))).measured["mask_agreement"]
    assert (found.samples, found.real_samples, found.reference) == (60, 60, 60)
    assert found.real is not None
    assert found.value == pytest.approx(found.real, abs=0.08)


def test_what_is_not_asked_for_is_not_measured_and_what_is_not_there_is_absent_with_its_reason() -> None:
    training = snapshot_of(scenes(60))
    real = Samples(training.unit("image"))
    plain, again = (measure(real, real, None, (), {**PLAIN, "pairs": pairs}) for pairs in (None, {"mask": True}))
    assert not set(OF_PAIRS) & (set(plain.measured) | set(plain.absent) | set(again.measured))
    assert plain.figures() == again.figures()
    found = _measured({"pair": True, "chamfer": True}, training, training)
    assert set(found.absent) & set(OF_PAIRS) == {"pair_agreement", "scan_distance"}
    assert "'caption' is no field of these data" in found.absent["pair_agreement"]
    assert {name: value for name, value in found.figures().items() if name in plain.figures()} == plain.figures()
    assert "without distance from the scan" in found.table()


def test_figures_are_flat_and_read_again(tmp_path: Path) -> None:
    data = snapshot_of(terrain(30))
    found = _measured({"chamfer": {"symmetric": True}}, data, data, data)
    assert {"fidelity/scan_distance", "fidelity/scan_distance_real"} <= set(found.figures())
    assert Fidelity.read(found.write(tmp_path / "fidelity.json")) == found
    assert "distance from the scan to the cloud" in found.table()


@pytest.mark.parametrize(
    ("pairs", "words"),
    [
        ({"masks": True}, "pairs of fidelity has masks.*mask, sync, chamfer, pair"),
        ({"class": True}, "pairs of fidelity has class"),
        ("mask", "pairs of fidelity has 'mask'"),
        ({"sync": True}, r"gates\.sync\.frame_rate=None"),
        ({"mask": {"masks": "x"}}, r"masks is no argument"),
    ],
)
def test_settings_that_do_not_fit_are_refused_at_the_door(pairs: Any, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        FidelitySettings.of({"pairs": pairs})


def test_the_gates_are_those_asked_for_with_their_arguments() -> None:
    gates = gates_of({"mask": {"image": "picture"}, "pair": True, "chamfer": False})
    assert [gate.name for gate in gates] == ["mask", "pair"]
    assert fields_of({"mask": {"image": "picture"}, "pair": True}) == ["picture", "mask", "image", "caption"]


class Captioned(AlignedDataModule):
    """Digits with captions."""

    def load(self) -> AlignedSplits:
        parts = []
        for first, n in ((0, 60), (600, 40), (1000, 40)):
            images, texts = captioned(first, n)
            parts.append(AlignedDataset({**images, "caption": texts}))
        return AlignedSplits(*parts)


def _published(folder: Path, data: Snapshot, named: str | None = None) -> SyntheticPool:
    parts: dict[str, Any] = {"planner": {"snapshot": named}, "gates": []}
    name = fingerprint(parts)
    header = PoolHeader(name, parts, 16, {"fields": data.spec.to_json()})
    pool = SyntheticPool.create(folder / "pools" / name, header)
    for k in range(len(data) // 16):
        rows = torch.arange(16 * k, 16 * k + 16)
        fields: dict[str, Tensor] = {field.name: data.raw(field.name, rows) for field in data.spec.tensors}
        texts = {name: of[16 * k : 16 * k + 16] for name, of in data.texts.items()}
        pool.publish(k, Shard(fields, texts, [{}] * 16, [], {}))
    return pool


def test_fields_and_texts_of_a_pool_and_of_validation_data_are_read_together(tmp_path: Path) -> None:
    mixed = DiffAugDataModule(Captioned(), synthetic_fraction=0, fields={"image": "image", "caption": "caption"})
    mixed.setup("fit")
    real, data = mixed.real, RealTraining.of(mixed.real, **mixed._about_data)
    images, texts = captioned(0, 64)
    pool = _published(tmp_path, Snapshot(data.spec, images, texts={"caption": texts}))
    made = pooled_fields(pool, pool.slots(), ["image", "caption"], 40)
    where = {row.numpy().tobytes(): text for row, text in zip(images["image"], texts, strict=True)}
    assert [where[row.numpy().tobytes()] for row in made.raw("image")] == made.texts["caption"]
    assert len(made) == 40
    paired = real_pairs(real, data, made, ["image", "caption"])
    assert paired.held_out is not None
    assert paired.held_out.texts["caption"] == captioned(600, 40)[1]
    assert torch.equal(paired.held_out.raw("image"), captioned(600, 40)[0]["image"])
    assert len(paired.training) == 60


def test_the_command_measures_pairs_of_a_pool(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    training = snapshot_of(terrain(60))
    training.save(tmp_path / "snapshots")
    made = Snapshot(training.spec, {**shuffled(terrain(32, 1), "cloud")})
    pool = _published(tmp_path, made, training.hash)
    out = tmp_path / "fidelity.json"
    command = ["fidelity", str(pool.folder), "--features", "pixels", "--out", str(out), "--pairs", "{chamfer: true}"]
    assert main(command) == 0
    assert "distance from the scan to the cloud" in capsys.readouterr().out
    one = Fidelity.read(out).measured["scan_distance"]
    assert one.value > 10.0
    assert one.real is not None
    assert one.real < 1.0
    assert main([*command[:-1], "{clouds: true}"]) == 1
    assert "pairs of fidelity has clouds" in capsys.readouterr().err
    assert spec_of(terrain(60)) == training.spec
