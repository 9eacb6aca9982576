"""Which real samples a slot's rows start from: of the right class, by (seed, slot, row) alone, kept in provenance."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from echo_generator import Echo
from refill_toys import job_for, snapshot
from torch import Tensor
from torch.utils.data import IterableDataset
from training_toys import Images, RealModule, Recorder, trainer

from lightning_diffaug import DiffAugDataModule
from lightning_diffaug.conditions import QuotaPlanner, RealGuidedPlanner
from lightning_diffaug.errors import ConfigurationError
from lightning_diffaug.naming import build, name_of
from lightning_diffaug.refill.fill_slot import fill_slot
from lightning_diffaug.snapshot import Snapshot
from lightning_diffaug.spec import FieldSpec, SampleSpec

ROWS = 60


def _data(n: int = 30, labels: Sequence[int] | None = None, size: tuple[int, ...] = (6, 4)) -> Snapshot:
    """Sample i has the value i everywhere."""
    image = torch.arange(n, dtype=torch.uint8).view(n, 1, *[1] * len(size)).expand(n, 1, *size).contiguous()
    spec = [FieldSpec("image", "0", "tensor", "uint8", (1, *size), 0.0, 255.0)]
    if labels is None:
        return Snapshot(SampleSpec(tuple(spec)), {"image": image})
    spec.append(FieldSpec("label", "1", "scalar", "int64", (), 0.0, 0.0))
    label = torch.tensor(labels)
    return Snapshot(SampleSpec(tuple(spec)), {"image": image, "label": label}, ["a", "b", "c"], [0, 1, 2])


LABELS = [i % 3 for i in range(30)]


def _planner(shares: Any = (1, 1, 2), data: Snapshot | None = None, **settings: Any) -> RealGuidedPlanner:
    planner = RealGuidedPlanner(shares, **settings)
    planner.bind(data if data is not None else _data(labels=LABELS))
    return planner


def _index(samples: Tensor) -> Tensor:
    """Which samples of `_data` these are."""
    values = ((samples + 1) * 127.5).round().long().flatten(1)
    assert bool((values == values[:, :1]).all())
    return values[:, 0]


def test_a_row_starts_from_a_sample_of_its_class() -> None:
    plan = _planner().plan(3, ROWS)
    assert torch.equal(_index(plan["start"]), plan["source_index"])
    assert torch.equal(plan["source_index"] % 3, plan["label"])
    assert plan["start"].shape == (ROWS, 1, 6, 4)
    assert plan["start"].dtype == torch.float32
    assert torch.equal(plan["label"], QuotaPlanner([1, 1, 2]).plan(3, ROWS)["label"])  # quotas are the same


def test_all_samples_of_a_class_are_used() -> None:
    planner = _planner()
    counts = torch.bincount(torch.cat([planner.plan(slot, ROWS)["source_index"] for slot in range(20)]), minlength=30)
    by_class = counts.view(10, 3)
    assert bool((by_class > by_class.float().mean(0) / 2.5).all())


def test_a_plan_follows_from_seed_slot_and_row_alone() -> None:
    settings = {"source": "interpolate", "repaint": 0.4}
    one, other_seed = _planner(**settings), _planner(seed=1, **settings)
    plans = [one.plan(slot, ROWS) for slot in range(4)]
    again = _planner(**settings)
    for slot in (2, 0, 3):
        found = again.plan(slot, ROWS)
        assert found.keys() == plans[slot].keys()
        assert all(torch.equal(value, plans[slot][name]) for name, value in found.items())
    for name in ("source_index", "other_index", "weight", "mask"):
        assert not torch.equal(plans[0][name], plans[1][name])
        assert not torch.equal(plans[0][name], other_seed.plan(0, ROWS)[name])


def test_interpolation_is_between_two_samples_of_the_class() -> None:
    plan = _planner(source="interpolate").plan(0, ROWS)
    assert torch.equal(_index(plan["other"]), plan["other_index"])
    assert torch.equal(plan["other_index"] % 3, plan["label"])
    assert bool((plan["other_index"] != plan["source_index"]).all())
    assert 0.2 <= float(plan["weight"].min()) < 0.3 < 0.7 < float(plan["weight"].max()) <= 0.8


def test_a_class_of_one_sample_lies_between_it_and_itself() -> None:
    plan = _planner([1, 0, 0], _data(3, [0, 1, 2]), source="interpolate").plan(0, 5)
    assert plan["other_index"].tolist() == plan["source_index"].tolist() == [0] * 5


def test_an_edit_starts_from_another_class_and_names_it() -> None:
    plan = _planner(source="edit").plan(0, ROWS)
    assert torch.equal(plan["start_label"], plan["source_index"] % 3)
    assert bool((plan["start_label"] != plan["label"]).all())
    assert set(plan["start_label"].tolist()) == {0, 1, 2}


@pytest.mark.parametrize("size", [(12,), (10, 8), (6, 6, 6)])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_the_part_that_is_made_anew_has_the_share_asked_for(size: tuple[int, ...], share: float) -> None:
    masks = _planner(data=_data(labels=LABELS, size=size), repaint=share).plan(0, ROWS)["mask"]
    assert masks.shape == (ROWS, 1, *size)
    assert set(masks.unique().tolist()) == {0.0, 1.0}
    assert abs(float(1 - masks.mean()) - share) < 0.13  # sides are whole
    new = masks[0, 0] == 0
    extents = [
        int(new.any(tuple(other for other in range(len(size)) if other != axis)).sum()) for axis in range(len(size))
    ]
    assert int(new.sum()) == torch.tensor(extents).prod()  # one box
    assert bool((masks.mean(0) < 1).flatten()[[0, -1]].any()) or share < 0.3  # it reaches the border


def test_data_without_labels_start_from_any_sample() -> None:
    plan = _planner(None, _data()).plan(0, ROWS)
    assert set(plan) == {"start", "source_index"}
    assert len(set(plan["source_index"].tolist())) > 15


def test_several_fields_are_joined_along_their_channels() -> None:
    image, depth = torch.zeros(4, 3, 2, 2, dtype=torch.uint8), torch.ones(4, 1, 2, 2)
    spec = [FieldSpec("image", "0", "tensor", "uint8", (3, 2, 2), 0.0, 255.0)]
    spec.append(FieldSpec("depth", "1", "tensor", "float32", (1, 2, 2), 0.0, 1.0))
    data = Snapshot(SampleSpec(tuple(spec)), {"image": image, "depth": depth})
    start = _planner(None, data).plan(0, 3)["start"]
    assert start[:, :, 0, 0].tolist() == [[-1.0, -1.0, -1.0, 1.0]] * 3


def test_a_class_without_samples_gets_none_and_that_is_said(caplog: pytest.LogCaptureFixture) -> None:
    data = _data(4, [0, 0, 1, 1])
    with caplog.at_level(logging.WARNING):
        labels = _planner([1, 1, 1], data).plan(0, 30)["label"]
    assert set(labels.tolist()) == {0, 1}
    assert "[2]" in caplog.text
    assert 2 in _planner([1, 1, 1], data, source="edit").plan(0, 30)["label"]  # it starts from other classes anyway
    with pytest.raises(ConfigurationError, match=r"data\.planner"):
        _planner([0, 0, 1], data)


def test_an_edit_needs_labels() -> None:
    with pytest.raises(ConfigurationError, match=r"generator\.source"):
        RealGuidedPlanner(None, "edit")


# In the refill ------------------------------------------------------------------------------------------


def _job(tmp_path: Path, planner: Any, data: Snapshot) -> Any:
    saved = str(data.save(tmp_path / "snapshots"))
    return job_for(Echo(), tmp_path, planner=name_of(planner), snapshot=saved, snapshot_hash=data.hash)


def test_slots_are_filled_from_the_snapshot_and_provenance_names_the_sources(tmp_path: Path) -> None:
    recipe = _job(tmp_path, RealGuidedPlanner([1, 1, 1], "interpolate"), snapshot()).recipe(Echo())
    shard = fill_slot(5, recipe)
    assert shard.n == recipe.slot_size
    for i, row in enumerate(shard.rows):
        assert row["source_index"] % 3 == row["other_index"] % 3 == row["label"] == int(shard.fields["label"][i])
        assert torch.equal(shard.fields["image"][i], snapshot().raw("image")[row["source_index"]])
        assert 0.2 <= row["weight"] <= 0.8


def test_the_training_data_name_the_pool_where_the_planner_reads_them(tmp_path: Path) -> None:
    def name(planner: Any, n: int) -> str:
        return _job(tmp_path, planner, snapshot(n)).pool_header(Echo(), None).fingerprint

    assert name(RealGuidedPlanner([1, 1, 1]), 12) != name(RealGuidedPlanner([1, 1, 1]), 9)
    assert name(QuotaPlanner([1, 1, 1]), 12) == name(QuotaPlanner([1, 1, 1]), 9)
    one = name(RealGuidedPlanner([1, 1, 1]), 12)
    assert one == name(RealGuidedPlanner([1, 1, 1]), 12)
    for other in (RealGuidedPlanner([1, 1, 1], "edit"), RealGuidedPlanner([1, 1, 1], repaint=0.5)):
        assert name(other, 12) != one


@pytest.mark.parametrize("refill", ["local", "sync"])
def test_a_generator_that_starts_from_real_samples_is_given_them_in_a_run(tmp_path: Path, refill: str) -> None:
    class Local(Echo):
        """Without an import path: the trainer's own process fills."""

    generator = Echo() if refill == "local" else Local()
    mixed = DiffAugDataModule(
        RealModule(Images(24, labels=[i % 3 for i in range(24)])), generator, synthetic_fraction=0.5,
        refill={"mode": refill, "nice": 0},
        window=16, slot_size=8, cache_dir=tmp_path / "cache", return_source=True, gates=[],
    )  # fmt: skip
    model = Recorder()
    trainer(tmp_path, max_epochs=2).fit(model, datamodule=mixed)
    synthetic = [
        (int(image.flatten()[0]), int(label))
        for images, labels, source in model.seen["train"]
        for image, label, made in zip(images, labels, source["is_synthetic"], strict=True)
        if made
    ]
    assert len(synthetic) == 24
    assert all(value % 3 == label for value, label in synthetic)
    assert len({value for value, _ in synthetic}) > 6


