"""The callback that measures, after the test, the samples that a run was trained on."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from lightning_diffaug.fidelity.of_run import measured_or_said
from lightning_diffaug.fidelity.result import FILE
from lightning_diffaug.fidelity.settings import FidelitySettings

log = logging.getLogger(__name__)


class FidelityReport(Callback):
    """Writes ``fidelity.json``, and logs ``fidelity/…`` with the test's figures, on the rank that decides (0).

    The model, what it is trained on and its score do not depend on it. A run that drew nothing from a pool has no such
    figures, which is logged.

    Args:
        folder: Where ``fidelity.json`` is written; None: the Trainer's ``default_root_dir``.
        **settings: As `FidelitySettings`.

    Raises:
        ConfigurationError: A setting is unknown or out of range.
    """

    def __init__(self, folder: str | None = None, **settings: Any) -> None:
        self._folder = folder
        self.settings = FidelitySettings.of(settings)

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measures, writes and logs."""
        from lightning_diffaug.datamodule import DiffAugDataModule

        data = trainer.datamodule  # type: ignore[attr-defined]
        if not trainer.is_global_zero or not isinstance(data, DiffAugDataModule):
            return
        with torch.inference_mode(False), torch.enable_grad():  # classifiers are fitted, and this is within a test
            found = measured_or_said(data, self.settings)
        if found is None:
            return
        folder = Path(trainer.default_root_dir if self._folder is None else self._folder)
        folder.mkdir(parents=True, exist_ok=True)
        log.info("the fidelity of the synthetic samples is in %s", found.write(folder / FILE))
        pl_module.log_dict(found.figures(), rank_zero_only=True)
