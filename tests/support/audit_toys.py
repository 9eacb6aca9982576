"""Images that can be told apart, and a generator that repeats images of a file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningDataModule
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

SHAPE = (1, 8, 8)
KINDS = ("train", "val", "test", "fresh")


def pictures(n: int, seed: int, shape: Sequence[int] = SHAPE) -> Tensor:
    """n random images, uint8."""
    return torch.randint(0, 256, (n, *shape), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


class Pictures(Dataset[Any]):
    """Images with labels; says how often it was read."""

    def __init__(self, images: Tensor, transform: Any = None) -> None:
        self.images = images
        self.targets = [i % 3 for i in range(len(images))]
        self.transform = transform
        self.read: list[int] = []  # shared by shallow copies

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Any:
        self.read.append(index)
        image = self.images[index]
        return image if self.transform is None else self.transform(image), self.targets[index]


def normalised(image: Tensor) -> Tensor:
    return image.float() / 255 * 4 - 2


class Module(LightningDataModule):
    """24 training, 12 validation and 12 test images, all different, each behind a transform."""

    def __init__(self) -> None:
        super().__init__()
        self.parts = {
            part: Pictures(pictures(n, seed), normalised)
            for seed, (part, n) in enumerate((("train", 24), ("val", 12), ("test", 12)))
        }

    def train_dataloader(self) -> Any:
        return DataLoader(self.parts["train"], batch_size=4, shuffle=True)

    def val_dataloader(self) -> Any:
        return DataLoader(self.parts["val"], batch_size=4)

    def test_dataloader(self) -> Any:
        return [DataLoader(self.parts["test"], batch_size=4)]


class Repeats:
    """By its seed a sample repeats a training, validation or test image, mirrored or moved by a pixel, or is fresh.

    Args:
        path: File of the images, as `written` makes it.
        kinds: Which of `KINDS` it makes.
    """

    def __init__(self, path: str, kinds: Sequence[str] = KINDS) -> None:
        self.path, self.kinds = path, list(kinds)

    def generate(self, condition: Mapping[str, Any], seeds: Sequence[int]) -> Tensor:
        images = load_file(self.path)
        return torch.stack([self._made(images, seed) for seed in seeds])

    def _made(self, images: Mapping[str, Tensor], seed: int) -> Tensor:
        kind = kind_of(seed, self.kinds)
        if kind == "fresh":
            return torch.rand(SHAPE, generator=torch.Generator().manual_seed(seed)) * 2 - 1
        image = images[kind][seed // 8 % len(images[kind])].float() / 127.5 - 1
        return image.flip(-1) if seed // 4 % 2 else image.roll(1, -1)


def kind_of(seed: int, kinds: Sequence[str] = KINDS) -> str:
    """What `Repeats` makes of a seed."""
    return kinds[seed % len(kinds)]


def written(module: Module, path: Path) -> str:
    """The file that `Repeats` reads."""
    save_file({part: data.images for part, data in module.parts.items()}, path)
    return str(path)
