"""The real training side of a mix: what the wrapped module's own loader, dataset and samples say."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.utils.data import Dataset, IterableDataset

from lightning_diffaug.adapter import SampleAdapter
from lightning_diffaug.columns import columns_of, trained_labels
from lightning_diffaug.errors import ConfigurationError, SampleStructureError
from lightning_diffaug.labels import class_names, find_labels
from lightning_diffaug.loader_facts import LoaderFacts, loader_facts
from lightning_diffaug.mixing.dataset import MixedDataset
from lightning_diffaug.mixing.loader import Course, MixedLoader, StreamLoader
from lightning_diffaug.naming import build, name_of
from lightning_diffaug.probing import spread
from lightning_diffaug.randomness import untouched_rng
from lightning_diffaug.ranges import with_ranges
from lightning_diffaug.real_transform import transform_of_synthetic
from lightning_diffaug.sample import leaf_to_tensor, probe
from lightning_diffaug.snapshot import Snapshot
from lightning_diffaug.soft_labels import SoftLabels
from lightning_diffaug.spec import LABEL, FieldSpec, LabelValue, SampleSpec
from lightning_diffaug.structure import describe, leaves
from lightning_diffaug.wrapping import raw_view

_PROBED_FOR_STRINGS = 128


@dataclasses.dataclass(frozen=True)
class RealTraining:
    """Everything that the mix knows of the real training data.

    Attributes:
        facts: Batch size, shuffling, collate function and further options of the wrapped loader.
        raw: The training data without transform; None for a stream without `raw=`.
        raw_name: Import path of `raw`, where it was given by one.
        spec: The fields that the pool stores.
        label_values: The user's label of each class index; () for data without labels.
        class_names: Names of the classes.
        class_index: Class index of each training sample, int64 (n,); None for data without labels.
        adapter: Turns pooled rows into samples.
        synthetic_transform: What pooled samples go through; None for nothing.
        return_source: Whether batches say what is synthetic.
        soft_labels: Makes probabilities of labels; None: labels stay as they are.
        length: Samples an epoch.
        is_stream: Whether real samples come from an IterableDataset.
        snapshot_limit: Bytes up to which a snapshot copies the data.
    """

    facts: LoaderFacts
    raw: Dataset[Any] | None
    raw_name: dict[str, Any] | None
    spec: SampleSpec
    label_values: tuple[LabelValue, ...]
    class_names: tuple[str, ...]
    class_index: np.ndarray[Any, Any] | None
    adapter: SampleAdapter
    synthetic_transform: Callable[[Any], Any] | None
    return_source: bool
    soft_labels: SoftLabels | None
    length: int
    is_stream: bool
    snapshot_limit: int

    @classmethod
    def of(
        cls,
        real: LightningDataModule,
        *,
        raw: Any,
        fields: Mapping[str, str] | None,
        fill: Mapping[str, Any] | None,
        labels: Sequence[Any] | None,
        synthetic_transform: Callable[[Any], Any] | None,
        augment_synthetic: bool,
        return_source: bool,
        soft_labels: bool,
        epoch_length: int | None,
        value_range: tuple[float, float] | Mapping[str, tuple[float, float]] | None,
        snapshot_limit: int,
    ) -> RealTraining:
        """Looks at the wrapped module; arguments as `DiffAugDataModule` says. Global random states stay as they are.

        Raises:
            ConfigurationError: Something about the data is ambiguous or cannot be mixed; the text says what to set.
        """
        with untouched_rng():
            facts = loader_facts(real.train_dataloader())
            is_stream = isinstance(facts.dataset, IterableDataset)
            length = _length(facts.dataset, is_stream, epoch_length)
            raw_name = name_of(raw, "raw") if isinstance(raw, Mapping) else None
            raw_data = build(raw_name, "raw") if raw_name is not None else raw
            if raw_data is None and not is_stream:
                raw_data = raw_view(facts.dataset)
            _check_raw(raw_data, is_stream, length)
            real_sample = next(iter(facts.dataset)) if is_stream else facts.dataset[0]
            template = _raw_sample(raw_data, raw is not None) if raw_data is not None else real_sample
            spec = probe(template, fields)
            fill = {**getattr(real, "synthetic_fill", {}), **(fill or {})}
            if fields is None and raw_data is not None:
                _check_strings(raw_data, template, spec, fill)
            label = spec.get(LABEL)
            values = None
            if raw_data is not None:
                values = find_labels(raw_data, labels, None if label is None else label.path)
            if label is not None and values is None:
                raise ConfigurationError(
                    "the samples of the stream have a label, and which classes there are is not known before it is "
                    "read. Give raw=<map-style dataset of the same kind of samples>."
                )
            if label is None and values is not None:
                spec = SampleSpec((*spec.fields, FieldSpec(LABEL, "(labels)", "scalar", "int64", (), 0.0, 0.0)))
            transform = transform_of_synthetic(
                real, facts.dataset, raw_data, raw is not None or is_stream, template, real_sample, spec,
                synthetic_transform, augment_synthetic,
            )  # fmt: skip
            spec = with_ranges(spec, raw_data, template, value_range)
            distinct = sorted(set(values), key=lambda value: (isinstance(value, str), value)) if values else []
            adapter = SampleAdapter(template, spec, distinct, fill)
        index = None
        if values is not None:
            number = {value: i for i, value in enumerate(distinct)}
            index = np.array([number[value] for value in values], dtype=np.int64)
        names = class_names(raw_data, distinct) if raw_data is not None and distinct else []
        soft = None
        if soft_labels:
            soft = SoftLabels.of(spec, trained_labels(adapter, template, transform, distinct), real_sample)
        return cls(
            facts, raw_data, raw_name, spec, tuple(distinct), tuple(names), index, adapter, transform, return_source,
            soft, length, is_stream, snapshot_limit,
        )  # fmt: skip

    @functools.cached_property
    def columns(self) -> list[int]:
        """The learner's column of each class, by the label that it is trained on; see `columns.columns_of`."""
        labels = None
        if self.raw is not None:
            with untouched_rng():
                labels = trained_labels(self.adapter, self.raw[0], self.synthetic_transform, self.label_values)
        return columns_of(self.label_values if labels is None else labels)

    @property
    def class_counts(self) -> list[int]:
        """Training samples of each class; [n] without labels."""
        if self.class_index is None:
            return [self.length]
        counts: list[int] = np.bincount(self.class_index, minlength=len(self.class_names)).tolist()
        return counts

    @property
    def mixed_classes(self) -> tuple[str, ...]:
        """Classes by which the mix counts; () for data without labels and for streams, whose labels come late."""
        return () if self.is_stream else self.class_names

    @property
    def members(self) -> list[np.ndarray[Any, Any]]:
        """Indices of the real samples of each of `mixed_classes`; one array of all where there are none."""
        if not self.mixed_classes or self.class_index is None:
            return [np.arange(self.length)]
        return [np.flatnonzero(self.class_index == c) for c in range(len(self.class_names))]

    def loader(self, course: Course) -> MixedLoader:
        """The loader over mixed batches."""
        dataset = MixedDataset(
            None if self.is_stream else self.facts.dataset,
            self.adapter,
            self.synthetic_transform,
            self.facts.collate_fn,
            self.return_source,
            self.soft_labels,
        )
        if self.is_stream:
            return StreamLoader(self.facts.dataset, dataset, course, self.facts.batch_size, self.facts.options)
        return MixedLoader(dataset, course, self.facts.batch_size, self.facts.options)

    @property
    def copied(self) -> bool:
        """Whether a snapshot holds the samples themselves: they have an index, and are within `snapshot_limit`."""
        return self.raw is not None and self._snapshot_bytes() <= self.snapshot_limit

    def _stored(self) -> list[FieldSpec]:
        return [field for field in self.spec.tensors if field.name != LABEL]

    def _snapshot_bytes(self) -> int:
        row = sum(int(np.prod(field.shape)) * field.torch_dtype.itemsize for field in self._stored())
        return len(self.raw) * row  # type: ignore[arg-type]

    def snapshot(self) -> Snapshot | None:
        """The training data as plain tensors, read once; None for a stream without `raw=`.

        Raises:
            ConfigurationError: They are larger than `snapshot_limit` and have no import path.
        """
        return self._snapshot

    @functools.cached_property
    def _snapshot(self) -> Snapshot | None:
        if self.raw is None:
            return None
        stored = self._stored()
        fields: dict[str, Tensor] = {}
        if self.class_index is not None:
            fields[LABEL] = torch.from_numpy(self.class_index)
        n = len(self.raw)  # type: ignore[arg-type]
        size = self._snapshot_bytes()
        source = None
        paths = {field.name: field.path for field in self.spec.texts}
        texts: dict[str, list[str]] = {name: [] for name in paths}
        if size > self.snapshot_limit:
            if self.raw_name is None:
                raise ConfigurationError(
                    f"the training data are {size / 2**30:.1f} GiB, above data.snapshot_limit={self.snapshot_limit}, "
                    'so they are not copied for the refill process. Give raw={"_target_": "package.module.function or '
                    'Class", ...}, from which it reads them itself, or raise data.snapshot_limit.'
                )
            source, stored = self.raw, []
        # Filled row by row: a list of rows that is stacked would need the memory twice.
        fields |= {field.name: torch.empty((n, *field.shape), dtype=field.torch_dtype) for field in stored}
        if stored or texts:
            with untouched_rng():
                for i in range(n):
                    found = leaves(self.raw[i])
                    for field in stored:
                        fields[field.name][i] = leaf_to_tensor(found[field.path], field)
                    for name, path in paths.items():
                        texts[name].append(str(found[path]))
        return Snapshot(
            self.spec, fields, self.class_names, self.label_values, source, self.raw_name if source else None, texts
        )


