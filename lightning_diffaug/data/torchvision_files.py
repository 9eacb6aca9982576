"""Where MNIST-like and CIFAR-10 files lie, how they are fetched and how they are read; without pickle."""

from __future__ import annotations

import gzip
import tempfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torchvision.datasets import MNIST
from torchvision.datasets.mnist import read_image_file, read_label_file
from torchvision.datasets.utils import download_and_extract_archive

from lightning_diffaug.errors import ConfigurationError

# What gzip and torchvision raise on a file that is cut short or no IDX file at all.
_UNREADABLE = (OSError, EOFError, zlib.error, ValueError, LookupError, AssertionError, RuntimeError)


@contextmanager
def downloading(name: str, root: Path) -> Iterator[None]:
    """Says what a download that fails means.

    Raises:
        ConfigurationError: It failed, or what came is not what was published.
    """
    try:
        yield
    except (OSError, RuntimeError) as error:
        raise ConfigurationError(
            f"{name} could not be fetched to real.root={root} ({type(error).__name__}: {error}). Check the network, "
            "and try again; or set real.download=false and real.root to a folder that holds it."
        ) from error


class SourceFiles(Protocol):
    """The files of one data set below a folder."""

    @property
    def classes(self) -> Sequence[str]:
        """Class names in the order of the indices."""

    def missing(self) -> list[str]:
        """Names of the files that are in none of the places."""

    def places(self) -> str:
        """Where files are looked for, in words."""

    def fetch(self) -> None:
        """Downloads the files, checked by their hashes."""

    def read(self, train: bool) -> tuple[Tensor, list[int]]:
        """Images uint8 ``(n, C, H, W)`` and class indices of the training or test part."""


class IdxFiles:
    """The four IDX files of MNIST or of a set in its format.

    Args:
        root: folder to look in, and to download to.
        source: torchvision's class, which knows the addresses and hashes.
        classes: class names.
    """

    def __init__(self, root: Path, source: type[MNIST], classes: Sequence[str]) -> None:
        self.source = source
        self.classes = tuple(classes)
        self._root = root
        self._folders = [root, root / "raw", root / source.__name__ / "raw"]

    def missing(self) -> list[str]:
        """IDX files that are in none of the places."""
        names = self._names(train=True) + self._names(train=False)
        return [name for name in names if self._find(name) is None]

    def places(self) -> str:
        """The folders that are searched."""
        return "searched: " + ", ".join(str(folder) for folder in self._folders) + "; plain or .gz"

    def fetch(self) -> None:
        """Downloads by torchvision."""
        self.source(str(self._root), download=True)

    def read(self, train: bool) -> tuple[Tensor, list[int]]:
        """Reads one part by torchvision."""
        images_path, labels_path = (_present(self._find(name), name) for name in self._names(train))
        try:
            with tempfile.TemporaryDirectory() as folder:
                images: Tensor = read_image_file(str(_unpacked(images_path, Path(folder))))
                labels: Tensor = read_label_file(str(_unpacked(labels_path, Path(folder))))
        except _UNREADABLE as error:
            raise ConfigurationError(
                f"{images_path} or {labels_path.name} is damaged or no IDX file ({error!r}). Replace it, or "
                "set real.root to another folder and real.download=true"
            ) from error
        if len(images) != len(labels):
            raise ConfigurationError(
                f"{images_path} holds {len(images)} images but {labels_path.name} {len(labels)} labels, so "
                "they do not belong together. Set real.root to a folder with matching files"
            )
        return images.unsqueeze(1), labels.tolist()

    @staticmethod
    def _names(train: bool) -> list[str]:
        prefix = "train" if train else "t10k"
        return [f"{prefix}-images-idx3-ubyte", f"{prefix}-labels-idx1-ubyte"]

    def _find(self, name: str) -> Path | None:
        candidates = (folder / f"{name}{ending}" for folder in self._folders for ending in ("", ".gz"))
        return next((path for path in candidates if path.is_file()), None)


class CifarFiles:
    """CIFAR-10's binary version (``cifar-10-batches-bin``).

    torchvision reads the Python version, which is a pickle, and nothing here is unpickled.

    Args:
        root: folder to look in, and to download to.
    """

    URL = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
    MD5 = "c32a1d4ab5d03f1284b67883e8d87530"
    RECORD = 1 + 3 * 32 * 32  # bytes: a label, then the red, green and blue plane

    classes = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

    def __init__(self, root: Path) -> None:
        self._root = root
        self._folders = [root, root / "cifar-10-batches-bin"]

    def missing(self) -> list[str]:
        """Batch files that are in none of the places."""
        names = self._names(train=True) + self._names(train=False)
        return [name for name in names if self._find(name) is None]

    def places(self) -> str:
        """The folders that are searched."""
        searched = ", ".join(str(folder) for folder in self._folders)
        return f"searched: {searched}; the binary version, {self.URL}"

    def fetch(self) -> None:
        """Downloads and unpacks the archive."""
        download_and_extract_archive(self.URL, str(self._root), md5=self.MD5)

    def read(self, train: bool) -> tuple[Tensor, list[int]]:
        """Reads one part's records."""
        parts: list[Tensor] = []
        for name in self._names(train):
            path = _present(self._find(name), name)
            raw = np.fromfile(path, dtype=np.uint8)
            if raw.size == 0 or raw.size % self.RECORD or raw[:: self.RECORD].max() >= len(self.classes):
                raise ConfigurationError(
                    f"{path} is damaged: its {raw.size} bytes are not a whole number of records of "
                    f"{self.RECORD} bytes with a class in 0..9. Remove it and set real.download=true"
                )
            parts.append(torch.from_numpy(raw).view(-1, self.RECORD))
        records = torch.cat(parts)
        return records[:, 1:].reshape(-1, 3, 32, 32), records[:, 0].tolist()

    @staticmethod
    def _names(train: bool) -> list[str]:
        return [f"data_batch_{i}.bin" for i in range(1, 6)] if train else ["test_batch.bin"]

    def _find(self, name: str) -> Path | None:
        candidates = (folder / name for folder in self._folders)
        return next((path for path in candidates if path.is_file()), None)


def _present(path: Path | None, name: str) -> Path:
    if path is None:
        raise FileNotFoundError(name)
    return path


def _unpacked(path: Path, folder: Path) -> Path:
    """`path`, or its unpacked copy in `folder`: torchvision reads plain IDX files only."""
    if path.suffix != ".gz":
        return path
    plain = folder / path.stem
    with gzip.open(path, "rb") as packed:
        plain.write_bytes(packed.read())
    return plain
