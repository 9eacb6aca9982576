"""Reads what is to be compared: samples of a pool, and the real data that belong to it."""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from lightning_diffaug.conditions.captions import PROMPT
from lightning_diffaug.errors import ConfigurationError, PoolError
from lightning_diffaug.fidelity.samples import Samples
from lightning_diffaug.gates.nearest import compared_field
from lightning_diffaug.pool import Shard, SyntheticPool
from lightning_diffaug.snapshot import Snapshot
from lightning_diffaug.spec import CAPTION, LABEL, FieldSpec, SampleSpec

if TYPE_CHECKING:
    from lightning.pytorch import LightningDataModule

    from lightning_diffaug.real import RealTraining

log = logging.getLogger(__name__)

BYTES = 1 << 30
"""Of samples of one kind in memory."""


def field_of(pool: SyntheticPool) -> FieldSpec:
    """The field of a pool's samples that is measured: of those that were made the image, or the first continuous one.

    Raises:
        ConfigurationError: The pool does not say what its samples are, or has no continuous field.
    """
    spec = SampleSpec.from_json(pool.header.spec.get("fields", []))
    if not spec.continuous:
        raise ConfigurationError(
            f"the pool {pool.folder} names no tensor, so there is nothing to measure. Give the folder of another pool "
            "(…/pools/<fingerprint>)."
        )
    made = spec.without(pool.header.given)
    if not made.continuous:
        log.warning(
            "all tensors of the pool %s are real samples' own: only the figures of captions and pairs say something of "
            "what was made.",
            pool.folder,
        )
    return spec[compared_field(made if made.continuous else spec, None)]


