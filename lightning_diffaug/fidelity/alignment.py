"""The figures of samples with several fields: is what belongs together made together, by the measures of gates."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from lightning_diffaug.errors import ConfigurationError
from lightning_diffaug.fidelity.result import Figure
from lightning_diffaug.gates.aligned import PairAgreement
from lightning_diffaug.gates.aligned.fields import read
from lightning_diffaug.gates.choice import ON, chosen_gates
from lightning_diffaug.snapshot import Snapshot
from lightning_diffaug.spec import SampleSpec

if TYPE_CHECKING:
    from lightning_diffaug.fidelity.work import Work

FIGURES = {"mask": "mask_agreement", "sync": "sync_offset", "chamfer": "scan_distance", "pair": "pair_agreement"}
"""Gate by name → what is measured by it."""

_SCORES = {"mask": "mask_iou", "sync": "sync_offset", "chamfer": "scan_distance"}


@dataclass(frozen=True)
class Paired:
    """Samples with several fields.

    Attributes:
        training: The real training samples.
        made: The samples in question.
        held_out: Real samples that nothing was fitted on; None: a half of the training samples takes their part.
    """

    training: Snapshot
    made: Snapshot
    held_out: Snapshot | None


def gates_of(pairs: Mapping[str, Any]) -> list[Any]:
    """The gates by whose measures pairs are judged.

    Args:
        pairs: Name → true or arguments.

    Raises:
        ConfigurationError: A name is unknown, or arguments do not fit.
    """
    if not isinstance(pairs, Mapping) or (unknown := [name for name in pairs if name not in FIGURES]):
        said = repr(pairs) if not isinstance(pairs, Mapping) else str(unknown[0])
        raise ConfigurationError(
            f"pairs of fidelity has {said}: it says what of a sample is to belong together, by {', '.join(FIGURES)}. "
            "Set pairs to e.g. {mask: true, pair: {first: image, second: caption}}."
        )
    return chosen_gates({**dict.fromkeys(ON, False), **pairs})


def fields_of(pairs: Mapping[str, Any]) -> list[str]:
    """Names of the fields that `gates_of` look at."""
    return list(dict.fromkeys(name for gate in gates_of(pairs) for name in gate.looks_at))


def partners(work: Work, paired: Paired) -> None:
    """Agreement of masks and of any two fields, seconds out of step, distance of scans; each with its level."""
    settings = work.settings
    training, held_out = paired.training, paired.held_out
    if held_out is None:
        order = _shuffled(len(training), settings.seed)
        names = fields_of(settings.pairs or {})
        training, held_out = _rows(training, order[::2], names), _rows(training, order[1::2], names)
    n = min(len(paired.made), len(held_out), settings.samples)
    made = _shuffled(len(paired.made), settings.seed)[:n].sort().values
    level = _shuffled(len(held_out), settings.seed)[:n].sort().values

    for gate in gates_of(settings.pairs or {}):
        name = FIGURES[gate.name]

        def figure(gate: Any = gate, name: str = name) -> dict[str, Figure]:
            for samples in (training, paired.made, held_out):
                gate.check(samples.spec, ())  # says which field is not there
            _learn(gate, training)
            value, real = _value(gate, paired.made, made), _value(gate, held_out, level)
            return {name: Figure(value, real, n, n, len(training) if hasattr(gate, "fitted") else 0)}

        work.add((name,), figure)


def _learn(gate: Any, training: Snapshot) -> None:
    """Fits a gate on real pairs, or lets it learn what they are."""
    if hasattr(gate, "bind"):
        gate.bind(training)
    if hasattr(gate, "fitted"):
        with tempfile.TemporaryDirectory() as folder:
            gate.fitted.fit(training, Path(folder), lambda *_: None)
            gate.fitted.load(Path(folder))


def _value(gate: Any, samples: Snapshot, rows: Tensor) -> float:
    first, second = (read(samples, samples.spec[name], rows) for name in gate.looks_at)
    if isinstance(gate, PairAgreement):
        return gate.fitted.accuracy(first, second)
    scores = gate(dict(zip(gate.looks_at, (first, second), strict=True)), {}).scores[_SCORES[gate.name]]
    return float(scores.double().abs().mean())


def _rows(snapshot: Snapshot, rows: Tensor, names: list[str]) -> Snapshot:
    spec = SampleSpec(tuple(field for field in snapshot.spec.fields if field.name in names))
    fields = {field.name: snapshot.raw(field.name, rows) for field in spec.tensors}
    return Snapshot(
        spec, fields, texts={f.name: [snapshot.texts[f.name][i] for i in rows.tolist()] for f in spec.texts}
    )


def _shuffled(n: int, seed: int) -> Tensor:
    return torch.randperm(n, generator=torch.Generator().manual_seed(seed))
