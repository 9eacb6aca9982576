"""Images with masks: composed scenes share nothing between parts, a folder is read, and boxes follow from masks."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torchvision import tv_tensors

from lightning_diffaug.data import MaskBoxes, SegmentationDataModule, digit_scenes
from lightning_diffaug.data.mask_boxes import mask_regions
from lightning_diffaug.errors import ConfigurationError


def square(level: int, class_number: int, at: int, size: int = 12) -> tuple[np.ndarray, np.ndarray]:
    image, mask = np.full((size, size), 10, np.uint8), np.zeros((size, size), np.uint8)
    image[at : at + 4, at : at + 5], mask[at : at + 4, at : at + 5] = level, class_number
    return image, mask


def write_pairs(folder: Path, n: int = 6, classes: int = 2, palette: bool = False) -> None:
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    for i in range(n):
        image, mask = square(100 + 10 * i, 1 + i % classes, i % 5)
        Image.fromarray(image).save(folder / "images" / f"{i}.png")
        shown = Image.fromarray(mask)
        if palette:
            shown = Image.fromarray(mask, mode=None).convert("P")
            shown.putdata(mask.flatten().tolist())
        shown.save(folder / "masks" / f"{i}.png")


def folder(root: Path) -> Path:
    for part in ("train", "val", "test"):
        write_pairs(root / part)
    return root


# Composed ---------------------------------------------------------------------------------------------


def test_scenes_are_the_same_each_time_and_every_class_is_in_every_part() -> None:
    first, again = SegmentationDataModule(), SegmentationDataModule()
    for part in ("train", "val", "test"):
        one, other = getattr(first.splits, part), getattr(again.splits, part)
        for name in ("image", "mask"):
            assert torch.equal(one.fields[name], other.fields[name])
        assert one.fields["mask"].unique().tolist() == [0, 1, 2, 3, 4]
        assert bool((one.fields["mask"] > 0).flatten(1).any(1).all())
    sample = first.splits.train[0]
    assert isinstance(sample["mask"], tv_tensors.Mask)
    assert (sample["mask"].dtype, sample["mask"].shape) == (torch.int64, (24, 24))
    assert float(sample["image"].max()) <= 1.0
    assert first.model_facts()["class_names"] == ["background", "0", "1", "4", "7"]


def test_no_image_of_a_digit_and_no_region_of_a_photograph_is_in_two_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    written: dict[str, set[bytes]] = {}
    columns = torch.arange(640.0).expand(427, -1) * 255 / 639
    part_of = digit_scenes._part

    def recorded(part: str, *rest: Any) -> Any:
        inks = written.setdefault(part, set())
        monkeypatch.setattr(digit_scenes, "_write", lambda scene, mask, ink, *_: inks.add(ink.numpy().tobytes()))
        return part_of(part, *rest)

    monkeypatch.setattr(digit_scenes, "_photographs", lambda: [columns, columns])
    monkeypatch.setattr(digit_scenes, "_part", recorded)
    splits = digit_scenes.digit_scenes()
    edges = [(int(part.fields["image"].min()), int(part.fields["image"].max())) for part in
             (splits.train, splits.val, splits.test)]  # fmt: skip
    assert edges[0][1] < edges[1][0] + 1
    assert edges[1][1] < edges[2][0] + 1
    monkeypatch.undo()
    digits = digit_scenes.DigitsDataModule().load()
    for part in ("train", "val", "test"):
        images = getattr(digits, part).images[:, 0].to(torch.float32) / 255
        assert written[part]
        assert written[part] <= {image.numpy().tobytes() for image in images}
        assert all(written[part].isdisjoint(of) for other, of in written.items() if other != part)
    assert len(splits.test) > len(splits.train)


def test_a_mask_is_where_the_ink_differs_from_the_photograph() -> None:
    scenes = SegmentationDataModule().splits.test
    images, masks = scenes.fields["image"][:, 0].float(), scenes.fields["mask"]
    near = torch.nn.functional.max_pool2d((masks > 0)[:, None].float(), 5, 1, 2)[:, 0].bool() & (masks == 0)
    apart = [abs(float(i[m > 0].mean() - i[n].mean())) for i, m, n in zip(images, masks, near, strict=True)]
    assert sorted(apart)[len(apart) // 20] > 15


# A folder ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("palette", [False, True])
def test_pairs_of_a_folder_are_read_at_their_places(tmp_path: Path, palette: bool) -> None:
    for part in ("train", "test"):
        write_pairs(tmp_path / part, n=8, palette=palette)
    data = SegmentationDataModule(tmp_path, split=(0.5, 0.25, 0.25))
    train, test = data.splits.train, data.splits.test
    assert len(train) + len(data.splits.val) == len(test) == 8
    for i in range(8):
        image, mask = square(100 + 10 * i, 1 + i % 2, i % 5)
        assert torch.equal(test.fields["image"][i, 0], torch.from_numpy(image))
        assert torch.equal(test.fields["mask"][i], torch.from_numpy(mask).long())
    assert data.mask_classes == ["0", "1", "2"]


def test_image_and_mask_are_cropped_and_resized_alike(tmp_path: Path) -> None:
    for name in ("images", "masks"):
        (tmp_path / name).mkdir()
    for i in range(8):
        values = np.zeros((48, 64), np.uint8)
        values[6 * i : 6 * i + 12, 20:40] = 1
        Image.fromarray(values * 200).save(tmp_path / "images" / f"{i}.png")
        Image.fromarray(values).save(tmp_path / "masks" / f"{i}.png")
    data = SegmentationDataModule(tmp_path, size=16)
    for part in (data.splits.train, data.splits.val, data.splits.test):
        assert part.fields["mask"].shape[1:] == (16, 16)
        agree = (part.fields["image"][:, 0] >= 100) == (part.fields["mask"] == 1)
        assert float(agree.float().mean()) > 0.97


def test_masks_of_a_large_folder_are_not_held_whole(tmp_path: Path) -> None:
    side, n = 800, 24
    for name in ("images", "masks"):
        (tmp_path / name).mkdir()
    values = np.zeros((side, side), np.uint8)
    values[200:600, 300:500] = 3
    for i in range(n):
        Image.fromarray(values).save(tmp_path / "images" / f"{i}.png")
        Image.fromarray(values).save(tmp_path / "masks" / f"{i}.png")
    data = SegmentationDataModule(tmp_path, size=16)
    tracemalloc.start()
    try:
        data.setup()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 4 * 8 * side**2, "some masks of int64"
    assert data.mask_classes == ["0", "1", "2", "3"]


@pytest.mark.parametrize("suffix", ["bmp", "tif", "TIFF"])
def test_masks_of_other_lossless_formats_are_read(tmp_path: Path, suffix: str) -> None:
    write_pairs(tmp_path, n=6)
    for mask in sorted((tmp_path / "masks").iterdir()):
        Image.open(mask).save(mask.with_suffix(f".{suffix}"))
        mask.unlink()
    data = SegmentationDataModule(tmp_path, split=(0.4, 0.3, 0.3))
    parts = (data.splits.train, data.splits.val, data.splits.test)
    seen = {bytes(mask.numpy()) for part in parts for mask in part.fields["mask"]}
    assert seen == {bytes(torch.from_numpy(square(0, 1 + i % 2, i % 5)[1]).long().numpy()) for i in range(6)}


def no_mask(root: Path) -> None:
    (root / "train" / "masks" / "2.png").unlink()


def no_image(root: Path) -> None:
    (root / "train" / "images" / "2.png").unlink()


def other_size(root: Path) -> None:
    Image.fromarray(np.zeros((12, 9), np.uint8)).save(root / "val" / "masks" / "2.png")


def unknown_class(root: Path) -> None:
    Image.fromarray(np.full((12, 12), 7, np.uint8)).save(root / "test" / "masks" / "2.png")


def ignored(root: Path) -> None:
    Image.fromarray(np.full((12, 12), 255, np.uint8)).save(root / "train" / "masks" / "2.png")


def coloured(root: Path) -> None:
    Image.fromarray(np.zeros((12, 12, 3), np.uint8)).save(root / "train" / "masks" / "2.png")


def broken(root: Path) -> None:
    (root / "train" / "masks" / "2.png").write_text("no image")


def lossy(root: Path) -> None:
    mask = root / "train" / "masks" / "2.png"
    Image.open(mask).save(mask.with_suffix(".jpg"), quality=100)
    mask.unlink()


def lossy_tiff(root: Path) -> None:
    mask = root / "train" / "masks" / "2.png"
    Image.open(mask).save(mask.with_suffix(".tif"), compression="jpeg")
    mask.unlink()


def lossy_by_another_name(root: Path) -> None:
    mask = root / "train" / "masks" / "2.png"
    Image.open(mask).save(mask, format="jpeg")


def undecidable(root: Path) -> None:
    mask = root / "train" / "masks" / "2.png"
    Image.open(mask).save(mask.with_suffix(".webp"), lossless=True)
    mask.unlink()


def void_everywhere(root: Path) -> None:
    Image.fromarray(np.full((12, 12), 255, np.uint8)).save(root / "val" / "masks" / "2.png")


def only_background(root: Path) -> None:
    for path in (root / "train" / "masks").iterdir():
        Image.fromarray(np.zeros((12, 12), np.uint8)).save(path)


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (no_mask, r"2\.png has no mask .*real\.root.*<root>/train/images"),
        (no_image, r"2\.png is the mask of no image.*real\.root"),
        (other_size, r"2\.png is 9 by 12 pixels and 2\.png 12 by 12.*real\.root"),
        (unknown_class, r"2\.png of real\.root=.*class 7.*0 … 2.*real\.classes"),
        (ignored, r"2\.png of real\.root=.*the value 255.*save it as 1.*set real\.void=255"),
        (coloured, r"2\.png has colours \(mode RGB\).*real\.root"),
        (lossy, r"train/masks/2\.jpg is a mask in a format that can change values.*as png.*real\.root"),
        (lossy_tiff, r"train/masks/2\.tif is a mask in a format that can change values"),
        (lossy_by_another_name, r"2\.png is a mask in a format that can change values \(JPEG\)"),
        (undecidable, r"train/masks/2\.webp is a mask in a format that can change values"),
        (broken, r"2\.png .*cannot be read.*real\.root"),
        (only_background, r"no class but 0"),
    ],
)
def test_what_is_wrong_with_a_folder_is_said(tmp_path: Path, damage: Callable[[Path], None], says: str) -> None:
    damage(folder(tmp_path))
    with pytest.raises(ConfigurationError, match=f"(?s){says}"):
        SegmentationDataModule(tmp_path).setup()


def test_void_pixels_are_one_class_more_and_minus_100_in_a_batch(tmp_path: Path) -> None:
    folder(tmp_path)
    edge = np.zeros((12, 12), np.uint8)
    edge[2:9, 2:9], edge[4:7, 4:7] = 9, 1
    Image.fromarray(edge).save(tmp_path / "test" / "masks" / "0.png")
    data = SegmentationDataModule(tmp_path, void=9)
    raw = data.splits.test.fields["mask"][0]
    assert torch.equal(raw, torch.from_numpy(np.where(edge == 9, 3, edge)).long())
    batch = next(iter(data.test_dataloader()))
    assert isinstance(data.splits.test[0]["mask"], tv_tensors.Mask)
    assert torch.equal(batch["mask"][0], torch.from_numpy(np.where(edge == 9, -100, edge.astype(int))))
    assert data.mask_classes == ["0", "1", "2"]
    with pytest.raises(ConfigurationError, match=r"real\.void=1 is the number of the class 'a'"):
        SegmentationDataModule(tmp_path, void=1, classes=["nothing", "a"])
    with pytest.raises(ConfigurationError, match=r"real\.void=1 is among the class numbers, which go up to 2"):
        SegmentationDataModule(tmp_path, void=1).setup()
    Image.fromarray(np.where(edge == 9, 255, edge).astype(np.uint8)).save(tmp_path / "test" / "masks" / "0.png")
    void_everywhere(tmp_path)
    whole = SegmentationDataModule(tmp_path, void=255).splits.val.fields["mask"]
    assert whole.flatten(1).amin(1).tolist().count(3) == 1, "a mask may be void everywhere"


def test_another_layout_is_answered_by_the_expected_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"(?s)real\.root=.*<root>/images/<name>\.png \+ <root>/masks"):
        SegmentationDataModule(tmp_path).setup()
    with pytest.raises(ConfigurationError, match=r"real\.classes"):
        SegmentationDataModule(tmp_path, classes=["a", "a"])
    with pytest.raises(ConfigurationError, match=r"real\.root"):
        SegmentationDataModule(size=16)


def test_named_classes_may_be_absent_from_training(tmp_path: Path) -> None:
    unknown_class(folder(tmp_path))
    names = ["background", *"abcdefg"]
    data = SegmentationDataModule(tmp_path, classes=names)
    assert data.model_facts() == {"num_classes": 8, "class_names": names, "in_channels": 1}


def test_a_picture_shows_image_and_classes_side_by_side(tmp_path: Path) -> None:
    data = SegmentationDataModule(folder(tmp_path))
    raw = {name: values[3] for name, values in data.splits.train.fields.items()}
    shown = data.picture(raw)
    assert shown.shape == (3, 12, 24)
    assert torch.allclose(shown[:, :, :12], raw["image"].float() / 255)
    colours = {tuple(shown[:, y, 12 + x].tolist()): int(raw["mask"][y, x]) for y in range(12) for x in range(12)}
    assert sorted(colours.values()) == raw["mask"].unique().tolist()
    assert colours[(0.0, 0.0, 0.0)] == 0


# Boxes ------------------------------------------------------------------------------------------------


def two_squares() -> Tensor:
    mask = torch.zeros(10, 10, dtype=torch.int64)
    mask[1:4, 2:7] = 2
    mask[6:9, 6:8] = 2
    mask[7, 0] = 1  # too small
    return mask


def test_boxes_are_around_each_region_and_small_ones_have_none() -> None:
    regions = mask_regions(two_squares())
    assert regions.boxes.tolist() == [[2, 1, 7, 4], [6, 6, 8, 9]]
    assert regions.labels.tolist() == [2, 2]
    assert regions.masks.sum((1, 2)).tolist() == [15, 6]
    assert mask_regions(two_squares(), least=1).labels.tolist() == [2, 2, 1]
    assert mask_regions(two_squares(), least=1, void=2).labels.tolist() == [1]
    nothing = mask_regions(torch.zeros(1, 5, 5))
    assert (nothing.boxes.shape, nothing.labels.shape) == ((0, 4), (0,))


def test_boxes_for_filling() -> None:
    boxes = MaskBoxes()({"mask": tv_tensors.Mask(two_squares())})
    assert isinstance(boxes, tv_tensors.BoundingBoxes)
    assert tuple(boxes.canvas_size) == (10, 10)
    assert MaskBoxes(what="labels")({"mask": two_squares()}).tolist() == [2, 2]
    with pytest.raises(ConfigurationError, match="what"):
        MaskBoxes(what="scores")
