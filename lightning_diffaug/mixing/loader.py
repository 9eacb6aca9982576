"""The train loader that Lightning sees: sized, resumable by position, with workers that live over epochs."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any, Protocol

from torch.utils.data import DataLoader, Dataset, Sampler

from lightning_diffaug.mixing.dataset import BatchIndex, MixedDataset
from lightning_diffaug.randomness import seeded


class Course(Protocol):
    """Where a run stands and what comes next; `lightning_diffaug.run.MixRun` is one."""

    def __len__(self) -> int:
        """Batches an epoch."""
        ...

    def begin(self) -> tuple[int, Iterator[BatchIndex]]:
        """Freezes the epoch's window; the number of the next batch, and the batches from it on."""
        ...

    def real_before(self, number: int) -> int:
        """Real draws of this rank in the epoch before batch `number`."""
        ...

    def drew(self, number: int) -> None:
        """Batch `number` of the epoch is about to be trained on."""
        ...

    def set_epoch(self, epoch: int) -> None:
        """Records an epoch's number, for a loop without a Trainer."""
        ...


class _Order(Sampler[BatchIndex]):
    """Hands the current epoch's batch indices to the inner DataLoader."""

    def __init__(self) -> None:
        self.batches: Iterator[BatchIndex] = iter(())

    def __iter__(self) -> Iterator[BatchIndex]:
        return self.batches


def as_is(batch: Any) -> Any:
    """Collates nothing: the dataset has done it."""
    return batch


class MixedLoader:
    """Iterates over mixed batches of a map-style dataset.

    Each ``iter()`` is one epoch, begun at its first ``next()`` and not before: Lightning probes iterators.

    Args:
        dataset: Maps a batch index to a batch.
        course: Says what comes next.
        batch_size: Samples a batch, for whoever asks the loader.
        options: Further arguments of the inner DataLoader (workers, pinning …).
    """

    def __init__(self, dataset: MixedDataset, course: Course, batch_size: int, options: dict[str, Any]) -> None:
        self.dataset = dataset
        self.batch_size = batch_size
        self._course = course
        self._iterating = False
        self._order = _Order()
        self._inner: DataLoader[Any] = DataLoader(
            dataset,
            batch_size=None,
            sampler=self._order,
            collate_fn=as_is,
            persistent_workers=options.get("num_workers", 0) > 0,
            **options,
        )

    def __len__(self) -> int:
        return len(self._course)

    def __iter__(self) -> Iterator[Any]:
        start, indices = self._course.begin()
        for number, batch in enumerate(self._batches(indices), start):
            self._course.drew(number)
            yield batch

    def _batches(self, indices: Iterator[BatchIndex]) -> Iterator[Any]:
        if self._iterating:  # a look beside the loop: the workers belong to the loop, and would start anew
            yield from map(self.dataset.__getitem__, indices)
            return
        self._iterating, self._order.batches = True, indices
        try:
            yield from self._inner
        finally:
            self._iterating = False

    def set_epoch(self, epoch: int) -> None:
        """Records the epoch for a loop without a Trainer; the window is frozen at the first batch."""
        self._course.set_epoch(epoch)

    def state_dict(self) -> dict[str, Any]:
        """Nothing: the position is in the DataModule's state. Lightning sees by it that the loader resumes."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing to load."""

    def close(self) -> None:
        """Ends the workers; safe to call again."""
        iterator = getattr(self._inner, "_iterator", None)
        if iterator is not None:
            iterator._shutdown_workers()
            self._inner._iterator = None


class StreamLoader(MixedLoader):
    """Iterates over mixed batches whose real samples come from an IterableDataset.

    A resume reads the stream from its start and skips what was seen: it is exact if the stream is, and takes time in
    proportion to the position.

    Args:
        stream: The real training data.
        dataset: Maps a batch index and real samples to a batch.
        course: Says what comes next.
        chunk: Real samples that a worker hands over at a time.
        options: Further arguments of the inner DataLoader.
    """

    def __init__(
        self, stream: Dataset[Any], dataset: MixedDataset, course: Course, chunk: int, options: dict[str, Any]
    ) -> None:
        self.dataset = dataset
        self.batch_size = chunk
        self._course = course
        self._inner = DataLoader(
            stream,
            batch_size=chunk,
            collate_fn=as_is,
            persistent_workers=options.get("num_workers", 0) > 0,
            **options,
        )

    def __iter__(self) -> Iterator[Any]:
        start, batches = self._course.begin()
        samples = (sample for chunk in self._inner for sample in chunk)
        for _ in islice(samples, self._course.real_before(start)):
            pass  # seen before the resume
        for number, index in enumerate(batches, start):
            wanted = int((index.real >= 0).sum())
            real = list(islice(samples, wanted))
            if len(real) < wanted:
                return  # the stream is over before its stated length
            with seeded(index.seed):
                batch = self.dataset.assemble(index, real)
            self._course.drew(number)
            yield batch
