"""Samples of several modalities that belong together: an image and its mask, a sound and its video."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from lightning_diffaug.data.base import at_least
from lightning_diffaug.data.selection import few_shot, minority_classes
from lightning_diffaug.errors import ConfigurationError

Sample = dict[str, Any]
Transform = Callable[[Sample], Sample]

LABEL = "label"


class AlignedSettings(TypedDict, total=False):
    """Arguments that every such data set takes; see `AlignedDataModule`."""

    batch_size: int
    num_workers: int
    shots: int | None
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


@dataclass(frozen=True)
class AlignedSplits:
    """A whole data set, divided once and for all."""

    train: AlignedDataset
    val: AlignedDataset
    test: AlignedDataset


class AlignedDataModule(LightningDataModule):
    """Real samples of several modalities; a subclass says how they are loaded and converted.

    Batches are dicts of what `conversion` makes. The split is fixed; `seed` decides which training samples are kept.
    Everything about the data is known after `setup`; an attribute that is read before runs it.

    Args:
        batch_size: Samples per batch (of one rank).
        num_workers: Worker processes per loader.
        shots: Training samples kept of each class, in all where there are no labels; None: all.
        seed: Of that choice.
        augment: Random transform of a raw training sample, one draw for all its modalities, before `conversion`.

    Raises:
        ConfigurationError: A setting is out of range (here), or does not fit the data (`setup`).
    """

    def __init__(
        self,
        *,
        batch_size: int = 64,
        num_workers: int = 0,
        shots: int | None = None,
        seed: int = 0,
        augment: Transform | None = None,
    ) -> None:
        super().__init__()
        at_least("batch_size", batch_size, 1, "how many samples a batch holds")
        at_least("num_workers", num_workers, 0, "how many processes load batches")
        at_least("shots", shots, 1, "how many training samples are kept (null: all)")
        at_least("seed", seed, 0, "the seed of the few-shot selection")
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.shots = shots
        self.seed = seed
        self.augment = augment
        self._splits: AlignedSplits | None = None

    @abstractmethod
    def load(self) -> AlignedSplits:
        """Reads the data set: complete, raw (no transform), with its fixed split."""
        raise NotImplementedError

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

    def setup(self, stage: str | None = None) -> None:
        """Loads once, whatever the stage, and selects the training samples."""
        if self._splits is not None:
            return
        whole = self.load()
        targets, classes = whole.train.targets, whole.train.classes
        of_one_kind = [0] * len(whole.train)
        kept = few_shot(targets or of_one_kind, max(len(classes), 1), self.shots, [], None, self.seed)
        if not kept:
            raise ConfigurationError("the training data are empty: look at real.root.")
        train = whole.train.select(kept)
        train.transform = self.train_transform
        whole.val.transform = whole.test.transform = self.eval_transform
        self._splits = AlignedSplits(train, whole.val, whole.test)

    @property
    def splits(self) -> AlignedSplits:
        """The three data sets as they are used, with their transforms."""
        if self._splits is None:
            self.setup()
        assert self._splits is not None
        return self._splits

    @property
    def train_transform(self) -> Transform:
        """`augment`, then `conversion`."""
        return self.conversion if self.augment is None else v2.Compose([self.augment, self.conversion])

    @property
    def eval_transform(self) -> Transform:
        """`conversion` alone."""
        return self.conversion

    @property
    def class_names(self) -> list[str]:
        """Names in the order of the class indices; [] without labels."""
        return list(self.splits.train.classes)

    @property
    def num_classes(self) -> int:
        """Number of classes; 0 without labels."""
        return len(self.class_names)

    @property
    def class_counts(self) -> list[int]:
        """Training samples per class, after the selection; [] without labels."""
        targets = self.splits.train.targets
        return [] if targets is None else torch.bincount(torch.tensor(targets), minlength=self.num_classes).tolist()

    @property
    def rare_classes(self) -> list[int]:
        """Indices of the classes below half the median count."""
        return minority_classes(self.class_counts) if self.class_counts else []

    def train_dataloader(self) -> DataLoader[Any]:
        """Shuffled by torch's global random state; the last batch may be smaller."""
        return self._loader(self.splits.train, shuffle=True)

    def val_dataloader(self) -> DataLoader[Any]:
        """Validation samples in a fixed order."""
        return self._loader(self.splits.val)

    def test_dataloader(self) -> DataLoader[Any]:
        """Test samples in a fixed order."""
        return self._loader(self.splits.test)

    def predict_dataloader(self) -> DataLoader[Any]:
        """The test samples."""
        return self._loader(self.splits.test)

    def _loader(self, dataset: AlignedDataset, shuffle: bool = False) -> DataLoader[Any]:
        return DataLoader(
            dataset,
            batch_size=self.batch_size if shuffle else 4 * self.batch_size,
            shuffle=shuffle,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            pin_memory=torch.cuda.is_available(),
        )
