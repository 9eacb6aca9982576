"""The chain of gates: which rows pass, and for what reason the others do not."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from lightning_diffaug.conditions.planner import take
from lightning_diffaug.errors import ConfigurationError, GeneratorError
from lightning_diffaug.gates.checks import as_set

SAFETY = "safety"
"""The reason of what a safety checker objects to, a generator's own or the gate of that name."""


class Verdict(NamedTuple):
    """What a gate says that also measures.

    Attributes:
        passed: Bool (n,).
        scores: Name → float (n,); those of a sample that is let in are kept in its provenance.
    """

    passed: Tensor
    scores: Mapping[str, Tensor]


class Gate(Protocol):
    """A pure test of samples. A gate's constructor arguments are part of the pool's fingerprint.

    A gate may have further methods:

    - ``bind(snapshot)``: learns the real training data, whose hash is then part of the pool's name.
    - ``bind_held_out(snapshot)``, beside ``bind``: is also given a field of the validation and test data (the one that
      its attribute ``field`` names, else the image), and the run says so.
    - ``fit_key()``, ``fit(snapshot, folder, progress)`` and ``load(folder)``: has weights, which are fitted once and
      kept as those of a generator. An attribute ``fitted`` may hold another object that has these methods; equal ones
      of several gates are fitted once.
    - ``model_key()``: a plain value that identifies the files it reads.
    - ``check(spec, class_names)``: says what is wrong with the data for it, before anything is made.
    - ``asks``: a model that it asks; one with an attribute ``trainer_devices`` is told the GPUs that training uses.
    - ``unnamed``: arguments that change no verdict, such as a device: no part of the pool's name.
    - ``judges_made`` (true): its argument ``field``, where it is None, becomes the field that is made, where the image
      (or the first continuous field) is a condition, a real sample's own.
    - ``follow(feedback)``: is told before each slot what the learner said for it (`conditions.feedback.Feedback`), or
      None.
    - ``candidates`` (above 1) and ``rank(samples, condition)``, float (n,): so many candidates are made for each row,
      and of those that all gates let pass the one of the highest rank is kept. At most one gate of a chain. Where the
      number follows the learner, ``most_candidates`` is what it may become.
    """

    @property
    def name(self) -> str:
        """The reason under which rejections are counted."""
        ...

    def __call__(self, samples: Mapping[str, Tensor], condition: Mapping[str, Any]) -> Tensor | Verdict:
        """Which rows pass. One that takes ``admitted`` is given the samples that the slot holds already.

        Args:
            samples: Name → float32 (n, *shape) in [-1, 1], all of the right shape.
            condition: Name → the n conditions that were asked for.

        Returns:
            bool (n,), True where the row may enter the pool; or a `Verdict`.
        """
        ...


@dataclass
class Judged:
    """What the chain says of a row.

    Attributes:
        reason: Name of the gate that rejected it, or None.
        scores: What the gates that it passed measured.
    """

    reason: str | None = None
    scores: dict[str, float] = field(default_factory=dict)


def judge(
    samples: Mapping[str, Tensor],
    condition: Mapping[str, Any],
    gates: Sequence[Gate],
    n: int,
    admitted: Mapping[str, Tensor] | None = None,
    objected: Tensor | None = None,
) -> list[Judged]:
    """Sends rows through the gates in order; a later gate sees only what the earlier ones let pass.

    Args:
        samples: Name → float32 (n, *shape).
        condition: Name → the n conditions.
        gates: In order.
        n: Number of rows.
        admitted: Name → float32 (m, *shape), samples that the slot holds already.
        objected: Bool (n,), what the generator's own safety checker objects to; no gate sees it.

    Raises:
        GeneratorError: A gate raised, or its verdict is not one bool a sample.
        ConfigurationError: A gate found a setting with which it cannot work.
    """
    unsafe = [False] * n if objected is None else objected.tolist()
    judged = [Judged(SAFETY if one else None) for one in unsafe]
    passing = [row for row in range(n) if not unsafe[row]]
    for gate in gates:
        if not passing:
            break
        index = torch.as_tensor(passing, dtype=torch.int64)
        selected = {name: value.index_select(0, index) for name, value in samples.items()}
        verdict = _verdict(gate, selected, take(condition, passing), admitted)
        for i, row in enumerate(passing):
            if not verdict.passed[i]:
                judged[row].reason = gate.name
            judged[row].scores |= {name: float(values[i]) for name, values in verdict.scores.items()}
        passing = [row for row in passing if judged[row].reason is None]
    return judged


def _verdict(
    gate: Gate, samples: Mapping[str, Tensor], condition: Mapping[str, Any], admitted: Mapping[str, Tensor] | None
) -> Verdict:
    told = {"admitted": admitted} if compares(gate) else {}
    n = len(next(iter(samples.values())))
    try:
        said = gate(samples, condition, **told)
        verdict = said if isinstance(said, Verdict) else Verdict(torch.as_tensor(said), {})
    except ConfigurationError:
        raise
    except Exception as error:
        raise GeneratorError(f"gate {gate.name!r} raised {type(error).__name__}: {error}") from error
    if verdict.passed.dtype != torch.bool or verdict.passed.shape != (n,):
        raise GeneratorError(
            f"gate {gate.name!r} returned {verdict.passed.dtype} of shape {tuple(verdict.passed.shape)} for {n} "
            "samples: it has to return one bool for each, True where the sample may enter the pool."
        )
    for name, values in verdict.scores.items():
        if len(values) != n:
            raise GeneratorError(
                f"gate {gate.name!r} returned {len(values)} scores {name!r} for {n} samples: it has to give one each."
            )
    return verdict


def compares(gate: Gate) -> bool:
    """Whether a gate compares samples with each other, and so comes after the choice among candidates."""
    return "admitted" in inspect.signature(gate.__call__).parameters


def ranking(gates: Sequence[Gate]) -> Any:
    """The gate that chooses among candidates for the next slot, or None.

    Raises:
        ConfigurationError: Several may.
    """
    choosing: list[Any] = [gate for gate in gates if _most_candidates(gate) > 1]
    if len(choosing) > 1:
        first, *others = [gate.name for gate in choosing]
        raise ConfigurationError(
            f"the gates {[first, *others]} all choose among candidates, and only one can. Set "
            f"{as_set(first, candidates=1)}, or {', '.join(f'gates.{name}=false' for name in others)}."
        )
    return next((gate for gate in choosing if gate.candidates > 1), None)


def _most_candidates(gate: Any) -> int:
    """How many candidates a gate chooses among, now or once it follows the learner."""
    return int(getattr(gate, "most_candidates", getattr(gate, "candidates", 1)))
