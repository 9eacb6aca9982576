"""The planner of a run: from the settings of the data module and the training data to a named planner."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from lightning_diffaug.conditions import QuotaPlanner, RealGuidedPlanner
from lightning_diffaug.conditions.quotas import is_rule, rule_quotas
from lightning_diffaug.errors import ConfigurationError
from lightning_diffaug.mixing import class_shares, quotas
from lightning_diffaug.mixing.sampler import MixSettings
from lightning_diffaug.naming import name_of
from lightning_diffaug.real import RealTraining


def named_planner(planner: Any, mix: MixSettings, data: RealTraining, generator: Any, seed: int) -> dict[str, Any]:
    """The planner that the settings ask for, by its name.

    Args:
        planner: As `DiffAugDataModule` says.
        mix: How real and synthetic are mixed; its allocation is what ``"auto"`` follows.
        data: The real training data.
        generator: The generator, which may say what it starts from and is given.
        seed: Of the planner's choices.

    Raises:
        ConfigurationError: The setting is none of a planner, or does not go with the data.
    """
    if not isinstance(planner, (str, Mapping)) or (isinstance(planner, Mapping) and "_target_" in planner):
        return name_of(planner, "planner")
    shares: list[float] | None = None
    if data.class_index is not None:
        shares = _shares(planner, mix, data.class_counts, data.class_names)
    source = getattr(generator, "source", None)
    given, derived = getattr(generator, "given", ()), getattr(generator, "derived", {})
    if given or derived or source in RealGuidedPlanner.SOURCES[1:]:
        repaint = getattr(generator, "repaint", None)
        return name_of(RealGuidedPlanner(shares, source or "noise", repaint, seed, given, derived), "planner")
    return name_of(QuotaPlanner(shares), "planner")


def _shares(planner: Any, mix: MixSettings, counts: npt.ArrayLike, names: Sequence[str]) -> list[float]:
    """The share of each class in what is made, of sum 1."""
    n = np.asarray(counts, np.float64)
    if planner == "auto":
        shares = quotas(n, mix.allocation, mix.max_class_share, class_names=names)
    elif planner == "uniform":
        shares = (n > 0) / (n > 0).sum()
    elif planner == "as_real":
        shares = n / n.sum()
    elif isinstance(planner, Mapping) and is_rule(planner):
        shares = rule_quotas(planner, n, lambda given, key: class_shares(given, n, names, key))
    elif isinstance(planner, Mapping):
        shares = class_shares(planner, n, names, "data.planner")
    else:
        raise ConfigurationError(
            f"data.planner={planner!r} is none of auto, uniform, as_real, {{class: share}}, {{fill: samples}}, "
            "{temperature: T} or a planner object: it says which classes the pool holds. Set data.planner=auto."
        )
    return [float(share) for share in shares]
