"""What data sets with one fixed split have in common: transforms and loaders of its three parts."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import torch
from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader
from torchvision.transforms import v2

from lightning_diffaug.data.hub import HubSet

Transform = Callable[[Any], Any]


class Part(Protocol):
    """A map-style dataset with its classes and a transform that can be set."""

    classes: list[str]
    transform: Transform | None

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Any: ...


D = TypeVar("D", bound=Part)


@dataclass(frozen=True)
class Splits(Generic[D]):
    """A whole data set, divided once and for all."""

    train: D
    val: D
    test: D


class SplitDataModule(LightningDataModule, Generic[D]):
    """Loads a data set once, keeps some of its training samples, and hands out loaders.

    Everything about the data is known after `setup`; an attribute that is read before runs it. A subclass sets the
    attributes below, has a `conversion`, and says what is loaded and kept.

    Attributes:
        batch_size: Samples per batch (of one rank).
        num_workers: Worker processes per loader.
        augment: Random transform of a raw training sample before `conversion`; None: none.
        hub: Data set of the Hugging Face hub that is to be read; None: none.
    """

    hub: HubSet | None = None
    batch_size: int
    num_workers: int
    augment: Transform | None

    def __init__(self) -> None:
        super().__init__()
        self._splits: Splits[D] | None = None

    @abstractmethod
    def load(self) -> Splits[D]:
        """Reads the data set: complete, raw (no transform), with its fixed split."""
        raise NotImplementedError

    @abstractmethod
    def kept(self, train: D) -> D:
        """The training samples that are kept."""
        raise NotImplementedError

    def prepare_data(self) -> None:
        """Fetches what is to be fetched, once."""
        if self.hub is not None:
            self.hub.export()

    def setup(self, stage: str | None = None) -> None:
        """Loads once, whatever the stage, and selects the training samples."""
        if self._splits is not None:
            return
        if self.hub is not None:
            self.hub.export()
        whole = self.load()
        train = self.kept(whole.train)
        train.transform = self.train_transform
        whole.val.transform = whole.test.transform = self.eval_transform
        self._splits = Splits(train, whole.val, whole.test)

    @property
    def splits(self) -> Splits[D]:
        """The three data sets as they are used, with their transforms."""
        if self._splits is None:
            self.setup()
        assert self._splits is not None
        return self._splits

    @property
    def train_transform(self) -> Transform:
        """`augment`, then `conversion`."""
        return self.eval_transform if self.augment is None else v2.Compose([self.augment, self.eval_transform])

    @property
    @abstractmethod
    def eval_transform(self) -> Transform:
        """The conversion alone."""
        raise NotImplementedError

    @property
    def collate_fn(self) -> Callable[[list[Any]], Any] | None:
        """Makes a batch of a list of samples; None: torch's own."""
        return None

    @property
    def class_names(self) -> list[str]:
        """Names in the order of the class indices; [] without labels."""
        return list(self.splits.train.classes)

    @property
    def num_classes(self) -> int:
        """Number of classes; 0 without labels."""
        return len(self.splits.train.classes)

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

    def _loader(self, dataset: Any, shuffle: bool = False) -> DataLoader[Any]:
        return DataLoader(
            dataset,
            # Without gradients four times the batch costs no more memory than training does.
            batch_size=self.batch_size if shuffle else 4 * self.batch_size,
            shuffle=shuffle,
            num_workers=self.num_workers,
            collate_fn=self.collate_fn,
            persistent_workers=self.num_workers > 0,
            pin_memory=torch.cuda.is_available(),
        )
