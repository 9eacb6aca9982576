"""Samples of several modalities that belong together: an image and its mask, a sound and its video."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, TypedDict

import torch
from torch import Tensor
from torch.utils.data import Dataset

from lightning_diffaug.config_check import check_value
from lightning_diffaug.data.base import at_least
from lightning_diffaug.data.selection import few_shot, minority_classes
from lightning_diffaug.data.split_module import SplitDataModule, Splits
from lightning_diffaug.errors import ConfigurationError

log = logging.getLogger(__name__)

Sample = dict[str, Any]
Transform = Callable[[Sample], Sample]

LABEL = "label"
AUTO = "auto"


class AlignedSettings(TypedDict, total=False):
    """Arguments that every such data set takes; see `AlignedDataModule`."""

    batch_size: int
    num_workers: int
    shots: int | str | None
    seed: int
    augment: Transform | None


class AlignedDataset(Dataset[Sample]):
    """Samples as dicts of named leaves.

    Attributes:
        fields: Name → what is indexed by the sample's number: a tensor ``(n, …)``, a list, or an object that reads
            on demand. ``label`` holds class indices.
        classes: Class names; () without labels.
        transform: Callable on a sample, for all its modalities at once; None: samples are raw.
        wrap: Name → what a leaf is made by, such as ``tv_tensors.Mask``.
    """

    def __init__(
        self,
        fields: Mapping[str, Any],
        classes: Sequence[str] = (),
        transform: Transform | None = None,
        wrap: Mapping[str, Callable[[Any], Any]] | None = None,
    ) -> None:
        lengths = {name: len(values) for name, values in fields.items()}
        if len(set(lengths.values())) != 1:
            raise ValueError(f"fields of different lengths: {lengths}")
        self.fields = dict(fields)
        self.classes = list(classes)
        self.transform = transform
        self.wrap = dict(wrap or {})

    @property
    def targets(self) -> list[int] | None:
        """Class index of each sample; None without labels."""
        return [int(label) for label in self.fields[LABEL]] if LABEL in self.fields else None

    def __len__(self) -> int:
        return len(next(iter(self.fields.values())))

    def __getitem__(self, index: int) -> Sample:
        sample = {name: values[index] for name, values in self.fields.items()}
        if LABEL in sample:
            sample[LABEL] = int(sample[LABEL])
        sample |= {name: make(sample[name]) for name, make in self.wrap.items()}
        return sample if self.transform is None else self.transform(sample)

    def select(self, indices: Sequence[int]) -> AlignedDataset:
        """The samples at `indices`, in that order, with the same classes and transform."""
        chosen = {name: _chosen(values, indices) for name, values in self.fields.items()}
        return AlignedDataset(chosen, self.classes, self.transform, self.wrap)


def _chosen(values: Any, indices: Sequence[int]) -> Any:
    if isinstance(values, Tensor):
        return values[torch.as_tensor(indices, dtype=torch.int64)]
    if hasattr(values, "select"):
        return values.select(indices)
    return [values[i] for i in indices]


AlignedSplits = Splits[AlignedDataset]
"""A whole data set, divided once and for all."""


class AlignedDataModule(SplitDataModule[AlignedDataset]):
    """Real samples of several modalities; a subclass says how they are loaded and converted.

    Batches are dicts of what `conversion` makes. The split is fixed; `seed` decides which training samples are kept.
    Everything about the data is known after `setup`; an attribute that is read before runs it.

    Args:
        batch_size: Samples per batch (of one rank).
        num_workers: Worker processes per loader.
        shots: Training samples kept of each class, in all where there are no labels; None: all; ``"auto"``: few
            (`few_shots`) of the data that come with the package, all of a folder.
        seed: Of that choice.
        augment: Random transform of a raw training sample, one draw for all its modalities, before `conversion`.

    Attributes:
        few_shots: What `shots` = ``"auto"`` is where there is no folder.
        root: A user's folder; None: the data that come with the package.

    Raises:
        ConfigurationError: A setting is out of range (here), or does not fit the data (`setup`).
    """

    few_shots: ClassVar[int | None] = None
    root: Path | None = None

    def __init__(
        self,
        *,
        batch_size: int = 64,
        num_workers: int = 0,
        shots: int | str | None = None,
        seed: int = 0,
        augment: Transform | None = None,
    ) -> None:
        super().__init__()
        at_least("batch_size", batch_size, 1, "how many samples a batch holds")
        at_least("num_workers", num_workers, 0, "how many processes load batches")
        number: int | None = None if shots == AUTO else check_value(shots, int | None, "real.shots")
        at_least("shots", number, 1, "how many training samples are kept (null: all)")
        at_least("seed", seed, 0, "the seed of the few-shot selection")
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.shots = AUTO if shots == AUTO else number
        self.seed = seed
        self.augment = augment

    def conversion(self, sample: Sample) -> Sample:
        """From a raw sample to what the model takes, without augmentation; as it is by default."""
        return sample

    def model_facts(self) -> dict[str, Any]:
        """Arguments of the model that only the data know."""
        return {"num_classes": self.num_classes, "class_names": self.class_names} if self.class_names else {}

    def picture(self, fields: Mapping[str, Any]) -> Tensor | None:
        """How a raw sample is drawn: float32 (1 or 3, H, W) in [0, 1]; None: not at all.

        Args:
            fields: Its tensors (and texts) by the names that ``data.fields`` gives them.
        """
        return None

    def kept(self, train: AlignedDataset) -> AlignedDataset:
        """At most `shots` samples of each class, or in all where there are no labels."""
        of_one_kind = [0] * len(train)
        targets = train.targets or of_one_kind
        auto = self.few_shots if self.root is None else None
        shots = auto if isinstance(self.shots, str) else self.shots
        chosen = few_shot(targets, max(len(train.classes), 1), shots, [], None, self.seed)
        if not chosen:
            raise ConfigurationError("the training data are empty: look at real.root.")
        if len(chosen) < len(train):
            log.info("real.shots=%s keeps %d of %d training samples.", shots, len(chosen), len(train))
        return train.select(chosen)

    @property
    def eval_transform(self) -> Transform:
        """`conversion` alone."""
        return self.conversion

    @property
    def class_counts(self) -> list[int]:
        """Training samples per class, after the selection; [] without labels."""
        targets = self.splits.train.targets
        return [] if targets is None else torch.bincount(torch.tensor(targets), minlength=self.num_classes).tolist()

    @property
    def rare_classes(self) -> list[int]:
        """Indices of the classes below half the median count."""
        return minority_classes(self.class_counts) if self.class_counts else []
