"""The Hydra callback that ends a sweep with its report."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

log = logging.getLogger(__name__)


class SweepReport(Callback):
    """Writes and prints the report of a sweep (``-m``) when its last run has ended.

    A report that cannot be written is logged: what the runs wrote stays as it is.

    Args:
        arm: The arm that is compared to each other one, seed by seed; see `write_report`.
    """

    def __init__(self, arm: str = "mixed") -> None:
        self._arm = arm

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Reads the sweep's folder and reports.

        Raises:
            SystemExit: No run came to its end; the report, which lists them, is written.
        """
        # imported here: single runs need none of it
        from lightning.pytorch.utilities import rank_zero_only

        from lightning_diffaug.ablation.report import PAGE, write_report

        if getattr(rank_zero_only, "rank", 0) != 0:
            return  # under DDP every rank goes through the sweep
        folder = Path(config.hydra.sweep.dir)
        try:
            report = write_report(folder, self._arm, OmegaConf.select(config, "ablation.metric"))
        except Exception:
            log.exception("the report of the sweep in %s could not be written; its runs are whole", folder)
            return
        print(f"\n{report.text}\nwritten to {report.folder / PAGE}")
        if report.sweep.failures and not report.sweep.runs:
            raise SystemExit(f"no run of the sweep came to its end; {report.folder / 'failed.csv'} lists the reasons")
