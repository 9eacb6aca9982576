from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
import torch
from safetensors import safe_open

from lightning_diffaug.errors import ConfigurationError, DamagedShardError, PoolFormatError
from lightning_diffaug.pool import Shard
from lightning_diffaug.pool.shard import read_shard, summarise, write_shard

MakeShard = Callable[..., Shard]


def written(tmp_path: Path, shard: Shard, **tags: str) -> bytes:
    path = tmp_path / f"{len(list(tmp_path.iterdir()))}.safetensors"
    write_shard(path, shard, tags)
    return path.read_bytes()


def assert_equal(a: Shard, b: Shard) -> None:
    assert a.fields.keys() == b.fields.keys()
    for name, tensor in a.fields.items():
        assert tensor.dtype == b.fields[name].dtype
        assert torch.equal(tensor, b.fields[name])
    assert (a.strings, a.rows, a.rejected, a.made) == (b.strings, b.rows, b.rejected, b.made)


def test_a_shard_comes_back_as_it_was(tmp_path: Path, make_shard: MakeShard) -> None:
    shard = make_shard(3, seconds=1.5, versions={"torch": "2"})
    assert_equal(read_shard(written(tmp_path, shard)), shard)


DTYPES = [
    torch.bool, torch.uint8, torch.int8, torch.uint16, torch.int16, torch.uint32, torch.int32,
    torch.uint64, torch.int64,
    torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.complex64,
]  # fmt: skip


def test_every_dtype_and_shape_comes_back(tmp_path: Path) -> None:
    fields = {str(d): torch.arange(30).reshape(5, 2, 3).to(d) for d in DTYPES}
    fields |= {"scalar": torch.arange(5), "empty": torch.empty(5, 0, 3), "strided": torch.randn(3, 5).T}
    shard = Shard(fields, rows=[{}] * 5)
    assert_equal(read_shard(written(tmp_path, shard)), shard)


def test_the_file_is_plain_safetensors(tmp_path: Path, make_shard: MakeShard) -> None:
    shard = make_shard(1)
    path = tmp_path / "x.safetensors"
    write_shard(path, shard)
    assert torch.equal(safetensors.torch.load_file(path)["image"], shard.fields["image"])
    with safe_open(path, "pt") as file:
        assert json.loads(file.metadata()["rows"]) == shard.rows


def test_an_empty_slot_keeps_its_reason(tmp_path: Path) -> None:
    shard = Shard({}, rejected=[{"row": 0, "reason": "constant image", "attempts": 4}])
    back = read_shard(written(tmp_path, shard))
    assert back.n == 0
    assert back.rejected == shard.rejected
    assert read_shard(written(tmp_path, Shard({"x": torch.empty(0, 1, 8, 8)}))).fields["x"].shape == (
        0,
        1,
        8,
        8,
    )


def test_a_slot_made_again_has_the_same_content_checksum(tmp_path: Path, make_shard: MakeShard) -> None:
    first, again = make_shard(5, seconds=1), make_shard(5, seconds=2)
    assert first.content == again.content == read_shard(written(tmp_path, first)).content
    others = [
        make_shard(6),
        make_shard(5, n=7),
        Shard(first.fields, first.strings, first.rows),
        Shard(first.fields, {}, first.rows, first.rejected),
        Shard(first.fields, first.strings, [{}] * 8, first.rejected),
        Shard({**first.fields, "label": first.fields["label"].int()}, first.strings, first.rows, first.rejected),
    ]
    assert len({shard.content for shard in [first, *others]}) == 1 + len(others)


@pytest.mark.parametrize("flip", [0x01, 0x20, 0x2D, 0xFF])
def test_any_flipped_byte_is_noticed(tmp_path: Path, make_shard: MakeShard, flip: int) -> None:
    # 0x20 turns a hexadecimal digit's case, 0x2D a padding space into other white space.
    data = bytearray(written(tmp_path, make_shard(1, n=2, seconds=1)))
    for at in range(len(data)):
        data[at] ^= flip
        with pytest.raises(DamagedShardError):
            read_shard(bytes(data))
        data[at] ^= flip
    read_shard(bytes(data))


def test_truncation_at_every_length_is_noticed(tmp_path: Path, make_shard: MakeShard) -> None:
    data = written(tmp_path, make_shard(1, n=2))
    for length in range(len(data)):
        with pytest.raises(DamagedShardError):
            read_shard(data[:length])
    with pytest.raises(DamagedShardError):
        read_shard(data + b"\0")


