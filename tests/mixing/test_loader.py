"""The loader that Lightning sees: an epoch begins at its first batch, and what was drawn is counted then."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import IterableDataset
from training_toys import Images

from lightning_diffaug.adapter import SampleAdapter
from lightning_diffaug.mixing.dataset import BatchIndex, MixedDataset
from lightning_diffaug.mixing.loader import MixedLoader, StreamLoader
from lightning_diffaug.sample import probe


class Course:
    """Three batches of two real samples each, and a record of what it is asked."""

    def __init__(self, before: int = 0) -> None:
        self.calls: list[Any] = []
        self.numbers: list[int] = []
        self.before = before

    def __len__(self) -> int:
        return 3

    def begin(self) -> tuple[int, Iterator[BatchIndex]]:
        self.calls.append("begin")
        none = np.array([-1, -1])
        return 0, iter([BatchIndex(np.array([2 * i, 2 * i + 1]), none, none, (), i) for i in range(3)])

    def real_before(self, number: int) -> int:
        return self.before

    def drew(self, number: int) -> None:
        self.calls.append("drew")
        self.numbers.append(number)

    def set_epoch(self, epoch: int) -> None:
        self.calls.append(epoch)


def _dataset() -> MixedDataset:
    template = (torch.zeros(1, 4, 4, dtype=torch.uint8), 0)
    adapter = SampleAdapter(template, probe(template), [0, 1, 2])
    return MixedDataset(Images(), adapter, None, _values, False)


def _values(samples: list[Any]) -> list[int]:
    return [int(image.max()) for image, _ in samples]


@pytest.fixture(params=[0, 2], ids=["alone", "workers"])
def workers(request: pytest.FixtureRequest) -> int:
    assert isinstance(request.param, int)
    return request.param


def test_an_epoch_begins_at_its_first_batch(workers: int) -> None:
    course = Course()
    loader = MixedLoader(_dataset(), course, 2, {"num_workers": workers})
    iter(loader)
    iterator = iter(loader)
    assert course.calls == []
    assert next(iterator) == [0, 1]
    assert course.calls == ["begin", "drew"]
    assert len(loader) == 3
    loader.close()


def test_a_batch_counts_when_it_is_handed_over_and_not_when_it_is_prefetched(workers: int) -> None:
    course = Course()
    loader = MixedLoader(_dataset(), course, 2, {"num_workers": workers})
    iterator = iter(loader)
    for number in (1, 2, 3):
        next(iterator)
        assert course.calls.count("drew") == number
    assert list(iterator) == []
    assert course.numbers == [0, 1, 2]
    loader.close()


def test_a_look_beside_the_loop_takes_no_batch_from_it(workers: int) -> None:
    loader = MixedLoader(_dataset(), Course(), 2, {"num_workers": workers})
    loop = iter(loader)
    assert next(loop) == [0, 1]
    assert next(iter(loader)) == [0, 1]
    assert list(loop) == [[2, 3], [4, 5]]
    loader.close()


def test_workers_serve_the_next_epoch_too() -> None:
    course = Course()
    loader = MixedLoader(_dataset(), course, 2, {"num_workers": 2})
    first = list(loader)
    pids = [worker.pid for worker in loader._inner._iterator._workers]  # type: ignore[union-attr]
    next(iter(loader))  # cut short
    assert list(loader) == first == [[0, 1], [2, 3], [4, 5]]
    assert [worker.pid for worker in loader._inner._iterator._workers] == pids  # type: ignore[union-attr]
    loader.close()
    loader.close()


def test_the_epochs_number_is_handed_on() -> None:
    course = Course()
    MixedLoader(_dataset(), course, 2, {}).set_epoch(4)
    assert course.calls == [4]


def test_the_loader_is_stateful_for_lightning_and_keeps_nothing_itself() -> None:
    loader = MixedLoader(_dataset(), Course(), 2, {})
    loader.load_state_dict({"anything": 1})
    assert loader.state_dict() == {}


class Stream(IterableDataset[Any]):
    def __init__(self, n: int) -> None:
        self.n = n

    def __iter__(self) -> Iterator[Any]:
        return iter((torch.full((1, 4, 4), i, dtype=torch.uint8), 0) for i in range(self.n))


@pytest.mark.parametrize(
    ("before", "n", "batches"),
    [
        (0, 9, [[0, 1], [2, 3], [4, 5]]),
        (2, 9, [[2, 3], [4, 5], [6, 7]]),
        (0, 5, [[0, 1], [2, 3]]),
        (0, 0, []),
    ],
    ids=["whole", "resumed", "short", "empty"],
)
def test_a_stream_gives_real_samples_in_its_order(before: int, n: int, batches: list[list[int]]) -> None:
    course = Course(before)
    loader = StreamLoader(Stream(n), _dataset(), course, 4, {})
    assert list(loader) == batches
    assert course.calls == ["begin", *["drew"] * len(batches)]
