"""Validation and test samples as plain tensors, to count near-copies of them; the mix itself never reads them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import LightningDataModule
from lightning.pytorch.utilities import CombinedLoader
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset, SubsetRandomSampler

from lightning_diffaug.errors import ConfigurationError, SampleStructureError
from lightning_diffaug.randomness import untouched_rng
from lightning_diffaug.sample import leaf_to_tensor, probe
from lightning_diffaug.snapshot import Snapshot
from lightning_diffaug.spec import FieldSpec, SampleSpec
from lightning_diffaug.structure import leaves
from lightning_diffaug.wrapping import raw_view

PARTS = {"val": "validate", "test": "test"}
"""The parts of the data that are held out, with the stage in which Lightning sets each up."""
_OUTSIDE = 0.25  # of a field's range: values beyond are of another kind (normalised ones), not extremes


class NoHeldOutDataError(ConfigurationError):
    """The wrapped module has no such part."""


def held_out(real: LightningDataModule, part: str, field: FieldSpec, limit: int) -> Snapshot:
    """Reads one field of all validation or test samples, with their transform off, as the training data are read.

    Args:
        real: The wrapped module, which has prepared its data.
        part: ``"val"`` or ``"test"``.
        field: What to read, as training samples have it.
        limit: Bytes that it may take.

    Raises:
        NoHeldOutDataError: There is no such part.
        SampleStructureError: Its samples do not look like training samples without their transform.
        ConfigurationError: They have no index, or are too large.
        Exception: Whatever the user's own module and dataset raise.
    """
    with untouched_rng():
        datasets = _raw(real, part)
        n = sum(len(dataset) for dataset in datasets)  # type: ignore[arg-type, misc]
        size = n * int(torch.Size(field.shape).numel()) * field.torch_dtype.itemsize
        if size > limit:
            raise ConfigurationError(f"the {part} data are {size} bytes, above data.snapshot_limit={limit}")
        found = torch.stack([_read(sample, field) for dataset in datasets for sample in _samples(dataset)])
    if found.is_floating_point():
        room = _OUTSIDE * (field.high - field.low)
        low, high = float(found.min()), float(found.max())
        if low < field.low - room or high > field.high + room:
            raise SampleStructureError(
                f"{part} samples hold {field.name!r} in [{low:g}, {high:g}], training samples in "
                f"[{field.low:g}, {field.high:g}]"
            )
    return Snapshot(SampleSpec((field,)), {field.name: found})


def held_out_texts(real: LightningDataModule, part: str, field: FieldSpec) -> list[str]:
    """As `held_out`, of a field of texts: one a sample.

    Raises:
        NoHeldOutDataError: There is no such part.
        SampleStructureError: Its samples have no such text.
        ConfigurationError: They have no index.
        Exception: Whatever the user's own module and dataset raise.
    """
    with untouched_rng():
        found = [leaves(sample).get(field.path) for dataset in _raw(real, part) for sample in _samples(dataset)]
    if not all(isinstance(text, str) for text in found):
        raise SampleStructureError(f"a sample has no text {field.path!r}, where training samples have {field.name!r}")
    return [str(text) for text in found]


def _raw(real: LightningDataModule, part: str) -> list[Dataset[Any]]:
    """The data sets of a part, with their transform off."""
    datasets = [raw_view(dataset) for dataset in _datasets(_loaders(real, part))]
    if not datasets:
        raise NoHeldOutDataError(f"the wrapped module has no {part} loader")
    for dataset in datasets:
        if isinstance(dataset, IterableDataset):
            raise ConfigurationError(f"the {part} data are a stream, which has no index")
    return datasets


def all_held_out(real: LightningDataModule, field: FieldSpec, limit: int) -> Snapshot:
    """Validation and test samples together, for the gate that compares with them.

    Raises:
        ConfigurationError: One of the two is there and cannot be read, or there is neither.
    """
    found: list[Tensor] = []
    for part in PARTS:
        try:
            found.append(held_out(real, part, field, limit).raw(field.name))
        except NoHeldOutDataError:
            continue
        except Exception as error:  # the user's own module and dataset may raise anything
            raise ConfigurationError(
                f"gates.contamination compares with the {part} data, which cannot be read as the training data are "
                f"({type(error).__name__}: {error}). Set gates.contamination=false, which leaves near-copies of them "
                "to be counted."
            ) from error
    if not found:
        raise ConfigurationError(
            "gates.contamination compares with validation and test data, and the wrapped module has neither. Set "
            "gates.contamination=false."
        )
    return Snapshot(SampleSpec((field,)), {field.name: torch.cat(found)})


def _loaders(real: LightningDataModule, part: str) -> Any:
    make = getattr(real, f"{part}_dataloader")
    try:
        return make()
    except MisconfigurationException as error:  # Lightning's own: it is not overridden
        raise NoHeldOutDataError(f"the wrapped module has no {part} data") from error
    except Exception:  # it is not set up for that stage yet
        real.setup(PARTS[part])
        return make()


def _datasets(loaders: Any) -> Iterator[Dataset[Any]]:
    if loaders is None:
        return
    if isinstance(loaders, DataLoader):
        if type(loaders.sampler) is SubsetRandomSampler:
            yield Subset(loaders.dataset, list(loaders.sampler.indices))
        else:
            yield loaders.dataset
        return
    if isinstance(loaders, CombinedLoader):
        loaders = loaders.flattened
    parts = loaders.values() if isinstance(loaders, Mapping) else loaders
    if not isinstance(parts, Iterable) or isinstance(parts, (str, bytes)):
        raise ConfigurationError(f"a {type(loaders).__name__} is no torch DataLoader")
    for one in parts:
        yield from _datasets(one)


def _samples(dataset: Dataset[Any]) -> Iterator[Any]:
    for i in range(len(dataset)):  # type: ignore[arg-type]
        yield dataset[i]


def _read(sample: Any, field: FieldSpec) -> Tensor:
    leaf = leaves(sample).get(field.path)
    if leaf is None:
        raise SampleStructureError(f"a sample has no {field.path!r}, where training samples have {field.name!r}")
    form = probe(sample, {field.path: field.name})[field.name]
    wanted = (field.kind, field.dtype, field.shape, field.mode)
    if (form.kind, form.dtype, form.shape, form.mode) != wanted:
        raise SampleStructureError(
            f"a sample's {field.name!r} is a {form.kind} {form.dtype} {form.shape}, and a training sample's a "
            f"{field.kind} {field.dtype} {field.shape}"
        )
    return leaf_to_tensor(leaf, field)
