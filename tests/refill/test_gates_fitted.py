"""A gate's classifier is fitted by the refill process, once; later runs and other gates find it; it names the pool."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from refill_toys import CLASSES, SLOT, SPEC, job_for, need, status, until, watched, worker
from torch import Tensor
from torch.utils.data import Dataset
from training_toys import Noise, RealModule

from lightning_diffaug import DiffAugDataModule
from lightning_diffaug.errors import ConfigurationError
from lightning_diffaug.gates import RightClass, Safety
from lightning_diffaug.gates.choice import chosen_gates
from lightning_diffaug.naming import name_of
from lightning_diffaug.refill.job import Job
from lightning_diffaug.refill.local import LocalRefill
from lightning_diffaug.snapshot import Snapshot

Start = Callable[..., LocalRefill]
FIT = {"steps": 40, "width": 8, "augment_p": 0.0}


def _shown(labels: Tensor, seeds: Sequence[int]) -> Tensor:
    """Images 1x4x4 whose row of the label's number is bright."""
    x = torch.stack([torch.rand(1, 4, 4, generator=torch.Generator().manual_seed(seed)) * 0.4 - 0.9 for seed in seeds])
    for image, label in zip(x, labels.tolist(), strict=True):
        image[0, label] += 1.4
    return x


class Mistaken:
    """Shows the next class in place of the one that is asked for, by the seed in one of two samples."""

    def generate(self, condition: Mapping[str, Any], seeds: Sequence[int]) -> Tensor:
        wrong = torch.tensor(seeds) % 2
        return _shown((condition["label"] + wrong) % 3, seeds)


def _job(root: Path, **gates: Any) -> dict[str, Any]:
    labels = torch.arange(90) % 3
    levels = SPEC["image"].from_unit(_shown(labels, range(90)))
    data = Snapshot(SPEC, {"image": levels, "label": labels}, CLASSES, (0, 1, 2))
    plain = {"copy": False, "duplicate": False, **gates}
    return {
        "gates": [name_of(gate, "gates") for gate in chosen_gates(plain)],
        "snapshot": str(data.save(root / "snapshots")), "snapshot_hash": data.hash, "attempts": 6,
    }  # fmt: skip


def _filled(refill: LocalRefill, slots: int = 2) -> Any:
    refill.need(0, slots)
    pool = watched(refill, refill.pool)
    watched(refill, lambda: all(pool.has(k) for k in range(slots)))
    return pool


def _fits(root: Path) -> set[str]:
    return {path.parent.name for path in (root / "generators").glob("*/classifier.safetensors")}


def test_it_is_fitted_in_the_refill_process_once_and_its_verdict_is_what_enters_the_pool(
    tmp_path: Path, start: Start
) -> None:
    first = start(Mistaken(), _job(tmp_path, **{"class": {"fit": FIT}}))
    assert first.pool() is None, "its weights are part of the pool's name"
    pool = _filled(first)
    fit = watched(first, lambda: first.status.fit_seconds)
    for slot in range(2):
        shard = pool.read(slot)
        assert shard.n > SLOT / 2
        assert shard.made["rejections"].keys() == {"class"}
        for image, row in zip(shard.fields["image"], shard.rows, strict=True):
            assert int(image.float().mean((0, 2)).argmax()) == row["label"]
            assert row["scores"]["class_probability"] >= 0.5
    first.close()
    assert fit > 0
    (fitted,) = _fits(tmp_path)
    weights = (tmp_path / "generators" / fitted / "classifier.safetensors").read_bytes()

    # The same settings: the pool is known before anything starts.
    known = job_for(Mistaken(), tmp_path, **_job(tmp_path, **{"class": {"fit": FIT}})).find_pool(Mistaken())
    assert known is not None
    assert known.folder == pool.folder

    # Another confidence is another pool; the fit is the same, also for the gate of copies.
    asked = {"class": {"fit": FIT, "confidence": 0.8}, "copy": {"encoder": {"class": FIT}, "shift": 0}}
    job = job_for(Mistaken(), tmp_path, **_job(tmp_path, **asked))
    other = job.find_pool(Mistaken())
    assert other is not None
    assert other.folder != pool.folder
    need(job, 1)
    with worker(job):
        until(lambda: other.has(0))
        assert status(job).fit_seconds == 0
    assert _fits(tmp_path) == {fitted}
    assert (tmp_path / "generators" / fitted / "classifier.safetensors").read_bytes() == weights
    assert min(row["scores"]["class_probability"] for row in other.read(0).rows) >= 0.8


