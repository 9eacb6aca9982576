"""Small real data, generators and learners whose every sample can be recognised."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from safetensors.torch import save_file
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from lightning_diffaug import DiffAugDataModule
from lightning_diffaug.naming import build
from lightning_diffaug.refill.fill_slot import fill_slot
from lightning_diffaug.refill.in_process import NoRefill
from lightning_diffaug.refill.job import Job
from lightning_diffaug.snapshot import Snapshot

SHAPE = (1, 4, 4)


class Noise:
    """Samples that are a pure function of their seed."""

    def __init__(self, shape: Sequence[int] = SHAPE) -> None:
        self.shape = list(shape)

    def generate(self, condition: Mapping[str, Any], seeds: Sequence[int]) -> Tensor:
        return torch.stack(
            [torch.rand(*self.shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1 for seed in seeds]
        )


class Fitted(Noise):
    """`Noise` that is fitted first: the fit writes down which images and labels it was shown."""

    def fit_key(self) -> dict[str, Any]:
        return {"shape": self.shape}

    def sample_key(self) -> dict[str, Any]:
        return {}

    def config(self) -> dict[str, Any]:
        return {"shape": self.shape}

    def fit(self, snapshot: Snapshot, folder: Path, progress: Callable[[int, int], None]) -> None:
        assert snapshot.labels is not None
        seen = {
            "images": sorted(snapshot.raw("image").flatten(1).float().mean(1).tolist()),
            "labels": snapshot.labels.tolist(),
        }
        (folder / "seen.json").write_text(json.dumps(seen))
        save_file({"weight": torch.zeros(1)}, folder / "weights.safetensors")
        progress(1, 1)

    def load(self, folder: Path) -> None:
        assert (folder / "weights.safetensors").is_file()


class Images(Dataset[Any]):
    """n images; sample i has the value i in every pixel and the label ``labels[i]`` (default ``i % classes``)."""

    def __init__(
        self,
        n: int = 24,
        classes: int = 3,
        transform: Callable[[Any], Any] | None = None,
        labels: Sequence[int] | None = None,
        offset: int = 0,
    ) -> None:
        self.targets = list(labels) if labels is not None else [i % classes for i in range(n)]
        self.transform = transform
        self.offset = offset

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> Any:
        image = torch.full(SHAPE, index + self.offset, dtype=torch.uint8)
        if self.transform is not None:
            image = self.transform(image)
        return image, self.targets[index]


def jitter(image: Tensor) -> Tensor:
    """A random transform: draws from torch's global generator."""
    return image.float() / 255 + torch.rand(image.shape)


class RealModule(LightningDataModule):
    """Tuple batches of `Images`, with validation, test and prediction data of other values (100…, 150…, 200…)."""

    def __init__(self, train: Dataset[Any] | None = None, batch_size: int = 4, **loader: Any) -> None:
        super().__init__()
        self.train = train if train is not None else Images()
        self.batch_size = batch_size
        self.loader = {"shuffle": True, **loader}

    def train_dataloader(self) -> Any:
        return DataLoader(self.train, batch_size=self.batch_size, **self.loader)

    def val_dataloader(self) -> Any:
        return DataLoader(Images(8, offset=100), batch_size=self.batch_size)

    def test_dataloader(self) -> Any:
        return DataLoader(Images(8, offset=150), batch_size=self.batch_size)

    def predict_dataloader(self) -> Any:
        return DataLoader(Images(8, offset=200), batch_size=self.batch_size)


def snapshot_of(batch: Any) -> Any:
    """A copy that shares no memory with a worker's."""
    if isinstance(batch, Tensor):
        return batch.clone()
    if isinstance(batch, Mapping):
        return {key: snapshot_of(value) for key, value in batch.items()}
    if isinstance(batch, (tuple, list)):
        return [snapshot_of(value) for value in batch]
    return batch