def room_for(field: FieldSpec) -> int:
    """How many samples are held in memory at most."""
    return max(1, BYTES // (4 * int(torch.Size(field.shape).numel())))


def pooled_samples(pool: SyntheticPool, slots: Sequence[int], field: FieldSpec, most: int) -> Samples:
    """Samples of slots that are (still) there: at most so many, of slots that are evenly spread.

    Args:
        pool: Where they are.
        slots: Numbers of slots.
        field: What is read of them.
        most: How many.

    Raises:
        ConfigurationError: None of the slots holds a sample.
    """
    most = min(most, room_for(field))
    found, held = _shards(pool, slots, most)
    values = field.to_unit(torch.cat([shard.fields[field.name] for shard in found])[:most])
    labels = None
    if all(LABEL in shard.fields and shard.fields[LABEL].ndim == 1 for shard in found):
        labels = torch.cat([shard.fields[LABEL] for shard in found])[:most].long()
    captions = [text for shard in found for text in _captions(shard)]
    return Samples(values, labels, captions[:most] if len(captions) == held else None)


def pooled_fields(pool: SyntheticPool, slots: Sequence[int], names: Collection[str], most: int) -> Snapshot:
    """As `pooled_samples`, several fields of each sample, as they are stored.

    Args:
        pool: Where they are.
        slots: Numbers of slots.
        names: The fields.
        most: How many samples.

    Raises:
        ConfigurationError: None of the slots holds a sample.
    """
    spec = _named(SampleSpec.from_json(pool.header.spec.get("fields", [])), names)
    most = min([most, *(room_for(field) for field in spec.tensors)])
    found, _ = _shards(pool, slots, most)
    fields = {field.name: torch.cat([shard.fields[field.name] for shard in found])[:most] for field in spec.tensors}
    texts = {field.name: [text for shard in found for text in shard.strings[field.name]][:most] for field in spec.texts}
    return Snapshot(spec, fields, texts=texts)


def _named(spec: SampleSpec, names: Collection[str]) -> SampleSpec:
    return SampleSpec(tuple(field for field in spec.fields if field.name in names))


def _shards(pool: SyntheticPool, slots: Sequence[int], most: int) -> tuple[list[Shard], int]:
    """Shards that hold so many samples, where there are as many, and how many they hold."""
    found: list[Shard] = []
    held = 0
    for k in _spread(slots):
        if held >= most:
            break
        try:
            shard = pool.read(k)
        except (PoolError, FileNotFoundError):  # damaged or dropped
            continue
        if shard.n:
            found.append(shard)
            held += shard.n
    if not found:
        raise ConfigurationError(
            f"no slot of the pool {pool.folder} holds a sample that can be read, so there is nothing to measure. Start "
            "a run that fills it, or look at it by diffaug pool info."
        )
    return found, held


def _spread(slots: Sequence[int]) -> list[int]:
    """The slots in an order of which any beginning is spread evenly: halved again and again."""
    n = len(slots)
    steps = 2 ** np.arange(max(n - 1, 1).bit_length(), -1, -1)
    order = dict.fromkeys(int(i) for step in steps for i in range(0, n, step))
    return [slots[i] for i in order]


def _captions(shard: Shard) -> list[str]:
    if CAPTION in shard.strings:
        return list(shard.strings[CAPTION])
    return [str(row[PROMPT]) for row in shard.rows if row.get(PROMPT)]


def snapshot_samples(snapshot: Snapshot, field: FieldSpec, seed: int) -> Samples:
    """The real training samples; above what memory is for, some that are drawn at random.

    Raises:
        ConfigurationError: They have no such field.
    """
    if snapshot.spec.get(field.name) is None or snapshot.spec[field.name].shape != field.shape:
        raise ConfigurationError(
            f"the real data have no field {field.name!r} of shape {tuple(field.shape)}, which the pool's samples have: "
            "they are of other data. Give --real the folder that belongs to the pool."
        )
    rows = torch.randperm(len(snapshot), generator=torch.Generator().manual_seed(seed))[: room_for(field)].sort().values
    labels = snapshot.labels
    captions = snapshot.texts.get(CAPTION)
    return Samples(
        snapshot.unit(field.name, rows),
        None if labels is None or labels.ndim != 1 else labels[rows],
        None if captions is None else [captions[i] for i in rows.tolist()],
    )


def held_out_samples(real: LightningDataModule, data: RealTraining, field: FieldSpec, part: str = "val") -> Samples:
    """Validation or test samples, as the training data are read; of the classes that the training data have.

    Raises:
        ConfigurationError: There are none.
        Exception: Whatever the user's own module and dataset raise.
    """
    from lightning_diffaug.held_out import held_out

    found = held_out(real, part, field, data.snapshot_limit)
    values = field.to_unit(found.raw(field.name))
    if data.spec.get(LABEL) is None or not data.class_names:
        return Samples(values)
    raw = _label_values(real, part, data)
    number = {value: c for c, value in enumerate(data.label_values)}
    known = torch.tensor([value in number for value in raw])
    labels = torch.tensor([number[value] for value in raw if value in number], dtype=torch.int64)
    return Samples(values[known], labels)


def held_out_fields(
    real: LightningDataModule, data: RealTraining, names: Collection[str], part: str = "val"
) -> Snapshot:
    """As `held_out_samples`, several fields of each sample.

    Raises:
        ConfigurationError: There are none.
        Exception: Whatever the user's own module and dataset raise.
    """
    from lightning_diffaug.held_out import held_out, held_out_texts

    spec = _named(data.spec, names)
    fields = {f.name: held_out(real, part, f, data.snapshot_limit).raw(f.name) for f in spec.tensors}
    return Snapshot(spec, fields, texts={field.name: held_out_texts(real, part, field) for field in spec.texts})


def _label_values(real: LightningDataModule, part: str, data: RealTraining) -> list[Any]:
    from lightning_diffaug.held_out import held_out

    label: Tensor = held_out(real, part, data.spec[LABEL], data.snapshot_limit).raw(LABEL)
    values: list[Any] = label.tolist()
    return values


def snapshot_of(pool: SyntheticPool, real: Path | None) -> Snapshot:
    """The training snapshot that belongs to a pool: named by its header, or given.

    Args:
        pool: The pool.
        real: A snapshot's file, or a folder with one, or a cache folder; None: the cache folder that the pool is in.

    Raises:
        ConfigurationError: There is none.
    """
    named = _named_snapshot(pool)
    folder = pool.folder.parent.parent / "snapshots" if real is None else real
    if folder.is_file():
        return Snapshot.load(folder)
    folder = folder / "snapshots" if (folder / "snapshots").is_dir() else folder
    files = sorted(folder.glob("*.safetensors")) if folder.is_dir() else []
    chosen = [file for file in files if file.stem == named]
    if not chosen and real is not None and len(files) == 1:
        chosen = files
    if not chosen:
        why = "its header names no training snapshot (no gate or planner of it read the data)" if named is None else (
            f"its training snapshot {named} is not in {folder}"
        )  # fmt: skip
        raise ConfigurationError(
            f"there are no real data to compare the pool {pool.folder} with: {why}. Give --real the output folder of a "
            "run that used it (with config.yaml), a snapshot (…/snapshots/<hash>.safetensors), or a folder with one."
        )
    return Snapshot.load(chosen[0])


def _named_snapshot(pool: SyntheticPool) -> str | None:
    parts = pool.header.parts
    readers = [parts.get("planner"), *(parts.get("gates") or [])]
    return next((one["snapshot"] for one in readers if isinstance(one, dict) and one.get("snapshot")), None)
