"""The final figures of a run for the trainer's loggers."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from lightning.pytorch import Trainer
from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.utilities import rank_zero_only

log = logging.getLogger(__name__)


@rank_zero_only
def log_final(trainer: Trainer, figures: Mapping[str, float]) -> None:
    """Gives each logger of the trainer (TensorBoard, W&B, MLflow, CSV, …) the run's figures, at its last step.

    Those that were logged during the run stand there a second time, with the same value. A logger that refuses them is
    logged: the figures are in ``metrics.json`` too.

    Args:
        trainer: After its run.
        figures: As in ``metrics.json``.
    """
    plain = {key: float(value) for key, value in figures.items()}
    for logger in trainer.loggers:
        try:
            logger.log_metrics(plain, step=trainer.global_step)
            logger.save()
            logger.finalize("success")  # what the trainer had called before these figures
        except Exception as error:  # a server that is gone, a name it does not take
            log.warning(
                "the final figures are not in %s (%s: %s); they are in metrics.json.",
                type(logger).__name__, type(error).__name__, error,
            )  # fmt: skip


@rank_zero_only
def close(trainer: Trainer, failed: bool) -> None:
    """Ends the runs of W&B that this process holds open: the next run of a sweep would go on in them.

    One that cannot be ended (a server that is gone) is logged.

    Args:
        trainer: After its run, or after what made it fail.
        failed: Whether it did: W&B then says so.
    """
    for logger in trainer.loggers:
        if not isinstance(logger, WandbLogger) or getattr(logger, "_experiment", None) is None:
            continue  # asking it for a run would open one
        try:
            logger.experiment.finish(exit_code=int(failed))
        except Exception as error:
            log.warning("the run of W&B could not be ended (%s: %s).", type(error).__name__, error)