def _length(dataset: Dataset[Any], is_stream: bool, epoch_length: int | None) -> int:
    if epoch_length is not None and not is_stream:
        raise ConfigurationError(
            f"data.epoch_length={epoch_length} is for streams: an epoch of a {type(dataset).__name__} has its length. "
            "Leave data.epoch_length out, or limit the epoch by trainer.limit_train_batches."
        )
    if epoch_length is not None:
        return epoch_length
    try:
        length = len(dataset)  # type: ignore[arg-type]
    except TypeError:
        raise ConfigurationError(
            "the training data are a stream without a length, so an epoch has no end that shares and windows could be "
            "reckoned from. Give epoch_length=<samples an epoch> (key data.epoch_length)."
        ) from None
    if length == 0:
        raise ConfigurationError("the training data are empty, so there is nothing to mix: look at real=.")
    return length


def _check_raw(raw: Any, is_stream: bool, length: int) -> None:
    if raw is None or is_stream:
        return
    if len(raw) != length:
        raise ConfigurationError(
            f"raw has {len(raw)} samples and the training data {length}: it has to be the same samples, index for "
            "index, without augmentation. Give raw=<the same dataset with its transform off>."
        )


def _raw_sample(raw: Dataset[Any], given: bool) -> Any:
    if given:
        return raw[0]
    try:
        return raw[0]
    except Exception as error:  # the dataset's own code, which may raise anything
        raise SampleStructureError(
            f"with its transform off, the training data's __getitem__ raises {type(error).__name__}: {error}. It needs "
            "what its transform makes, so there is no raw sample for the pool to be made like. Give raw=<the dataset "
            "without its transform and what follows it> and synthetic_transform=<callable that makes a training "
            "sample of a raw one>."
        ) from error


def _check_strings(raw: Dataset[Any], template: Any, spec: SampleSpec, fill: Mapping[str, Any]) -> None:
    """Refuses data without an integer label in which a string says the same for several samples, as a label does."""
    if LABEL in spec:
        return
    paths = [path for path, leaf in leaves(template).items() if isinstance(leaf, str) and path not in fill]
    if not paths:
        return
    some = spread(raw, _PROBED_FOR_STRINGS)
    probed = sorted({*some, *(i + 1 for i in some[:-1])})  # neighbours too: data that are sorted by class
    samples = [leaves(raw[i]) for i in probed]
    for path in paths:
        if len({sample.get(path) for sample in samples}) < len(samples):
            raise SampleStructureError(
                f"the sample has no integer that could be its label, and field {path!r} is a string that several "
                f"samples share, so it may be one:\n{describe(template)}\nSay it with "
                f'fields={{"{spec.fields[0].path}": "image", "{path}": "label"}} (key data.fields), or with the image '
                "alone if it is none: synthetic samples then have 'synthetic/<slot>/<row>' there."
            )
