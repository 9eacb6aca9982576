"""Is a batch from the pool as fast as a batch from memory? Rows of the epoch cache against the real data set's path.

python benchmarks/reading.py
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from support import interleaved, print_ratios
from torch import Tensor
from torch.utils.data import TensorDataset, default_collate

from lightning_diffaug.pool import EpochCache, PoolHeader, Shard, SyntheticPool, fingerprint

ROUNDS, BATCHES, BATCH = 9, 60, 128
REFERENCE = "TensorDataset and default_collate"


def main() -> None:
    torch.set_num_threads(1)
    for shape, slots in (((3, 32, 32), 64), ((3, 224, 224), 16)):
        with tempfile.TemporaryDirectory() as folder:
            rng = torch.Generator().manual_seed(0)
            parts = {"shape": list(shape)}
            pool = SyntheticPool.create(Path(folder) / "pool", PoolHeader(fingerprint(parts), parts, 64, {}))
            images = torch.randint(0, 256, (slots * 64, *shape), dtype=torch.uint8, generator=rng)
            labels = torch.randint(0, 10, (slots * 64,), generator=rng)
            for k in range(slots):
                part = slice(k * 64, k * 64 + 64)
                rows = [{"row": row} for row in range(64)]
                pool.publish(k, Shard({"image": images[part], "label": labels[part]}, {}, rows, [], {}))
            cache = EpochCache(Path(folder) / "cache")
            (segment,) = cache.gather(pool, range(slots))
            dataset = TensorDataset(images, labels)
            batches = [torch.randint(0, len(images), (BATCH,), generator=rng) for _ in range(BATCHES)]

            tasks: dict[str, Callable[[Tensor], object]] = {
                REFERENCE: lambda batch, dataset=dataset: default_collate([dataset[i] for i in batch.tolist()]),
                "gather from memory": lambda batch, dataset=dataset: [
                    t.index_select(0, batch) for t in dataset.tensors
                ],
                "epoch cache": segment.take,
            }
            every = {name: partial(for_each, task, batches) for name, task in tasks.items()}
            seconds = interleaved(every, ROUNDS)
            print_ratios(f"{BATCHES} batches of {BATCH} of {shape}", seconds, REFERENCE)
            cache.close()


def for_each(task: Callable[[Tensor], object], batches: list[Tensor]) -> None:
    for batch in batches:
        task(batch)


if __name__ == "__main__":
    main()