def _pool(root: Path, weights: str | None = None, **gates: Any) -> str:
    job = job_for(Mistaken(), root, **_job(root, **gates))
    found = [weights if "RightClass" in gate["_target_"] else None for gate in job.gates]
    return job.pool_header(Mistaken(), None, found).fingerprint


def test_what_changes_a_verdict_names_another_pool_and_nothing_else(tmp_path: Path) -> None:
    plain = _pool(tmp_path, "w", **{"class": True})
    settings = [{"confidence": 0.6}, {"margin": 0.1}, {"top_k": 2}, {"model": "gate_models.Quadrants"}]
    others = [_pool(tmp_path, "w", **{"class": one}) for one in settings]
    others += [_pool(tmp_path, "v", **{"class": True}), _pool(tmp_path)]
    assert len({plain, *others}) == 1 + len(others)
    for same in ({"device": "cpu"}, {"fit": {}}, {"fit": {"steps": 400}}):
        assert _pool(tmp_path, "w", **{"class": same}) == plain
    safe = _pool(tmp_path, safety={"model": "gate_models.dark"})
    assert safe == _pool(tmp_path, safety={"model": "gate_models.dark", "device": "cpu"})
    assert safe != _pool(tmp_path, safety={"model": "gate_models.darkness"})


def test_a_model_that_a_gate_asks_keeps_out_of_the_trainers_way(tmp_path: Path) -> None:
    gates = [name_of(gate, "gates") for gate in (RightClass(), Safety("gate_models.dark"))]
    job: Job = dataclasses.replace(job_for(Mistaken(), tmp_path), gates=gates, trainer_devices=[1, 0])
    assert job.make_gates()[1].asks.trainer_devices == (1, 0)


def test_its_folder_holds_weights_and_no_pickle(tmp_path: Path) -> None:
    job = job_for(Mistaken(), tmp_path, **_job(tmp_path, **{"class": {"fit": {**FIT, "steps": 3}}}))
    weights, _ = job.fit_gates(job.make_gates(), lambda step, total: None)
    assert [one is not None for one in weights] == [gate["_target_"].endswith("RightClass") for gate in job.gates]
    (folder,) = [path.parent for path in (tmp_path / "generators").glob("*/classifier.safetensors")]
    assert {path.name for path in folder.iterdir()} == {"classifier.safetensors", "fitted.json"}
    assert json.loads((folder / "fitted.json").read_text())["files"].keys() == {"classifier.safetensors"}


class Unlabelled(Dataset[Any]):
    """Images alone."""

    def __len__(self) -> int:
        return 24

    def __getitem__(self, index: int) -> Tensor:
        return torch.full((1, 4, 4), index * 10, dtype=torch.uint8)


@pytest.mark.parametrize(
    ("gates", "words"),
    [
        ({"class": True}, r"gates\.class=false"),
        ({"copy": {"encoder": "class"}}, r"gates\.copy\.encoder"),
        ({"caption": {"model": "/no/such/folder"}}, r"gates\.caption\.model"),
        ({"safety": {"model": "/no/such/folder"}}, r"gates\.safety\.model"),
    ],
)
def test_what_does_not_suit_the_data_is_said_before_anything_starts(gates: Any, words: str, tmp_path: Path) -> None:
    mix = DiffAugDataModule(RealModule(Unlabelled()), Noise(), 0.5, gates=gates, cache_dir=tmp_path)
    mix.setup("fit")
    with pytest.raises(ConfigurationError, match=words):
        next(iter(mix.train_dataloader()))
    assert not (tmp_path / "pools").exists()
