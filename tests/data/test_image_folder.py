from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image, ImageOps

from lightning_diffaug.data import ImageFolderDataModule
from lightning_diffaug.data.image_files import ImageFiles, upright_size
from lightning_diffaug.errors import ConfigurationError

Write = Callable[..., None]


@pytest.fixture
def three_parts(tmp_path: Path, write_images: Write) -> Path:
    for part, count in (("train", 8), ("val", 2), ("test", 3)):
        for name in ("b-cat", "a-dog"):
            write_images(tmp_path / part / name, count)
    return tmp_path


def test_three_folders_are_the_three_parts(three_parts: Path) -> None:
    data = ImageFolderDataModule(three_parts)
    assert [len(part) for part in (data.splits.train, data.splits.val, data.splits.test)] == [16, 4, 6]
    assert data.class_names == ["a-dog", "b-cat"]
    assert data.class_counts == [8, 8]
    x, y = next(iter(data.train_dataloader()))
    assert (x.shape, x.dtype, y.dtype) == ((16, 3, 10, 10), torch.float32, torch.int64)


def test_pixels_reach_the_batch(three_parts: Path) -> None:
    test = ImageFolderDataModule(three_parts).splits.test
    assert [round(float(test[i][0].mean()) * 255) for i in range(3)] == [0, 10, 20]


def test_hidden_empty_and_foreign_entries_are_left_out(three_parts: Path) -> None:
    (three_parts / "train" / ".thumbnails").mkdir()
    (three_parts / "train" / "empty").mkdir()
    (three_parts / "train" / "a-dog" / "notes.txt").write_text("not an image")
    data = ImageFolderDataModule(three_parts)
    assert data.class_names == ["a-dog", "b-cat"]
    assert data.class_counts == [8, 8]


def test_one_folder_is_split_by_ratio_and_fixed(tmp_path: Path, write_images: Write) -> None:
    for name in ("cat", "dog"):
        write_images(tmp_path / name, 20)
    first, other = ImageFolderDataModule(tmp_path, seed=0), ImageFolderDataModule(tmp_path, seed=1)
    assert [len(part) for part in (first.splits.train, first.splits.val, first.splits.test)] == [28, 4, 8]
    assert torch.equal(first.splits.test.images, other.splits.test.images)
    moved = ImageFolderDataModule(tmp_path, split_seed=1)
    assert not torch.equal(first.splits.test.images, moved.splits.test.images)


def test_no_image_is_in_two_parts(tmp_path: Path, write_images: Write) -> None:
    for name in ("cat", "dog"):
        write_images(tmp_path / name, 20)
    data = ImageFolderDataModule(tmp_path, memory_limit_mb=0)
    paths = [path for part in (data.splits.train, data.splits.val, data.splits.test) for path in part.images.paths]
    assert len(set(paths)) == len(paths) == 40


def test_validation_is_split_off_training_when_absent(tmp_path: Path, write_images: Write) -> None:
    for part, count in (("train", 16), ("test", 3)):
        for name in ("cat", "dog"):
            write_images(tmp_path / part / name, count)
    splits = ImageFolderDataModule(tmp_path).splits
    assert [len(splits.train), len(splits.val), len(splits.test)] == [28, 4, 6]


def test_without_memory_the_same_images_are_read_from_disk(three_parts: Path) -> None:
    kept = ImageFolderDataModule(three_parts, shots=3).splits.train
    read = ImageFolderDataModule(three_parts, shots=3, memory_limit_mb=0).splits.train
    assert isinstance(kept.images, torch.Tensor)
    assert isinstance(read.images, ImageFiles)
    assert read.targets == kept.targets
    assert all(torch.equal(read[i][0], kept[i][0]) for i in range(6))