class Recorder(LightningModule):
    """Keeps every batch it is trained, validated, tested or asked to predict on; has one weight.

    Args:
        one_cycle: Reads ``trainer.estimated_stepping_batches`` for a OneCycleLR.
    """

    def __init__(self, one_cycle: bool = False) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.one_cycle = one_cycle
        self.seen: dict[str, list[Any]] = {"train": [], "val": [], "test": [], "predict": []}
        self.positions: list[tuple[int, int]] = []

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        self.seen["train"].append(snapshot_of(batch))
        self.positions.append((self.trainer.current_epoch, batch_idx))
        return (self.weight - 1) ** 2

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.seen["val"].append(snapshot_of(batch))

    def test_step(self, batch: Any, batch_idx: int) -> None:
        self.seen["test"].append(snapshot_of(batch))

    def predict_step(self, batch: Any, batch_idx: int) -> Any:
        self.seen["predict"].append(snapshot_of(batch))
        return batch[1]

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(self.parameters(), lr=0.1)
        if not self.one_cycle:
            return optimizer
        steps = int(self.trainer.estimated_stepping_batches)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def trainer(root: Path, max_epochs: int = 1, **options: Any) -> Trainer:
    """A quiet Trainer on the CPU."""
    quiet = {
        "accelerator": "cpu",
        "devices": 1,
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
    }
    return Trainer(default_root_dir=root, max_epochs=max_epochs, **{**quiet, **options})


def same(first: Any, second: Any) -> bool:
    """Whether two (lists of) batches are equal bit for bit, in values, types and structure."""
    if isinstance(first, Tensor):
        return isinstance(second, Tensor) and first.dtype == second.dtype and torch.equal(first, second)
    if isinstance(first, Mapping):
        return first.keys() == second.keys() and all(same(first[key], second[key]) for key in first)
    if isinstance(first, (tuple, list)):
        return len(first) == len(second) and all(same(a, b) for a, b in zip(first, second, strict=True))
    return bool(first == second)


def live(condition: Mapping[str, Any], seeds: Sequence[int]) -> Tensor:
    """`Noise` as a function; ``unnamed`` hides its import path."""
    return Noise().generate(condition, seeds)


def unnamed(generator: Any = live) -> Callable[..., Any]:
    """The generator without an import path: with ``refill="sync"`` the trainer's own process fills the slots."""
    generate = getattr(generator, "generate", generator)
    return lambda condition, seeds: generate(condition, seeds)


class Prefilled(NoRefill):
    """A pool that holds the slots `present`, which nobody refills; those in `late` come after `late_seconds`.

    Put in place of ``lightning_diffaug.start.NoRefill``.
    """

    present: Sequence[int] = ()
    late: Sequence[int] = ()
    late_seconds = 0.0

    def __init__(self, job: Job, generator: Any) -> None:
        super().__init__(job, generator)
        self._recipe = job.recipe(build(job.generator))
        self._late_at = 0.0
        if self.late:
            self.gave_up = ""  # there is hope
        self._publish(self.present)

    def _publish(self, slots: Sequence[int]) -> None:
        pool = self.pool()
        assert pool is not None
        for slot in slots:
            if not pool.has(slot):
                pool.publish(slot, fill_slot(slot, self._recipe))

    def need(self, first: int, stop: int) -> None:
        self._late_at = time.monotonic() + self.late_seconds

    def poll(self) -> None:
        if self.late and time.monotonic() > self._late_at:
            self._publish(self.late)


def prefilled(present: Sequence[int], late: Sequence[int] = (), late_seconds: float = 0.0) -> type[Prefilled]:
    """A `Prefilled` class for a test."""
    return type("Prefilled", (Prefilled,), {"present": present, "late": late, "late_seconds": late_seconds})


def pool_name(mixed: DiffAugDataModule) -> str:
    """The fingerprint of the pool that a mix draws from; the mix is closed."""
    try:
        next(iter(mixed.train_dataloader()))
        assert mixed.pool is not None
        return mixed.pool.fingerprint
    finally:
        mixed.close()
