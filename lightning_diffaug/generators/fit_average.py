"""The averaged weights of a fit, and the best of them."""

from __future__ import annotations

from typing import Any, cast

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import WeightAveraging
from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn


class AveragedWeights(WeightAveraging):
    """Exponential moving average of the weights, which takes their place at the end of the fit.

    Where validation batches are given, the averaged weights of the check with the lowest loss do.

    Not Lightning's `EMAWeightAveraging`, which goes through the parameters one by one; not `ModelCheckpoint` for the
    best weights, which would be a second file that has to agree with the checkpoint of an interrupted fit.

    Args:
        decay: Of the average.
    """

    def __init__(self, decay: float) -> None:
        average = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
        super().__init__(use_buffers=False, multi_avg_fn=average)
        self.best_loss: float | None = None
        self._best: dict[str, Tensor] = {}

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keeps the averaged weights, which are in the module now, if none were better."""
        loss = float(cast(Any, pl_module).held_out_loss)
        if not trainer.sanity_checking and (loss < self.best_loss if self.best_loss is not None else loss == loss):
            self.best_loss = loss
            self._best = {name: value.to("cpu", copy=True) for name, value in pl_module.state_dict().items()}
        super().on_validation_epoch_end(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Puts the averaged weights, or the best of them, into the module."""
        super().on_train_end(trainer, pl_module)
        if self._best:
            pl_module.load_state_dict(self._best)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Adds the average and the best weights."""
        super().on_save_checkpoint(trainer, pl_module, checkpoint)
        checkpoint["best"] = {"loss": self.best_loss, "weights": self._best}

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Goes on with them."""
        super().on_load_checkpoint(trainer, pl_module, checkpoint)
        best = checkpoint["best"]
        self.best_loss, self._best = best["loss"], {name: value.cpu() for name, value in best["weights"].items()}
