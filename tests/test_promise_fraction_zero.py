"""P1: at fraction 0 with balance=none training is the wrapped module's own, bit for bit, and nothing is started."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import psutil
import pytest
from lightning.pytorch import Callback, seed_everything
from training_toys import Images, Noise, RealModule, Recorder, jitter, same, trainer

from lightning_diffaug import DiffAugDataModule


class Children(Callback):
    """Counts the child processes of the trainer at every batch."""

    def __init__(self) -> None:
        self.seen: set[str] = set()

    def on_train_batch_start(self, *_: Any) -> None:
        self.seen |= {" ".join(child.cmdline()) for child in psutil.Process().children(recursive=True)}


def _batches(datamodule: Any, root: Path, *callbacks: Callback) -> list[Any]:
    seed_everything(7, verbose=False)
    model = Recorder()
    trainer(root, max_epochs=2, callbacks=list(callbacks)).fit(model, datamodule)
    return model.seen["train"]


@pytest.mark.parametrize("fraction", [0, 0.0, {"name": "constant", "value": 0}])
@pytest.mark.parametrize("workers", [0, 2])
def test_fraction_zero_gives_the_wrapped_batches_bit_for_bit(fraction: Any, workers: int, tmp_path: Path) -> None:
    def real() -> RealModule:
        return RealModule(Images(transform=jitter), num_workers=workers, drop_last=True)

    mixed = DiffAugDataModule(real(), Noise(), synthetic_fraction=fraction)
    assert same(_batches(real(), tmp_path), _batches(mixed, tmp_path))


def test_fraction_zero_starts_no_process_and_touches_no_file(tmp_path: Path) -> None:
    children = Children()
    mixed = DiffAugDataModule(RealModule(), Noise(), synthetic_fraction=0, cache_dir=tmp_path / "cache")
    _batches(mixed, tmp_path, children)
    assert not any("lightning_diffaug" in command for command in children.seen)
    assert not (tmp_path / "cache").exists()


def test_fraction_zero_needs_no_generator(tmp_path: Path) -> None:
    assert len(_batches(DiffAugDataModule(RealModule(), synthetic_fraction=0), tmp_path)) == 12


def test_fraction_zero_returns_the_wrapped_loader_itself() -> None:
    real = RealModule()
    loader = real.train_dataloader()
    real.train_dataloader = lambda: loader  # type: ignore[method-assign]
    assert DiffAugDataModule(real, synthetic_fraction=0).train_dataloader() is loader


def test_fraction_zero_balanced_is_mixed_without_a_generator_process(tmp_path: Path) -> None:
    """balance=classes at fraction 0 is oversampling: the mix's own order, but nothing is generated."""
    children = Children()
    real = RealModule(Images(labels=[0] * 20 + [1] * 4))
    mixed = DiffAugDataModule(real, Noise(), 0, balance="classes", cache_dir=tmp_path / "cache")
    batches = _batches(mixed, tmp_path, children)
    labels = [label for batch in batches for label in batch[1].tolist()]
    assert labels.count(1) == labels.count(0) == 24
    assert not any("lightning_diffaug" in command for command in children.seen)
