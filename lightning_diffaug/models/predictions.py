"""What a run predicted on real validation and test data, kept beside its figures."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from safetensors.torch import load_file, save_file
from torch import Tensor

from lightning_diffaug.models.gathering import of_all_ranks

FILE = "predictions.safetensors"
LOGITS, TARGET = "logits", "target"


class Predictions(Callback):
    """Keeps the logits of the last validation and of the test.

    For modules whose ``validation_step`` and ``test_step`` return ``{"logits": (n, C), "target": (n,)}``; of others
    nothing is kept.
    """

    def __init__(self) -> None:
        self._parts: dict[str, list[tuple[Tensor, Tensor]]] = {"val": [], "test": []}

    def of(self, part: str) -> tuple[Tensor, Tensor] | None:
        """Logits float32 ``(n, C)`` and targets int64 ``(n,)`` of ``val`` or ``test``, on the CPU; None: none kept."""
        kept = self._parts[part]
        return (torch.cat([x for x, _ in kept]), torch.cat([y for _, y in kept])) if kept else None

    def write(self, folder: Path) -> None:
        """Writes what is kept to ``predictions.safetensors``: ``val_logits``, ``val_target``, and so of the test."""
        found = {part: kept for part in self._parts if (kept := self.of(part)) is not None}
        tensors = {f"{part}_{LOGITS}": logits for part, (logits, _) in found.items()}
        tensors |= {f"{part}_{TARGET}": target for part, (_, target) in found.items()}
        if tensors:
            save_file(tensors, folder / FILE)

    # -- hooks

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Only the last validation is kept."""
        self._parts["val"] = []

    def on_test_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Only the last test is kept."""
        self._parts["test"] = []

    def on_validation_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs: Any, *_: Any) -> None:
        """Keeps a batch."""
        self._keep("val", pl_module, outputs)

    def on_test_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs: Any, *_: Any) -> None:
        """Keeps a batch."""
        self._keep("test", pl_module, outputs)

    def _keep(self, part: str, module: LightningModule, outputs: Any) -> None:
        if not isinstance(outputs, Mapping):
            return
        given = [x.detach() for key in (LOGITS, TARGET) if isinstance(x := outputs.get(key), Tensor)]
        if [x.ndim for x in given] != [2, 1]:
            return  # nothing, or of another task: many labels a sample, a class a pixel
        logits, target = (of_all_ranks(module, one) for one in given)
        self._parts[part].append((logits.float().cpu(), target.cpu()))


def read_predictions(folder: Path) -> dict[str, Tensor]:
    """What `Predictions.write` wrote; {} where it wrote nothing."""
    path = folder / FILE
    return load_file(path) if path.is_file() else {}
