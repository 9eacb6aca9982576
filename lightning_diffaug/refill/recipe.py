"""What the content of slots follows from, and what its planner says of each."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from lightning_diffaug.conditions import Planner
from lightning_diffaug.conditions.captions import PROMPT
from lightning_diffaug.conditions.feedback import Feedback
from lightning_diffaug.conditions.pairs import are_probabilities
from lightning_diffaug.errors import ConfigurationError, GeneratorError
from lightning_diffaug.gates import Gate
from lightning_diffaug.spec import LABEL, SOFT_LABEL, SampleSpec


@dataclass(frozen=True)
class Recipe:
    """All that the content of slots follows from.

    Attributes:
        planner: Slot number → conditions.
        generator: A generator object, or a callable ``(condition, seeds) -> samples``.
        gates: What may enter, in order.
        spec: The fields to be stored.
        slot_size: Rows a slot.
        pool_seed: Seed of the pool.
        attempts: How often a rejected row is made again, with another seed and the same condition.
        feedback: Slot number → what the learner said for it, or None.
    """

    planner: Planner
    generator: Any
    gates: tuple[Gate, ...]
    spec: SampleSpec
    slot_size: int = 64
    pool_seed: int = 0
    attempts: int = 4
    feedback: Callable[[int], Feedback | None] = lambda slot: None


def row_seed(pool_seed: int, slot: int, row: int, attempt: int) -> int:
    """Seed of a row: a hash of where it stands, in [0, 2^63)."""
    packed = struct.pack("<4q", pool_seed, slot, row, attempt)
    return int.from_bytes(hashlib.blake2b(packed, digest_size=8).digest(), "little") >> 1


def planned(recipe: Recipe, slot: int) -> Mapping[str, Any]:
    """What the planner says of a slot, checked for its form."""
    n = recipe.slot_size
    try:
        condition: Mapping[str, Any] = recipe.planner.plan(slot, n)
        sizes = {name: len(value) for name, value in condition.items()}
    except ConfigurationError:
        raise
    except Exception as error:
        raise GeneratorError(f"the planner raised {type(error).__name__}: {error}") from error
    if any(size != n for size in sizes.values()) or (LABEL in recipe.spec and LABEL not in sizes):
        raise GeneratorError(
            f"the planner's plan for slot {slot} has values of lengths {sizes}: each condition has one value for each "
            f"of the {n} rows, and data with labels need {LABEL!r}. Correct its plan(slot, rows), or set "
            "data.planner=auto."
        )
    missing = [field.name for field in recipe.spec.texts if field.name not in sizes and PROMPT not in sizes]
    if missing:
        raise GeneratorError(
            f"the planner's plan for slot {slot} has neither {missing[0]!r} nor {PROMPT!r}, and the samples have that "
            "text. Set data.text, or give it in the plan(slot, rows)."
        )
    if SOFT_LABEL in condition and not are_probabilities(condition[SOFT_LABEL]):
        raise GeneratorError(
            f"the planner's plan for slot {slot} has a {SOFT_LABEL!r} that is not float32 (rows, classes), each row "
            "the probabilities of the classes, of sum 1. Correct its plan(slot, rows), or set data.planner=auto."
        )
    return condition