def test_zeroed_blocks_are_noticed(tmp_path: Path, make_shard: MakeShard) -> None:
    # What a file system may leave after a power cut: the length is right, the content is zeros.
    data = written(tmp_path, make_shard(1))
    for start in (0, 512, len(data) // 2):
        with pytest.raises(DamagedShardError):
            read_shard(data[:start] + bytes(len(data) - start))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0",
        b"\xff" * 8,
        b"\xff" * 100,
        bytes(1000),
        b"PK\x03\x04 a zip file, say a pickled checkpoint" * 10,
        safetensors.torch.save({"x": torch.zeros(3)}),
        safetensors.torch.save({"x": torch.zeros(3)}, {"checksum": "0" * 64}),
        safetensors.torch.save({"x": torch.zeros(3)}, {"checksum": "short"}),
    ],
)
def test_a_foreign_file_is_a_damaged_shard_with_a_reason(data: bytes) -> None:
    with pytest.raises(DamagedShardError, match=r"empty|ends after|checksum"):
        read_shard(data)


def test_another_slots_file_is_noticed(tmp_path: Path, make_shard: MakeShard) -> None:
    data = written(tmp_path, make_shard(1), slot="1", pool="a")
    read_shard(data, {"slot": "1", "pool": "a"})
    with pytest.raises(DamagedShardError, match="slot=1, not slot=2"):
        read_shard(data, {"slot": "2", "pool": "a"})


def test_another_format_version_is_told_from_damage(
    tmp_path: Path, make_shard: MakeShard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lightning_diffaug.pool.shard.FORMAT_VERSION", 99)
    data = written(tmp_path, make_shard(1))
    monkeypatch.undo()
    with pytest.raises(PoolFormatError, match=r"version 99.*paths\.cache_dir"):
        read_shard(data)


def test_text_that_looks_like_the_header_does_no_harm(tmp_path: Path) -> None:
    text = (
        '"checksum":"'
        + "0" * 64
        + '" \\"checksum\\":\\" \0 \ud83d\ude00 </s>'.encode("utf-16", "surrogatepass").decode("utf-16")
    )
    shard = Shard({"checksum": torch.zeros(1)}, {"prompt": [text]}, [{'"checksum":"': text}], made={"checksum": "x"})
    assert_equal(read_shard(written(tmp_path, shard)), shard)


def test_scores_that_are_not_finite_can_be_stored(tmp_path: Path) -> None:
    shard = Shard({}, rejected=[{"score": math.nan}, {"score": -math.inf}])
    assert read_shard(written(tmp_path, shard)).rejected == [{"score": "nan"}, {"score": "-inf"}]


def test_summary_tells_counts_and_labels_without_the_samples(tmp_path: Path, make_shard: MakeShard) -> None:
    shard = make_shard(2)
    path = tmp_path / "x"
    write_shard(path, shard)
    summary = summarise(path)
    assert (summary.n, summary.nbytes, summary.string_bytes) == (8, path.stat().st_size, shard.string_bytes)
    assert summary.labels is not None
    assert torch.equal(summary.labels, shard.fields["label"])
    path.write_bytes(b"foreign")
    with pytest.raises(DamagedShardError):
        summarise(path)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (
            {"fields": {"x": torch.zeros(3)}, "rows": [{}] * 2},
            r"field 'x' has shape \(3,\) but there are 2 rows",
        ),
        ({"fields": {"x": torch.tensor(0)}}, r"field 'x' has shape \(\)"),
        ({"fields": {}, "strings": {"p": ["a"]}, "rows": []}, r"strings\['p'\] has 1 entries"),
        ({"fields": {}, "strings": {"p": [3]}, "rows": [{}]}, r"one str a row"),
        ({"fields": {"p": torch.zeros(1)}, "strings": {"p": ["a"]}, "rows": [{}]}, "one kind"),
        ({"fields": {"__metadata__": torch.zeros(0)}}, "__metadata__"),
        ({"fields": {}, "rows": [{"seed": torch.tensor(1)}]}, r"rows\[0\]\.seed=tensor\(1\)"),
        ({"fields": {}, "made": {"at": Path("x")}}, r"made\.at="),
    ],
)
def test_parts_that_do_not_fit_are_refused_by_name(arguments: dict[str, object], text: str) -> None:
    with pytest.raises(ConfigurationError, match=text):
        Shard(**arguments)  # type: ignore[arg-type]


def test_a_dtype_without_file_form_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"'x' is torch\.complex128"):
        write_shard(tmp_path / "x", Shard({"x": torch.zeros(1, dtype=torch.complex128)}, rows=[{}]))
