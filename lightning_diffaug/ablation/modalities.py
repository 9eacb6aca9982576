"""Scores with a modality left out, which a model of several logs as ``test/<metric>_without_<modality>``."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from lightning_diffaug.ablation.metric import OTHERS, TITLES, Metric, metric_of
from lightning_diffaug.ablation.summary import ArmSummary

_KEY = re.compile(r"test/(.+?)_without_(.+)")


@dataclass(frozen=True)
class Missing:
    """A metric that was also scored without each of some modalities.

    Attributes:
        metric: It.
        modalities: Modality → key in ``metrics.json`` of the score without it, in the order in which they come.
    """

    metric: Metric
    modalities: dict[str, str]

    @property
    def keys(self) -> list[str]:
        """That with all, then those without each."""
        return [self.metric.key("test"), *self.modalities.values()]


def missing_modalities(arms: Sequence[ArmSummary], judged: Metric) -> list[Missing]:
    """What the arms were scored by with a modality missing; [] where there is nothing.

    Args:
        arms: Of one task.
        judged: The metric that it is judged by; it comes first.
    """
    found: dict[str, dict[str, str]] = {}
    for key in dict.fromkeys(key for arm in arms for key in arm.estimates):
        named = _KEY.fullmatch(key)
        if named is not None:
            found.setdefault(named[1], {})[named[2]] = key
    names = sorted(found, key=lambda name: name != judged.name)
    return [Missing(_metric(name, judged), found[name]) for name in names]


def _metric(name: str, judged: Metric) -> Metric:
    if name == judged.name:
        return judged
    if name in TITLES or name in OTHERS:
        return metric_of(name)
    return Metric(name, name.replace("_", " "), "", share=False)
