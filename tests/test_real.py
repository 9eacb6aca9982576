"""The real side of a mix: counts, snapshot and limits."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from training_toys import Images, RealModule

from lightning_diffaug.errors import ConfigurationError
from lightning_diffaug.real import RealTraining
from lightning_diffaug.snapshot import Snapshot


def _data(train: Any = None, **settings: Any) -> RealTraining:
    defaults: dict[str, Any] = {
        "raw": None, "fields": None, "fill": None, "labels": None, "synthetic_transform": None,
        "augment_synthetic": True, "return_source": False, "epoch_length": None, "value_range": None,
        "snapshot_limit": 1 << 30, "soft_labels": False,
    }  # fmt: skip
    return RealTraining.of(RealModule(train), **{**defaults, **settings})


def images_with_labels(n: int = 24) -> Images:
    """A dataset by import path."""
    return Images(n)


def test_classes_are_counted_in_the_order_of_their_labels() -> None:
    data = _data(Images(labels=[40, -2, 7, 7, 40, 7]))
    assert data.label_values == (-2, 7, 40)
    assert data.class_names == ("-2", "7", "40")
    assert data.class_counts == [1, 3, 2]
    assert [part.tolist() for part in data.members] == [[1], [2, 3, 5], [0, 4]]


def test_data_without_labels_are_one_group() -> None:
    class Bare(Images):
        def __getitem__(self, index: int) -> Any:
            return super().__getitem__(index)[0]

    data = _data(Bare())
    assert (data.class_names, data.class_counts) == ((), [24])
    assert data.members[0].tolist() == list(range(24))


def test_a_snapshot_holds_the_raw_training_data(tmp_path: Path) -> None:
    data = _data(Images(labels=[5, 9, 5, 9], transform=lambda image: image.float() + 0.5))
    snapshot = data.snapshot()
    assert snapshot is not None
    again = Snapshot.load(snapshot.save(tmp_path))
    assert again.hash == snapshot.hash
    assert again.raw("image").dtype == torch.uint8
    assert again.raw("image")[:, 0, 0, 0].tolist() == [0, 1, 2, 3]
    assert again.labels is not None
    assert again.labels.tolist() == [0, 1, 0, 1]
    assert again.label_values == (5, 9)


def test_the_snapshots_hash_names_content_labels_and_order() -> None:
    def name(**settings: Any) -> str:
        snapshot = _data(**settings).snapshot()
        assert snapshot is not None
        return snapshot.hash

    same = name(train=Images(6))
    assert same == name(train=Images(6, transform=lambda image: image + 1))  # the transform is off
    others = [
        name(train=Images(6, offset=1)),
        name(train=Images(6, labels=[1, 0, 2, 0, 1, 2])),
        name(train=Images(6, labels=[0, 1, 3, 0, 1, 3])),
        name(train=Images(7)),
    ]
    assert len({same, *others}) == 5


def test_the_training_data_are_read_once_for_all_who_want_the_snapshot() -> None:
    class Counted(Images):
        reads = 0

        def __getitem__(self, index: int) -> Any:
            self.reads += 1
            return super().__getitem__(index)

    raw = Counted(200)
    data = _data(Images(200), raw=raw)
    before = raw.reads
    assert data.snapshot() is data.snapshot()
    assert raw.reads == before + 200


def test_texts_are_copied_in_the_pass_that_copies_the_data() -> None:
    class Captioned(Images):
        reads = 0

        def __getitem__(self, index: int) -> Any:
            self.reads += 1
            return *super().__getitem__(index), f"picture {index}"

    raw = Captioned(200)
    data = _data(Captioned(200), raw=raw, fields={"0": "image", "1": "label", "2": "caption"})
    before = raw.reads
    snapshot = data.snapshot()
    assert snapshot is not None
    assert snapshot.texts["caption"] == [f"picture {i}" for i in range(200)]
    assert raw.reads == before + 200


def test_a_snapshot_does_not_hold_all_rows_beside_itself() -> None:
    class Arrays(Images):
        def __getitem__(self, index: int) -> Any:
            return np.zeros((3, 128, 128), np.uint8), self.targets[index]

    data = _data(Arrays(100))
    tracemalloc.start()  # sees numpy's memory, in which the rows come, and not torch's
    try:
        assert data.snapshot() is not None
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert 3 * 128 * 128 <= peak < 100 * 3 * 128 * 128 / 4


def test_data_above_the_limit_are_not_copied(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"snapshot_limit=100(.|\n)*_target_(.|\n)*data\.snapshot_limit"):
        _data(snapshot_limit=100).snapshot()


def test_data_above_the_limit_are_read_by_their_import_path(tmp_path: Path) -> None:
    named = {"_target_": "training_toys.Images"}
    snapshot = _data(snapshot_limit=100, raw=named).snapshot()
    assert snapshot is not None
    file = snapshot.save(tmp_path)
    assert file.stat().st_size < 24 * 16 + 4096
    again = Snapshot.load(file)
    assert again.raw("image", torch.tensor([5, 3]))[:, 0, 0, 0].tolist() == [5, 3]


def test_a_range_is_found_over_the_data_and_not_on_one_sample() -> None:
    class Ramp(Images):
        def __getitem__(self, index: int) -> Any:
            return torch.full((1, 4, 4), index / 2.0), self.targets[index]

    assert (_data(Ramp()).spec["image"].low, _data(Ramp()).spec["image"].high) == (0.0, 11.5)
    assert _data(Ramp(), value_range=(-1.0, 20.0)).spec["image"].high == 20.0


@pytest.mark.parametrize("given", [(-1.25, 1.25), {"image": (-1.25, 1.25)}, {"image": (0.0, 11.0)}])
def test_a_given_range_that_does_not_hold_the_data_is_refused(given: Any) -> None:
    class Metres(Images):
        def __getitem__(self, index: int) -> Any:
            return torch.full((1, 4, 4), index / 2.0), self.targets[index]

    with pytest.raises(ConfigurationError, match=r"'0'.*\[0, 11\.5\].* data\.image_range .*\{image: \[") as error:
        _data(Metres(), value_range=given)
    assert "11.5]}" in str(error.value)
    spec = _data(Metres(), value_range={"image": (0.0, 11.45)}).spec
    assert spec["image"].high == 11.45, "a little more is rounding"


def test_a_given_range_holds_every_class_of_a_mask() -> None:
    class Masks(Images):
        def __getitem__(self, index: int) -> Any:
            return super().__getitem__(index)[0], torch.full((4, 4), index + 100)

    fields = {"0": "image", "1": "mask"}
    assert _data(Masks(), fields=fields, value_range={"mask": (0, 123)}).spec["mask"].high == 123
    with pytest.raises(ConfigurationError, match=r"\[100, 123\]"):
        _data(Masks(), fields=fields, value_range={"mask": (0, 122)})
