"""The chain of gates: which rows pass, and for what reason the others do not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from lightning_diffaug.conditions.planner import take
from lightning_diffaug.errors import ConfigurationError, GeneratorError


class Gate(Protocol):
    """A pure test of samples. A gate's constructor arguments are part of the pool's fingerprint."""

    @property
    def name(self) -> str:
        """The reason under which rejections are counted."""
        ...

    def __call__(self, samples: Mapping[str, Tensor], condition: Mapping[str, Any]) -> Tensor:
        """Which rows pass.

        Args:
            samples: Name → float32 (n, *shape) in [-1, 1], all of the right shape.
            condition: Name → the n conditions that were asked for.

        Returns:
            bool (n,), True where the row may enter the pool.
        """
        ...


def judge(
    samples: Mapping[str, Tensor], condition: Mapping[str, Any], gates: Sequence[Gate], n: int
) -> list[str | None]:
    """Sends rows through the gates in order; a later gate sees only what the earlier ones let pass.

    Returns:
        For each of the n rows the name of the gate that rejected it, or None.

    Raises:
        GeneratorError: A gate raised, or its verdict is not one bool a sample.
        ConfigurationError: A gate found a setting with which it cannot work.
    """
    reasons: list[str | None] = [None] * n
    passing = list(range(n))
    for gate in gates:
        if not passing:
            break
        index = torch.as_tensor(passing, dtype=torch.int64)
        selected = {name: value.index_select(0, index) for name, value in samples.items()}
        try:
            verdict = torch.as_tensor(gate(selected, take(condition, passing)))
        except ConfigurationError:
            raise
        except Exception as error:
            raise GeneratorError(f"gate {gate.name!r} raised {type(error).__name__}: {error}") from error
        if verdict.dtype != torch.bool or verdict.shape != (len(passing),):
            raise GeneratorError(
                f"gate {gate.name!r} returned {verdict.dtype} of shape {tuple(verdict.shape)} for {len(passing)} "
                "samples: it has to return one bool for each, True where the sample may enter the pool."
            )
        for row, passed in zip(passing, verdict.tolist(), strict=True):
            if not passed:
                reasons[row] = gate.name
        passing = [row for row in passing if reasons[row] is None]
    return reasons
