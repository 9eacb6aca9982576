"""MNIST, Fashion-MNIST and CIFAR-10 as one DataModule."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from torchvision import datasets
from typing_extensions import Unpack

from lightning_diffaug.data.base import RealDataModule, RealSettings
from lightning_diffaug.data.dataset import ImageDataset
from lightning_diffaug.data.selection import stratified_split
from lightning_diffaug.data.split_module import Splits
from lightning_diffaug.data.torchvision_files import CifarFiles, IdxFiles, SourceFiles, downloading
from lightning_diffaug.errors import ConfigurationError

SOURCES: dict[str, Callable[[Path], SourceFiles]] = {
    "mnist": lambda root: IdxFiles(root, datasets.MNIST, tuple("0123456789")),
    "fashion_mnist": lambda root: IdxFiles(
        root,
        datasets.FashionMNIST,
        (
            "t-shirt",
            "trouser",
            "pullover",
            "dress",
            "coat",
            "sandal",
            "shirt",
            "sneaker",
            "bag",
            "ankle-boot",
        ),
    ),
    "cifar10": CifarFiles,
}


class TorchvisionDataModule(RealDataModule):
    """A data set with its own training and test part; validation is split off the training part.

    - ``"mnist"`` (LeCun et al. 1998) and ``"fashion_mnist"`` (Xiao et al. 2017): 1×28×28, 60,000 + 10,000.
      The IDX files, plain or ``.gz``, may lie in `root` itself, in ``root/raw``, or where torchvision puts
      them (``root/MNIST/raw``).
    - ``"cifar10"`` (Krizhevsky 2009): 3×32×32, 50,000 + 10,000, the *binary* version.

    Args:
        name: which data set.
        root: folder that holds, or with `download` receives, the files.
        download: fetch what is missing.
        val_share: share of the training part set aside for validation, by class and always the same.
        **settings: see `RealDataModule`.

    Raises:
        ConfigurationError: unknown name, `val_share` not in (0, 1), or (in `setup`) files that are missing
            or damaged.
    """

    def __init__(
        self,
        name: str,
        root: str | Path = "data",
        download: bool = False,
        val_share: float = 0.1,
        **settings: Unpack[RealSettings],
    ) -> None:
        super().__init__(**settings)
        if name not in SOURCES:
            raise ConfigurationError(f"real.name={name!r} is unknown. Set real.name to one of {', '.join(SOURCES)}")
        if not 0 < val_share < 1:
            raise ConfigurationError(
                f"real.val_share={val_share} is not in (0, 1): it is the share of the training part set aside for "
                "validation. Set real.val_share to e.g. 0.1"
            )
        self._named = name
        self.root = Path(root).expanduser()
        self.download = download
        self.val_share = val_share
        self.files = SOURCES[name](self.root)

    def prepare_data(self) -> None:
        """Downloads what is missing, if `download` is set."""
        if self.download and self.files.missing():
            with downloading(self._named, self.root):
                self.files.fetch()

    def load(self) -> Splits[ImageDataset]:
        """Reads both parts and sets validation apart."""
        self.prepare_data()
        if missing := self.files.missing():
            raise ConfigurationError(
                f"real.root={self.root} lacks {', '.join(missing)}. Set real.download=true to fetch them, or put "
                f"them there, or set real.root to the folder that holds them ({self.files.places()})"
            )
        train = ImageDataset(*self.files.read(train=True), self.files.classes)
        test = ImageDataset(*self.files.read(train=False), self.files.classes)
        parts = stratified_split(train.targets, (1 - self.val_share, self.val_share), classes=train.classes)
        return Splits(train.select(parts[0]), train.select(parts[1]), test)
