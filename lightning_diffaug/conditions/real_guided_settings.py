"""The settings of real-guided plans, checked at the door."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from lightning_diffaug.conditions.choice import CHOICES
from lightning_diffaug.conditions.pairs import CROSS, PAIRS
from lightning_diffaug.conditions.strength import Strengths
from lightning_diffaug.errors import ConfigurationError

SOURCES = ("noise", "image", "interpolate", "edit")


@dataclass(frozen=True)
class RealGuided:
    """Which real samples are varied, where the generator starts from real samples.

    Attributes:
        choose: One of `choice.CHOICES`: ``"uniform"``; ``"least_augmented"``: each equally often; ``"misclassified"``:
            those that the learner's loss is high on (needs feedback).
        pairs: Of which class a start is: ``"intra"``, the row's own; ``"cross"``, another, as Diff-Mix has it (Wang et
            al. 2024): a sample of class a, noised and denoised as class b; ``"all"``: of any, the own among them. None:
            another with source=edit, else the own.
        cross: How the classes of such starts are weighted: ``"common"``, by their real samples; ``"any"``, alike.
        gamma: Exponent of the soft label that follows from the strength, see `pairs.soft_label`; None: the label is
            the class that was asked for.

    Raises:
        ConfigurationError: A value is unknown or out of its range.
    """

    choose: str = "uniform"
    pairs: str | None = None
    cross: str = "common"
    gamma: float | None = None

    def __post_init__(self) -> None:
        for name, known in (("choose", CHOICES), ("pairs", (None, *PAIRS)), ("cross", CROSS)):
            if getattr(self, name) not in known:
                raise ConfigurationError(
                    f"{name}={getattr(self, name)!r} is none of {', '.join(map(str, known))}: it is part of which real "
                    f"sample is varied. Set data.real_guided.{name} to one of them."
                )
        gamma = self.gamma
        number = isinstance(gamma, (int, float)) and not isinstance(gamma, bool)
        if gamma is not None and not (number and math.isfinite(gamma) and gamma > 0):
            raise ConfigurationError(
                f"gamma={gamma!r} is no number above 0: it is the exponent by which a soft label follows from the "
                "strength. Set data.real_guided.gamma to e.g. 0.5, or to null for hard labels."
            )

    @classmethod
    def of(cls, given: Any) -> RealGuided:
        """From a mapping of the attributes; None: the defaults.

        Raises:
            ConfigurationError: A key is unknown.
        """
        if given is None or isinstance(given, cls):
            return given or cls()
        known = [field.name for field in fields(cls)]
        if not isinstance(given, Mapping):
            raise ConfigurationError(
                f"real_guided={given!r} is no mapping: it says which real samples are varied. Set "
                f"data.real_guided.{known[0]} and its other keys ({', '.join(known[1:])})."
            )
        unknown = [str(key) for key in given if key not in known]
        if unknown:
            raise ConfigurationError(
                f"data.real_guided.{unknown[0]} is no setting: there are {', '.join(known)}. Remove it."
            )
        return cls(**given)

    def pairs_of(self, source: str) -> str:
        """The class of a start, where `pairs` leaves it open."""
        return self.pairs or ("cross" if source == "edit" else "intra")


def check_planner(
    settings: RealGuided, source: str, labelled: bool, repaint: float | None, strengths: Strengths | None
) -> None:
    """Refuses settings that do not go together.

    Raises:
        ConfigurationError: See above.
    """
    if source not in SOURCES:
        raise ConfigurationError(f"source={source!r} is none of {', '.join(SOURCES)}. Set generator.source.")
    pairs = settings.pairs_of(source)
    if not labelled and source == "edit":
        raise ConfigurationError(
            "source=edit turns samples of one class into another, and the data have no labels. Set "
            "generator.source to image, interpolate or noise."
        )
    if not labelled and pairs != "intra":
        raise ConfigurationError(
            f"pairs={pairs} starts from samples of other classes, and the data have no labels. Set "
            "data.real_guided.pairs=null."
        )
    if source != "image" and pairs != RealGuided().pairs_of(source):
        raise ConfigurationError(
            f"pairs={pairs} and source={source} do not go together: from another class a sample is noised "
            "(source=image) or inverted (source=edit, always from another class). Set generator.source=image, or "
            "data.real_guided.pairs=null."
        )
    if settings.gamma is None:
        return
    if pairs == "intra":
        raise ConfigurationError(
            f"gamma={settings.gamma} makes a label between two classes, and with pairs=intra a sample has one. Set "
            "data.real_guided.pairs=cross, or data.real_guided.gamma=null."
        )
    if repaint is not None:
        raise ConfigurationError(
            f"gamma={settings.gamma} makes a label of the strength alone, and repaint={repaint} keeps a part of the "
            "start whatever the strength. Set data.real_guided.gamma=null or generator.repaint=null."
        )
    if strengths is None:
        raise ConfigurationError(
            f"gamma={settings.gamma} makes a label of the strength, and the generator does not say its own (an "
            "attribute `strength`). Set data.real_guided.gamma=null."
        )
