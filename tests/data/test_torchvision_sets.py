from __future__ import annotations

import gzip
import hashlib
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from served_files import packed, served

from lightning_diffaug.data import TorchvisionDataModule
from lightning_diffaug.data.torchvision_files import CifarFiles
from lightning_diffaug.errors import ConfigurationError


def write_idx(folder: Path, packed: bool = False, per_class: int = 10, size: int = 28) -> None:
    """IDX files as of MNIST: image i is filled with its own number, classes take turns."""
    folder.mkdir(parents=True, exist_ok=True)
    for prefix, count in (("train", 10 * per_class), ("t10k", 20)):
        numbers = np.arange(count, dtype=np.uint8)
        pixels = np.repeat(numbers, size * size)
        contents = {
            f"{prefix}-images-idx3-ubyte": struct.pack(">iiii", 2051, count, size, size) + pixels.tobytes(),
            f"{prefix}-labels-idx1-ubyte": struct.pack(">ii", 2049, count) + (numbers % 10).tobytes(),
        }
        for name, content in contents.items():
            if packed:
                (folder / f"{name}.gz").write_bytes(gzip.compress(content))
            else:
                (folder / name).write_bytes(content)


def write_cifar(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in [f"data_batch_{i}.bin" for i in range(1, 6)] + ["test_batch.bin"]:
        planes = np.repeat(np.array([10, 20, 30], dtype=np.uint8), 32 * 32)
        records = [np.concatenate([np.array([label], dtype=np.uint8), planes]) for label in range(10)]
        (folder / name).write_bytes(np.concatenate(records).tobytes())


@pytest.mark.parametrize("where", [".", "raw", "FashionMNIST/raw"])
@pytest.mark.parametrize("packed", [False, True])
def test_idx_files_are_found_plain_or_packed_in_every_place(tmp_path: Path, where: str, packed: bool) -> None:
    write_idx(tmp_path / where, packed)
    data = TorchvisionDataModule("fashion_mnist", root=tmp_path)
    assert [len(p) for p in (data.splits.train, data.splits.val, data.splits.test)] == [90, 10, 20]
    assert (data.num_classes, data.in_channels, data.image_size) == (10, 1, 28)
    assert data.class_names[9] == "ankle-boot"


def test_images_keep_their_labels(tmp_path: Path) -> None:
    write_idx(tmp_path)
    splits = TorchvisionDataModule("mnist", root=tmp_path).splits
    for part in (splits.train, splits.val, splits.test):
        assert [int(image.max()) % 10 for image in part.images] == part.targets


def test_validation_is_stratified_fixed_and_apart_from_training(tmp_path: Path) -> None:
    write_idx(tmp_path)
    first = TorchvisionDataModule("mnist", root=tmp_path, seed=0, shots=4).splits
    second = TorchvisionDataModule("mnist", root=tmp_path, seed=1, shots=4).splits
    assert torch.equal(first.val.images, second.val.images)
    assert sorted(first.val.targets) == list(range(10))
    used = [{int(image.max()) for image in part.images} for part in (first.train, first.val)]
    assert not used[0] & used[1]


def test_reading_leaves_nothing_behind_in_a_users_folder(tmp_path: Path) -> None:
    write_idx(tmp_path, packed=True)
    before = sorted(tmp_path.rglob("*"))
    TorchvisionDataModule("mnist", root=tmp_path).setup()
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist", "cifar10"])
def test_missing_files_name_the_remedies(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigurationError, match=r"lacks .*real\.download=true.*real\.root") as error:
        TorchvisionDataModule(name, root=tmp_path).setup()
    assert str(tmp_path) in str(error.value)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("kept", [0, 3, 40])
def test_truncated_idx_files_are_named(tmp_path: Path, packed: bool, kept: int) -> None:
    write_idx(tmp_path, packed)
    path = tmp_path / ("train-images-idx3-ubyte" + (".gz" if packed else ""))
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(ConfigurationError, match=r"train-images-idx3-ubyte.* damaged.*real\.root"):
        TorchvisionDataModule("mnist", root=tmp_path).setup()


def test_labels_of_another_set_are_refused(tmp_path: Path) -> None:
    write_idx(tmp_path)
    (tmp_path / "t10k-labels-idx1-ubyte").write_bytes((tmp_path / "train-labels-idx1-ubyte").read_bytes())
    with pytest.raises(ConfigurationError, match=r"20 images but .* 100 labels"):
        TorchvisionDataModule("mnist", root=tmp_path).setup()


@pytest.mark.parametrize("where", [".", "cifar-10-batches-bin"])
def test_cifar_binary_files_are_read_as_rgb(tmp_path: Path, where: str) -> None:
    write_cifar(tmp_path / where)
    data = TorchvisionDataModule("cifar10", root=tmp_path, val_share=0.2)
    assert [len(p) for p in (data.splits.train, data.splits.val, data.splits.test)] == [40, 10, 10]
    assert (data.in_channels, data.image_size) == (3, 32)
    assert data.splits.test.images[0].float().mean(dim=(1, 2)).tolist() == [10, 20, 30]
    assert data.splits.test.targets == list(range(10))


def test_damaged_cifar_file_is_named(tmp_path: Path) -> None:
    write_cifar(tmp_path)
    path = tmp_path / "data_batch_3.bin"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ConfigurationError, match=r"data_batch_3\.bin is damaged"):
        TorchvisionDataModule("cifar10", root=tmp_path).setup()


@pytest.fixture
def archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A small archive of CIFAR-10's layout, served on loopback in place of the real one."""
    folder = tmp_path / "server"
    write_cifar(folder / "cifar-10-batches-bin")
    path = folder / "cifar-10-binary.tar.gz"
    packed(folder / "cifar-10-batches-bin", path)
    with served(folder) as address:
        monkeypatch.setattr(CifarFiles, "URL", f"{address}/{path.name}")
        yield path


def test_what_is_missing_is_downloaded_once(tmp_path: Path, archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CifarFiles, "MD5", hashlib.md5(archive.read_bytes()).hexdigest())
    TorchvisionDataModule("cifar10", root=tmp_path / "here", download=True).prepare_data()
    archive.unlink()
    assert TorchvisionDataModule("cifar10", root=tmp_path / "here", download=True).num_classes == 10


@pytest.mark.usefixtures("archive")
def test_download_of_altered_data_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"cifar10 could not be fetched.*corrupted.*real\.download=false"):
        TorchvisionDataModule("cifar10", root=tmp_path / "here", download=True).prepare_data()


def test_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(ConfigurationError, match=r"real\.name to one of mnist, fashion_mnist, cifar10"):
        TorchvisionDataModule("imagenet")


def test_validation_share_must_be_a_share() -> None:
    with pytest.raises(ConfigurationError, match=r"real\.val_share"):
        TorchvisionDataModule("mnist", val_share=1.0)
