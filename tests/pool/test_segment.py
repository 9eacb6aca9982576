from __future__ import annotations

import pickle
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from torch.utils.data import DataLoader, Dataset, TensorDataset

from lightning_diffaug.errors import DamagedShardError, PoolFormatError
from lightning_diffaug.pool import EpochCache, PoolHeader, Segment, Shard, SyntheticPool, open_segment
from lightning_diffaug.pool.container import check_file

MakeShard = Callable[..., Shard]


@pytest.fixture
def segment(pool: SyntheticPool, tmp_path: Path, make_shard: MakeShard) -> Segment:
    for k in range(4):
        pool.publish(k, make_shard(k))
    return EpochCache(tmp_path / "cache").gather(pool, range(4))[0]


@pytest.mark.parametrize(
    "rows", [[3, 3, 31, 0], torch.tensor([5]), np.array([7, 2]), [], range(32), np.array([1], np.int32)]
)
def test_take_equals_indexing(segment: Segment, rows: list[int]) -> None:
    taken = segment.take(rows)
    index = torch.as_tensor(rows, dtype=torch.int64)
    for name, field in segment.fields.items():
        assert taken[name].dtype == field.dtype
        assert torch.equal(taken[name], field[index])


@pytest.mark.parametrize(
    "dtype", [torch.bool, torch.uint8, torch.int16, torch.uint16, torch.int64, torch.bfloat16, torch.float64]
)
@pytest.mark.parametrize("shape", [(), (1,), (3, 2), (2, 0), (1, 3, 5)])
def test_take_serves_every_dtype_and_shape(
    pool: SyntheticPool, tmp_path: Path, dtype: torch.dtype, shape: tuple[int, ...]
) -> None:
    values = torch.arange(8 * int(np.prod(shape))).reshape(8, *shape).to(dtype)
    pool.publish(0, Shard({"x": values}, rows=[{}] * 8))
    (segment,) = EpochCache(tmp_path / "cache").gather(pool, [0])
    taken = segment.take([6, 1, 1])["x"]
    assert (taken.dtype, taken.shape) == (dtype, (3, *shape))
    assert torch.equal(taken.double(), values[[6, 1, 1]].double())


def test_what_was_taken_is_the_callers_own(segment: Segment) -> None:
    before = segment.fields["image"].clone()
    segment.take([0, 1])["image"].zero_()
    assert torch.equal(segment.fields["image"], before)


@pytest.mark.parametrize("rows", [[32], [-1], [0, 99]])
def test_a_row_that_is_not_there_is_an_error(segment: Segment, rows: list[int]) -> None:
    with pytest.raises(IndexError, match=r"not all in 0\.\.31"):
        segment.take(rows)
    with pytest.raises(IndexError):
        segment.strings(rows)


def test_a_mask_is_not_taken_for_row_numbers(segment: Segment) -> None:
    with pytest.raises(IndexError, match="not bool"):
        segment.take(torch.ones(32, dtype=torch.bool))


def test_strings_come_row_by_row(segment: Segment, make_shard: MakeShard) -> None:
    texts = [text for k in range(4) for text in make_shard(k).strings["prompt"]]
    rows = [31, 0, 8, 9, 8]
    assert segment.strings(rows) == {"prompt": [texts[i] for i in rows]}
    assert segment.strings([]) == {"prompt": []}


def test_fields_of_text_alone_or_of_empty_texts(pool: SyntheticPool, tmp_path: Path) -> None:
    pool.publish(0, Shard({}, {"a": ["", ""], "b": ["x", ""]}, [{}, {}]))
    (segment,) = EpochCache(tmp_path / "cache").gather(pool, [0])
    assert segment.strings([1, 0]) == {"a": ["", ""], "b": ["", "x"]}
    assert segment.take([0]) == {}


def test_a_segment_travels_as_its_path_and_is_opened_once(segment: Segment) -> None:
    data = pickle.dumps(segment)
    assert len(data) < 1000
    assert pickle.loads(data) is open_segment(segment.path) is open_segment(str(segment.path))