def test_default_size_is_native_up_to_32_and_said_once(
    tmp_path: Path, write_images: Write, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("cat", "dog"):
        write_images(tmp_path / name, 4, size=(60, 40))
    with caplog.at_level(logging.INFO):
        data = ImageFolderDataModule(tmp_path)
        data.setup("fit")
        data.setup("test")
    assert data.image_size == 32
    assert sum("real.size" in record.message for record in caplog.records) == 1
    assert ImageFolderDataModule(tmp_path, size=48).image_size == 48


@pytest.mark.parametrize(("mode", "channels"), [("L", 1), ("1", 1), ("LA", 1), ("RGB", 3), ("RGBA", 3), ("P", 3)])
def test_channels_follow_the_files(tmp_path: Path, write_images: Write, mode: str, channels: int) -> None:
    for name in ("cat", "dog"):
        write_images(tmp_path / name, 4, mode=mode)
    data = ImageFolderDataModule(tmp_path)
    assert data.in_channels == channels
    assert data.splits.train[0][0].shape == (channels, 10, 10)


def test_one_colour_image_makes_the_set_rgb(tmp_path: Path, write_images: Write) -> None:
    write_images(tmp_path / "cat", 4, mode="L")
    write_images(tmp_path / "dog", 4, mode="RGB")
    assert ImageFolderDataModule(tmp_path).in_channels == 3


def test_sixteen_bit_grey_is_scaled_not_clipped(tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        for index in range(3):
            Image.fromarray(np.full((8, 8), 32768, dtype=np.uint16)).save(tmp_path / name / f"{index}.png")
    data = ImageFolderDataModule(tmp_path)
    assert data.in_channels == 1
    assert data.splits.train.images.unique().tolist() == [128]


def test_images_are_cropped_to_their_centre_not_squeezed(tmp_path: Path) -> None:
    pixels = np.zeros((10, 30), dtype=np.uint8)
    pixels[:, 10:20] = 255
    Image.fromarray(pixels).save(tmp_path / "wide.png")
    image = ImageFiles([tmp_path / "wide.png"], size=10, channels=1)[0]
    assert image.unique().tolist() == [255]


@pytest.mark.parametrize(
    ("layout", "text"),
    [
        ([], r"nothing that can be read"),
        (["cat"], r"1 class folder\(s\), and at least 2"),
        (["train/cat", "train/dog"], r"no test/"),
        (["train/cat", "test/cat"], r"at least 2 classes are needed"),
        (["train/cat", "train/dog", "test/owl"], r"test has the classes \['owl'\], which train lacks"),
    ],
)
def test_a_wrong_layout_shows_the_expected_one(
    tmp_path: Path, write_images: Write, layout: list[str], text: str
) -> None:
    for folder in layout:
        write_images(tmp_path / folder, 4)
    with pytest.raises(ConfigurationError, match=text) as error:
        ImageFolderDataModule(tmp_path).setup()
    assert "<root>/train/<class>/*.png" in str(error.value)
    assert "real.root" in str(error.value)


def test_a_missing_root_shows_the_expected_layout(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"nowhere is not a folder.*real\.root[\s\S]*<root>/<class>"):
        ImageFolderDataModule(tmp_path / "nowhere").setup()


@pytest.mark.parametrize("memory_limit_mb", [0, 1024])
def test_a_damaged_image_is_named(three_parts: Path, memory_limit_mb: int) -> None:
    victim = three_parts / "train" / "a-dog" / "003.png"
    victim.write_bytes(victim.read_bytes()[:45])
    with pytest.raises(ConfigurationError, match=r"003\.png.*real\.root"):
        list(ImageFolderDataModule(three_parts, memory_limit_mb=memory_limit_mb).train_dataloader())


def test_a_class_too_small_to_split_is_named(tmp_path: Path, write_images: Write) -> None:
    write_images(tmp_path / "cat", 4)
    write_images(tmp_path / "dog", 2)
    with pytest.raises(ConfigurationError, match=r"class dog has 2"):
        ImageFolderDataModule(tmp_path).setup()


@pytest.mark.parametrize(("settings", "key"), [({"size": 2}, "real.size"), ({"split": [0.5, 0.5]}, "real.split")])
def test_a_setting_out_of_range_names_its_key(tmp_path: Path, settings: dict[str, object], key: str) -> None:
    with pytest.raises(ConfigurationError, match=key.replace(".", r"\.")):
        ImageFolderDataModule(tmp_path, **settings)


@pytest.mark.parametrize("orientation", range(9))
@pytest.mark.parametrize("suffix", ["jpg", "png", "tif"])
def test_the_upright_size_is_that_of_the_image_turned_upright(orientation: int, suffix: str, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    Image.new("L", (6, 4)).save(tmp_path / f"a.{suffix}", exif=exif)
    with Image.open(tmp_path / f"a.{suffix}") as image:
        assert upright_size(image) == ImageOps.exif_transpose(image).size
