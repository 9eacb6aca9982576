"""Callbacks: the monitor that logs the mix."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from lightning_diffaug.figures import MANY_CLASSES, PER_CLASS, WINDOW_PER_CLASS

if TYPE_CHECKING:
    from lightning_diffaug.datamodule import DiffAugDataModule


class MixMonitor(Callback):
    """Logs the mix's figures at the end of each epoch. The DataModule attaches it by itself.

    The figures of single classes are logged for up to `figures.MANY_CLASSES` classes; `DiffAugDataModule.figures` (and
    the demo's ``metrics.json``) has them all.

    Args:
        datamodule: Whose figures.
    """

    def __init__(self, datamodule: DiffAugDataModule) -> None:
        self._datamodule = datamodule

    @classmethod
    def attach(cls, trainer: Any, datamodule: DiffAugDataModule) -> None:
        """Gives a trainer its monitor: one, of the DataModule that is fitted now."""
        others = [callback for callback in trainer.callbacks if not isinstance(callback, cls)]
        trainer.callbacks = [cls(datamodule), *others]  # first: a checkpoint may monitor what it logs

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Logs, under the names of `DiffAugDataModule.figures`."""
        if trainer.datamodule is not self._datamodule:  # type: ignore[attr-defined]  # a later fit on other data
            return
        # what was made is known to rank 0 alone and 0 elsewhere, the rest is alike on all ranks
        figures = self._datamodule.figures()
        of_classes = {key: figures.pop(key) for key in list(figures) if key.startswith((*PER_CLASS, WINDOW_PER_CLASS))}
        pl_module.log_dict(figures, sync_dist=trainer.world_size > 1, reduce_fx="max")
        if len(self._datamodule.class_names) <= MANY_CLASSES:
            _log_directly(trainer, of_classes)
        self._datamodule.warn_of_many_uses()


def _log_directly(trainer: Trainer, figures: Mapping[str, float]) -> None:
    """Logs what is alike on all ranks, without the half millisecond a figure that ``log`` takes: there are dozens."""
    trainer.callback_metrics.update({key: torch.tensor(value) for key, value in figures.items()})
    for logger in trainer.loggers:
        logger.log_metrics({**figures, "epoch": trainer.current_epoch}, step=trainer.global_step)