def test_a_segment_that_was_made_again_is_opened_again(segment: Segment) -> None:
    first = open_segment(segment.path)
    data = segment.path.read_bytes()
    segment.path.unlink()
    segment.path.write_bytes(data)
    assert open_segment(segment.path) is not first
    segment.path.unlink()
    with pytest.raises(FileNotFoundError):
        open_segment(segment.path)


def test_a_segment_is_plain_safetensors_with_a_checksum(segment: Segment) -> None:
    tensors = safetensors.torch.load_file(segment.path)
    assert torch.equal(tensors["field/image"], segment.fields["image"])
    check_file(segment.path)
    data = segment.path.read_bytes()
    for at in range(0, len(data), 7):
        segment.path.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        with pytest.raises(DamagedShardError):
            check_file(segment.path)
    for length in range(0, len(data), 97):
        segment.path.write_bytes(data[:length])
        with pytest.raises(DamagedShardError):
            check_file(segment.path)


def test_what_is_no_segment_is_not_opened(segment: Segment, pool: SyntheticPool, tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"not one")
    for path in (tmp_path / "x", pool.path(0)):
        with pytest.raises(DamagedShardError, match="not a segment"):
            Segment.open(path)
    with pytest.raises(FileNotFoundError):
        Segment.open(tmp_path / "absent")


def test_a_segment_of_another_format_version_is_told(
    pool: SyntheticPool, tmp_path: Path, make_shard: MakeShard, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool.publish(0, make_shard(0))
    (segment,) = EpochCache(tmp_path / "cache").gather(pool, [0])
    monkeypatch.setattr("lightning_diffaug.pool.segment.FORMAT_VERSION", 99)
    with pytest.raises(PoolFormatError, match="version 1"):
        Segment.open(segment.path)


class _Rows(Dataset[torch.Tensor]):
    """Reads by (segment, row), as a worker process does."""

    def __init__(self, segment: Segment) -> None:
        self.path = segment.path
        self.n = len(segment)

    def __len__(self) -> int:
        return self.n

    def __getitems__(self, rows: list[int]) -> list[torch.Tensor]:
        return list(open_segment(self.path).take(rows)["image"])


def test_worker_processes_read_the_same_rows(segment: Segment) -> None:
    loader = DataLoader(_Rows(segment), batch_size=8, num_workers=1, multiprocessing_context="fork")
    assert torch.equal(torch.cat(list(loader)), segment.fields["image"])


@pytest.mark.parametrize(("shape", "n"), [((1, 8, 8), 4096), ((3, 32, 32), 4096), ((3, 224, 224), 256)])
def test_a_batch_costs_no_more_than_indexing_the_same_tensors_in_ram(
    tmp_path: Path, make_shard: MakeShard, request: pytest.FixtureRequest, shape: tuple[int, ...], n: int
) -> None:
    pool = SyntheticPool.create(tmp_path / "pool", PoolHeader("a" * 24, {}, 256, {}))
    for k in range(n // 256):
        pool.publish(k, make_shard(k, n=256, shape=shape))
    segments = EpochCache(tmp_path / "cache").gather(pool, range(n // 256))
    assert len(segments) == 1
    segment = segments[0]
    ram = TensorDataset(segment.fields["image"].clone(), segment.fields["label"].clone())
    threads = torch.get_num_threads()
    request.addfinalizer(lambda: torch.set_num_threads(threads))
    torch.set_num_threads(1)  # or a TensorDataset waits for its threads, a hundred times longer on busy cores
    random = np.random.default_rng(0)
    spent: dict[str, list[float]] = {"segment": [], "ram": []}
    for _ in range(30):  # interleaved, and in time of this process alone: a busy machine is busy for both
        rows = torch.from_numpy(random.integers(0, n, 64))
        start = time.process_time()
        segment.take(rows)
        middle = time.process_time()
        ram[rows]
        spent["segment"].append(middle - start)
        spent["ram"].append(time.process_time() - middle)
    ratio = statistics.median(spent["segment"]) / statistics.median(spent["ram"])
    print(f"{shape}: {ratio:.2f} of the time of a TensorDataset")
    # Tiny images take microseconds, where the check of the row numbers shows (measured: 1.2).
    assert ratio < (4 if shape[1] == 8 else 1.3)
