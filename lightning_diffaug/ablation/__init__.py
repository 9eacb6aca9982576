"""Sweeps: what their runs found, put together over seeds."""

from __future__ import annotations

from lightning_diffaug.ablation.callback import SweepReport

__all__ = ["SweepReport"]
