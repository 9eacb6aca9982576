"""What the benchmarks share: data made on the spot, a cheap generator, interleaved timing."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from lightning_diffaug.snapshot import Snapshot
from lightning_diffaug.spec import FieldSpec, SampleSpec


class Images(Dataset[tuple[Tensor, int]]):
    """Labelled uint8 images of noise in memory, converted to float per sample, as a real data set does."""

    def __init__(self, n: int, shape: tuple[int, ...], classes: int = 10) -> None:
        rng = torch.Generator().manual_seed(0)
        self.images = torch.randint(0, 256, (n, *shape), dtype=torch.uint8, generator=rng)
        self.targets = torch.randint(0, classes, (n,), generator=rng).tolist()
        self.transform: Callable[[Tensor], Tensor] | None = to_float

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image = self.images[index]
        return (image if self.transform is None else self.transform(image)), self.targets[index]


def to_float(image: Tensor) -> Tensor:
    return image.to(torch.float32).div_(255)


def snapshot_of(images: Tensor, labels: Sequence[int]) -> Snapshot:
    """Labelled uint8 images (n, C, H, W) as the refill side knows them."""
    image = FieldSpec("image", "0", "tensor", "uint8", tuple(images.shape[1:]), 0.0, 255.0)
    label = FieldSpec("label", "1", "scalar", "int64", (), 0.0, 0.0)
    classes = range(max(labels) + 1)
    columns = {"image": images, "label": torch.as_tensor(labels, dtype=torch.int64)}
    return Snapshot(SampleSpec((image, label)), columns, [str(c) for c in classes], list(classes))


class NoiseGenerator:
    """Makes noise at once: it fills a pool without costing anything while the clock runs."""

    def __init__(self, shape: Sequence[int]) -> None:
        self.shape = tuple(shape)

    def generate(self, condition: Mapping[str, Any], seeds: Sequence[int]) -> Tensor:
        rng = torch.Generator().manual_seed(seeds[0])
        return torch.rand((len(seeds), *self.shape), generator=rng) * 2 - 1


def interleaved(
    tasks: Mapping[str, Callable[[], object]], rounds: int, clock: Callable[[], float] = time.perf_counter
) -> dict[str, list[float]]:
    """Seconds of each task in each round; tasks take turns, so that a noisy machine is noisy for all."""
    seconds: dict[str, list[float]] = {name: [] for name in tasks}
    for task in tasks.values():
        task()  # warm-up
    for _ in range(rounds):
        for name, task in tasks.items():
            started = clock()
            task()
            seconds[name].append(clock() - started)
    return seconds


def print_ratios(title: str, seconds: Mapping[str, list[float]], reference: str) -> None:
    """Medians as ratios to the reference's, with the range over rounds."""
    base = statistics.median(seconds[reference])
    print(f"\n{title} (ratio of medians to {reference!r}, {len(seconds[reference])} interleaved rounds)")
    for name, values in seconds.items():
        median = statistics.median(values)
        low, high = min(values) / base, max(values) / base
        print(f"  {name:<44} {median / base:5.2f}   [{low:.2f} … {high:.2f}]   {median * 1e3:8.1f} ms")
