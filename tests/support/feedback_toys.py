"""Learners that are bad at known classes, and a generator that the refill process can import."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset
from training_toys import RealModule, Recorder, trainer

from lightning_diffaug import DiffAugDataModule
from lightning_diffaug.pool.plans import Plans

CLASSES, EACH, SHAPE = 4, 6, (1, 4, 4)
HARD = (1, 3)
"""The classes that `Learner` is bad at."""


class Patterns(Dataset[Any]):
    """Images with noise and a bright row: that of the class."""

    def __init__(self, transform: Any = None) -> None:
        self.targets = [i % CLASSES for i in range(CLASSES * EACH)]
        self.transform = transform

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> Any:
        image = torch.randint(0, 90, SHAPE, generator=torch.Generator().manual_seed(index), dtype=torch.uint8)
        image[:, self.targets[index]] += 160
        return (image if self.transform is None else self.transform(image)), self.targets[index]


def scaled(image: Tensor) -> Tensor:
    """The conversion without augmentation: what ``Normalize(0.5, 0.25)`` after a scaling to [0, 1] does."""
    return (image.float() / 255 - 0.5) / 0.25


def augmented(image: Tensor) -> Tensor:
    """The training transform, which draws from torch's global generator."""
    return scaled(image) + 0.1 * torch.rand(image.shape)


class Rows:
    """A generator: images like `Patterns`, a pure function of seed and label."""

    def generate(self, condition: Mapping[str, Any], seeds: Sequence[int]) -> Tensor:
        images = torch.stack(
            [torch.rand(*SHAPE, generator=torch.Generator().manual_seed(seed)) * 0.7 - 1 for seed in seeds]
        )
        images[torch.arange(len(seeds)), 0, condition["label"]] += 1.2
        return images


class Real(RealModule):
    """`Patterns` with a training transform and a conversion of its own; looking at validation or test is an error."""

    eval_transform = staticmethod(scaled)

    def __init__(self) -> None:
        super().__init__(Patterns(augmented))

    def val_dataloader(self) -> Any:
        raise AssertionError("validation was looked at")

    test_dataloader = predict_dataloader = val_dataloader


class Learner(Recorder):
    """Finds each class by its bright row, the hard ones less surely; a little surer with each step.

    Args:
        hard: Logits of these classes are weak.
        nan: Gives nothing but NaN.
    """

    def __init__(self, hard: Sequence[int] = HARD, nan: bool = False) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.scale = torch.nn.Parameter(torch.tensor([0.2 if c in hard else 4.0 for c in range(CLASSES)]))
        self.dropout = torch.nn.Dropout(0.5)
        self.register_buffer("asked", torch.zeros(()))
        self.nan = nan

    def forward(self, x: Tensor) -> Tensor:
        self.asked += 1
        return self.dropout(x.mean(dim=(1, 3)) * self.scale) * (torch.nan if self.nan else 1.0)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        unused = 0.0 * super().training_step(batch, batch_idx)
        loss = unused + torch.nn.functional.cross_entropy(batch[0].mean(dim=(1, 3)) * self.scale, batch[1])
        self.log("train/loss", loss)
        return loss

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.01)


def mixed(cache: Path, real: Any = None, **settings: Any) -> DiffAugDataModule:
    """Windows of two slots of 16, which move by a slot and more an epoch; slots are made by a process of their own."""
    defaults: dict[str, Any] = {
        "generator": Rows(),
        "synthetic_fraction": 0.7,
        "refill": {"mode": "sync", "nice": 0},
        "gates": [],
        "reuse": 1,
        "window": 32,
        "slot_size": 16,
        "feedback": {"strength": 1.0},
        "return_source": True,
        "cache_dir": cache,
    }
    return DiffAugDataModule(real or Real(), **{**defaults, **settings})


def fitted(data: DiffAugDataModule, root: Path, epochs: int = 4, learner: Any = None, **options: Any) -> Any:
    """The learner after a fit without validation."""
    learner = Learner() if learner is None else learner
    torch.manual_seed(0)
    ckpt = options.pop("ckpt_path", None)
    trainer(root, epochs, limit_val_batches=0, **options).fit(learner, data, ckpt_path=ckpt, weights_only=True)
    return learner


def own_pool(cache: Path) -> Path:
    """The only pool in a cache folder."""
    (folder,) = (cache / "pools").iterdir()
    return folder


def plans_in(cache: Path) -> Plans:
    """The plans of the only pool in a cache folder."""
    return Plans(own_pool(cache))
