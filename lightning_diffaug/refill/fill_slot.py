"""One slot, from plan to shard: planner → generator → gates → shard. Every launcher fills slots by this function."""

from __future__ import annotations

import hashlib
import struct
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib.metadata import version
from typing import Any

import torch
from torch import Tensor

from lightning_diffaug.conditions import Planner, take
from lightning_diffaug.conditions.captions import PROMPT
from lightning_diffaug.conditions.feedback import Feedback, follow
from lightning_diffaug.conditions.pairs import are_probabilities
from lightning_diffaug.errors import ConfigurationError, GeneratorError
from lightning_diffaug.gates import Gate, Judged, judge, ranking
from lightning_diffaug.gates.chain import compares
from lightning_diffaug.generators.pipeline_load import beating
from lightning_diffaug.pool import Shard
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


@dataclass(frozen=True)
class _Pass:
    """What one pass of the generator brought for some rows; each row may have several candidates, side by side."""

    rows: list[int]
    condition: Mapping[str, Any]
    seeds: list[int]
    samples: Mapping[str, Tensor]
    given: Mapping[str, Tensor]
    judged: list[Judged]


Aside = Callable[[dict[str, Any], dict[str, Tensor]], None]
"""Takes a rejected sample: its provenance, which has its ``reason``, and its fields as they would have been stored."""


def row_seed(pool_seed: int, slot: int, row: int, attempt: int) -> int:
    """Seed of a row: a hash of where it stands, in [0, 2^63)."""
    packed = struct.pack("<4q", pool_seed, slot, row, attempt)
    return int.from_bytes(hashlib.blake2b(packed, digest_size=8).digest(), "little") >> 1


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
    condition = _planned(recipe, slot)
    kept: dict[int, tuple[dict[str, Tensor], dict[str, Any]]] = {}
    held: dict[int, dict[str, Tensor]] = {}  # the same samples in [-1, 1]
    pending: list[int] = list(range(recipe.slot_size))
    rejections: dict[str, int] = {}
    last_reason: dict[int, str] = {}
    generated = passed = 0
    for attempt in range(recipe.attempts):
        if not pending:
            break
        beat()
        made = _pass(recipe, slot, condition, pending, attempt, candidates)
        passed += sum(one.reason is None for one in made.judged)
        _choose(made, chooser)
        passed -= _compare(made, recipe.gates, held)
        generated += len(made.rows)
        for i, row in enumerate(made.rows):
            reason = made.judged[i].reason
            if reason is None:
                provenance = {"row": row, "attempt": attempt * candidates + i % candidates, **_provenance(made, i)}
                kept[row] = (_stored(recipe.spec, made, i), provenance)
                held[row] = {name: value[i] for name, value in made.samples.items()}
                continue
            rejections[reason] = rejections.get(reason, 0) + 1
            last_reason[row] = reason
            if aside is not None and made.samples:
                where = {"row": row, "attempt": attempt * candidates + i % candidates, "reason": reason}
                aside({**where, **_provenance(made, i)}, _stored(recipe.spec, made, i))
        pending = [row for row in pending if row not in kept]
    cost = {
        "seconds": time.perf_counter() - started,
        "generated": generated,
        "passed": passed,  # also those that lost against another candidate of their row
        "rejections": rejections,
    }
    return _shard(recipe.spec, kept, {row: last_reason[row] for row in pending}, cost)


def _follow(recipe: Recipe, slot: int) -> None:
    parts = (recipe.planner, recipe.generator, *recipe.gates)
    try:
        follow(parts, recipe.feedback(slot))
    except (ConfigurationError, GeneratorError):
        raise
    except Exception as error:
        raise GeneratorError(f"the learner's feedback cannot be followed: {type(error).__name__}: {error}") from error


def _pass(
    recipe: Recipe,
    slot: int,
    condition: Mapping[str, Any],
    pending: Sequence[int],
    attempt: int,
    candidates: int,
) -> _Pass:
    """Makes candidates for the rows that are pending, and judges each by itself."""
    tries = [(row, attempt * candidates + c) for row in pending for c in range(candidates)]
    rows = [row for row, _ in tries]
    wanted = take(condition, rows)
    seeds = [row_seed(recipe.pool_seed, slot, row, number) for row, number in tries]
    samples, given, wrong_shape = _generate(recipe, wanted, seeds)
    if wrong_shape:
        return _Pass(rows, wanted, seeds, {}, {}, [Judged(wrong_shape) for _ in rows])
    objected = getattr(recipe.generator, "objected", None)
    alone = [gate for gate in recipe.gates if not compares(gate)]
    judged = judge(samples, wanted, alone, len(rows), objected=objected)
    return _Pass(rows, wanted, seeds, samples, given, judged)