class Stream(IterableDataset[Any]):
    """Images without an index."""

    def __iter__(self) -> Any:
        return (image for image, _ in (Images(8)[i] for i in range(8)))

    def __len__(self) -> int:
        return 8


def test_data_without_an_index_are_refused_with_the_remedy(tmp_path: Path) -> None:
    mixed = DiffAugDataModule(
        RealModule(Stream(), shuffle=False), Echo(), synthetic_fraction=0.5, refill="sync", cache_dir=tmp_path
    )
    with pytest.raises(ConfigurationError, match=r"starts from real training samples.*generator\.source"):
        trainer(tmp_path).fit(Recorder(), datamodule=mixed)


# Conditions ---------------------------------------------------------------------------------------------


def _with_mask() -> Snapshot:
    """`_data`, and a mask whose every value is twice the sample's number."""
    data = _data(labels=LABELS)
    spec = SampleSpec((*data.spec.fields, FieldSpec("mask", "2", "tensor", "uint8", (6, 4), 0.0, 255.0)))
    mask = 2 * data.raw("image")[:, 0]
    return Snapshot(spec, {"image": data.raw("image"), "label": data.raw("label"), "mask": mask}, ["a", "b", "c"])


EDGES = {"outline": {"of": "image", "how": "edges", "factor": 4}}


