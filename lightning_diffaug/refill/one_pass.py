"""One pass of the generator for some rows of a slot: what it made, what the gates say, which candidates are chosen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lightning_diffaug.conditions import take
from lightning_diffaug.conditions.captions import PROMPT
from lightning_diffaug.errors import ConfigurationError, GeneratorError
from lightning_diffaug.gates import Gate, Judged, judge
from lightning_diffaug.gates.chain import compares
from lightning_diffaug.refill.recipe import Recipe, row_seed
from lightning_diffaug.spec import LABEL, SOFT_LABEL, SampleSpec


@dataclass(frozen=True)
class Pass:
    """What one pass of the generator brought for some rows; each row may have several candidates, side by side."""

    rows: list[int]
    condition: Mapping[str, Any]
    seeds: list[int]
    samples: Mapping[str, Tensor]
    given: Mapping[str, Tensor]
    judged: list[Judged]


def made_in_pass(
    recipe: Recipe,
    slot: int,
    condition: Mapping[str, Any],
    pending: Sequence[int],
    attempt: int,
    candidates: int,
) -> Pass:
    """Makes candidates for the rows that are pending, and judges each by itself."""
    tries = [(row, attempt * candidates + c) for row in pending for c in range(candidates)]
    rows = [row for row, _ in tries]
    wanted = take(condition, rows)
    seeds = [row_seed(recipe.pool_seed, slot, row, number) for row, number in tries]
    samples, given, texts, wrong_shape = _generate(recipe, wanted, seeds)
    wanted = {**wanted, **texts}
    if wrong_shape:
        return Pass(rows, wanted, seeds, {}, {}, [Judged(wrong_shape) for _ in rows])
    objected = getattr(recipe.generator, "objected", None)
    alone = [gate for gate in recipe.gates if not compares(gate)]
    judged = judge(samples, wanted, alone, len(rows), objected=objected)
    return Pass(rows, wanted, seeds, samples, given, judged)


def choose(made: Pass, chooser: Any) -> None:
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


def compare(made: Pass, gates: Sequence[Gate], held: Mapping[int, Mapping[str, Tensor]]) -> int:
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


def provenance_of(made: Pass, i: int) -> dict[str, Any]:
    """A sample's seed, condition and scores, as plain values."""
    scores = {"scores": made.judged[i].scores} if made.judged[i].scores else {}
    return {"seed": made.seeds[i], **_plain(made.condition, i), **scores}


def stored(spec: SampleSpec, made: Pass, i: int) -> dict[str, Tensor]:
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


def _generate(
    recipe: Recipe, condition: Mapping[str, Any], seeds: Sequence[int]
) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, list[str]], str]:
    """Samples, what was given, and texts that were made, by field name; what is wrong with them ("" where nothing is).

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
        return {}, {}, {}, f"shape: a {type(made).__name__} in place of tensors"
    samples: dict[str, Tensor] = {}
    given: dict[str, Tensor] = {}
    texts = {field.name: list(made[field.name]) for field in recipe.spec.texts if field.name in made}
    for name, of in texts.items():
        if len(of) != len(seeds) or not all(isinstance(text, str) for text in of):
            return {}, {}, {}, f"shape: {name!r} is not a text for each of {len(seeds)} samples"
    if texts:
        texts[PROMPT] = next(iter(texts.values()))  # what gates hold a sample against
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
            return {}, {}, {}, f"shape: no tensor {field.name!r}"
        if tuple(value.shape) != wanted:
            return {}, {}, {}, f"shape: {field.name!r} is {tuple(value.shape)} in place of {wanted}"
        samples[field.name] = value.detach().to("cpu", torch.float32)
    return samples, given, texts, ""


def _plain(condition: Mapping[str, Any], row: int) -> dict[str, Any]:
    """The part of a row's condition that provenance can hold: numbers and text."""
    values = {name: value[row] for name, value in condition.items()}
    scalars = {n: v.item() if isinstance(v, Tensor) and v.ndim == 0 else v for n, v in values.items()}
    return {name: value for name, value in scalars.items() if isinstance(value, (bool, int, float, str))}
