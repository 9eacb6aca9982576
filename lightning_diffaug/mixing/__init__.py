"""Which sample comes next: fraction schedules, allocation to classes, and the plan of an epoch."""

from __future__ import annotations

from lightning_diffaug.mixing.allocation import (
    Targets,
    check_mode,
    class_shares,
    epoch_draws,
    largest_remainder,
    quotas,
    targets,
)
from lightning_diffaug.mixing.plan import EpochPlan, Made, RankDraws
from lightning_diffaug.mixing.schedule import (
    Constant,
    Cosine,
    Linear,
    Piecewise,
    Schedule,
    StopAfter,
    as_fraction,
    as_schedule,
    carried_draws,
)

__all__ = [
    "Constant",
    "Cosine",
    "EpochPlan",
    "Linear",
    "Made",
    "Piecewise",
    "RankDraws",
    "Schedule",
    "StopAfter",
    "Targets",
    "as_fraction",
    "as_schedule",
    "carried_draws",
    "check_mode",
    "class_shares",
    "epoch_draws",
    "largest_remainder",
    "quotas",
    "targets",
]
