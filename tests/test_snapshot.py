"""The training snapshot: kept under its content's hash, verified on reading, made again when damaged."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from refill_toys import CLASSES, SHAPE, SPEC, snapshot

from lightning_diffaug.errors import DamagedShardError
from lightning_diffaug.snapshot import Snapshot
from lightning_diffaug.spec import FieldSpec, SampleSpec


class Source:
    """A data set that is read on demand; making one leaves a mark."""

    made = 0

    def __init__(self, n: int = 5) -> None:
        self.n = n
        Source.made += 1

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return torch.full(SHAPE, index, dtype=torch.uint8), index % 3


_NAMED = {"_target_": "test_snapshot_source.Source", "n": 5}


@pytest.fixture
def source_module(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys
    import types

    module = types.ModuleType("test_snapshot_source")
    module.Source = Source  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "test_snapshot_source", module)


def test_a_snapshot_comes_back_equal(tmp_path: Path) -> None:
    first = snapshot()
    again = Snapshot.load(first.save(tmp_path))
    assert again.hash == first.hash == (tmp_path / f"{first.hash}.safetensors").stem
    assert torch.equal(again.raw("image"), first.raw("image"))
    assert again.labels is not None
    assert again.labels.tolist() == [0, 1, 2] * 4
    assert (again.class_names, again.label_values, len(again)) == (CLASSES, (0, 1, 2), 12)
    assert again.spec == SPEC


def test_unit_scales_the_raw_range_and_rows_can_be_chosen() -> None:
    data = snapshot()
    assert data.unit("image", torch.tensor([0, 11]))[:, 0, 0, 0].tolist() == pytest.approx([-1.0, 110 / 127.5 - 1])
    assert data.raw("image", torch.tensor([3]))[0, 0, 0, 0] == 30


@pytest.mark.parametrize(
    "change",
    [
        {"images": torch.zeros(12, *SHAPE, dtype=torch.uint8)},
        {"labels": torch.zeros(12, dtype=torch.int64)},
        {"names": ("a", "c", "b")},
        {"values": (0, 1, 7)},
        {"spec": SampleSpec((FieldSpec("image", "pixels", "tensor", "uint8", SHAPE, 0, 255, "chw"), SPEC.fields[1]))},
    ],
)
def test_content_labels_class_order_and_structure_are_in_the_hash(change: dict[str, object]) -> None:
    base = snapshot()
    fields = {"image": change.get("images", base.raw("image")), "label": change.get("labels", base.labels)}
    other = Snapshot(
        change.get("spec", SPEC),  # type: ignore[arg-type]
        fields,  # type: ignore[arg-type]
        change.get("names", CLASSES),  # type: ignore[arg-type]
        change.get("values", (0, 1, 2)),  # type: ignore[arg-type]
    )
    assert other.hash != base.hash


def _damage(path: Path, how: str) -> None:
    data = bytearray(path.read_bytes())
    if how == "flipped":
        data[-1] ^= 1
    elif how == "truncated":
        del data[-20:]
    elif how == "empty":
        data.clear()
    else:
        data[:] = b"\x80\x04\x95not a snapshot"
    path.write_bytes(data)


@pytest.mark.parametrize("how", ["flipped", "truncated", "empty", "foreign"])
def test_a_damaged_snapshot_is_noticed_set_aside_and_made_again(tmp_path: Path, how: str) -> None:
    data = snapshot()
    path = data.save(tmp_path)
    _damage(path, how)
    with pytest.raises(DamagedShardError, match=path.name):
        Snapshot.load(path)
    assert Snapshot.load(data.save(tmp_path)).hash == data.hash
    assert len(list((tmp_path / "damaged").iterdir())) == 1


def test_a_large_data_set_is_read_on_demand(tmp_path: Path, source_module: None) -> None:
    labels = {"label": torch.arange(5) % 3}
    path = Snapshot(SPEC, labels, CLASSES, (0, 1, 2), Source(), _NAMED).save(tmp_path)
    assert path.stat().st_size < 2000
    again = Snapshot.load(path)
    assert len(again) == 5
    assert again.raw("image", torch.tensor([4, 1]))[:, 0, 0, 0].tolist() == [4, 1]
    assert again.raw("image").shape == (5, *SHAPE)


def test_an_altered_file_does_not_say_what_is_run(tmp_path: Path, source_module: None) -> None:
    path = Snapshot(SPEC, {"label": torch.arange(5) % 3}, CLASSES, (0, 1, 2), Source(), _NAMED).save(tmp_path)
    path.write_bytes(path.read_bytes().replace(b'\\"n\\": 5', b'\\"n\\": 6'))
    made = Source.made
    with pytest.raises(DamagedShardError, match="altered"):
        Snapshot.load(path)
    assert Source.made == made
