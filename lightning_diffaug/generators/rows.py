"""Which rows go through a generator together, and how strongly each is varied."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence

import torch
from torch import Tensor

from lightning_diffaug.conditions.strength import STRENGTH
from lightning_diffaug.errors import GeneratorError
from lightning_diffaug.generators.protocol import Condition


def batches(kinds: Sequence[Hashable], size: int) -> Iterator[list[int]]:
    """Rows that go together: of one kind, in order, at most `size` of them.

    Args:
        kinds: What decides how a row is run, for each row.
        size: Most rows of a batch.
    """
    together: dict[Hashable, list[int]] = {}
    for row, kind in enumerate(kinds):
        together.setdefault(kind, []).append(row)
    for rows in together.values():
        yield from (rows[first : first + size] for first in range(0, len(rows), size))


def in_order(parts: Sequence[Tensor], rows: Sequence[Sequence[int]]) -> Tensor:
    """The samples of batches, each in the place of its row."""
    places = torch.tensor([row for batch in rows for row in batch])
    joint = torch.cat(list(parts))
    return joint if bool((places[1:] > places[:-1]).all()) else torch.empty_like(joint).index_copy_(0, places, joint)


def strengths(condition: Condition, n: int, needed: bool) -> list[float] | None:
    """Each row's own strength, where the condition has it.

    Args:
        condition: Of the samples.
        n: Samples.
        needed: Whether the setting leaves it to the rows.

    Raises:
        GeneratorError: There are none though they are needed, or not one in [0, 1] for each sample.
    """
    given = condition.get(STRENGTH)
    if given is None and not needed:
        return None
    values = [] if given is None else [float(value) for value in given]
    if len(values) != n or not all(0.0 <= value <= 1.0 for value in values):
        raise GeneratorError(
            f"condition[{STRENGTH!r}] holds {values[:4]}… ({len(values)}); needed is one number in [0, 1] for each of "
            f"{n} samples, which have their own where generator.strength is a range or a list. Set generator.strength "
            "to one number, or give a planner whose plan holds them."
        )
    return values
