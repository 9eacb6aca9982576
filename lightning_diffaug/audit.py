"""What a run's pooled samples repeat: each other, training samples, validation and test samples. Counted afterwards."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor

from lightning_diffaug.errors import PoolError
from lightning_diffaug.gates.contamination import NotHeldOut
from lightning_diffaug.gates.copies import NotCopy, Unique
from lightning_diffaug.gates.nearest import compared_field
from lightning_diffaug.held_out import PARTS, NoHeldOutDataError, held_out
from lightning_diffaug.pool import SyntheticPool
from lightning_diffaug.real import RealTraining
from lightning_diffaug.snapshot import Snapshot
from lightning_diffaug.spec import FieldSpec

log = logging.getLogger(__name__)

AUDITED = "pool/audited"
DUPLICATES = "pool/near_duplicates"
COPIES = "pool/near_copies_"
_CHUNK = 64  # samples that are compared at a time: the gates' usual number
_COMPARISONS = 50_000_000  # of samples with training samples: a minute or so
_LEAST = 64  # samples that are looked at, however large the training data
_BYTES = 1 << 30  # of samples in memory


def nothing_used() -> dict[str, float]:
    """The figures of a run that drew nothing from a pool."""
    return dict.fromkeys((AUDITED, DUPLICATES, *(f"{COPIES}{part}" for part in ("train", *PARTS))), 0.0)


def audit(
    pool: SyntheticPool,
    slots: Sequence[int],
    data: RealTraining,
    real: LightningDataModule,
    gates: Sequence[Any],
    most: int,
) -> dict[str, float]:
    """Counts near-copies among the samples of slots, by the thresholds of the gates ``copy`` and ``duplicate``.

    Nothing that a run is trained on follows from it.

    Args:
        pool: Where the samples are.
        slots: Those that the run's windows used.
        data: The real training data.
        real: The wrapped module, whose validation and test data are read with their transform off.
        gates: The run's gates; one against copies or duplicates gives the thresholds, else its defaults do.
        most: Samples that are looked at, spread evenly over the slots.

    Returns:
        ``pool/audited`` (samples looked at); of them ``pool/near_duplicates`` (nearly equal to an earlier one, of
        whichever slot), ``pool/near_copies_train``, ``pool/near_copies_val`` and ``pool/near_copies_test``. A figure is
        absent where its data cannot be read, which is logged.
    """
    try:
        training = data.snapshot() if data.copied else None
        if training is None:
            _absent((DUPLICATES, f"{COPIES}*"), "the training data are a stream, or above data.snapshot_limit")
            return {AUDITED: 0.0}
        copy = next((gate for gate in gates if isinstance(gate, NotCopy)), NotCopy())
        unique = next((gate for gate in gates if isinstance(gate, Unique)), Unique())
        made = data.spec.without(pool.header.given)
        if copy.field is None and not made.continuous:
            _absent((DUPLICATES, f"{COPIES}*"), "the generator makes texts, and all else is real samples' own")
            return {AUDITED: 0.0}
        field = data.spec[compared_field(made, copy.field)]
        samples = _samples(pool, slots, field, min(most, max(_LEAST, _COMPARISONS // len(training))))
        log.info(
            "counting near-copies among %d pooled samples (they are compared with %d real ones)",
            len(samples),
            len(training),
        )
        figures = {AUDITED: float(len(samples))}
        how: dict[str, Any] = {"ratio": copy.ratio, "shift": copy.shift, "mirror": copy.mirror, "field": field.name}
        against_training, duplicates = NotCopy(**how), Unique(unique.ratio, field.name)
        against_training.bind(training)
        duplicates.bind(training)
        figures[DUPLICATES] = float(repeated(samples, duplicates.bound))
        figures[f"{COPIES}train"] = _rejected(against_training, samples, field)
        for part in PARTS:
            found = _read(real, part, field, data.snapshot_limit)
            if found is not None:
                against = NotHeldOut(**how)
                against.bind(training)
                against.bind_held_out(found)
                figures[f"{COPIES}{part}"] = _rejected(against, samples, field)
        return figures
    except Exception as error:  # a run's figures must not go with what is only counted
        _absent((DUPLICATES, f"{COPIES}*"), f"{type(error).__name__}: {error}")
        return {AUDITED: 0.0}


def repeated(samples: Tensor, bound: float) -> int:
    """How many samples (n, *shape) are within `bound` (root mean square difference) of an earlier one."""
    flat, count = samples.flatten(1), 0
    for first in range(0, len(flat), _CHUNK):
        part = flat[first : first + _CHUNK]
        near = torch.cdist(part, flat[: first + len(part)]) <= bound * flat.shape[1] ** 0.5
        count += int(near.tril(first - 1).any(1).sum())
    return count


def _rejected(gate: Any, samples: Tensor, field: FieldSpec) -> float:
    return float(sum(int((~gate({field.name: part}, {})).sum()) for part in torch.split(samples, _CHUNK)))


def _samples(pool: SyntheticPool, slots: Sequence[int], field: FieldSpec, most: int) -> Tensor:
    """Samples of slots that are (still) there, in [-1, 1]: at most so many, of slots that are evenly spread."""
    most = max(1, min(most, _BYTES // (4 * int(torch.Size(field.shape).numel()))))
    wanted = np.linspace(0, len(slots) - 1, -(-most // pool.header.slot_size)) if slots else np.empty(0)
    found = list(_fields(pool, [slots[i] for i in np.unique(wanted.astype(int))], field.name))
    return field.to_unit(torch.cat(found))[:most] if found else torch.empty((0, *field.shape))


def _fields(pool: SyntheticPool, slots: Sequence[int], name: str) -> Iterator[Tensor]:
    for slot in slots:
        try:
            yield pool.read(slot).fields[name]
        except (PoolError, FileNotFoundError):  # damaged or dropped since it was read
            continue


def _read(real: LightningDataModule, part: str, field: FieldSpec, limit: int) -> Snapshot | None:
    try:
        return held_out(real, part, field, limit)
    except NoHeldOutDataError as error:
        log.info("%s%s is not counted: %s.", COPIES, part, error)
    except Exception as error:  # the user's own module and dataset may raise anything
        _absent((f"{COPIES}{part}",), f"{type(error).__name__}: {error}")
    return None


def _absent(keys: Sequence[str], why: str) -> None:
    log.warning("%s cannot be counted (%s), and the figures lack it.", ", ".join(keys), why.rstrip("."))


def says_contamination(gates: Sequence[Any]) -> dict[str, float]:
    """Whether validation and test data had a say in what was trained on."""
    return {"gates/contamination": float(any(hasattr(gate, "bind_held_out") for gate in gates))}
