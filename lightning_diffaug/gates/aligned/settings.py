"""How the networks of the alignment gates are fitted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from lightning_diffaug.errors import ConfigurationError
from lightning_diffaug.gates.checks import as_set


@dataclass(frozen=True)
class AlignedSettings:
    """The fit of a network that tells whether two fields belong together. All of it is part of the fit's fingerprint.

    Attributes:
        steps: Optimiser steps of each fold.
        batch_size: Real pairs a step.
        lr: Peak learning rate of AdamW, with a linear warm-up and a cosine.
        weight_decay: Of AdamW.
        width: Channels of the first layer.
        size: Longest side that images are averaged down to before they are looked at.
        folds: Parts of the real pairs. As many networks are fitted, each without one part, on which it is judged.
        seed: Of the first weights and all draws.
    """

    steps: int = 150
    batch_size: int = 32
    lr: float = 5e-3
    weight_decay: float = 1e-2
    width: int = 16
    size: int = 32
    folds: int = 3
    seed: int = 0

    @classmethod
    def of(cls, values: Mapping[str, Any] | None, gate: str) -> AlignedSettings:
        """The settings of a mapping.

        Args:
            values: By name; None: the defaults.
            gate: Name of the gate, for errors.

        Raises:
            ConfigurationError: A name is unknown, or a value out of its range.
        """
        values, known = dict(values or {}), asdict(cls())
        if unknown := [name for name in values if name not in known]:
            raise ConfigurationError(
                f"gates.{gate}.fit.{unknown[0]} is no setting of the fit, which has {', '.join(known)}. Set e.g. "
                f"{as_set(gate, fit={'steps': 400})}."
            )
        ranges: dict[str, tuple[float, float]] = {
            "steps": (3, 10**7), "batch_size": (2, 10**5), "lr": (1e-9, 10.0), "weight_decay": (0.0, 10.0),
            "width": (1, 4096), "size": (4, 4096), "folds": (2, 20), "seed": (0, 2**63 - 1),
        }  # fmt: skip
        for name, value in values.items():
            (low, high), whole = ranges[name], isinstance(known[name], int)
            number = isinstance(value, int if whole else (int, float)) and not isinstance(value, bool)
            if not number or not low <= value <= high:
                kind = "whole number" if whole else "number"
                raise ConfigurationError(
                    f"gates.{gate}.fit.{name}={value!r} is no {kind} from {low:g} to {high:g}: it is of the fit on the "
                    f"real pairs. Set {as_set(gate, fit={name: known[name]})}."
                )
        return cls(**values)
