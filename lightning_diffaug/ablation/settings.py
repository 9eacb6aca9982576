"""The settings of an ablation, checked before anything runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lightning_diffaug.ablation.metric import chosen_metric
from lightning_diffaug.errors import ConfigurationError

EQUAL = ("steps", "epochs", "wall_clock")


def check_settings(settings: Mapping[str, Any]) -> None:
    """Refuses values of ``ablation`` that no sweep or run can follow.

    Raises:
        ConfigurationError: See above.
    """
    equal, limit, seeds = settings["equal"], settings["equal_time_limit"], settings["fidelity_seeds"]
    if isinstance(seeds, bool) or not isinstance(seeds, int) or seeds < 0:
        raise ConfigurationError(
            f"ablation.fidelity_seeds={seeds!r} is no whole number from 0: of so many seeds synthetic samples are "
            "measured. Set ablation.fidelity_seeds to e.g. 1, or to 0 for none."
        )
    workers = settings.get("workers")
    if workers is not None and (isinstance(workers, bool) or not isinstance(workers, int) or workers < 1):
        raise ConfigurationError(
            f"ablation.workers={workers!r} is no whole number from 1: so many runs of a sweep are made side by side. "
            "Set ablation.workers to e.g. 2, to 1 for one after the other, or to null for as many as the cores allow."
        )
    if equal not in (None, *EQUAL):
        raise ConfigurationError(
            f"ablation.equal={equal!r} is none of {', '.join(EQUAL)}: it is what all arms have in common. Set "
            "ablation.equal to one of them, or to null."
        )
    if isinstance(limit, bool) or not isinstance(limit, (int, float)) or not (limit == 0 or limit >= 1):
        raise ConfigurationError(
            f"ablation.equal_time_limit={limit!r} is no number from 1: it is how many times the steps an arm without a "
            "generator may train in the time of one with it. Set ablation.equal_time_limit to e.g. 20, or to 0 for "
            "none."
        )
    if settings["metric"] is not None:
        chosen_metric((), settings["metric"])
