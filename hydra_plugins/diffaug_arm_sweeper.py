"""Hydra's door to the sweeper of ablations: plugins are found in this namespace package, and nowhere else.

What it does is in `lightning_diffaug.ablation.sweep`, which is imported when a sweep begins.
"""

from __future__ import annotations

from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper


class ArmSweeper(BasicSweeper):
    """Runs arms instead of a product of overrides; see `lightning_diffaug.ablation.sweep`."""

    def sweep(self, arguments: list[str]) -> Any:
        """Runs the arms that have not come to their end yet.

        Args:
            arguments: The overrides of the command line.
        """
        from lightning_diffaug.ablation.sweep import run_arms

        return run_arms(self, [*self._parse_config(), *arguments])
