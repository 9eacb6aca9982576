"""Rejected samples are kept for a look, bounded, beside the slots; nothing that trains ever reads them."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from refill_toys import SHAPE, job_for
from torch import Tensor
from training_toys import RealModule, Recorder, trainer

import lightning_diffaug.pool.rejected
from lightning_diffaug import DiffAugDataModule
from lightning_diffaug.cli import main
from lightning_diffaug.errors import ConfigurationError, DamagedShardError
from lightning_diffaug.pool import SyntheticPool
from lightning_diffaug.refill.fill_slot import fill_slot
from lightning_diffaug.refill.filler import Filler
from lightning_diffaug.refill.status import STATUS, Reporter

GOOD, BLANK = 0.25, -0.75  # as the values of an image: a ramp around it, or the same everywhere


class Halves:
    """By the seed: good samples, blank ones, and such that are not finite."""

    def __init__(self, shape: Sequence[int] = SHAPE) -> None:
        self.shape = list(shape)

    def generate(self, condition: Mapping[str, Any], seeds: Sequence[int]) -> Tensor:
        ramp = torch.linspace(-0.2, 0.2, int(np.prod(self.shape))).reshape(self.shape)
        kinds = [ramp + GOOD, torch.full(self.shape, BLANK), torch.full(self.shape, float("nan"))]
        return torch.stack([kinds[seed % 3] for seed in seeds])


GATES = [{"_target_": f"lightning_diffaug.gates.{name}"} for name in ("Finite", "NotBlank")]


def _filled(root: Path, keep: int, slots: range = range(3)) -> SyntheticPool:
    job = job_for(Halves(), root, gates=GATES, keep_rejected=keep)
    pool = job.create_pool(Halves(), None)
    reporter = Reporter(Path(job.run_dir) / STATUS)
    filler = Filler(job.recipe(Halves()), pool, reporter, "run", keep_rejected=job.keep_rejected)
    while filler.step(slots):
        pass
    return pool


def test_some_of_each_reason_are_kept_with_their_provenance(tmp_path: Path) -> None:
    pool = _filled(tmp_path, 2)
    assert pool.rejected.slots() == [0, 1, 2]
    for k, shard in enumerate(pool.rejected.read()):
        reasons = [row["reason"] for row in shard.rows]
        rejected = pool.read(k).made["rejections"]
        assert max(rejected.values()) > 2
        assert {reason: reasons.count(reason) for reason in set(reasons)} == {r: min(n, 2) for r, n in rejected.items()}
        for row, image in zip(shard.rows, shard.fields["image"], strict=True):
            assert row.keys() >= {"row", "attempt", "seed", "label"}
            assert row["seed"] % 3 == {"blank": 1, "finite": 2}[row["reason"]]
            if row["reason"] == "blank":
                assert (image == 32).all(), "as it would have been stored: (-0.75 + 1) / 2 of 255"


def test_what_is_kept_changes_neither_slots_nor_the_pools_name(tmp_path: Path) -> None:
    kept, not_kept = _filled(tmp_path / "a", 4), _filled(tmp_path / "b", 0)
    assert kept.fingerprint == not_kept.fingerprint
    assert kept.slots() == not_kept.slots()
    assert [kept.read(k).content for k in range(3)] == [not_kept.read(k).content for k in range(3)]
    assert not_kept.rejected.slots() == []
    assert not (not_kept.folder / "rejected").exists()


def test_files_are_bounded_and_the_newest_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lightning_diffaug.pool.rejected, "MOST_FILES", 3)
    assert _filled(tmp_path, 1, range(7)).rejected.slots() == [4, 5, 6]


def test_a_folder_that_cannot_be_written_costs_the_rejected_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    job = job_for(Halves(), tmp_path, gates=GATES)
    folder = job.create_pool(Halves(), None).folder
    (folder / "rejected").write_text("a file in its place")
    pool = _filled(tmp_path, 2)
    assert pool.slots() == [0, 1, 2]
    assert "the rejected samples of slot 0 are not kept" in caplog.text


def test_a_file_moved_among_the_slots_is_no_slot(tmp_path: Path) -> None:
    pool = _filled(tmp_path, 2)
    pool.path(1).unlink()
    shutil.copy(pool.folder / "rejected" / pool.path(1).name, pool.path(1))
    with pytest.raises(DamagedShardError):
        pool.read(1)


@pytest.mark.parametrize("refill", ["sync", "local"])
def test_training_reads_none_of_them(refill: str, tmp_path: Path) -> None:
    mix = DiffAugDataModule(
        RealModule(), Halves(), 0.5, window=16, slot_size=8, reuse=1, keep_rejected=3, gates=[*GATES],
        refill={"mode": refill, "nice": 0}, cache_dir=tmp_path / "cache", return_source=True,
    )  # fmt: skip
    model = Recorder()
    trainer(tmp_path, 2).fit(model, mix)
    pool = mix.pool
    assert pool is not None
    assert len(pool.rejected.slots()) >= 2
    drawn = torch.cat([images[source["is_synthetic"]] for images, _, source in model.seen["train"]])
    assert len(drawn) == 24
    good = fill_slot(0, job_for(Halves(), tmp_path, gates=GATES).recipe(Halves())).fields["image"][0]
    assert (drawn == good).all(), "all are the one good image"


@pytest.mark.parametrize("value", [-1, 1.5, True, "all"])
def test_a_wrong_number_names_its_key(value: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"data\.keep_rejected"):
        DiffAugDataModule(RealModule(), Halves(), keep_rejected=value, cache_dir=tmp_path)


def test_the_grid_has_a_row_for_each_reason_and_info_counts_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pool = _filled(tmp_path, 4)
    rejections = {"finite": 0, "blank": 0}
    for k in pool.slots():
        for reason, count in pool.read(k).made["rejections"].items():
            rejections[reason] += count
    assert main(["pool", "info", str(pool.folder)]) == 0
    said = capsys.readouterr().out
    for reason, count in rejections.items():
        assert f"  {reason}: {count}\n" in said
    assert f"rejected {sum(rejections.values())}\n" in said
    assert "samples of 3 slots are kept" in said

    out = tmp_path / "rejected.png"
    assert main(["pool", "grid", str(pool.folder), "--rejected", "--out", str(out)]) == 0
    assert str(out) in capsys.readouterr().out
    pixels = np.asarray(Image.open(out).convert("L"))
    assert (pixels == 32).mean() > 0.05, "the blank ones, twelve beside each other"
    assert (pixels == 0).mean() > 0.05, "those that are not finite"


def test_a_pool_without_any_says_how_to_have_some(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pool = _filled(tmp_path, 0, range(1))
    out = tmp_path / "rejected.png"
    assert main(["pool", "grid", str(pool.folder), "--rejected", "--out", str(out)]) == 1
    assert "data.keep_rejected" in capsys.readouterr().err
    assert not out.exists()
