"""The jobs of an ablation: each arm with each value of what is swept, but for what the arm itself says."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lightning_diffaug.errors import ConfigurationError

SEED, FRACTION, ARM, NAME = "seed", "data.synthetic_fraction", "arm", "name"
_PLAIN = re.compile(r"[A-Za-z_][\w./%-]*")
_WORDS = {"true", "false", "null", "nan", "inf", "yes", "no", "on", "off"}


@dataclass(frozen=True)
class Job:
    """One run.

    Attributes:
        arm: The arm's name with its fraction and other swept values, unique but for the seed.
        seed: Its seed, as given; "" where none is swept.
        overrides: Of this run, without those of the whole sweep.
        own: Keys that the arm's entry sets, and that are no further mark of it.
        ignores: Overrides of the whole sweep with these keys do not reach it: the arm says otherwise.
        wants: Synthetic fraction, where it is a number; 0 without one.
        place: The values of what is swept for all arms but the fraction: of one place there is one training set.
    """

    arm: str
    seed: str
    overrides: tuple[str, ...]
    own: tuple[str, ...]
    ignores: frozenset[str]
    wants: float
    place: tuple[str, ...] = ()


def as_override(value: Any) -> str:
    """A plain value in the grammar of Hydra's overrides."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{key}:{as_override(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ",".join(as_override(inner) for inner in value) + "]"
    text = str(value)
    if _PLAIN.fullmatch(text) and text.lower() not in _WORDS:
        return text
    # the grammar takes a backslash for itself, but for those before a quote
    text = re.sub(r"(\\*)'", lambda found: found[1] * 2 + "\\'", text)
    return "'" + re.sub(r"\\+$", lambda found: found[0] * 2, text) + "'"


def jobs(
    arms: Sequence[Any], swept: Mapping[str, Sequence[str]], keys_of: Callable[[str], Collection[str]]
) -> list[Job]:
    """All jobs: by training set, and within one those first that need most of a pool, so that one run fills it.

    Args:
        arms: Names of arms, or mappings ``{arm: name, key: value or list, name: …}``, whose lists are swept.
        swept: Key → values, as overrides, of what is swept for all arms; the seed is among them.
        keys_of: The keys (and groups) that an arm's own file sets. What an arm or its entry sets is not swept for it.

    Raises:
        ConfigurationError: There is no arm, or an entry is no arm.
    """
    if not arms:
        raise ConfigurationError("ablation.arms is empty: it lists the arms of the sweep, such as [classical, mixed].")
    outer = {key: list(values) for key, values in swept.items() if key != FRACTION}
    every = [_of_arm(_entry(arm), swept, outer, keys_of) for arm in arms]
    found: dict[tuple[str, ...], list[Job]] = {}
    for key, job in itertools.chain.from_iterable(every):
        found.setdefault(key, []).append(job)
    order = [tuple(values) for values in itertools.product(*outer.values())]
    ranked = {key: rank for rank, key in enumerate(order)}
    ordered = [
        job
        for key in sorted(found, key=lambda key: ranked.get(key, len(order)))
        for job in sorted(found[key], key=lambda job: -job.wants)
    ]
    _check_names(ordered)
    return list(dict.fromkeys(ordered))


def _check_names(every: Sequence[Job]) -> None:
    """Refuses two arms under one name: one would be lost among the seeds of the other."""
    named: dict[tuple[str, str], Job] = {}
    for job in every:
        if named.setdefault((job.arm, job.seed), job) != job:
            raise ConfigurationError(
                f"ablation.arms holds two arms of the name {job.arm!r} with other settings: "
                f"{' '.join(named[job.arm, job.seed].overrides)}, and {' '.join(job.overrides)}. Give one a name: "
                "{arm: …, name: …}."
            )


def _entry(arm: Any) -> dict[str, Any]:
    entry = {ARM: arm} if isinstance(arm, str) else dict(arm) if isinstance(arm, Mapping) else {}
    if not isinstance(entry.get(ARM), str):
        raise ConfigurationError(
            f"ablation.arms holds {arm!r}, which is no arm: give a name of conf/arm, or {{arm: name, key: value}}."
        )
    return entry


def _of_arm(
    entry: Mapping[str, Any],
    swept: Mapping[str, Sequence[str]],
    outer: Mapping[str, Sequence[str]],
    keys_of: Callable[[str], Collection[str]],
) -> list[tuple[tuple[str, ...], Job]]:
    given = {key: value for key, value in entry.items() if key not in (ARM, NAME)}
    plain = {key.lstrip("+~") for key in given}
    axes = {key: [as_override(v) for v in (x if isinstance(x, list) else [x])] for key, x in given.items()}
    sets = set(keys_of(entry[ARM])) | plain
    axes |= {key: list(values) for key, values in swept.items() if not _set_by(key, sets)}
    found = []
    for values in itertools.product(*axes.values()):
        chosen = dict(zip(axes, values, strict=True))
        name = str(entry.get(NAME, entry[ARM]))
        marks = [
            f"{key}={value}"
            for key, value in chosen.items()
            if key not in (SEED, FRACTION) and (key in outer or isinstance(given.get(key), list)) and len(axes[key]) > 1
        ]
        label = (
            name + (f"-{chosen[FRACTION]}" if FRACTION in chosen else "") + (f" ({', '.join(marks)})" if marks else "")
        )
        own = tuple(key.lstrip("+~") for key in given if key != FRACTION and len(axes[key]) == 1)
        overrides = [f"{ARM}={entry[ARM]}", *(f"{key}={value}" for key, value in chosen.items())]
        if NAME in entry:
            overrides.append(f"arm_name={as_override(name)}")
        place = tuple(chosen.get(key, outer[key][0]) for key in outer)
        seed, wants = chosen.get(SEED, ""), _number(chosen.get(FRACTION))
        found.append((place, Job(label, seed, tuple(overrides), own, frozenset(sets), wants, place)))
    return found


def _set_by(key: str, sets: Collection[str]) -> bool:
    """Whether a key, or one that it lies in, is among those set."""
    return any(key == one or key.startswith(f"{one}.") for one in sets)


def reaches(override_key: str, job: Job) -> bool:
    """Whether an override of the whole sweep reaches a job."""
    return not _set_by(override_key, job.ignores)


def _number(text: str | None) -> float:
    try:
        return float(text or 0)
    except ValueError:  # a schedule: it may want anything
        return 1.0