def test_what_is_given_is_that_of_a_real_sample_of_the_class() -> None:
    data = _with_mask()
    plan = _planner(data=data, source="noise", given=["mask"], derived=EDGES).plan(2, ROWS)
    assert set(plan) == {"label", "source_index", "mask", "outline"}  # nothing to start from
    assert plan["mask"].dtype == torch.uint8
    assert torch.equal(plan["mask"], data.raw("mask", plan["source_index"]))
    assert torch.equal(plan["source_index"] % 3, plan["label"])
    assert torch.equal(plan["outline"], torch.full((ROWS, 1, 6, 4), -1.0))  # even images have no edge
    assert len(set(plan["source_index"].tolist())) > 10


def test_what_is_given_belongs_to_the_start_and_is_no_part_of_it() -> None:
    plan = _planner(data=_with_mask(), given=["mask"]).plan(0, ROWS)
    assert torch.equal(_index(plan["start"]), plan["source_index"])
    assert torch.equal(plan["mask"][:, 0, 0].long(), 2 * plan["source_index"])


def test_an_edit_is_given_what_it_is_to_be_and_what_it_was() -> None:
    plan = _planner(data=_with_mask(), source="edit", given=["mask"]).plan(0, ROWS)
    assert torch.equal(plan["start_mask"][:, 0, 0].long(), 2 * plan["source_index"])
    assert torch.equal(plan["mask"][:, 0, 0].long(), 2 * plan["given_index"])
    assert torch.equal(plan["given_index"] % 3, plan["label"])
    assert bool((plan["source_index"] % 3 != plan["label"]).all())


def test_a_condition_that_is_no_field_is_refused_with_the_fields_that_there_are() -> None:
    for settings in ({"given": ["depth"]}, {"derived": {"low": {"of": "depth", "how": "edges", "factor": 4}}}):
        with pytest.raises(ConfigurationError, match=r"'depth'.*'mask'.*data\.fields"):
            _planner(data=_with_mask(), source="noise", **settings)


def test_a_planner_with_conditions_is_made_again_by_its_name() -> None:
    planner = RealGuidedPlanner([1, 1, 2], "noise", seed=3, given=["mask"], derived=EDGES)
    again = build(name_of(planner, "planner"))
    planner.bind(_with_mask())
    again.bind(_with_mask())
    first, second = planner.plan(4, ROWS), again.plan(4, ROWS)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
