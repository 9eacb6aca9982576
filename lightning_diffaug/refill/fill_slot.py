"""One slot, from plan to shard: planner → generator → gates → shard. Every launcher fills slots by this function."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from importlib.metadata import version
from typing import Any

import torch
from torch import Tensor

from lightning_diffaug.conditions.captions import PROMPT
from lightning_diffaug.conditions.feedback import follow
from lightning_diffaug.errors import ConfigurationError, GeneratorError
from lightning_diffaug.gates import ranking
from lightning_diffaug.generators.pipeline_load import beating
from lightning_diffaug.pool import Shard
from lightning_diffaug.refill.one_pass import choose, compare, made_in_pass, provenance_of, stored
from lightning_diffaug.refill.recipe import Recipe, planned
from lightning_diffaug.spec import SOFT_LABEL, SampleSpec

Aside = Callable[[dict[str, Any], dict[str, Tensor]], None]
"""Takes a rejected sample: its provenance, which has its ``reason``, and its fields as they would have been stored."""


def make_ready(recipe: Recipe, beat: Callable[[], None]) -> None:
    """Has a generator with a method ``ready()`` load what it samples with, which is no part of any slot's time.

    Args:
        recipe: Of the slots that are to be made.
        beat: Called from time to time, from another thread, to show that work goes on.

    Raises:
        GeneratorError: The generator raised.
        ConfigurationError: It found a setting with which it cannot work.
    """
    ready = getattr(recipe.generator, "ready", None)
    if not callable(ready):
        return
    try:
        with beating(beat):
            ready()
    except ConfigurationError:
        raise
    except (Exception, SystemExit) as error:
        raise GeneratorError(f"the generator raised {type(error).__name__} before its first sample: {error}") from error


def fill_slot(slot: int, recipe: Recipe, beat: Callable[[], None] = lambda: None, aside: Aside | None = None) -> Shard:
    """Makes the content of a slot: a pure function of the recipe and the slot's number (but for the times).

    Args:
        slot: Slot number.
        recipe: What to make and how.
        beat: Called before each pass of the generator, to show that work goes on. A generator with an attribute
            ``on_progress`` gets it there, to be called within a long pass.
        aside: Takes the samples that are rejected.

    Returns:
        The shard: 0 … slot_size rows; rows that used up their attempts are named in ``rejected`` with their reason.

    Raises:
        GeneratorError: The generator, the planner or a gate raised.
        ConfigurationError: One of them found a setting with which it cannot work; another try would not help.
    """
    started = time.perf_counter()
    if hasattr(recipe.generator, "on_progress"):
        recipe.generator.on_progress = beat
    _follow(recipe, slot)
    chooser = ranking(recipe.gates)  # which may follow the learner in whether it chooses
    candidates = 1 if chooser is None else chooser.candidates
    condition = planned(recipe, slot)
    kept: dict[int, tuple[dict[str, Tensor], dict[str, Any]]] = {}
    held: dict[int, dict[str, Tensor]] = {}  # the same samples in [-1, 1]
    pending: list[int] = list(range(recipe.slot_size))
    rejections: dict[str, int] = {}
    last_reason: dict[int, str] = {}
    generated = passed = 0
    passes = getattr(recipe.generator, "network_passes", None)
    for attempt in range(recipe.attempts):
        if not pending:
            break
        beat()
        made = made_in_pass(recipe, slot, condition, pending, attempt, candidates)
        passed += sum(one.reason is None for one in made.judged)
        choose(made, chooser)
        passed -= compare(made, recipe.gates, held)
        generated += len(made.rows)
        for i, row in enumerate(made.rows):
            reason = made.judged[i].reason
            if reason is None:
                provenance = {"row": row, "attempt": attempt * candidates + i % candidates, **provenance_of(made, i)}
                kept[row] = (stored(recipe.spec, made, i), provenance)
                held[row] = {name: value[i] for name, value in made.samples.items()}
                continue
            rejections[reason] = rejections.get(reason, 0) + 1
            last_reason[row] = reason
            if aside is not None and made.samples:
                where = {"row": row, "attempt": attempt * candidates + i % candidates, "reason": reason}
                aside({**where, **provenance_of(made, i)}, stored(recipe.spec, made, i))
        pending = [row for row in pending if row not in kept]
    cost = {
        "seconds": time.perf_counter() - started,
        "generated": generated,
        "passed": passed,  # also those that lost against another candidate of their row
        "rejections": rejections,
    }
    if passes is not None:
        cost["network_passes"] = recipe.generator.network_passes - passes
    return _shard(recipe.spec, kept, {row: last_reason[row] for row in pending}, cost)


def _follow(recipe: Recipe, slot: int) -> None:
    parts = (recipe.planner, recipe.generator, *recipe.gates)
    try:
        follow(parts, recipe.feedback(slot))
    except (ConfigurationError, GeneratorError):
        raise
    except Exception as error:
        raise GeneratorError(f"the learner's feedback cannot be followed: {type(error).__name__}: {error}") from error


def empty_slot(recipe: Recipe, reason: str) -> Shard:
    """A slot without rows, for one that cannot be made; each of its rows is rejected with the reason."""
    made = {"seconds": 0.0, "generated": 0, "rejections": {}}
    return _shard(recipe.spec, {}, dict.fromkeys(range(recipe.slot_size), reason), made)


def _text(provenance: Mapping[str, Any], name: str) -> str:
    """A row's own text of that name, or else its prompt."""
    return str(provenance.get(name, provenance.get(PROMPT)))


def _shard(
    spec: SampleSpec,
    admitted: Mapping[int, tuple[dict[str, Tensor], dict[str, Any]]],
    rejected: Mapping[int, str],
    made: dict[str, Any],
) -> Shard:
    rows = sorted(admitted)
    fields = {
        field.name: torch.stack([admitted[row][0][field.name] for row in rows])
        if rows
        else torch.empty((0, *field.shape), dtype=field.torch_dtype)
        for field in spec.tensors
    }
    strings = {field.name: [_text(admitted[row][1], field.name) for row in rows] for field in spec.texts}
    if rows and SOFT_LABEL in admitted[rows[0]][0]:
        fields[SOFT_LABEL] = torch.stack([admitted[row][0][SOFT_LABEL] for row in rows])
    made["time"] = datetime.now(timezone.utc).isoformat(timespec="seconds")
    made["versions"] = {name: version(name) for name in ("torch", "diffusers", "lightning")}
    return Shard(
        fields=fields,
        strings=strings,
        rows=[admitted[row][1] for row in rows],
        rejected=[{"row": row, "reason": reason} for row, reason in sorted(rejected.items())],
        made=made,
    )
