"""Batches of real and pooled samples: order, source, and random transforms that only the batch's seed decides."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from training_toys import Images, jitter

from lightning_diffaug.adapter import SampleAdapter
from lightning_diffaug.mixing.dataset import BatchIndex, MixedDataset, with_source
from lightning_diffaug.pool import EpochCache, PoolHeader, Shard, SyntheticPool
from lightning_diffaug.randomness import seeded
from lightning_diffaug.sample import probe


@pytest.fixture
def segments(tmp_path: Path) -> tuple[str, ...]:
    """Slots 3 and 4, two rows each; row r of slot k has the value 10 k + r."""
    pool = SyntheticPool.create(tmp_path / "pool", PoolHeader("f" * 24, {}, 2, {}))
    for slot in (3, 4):
        values = torch.tensor([10 * slot, 10 * slot + 1], dtype=torch.uint8)
        fields = {
            "image": values.reshape(2, 1, 1, 1).expand(2, 1, 4, 4).contiguous(),
            "label": torch.tensor([0, 1]),
        }
        rows: list[dict[str, Any]] = [{"row": 0}, {"row": 1}]
        pool.publish(slot, Shard(fields=fields, strings={}, rows=rows, rejected=[], made={}))
    return tuple(str(segment.path) for segment in EpochCache(tmp_path / "cache").gather(pool, [3, 4]))


def _dataset(transform: Any = None, real: Any = None, return_source: bool = True) -> MixedDataset:
    template = (torch.zeros(1, 4, 4, dtype=torch.uint8), 0)
    adapter = SampleAdapter(template, probe(template), [0, 1, 2])
    change = None if transform is None else lambda sample: (transform(sample[0]), sample[1])
    data = Images(transform=transform) if real is None else real
    return MixedDataset(data, adapter, change, lambda samples: [samples], return_source)


def _index(segments: tuple[str, ...], seed: int = 5) -> BatchIndex:
    real = np.array([7, -1, 2, -1, -1])
    return BatchIndex(real, np.array([-1, 0, -1, 0, 0]), np.array([-1, 3, -1, 0, 3]), segments, seed)


def test_samples_come_in_the_order_of_the_index(segments: tuple[str, ...]) -> None:
    samples, source = _dataset()[_index(segments)]
    assert [int(image.max()) for image, _ in samples] == [7, 41, 2, 30, 41]
    assert [label for _, label in samples] == [1, 1, 2, 0, 1]
    assert source["is_synthetic"].tolist() == [False, True, False, True, True]
    assert source["slot"].tolist() == [-1, 4, -1, 3, 4]
    assert source["row"].tolist() == [-1, 1, -1, 0, 1]
    assert source["real_index"].tolist() == [7, -1, 2, -1, -1]


def test_a_batch_without_source_is_the_collated_batch(segments: tuple[str, ...]) -> None:
    (samples,) = _dataset(return_source=False)[_index(segments)]
    assert len(samples) == 5


@pytest.mark.parametrize("real", [[3, 1], []], ids=["real", "none"])
def test_a_batch_of_one_kind_alone(real: list[int], segments: tuple[str, ...]) -> None:
    n = len(real) or 2
    synthetic = np.zeros(n, int) if not real else np.full(n, -1)
    index = BatchIndex(np.array(real or [-1, -1]), synthetic, synthetic.copy(), segments, 0)
    samples, source = _dataset()[index]
    assert [int(image.max()) for image, _ in samples] == (real or [30, 30])
    assert source["is_synthetic"].tolist() == [not real] * n


def python_jitter(image: torch.Tensor) -> torch.Tensor:
    return image + torch.tensor([random.random() for _ in range(16)]).reshape(1, 4, 4)


def numpy_jitter(image: torch.Tensor) -> torch.Tensor:
    return image + torch.from_numpy(np.random.rand(1, 4, 4))


@pytest.mark.parametrize("transform", [jitter, python_jitter, numpy_jitter], ids=["torch", "python", "numpy"])
def test_random_transforms_follow_the_batchs_seed_alone(transform: Any, segments: tuple[str, ...]) -> None:
    def values(seed: int) -> Any:
        return torch.stack([image for image, _ in _dataset(transform)[_index(segments, seed)][0]])

    torch.manual_seed(1), random.seed(1), np.random.seed(1)
    first = values(5)
    torch.manual_seed(2), random.seed(2), np.random.seed(2)
    assert torch.equal(first, values(5))
    assert not torch.equal(first, values(6))
    assert len(first.unique()) > 60  # no two samples of the batch are augmented alike


def test_reading_a_batch_leaves_the_global_random_states_alone(segments: tuple[str, ...]) -> None:
    def draw() -> tuple[float, float, float]:
        return random.random(), float(np.random.rand()), float(torch.rand(()))

    random.seed(3), np.random.seed(3), torch.manual_seed(3)
    expected = draw()
    random.seed(3), np.random.seed(3), torch.manual_seed(3)
    _ = _dataset(jitter)[_index(segments)]
    assert draw() == expected


def test_seeded_restores_the_states_after_an_error() -> None:
    torch.manual_seed(3)
    state = torch.get_rng_state()

    def fail() -> None:
        with seeded(9):
            torch.rand(3)
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert torch.equal(torch.get_rng_state(), state)


def test_a_dataset_that_reads_many_samples_at_once_is_asked_once(segments: tuple[str, ...]) -> None:
    class Bulk(Images):
        asked: ClassVar[list[list[int]]] = []

        def __getitems__(self, indices: list[int]) -> list[Any]:
            self.asked.append(indices)
            return [self[i] for i in indices]

    real = Bulk()
    samples, _ = _dataset(real=real)[_index(segments)]
    assert real.asked == [[7, 2]]
    assert int(samples[0][0].max()) == 7


def test_the_source_joins_a_batch_of_any_kind() -> None:
    source = {"slot": torch.tensor([1])}
    assert with_source({"x": 1}, source) == {"x": 1, "source": source}
    assert with_source((1, 2), source) == (1, 2, source)
    assert with_source([1, 2], source) == [1, 2, source]
    assert with_source("batch", source) == ("batch", source)