def _choose(made: _Pass, chooser: Any) -> None:
    """Of a row's candidates that passed, all but the one of the highest rank (the first of equals) are rejected."""
    passed = [i for i, one in enumerate(made.judged) if one.reason is None]
    if chooser is None or not passed:
        return
    index = torch.tensor(passed)
    selected = {name: value.index_select(0, index) for name, value in made.samples.items()}
    try:
        ranks = chooser.rank(selected, take(made.condition, passed)).tolist()
    except ConfigurationError:
        raise
    except Exception as error:
        raise GeneratorError(f"gate {chooser.name!r} raised {type(error).__name__}: {error}") from error
    best: dict[int, int] = {}
    rank_of = dict(zip(passed, ranks, strict=True))
    for i in passed:
        row = made.rows[i]
        if row not in best or rank_of[i] > rank_of[best[row]]:
            best[row] = i
    for i in passed:
        if best[made.rows[i]] != i:
            made.judged[i].reason = chooser.name


def _compare(made: _Pass, gates: Sequence[Gate], held: Mapping[int, Mapping[str, Tensor]]) -> int:
    """Compares those that are left with each other and with what the slot holds; how many are rejected.

    Only now: a candidate that was not chosen is no reason to reject another.
    """
    left = [i for i, one in enumerate(made.judged) if one.reason is None]
    comparing = [gate for gate in gates if compares(gate)]
    if not left or not comparing:
        return 0
    samples = {name: value[torch.tensor(left)] for name, value in made.samples.items()}
    before = {name: torch.stack([held[row][name] for row in sorted(held)]) for name in samples} if held else None
    judged = judge(samples, take(made.condition, left), comparing, len(left), before)
    for i, one in zip(left, judged, strict=True):
        made.judged[i].reason = one.reason
        made.judged[i].scores |= one.scores
    return sum(one.reason is not None for one in judged)


def _provenance(made: _Pass, i: int) -> dict[str, Any]:
    scores = {"scores": made.judged[i].scores} if made.judged[i].scores else {}
    return {"seed": made.seeds[i], **_plain(made.condition, i), **scores}


def _stored(spec: SampleSpec, made: _Pass, i: int) -> dict[str, Tensor]:
    """A sample's fields as the pool keeps them."""
    fields = {
        field.name: made.given[field.name][i]
        if field.name in made.given
        else field.from_unit(made.samples[field.name][i])
        for field in spec.continuous
    }
    if LABEL in spec:
        fields[LABEL] = torch.as_tensor(made.condition[LABEL][i], dtype=torch.int64)
    if SOFT_LABEL in made.condition:
        fields[SOFT_LABEL] = made.condition[SOFT_LABEL][i]
    return fields


def empty_slot(recipe: Recipe, reason: str) -> Shard:
    """A slot without rows, for one that cannot be made; each of its rows is rejected with the reason."""
    made = {"seconds": 0.0, "generated": 0, "rejections": {}}
    return _shard(recipe.spec, {}, dict.fromkeys(range(recipe.slot_size), reason), made)


def _planned(recipe: Recipe, slot: int) -> Mapping[str, Any]:
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


def _generate(
    recipe: Recipe, condition: Mapping[str, Any], seeds: Sequence[int]
) -> tuple[dict[str, Tensor], dict[str, Tensor], str]:
    """Samples, and what was given, by field name on the CPU; what is wrong with their shapes ("" where nothing is).

    A field that the generator does not make and that is in the condition, a real sample's mask, is stored as it was
    given, so that pairs stay pairs. Gates see it among the samples, in their range.
    """
    generate = getattr(recipe.generator, "generate", recipe.generator)
    try:
        made = generate(condition, seeds)
    except ConfigurationError:
        raise
    except (Exception, SystemExit) as error:
        raise GeneratorError(f"the generator raised {type(error).__name__}: {error}") from error
    fields = recipe.spec.continuous
    if isinstance(made, Tensor):
        made = {next((field.name for field in fields if field.name not in condition), fields[0].name): made}
    if not isinstance(made, Mapping):
        return {}, {}, f"shape: a {type(made).__name__} in place of tensors"
    samples: dict[str, Tensor] = {}
    given: dict[str, Tensor] = {}
    for field in fields:
        value = made.get(field.name)
        wanted = (len(seeds), *field.shape)
        told = condition.get(field.name)
        if (
            value is None
            and isinstance(told, Tensor)
            and (tuple(told.shape), told.dtype) == (wanted, field.torch_dtype)
        ):
            given[field.name] = told
            samples[field.name] = field.to_unit(told).clamp(-1.0, 1.0)  # a range is found on some of the data
            continue
        if not isinstance(value, Tensor):
            return {}, {}, f"shape: no tensor {field.name!r}"
        if tuple(value.shape) != wanted:
            return {}, {}, f"shape: {field.name!r} is {tuple(value.shape)} in place of {wanted}"
        samples[field.name] = value.detach().to("cpu", torch.float32)
    return samples, given, ""


def _plain(condition: Mapping[str, Any], row: int) -> dict[str, Any]:
    """The part of a row's condition that provenance can hold: numbers and text."""
    values = {name: value[row] for name, value in condition.items()}
    scalars = {n: v.item() if isinstance(v, Tensor) and v.ndim == 0 else v for n, v in values.items()}
    return {name: value for name, value in scalars.items() if isinstance(value, (bool, int, float, str))}


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
